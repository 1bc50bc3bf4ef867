//! What was noted, compared with what the test expects.

use lenore::testing::Sequence;

use crate::panic_of;

fn noted(notes: &[&str]) -> Sequence {
    let log = Sequence::new();
    notes.iter().for_each(|note| log.note(note));
    log
}

#[test]
fn notes_are_compared_in_order_and_forgotten() {
    let log = noted(&["a", "b"]);
    let other = log.clone();
    other.note(3);
    log.expect(["a", "b", "3"]);
    other.expect_nothing();
    other.note("c");
    assert_eq!(format!("{log:?}"), r#"["c"]"#);
    assert_eq!(log.take(), ["c"]);
    log.expect([""; 0]);
}

#[test]
fn mismatch_shows_both_sides_and_who_has_noted_what_differs() {
    let text = panic_of(|| noted(&["a", "c", "b"]).expect(["a", "b", "c"]));
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("note 2 is not the expected one (tests/testing/sequences.rs:"), "{text}");
    assert_eq!(
        lines[1..],
        ["    expected  got", r#"    "a"       "a""#, r#"--> "b"       "c""#, r#"    "c"       "b""#]
    );
}

#[test]
fn missing_and_surplus_notes_are_mismatches() {
    let missing = panic_of(|| noted(&["a"]).expect(["a", "b"]));
    assert!(missing.starts_with("note 2 is missing") && missing.contains("--> \"b\"       -"), "{missing}");
    let surplus = panic_of(|| noted(&["a"]).expect_nothing());
    assert!(
        surplus.starts_with("note 1 is not the expected one") && surplus.contains("--> -         \"a\""),
        "{surplus}"
    );
}

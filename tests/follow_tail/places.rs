//! Where following begins, and where another run would go on.

use std::io::SeekFrom;

use super::Lab;

#[test] // K-FT-02, K-FT-03: from the end on
fn following_begins_at_the_end() {
    let mut lab = Lab::new();
    lab.write("old 1\nold 2\n");
    lab.follow();
    assert_eq!(lab.news(), [""; 0]);
    lab.append("new 1\nnew 2\n");
    assert_eq!(lab.news(), ["new 1", "new 2"]);
}

#[test] // K-FT-03: what is just being written comes whole, and nothing of the 4096 octets before it
fn a_line_without_its_end_is_kept() {
    let mut lab = Lab::new();
    lab.write(&("an old line\n".repeat(1000) + "begun"));
    lab.follow();
    assert_eq!(lab.news(), [""; 0]);
    lab.append(" and");
    assert_eq!(lab.news(), [""; 0]);
    lab.append(" ended\n");
    assert_eq!(lab.news(), ["begun and ended"]);
}

#[test] // K-FT-03: what is appended between the constructor and the first look
fn nothing_is_missed_after_the_start() {
    let mut lab = Lab::new();
    lab.write("old\n");
    lab.follow();
    lab.append("at once\n");
    assert_eq!(lab.news(), ["at once"]);
}

#[test] // K-FT-04
fn following_begins_where_it_is_told() {
    for (place, expected) in [
        (SeekFrom::Start(0), &["one", "two", "three"][..]),
        (SeekFrom::Start(4), &["two", "three"]),
        (SeekFrom::Start(5), &["wo", "three"]),
        (SeekFrom::Start(1000), &[]),
        (SeekFrom::End(0), &[]),
        (SeekFrom::End(-6), &["three"]),
        (SeekFrom::End(-1000), &["one", "two", "three"]),
    ] {
        let mut lab = Lab::new();
        lab.write("one\ntwo\nthree\n");
        lab.follow_with(move |builder| builder.seek(place));
        assert_eq!(lab.news(), expected, "{place:?}");
        lab.append("four\n");
        assert_eq!(lab.news(), ["four"], "{place:?}");
    }
}

#[test] // K-FT-05, K-FT-12
fn a_file_that_is_not_there_is_waited_for() {
    let mut lab = Lab::new();
    lab.follow();
    assert_eq!(lab.news(), [""; 0], "only idle events while it is waited for");
    lab.append("one\ntwo\n");
    assert_eq!(lab.news(), ["reset", "one", "two"]);
}

#[test] // K-FT-05: its start, whatever was sought
fn a_file_that_appears_is_read_from_its_start() {
    let mut lab = Lab::new();
    lab.follow_with(|builder| builder.seek(SeekFrom::End(0)));
    lab.append("one\n");
    assert_eq!(lab.news(), ["reset", "one"]);
}

#[test] // K-FT-17: where another run would go on
fn tell_says_what_has_been_delivered() {
    let mut lab = Lab::new();
    lab.write("one\ntwo\nthr");
    lab.follow_with(|builder| builder.seek(SeekFrom::Start(0)));
    assert_eq!(lab.news(), ["one", "two"]);
    let told = lab.told.take().expect("it is a regular file");
    assert_eq!(told, 8);
    let mut again = Lab { dir: lab.dir, ..Lab::new() };
    again.append("ee\n");
    again.follow_with(move |builder| builder.seek(SeekFrom::Start(told)));
    assert_eq!(again.news(), ["three"]);
}

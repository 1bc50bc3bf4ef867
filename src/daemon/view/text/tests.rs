use super::super::sample::{HOSTILE, snapshot};
use super::*;
use crate::harmful::is_harmful;

/// The line of a status that is about this subject.
#[track_caller]
fn line<'a>(text: &'a str, subject: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(subject)).unwrap_or_else(|| panic!("{subject}: {text}")).trim()
}

#[test] // O-ST-04, O-ST-17
fn status_has_the_board_and_each_limit_beside_its_value() {
    let text = status(&snapshot());
    assert_eq!(line(&text, "board"), "[wrrlke? ]");
    assert!(text.contains("r handles a request") && text.contains("a blank is a free slot"), "{text}");
    assert_eq!(line(&text, "children"), "7/7: 0 starting, 1 idle, 2 busy, 1 long, 1 keep, 1 exiting, 1 torn");
    assert_eq!(line(&text, "queue"), "5/128 clients wait at 127.0.0.1:3000");
    assert!(line(&text, "process").starts_with("12/1024 descriptors"), "{text}");
    assert_eq!(line(&text, "spares"), "1 idle, min_spare 2, max_spare 4");
    assert_eq!(line(&text, "saturated"), "since 2026-11-28T23:31:39.000123Z, for 2.50 s; 2.50 s in all");
    assert_eq!(line(&text, "forks"), "9; failed: 4 EAGAIN");
    assert_eq!(line(&text, "exits"), "2 signaled");
    assert!(
        line(&text, "last deaths").ends_with("7:2 pid=4999 cause=signal:SIGKILL age=1 min 1 s requests=8"),
        "{text}"
    );
}

#[test] // O-ST-07: what can't be known is said to be so, with the reason
fn unknown_queue_is_not_shown_as_empty() {
    let text = status(&snapshot());
    assert!(text.contains("unknown: no netlink at /run/\"x\""), "{text}");
}

#[test] // O-ST-17
fn unknown_letter_is_never_printed() {
    let mut snapshot = snapshot();
    snapshot.board = "w\x1bZ ".to_owned();
    assert_eq!(line(&status(&snapshot), "board"), "[w?? ]");
}

#[test] // O-ST-16
fn labels_of_clients_are_harmless() {
    let snapshot = snapshot();
    let text = children(&snapshot.children);
    assert!(!text.replace('\n', "").chars().any(is_harmful), "{text:?}");
    assert!(text.contains("</b>\"'&\\\\\\n\\u{1b}[2J\\u{202e}\\u{0}é"), "{HOSTILE:?} {text}");
    assert_eq!(text.lines().count(), 1 + snapshot.children.len());
}

#[test]
fn table_of_children_has_a_row_for_each_and_a_dash_for_what_is_unknown() {
    let text = children(&snapshot().children);
    let mut lines = text.lines();
    assert_eq!(
        lines.next().unwrap().split_whitespace().collect::<Vec<_>>(),
        ["CHILD", "PID", "STATE", "FOR", "AGE", "REQUESTS", "CPU", "MEMORY", "TOLD", "PEER"]
    );
    assert_eq!(
        lines.next().unwrap().split_whitespace().collect::<Vec<_>>(),
        ["0:1", "4000", "w", "250", "ms", "1", "h", "1", "min", "0", "-", "-", "stay"]
    );
    assert!(lines.nth(1).unwrap().contains("1.50 s  13.4 MiB  stay"), "{text}");
    assert_eq!(children(&[]).lines().count(), 1);
}

//! What a child is slow to read. The scenarios are in tests/programs/run_wheel/marks.rs.

use crate::{assert_closed, lines, only};

#[test] // K-RU-40, as K-RW-47 and K-RE-22 have it: put tells, and the wheel when there is room again
fn a_child_that_does_not_read_holds_nobody_up_and_makes_nothing_grow() {
    let lines = lines("marks");
    assert_eq!(lines[..3], ["out ready", "100 lines", "high"]);
    assert_eq!(only(&lines, &["low:", "put:", "flushed"]), ["low: true", "put: Accepted", "flushed"]);
    assert_eq!(only(&lines, &["high", "out"]), ["out ready", "high", "out 101000"]);
    assert_closed(&lines);
}

#[test] // K-RW-04
fn marks_that_make_no_sense_are_errors_of_the_constructor() {
    let lines = lines("wrong_marks");
    let refused = |setting: &str| lines.iter().find(|line| line.starts_with(setting)).expect("it was refused");
    assert!(refused("no low event").contains("marks") && refused("no low event").contains("on_low"));
    assert!(refused("no marks").contains("on_low") && refused("no marks").contains("needs marks"));
    assert!(refused("low is high").contains("below the high mark"));
}

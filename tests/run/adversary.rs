//! Children under any program. The scenario is in tests/programs/run_wheel/adversary.rs.

use crate::lines;

#[test] // K-RU-20, K-RU-21, K-RU-23, K-RU-25, K-RU-41, K-RU-42, K-RE-23
fn a_child_hears_and_says_what_its_whole_input_and_output_come_to() {
    assert_eq!(lines("adversary"), [""; 0]);
}

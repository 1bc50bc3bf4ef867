//! The example `component`, which ends by itself.

use crate::run_to_end;

#[test] // and what was withdrawn is not done
fn component_does_what_its_header_shows() {
    let outcome = run_to_end("component", &[]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    assert_eq!(outcome.stdout, ["wash", "dry", "fold"].map(|job| format!("{job}: done after 20 ms")));
}

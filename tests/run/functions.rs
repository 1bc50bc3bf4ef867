//! Functions of the program in a process of their own.

use super::{assert_closed, assert_each, content, in_directory, lines, only};

#[test] // K-RU-01, K-RU-02, K-RU-20, K-RU-21
fn a_function_has_the_streams_and_what_it_was_given() {
    let lines = lines("function");
    assert_eq!(only(&lines, &["out"]), ["out given 7", "out got one", "out got two"]);
    assert_eq!(only(&lines, &["err", "flushed"]).len(), 2);
    assert_eq!(only(&lines, &["exit"]), ["exit exit status: 0"]);
    assert_closed(&lines);
}

#[test] // K-RU-16
fn how_a_function_ends_is_how_its_process_ends() {
    for (scenario, status, stderr) in [
        ("function_returns", "exit status: 0", None),
        ("function_exits", "exit status: 7", None),
        ("function_fails", "exit status: 255", Some("err it went wrong")),
        ("function_panics", "exit status: 255", Some("err all went wrong")),
    ] {
        let lines = lines(scenario);
        assert_eq!(only(&lines, &["exit"]), [format!("exit {status}")], "{scenario}");
        let whole = lines.concat();
        assert_eq!(whole.matches("out written by the child").count(), 1, "{scenario}: {lines:?}");
        assert_eq!(whole.matches("not flushed, ").count(), 1, "{scenario}: {lines:?}");
        assert!(stderr.is_none_or(|line| lines.iter().any(|other| other.contains(line))), "{scenario}: {lines:?}");
        assert_eq!(only(&lines, &["dropped"]), ["dropped in the parent"], "{scenario}");
    }
}

#[test] // K-RU-17
fn a_function_may_have_an_event_loop_of_its_own() {
    let lines = lines("function_loop");
    let expected =
        ["out _stop", "out child's own loop, is child: true", "out line x", "out TERM", "out child's run returned"];
    assert_eq!(only(&lines, &["out", "must"]), expected);
    assert_eq!(only(&lines, &["exit"]), ["exit exit status: 0"]);
}

#[test] // K-RU-17, K-RU-12: what this process watches keeps no session in the child, weakly watched or not
fn a_function_that_runs_the_kernel_as_it_is_comes_to_its_end() {
    let lines = lines("function_runs_on");
    assert_eq!(only(&lines, &["out", "err"]), ["out awaits 0", "out _stop", "out child's run returned"]);
    assert_eq!(only(&lines, &["exit", "parent"]), ["exit exit status: 0", "parent watches true true"]);
}

#[test] // K-RU-13, K-RU-17 with K-SG-09
fn a_function_with_an_event_loop_ignores_pipe() {
    assert_each(&lines("function_pipe_alone"), &[("out", &["out writes"]), ("exit", &["exit signal: 13 (SIGPIPE)"])]);
    let out = ["out _stop", "out writes", "out errno Some(32)"];
    assert_each(&lines("function_pipe"), &[("out", &out), ("exit", &["exit exit status: 0"])]);
}

#[test] // K-RU-12: nothing that the parent's kernel watches is open in the child, which has a poller and a signal pipe; /proc is
// the process's, and for the forks of the child as well
fn a_function_inherits_none_of_the_kernels_descriptors() {
    let lines = lines("function_descriptors");
    let mut kinds = only(&lines, &["fd"]);
    kinds.sort_unstable();
    assert_eq!(kinds, ["fd /proc", "fd anon_inode", "fd pipe", "fd pipe"]);
}

#[test] // K-RU-43, K-RU-44
fn a_function_has_a_pid_from_its_fork_on() {
    let lines = lines("function_pid");
    assert_eq!(lines[..2], ["pid None", "kill: kill a process to come: errno 3"]);
    assert_eq!(lines[2..], ["pid known: true", "exit signal: 15 (SIGTERM)", "_stop"]);
    assert_eq!(self::lines("function_cancelled"), ["dropped", "_stop"]);
}

#[test] // K-RU-10, K-RU-16
fn what_a_functions_child_can_not_be_is_said_by_the_child() {
    let lines = lines("function_setup");
    let step = if nix::unistd::geteuid().is_root() { "setgroups" } else { "setgid" };
    let said = only(&lines, &["err"]);
    assert_eq!(said.len(), 1, "{lines:?}");
    assert!(said[0].starts_with(&format!("err {step}: ")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("must not run") || line == "exit exit status: 0"), "{lines:?}");
}

#[test] // T7, K-RU-22: what is no stream's is nobody's
fn a_fork_that_is_refused_is_an_error() {
    let refused = lines("function_refused");
    assert_eq!(refused[0], "error fork 11");
    assert_closed(&refused);
    let threads = lines("function_threads");
    assert!(threads[0].starts_with("second: can't fork: the process has 2 threads, besides this one "), "{threads:?}");
    assert_eq!(threads[1], "error fork 16");
    assert_closed(&threads);
}

#[test] // K-RU-09, K-RU-16
fn a_functions_output_is_redirected_and_flushed() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(in_directory("function_redirected", dir.path()), ["exit exit status: 0", "_stop"]);
    assert_eq!(content(dir.path(), "out"), "on stdout\non stderr\n");
}

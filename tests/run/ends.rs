//! How processes are ended, and what becomes of them when the wheel is dropped.

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use util::{DEADLINE, Running, kill, proc, wait_until};

use super::{assert_each, lines, only, rest, start};

#[test] // K-RU-43
fn kill_reaches_the_process_alone_and_never_a_stranger() {
    let lines = lines("kill");
    let pid = lines[1].strip_prefix("no signal: kill process ").and_then(|rest| rest.split(':').next()).unwrap();
    assert_eq!(lines[1], format!("no signal: kill process {pid}: signal NOSUCH: errno 22"));
    assert_eq!(lines[2], "kill: done");
    assert_eq!(lines[3], "exit signal: 10 (SIGUSR1)");
    assert_eq!(lines[4], "again: Err(\"kill process PID: No such process (os error 3)\")");
    assert_eq!(only(&lines, &["out"]), ["out ready", "out the other one lives"]);
}

#[test] // K-RU-49
fn kill_group_reaches_what_the_process_has_started() {
    let mut running = start("kill_group");
    let child =
        || running.next_line(DEADLINE).strip_prefix("out ").and_then(|pid| pid.parse::<i32>().ok()).expect("a pid");
    let children = [child(), child()];
    let lines = rest(&mut running);
    let said = only(&lines, &["out", "no", "kill_group:", "exit", "again:"]);
    let expected = [
        "out ready",
        "no signal: kill process PID signal -9: errno 22",
        "kill_group: done",
        "exit signal: 9 (SIGKILL)",
        "again: kill process PID: errno 3",
    ];
    assert_eq!(said, expected);
    children.into_iter().for_each(assert_ends);
}

#[test] // K-RU-49, K-RU-11
fn kill_group_does_not_reach_the_programs_own_group() {
    let lines = lines("kill_group_of_others");
    assert_eq!(
        only(&lines, &["out", "kill_group:"]),
        ["out ready", "kill_group: kill process PID: errno 1", "out alive"]
    );
}

/// Runs one of the scenarios in which the wheel is dropped; returns it with the pids of the child and of the child's child.
fn dropped(scenario: &str) -> (Running, i32, i32) {
    let running = start(scenario);
    let grandchild = running.wait_for_stderr("", DEADLINE).parse().expect("the shell says it");
    let line = running.next_line(DEADLINE);
    let child = line.strip_prefix("pid ").and_then(|pid| pid.parse().ok()).expect("the program says it");
    (running, child, grandchild)
}

fn assert_ends(pid: i32) {
    wait_until("the end of a process", DEADLINE, || (!proc::is_alive(pid)).then_some(()));
}

#[test] // K-RU-47, K-RE-40
fn dropping_the_wheel_leaves_the_process_alone() {
    let (mut running, child, grandchild) = dropped("drop_leave");
    running.signal(Signal::SIGUSR1);
    assert_eq!(running.next_line(DEADLINE), "goes on");
    assert!(proc::is_alive(child) && proc::is_alive(grandchild));
    kill(child, Signal::SIGTERM).unwrap();
    assert_eq!(rest(&mut running), ["exit signal: 15 (SIGTERM)", "_stop"]);
    assert!(proc::is_alive(grandchild));
}

#[test] // K-RE-40
fn dropping_the_wheel_may_end_the_whole_group() {
    for (scenario, end) in [("drop_terminate", "exit signal: 15 (SIGTERM)"), ("drop_kill", "exit signal: 9 (SIGKILL)")]
    {
        let (mut running, _, grandchild) = dropped(scenario);
        assert_eq!(rest(&mut running), [end, "_stop"]);
        assert_ends(grandchild);
    }
}

#[test] // K-RE-40: gone when the drop returns, reaped and reported in turn
fn dropping_the_wheel_may_wait_for_the_end() {
    assert_eq!(lines("drop_wait"), ["state Z", "exit signal: 9 (SIGKILL)", "_stop"]);
}

#[cfg(target_os = "linux")]
#[test] // K-RE-40: not for longer than 5 s, when KILL does not end the process
fn dropping_the_wheel_waits_for_a_limited_time() {
    use nix::sys::{ptrace, wait};
    let mut running = start("drop_wait_limit");
    let line = running.next_line(DEADLINE);
    let child = Pid::from_raw(line.strip_prefix("pid ").and_then(|pid| pid.parse().ok()).expect("a pid"));
    // The end of a process is its tracer's to see first. To its parent it is still there.
    if let Err(errno) = ptrace::seize(child, ptrace::Options::empty()) {
        eprintln!("skipped: no process can be traced here: {errno}");
        return;
    }
    running.signal(Signal::SIGUSR1);
    let line = running.next_line(2 * DEADLINE);
    let took: u64 = line.strip_prefix("dropped ").and_then(|ms| ms.parse().ok()).expect("a number of milliseconds");
    assert!((5000..10_000).contains(&took), "{took}");
    running.wait_for_stderr(&format!("process {child} has not ended after KILL"), DEADLINE);
    let end = wait::waitpid(child, None).expect("the tracer may wait");
    assert_eq!(end, wait::WaitStatus::Signaled(child, Signal::SIGKILL, false));
    assert_eq!(rest(&mut running), ["exit signal: 9 (SIGKILL)", "_stop"]);
}

#[test] // K-RU-47 with K-RE-18: children that nobody waits for are no zombies
fn children_of_dropped_wheels_are_reaped() {
    for scenario in ["reaps", "function_silent"] {
        let mut running = start(scenario);
        assert_eq!(running.next_line(DEADLINE), "ready");
        wait_until("no children", DEADLINE, || {
            (running.children().is_empty() && running.zombies().is_empty()).then_some(())
        });
        running.signal(Signal::SIGUSR1);
        rest(&mut running);
    }
    assert_eq!(lines("reaps_at_end"), ["children: false"]);
}

#[test] // K-RU-28, K-RU-47: with sig_child; and when the session is stopped
fn a_session_may_wait_for_the_pid_itself() {
    let lines_by_hand = lines("by_hand");
    assert_each(&lines_by_hand, &[("out", &["out x"]), ("child", &["child exit status: 0 extra"])]);
    assert_eq!(lines("stopped")[1..], ["_stop", "ended: true"]);
}

#[test] // K-RU-28: whatever ends a process, it is reaped and told of, and stands in nobody's way
fn a_real_time_signal_is_an_end_like_any_other() {
    let lines = lines("real_time");
    let exits = only(&lines, &["exit"]);
    assert_eq!(exits.len(), 2, "{lines:?}");
    assert!(exits[0].starts_with("exit signal: 40"), "{lines:?}");
    assert_eq!(exits[1], "exit exit status: 3");
}

#[test] // K-RU-13, T3: between the fork and the program
fn a_signal_that_comes_early_is_not_swallowed() {
    assert_eq!(only(&lines("early_signal"), &["it", "exit"]), ["exit signal: 15 (SIGTERM)"]);
}

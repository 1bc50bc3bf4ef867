//! K-EX-18: a failure that ends a process is in its log, whatever the program does with what `run` returns.

use std::net::SocketAddr;

use nix::sys::signal::Signal;

use crate::babysit::record;
use util::DEADLINE;
use util::lab::{LONG, Lab, held, tell};

const ONE: &str = "--start 1 --max 1 --max-spare 1 --requests 0";

/// The lines at error level.
fn errors(lab: &Lab) -> Vec<String> {
    let log = lab.running.stderr_text();
    log.lines().filter(|line| line.contains("[ERROR]")).map(str::to_owned).collect()
}

/// Has a child fail by `command`, and finds that its end is told once, with `what` and its pid; returns the record of its end.
#[track_caller]
fn expect_told(lab: &Lab, addr: SocketAddr, command: &str, what: &str) -> String {
    let (mut client, pid) = held(addr);
    let before = errors(lab).len();
    client.send(format!("{command}\n"));
    let record = record(lab, pid);
    let errors = errors(lab).split_off(before);
    let told = |line: &String| line.contains(what) && line.contains(&format!("the run ends: pid={pid}"));
    assert!(errors.len() == 1 && told(&errors[0]), "{command}: {errors:?}");
    record
}

#[test] // K-EX-18: an error, a panic, in a state, a `_start` and a `_stop`
fn failure_that_ends_a_child_is_in_the_log_once() {
    for flags in ["", "--swallow"] {
        let (mut lab, addr) = Lab::pool(&format!("{ONE} {flags}"), 1);
        for (command, what) in [
            ("fail", ", state input: as asked: "),
            ("panic", ", state input: panicked: as asked: "),
            ("start-panics", ", state _start: panicked: as asked: "),
            ("stop-fails", " (last), state _stop: as asked: "),
        ] {
            let record = expect_told(&lab, addr, command, what);
            assert!(record.contains("cause=exited:1 ") != (flags == "--swallow"), "{record}");
        }
        lab.end(Signal::SIGTERM);
    }
}

#[test] // K-EX-18, D-FO-01
fn failure_that_ends_a_child_that_was_forked_for_a_request_is_in_the_log_once() {
    let (mut lab, addr) = Lab::serve("daemon_postfork", "");
    expect_told(&lab, addr, "fail", ", state input: as asked: ");
    expect_told(&lab, addr, "panic", ", state input: panicked: as asked: ");
    lab.end(Signal::SIGTERM);
}

#[test] // K-EX-18
fn failure_of_a_connection_that_ends_a_child_of_a_server_is_in_the_log_once() {
    for flags in ["--mode prefork:1", "--mode fork:5"] {
        let (mut lab, addr) = Lab::serve("component_server", flags);
        expect_told(&lab, addr, "fail", ": as asked: ");
        lab.end(Signal::SIGTERM);
    }
}

#[test] // K-EX-18
fn failure_that_ends_the_parent_is_in_the_log_once() {
    for (flags, code) in [("", 1), ("--swallow", 0)] {
        let (mut lab, _) = Lab::serve("daemon_prefork", &format!("{ONE} --usr1 die {flags}"));
        lab.nth(1, "daemon_accept");
        lab.running.signal(Signal::SIGUSR1);
        assert_eq!(lab.running.wait_exit(LONG).code(), Some(code));
        lab.running.stderr_to_end(DEADLINE);
        let errors = errors(&lab);
        let told =
            |line: &String| line.contains(", state usr1: told to: ") && line.contains(&format!("pid={}", lab.pid()));
        assert!(errors.len() == 1 && told(&errors[0]), "{errors:?}");
    }
}

#[test] // K-EX-18: no state has failed, but the system
fn kernel_that_can_not_go_on_says_so_in_the_log_once() {
    for (flags, code) in [("", 1), ("--swallow", 0)] {
        let (mut lab, _) = Lab::serve("daemon_prefork", &format!("{ONE} --usr1 replace-poller {flags}"));
        lab.nth(1, "daemon_accept");
        lab.running.signal(Signal::SIGUSR1);
        assert_eq!(lab.running.wait_exit(LONG).code(), Some(code));
        lab.running.stderr_to_end(DEADLINE);
        let errors = errors(&lab);
        let own = format!("pid={}", lab.pid());
        let told: Vec<&String> = errors.iter().filter(|line| line.contains("the run ends: ")).collect();
        assert!(told.len() == 1 && told[0].contains("epoll_wait") && told[0].ends_with(&own), "{errors:?}");
    }
}

#[test] // K-EX-18: somebody has dealt with it
fn failure_that_is_handled_is_no_error() {
    let (mut lab, addr) = Lab::pool(ONE, 1);
    let (mut client, pid) = held(addr);
    assert_eq!(tell(&mut client, "handled"), "survived");
    assert_eq!(tell(&mut client, "hello"), "hello");
    client.finish_sending();
    client.expect_eof();
    lab.wait_board("w");
    assert_eq!(lab.running.children(), [pid]);
    assert_eq!(errors(&lab), [""; 0]);
    lab.end(Signal::SIGTERM);
}

#[test] // K-EX-18, D-FO-04: the Daemon has said by itself why it ends
fn failed_fork_that_ends_the_daemon_is_not_told_as_a_failed_state_as_well() {
    let (mut lab, addr) = Lab::serve("daemon_postfork", "--fail 1 --errno 1");
    let _client = util::Client::connect(addr);
    lab.expect_end_with(1);
    lab.running.stderr_to_end(DEADLINE);
    let errors = errors(&lab);
    assert!(errors.len() == 1 && errors[0].contains("the Daemon shuts down: "), "{errors:?}");
}

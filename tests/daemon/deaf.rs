//! O-DM-08: children that say they wait, run, and do not accept.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use util::lab::{Lab, held, send};
use util::{Client, DEADLINE, proc, stays, wait_until};

/// The lines of the log that contain `text`.
fn lines(lab: &Lab, text: &str) -> Vec<String> {
    lab.running.stderr_text().lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
}

/// A pool of which each child has done on USR1 what `--usr1` in `args` says. It is `said` by each when it has begun.
fn deaf_pool(args: &str, said: &str) -> (Lab, SocketAddr, Vec<i32>) {
    let children = args.split_whitespace().skip_while(|word| *word != "--start").nth(1);
    let children = children.and_then(|number| number.parse().ok()).expect("--start");
    let (lab, addr) = Lab::pool_by_signals(args, children);
    let deaf = lab.running.children();
    assert_eq!(deaf.len(), children);
    for child in &deaf {
        send(*child, Signal::SIGUSR1);
        lab.expect(*child, said);
    }
    (lab, addr, deaf)
}

/// Connects, and is answered within the time that it may take.
fn served_soon(addr: SocketAddr) -> (Client, i32) {
    let begin = Instant::now();
    let answered = held(addr);
    let took = begin.elapsed();
    // 3 s on a machine that has time, and 4 s where a child has to be killed first.
    assert!(took < Duration::from_secs(7), "{took:?}");
    answered
}

const NO_ROUND: &str = "--babysit-ms 600000";

#[test] // O-DM-08: in a call that blocks, with default settings
fn client_of_a_blocked_idle_child_is_served_by_another() {
    let (lab, addr, deaf) = deaf_pool("--start 1 --usr1 block", "blocked");
    let (_client, served_by) = served_soon(addr);
    assert!(!deaf.contains(&served_by));
    let line = lab.running.wait_for_stderr("does not answer, and no longer counts as a spare", DEADLINE);
    assert!(line.contains("[WARN]") && line.contains(&format!("pid={} slot=0 waiting=1", deaf[0])), "{line}");
    assert_eq!(lines(&lab, "does not answer").len(), 1);
}

#[test] // O-DM-08: in a loop without end, with default settings
fn client_of_a_spinning_idle_child_is_served_by_another() {
    let (_lab, addr, deaf) = deaf_pool("--start 1 --usr1 spin", "blocked");
    let (_client, served_by) = served_soon(addr);
    assert!(!deaf.contains(&served_by));
}

#[test] // O-DM-08: all of them
fn client_of_a_pool_of_blocked_children_is_served_by_another() {
    let args = "--start 3 --min-spare 1 --max-spare 3 --max 4 --usr1 block";
    let (lab, addr, deaf) = deaf_pool(&format!("{args} {NO_ROUND}"), "blocked");
    let (_client, served_by) = served_soon(addr);
    assert!(!deaf.contains(&served_by));
    wait_until("a line for each", DEADLINE, || {
        (lines(&lab, "does not answer, and no longer counts as a spare").len() == 3).then_some(())
    });
    assert!(deaf.iter().all(|child| proc::state(*child) == Some('S')), "there was room");
}

#[test] // O-DM-08: the babysitter ends it, as any rogue
fn blocked_idle_child_is_killed_as_a_rogue() {
    let (mut lab, addr, deaf) = deaf_pool("--start 1 --usr1 block --babysit-ms 300", "blocked");
    let (client, _) = served_soon(addr);
    let line = lab.running.wait_for_stderr("SIGKILL is sent", DEADLINE);
    assert!(line.contains(&format!("pid={} slot=0 why=unresponsive status=w", deaf[0])), "{line}");
    lab.wait_gone(&deaf);
    let line = lab.running.wait_for_stderr(&format!("child has ended: pid={}", deaf[0]), DEADLINE);
    assert!(line.contains("cause=rogue") && line.contains("unresponsive"), "{line}");
    drop(client);
    lab.end(Signal::SIGTERM);
}

#[test] // O-DM-08: where there can't be another one, it is not left to the babysitter
fn blocked_idle_child_of_a_full_pool_is_killed_at_once() {
    let args = "--start 1 --min-spare 1 --max-spare 1 --max 1 --usr1 block";
    let (mut lab, addr, deaf) = deaf_pool(&format!("{args} {NO_ROUND}"), "blocked");
    let (client, served_by) = served_soon(addr);
    assert!(!deaf.contains(&served_by));
    lab.running.wait_for_stderr("SIGKILL is sent", DEADLINE);
    let signals: Vec<bool> =
        lines(&lab, "why=unresponsive").iter().map(|line| line.ends_with("SIGKILL is sent")).collect();
    assert_eq!(signals, [false, true]);
    drop(client);
    lab.end(Signal::SIGTERM);
}

#[test] // O-DM-08: one that answers after all is a spare again
fn child_that_answers_late_is_a_spare_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let gate = dir.path().join("gate");
    fs::write(&gate, "").expect("a file");
    let args = format!("--start 1 --min-spare 1 --max-spare 1 --max 2 --usr1 gate --gate {}", gate.display());
    let (mut lab, addr, deaf) = deaf_pool(&format!("{args} {NO_ROUND}"), "blocked");
    let first = served_soon(addr);
    assert!(!deaf.contains(&first.1));
    fs::remove_file(&gate).expect("it is there");
    lab.expect(deaf[0], "passed");
    let second = held(addr);
    assert_eq!(second.1, deaf[0]);
    lab.running.wait_for_stderr(&format!("child accepts clients again: pid={}", deaf[0]), DEADLINE);
    assert_eq!(lines(&lab, "is rogue"), [""; 0]);
    drop((first, second));
    lab.end(Signal::SIGTERM);
}

#[test] // O-DM-08: it answers, and has forgotten to resume its listener
fn client_of_an_idle_child_that_has_paused_is_served_by_another() {
    let (mut lab, addr, deaf) = deaf_pool("--start 1 --usr1 pause --babysit-ms 300", "answered");
    let (client, served_by) = served_soon(addr);
    assert!(!deaf.contains(&served_by));
    let line = lab.running.wait_for_stderr("does not accept because its listeners are paused", DEADLINE);
    assert!(line.contains(&format!("pid={} slot=0 waiting=1", deaf[0])), "{line}");
    // Rounds of the babysitter.
    stays("alive", Duration::from_millis(1500), || proc::state(deaf[0]).is_some());
    assert_eq!(lines(&lab, "is rogue"), [""; 0]);
    drop(client);
    lab.end(Signal::SIGTERM);
}

#[test] // O-DM-08: where there can't be another one, it is asked to go
fn idle_child_of_a_full_pool_that_has_paused_is_retired() {
    let args = "--start 1 --min-spare 1 --max-spare 1 --max 1 --usr1 pause";
    let (mut lab, addr, deaf) = deaf_pool(&format!("{args} {NO_ROUND}"), "answered");
    let (client, served_by) = served_soon(addr);
    assert!(!deaf.contains(&served_by));
    let line = lab.running.wait_for_stderr(&format!("child has ended: pid={}", deaf[0]), DEADLINE);
    assert!(line.contains("cause=retired"), "{line}");
    drop(client);
    lab.end(Signal::SIGTERM);
}

#[test] // O-DM-08: a client who waits for something else is not the child's fault
fn child_that_accepts_is_no_spare_less_for_a_client_at_another_listener() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("socket");
    // What its parent has paused, and no child resumes.
    let args = format!("--start 1 --more-listeners {} --babysit-ms 300", path.display());
    let (lab, addr) = Lab::pool(&args, 1);
    let child = lab.running.children();
    let _waits = UnixStream::connect(&path).expect("it listens");
    let begin = Instant::now();
    // It was asked, and the answer was read.
    wait_until("a while", DEADLINE, || (begin.elapsed() > Duration::from_millis(3500)).then_some(()));
    assert_eq!(lines(&lab, "no longer counts as a spare"), [""; 0]);
    assert_eq!(lab.running.children(), child);
    assert_eq!(held(addr).1, child[0]);
}

#[test] // D-BA-01, D-PF-07: a surplus child that does not go must not keep its place for ever
fn blocked_idle_child_that_was_asked_to_go_is_a_rogue() {
    let args = "--start 2 --min-spare 2 --max-spare 2 --max 2 --grace-ms 200 --babysit-ms 300 --usr1 block";
    let (lab, _, deaf) = deaf_pool(args, "blocked");
    lab.running.signal(Signal::SIGTTOU);
    let log = lab.running.wait_for_stderr("cause=rogue:shutdown_timeout", DEADLINE);
    assert!(deaf.iter().any(|child| log.contains(&format!("pid={child} "))), "{log}");
    wait_until("one child", DEADLINE, || (lab.running.children().len() == 1).then_some(()));
}

#[test] // D-BA-01: the operator who has stopped a child continues it
fn child_that_is_stopped_is_not_continued_by_the_death_of_another() {
    let (lab, _) = Lab::pool(&format!("--start 2 --min-spare 1 --max-spare 2 --max 4 {NO_ROUND}"), 2);
    let [stopped, killed] = lab.running.children()[..] else { panic!("two children") };
    send(stopped, Signal::SIGSTOP);
    wait_until("the stop", DEADLINE, || (proc::state(stopped) == Some('T')).then_some(()));
    send(killed, Signal::SIGKILL);
    lab.running.wait_for_stderr("cause=signal:SIGKILL", DEADLINE);
    stays("the child is stopped", Duration::from_millis(200), || proc::state(stopped) == Some('T'));
    send(stopped, Signal::SIGCONT);
}

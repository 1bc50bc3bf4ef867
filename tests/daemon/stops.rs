//! D-BA-06, D-SH-07: time in which nothing ran is not held against anybody.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::babysit::{record, steps, wait_stopped};
use crate::cgroup::{Cgroup, Controller};
use util::lab::{LONG, Lab, held, send, tell};
use util::{Client, DEADLINE, at_once, proc, stays, wait_until};

/// One child; a stop of 4.5 s is longer than a request may take and than a round, and shorter than two.
const ONE: &str = "--start 1 --max 1 --max-spare 1 --requests 0 --babysit-ms 3000 --request-ms 2500";
const STOP: Duration = Duration::from_millis(4500);

fn is_stopped(pid: i32) -> bool {
    proc::stat(pid).is_some_and(|stat| stat.state == 'T')
}

/// Stops `pids` in this order, for `span`, and continues them in the other order.
#[track_caller]
pub fn stop(pids: &[i32], span: Duration) {
    for pid in pids {
        send(*pid, Signal::SIGSTOP);
        wait_stopped(*pid);
    }
    stays("stopped", span, || pids.iter().all(|pid| is_stopped(*pid)));
    pids.iter().rev().for_each(|pid| send(*pid, Signal::SIGCONT));
}

/// The request that `pid` has had in hand for a moment goes on, also after the parent has looked for what is overdue, and the
/// child serves the next one.
#[track_caller]
fn expect_untouched(lab: &mut Lab, mut client: Client, pid: i32) {
    // What was overdue in the parent comes before its answer.
    lab.board();
    assert_eq!(tell(&mut client, "hello"), "hello");
    client.finish_sending();
    client.expect_eof();
    lab.wait_board("w");
    assert_eq!(steps(lab, pid), [""; 0]);
    assert_eq!(lab.running.children(), [pid]);
    lab.end(Signal::SIGTERM);
}

#[test] // D-BA-06
fn stop_of_the_whole_group_is_not_held_against_a_request() {
    at_once([true, false], |is_parent_first| {
        let (mut lab, addr) = Lab::pool(ONE, 1);
        let (client, pid) = held(addr);
        let mut pids = [lab.pid(), pid];
        if !is_parent_first {
            pids.reverse();
        }
        stop(&pids, STOP);
        expect_untouched(&mut lab, client, pid);
    });
}

#[test] // D-BA-06: no signal tells of it
fn frozen_cgroup_is_not_held_against_a_request() {
    let Some(cgroup) = Cgroup::make(Controller::Freezer) else { return };
    let (mut lab, addr) = Lab::pool(ONE, 1);
    let (client, pid) = held(addr);
    cgroup.add(lab.pid());
    cgroup.add(pid);
    cgroup.freeze();
    stays("frozen", STOP, || cgroup.is_frozen());
    cgroup.thaw();
    expect_untouched(&mut lab, client, pid);
}

#[test] // D-BA-06: the parent has seen nothing of what its child did, and goes by what it has seen
fn stop_of_the_parent_is_not_held_against_a_request() {
    let (mut lab, addr) = Lab::pool(ONE, 1);
    let (client, pid) = held(addr);
    stop(&[lab.pid()], STOP);
    expect_untouched(&mut lab, client, pid);
}

#[test] // D-BA-06: seen as stopped by one round at most, which is not yet rogue
fn stop_of_a_child_is_not_held_against_its_request() {
    let (mut lab, addr) = Lab::pool(&ONE.replace("--babysit-ms 3000", "--babysit-ms 6000"), 1);
    let (mut client, pid) = held(addr);
    stop(&[pid], Duration::from_millis(5000));
    // The first round comes in this time.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(1200) {
        assert_eq!(tell(&mut client, "hello"), "hello");
    }
    expect_untouched(&mut lab, client, pid);
}

#[test] // D-BA-06, D-BA-01: time passes for it in between
fn stuck_child_is_found_though_the_group_is_stopped_again_and_again() {
    let (mut lab, addr) =
        Lab::pool("--start 1 --max 1 --max-spare 1 --requests 0 --babysit-ms 200 --request-ms 1200", 1);
    let (mut client, pid) = held(addr);
    client.send("sleep\n");
    let pids = [lab.pid(), pid];
    let give_up = Instant::now() + LONG;
    while steps(&lab, pid).is_empty() {
        assert!(Instant::now() < give_up, "a stuck child is not found");
        stop(&pids, Duration::from_millis(450));
        // Less than a request may take.
        let go_on = Instant::now() + Duration::from_millis(300);
        while Instant::now() < go_on && steps(&lab, pid).is_empty() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let record = record(&lab, pid);
    assert!(record.contains("cause=rogue:request_timeout"), "{record}");
    lab.end(Signal::SIGTERM);
}

#[test] // D-BA-06, D-BA-04: stopped with the group and never continued
fn child_that_stays_stopped_after_the_group_goes_on_is_rogue() {
    let (mut lab, addr) = Lab::pool(&ONE.replace("--babysit-ms 3000", "--babysit-ms 300"), 1);
    let (_client, pid) = held(addr);
    send(pid, Signal::SIGSTOP);
    wait_stopped(pid);
    stop(&[lab.pid()], Duration::from_millis(1000));
    let record = record(&lab, pid);
    assert!(record.contains("cause=rogue:stopped"), "{record}");
    lab.end(Signal::SIGTERM);
}

#[test] // D-SH-07
fn stop_of_the_group_is_not_held_against_children_that_end() {
    at_once([Signal::SIGTERM, Signal::SIGQUIT], |signal| {
        let (mut lab, addr) = Lab::pool("--start 1 --max 1 --max-spare 1 --requests 0 --grace-ms 2500", 1);
        let (mut client, pid) = held(addr);
        lab.running.signal(signal);
        lab.expect(lab.pid(), "daemon_shutdown");
        // The child has heard of it as well, so that the end of all is up to the client.
        assert_eq!(tell(&mut client, "hello"), "hello");
        stop(&[lab.pid(), pid], Duration::from_millis(4000));
        assert_eq!(tell(&mut client, "hello"), "hello");
        client.finish_sending();
        client.expect_eof();
        lab.expect_end();
        assert!(!lab.running.stderr_text().contains("has not ended in time"), "{signal}");
    });
}

#[test] // D-SH-07, D-SH-03: the time goes on where it was
fn child_that_does_not_end_is_killed_after_a_stop_of_the_group() {
    let (mut lab, addr) = Lab::pool("--start 1 --max 1 --max-spare 1 --requests 0 --grace-ms 1000 --deaf", 1);
    let (_client, pid) = held(addr);
    lab.running.signal(Signal::SIGTERM);
    lab.expect(lab.pid(), "daemon_shutdown");
    stop(&[lab.pid(), pid], Duration::from_millis(1500));
    wait_until("its end", DEADLINE, || (!proc::is_alive(pid)).then_some(()));
    lab.expect_end();
    assert!(lab.running.stderr_text().contains(&format!("child has not ended in time and is killed: pid={pid}")));
}

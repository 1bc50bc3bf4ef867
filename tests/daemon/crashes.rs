//! D-PF-08, D-PF-10: children that die as soon as they live, and what is known of those that have died.

use std::fs;

use lenore::daemon::BoardFile;
use nix::sys::signal::Signal;

use crate::babysit::record;
use crate::cgroup::{Cgroup, Controller};
use util::control::Control;
use util::lab::{Lab, held, send, tell};
use util::{DEADLINE, proc, test_program, wait_until};

/// How many forks the log tells of.
fn forks(lab: &Lab) -> usize {
    lab.running.stderr_text().matches("is forked into slot").count()
}

#[test] // D-PF-08: a back-off that doubles, a warning, and one that stays up ends it
fn children_that_crash_at_once_are_followed_ever_more_slowly() {
    let dir = tempfile::tempdir().expect("a directory");
    let broken = dir.path().join("broken");
    fs::write(&broken, "").expect("a file");
    let args = format!("--start 2 --min-spare 2 --max-spare 2 --max 2 --crash-while {}", broken.display());
    let (mut lab, addr) = Lab::serve("daemon_prefork", &args);
    lab.running.wait_for_stderr("5 in a row: the next is forked in 800ms", DEADLINE);
    let log = lab.running.stderr_text();
    for (deaths, wait) in [(2, "100ms"), (3, "200ms"), (4, "400ms")] {
        assert!(log.contains(&format!("{deaths} in a row: the next is forked in {wait}")), "{log}");
    }
    // Two at a time and five times: no storm.
    assert!(forks(&lab) <= 10, "{}", forks(&lab));
    assert!(log.contains("cause=exited:3"));
    fs::remove_file(&broken).expect("it is there");
    lab.wait_board("ww");
    held(addr);
    lab.end(Signal::SIGTERM);
}

#[test] // O-DM-03: each early death halves the number of those that are tried at once
fn pool_whose_children_die_early_tries_one_at_a_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let broken = dir.path().join("broken");
    let args = format!("--start 12 --min-spare 12 --max-spare 12 --max 12 --crash-while {}", broken.display());
    let (mut lab, addr) = Lab::pool(&args, 12);
    fs::write(&broken, "").expect("a file");
    lab.running.children().into_iter().for_each(|pid| send(pid, Signal::SIGKILL));
    lab.running.wait_for_stderr("5 in a row: the next is forked in 800ms", DEADLINE);
    // The first twelve, twelve in their place, of which the first deaths may be seen before the last forks, and one after each
    // pause.
    let forks = forks(&lab);
    assert!(forks <= 12 + 12 + 6, "{forks}");
    fs::remove_file(&broken).expect("it is there");
    lab.wait_board(&"w".repeat(12));
    held(addr);
    lab.end(Signal::SIGTERM);
}

#[test] // D-PF-08, D-PF-10: a line when it begins and one when it is over; and each death has its record
fn children_that_crash_at_once_are_warned_of_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let broken = dir.path().join("broken");
    let args =
        format!("--start 2 --min-spare 2 --max-spare 2 --max 2 --babysit-ms 200 --crash-while {}", broken.display());
    fs::write(&broken, "").expect("a file");
    let (mut lab, _) = Lab::serve("daemon_prefork", &args);
    for outages in 1..=2 {
        let crashes = || lab.running.stderr_text().matches("4 in a row").count();
        let before = crashes();
        wait_until("a crash loop", DEADLINE, || (crashes() > before || outages == 1 && crashes() > 0).then_some(()));
        fs::remove_file(&broken).expect("it is there");
        wait_until("the end of it", DEADLINE, || {
            (lab.running.stderr_text().matches("children stay up again: children=2 failed=").count() == outages)
                .then_some(())
        });
        let log = lab.running.stderr_text();
        let warnings = log.lines().filter(|line| line.contains("[WARN]") && line.contains("in a row"));
        assert_eq!(warnings.count(), outages, "{log}");
        let deaths = log.lines().filter(|line| line.contains("[WARN]") && line.contains("cause=exited:3")).count();
        assert!(deaths >= 4 * outages, "{log}");
        if outages == 1 {
            fs::write(&broken, "").expect("a file");
            lab.running.children().into_iter().for_each(|pid| send(pid, Signal::SIGKILL));
        }
    }
    lab.end(Signal::SIGTERM);
}

#[test] // D-PF-08: a listener that is broken does not spin
fn a_broken_listener_makes_no_storm() {
    let (mut lab, _) =
        Lab::pool_by_signals("--start 2 --min-spare 2 --max-spare 2 --max 2 --requests 0 --usr1 break", 2);
    let before = forks(&lab);
    lab.ask("broken");
    lab.running.wait_for_stderr("5 in a row: the next is forked in 800ms", DEADLINE);
    assert!(forks(&lab) - before <= 12, "{}", forks(&lab));
    lab.end(Signal::SIGTERM);
}

#[test] // D-PF-11, O-SD-19: in the log, on the board and in the metrics
fn child_killed_for_lack_of_memory_is_told_from_one_killed_by_hand() {
    let Some(cgroup) = Cgroup::make(Controller::Memory) else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let [board, socket] = ["board", "control.sock"].map(|name| dir.path().join(name));
    let args = "--start 1 --min-spare 1 --max-spare 1 --max 1 --requests 0 --usr1 status,text";
    let program = cgroup.start_in(&test_program("daemon_prefork"), args);
    let lab = Lab::launch(program.arg("--board").arg(&board).arg("--control").arg(&socket));
    let addr = lab.running.listening_addr();
    let mut lab = lab;
    let (_client, pid) = held(addr);
    send(pid, Signal::SIGKILL);
    let by_hand = record(&lab, pid);
    assert!(by_hand.contains("cause=signal:SIGKILL "), "{by_hand}");
    assert!(by_hand.ends_with(" note=\"KILL not sent by the Daemon, nor by the OOM killer\""), "{by_hand}");
    for _ in 0..2 {
        let (mut client, pid) = held(addr);
        // Less than the child is about to take.
        cgroup.limit_memory(40 << 20);
        client.send("eat\n");
        let for_memory = record(&lab, pid);
        assert!(for_memory.contains("cause=oom "), "{for_memory}");
    }
    let (_client, pid) = held(addr);
    send(pid, Signal::SIGKILL);
    assert!(record(&lab, pid).contains("cause=signal:SIGKILL "));
    let ended = "4 children have ended: 2 signaled, 2 oom";
    wait_until(ended, DEADLINE, || lab.ask("text").contains(ended).then_some(()));
    let metrics = Control::connect(&socket).ask("metrics").ok();
    for sample in ["{cause=\"oom\"} 2\n", "{cause=\"signaled\"} 2\n"] {
        assert!(metrics.contains(&format!("lenore_child_exits_total{sample}")), "{metrics}");
    }
    let exits = BoardFile::open(&board).expect("a board").snapshot().expect("a board").counters.exits;
    assert_eq!((exits["oom"], exits["signaled"]), (2, 2));
    lab.end(Signal::SIGTERM);
}

#[test] // D-PF-11, D-BA-02, D-SH-03
fn kill_of_the_daemon_has_no_note() {
    let (mut lab, addr) = Lab::pool(
        "--start 1 --max 1 --max-spare 1 --requests 0 --deaf --babysit-ms 100 --request-ms 100 --grace-ms 300",
        1,
    );
    let (_client, pid) = held(addr);
    let rogue = record(&lab, pid);
    lab.wait_board("w");
    lab.end(Signal::SIGTERM);
    let log = lab.running.stderr_to_end(DEADLINE);
    assert!(rogue.contains("cause=rogue:request_timeout ") && log.contains("cause=killed "), "{log}");
    assert!(!log.contains("note="), "{log}");
}

#[test] // D-PF-08: a request that kills its child is no reason to close the shop
fn requests_that_crash_their_children_do_not_slow_the_pool_down() {
    let (mut lab, addr) = Lab::pool("--start 1 --min-spare 1 --max-spare 1 --max 1 --usr1 status,text", 1);
    for _ in 0..10 {
        let (mut client, pid) = held(addr);
        client.send("exit\n");
        client.expect_eof_or_reset();
        lab.wait_gone(&[pid]);
    }
    assert!(!lab.running.stderr_text().contains("in a row"));
    // The last may not have been reaped yet.
    wait_until("all ten", DEADLINE, || lab.ask("text").contains("10 children have ended: 10 failed").then_some(()));
    lab.end(Signal::SIGTERM);
}

#[test] // D-PF-10: each cause, one record each, and the counts
fn every_child_leaves_a_record_of_its_cause() {
    let pool = "--start 1 --min-spare 1 --max-spare 1 --max 2 --requests 0 --hold-ms 100";
    let (mut lab, addr) = Lab::pool(&format!("{pool} --usr1 status,text"), 1);
    let mut expected = Vec::new();
    let (mut client, pid) = held(addr);
    lab.wait_board("rw");
    // Two wait when it is done, and one may.
    client.finish_sending();
    client.expect_eof();
    let retired = wait_until("one to be retired", DEADLINE, || {
        let left = lab.running.children();
        (left.len() == 1).then(|| left[0])
    });
    let log = lab.running.wait_for_stderr("cause=retired", DEADLINE);
    let served = if retired == pid { 0 } else { 1 };
    assert!(log.contains(&format!("requests={served}")), "{log}");
    lab.wait_board("w");
    let (mut client, pid) = held(addr);
    client.send("exit\n");
    client.expect_eof_or_reset();
    expected.push(format!("pid={pid} slot="));
    lab.running.wait_for_stderr("cause=exited:7", DEADLINE);
    lab.wait_board("w");
    let (_client, pid) = held(addr);
    send(pid, Signal::SIGABRT);
    expected.push(format!("pid={pid} slot="));
    lab.running.wait_for_stderr("cause=signal:SIGABRT", DEADLINE);
    lab.wait_board("w");
    let text = lab.ask("text");
    for cause in [" failed", " signaled", " retired"] {
        assert!(text.contains(cause), "{text}");
    }
    // One that has not been retired, for the shutdown to end.
    lab.wait_board("w");
    lab.end(Signal::SIGTERM);
    let log = lab.running.stderr_text();
    for pid in expected {
        assert_eq!(log.lines().filter(|line| line.contains("child has ended") && line.contains(&pid)).count(), 1);
    }
    assert!(log.contains("cause=shutdown"), "{log}");
    let ends = log.matches("child has ended").count();
    assert_eq!(ends, forks(&lab), "one record each");
}

#[test] // D-PF-10: one that has had its share of requests
fn a_child_that_has_had_its_share_leaves_a_record_too() {
    // The only child: it is never one spare too many.
    let (mut lab, addr) = Lab::pool("--start 1 --min-spare 1 --max-spare 1 --max 1 --requests 2 --usr1 status,text", 1);
    let pid = lab.running.children()[0];
    for _ in 0..2 {
        let (mut client, served_by) = held(addr);
        assert_eq!(served_by, pid);
        client.finish_sending();
        client.expect_eof();
    }
    let log = lab.running.wait_for_stderr("cause=recycled", DEADLINE);
    let record = log.lines().find(|line| line.contains("cause=recycled")).unwrap();
    assert!(record.contains(&format!("pid={pid} slot=0 ")) && record.contains(" requests=2"), "{record}");
    lab.wait_board("w");
    assert!(lab.ask("text").contains(" recycled"));
    lab.end(Signal::SIGTERM);
}

#[test] // D-PF-10: killed at shutdown
fn a_child_that_is_killed_at_shutdown_leaves_a_record_too() {
    let (mut lab, _) = Lab::pool("--start 1 --max 1 --max-spare 1 --deaf --grace-ms 200", 1);
    let pid = lab.running.children()[0];
    lab.end(Signal::SIGTERM);
    let log = lab.running.stderr_text();
    assert!(log.contains(&format!("pid={pid} slot=0 cause=killed age=")), "{log}");
}

#[test] // D-SP-05, T22: siblings do not draw the same number
fn jitter_spreads_the_ends_of_children() {
    let (lab, addr) = Lab::pool("--start 1 --max 1 --max-spare 1 --requests 16 --jitter 15", 1);
    let mut shares = Vec::new();
    let mut last = 0;
    while shares.len() <= 4 {
        let (mut client, pid) = held(addr);
        client.finish_sending();
        client.expect_eof();
        if pid == last {
            *shares.last_mut().expect("the first is never 0") += 1;
        } else {
            shares.push(1);
            last = pid;
            lab.wait_board("w");
        }
    }
    shares.pop();
    assert!(shares.iter().all(|share| (1..=16).contains(share)), "{shares:?}");
    let distinct: std::collections::BTreeSet<i32> = shares.iter().copied().collect();
    assert_eq!(distinct.len(), shares.len(), "{shares:?}");
}

#[test] // TTIN and TTOU: one more, one less
fn the_pool_is_resized_while_it_runs() {
    let (mut lab, addr) = Lab::pool("--start 2 --min-spare 2 --max-spare 2 --max 2 --requests 0", 2);
    // Far more than the board was made for.
    for children in 3..=12 {
        lab.running.signal(Signal::SIGTTIN);
        lab.wait_board(&"w".repeat(children));
    }
    let (mut client, busy) = held(addr);
    for children in (1..=11).rev() {
        lab.running.signal(Signal::SIGTTOU);
        wait_until("a smaller pool", DEADLINE, || (lab.running.children().len() == children).then_some(()));
    }
    // One remains in any case, and the busy one is never it that goes.
    lab.running.signal(Signal::SIGTTOU);
    assert_eq!(tell(&mut client, "hello"), "hello");
    assert!(proc::is_alive(busy));
    client.finish_sending();
    client.expect_eof();
    lab.wait_board("w");
    lab.running.signal(Signal::SIGTTIN);
    lab.wait_board("ww");
    lab.end(Signal::SIGTERM);
}

#[test] // TTIN and TTOU in a post-forking server
fn a_post_forking_server_is_resized_while_it_runs() {
    let (mut lab, addr) = Lab::serve("daemon_postfork", "--max 1");
    lab.expect(lab.pid(), "daemon_start");
    let (one, _) = held(addr);
    lab.expect(lab.pid(), "daemon_pause");
    lab.running.signal(Signal::SIGTTIN);
    lab.expect(lab.pid(), "daemon_accept");
    let (two, _) = held(addr);
    lab.nth(2, "daemon_pause");
    lab.running.signal(Signal::SIGTTOU);
    lab.running.wait_for_stderr("resized: max_children=1", DEADLINE);
    drop(one);
    wait_until("one child", DEADLINE, || (lab.running.children().len() == 1).then_some(()));
    assert_eq!(lab.story(lab.pid()).matches("daemon_accept").count(), 1, "one is all that there may be");
    drop(two);
    lab.nth(2, "daemon_accept");
    lab.end(Signal::SIGTERM);
}

#[test] // TTIN and TTOU: the spares of the smallest pool are no measure for those of a larger one
fn a_pool_that_was_made_smaller_and_larger_is_what_it_was() {
    let (mut lab, _) = Lab::pool("--start 2 --max 4 --min-spare 1 --max-spare 3", 2);
    let sizes = || -> Vec<String> {
        let log = lab.running.stderr_text();
        log.lines().filter_map(|line| Some(line.split_once("resized: max_children=")?.1.to_owned())).collect()
    };
    let resize = |signal| {
        let before = sizes().len();
        lab.running.signal(signal);
        wait_until("another size", DEADLINE, || sizes().get(before).cloned())
    };
    let (smaller, larger) = (|| resize(Signal::SIGTTOU), || resize(Signal::SIGTTIN));
    assert_eq!(smaller(), "3 min_spare=1 max_spare=2");
    assert_eq!(smaller(), "2 min_spare=1 max_spare=1");
    // One remains in any case, and what is too much is not made up for later.
    assert_eq!(smaller(), "1 min_spare=1 max_spare=1");
    for refused in 1..3 {
        lab.running.signal(Signal::SIGTTOU);
        let is_told = || lab.running.stderr_text().matches("not resized: one child has to be left").count() == refused;
        wait_until("its refusal", DEADLINE, || is_told().then_some(()));
    }
    assert_eq!(larger(), "2 min_spare=1 max_spare=1");
    assert_eq!(larger(), "3 min_spare=1 max_spare=2");
    assert_eq!(larger(), "4 min_spare=1 max_spare=3");
    assert_eq!(larger(), "5 min_spare=2 max_spare=4");
    lab.end(Signal::SIGTERM);
}

#[test] // TTOU before all of the first children are there: fewer are enough then
fn a_pool_that_is_made_smaller_while_it_starts_still_gets_ready() {
    let (mut lab, _) = Lab::serve("daemon_prefork", "--start 3 --max 3 --min-spare 1 --max-spare 3 --shrink-early");
    lab.expect(lab.pid(), "daemon_parent");
    lab.wait_board("ww");
    lab.end(Signal::SIGTERM);
}

#[test] // the same with all of them there, while the next can't be forked
fn a_pool_that_can_not_get_larger_is_ready_when_it_need_not() {
    let args = "--start 3 --max 3 --min-spare 1 --max-spare 3 --fail-nth 3 --shrink-then";
    let (mut lab, _) = Lab::serve("daemon_prefork", args);
    lab.expect(lab.pid(), "daemon_parent");
    lab.wait_board("ww");
    lab.end(Signal::SIGTERM);
}

#[test] // TTIN and TTOU that reach a child as well, as from pkill: from a shell's job they would stop it
fn a_child_has_no_use_for_ttin() {
    let (lab, addr) = Lab::pool("--start 1 --max 1 --max-spare 1 --requests 0", 1);
    let (mut client, pid) = held(addr);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it is alive");
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("what it catches");
    let caught = u64::from_str_radix(caught.trim(), 16).expect("a mask");
    for signal in [Signal::SIGTTIN, Signal::SIGTTOU] {
        assert!(caught & 1 << (signal as u32 - 1) != 0, "{signal} would stop it");
        util::lab::send(pid, signal);
        assert_eq!(tell(&mut client, "hello"), "hello");
    }
    assert_eq!(lab.running.children(), [pid]);
    assert!(!lab.running.stderr_text().contains("resized"));
}

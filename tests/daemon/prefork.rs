//! D-PF: signals, counting, errors, spares, retirement.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use nix::sys::signal::Signal;

use util::lab::{Lab, held, pid_of, send, tell};
use util::{Client, DEADLINE, proc, wait_until};

#[test] // D-PF-01, D-PF-02, D-SH-01
fn signals_come_in_order_in_parent_and_children() {
    let (mut lab, addr) = Lab::pool("--start 3 --min-spare 3 --max-spare 3 --max 3 --requests 0", 3);
    let (mut client, child) = held(addr);
    lab.wait_board("rww");
    client.finish_sending();
    client.expect_eof();
    lab.wait_board("www");
    let children = lab.running.children();
    lab.end(Signal::SIGTERM);
    lab.all();
    let parent = lab.story(lab.pid());
    let parent: Vec<&str> = parent.split(", ").filter(|what| !what.starts_with("board")).collect();
    assert_eq!(parent[..3], ["daemon_start", "daemon_parent", "daemon_shutdown"]);
    assert_eq!(children.len(), 3);
    for pid in children {
        let accepts = if pid == child { "daemon_accept, daemon_accept" } else { "daemon_accept" };
        assert_eq!(lab.story(pid), format!("daemon_child, {accepts}, daemon_shutdown"));
    }
}

#[test] // D-PF-01: "in the parent", so not in a child that is forked before everybody has heard of it
fn daemon_parent_reaches_no_child() {
    let (mut lab, _) = Lab::pool("--start 1 --min-spare 4 --max-spare 4 --max 4", 4);
    let children = lab.running.children();
    lab.end(Signal::SIGTERM);
    lab.all();
    assert_eq!(lab.story(lab.pid()).matches("daemon_parent").count(), 1);
    for pid in children {
        assert_eq!(lab.story(pid), "daemon_child, daemon_accept, daemon_shutdown");
    }
}

#[test] // D-PF-03, D-SP-05: long counts one like req, and neither counts again within the request
fn a_request_counts_once() {
    let (lab, addr) = Lab::pool("--start 1 --max 1 --max-spare 1 --requests 3", 1);
    let mut pids = Vec::new();
    for reports in [&["long", "req", "long"][..], &["req"], &[], &[]] {
        let (mut client, pid) = held(addr);
        pids.push(pid);
        for report in reports {
            assert_eq!(tell(&mut client, report), "ok");
            lab.wait_board(&report[..1]);
        }
        client.finish_sending();
        client.expect_eof();
    }
    assert!(pids[0] == pids[1] && pids[1] == pids[2] && pids[2] != pids[3], "{pids:?}");
}

#[test] // D-PF-04
fn reporting_wait_twice_is_logged_with_its_place_and_gives_no_second_accept() {
    let (mut lab, addr) = Lab::pool("--start 1 --max 1 --max-spare 1 --requests 0", 1);
    let (mut client, pid) = held(addr);
    assert_eq!(tell(&mut client, "double-wait"), "twice");
    let source = include_str!("../programs/daemon_prefork.rs");
    let line = 1 + source.lines().position(|line| line.ends_with("// the second of two")).expect("the marked line");
    let logged = lab.running.wait_for_stderr("status wait reported twice in a row", DEADLINE);
    assert!(logged.contains(&format!("daemon_prefork.rs:{line}:")), "{logged}");
    assert_eq!(tell(&mut client, "hello"), "hello");
    drop(client);
    lab.end(Signal::SIGTERM);
    lab.all();
    assert_eq!(lab.story(pid), "daemon_child, daemon_accept, daemon_accept, daemon_shutdown");
}

#[test] // D-PF-05
fn a_report_from_the_wrong_process_or_of_no_status_changes_nothing() {
    let (lab, addr) = Lab::pool("--start 2 --max 2 --max-spare 2 --usr1 update,status", 2);
    lab.ask("board");
    let story = lab.story(lab.pid());
    assert!(story.contains("update true, update true, update error: no such status: nonsense"), "{story}");
    assert!(story.contains("board [ww     ] free 5 children 2"), "{story}");
    let (mut client, _) = held(addr);
    assert_eq!(tell(&mut client, "nonsense"), "error: no such status: nonsense");
    lab.wait_board("rw");
    // Posted, it is found in the log, with the place that it came from.
    let logged = lab.running.wait_for_stderr("no such status: nonsense (reported at", DEADLINE);
    assert!(logged.contains("util/daemon_program.rs:"), "{logged}");
}

#[test] // D-PF-04, D-PF-05: the next request makes the same mistake again
fn mistake_that_each_request_repeats_is_logged_once_for_each_place() {
    let (lab, addr) = Lab::pool("--start 1 --max 1 --max-spare 1 --requests 0", 1);
    for request in 1..=3 {
        let (mut client, _) = held(addr);
        assert_eq!(tell(&mut client, "nonsense"), "error: no such status: nonsense");
        assert_eq!(tell(&mut client, "double-wait"), "twice");
        assert_eq!(tell(&mut client, "keep"), "ok");
        drop(client);
        // The end of the client is one as well, unless the child accepts the next client before.
        wait_until("the mistakes of a request", DEADLINE, || {
            let log = lab.running.stderr_text();
            let (keep, wait) = ("status keep reported without", "status wait reported twice");
            (log.matches(keep).count() == request && log.matches(wait).count() == 2 * request).then_some(())
        });
    }
    let log = lab.running.stderr_text();
    for text in ["no such status: nonsense", "status wait reported twice in a row", "status keep reported without"] {
        let lines = || log.lines().filter(|line| line.contains(text));
        let place =
            |line: &str| line.split_once("at tests/").and_then(|(_, rest)| Some(rest.split_once(')')?.0.to_owned()));
        let places: BTreeSet<String> = lines().filter_map(place).collect();
        let warned: Vec<&str> = lines().filter(|line| !line.contains("[DEBUG]")).collect();
        assert!(warned.len() == places.len() && lines().count() >= 3 * places.len() - 1, "{log}");
        assert_eq!(warned.into_iter().filter_map(place).collect::<BTreeSet<_>>(), places);
    }
}

#[test] // D-PF-06, D-PF-07: what is too much goes, at once
fn surplus_spares_are_retired_and_shortage_is_filled() {
    let (mut lab, addr) = Lab::pool("--start 2 --min-spare 2 --max-spare 3 --max 12 --requests 0 --hold-ms 100", 2);
    for _ in 0..3 {
        let clients: Vec<(Client, i32)> = (0..8).map(|_| held(addr)).collect();
        // Three, where it had to grow in a hurry.
        let wait_for_spares = |busy: usize| {
            wait_until("two or three spares", DEADLINE, || {
                let board = lab.board();
                let (spares, all) = (board.matches('w').count(), board.replace(' ', "").len());
                ((2..=3).contains(&spares) && board.matches('r').count() == busy && all == spares + busy).then_some(())
            });
        };
        wait_for_spares(8);
        drop(clients);
        wait_for_spares(0);
    }
    lab.end(Signal::SIGTERM);
    let log = lab.running.stderr_text();
    assert!(!log.contains("[WARN]"), "a retired child ends in order: {log}");
}

#[test] // D-PF-07: QUIT is what the parent retires a child with
fn a_busy_child_that_is_retired_finishes_its_request() {
    let (lab, addr) = Lab::pool("--start 1 --max 1 --max-spare 1 --requests 0", 1);
    let (mut client, pid) = held(addr);
    send(pid, Signal::SIGQUIT);
    for text in ["one", "two", "long", "three"] {
        assert_eq!(pid_of(&client.line(text)), pid);
    }
    client.finish_sending();
    client.expect_eof();
    lab.wait_gone(&[pid]);
    assert_ne!(held(addr).1, pid);
}

#[test] // D-PF-07: the request and the order to go meet in one child
fn a_child_that_is_retired_while_a_request_arrives_drops_nothing() {
    let (lab, addr) = Lab::pool("--start 1 --max 1 --max-spare 1 --requests 0", 1);
    for _ in 0..20 {
        lab.wait_board("w");
        let pid = lab.running.children()[0];
        send(pid, Signal::SIGSTOP);
        wait_until("its stop", DEADLINE, || (proc::stat(pid)?.state == 'T').then_some(()));
        send(pid, Signal::SIGQUIT);
        let mut client = Client::connect(addr);
        client.send("hello\n");
        send(pid, Signal::SIGCONT);
        pid_of(&client.read_line());
        client.finish_sending();
        client.expect_eof();
        lab.wait_gone(&[pid]);
    }
}

#[test] // D-PF-06, D-PF-07
fn a_pool_that_breathes_under_load_drops_nothing() {
    let (mut lab, addr) = Lab::pool("--start 1 --min-spare 1 --max-spare 1 --max 8 --requests 5", 1);
    for _ in 0..30 {
        let mut clients: Vec<Client> = (0..5).map(|_| Client::connect(addr)).collect();
        clients.iter_mut().for_each(|client| client.send("hello\n"));
        for client in &mut clients {
            pid_of(&client.read_line());
            client.finish_sending();
            client.expect_eof();
        }
        assert!(lab.running.children().len() <= 8);
    }
    lab.end(Signal::SIGTERM);
}

#[test] // D-FO-04, pre-forking: the start is finished after a pause
fn a_failed_fork_is_made_up_for() {
    let (mut lab, addr) = Lab::pool("--start 4 --max 4 --max-spare 4 --fail-nth 2", 4);
    lab.expect(lab.pid(), "daemon_parent");
    held(addr);
    lab.end(Signal::SIGTERM);
}

#[test] // D-FO-04: any other error is the end, in order
fn a_fork_that_can_never_succeed_ends_the_daemon() {
    let mut lab = Lab::start("daemon_prefork", "--start 3 --fail-nth 2 --errno 1");
    lab.expect_end_with(1);
    lab.all();
    let story = lab.story(lab.pid());
    assert!(story.contains("daemon_shutdown") && !story.contains("daemon_parent"), "{story}");
    lab.running.wait_for_stderr("the Daemon shuts down", DEADLINE);
    // It is the parent's failure: the child has none. The third is not forked any more.
    wait_until("the end of a child", DEADLINE, || lab.running.stderr_text().contains("child has ended").then_some(()));
    assert_eq!(lab.running.stderr_text().matches("cause=shutdown").count(), 1);
}

#[test] // T22: what was due to happen in the parent happens there alone
fn the_daemons_own_alarms_stay_with_the_parent() {
    let (mut lab, addr): (Lab, SocketAddr) = Lab::pool("--start 2 --max 4 --max-spare 2 --min-spare 2 --requests 1", 2);
    for _ in 0..20 {
        let (mut client, _) = held(addr);
        let peek = tell(&mut client, "peek");
        assert!(!peek.contains("stays alive: 1 alarm") && peek.contains("event queue: 0 waiting"), "{peek}");
        client.finish_sending();
        client.expect_eof();
    }
    lab.end(Signal::SIGTERM);
}

/// How often `what` stands in the log so far.
fn told(lab: &Lab, what: &str) -> usize {
    lab.running.stderr_text().matches(what).count()
}

#[test] // D-FO-05: the rest of a batch is not tried, and the log has a line when it begins and one when it ends
fn forks_that_keep_failing_are_told_once() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let gate = dir.path().join("gate");
    std::fs::write(&gate, "").expect("a file can be made");
    let args =
        format!("--start 30 --max 30 --min-spare 1 --max-spare 30 --fail-from 6 --fail-while {}", gate.display());
    let mut lab = Lab::start("daemon_prefork", &args);
    let begin = lab.running.wait_for_stderr("forks fail", DEADLINE);
    assert!(begin.contains("Resource temporarily unavailable"), "{begin}");
    assert!(begin.ends_with("children=5 missing=25 next_try=0.1"), "{begin}");
    // One for each pause, of 100 ms, 200 ms and so on.
    lab.nth(4, "fork fails");
    let fails = lab.story(lab.pid()).matches("fork fails").count();
    assert!(fails < 10, "{fails} forks were tried");
    std::fs::remove_file(&gate).expect("it is there");
    let end = lab.running.wait_for_stderr("forks succeed again: children=30 failed=", DEADLINE);
    assert!(end.contains("lasted="), "{end}");
    lab.expect(lab.pid(), "daemon_parent");
    lab.end(Signal::SIGTERM);
    assert_eq!((told(&lab, "forks fail"), told(&lab, "forks succeed again")), (1, 1));
    assert_eq!(told(&lab, "[ERROR]"), 0, "{}", lab.running.stderr_text());
}

#[test] // D-FO-05, T7: a running pool outlives a thread of its parent, and fills up when that has ended
fn pool_waits_for_a_thread_of_the_parent() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let gate = dir.path().join("gate");
    std::fs::write(&gate, "").expect("a file can be made");
    let pool = "--start 3 --max 3 --min-spare 3 --max-spare 3 --requests 0";
    let (mut lab, addr) = Lab::pool_by_signals(&format!("{pool} --usr1 thread --thread-while {}", gate.display()), 3);
    lab.running.signal(Signal::SIGUSR1);
    lab.expect(lab.pid(), "answered");
    let (mut client, served_by) = held(addr);
    for pid in lab.running.children().into_iter().filter(|pid| *pid != served_by) {
        send(pid, Signal::SIGKILL);
    }
    let begin = lab.running.wait_for_stderr("forks fail", DEADLINE);
    assert!(begin.contains("besides this one lingering (tid "), "{begin}");
    client.line("still served");
    client.finish_sending();
    client.expect_eof();
    std::fs::remove_file(&gate).expect("it is there");
    lab.running.wait_for_stderr("forks succeed again: ", DEADLINE);
    wait_until("the pool", DEADLINE, || (lab.running.children().len() == 3).then_some(()));
    lab.end(Signal::SIGTERM);
    assert_eq!((told(&lab, "forks fail"), told(&lab, "forks succeed again")), (1, 1));
}

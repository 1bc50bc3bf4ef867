//! D-PF-12, D-FO-06: clients that wait, and children whose clients have nothing in hand.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use util::lab::{Lab, held, pid_of, send, tell};
use util::{Client, DEADLINE, stays, wait_until};

/// A pool that can't grow.
fn full(children: usize, more: &str) -> (Lab, SocketAddr) {
    let sizes = format!("--start {children} --min-spare 1 --max-spare {children} --max {children} --requests 0");
    Lab::pool(&format!("{sizes} {more}"), children)
}

/// A client that has had an answer and keeps its child; and that child. The board counts in milliseconds: the next one is
/// kept later.
fn kept(lab: &Lab, addr: SocketAddr, board: &str) -> (Client, i32) {
    let (mut client, child) = held(addr);
    assert!(client.line("keep").ends_with(" ok"));
    lab.wait_board(board);
    let begin = Instant::now();
    wait_until("a later time", DEADLINE, || (begin.elapsed() > Duration::from_millis(3)).then_some(()));
    (client, child)
}

/// How often `pid` was asked to let its client go.
fn asked(lab: &Lab, pid: i32) -> usize {
    lab.story(pid).matches("daemon_release").count()
}

#[test] // D-PF-12: the longest idle first, one for each client that waits
fn a_waiting_client_gets_the_child_of_the_longest_idle_one() {
    let (lab, addr) = full(3, "");
    let (mut first, one) = kept(&lab, addr, "kww");
    let (mut second, two) = kept(&lab, addr, "kkw");
    let (mut third, three) = kept(&lab, addr, "kkk");
    let (mut fourth, child) = held(addr);
    assert_eq!(child, one);
    first.expect_eof();
    let (mut fifth, child) = held(addr);
    assert_eq!(child, two);
    second.expect_eof();
    assert_eq!([&mut third, &mut fourth, &mut fifth].map(|client| pid_of(&client.line("on"))), [three, one, two]);
    lab.expect(one, "daemon_release");
    lab.expect(two, "daemon_release");
    assert_eq!([one, two, three].map(|pid| asked(&lab, pid)), [1, 1, 0]);
}

#[test] // D-PF-12: a child may begin to keep its client long after the other one has begun to wait
fn a_client_that_waits_already_gets_the_next_child_that_is_kept() {
    // No round of the parent comes: it has to be told.
    let (lab, addr) = full(2, "--babysit-ms 600000");
    let (mut busy, _) = held(addr);
    let (mut other, _) = held(addr);
    lab.wait_board("rr");
    let mut waiting: Vec<Client> = (0..2).map(|_| Client::connect(addr)).collect();
    waiting.iter_mut().for_each(|client| client.send("hello\n"));
    for (client, next) in [&mut busy, &mut other].into_iter().zip(&mut waiting) {
        let child = pid_of(&client.line("hello"));
        client.send("keep\n");
        assert_eq!(client.read_line(), format!("{child} ok"));
        client.expect_eof();
        assert_eq!(pid_of(&next.read_line()), child);
    }
}

#[test] // D-PF-12: another request may begin at any time, and is no other client's
fn a_kept_client_goes_on_as_the_same_request() {
    let (lab, addr) = full(1, "");
    let (mut client, child) = kept(&lab, addr, "k");
    assert_eq!(tell(&mut client, "req"), "ok");
    lab.wait_board("r");
    let mut waiting = Client::connect(addr);
    waiting.send("hello\n");
    stays("busy", Duration::from_millis(300), || lab.board().trim_end() == "r");
    assert_eq!(asked(&lab, child), 0);
    assert_eq!(tell(&mut client, "keep"), "ok");
    client.expect_eof();
    assert_eq!(pid_of(&waiting.read_line()), child);
    drop(waiting);
    lab.wait_board("w");
    send(child, Signal::SIGTERM);
    let record = lab.running.wait_for_stderr("child has ended: ", DEADLINE);
    assert!(record.contains(" requests=2"), "{record}");
}

#[test] // D-PF-12: while a child waits, or can be forked, nobody is asked
fn no_client_is_let_go_without_need() {
    for (lab, addr) in [full(2, ""), Lab::pool("--start 1 --min-spare 1 --max-spare 2 --max 9 --requests 0", 1)] {
        let (mut client, child) = held(addr);
        assert_eq!(tell(&mut client, "keep"), "ok");
        wait_until("kept, and a spare", DEADLINE, || {
            let board = lab.board();
            (board.contains('k') && board.contains('w')).then_some(())
        });
        for _ in 0..50 {
            let (mut other, its) = held(addr);
            assert_ne!(its, child);
            // It waits again when the end is to be seen.
            other.finish_sending();
            other.expect_eof();
        }
        assert_eq!(pid_of(&client.line("on")), child);
        assert_eq!(asked(&lab, child), 0);
    }
}

#[test] // D-PF-12: a child that is still being set up will take the client that waits
fn no_client_is_let_go_while_a_child_starts() {
    let dir = tempfile::tempdir().expect("a directory");
    let slow = dir.path().join("slow");
    // With many rounds of the parent, which looks in each.
    let sizes = "--start 1 --min-spare 1 --max-spare 1 --max 2 --requests 0 --babysit-ms 20";
    let args = format!("{sizes} --never-ready-while {}", slow.display());
    let (lab, addr) = Lab::pool(&args, 1);
    std::fs::write(&slow, "").expect("a directory of the test's own");
    let (mut client, child) = held(addr);
    assert_eq!(tell(&mut client, "keep"), "ok");
    let (starting, _) = lab.nth(2, "daemon_child");
    let mut waiting = Client::connect(addr);
    waiting.send("hello\n");
    stays("kept", Duration::from_millis(500), || asked(&lab, child) == 0);
    assert_eq!(pid_of(&client.line("on")), child);
    // The next one is ready, and takes the client.
    std::fs::remove_file(&slow).expect("it is there");
    send(starting, Signal::SIGKILL);
    let next = pid_of(&waiting.read_line());
    assert!(next != child && next != starting);
    assert_eq!(asked(&lab, child), 0);
}

#[test] // D-PF-12: one that does not let go is busy from then on, and others are asked
fn a_child_that_keeps_its_client_all_the_same_is_asked_once() {
    let (lab, addr) = full(2, "--stubborn");
    let (_first, one) = kept(&lab, addr, "kw");
    let (_second, two) = kept(&lab, addr, "kk");
    let mut waiting = Client::connect(addr);
    waiting.send("hello\n");
    lab.expect(one, "daemon_release");
    lab.expect(two, "daemon_release");
    lab.wait_board("rr");
    stays("asked once", Duration::from_millis(300), || [one, two].iter().all(|pid| asked(&lab, *pid) == 1));
}

#[test] // D-PF-12: a CONT that is not the parent's asks for nothing
fn a_cont_from_outside_lets_nobody_go() {
    let (lab, addr) = full(1, "");
    let (mut client, child) = kept(&lab, addr, "k");
    for _ in 0..10 {
        send(child, Signal::SIGCONT);
        assert_eq!(pid_of(&client.line("on")), child);
    }
    assert_eq!(asked(&lab, child), 0);
}

#[test] // D-SH-13: what is idle does not hold up the end
fn quit_lets_idle_clients_go() {
    let (mut lab, addr) = full(3, "");
    let (mut idle, one) = kept(&lab, addr, "kww");
    let (mut busy, two) = held(addr);
    lab.running.signal(Signal::SIGQUIT);
    idle.expect_eof();
    lab.wait_gone(&[one]);
    assert_eq!(pid_of(&busy.line("on")), two);
    busy.send("keep\n");
    assert_eq!(busy.read_line(), format!("{two} ok"));
    busy.expect_eof();
    lab.expect_end();
    assert!(!lab.running.stderr_text().contains("cause=killed"), "{}", lab.running.stderr_text());
}

#[test] // D-PF-05: what is kept was taken before
fn keep_without_a_request_does_nothing() {
    let (lab, addr) = full(1, "");
    let (mut client, _) = held(addr);
    assert_eq!(tell(&mut client, "wait"), "ok");
    assert_eq!(tell(&mut client, "keep"), "ok");
    lab.running.wait_for_stderr("status keep reported without a Req or Long before it", DEADLINE);
    lab.wait_board("w");
}

#[test] // D-FO-06: also those that are accepted and queued
fn a_waiting_client_of_a_post_forking_server_gets_a_child_of_its_own() {
    for more in ["", "--greedy"] {
        let (lab, addr) = Lab::serve("daemon_postfork", &format!("--max 2 {more}"));
        let (mut first, one) = kept(&lab, addr, "k");
        let (mut second, two) = kept(&lab, addr, "kk");
        let mut third = Client::connect(addr);
        third.send("hello\n");
        first.expect_eof();
        // Its child is gone when it has seen that.
        drop(first);
        let child = pid_of(&third.read_line());
        assert!(child != one && child != two);
        lab.wait_gone(&[one]);
        assert_eq!(pid_of(&second.line("on")), two);
        lab.expect(one, "daemon_release");
        assert_eq!([one, two].map(|pid| asked(&lab, pid)), [1, 0], "{more}");
    }
}

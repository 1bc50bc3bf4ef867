//! Children whose parent was killed: they let go of the address at once, and end by themselves.
//!
//! The statements say "within a second". The bounds here are for a machine that is busy with other tests.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use util::lab::{Lab, held, send, tell};
use util::{Client, DEADLINE, Program, example, proc, wait_until};

const ONE: &str = "--start 1 --min-spare 1 --max-spare 1 --max 1 --requests 0";

/// Waits until nothing listens at `addr`, and proves it by listening there.
#[track_caller]
fn expect_free(addr: SocketAddr) {
    wait_until("connections to be refused", DEADLINE, || TcpStream::connect(addr).is_err().then_some(()));
    TcpListener::bind(addr).expect("the address is free");
}

/// A client that has a request in hand, of a program whose parent is killed then.
fn orphan(args: &str) -> (Lab, SocketAddr, Client, i32) {
    let (lab, addr) = Lab::pool(&format!("{ONE} {args}"), 1);
    let (client, busy) = held(addr);
    lab.running.signal(Signal::SIGKILL);
    (lab, addr, client, busy)
}

/// The listener is paused in the child's heap, as in the guide and the examples.
#[test] // D-SH-08: nothing listens any more, though the child has a request in hand, and the program can be started again
fn address_is_free_while_a_busy_child_outlives_its_parent() {
    let start = |addr: &str| {
        let flags = ["--start-children", "2", "--request-timeout", "60", "--babysit", "1", "--listen", addr];
        Program::new(example("echo_prefork")).args(flags).start()
    };
    let first = start("127.0.0.1:0");
    let addr = first.listening_addr();
    let mut client = Client::connect(addr);
    assert_eq!(client.line("hello"), "hello");
    first.signal(Signal::SIGKILL);
    expect_free(addr);
    let second = start(&addr.to_string());
    assert_eq!(second.listening_addr(), addr);
    assert_eq!(Client::connect(addr).line("new"), "new");
    assert_eq!(client.line("still there"), "still there");
    client.finish_sending();
    client.expect_eof();
    wait_until("the end of the first", DEADLINE, || first.descendants_alive().is_empty().then_some(()));
}

#[test] // D-SH-08: whatever kind of listener, and whatever the application still does with it
fn every_kind_of_listener_is_closed_when_the_parent_is_killed() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let path = dir.path().join("socket");
    let (lab, addr) = Lab::pool(&format!("{ONE} --more-listeners {}", path.display()), 1);
    let (_, more) = lab.nth(1, "more ");
    let more: Vec<SocketAddr> = more.split(' ').map(|addr| addr.parse().expect("an address")).collect();
    let (mut client, busy) = held(addr);
    assert!(tell(&mut client, "listeners").contains(&addr.to_string()));
    lab.running.signal(Signal::SIGKILL);
    for addr in [addr, more[0], more[1]] {
        expect_free(addr);
    }
    wait_until("the UNIX socket to refuse", DEADLINE, || UnixStream::connect(&path).is_err().then_some(()));
    assert_eq!(tell(&mut client, "listeners"), "Some(\"closed\") closed Err(EINVAL) false");
    client.finish_sending();
    client.expect_eof();
    lab.wait_gone(&[busy]);
}

#[test] // D-SH-08: idle ones that forget to drop theirs, too
fn idle_children_that_forget_their_listeners_end_with_the_parent() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let path = dir.path().join("socket");
    let args = format!("--start 3 --max 3 --max-spare 3 --forget-shutdown --more-listeners {}", path.display());
    let (lab, addr) = Lab::pool(&args, 3);
    let children = lab.running.children();
    lab.running.signal(Signal::SIGKILL);
    lab.wait_gone(&children);
    expect_free(addr);
}

#[test] // D-SH-08: nor do those listen that had not come so far as to accept
fn address_is_free_when_the_parent_dies_during_the_start() {
    let (lab, addr) = Lab::serve("daemon_prefork", "--start 3 --never-ready --forget-shutdown");
    lab.wait_board("...");
    let children = lab.running.children();
    lab.running.signal(Signal::SIGKILL);
    lab.wait_gone(&children);
    expect_free(addr);
}

#[test] // D-SH-08: a client in the queue is not left to wait
fn queued_client_is_refused_when_the_parent_is_killed() {
    let (lab, addr) = Lab::pool(ONE, 1);
    let (mut client, busy) = held(addr);
    let mut queued = Client::connect(addr);
    queued.send("hello\r\n");
    lab.running.signal(Signal::SIGKILL);
    queued.expect_eof_or_reset();
    expect_free(addr);
    client.finish_sending();
    client.expect_eof();
    lab.wait_gone(&[busy]);
}

#[test] // D-SH-08: what was left of the request's time, by the setting that applies
fn orphan_ends_when_the_time_of_its_request_is_up() {
    for (limit, word) in [
        ("--request-ms 1500 --long-ms 60000", "hello"),
        ("--request-ms 60000 --long-ms 1500", "long"),
        ("--grace-ms 1500", "hello"),
    ] {
        let (lab, addr) = Lab::pool(&format!("{ONE} --babysit-ms 60000 {limit}"), 1);
        let (mut client, busy) = held(addr);
        tell(&mut client, word);
        let begin = Instant::now();
        lab.running.signal(Signal::SIGKILL);
        lab.running.wait_for_stderr("the parent is gone", DEADLINE);
        assert_eq!(tell(&mut client, "still there"), "still there");
        // The client stays connected.
        lab.wait_gone(&[busy]);
        // Half the limit: the request had begun before the parent was killed.
        assert!(begin.elapsed() > Duration::from_millis(750), "{limit}: {:?}", begin.elapsed());
        lab.expect(busy, "daemon_shutdown");
    }
}

#[test] // D-SH-08: a status that is reported later has its own limit
fn orphan_that_reports_long_has_the_time_of_that() {
    let (lab, _, mut client, busy) = orphan("--request-ms 60000 --long-ms 1000");
    lab.running.wait_for_stderr("limit=request_timeout", DEADLINE);
    assert_eq!(tell(&mut client, "long"), "ok");
    lab.wait_gone(&[busy]);
}

#[test] // D-SH-08, D-SH-13: the child is busy again, as its application does not let the client go
fn orphan_that_does_not_let_its_kept_client_go_has_the_time_of_a_request() {
    for limit in ["--request-ms 1000", "--grace-ms 1000"] {
        let (lab, addr) = Lab::pool(&format!("{ONE} --stubborn --babysit-ms 60000 {limit}"), 1);
        let (mut client, kept) = held(addr);
        assert_eq!(tell(&mut client, "keep"), "ok");
        lab.wait_board("k");
        lab.running.signal(Signal::SIGKILL);
        lab.expect(kept, "daemon_release");
        assert_eq!(tell(&mut client, "still there"), "still there");
        // The client stays connected.
        lab.wait_gone(&[kept]);
        lab.expect(kept, "daemon_shutdown");
    }
}

#[test] // D-SH-08: nobody is left to stop what never comes back
fn orphan_that_is_stuck_ends_when_its_time_is_up() {
    for stuck in ["sleep", "spin"] {
        let (lab, addr) = Lab::pool(&format!("{ONE} --request-ms 1000 --babysit-ms 60000"), 1);
        let (mut client, busy) = held(addr);
        lab.running.signal(Signal::SIGKILL);
        lab.running.wait_for_stderr("the parent is gone", DEADLINE);
        client.send(format!("{stuck}\r\n"));
        lab.wait_gone(&[busy]);
    }
}

#[test] // D-SH-08: whatever a session still waits for
fn orphan_that_lingers_ends_after_shutdown_timeout() {
    let (lab, addr) = Lab::pool("--start 2 --max 2 --max-spare 2 --linger --grace-ms 1000 --babysit-ms 60000", 2);
    let children = lab.running.children();
    let (mut client, busy) = held(addr);
    lab.running.signal(Signal::SIGKILL);
    let idle: Vec<i32> = children.into_iter().filter(|pid| *pid != busy).collect();
    lab.expect(idle[0], "daemon_shutdown");
    lab.wait_gone(&idle);
    client.finish_sending();
    client.expect_eof();
    lab.wait_gone(&[busy]);
}

#[test] // D-SH-08: nobody is left to kill those that the parent has told to end before its own death
fn child_that_was_shut_down_before_its_parent_died_ends_after_shutdown_timeout() {
    let (lab, addr) = Lab::pool("--start 2 --max 2 --max-spare 2 --linger --grace-ms 5000 --babysit-ms 60000", 2);
    let children = lab.running.children();
    let (_client, _) = held(addr);
    lab.running.signal(Signal::SIGTERM);
    children.iter().for_each(|pid| lab.expect(*pid, "daemon_shutdown"));
    assert!(proc::is_alive(lab.pid()));
    lab.running.signal(Signal::SIGKILL);
    // Neither the client nor what the sessions wait for holds them up.
    lab.wait_gone(&children);
}

#[test] // D-SH-08, D-FO-02
fn post_forked_orphan_ends_when_its_time_is_up() {
    let (lab, addr) = Lab::serve("daemon_postfork", "--grace-ms 1000 --babysit-ms 60000");
    let (mut client, busy) = held(addr);
    lab.running.signal(Signal::SIGKILL);
    expect_free(addr);
    client.line("still there");
    lab.wait_gone(&[busy]);
}

#[test] // D-SH-03: a busy child that is told to go after its request listens no more either
fn retired_busy_child_closes_its_listener() {
    let (lab, addr) = Lab::pool(ONE, 1);
    let (mut client, busy) = held(addr);
    send(busy, Signal::SIGQUIT);
    lab.expect(busy, "daemon_pause");
    assert_eq!(tell(&mut client, "listeners"), "Some(\"closed\")");
    assert!(proc::is_alive(busy));
    client.finish_sending();
    client.expect_eof();
    // The next child has the parent's listener, which was none of this one's to close.
    let (_client, next) = held(addr);
    assert_ne!(next, busy);
}

//! Children whose parent was killed: they let go of the address at once, and end by themselves.
//!
//! The statements say "within a second". The bounds here are for a machine that is busy with other tests.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use util::addresses::wait_free;
use util::lab::{Lab, held, send, tell};
use util::{Client, DEADLINE, Program, at_once, example, proc, wait_until};

const ONE: &str = "--start 1 --min-spare 1 --max-spare 1 --max 1 --requests 0";

/// Waits until nothing listens at `addr`, and nobody has it.
#[track_caller]
pub fn expect_free(addr: SocketAddr) {
    // Where a child still listens, but accepts nothing, its queue is full in the end.
    let is_refused = || {
        let error = TcpStream::connect_timeout(&addr, Duration::from_secs(1)).err()?;
        (error.kind() == ErrorKind::ConnectionRefused).then_some(())
    };
    wait_until("connections to be refused", DEADLINE, is_refused);
    wait_free(addr);
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
    at_once(
        [
            ("--request-ms 1500 --long-ms 60000", "hello"),
            ("--request-ms 60000 --long-ms 1500", "long"),
            ("--grace-ms 1500", "hello"),
        ],
        |(limit, word)| {
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
        },
    );
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
    at_once(["--request-ms 1000", "--grace-ms 1000"], |limit| {
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
    });
}

#[test] // D-SH-08: nobody is left to stop what never comes back
fn orphan_that_is_stuck_ends_when_its_time_is_up() {
    at_once(["sleep", "spin"], |stuck| {
        let (lab, addr) = Lab::pool(&format!("{ONE} --request-ms 1000 --babysit-ms 60000"), 1);
        let (mut client, busy) = held(addr);
        lab.running.signal(Signal::SIGKILL);
        lab.running.wait_for_stderr("the parent is gone", DEADLINE);
        client.send(format!("{stuck}\r\n"));
        lab.wait_gone(&[busy]);
    });
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
    let (lab, addr) = Lab::pool("--start 2 --max 2 --max-spare 2 --linger --grace-ms 4000 --babysit-ms 60000", 2);
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

/// A client of a child that says that it is blocked, by `word`, of a program whose parent is killed then.
fn blocked_orphan(program: &str, args: &str, words: &[&str]) -> (Lab, SocketAddr, Client, i32) {
    let (lab, addr) = Lab::serve(program, args);
    let (mut client, busy) = held(addr);
    let (last, first) = words.split_last().expect("a word");
    first.iter().for_each(|word| assert_eq!(tell(&mut client, word), "ok"));
    client.send(format!("{last}\r\n"));
    lab.expect(busy, "blocked");
    lab.running.signal(Signal::SIGKILL);
    (lab, addr, client, busy)
}

#[test] // D-SH-08: at once, and by the limit that applies
fn blocked_orphan_lets_go_of_the_address_and_is_killed_when_its_time_is_up() {
    let cases: [(&str, &[&str]); 4] = [
        ("--request-ms 4000 --long-ms 600000", &["blocked-sleep"]),
        ("--request-ms 4000 --grace-ms 600000", &["blocked-spin"]),
        ("--request-ms 600000 --long-ms 4000", &["long", "blocked-spin"]),
        ("--grace-ms 4000", &["blocked-sleep"]),
    ];
    at_once(cases, |(limit, words)| {
        let args = format!("{ONE} --babysit-ms 600000 {limit}");
        let (lab, addr, _client, busy) = blocked_orphan("daemon_prefork", &args, words);
        expect_free(addr);
        assert!(proc::is_alive(busy), "{limit}");
        lab.wait_gone(&[busy]);
    });
}

#[test] // D-SH-08
fn blocked_orphan_without_a_free_descriptor_lets_go_of_the_address() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let gate = dir.path().join("gate");
    std::fs::write(&gate, "").expect("a file can be made");
    let args = format!("{ONE} --babysit-ms 600000 --gate {}", gate.display());
    let (lab, addr) = Lab::serve("daemon_prefork", &args);
    let (mut client, busy) = held(addr);
    let limit = 1 + *proc::fds(busy).keys().last().expect("some are open");
    let mut prlimit = std::process::Command::new("prlimit");
    prlimit.args(["--pid", &busy.to_string(), &format!("--nofile={limit}:{limit}")]);
    assert!(prlimit.status().expect("prlimit can be run").success());
    client.send("gate-without-descriptors\r\n");
    lab.expect(busy, "blocked");
    lab.running.signal(Signal::SIGKILL);
    expect_free(addr);
    assert!(proc::is_alive(busy));
    send(busy, Signal::SIGKILL);
    lab.wait_gone(&[busy]);
}

#[test] // D-SH-08: its limits have left the others time enough
fn program_starts_again_on_the_port_while_an_orphan_is_blocked() {
    let args = format!("{ONE} --babysit-ms 600000");
    let (_lab, addr, _client, busy) = blocked_orphan("daemon_prefork", &args, &["blocked-sleep"]);
    expect_free(addr);
    let (_second, again) = Lab::pool(&format!("{ONE} --listen {addr}"), 1);
    assert_eq!(again, addr);
    let (_new, other) = held(addr);
    assert_ne!(other, busy);
    assert!(proc::is_alive(busy));
    send(busy, Signal::SIGKILL);
}

#[test] // D-SH-08: every kind of listener is gone under the state, and the application gets on without them after it
fn blocked_orphan_whose_state_returns_answers_and_ends_in_order() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let (path, gate) = (dir.path().join("socket"), dir.path().join("gate"));
    std::fs::write(&gate, "").expect("a file can be made");
    let args = format!("{ONE} --return --more-listeners {} --gate {}", path.display(), gate.display());
    let (lab, addr, mut client, busy) = blocked_orphan("daemon_prefork", &args, &["gate"]);
    let (_, more) = lab.nth(1, "more ");
    expect_free(addr);
    more.split(' ').for_each(|addr| expect_free(addr.parse().expect("an address")));
    wait_until("the UNIX socket to refuse", DEADLINE, || UnixStream::connect(&path).is_err().then_some(()));
    std::fs::remove_file(&gate).expect("it is there");
    assert_eq!(client.read_line(), format!("{busy} passed"));
    lab.expect(busy, "daemon_pause");
    assert_eq!(tell(&mut client, "listeners"), "Some(\"closed\") closed Err(EINVAL) false");
    client.finish_sending();
    client.expect_eof();
    lab.wait_gone(&[busy]);
    lab.expect(busy, "end");
    let log = lab.running.stderr_to_end(DEADLINE);
    assert!(!log.contains("descriptor"), "{log}");
}

#[test] // D-SH-08: its listener is not paused
fn blocked_orphan_with_several_connections_answers_all_of_them() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let gate = dir.path().join("gate");
    std::fs::write(&gate, "").expect("a file can be made");
    let word = format!("gate {}", gate.display());
    let (lab, addr) = Lab::serve("component_server", &format!("--mode prefork:1 {ONE} --connections 5 --return"));
    let ((mut one, busy), (mut other, _)) = (held(addr), held(addr));
    one.send(format!("{word}\r\n"));
    lab.expect(busy, "blocked");
    other.send("hello\r\n");
    lab.running.signal(Signal::SIGKILL);
    expect_free(addr);
    assert!(proc::is_alive(busy));
    std::fs::remove_file(&gate).expect("it is there");
    assert_eq!(one.read_line(), format!("{busy} passed"));
    assert_eq!(other.read_line(), format!("{busy} hello"));
    [one, other].iter_mut().for_each(Client::finish_sending);
    lab.wait_gone(&[busy]);
    lab.expect(busy, "end");
    let log = lab.running.stderr_to_end(DEADLINE);
    assert!(!log.contains("accept:") && !log.contains("descriptor"), "{log}");
}

#[test] // D-SH-08: one that waits for a request, blocked by other work
fn idle_orphan_that_is_blocked_ends_after_shutdown_timeout() {
    let (lab, addr) = Lab::pool_by_signals(&format!("{ONE} --usr1 block --grace-ms 4000"), 1);
    let idle = lab.running.children();
    send(idle[0], Signal::SIGUSR1);
    lab.expect(idle[0], "blocked");
    lab.running.signal(Signal::SIGKILL);
    expect_free(addr);
    assert!(proc::is_alive(idle[0]));
    lab.wait_gone(&idle);
}

#[test] // D-SH-08: the program does something slow after `run`, and no kernel looks after it any more
fn orphan_whose_kernel_has_ended_is_killed_after_shutdown_timeout() {
    let (lab, _) = Lab::pool("--start 1 --max-spare 2 --slow-end --grace-ms 1000 --babysit-ms 600000", 1);
    let child = lab.running.children();
    send(child[0], Signal::SIGTERM);
    lab.expect(child[0], "end");
    lab.running.signal(Signal::SIGKILL);
    lab.wait_gone(&child);
}

#[test] // D-SH-08, D-FO-02: it has closed the listener by itself, and has a limit nevertheless
fn post_forked_orphan_that_is_blocked_ends_when_its_time_is_up() {
    let args = "--grace-ms 2000 --babysit-ms 600000";
    let (lab, addr, _client, busy) = blocked_orphan("daemon_postfork", args, &["blocked-sleep"]);
    expect_free(addr);
    lab.wait_gone(&[busy]);
}

#[test] // D-SH-08: a process that is stopped can do nothing, and does it all when it goes on
fn stopped_orphan_lets_go_of_the_address_when_it_is_continued() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let gate = dir.path().join("gate");
    std::fs::write(&gate, "").expect("a file can be made");
    let (lab, addr) = Lab::pool(&format!("{ONE} --gate {}", gate.display()), 1);
    let (mut client, busy) = held(addr);
    client.send("gate\r\n");
    lab.expect(busy, "blocked");
    send(busy, Signal::SIGSTOP);
    lab.running.signal(Signal::SIGKILL);
    send(busy, Signal::SIGCONT);
    expect_free(addr);
    assert!(proc::is_alive(busy));
    std::fs::remove_file(&gate).expect("it is there");
    assert_eq!(client.read_line(), format!("{busy} passed"));
    client.finish_sending();
    client.expect_eof();
    lab.wait_gone(&[busy]);
}

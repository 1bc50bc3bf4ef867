//! The ports of POE::Component::Daemon's demonstration programs: their protocol, their limits, and their signals.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::detached::Detached;
use crate::{expect_lost, expect_refusal};
use util::{Client, DEADLINE, kill, proc, wait_until};

const BOTH: [&str; 2] = ["preforking", "forking"];

/// How long a reply that must not come is waited for.
const A_MOMENT: Duration = Duration::from_millis(200);

/// Asks for a number.
#[track_caller]
fn number(client: &mut Client, command: &str) -> i32 {
    let line = client.line(command);
    line.parse().unwrap_or_else(|error| panic!("{line:?} in answer to {command}: {error}"))
}

/// Asks for lines, and returns them without the `DONE` at their end.
#[track_caller]
fn lines(client: &mut Client, command: &str) -> Vec<String> {
    client.send(format!("{command}\r\n"));
    let mut lines = Vec::new();
    loop {
        match client.read_line() {
            line if line == "DONE" => return lines,
            line => lines.push(line),
        }
    }
}

#[track_caller]
fn done(mut client: Client) {
    assert_eq!(client.line("DONE"), "OK");
    client.expect_eof();
}

/// Makes sure that a client that has asked something gets no answer for now.
#[track_caller]
fn expect_silence(client: &mut Client) {
    client.stream().set_read_timeout(Some(A_MOMENT)).expect("a socket has a timeout");
    let answer = client.try_read_line();
    assert!(answer.is_err(), "{answer:?} where nothing should come yet");
    client.stream().set_read_timeout(Some(DEADLINE)).expect("a socket has a timeout");
}

#[test]
fn a_connection_may_ask_everything_in_any_case() {
    for name in BOTH {
        let server = Detached::port(name);
        let mut client = Client::connect(server.addr);
        assert_eq!(client.line("DONGS!!"), "???");
        for (upper, lower) in [("PING", "ping"), ("PID", "pId"), ("PARENT", "Parent"), ("KERNEL", "kernel")] {
            assert_eq!(client.line(upper), client.line(lower), "{name}: {upper}");
        }
        assert_eq!(client.line("PING"), "PONG");
        let pid = number(&mut client, "PID");
        assert!(server.children().contains(&pid), "{name}: {pid} is no child");
        assert_eq!(number(&mut client, "PARENT"), server.pid, "{name}");
        assert_eq!(proc::ppid(pid), Some(server.pid));
        let logfile = client.line("LOGFILE");
        assert_eq!(Path::new(&logfile), server.logfile);
        assert!(Path::new(&logfile).is_absolute() && Path::new(&logfile).is_file(), "{logfile}");
        for nonsense in ["", "PINGPONG", "PING PING", " PING", "PING\u{e4}", "STOP", "P\u{131}NG"] {
            assert_eq!(client.line(nonsense), "???", "{name}: {nonsense:?}");
        }
        client.send(b"no text: \xff\xfe\r\n");
        assert_eq!(client.read_line(), "???");
        assert_eq!(client.line("ping"), "PONG");
        done(client);
        server.end();
    }
}

#[test]
fn every_reply_ends_in_cr_lf_and_commands_may_come_at_once() {
    use std::io::{Read, Write};
    for name in BOTH {
        let server = Detached::port(name);
        let mut stream = std::net::TcpStream::connect(server.addr).expect("a server that listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket has a timeout");
        // Whatever ends the lines; what comes after DONE is not answered.
        stream.write_all(b"ping\r\nnothing\nPING\rdone\r\nPING\r\nPID\r\n").expect("a server that reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an orderly end");
        assert_eq!(answer, "PONG\r\n???\r\nPONG\r\nOK\r\n", "{name}");
        drop(stream);
        server.end();
    }
}

#[test] // D-ME-03
fn status_has_the_lines_that_tools_parse() {
    let server = Detached::port("preforking");
    let mut one = Client::connect(server.addr);
    number(&mut one, "PID");
    let mut two = Client::connect(server.addr);
    number(&mut two, "PID");
    let status = lines(&mut two, "status");
    assert_eq!(status[1], "    Pre-forking server, we are a child");
    assert_eq!(status[3], "    15 slots in the scoreboard");
    assert!(status[4].starts_with("    Slots [") && status[4].matches('r').count() == 2, "{status:?}");
    assert!(status[5].ends_with(" slots free"), "{status:?}");
    done(one);
    done(two);
    server.end();

    let server = Detached::port("forking");
    let mut one = Client::connect(server.addr);
    number(&mut one, "PID");
    let status = lines(&mut one, "STATUS");
    assert_eq!(status[1], "    Forking server, we are a child");
    assert_eq!(status[3], "    8 slots in the scoreboard");
    assert_eq!(status[4], "    Slots [l       ]");
    assert_eq!(status[5], "    7 slots free");
    // Of the pre-forking program only.
    assert_eq!(one.line("PEEK"), "???");
    done(one);
    server.end();
}

#[test] // D-ME-04
fn peek_shows_the_kernel_of_the_child_that_answers() {
    let server = Detached::port("preforking");
    let mut client = Client::connect(server.addr);
    let pid = number(&mut client, "PID");
    let peek = lines(&mut client, "Peek");
    assert!(peek[0].contains(&format!("process {pid} (child)")), "{peek:?}");
    assert!(peek.iter().any(|line| line.contains("session 2 (Daemon)")), "{peek:?}");
    assert!(peek.len() > 4 && peek.iter().any(|line| line.contains("stays alive: ")), "{peek:?}");
    assert_eq!(client.line("PING"), "PONG");
    done(client);
    server.end();
}

#[test] // D-FO-03: the limit of the post-forking program
fn a_fourth_connection_waits_until_one_of_three_ends() {
    let server = Detached::port("forking");
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(server.addr)).collect();
    let pids: BTreeSet<i32> = clients.iter_mut().map(|client| number(client, "PID")).collect();
    let kernels: BTreeSet<String> = clients.iter_mut().map(|client| client.line("KERNEL")).collect();
    assert_eq!((pids.len(), kernels.len()), (3, 3), "each has a process and a kernel of its own");

    let mut fourth = Client::connect(server.addr);
    fourth.send("PID\r\n");
    expect_silence(&mut fourth);
    assert_eq!(server.count_children(), 3);
    done(clients.remove(0));
    let line = fourth.read_line();
    assert!(line.parse().is_ok_and(|pid: i32| !pids.contains(&pid)), "{line:?} of {pids:?}");
    assert_eq!(number(&mut fourth, "PARENT"), server.pid);
    assert!(server.count_children() <= 3);
    server.end();
}

#[test] // D-SP-05, D-PF-06: `requests` 1, `max_children` 10
fn a_pool_serves_a_connection_a_child_and_ten_at_most() {
    let server = Detached::port("preforking");
    let mut seen = BTreeSet::new();
    for _ in 0..15 {
        let mut client = Client::connect(server.addr);
        let pid = number(&mut client, "PID");
        assert!(seen.insert(pid), "{pid} serves a second time");
        done(client);
        assert!(server.count_children() <= 10);
    }

    let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(server.addr)).collect();
    let pids: BTreeSet<i32> = clients.iter_mut().map(|client| number(client, "PID")).collect();
    assert_eq!(pids.len(), 10);
    assert!(pids.is_disjoint(&seen), "{pids:?} of {seen:?}");
    let mut waiting: Vec<Client> = (0..3).map(|_| Client::connect(server.addr)).collect();
    waiting.iter_mut().for_each(|client| client.send("PID\r\n"));
    waiting.iter_mut().for_each(expect_silence);
    assert_eq!(server.count_children(), 10);
    clients.into_iter().for_each(done);
    for mut client in waiting {
        let line = client.read_line();
        assert!(line.parse().is_ok_and(|pid: i32| !pids.contains(&pid)), "{line:?} of {pids:?}");
        assert!(server.count_children() <= 10);
        done(client);
    }
    server.end();
}

#[test] // D-PF-06: with no connection at all there are `min_spare`, one of them from the start
fn two_spares_wait_when_the_launcher_is_gone() {
    let server = Detached::port("preforking");
    wait_until("two spares", DEADLINE, || (server.children().len() == 2).then_some(()));
    let mut client = Client::connect(server.addr);
    number(&mut client, "PID");
    // More for a while, if the second spare had not reported when the client came: the pool then takes the demand for lasting.
    wait_until("two spares and a busy child", DEADLINE, || (server.children().len() >= 3).then_some(()));
    done(client);
    server.end();
}

#[test] // D-DE-05
fn hup_rotates_the_log_in_every_process() {
    for name in BOTH {
        let server = Detached::port(name);
        let mut client = Client::connect(server.addr);
        number(&mut client, "PID");
        server.wait_log("received \"PID\"");
        let old = server.dir.path().join("log.OLD");
        fs::rename(&server.logfile, &old).expect("a log file");
        server.signal(Signal::SIGHUP);
        wait_until("a new log file", DEADLINE, || server.logfile.is_file().then_some(()));
        let log = server.logfile.to_str().expect("a path that is text");
        wait_until("the new file in every process", DEADLINE, || {
            let all = server.children().into_iter().chain([server.pid]);
            all.map(proc::fds).all(|fds| fds.get(&1).is_some_and(|path| path == log)).then_some(())
        });
        assert_eq!(client.line("PING"), "PONG");
        server.wait_log("received \"PING\"");
        // And so have those that come later, without a HUP of their own. Nobody has the old one.
        let before = fs::read_to_string(&old).expect("the old log");
        let mut other = Client::connect(server.addr);
        assert_eq!(other.line("after"), "???");
        server.wait_log("received \"AFTER\"");
        assert_eq!(fs::read_to_string(&old).expect("the old log"), before, "{name} still writes to the old file");
        server.end();
    }
}

#[test] // D-DE-05: as the Perl distribution's own test does it
fn hup_to_one_child_makes_a_new_log_file() {
    let server = Detached::port("preforking");
    let mut client = Client::connect(server.addr);
    let pid = number(&mut client, "PID");
    fs::rename(&server.logfile, server.dir.path().join("log.OLD")).expect("a log file");
    kill(pid, Signal::SIGHUP).expect("a child of ours");
    wait_until("a new log file", DEADLINE, || server.logfile.is_file().then_some(()));
    assert_eq!(client.line("PING"), "PONG");
    done(client);
    server.end();
}

#[test] // D-SB-04
fn a_killed_child_takes_only_its_own_connection_with_it() {
    for name in BOTH {
        let server = Detached::port(name);
        let mut other = Client::connect(server.addr);
        number(&mut other, "PID");
        for _ in 0..3 {
            let mut client = Client::connect(server.addr);
            let pid = number(&mut client, "PID");
            kill(pid, Signal::SIGKILL).expect("a child of ours");
            expect_lost(&mut client);
            wait_until("its reaping", DEADLINE, || (!proc::exists(pid)).then_some(()));
        }
        let status = lines(&mut other, "STATUS");
        let board = status[4].strip_prefix("    Slots ").expect("the fifth line is the board");
        assert!(board.matches(['r', 'l']).count() == 1, "{name}: {board}");
        assert_eq!(other.line("PING"), "PONG");
        server.wait_log("SIGKILL");
        server.end();
    }
}

#[test] // D-SH-02, D-SH-05
fn term_ends_all_connections_or_not() {
    for name in BOTH {
        Detached::port(name).end();
        let server = Detached::port(name);
        let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(server.addr)).collect();
        let parent = clients.iter_mut().map(|client| number(client, "PARENT")).max();
        // As the Perl tests end theirs.
        kill(parent.expect("three answers"), Signal::SIGTERM).expect("the daemon");
        clients.iter_mut().for_each(expect_lost);
        wait_until("the end of all", DEADLINE, || server.running.descendants_alive().is_empty().then_some(()));
        assert!(server.log().contains(": exiting"), "{}", server.log());
        Client::try_connect(server.addr).expect_err("nobody listens any more");
    }
}

#[test]
fn a_client_that_goes_without_done_ends_its_request_only() {
    for name in BOTH {
        let server = Detached::port(name);
        for _ in 0..5 {
            let mut client = Client::connect(server.addr);
            let pid = number(&mut client, "PID");
            client.send("PING\r\n");
            client.finish_sending();
            assert_eq!(client.read_line(), "PONG");
            client.expect_eof();
            wait_until("the child's end", DEADLINE, || (!proc::is_alive(pid)).then_some(()));
        }
        let client = Client::connect(server.addr);
        done(client);
        server.end();
    }
}

#[test] // D-ME-05
fn usr2_dumps_into_the_log_file() {
    for (name, signals) in
        [("preforking", &[Signal::SIGUSR2][..]), ("forking", &[Signal::SIGUSR1, Signal::SIGUSR2][..])]
    {
        let server = Detached::port(name);
        for (count, &signal) in (1..).zip(signals) {
            server.signal(signal);
            wait_until(&format!("the dump of {signal}"), DEADLINE, || {
                (server.log().matches(" slots free\n").count() == count).then_some(())
            });
        }
        let log = server.log();
        for part in ["  session 2 (Daemon), refcount ", "    stays alive: ", "-> accept", "Scoreboard\n"] {
            assert!(log.contains(part), "{name}: {part:?} is missing: {log}");
        }
        server.end();
    }
}

#[test] // D-SP-01: what fails in the process that the user started is said there, and nothing is left
fn what_can_t_be_opened_is_said_by_the_launcher_and_exit_1() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("a bound socket").port().to_string();
    let dir = tempfile::tempdir().expect("a directory");
    let missing = dir.path().join("missing/log").display().to_string();
    for name in BOTH {
        expect_refusal(name, &[&port, "--logfile", &missing], 1, "in use");
        expect_refusal(name, &["0", "--logfile", &missing], 1, &missing);
    }
}

//! The three echo servers: what they answer, what they say, how they end.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt::Linger};

use crate::{LONG, end, expect_refusal};
use util::{Client, DEADLINE, Program, Running, example, kill, proc, wait_until};

const ALL: [&str; 3] = ["echo", "echo_fork", "echo_prefork"];

fn start(name: &str, args: &[&str]) -> (Running, SocketAddr) {
    let running = Program::new(example(name)).args(["--listen", "127.0.0.1:0"]).args(args).start();
    let addr = running.listening_addr();
    (running, addr)
}

/// Starts the pre-forking server and waits until all its children wait for work.
fn start_pool(args: &[&str], children: usize) -> (Running, SocketAddr) {
    let (running, addr) = start("echo_prefork", args);
    wait_until("the pool", DEADLINE, || (dump(&running).matches(": w\n").count() == children).then_some(()));
    (running, addr)
}

/// Sends USR2 and returns the dump that comes, without the spaces that the log puts before each but the first line.
fn dump(running: &Running) -> String {
    let before = running.stderr_text().len();
    running.signal(Signal::SIGUSR2);
    wait_until("a dump", DEADLINE, || {
        let text = running.stderr_text();
        let dump = &text[before..];
        let is_whole = dump.contains("slots free\n") || (dump.contains("sources: ") && !dump.contains("(Daemon)"));
        is_whole.then(|| dump.replace("\n    ", "\n"))
    })
}

/// Connects, has one line answered, and stays connected.
fn held(addr: SocketAddr, text: &str) -> Client {
    let mut client = Client::connect(addr);
    assert_eq!(client.line(text), text);
    client
}

#[test]
fn each_example_echoes_lines_and_ends_on_term_and_int() {
    for name in ALL {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let (mut running, addr) = start(name, &[]);
            let mut client = held(addr, "one");
            assert_eq!(client.line("two"), "two");
            client.send("three\r\nfour\r\n\r\n");
            assert_eq!([client.read_line(), client.read_line(), client.read_line()], ["three", "four", ""]);
            client.finish_sending();
            client.expect_eof();
            drop(client);
            end(&mut running, signal);
            // The address is the only thing on standard output.
            assert_eq!(running.try_next_line(DEADLINE), None, "{name} says more than where it listens");
        }
    }
}

#[test] // as with printf 'x\n' | nc -N: all of the reply comes, and then the end
fn half_closing_clients_get_their_reply() {
    for name in ALL {
        let (mut running, addr) = start(name, &[]);
        for _ in 0..20 {
            let mut client = Client::connect(addr);
            client.send("x\n");
            client.finish_sending();
            assert_eq!(client.read_line(), "x");
            client.expect_eof();
        }
        end(&mut running, Signal::SIGTERM);
    }
}

#[test] // K-WH-13: as with printf 'caf\xe9\nok\n' | nc -N
fn a_line_that_is_not_text_is_logged_once_and_the_next_one_is_answered() {
    for name in ALL {
        let (mut running, addr) = start(name, &[]);
        let mut client = Client::connect(addr);
        client.send(b"caf\xe9\nok\n\xff\nfine\n");
        assert_eq!([client.read_line(), client.read_line()], ["ok", "fine"], "{name}");
        client.finish_sending();
        client.expect_eof();
        running.wait_for_stderr("record of 4 bytes is not UTF-8 at byte 3", DEADLINE);
        assert_eq!(running.stderr_text().matches("not UTF-8").count(), 1, "{name}: {}", running.stderr_text());
        end(&mut running, Signal::SIGTERM);
    }
}

#[test]
fn a_client_that_resets_the_connection_harms_nobody_else() {
    for name in ALL {
        let (mut running, addr) = start(name, &[]);
        let mut other = held(addr, "before");
        for round in 0..20 {
            let client = if round % 2 == 0 { held(addr, "x") } else { Client::connect(addr) };
            reset(client);
        }
        assert_eq!(other.line("after"), "after");
        held(addr, "new");
        drop(other);
        end(&mut running, Signal::SIGTERM);
    }
}

/// Closes with a reset.
fn reset(client: Client) {
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(client.stream(), Linger, &linger).expect("a socket can linger");
}

#[test] // D-ME-04, D-ME-05
fn usr2_dumps_every_session_with_its_reasons_and_the_board() {
    let (pool, _) = start_pool(&["--start-children", "2", "--max-children", "4"], 2);
    let text = dump(&pool);
    for part in ["  session 2 (Daemon), refcount ", "    stays alive: child process ", "-> accept, paused\n"] {
        assert!(text.contains(part), "{part:?} is missing: {text}");
    }
    assert!(
        text.contains("Scoreboard\n    9 slots in the scoreboard\n    Slots [ww       ]\n    7 slots free\n"),
        "{text}"
    );

    let (fork, addr) = start("echo_fork", &["--max-children", "3"]);
    let _client = held(addr, "x");
    let text = dump(&fork);
    assert!(text.contains("session 2 (Daemon)") && text.contains("    Slots [r       ]\n"), "{text}");

    let (echo, addr) = start("echo", &[]);
    let _client = held(addr, "x");
    let text = dump(&echo);
    assert!(text.contains("session 1") && text.contains("stays alive: descriptor"), "{text}");
}

#[test] // D-SB-04, D-PF-06
fn a_killed_child_is_replaced() {
    let (mut running, addr) =
        start_pool(&["--start-children", "4", "--max-children", "4", "--min-spare", "3", "--max-spare", "4"], 4);
    for _ in 0..5 {
        let before = running.children();
        before.iter().for_each(|&pid| kill(pid, Signal::SIGKILL).expect("a child is ours to kill"));
        wait_until("three new children", DEADLINE, || {
            let now = running.children();
            (now.len() >= 3 && now.iter().all(|pid| !before.contains(pid))).then_some(())
        });
        held(addr, "x");
    }
    end(&mut running, Signal::SIGTERM);

    let (mut running, addr) = start("echo_fork", &[]);
    let mut client = held(addr, "x");
    kill(running.children()[0], Signal::SIGKILL).expect("a child is ours to kill");
    assert_eq!(client.try_read_line().ok().flatten(), None);
    wait_until("its slot", DEADLINE, || dump(&running).contains("\n    0 children\n").then_some(()));
    held(addr, "y");
    end(&mut running, Signal::SIGTERM);
}

#[test] // D-SP-05, D-PF-04
fn a_child_is_replaced_after_its_requests() {
    let args = ["--start-children", "1", "--max-children", "1", "--max-spare", "1", "--requests", "3"];
    let (running, addr) = start_pool(&args, 1);
    let mut served = Vec::new();
    for _ in 0..9 {
        let _client = held(addr, "x");
        served.push(running.children());
    }
    // One child at a time, and each for three: a new one comes when the old one has gone.
    let pids: Vec<i32> = served.iter().map(|pids| pids[0]).collect();
    assert!(served.iter().all(|pids| pids.len() == 1), "{served:?}");
    assert!(pids.chunks(3).all(|three| three.iter().all(|pid| *pid == three[0])), "{pids:?}");
    assert_ne!(pids[0], pids[3]);
    assert_ne!(pids[3], pids[6]);
}

#[test] // D-PF-06: a hard limit, forks in flight included
fn a_pool_never_grows_beyond_its_maximum() {
    let args = ["--start-children", "2", "--min-spare", "2", "--max-spare", "3", "--max-children", "6"];
    let (mut running, addr) = start_pool(&[&args[..], &["--requests", "2"]].concat(), 2);
    let most = burst(&running, addr, 200, 12);
    assert!(most <= 6, "{most} children at a time");
    // And it does grow so far; the next client waits.
    let more = wait_at_limit(&running, addr, 6);
    assert!(more <= 6, "{more} children at a time");
    end(&mut running, Signal::SIGTERM);
}

#[test] // D-FO-03: nothing is dropped and the limit holds
fn sixty_clients_at_once_on_three_post_forked_children_are_all_answered() {
    let (mut running, addr) = start("echo_fork", &["--max-children", "3"]);
    let most = burst(&running, addr, 60, 60);
    assert!(most <= 3, "{most} children at a time");
    let most = wait_at_limit(&running, addr, 3);
    assert!(most <= 3, "{most} children at a time");
    end(&mut running, Signal::SIGTERM);
}

/// Holds `limit` connections, has twice as many clients wait behind them, and lets them all through. Returns the most
/// children that were seen.
fn wait_at_limit(running: &Running, addr: SocketAddr, limit: usize) -> usize {
    let first: Vec<Client> = (0..limit).map(|_| held(addr, "x")).collect();
    let mut most = count_children(running);
    assert!(most >= limit, "{most} children serve {limit} clients");
    let mut waiting: Vec<Client> = (0..2 * limit).map(|_| Client::connect(addr)).collect();
    waiting.iter_mut().for_each(|client| client.send("x\n"));
    waiting.iter_mut().for_each(Client::finish_sending);
    most = most.max(count_children(running));
    drop(first);
    for client in &mut waiting {
        assert_eq!(client.read_line(), "x");
        most = most.max(count_children(running));
        client.expect_eof();
    }
    most
}

/// The program's children, those that it has not reaped included.
fn count_children(running: &Running) -> usize {
    proc::children(running.pid()).len()
}

/// Has `clients` answered, `at_once` at a time, and returns the most children that were seen meanwhile, zombies too.
fn burst(running: &Running, addr: SocketAddr, clients: usize, at_once: usize) -> usize {
    let count = || count_children(running);
    let mut most = 0;
    for _ in 0..clients.div_ceil(at_once) {
        let mut wave: Vec<Client> = (0..at_once).map(|_| Client::connect(addr)).collect();
        most = most.max(count());
        wave.iter_mut().for_each(|client| client.send("x\n"));
        // Half-closed, so that a server with fewer children than clients comes round to all of them.
        wave.iter_mut().for_each(Client::finish_sending);
        for client in &mut wave {
            most = most.max(count());
            assert_eq!(client.read_line(), "x");
            client.expect_eof();
        }
    }
    most.max(count())
}

#[test] // D-PF-06, D-PF-09: growth waits for no timer
fn twenty_held_connections_grow_a_pool_of_two_within_milliseconds() {
    let args = ["--start-children", "2", "--min-spare", "2", "--max-spare", "25", "--max-children", "25"];
    let (mut running, addr) = start_pool(&args, 2);
    let begin = Instant::now();
    let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(addr)).collect();
    clients.iter_mut().for_each(|client| client.send("x\n"));
    clients.iter_mut().for_each(|client| assert_eq!(client.read_line(), "x"));
    // One child a second, as POE's timer grows a pool, would take nine at least.
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert!(running.children().len() >= 20);
    drop(clients);
    end(&mut running, Signal::SIGTERM);
}

#[test] // T10: a child pauses its listener for each request, and finds the rest of the backlog when it resumes
fn ten_queued_connections_are_all_served_by_a_pool_of_one() {
    let args = ["--start-children", "1", "--max-children", "1", "--max-spare", "1", "--requests", "1"];
    let (mut running, addr) = start_pool(&args, 1);
    burst(&running, addr, 10, 10);
    end(&mut running, Signal::SIGTERM);
    let args = ["--start-children", "1", "--max-children", "1", "--max-spare", "1", "--requests", "0"];
    let (mut running, addr) = start_pool(&args, 1);
    burst(&running, addr, 10, 10);
    end(&mut running, Signal::SIGTERM);
}

#[test] // D-SH-01: daemon_HUP is for log files
fn hup_ends_no_daemon() {
    for name in ["echo_fork", "echo_prefork"] {
        let (mut running, addr) = start(name, &[]);
        let mut client = held(addr, "before");
        let children = running.children();
        running.signal(Signal::SIGHUP);
        assert_eq!(client.line("after"), "after");
        assert!(dump(&running).contains("(Daemon)"), "the dump came after the HUP");
        assert!(children.iter().all(|&pid| proc::is_alive(pid)), "a child died of HUP");
        held(addr, "new");
        drop(client);
        end(&mut running, Signal::SIGTERM);
    }
}

#[test] // D-SH-02: "requests in hand" are the children's to finish, and the limit is shutdown_timeout
fn a_request_in_hand_is_finished_after_term() {
    for name in ["echo_fork", "echo_prefork"] {
        let (mut running, addr) = start(name, &[]);
        let mut client = held(addr, "before");
        running.signal(Signal::SIGTERM);
        wait_until("the listener's end", DEADLINE, || Client::try_connect(addr).err());
        assert_eq!(client.line("after"), "after");
        drop(client);
        assert_eq!(running.wait_exit(LONG).code(), Some(0));
    }
}

#[test]
fn a_busy_port_is_one_line_and_exit_1() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("a bound socket").to_string();
    for name in ALL {
        let outcome = expect_refusal(name, &["--listen", &addr], 1, "in use");
        assert!(outcome.stderr.contains(&addr) && outcome.stdout.is_empty(), "{name}: {outcome:?}");
    }
}

#[test] // D-SP-04
fn settings_that_contradict_each_other_are_one_line_and_exit_1() {
    let args = ["--start-children", "9", "--max-children", "3", "--listen", "127.0.0.1:0"];
    expect_refusal("echo_prefork", &args, 1, "start_children (9) is more than max_children (3)");
}

#[test] // the promise on the first line of each example's documentation
fn every_example_is_short() -> io::Result<()> {
    for name in ALL {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../examples/{name}.rs"));
        let lines = std::fs::read_to_string(path)?.lines().count();
        assert!(lines <= 130, "{name} has {lines} lines");
    }
    Ok(())
}

//! D-SP-07, D-SH-01: two Daemons in one kernel, each with a `component::Server`, that hear each other's signals.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use util::lab::{Lab, pid_of, send};
use util::{Client, DEADLINE, proc, wait_until};

const MODES: [(&str, &str); 4] =
    [("prefork:2", "prefork:2"), ("prefork:2", "fork:2"), ("fork:2", "prefork:2"), ("prefork:2", "single")];

/// Starts both, of at most two children each, and waits until the pools wait for work.
fn start(one: &str, other: &str) -> (Lab, [SocketAddr; 2]) {
    let (lab, addr) = Lab::serve("daemon_servers", &format!("--one {one} --other {other}"));
    let other_addr = lab.find("the other's address", |said| {
        said.iter().find_map(|line| line.strip_prefix("other listening on ")?.parse().ok())
    });
    for (name, mode) in [("one", one), ("other", other)] {
        if mode.starts_with("prefork") {
            lab.find("its pool", |said| {
                let accept = format!(" daemon_accept {name}");
                (said.iter().filter(|line| line.ends_with(&accept)).count() == 2).then_some(())
            });
        }
    }
    (lab, [addr, other_addr])
}

/// What the parent knows of the children of one: their letters, in alphabetical order, and their pids.
fn board(lab: &Lab, name: &str) -> (String, Vec<i32>) {
    let answer = lab.ask(&format!("{name} ["));
    let (letters, pids) = answer.split_once(']').expect("the board ends");
    let mut letters: Vec<char> = letters.chars().filter(|letter| *letter != ' ').collect();
    letters.sort_unstable();
    (letters.into_iter().collect(), pids.trim().split(',').filter_map(|pid| pid.parse().ok()).collect())
}

#[track_caller]
fn wait_board(lab: &Lab, name: &str, letters: &str) -> Vec<i32> {
    wait_until(&format!("a board of {name} of {letters:?}"), DEADLINE, || {
        let (now, pids) = board(lab, name);
        (now == letters).then_some(pids)
    })
}

/// Has a line answered by the server called so; returns the pid that did.
#[track_caller]
fn hello(client: &mut Client, name: &str) -> i32 {
    let answer = client.line("hello");
    assert!(answer.ends_with(&format!(" {name} hello")), "{answer}");
    pid_of(&answer)
}

/// What is on the boards while so many of its clients are connected.
fn letters(mode: &str, clients: usize) -> String {
    match mode {
        "single" => String::new(),
        "prefork:2" => "r".repeat(clients) + &"w".repeat(2 - clients),
        _ => "r".repeat(clients),
    }
}

#[test] // D-SP-07, D-SH-01
fn children_serve_their_own_port_and_report_to_their_own_board() {
    for (one, other) in MODES {
        let (mut lab, [addr, other_addr]) = start(one, other);
        let modes = [("one", one, addr), ("other", other, other_addr)];
        let mut held = Vec::new();
        for clients in 1..=2 {
            for (name, mode, addr) in modes {
                let mut client = Client::connect(addr);
                let pid = hello(&mut client, name);
                let children = wait_board(&lab, name, &letters(mode, clients));
                assert!(if mode == "single" { pid == lab.pid() } else { children.contains(&pid) }, "{one} {other}");
                held.push((client, pid, name));
            }
        }
        // All of one's children are busy; nobody else may take the client, whoever has nothing to do.
        let mut third = Client::connect(addr);
        third.send("hello\r\n");
        held.retain_mut(|(client, _, name)| {
            if *name == "other" {
                client.finish_sending();
                client.expect_eof();
            }
            *name == "one"
        });
        wait_board(&lab, "other", &letters(other, 0));
        for _ in 0..5 {
            let mut client = Client::connect(other_addr);
            hello(&mut client, "other");
            client.finish_sending();
            client.expect_eof();
        }
        let (mut client, _, _) = held.pop().expect("two of them");
        client.finish_sending();
        client.expect_eof();
        drop(client);
        let answer = third.read_line();
        assert!(answer.ends_with(" one hello"), "{answer}");
        assert!(wait_board(&lab, "one", "rr").contains(&pid_of(&answer)));
        // Whoever is still there at the end is waited for.
        drop((held, third));
        lab.end(Signal::SIGTERM);
        assert!(!lab.running.stderr_text().contains("[ERROR]"), "{}", lab.running.stderr_text());
    }
}

#[test] // D-SH-01: each signal says whose it is
fn each_signal_says_which_daemon_has_sent_it() {
    let (mut lab, [addr, other_addr]) = start("prefork:2", "fork:1");
    let own = board(&lab, "one").1;
    let mut first = Client::connect(addr);
    let busy = hello(&mut first, "one");
    let mut second = Client::connect(other_addr);
    let forked = hello(&mut second, "other");
    lab.expect(lab.pid(), "daemon_pause other");
    for mut client in [first, second] {
        client.finish_sending();
        client.expect_eof();
    }
    lab.wait_gone(&[forked]);
    lab.expect(lab.pid(), "daemon_accept other");
    wait_board(&lab, "one", "ww");
    lab.running.signal(Signal::SIGHUP);
    for pid in [lab.pid(), own[0], own[1]] {
        lab.expect(pid, "daemon_HUP one");
        lab.expect(pid, "daemon_HUP other");
    }
    lab.end(Signal::SIGTERM);
    lab.all();
    assert!(lab.story(forked).starts_with("daemon_child other, daemon_shutdown other"), "{}", lab.story(forked));
    assert!(lab.story(busy).starts_with("daemon_child one, daemon_accept one, daemon_accept one, "));
    let story = lab.story(lab.pid());
    for signal in ["daemon_start one", "daemon_start other", "daemon_parent one", "daemon_shutdown one"] {
        assert_eq!(story.matches(signal).count(), 1, "{story}");
    }
    assert_eq!(story.matches("daemon_shutdown other").count(), 1, "{story}");
    assert!(!lab.all().iter().any(|line| line.ends_with("nobody")));
}

#[test] // D-SH-02: the end of one, children and all, and the other goes on
fn the_end_of_one_leaves_the_other() {
    for (one, other) in MODES {
        let (mut lab, [addr, other_addr]) = start(one, other);
        let mut client = Client::connect(other_addr);
        let pid = hello(&mut client, "other");
        let own = board(&lab, "one").1;
        lab.running.signal(Signal::SIGUSR2);
        lab.wait_gone(&own);
        wait_until("the end of its listener", DEADLINE, || Client::try_connect(addr).is_err().then_some(()));
        assert_eq!(hello(&mut client, "other"), pid, "{one} {other}");
        hello(&mut Client::connect(other_addr), "other");
        // A child that is killed is replaced, as before.
        if other != "single" {
            send(pid, Signal::SIGKILL);
            client.expect_eof_or_reset();
            hello(&mut Client::connect(other_addr), "other");
        }
        drop(client);
        lab.end(Signal::SIGTERM);
    }
}

#[test] // D-SP-07: what a child of one has inherited of the other looks after nobody
fn a_child_has_nothing_to_do_with_the_other_daemon() {
    for (one, other) in [("prefork:2", "prefork:2"), ("fork:2", "prefork:2")] {
        let (mut lab, [addr, _]) = start(one, other);
        let others = board(&lab, "other").1;
        let mut client = Client::connect(addr);
        let pid = hello(&mut client, "one");
        let answer = client.line("statuses");
        assert!(answer.ends_with("Daemon children=0 slot=true, Other children=0 slot=false"), "{answer}");
        // Each of these, in the parent, would do something to a pool.
        for signal in [Signal::SIGTTIN, Signal::SIGTTOU, Signal::SIGHUP, Signal::SIGCONT, Signal::SIGCHLD] {
            send(pid, signal);
        }
        lab.expect(pid, "daemon_HUP other");
        // Rounds of the babysitter, of which a child has none: the other's is killed, and replaced by its parent alone.
        send(others[0], Signal::SIGKILL);
        let replaced = wait_until("another", DEADLINE, || {
            let (letters, pids) = board(&lab, "other");
            (letters == "ww" && !pids.contains(&others[0])).then_some(pids)
        });
        assert!(replaced.iter().all(|child| proc::ppid(*child) == Some(lab.pid())));
        assert_eq!(hello(&mut client, "one"), pid);
        // Its end is its own.
        send(pid, Signal::SIGINT);
        lab.expect(pid, "daemon_shutdown one");
        client.expect_eof();
        drop(client);
        lab.wait_gone(&[pid]);
        assert_eq!(board(&lab, "other"), ("ww".to_owned(), replaced));
        hello(&mut Client::connect(addr), "one");
        lab.end(Signal::SIGTERM);
    }
}

#[test] // D-SP-07: nor has a process that the program forks by itself anything to serve
fn a_child_of_the_program_serves_no_port() {
    for one in ["prefork:2", "fork:2", "single"] {
        let (mut lab, [addr, _]) = start(one, "prefork:2");
        let mut client = Client::connect(addr);
        let answer = client.line("fork");
        assert!(answer.ends_with(" one forked"), "{answer}");
        // It ends, so it listens to nobody; and whoever has forked it goes on.
        let (own, _) = lab.nth(1, "own_child");
        lab.expect(own, "end");
        assert_eq!(lab.nth(1, "own_reaped").0, pid_of(&answer));
        assert_eq!(hello(&mut client, "one"), pid_of(&answer));
        drop(client);
        lab.end(Signal::SIGTERM);
    }
}

#[test] // D-SH-06: what a child has inherited of the other server's connections keeps it from nothing
fn a_child_ends_with_its_own_connection_whoever_is_connected_with_the_other_server() {
    let (lab, [addr, other_addr]) = start("single", "fork:2");
    let mut waits = Client::connect(addr);
    assert_eq!(pid_of(&waits.line("idle")), lab.pid());
    let mut client = Client::connect(other_addr);
    let pid = hello(&mut client, "other");
    drop(client);
    wait_until("the child's end", DEADLINE / 2, || (!proc::is_alive(pid)).then_some(()));
    hello(&mut waits, "one");
}

#[test] // T11, D-FO-01: what a child does not keep it closes before it asks for anything
fn a_child_needs_no_descriptors_beside_those_of_its_parent() {
    let (mut lab, [addr, other_addr]) = start("single", "fork:2");
    let mut held: Vec<Client> = (0..10).map(|_| Client::connect(addr)).collect();
    held.iter_mut().for_each(|client| assert_eq!(hello(client, "one"), lab.pid()));
    // There is a number left for the connection, and none for anything else.
    let is_free = |number: &i32| !Path::new(&format!("/proc/{}/fd/{number}", lab.pid())).is_symlink();
    let files = (0..).filter(is_free).nth(1).expect("there are many");
    let mut prlimit = Command::new("prlimit");
    prlimit.args(["--pid", &lab.pid().to_string(), &format!("--nofile={files}:")]);
    assert!(prlimit.status().expect("prlimit can be run").success());
    let mut client = Client::connect(other_addr);
    assert_ne!(hello(&mut client, "other"), lab.pid());
    drop((client, held));
    lab.end(Signal::SIGTERM);
}

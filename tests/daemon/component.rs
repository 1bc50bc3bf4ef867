//! `component::Server`, watched from outside: one protocol in one process, in a child for each connection, and in a pool of
//! children with one connection at a time or several. The program is `tests/programs/component_server.rs`.

use std::collections::BTreeSet;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::babysit::record;
use util::lab::{LONG, Lab, held, pid_of, send, tell};
use util::{Client, DEADLINE, Program, at_once, example, proc, stays, wait_until};

pub const ALL: [&str; 4] = ["--mode single", "--mode fork:6", "--mode prefork:3", "--mode prefork:2 --connections 3"];

pub fn serve(args: &str) -> (Lab, SocketAddr) {
    Lab::serve("component_server", args)
}

/// Starts a pool of so many children, no more and no less, and waits until all of them wait for work.
pub fn pool(children: usize, args: &str) -> (Lab, SocketAddr) {
    let (lab, addr) =
        serve(&format!("--start {children} --max {children} --min-spare {children} --max-spare {children} {args}"));
    lab.wait_board(&"w".repeat(children));
    (lab, addr)
}

/// Waits until the server, and not a backlog, has this connection: it answers. Any number of others may be waiting.
pub fn answers(client: &mut Client) -> i32 {
    pid_of(&client.line("hello"))
}

/// Waits for the orderly end of a connection, also when a signal interrupts, and closes the client's side as well: the
/// server waits for that, up to two seconds.
#[track_caller]
pub fn expect_end(client: &mut Client) {
    expect_end_and_stay(client);
    let _ = client.stream().shutdown(Shutdown::Both);
}

/// The same of a client that does not close.
#[track_caller]
pub fn expect_end_and_stay(client: &mut Client) {
    assert_eq!(client.try_read_line().expect("a connection that is closed in order"), None);
}

/// Tells that a client is not served: the server is asked for its board twice, and in between anything that was to
/// happen has happened; the client got nothing.
#[track_caller]
fn expect_waiting(lab: &Lab, client: &Client) {
    for _ in 0..3 {
        lab.board();
    }
    client.stream().set_nonblocking(true).expect("a socket can be non-blocking");
    let got = client.stream().peek(&mut [0; 16]);
    client.stream().set_nonblocking(false).expect("and blocking");
    assert_eq!(got.map_err(|error| error.kind()), Err(std::io::ErrorKind::WouldBlock), "it should wait");
}

#[test]
fn one_protocol_serves_in_every_mode() {
    for args in ALL {
        let (mut lab, addr) = serve(args);
        let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(addr)).collect();
        let pids: BTreeSet<i32> = clients.iter_mut().map(answers).collect();
        let parent = lab.pid();
        match args {
            "--mode single" => assert_eq!(pids, [parent].into()),
            "--mode prefork:2 --connections 3" => assert!(!pids.contains(&parent)),
            _ => assert!(pids.len() == 3 && !pids.contains(&parent), "{args}: {pids:?}"),
        }
        for client in &mut clients {
            client.send("a\r\nb\r\n");
            assert!(client.read_line().ends_with(" a") && client.read_line().ends_with(" b"));
            // What was sent before the end is still answered.
            client.send("c\r\n");
            client.finish_sending();
            assert!(client.read_line().ends_with(" c"));
            expect_end(client);
        }
        for pid in pids {
            lab.expect(pid, "set up");
        }
        lab.end(Signal::SIGTERM);
    }
}

#[test]
fn whatever_is_set_up_is_set_up_once_in_each_process_that_serves() {
    for args in ALL {
        let (mut lab, addr) = serve(args);
        let pids: Vec<i32> = (0..4).map(|_| held(addr).1).collect();
        lab.end(Signal::SIGTERM);
        let all = lab.all();
        for pid in pids {
            assert_eq!(all.iter().filter(|line| **line == format!("{pid} set up")).count(), 1, "{args}: {all:?}");
        }
        let parent = format!("{} set up", lab.pid());
        assert_eq!(all.contains(&parent), args == "--mode single", "{args}");
    }
}

#[test] // D-SH-02, D-SH-17: at once, but for the output
fn int_shuts_all_connections_down_and_term_if_it_is_set_so() {
    let cases =
        ALL.into_iter().flat_map(|args| [(args, "", Signal::SIGINT), (args, "--term at-once", Signal::SIGTERM)]);
    for (args, term, signal) in cases {
        let (mut lab, addr) = serve(&format!("{args} {term}"));
        let mut clients: Vec<Client> = (0..3).map(|_| held(addr).0).collect();
        // More than the sockets hold; the first of it shows that the command was carried out.
        clients[0].send("big 20000000\r\n");
        wait_until("the beginning of the line", DEADLINE, || clients[0].stream().peek(&mut [0]).ok());
        lab.running.signal(signal);
        clients[1..].iter_mut().for_each(expect_end);
        assert_eq!(clients[0].read_line().len(), 20_000_000);
        expect_end(&mut clients[0]);
        lab.expect_end();
        assert_eq!(lab.all().iter().filter(|line| line.ends_with(" disconnected")).count(), 3, "{args} {signal}");
    }
}

#[test] // D-SH-03
fn quit_lets_connections_come_to_their_end() {
    at_once(ALL, |args| {
        let (mut lab, addr) = serve(&format!("{args} --holds --grace-ms 60000"));
        let mut clients: Vec<Client> = (0..3).map(|_| held(addr).0).collect();
        clients[0].send("late 300\r\n");
        lab.running.signal(Signal::SIGQUIT);
        wait_until("the listener's end", DEADLINE, || Client::try_connect(addr).is_err().then_some(()));
        assert!(clients[0].read_line().ends_with(" late"));
        for client in &mut clients {
            assert!(client.line("still here").ends_with(" still here"), "{args}");
            assert_eq!(tell(client, "bye"), "bye");
            expect_end(client);
        }
        lab.expect_end();
    });
}

#[test] // D-SH-03: whoever does not want to wait any longer
fn term_after_quit_hurries_a_single_process() {
    let (mut lab, addr) = serve("--mode single --holds");
    let (mut client, _) = held(addr);
    lab.running.signal(Signal::SIGQUIT);
    wait_until("the listener's end", DEADLINE, || Client::try_connect(addr).is_err().then_some(()));
    assert!(client.line("still here").ends_with(" still here"));
    lab.running.signal(Signal::SIGTERM);
    expect_end(&mut client);
    lab.expect_end();
}

#[test] // D-SP-03
fn without_a_mode_the_daemons_settings_say_it() {
    for (args, mode) in [("", "non-forking"), ("--max 3", "post-forking"), ("--start 2", "pre-forking")] {
        let (lab, _) = serve(args);
        assert!(lab.ask("board").ends_with(mode), "{args}");
    }
    // And with one, the mode does.
    for (args, mode) in [
        ("--mode single --start 4 --max 9", "non-forking"),
        ("--mode fork:3 --start 4", "post-forking"),
        ("--mode prefork:3 --max 9", "pre-forking"),
    ] {
        let (lab, _) = serve(args);
        assert!(lab.ask("board").ends_with(mode), "{args}");
    }
}

#[test]
fn a_connection_that_is_stopped_as_it_begins_makes_room_for_the_next() {
    for mode in
        ["--mode single --connections 1", "--mode prefork:1 --max 1", "--mode prefork:1 --max 1 --connections 2"]
    {
        let (mut lab, addr) = serve(&format!("{mode} --refuse 2"));
        for _ in 0..2 {
            expect_end(&mut Client::connect(addr));
        }
        answers(&mut Client::connect(addr));
        lab.end(Signal::SIGTERM);
    }
}

#[test]
fn a_single_process_has_as_many_connections_as_it_may_have() {
    let (mut lab, addr) = serve("--mode single --connections 2 --holds");
    let (first, second) = (held(addr), held(addr));
    let mut third = Client::connect(addr);
    third.send("hello\r\n");
    expect_waiting(&lab, &third);
    drop(first);
    assert_eq!(pid_of(&third.read_line()), lab.pid());
    drop((second, third));
    lab.end(Signal::SIGTERM);
}

#[test] // D-FO-03
fn no_more_children_than_there_may_be_and_all_are_served() {
    let (mut lab, addr) = serve("--mode fork:2 --holds");
    let (first, second) = (held(addr), held(addr));
    let mut waiting: Vec<Client> = (0..3).map(|_| Client::connect(addr)).collect();
    waiting.iter_mut().for_each(|client| client.send("hello\r\n"));
    expect_waiting(&lab, &waiting[0]);
    assert_eq!(lab.running.children().len(), 2);
    drop(first);
    let mut pids = BTreeSet::new();
    for mut client in waiting {
        pids.insert(pid_of(&client.read_line()));
        assert!(lab.running.children().len() <= 2);
    }
    assert_eq!(pids.len(), 3);
    drop(second);
    lab.end(Signal::SIGTERM);
}

#[test] // D-PF-02, D-PF-04
fn a_child_with_one_connection_at_a_time_is_busy_with_it() {
    let (mut lab, addr) = pool(2, "--holds");
    let ((first, pid), (second, other)) = (held(addr), held(addr));
    assert_ne!(pid, other);
    lab.wait_board("rr");
    let mut third = Client::connect(addr);
    third.send("hello\r\n");
    expect_waiting(&lab, &third);
    drop(first);
    assert_eq!(pid_of(&third.read_line()), pid);
    drop((second, third));
    lab.end(Signal::SIGTERM);
}

#[test]
fn a_child_with_several_connections_is_busy_while_it_has_any() {
    let (mut lab, addr) = pool(1, "--connections 3 --holds");
    let mut clients: Vec<Client> = (0..3).map(|_| held(addr).0).collect();
    lab.wait_board("r");
    let mut fourth = Client::connect(addr);
    fourth.send("hello\r\n");
    expect_waiting(&lab, &fourth);
    // One that goes makes room, whichever it is.
    clients.remove(1);
    let pid = pid_of(&fourth.read_line());
    for client in &mut clients {
        assert_eq!(answers(client), pid);
    }
    // D-PF-03: each of them is a request
    assert_eq!(lab.ask("requests"), "4");
    drop((clients, fourth));
    lab.wait_board("w");
    assert_eq!(held(addr).1, pid);
    lab.end(Signal::SIGTERM);
}

#[test]
fn a_daemon_with_settings_of_its_own_does_not_fork_for_each_connection() {
    let (mut lab, addr) = pool(1, "--requests-unset");
    let (client, pid) = held(addr);
    drop(client);
    lab.wait_board("w");
    assert_eq!(held(addr).1, pid);
    lab.end(Signal::SIGTERM);
}

#[test] // D-BA-01: of several keep-alive connections
fn request_timeout_counts_from_the_latest_request_of_several_connections() {
    let (mut lab, addr) = pool(1, "--connections 3 --babysit-ms 100 --request-ms 1500");
    let (mut busy, child) = held(addr);
    let (mut idle, _) = held(addr);
    let begin = Instant::now();
    // Nobody connects any more, and the child is as busy as can be.
    while begin.elapsed() < Duration::from_secs(4) {
        assert_eq!(answers(&mut busy), child);
        thread::sleep(Duration::from_millis(20));
    }
    // Nobody asks for anything: nothing is in hand.
    lab.wait_board("k");
    stays("the child", Duration::from_secs(3), || lab.running.children() == [child]);
    assert_eq!([answers(&mut idle), answers(&mut busy)], [child, child]);
    assert!(!lab.running.stderr_text().contains("child is rogue"));
    // One that makes no progress is a rogue.
    let dir = tempfile::tempdir().expect("a directory");
    let gate = dir.path().join("gate");
    std::fs::write(&gate, "").expect("a file");
    busy.send(format!("gate {}\r\n", gate.display()));
    let warning = lab.running.wait_for_stderr("child is rogue", LONG);
    assert!(warning.contains(&format!("pid={child} ")) && warning.contains("why=request_timeout"), "{warning}");
    assert!(warning.contains(" peer=\"127.0.0.1\": "), "{warning}");
    std::fs::remove_file(&gate).expect("it is there");
    lab.end(Signal::SIGTERM);
}

#[test] // D-SH-02: clients that don't close hold nobody up for longer than they may
fn linger_bounds_the_wait_for_clients_that_do_not_close() {
    for args in ["--mode single", "--mode prefork:1"] {
        let (mut lab, addr) = serve(&format!("{args} --term at-once --grace-ms 60000 --linger-ms 0"));
        let (_client, _) = held(addr);
        lab.end(Signal::SIGTERM);
    }
    let (mut lab, addr) = serve("--mode single --term at-once --linger-ms 600000");
    let (mut client, _) = held(addr);
    lab.running.signal(Signal::SIGTERM);
    expect_end_and_stay(&mut client);
    // It has closed its side. Longer than it would wait for the client to do the same if it had not been told to.
    stays("waiting", Duration::from_secs(3), || proc::is_alive(lab.pid()));
    drop(client);
    lab.expect_end();
}

#[test] // D-SP-05
fn a_child_that_has_had_its_share_finishes_what_it_has() {
    let (mut lab, addr) = pool(1, "--connections 5 --requests 3 --holds");
    let (mut one, pid) = held(addr);
    let (mut two, same) = held(addr);
    drop(one);
    let (mut three, again) = held(addr);
    assert_eq!([same, again], [pid, pid]);
    // It has room, and a share of none.
    let mut four = Client::connect(addr);
    four.send("hello\r\n");
    expect_waiting(&lab, &four);
    assert_eq!([answers(&mut two), answers(&mut three)], [pid, pid]);
    assert_eq!(tell(&mut two, "bye"), "bye");
    expect_end(&mut two);
    expect_waiting(&lab, &four);
    assert_eq!(tell(&mut three, "bye"), "bye");
    expect_end(&mut three);
    assert_ne!(pid_of(&four.read_line()), pid);
    lab.wait_gone(&[pid]);
    one = held(addr).0;
    drop((one, four));
    lab.end(Signal::SIGTERM);
}

#[test] // D-PF-07
fn a_child_that_is_asked_to_go_takes_no_more_and_finishes_what_it_has() {
    let (mut lab, addr) = pool(2, "--connections 5 --holds");
    let (mut one, pid) = held(addr);
    send(pid, Signal::SIGQUIT);
    lab.expect(pid, "daemon_pause");
    let mut others: Vec<(Client, i32)> = (0..5).map(|_| held(addr)).collect();
    assert!(others.iter().all(|(_, other)| *other != pid));
    for (client, other) in &mut others {
        assert_eq!(answers(client), *other);
    }
    assert_eq!(answers(&mut one), pid);
    assert_eq!(tell(&mut one, "bye"), "bye");
    expect_end(&mut one);
    lab.wait_gone(&[pid]);
    let record = record(&lab, pid);
    assert!(record.contains(" cause=recycled "), "{record}");
    drop(others);
    lab.wait_board("ww");
    lab.end(Signal::SIGTERM);
}

#[test] // D-SH-04
fn children_without_a_parent_finish_what_they_have() {
    let (mut lab, addr) = pool(2, "--connections 5 --holds");
    let (mut one, pid) = held(addr);
    let idle: Vec<i32> = lab.running.children().into_iter().filter(|child| *child != pid).collect();
    lab.running.signal(Signal::SIGKILL);
    lab.running.wait_exit(DEADLINE);
    lab.wait_gone(&idle);
    wait_until("the listener's end", DEADLINE, || Client::try_connect(addr).is_err().then_some(()));
    assert_eq!(answers(&mut one), pid);
    drop(one);
    lab.wait_gone(&[pid]);
}

#[test] // D-SH-08
fn connections_of_a_child_without_a_parent_are_closed_when_its_time_is_up() {
    at_once(["--mode prefork:1 --max 1 --min-spare 1 --max-spare 1 --connections 5", "--mode fork:1"], |args| {
        let (lab, addr) = serve(&format!("{args} --request-ms 1000 --babysit-ms 60000"));
        let (mut client, pid) = held(addr);
        lab.running.signal(Signal::SIGKILL);
        wait_until("the listener's end", DEADLINE, || Client::try_connect(addr).is_err().then_some(()));
        expect_end(&mut client);
        lab.wait_gone(&[pid]);
    });
}

#[test] // D-SB-04, D-PF-06
fn a_child_that_dies_takes_only_its_own_connections_with_it() {
    let (mut lab, addr) = pool(2, "--connections 5");
    let mut clients: Vec<(Client, i32)> = (0..6).map(|_| held(addr)).collect();
    let victim = clients[0].1;
    send(victim, Signal::SIGKILL);
    for (client, pid) in &mut clients {
        if *pid == victim {
            assert!(!matches!(client.try_read_line(), Ok(Some(_))));
        } else {
            assert_eq!(answers(client), *pid);
        }
    }
    wait_until("another child", DEADLINE, || (lab.running.children().len() == 2).then_some(()));
    clients.clear();
    lab.wait_board("ww");
    lab.end(Signal::SIGTERM);
}

#[test] // D-DE-02, with a server that listens before the Daemon is spawned
fn a_server_can_detach_in_every_mode() {
    for args in ALL {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().display().to_string();
        let mut lab = Lab::start("component_server", &format!("{args} --detach {path}"));
        assert_eq!(lab.running.wait_exit(LONG).code(), Some(0), "{args}");
        let read = |file: &str| std::fs::read_to_string(dir.path().join(file)).unwrap_or_default();
        let addr: SocketAddr = wait_until("the address", DEADLINE, || {
            let log = read("log");
            log.lines().find_map(|line| line.strip_prefix("listening on ")?.parse().ok())
        });
        let pid: i32 = read("pid").trim().parse().expect("a pid");
        let (mut client, server) = held(addr);
        assert_eq!(server == pid, args == "--mode single", "{args}");
        send(pid, Signal::SIGINT);
        expect_end(&mut client);
        lab.wait_gone(&[pid, server]);
    }
}

#[test] // D-DE-13: a set-up that fails in every child makes the start fail
fn detached_start_fails_when_children_can_not_be_set_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().display().to_string();
    let mut lab = Lab::start("component_server", &format!("--mode prefork:2 --fail-set-up --detach {path}"));
    assert_eq!(lab.running.wait_exit(LONG).code(), Some(1));
    let line = lab.running.wait_for_stderr("Daemon has not started: ", DEADLINE);
    assert!(line.contains("children fail in their set-up, 5 in a row, the last one with exited:1"), "{line}");
    assert!(!dir.path().join("pid").exists());
    let log = std::fs::read_to_string(dir.path().join("log")).expect("a log");
    assert!(log.contains("no database"), "{log}");
}

/// Connects again and again, and has a line answered, sometimes one more; a connection that is refused, reset or closed before the
/// first answer panics. Returns the second lines that were not answered.
fn customers(
    addr: SocketAddr,
    count: usize,
    rounds: usize,
    served: &Arc<AtomicUsize>,
) -> Vec<thread::JoinHandle<Vec<String>>> {
    let customer = move |number: usize, served: Arc<AtomicUsize>| {
        let mut unanswered = Vec::new();
        for round in 0..rounds {
            let mut client = Client::connect(addr);
            let text = format!("line {round}");
            assert!(client.line(&text).ends_with(&text));
            served.fetch_add(1, Ordering::Relaxed);
            let more = format!("take {number}.{round}");
            if round % 2 == 0 && client.try_send(format!("{more}\r\n")).is_ok() {
                // A child that is asked to go closes an idle connection, perhaps before this line comes.
                match client.try_read_line() {
                    Ok(Some(line)) => assert!(line.ends_with(&more), "{line:?}"),
                    Ok(None) | Err(_) => unanswered.push(more),
                }
            }
        }
        unanswered
    };
    (0..count)
        .map(|number| {
            let served = Arc::clone(served);
            thread::spawn(move || customer(number, served))
        })
        .collect()
}

#[test] // D-PF-07, D-SP-05
fn no_request_is_lost_while_children_come_and_go() {
    for args in ["--connections 3 --requests 5", "--requests 3", "--connections 3 --max-spare 2 --min-spare 1"] {
        let (mut lab, addr) = serve(&format!("--start 3 --max 6 {args}"));
        let served = Arc::new(AtomicUsize::new(0));
        let customers = customers(addr, 4, 60, &served);
        // Any of them, whatever it is doing, but no more than customers are served: a pool of which no child lives for long enough is
        // slowed down, as is right.
        let (mut turn, mut paid) = (0, 0);
        while !customers.iter().all(thread::JoinHandle::is_finished) {
            let children = lab.running.children();
            let earned = served.load(Ordering::Relaxed);
            if let Some(pid) = children.get(turn % children.len().max(1)).filter(|_| turn < 3 || earned > paid) {
                let _ = util::kill(*pid, Signal::SIGQUIT);
                paid = earned;
                turn += 1;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let unanswered: Vec<String> =
            customers.into_iter().flat_map(|customer| customer.join().expect("every first line is answered")).collect();
        lab.end(Signal::SIGTERM);
        let taken: BTreeSet<String> =
            lab.all().iter().filter_map(|line| Some(line.split_once(' ')?.1.to_owned())).collect();
        let lost: Vec<&String> = unanswered.iter().filter(|line| taken.contains(*line)).collect();
        assert!(lost.is_empty(), "{args}: a child took these and did not answer: {lost:?}");
        assert!(taken.iter().any(|line| line.starts_with("take ")), "{args}: no child took any second line");
    }
}

#[test]
fn the_example_serves_in_every_mode_and_dumps_on_usr2() {
    for (args, board) in [
        ("--mode single", "Daemon server"),
        ("--mode fork", "25 slots in the scoreboard"),
        ("--mode prefork:2 --connections 10", "Slots [ww"),
        ("", "Daemon server"),
    ] {
        let running = Program::new(example("echo_server")).args(["--listen", "127.0.0.1:0"]);
        let mut running = running.args(args.split_whitespace()).start();
        let addr = running.listening_addr();
        let mut client = Client::connect(addr);
        assert_eq!(client.line("hello"), "hello");
        drop(client);
        wait_until("a dump", DEADLINE, || {
            running.signal(Signal::SIGUSR2);
            running.stderr_text().contains(board).then_some(())
        });
        running.signal(Signal::SIGINT);
        assert_eq!(running.wait_exit(LONG).code(), Some(0), "{args}");
        assert_eq!(running.descendants_alive(), [0; 0]);
    }
}

#[test] // D-ME-05: it is then that somebody asks
fn a_server_that_waits_for_its_children_says_so_on_usr2() {
    for mode in ["fork", "prefork:2", "single"] {
        let mut running =
            Program::new(example("echo_server")).args(["--listen", "127.0.0.1:0", "--mode", mode]).start();
        let mut client = Client::connect(running.listening_addr());
        assert_eq!(client.line("hello"), "hello");
        // A line that goes on and on is waited for.
        client.send("still here");
        running.signal(Signal::SIGQUIT);
        let mut dots = String::new();
        // The Daemon's alias is another one by then.
        wait_until("a dump of the end", DEADLINE, || {
            client.send(".");
            dots.push('.');
            running.signal(Signal::SIGUSR2);
            running.stderr_text().contains("(ended, session").then_some(())
        });
        assert_eq!(client.line(""), format!("still here{dots}"));
        drop(client);
        assert_eq!(running.wait_exit(LONG).code(), Some(0), "{mode}");
    }
}

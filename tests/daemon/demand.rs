//! O-DM: how many children there are follows from the clients that wait.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::babysit::wait_stopped;
use util::lab::{Lab, held, pid_of, send};
use util::{Client, DEADLINE, proc, stays, wait_until};

/// Clients that connect at once and send a line each.
fn crowd(addr: SocketAddr, number: usize) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..number).map(|_| Client::connect(addr)).collect();
    clients.iter_mut().for_each(|client| client.send("hello\n"));
    clients
}

fn all_answered(clients: &mut [Client]) {
    clients.iter_mut().for_each(|client| _ = pid_of(&client.read_line()));
}

/// The lines of the log that contain `text`.
fn lines(lab: &Lab, text: &str) -> Vec<String> {
    lab.running.stderr_text().lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
}

fn forks(lab: &Lab) -> usize {
    lines(lab, "is forked into slot").len()
}

/// The number that follows `name=` in a line of the log.
#[track_caller]
fn field(line: &str, name: &str) -> f64 {
    let value = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {line:?}"))
}

/// What the log has for each time that clients asked for more children.
const ASKED: &str = "clients wait for more children: ";

#[test] // O-DM-01, O-DM-12: they are counted, and the numbers of each decision add up
fn clients_that_come_at_once_and_stay_are_given_a_child_each() {
    let (mut lab, addr) =
        Lab::pool("--start 2 --min-spare 2 --max-spare 4 --max 64 --requests 0 --usr1 status,text", 2);
    let mut clients = crowd(addr, 60);
    all_answered(&mut clients);
    let asked = lines(&lab, ASKED);
    // Steps of four spares, which is what max_spare allows, would be fourteen.
    assert!(asked.iter().any(|line| field(line, "missing") >= 8.0), "{asked:?}");
    for line in &asked {
        let [q, b, n, s, d, f] =
            ["waiting", "busy", "children", "service", "within", "missing"].map(|name| field(line, name));
        let starting = n - b;
        // What the log has rounded may make it one more or less.
        let needed = ((q + b) * s / d).ceil() - n;
        assert!((f - needed.min(q - starting)).abs() <= 2.0 && f <= q - starting, "{line}");
        assert!(d >= 0.02 && d >= field(line, "start"), "{line}");
    }
    // A long line of the parent is not written in one piece, and must not meet another process's.
    wait_until("children that are quiet", DEADLINE, || {
        let board = lab.board();
        (board.matches('r').count() == 60 && board.trim_end().chars().all(|c| "rw".contains(c))).then_some(())
    });
    let text = lab.ask("text");
    assert!(text.contains("Last look at waiting clients: waiting="), "{text}");
    assert!(lab.running.children().len() <= 64);
    drop(clients);
    lab.end(Signal::SIGTERM);
}

#[test] // O-DM-02: what the children that are there can do in time is left to them
fn short_requests_start_no_more_than_spares() {
    let args = "--start 4 --min-spare 1 --max-spare 40 --max 60 --requests 0 --wait-ms 5000";
    let (mut lab, addr) = Lab::pool(args, 4);
    let mut clients = crowd(addr, 80);
    for client in &mut clients {
        pid_of(&client.read_line());
        client.finish_sending();
    }
    clients.iter_mut().for_each(Client::expect_eof);
    // On a machine that is so busy that they are not short the clients would wait for too long.
    let asked = lines(&lab, ASKED);
    assert!(asked.iter().all(|line| field(line, "service") > 0.1), "{asked:?}");
    // One spare at a time, each time that all are taken up for a moment: on a machine that is busy with other work that is often.
    assert!(forks(&lab) <= 4 + 40, "{}", forks(&lab));
    lab.end(Signal::SIGTERM);
}

#[test] // O-DM-03: however many clients wait
fn pause_after_crashes_wins_over_clients_that_wait() {
    let dir = tempfile::tempdir().expect("a directory");
    let broken = dir.path().join("broken");
    let args =
        format!("--start 2 --min-spare 2 --max-spare 8 --max 30 --requests 0 --crash-while {}", broken.display());
    let (mut lab, addr) = Lab::pool(&args, 2);
    fs::write(&broken, "").expect("a file");
    let mut clients = crowd(addr, 20);
    lab.running.wait_for_stderr("5 in a row: the next is forked in 800ms", DEADLINE);
    // At most those for all who wait at once, and then one at a time.
    assert!(forks(&lab) <= 2 + 18 + 6, "{}", forks(&lab));
    fs::remove_file(&broken).expect("it is there");
    all_answered(&mut clients);
    drop(clients);
    lab.end(Signal::SIGTERM);
}

#[test] // O-DM-03: a window of one place is not closed for ever by a child that hangs
fn child_that_hangs_at_its_start_does_not_keep_others_from_being_forked() {
    let dir = tempfile::tempdir().expect("a directory");
    let [broken, hangs] = ["broken", "hangs"].map(|name| dir.path().join(name));
    let args = format!(
        "--start 2 --min-spare 2 --max-spare 8 --max 20 --requests 0 --crash-while {} --never-ready-while {}",
        broken.display(),
        hangs.display()
    );
    let (mut lab, addr) = Lab::pool(&args, 2);
    for file in [&broken, &hangs] {
        fs::write(file, "").expect("a file");
    }
    lab.running.children().into_iter().for_each(|child| send(child, Signal::SIGKILL));
    lab.running.wait_for_stderr("6 in a row", DEADLINE);
    fs::remove_file(&broken).expect("it is there");
    wait_until("a child that hangs", DEADLINE, || lab.board().contains('.').then_some(()));
    fs::remove_file(&hangs).expect("it is there");
    all_answered(&mut crowd(addr, 1));
    lab.end(Signal::SIGTERM);
}

fn switches(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let value = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    value.and_then(|value| value.trim().parse().ok()).expect("a number")
}

/// The last look is over when the parent has not woken for longer than between two looks.
fn wait_for_sleep(lab: &Lab) {
    wait_until("its sleep", DEADLINE, || {
        let before = switches(lab.pid());
        let begin = Instant::now();
        wait_until("a while", DEADLINE, || (begin.elapsed() > Duration::from_millis(1500)).then_some(()));
        (switches(lab.pid()) == before && proc::state(lab.pid()) == Some('S')).then_some(())
    });
}

#[test] // O-DM-04, O-DM-05: not even while it keeps children that clients have asked for, if there is nothing to retire
fn parent_that_has_grown_sleeps() {
    for hold in ["0", "20"] {
        let args =
            "--start 2 --min-spare 2 --max-spare 40 --max 60 --requests 0 --babysit-ms 8000000 --grace-ms 8000000";
        let (mut lab, addr) = Lab::pool(&format!("{args} --hold-ms {hold}"), 2);
        let mut clients = crowd(addr, 12);
        all_answered(&mut clients);
        drop(clients);
        wait_for_sleep(&lab);
        lab.end(Signal::SIGTERM);
    }
}

#[test] // O-DM-04: a busy daemon with spares is woken once a second, an idle one never
fn parent_with_spares_sleeps() {
    // No round of the babysitter, nor a look for stops, comes in between.
    let args = "--start 4 --min-spare 1 --max-spare 4 --max 8 --requests 0 --babysit-ms 8000000 --grace-ms 8000000";
    let (mut lab, addr) = Lab::pool(args, 4);
    let (begin, before) = (Instant::now(), switches(lab.pid()));
    let mut served = 0;
    while begin.elapsed() < Duration::from_secs(3) {
        let mut client = held(addr).0;
        client.finish_sending();
        client.expect_eof();
        served += 1;
    }
    let woken = switches(lab.pid()) - before;
    let seconds = begin.elapsed().as_secs() + 1;
    assert!(served > 20 && woken <= 4 * seconds, "{served} clients woke it {woken} times in {seconds} s");
    wait_for_sleep(&lab);
    let asleep = switches(lab.pid());
    stays("asleep", Duration::from_millis(1500), || switches(lab.pid()) == asleep);
    lab.end(Signal::SIGTERM);
}

#[test] // O-DM-05: the next wave finds the children of the last
fn waves_of_clients_fork_in_the_first_ones_only() {
    let (mut lab, addr) = Lab::pool("--start 2 --min-spare 2 --max-spare 4 --max 40 --requests 0", 2);
    let mut forked = Vec::new();
    for _ in 0..5 {
        let begin = Instant::now();
        let mut clients = crowd(addr, 20);
        all_answered(&mut clients);
        // The spares are not part of what the next wave may need.
        wait_until("spares", DEADLINE, || (lab.board().matches('w').count() >= 2).then_some(()));
        drop(clients);
        wait_until("idle children", DEADLINE, || lab.board().trim().chars().all(|c| " w".contains(c)).then_some(()));
        wait_until("the next wave", DEADLINE, || (begin.elapsed() > Duration::from_secs(1)).then_some(()));
        forked.push(forks(&lab));
    }
    assert_eq!(forked[1], forked[4], "{forked:?}");
    assert!(lab.running.children().len() > 4 + 4);
    lab.end(Signal::SIGTERM);
}

#[test] // O-DM-05: and when they are not kept, they go at once
fn hold_of_zero_keeps_no_children() {
    let (mut lab, addr) = Lab::pool("--start 2 --min-spare 2 --max-spare 4 --max 40 --requests 0 --hold-ms 0", 2);
    let mut clients = crowd(addr, 20);
    all_answered(&mut clients);
    drop(clients);
    wait_until("four spares", DEADLINE, || {
        (lab.board().trim() == "wwww" || lab.running.children().len() == 4).then_some(())
    });
    lab.end(Signal::SIGTERM);
}

/// Lines about clients that wait for a full pool: when they began to, and when it was over.
fn told(lab: &Lab) -> (Vec<String>, Vec<String>) {
    (lines(lab, "clients wait and all children are busy"), lines(lab, "clients no longer wait"))
}

#[test] // O-DM-06: one line when it begins and one when it ends
fn full_pool_with_clients_that_wait_is_told_once() {
    let (mut lab, addr) = Lab::pool("--start 1 --min-spare 1 --max-spare 1 --max 1 --requests 0", 1);
    let (client, _) = held(addr);
    let waiting = crowd(addr, 3);
    let begun = lab.running.wait_for_stderr("clients wait and all children are busy", DEADLINE);
    assert!(begun.contains("[WARN]") && begun.contains("max_children=1 waiting="), "{begun}");
    let begin = Instant::now();
    wait_until("two more looks", DEADLINE, || (begin.elapsed() > Duration::from_millis(2500)).then_some(()));
    assert_eq!((told(&lab).0.len(), told(&lab).1.len()), (1, 0));
    drop(client);
    for mut client in waiting {
        pid_of(&client.read_line());
    }
    let ended = lab.running.wait_for_stderr("clients no longer wait", DEADLINE);
    assert_eq!(field(&ended, "deepest"), 3.0, "{ended}");
    assert!(field(&ended, "lasted") >= 1.0, "{ended}");
    assert_eq!((told(&lab).0.len(), told(&lab).1.len()), (1, 1));
    lab.end(Signal::SIGTERM);
}

#[test] // O-DM-10: a post-forking server that has paused is watched in the same way, and goes on when a child dies
fn post_forking_server_with_clients_that_wait_is_told_once() {
    let (mut lab, addr) = Lab::serve("daemon_postfork", "--max 1");
    let (client, _) = held(addr);
    let mut waiting = crowd(addr, 1);
    let begun = lab.running.wait_for_stderr("clients wait and all children are busy", DEADLINE);
    assert!(begun.contains("max_children=1 waiting=1 "), "{begun}");
    drop(client);
    all_answered(&mut waiting);
    lab.running.wait_for_stderr("clients no longer wait", DEADLINE);
    assert_eq!((told(&lab).0.len(), told(&lab).1.len()), (1, 1));
    drop(waiting);
    lab.end(Signal::SIGTERM);
}

#[test] // O-DM-10: a server that has paused because forks fail has no busy children to tell of
fn clients_that_wait_for_forks_that_fail_are_not_told_of_as_overload() {
    let (mut lab, addr) = Lab::serve("daemon_postfork", "--max 4 --fail 4 --errno 11");
    let mut clients = crowd(addr, 3);
    all_answered(&mut clients);
    lab.running.wait_for_stderr("forks succeed again", DEADLINE);
    let (begun, ended) = told(&lab);
    assert_eq!((begun, ended), (Vec::new(), Vec::new()));
    drop(clients);
    lab.end(Signal::SIGTERM);
}

#[test] // O-DM-07: an event of its own
fn queue_that_is_full_is_an_error_in_the_log() {
    let (mut lab, addr) = Lab::pool("--start 1 --min-spare 1 --max-spare 1 --max 1 --requests 0 --queue 1", 1);
    let (client, _) = held(addr);
    let mut waiting = crowd(addr, 2);
    let full = lab.running.wait_for_stderr("the queue of a listener is full", DEADLINE);
    assert!(full.contains("[ERROR]") && full.contains("waiting=2 backlog=1;"), "{full}");
    assert!(full.contains("listen_queue") && full.contains("somaxconn"), "{full}");
    drop(client);
    for client in &mut waiting {
        pid_of(&client.read_line());
        client.finish_sending();
    }
    lab.running.wait_for_stderr("the queue of the listener has room again", DEADLINE);
    assert_eq!(lines(&lab, "queue of a listener is full").len(), 1);
    lab.end(Signal::SIGTERM);
}

#[test] // O-DM-07
fn backlog_that_the_system_cuts_down_is_told_at_start() {
    let (mut lab, _) = Lab::pool("--start 1 --queue 2000000000", 1);
    let line = lab.running.wait_for_stderr("listen_queue is cut down by the system", DEADLINE);
    assert!(line.contains("[WARN]") && line.contains("asked=2000000000 "), "{line}");
    let limit = fs::read_to_string("/proc/sys/net/core/somaxconn").expect("Linux tells");
    assert!(line.ends_with(&format!("limit={}", limit.trim())), "{line}");
    lab.end(Signal::SIGTERM);
}

#[test] // O-DM-08: another one takes the place of a child that says it waits and does not accept
fn client_of_a_stopped_idle_child_is_served_by_another() {
    let args = "--start 1 --min-spare 1 --max-spare 1 --max 2 --requests 0 --babysit-ms 600000";
    let (lab, addr) = Lab::pool(args, 1);
    let [stopped] = lab.running.children()[..] else { panic!("one child") };
    send(stopped, Signal::SIGSTOP);
    wait_stopped(stopped);
    let begin = Instant::now();
    let (_client, served_by) = held(addr);
    let took = begin.elapsed();
    assert_ne!(served_by, stopped);
    // 2 s on a machine that has time.
    assert!(took < Duration::from_secs(6), "{took:?}");
    let line =
        lab.running.wait_for_stderr("does not accept because it is stopped, and no longer counts as a spare", DEADLINE);
    assert!(line.contains(&format!("pid={stopped} slot=0 waiting=1")), "{line}");
    assert_eq!(proc::state(stopped), Some('T'));
}

#[test] // O-DM-08: where there can't be another one
fn stopped_idle_child_of_a_full_pool_is_continued() {
    let args = "--start 1 --min-spare 1 --max-spare 1 --max 1 --requests 0 --babysit-ms 600000";
    let (mut lab, addr) = Lab::pool(args, 1);
    let [stopped] = lab.running.children()[..] else { panic!("one child") };
    send(stopped, Signal::SIGSTOP);
    wait_stopped(stopped);
    assert_eq!(held(addr).1, stopped);
    lab.running.wait_for_stderr("does not accept because it is stopped, and is continued", DEADLINE);
    lab.end(Signal::SIGTERM);
}

//! D-FO: a child for each request.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use util::lab::{Lab, held, pid_of};
use util::{Client, DEADLINE, at_once, proc, wait_until};

/// The number that the parent gave a connection, from an answer to it.
fn number_of(answer: &str) -> u32 {
    answer.split(' ').nth(1).and_then(|number| number.parse().ok()).expect("PID NUMBER LINE")
}

#[test] // D-FO-01, D-SH-01
fn a_request_forks_after_the_state_and_before_any_other_event() {
    let (mut lab, addr) = Lab::serve("daemon_postfork", "");
    lab.expect(lab.pid(), "daemon_start");
    let (client, child) = held(addr);
    drop(client);
    lab.wait_gone(&[child]);
    lab.end(Signal::SIGTERM);
    lab.all();
    // The state that reported the request ran once. What it posted is inherited, as in POE, but `daemon_child` went ahead.
    let parent = lab.story(lab.pid());
    assert_eq!(parent, "daemon_start, handed over, yielded, daemon_shutdown, run returned");
    let story = lab.story(child);
    assert_eq!(story, "daemon_child 1, yielded, daemon_shutdown");
}

#[test] // D-FO-01: the peer sees the end when the child closes, because nobody else has the socket
fn the_parents_copy_of_the_payload_is_closed_at_once() {
    let (lab, addr) = Lab::serve("daemon_postfork", "");
    let before = proc::fewest_fds(lab.pid());
    let mut clients: Vec<(Client, i32)> = (0..5).map(|_| held(addr)).collect();
    // A child's answer may overtake the rest of the parent's fork.
    wait_until("as many descriptors as before", DEADLINE, || (proc::fds(lab.pid()).len() == before).then_some(()));
    for (client, pid) in &mut clients {
        client.send("done\n");
        client.expect_eof();
        lab.wait_gone(&[*pid]);
    }
}

#[test] // D-FO-02
fn a_forked_child_goes_from_req_to_long_to_its_end() {
    let (lab, addr) = Lab::serve("daemon_postfork", "");
    let (mut client, child) = held(addr);
    lab.wait_board("r");
    assert!(client.line("board").contains(" r "));
    assert!(client.line("long").ends_with(" ok"));
    lab.wait_board("l");
    assert!(client.line("nonsense").ends_with("error: no such status: nonsense"));
    client.send("done\n");
    client.expect_eof();
    lab.wait_gone(&[child]);
    lab.wait_board("");
    let record = lab.running.wait_for_stderr("child has ended: ", DEADLINE);
    assert!(
        record.contains(&format!("pid={child} slot=0 cause=recycled age=")) && record.contains(" requests=1"),
        "{record}"
    );
}

#[test] // D-FO-02: a request of which the parent knows already that it will be long
fn a_long_request_is_one_from_the_beginning() {
    let (mut lab, addr) = Lab::serve("daemon_postfork", "--long");
    let (client, _) = held(addr);
    lab.wait_board("l");
    drop(client);
    lab.wait_board("");
    lab.end(Signal::SIGTERM);
}

#[test] // D-FO-03
fn the_pause_comes_at_once_and_the_accept_when_there_is_room() {
    let (mut lab, addr) = Lab::serve("daemon_postfork", "--max 2");
    lab.expect(lab.pid(), "daemon_start");
    let (one, _) = held(addr);
    let (two, _) = held(addr);
    let mut third = Client::connect(addr);
    third.send("hello\n");
    lab.wait_board("rr");
    drop(one);
    assert_eq!(number_of(&third.read_line()), 3);
    drop((two, third));
    lab.wait_board("");
    lab.end(Signal::SIGTERM);
    lab.all();
    let story = lab.story(lab.pid());
    let story: Vec<&str> =
        story.split(", ").filter(|what| what.starts_with("daemon") || what.starts_with("handed")).collect();
    let expected = [
        "daemon_start",
        "handed over",
        // Before the state that reported the second request has even gone on.
        "daemon_pause",
        "handed over",
        "daemon_accept",
        "daemon_pause",
        "handed over",
        "daemon_accept",
        "daemon_shutdown",
    ];
    assert_eq!(story, expected);
}

#[test] // D-FO-03: an application that goes on all the same
fn requests_beyond_the_maximum_wait_in_order() {
    let (lab, addr) = Lab::serve("daemon_postfork", "--max 2 --greedy");
    let mut clients = Vec::new();
    for number in 1..=6 {
        let mut client = Client::connect(addr);
        client.send("hello\n");
        clients.push(client);
        lab.nth(number, "handed over");
    }
    lab.wait_board("rr");
    assert_eq!(lab.ask("board"), "[rr     ] free 5 queued 4");
    let mut clients = clients.into_iter();
    let mut running: Vec<Client> = clients.by_ref().take(2).collect();
    running.iter_mut().enumerate().for_each(|(i, client)| assert_eq!(number_of(&client.read_line()) as usize, i + 1));
    for (number, mut next) in (3..).zip(clients) {
        drop(running.remove(0));
        assert_eq!(number_of(&next.read_line()), number);
        assert!(lab.running.children().len() <= 2);
        let queued = lab.ask("board");
        assert!(queued.ends_with(&format!("queued {}", 6 - number)), "{queued}");
        running.push(next);
    }
}

#[test] // D-FO-03
fn several_requests_from_one_state_get_a_child_each() {
    for how in ["", "--post"] {
        let (lab, addr) = Lab::serve("daemon_postfork", &format!("--batch 4 {how}"));
        let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(addr)).collect();
        let pids: BTreeSet<i32> = clients.iter_mut().map(|client| pid_of(&client.line("hello"))).collect();
        assert_eq!(pids.len(), 4);
        // Each socket is in one process only, also those that waited while the first children were forked.
        for client in clients.iter_mut().rev() {
            client.send("done\n");
            client.expect_eof();
        }
        lab.wait_board("");
    }
}

/// The pids of the Daemon's children in the order in which they were forked.
fn forked(lab: &Lab) -> Vec<i32> {
    let log = lab.running.stderr_text();
    let pids = log.lines().filter(|line| line.contains("is forked into slot"));
    pids.filter_map(|line| line.split("child ").nth(1)?.split(' ').next()?.parse().ok()).collect()
}

#[test] // D-FO-04: EAGAIN = 11, ENOMEM = 12
fn a_fork_that_fails_for_want_of_something_is_tried_again() {
    at_once([11, 12], |errno| {
        let (mut lab, addr) = Lab::serve("daemon_postfork", &format!("--fail 3 --errno {errno}"));
        lab.expect(lab.pid(), "daemon_start");
        let begin = Instant::now();
        let (client, _) = held(addr);
        // 100, 200 and 400 ms.
        let took = begin.elapsed();
        assert!((Duration::from_millis(700)..Duration::from_secs(8)).contains(&took), "{took:?}");
        lab.nth(1, "daemon_accept");
        drop(client);
        lab.end(Signal::SIGTERM);
        lab.all();
        // One pause however often it fails, and the accept not before it has succeeded.
        let story = lab.story(lab.pid());
        let said: Vec<&str> = story.split(", ").filter(|what| *what != "handed over" && *what != "yielded").collect();
        let expected = ["fork fails", "daemon_pause", "fork fails", "fork fails", "daemon_accept", "daemon_shutdown"];
        assert_eq!(said[said.len() - 7..said.len() - 1], expected);
    });
}

#[test] // D-FO-04: "at most 1 s"
fn the_pauses_between_failed_forks_get_no_longer_than_a_second() {
    let (mut lab, addr) = Lab::serve("daemon_postfork", "--fail 6 --errno 11");
    lab.expect(lab.pid(), "daemon_start");
    let begin = Instant::now();
    let mut client = Client::connect(addr);
    client.send("hello\n");
    let mut last = begin;
    let mut pauses = Vec::new();
    for number in 1..=6 {
        lab.nth(number, "fork fails");
        pauses.push(last.elapsed());
        last = Instant::now();
    }
    client.read_line();
    // 100, 200, 400, 800 ms, and then no more than a second; doubled it would be 1.6.
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(3500), "{took:?} {pauses:?}");
    assert!(pauses[5] >= Duration::from_millis(900), "{pauses:?}");
    assert!(pauses[5] < Duration::from_millis(1500), "{pauses:?}");
    client.finish_sending();
    client.expect_eof();
    lab.end(Signal::SIGTERM);
}

#[test] // D-FO-04: "keeps the request's order"
fn requests_whose_fork_failed_keep_their_order() {
    at_once(1..=3, |failures| {
        let args = format!("--batch 4 --fail {failures} --errno 11");
        let (lab, addr) = Lab::serve("daemon_postfork", &args);
        let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(addr)).collect();
        let answers: Vec<String> = clients.iter_mut().map(|client| client.line("hello")).collect();
        let mut by_number: Vec<(u32, i32)> = answers.iter().map(|answer| (number_of(answer), pid_of(answer))).collect();
        by_number.sort_unstable();
        let order = wait_until("four forks", DEADLINE, || Some(forked(&lab)).filter(|pids| pids.len() == 4));
        assert_eq!(order, by_number.into_iter().map(|(_, pid)| pid).collect::<Vec<_>>(), "{failures} failures");
    });
}

#[test] // D-FO-04: EPERM = 1
fn a_fork_that_can_never_succeed_ends_the_daemon() {
    let (mut lab, addr) = Lab::serve("daemon_postfork", "--fail 1 --errno 1 --grace-ms 60000");
    lab.expect(lab.pid(), "daemon_start");
    let mut client = Client::connect(addr);
    // In order, but not with success: whoever has started it must not think that it was to end.
    lab.expect_end_with(1);
    client.expect_eof();
    lab.all();
    let story = lab.story(lab.pid());
    assert_eq!(story, "daemon_start, handed over, fork fails, daemon_shutdown, yielded");
    lab.running.wait_for_stderr("Operation not permitted", DEADLINE);
}

#[test] // D-FO-04, D-SH-05: a fork that fails after the shutdown keeps nobody waiting
fn a_fork_that_fails_during_the_shutdown_does_not_hold_it_up() {
    let (mut lab, addr) = Lab::serve("daemon_postfork", "--fail 1 --errno 11 --grace-ms 60000 --shutdown-after");
    let _client = Client::connect(addr);
    lab.expect_end();
}

#[test] // D-SH-02, D-SH-05: reported, then shut down, in one state: the fork comes after both
fn a_child_forked_after_the_shutdown_ends_at_once() {
    let (mut lab, addr) = Lab::serve("daemon_postfork", "--grace-ms 60000 --shutdown-after");
    let _client = Client::connect(addr);
    lab.expect_end();
}

#[test] // D-SH-01: daemon_parent is for pre-forking servers
fn a_request_before_the_start_makes_no_parent_of_a_post_forking_server() {
    let (mut lab, _) = Lab::serve("daemon_postfork", "--early");
    let (child, _) = lab.nth(1, "daemon_child 0");
    lab.wait_gone(&[child]);
    lab.wait_board("");
    lab.end(Signal::SIGTERM);
    lab.all();
    let story = lab.story(lab.pid());
    assert!(!story.contains("daemon_parent"), "{story}");
    // What the Daemon had still to say to the parent's sessions is not said to the child's.
    let story = lab.story(child);
    assert!(!story.contains("daemon_start"), "{story}");
}

#[test] // D-PF-05, post-forking
fn only_a_request_means_something_in_the_parent() {
    let (lab, _) = Lab::serve("daemon_postfork", "--usr1 update");
    assert_eq!(lab.ask("update"), "true");
    assert_eq!(lab.nth(2, "update").1, "error: no such status: nonsense");
}

#[test] // T11
fn a_child_keeps_none_of_the_parents_connections_open() {
    let (lab, addr) = Lab::serve("daemon_postfork", "--keep --usr1 drop");
    let mut kept: Vec<Client> = (0..20).map(|_| Client::connect(addr)).collect();
    lab.nth(1, "kept 20");
    let (_client, child) = held(addr);
    let sockets = |pid| -> BTreeSet<String> {
        proc::fds(pid).into_values().filter(|target| target.starts_with("socket:")).collect()
    };
    // Once the parent is done with the fork, both have the child's end of the doorbell and what replaces listeners.
    wait_until("two sockets in common", DEADLINE, || {
        (sockets(lab.pid()).intersection(&sockets(child)).count() == 2).then_some(())
    });
    let childs = sockets(child);
    assert_eq!(childs.len(), 3, "the client, the doorbell, what replaces listeners: {childs:?}");
    lab.running.signal(Signal::SIGUSR1);
    kept.iter_mut().for_each(Client::expect_eof);
    assert!(proc::is_alive(child));
}

#[test] // D-SB-04, post-forking
fn a_killed_child_makes_room() {
    let (lab, addr) = Lab::serve("daemon_postfork", "--max 1");
    for round in 1..=5 {
        let (_client, child) = held(addr);
        util::lab::send(child, Signal::SIGKILL);
        lab.wait_board("");
        lab.nth(round, "daemon_accept");
    }
}

#[test] // D-SH-03, D-FO-03: requests that wait for a child are in hand as well
fn quit_serves_what_is_queued() {
    let (mut lab, addr) = Lab::serve("daemon_postfork", "--max 1 --greedy --grace-ms 60000");
    let (mut first, _) = held(addr);
    let mut queued: Vec<Client> = (2..=3)
        .map(|number| {
            let mut client = Client::connect(addr);
            client.send("hello\n");
            lab.nth(number, "handed over");
            client
        })
        .collect();
    lab.running.signal(Signal::SIGQUIT);
    assert!(first.line("still there").ends_with("still there"));
    drop(first);
    for (number, client) in (2..).zip(&mut queued) {
        assert_eq!(number_of(&client.read_line()), number);
        client.send("done\n");
        client.expect_eof();
    }
    lab.expect_end();
}

#[test] // D-SH-03: but no longer than everything may take
fn quit_does_not_wait_for_ever_for_what_is_queued() {
    let (mut lab, addr) = Lab::serve("daemon_postfork", "--max 1 --greedy --grace-ms 300");
    let (mut first, _) = held(addr);
    let mut second = Client::connect(addr);
    lab.nth(2, "handed over");
    lab.running.signal(Signal::SIGQUIT);
    second.expect_eof();
    first.expect_eof();
    lab.expect_end();
}

#[test] // D-SH-02: TERM does not wait for it
fn term_drops_what_is_queued() {
    let (mut lab, addr) = Lab::serve("daemon_postfork", "--max 1 --greedy --grace-ms 60000");
    let (first, _) = held(addr);
    let mut second = Client::connect(addr);
    lab.nth(2, "handed over");
    lab.running.signal(Signal::SIGQUIT);
    lab.running.signal(Signal::SIGTERM);
    second.expect_eof();
    drop(first);
    lab.expect_end();
}

#[test] // D-FO-04, T7: a thread that was joined is none, however often
fn request_after_a_joined_thread_is_served() {
    let (mut lab, addr) = Lab::serve("daemon_postfork", "--join");
    for _ in 0..50 {
        let (mut client, _) = held(addr);
        client.finish_sending();
        client.expect_eof();
    }
    lab.end(Signal::SIGTERM);
    assert!(!lab.running.stderr_text().contains("forks fail"), "{}", lab.running.stderr_text());
}

#[test] // D-FO-04, T7: one that lives for a while is waited for; it is told once, and by name
fn request_beside_a_lingering_thread_waits_until_that_has_ended() {
    let (mut lab, addr) = Lab::serve("daemon_postfork", "--thread-ms 800");
    let clients: Vec<_> = (0..3).map(|_| Client::connect(addr)).collect();
    for mut client in clients {
        client.line("hello");
        client.finish_sending();
        client.expect_eof();
    }
    let begin = lab.running.wait_for_stderr("forks fail", DEADLINE);
    assert!(begin.contains("the process has 2 threads, besides this one lingering (tid "), "{begin}");
    assert!(begin.contains("join threads before requests and children come"), "{begin}");
    assert!(begin.contains(" children=0 missing="), "{begin}");
    lab.running.wait_for_stderr("forks succeed again: ", DEADLINE);
    lab.end(Signal::SIGTERM);
    let log = lab.running.stderr_text();
    assert_eq!((log.matches("forks fail").count(), log.matches("forks succeed again").count()), (1, 1), "{log}");
}

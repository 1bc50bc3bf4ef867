//! D-SH-17 to 19: what TERM means, to a `component::Server` and to a Daemon by itself.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::babysit::{record, steps};
use crate::component::{ALL, answers, expect_end, expect_end_and_stay, pool, serve};
use crate::stops::stop;
use util::lab::{Lab, held, send, tell};
use util::{Client, DEADLINE, at_once, wait_until};

/// Longer than any test waits.
const FOR_EVER: &str = "--grace-ms 600000";

/// Waits until the server listens no more.
fn wait_closed(addr: SocketAddr) {
    wait_until("the listener's end", DEADLINE, || Client::try_connect(addr).is_err().then_some(()));
}

/// Waits for the end of a server that has nothing to wait for, and that could wait for ten minutes.
#[track_caller]
fn expect_prompt_end(lab: &mut Lab) {
    let begin = Instant::now();
    lab.expect_end();
    assert!(begin.elapsed() < DEADLINE, "{:?}", begin.elapsed());
}

#[test] // D-SH-17
fn term_lets_requests_of_a_server_finish() {
    at_once(ALL, |args| {
        let (mut lab, addr) = serve(&format!("{args} --holds {FOR_EVER}"));
        let mut clients: Vec<Client> = (0..3).map(|_| held(addr).0).collect();
        clients[0].send("late 300\r\n");
        lab.running.signal(Signal::SIGTERM);
        wait_closed(addr);
        assert!(clients[0].read_line().ends_with(" late"), "{args}");
        for client in &mut clients {
            assert!(client.line("still here").ends_with(" still here"), "{args}");
            assert_eq!(tell(client, "bye"), "bye");
            expect_end(client);
        }
        expect_prompt_end(&mut lab);
    });
}

#[test] // D-SH-17: keep-alive connections do not hold up the end
fn term_closes_idle_connections_at_once_and_busy_ones_after_their_answer() {
    at_once(ALL, |args| {
        let (mut lab, addr) = serve(&format!("{args} {FOR_EVER}"));
        let mut clients: Vec<Client> = (0..3).map(|_| held(addr).0).collect();
        clients[0].send("late 1000\r\n");
        lab.running.signal(Signal::SIGTERM);
        clients[1..].iter_mut().for_each(expect_end_and_stay);
        assert!(clients[0].read_line().ends_with(" late"), "{args}");
        expect_end(&mut clients[0]);
        expect_prompt_end(&mut lab);
    });
}

#[test] // D-SH-17
fn term_ends_an_idle_server_promptly() {
    at_once(ALL, |args| {
        let (mut lab, addr) = serve(&format!("{args} {FOR_EVER}"));
        drop(held(addr));
        lab.running.signal(Signal::SIGTERM);
        expect_prompt_end(&mut lab);
    });
}

#[test] // D-SH-17
fn second_term_and_int_after_term_cut_connections_off() {
    let both = |args| [(args, Signal::SIGTERM), (args, Signal::SIGINT)];
    at_once(ALL.into_iter().flat_map(both).collect::<Vec<_>>(), |(args, signal)| {
        let (mut lab, addr) = serve(&format!("{args} --holds {FOR_EVER}"));
        let mut clients: Vec<Client> = (0..2).map(|_| held(addr).0).collect();
        lab.running.signal(Signal::SIGTERM);
        wait_closed(addr);
        for client in &mut clients {
            assert!(client.line("still here").ends_with(" still here"), "{args}");
        }
        lab.running.signal(signal);
        clients.iter_mut().for_each(expect_end);
        expect_prompt_end(&mut lab);
    });
}

#[test] // D-SH-17: as at QUIT
fn children_with_requests_are_killed_after_shutdown_timeout() {
    at_once(["--mode prefork:1 --connections 2", "--mode fork:1"], |args| {
        let (mut lab, addr) = serve(&format!("{args} --holds --grace-ms 400"));
        let (mut client, pid) = held(addr);
        let begin = Instant::now();
        lab.running.signal(Signal::SIGTERM);
        assert!(!matches!(client.try_read_line(), Ok(Some(_))));
        assert!(begin.elapsed() >= Duration::from_millis(400), "{:?}", begin.elapsed());
        lab.expect_end();
        let record = record(&lab, pid);
        assert!(record.contains(" cause=killed "), "{record}");
    });
}

#[test] // D-SH-18: systemd with `KillMode=control-group`, or an operator
fn child_that_gets_term_by_itself_finishes_what_it_has() {
    let (mut lab, addr) = pool(2, "--connections 5 --holds");
    let (mut one, pid) = held(addr);
    send(pid, Signal::SIGTERM);
    lab.expect(pid, "daemon_pause");
    let others: Vec<(Client, i32)> = (0..5).map(|_| held(addr)).collect();
    assert!(others.iter().all(|(_, other)| *other != pid));
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

#[test] // D-SH-18
fn idle_child_that_gets_term_by_itself_ends_and_is_replaced() {
    let (mut lab, addr) = pool(1, "");
    let pid = lab.running.children()[0];
    send(pid, Signal::SIGTERM);
    lab.wait_gone(&[pid]);
    assert_ne!(held(addr).1, pid);
    lab.end(Signal::SIGTERM);
}

#[test] // D-SH-18
fn second_term_to_a_child_cuts_its_connections_off() {
    at_once(["--mode prefork:1 --max 1 --min-spare 1 --max-spare 1 --connections 2", "--mode fork:1"], |args| {
        let (mut lab, addr) = serve(&format!("{args} --holds {FOR_EVER}"));
        let (mut client, pid) = held(addr);
        send(pid, Signal::SIGTERM);
        lab.expect(pid, "daemon_pause");
        assert_eq!(answers(&mut client), pid, "{args}");
        send(pid, Signal::SIGTERM);
        expect_end(&mut client);
        lab.wait_gone(&[pid]);
        lab.end(Signal::SIGTERM);
    });
}

#[test] // D-SH-18: a supervisor's TERM may come behind the parent's QUIT, and the other way round
fn term_to_every_process_lets_requests_finish() {
    at_once([true, false], |is_parent_first| {
        let (mut lab, addr) = pool(2, &format!("--connections 5 --holds {FOR_EVER}"));
        let (mut client, pid) = held(addr);
        let idle = lab.running.children().into_iter().find(|child| *child != pid).expect("there are two");
        if is_parent_first {
            lab.running.signal(Signal::SIGTERM);
            lab.expect(pid, "daemon_pause");
            lab.wait_gone(&[idle]);
            send(pid, Signal::SIGTERM);
        } else {
            send(pid, Signal::SIGTERM);
            lab.expect(pid, "daemon_pause");
            lab.running.signal(Signal::SIGTERM);
            wait_closed(addr);
        }
        for _ in 0..3 {
            assert_eq!(answers(&mut client), pid);
        }
        assert_eq!(tell(&mut client, "bye"), "bye");
        expect_end(&mut client);
        expect_prompt_end(&mut lab);
    });
}

#[test] // D-SH-18, D-SH-08: the timer of a child without a parent sends TERM, which lets nothing finish
fn time_of_a_child_without_a_parent_ends_with_term() {
    at_once([false, true], |has_got_term| {
        let (lab, addr) = pool(1, "--connections 5 --holds --request-ms 1000 --babysit-ms 60000");
        let (mut client, pid) = held(addr);
        if has_got_term {
            send(pid, Signal::SIGTERM);
            lab.expect(pid, "daemon_pause");
        }
        lab.running.signal(Signal::SIGKILL);
        expect_end(&mut client);
        // In order, and not by the KILL that comes a second later.
        lab.expect(pid, "disconnected");
        lab.wait_gone(&[pid]);
    });
}

#[test] // D-SH-18, D-BA-02: what the parent sends ends a child at once, and the log names what was sent
fn rogue_child_of_a_server_gets_int_twice() {
    let dir = tempfile::tempdir().expect("a directory");
    let gate = dir.path().join("gate");
    std::fs::write(&gate, "").expect("a file");
    let (mut lab, addr) = pool(1, "--babysit-ms 100 --request-ms 300");
    let (mut client, pid) = held(addr);
    client.send(format!("gate {}\r\n", gate.display()));
    lab.expect(pid, "blocked");
    record(&lab, pid);
    assert_eq!(steps(&lab, pid), ["SIGINT", "SIGINT", "SIGKILL"]);
    lab.end(Signal::SIGTERM);
}

#[test] // D-SH-19
fn single_process_shuts_connections_down_after_shutdown_timeout() {
    at_once([Signal::SIGTERM, Signal::SIGQUIT], |signal| {
        let (mut lab, addr) = serve("--mode single --holds --grace-ms 600");
        let (mut client, _) = held(addr);
        let begin = Instant::now();
        lab.running.signal(signal);
        wait_closed(addr);
        assert!(client.line("still here").ends_with(" still here"), "{signal}");
        expect_end_and_stay(&mut client);
        assert!(begin.elapsed() >= Duration::from_millis(600), "{:?}", begin.elapsed());
        drop(client);
        lab.expect_end();
        let warning = lab.running.wait_for_stderr("shutdown_timeout is over", DEADLINE);
        assert!(warning.contains("[WARN]") && warning.ends_with("in_hand=1 connections=1"), "{warning}");
    });
}

#[test] // D-SH-19
fn single_process_ends_with_its_last_connection() {
    at_once([Signal::SIGTERM, Signal::SIGQUIT], |signal| {
        let (mut lab, addr) = serve(&format!("--mode single {FOR_EVER}"));
        let mut clients: Vec<Client> = (0..2).map(|_| held(addr).0).collect();
        clients[0].send("late 200\r\n");
        lab.running.signal(signal);
        drop(clients.pop());
        assert!(clients[0].read_line().ends_with(" late"), "{signal}");
        drop(clients);
        expect_prompt_end(&mut lab);
        assert!(!lab.running.stderr_text().contains("shutdown_timeout is over"));
    });
}

#[test] // D-SH-19, D-SH-07
fn stop_of_a_single_process_is_not_held_against_its_clients() {
    let (mut lab, addr) = serve("--mode single --holds --grace-ms 2500");
    let (mut client, pid) = held(addr);
    lab.running.signal(Signal::SIGTERM);
    wait_closed(addr);
    stop(&[pid], Duration::from_millis(4000));
    assert_eq!(answers(&mut client), pid);
    drop(client);
    expect_prompt_end(&mut lab);
}

#[test] // D-SH-17: POE's way
fn term_ends_a_daemon_by_itself_at_once() {
    let (mut lab, addr) = Lab::pool("--start 1 --max 1 --max-spare 1 --say-how", 1);
    let (mut client, pid) = held(addr);
    lab.running.signal(Signal::SIGTERM);
    for process in [lab.pid(), pid] {
        lab.expect(process, "daemon_shutdown Immediate");
    }
    client.finish_sending();
    client.expect_eof();
    lab.expect_end();
}

#[test] // D-SH-17
fn daemon_by_itself_can_be_told_to_finish_requests_at_term() {
    let (mut lab, addr) =
        Lab::pool(&format!("--start 1 --max 1 --max-spare 1 --say-how --term after-requests {FOR_EVER}"), 1);
    let (mut client, pid) = held(addr);
    lab.running.signal(Signal::SIGTERM);
    lab.expect(lab.pid(), "daemon_shutdown Graceful");
    wait_closed(addr);
    client.line("still here");
    assert!(!lab.story(pid).contains("daemon_shutdown"));
    client.finish_sending();
    client.expect_eof();
    lab.expect(pid, "daemon_shutdown Immediate");
    expect_prompt_end(&mut lab);
}

#[test] // D-SH-17: without children there is nothing that the Daemon could wait for
fn daemon_without_children_tells_how_term_ends_it() {
    for (args, shutdown) in [("", "Immediate"), ("--term after-requests", "Graceful")] {
        let (mut lab, _) = Lab::serve("daemon_prefork", &format!("--start 0 --say-how {FOR_EVER} {args}"));
        lab.running.signal(Signal::SIGTERM);
        lab.expect(lab.pid(), &format!("daemon_shutdown {shutdown}"));
        expect_prompt_end(&mut lab);
    }
}

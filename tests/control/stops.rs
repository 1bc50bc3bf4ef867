//! What the two ways to stop mean for requests in hand.

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use lenore::daemon::view::Phase;
use nix::sys::signal::Signal;
use util::control::{Control, Steered};
use util::http::{connect, get, status, status_address};
use util::{Client, DEADLINE, kill, proc, wait_until};

/// How long a request takes that is waited for.
const WORK: Duration = Duration::from_secs(3);

/// How long a request takes that is not.
const ENDLESS: Duration = Duration::from_secs(3600);

/// A server with a client whose request is in hand for so long, in the child's loop.
#[track_caller]
fn at_work(mode: &str, work: Duration) -> (Steered, Client) {
    let steered = Steered::start(&format!("--mode {mode} --grace-ms 60000"));
    let mut client = Client::connect(steered.addr);
    client.line("hello");
    client.send(format!("late {}\r\n", work.as_millis()));
    steered.control().wait_status("a busy child", |status| (status.pool.states.busy == 1).then_some(()));
    (steered, client)
}

/// Sends a command, and returns the connection and when the program had ended.
fn stop(mut steered: Steered, command: &str) -> (Control, Instant) {
    let mut control = steered.control();
    control.send(format!("{command}\n"));
    assert!(steered.running.wait_exit(DEADLINE).success());
    (control, Instant::now())
}

#[test] // O-CT-17
fn request_in_hand_is_answered_by_stop_and_not_by_stop_now() {
    for mode in ["prefork:1 --max 1", "fork:2"] {
        for (command, work, is_answered) in [("stop", WORK, true), ("stop --now", ENDLESS, false)] {
            let (steered, mut client) = at_work(mode, work);
            let begin = Instant::now();
            let reader = thread::spawn(move || {
                let line = client.try_read_line();
                client.finish_sending();
                line.ok().flatten()
            });
            let (mut control, end) = stop(steered, command);
            let line = reader.join().expect("it only reads");
            assert_eq!(line.is_some_and(|line| line.ends_with("late")), is_answered, "{mode}, {command}");
            // The request began some milliseconds before the order was given.
            assert!(!is_answered || end - begin > WORK * 9 / 10, "{mode}, {command}: {:?}", end - begin);
            assert_eq!(control.read_answer().last, "OK applied", "{mode}, {command}");
        }
    }
}

#[test] // O-CT-17, O-ST-01
fn server_without_children_is_seen_until_its_connections_are_closed() {
    for (command, phase) in [("stop", Phase::Draining), ("stop --now", Phase::Stopping)] {
        let mut steered = Steered::start("--mode single --grace-ms 60000 --status 127.0.0.1:0");
        let http = status_address(&steered.running);
        let mut client = Client::connect(steered.addr);
        client.line("hello");
        client.send("late 600000\r\n");
        // None of these may keep the program: a level with an end, an idle client, one that is late with its request, one with an order.
        steered.control().ask("log-level info for=60s").ok();
        let _silent = steered.control();
        let mut tired = steered.control();
        let mut half = connect(http);
        half.write_all(b"GET /live HTTP/1.1\r\nHost:").unwrap();
        let mut idle = connect(http);
        idle.write_all(b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        idle.read_exact(&mut [0; 12]).unwrap();
        let mut control = steered.control();
        control.send(format!("{command}\n"));
        let seen = steered.control().wait_status("an end that has begun", |status| {
            let phase = status.service.phase;
            (phase != Phase::Ready).then_some(phase)
        });
        assert_eq!(seen, phase, "{command}");
        assert_eq!(tired.ask("stop timeout=50ms").code(), "timeout");
        for _ in 0..3 {
            assert_eq!(status(http).service.phase, phase, "{command}");
            assert_eq!(steered.control().status().service.phase, phase, "{command}");
            assert_eq!((get(http, "/ready").status, get(http, "/live").status), (503, 200), "{command}");
        }
        control.stream().set_nonblocking(true).unwrap();
        assert!(control.stream().read(&mut [0]).is_err(), "no answer before the end: {command}");
        control.stream().set_nonblocking(false).unwrap();
        let begin = Instant::now();
        drop(client);
        assert_eq!(control.read_answer().last, "OK applied", "{command}");
        assert!(steered.running.wait_exit(DEADLINE).success(), "{command}");
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(5), "{command}: {took:?}");
        assert!(!steered.path.exists(), "{command}");
    }
}

#[test]
fn level_with_an_end_delays_no_end() {
    let mut steered = Steered::pool(1, "");
    steered.control().ask("log-level info for=60s").ok();
    let begin = Instant::now();
    assert_eq!(steered.control().ask("stop --now").last, "OK applied");
    assert!(steered.running.wait_exit(DEADLINE).success());
    assert!(begin.elapsed() < DEADLINE / 2, "{:?}", begin.elapsed());
}

#[test] // O-ST-01: no client is reset, and the last answer says that it is
fn client_that_asks_before_the_end_is_told_of_the_last_answer() {
    // It has no children, so it ends as soon as it hears of that.
    let mut steered = Steered::start("--mode fork:1 --status 127.0.0.1:0");
    let (http, pid) = (status_address(&steered.running), steered.running.pid());
    let [mut asks, mut asks_again, mut idle] = [0; 3].map(|_| connect(http));
    let request = "GET /live HTTP/1.1\r\nHost: a\r\n\r\n";
    for stream in [&mut asks_again, &mut idle] {
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 1024];
        let length = stream.read(&mut answer).unwrap();
        assert!(answer[..length].ends_with(b"\r\n\r\nalive\n"), "all were let in by then");
    }
    kill(pid, Signal::SIGSTOP).unwrap();
    wait_until("a stopped parent", DEADLINE, || (proc::state(pid) == Some('T')).then_some(()));
    // These wait in the listener's queue, and are more than are let in at once.
    let mut come: Vec<_> = (0..25).map(|_| connect(http)).collect();
    come.iter_mut().for_each(|stream| stream.write_all(request.as_bytes()).unwrap());
    // More than are answered before it hears of the end.
    for stream in [&mut asks, &mut asks_again] {
        stream.write_all(request.repeat(50).as_bytes()).unwrap();
    }
    kill(pid, Signal::SIGTERM).unwrap();
    kill(pid, Signal::SIGCONT).unwrap();
    for stream in [&mut asks, &mut asks_again].into_iter().chain(&mut come) {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap_or_else(|error| panic!("{error} after {text:?}"));
        let last = text.rsplit("HTTP/1.1 ").next().unwrap_or_default().to_ascii_lowercase();
        assert!(last.starts_with("200 ok\r\n") && last.ends_with("\r\n\r\nalive\n"), "{text:?}");
        assert!(last.contains("\r\nconnection: close\r\n"), "{text:?}");
    }
    assert_eq!(idle.read(&mut [0; 16]).unwrap(), 0, "it is closed, and not waited for");
    assert!(steered.running.wait_exit(DEADLINE).success());
}

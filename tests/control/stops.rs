//! What the two ways to stop mean for requests in hand.

use std::thread;
use std::time::{Duration, Instant};

use util::control::{Control, Steered};
use util::{Client, DEADLINE};

/// How long the request takes.
const WORK: Duration = Duration::from_secs(3);

/// A server with a client whose request is in hand, in the child's loop.
#[track_caller]
fn at_work(mode: &str) -> (Steered, Client) {
    let steered = Steered::start(&format!("--mode {mode} --grace-ms 60000"));
    let mut client = Client::connect(steered.addr);
    client.line("hello");
    client.send(format!("late {}\r\n", WORK.as_millis()));
    if mode != "single" {
        steered.control().wait_status("a busy child", |status| (status.pool.states.busy == 1).then_some(()));
    }
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
        for (command, is_answered) in [("stop", true), ("stop --now", false)] {
            let (steered, mut client) = at_work(mode);
            let begin = Instant::now();
            let reader = thread::spawn(move || {
                let line = client.try_read_line();
                client.finish_sending();
                (line.ok().flatten(), begin.elapsed())
            });
            let (mut control, end) = stop(steered, command);
            let (line, waited) = reader.join().expect("it only reads");
            assert_eq!(line.is_some_and(|line| line.ends_with("late")), is_answered, "{mode}, {command}");
            // The order is given some milliseconds after the request.
            assert_eq!(waited > WORK * 9 / 10, is_answered, "{mode}, {command}: {waited:?}");
            assert_eq!(end - begin > WORK * 9 / 10, is_answered, "{mode}, {command}");
            assert_eq!(control.read_answer().last, "OK applied", "{mode}, {command}");
        }
    }
}

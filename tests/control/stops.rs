//! What the two ways to stop mean for requests in hand.

use std::thread;
use std::time::{Duration, Instant};

use util::control::{Control, Steered};
use util::{Client, DEADLINE};

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

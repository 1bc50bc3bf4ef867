//! The examples as a user runs them.

use std::io::ErrorKind;
use std::time::Duration;

use nix::sys::signal::Signal;

mod chat;
mod command_line;
mod component;
mod detached;
mod echo;
mod flags;
mod isolate;
mod own_wheel;
mod ports;
mod storm;
mod wheels;

use util::{Client, DEADLINE, Program, Running, example};

/// What nothing here takes unless something waits for what never comes.
const LONG: Duration = Duration::from_secs(20);

/// Ends a program that has not detached, in order.
#[track_caller]
fn end(running: &mut Running, signal: Signal) {
    running.signal(signal);
    let status = running.wait_exit(LONG);
    assert_eq!(status.code(), Some(0), "{status} after {signal}; {}", running.stderr_text());
    assert_eq!(running.descendants_alive(), [0; 0], "left behind by {signal}");
}

/// Waits for the end of a connection, in whatever way.
#[track_caller]
fn expect_lost(client: &mut Client) {
    match client.try_read_line() {
        Ok(None) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("{other:?} where the end was expected"),
    }
}

/// What came of a program that has ended by itself.
#[derive(Debug)]
struct Outcome {
    code: Option<i32>,
    stdout: Vec<String>,
    stderr: String,
}

/// Runs a program that ends by itself.
#[track_caller]
fn run_to_end(name: &str, args: &[&str]) -> Outcome {
    let mut running = Program::new(example(name)).args(args).start();
    let code = running.wait_exit(LONG).code();
    let stdout = std::iter::from_fn(|| running.try_next_line(DEADLINE)).collect();
    Outcome { code, stdout, stderr: running.stderr_to_end(DEADLINE) }
}

/// Runs a program that can't start, which it has to say in one line that contains `what`, besides the log.
#[track_caller]
fn expect_refusal(name: &str, args: &[&str], code: i32, what: &str) -> Outcome {
    let outcome = run_to_end(name, args);
    let own = outcome.stderr.lines().filter(|line| !line.contains(" [ERROR] "));
    assert_eq!((outcome.code, own.count()), (Some(code), 1), "{name} {args:?}: {outcome:?}");
    assert!(outcome.stderr.contains(what), "{name} {args:?}: {outcome:?}");
    outcome
}

//! The command `lenorectl`, from outside.

use std::path::Path;
use std::time::Duration;

mod lookers;
mod orders;
mod top;
mod unreachable;

use util::{Program, test_program};

/// What nothing here takes unless something waits for what never comes.
const LONG: Duration = Duration::from_secs(20);

/// What came of a command.
#[derive(Debug)]
struct Outcome {
    code: i32,
    out: String,
    err: String,
}

impl Outcome {
    /// What it has printed, if its exit code is this.
    #[track_caller]
    fn expect(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        self.out
    }

    /// What it has complained of, if its exit code is this.
    #[track_caller]
    fn expect_error(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.err.starts_with("lenorectl: ") || code == 2, "{self:?}");
        self.err
    }
}

/// Runs the command with blank-separated arguments to its end.
#[track_caller]
fn run(args: &str) -> Outcome {
    run_as(Program::new(test_program("lenorectl")), args)
}

/// Asks the daemon at a socket.
#[track_caller]
fn ask(socket: &Path, args: &str) -> Outcome {
    run(&format!("--socket {} {args}", socket.display()))
}

#[track_caller]
fn run_as(program: Program, args: &str) -> Outcome {
    let mut running = program.args(args.split_whitespace()).start();
    let mut out = String::new();
    while let Some(line) = running.try_next_line(LONG) {
        out.push_str(&line);
        out.push('\n');
    }
    let code = running.wait_exit(LONG).code().unwrap_or(-1);
    Outcome { code, out, err: running.stderr_to_end(LONG) }
}

//! Runs several commands at once, labels what they write, and reports how each of them ends.
//!
//! ```text
//! cargo run --release --example runner -- --run 'echo one; exit 3' --run 'sleep 1; echo done'
//! ```
//!
//! You will see this. The last line goes to standard error, and the exit code is 1 because a command has failed:
//!
//! ```text
//! 1: one
//! 1: echo one; exit 3: exit status: 3
//! 2: done
//! 2: sleep 1; echo done: exit status: 0
//! 1 failed
//! ```
//!
//! What a command writes to its standard error goes to standard error. With `--timeout SECONDS`, a command that takes longer gets
//! TERM, and so does everything that the command has started. Ctrl-C and Ctrl-\ send TERM to all commands. So do HUP (but not under
//! `nohup`) and the first line without a reader, as after `| head`. The program waits for a command that ignores TERM.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{self, Write};
use std::process::{ExitCode, ExitStatus};
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use lenore::wheel::{OnDrop, Redirect, Run, WheelId};
use lenore::{Context, Kernel, Result, Session};

mod common;

/// Runs several commands at once, labels what they write, and reports how each of them ends
#[derive(Parser)]
#[command(name = "runner", version)]
struct Flags {
    /// A command for the shell; give the flag once for each
    #[arg(long, value_name = "COMMAND", required = true)]
    run: Vec<String>,
    /// How long commands may take before they are ended [default: no limit]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    timeout: Option<u64>,
}

/// One command.
struct Job {
    label: String,
    command: String,
    /// Dropped at the end of a command that takes too long.
    wheel: Option<Run>,
    ended: bool,
}

/// All commands.
#[derive(Default)]
struct Jobs {
    by_wheel: HashMap<WheelId, Job>,
    /// How many have failed by themselves.
    failures: Rc<Cell<usize>>,
    /// The reader of the output has gone.
    unread: bool,
}

fn main() -> Result<ExitCode> {
    let flags = Flags::parse();
    common::log_to_stderr();
    let failures = Rc::new(Cell::new(0));
    let mut kernel = Kernel::new()?;
    Session::new(Jobs { failures: failures.clone(), ..Jobs::default() })
        .args((flags.run, flags.timeout.map(Duration::from_secs)))
        .state("_start", start)
        .state("line", |cx| {
            let line = format!("{}: {}", label(cx, 1)?, cx.arg::<String>(0)?);
            say_or_end(cx, io::stdout(), &line)
        })
        .state("complaint", |cx| {
            let line = format!("{}: {}", label(cx, 1)?, cx.arg::<String>(0)?);
            say_or_end(cx, io::stderr(), &line)
        })
        .state("ended", |cx| {
            let (status, id) = (*cx.arg::<ExitStatus>(2)?, *cx.arg::<WheelId>(3)?);
            let jobs = cx.heap();
            if !status.success() && !jobs.unread {
                jobs.failures.set(jobs.failures.get() + 1);
            }
            let job = jobs.by_wheel.get_mut(&id).expect("every wheel has a job");
            job.ended = true;
            let line = format!("{}: {}: {status}", job.label, job.command);
            if jobs.by_wheel.values().all(|job| job.ended) {
                // Every command has ended. The alarm would only keep the program waiting.
                cx.delay_clear("timed_out");
            }
            say_or_end(cx, io::stdout(), &line)
        })
        .state("timed_out", end_all)
        .state("interrupted", |cx| {
            cx.sig_handled();
            end_all(cx);
        })
        .spawn(&mut kernel)?;
    kernel.run()?;
    if failures.get() == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    common::say(io::stderr(), format_args!("{} failed", failures.get()))?;
    Ok(ExitCode::FAILURE)
}

fn start(cx: &mut Context<'_, Jobs>) -> Result {
    let (commands, timeout) = (cx.take::<Vec<String>>(0)?, cx.take::<Option<Duration>>(1)?);
    for (number, command) in commands.into_iter().enumerate() {
        let wheel = Run::shell(&command)
            .stdin(Redirect::Null)
            .on_stdout("line")
            .on_stderr("complaint")
            .on_exit("ended")
            .on_drop(OnDrop::Terminate)
            .start(cx)?;
        let (id, label) = (wheel.id(), (number + 1).to_string());
        cx.heap().by_wheel.insert(id, Job { label, command, wheel: Some(wheel), ended: false });
    }
    // The commands have process groups of their own, so signals of the terminal do not reach them.
    for signal in ["INT", "TERM", "QUIT", "HUP"] {
        if signal != "HUP" || !is_under_nohup() {
            cx.sig(signal, "interrupted");
        }
    }
    if let Some(timeout) = timeout {
        cx.delay("timed_out", timeout, ());
    }
    Ok(())
}

/// Tells whether this program was started with HUP ignored, as far as the system says so.
fn is_under_nohup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut ignored = status.lines().filter_map(|line| line.strip_prefix("SigIgn:"));
    // The lowest bit is HUP's.
    ignored.any(|mask| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 1 == 1))
}

fn label(cx: &mut Context<'_, Jobs>, position: usize) -> Result<String> {
    let id = *cx.arg::<WheelId>(position)?;
    Ok(cx.heap().by_wheel[&id].label.clone())
}

/// Writes a line. Ends all commands if the reader of the output has gone.
fn say_or_end(cx: &mut Context<'_, Jobs>, to: impl Write, line: &str) -> Result {
    if !common::say(to, line)? {
        cx.heap().unread = true;
        end_all(cx);
    }
    Ok(())
}

/// Ends the commands that still run. Each end is reported in turn.
fn end_all(cx: &mut Context<'_, Jobs>) {
    for job in cx.heap().by_wheel.values_mut() {
        job.wheel = None;
    }
}

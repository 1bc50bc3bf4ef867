//! Runs several commands at once, labels what they write, and reports how each of them ends.
//!
//! ```text
//! cargo run --release --example runner -- --run 'ls -l' --run 'sleep 1; echo done' --run 'exit 3'
//! 3: exit 3: exit status: 3
//! 1: total 24
//! ...
//! ```
//!
//! What a command writes to its standard error goes to standard error. With `--timeout SECONDS`, commands that take longer
//! get TERM, with whatever they have started. Exit code 0 if all commands succeeded, 1 if not. Ctrl-C and Ctrl-\ send
//! TERM to all of them. So does a terminal that closes, but not under `nohup`, and the next line after the reader of the output
//! has gone away, as `head` does. A command that ignores TERM is waited for.

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
    /// Nobody reads the output any more.
    unread: bool,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    common::log_to_stderr();
    common::exit(run_all(flags.run, flags.timeout.map(Duration::from_secs)))
}

fn run_all(commands: Vec<String>, timeout: Option<Duration>) -> Result<(), Box<dyn std::error::Error>> {
    let failures = Rc::new(Cell::new(0));
    let mut kernel = Kernel::new()?;
    Session::new(Jobs { failures: failures.clone(), ..Jobs::default() })
        .args((commands, timeout))
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
                // Nothing is left that could take too long, and an alarm would keep the program waiting.
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
    match failures.get() {
        0 => Ok(()),
        count => Err(format!("{count} failed").into()),
    }
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
    // The commands have process groups of their own: no signal of the terminal's reaches them.
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

/// Writes a line. Without a reader there is nothing left to run for.
fn say_or_end(cx: &mut Context<'_, Jobs>, to: impl Write, line: &str) -> Result {
    if !common::say(to, line)? {
        cx.heap().unread = true;
        end_all(cx);
    }
    Ok(())
}

/// Ends what is left; each end is reported in turn.
fn end_all(cx: &mut Context<'_, Jobs>) {
    cx.heap().by_wheel.values_mut().for_each(|job| job.wheel = None);
}

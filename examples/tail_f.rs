//! Prints what is appended to files, as `tail -F` does: through rotation and truncation, and before they exist.
//!
//! ```text
//! cargo run --release --example tail_f -- --file /tmp/one.log --file /tmp/two.log
//! ```
//!
//! It says `following 2 files`. Type the commands on the left in another terminal, and you will see what stands on the right:
//!
//! ```text
//! echo hello >> /tmp/one.log          /tmp/one.log: hello
//! mv /tmp/one.log /tmp/one.log.1      nothing
//! echo again >> /tmp/one.log          /tmp/one.log: again, 5 s later: until then the old file may still grow
//! ```
//!
//! With `--all` it reads each file from the start. `--interval MILLISECONDS` is the time between two looks. A file that can't be read
//! now is tried again. Ctrl-C ends the program, and so does the first line without a reader, as after `| head`. When no file is left
//! it ends by itself. The exit code is 1 if a file could not be followed to the end, and 0 otherwise.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{self, SeekFrom};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use lenore::filter::{ByteLine, Line};
use lenore::wheel::{Failure, FollowTail, WheelId};
use lenore::{Context, Kernel, Result, Session};

mod common;

/// Prints what is appended to files, through rotation and truncation, and before they exist
#[derive(Parser)]
#[command(name = "tail_f", version)]
struct Flags {
    /// A file to follow; give the flag once for each
    #[arg(long, value_name = "PATH", required = true)]
    file: Vec<String>,
    /// Read the files from their starts
    #[arg(long)]
    all: bool,
    /// Time between two looks at a file
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1000, allow_negative_numbers = true)]
    interval: u64,
}

/// The files by their wheels, and how many can't be followed any more.
#[derive(Default)]
struct Files {
    wheels: HashMap<WheelId, (String, FollowTail<ByteLine>)>,
    failures: Rc<Cell<usize>>,
}

fn main() -> Result<ExitCode> {
    let flags = Flags::parse();
    common::log_to_stderr();
    let failures = Rc::new(Cell::new(0));
    let mut kernel = Kernel::new()?;
    Session::new(Files { failures: failures.clone(), ..Files::default() })
        .args((flags,))
        .state("_start", start)
        .state("line", |cx| {
            let (line, id) = (cx.take::<Vec<u8>>(0)?, cx.take::<WheelId>(1)?);
            // A log file may have any encoding.
            let line = format!("{}: {}", cx.heap().wheels[&id].0, String::from_utf8_lossy(&line));
            if !common::say(io::stdout(), line)? {
                cx.heap().wheels.clear();
            }
            Ok(())
        })
        .state("from_the_start", |cx| {
            let id = cx.take::<WheelId>(0)?;
            log::info!("{}: another file, or written anew", cx.heap().wheels[&id].0);
            Ok(())
        })
        .state("denied", |cx| {
            log::warn!("{}; trying again", cx.arg::<Failure>(0)?);
            Ok(())
        })
        .state("failed", |cx| {
            let failure: Failure = cx.take(0)?;
            let files = cx.heap();
            if failure.wheel.and_then(|id| files.wheels.remove(&id)).is_some() {
                log::error!("{failure}");
                files.failures.set(files.failures.get() + 1);
            }
            Ok(())
        })
        .state("ended", |cx| {
            cx.sig_handled();
            cx.heap().wheels.clear();
        })
        .spawn(&mut kernel)?;
    kernel.run()?;
    // The log has said which files, and why.
    Ok(if failures.get() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn start(cx: &mut Context<'_, Files>) -> Result {
    let flags: Flags = cx.take(0)?;
    let interval = Duration::from_millis(flags.interval);
    for path in flags.file {
        let mut builder = FollowTail::path(&path, Line::new().bytes()).poll_interval(interval);
        if flags.all {
            builder = builder.seek(SeekFrom::Start(0));
        }
        builder = builder.on_input("line").on_reset("from_the_start").on_retry("denied").on_error("failed");
        let wheel = builder.start(cx)?;
        cx.heap().wheels.insert(wheel.id(), (path, wheel));
    }
    cx.sig("INT", "ended");
    cx.sig("TERM", "ended");
    // At the end: a user who reads this line may write to the files or send a signal at once.
    common::say(io::stderr(), format_args!("following {} files", cx.heap().wheels.len()))?;
    Ok(())
}

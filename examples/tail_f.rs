//! Prints what is appended to files, as `tail -F` does: through rotation and truncation, and before they exist.
//!
//! ```text
//! cargo run --release --example tail_f -- --file /tmp/one.log --file /tmp/two.log
//! echo hello >> /tmp/one.log          # /tmp/one.log: hello
//! mv /tmp/one.log /tmp/one.log.1      # nothing, until there is another one
//! echo again >> /tmp/one.log          # /tmp/one.log: again
//! ```
//!
//! With `--all` the files are read from their starts. `--interval MILLISECONDS` is the time between two looks. Ctrl-C ends
//! it, as does a failure to read the last of the files.

use std::collections::HashMap;
use std::io::SeekFrom;
use std::process::ExitCode;
use std::time::Duration;

use lenore::filter::{ByteLine, Line};
use lenore::wheel::{FollowTail, WheelId};
use lenore::{Context, Kernel, Result, Session};

mod common;

const USAGE: &str = "tail_f [--all] [--interval MILLISECONDS] --file PATH [--file PATH ...]";

/// What to follow, and how.
struct Settings {
    paths: Vec<String>,
    interval: Duration,
    all: bool,
}

/// The files by their wheels.
type Files = HashMap<WheelId, (String, FollowTail<ByteLine>)>;

fn main() -> ExitCode {
    common::exit(run())
}

fn run() -> Result<Result<(), Box<dyn std::error::Error>>, common::Usage> {
    let mut flags = common::Flags::new(&[USAGE]);
    let all = flags.has("--all");
    let interval = Duration::from_millis(flags.value("--interval")?.unwrap_or(1000));
    let mut paths = Vec::new();
    while let Some(path) = flags.value("--file")? {
        paths.push(path);
    }
    flags.finish()?;
    common::log_to_stderr(log::LevelFilter::Info);
    Ok(follow(Settings { paths, interval, all }))
}

fn follow(settings: Settings) -> Result<(), Box<dyn std::error::Error>> {
    let mut kernel = Kernel::new()?;
    Session::new(Files::new())
        .args((settings,))
        .state("_start", start)
        .state("line", |cx| {
            let (line, id) = (cx.take::<Vec<u8>>(0)?, cx.take::<WheelId>(1)?);
            // A log may be in any encoding, or in none.
            println!("{}: {}", cx.heap()[&id].0, String::from_utf8_lossy(&line));
            Ok(())
        })
        .state("from_the_start", |cx| {
            let id = cx.take::<WheelId>(0)?;
            log::info!("{}: another file, or written anew", cx.heap()[&id].0);
            Ok(())
        })
        .state("failed", |cx| {
            let (operation, reason, id) = (cx.take::<&str>(0)?, cx.take::<String>(2)?, cx.take::<WheelId>(3)?);
            if let Some((path, _)) = cx.heap().remove(&id) {
                log::error!("{operation} {path}: {reason}");
            }
            Ok(())
        })
        .state("ended", |cx| {
            cx.sig_handled();
            cx.heap().clear();
        })
        .spawn(&mut kernel)?;
    kernel.run()?;
    Ok(())
}

fn start(cx: &mut Context<'_, Files>) -> Result {
    let Settings { paths, interval, all } = cx.take(0)?;
    for path in paths {
        let mut builder = FollowTail::new(&path, Line::new().bytes()).poll_interval(interval);
        if all {
            builder = builder.seek(SeekFrom::Start(0));
        }
        let wheel = builder.on_input("line").on_reset("from_the_start").on_error("failed").start(cx)?;
        cx.heap().insert(wheel.id(), (path, wheel));
    }
    cx.sig("INT", "ended");
    cx.sig("TERM", "ended");
    // Last of all: whoever reads this may write to the files, and send signals.
    eprintln!("following {} files", cx.heap().len());
    Ok(())
}

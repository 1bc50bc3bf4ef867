//! What the test programs of the Daemon share.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::mpsc;
use std::{mem, thread};

use lenore::daemon::Shutdown;
use lenore::logging::{Format, Logger};
use lenore::{Context, Reply, Result};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::dup;

/// Every signal that a Daemon sends.
pub const SIGNALS: [&str; 8] = [
    "daemon_start",
    "daemon_parent",
    "daemon_child",
    "daemon_accept",
    "daemon_pause",
    "daemon_release",
    "daemon_shutdown",
    "daemon_HUP",
];

/// The command line: `--name` or `--name value`.
#[derive(Clone)]
pub struct Flags(Vec<OsString>);

impl Flags {
    pub fn read() -> Flags {
        Flags(std::env::args_os().skip(1).collect())
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|word| word == name)
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.path(name)?.to_str()
    }

    pub fn path(&self, name: &str) -> Option<&Path> {
        let place = self.0.iter().position(|word| word == name)?;
        self.0.get(place + 1).map(Path::new)
    }

    /// `at-once` or `after-requests`.
    pub fn shutdown(&self, name: &str) -> Option<Shutdown> {
        match self.text(name)? {
            "at-once" => Some(Shutdown::Immediate),
            "after-requests" => Some(Shutdown::Graceful),
            other => panic!("{name}: {other}"),
        }
    }

    pub fn number<N: FromStr>(&self, name: &str) -> Option<N> {
        self.text(name)?.parse().ok()
    }
}

/// Writes one line, in one write.
pub fn say(text: &str) {
    println!("{} {text}", std::process::id());
}

/// The names of the variables that this process and a program that it starts have, with blanks between them.
pub fn variables() -> Result<String> {
    let said = Command::new("env").output()?.stdout;
    let mut names: Vec<String> = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
    let said = String::from_utf8_lossy(&said);
    names.extend(said.lines().filter_map(|line| Some(line.split_once('=')?.0.to_owned())));
    Ok(names.join(" "))
}

/// A state for any `daemon_*` signal.
pub fn say_signal<H: 'static>(cx: &mut Context<'_, H>) {
    let signal = cx.arg::<&'static str>(0).copied().unwrap_or("not a signal");
    say(signal);
}

/// Calls the Daemon's `update_status` by its name and with a word, as a POE program does; returns what came of it.
pub fn try_update<H: 'static>(cx: &mut Context<'_, H>, word: &str) -> String {
    type Outcome = std::result::Result<(), lenore::daemon::DaemonError>;
    let outcome = cx.call("Daemon", "update_status", (word.to_owned(),)).and_then(Reply::take::<Outcome>);
    match outcome {
        Ok(Ok(())) => "ok".to_owned(),
        Ok(Err(error)) => format!("error: {error}"),
        Err(error) => format!("no call: {error}"),
    }
}

/// Starts a thread by the name `lingering` that nobody joins, and returns when it runs: until then it has another name.
pub fn leave_a_thread(work: impl FnOnce() + Send + 'static) -> Result {
    let (running, runs) = mpsc::channel();
    let named = thread::Builder::new().name("lingering".to_owned());
    named.spawn(move || {
        let _ = running.send(());
        work();
    })?;
    Ok(runs.recv()?)
}

/// Starts a thread and joins it. The system goes on listing the thread for a while, as it has many descriptors of its own to
/// close.
pub fn join_a_thread() {
    let work = || {
        unshare(CloneFlags::CLONE_FILES).expect("needs no privilege");
        for _ in 0..500 {
            // Closed by the end of the thread.
            mem::forget(dup(std::io::stdin()));
        }
    };
    thread::spawn(work).join().expect("it does not panic");
}

/// Starts a process that the Daemon does not know of yet, and returns its pid.
pub fn start_helper() -> Result<i32> {
    let helper = Command::new("sleep").arg("600").stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    Ok(helper.id() as i32)
}

/// Logs from level debug on, as JSON if the environment says `LOG_FORMAT=json`.
pub fn log_to_stderr() {
    let format = match std::env::var("LOG_FORMAT") {
        Ok(format) if format == "json" => Format::Json,
        _ => Format::Text,
    };
    // Fails only if there is a logger already.
    let _ = Logger::new().format(format).filter("debug").and_then(Logger::install);
}

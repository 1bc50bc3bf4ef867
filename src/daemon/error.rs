//! What can go wrong with a Daemon.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::daemon::board::BoardError;
use crate::daemon::machine::Cause;
use crate::daemon::settings::SettingsError;
use crate::error::Error;

/// Why a Daemon was not spawned, or did not do what it was asked.
///
/// Its `Debug` form is its text as well, as that of [`Error`].
#[non_exhaustive]
pub enum DaemonError {
    /// The settings contradict each other.
    Settings(SettingsError),
    /// The process has more than one thread, and so can't fork: start threads in the children, or join them before.
    Threads {
        /// How many threads the process has.
        count: usize,
        /// The others, by name and thread id, as far as the system tells; may be empty.
        others: String,
    },
    /// The memory for the scoreboard can't be had.
    Scoreboard(BoardError),
    /// The kernel refused something; `doing` says what it was for.
    Kernel {
        /// The step that failed.
        doing: &'static str,
        /// Why.
        source: Error,
    },
    /// A step on the way to being a daemon failed; `doing` says which.
    Process {
        /// The step that failed.
        doing: &'static str,
        /// Why, with the path, user or value that it was about.
        source: Error,
    },
    /// Children have died in their set-up, before they reported `Wait`, and so the start has failed.
    ChildrenFail {
        /// How many times in a row; children that were forked together count once.
        failures: u32,
        /// The last of them.
        pid: i32,
        /// How it has ended. What it has said itself is in the log.
        cause: Cause,
    },
    /// The start was not over in time.
    StartTimeout {
        /// How many children had reported `Wait`.
        ready: usize,
        /// How many were to.
        wanted: usize,
        /// The setting `start_timeout`.
        limit: Duration,
    },
    /// Another process has this pid file.
    PidFileHeld {
        /// The pid file.
        path: PathBuf,
        /// Its owner, unless that is only about to write it.
        pid: Option<i32>,
    },
    /// A process listens at the path of the control socket.
    ControlHeld {
        /// The path.
        path: PathBuf,
        /// That process, if the system tells.
        pid: Option<i32>,
    },
    /// The launcher has passed sockets on which nothing listens, and
    /// [`strict_listeners`](crate::daemon::DaemonBuilder::strict_listeners) makes that an error.
    UnclaimedSockets {
        /// What each of them is: its name, its type, and its address.
        sockets: Vec<String>,
    },
    /// The status has no effect in this process. Nothing was changed.
    WrongProcess {
        /// What was reported.
        report: String,
        /// What this process is.
        role: &'static str,
    },
    /// There is no such status.
    UnknownStatus(String),
    /// The configuration could not be read or loaded at the start.
    Config {
        /// The file.
        path: PathBuf,
        /// Why, as the system or the program says it.
        text: String,
    },
    /// The program has no configuration, or one of another type.
    NoConfiguration {
        /// The type that was asked for.
        wanted: &'static str,
    },
    /// An upgrade can't begin in this process.
    NotUpgraded {
        /// Why.
        reason: String,
    },
    /// No child process of this one has this pid, or it has been waited for already.
    NotAChild(i32),
    /// The Daemon has ended.
    Ended(Error),
}

impl fmt::Display for DaemonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DaemonError::Settings(error) => write!(f, "settings of the Daemon: {error}"),
            DaemonError::Threads { count, others } => {
                let besides = if others.is_empty() { "" } else { ", besides this one " };
                write!(f, "a Daemon that forks can't be spawned: the process has {count} threads{besides}{others}")
            }
            DaemonError::ChildrenFail { failures, pid, cause } => {
                write!(f, "children fail in their set-up, {failures} in a row, the last one with {cause} (pid {pid})")
            }
            DaemonError::NotUpgraded { reason } => write!(f, "the upgrade can't begin: {reason}"),
            DaemonError::StartTimeout { ready, wanted, limit } => {
                write!(f, "{ready} of {wanted} children have reported Wait within start_timeout ({limit:?})")
            }
            DaemonError::Scoreboard(error) => write!(f, "making the scoreboard: {error}"),
            DaemonError::Kernel { doing, source } | DaemonError::Process { doing, source } => {
                write!(f, "{doing}: {source}")
            }
            DaemonError::PidFileHeld { path, pid: Some(pid) } => {
                write!(f, "taking the pid file: process {pid} has {}", path.display())
            }
            DaemonError::PidFileHeld { path, pid: None } => {
                write!(f, "taking the pid file: another process has {}", path.display())
            }
            DaemonError::ControlHeld { path, pid } => {
                let owner = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
                write!(f, "making the control socket: {owner} listens at {}", path.display())
            }
            DaemonError::UnclaimedSockets { sockets } => {
                write!(f, "nothing listens on inherited sockets: {}", sockets.join(", "))
            }
            DaemonError::WrongProcess { report, role } => write!(f, "status {report} has no effect in {role}"),
            DaemonError::UnknownStatus(word) => write!(f, "no such status: {word}"),
            DaemonError::Config { path, text } => write!(f, "loading the configuration {}: {text}", path.display()),
            DaemonError::NoConfiguration { wanted } => {
                write!(f, "the Daemon has no configuration of the type {wanted}")
            }
            DaemonError::NotAChild(pid) => write!(f, "process {pid} is not a child of this process"),
            DaemonError::Ended(error) => write!(f, "the Daemon has ended: {error}"),
        }
    }
}

impl fmt::Debug for DaemonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for DaemonError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            DaemonError::Settings(error) => Some(error),
            DaemonError::Scoreboard(error) => Some(error),
            DaemonError::Kernel { source, .. } | DaemonError::Process { source, .. } | DaemonError::Ended(source) => {
                Some(source)
            }
            DaemonError::Threads { .. }
            | DaemonError::ChildrenFail { .. }
            | DaemonError::StartTimeout { .. }
            | DaemonError::PidFileHeld { .. }
            | DaemonError::ControlHeld { .. }
            | DaemonError::UnclaimedSockets { .. }
            | DaemonError::WrongProcess { .. }
            | DaemonError::Config { .. }
            | DaemonError::NoConfiguration { .. }
            | DaemonError::NotUpgraded { .. }
            | DaemonError::UnknownStatus(_)
            | DaemonError::NotAChild(_) => None,
        }
    }
}

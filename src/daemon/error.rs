//! What can go wrong with a Daemon.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::daemon::board::BoardError;
use crate::daemon::machine::Cause;
use crate::daemon::settings::SettingsError;
use crate::error::Error;

/// Why a Daemon was not spawned, or did not do what the program asked of it.
///
/// `Debug` writes the same text as `Display`, as for [`Error`].
#[non_exhaustive]
pub enum DaemonError {
    /// The settings contradict each other.
    Settings(SettingsError),
    /// The process has more than one thread, so it can't fork. Start threads in the children, or join them before `spawn`.
    Threads {
        /// How many threads the process has.
        count: usize,
        /// The other threads, by name and thread id. Empty if the system does not tell them.
        others: String,
    },
    /// The scoreboard could not be made.
    Scoreboard(BoardError),
    /// The kernel refused a step.
    Kernel {
        /// The step that failed.
        doing: &'static str,
        /// Why it failed.
        source: Error,
    },
    /// The system refused a step on the way to being a daemon, or while privileges were dropped.
    Process {
        /// The step that failed.
        doing: &'static str,
        /// Why it failed, with the path, user or value that the step was about.
        source: Error,
    },
    /// The start has failed because children died in their set-up, before they reported `Wait`.
    ChildrenFail {
        /// How many times in a row children died. Children that were forked together count once.
        failures: u32,
        /// The pid of the last child that died.
        pid: i32,
        /// Why that child has ended. The log has what the child itself has logged.
        cause: Cause,
    },
    /// The first children were not ready within [`start_timeout`](crate::daemon::DaemonBuilder::start_timeout).
    StartTimeout {
        /// How many children had reported `Wait`.
        ready: usize,
        /// How many children should have reported `Wait`.
        wanted: usize,
        /// The setting `start_timeout`.
        limit: Duration,
    },
    /// Another process holds the pid file.
    PidFileHeld {
        /// The pid file.
        path: PathBuf,
        /// The process that holds the file. `None` if that process has not written its pid yet.
        pid: Option<i32>,
    },
    /// Another process listens at the path of the control socket.
    ControlHeld {
        /// The path.
        path: PathBuf,
        /// The process that listens, if the system tells.
        pid: Option<i32>,
    },
    /// The launcher has passed sockets that the program does not listen on, and
    /// [`strict_listeners`](crate::daemon::DaemonBuilder::strict_listeners) makes that an error.
    UnclaimedSockets {
        /// The name, type and address of each of these sockets.
        sockets: Vec<String>,
    },
    /// The report has no effect in this process: the process is not a child of the Daemon. Nothing was changed.
    WrongProcess {
        /// What the program has reported.
        report: String,
        /// What this process is.
        role: &'static str,
    },
    /// The word is not a status that a program can report.
    UnknownStatus(String),
    /// The configuration could not be read or loaded at the start.
    Config {
        /// The file.
        path: PathBuf,
        /// Why, as the system or the program says it.
        text: String,
    },
    /// The program has no configuration, or a configuration of another type.
    NoConfiguration {
        /// The type that the program has asked for.
        wanted: &'static str,
    },
    /// An upgrade can't begin in this process.
    NotUpgraded {
        /// Why.
        reason: String,
    },
    /// The pid is not that of a child of this process, or the process has been waited for already.
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
                write!(f, "only {ready} of {wanted} children have reported Wait within start_timeout ({limit:?})")
            }
            DaemonError::Scoreboard(error) => write!(f, "making the scoreboard: {error}"),
            DaemonError::Kernel { doing, source } | DaemonError::Process { doing, source } => {
                write!(f, "{doing}: {source}")
            }
            DaemonError::PidFileHeld { path, pid: Some(pid) } => {
                write!(f, "taking the pid file: process {pid} holds {}", path.display())
            }
            DaemonError::PidFileHeld { path, pid: None } => {
                write!(f, "taking the pid file: another process holds {}", path.display())
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

//! What a supervisor tells this process by the environment, and tells nobody else.
//!
//! It is taken out of the environment once, before any state of the program runs: children, and the programs that they execute,
//! see none of it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::sync::OnceLock;

use nix::unistd::getppid;

use crate::sys::environment::remove;
use crate::sys::threads::NotAlone;

/// The variables that were taken out, with their values.
#[derive(Debug, Default)]
pub(crate) struct Taken(Vec<(&'static str, OsString)>);

impl Taken {
    /// Returns the value of one of the variables.
    pub(crate) fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.iter().find(|(taken, _)| *taken == name).map(|(_, value)| value.as_os_str())
    }
}

/// Returns what the environment had for this process when this was called first.
pub(crate) fn taken() -> &'static Taken {
    static TAKEN: OnceLock<Taken> = OnceLock::new();
    let read = || Taken(VARIABLES.into_iter().filter_map(|name| Some((name, env::var_os(name)?))).collect());
    launcher();
    TAKEN.get_or_init(read)
}

/// Returns the pid of the process that had started this one, or the one that has detached: its parent when this was called first.
pub(crate) fn launcher() -> i32 {
    static LAUNCHER: OnceLock<i32> = OnceLock::new();
    *LAUNCHER.get_or_init(|| getppid().as_raw())
}

/// Takes it out of the environment. To be called once descriptors that were passed by number are owned: this opens others.
pub(crate) fn remove_taken() {
    let names: Vec<&str> = taken().0.iter().map(|(name, _)| *name).collect();
    if let (false, Err(why)) = (names.is_empty(), remove(&names)) {
        let why = match why {
            NotAlone::Threads { count, .. } => format!("the process has {count} threads"),
            NotAlone::Unknown(error) => format!("the threads of the process can't be counted: {error}"),
        };
        log::warn!(target: "lenore::wheels", "{} stay in the environment, and children see them: {why}", names.join(", "));
    }
}

/// What systemd sets for sockets that it passes, and for what it wants to hear: sd_listen_fds(3), sd_notify(3).
const VARIABLES: [&str; 7] =
    ["LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

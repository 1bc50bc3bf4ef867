//! Why forks are refused, and what an operator may do about it.

use nix::errno::Errno;

use crate::error::Error;

/// Why a fork was refused.
pub(super) struct Refused {
    pub(super) error: Error,
    /// `None` for what will not get better.
    pub(super) reason: Option<Reason>,
}

/// What may pass: the log has a line for each that it changes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The system is short of processes or memory, or this user is.
    System(Errno),
    /// The program has started a thread.
    Threads,
}

impl Reason {
    pub(super) fn of(error: &Error) -> Option<Reason> {
        match error {
            Error::Threads { .. } => Some(Reason::Threads),
            Error::Os { source, .. } => match source.raw_os_error().map(Errno::from_raw)? {
                errno @ (Errno::EAGAIN | Errno::ENOMEM) => Some(Reason::System(errno)),
                _ => None,
            },
            _ => None,
        }
    }

    /// Returns what an operator may do about it.
    pub(super) fn advice(self) -> &'static str {
        match self {
            Reason::System(_) => "see RLIMIT_NPROC of the user, pids.max and memory.max of the cgroup",
            Reason::Threads => "join threads before requests and children come, or start them in the children",
        }
    }

    /// The number by which the machine tells reasons apart.
    pub(super) fn number(self) -> i32 {
        match self {
            Reason::System(errno) => errno as i32,
            Reason::Threads => 0,
        }
    }
}

//! What can go wrong with a board.

use std::error::Error;
use std::path::PathBuf;
use std::{fmt, io};

use super::Scoreboard;

/// Why the scoreboard of a Daemon could not be made.
#[non_exhaustive]
#[derive(Debug)]
pub enum BoardError {
    /// The settings ask for more slots than a board can have.
    TooManySlots {
        /// How many slots they ask for.
        slots: usize,
    },
    /// The system refused the shared memory.
    Os {
        /// The system call that failed.
        call: &'static str,
        /// Why it failed, with the errno.
        source: io::Error,
    },
    /// The file is the board of another Daemon, which is running.
    Held {
        /// The file.
        path: PathBuf,
        /// The parent process of that Daemon.
        pid: u32,
    },
    /// The file that other programs read could not be made.
    File {
        /// The file.
        path: PathBuf,
        /// The system call that failed.
        call: &'static str,
        /// Why it failed, with the errno.
        source: io::Error,
    },
}

impl fmt::Display for BoardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManySlots { slots } => {
                write!(f, "a scoreboard has at most {} slots, not {slots}", Scoreboard::MAX_SLOTS)
            }
            Self::Os { call, source } => write!(f, "can't share a scoreboard: {call}: {source}"),
            Self::Held { path, pid } => write!(f, "{} is the board of process {pid}, which runs", path.display()),
            Self::File { path, call, source } => {
                write!(f, "{}: {call}: {source}", path.display())
            }
        }
    }
}

impl Error for BoardError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::TooManySlots { .. } | Self::Held { .. } => None,
            Self::Os { source, .. } | Self::File { source, .. } => Some(source),
        }
    }
}

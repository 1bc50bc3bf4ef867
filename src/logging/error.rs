//! What can go wrong with a logger.

use std::fmt;

/// Why a [`Logger`](super::Logger) was not made or installed.
///
/// Its `Debug` form is the same text as its `Display` form, as with [`Error`](crate::Error).
#[non_exhaustive]
#[derive(Clone, PartialEq, Eq)]
pub enum LoggerError {
    /// A part of the filter can't be read.
    Filter {
        /// The part, as it stands between two commas.
        part: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The process already has a logger.
    AlreadyInstalled,
}

impl fmt::Display for LoggerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoggerError::Filter { part, reason } => write!(f, "log filter: {part:?}: {reason}"),
            LoggerError::AlreadyInstalled => f.write_str("a logger is installed already"),
        }
    }
}

impl fmt::Debug for LoggerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for LoggerError {}

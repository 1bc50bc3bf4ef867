//! In how many processes a server runs.

use std::fmt;
use std::str::FromStr;

/// In how many processes a [`Server`](super::Server) runs. Made of text by `parse`: `single`, `fork` or `prefork`, the last two with a
/// number if they should not be at their defaults, `prefork:8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Processes {
    /// In one.
    Single,
    /// In a child for each connection.
    Fork {
        /// The most children at a time; 20 in text that does not say. More clients wait.
        max_children: u32,
    },
    /// In a pool of children.
    PreFork {
        /// How many children to begin with; 4 in text that does not say. How far the pool may grow is for the Daemon's
        /// settings to say.
        start_children: u32,
    },
}

impl FromStr for Processes {
    type Err = UnknownProcesses;

    fn from_str(text: &str) -> Result<Processes, UnknownProcesses> {
        let unknown = || UnknownProcesses(text.to_owned());
        let (word, number) = match text.split_once(':') {
            Some((word, number)) => (word, Some(number.parse::<u32>().map_err(|_| unknown())?)),
            None => (text, None),
        };
        match (word, number) {
            ("single", None) => Ok(Processes::Single),
            ("fork", children) => Ok(Processes::Fork { max_children: children.unwrap_or(20) }),
            ("prefork", children) => Ok(Processes::PreFork { start_children: children.unwrap_or(4) }),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Processes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Processes::Single => f.write_str("single"),
            Processes::Fork { max_children } => write!(f, "fork:{max_children}"),
            Processes::PreFork { start_children } => write!(f, "prefork:{start_children}"),
        }
    }
}

/// A text that names no [`Processes`].
///
/// Its `Debug` form is its text, as that of [`Error`](crate::Error).
#[derive(Clone, PartialEq, Eq)]
pub struct UnknownProcesses(pub String);

impl fmt::Display for UnknownProcesses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no such mode: {:?}; use single, fork, fork:N, prefork or prefork:N", self.0)
    }
}

impl fmt::Debug for UnknownProcesses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for UnknownProcesses {}

//! Why a server was not spawned.

use std::fmt;

use crate::daemon::DaemonError;
use crate::error::Error;

/// Why a [`Server`](super::Server) was not spawned.
///
/// Its `Debug` form is its text as well, as that of [`Error`].
#[non_exhaustive]
pub enum ServerError {
    /// An address can't be looked up or bound.
    Listen(Error),
    /// The Daemon can't be spawned.
    Daemon(DaemonError),
    /// A session can't be created. Examples are marks that contradict each other, and a state of the protocol that would replace a
    /// state of the component.
    Session(Error),
    /// The Daemon's configuration names no address, or there is none.
    NoAddresses,
    /// `connections_per_child` is 0.
    NoConnections,
    /// The mode forks, but there may be no children.
    NoChildren,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerError::Listen(error) => write!(f, "the server can't listen: {error}"),
            ServerError::Daemon(error) => error.fmt(f),
            ServerError::Session(error) => write!(f, "creating the server's session: {error}"),
            ServerError::NoAddresses => f.write_str("the configuration names no address for the server to listen on"),
            ServerError::NoConnections => f.write_str("connections_per_child is 0"),
            ServerError::NoChildren => f.write_str("the mode forks, and needs at least 1 child"),
        }
    }
}

impl fmt::Debug for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for ServerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ServerError::Listen(error) | ServerError::Session(error) => Some(error),
            ServerError::Daemon(error) => Some(error),
            ServerError::NoAddresses | ServerError::NoConnections | ServerError::NoChildren => None,
        }
    }
}

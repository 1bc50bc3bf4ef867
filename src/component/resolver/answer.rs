//! Questions, the code that waits for answers, and the answers.

use std::error::Error as StdError;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// The answer to a question. It is ARG0 of the event given to [`Resolver::resolve`](super::Resolver::resolve).
///
/// POE: the error and the addresses that the event of `resolve` gets.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resolved {
    /// The name that was asked for.
    pub host: String,
    /// The port that was asked for.
    pub port: u16,
    /// Its addresses in the system's order, at least one, or why there are none.
    pub outcome: Result<Vec<SocketAddr>, ResolveError>,
}

/// Why a [`Resolver`](super::Resolver) has no addresses for a name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResolveError {
    /// The look-up has failed.
    Failed {
        /// The name.
        host: String,
        /// The system's error number. 0 if there is none, as for a name that does not exist.
        errno: i32,
        /// The reason.
        reason: String,
    },
    /// A helper took too long, and the resolver has killed it.
    TimedOut {
        /// The name.
        host: String,
        /// The setting [`time_limit`](super::ResolverBuilder::time_limit).
        limit: Duration,
    },
    /// No helper could be forked, or the helper that had the question has died.
    NoHelper {
        /// The name.
        host: String,
        /// The reason.
        reason: String,
    },
    /// The resolver has stopped before the answer came.
    Stopped {
        /// The name.
        host: String,
    },
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, why): (_, &dyn fmt::Display) = match self {
            ResolveError::Failed { host, reason, .. } => (host, reason),
            ResolveError::TimedOut { host, limit } => {
                return write!(f, "can't look up {host:?}: no answer within the time limit of {limit:?}");
            }
            ResolveError::NoHelper { host, reason } => (host, reason),
            ResolveError::Stopped { host } => (host, &"the resolver has stopped"),
        };
        write!(f, "can't look up {host:?}: {why}")
    }
}

impl StdError for ResolveError {}

/// A question for the resolver's session.
pub(crate) struct Question {
    pub(super) host: String,
    pub(super) port: u16,
    /// The process that asks.
    pub(super) pid: u32,
    pub(super) asker: Asker,
}

/// A callback that waits for an answer. If it is dropped without one, it is called with [`ResolveError::Stopped`].
pub(crate) struct Asker {
    host: String,
    port: u16,
    then: Option<Box<dyn FnOnce(Resolved)>>,
}

impl Asker {
    pub(super) fn new(host: String, port: u16, then: impl FnOnce(Resolved) + 'static) -> Asker {
        Asker { host, port, then: Some(Box::new(then)) }
    }

    pub(super) fn answer(mut self, outcome: Result<Vec<SocketAddr>, ResolveError>) {
        self.tell(outcome);
    }

    /// Drops the callback without a call, because no answer will come in this process.
    pub(super) fn forget(mut self) {
        self.then = None;
    }

    fn tell(&mut self, outcome: Result<Vec<SocketAddr>, ResolveError>) {
        if let Some(then) = self.then.take() {
            then(Resolved { host: std::mem::take(&mut self.host), port: self.port, outcome });
        }
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        let host = self.host.clone();
        self.tell(Err(ResolveError::Stopped { host }));
    }
}

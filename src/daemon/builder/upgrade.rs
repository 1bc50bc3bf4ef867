//! How a new program takes the place of the one that runs.

use std::time::Duration;

use super::DaemonBuilder;

impl DaemonBuilder {
    /// Sets how long a new program may take from its start until it has taken over, when an upgrade has started it. After that
    /// the new program is ended, and this one goes on as before. Default: 60 s, not zero.
    ///
    /// A new program takes over when it is ready: when all that a launcher would wait for is there. So this has to be longer than
    /// such a program takes to load what it needs and to start its first children.
    ///
    /// POE: nothing like it.
    pub fn upgrade_timeout(mut self, limit: Duration) -> Self {
        self.0.upgrade_timeout = Some(limit);
        self
    }
}

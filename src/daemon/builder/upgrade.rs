//! How a new program takes the place of the one that runs.

use std::time::Duration;

use super::DaemonBuilder;

impl DaemonBuilder {
    /// Sets how long a new program may take from its start until it has taken over. After that the new program is ended, and this
    /// one goes on.
    ///
    /// A new program takes over when it is ready, that is, when all is there that a launcher would wait for. So the limit must be
    /// longer than the program takes to load what it needs and to start its first children.
    ///
    /// Default: 60 s. Range: more than zero.
    ///
    /// POE: nothing like it.
    pub fn upgrade_timeout(mut self, limit: Duration) -> Self {
        self.0.upgrade_timeout = Some(limit);
        self
    }
}

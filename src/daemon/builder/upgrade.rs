//! The setting for upgrades to a new program.

use std::time::Duration;

use super::DaemonBuilder;

impl DaemonBuilder {
    /// Sets how long a new program may take from its start until it has taken over. After that the Daemon ends the new
    /// program, and this program goes on.
    ///
    /// A new program takes over when it is [ready](crate::daemon#becoming-a-daemon), as for a launcher. So the limit
    /// must be longer than the program takes to load its data and to start its first children.
    ///
    /// Default: 60 s. Range: more than zero.
    ///
    /// POE: nothing like it.
    pub fn upgrade_timeout(mut self, limit: Duration) -> Self {
        self.0.upgrade_timeout = Some(limit);
        self
    }
}

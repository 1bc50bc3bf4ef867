//! The settings of the configuration, and of reloads.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use super::DaemonBuilder;
use crate::daemon::config::PoolSettings;

impl DaemonBuilder {
    /// Sets the file of the program's configuration, and the function that makes a value of its bytes. Default: none.
    ///
    /// [`spawn`](DaemonBuilder::spawn) loads the file for the first time. A relative path starts at the working
    /// directory at that time. [`Daemon::config`](crate::Daemon::config) returns the value in each process. HUP, and
    /// the command `reload` of the control socket, load the file again: see [Changing it while it
    /// runs](crate::daemon#changing-it-while-it-runs).
    ///
    /// The Daemon reads the file once for each load. First it calls `load` in a separate process, where `load` may
    /// panic, abort, run out of memory, or never end. Then it calls `load` in the parent with the same bytes. `load`
    /// should depend on nothing else, because an included file may have changed by the second call.
    ///
    /// With [`user`](DaemonBuilder::user) that user must be able to read the file. With
    /// [`chroot`](DaemonBuilder::chroot) later loads look for the path inside the new root directory.
    ///
    /// ```no_run
    /// # use lenore::{Daemon, Kernel};
    /// fn load(bytes: &[u8]) -> Result<String, std::str::Utf8Error> {
    ///     Ok(std::str::from_utf8(bytes)?.trim().to_owned())
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut kernel = Kernel::new()?;
    /// let daemon = Daemon::builder().start_children(4).config("greeting.conf", load).spawn(&mut kernel)?;
    /// println!("{}", daemon.config::<String, _>(&mut kernel)?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// POE: nothing like it.
    #[doc(alias = "reload")]
    pub fn config<T, E>(mut self, path: impl Into<PathBuf>, load: fn(&[u8]) -> Result<T, E>) -> Self
    where
        T: 'static,
        E: Display + 'static,
    {
        self.3.load(path.into(), load);
        self
    }

    /// Sets the function that takes settings of the pool from a configuration. They override those that the program has
    /// set.
    ///
    /// `pool` takes the type that [`config`](DaemonBuilder::config) loads, and is called in the same processes. If an
    /// operator has changed a number by TTIN, TTOU or `resize`, a reload keeps it, unless the new file changes this
    /// number.
    ///
    /// Without [`config`](DaemonBuilder::config), [`spawn`](DaemonBuilder::spawn) fails.
    ///
    /// Default: none.
    ///
    /// POE: nothing like it.
    pub fn config_pool<T: 'static>(mut self, pool: fn(&T) -> PoolSettings) -> Self {
        self.3.pool(pool);
        self
    }

    /// Rejects a reload that changes a value which [needs a restart](PoolSettings::needs_restart). Without it, the
    /// reload applies the rest, and the verdict names the values that need a restart. Default: no.
    ///
    /// POE: nothing like it.
    pub fn strict_reload(mut self, strict: bool) -> Self {
        self.3.is_strict = strict;
        self
    }

    /// Sets how long loading a configuration may take. After that the Daemon kills the process that loads it, and
    /// rejects the reload.
    ///
    /// Default: 10 s. Range: more than zero.
    ///
    /// POE: nothing like it.
    pub fn load_timeout(mut self, limit: Duration) -> Self {
        self.0.load_timeout = Some(limit);
        self
    }

    /// Sets how long the Daemon keeps the former configuration after a reload, and the former program after an upgrade.
    /// With zero it keeps neither.
    ///
    /// If new children die as soon as they are forked within that time, the Daemon goes back to the former
    /// configuration. In a post-forking Daemon three children have to fail in a row, each within a second. A Daemon
    /// without children has no probation, because nothing shows that the configuration is bad.
    ///
    /// Default: 10 s.
    ///
    /// POE: nothing like it.
    pub fn probation(mut self, span: Duration) -> Self {
        self.0.probation = Some(span);
        self
    }

    /// Sets how many children a reload may have in addition to [`max_children`](DaemonBuilder::max_children), and how
    /// many it starts at a time.
    ///
    /// It may be 0 if `max_unavailable` is not. In a pool that already has `max_children`, the first new child then
    /// waits until another child ends. The reload fails if that takes longer than
    /// [`start_timeout`](DaemonBuilder::start_timeout).
    ///
    /// Default: 1.
    ///
    /// POE: nothing like it.
    pub fn surge(mut self, children: u32) -> Self {
        self.0.surge = Some(children);
        self
    }

    /// Sets how many fewer children than before may be ready for clients during a reload. Default: 0.
    ///
    /// POE: nothing like it.
    pub fn max_unavailable(mut self, children: u32) -> Self {
        self.0.max_unavailable = Some(children);
        self
    }

    /// Sets how long a child that a reload has replaced may go on with its work. After that the Daemon ends the child,
    /// and the death counts as `cut`. The limit also holds for all children of a program that an upgrade has replaced.
    ///
    /// During a reload the limit also holds for children that were asked to leave for another reason, because the
    /// reload needs their places.
    ///
    /// At most two editions of a configuration have children at a time, so the next reload waits for such a child. In a
    /// pool that already has `max_children`, a reload replaces `surge` plus `max_unavailable` children at a time, and
    /// each of them may take this long. With the defaults, a reload of 12 children that all serve long requests takes
    /// up to 12 minutes.
    ///
    /// Default: 60 s. Range: more than zero.
    ///
    /// POE: nothing like it.
    #[doc(alias = "graceful_timeout")]
    pub fn drain_limit(mut self, limit: Duration) -> Self {
        self.0.drain_limit = Some(limit);
        self
    }
}

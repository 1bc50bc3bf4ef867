//! The configuration, and how it is changed while the Daemon runs.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use super::DaemonBuilder;
use crate::daemon::config::PoolSettings;

impl DaemonBuilder {
    /// Sets the file of the program's configuration, and what makes a value of its bytes. Default: none.
    ///
    /// [`spawn`](DaemonBuilder::spawn) loads it for the first time; a relative path counts from the working directory then.
    /// [`Daemon::config`](crate::Daemon::config) returns the value in each process. On HUP, once the log file was opened again, and by
    /// the order `reload` of the control socket, the file is read again, and children that have the new value take the place of the
    /// others without a request being lost. If the new file can't be loaded, or children with it do not start, everything stays as
    /// it was: the guide has a chapter on it, [Changing it while it runs](crate::daemon#changing-it-while-it-runs).
    ///
    /// The file is read once. `load` is called first in a process of its own, which may do what it likes: panic, abort, run out of
    /// memory, or never end. Then it is called in the parent, with the same bytes. It should depend on nothing else: what it reads
    /// besides, such as files that are included, may be another one the second time.
    ///
    /// With [`user`](DaemonBuilder::user) that user has to be able to read the file, and with [`chroot`](DaemonBuilder::chroot) the
    /// path is one inside of the new root directory from then on.
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

    /// Sets what of the Daemon's settings a configuration says. Default: nothing. They go before what the program has set.
    ///
    /// `pool` takes the same type that [`config`](DaemonBuilder::config) loads. It is called where that is.
    ///
    /// What operators have changed by TTIN, TTOU or `resize` survives a reload, unless the new file changes that very number.
    ///
    /// POE: nothing like it.
    pub fn config_pool<T: 'static>(mut self, pool: fn(&T) -> PoolSettings) -> Self {
        self.3.pool(pool);
        self
    }

    /// Makes a reload fail that changes what [needs a restart](PoolSettings::needs_restart). Default: the rest is applied, and the
    /// verdict names what is not.
    ///
    /// POE: nothing like it.
    pub fn strict_reload(mut self, strict: bool) -> Self {
        self.3.is_strict = strict;
        self
    }

    /// Sets how long loading a configuration may take. After that the process that loads it is killed, and the reload is rejected.
    /// Default: 10 s, not zero.
    ///
    /// POE: nothing like it.
    pub fn load_timeout(mut self, limit: Duration) -> Self {
        self.0.load_timeout = Some(limit);
        self
    }

    /// Sets for how long after a reload the former configuration is kept. If new children die as soon as they are forked within that
    /// time, the former one goes on. Of a post-forking Daemon, three children have to fail in a row, each within a second. A Daemon
    /// without children has no probation: nothing would tell that the configuration is bad. After an upgrade the former program is kept for as long. Default: 10 s. Zero keeps none.
    ///
    /// POE: nothing like it.
    pub fn probation(mut self, span: Duration) -> Self {
        self.0.probation = Some(span);
        self
    }

    /// Sets how many children there may be beside [`max_children`](DaemonBuilder::max_children) while a reload replaces them, and how
    /// many are started at a time. Default: 1. It may be 0 if `max_unavailable` is not; in a pool that has `max_children` already
    /// the first new child then waits until another child ends by itself, and the reload fails if that takes longer than
    /// [`start_timeout`](DaemonBuilder::start_timeout).
    ///
    /// POE: nothing like it.
    pub fn surge(mut self, children: u32) -> Self {
        self.0.surge = Some(children);
        self
    }

    /// Sets how many children less than before may be ready for clients while a reload replaces them. Default: 0.
    ///
    /// POE: nothing like it.
    pub fn max_unavailable(mut self, children: u32) -> Self {
        self.0.max_unavailable = Some(children);
        self
    }

    /// Sets how long a child that was replaced by a reload may go on with its work. After that it is ended, and its death counts as
    /// `cut`. All children of a program that an upgrade has replaced have as long. Default: 60 s, not zero.
    ///
    /// While a reload replaces children, this also limits those that were asked to go for another reason: their places are needed.
    ///
    /// No more than two editions of a configuration have children at a time. So the next reload waits as long for such a child.
    ///
    /// In a pool that has `max_children` already, a reload replaces `surge` plus `max_unavailable` children at a time, and each of them
    /// may take this long. By default a reload of 12 children that all serve long requests takes up to 12 minutes.
    ///
    /// POE: nothing like it.
    #[doc(alias = "graceful_timeout")]
    pub fn drain_limit(mut self, limit: Duration) -> Self {
        self.0.drain_limit = Some(limit);
        self
    }
}

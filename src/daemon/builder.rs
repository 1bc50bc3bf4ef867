//! Spawning a Daemon, and the handle to it.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::error::DaemonError;
use super::scoreboard::Report;
use super::session::{self, Heap};
use super::settings::{Mode, RawSettings, resolve};
use super::status::{DaemonStatus, Peek};
use crate::args::IntoArgs;
use crate::error::Error;
use crate::kernel::{Kernel, SessionId, unblock_all};
use crate::sys::{disposition, fork};

/// The handle to a Daemon session: copied freely, usable from any state and from outside of the loop.
///
/// Each method takes the context of a state, or the kernel.
///
/// POE: the class `Daemon` that POE::Component::Daemon exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Daemon(SessionId);

impl Daemon {
    /// Begins the settings of a Daemon.
    ///
    /// POE: `POE::Component::Daemon->spawn`, which takes them by name.
    pub fn builder() -> DaemonBuilder {
        DaemonBuilder::default()
    }

    /// Returns the id of the Daemon session.
    pub fn session(self) -> SessionId {
        self.0
    }

    /// Tells the Daemon what this process does now.
    ///
    /// In a pre-forked child: [`Report::Wait`] when it is set up, [`Report::Req`] or [`Report::Long`] when a request
    /// has come, [`Report::Done`] (or `Wait`) when it is finished; the Daemon answers the last with a `daemon_accept`
    /// signal, or by shutting this child down if it has had its share of requests. In a child forked for one request:
    /// `Long` when it will take long, `Done` when it is finished, which ends the child.
    ///
    /// # Errors
    ///
    /// [`DaemonError::WrongProcess`] in the parent of a pre-forking daemon; [`DaemonError::Ended`] once the Daemon
    /// session is gone.
    ///
    /// POE: `Daemon->update_status`.
    #[track_caller]
    pub fn update_status<K: AsMut<Kernel>>(self, kernel: &mut K, report: Report) -> Result<(), DaemonError> {
        self.report(kernel, (report,))
    }

    /// Hands a request to a child that is forked for it, from the parent of a post-forking daemon.
    ///
    /// `payload` is whatever the child needs, the accepted socket as a rule: it becomes ARG1 of the `daemon_child`
    /// signal in the child. The fork happens as soon as the running state has returned; while there are as many children
    /// as there may be, the request waits its turn.
    ///
    /// # Errors
    ///
    /// As [`update_status`](Daemon::update_status). The payload is dropped then.
    ///
    /// POE: `Daemon->update_status( 'req', $info )`.
    #[track_caller]
    pub fn update_status_with<K: AsMut<Kernel>, P: 'static>(
        self,
        kernel: &mut K,
        report: Report,
        payload: P,
    ) -> Result<(), DaemonError> {
        self.report(kernel, (report, payload))
    }

    #[track_caller]
    fn report<K: AsMut<Kernel>>(self, kernel: &mut K, args: impl IntoArgs) -> Result<(), DaemonError> {
        self.call(kernel, "update_status", args)?
    }

    /// Notes on the scoreboard whom this child serves; the first 24 octets of `label` are kept. Outside of a child it
    /// does nothing.
    ///
    /// # Errors
    ///
    /// [`DaemonError::Ended`] once the Daemon session is gone.
    ///
    /// POE: nothing like it.
    #[track_caller]
    pub fn set_peer_label<K: AsMut<Kernel>>(self, kernel: &mut K, label: impl Into<String>) -> Result<(), DaemonError> {
        kernel.as_mut().call(self.0, "set_peer_label", (label.into(),)).map(drop).map_err(DaemonError::Ended)
    }

    /// Returns what the Daemon is doing.
    ///
    /// # Errors
    ///
    /// [`DaemonError::Ended`] once the Daemon session is gone.
    ///
    /// POE: `Daemon->status`.
    #[track_caller]
    pub fn status<K: AsMut<Kernel>>(self, kernel: &mut K) -> Result<DaemonStatus, DaemonError> {
        self.call(kernel, "status", ())
    }

    /// Returns a picture of the kernel and of the Daemon; with `verbose`, of every session and why it stays alive.
    ///
    /// The event `peek`, posted to the Daemon with the same argument, writes it to the log at info level.
    ///
    /// # Errors
    ///
    /// [`DaemonError::Ended`] once the Daemon session is gone.
    ///
    /// POE: `Daemon->peek`.
    #[track_caller]
    pub fn peek<K: AsMut<Kernel>>(self, kernel: &mut K, verbose: bool) -> Result<Peek, DaemonError> {
        self.call::<_, Result<Peek, Error>>(kernel, "look", (verbose,))?.map_err(DaemonError::Ended)
    }

    /// Reports a child process that other code has forked: it is reaped without noise and gets TERM at shutdown, and
    /// is not counted in the pool.
    ///
    /// # Errors
    ///
    /// [`DaemonError::Ended`] once the Daemon session is gone.
    ///
    /// POE: `Daemon->foreign_child`.
    #[track_caller]
    pub fn foreign_child<K: AsMut<Kernel>>(self, kernel: &mut K, pid: i32) -> Result<(), DaemonError> {
        kernel.as_mut().call(self.0, "foreign_child", (pid,)).map(drop).map_err(DaemonError::Ended)
    }

    /// Shuts the Daemon down: in the parent with all of its children, in a child that child alone. A second time it
    /// does nothing.
    ///
    /// # Errors
    ///
    /// [`DaemonError::Ended`] once the Daemon session is gone.
    ///
    /// POE: `Daemon->shutdown`.
    #[track_caller]
    pub fn shutdown<K: AsMut<Kernel>>(self, kernel: &mut K) -> Result<(), DaemonError> {
        kernel.as_mut().call(self.0, "shutdown", ()).map(drop).map_err(DaemonError::Ended)
    }

    #[track_caller]
    fn call<K: AsMut<Kernel>, T: 'static>(
        self,
        kernel: &mut K,
        event: &str,
        args: impl IntoArgs,
    ) -> Result<T, DaemonError> {
        kernel.as_mut().call(self.0, event, args).and_then(|reply| reply.take()).map_err(DaemonError::Ended)
    }
}

/// The settings of a [`Daemon`].
///
/// `start_children` makes it pre-forking, else `max_children` makes it post-forking, else it does not fork.
#[derive(Debug, Clone, Default)]
#[must_use = "does nothing until it is spawned"]
pub struct DaemonBuilder(RawSettings);

impl DaemonBuilder {
    /// Sets the alias of the Daemon session; `Daemon` unless set.
    pub fn alias(mut self, alias: impl Into<String>) -> Self {
        self.0.alias = Some(alias.into());
        self
    }

    /// Makes the log tell of each child that comes and goes, at info level instead of debug.
    pub fn verbose(mut self, verbose: bool) -> Self {
        self.0.verbose = verbose;
        self
    }

    /// Sets how many children there may be at a time. Pre-forking, it is `start_children` + `max_spare` unless set.
    pub fn max_children(mut self, children: u32) -> Self {
        self.0.max_children = Some(children);
        self
    }

    /// Sets how many children to begin with, and makes the daemon pre-forking unless it is 0.
    pub fn start_children(mut self, children: u32) -> Self {
        self.0.start_children = Some(children);
        self
    }

    /// Sets how many children may wait for a request; more are retired. 80 % of `max_children` unless set.
    pub fn max_spare(mut self, children: u32) -> Self {
        self.0.max_spare = Some(children);
        self
    }

    /// Sets how many children are to wait for a request, at least 1; fewer are filled up. 20 % of `max_children`
    /// unless set.
    pub fn min_spare(mut self, children: u32) -> Self {
        self.0.min_spare = Some(children);
        self
    }

    /// Sets how many requests a pre-forked child handles before it is replaced; 0 for no limit, 1 unless set.
    pub fn requests(mut self, requests: u64) -> Self {
        self.0.requests = Some(requests);
        self
    }

    /// Sets how long children may take to end at shutdown before they are killed; 10 seconds unless set, not zero.
    pub fn shutdown_timeout(mut self, grace: Duration) -> Self {
        self.0.shutdown_timeout = Some(grace);
        self
    }

    /// Checks the settings and creates the Daemon session. Children are forked when the kernel runs.
    ///
    /// Also unblocks all signals and gives SIGCHLD its default action if the launcher had it ignored.
    ///
    /// # Errors
    ///
    /// [`DaemonError::Settings`], [`DaemonError::Threads`] when the process could not be forked,
    /// [`DaemonError::Scoreboard`], or [`DaemonError::Kernel`], for an alias that is taken among others. Nothing is left
    /// half done.
    ///
    /// POE: `spawn`.
    pub fn spawn<K: AsMut<Kernel>>(self, kernel: &mut K) -> Result<Daemon, DaemonError> {
        let settings = resolve(self.0).map_err(DaemonError::Settings)?;
        let fail = |doing| move |source| DaemonError::Kernel { doing, source };
        if settings.mode != Mode::NonForking {
            let threads = fork::thread_count();
            if threads > 1 {
                return Err(DaemonError::Threads(threads));
            }
        }
        let core = &mut kernel.as_mut().core;
        if let Ok(owner) = core.alias_resolve(&settings.alias) {
            let alias = settings.alias.as_str().into();
            return Err(fail("setting the alias")(Error::AliasTaken { alias, owner }));
        }
        let heap = Heap::new(settings, core.now())?;
        unblock_all().map_err(fail("unblocking signals"))?;
        disposition::stop_ignoring(Signal::SIGCHLD)
            .map_err(|errno| fail("resetting a signal")(Error::os("sigaction", "SIGCHLD", errno)))?;
        session::spawn(heap, kernel).map(Daemon).map_err(fail("creating the session"))
    }
}

//! The handle to a Daemon.

use std::any::{Any, type_name};
use std::rc::Rc;
use std::time::Duration;

use crate::args::{ArgError, Found, IntoArgs};
use crate::daemon::board::Report;
use crate::daemon::error::DaemonError;
use crate::daemon::machine::Grace;
use crate::daemon::status::{DaemonStatus, Peek};
use crate::error::Error;
use crate::kernel::{AsKernel, Context, SessionId, kernel_of};

/// The handle to a Daemon session. Copy it freely, and use it in any state and outside of the loop.
///
/// Each method takes the context of a state, or the kernel.
///
/// POE: the class `Daemon` that POE::Component::Daemon exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Daemon(pub(super) SessionId);

impl Daemon {
    /// Returns the id of the Daemon session.
    pub fn session(self) -> SessionId {
        self.0
    }

    /// Returns the Daemon whose `daemon_*` signal the running state has received, or `None` if it has received none.
    ///
    /// In a kernel with several Daemons, a session gets the signals of all of them. The Daemon is ARG2 of every such
    /// signal, after the arguments that POE has. ARG1 is the payload in `daemon_child` of a post-forking daemon, a
    /// [`Shutdown`](super::Shutdown) in `daemon_shutdown`, and otherwise `()`. If the program has reported the request
    /// with an event that has several arguments, the Daemon comes after all of them.
    ///
    /// The result is also `None` if an earlier state has taken the argument out of the same `daemon_child`,
    /// `daemon_pause`, `daemon_accept` or `daemon_shutdown`.
    ///
    /// ```no_run
    /// # use lenore::{Context, Daemon, Result, wheel::SocketFactory};
    /// # struct Site { daemon: Option<Daemon>, listener: Option<SocketFactory> }
    /// fn daemon_accept(cx: &mut Context<'_, Site>) {
    ///     if Daemon::of_signal(cx) == cx.heap().daemon {
    ///         cx.heap().listener.iter().for_each(SocketFactory::resume_accept);
    ///     }
    /// }
    /// ```
    ///
    /// POE: nothing like it. All daemons of a program share one scoreboard there.
    pub fn of_signal<H: 'static>(cx: &Context<'_, H>) -> Option<Daemon> {
        // If an event has reported the request, it may have brought several arguments. The Daemon comes after them.
        for position in 2.. {
            match cx.arg::<Daemon>(position) {
                Ok(daemon) => return Some(*daemon),
                Err(Error::Argument { source: ArgError { found: Found::Missing, .. }, .. }) => break,
                Err(_) => {}
            }
        }
        None
    }

    /// Reports to the Daemon what this process does now.
    ///
    /// A pre-forked child reports [`Report::Wait`] when it is set up, [`Report::Req`] or [`Report::Long`] when a
    /// request has come, and [`Report::Done`] (or `Wait`) when the request is finished. The Daemon answers the last
    /// with a `daemon_accept` signal. If the child has handled its number of requests, the Daemon shuts it down
    /// instead.
    ///
    /// A child that was forked for one request reports `Long` if the request will take long, and `Done` when it is
    /// finished. `Done` ends the child. In a Daemon that does not fork, the call has no effect.
    ///
    /// # Errors
    ///
    /// [`DaemonError::WrongProcess`] in the parent of a forking daemon, except for `Req` and `Long` when it is
    /// post-forking, and in a forked process that is not a child of the Daemon. [`DaemonError::Ended`] once the Daemon
    /// session is gone.
    ///
    /// POE: `Daemon->update_status`.
    #[track_caller]
    pub fn update_status<K: AsKernel>(self, kernel: &mut K, report: Report) -> Result<(), DaemonError> {
        self.report(kernel, (report,))
    }

    /// Hands a request from the parent of a post-forking daemon to a child that is forked for it.
    ///
    /// `payload` is whatever the child needs, usually the accepted socket. It becomes ARG1 of the `daemon_child` signal
    /// in the child. The fork happens when the running state has returned. If there are already `max_children`, the
    /// request waits.
    ///
    /// # Errors
    ///
    /// As [`update_status`](Daemon::update_status). After an error the payload is dropped.
    ///
    /// POE: `Daemon->update_status( 'req', $info )`.
    #[track_caller]
    pub fn update_status_with<K: AsKernel, P: 'static>(
        self,
        kernel: &mut K,
        report: Report,
        payload: P,
    ) -> Result<(), DaemonError> {
        self.report(kernel, (report, payload))
    }

    /// Reports that a request begins in a child that serves several at a time. Returns whether the child may take
    /// another request meanwhile.
    ///
    /// This does what [`update_status`](Daemon::update_status) does with [`Report::Req`], but every call counts as a
    /// request, even while the child is busy. `request_timeout` begins anew with every call. `false` means that the
    /// child has handled its number of requests, or was asked to leave. It then finishes the requests in hand. Report
    /// [`Report::Done`] only when the last of them is finished. A child that is asked to leave while it is busy gets
    /// `daemon_pause`.
    ///
    /// # Errors
    ///
    /// [`DaemonError::WrongProcess`] in the parent of a forking daemon, and in a forked process that is not a child of
    /// the Daemon. [`DaemonError::Ended`] once the Daemon session is gone.
    ///
    /// POE: nothing like it. A child serves one request at a time.
    #[track_caller]
    pub fn begin_request<K: AsKernel>(self, kernel: &mut K) -> Result<bool, DaemonError> {
        self.call::<_, Result<bool, DaemonError>>(kernel, "begin_request", ())?
    }

    /// Reports that a request of this process has failed. This raises the counter `requests_failed` of snapshot, status
    /// page and metrics. It has no effect on the child.
    ///
    /// The parent of a server that does not fork counts its own requests. The failures of a child are counted if other
    /// programs may watch the Daemon, with a control socket, a status listener or a board. Without the feature
    /// `control` the call has no effect. A [`Server`](crate::component::Server) reports every failed callback of a
    /// connection itself.
    ///
    /// # Errors
    ///
    /// [`DaemonError::Ended`] once the Daemon session is gone.
    ///
    /// POE: nothing like it.
    #[track_caller]
    pub fn request_failed<K: AsKernel>(self, kernel: &mut K) -> Result<(), DaemonError> {
        kernel_of(kernel).call(self.0, "request_failed", ()).map(drop).map_err(DaemonError::Ended)
    }

    /// Notes that [`request_failed`](Daemon::request_failed) is called for each failed request, so that 0 means no
    /// failure.
    pub(crate) fn tells_of_failures<K: AsKernel>(self, kernel: &mut K) -> Result<(), DaemonError> {
        kernel_of(kernel).call(self.0, "failures_are_told", ()).map(drop).map_err(DaemonError::Ended)
    }

    /// Reports that requests of a child begin or end without [`begin_request`](Daemon::begin_request), so that the
    /// child does not count as hanging.
    pub(crate) fn makes_progress<K: AsKernel>(self, kernel: &mut K) -> Result<(), DaemonError> {
        kernel_of(kernel).call(self.0, "progress", ()).map(drop).map_err(DaemonError::Ended)
    }

    #[track_caller]
    fn report<K: AsKernel>(self, kernel: &mut K, args: impl IntoArgs) -> Result<(), DaemonError> {
        self.call(kernel, "update_status", args)?
    }

    /// Notes on the scoreboard which client this child serves. The first 24 bytes of `label` are kept. Outside of a
    /// child the call has no effect.
    ///
    /// # Errors
    ///
    /// [`DaemonError::Ended`] once the Daemon session is gone.
    ///
    /// POE: nothing like it.
    #[track_caller]
    pub fn set_peer_label<K: AsKernel>(self, kernel: &mut K, label: impl Into<String>) -> Result<(), DaemonError> {
        kernel_of(kernel).call(self.0, "set_peer_label", (label.into(),)).map(drop).map_err(DaemonError::Ended)
    }

    /// Returns what the Daemon is doing.
    ///
    /// # Errors
    ///
    /// [`DaemonError::Ended`] once the Daemon session is gone.
    ///
    /// POE: `Daemon->status`.
    #[track_caller]
    pub fn status<K: AsKernel>(self, kernel: &mut K) -> Result<DaemonStatus, DaemonError> {
        self.call(kernel, "status", ())
    }

    /// Returns what the Daemon is doing, as data that can be shown, serialized and compared. Needs the feature
    /// `control`.
    ///
    /// Returns `None` in a process that is not the parent. The Daemon collects deaths, failed forks and start times of
    /// children from the first call on. With a control socket, a board or a status listener it collects them from the
    /// start.
    ///
    /// # Errors
    ///
    /// [`DaemonError::Ended`] once the Daemon session is gone.
    ///
    /// POE: nothing like it.
    #[cfg(feature = "control")]
    #[track_caller]
    pub fn snapshot<K: AsKernel>(self, kernel: &mut K) -> Result<Option<crate::daemon::view::Snapshot>, DaemonError> {
        self.call(kernel, "snapshot", ())
    }

    /// Returns the metrics. The application declares its own there before children are forked: see
    /// [`metrics`](crate::daemon::metrics). Needs the feature `control`.
    ///
    /// The call needs no kernel. When the Daemon has ended, and in another thread than the kernel's, every declaration
    /// returns [`MetricError::Ended`](crate::daemon::metrics::MetricError::Ended). Handles that were declared before
    /// still work, but no program reads their counts once the Daemon has ended.
    ///
    /// POE: nothing like it.
    #[cfg(feature = "control")]
    pub fn metrics(self) -> crate::daemon::metrics::Metrics {
        crate::daemon::metrics::Metrics(crate::daemon::metrics::find(self.0))
    }

    /// Notes that the children accept only on the listeners of `session`. Clients that wait at another Daemon's
    /// listeners then don't count.
    pub(crate) fn accepts_on_listeners_of<K: AsKernel>(
        self,
        kernel: &mut K,
        session: SessionId,
    ) -> Result<(), DaemonError> {
        self.call(kernel, "serves", (session,))
    }

    /// Returns how long clients of a process without children may delay a graceful end that begins at `begin`. The
    /// caller chooses where that time begins to count.
    pub(crate) fn grace_of_clients<K: AsKernel>(self, kernel: &mut K, begin: Duration) -> Result<Grace, DaemonError> {
        self.call(kernel, "grace_of_clients", (begin,))
    }

    /// Returns the configuration of this process: see [`DaemonBuilder::config`](crate::daemon::DaemonBuilder::config).
    ///
    /// A child keeps the configuration that it was forked with for as long as it lives. The parent, and a server
    /// without children, get another one by a reload. The signal `daemon_reload` reports that.
    ///
    /// # Errors
    ///
    /// [`DaemonError::NoConfiguration`] if the program has none, or one of another type than `T`.
    /// [`DaemonError::Ended`] once the Daemon session is gone.
    ///
    /// POE: nothing like it.
    #[track_caller]
    pub fn config<T: 'static, K: AsKernel>(self, kernel: &mut K) -> Result<Rc<T>, DaemonError> {
        let value = self.call::<_, Option<Rc<dyn Any>>>(kernel, "config", ())?;
        let value = value.and_then(|value| value.downcast().ok());
        value.ok_or(DaemonError::NoConfiguration { wanted: type_name::<T>() })
    }

    /// Returns the addresses on which this process should listen, according to its configuration: see
    /// [`PoolSettings::listen`](crate::daemon::PoolSettings::listen). Empty without a configuration.
    ///
    /// A program calls this after it has spawned the Daemon, in each new child (`daemon_child`), and in the parent
    /// after a reload (`daemon_reload`). It drops listeners whose addresses are not in the list, and opens those that
    /// are missing.
    /// configuration.
    ///
    /// ```no_run
    /// # use std::net::SocketAddr;
    /// # use lenore::{Context, Daemon, Result, wheel::SocketFactory};
    /// # struct Site { daemon: Daemon, listeners: Vec<(SocketAddr, SocketFactory)> }
    /// fn listen(cx: &mut Context<'_, Site>) -> Result {
    ///     let daemon = cx.heap().daemon;
    ///     let addresses = daemon.addresses(cx)?;
    ///     cx.heap().listeners.retain(|(address, _)| addresses.contains(address));
    ///     for address in addresses {
    ///         if cx.heap().listeners.iter().all(|(other, _)| *other != address) {
    ///             let listener = SocketFactory::tcp(address.to_string()).on_accept("accept").listen(cx)?;
    ///             // Of a pre-forking Daemon. `daemon_accept` resumes.
    ///             listener.pause_accept();
    ///             cx.heap().listeners.push((address, listener));
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`DaemonError::Ended`] once the Daemon session is gone.
    ///
    /// POE: nothing like it.
    #[track_caller]
    pub fn addresses<K: AsKernel>(self, kernel: &mut K) -> Result<Vec<std::net::SocketAddr>, DaemonError> {
        self.call(kernel, "addresses", ())
    }

    /// Returns a description of the kernel and the Daemon. With `verbose` it has every session, and why each stays
    /// alive.
    ///
    /// Post the event `peek` to the Daemon, with the same argument, to write the description to the log at level
    /// `info`.
    ///
    /// # Errors
    ///
    /// [`DaemonError::Ended`] once the Daemon session is gone.
    ///
    /// POE: `Daemon->peek`.
    #[track_caller]
    pub fn peek<K: AsKernel>(self, kernel: &mut K, verbose: bool) -> Result<Peek, DaemonError> {
        self.call::<_, Result<Peek, Error>>(kernel, "look", (verbose,))?.map_err(DaemonError::Ended)
    }

    /// Reports a child process that other code has forked. The Daemon reaps it without a log line, and sends it TERM at
    /// shutdown. It does not count in the pool.
    ///
    /// # Errors
    ///
    /// [`DaemonError::NotAChild`] for a process that this process can't wait for. [`DaemonError::Ended`] once the
    /// Daemon session is gone.
    ///
    /// POE: `Daemon->foreign_child`.
    #[track_caller]
    pub fn foreign_child<K: AsKernel>(self, kernel: &mut K, pid: i32) -> Result<(), DaemonError> {
        self.call::<_, Result<(), DaemonError>>(kernel, "foreign_child", (pid,))?
    }

    /// Shuts the Daemon down at once. In the parent this ends all children as well, in a child that child only. A
    /// second call has no effect.
    ///
    /// # Errors
    ///
    /// [`DaemonError::Ended`] once the Daemon session is gone.
    ///
    /// POE: `Daemon->shutdown`.
    #[track_caller]
    pub fn shutdown<K: AsKernel>(self, kernel: &mut K) -> Result<(), DaemonError> {
        kernel_of(kernel).call(self.0, "shutdown", ()).map(drop).map_err(DaemonError::Ended)
    }

    /// Starts a new program that takes over from this one without losing a request. It is `program`, or the path by
    /// which this program was started. A relative path starts at the directory in which this program was started.
    ///
    /// The new process gets this one's arguments and environment, and the sockets on which a
    /// [`SocketFactory`](crate::wheel::SocketFactory), a [`Server`](crate::component::Server) or the status listener
    /// listens. Its listeners find them by name or address. When its pool is ready, it takes over the pid file, the
    /// control socket and the board. From then on this process accepts nothing. If the new one dies within
    /// [`probation`](crate::daemon::DaemonBuilder::probation), this process takes everything back. After the probation
    /// it ends gracefully. The Daemon logs each step, and `lenorectl upgrade` waits for the verdict.
    ///
    /// # Errors
    ///
    /// [`DaemonError::NotUpgraded`], with the reason, if the upgrade can't begin in this process.
    /// [`DaemonError::Ended`] once the Daemon session is gone. Later failures are in the log.
    ///
    /// POE: nothing like it.
    #[track_caller]
    pub fn upgrade<K: AsKernel>(self, kernel: &mut K, program: Option<std::path::PathBuf>) -> Result<(), DaemonError> {
        self.call::<_, Result<(), DaemonError>>(kernel, "begin_upgrade", (program,))?
    }

    #[track_caller]
    fn call<K: AsKernel, T: 'static>(self, kernel: &mut K, event: &str, args: impl IntoArgs) -> Result<T, DaemonError> {
        kernel_of(kernel).call(self.0, event, args).and_then(|reply| reply.take()).map_err(DaemonError::Ended)
    }
}

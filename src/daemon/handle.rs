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

/// The handle to a Daemon session: copied freely, usable from any state and from outside of the loop.
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

    /// Returns the Daemon whose `daemon_*` signal the running state has got; `None` if it has got none.
    ///
    /// A kernel with several Daemons hears the signals of all of them; this tells whose each is. It is ARG2 of every such
    /// signal, behind what POE has: ARG1 is the payload in `daemon_child` of a post-forking daemon, a
    /// [`Shutdown`](super::Shutdown) in `daemon_shutdown`, and otherwise `()`. Also `None` if a state that got a `daemon_child`,
    /// `daemon_pause`, `daemon_accept` or `daemon_shutdown` before this one has moved the argument out.
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
    /// POE: nothing like it; all daemons of a program share one scoreboard there.
    pub fn of_signal<H: 'static>(cx: &Context<'_, H>) -> Option<Daemon> {
        // A request that was reported by an event may have brought several arguments; the Daemon comes behind them.
        for position in 2.. {
            match cx.arg::<Daemon>(position) {
                Ok(daemon) => return Some(*daemon),
                Err(Error::Argument { source: ArgError { found: Found::Missing, .. }, .. }) => break,
                Err(_) => {}
            }
        }
        None
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
    pub fn update_status<K: AsKernel>(self, kernel: &mut K, report: Report) -> Result<(), DaemonError> {
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
    pub fn update_status_with<K: AsKernel, P: 'static>(
        self,
        kernel: &mut K,
        report: Report,
        payload: P,
    ) -> Result<(), DaemonError> {
        self.report(kernel, (report, payload))
    }

    /// Reports the beginning of a request in a child that serves several at a time, and returns whether it may take
    /// another one meanwhile.
    ///
    /// Does what [`update_status`](Daemon::update_status) does with [`Report::Req`], but each call counts as a request,
    /// also while the child is busy, and `request_timeout` counts anew from it. `false` means that the child has had its
    /// share of requests or was asked to go: it finishes those in hand. [`Report::Done`] follows when the last of them is
    /// finished, not before. A child that is asked to go while it is busy gets `daemon_pause`.
    ///
    /// # Errors
    ///
    /// [`DaemonError::WrongProcess`] in the parent of a forking daemon; [`DaemonError::Ended`] once the Daemon session is
    /// gone.
    ///
    /// POE: nothing like it; a child serves one request at a time.
    #[track_caller]
    pub fn begin_request<K: AsKernel>(self, kernel: &mut K) -> Result<bool, DaemonError> {
        self.call::<_, Result<bool, DaemonError>>(kernel, "begin_request", ())?
    }

    /// Says that a request of this process has failed: the counter `requests_failed` of snapshot, status page and metrics. It says
    /// nothing of the child, which goes on.
    ///
    /// The parent of a server that does not fork counts its own. A child's is counted where other programs may look at the Daemon:
    /// with a control socket, a status listener or a board. Without the feature `control` it does nothing. A
    /// [`Server`](crate::component::Server) reports each callback of a connection that fails by itself.
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

    /// Says that [`request_failed`](Daemon::request_failed) is called for each request that fails, so that 0 is a number.
    pub(crate) fn tells_of_failures<K: AsKernel>(self, kernel: &mut K) -> Result<(), DaemonError> {
        kernel_of(kernel).call(self.0, "failures_are_told", ()).map(drop).map_err(DaemonError::Ended)
    }

    /// Reports that requests of a child begin or end, of which [`begin_request`](Daemon::begin_request) has counted none: it does not
    /// hang.
    pub(crate) fn makes_progress<K: AsKernel>(self, kernel: &mut K) -> Result<(), DaemonError> {
        kernel_of(kernel).call(self.0, "progress", ()).map(drop).map_err(DaemonError::Ended)
    }

    #[track_caller]
    fn report<K: AsKernel>(self, kernel: &mut K, args: impl IntoArgs) -> Result<(), DaemonError> {
        self.call(kernel, "update_status", args)?
    }

    /// Notes on the scoreboard whom this child serves; the first 24 bytes of `label` are kept. Outside of a child it
    /// does nothing.
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

    /// Returns what the Daemon is doing, as data that can be shown, serialized and compared. Needs the feature `control`.
    ///
    /// `None` in a process that is not the parent. Deaths, failed forks and the times that children took to start are remembered
    /// from the first call on, or from the start if the Daemon has a control socket, a board or a status listener.
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

    /// Returns the metrics that the application declares before children are forked: see [`metrics`](crate::daemon::metrics). Needs
    /// the feature `control`.
    ///
    /// It needs no kernel. When the Daemon has ended, and in another thread than the kernel's, every declaration is
    /// [`MetricError::Ended`](crate::daemon::metrics::MetricError::Ended). Handles that were declared before go on working, but
    /// nobody reads what they count once the Daemon has ended.
    ///
    /// POE: nothing like it.
    #[cfg(feature = "control")]
    pub fn metrics(self) -> crate::daemon::metrics::Metrics {
        crate::daemon::metrics::Metrics(crate::daemon::metrics::find(self.0))
    }

    /// Says that the children accept on the listeners of `session` and on no others, so that the clients who wait at another
    /// Daemon's are not counted.
    pub(crate) fn accepts_on_listeners_of<K: AsKernel>(
        self,
        kernel: &mut K,
        session: SessionId,
    ) -> Result<(), DaemonError> {
        self.call(kernel, "serves", (session,))
    }

    /// Returns how long the clients of a process without children may hold up a graceful end that begins at `begin`, counted from
    /// a start of the caller's choosing.
    pub(crate) fn grace_of_clients<K: AsKernel>(self, kernel: &mut K, begin: Duration) -> Result<Grace, DaemonError> {
        self.call(kernel, "grace_of_clients", (begin,))
    }

    /// Returns the configuration that this process has: see [`DaemonBuilder::config`](crate::daemon::DaemonBuilder::config).
    ///
    /// A child has the one that it was forked with, for as long as it lives. The parent, and a server without children, have
    /// another one after a reload: the signal `daemon_reload` tells of that.
    ///
    /// # Errors
    ///
    /// [`DaemonError::NoConfiguration`] if the program has none, or one of another type than `T`; [`DaemonError::Ended`] once the
    /// Daemon session is gone.
    ///
    /// POE: nothing like it.
    #[track_caller]
    pub fn config<T: 'static, K: AsKernel>(self, kernel: &mut K) -> Result<Rc<T>, DaemonError> {
        let value = self.call::<_, Option<Rc<dyn Any>>>(kernel, "config", ())?;
        let value = value.and_then(|value| value.downcast().ok());
        value.ok_or(DaemonError::NoConfiguration { wanted: type_name::<T>() })
    }

    /// Returns the addresses on which this process is to listen by its configuration: see
    /// [`PoolSettings::listen`](crate::daemon::PoolSettings::listen).
    ///
    /// A program asks for them when it has spawned the Daemon, in each new child (`daemon_child`), and in the parent after a reload
    /// (`daemon_reload`). It drops the listeners that are not among them, and begins those that are missing. Empty without a
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
    pub fn peek<K: AsKernel>(self, kernel: &mut K, verbose: bool) -> Result<Peek, DaemonError> {
        self.call::<_, Result<Peek, Error>>(kernel, "look", (verbose,))?.map_err(DaemonError::Ended)
    }

    /// Reports a child process that other code has forked: it is reaped without noise and gets TERM at shutdown, and
    /// is not counted in the pool.
    ///
    /// # Errors
    ///
    /// [`DaemonError::NotAChild`] for a process that this one can't wait for; [`DaemonError::Ended`] once the Daemon session
    /// is gone.
    ///
    /// POE: `Daemon->foreign_child`.
    #[track_caller]
    pub fn foreign_child<K: AsKernel>(self, kernel: &mut K, pid: i32) -> Result<(), DaemonError> {
        self.call::<_, Result<(), DaemonError>>(kernel, "foreign_child", (pid,))?
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
    pub fn shutdown<K: AsKernel>(self, kernel: &mut K) -> Result<(), DaemonError> {
        kernel_of(kernel).call(self.0, "shutdown", ()).map(drop).map_err(DaemonError::Ended)
    }

    /// Has a new program take over from this one without losing a request: `program`, or the path by which this one was started. A
    /// relative path counts from the directory in which this program was started.
    ///
    /// The new process gets the arguments and the environment of this one, and the sockets on which a
    /// [`SocketFactory`](crate::wheel::SocketFactory), a [`Server`](crate::component::Server) or the status listener listens. Its
    /// listeners find them by name or address. When its pool is ready it has the names: pid file, control socket, board. This process
    /// accepts nothing from then on, but takes everything back if the new one dies within
    /// [`probation`](crate::daemon::DaemonBuilder::probation). After that it ends gracefully. The log tells how it goes, and
    /// `lenorectl upgrade` waits for the verdict.
    ///
    /// # Errors
    ///
    /// [`DaemonError::NotUpgraded`] if it can't begin in this process, with the reason; [`DaemonError::Ended`] once the Daemon session is
    /// gone. What comes after that is told by the log.
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

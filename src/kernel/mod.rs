//! The kernel: the event loop, and everything that it keeps track of.

use std::cell::OnceCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

mod access;
mod alarm_heap;
mod alarms;
mod aliases;
mod background;
mod backlog;
mod children;
mod clock;
#[cfg(doctest)]
mod closed;
mod context;
mod core;
mod debug;
mod detach;
mod dispatch;
mod exit;
mod few;
mod fork;
mod handle;
mod holds;
mod lifecycle;
mod listeners;
mod mailbox;
#[cfg(feature = "testing")]
mod manual;
#[cfg(feature = "control")]
mod measures;
mod options;
mod os_signals;
mod passing;
mod peek;
mod postback;
mod posted;
mod queue;
mod serials;
mod sessions;
mod signals;
mod source;
mod sources;
mod turn;
mod watchers;
mod whose;

pub use access::{AsKernel, Calls, InState};
pub use alarms::{AlarmId, RemovedAlarm, Shift};
pub use context::Context;
pub use core::Dest;
#[cfg(feature = "fork-hooks")]
pub use fork::ForkStage;
pub use handle::Handle;
pub use lifecycle::ChildChange;
pub use options::{Exceptions, SessionOption, Switch, UnknownOption};
pub use peek::{EventKind, PeekedEvent, PeekedSession, PeekedSource, Reason, Snapshot};
pub use postback::{Callback, Postback};
pub use sessions::SessionId;
pub use source::{AfterFork, Readiness, Wanted};
pub use turn::Delivery;

pub(crate) use crate::sys::descriptors::set_nonblocking;
pub(crate) use access::{Refusal, core_of, kernel_of, private};
pub(crate) use background::Place;
pub(crate) use children::Process;
pub(crate) use clock::{Due, nanos};
pub(crate) use core::Core;
pub(crate) use detach::{Detached, exit_launcher};
pub(crate) use exit::AfterRun;
pub(crate) use fork::Errand;
pub(crate) use handle::has_input;
pub(crate) use listeners::Findable;
pub(crate) use mailbox::Mailbox;
pub(crate) use options::Options;
#[cfg(feature = "testing")]
pub(crate) use os_signals::catchable;
pub(crate) use os_signals::{ignore_unwatched, unblock_all, was_ignored};
pub(crate) use queue::{Event, Kind};
pub(crate) use source::{KnownAs, Source, SourceKey};
pub(crate) use turn::{Next, Turn};
pub(crate) use whose::{Maker, is_detached};

use crate::error::Error;
use crate::handover;
use crate::inherited;
use crate::sys::disposition::ignore_sigpipe;
use aliases::Aliases;
use children::Children;
use clock::Clock;
use core::Active;
use fork::Forks;
use lifecycle::Body;
use queue::EventQueue;
use sessions::Sessions;
use signals::Signals;
use sources::Sources;

/// The event loop and everything that runs on it.
///
/// A kernel is a value, not a singleton: a program may have several, for example one for each thread. Only the delivery
/// of the operating system's signals belongs to the process. Each kernel gets the signals that its sessions watch.
///
/// # Outside of any state
///
/// A kernel has the calls that name a session, such as [`post`](Kernel::post), and the calls about the kernel itself.
/// The calls that act for the running session are methods of [`Context`], which exists only inside a state: posts to
/// itself, alarms and delays, signal and child watchers, watched descriptors, aliases, postbacks, forks, wheels. On a
/// kernel they do not compile:
///
/// ```compile_fail,E0599
/// # let mut kernel = lenore::Kernel::new().unwrap();
/// kernel.yield_("event", ());
/// ```
///
/// ```
/// use lenore::{Kernel, Session};
///
/// # fn main() -> Result<(), lenore::Error> {
/// let mut kernel = Kernel::new()?;
/// Session::new(()).state("_start", |_| println!("hello")).spawn(&mut kernel)?;
/// kernel.run()
/// # }
/// ```
///
/// POE: `POE::Kernel`, which is a singleton there.
pub struct Kernel {
    pub(crate) core: Core,
    /// By slot of the session.
    pub(crate) bodies: Vec<Option<Body>>,
}

impl Kernel {
    #[inline]
    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    #[inline]
    pub(crate) fn core_mut(&mut self) -> &mut Core {
        &mut self.core
    }

    /// Makes a kernel with a poller and a signal pipe, and makes the process ignore `SIGPIPE` unless it has a handler.
    ///
    /// The first kernel of a process also takes over the sockets that systemd, or a launcher like it, has passed to the
    /// process. [`SocketFactory`](crate::wheel::SocketFactory#sockets-that-were-inherited) finds them by name or
    /// address. The kernel removes the variables `LISTEN_FDS`, `LISTEN_PID`, `LISTEN_PIDFDID` and `LISTEN_FDNAMES` from
    /// the environment, so that no program which this process starts sees them. If the process has more than one
    /// thread, the kernel leaves the variables and logs a warning. Only Linux tells how many threads there are: on
    /// other systems call this before you start a thread.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] when the system refuses the poller, the pipe or the change of `SIGPIPE`, usually because the
    /// process has run out of descriptors. [`Error::InvalidEnvironment`] when one of the variables makes no sense, or a
    /// descriptor that was passed is not open, is not a socket, or can't be used. A stream socket can be used if it
    /// listens, a datagram socket always. Sockets that were passed to another process, or without `LISTEN_PID`, are
    /// ignored.
    pub fn new() -> Result<Kernel, Error> {
        Kernel::with_clock(Clock::new)
    }

    fn with_clock(clock: impl FnOnce() -> Clock) -> Result<Kernel, Error> {
        handover::start();
        inherited::read()?;
        ignore_sigpipe().map_err(|errno| Error::os("sigaction", "SIGPIPE", errno))?;
        // Before the program can enter a chroot. If it fails, the code that needs it reports that later.
        #[cfg(target_os = "linux")]
        let _ = crate::sys::procfs::open_once();
        let mut core = Core {
            id: OnceCell::new(),
            pid: std::process::id(),
            forked: 0,
            clock: clock(),
            queue: EventQueue::new(),
            sessions: Sessions::new(),
            aliases: Aliases::default(),
            signals: Signals::new()?,
            children: Children::default(),
            sources: Sources::new()?,
            forks: Forks::default(),
            active: Active::KERNEL,
            pending_exception: None,
            is_alive: true,
            depth: 0,
            passing: Vec::new(),
            has_run: false,
            exceptions: Exceptions::BecomeSignals,
            after_run: AfterRun::Return,
            #[cfg(feature = "control")]
            measures: Default::default(),
        };
        core.watch_signal_pipe()?;
        Ok(Kernel { core, bodies: vec![None] })
    }

    /// Runs until no session is left.
    ///
    /// It may be called again afterwards. In a child forked by [`Context::fork`](crate::Context::fork) `run` returns as
    /// well, when the child's sessions have ended: [`is_child`](Kernel::is_child) tells which process this is. In a
    /// child of a [`Daemon`](crate::Daemon) `run` does not return. The child exits, unless
    /// [`children_return`](crate::daemon::DaemonBuilder::children_return) is set. If the program has forked by itself,
    /// `run` first does what [`has_forked`](Kernel::has_forked) does.
    ///
    /// # Errors
    ///
    /// [`Error::Died`] when a state failed and no session handled its `DIE` signal. All sessions were stopped, and the
    /// failure was logged at error level. [`Error::Os`] when the poller fails.
    ///
    /// POE: `run`.
    pub fn run(&mut self) -> Result<(), Error> {
        let outcome = self.run_to_the_end();
        self.exit_if_it_is_to(outcome.as_ref().err());
        outcome
    }

    fn run_to_the_end(&mut self) -> Result<(), Error> {
        self.has_forked().inspect_err(log_end)?;
        self.core.is_alive = true;
        while self.has_sessions() {
            self.slice()?;
        }
        self.finish()
    }

    /// Runs one slice of the loop.
    ///
    /// A slice waits for readiness, at most until the first event is due. It gives every ready source a turn,
    /// dispatches the events that are due, and stops the sessions that nothing keeps alive any more.
    ///
    /// Returns `false`, without running a slice, when no session is left and the kernel itself has ended. A terminal
    /// signal to [`SessionId::KERNEL`] that no state handles ends it, such as `TERM` from the system, or `IDLE` when
    /// nothing can happen any more.
    ///
    /// # Errors
    ///
    /// As [`run`](Kernel::run).
    ///
    /// POE: `run_one_timeslice`.
    pub fn run_one_timeslice(&mut self) -> Result<bool, Error> {
        let goes_on = self.run_slice_if_any();
        if !matches!(goes_on, Ok(true)) {
            self.exit_if_it_is_to(goes_on.as_ref().err());
        }
        goes_on
    }

    fn run_slice_if_any(&mut self) -> Result<bool, Error> {
        if !self.has_sessions() {
            self.finish()?;
            return Ok(false);
        }
        self.slice()?;
        self.throw_pending()?;
        Ok(true)
    }

    /// Runs slices while `go_on` returns true and sessions are left.
    ///
    /// The kernel calls `go_on` before each slice, never within one. When `go_on` has returned false, the sessions stay
    /// as they are, and a later call can run them on.
    ///
    /// # Errors
    ///
    /// As [`run`](Kernel::run).
    ///
    /// POE: `run_while`, which takes a reference to a flag.
    pub fn run_while(&mut self, mut go_on: impl FnMut() -> bool) -> Result<(), Error> {
        while go_on() && self.run_one_timeslice()? {}
        Ok(())
    }

    fn has_sessions(&self) -> bool {
        self.core.is_alive || self.core.sessions.living() > 0
    }

    fn slice(&mut self) -> Result<(), Error> {
        self.core.has_run = true;
        self.core.collect_postings();
        self.settle();
        // Settling drops filters, and a filter may own a postback. If that is called or dropped, its effect must not
        // wait.
        self.core.collect_postings();
        self.signal_idle_if_stuck();
        let wait = self.time_until_next();
        #[cfg(feature = "testing")]
        let wait = self.core.limit_wait(wait);
        #[cfg(feature = "control")]
        self.core.end_turn(wait);
        self.poll_sources(wait).inspect_err(log_end)?;
        self.dispatch_due();
        self.sweep();
        Ok(())
    }

    /// Dispatches the events that were queued and are due now. Events that are queued meanwhile wait for the next
    /// slice, so that a session that posts to itself for ever does not keep other sessions from running.
    fn dispatch_due(&mut self) {
        let phase = self.core.queue.begin_phase(self.core.clock.now());
        while let Some(mut event) = self.core.pop_due(&phase) {
            self.dispatch(&mut event);
            self.settle();
        }
        self.core.queue.end_phase(&phase);
    }

    /// Does the work that waits until no state runs: closes dropped wheels, forks, writes.
    #[inline]
    pub(crate) fn settle(&mut self) {
        let Core { sources, forks, pending_exception, .. } = &self.core;
        if sources.has_wheel_work() || !forks.is_empty() || pending_exception.is_some() {
            self.after_state();
            self.flush_dirty();
        }
    }

    /// The end of a state: dropped wheels are closed and forks carried out before anything else is dispatched.
    #[inline]
    pub(crate) fn after_state(&mut self) {
        self.core.close_dropped();
        if self.core.depth == 0 && !self.core.forks.is_empty() {
            self.fork_point();
            self.core.close_dropped();
        }
        if self.core.exceptions == Exceptions::EndTheRun && self.core.pending_exception.is_some() {
            self.stop();
        }
    }

    /// Sends `IDLE` when nothing can ever happen again.
    fn signal_idle_if_stuck(&mut self) {
        if self.core.is_idle() && !self.core.is_held_by_test() {
            self.core.signal_idle();
        }
    }

    /// Returns how long the poller may wait; `None` for ever.
    fn time_until_next(&mut self) -> Option<Duration> {
        // In a slice that a state runs, forks have to wait for that state.
        let can_fork = self.core.depth == 0 && !self.core.forks.is_empty();
        // Settling may have dropped a wheel along with another, and with it the last hold on a session. Neither must
        // wait.
        self.core.collect_touched();
        let Core { sources, sessions, .. } = &self.core;
        let is_unsettled = sources.has_unflushed() || sources.has_postings() || sessions.ledger.has_new_marks();
        if is_unsettled || can_fork || self.core.children.look {
            return Some(Duration::ZERO);
        }
        let due = self.core.next_due()?;
        if due <= self.core.clock.now() {
            return Some(Duration::ZERO);
        }
        let wait = due.saturating_sub(self.core.clock.advance()).clamp(0, nanos(LONGEST_WAIT));
        Some(Duration::from_nanos(wait as u64))
    }

    /// Ends a run: returns the failure that no session handled to the caller.
    fn finish(&mut self) -> Result<(), Error> {
        self.core.close_dropped();
        self.core.active = Active::KERNEL;
        self.core.report_leftover_children();
        self.throw_pending()
    }

    fn throw_pending(&mut self) -> Result<(), Error> {
        self.core.pending_exception.take().map_or(Ok(()), |died| Err(Error::Died(Box::new(died))))
    }
}

impl Core {
    /// Tells whether the program can't go on by itself: no event waits, nothing is watched, and no session is held from outside.
    /// Background sessions do not count.
    pub(crate) fn is_idle(&self) -> bool {
        !self.sessions.ledger.is_awaited()
            && self.has_only_passing_alarms()
            && self.forks.is_empty()
            && !self.awaits_children()
    }

    #[cfg(not(feature = "testing"))]
    fn is_held_by_test(&self) -> bool {
        false
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if !self.core.has_run && self.core.sessions.living() > 0 {
            log::warn!(target: "lenore::sessions", "a kernel with sessions was dropped, and never run");
        }
        self.core.mailbox().close();
    }
}

/// Logs what the system has refused. The run can't go on without it.
fn log_end(error: &Error) {
    log::error!(target: "lenore::sources", "the run ends: {error}: pid={}", std::process::id());
}

/// The longest time that one slice waits (K-LP-01).
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Makes an id that no other kernel has, from the host, the time, the pid, and the number of ids made in this process.
fn new_kernel_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let host =
        nix::sys::utsname::uname().map(|name| name.nodename().to_string_lossy().into_owned()).unwrap_or_default();
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (pid, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    format!("{host}-{:x}-{pid:x}-{count:x}", since_epoch.as_micros())
}

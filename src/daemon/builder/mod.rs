//! The settings of a Daemon, with one method each, and `spawn`.

mod launch;
mod reload;
mod upgrade;
mod watching;

use std::time::Duration;

use nix::sys::signal::Signal;

#[cfg(feature = "control")]
use crate::daemon::board::Scoreboard;
#[cfg(feature = "control")]
use crate::daemon::board::asks::Asks;
use crate::daemon::config::RawConfig;
use crate::daemon::error::DaemonError;
use crate::daemon::handle::Daemon;
use crate::daemon::heap::Heap;
use crate::daemon::launch::RawProcess;
use crate::daemon::listening;
use crate::daemon::machine::Shutdown;
use crate::daemon::notify::{Manager, errno_of};
use crate::daemon::parent::oom::OomKills;
use crate::daemon::session;
use crate::daemon::settings::{Forking, RawSettings, SettingsError, resolve};
use crate::error::Error;
use crate::handover::{self, Predecessor};
use crate::kernel::{AsKernel, kernel_of, unblock_all};
use crate::sys::disposition;
use crate::sys::threads::{NotAlone, make_sure_alone};
use watching::Watching;

impl Daemon {
    /// Returns a builder with the settings of a Daemon.
    ///
    /// POE: `POE::Component::Daemon->spawn`, which takes them by name.
    pub fn builder() -> DaemonBuilder {
        DaemonBuilder::default()
    }
}

/// The settings of a [`Daemon`].
///
/// With `start_children` the Daemon is pre-forking. With `max_children` alone it is post-forking. With neither it does
/// not fork. See the [table of all settings](crate::daemon#all-settings).
#[derive(Debug, Clone, Default)]
#[must_use = "does nothing until it is spawned"]
pub struct DaemonBuilder(RawSettings, RawProcess, Watching, RawConfig);

impl DaemonBuilder {
    /// Sets the alias of the Daemon session. A second Daemon in the same kernel needs another alias. Default: `Daemon`.
    pub fn alias(mut self, alias: impl Into<String>) -> Self {
        self.0.alias = Some(alias.into());
        self
    }

    /// Logs each child that begins or ends at level `info` instead of `debug`. Default: no.
    pub fn verbose(mut self, verbose: bool) -> Self {
        self.0.verbose = verbose;
        self
    }

    /// Makes [`Kernel::run`](crate::Kernel::run) return in children as well. Default: no.
    ///
    /// Set it for a program that does something in each child after its sessions have ended, or for tools that write
    /// their results when a program exits, such as coverage and profilers. Without it a child exits as soon as its last
    /// session has ended: see [the end of a child](crate::daemon#the-end-of-a-child).
    ///
    /// POE: `run` always returns in children.
    pub fn children_return(mut self, children_return: bool) -> Self {
        self.0.children_return = children_return;
        self
    }

    /// Sets how many children there may be at a time. Without [`start_children`](DaemonBuilder::start_children) this makes the
    /// Daemon post-forking.
    ///
    /// The defaults of `min_spare` and `max_spare` follow from this number. With `start_children(10).max_children(10)` at
    /// most 8 children may wait, so the pool retires 2 at once. A child that dies is replaced only if fewer than 2 are
    /// left waiting. For a pool of a fixed size, set four numbers to that size: `start_children`, `max_children`,
    /// [`min_spare`](DaemonBuilder::min_spare) and [`max_spare`](DaemonBuilder::max_spare).
    ///
    /// Default for a pre-forking Daemon: `start_children` + `max_spare`.
    pub fn max_children(mut self, children: u32) -> Self {
        self.0.max_children = Some(children);
        self
    }

    /// Sets how many children to fork at the start. More than 0 makes the Daemon pre-forking. Default: 0.
    ///
    /// The pool does not keep this number. From then on `min_spare`, `max_spare` and `max_children` decide. See
    /// [`max_children`](DaemonBuilder::max_children) for a pool of a fixed size.
    pub fn start_children(mut self, children: u32) -> Self {
        self.0.start_children = Some(children);
        self
    }

    /// Sets how many children may wait for a request. If more wait, the Daemon retires some. Default: 80 % of
    /// `max_children`. Without `max_children`: twice `min_spare`.
    pub fn max_spare(mut self, children: u32) -> Self {
        self.0.max_spare = Some(children);
        self
    }

    /// Sets how many children should wait for a request. If fewer wait, the Daemon forks more.
    ///
    /// When clients wait, the Daemon may fork more than that: see [`wait_target`](DaemonBuilder::wait_target).
    ///
    /// Default: 20 % of `max_children`, or half of `max_spare` if that is set as well. Without `max_children`:
    /// `start_children`. Minimum: 1.
    pub fn min_spare(mut self, children: u32) -> Self {
        self.0.min_spare = Some(children);
        self
    }

    /// Sets how many requests a pre-forked child handles before another child takes its place. 0 means no limit.
    /// Default: 1.
    pub fn requests(mut self, requests: u64) -> Self {
        self.0.requests = Some(requests);
        self
    }

    /// Sets [`requests`](DaemonBuilder::requests), unless the caller has set it.
    pub(crate) fn requests_unless_set(mut self, requests: u64) -> Self {
        self.0.requests.get_or_insert(requests);
        self
    }

    /// Rejects a reload to a configuration that names no address.
    pub(crate) fn needs_addresses(mut self) -> Self {
        self.3.needs_addresses = true;
        self
    }

    /// Sets how many requests before [`requests`](DaemonBuilder::requests) a pre-forked child may be replaced.
    ///
    /// Each child's number of requests is drawn evenly from `requests - jitter` to `requests`. So children that were
    /// started together are not all replaced together.
    ///
    /// Default: 0. Range: less than `requests`.
    pub fn requests_jitter(mut self, jitter: u64) -> Self {
        self.0.requests_jitter = Some(jitter);
        self
    }

    /// Limits how many children that died before they were ready a pre-forking pool may replace at once. Default: 32.
    /// Minimum: 1.
    ///
    /// This does not limit how fast a pool grows. At most 32 children are starting at a time, which means forked and
    /// not ready yet. Each child that dies before it was ready halves that number, and each child that becomes ready
    /// raises it by one.
    ///
    /// POE: nothing like it.
    pub fn fork_burst(mut self, children: u32) -> Self {
        self.0.fork_burst = Some(children);
        self
    }

    /// Limits how many children that died before they were ready a pre-forking pool may replace each second, after it
    /// has used up its [`fork_burst`](DaemonBuilder::fork_burst). Default: 64. Minimum: 1.
    ///
    /// POE: nothing like it.
    pub fn forks_per_second(mut self, children: u32) -> Self {
        self.0.forks_per_second = Some(children);
        self
    }

    /// Sets how long a client may wait to be accepted before the pool forks more children.
    ///
    /// When no child of a pre-forking pool is idle, the pool counts the clients that wait in the queues of its
    /// listeners, on systems that tell. If they would wait for longer than this, the pool forks as many children as can
    /// finish the work in this time, up to `max_children`. If children take longer than this to start, the time that
    /// they take counts instead. [`DaemonStatus::backlog`](crate::daemon::DaemonStatus::backlog) has the numbers.
    ///
    /// Default: 20 ms. Range: more than zero.
    ///
    /// POE: nothing like it.
    pub fn wait_target(mut self, limit: Duration) -> Self {
        self.0.wait_target = Some(limit);
        self
    }

    /// Sets how long the pool keeps children that it forked for waiting clients, even if there are more than
    /// `max_spare`. With zero it does not keep them.
    ///
    /// Default: ten times as long as a child takes to start, but at least 10 s.
    ///
    /// POE: nothing like it.
    pub fn shrink_hold(mut self, hold: Duration) -> Self {
        self.0.shrink_hold = Some(hold);
        self
    }

    /// Sets how long a child may take to end before the parent kills it.
    ///
    /// The limit also holds for a child that ends on its own, as after its last request. If a session of the program
    /// keeps such a child for longer than this, and longer than `request_timeout` and `long_timeout`, the child is
    /// rogue.
    ///
    /// A [`component::Server`](crate::component::Server) without children lets its connections finish on TERM or QUIT.
    /// After this time it shuts them down.
    ///
    /// Default: 10 s. Range: more than zero.
    pub fn shutdown_timeout(mut self, grace: Duration) -> Self {
        self.0.shutdown_timeout = Some(grace);
        self
    }

    /// Sets how long the Daemon serves clients as before when a graceful end begins, by TERM, QUIT or `stop`.
    ///
    /// During this time `/ready` of the [status listener](DaemonBuilder#method.status) answers 503, so that load
    /// balancers send new clients elsewhere before the listeners are closed. 5 to 10 s suit Kubernetes, which sends
    /// TERM while it still sends clients. A second TERM ends the Daemon at once.
    ///
    /// This time is a part of [`shutdown_timeout`](DaemonBuilder::shutdown_timeout), and must be less. Default: zero.
    ///
    /// POE: nothing like it.
    pub fn lame_duck(mut self, span: Duration) -> Self {
        self.0.lame_duck = span;
        self
    }

    /// Sets what TERM does.
    ///
    /// With [`Shutdown::Graceful`] the first TERM does the same as QUIT. The server finishes requests in hand, for at
    /// most [`shutdown_timeout`](DaemonBuilder::shutdown_timeout). A second TERM, or a TERM after QUIT, ends the Daemon
    /// at once. systemd, Docker and Kubernetes send TERM when they stop a service, and KILL some time later. Set
    /// `shutdown_timeout` to less than that time.
    ///
    /// A child may get TERM directly, as from systemd with `KillMode=control-group`. It also takes the first TERM for
    /// QUIT, and ends at once on a second TERM. INT and [`Daemon::shutdown`](crate::Daemon::shutdown) always end the
    /// Daemon at once.
    ///
    /// Default: [`Shutdown::Immediate`], or in a [`component::Server`](crate::component::Server)
    /// [`Shutdown::Graceful`].
    ///
    /// POE: nothing like it. TERM ends parent and children at once.
    #[doc(alias = "graceful_shutdown")]
    pub fn term(mut self, how: Shutdown) -> Self {
        self.0.term = Some(how);
        self
    }

    /// Sets [`term`](DaemonBuilder::term), unless the caller has set it.
    pub(crate) fn term_unless_set(mut self, how: Shutdown) -> Self {
        self.0.term.get_or_insert(how);
        self
    }

    /// Sets how long a start with [`detach`](DaemonBuilder::detach) or for a service manager may take, from the
    /// creation of the Daemon session until the daemon is ready. A start that takes longer fails.
    ///
    /// During a reload the limit also holds for each new child. A reload whose children take longer is rolled back.
    ///
    /// Default: 60 s. Range: more than zero.
    ///
    /// POE: nothing like it.
    pub fn start_timeout(mut self, limit: Duration) -> Self {
        self.0.start_timeout = Some(limit);
        self
    }

    /// Sets how often the parent examines its children.
    ///
    /// A child that breaks a rule gets INT. If it breaks the rule in the next round, it gets TERM, and a round later
    /// KILL. If [`term`](DaemonBuilder::term) is [`Shutdown::Graceful`], it gets a second INT instead of TERM.
    ///
    /// Default: 10 s. Range: more than zero.
    ///
    /// POE: `babysit`, in seconds. Without it there is no babysitting.
    pub fn babysit(mut self, interval: Duration) -> Self {
        self.0.babysit = Some(interval);
        self
    }

    /// Sets how long a child may be in the status `r`. A child that takes longer is rogue. Default: no limit. Range: more than
    /// zero.
    pub fn request_timeout(mut self, limit: Duration) -> Self {
        self.0.request_timeout = Some(limit);
        self
    }

    /// Sets how long a child may be in the status `l`. A child that takes longer is rogue. Default: no limit. Range: more than
    /// zero.
    pub fn long_timeout(mut self, limit: Duration) -> Self {
        self.0.long_timeout = Some(limit);
        self
    }

    /// Sets how much processor time a child may use for one request. A child that uses more is rogue. Default: 600 s. Range: more
    /// than zero.
    ///
    /// POE: the fixed 10 minutes after which a process is rogue.
    pub fn cpu_limit(mut self, limit: Duration) -> Self {
        self.0.cpu_limit = Some(limit);
        self
    }

    /// Limits the resident memory of a child, in bytes. A child with more is replaced after its request. Linux only.
    ///
    /// Memory that a child shares with its parent counts as resident in both. If the Daemon can't read a child's
    /// memory, it logs one warning that the limit is not enforced.
    ///
    /// Default: no limit. Range: more than zero.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.0.memory_limit = Some(bytes);
        self
    }

    /// Makes the process a daemon, as far as the settings ask for it, and creates the Daemon session. The Daemon forks
    /// children when the kernel runs.
    ///
    /// A state may call it, because only one process returns from the call. `spawn` takes these steps, in this order:
    ///
    /// - It loads the configuration, and checks the settings.
    /// - It unblocks signals that the launcher had blocked. If SIGCHLD was ignored, it gets its default action. If
    ///   SIGXFSZ has no handler, it is ignored, so that a log file at its size limit does not end a process.
    /// - It opens the log file, and sends standard output and standard error there. It takes the pid file.
    /// - It detaches, and goes on in another process. It drops the process's privileges.
    /// - It creates the session.
    ///
    /// # Errors
    ///
    /// - [`DaemonError::Config`] or [`DaemonError::Settings`]
    /// - [`DaemonError::Threads`] if the process has several threads, so that it could not fork
    /// - [`DaemonError::PidFileHeld`]
    /// - [`DaemonError::Process`] for any other step before the session is created
    /// - [`DaemonError::Scoreboard`]
    /// - [`DaemonError::Kernel`], for example for an alias that is taken
    ///
    /// After an error, `spawn` restores standard output, standard error, the umask and the working directory, and
    /// removes the pid file. It can't undo two steps: detaching, where the launcher prints the error and exits with 1,
    /// and dropping privileges. The process should end after an error that follows one of them.
    ///
    /// POE: `spawn`.
    pub fn spawn<K: AsKernel>(self, kernel: &mut K) -> Result<Daemon, DaemonError> {
        let fail = |source| DaemonError::Kernel { doing: "reading the environment", source };
        let mut manager = if self.1.is_unmanaged { None } else { Manager::of_this_process().map_err(fail)? };
        let predecessor = handover::take_predecessor();
        let spawned = self.spawn_under(&mut manager, predecessor, kernel);
        if let (Some(manager), Err(error)) = (manager, &spawned) {
            manager.gives_way(&error.to_string(), errno_of(error));
        }
        spawned
    }

    fn spawn_under<K: AsKernel>(
        mut self,
        manager: &mut Option<Manager>,
        mut predecessor: Option<Predecessor>,
        kernel: &mut K,
    ) -> Result<Daemon, DaemonError> {
        let core = &kernel_of(kernel).core;
        core.make_sure_it_may_fork(core.active.session)
            .map_err(|source| DaemonError::Kernel { doing: "creating the Daemon", source })?;
        let config = self.3.open(&mut self.0)?;
        let settings = resolve(self.0).map_err(DaemonError::Settings)?;
        let keeps_listeners = self.1.keeps_listeners;
        let mut plan = self.1.plan()?;
        let is_successor = predecessor.is_some();
        if is_successor {
            // The predecessor has left the terminal, and this process never had it.
            plan.stays();
        }
        if plan.forks() && manager.is_some() {
            return Err(DaemonError::Settings(SettingsError::DetachUnderManager));
        }
        if plan.forks() && std::process::id() == 1 {
            return Err(DaemonError::Settings(SettingsError::DetachAsInit));
        }
        let watching = self.2.resolve()?;
        let fail = |doing| move |source| DaemonError::Kernel { doing, source };
        #[cfg(feature = "fork-hooks")]
        crate::inject::prepare().map_err(fail("preparing a test"))?;
        if settings.forking != Forking::None || plan.forks() {
            #[cfg(feature = "testing")]
            kernel_of(kernel).core.refuse_to_fork_in_test().map_err(fail("preparing to fork"))?;
            make_sure_alone().map_err(|why| match why {
                NotAlone::Threads { count, others } => DaemonError::Threads { count, others },
                NotAlone::Unknown(_) => fail("looking for other threads")(why.into()),
            })?;
        }
        if let Ok(owner) = kernel_of(kernel).core.alias_resolve(&settings.alias) {
            let alias = settings.alias.as_str().into();
            return Err(fail("setting the alias")(Error::AliasTaken { alias, owner }));
        }
        unblock_all().map_err(fail("unblocking signals"))?;
        disposition::stop_ignoring(Signal::SIGCHLD)
            .map_err(|errno| fail("resetting a signal")(Error::os("sigaction", "SIGCHLD", errno)))?;
        disposition::ignore_sigxfsz()
            .map_err(|errno| fail("ignoring a signal")(Error::os("sigaction", "SIGXFSZ", errno)))?;
        // Opened before a chroot, inside which the file does not exist.
        let oom_kills = if settings.forking == Forking::None { OomKills::default() } else { OomKills::open() };
        let born = kernel_of(kernel).core.now();
        // Made before a chroot, while the paths are right, with the privileges for it, and in the process that goes on.
        let mut board = None;
        #[cfg(feature = "control")]
        let (mut control, has_jail, pid_file) = (None, plan.has_jail(), plan.pid_file());
        #[cfg(feature = "status")]
        let mut status = None;
        let addresses = config.as_ref();
        let make_what_is_seen = |owner| {
            let fail =
                |source| DaemonError::Process { doing: "listening on the addresses of the configuration", source };
            addresses.map_or(Ok(()), listening::open).map_err(fail)?;
            #[cfg(feature = "status")]
            {
                status = watching.make_status()?;
            }
            board = watching.make_board(&settings, owner, born, is_successor)?;
            #[cfg(feature = "control")]
            {
                let board = board.as_ref().and_then(Scoreboard::path);
                let (pid_file, board) = (pid_file.as_deref(), board.as_deref());
                control = watching.make_control(owner, has_jail, pid_file, board, is_successor)?;
            }
            Ok(())
        };
        let mut process =
            plan.carry_out(kernel_of(kernel), &settings.alias, predecessor.as_mut(), make_what_is_seen)?;
        let now = kernel_of(kernel).core.now();
        let mut heap = Heap::new(settings, board, oom_kills, now).inspect_err(|error| process.fail(error))?;
        heap.config = config;
        #[cfg(feature = "control")]
        if control.is_some() && heap.board.is_some() {
            let asks = Asks::new().map_err(|error| fail("mapping memory")(Error::os("mmap", "for children", error)));
            heap.asks = Some(asks.inspect_err(|error| process.fail(error))?);
        }
        if let Some(parent) = heap.role.parent_mut() {
            parent.answers_to(manager.take(), keeps_listeners);
            if let Some(predecessor) = predecessor {
                parent.follows(predecessor);
            }
        }
        #[cfg(feature = "control")]
        if let Some(prefix) = watching.metrics_prefix() {
            heap.metrics.set_prefix(prefix);
        }
        #[cfg(feature = "control")]
        if let Some(parent) = heap.role.parent_mut() {
            parent.let_in(control);
            #[cfg(feature = "status")]
            parent.show_to(status);
        }
        // Kept out of the heap, which is gone if no session is created. The launcher must still get the reason.
        let launch = process.launch.take();
        heap.process = process;
        match session::spawn(heap, kernel) {
            Ok(session) => {
                if let Some(launch) = launch {
                    kernel_of(kernel).call(session, "launched", (launch,)).map_err(fail("creating the session"))?;
                }
                Ok(Daemon(session))
            }
            Err(source) => {
                let error = fail("creating the session")(source);
                launch.into_iter().for_each(|launch| launch.failed(&error.to_string()));
                Err(error)
            }
        }
    }
}

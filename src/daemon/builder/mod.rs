//! The settings of a Daemon, one method each, and spawning it.

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
use crate::daemon::notify::Manager;
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
    /// Begins the settings of a Daemon.
    ///
    /// POE: `POE::Component::Daemon->spawn`, which takes them by name.
    pub fn builder() -> DaemonBuilder {
        DaemonBuilder::default()
    }
}

/// The settings of a [`Daemon`].
///
/// `start_children` makes it pre-forking, else `max_children` makes it post-forking, else it does not fork.
#[derive(Debug, Clone, Default)]
#[must_use = "does nothing until it is spawned"]
pub struct DaemonBuilder(RawSettings, RawProcess, Watching, RawConfig);

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

    /// Makes [`Kernel::run`](crate::Kernel::run) return in children as well, so that each child goes on with what the program does after `run`,
    /// and drops what `main` holds. Default: no.
    ///
    /// Without this setting a child exits as soon as its last session has ended. Rust's standard output and standard error, the
    /// logger and what the program has registered with [`flush_before_fork`](crate::Kernel::flush_before_fork) are flushed
    /// before. No other code of the program runs: no destructor of `main`'s values, no function that a C library has
    /// registered with `atexit`. The exit code is 0, or 1 if a failure that no session has handled has ended the child.
    ///
    /// Set it for a program that has something to do in each child after its sessions, or whose tools write their results
    /// when a program exits, as coverage and profilers do.
    ///
    /// POE: what `run` does in every child.
    pub fn children_return(mut self, children_return: bool) -> Self {
        self.0.children_return = children_return;
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
    ///
    /// Clients that wait may ask for more: see [`wait_target`](DaemonBuilder::wait_target).
    pub fn min_spare(mut self, children: u32) -> Self {
        self.0.min_spare = Some(children);
        self
    }

    /// Sets how many requests a pre-forked child handles before it is replaced; 0 for no limit, 1 unless set.
    pub fn requests(mut self, requests: u64) -> Self {
        self.0.requests = Some(requests);
        self
    }

    /// Does the same, but leaves the caller's choice alone.
    pub(crate) fn requests_unless_set(mut self, requests: u64) -> Self {
        self.0.requests.get_or_insert(requests);
        self
    }

    /// Sets how much earlier than `requests` a pre-forked child may be replaced, less than `requests`; 0 unless set.
    ///
    /// Each child's number of requests is somewhere between `requests - jitter` and `requests`, evenly spread, so that a
    /// pool that was started together is not replaced together.
    pub fn requests_jitter(mut self, jitter: u64) -> Self {
        self.0.requests_jitter = Some(jitter);
        self
    }

    /// Sets how many children that died before they were ready a pre-forking pool may replace at once. Default: 32. Range: 1 and
    /// more.
    ///
    /// This does not limit how fast a pool grows. At most 32 children are starting at a time, forked and not ready yet. Each
    /// child that dies before it was ready halves that number, and each child that becomes ready raises it by one.
    ///
    /// POE: nothing like it.
    pub fn fork_burst(mut self, children: u32) -> Self {
        self.0.fork_burst = Some(children);
        self
    }

    /// Sets how many children a second that died before they were ready a pre-forking pool may replace when it has used up its
    /// [`fork_burst`](DaemonBuilder::fork_burst). Default: 64. Range: 1 and more.
    ///
    /// POE: nothing like it.
    pub fn forks_per_second(mut self, children: u32) -> Self {
        self.0.forks_per_second = Some(children);
        self
    }

    /// Sets how long a client may wait to be accepted before more children are forked for those that wait. A pool whose children
    /// take longer than that to start goes by how long they take. Default: 20 ms. Range: more than zero.
    ///
    /// A pre-forking pool in which no child is idle looks how many clients wait in the queues of its listeners, where the system
    /// tells. If they would wait for longer than this, it forks as many children as would have finished all of the work in this
    /// time, up to `max_children`. [`DaemonStatus::backlog`](crate::daemon::DaemonStatus::backlog) has the numbers.
    ///
    /// POE: nothing like it.
    pub fn wait_target(mut self, limit: Duration) -> Self {
        self.0.wait_target = Some(limit);
        self
    }

    /// Sets how long children that were forked because clients waited are kept although there are more than `max_spare`. Default:
    /// ten times as long as a child takes to start, at least 10 s. Zero keeps none.
    ///
    /// POE: nothing like it.
    pub fn shrink_hold(mut self, hold: Duration) -> Self {
        self.0.shrink_hold = Some(hold);
        self
    }

    /// Sets how long children may take to end at shutdown before they are killed; 10 seconds unless set, not zero. A
    /// [`component::Server`](crate::component::Server) without children shuts its connections down after this time when TERM or QUIT
    /// lets them finish.
    ///
    /// The same is true of a child that ends by itself, as after its last request: if it is still there, because a session
    /// of its does not end, it is rogue after this time, or after `request_timeout` or `long_timeout` if they are longer.
    pub fn shutdown_timeout(mut self, grace: Duration) -> Self {
        self.0.shutdown_timeout = Some(grace);
        self
    }

    /// Sets how long clients are served as before when a graceful end begins, by TERM, QUIT or `stop`. Default: zero. Range: less than
    /// [`shutdown_timeout`](DaemonBuilder::shutdown_timeout), of which it is a part.
    ///
    /// Meanwhile `/ready` of the [status listener](DaemonBuilder#method.status) answers 503, so that load balancers send new clients
    /// elsewhere before the listeners are closed. 5 to 10 seconds suit Kubernetes, where TERM comes while clients are still sent here. A
    /// second TERM ends the Daemon at once.
    ///
    /// POE: nothing like it.
    pub fn lame_duck(mut self, span: Duration) -> Self {
        self.0.lame_duck = span;
        self
    }

    /// Sets what TERM means. Default: [`Shutdown::Immediate`]; in a [`component::Server`](crate::component::Server)
    /// [`Shutdown::Graceful`].
    ///
    /// With `Graceful` the first TERM does what QUIT does: requests in hand are finished, as long as
    /// [`shutdown_timeout`](DaemonBuilder::shutdown_timeout) allows. A second TERM, or one after QUIT, ends the Daemon at once. systemd,
    /// Docker and Kubernetes send TERM when they stop a service, and KILL some time later: `shutdown_timeout` should be less than
    /// that time.
    ///
    /// A child that gets TERM by itself, as from systemd with `KillMode=control-group`, takes the first TERM for QUIT as well. A
    /// second TERM ends that child at once. INT and [`Daemon::shutdown`](crate::Daemon::shutdown) end the Daemon at once in any case.
    ///
    /// POE: nothing like it. TERM ends parent and children at once.
    #[doc(alias = "graceful_shutdown")]
    pub fn term(mut self, how: Shutdown) -> Self {
        self.0.term = Some(how);
        self
    }

    /// Does the same, but leaves the caller's choice alone.
    pub(crate) fn term_unless_set(mut self, how: Shutdown) -> Self {
        self.0.term.get_or_insert(how);
        self
    }

    /// Sets how long a start with [`detach`](DaemonBuilder::detach) may take, from the creation of the Daemon session until the
    /// launcher can be told that the daemon is ready. A start that takes longer fails. Default: 60 s, not zero.
    ///
    /// A new child has as long to be ready when a configuration is reloaded. A reload whose children take longer is rolled back.
    ///
    /// POE: nothing like it.
    pub fn start_timeout(mut self, limit: Duration) -> Self {
        self.0.start_timeout = Some(limit);
        self
    }

    /// Sets how often the parent examines its children; 10 seconds unless set, not zero.
    ///
    /// A child that breaks a rule gets INT, in the next round TERM if it goes on, and in the one after that KILL. In place of TERM it
    /// gets INT again if [`term`](DaemonBuilder::term) is [`Shutdown::Graceful`].
    ///
    /// POE: `babysit`, in seconds, without which there is no babysitting.
    pub fn babysit(mut self, interval: Duration) -> Self {
        self.0.babysit = Some(interval);
        self
    }

    /// Sets how long a child may be in the status `r`, not zero; for ever unless set.
    pub fn request_timeout(mut self, limit: Duration) -> Self {
        self.0.request_timeout = Some(limit);
        self
    }

    /// Sets how long a child may be in the status `l`, not zero; for ever unless set.
    pub fn long_timeout(mut self, limit: Duration) -> Self {
        self.0.long_timeout = Some(limit);
        self
    }

    /// Sets how much processor time a child may use for one request; 600 seconds unless set, not zero.
    ///
    /// POE: the 10 minutes after which a process is rogue.
    pub fn cpu_limit(mut self, limit: Duration) -> Self {
        self.0.cpu_limit = Some(limit);
        self
    }

    /// Sets how many octets of a child may be resident, not zero; without limit unless set. A child above it is replaced
    /// after its request. Linux only. Where memory can't be read, one warning says that the limit is not enforced.
    ///
    /// What a child shares with its parent is resident in both.
    pub fn memory_limit(mut self, octets: u64) -> Self {
        self.0.memory_limit = Some(octets);
        self
    }

    /// Makes the process a daemon as far as is set, and creates the Daemon session. Children are forked when the kernel
    /// runs.
    ///
    /// In this order: the configuration is loaded; the settings are checked; signals that the launcher had blocked are unblocked, and SIGCHLD gets
    /// its default action if it was ignored; SIGXFSZ is ignored unless it has a handler, as a log that may not become any
    /// larger is no reason to die; the log file is opened, and standard output and error go there; the pid
    /// file is taken; the program detaches, and so goes on in another process; it drops its privileges; the session
    /// is created. A state may call it: one process alone returns from the call.
    ///
    /// # Errors
    ///
    /// [`DaemonError::Config`], [`DaemonError::Settings`], [`DaemonError::Threads`] when the process could not be forked,
    /// [`DaemonError::PidFileHeld`], [`DaemonError::Process`] for any other step before the session is created,
    /// [`DaemonError::Scoreboard`], or [`DaemonError::Kernel`], for an alias that is taken among others. Nothing is left
    /// half done: standard output and error are what they were, and so are umask and working directory, and there is no
    /// pid file. What can't be taken back is to have detached (the launcher prints the error then, and exits with 1) and to have
    /// dropped privileges: after an error of these steps the process should end.
    ///
    /// POE: `spawn`.
    pub fn spawn<K: AsKernel>(self, kernel: &mut K) -> Result<Daemon, DaemonError> {
        let fail = |source| DaemonError::Kernel { doing: "reading the environment", source };
        let mut manager = if self.1.is_unmanaged { None } else { Manager::of_this_process().map_err(fail)? };
        let predecessor = handover::take_predecessor();
        let spawned = self.spawn_under(&mut manager, predecessor, kernel);
        if let (Some(manager), Err(error)) = (manager, &spawned) {
            manager.gives_way(&error.to_string());
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
            // Its predecessor has left the terminal, and this process was never there.
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
        // Before a chroot, in which there is no such file.
        let oom_kills = if settings.forking == Forking::None { OomKills::default() } else { OomKills::open() };
        let born = kernel_of(kernel).core.now();
        // Made where their paths mean what they say, by who may make them, in the process that goes on.
        let mut board = None;
        #[cfg(feature = "control")]
        let (mut control, has_jail, pid_file) = (None, plan.has_jail(), plan.pid_file());
        #[cfg(feature = "status")]
        let mut status = None;
        let addresses = config.as_ref();
        let make_what_is_seen = |owner| {
            let fail = |source| DaemonError::Process { doing: "listening on what the configuration says", source };
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
        // Kept out of the heap, which is gone when there is no session: the launcher is to hear why.
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

//! The fork point: forks happen between two dispatches, with no state on the stack.

use std::collections::VecDeque;
use std::io::Write;
use std::panic::Location;

use nix::sys::signal::{SigSet, SigmaskHow};

use super::Kernel;
use super::core::{Active, Core};
use super::dispatch::discard;
use super::exit::AfterRun;
use super::holds::{self, Hold};
use super::os_signals;
use super::queue::{Event, Kind};
use super::sessions::SessionId;
use crate::args::{Args, IntoArgs};
use crate::calls::calls;
use crate::destroy::{destroy, destroy_all, shield};
use crate::error::Error;
use crate::inject::{self, Point};
use crate::name::Name;
use crate::sys::fork::{Side, exit_now, fork};

/// A moment of a fork at which a test may step in.
///
/// POE: nothing like it.
#[cfg(feature = "fork-hooks")]
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForkStage {
    /// In the parent, before the signals are blocked. An error here counts as an error of the fork.
    BeforeFork,
    /// In the child, before anything else was done.
    ChildFirst,
    /// In the child, with the kernel's descriptors made anew and all signals still blocked.
    BeforeUnmask,
    /// In the child, before the state that the fork was for runs.
    BeforeReady,
}

/// What a test wants to happen at a [`ForkStage`].
#[cfg(feature = "fork-hooks")]
type Hook = Box<dyn FnMut(ForkStage) -> std::io::Result<()>>;

/// The forks that were asked for, and what is to be done around each.
#[derive(Default)]
pub(crate) struct Forks {
    requests: VecDeque<Request>,
    flushes: Vec<Box<dyn FnMut()>>,
    #[cfg(feature = "fork-hooks")]
    hook: Option<Hook>,
}

pub(crate) struct Request {
    session: SessionId,
    hold: Option<Hold<holds::Fork>>,
    then: Then,
}

/// What a fork is for.
enum Then {
    /// A state of the session runs in each process.
    Events {
        from: Option<Name>,
        location: &'static Location<'static>,
        on_parent: Name,
        on_child: Name,
        payload: Args,
        after_run: AfterRun,
    },
    Errand(Box<dyn Errand>),
}

/// A fork of the library's own, whose child does not go on with the program, but does one thing and ends.
pub(crate) trait Errand {
    /// Tells whether there is still a reason to fork.
    fn is_wanted(&self) -> bool;

    /// Goes on in the parent, and drops what was for the child.
    fn in_parent(self: Box<Self>, kernel: &mut Kernel, pid: Result<i32, Error>);

    /// Does what the child is for.
    fn in_child(self: Box<Self>, kernel: &mut Kernel) -> !;
}

impl Forks {
    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }
}

calls! {
    /// Forks.
    for a running session, with self:

    /// Asks for a fork, which is carried out when the running state has returned.
    ///
    /// If other states called that state, they must have returned, too. The kernel dispatches no other event before the
    /// fork. Outside of [`Kernel::run`] the fork waits for the first slice.
    ///
    /// In the parent the running session gets `on_parent` with ARG0 = `Ok(pid)`, a `Result<i32, Error>`, and the
    /// parent's copy of `payload` is dropped. In the child the session gets `on_child` with `payload` as its arguments.
    ///
    /// The child keeps sessions, alarms, posted events, signal watchers, listeners and watched handles, except those of
    /// [background sessions](crate::Session::background). It closes its copies of stream wheels, because a stream
    /// belongs to the process that opened it. Before anything else runs in the child, sessions that watch the signal
    /// `FORKED` get it.
    ///
    /// If the fork fails, the session gets `on_parent` with ARG0 = `Err(error)`, then `payload`. The errors:
    ///
    /// - [`Error::Threads`]: the process has more than one thread. The kernel has then waited some milliseconds for the
    ///   other threads to go, because the system lists a thread for a moment after it was joined.
    /// - [`Error::Os`]: the system refused to fork, or does not tell how many threads there are. Linux does not tell in a
    ///   sandbox, nor in a chroot without `/proc` that was entered before [`Kernel::new`]. Other systems never tell,
    ///   and that is not an error: there you must make sure that the process has one thread.
    /// - [`Error::InBackground`]: the running session is a background session, which the child would not have.
    ///
    /// POE: `fork` inside a handler, which returns in both processes.
    #[track_caller]
    pub fn fork(&mut self, on_parent: impl Into<Name>, on_child: impl Into<Name>, payload: impl IntoArgs) {
        self.fork_then(AfterRun::Return, on_parent, on_child, payload);
    }
}

impl Core {
    /// Does what [`fork`](Core::fork) does, and says what the child does when its last session has ended. That does not
    /// hold for a child of the child.
    #[track_caller]
    pub(crate) fn fork_then(
        &mut self,
        after_run: AfterRun,
        on_parent: impl Into<Name>,
        on_child: impl Into<Name>,
        payload: impl IntoArgs,
    ) {
        let Active { session, event: from } = self.active;
        let (on_parent, on_child, payload) = (on_parent.into(), on_child.into(), payload.into_args());
        let location = Location::caller();
        self.request_fork(session, Then::Events { from, location, on_parent, on_child, payload, after_run });
    }

    /// Asks for a fork on behalf of a session. The request keeps the session alive until then.
    pub(crate) fn fork_for(&mut self, session: SessionId, errand: Box<dyn Errand>) {
        self.request_fork(session, Then::Errand(errand));
    }

    fn request_fork(&mut self, session: SessionId, then: Then) {
        let hold = self.sessions.hold(session);
        self.forks.requests.push_back(Request { session, hold, then });
    }
}

calls! {
    /// What is done around forks.
    for a kernel, with self:

    /// Registers a function that the kernel calls before every fork.
    ///
    /// Use it to flush a writer of your own. Otherwise the child inherits the buffered text, and writes it a second
    /// time. The kernel flushes standard output, standard error and the `log` logger by itself. A child of a
    /// [`Daemon`](crate::Daemon) also does all of this before it exits.
    pub fn flush_before_fork(&mut self, flush: impl FnMut() + 'static) {
        self.forks.flushes.push(Box::new(flush));
    }
}

#[cfg(feature = "fork-hooks")]
calls! {
    /// For tests of forks.
    for a kernel, with self:

    /// Installs a function that the kernel calls at each stage of every fork.
    pub fn set_fork_hook(&mut self, hook: impl FnMut(ForkStage) -> std::io::Result<()> + 'static) {
        self.forks.hook = Some(Box::new(hook));
    }
}

impl Core {
    /// Takes back the requests of a stopping session.
    pub(crate) fn drop_forks_of(&mut self, session: SessionId) -> Vec<Request> {
        if self.sessions.get(session).is_none_or(|record| record.life.holds_for::<holds::Fork>() == 0) {
            return Vec::new();
        }
        let requests = std::mem::take(&mut self.forks.requests);
        let (gone, kept) = requests.into_iter().partition(|request| request.session == session);
        self.forks.requests = kept;
        let gone: VecDeque<Request> = gone;
        gone.into()
    }

    /// Forgets, in the child, what only the parent may act on: signals that the system sent to the parent and that are
    /// already in the queue, and the parent's children, of whose exits this process will never hear.
    fn disown(&mut self) {
        let sent_by_system =
            |event: &Event| event.sender == SessionId::KERNEL && os_signals::catchable(event.name).is_some();
        let signals = self.queue.remove_posted(|event| matches!(event.kind, Kind::Signal(_)) && sent_by_system(event));
        destroy_all(signals);
        self.children.look = false;
        destroy_all(self.drop_all_child_watches());
        self.disown_adopted();
        #[cfg(feature = "control")]
        self.disown_measures();
    }

    #[cfg(feature = "fork-hooks")]
    pub(super) fn at(&mut self, stage: ForkStage) -> std::io::Result<()> {
        self.forks.hook.as_mut().map_or(Ok(()), |hook| hook(stage))
    }
}

/// How many forks one fork point carries out. The other forks wait for the next fork point, so that a session that
/// answers every fork with another can't keep the loop from its sources.
const FORKS_AT_ONCE: usize = 256;

impl Kernel {
    /// Carries out the forks that were asked for.
    pub(crate) fn fork_point(&mut self) {
        for _ in 0..FORKS_AT_ONCE {
            let Some(Request { session, hold, then }) = self.core.forks.requests.pop_front() else { return };
            drop(hold);
            self.carry_out(session, then);
        }
    }

    fn carry_out(&mut self, session: SessionId, then: Then) {
        let (from, location, on_parent, on_child, payload, after_run) = match then {
            Then::Events { from, location, on_parent, on_child, payload, after_run } => {
                (from, location, on_parent, on_child, payload, after_run)
            }
            Then::Errand(errand) => return self.run_errand(errand),
        };
        let side = self.core.make_sure_it_may_fork(session).and_then(|()| self.fork_process());
        let (name, args) = match side {
            Ok(Side::Parent(pid)) => {
                // The child has it now; a socket must not stay open on this side.
                destroy(payload);
                self.core.children.announced = self.core.signals.is_watched("CHLD".into()).then_some(pid.as_raw());
                (on_parent, (Ok::<i32, Error>(pid.as_raw()),).into_args())
            }
            Ok(Side::Child) => {
                self.core.after_run = after_run;
                (on_child, payload)
            }
            Err(error) => {
                // The session gets the error, and knows whether it is worth more than this line.
                log::debug!(target: "lenore::fork", "{error}");
                (on_parent, (Err::<i32, Error>(error),).into_args().chain(payload))
            }
        };
        let kind = Kind::Post;
        discard(self.dispatch_event(&mut Event { dest: session, sender: session, name, from, location, args, kind }));
        self.core.children.announced = None;
    }

    fn run_errand(&mut self, errand: Box<dyn Errand>) {
        if !errand.is_wanted() {
            return destroy(errand);
        }
        match self.fork_process() {
            Ok(Side::Parent(pid)) => errand.in_parent(self, Ok(pid.as_raw())),
            Ok(Side::Child) => errand.in_child(self),
            Err(error) => errand.in_parent(self, Err(error)),
        }
    }

    /// Forks, and makes the child's kernel its own before any signal can reach it.
    fn fork_process(&mut self) -> Result<Side, Error> {
        #[cfg(feature = "testing")]
        self.core.refuse_to_fork_in_test()?;
        self.flush_everything();
        ask_processor_once();
        #[cfg(feature = "fork-hooks")]
        self.core.at(ForkStage::BeforeFork).map_err(|error| Error::os("fork", "", error))?;
        inject::reach(Point::KernelFork)?;
        let mask = block_signals()?;
        let side = fork().map_err(Error::from);
        if let Ok(Side::Child) = side {
            #[cfg(feature = "fork-hooks")]
            let _ = self.core.at(ForkStage::ChildFirst);
            self.renew_descriptors().unwrap_or_else(|error| give_up(&error));
            self.become_child();
            #[cfg(feature = "fork-hooks")]
            let _ = self.core.at(ForkStage::BeforeUnmask);
        }
        restore_signals(mask)?;
        #[cfg(feature = "fork-hooks")]
        if let Ok(Side::Child) = side {
            let _ = self.core.at(ForkStage::BeforeReady);
        }
        side
    }

    /// Tells the kernel that the program has forked by itself and that this is the child; in the parent it does nothing.
    ///
    /// Call it in the child before you do anything else with the kernel. The child keeps the same things as after
    /// [`Context::fork`](crate::Context::fork).
    ///
    /// # Errors
    ///
    /// [`Error::Os`] when the child can't have a poller or a signal pipe of its own. Its kernel is of no use then.
    ///
    /// POE: `has_forked`.
    pub fn has_forked(&mut self) -> Result<(), Error> {
        if self.core.is_here() { Ok(()) } else { self.begin_child() }
    }

    pub(super) fn begin_child_or_exit(&mut self) {
        self.begin_child().unwrap_or_else(|error| give_up(&error));
    }

    /// Replaces everything that a child must not share with its parent.
    fn begin_child(&mut self) -> Result<(), Error> {
        // First of all: from here on nothing can reach the parent's epoll set or read from its signal pipe.
        let mask = block_signals()?;
        let renewed = self.renew_descriptors();
        restore_signals(mask)?;
        renewed?;
        self.become_child();
        Ok(())
    }

    /// Notes that this is another process, and tells the sessions that watch `FORKED`.
    fn become_child(&mut self) {
        self.core.pid = std::process::id();
        self.core.forked += 1;
        self.core.after_run = AfterRun::Return;
        self.core.id.take();
        self.core.forget_what_stays();
        self.core.disown();
        // The payloads of forks that have not happened yet are for other children.
        destroy_all(self.core.forks.requests.drain(..));
        self.leave_background_sessions();
        self.core.clock.advance();
        log::debug!(target: "lenore::fork", "child {} begins", self.core.pid);
        // Before anything else runs in this process: a session that did something only the parent may go on doing ends
        // that now.
        self.visit(SessionId::KERNEL, Name::new("FORKED"), None, ("FORKED",).into_args());
    }

    /// Makes a poller and a signal pipe for the child, even if the parent had no descriptor left when it forked. The child
    /// first closes its copy of the parent's pipe, which makes room for the new poller. The copy of the parent's poller is
    /// closed next, which makes room for the new pipe.
    fn renew_descriptors(&mut self) -> Result<(), Error> {
        self.core.signals.delivery.close();
        self.core.rebuild_sources()?;
        self.core.signals.delivery.renew()?;
        self.core.watch_signal_pipe()
    }

    /// Flushes all buffers, so that the child inherits them empty.
    pub(super) fn flush_everything(&mut self) {
        // The program's own functions first, as they may log. Then the logger, which may write to standard output.
        self.core.forks.flushes.iter_mut().for_each(|flush| shield("the program flushed before a fork", flush));
        log::logger().flush();
        // A closed standard output is no reason not to fork.
        let _ = std::io::stdout().flush();
        let _ = std::io::stderr().flush();
    }
}

/// Ends a child that could not make its own poller. If it shared its parent's poller, it would do harm to the parent.
fn give_up(error: &Error) -> ! {
    log::error!(target: "lenore::fork", "the child gives up: {error}");
    log::logger().flush();
    exit_now(EXIT_NO_KERNEL);
}

/// Blocks all signals; returns which were blocked before.
fn block_signals() -> Result<SigSet, Error> {
    SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).map_err(|errno| Error::os("sigprocmask", "", errno))
}

fn restore_signals(mask: SigSet) -> Result<(), Error> {
    mask.thread_set_mask().map_err(|errno| Error::os("sigprocmask", "", errno))
}

/// Makes the standard library find out what the processor can do, unless it already has. The answer is kept in memory,
/// and so in every child. If each child asked for itself, it would cost a tenth of a fork where a hypervisor answers.
fn ask_processor_once() {
    std::hint::black_box(memchr::memchr(0, std::hint::black_box(&[1; 64])));
}

/// The exit status of a child that could not make itself a poller.
const EXIT_NO_KERNEL: i32 = 71;

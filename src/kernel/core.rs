//! The part of the kernel that dispatches nothing: what a state can do while its heap is borrowed.

use std::cell::OnceCell;
use std::panic::Location;
use std::rc::Rc;

use super::aliases::Aliases;
use super::children::Children;
use super::clock::{Clock, Due, earlier};
use super::exit::AfterRun;
use super::fork::Forks;
use super::options::Exceptions;
use super::queue::{Event, EventQueue, Kind};
use super::sessions::{SessionId, Sessions};
use super::signals::Signals;
use super::sources::Sources;
use crate::args::{Args, IntoArgs};
use crate::calls::calls;
use crate::error::{Died, Error};
use crate::name::Name;

/// Everything a kernel does without running a state: posts, alarms, aliases, signal watchers, references, sources.
///
/// No program gets hold of it. A program that did could swap it with another kernel's, under the states on the stack.
pub(crate) struct Core {
    /// POE's kernel id: changes at every fork, and is made when it is first asked for.
    pub(crate) id: OnceCell<String>,
    pub(crate) pid: u32,
    /// How many forks lie between the first process and this one.
    pub(crate) forked: u32,
    pub(crate) clock: Clock,
    pub(crate) queue: EventQueue,
    pub(crate) sessions: Sessions,
    pub(crate) aliases: Aliases,
    pub(crate) signals: Signals,
    pub(crate) children: Children,
    pub(crate) sources: Sources,
    pub(crate) forks: Forks,
    pub(crate) active: Active,
    /// What `run` is to return: the first exception that no session handled.
    pub(crate) pending_exception: Option<Died>,
    /// The kernel's own pseudo-session exists: `run` goes on while it or any session does.
    pub(crate) is_alive: bool,
    /// How many states are on the stack.
    pub(crate) depth: u32,
    pub(crate) exceptions: Exceptions,
    /// What this process does when its last session has ended.
    pub(crate) after_run: AfterRun,
    /// The events whose alarms do not keep the program from being idle, each with its session.
    pub(super) passing: Vec<(SessionId, Name)>,
    /// A slice was run at least once.
    pub(crate) has_run: bool,
    #[cfg(feature = "control")]
    pub(super) measures: super::measures::Measures,
}

/// The running state.
#[derive(Clone, Copy)]
pub(crate) struct Active {
    pub(crate) session: SessionId,
    /// The event being dispatched; stays the outer one during a self-call.
    pub(crate) event: Option<Name>,
}

impl Active {
    pub(crate) const KERNEL: Active = Active { session: SessionId::KERNEL, event: None };
}

/// Where an event is to go: a session's id, or one of its aliases as a string or a [`Name`].
#[derive(Debug, Clone, Copy)]
pub enum Dest<'a> {
    /// A session by id, or [`SessionId::KERNEL`].
    Id(SessionId),
    /// A session by alias.
    Alias(&'a str),
}

impl From<SessionId> for Dest<'_> {
    fn from(id: SessionId) -> Self {
        Dest::Id(id)
    }
}

impl<'a> From<&'a str> for Dest<'a> {
    fn from(alias: &'a str) -> Self {
        Dest::Alias(alias)
    }
}

impl<'a> From<&'a String> for Dest<'a> {
    fn from(alias: &'a String) -> Self {
        Dest::Alias(alias)
    }
}

impl From<Name> for Dest<'_> {
    fn from(alias: Name) -> Self {
        Dest::Alias(alias.as_str())
    }
}

impl From<&Name> for Dest<'_> {
    fn from(alias: &Name) -> Self {
        Dest::Alias(alias.as_str())
    }
}

calls! {
    /// Posting.
    for a kernel, with self:

    /// Posts `event` with `args` to a session, which handles it after the events that were posted before.
    ///
    /// The session never handles it before the running state has returned. What a state posts while the kernel
    /// dispatches its queue waits for the next slice, so that no session can keep the others from running.
    ///
    /// ```
    /// # use lenore::{Kernel, Session};
    /// # fn main() -> Result<(), lenore::Error> {
    /// # let mut kernel = Kernel::new()?;
    /// let echo = Session::new(())
    ///     .state("_start", |_| ())
    ///     .state("echo", |cx| {
    ///         let word: &str = cx.take(0)?;
    ///         cx.post(cx.sender(), "answer", (word,))?;
    ///         Ok(())
    ///     })
    ///     .spawn(&mut kernel)?;
    /// Session::new(())
    ///     .state("_start", move |cx| cx.post(echo, "echo", ("hello",)).map_err(Into::into))
    ///     .state("answer", |cx| assert_eq!(cx.arg::<&str>(0).unwrap(), &"hello"))
    ///     .spawn(&mut kernel)?;
    /// kernel.run()
    /// # }
    /// ```
    ///
    /// If the session has no state of that name, its `_default` gets the event. If it has no `_default` either, the
    /// event is dropped. An event for the kernel is accepted and ignored.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSession`] when `dest` is not the id or an alias of a living session.
    ///
    /// POE: `post`.
    #[track_caller]
    pub fn post<'a>(
        &mut self,
        dest: impl Into<Dest<'a>>,
        event: impl Into<Name>,
        args: impl IntoArgs,
    ) -> Result<(), Error> {
        let dest = self.resolve(dest)?;
        self.enqueue(dest, event.into(), args.into_args(), Kind::Post, Location::caller());
        Ok(())
    }
}

calls! {
    /// Posting to itself.
    for a running session, with self:

    /// Posts `event` with `args` to the running session.
    ///
    /// POE: `yield`, a reserved word in Rust.
    #[doc(alias = "yield")]
    #[track_caller]
    pub fn yield_(&mut self, event: impl Into<Name>, args: impl IntoArgs) {
        self.enqueue(self.active.session, event.into(), args.into_args(), Kind::Post, Location::caller());
    }
}

calls! {
    /// What the kernel knows of itself.
    to read a kernel, with self:

    /// Returns the session whose state runs, or [`SessionId::KERNEL`].
    ///
    /// It is the kernel outside of any state, and in a state whose session has stopped.
    ///
    /// POE: `get_active_session`, and `$_[SESSION]`.
    #[doc(alias = "get_active_session")]
    #[doc(alias = "SESSION")]
    pub fn session(&self) -> SessionId {
        self.active.session
    }

    /// Returns the name of the event being dispatched, or `None` outside of any state.
    ///
    /// During a self-call it is the name of the outer event.
    ///
    /// POE: `get_active_event`.
    #[doc(alias = "get_active_event")]
    pub fn active_event(&self) -> Option<Name> {
        self.active.event
    }

    /// Returns how many events wait, including alarms and the time limits of wheels.
    ///
    /// The one being dispatched is not counted.
    ///
    /// POE: `get_event_count`.
    #[doc(alias = "get_event_count")]
    pub fn event_count(&self) -> usize {
        self.queue.len() + self.sources.timers()
    }

    /// Returns the time at which the first waiting event is due, or `None` when nothing waits.
    ///
    /// POE: `get_next_event_time`.
    #[doc(alias = "get_next_event_time")]
    pub fn next_event_time(&self) -> Option<std::time::SystemTime> {
        self.next_due().map(|due| self.clock.to_wall(due))
    }

    /// Returns the time as the kernel read it last.
    ///
    /// The kernel reads the clock at the beginning of each slice. Within a slice it reads the clock again when an alarm
    /// is set, and when an event is posted while an alarm is set.
    ///
    /// POE: nothing like it; programs call `time`.
    pub fn now(&self) -> std::time::SystemTime {
        self.clock.to_wall(self.clock.now())
    }

    /// Returns the kernel's id: a text that differs between kernels, and between a process and its forked children.
    ///
    /// POE: `$poe_kernel->ID`.
    #[doc(alias = "ID")]
    pub fn kernel_id(&self) -> &str {
        self.id.get_or_init(super::new_kernel_id)
    }

    /// Returns the id of this process as the kernel knows it.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Tells whether this process was forked from the one that made the kernel.
    pub fn is_child(&self) -> bool {
        self.forked > 0
    }
}

impl Core {
    /// Returns when the next event or the next turn of a source is due.
    #[inline]
    pub(super) fn next_due(&self) -> Option<Due> {
        earlier(self.queue.next_due(), self.sources.next_due())
    }

    /// Returns the session whose state runs.
    pub(crate) fn running(&self) -> Result<SessionId, Error> {
        let Active { session, .. } = self.active;
        if session == SessionId::KERNEL { Err(Error::NoActiveSession) } else { Ok(session) }
    }

    /// Finds the living session behind an id or an alias.
    pub(crate) fn resolve<'a>(&self, dest: impl Into<Dest<'a>>) -> Result<SessionId, Error> {
        match dest.into() {
            Dest::Id(id) if self.sessions.is_alive(id) => Ok(id),
            Dest::Id(id) => Err(Error::NoSuchSession(id.to_string())),
            Dest::Alias(alias) => {
                self.aliases.find(alias).ok_or_else(|| Error::NoSuchSession(format!("alias {alias}")))
            }
        }
    }

    /// Queues an event from the running state; it keeps its destination alive, and its sender too.
    pub(crate) fn enqueue(
        &mut self,
        dest: SessionId,
        name: Name,
        args: Args,
        kind: Kind,
        location: &'static Location<'static>,
    ) {
        self.collect_postings();
        let Active { session: sender, event: from } = self.active;
        self.enqueue_event(Event { dest, sender, name, from, location, args, kind });
    }

    /// Queues an event that the kernel itself sends.
    #[track_caller]
    pub(crate) fn enqueue_from_kernel(&mut self, dest: SessionId, name: Name, args: Args, kind: Kind) {
        let location = Location::caller();
        self.collect_postings();
        self.enqueue_event(Event { dest, sender: SessionId::KERNEL, name, from: None, location, args, kind });
    }

    #[inline]
    fn enqueue_event(&mut self, event: Event) {
        let ends = self.sessions.hold_ends(event.dest, event.sender);
        let now = self.clock.stamp(self.queue.first_alarm());
        self.queue.post(now, event, ends);
    }

    /// Queues an event that was posted at `at`, after all that are in the queue.
    pub(super) fn enqueue_at(&mut self, at: Due, event: Event) {
        let ends = self.sessions.hold_ends(event.dest, event.sender);
        self.queue.post(at, event, ends);
    }

    /// Returns the mailbox through which wheels reach the kernel without borrowing it.
    pub(crate) fn mailbox(&self) -> Rc<super::mailbox::Mailbox> {
        self.sources.mailbox()
    }
}

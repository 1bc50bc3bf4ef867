//! How sessions begin, change parents, and end.

use std::any::Any;
use std::fmt;

use super::Kernel;
use super::alarm_heap::Alarm;
use super::background::Place;
use super::children::ChildWatch;
use super::core::{Active, Dest};
use super::dispatch::Keep;
use super::exit::AfterRun;
use super::fork::Request;
use super::options::Options;
use super::queue::{Event, Kind};
use super::sessions::{Record, SessionId};
use crate::args::Args;
use crate::destroy::{destroy, destroy_all};
use crate::error::Error;
use crate::name::Name;
use crate::reply::Reply;
use crate::states::States;
use crate::sys::disposition::ignore_sigpipe;

/// A session's states and heap, which the kernel itself never looks into.
pub(crate) struct Body {
    pub(crate) id: SessionId,
    pub(crate) states: States,
    pub(crate) heap: Box<dyn Any>,
    pub(crate) options: Options,
    /// How many of its states are on the stack. While there are any, neither the body nor its slot goes away.
    pub(crate) on_stack: u32,
    /// The session stays in another process, which will drop it. This process must not.
    pub(super) is_left: bool,
}

/// What happened to a child: ARG0 of `_child`. ARG1 is the child's [`SessionId`].
///
/// POE: the strings `create`, `gain` and `lose`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChildChange {
    /// The session created the child. ARG2 is the [`Reply`] of the child's `_start`.
    Create,
    /// The session inherits the child from another child, which stops.
    Gain,
    /// The child stopped, and ARG2 is the [`Reply`] of its `_stop`. Or the child was detached, and there is no ARG2.
    Lose,
}

impl fmt::Display for ChildChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            ChildChange::Create => "create",
            ChildChange::Gain => "gain",
            ChildChange::Lose => "lose",
        })
    }
}

impl Kernel {
    /// Creates a session as a child of the active one; see [`Session::spawn`](crate::Session::spawn).
    pub(crate) fn create_session(
        &mut self,
        states: States,
        heap: Box<dyn Any>,
        heap_type: &'static str,
        args: Args,
        options: Options,
        place: Place,
    ) -> Result<SessionId, Error> {
        // A state may have stopped all the others.
        self.core.signals.stay();
        let creator = self.core.active.session;
        let id = self.core.sessions.create(creator, heap_type)?;
        self.core.sessions.put(id, place.max(self.core.sessions.place(creator)));
        self.core.is_alive = true;
        let body = Some(Body { id, states, heap, options, on_stack: 0, is_left: false });
        match self.bodies.get_mut(id.slot()) {
            Some(vacant) => *vacant = body,
            None => self.bodies.push(body),
        }
        log::trace!(target: "lenore::sessions", "{creator} creates {id}");
        let mut start = Event::from_kernel(id, Name::new("_start"), args);
        start.sender = creator;
        let reply = self.dispatch_event(&mut start);
        let Some(record) = self.core.sessions.get_mut(id) else { return Ok(id) };
        record.starting = false;
        let parent = record.parent();
        // Even a session that nothing keeps alive exists until the loop has dispatched this event.
        self.core.enqueue_from_kernel(id, Name::new("_garbage_collect"), Args::new(), Kind::StartUp);
        self.notify(parent, "_child", (ChildChange::Create, id, reply));
        Ok(id)
    }

    /// Stops a session, whatever it still has to do. Its `_stop` comes from `sender`.
    pub(crate) fn stop_session(&mut self, id: SessionId, sender: SessionId) {
        let Some(record) = self.core.sessions.get_mut(id).filter(|record| !record.stopping) else { return };
        record.stopping = true;
        log::trace!(target: "lenore::sessions", "{id} stops");
        self.announce_inheritance(id);
        let reply = self.run_stop_state(id, sender);
        self.notify(self.core.sessions.parent(id), "_child", (ChildChange::Lose, id, reply));
        // Looked up again each time: any of these states may have moved or stopped any session.
        let parent = self.core.sessions.parent(id);
        for child in self.core.sessions.children(id) {
            self.core.sessions.move_to(child, parent);
        }
        self.remove_session(id);
    }

    /// Tells the parent and the children of a stopping session that the children are going to be the parent's.
    fn announce_inheritance(&mut self, id: SessionId) {
        for child in self.core.sessions.children(id) {
            let parent = self.core.sessions.parent(id);
            // A child that is stopping too needs no new parent: its old parent has heard, or is going to hear, of its
            // end.
            let stays = self.core.sessions.get(child).is_some_and(|record| record.parent() == id && !record.stopping);
            if stays {
                self.notify(parent, "_child", (ChildChange::Gain, child));
                self.notify(child, "_parent", (id, parent));
            }
        }
    }

    fn run_stop_state(&mut self, id: SessionId, sender: SessionId) -> Reply {
        let mut stop = Event::from_kernel(id, Name::new("_stop"), Args::new());
        stop.sender = sender;
        self.enter(&mut stop, Keep::Nothing).unwrap_or_else(|exception| {
            // Too late for a signal to the session: the exception ends the kernel after the sweep (K-EX-10).
            let died = stop.died(exception);
            self.core.end_the_run(died);
            Reply::NoValue
        })
    }

    /// Releases everything that a session owns, and takes it out of the tables.
    pub(super) fn remove_session(&mut self, id: SessionId) {
        // Dropped at the end, when the tables are in order again: dropping any of it may run the program's code.
        let waiting = self.core.sessions.is_held(id).then(|| self.core.take_waiting(id));
        self.core.remove_watchers_of(id);
        self.core.remove_sources_of(id);
        self.core.passing.retain(|(session, _)| *session != id);
        let record = self.core.sessions.remove(id);
        if let Some(record) = &record {
            record.aliases.keys().for_each(|alias| self.core.aliases.forget(alias));
            record.signals.keys().for_each(|signal| self.core.signals.unwatch(signal));
        }
        match self.bodies[id.slot()].as_mut() {
            // The states on the stack go on to their end with it, but no event finds it any more.
            Some(body) if body.on_stack > 0 => body.id = SessionId::KERNEL,
            _ => self.free_body(id.slot()),
        }
        if let Some(Waiting { alarms, events, watches, forks }) = waiting {
            destroy_all(alarms);
            destroy_all(events);
            destroy_all(watches);
            destroy_all(forks);
        }
        if let Some(Record { life, mut signals, .. }) = record {
            self.core.sessions.recycle(life);
            destroy_all(signals.take_all());
        }
    }

    /// Drops a session's heap and states, and lets its slot be used again.
    pub(crate) fn free_body(&mut self, slot: usize) {
        let body = self.bodies[slot].take();
        self.core.sessions.free_slot(slot);
        if let Some(Body { heap, states, is_left, .. }) = body {
            if is_left {
                std::mem::forget((heap, states));
                return;
            }
            destroy(heap);
            if self.core.signals.is_leaving() { states.abandon() } else { states.destroy() }
        }
    }

    /// Stops the sessions that nothing keeps alive, the one marked last first.
    #[inline]
    pub(crate) fn sweep(&mut self) {
        if self.core.sessions.ledger.has_marks() || self.core.pending_exception.is_some() {
            self.sweep_marked();
        }
    }

    fn sweep_marked(&mut self) {
        // In a slice that a state runs: that state's own session, and those that called it.
        let mut running = Vec::new();
        // Each round stops a session; a session that stops may create others, but those live until the next slice.
        while let Some(id) = self.core.sessions.next_marked() {
            if self.bodies[id.slot()].as_ref().is_some_and(|body| body.on_stack > 0) {
                // Once: the state may run any number of slices.
                if !running.contains(&id) {
                    running.push(id);
                }
            } else {
                self.stop_session(id, SessionId::KERNEL);
            }
        }
        // The outer slice's sweep is to find them, in the same order.
        running.into_iter().rev().for_each(|id| self.core.sessions.ledger.mark(id));
        self.core.sessions.ledger.sweep_is_over();
        if self.core.pending_exception.is_some() {
            self.stop();
        }
    }

    /// Stops every session at once, children before their parents.
    ///
    /// The kernel itself goes on. Before it stops the sessions it writes what was put into wheels, as far as their
    /// descriptors take it.
    ///
    /// In a child that the program forked by itself, `stop` first does what [`has_forked`](Kernel::has_forked) does.
    /// The child exits if that fails.
    ///
    /// In any forked child, including the function of a [`Run`](crate::wheel::Run), `SIGPIPE` is ignored from now on,
    /// unless it has a handler.
    ///
    /// POE: `stop`.
    pub fn stop(&mut self) {
        if !self.core.is_here() {
            // What the sessions watch is still in the parent's poller, and must stay there.
            self.begin_child_or_exit();
        }
        // The function of a `Run` begins with every signal at its default action. It calls `stop` before it runs an
        // event loop of its own. In that loop a write to a peer that has gone must not kill the process.
        if self.core.is_child()
            && let Err(errno) = ignore_sigpipe()
        {
            log::error!(target: "lenore::signals", "can't ignore SIGPIPE: {errno}");
        }
        // The output of several turns is written together, so the output of earlier turns may still be waiting.
        self.flush_dirty();
        let everybody = self.core.sessions.visiting_order(SessionId::KERNEL);
        self.stop_sessions(&everybody);
        self.core.active = Active::KERNEL;
    }

    /// Stops those of `ids` that still live, one after the other, on behalf of the active session.
    pub(crate) fn stop_sessions(&mut self, ids: &[SessionId]) {
        let sender = self.core.active.session;
        if self.core.after_run == AfterRun::Exit && ids.contains(&SessionId::KERNEL) {
            self.core.signals.leave();
        }
        for id in ids.iter().filter(|id| **id != SessionId::KERNEL) {
            self.stop_session(*id, sender);
        }
        if !self.core.sessions.is_alive(sender) {
            self.core.active = Active::KERNEL;
        }
    }

    pub(crate) fn detach_running(&mut self) -> Result<(), Error> {
        let me = self.core.running()?;
        let parent = self.core.sessions.parent(me);
        if parent == SessionId::KERNEL {
            return Err(Error::AlreadyDetached(me));
        }
        self.detach(me, parent);
        Ok(())
    }

    pub(crate) fn detach_child<'a>(&mut self, child: impl Into<Dest<'a>>) -> Result<(), Error> {
        let (me, child) = (self.core.running()?, self.core.resolve(child)?);
        let parent = self.core.sessions.get(child).map(Record::parent);
        if parent != Some(me) {
            return Err(Error::NotYourChild(child));
        }
        self.detach(child, me);
        Ok(())
    }

    fn detach(&mut self, child: SessionId, parent: SessionId) {
        // A parent that has not been told of the child's creation is not told of its loss (K-SE-31).
        if self.core.sessions.get(child).is_some_and(|record| !record.starting) {
            self.notify(parent, "_child", (ChildChange::Lose, child));
        }
        self.notify(child, "_parent", (parent, SessionId::KERNEL));
        self.core.sessions.move_to(child, SessionId::KERNEL);
    }
}

/// Everything that waits for a session or was sent by it, and so keeps it alive.
struct Waiting {
    alarms: Vec<Alarm>,
    events: Vec<Event>,
    watches: Vec<ChildWatch>,
    forks: Vec<Request>,
}

impl super::core::Core {
    fn take_waiting(&mut self, id: SessionId) -> Waiting {
        Waiting {
            alarms: self.drop_alarms_of(id),
            events: self.drop_posted_of(id),
            watches: self.drop_child_watches_of(id),
            forks: self.drop_forks_of(id),
        }
    }

    /// Removes the posted events to and from a session that is stopping, or that must not repeat its parent's in a child.
    pub(crate) fn drop_posted_of(&mut self, id: SessionId) -> Vec<Event> {
        if !self.sessions.is_held(id) {
            return Vec::new();
        }
        let events = self.queue.remove_posted_of(id);
        for event in &events {
            if let Kind::Signal(signal) = &event.kind {
                signal.log_if_lost();
            }
        }
        events
    }
}

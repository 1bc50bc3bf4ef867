//! `peek`: a snapshot of the kernel, above all of what keeps it from exiting.

use std::os::fd::RawFd;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::background::Place;
use super::core::Core;
use super::holds::Fork;
use super::queue::{Event, Kind};
use super::sessions::{Record, SessionId};
use super::sources::Description;
use crate::calls::calls;
use crate::name::Name;

mod text;

pub(super) use text::{MOST_SHOWN, Names};

/// A snapshot of a kernel at one moment: its queue, its sessions with every reason why each stays alive, and its
/// sources.
///
/// `{}` shows only the queue, `{:#}` everything.
///
/// ```
/// use lenore::{Kernel, Session};
///
/// # fn main() -> Result<(), lenore::Error> {
/// let mut kernel = Kernel::new()?;
/// Session::new(()).state("_start", |cx| cx.alias_set("keeper").map_err(Into::into)).spawn(&mut kernel)?;
/// let text = format!("{:#}", kernel.peek());
/// assert!(text.contains("session 1 (keeper)"), "{text}");
/// assert!(text.contains("stays alive: alias keeper"), "{text}");
/// # Ok(())
/// # }
/// ```
///
/// POE: `Daemon->peek` of POE::Component::Daemon.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Snapshot {
    /// The kernel's id.
    pub kernel_id: String,
    /// The pid of the process.
    pub pid: u32,
    /// Whether this process was forked from the one that made the kernel.
    pub is_child: bool,
    /// The waiting events, in the order in which they will be dispatched.
    pub events: Vec<PeekedEvent>,
    /// The living sessions, in order of creation. Keep this order if you change the list: the text needs it to find
    /// sessions.
    pub sessions: Vec<PeekedSession>,
    /// Everything that the kernel watches.
    pub sources: Vec<PeekedSource>,
}

/// One waiting event of a [`Snapshot`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PeekedEvent {
    /// Its number in the queue.
    pub id: u64,
    /// The time until it is due. Zero if it is due.
    pub due_in: Duration,
    /// Its name. For a signal, the name of the signal.
    pub name: Name,
    /// What it is.
    pub kind: EventKind,
    /// The session that sent it.
    pub source: SessionId,
    /// The session that it is for.
    pub dest: SessionId,
    /// The state from which it was sent. `None` if it was sent outside of any state.
    pub caller_state: Option<Name>,
    /// The statement that sent it.
    pub caller: &'static Location<'static>,
}

/// What an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// A posted event.
    Post,
    /// An alarm or delay.
    Alarm,
    /// A signal.
    Signal,
    /// The kernel's own housekeeping.
    Internal,
}

/// One session of a [`Snapshot`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PeekedSession {
    /// Its id.
    pub id: SessionId,
    /// Its aliases, in the order in which they were set.
    pub aliases: Vec<Name>,
    /// The type of its heap, as [`std::any::type_name`] gives it.
    pub heap: &'static str,
    /// Whether its reasons keep only the session alive, and not the program. That is so for a [background
    /// session](crate::Session::background), and for a service such as a [`Resolver`](crate::component::Resolver).
    pub is_background: bool,
    /// POE's reference count: the number of distinct reasons, counted as POE counts them.
    pub refcount: usize,
    /// Why it stays alive; empty if the next sweep will stop it.
    pub reasons: Vec<Reason>,
    /// Its parent.
    pub parent: SessionId,
    /// Its children.
    pub children: Vec<SessionId>,
    /// The signals it watches, each with the event it gets.
    pub signals: Vec<(Name, Name)>,
}

/// A reason for a session to stay alive.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// This many posted events and signals wait for it.
    EventsTo(u32),
    /// This many events that it sent to other sessions wait.
    EventsFrom(u32),
    /// This many of its alarms and delays are pending.
    Alarms(u32),
    /// It watches this descriptor.
    Handle {
        /// The descriptor; negative while a wheel waits for a file.
        fd: RawFd,
        /// What it is and which events it sends, as in [`PeekedSource::description`].
        what: Arc<str>,
    },
    /// It has this alias.
    Alias(Name),
    /// It has this child.
    Child(SessionId),
    /// It has this many extra references under this tag.
    ExtraReference(Name, u32),
    /// It waits for this child process.
    ChildProcess(i32),
    /// This many forks that it asked for have not happened yet.
    Forks(u32),
}

/// One source of a [`Snapshot`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PeekedSource {
    /// The session that owns it. The kernel owns the descriptors that sessions watch, because several sessions may
    /// watch one.
    pub owner: SessionId,
    /// The descriptor.
    pub fd: RawFd,
    /// Whether the poller watches it at present. It does not watch a paused source.
    pub is_watched: bool,
    /// What it is and which events it sends.
    pub description: Arc<str>,
}

calls! {
    /// A look at everything.
    to read a kernel, with self:

    /// Takes a snapshot of the kernel.
    ///
    /// That takes time in proportion to the size of the snapshot.
    ///
    /// POE: `Daemon->peek` of POE::Component::Daemon.
    pub fn peek(&self) -> Snapshot {
        let entries = self.queue.entries();
        let event = |(due, id, event): (i64, u64, &Event)| PeekedEvent {
            id,
            due_in: Duration::from_nanos(due.saturating_sub(self.clock.now()).max(0) as u64),
            name: event.name,
            kind: match event.kind {
                Kind::Post => EventKind::Post,
                Kind::Alarm => EventKind::Alarm,
                Kind::Signal(_) => EventKind::Signal,
                Kind::StartUp => EventKind::Internal,
            },
            source: event.sender,
            dest: event.dest,
            caller_state: event.from,
            caller: event.location,
        };
        let mut sources = Vec::new();
        let mut census = Census::new(self, entries.iter().map(|(.., event)| *event));
        for Description { owner, fd, is_watched, keeps_owner, text } in self.sources.describe() {
            let description: Arc<str> = text.into();
            // A descriptor that the kernel watches keeps alive the sessions for which it does.
            if keeps_owner || owner == SessionId::KERNEL {
                census.add(owner, fd, &description);
            }
            sources.push(PeekedSource { owner, fd, is_watched, description });
        }
        let sessions = self.sessions.records().into_iter().map(|record| census.session(record)).collect();
        Snapshot {
            kernel_id: self.kernel_id().to_owned(),
            pid: self.pid,
            is_child: self.is_child(),
            events: entries.into_iter().map(event).collect(),
            sessions,
            sources,
        }
    }
}

/// How many events of one session wait.
#[derive(Clone, Copy, Default)]
struct Waiting {
    to: u32,
    alarms: u32,
    from: u32,
}

/// Counts for all sessions, made in one pass. A pass for each session would take quadratic time.
struct Census<'a> {
    core: &'a Core,
    /// The events that wait, by slot of the session.
    waiting: Vec<Waiting>,
    /// The sources that keep their owners.
    by_owner: FxHashMap<SessionId, Vec<(RawFd, Arc<str>)>>,
    /// The descriptors that the kernel watches for its sessions.
    by_fd: FxHashMap<RawFd, Arc<str>>,
}

impl<'a> Census<'a> {
    fn new(core: &'a Core, events: impl Iterator<Item = &'a Event>) -> Census<'a> {
        let mut waiting = vec![Waiting::default(); core.sessions.slots()];
        for event in events {
            // A session that has stopped is not held, and its slot may belong to another session.
            if core.sessions.is_alive(event.dest) {
                let Waiting { to, alarms, .. } = &mut waiting[event.dest.slot()];
                *if matches!(event.kind, Kind::Alarm) { alarms } else { to } += 1;
            }
            if event.sender != event.dest && core.sessions.is_alive(event.sender) {
                waiting[event.sender.slot()].from += 1;
            }
        }
        Census { core, waiting, by_owner: FxHashMap::default(), by_fd: FxHashMap::default() }
    }

    fn add(&mut self, owner: SessionId, fd: RawFd, what: &Arc<str>) {
        if owner == SessionId::KERNEL {
            self.by_fd.insert(fd, Arc::clone(what));
        } else {
            self.by_owner.entry(owner).or_default().push((fd, Arc::clone(what)));
        }
    }

    fn session(&self, record: &Record) -> PeekedSession {
        let reasons = self.reasons(record);
        debug_assert_eq!(counted(record, &reasons), record.life.holds(), "{}: {reasons:?}", record.id);
        PeekedSession {
            id: record.id,
            aliases: record.aliases.keys().collect(),
            heap: record.heap,
            is_background: record.place != Place::Foreground,
            refcount: units(&reasons),
            reasons,
            parent: record.parent(),
            children: self.core.sessions.children(record.id),
            signals: record.signals.iter().map(|(signal, interest)| (signal, interest.watch.event)).collect(),
        }
    }

    fn reasons(&self, record: &Record) -> Vec<Reason> {
        let id = record.id;
        let Waiting { to, alarms, from } = self.waiting[id.slot()];
        let counts = [
            (to, Reason::EventsTo as fn(u32) -> Reason),
            (from, Reason::EventsFrom),
            (alarms, Reason::Alarms),
            (record.life.holds_for::<Fork>(), Reason::Forks),
        ];
        let counts = counts.into_iter().filter(|(count, _)| *count > 0);
        let mut reasons: Vec<Reason> = counts.map(|(count, reason)| reason(count)).collect();
        let own = self.by_owner.get(&id).into_iter().flatten().map(|(fd, what)| (*fd, what));
        let watched = self.core.watched_by(id).into_iter().filter_map(|fd| Some((fd, self.by_fd.get(&fd)?)));
        reasons.extend(own.chain(watched).map(|(fd, what)| Reason::Handle { fd, what: Arc::clone(what) }));
        reasons.extend(record.aliases.keys().map(Reason::Alias));
        reasons.extend(self.core.sessions.children(id).into_iter().map(Reason::Child));
        reasons.extend(record.referenced().map(|tag| Reason::ExtraReference(tag, record.references(tag))));
        reasons.extend(self.core.children.awaited_by(id).map(Reason::ChildProcess));
        reasons
    }
}

/// Counts the holds behind the reasons of a session: there is no other hold on it.
fn counted(record: &Record, reasons: &[Reason]) -> usize {
    let holds = |reason: &Reason| match reason {
        Reason::EventsTo(count) | Reason::EventsFrom(count) | Reason::Alarms(count) | Reason::Forks(count) => *count,
        // The program's own references under one tag share a hold.
        Reason::ExtraReference(tag, count) => {
            let own = record.tags.get(*tag).map_or(0, |references| references.count);
            count - own + u32::from(own > 0)
        }
        Reason::Handle { .. } | Reason::Alias(_) | Reason::Child(_) | Reason::ChildProcess(_) => 1,
    };
    reasons.iter().map(holds).sum::<u32>() as usize
}

/// Counts reasons as POE does: all events to a session, posted or timed, are one.
fn units(reasons: &[Reason]) -> usize {
    let timed = reasons.iter().any(|reason| matches!(reason, Reason::Alarms(_)));
    let posted = reasons.iter().any(|reason| matches!(reason, Reason::EventsTo(_)));
    reasons.len() - usize::from(timed && posted)
}

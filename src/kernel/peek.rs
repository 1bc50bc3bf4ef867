//! `peek`: a picture of the kernel, above all of why it does not exit.

use std::fmt;
use std::os::fd::RawFd;
use std::panic::Location;
use std::time::Duration;

use super::core::Core;
use super::queue::Kind;
use super::sessions::{Record, SessionId};
use crate::name::Name;

/// A picture of a kernel at one moment: its queue, its sessions with every reason each stays alive, its sources.
///
/// `{}` shows the queue alone, `{:#}` everything.
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
pub struct Snapshot {
    /// The kernel's id.
    pub kernel_id: String,
    /// The process.
    pub pid: u32,
    /// Whether this process was forked from the one that made the kernel.
    pub is_child: bool,
    /// What waits, in the order in which it will be dispatched.
    pub events: Vec<PeekedEvent>,
    /// The living sessions, in order of creation.
    pub sessions: Vec<PeekedSession>,
    /// Everything that is watched.
    pub sources: Vec<PeekedSource>,
}

/// One waiting event of a [`Snapshot`].
#[derive(Debug, Clone)]
pub struct PeekedEvent {
    /// Its number in the queue.
    pub id: u64,
    /// How long until it is due; zero if it is.
    pub due_in: Duration,
    /// Its name; the signal's, for a signal.
    pub name: Name,
    /// What it is.
    pub kind: EventKind,
    /// Who sent it.
    pub source: SessionId,
    /// Whom it is for.
    pub dest: SessionId,
    /// The state from which it was sent.
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
pub struct PeekedSession {
    /// Its id.
    pub id: SessionId,
    /// Its aliases, in the order in which they were set.
    pub aliases: Vec<Name>,
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
    /// So many posted events and signals wait for it.
    EventsTo(u32),
    /// So many events that it sent to others wait.
    EventsFrom(u32),
    /// So many of its alarms and delays are pending.
    Alarms(u32),
    /// It watches this descriptor.
    Handle(RawFd),
    /// It has this alias.
    Alias(Name),
    /// It has this child.
    Child(SessionId),
    /// Somebody holds so many extra references under this tag.
    ExtraReference(Name, u32),
    /// It waits for this child process.
    ChildProcess(i32),
    /// So many forks that it asked for have not happened yet.
    Forks(u32),
}

/// One source of a [`Snapshot`].
#[derive(Debug, Clone)]
pub struct PeekedSource {
    /// Whose it is; the kernel's, for a descriptor that several sessions may watch.
    pub owner: SessionId,
    /// The descriptor.
    pub fd: RawFd,
    /// Whether the poller watches it at present; a paused one it does not.
    pub is_watched: bool,
    /// What it is and which events it sends.
    pub description: String,
}

impl Core {
    /// Takes a picture of the kernel.
    ///
    /// POE: `Daemon->peek` of POE::Component::Daemon.
    pub fn peek(&self) -> Snapshot {
        let event = |(due, id, event): (i64, u64, &super::queue::Event)| PeekedEvent {
            id,
            due_in: Duration::from_nanos(due.saturating_sub(self.clock.now()).max(0) as u64),
            name: event.name,
            kind: match event.kind {
                Kind::Post => EventKind::Post,
                Kind::Alarm => EventKind::Alarm,
                Kind::Signal(_) => EventKind::Signal,
                Kind::StartUp | Kind::Retry(_) => EventKind::Internal,
            },
            source: event.sender,
            dest: event.dest,
            caller_state: event.from,
            caller: event.location,
        };
        let sources = self.sources.describe().into_iter();
        Snapshot {
            kernel_id: self.id.clone(),
            pid: self.pid,
            is_child: self.is_child(),
            events: self.queue.entries().into_iter().map(event).collect(),
            sessions: self.sessions.ids().into_iter().filter_map(|id| self.peek_session(id)).collect(),
            sources: sources
                .map(|(owner, fd, registered, description)| PeekedSource {
                    owner,
                    fd,
                    is_watched: registered.is_some(),
                    description,
                })
                .collect(),
        }
    }

    fn peek_session(&self, id: SessionId) -> Option<PeekedSession> {
        let record = self.sessions.get(id)?;
        let reasons = self.reasons(record);
        Some(PeekedSession {
            id,
            aliases: record.aliases.clone(),
            refcount: units(&reasons),
            reasons,
            parent: record.parent,
            children: self.sessions.children(id),
            signals: record.signals.iter().map(|watch| (watch.signal, watch.event)).collect(),
        })
    }

    fn reasons(&self, record: &Record) -> Vec<Reason> {
        let id = record.id;
        let mut reasons = Vec::new();
        let alarms =
            self.queue.entries().iter().filter(|(_, _, e)| e.dest == id && matches!(e.kind, Kind::Alarm)).count();
        let posted = record.pending_to - alarms as u32;
        let mut count = |number: u32, reason: fn(u32) -> Reason| {
            if number > 0 {
                reasons.push(reason(number));
            }
        };
        count(posted, Reason::EventsTo);
        count(record.pending_from, Reason::EventsFrom);
        count(alarms as u32, Reason::Alarms);
        count(record.forks, Reason::Forks);
        reasons.extend(self.sources.fds_that_keep(id).into_iter().chain(self.watched_by(id)).map(Reason::Handle));
        reasons.extend(record.aliases.iter().copied().map(Reason::Alias));
        reasons.extend(self.sessions.children(id).into_iter().map(Reason::Child));
        reasons.extend(record.tags.iter().map(|(tag, count)| Reason::ExtraReference(*tag, *count)));
        let pids = self.children.watches().iter().filter(|watch| watch.session == id).map(|watch| watch.pid);
        reasons.extend(pids.map(Reason::ChildProcess));
        reasons
    }
}

/// Counts reasons as POE does: all events to a session, posted or timed, are one.
fn units(reasons: &[Reason]) -> usize {
    let timed = reasons.iter().any(|reason| matches!(reason, Reason::Alarms(_)));
    let posted = reasons.iter().any(|reason| matches!(reason, Reason::EventsTo(_)));
    reasons.len() - usize::from(timed && posted)
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::EventsTo(1) => write!(f, "1 event to it"),
            Reason::EventsTo(count) => write!(f, "{count} events to it"),
            Reason::EventsFrom(1) => write!(f, "1 event from it"),
            Reason::EventsFrom(count) => write!(f, "{count} events from it"),
            Reason::Alarms(1) => write!(f, "1 alarm"),
            Reason::Alarms(count) => write!(f, "{count} alarms"),
            // A wheel that waits for a file.
            Reason::Handle(..0) => f.write_str("no descriptor yet"),
            Reason::Handle(fd) => write!(f, "descriptor {fd}"),
            Reason::Alias(alias) => write!(f, "alias {alias}"),
            Reason::Child(id) => write!(f, "child {id}"),
            Reason::ExtraReference(tag, count) => write!(f, "extra reference {tag} ({count})"),
            Reason::ChildProcess(pid) => write!(f, "child process {pid}"),
            Reason::Forks(count) => write!(f, "{count} forks to come"),
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            EventKind::Post => "post",
            EventKind::Alarm => "alarm",
            EventKind::Signal => "signal",
            EventKind::Internal => "internal",
        })
    }
}

impl Snapshot {
    /// Writes `session 3 (Daemon)`: the id, and its aliases if it has any.
    fn session(&self, id: SessionId) -> String {
        let aliases = self.sessions.iter().find(|session| session.id == id).map(|session| &session.aliases[..]);
        match aliases {
            Some(aliases) if !aliases.is_empty() => {
                let names: Vec<&str> = aliases.iter().map(|alias| alias.as_str()).collect();
                format!("{id} ({})", names.join(", "))
            }
            _ => id.to_string(),
        }
    }

    fn write_events(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "event queue: {} waiting", self.events.len())?;
        for event in &self.events {
            writeln!(f, "  event {}, due in {:.3} s: {}", event.id, event.due_in.as_secs_f64(), event.name)?;
            if f.alternate() {
                let (source, dest) = (self.session(event.source), self.session(event.dest));
                write!(f, "    {} from {source} to {dest}, ", event.kind)?;
                match event.caller_state {
                    Some(state) => writeln!(f, "sent by state {state} at {}", event.caller)?,
                    None => writeln!(f, "sent at {}", event.caller)?,
                }
            }
        }
        Ok(())
    }

    fn write_sessions(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "sessions: {}", self.sessions.len())?;
        for session in &self.sessions {
            writeln!(f, "  {}, refcount {}", self.session(session.id), session.refcount)?;
            for reason in &session.reasons {
                match reason {
                    Reason::Child(id) => writeln!(f, "    stays alive: child {}", self.session(*id))?,
                    reason => writeln!(f, "    stays alive: {reason}")?,
                }
            }
            if session.reasons.is_empty() {
                writeln!(f, "    nothing keeps it alive")?;
            }
            writeln!(f, "    parent: {}", self.session(session.parent))?;
            if !session.signals.is_empty() {
                let watches: Vec<String> =
                    session.signals.iter().map(|(signal, event)| format!("{signal} -> {event}")).collect();
                writeln!(f, "    signals watched: {}", watches.join(", "))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = if self.is_child { "child" } else { "parent" };
        writeln!(f, "kernel {}, process {} ({role})", self.kernel_id, self.pid)?;
        self.write_events(f)?;
        if !f.alternate() {
            return Ok(());
        }
        self.write_sessions(f)?;
        writeln!(f, "sources: {}", self.sources.len())?;
        for source in &self.sources {
            let watched = if source.is_watched { "watched" } else { "not watched" };
            let (owner, description) = (self.session(source.owner), &source.description);
            match source.fd {
                // A file that is waited for has none.
                ..0 => write!(f, "  no descriptor")?,
                fd => write!(f, "  descriptor {fd}")?,
            }
            writeln!(f, " of {owner}, {watched}: {description}")?;
        }
        Ok(())
    }
}

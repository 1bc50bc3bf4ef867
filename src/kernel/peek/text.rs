//! The text of a snapshot, written straight from what the snapshot has.

use std::fmt;

use super::{EventKind, PeekedSession, Reason, Snapshot};
use crate::kernel::SessionId;
use crate::kernel::postback::ANON_EVENT;
use crate::name::Name;

/// How many aliases of a session, or watchers of a descriptor, are shown wherever it is mentioned.
pub(in crate::kernel) const MOST_SHOWN: usize = 8;

/// Aliases of one session as they are shown: some of them, and how many more there are.
pub(in crate::kernel) struct Names<I>(pub(in crate::kernel) I);

impl<I: Iterator<Item = Name> + Clone> fmt::Display for Names<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = self.0.clone();
        for (place, name) in names.by_ref().take(MOST_SHOWN).enumerate() {
            write!(f, "{}{name}", if place == 0 { "" } else { ", " })?;
        }
        match names.count() {
            0 => Ok(()),
            more => write!(f, ", and {more} more"),
        }
    }
}

/// A session as it is shown: `session 3 (Daemon)` by its aliases, `session 1 (Echo)` by the type of its heap if it has none.
struct Label<'a>(SessionId, Option<&'a PeekedSession>);

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Label(id, session) = self;
        match session {
            Some(session) if !session.aliases.is_empty() => {
                write!(f, "{id} ({})", Names(session.aliases.iter().copied()))
            }
            Some(session) if session.heap != "()" => write!(f, "{id} ({})", ShortType(session.heap)),
            _ => write!(f, "{id}"),
        }
    }
}

impl PeekedSession {
    /// Shows it by its aliases, or by the type of its heap if it has none.
    pub(crate) fn label(&self) -> impl fmt::Display {
        Label(self.id, Some(self))
    }
}

/// The name of a type without the paths in it: `Option<Run>` for `core::option::Option<lenore::wheel::Run>`.
struct ShortType(&'static str);

impl fmt::Display for ShortType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        let mut rest = self.0;
        while !rest.is_empty() {
            let path = &rest[..rest.find(|c| !is_path(c)).unwrap_or(rest.len())];
            f.write_str(path.rsplit("::").next().unwrap_or(path))?;
            rest = &rest[path.len()..];
            let between = &rest[..rest.find(is_path).unwrap_or(rest.len())];
            f.write_str(between)?;
            rest = &rest[between.len()..];
        }
        Ok(())
    }
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
            Reason::Handle { fd: ..0, what } => write!(f, "no descriptor yet ({what})"),
            Reason::Handle { fd, what } => write!(f, "descriptor {fd} ({what})"),
            Reason::Alias(alias) => write!(f, "alias {alias}"),
            Reason::Child(id) => write!(f, "child {id}"),
            // The session itself may keep one of them, which a reader does not expect.
            Reason::ExtraReference(tag, count) if *tag == ANON_EVENT => {
                write!(f, "extra reference {tag} (postbacks and callbacks that are not dropped: {count})")
            }
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
    fn label(&self, id: SessionId) -> Label<'_> {
        if id == SessionId::KERNEL {
            return Label(id, None);
        }
        let place = self.sessions.binary_search_by_key(&id, |session| session.id);
        Label(id, place.ok().map(|place| &self.sessions[place]))
    }

    fn write_events(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "event queue: {} waiting", self.events.len())?;
        for event in &self.events {
            writeln!(f, "  event {}, due in {:.3} s: {}", event.id, event.due_in.as_secs_f64(), event.name)?;
            if f.alternate() {
                let (source, dest) = (self.label(event.source), self.label(event.dest));
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
            let background = if session.is_background { ", in the background" } else { "" };
            writeln!(f, "  {}, refcount {}{background}", Label(session.id, Some(session)), session.refcount)?;
            for reason in &session.reasons {
                match reason {
                    Reason::Child(id) => writeln!(f, "    stays alive: child {}", self.label(*id))?,
                    reason => writeln!(f, "    stays alive: {reason}")?,
                }
            }
            if session.reasons.is_empty() {
                writeln!(f, "    nothing keeps it alive")?;
            }
            writeln!(f, "    parent: {}", self.label(session.parent))?;
            for (place, (signal, event)) in session.signals.iter().enumerate() {
                write!(f, "{}{signal} -> {event}", if place == 0 { "    signals watched: " } else { ", " })?;
            }
            if !session.signals.is_empty() {
                writeln!(f)?;
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
            let (owner, description) = (self.label(source.owner), &source.description);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_shown_without_its_paths() {
        for (full, short) in [
            ("u32", "u32"),
            ("echo::Echo", "Echo"),
            ("core::option::Option<lenore::wheel::run::Run>", "Option<Run>"),
            ("(alloc::string::String, &[a::b::C; 3])", "(String, &[C; 3])"),
            ("main::{{closure}}", "{{closure}}"),
            ("", ""),
        ] {
            assert_eq!(ShortType(full).to_string(), short);
        }
    }
}

//! Background sessions: they stay in the process that made them, and keep nothing running.
//!
//! This module has the first half: what becomes of a background session in a forked child. For the second half, `holds`
//! does not count the holds on a background session as awaited, and counts the events that wait for it.

use std::mem::forget;

use super::Kernel;
use super::alarm_heap::Alarm;
use super::core::{Active, Core};
use super::queue::Event;
use super::sessions::SessionId;
use crate::error::Error;

/// What part a session takes in the life of the program. A session that another one creates has the greater of their two places.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// The program goes on while it waits for something.
    #[default]
    Foreground,
    /// It keeps nothing running, and is in each forked child, where other sessions use it.
    Service,
    /// It keeps nothing running, and stays in the process that made it.
    Background,
}

impl Kernel {
    /// Takes the background sessions out of a child that was just forked. They have not stopped: they go on in the parent. So none
    /// of their states runs in the child, and no session is told.
    pub(super) fn leave_background_sessions(&mut self) {
        if !self.core.sessions.has_background() {
            return;
        }
        // Children before their parents. All children of these are background sessions.
        for id in self.core.sessions.visiting_order(SessionId::KERNEL) {
            if self.core.sessions.place(id) == Place::Background {
                self.leave_session(id);
            }
        }
        // The program may have forked by itself in a state of one of them.
        if !self.core.sessions.is_alive(self.core.active.session) {
            self.core.active = Active::KERNEL;
        }
    }

    /// Takes out a session that goes on in the parent.
    ///
    /// What it owns is leaked, see [`forget_what_stays`](Core::forget_what_stays). Events that other sessions have sent
    /// to it are dropped, because those sessions may rely on the destructors of the arguments.
    fn leave_session(&mut self, id: SessionId) {
        log::debug!(target: "lenore::fork", "{} stays in the parent", self.core.describe_session(id));
        if let Some(body) = self.bodies[id.slot()].as_mut() {
            body.is_left = true;
        }
        self.remove_session(id);
    }
}

impl Core {
    /// Leaks, in a child that was just forked, what background sessions own and the kernel keeps for them: the
    /// arguments of their alarms and of the events that they have posted, and the arguments bound to what they watch.
    ///
    /// A destructor may do more than free memory: it may remove a file, or log out of a database through a socket that
    /// the child shares with the parent. To be called before anything else in the child drops what it does not need.
    pub(super) fn forget_what_stays(&mut self) {
        if !self.sessions.has_background() {
            return;
        }
        for id in self.sessions.visiting_order(SessionId::KERNEL) {
            if self.sessions.place(id) == Place::Background {
                self.forget_what_is_of(id);
            }
        }
    }

    fn forget_what_is_of(&mut self, id: SessionId) {
        for Alarm { event, .. } in self.drop_alarms_of(id) {
            forget(event.args);
        }
        for event in self.queue.remove_posted(|event| event.sender == id) {
            let Event { args, kind, .. } = event;
            forget((args, kind));
        }
        for watch in self.drop_child_watches_of(id) {
            watch.forget_extra();
        }
        self.forget_extras_of_watchers(id);
        // A clone that is never dropped keeps what the clones share.
        let signals = self.sessions.get(id).into_iter().flat_map(|record| record.signals.iter());
        signals.for_each(|(_, interest)| forget(interest.watch.clone()));
    }

    /// Refuses to fork for a session that the child would not have.
    pub(crate) fn make_sure_it_may_fork(&self, session: SessionId) -> Result<(), Error> {
        if self.sessions.place(session) == Place::Background { Err(Error::InBackground(session)) } else { Ok(()) }
    }
}

//! Idle children that do not accept although clients wait.

use super::{Effect, Machine, Message, Moment, Process, Signal, Status, Told};

impl Machine {
    /// Clients wait, and children say that they do: those that are stopped are spares no longer, and the others are woken.
    /// Returns whether one is stopped.
    pub(super) fn wake_deaf(&mut self, at: &mut Moment<'_>, waiting: u32) -> bool {
        let is_full = self.table.children().len() >= self.settings.max_children as usize;
        let mut found = false;
        for child in self.table.children_mut() {
            let says_idle =
                child.told == Told::Stay && !child.is_stopped && at.outside.status(child.key) == Some(Status::Wait);
            if !says_idle || at.outside.process(child.key) != Process::Stopped {
                continue;
            }
            found = true;
            self.effects.push(Effect::Say(Message::Deaf { key: child.key, waiting, is_continued: is_full }));
            if is_full {
                self.effects.push(Effect::Signal(child.key, Signal::Cont));
            } else {
                child.is_stopped = true;
            }
        }
        // The system may have told the stopped child of the client, and no other.
        self.wake_idle(at);
        found
    }
}

//! Times at which sources get a turn without readiness.

use std::collections::BTreeSet;

use super::Sources;
use crate::kernel::clock::Due;
use crate::kernel::source::{Readiness, SourceKey};

/// The sources that wait for a time: one time each.
#[derive(Default)]
pub(super) struct Timers(BTreeSet<(Due, SourceKey)>);

impl Timers {
    pub(super) fn remove(&mut self, due: Option<Due>, key: SourceKey) {
        due.inspect(|due| _ = self.0.remove(&(*due, key)));
    }

    fn take_due(&mut self, now: Due) -> Option<SourceKey> {
        self.0.first().filter(|(due, _)| *due <= now)?;
        self.0.pop_first().map(|(_, key)| key)
    }
}

impl Sources {
    /// Gives a source a turn at `due`, unless it is closed before. This replaces a time that was set before.
    pub(super) fn set_timer(&mut self, key: SourceKey, due: Due) {
        let Some(entry) = self.entry_mut(key) else { return };
        let former = entry.due.replace(due);
        if former != Some(due) {
            self.timers.remove(former, key);
            self.timers.0.insert((due, key));
        }
    }

    /// Returns how many sources wait for a time.
    pub(in crate::kernel) fn timers(&self) -> usize {
        self.timers.0.len()
    }

    /// Returns when the first source waits for its turn.
    pub(in crate::kernel) fn next_due(&self) -> Option<Due> {
        self.timers.0.first().map(|(due, _)| *due)
    }

    /// Gives a turn to the sources whose time has come.
    pub(super) fn fire_timers(&mut self, now: Due) {
        while let Some(key) = self.timers.take_due(now) {
            self.entry_mut(key).into_iter().for_each(|entry| entry.due = None);
            self.requeue(key, Readiness::Read);
        }
    }
}

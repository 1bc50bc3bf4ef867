//! Carrying out what wheels have left word of.

use super::Sources;
use crate::kernel::core::Core;
use crate::kernel::mailbox::{Touch, Touches};
use crate::kernel::source::{Mode, SourceKey};

impl Core {
    /// Closes the sources whose wheels were dropped, before the next event is dispatched.
    #[inline]
    pub(crate) fn close_dropped(&mut self) {
        if self.sources.mailbox.has_drops() {
            self.collect_touched();
        }
    }

    /// Closes what was dropped, and puts the rest of what wheels have asked for on the kernel's own lists. Each touch is looked
    /// at once.
    pub(in crate::kernel) fn collect_touched(&mut self) {
        // Closing one may drop others.
        while self.sources.mailbox.has_touched() {
            let list = self.sources.mailbox.take_touched();
            for key in &list {
                let touches = self.sources.mailbox.take_touches(*key);
                if !touches.is_flush_alone() {
                    self.collect_rest(*key, touches);
                }
                if touches.has(Touch::Flush) {
                    self.sources.add_unflushed(*key);
                }
            }
            self.sources.mailbox.give_back(list);
        }
    }

    #[cold]
    fn collect_rest(&mut self, key: SourceKey, touches: Touches) {
        if touches.has(Touch::Drop) {
            return self.remove_source(key);
        }
        if touches.has(Touch::Wake) {
            self.sources.requeue(key, Mode::Read);
        }
        if touches.has(Touch::Change) {
            self.review_source(key);
            // What others want to know of a paused listener may have changed. And the poller knows nothing of a regular
            // file: looking at its registration is what gives it a turn.
            self.sources.stale.push(key);
        }
    }
}

impl Sources {
    /// Tells whether a wheel has left word, or something that was put is not flushed.
    #[inline]
    pub(in crate::kernel) fn has_wheel_work(&self) -> bool {
        self.mailbox.has_touched() || self.has_unflushed()
    }

    #[inline]
    pub(in crate::kernel) fn has_unflushed(&self) -> bool {
        !self.unflushed.is_empty()
    }

    fn add_unflushed(&mut self, key: SourceKey) {
        let Some(entry) = self.entry_mut(key) else { return };
        if !std::mem::replace(&mut entry.is_unflushed, true) {
            self.unflushed.push_back(key);
        }
    }

    /// Takes the next source that is to be flushed; one that was closed is passed over.
    pub(super) fn next_unflushed(&mut self) -> Option<SourceKey> {
        loop {
            let key = self.unflushed.pop_front()?;
            if let Some(entry) = self.entry_mut(key) {
                entry.is_unflushed = false;
                return Some(key);
            }
        }
    }
}

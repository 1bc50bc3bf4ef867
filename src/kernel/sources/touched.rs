//! Carrying out what wheels have asked for in the mailbox.

use super::Sources;
use crate::kernel::core::Core;
use crate::kernel::mailbox::{Touch, Touches};
use crate::kernel::source::{Readiness, SourceKey};

impl Core {
    /// Closes the sources whose wheels were dropped, before the next event is dispatched.
    #[inline]
    pub(crate) fn close_dropped(&mut self) {
        if self.sources.mailbox.has_drops() {
            self.collect_touched();
        }
    }

    /// Closes the sources whose wheels were dropped, and puts the other requests of wheels on the kernel's own lists.
    pub(in crate::kernel) fn collect_touched(&mut self) {
        // Closing one source may drop other wheels.
        while let Some(key) = self.next_touched() {
            self.sources.add_unflushed(key);
        }
    }

    /// Takes the next source that is to be flushed. Carries out what else was asked for it and for the sources before
    /// it.
    #[inline]
    pub(super) fn next_to_flush(&mut self) -> Option<SourceKey> {
        if self.sources.has_unflushed()
            && let Some(key) = self.sources.next_unflushed()
        {
            return Some(key);
        }
        self.next_touched()
    }

    /// Does what was asked for the sources that were touched first, up to one that is to be flushed.
    #[inline]
    fn next_touched(&mut self) -> Option<SourceKey> {
        loop {
            let (key, touches) = self.sources.mailbox.take_first()?;
            if !touches.is_flush_alone() {
                self.collect_rest(key, touches);
            }
            if touches.has(Touch::Flush) {
                return Some(key);
            }
        }
    }

    #[cold]
    fn collect_rest(&mut self, key: SourceKey, touches: Touches) {
        if touches.has(Touch::Drop) {
            return self.remove_source(key);
        }
        if touches.has(Touch::Wake) {
            self.sources.requeue(key, Readiness::Read);
        }
        if touches.has(Touch::Change) {
            self.review_source(key);
            // Sessions may have asked about a paused listener. And the poller knows nothing of a regular file: the
            // review of its registration gives it a turn.
            self.sources.stale.push(key);
        }
    }
}

impl Sources {
    /// Tells whether a wheel has asked for something, or something that was put is not flushed.
    #[inline]
    pub(in crate::kernel) fn has_wheel_work(&self) -> bool {
        self.mailbox.has_touched() || self.has_unflushed()
    }

    #[inline]
    pub(in crate::kernel) fn has_unflushed(&self) -> bool {
        !self.unflushed.is_empty()
    }

    /// Returns at most how many sources are to be flushed.
    pub(super) fn flushes(&self) -> usize {
        self.unflushed.len() + self.mailbox.touched()
    }

    fn add_unflushed(&mut self, key: SourceKey) {
        let Some(entry) = self.entry_mut(key) else { return };
        if !std::mem::replace(&mut entry.is_unflushed, true) {
            self.unflushed.push_back(key);
        }
    }

    /// Takes the next source from the kernel's list. Closed sources are passed over.
    #[cold]
    fn next_unflushed(&mut self) -> Option<SourceKey> {
        loop {
            let key = self.unflushed.pop_front()?;
            if let Some(entry) = self.entry_mut(key) {
                entry.is_unflushed = false;
                return Some(key);
            }
        }
    }
}

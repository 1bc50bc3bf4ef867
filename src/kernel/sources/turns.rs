//! The I/O step: who gets a turn, and when what was put is written.

use std::rc::Rc;
use std::time::Duration;

use super::Sources;
use crate::error::Error;
use crate::kernel::Kernel;
use crate::kernel::core::Core;
use crate::kernel::source::{Mode, Source, SourceKey};

/// After how many turns what they have put is written. Writing the answers one after the other, and not each between two
/// reads, saves the processor a twentieth of its time; more at once would save little, and keep the first peer waiting.
const TURNS_PER_FLUSH: usize = 4;

impl Sources {
    /// Asks for another turn in the next slice, whether or not the poller has news.
    pub(crate) fn requeue(&mut self, key: SourceKey, mode: Mode) {
        let Some(entry) = self.entries.get_mut(key.index as usize).filter(|e| e.generation == key.generation) else {
            return;
        };
        entry.ready[mode as usize] = true;
        if !entry.queued {
            entry.queued = true;
            self.ready.push_back(key);
        }
    }

    /// Tells whether there is work that needs no readiness to be done.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes the next source that is ready in `mode`; within, `None` for one that was closed or is ready no more.
    fn next(&mut self, mode: Mode) -> Option<(SourceKey, Option<Rc<dyn Source>>)> {
        let key = self.groups[mode as usize].pop_front()?;
        let Some(entry) = self.entries.get_mut(key.index as usize).filter(|e| e.generation == key.generation) else {
            return Some((key, None));
        };
        let ready = std::mem::take(&mut entry.ready[mode as usize]);
        Some((key, ready.then(|| Rc::clone(&entry.source))))
    }

    /// Sorts what is ready into the groups of the I/O step, each by descriptor, and returns their sizes.
    fn group_ready(&mut self) -> [usize; 3] {
        let Sources { ready, groups, entries, .. } = self;
        let fd = |key: &SourceKey| entries.get(key.index as usize).map_or(-1, |entry| entry.fd);
        ready.make_contiguous().sort_unstable_by_key(fd);
        for key in ready.drain(..) {
            let Some(entry) = entries.get_mut(key.index as usize).filter(|e| e.generation == key.generation) else {
                continue;
            };
            entry.queued = false;
            for mode in Mode::ALL.into_iter().filter(|mode| entry.ready[*mode as usize]) {
                groups[mode as usize].push_back(key);
            }
        }
        [groups[0].len(), groups[1].len(), groups[2].len()]
    }
}

impl Kernel {
    /// The I/O step of a slice: waits, then gives every ready source one turn, readers before writers.
    pub(crate) fn poll_sources(&mut self, wait: Option<Duration>) -> Result<(), Error> {
        self.core.sources.sync_changed();
        let wait = if self.core.sources.has_ready() { Some(Duration::ZERO) } else { wait };
        let signalled = self.core.poll(wait)?;
        self.core.clock.advance();
        if signalled {
            self.core.take_os_signals();
        }
        if self.core.children.look {
            self.core.reap();
        }
        self.turn_ready();
        Ok(())
    }

    /// Each source that is ready now gets one turn; what becomes ready meanwhile waits for the next slice, so that
    /// the turns are bounded and posted events are not kept waiting. In a forked child the lists are empty.
    fn turn_ready(&mut self) {
        if self.core.sources.ready.is_empty() {
            return;
        }
        let sizes = self.core.sources.group_ready();
        for (mode, size) in Mode::ALL.into_iter().zip(sizes) {
            for count in 1..=size {
                let Some((key, source)) = self.core.sources.next(mode) else { break };
                if let Some(source) = source {
                    source.turn(self, key, mode);
                    self.after_state();
                }
                if count % TURNS_PER_FLUSH == 0 {
                    self.flush_dirty();
                }
            }
            self.flush_dirty();
            if size > 0 {
                self.sweep();
            }
        }
    }

    /// Writes what was put into wheels, each as far as its descriptor takes it.
    #[inline]
    pub(crate) fn flush_dirty(&mut self) {
        if self.has_dirty() {
            self.flush_all_dirty();
        }
    }

    fn flush_all_dirty(&mut self) {
        let mut dirty = self.core.sources.mailbox.dirty.take();
        for key in dirty.drain(..) {
            if let Some(source) = self.core.sources.source(key) {
                source.flush(self, key);
            }
        }
        // Its memory is used again, unless something was put meanwhile.
        let mut list = self.core.sources.mailbox.dirty.borrow_mut();
        if list.is_empty() {
            *list = dirty;
        }
    }

    /// Tells whether something was put that no turn or event will flush.
    pub(crate) fn has_dirty(&self) -> bool {
        !self.core.sources.mailbox.dirty.borrow().is_empty()
    }
}

impl Core {
    /// Turns the operating system's signals into events.
    fn take_os_signals(&mut self) {
        for signal in self.signals.delivery.pending() {
            if signal == "CHLD" {
                self.reap();
            } else {
                log::debug!(target: "lenore::signals", "{signal} arrived");
                self.signal_from_kernel(signal, ());
            }
        }
    }
}

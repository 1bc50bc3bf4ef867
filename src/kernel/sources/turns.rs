//! The I/O step: which source gets a turn, and when the output of wheels is written.

use std::rc::Rc;
use std::time::Duration;

use super::Sources;
use crate::error::Error;
use crate::kernel::Kernel;
use crate::kernel::core::Core;
use crate::kernel::source::{Readiness, Source, SourceKey};
use crate::kernel::turn::{Next, Turn};

/// After how many turns their output is written. Writing several answers in a row, and not each between two reads,
/// saves a twentieth of the processor time. More turns would save little, and keep the first peer waiting.
const TURNS_PER_FLUSH: usize = 4;

impl Sources {
    /// Asks for another turn in the next slice, whether or not the poller has news.
    pub(crate) fn requeue(&mut self, key: SourceKey, readiness: Readiness) {
        let Some(entry) = self.entry_mut(key) else { return };
        entry.ready[readiness as usize] = true;
        if !entry.queued {
            entry.queued = true;
            self.ready.push_back(key);
        }
    }

    /// Tells whether there is work that needs no readiness to be done.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Puts the sources that an I/O step has left back on the list of ready sources. The poller does not report them
    /// again.
    #[cold]
    fn ungroup(&mut self) {
        for readiness in Readiness::ALL {
            while let Some(key) = self.next(readiness) {
                // A source that has had its turn is not ready any more.
                if self.get(key).is_some_and(|entry| entry.ready[readiness as usize]) {
                    self.requeue(key, readiness);
                }
            }
        }
    }

    /// Takes the next source of the I/O step's group.
    fn next(&mut self, readiness: Readiness) -> Option<SourceKey> {
        self.groups[readiness as usize].pop_front()
    }

    /// Notes that a source has its turn. Returns false if the source was closed or is not ready any more.
    fn take_ready(&mut self, key: SourceKey, readiness: Readiness) -> bool {
        self.entry_mut(key).is_some_and(|entry| std::mem::take(&mut entry.ready[readiness as usize]))
    }

    /// Takes the ready source, if there is only one and it is ready for one thing: then nothing has to be sorted.
    #[inline]
    fn take_only(&mut self) -> Option<(SourceKey, Readiness)> {
        let &key = self.ready.front().filter(|_| self.ready.len() == 1)?;
        let entry = self.entry_mut(key)?;
        let readiness = match entry.ready {
            [true, false, false] => Readiness::Read,
            [false, true, false] => Readiness::Write,
            _ => return None,
        };
        entry.ready = [false; 3];
        entry.queued = false;
        self.ready.clear();
        Some((key, readiness))
    }

    /// Sorts what is ready into the groups of the I/O step, each by descriptor, and returns their sizes.
    fn group_ready(&mut self) -> [usize; 3] {
        let Sources { ready, groups, entries, .. } = self;
        let fd = |key: &SourceKey| entries.get(key.index()).map_or(-1, |entry| entry.fd);
        if ready.len() > 1 {
            ready.make_contiguous().sort_unstable_by_key(fd);
        }
        while let Some(key) = ready.pop_front() {
            let Some(entry) = entries.get_mut(key.index()).filter(|entry| entry.key == key) else {
                continue;
            };
            entry.queued = false;
            for readiness in Readiness::ALL.into_iter().filter(|readiness| entry.ready[*readiness as usize]) {
                groups[readiness as usize].push_back(key);
            }
        }
        [groups[0].len(), groups[1].len(), groups[2].len()]
    }
}

impl Kernel {
    /// The I/O step of a slice: waits, then gives every ready source one turn, readers before writers.
    pub(crate) fn poll_sources(&mut self, wait: Option<Duration>) -> Result<(), Error> {
        if self.core.depth > 0 {
            // A state runs this slice, and the I/O step of an outer one may not be over.
            self.core.sources.ungroup();
        }
        self.core.sources.sync_stale();
        let wait = if self.core.sources.has_ready() { Some(Duration::ZERO) } else { wait };
        let signalled = self.core.poll(wait)?;
        let now = self.core.clock.advance();
        #[cfg(feature = "control")]
        self.core.begin_turn(now);
        self.core.sources.fire_timers(now);
        if signalled {
            self.core.take_os_signals();
        }
        if self.core.children.look {
            self.core.reap();
        }
        self.turn_ready();
        Ok(())
    }

    /// Gives each source that is ready now one turn. Sources that become ready meanwhile wait for the next slice, so
    /// that the turns are bounded and posted events are not kept waiting. In a forked child the lists are empty.
    fn turn_ready(&mut self) {
        if self.core.sources.ready.is_empty() {
            return;
        }
        if let Some((key, readiness)) = self.core.sources.take_only() {
            self.give_turn(key, |source, cx| source.turn(cx, readiness));
            self.after_state();
            self.flush_dirty();
            return self.sweep();
        }
        let sizes = self.core.sources.group_ready();
        for (readiness, size) in Readiness::ALL.into_iter().zip(sizes) {
            for count in 1..=size {
                let Some(key) = self.core.sources.next(readiness) else { break };
                if self.core.sources.take_ready(key, readiness) {
                    self.give_turn(key, |source, cx| source.turn(cx, readiness));
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

    /// Gives a source a turn of the kind `what`, and does what the source answers.
    fn give_turn(&mut self, key: SourceKey, what: impl FnOnce(&dyn Source, &mut Turn<'_>) -> Next) {
        let Some(entry) = self.core.sources.get(key) else { return };
        let (source, owner) = (Rc::clone(&entry.source), entry.owner);
        let mut turn = Turn::new(self, key, owner, false);
        let next = what(&*source, &mut turn);
        if turn.is_over() {
            return;
        }
        let sources = &mut self.core.sources;
        match next {
            Next::Wait => {}
            Next::Again(readiness) => sources.requeue(key, readiness),
            Next::At(due) => sources.set_timer(key, due),
            Next::Recheck => sources.rearm(key),
            Next::Close => {
                self.core.remove_source(key);
                // Other sources of the same wheel are closed with it, before the owner is told.
                self.core.close_dropped();
                return source.closed(&mut Turn::new(self, key, owner, true));
            }
        }
        // If a flush is due, the source is reviewed after that.
        if !self.core.sources.is_flush_due(key) {
            self.core.review_source(key);
        }
    }

    /// Writes what was put into wheels, each as far as its descriptor takes it.
    #[inline]
    pub(crate) fn flush_dirty(&mut self) {
        if self.core.sources.has_wheel_work() {
            self.flush_all();
        }
    }

    /// Flushes the sources that are on the list now. Each is taken off the list only at its turn, so that a slice that
    /// a state runs meanwhile, or a stop, finds all that are left. Output that is put meanwhile waits for the next
    /// time. In a forked child the lists are empty.
    fn flush_all(&mut self) {
        self.core.close_dropped();
        for _ in 0..self.core.sources.flushes() {
            let Some(key) = self.core.next_to_flush() else { break };
            self.give_turn(key, |source, cx| source.flush(cx));
        }
    }
}

impl Core {
    /// Turns the operating system's signals into events.
    pub(in crate::kernel) fn take_os_signals(&mut self) {
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

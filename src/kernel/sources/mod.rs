//! The slab of sources: every descriptor that the kernel watches, for any purpose.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::rc::Rc;

use mio::{Events, Poll};
use nix::errno::Errno;
use rustc_hash::FxHashMap;
use slab::Slab;

use super::backlog::Backlog;
use super::clock::Due;
use super::core::Core;
use super::few::Few;
use super::holds::{Handle, Hold};
use super::listeners::ListenerWatch;
use super::mailbox::{Mailbox, Touch};
use super::sessions::SessionId;
use super::source::{AfterFork, Readiness, Source, SourceKey, Wanted};
use super::watchers::Watched;
use crate::destroy::{destroy, shield};
use crate::error::Error;
use crate::sys::parent_death::has_replaced_listeners;

mod poller;
mod timers;
mod touched;
mod turns;

use poller::new_poll;
use timers::Timers;

/// How much one read takes at most, unless a wheel asks for more.
const READ_BUFFER: usize = 64 * 1024;

struct Entry {
    key: SourceKey,
    owner: SessionId,
    /// The descriptor that `source` had when it was added. Ready sources are sorted by it.
    fd: RawFd,
    source: Rc<dyn Source>,
    /// What the source wanted when the kernel last asked it.
    wanted: Option<Wanted>,
    registered: Option<Wanted>,
    /// A regular file: the poller refuses it, and it never has to wait (K-IO-21).
    always_ready: bool,
    /// By readiness.
    ready: [bool; 3],
    /// It stands on the ready list.
    queued: bool,
    /// It stands on the list of those to be flushed.
    is_unflushed: bool,
    /// When it gets a turn without readiness.
    due: Option<Due>,
    /// Keeps the owner alive. `None` while the source sends nothing until its owner does something.
    hold: Option<Hold<Handle>>,
    /// The source never keeps its owner alive, whatever it says itself.
    is_weak: bool,
    /// The neighbours among its owner's sources.
    prev: Option<u32>,
    next: Option<u32>,
}

/// What `peek` tells of a source.
pub(super) struct Description {
    pub(super) owner: SessionId,
    pub(super) fd: RawFd,
    pub(super) is_watched: bool,
    pub(super) keeps_owner: bool,
    pub(super) text: String,
}

/// All sources, the poller, and the list of those that are ready.
pub(crate) struct Sources {
    poll: Poll,
    /// The buffer for the poller's reports, kept for the next poll.
    events: Option<Events>,
    entries: Slab<Entry>,
    next_generation: u64,
    /// The watched raw descriptors, by number.
    pub(crate) watched_fds: FxHashMap<RawFd, (SourceKey, Rc<Watched>)>,
    /// Which of them each session watches. Each entry keeps the session alive, unless the descriptor is watched weakly.
    pub(super) watched_by: FxHashMap<SessionId, Few<RawFd, Option<Hold<Handle>>>>,
    ready: VecDeque<SourceKey>,
    /// The sources of wheels into which something was put.
    unflushed: VecDeque<SourceKey>,
    /// The sources whose registration with the poller may differ from what they want.
    stale: Vec<SourceKey>,
    timers: Timers,
    /// By readiness: the sources to which this I/O step still has to give a turn.
    groups: [VecDeque<SourceKey>; 3],
    mailbox: Rc<Mailbox>,
    pub(super) backlog: Backlog,
    pub(super) listener_watch: ListenerWatch,
    /// The buffer into which every stream reads.
    pub(crate) read_buffer: Box<[u8]>,
}

impl Sources {
    pub(crate) fn new() -> Result<Sources, Error> {
        Ok(Sources {
            poll: new_poll()?,
            events: None,
            entries: Slab::new(),
            next_generation: 1,
            watched_fds: FxHashMap::default(),
            watched_by: FxHashMap::default(),
            ready: VecDeque::new(),
            unflushed: VecDeque::new(),
            stale: Vec::new(),
            timers: Timers::default(),
            groups: Default::default(),
            mailbox: Rc::default(),
            backlog: Backlog::default(),
            listener_watch: ListenerWatch::default(),
            read_buffer: vec![0; READ_BUFFER].into_boxed_slice(),
        })
    }

    pub(crate) fn mailbox(&self) -> Rc<Mailbox> {
        Rc::clone(&self.mailbox)
    }

    /// Makes the read buffer long enough for blocks of that size.
    pub(crate) fn read_at_most(&mut self, octets: usize) {
        if octets > self.read_buffer.len() {
            self.read_buffer = vec![0; octets].into_boxed_slice();
        }
    }

    pub(super) fn has_postings(&self) -> bool {
        self.mailbox.has_postings.get()
    }

    pub(crate) fn source(&self, key: SourceKey) -> Option<Rc<dyn Source>> {
        self.get(key).map(|entry| Rc::clone(&entry.source))
    }

    pub(super) fn owner(&self, key: SourceKey) -> Option<SessionId> {
        self.get(key).map(|entry| entry.owner)
    }

    /// Tells whether `fd` belongs to a source.
    pub(crate) fn has_fd(&self, fd: RawFd) -> bool {
        self.entries.iter().any(|(_, entry)| entry.source.fd() == fd)
    }

    /// Describes every source for `peek`.
    pub(super) fn describe(&self) -> impl Iterator<Item = Description> {
        self.entries.iter().map(|(_, entry)| Description {
            owner: entry.owner,
            fd: entry.source.fd(),
            is_watched: entry.registered.is_some(),
            keeps_owner: entry.hold.is_some(),
            text: entry.source.describe(),
        })
    }

    /// Gives a turn to each listener that is shared with other processes and is not paused, without a report of the
    /// poller: the process that was told of a connection may have died before it accepted.
    pub(crate) fn retry_listeners(&mut self) {
        let is_shared = |entry: &Entry| entry.source.wanted().is_some_and(|wanted| wanted.is_shared());
        self.keys(is_shared).into_iter().for_each(|key| self.requeue(key, Readiness::Read));
    }

    /// Tells whether a source wants nothing, or is gone.
    pub(crate) fn is_paused(&self, key: SourceKey) -> bool {
        self.get(key).is_none_or(|entry| entry.source.wanted().is_none())
    }

    /// Returns all listeners, paused or not.
    pub(crate) fn listeners(&self) -> Vec<SourceKey> {
        self.keys(|entry| entry.source.is_listener())
    }

    #[inline]
    pub(super) fn is_open(&self, key: SourceKey) -> bool {
        self.get(key).is_some()
    }

    /// Tells whether something was put into the source's wheel that is not flushed.
    #[inline]
    pub(super) fn is_flush_due(&self, key: SourceKey) -> bool {
        self.has_wheel_work()
            && (self.mailbox.has(key, Touch::Flush) || self.get(key).is_some_and(|entry| entry.is_unflushed))
    }

    fn get(&self, key: SourceKey) -> Option<&Entry> {
        self.entries.get(key.index()).filter(|entry| entry.key == key)
    }

    fn entry_mut(&mut self, key: SourceKey) -> Option<&mut Entry> {
        self.entries.get_mut(key.index()).filter(|entry| entry.key == key)
    }

    /// Takes a source out: first out of the poller, then closes it. The order matters: another process may hold the
    /// same open file, and the poller would go on reporting a descriptor that was closed here.
    fn take_out(&mut self, key: SourceKey) -> Option<Entry> {
        self.get(key)?;
        self.deregister(key);
        let entry = self.entries.remove(key.index());
        log::trace!(target: "lenore::sources", "descriptor {} of {} is closed", entry.fd, entry.owner);
        shield("a wheel was closed", || entry.source.close());
        Some(entry)
    }
}

impl Core {
    /// Adds a source for a session, which it keeps alive, and starts watching it.
    pub(crate) fn add_source(
        &mut self,
        owner: SessionId,
        make: impl FnOnce(SourceKey) -> Rc<dyn Source>,
    ) -> Result<SourceKey, Error> {
        let Sources { entries, next_generation, mailbox, .. } = &mut self.sources;
        let vacant = entries.vacant_entry();
        let key = SourceKey::new(vacant.key(), *next_generation);
        let key = key.ok_or_else(|| Error::os("epoll_ctl", "one more descriptor", Errno::ENOSPC))?;
        *next_generation += 1;
        mailbox.admit(key);
        let source = make(key);
        vacant.insert(Entry {
            key,
            owner,
            fd: source.fd(),
            source,
            wanted: None,
            registered: None,
            always_ready: false,
            ready: [false; 3],
            queued: false,
            is_unflushed: false,
            due: None,
            hold: self.sessions.hold(owner),
            is_weak: false,
            prev: None,
            next: None,
        });
        self.link_source(owner, key.index() as u32);
        if let Err(error) = self.sources.sync(key) {
            self.remove_source(key);
            return Err(error);
        }
        self.review_source(key);
        self.note_listener(key);
        Ok(key)
    }

    /// Takes a source out and closes it.
    pub(crate) fn remove_source(&mut self, key: SourceKey) {
        self.note_listener(key);
        if let Some(entry) = self.sources.take_out(key) {
            self.unlink_source(&entry);
            self.sources.timers.remove(entry.due, key);
            // This also drops filters, which may be the program's own.
            destroy(entry);
        }
    }

    /// Tells the session that watches the listeners, if this source is a listener.
    #[inline]
    fn note_listener(&mut self, key: SourceKey) {
        if self.sources.listener_watch.is_on() && self.sources.get(key).is_some_and(|entry| entry.source.is_listener())
        {
            self.tell_of_listeners();
        }
    }

    /// Puts a source at the head of its owner's list.
    fn link_source(&mut self, owner: SessionId, index: u32) {
        let Some(record) = self.sessions.get_mut(owner) else { return };
        let next = record.first_source.replace(index);
        self.sources.entries[index as usize].next = next;
        if let Some(next) = next {
            self.sources.entries[next as usize].prev = Some(index);
        }
    }

    /// Removes a source that was taken out of the table from its owner's list.
    fn unlink_source(&mut self, gone: &Entry) {
        if let Some(next) = gone.next {
            self.sources.entries[next as usize].prev = gone.prev;
        }
        match gone.prev {
            Some(prev) => self.sources.entries[prev as usize].next = gone.next,
            None => self.sessions.get_mut(gone.owner).into_iter().for_each(|record| record.first_source = gone.next),
        }
    }

    /// Closes a listener whose wheel, or whose watched handle, stays. The wheel accepts nothing any more. A source that
    /// is closed already, or is not a listener, is left alone.
    pub(crate) fn close_listener(&mut self, key: SourceKey) {
        // A listener that was replaced while a state was blocked does not listen any more.
        let is_listener = |source: &Rc<dyn Source>| source.is_listener() || has_replaced_listeners();
        let Some(source) = self.sources.source(key).filter(is_listener) else { return };
        log::debug!(target: "lenore::sources", "{} is closed: this process does not accept any more", source.describe());
        if !self.close_watched(key) {
            self.remove_source(key);
        }
    }

    /// Asks a source what it wants of the poller, and whether it keeps its owner alive.
    #[inline]
    pub(super) fn review_source(&mut self, key: SourceKey) {
        let Some(entry) = self.sources.entry_mut(key) else { return };
        let wanted = entry.source.wanted();
        if wanted != entry.wanted {
            entry.wanted = wanted;
            self.sources.stale.push(key);
        }
        let Some(entry) = self.sources.entry_mut(key) else { return };
        let keeps_owner = !entry.is_weak && entry.source.keeps_owner();
        if keeps_owner != entry.hold.is_some() {
            entry.hold = if keeps_owner { self.sessions.hold(entry.owner) } else { None };
        }
    }

    /// Gives a source a turn at `due`, unless it is closed before.
    pub(crate) fn wake_source_at(&mut self, key: SourceKey, due: Due) {
        self.sources.set_timer(key, due);
    }

    /// Makes the sources that a session owns now keep neither the session nor the program alive. Sources that it gets
    /// later do.
    #[cfg(feature = "status")]
    pub(crate) fn weaken_sources_of(&mut self, session: SessionId) {
        let mut next = self.sessions.get(session).and_then(|record| record.first_source);
        while let Some(index) = next {
            let entry = &mut self.sources.entries[index as usize];
            entry.is_weak = true;
            entry.hold = None;
            next = entry.next;
        }
    }

    /// Closes every source that a stopping session owns.
    pub(crate) fn remove_sources_of(&mut self, session: SessionId) {
        while let Some(index) = self.sessions.get(session).and_then(|record| record.first_source) {
            self.remove_source(self.sources.entries[index as usize].key);
        }
    }

    /// Closes every source, in a child that goes on without its parent's sessions.
    pub(crate) fn remove_all_sources(&mut self) {
        // Watched handles are sources of the kernel, but keep alive the sessions that watch them.
        let watching: Vec<SessionId> = self.sources.watched_by.keys().copied().collect();
        watching.into_iter().for_each(|session| self.remove_watchers_of(session));
        let all: Vec<SourceKey> = self.sources.keys(|_| true);
        all.into_iter().for_each(|key| self.remove_source(key));
    }

    /// Makes a new poller in a forked child, from the table alone. The old poller is closed, but no source is removed
    /// from it: its set still belongs to the parent, and a removal in the child would be a removal in the parent as
    /// well.
    pub(crate) fn rebuild_sources(&mut self) -> Result<(), Error> {
        self.sources.ready.clear();
        self.sources.groups.iter_mut().for_each(VecDeque::clear);
        self.sources.backlog.forget_all();
        self.sources.listener_watch.forget();
        for entry in self.sources.entries.iter_mut().map(|(_, entry)| entry) {
            entry.registered = None;
            entry.ready = [false; 3];
            entry.queued = false;
            entry.is_unflushed = false;
        }
        // Output that was put is for the parent to write, and turns that were asked for are for the parent to give.
        // Wheels that were dropped are dropped here, too.
        self.sources.stale.clear();
        self.sources.unflushed.clear();
        let dropped = self.sources.mailbox.forget_touches();
        dropped.into_iter().for_each(|key| self.remove_source(key));
        let closing = self.sources.keys(|entry| entry.source.fork() == AfterFork::Close);
        closing.into_iter().for_each(|key| self.remove_source(key));
        // After closing sources, which needs no poller: the parent may have had no descriptor to spare.
        self.sources.renew_poll()?;
        // Sources are registered only before the next poll: most children first drop those that they need not watch.
        let Sources { stale, entries, .. } = &mut self.sources;
        stale.extend(entries.iter().map(|(_, entry)| entry.key));
        Ok(())
    }

    /// Makes a new poller for a process that goes on in place of another. Every source is kept, and so is what is known
    /// of its readiness. The former process ends without using the old poller.
    pub(super) fn move_sources(&mut self) -> Result<(), Error> {
        self.sources.renew_poll()?;
        self.sources.entries.iter_mut().for_each(|(_, entry)| entry.registered = None);
        self.sources.stale = self.sources.keys(|_| true);
        Ok(())
    }
}

impl Sources {
    /// Has the registration of these sources with the poller reviewed before the next poll.
    pub(super) fn stale_all(&mut self, keys: Vec<SourceKey>) {
        self.stale.extend(keys);
    }

    fn keys(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<SourceKey> {
        self.entries.iter().filter(|(_, entry)| wanted(entry)).map(|(_, entry)| entry.key).collect()
    }
}

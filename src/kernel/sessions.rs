//! The records of the living sessions: their place in the tree and the count of what keeps each alive.

use std::fmt;

use super::alarm_heap::AlarmKey;
use super::few::Few;
use super::serials::{self, Serials};
use super::signals::SignalWatch;
use crate::error::Error;
use crate::name::Name;

/// Identifies a session for good: an id whose session has stopped is an error to use, never another session. So is the id of
/// a session of another kernel.
///
/// Shown as `session 3`; the sessions of a kernel are numbered 1, 2, 3, ... in order of creation, and the kernel is 0. A
/// forked process goes on with its copy of the kernel, so the ids stay valid there.
///
/// POE: a session's `ID`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(u64);

/// How many bits of a [`SessionId`] name the slot of its record; the rest is the serial number.
const SLOT_BITS: u32 = 24;
pub(super) const SERIAL_BITS: u32 = 64 - SLOT_BITS;

impl SessionId {
    /// The kernel, which is the root of the session tree and the destination of signals to everybody. Any kernel: this id
    /// means the one that it is used with.
    pub const KERNEL: SessionId = SessionId(0);

    fn new(slot: usize, serial: u64) -> SessionId {
        SessionId(serial << SLOT_BITS | slot as u64)
    }

    pub(crate) fn slot(self) -> usize {
        (self.0 & ((1 << SLOT_BITS) - 1)) as usize
    }

    /// Returns the session's number: 1 for the first one that its kernel created.
    pub fn number(self) -> u64 {
        serials::number(self.0 >> SLOT_BITS)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number() {
            0 => f.write_str("the kernel"),
            number => write!(f, "session {number}"),
        }
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the kernel knows about one living session, apart from its states and its heap.
pub(crate) struct Record {
    pub(crate) id: SessionId,
    /// The name of the type of its heap.
    pub(crate) heap: &'static str,
    pub(crate) parent: SessionId,
    first_child: Link,
    last_child: Link,
    prev_sibling: Link,
    next_sibling: Link,
    pub(crate) children: u32,
    /// Everything that keeps the session alive, counted one by one; zero means that the next sweep may stop it.
    pub(crate) holds: u32,
    /// Events to it that wait, alarms included; part of `holds`.
    pub(crate) pending_to: u32,
    /// Events from it to other sessions that wait; part of `holds`.
    pub(crate) pending_from: u32,
    /// Sources it owns and watches; part of `holds`.
    pub(crate) handles: u32,
    /// `sig_child` registrations; part of `holds`.
    pub(crate) pids: u32,
    /// Requests for a fork; part of `holds`.
    pub(crate) forks: u32,
    pub(crate) aliases: Few<Name, ()>,
    pub(crate) tags: Few<Name, u32>,
    /// By name, the first of the session's alarms of that name; the alarms link to each other.
    pub(crate) timers: Few<Name, AlarmKey>,
    pub(crate) signals: Few<Name, SignalWatch>,
    /// The first of the sources it owns; the sources link to each other.
    pub(crate) first_source: Option<u32>,
    /// The number of the latest marking for the sweep.
    mark: u64,
    /// Its `_start` has not returned: its parent does not know of it yet.
    pub(crate) starting: bool,
    /// Its `_stop` has begun.
    pub(crate) stopping: bool,
}

type Link = Option<std::num::NonZeroU32>;

/// One of the units in which `holds` is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    EventTo,
    EventFrom,
    Handle,
    Alias,
    Child,
    Tag,
    Pid,
    Fork,
}

/// All records, the kernel's own in slot 0.
pub(crate) struct Sessions {
    slots: Vec<Option<Record>>,
    free: Vec<u32>,
    serials: Serials,
    living: usize,
    /// Sessions that had no hold left at some moment, with the number of the marking.
    marks: Vec<(SessionId, u64)>,
    next_mark: u64,
    /// There are marks that no sweep has seen.
    has_new_marks: bool,
}

impl Sessions {
    pub(crate) fn new() -> Sessions {
        let kernel = Record::new(SessionId::KERNEL, SessionId::KERNEL, "()");
        Sessions {
            slots: vec![Some(kernel)],
            free: Vec::new(),
            serials: Serials::default(),
            living: 0,
            marks: Vec::new(),
            next_mark: 1,
            has_new_marks: false,
        }
    }

    /// Returns how many sessions live, the kernel not counted.
    pub(crate) fn living(&self) -> usize {
        self.living
    }

    #[inline]
    pub(crate) fn get(&self, id: SessionId) -> Option<&Record> {
        self.slots.get(id.slot())?.as_ref().filter(|record| record.id == id)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: SessionId) -> Option<&mut Record> {
        self.slots.get_mut(id.slot())?.as_mut().filter(|record| record.id == id)
    }

    /// Returns how many slots there are; an id's slot is below that.
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn is_alive(&self, id: SessionId) -> bool {
        self.get(id).is_some()
    }

    /// Returns the records of the living sessions in order of creation, the kernel's not among them.
    pub(crate) fn records(&self) -> Vec<&Record> {
        let mut records: Vec<_> = self.slots[1..].iter().flatten().collect();
        // Without reused slots they are in order already, and that is found out in one pass.
        records.sort_by_key(|record| record.id);
        records
    }

    /// Makes a record for a new child of `parent`.
    pub(crate) fn create(&mut self, parent: SessionId, heap: &'static str) -> Result<SessionId, Error> {
        let slot = match self.free.pop() {
            Some(slot) => slot as usize,
            None => self.slots.len(),
        };
        if slot >= 1 << SLOT_BITS {
            return Err(Error::TooManySessions);
        }
        let serial = self.serials.next().ok_or(Error::TooManySessions)?;
        let id = SessionId::new(slot, serial);
        let record = Record::new(id, parent, heap);
        match self.slots.get_mut(slot) {
            Some(vacant) => *vacant = Some(record),
            None => self.slots.push(Some(record)),
        }
        self.living += 1;
        self.link(id, parent);
        Ok(id)
    }

    /// Takes a record out of the tree and the table. Its slot stays taken until [`free_slot`](Sessions::free_slot):
    /// the heap behind it may still be in use by a state on the stack.
    pub(crate) fn remove(&mut self, id: SessionId) -> Option<Record> {
        self.get(id)?;
        self.unlink(id);
        self.living -= 1;
        self.slots[id.slot()].take()
    }

    pub(crate) fn free_slot(&mut self, slot: usize) {
        self.free.push(slot as u32);
    }

    /// Adds one reason to live. A dead session is left alone.
    #[inline]
    pub(crate) fn hold(&mut self, id: SessionId, hold: Hold) {
        if let Some(record) = self.get_mut(id) {
            record.holds += 1;
            if let Some(count) = record.counter(hold) {
                *count += 1;
            }
            log::trace!(target: "lenore::refcounts", "{id} is held: {hold:?}, {} in all", record.holds);
        }
    }

    /// Takes one reason away, and marks the session for the next sweep if it was the last.
    #[inline]
    pub(crate) fn release(&mut self, id: SessionId, hold: Hold) {
        let Some(record) = self.get_mut(id) else { return };
        debug_assert!(record.holds > 0, "{id} was released more often than held");
        record.holds -= 1;
        if let Some(count) = record.counter(hold) {
            *count -= 1;
        }
        log::trace!(target: "lenore::refcounts", "{id} is released: {hold:?}, {} left", record.holds);
        if record.holds == 0 {
            self.mark(id);
        }
    }

    /// Keeps the session no longer for a handle that is still its own.
    pub(crate) fn loosen(&mut self, id: SessionId) {
        let Some(record) = self.get_mut(id) else { return };
        debug_assert!(record.holds > 0, "{id} was loosened more often than held");
        record.holds -= 1;
        log::trace!(target: "lenore::refcounts", "{id} is not held by a handle, {} left", record.holds);
        if record.holds == 0 {
            self.mark(id);
        }
    }

    /// Takes [`loosen`](Self::loosen) back.
    pub(crate) fn fasten(&mut self, id: SessionId) {
        if let Some(record) = self.get_mut(id) {
            record.holds += 1;
            log::trace!(target: "lenore::refcounts", "{id} is held by a handle again, {} in all", record.holds);
        }
    }

    /// Marks a session that may have nothing left to live for; whether it has is looked up at the sweep.
    pub(crate) fn mark(&mut self, id: SessionId) {
        let mark = self.next_mark;
        if id == SessionId::KERNEL {
            return;
        }
        if let Some(record) = self.get_mut(id) {
            record.mark = mark;
            self.next_mark += 1;
            self.marks.push((id, mark));
            self.has_new_marks = true;
        }
    }

    /// Tells whether a session was marked since the last sweep.
    pub(crate) fn has_new_marks(&self) -> bool {
        self.has_new_marks
    }

    /// Tells whether a sweep would look at any session.
    #[inline]
    pub(crate) fn has_marks(&self) -> bool {
        !self.marks.is_empty()
    }

    /// Notes that the marks that are left are for the sweep of an outer slice.
    pub(crate) fn sweep_is_over(&mut self) {
        self.has_new_marks = false;
    }

    /// Takes the session that was marked last and still has no reason to live.
    pub(crate) fn next_marked(&mut self) -> Option<SessionId> {
        while let Some((id, mark)) = self.marks.pop() {
            // A session that was saved and marked again since then stands further back, under its later mark.
            if self.get(id).is_some_and(|record| record.mark == mark && record.holds == 0 && !record.stopping) {
                return Some(id);
            }
        }
        None
    }

    /// Returns a session's parent; the kernel for a session that has stopped.
    pub(crate) fn parent(&self, id: SessionId) -> SessionId {
        self.get(id).map_or(SessionId::KERNEL, |record| record.parent)
    }

    /// Returns the children of a session in the order in which they became its children.
    pub(crate) fn children(&self, id: SessionId) -> Vec<SessionId> {
        let mut children = Vec::new();
        let mut link = self.get(id).and_then(|record| record.first_child);
        while let Some(record) = link.and_then(|slot| self.slots[slot.get() as usize].as_ref()) {
            children.push(record.id);
            link = record.next_sibling;
        }
        children
    }

    /// Lists `root` and all its descendants breadth first, and turns the list round: deepest level first, within a
    /// level the newest first, `root` last.
    pub(crate) fn visiting_order(&self, root: SessionId) -> Vec<SessionId> {
        let mut order = vec![root];
        let mut next = 0;
        while let Some(id) = order.get(next) {
            let mut link = self.get(*id).and_then(|record| record.first_child);
            while let Some(record) = link.and_then(|slot| self.slots[slot.get() as usize].as_ref()) {
                order.push(record.id);
                link = record.next_sibling;
            }
            next += 1;
        }
        order.reverse();
        order
    }

    /// Makes `id` the newest child of `parent`. A dead session is left alone.
    pub(crate) fn move_to(&mut self, id: SessionId, parent: SessionId) {
        if self.is_alive(id) {
            self.unlink(id);
            self.link(id, parent);
        }
    }

    fn link(&mut self, id: SessionId, parent: SessionId) {
        debug_assert!(self.is_alive(parent), "{id} must not become a child of {parent}, which has stopped");
        let me = std::num::NonZeroU32::new(id.slot() as u32);
        let last = self.get(parent).and_then(|record| record.last_child);
        if let Some(record) = self.get_mut(id) {
            record.parent = parent;
            record.prev_sibling = last;
            record.next_sibling = None;
        }
        if let Some(before) = last.and_then(|slot| self.slots[slot.get() as usize].as_mut()) {
            before.next_sibling = me;
        }
        if let Some(record) = self.get_mut(parent) {
            record.last_child = me;
            if record.first_child.is_none() {
                record.first_child = me;
            }
        }
        self.hold(parent, Hold::Child);
    }

    fn unlink(&mut self, id: SessionId) {
        let Some(record) = self.get_mut(id) else { return };
        let (parent, prev, next) = (record.parent, record.prev_sibling.take(), record.next_sibling.take());
        if let Some(before) = prev.and_then(|slot| self.slots[slot.get() as usize].as_mut()) {
            before.next_sibling = next;
        }
        if let Some(after) = next.and_then(|slot| self.slots[slot.get() as usize].as_mut()) {
            after.prev_sibling = prev;
        }
        if let Some(record) = self.get_mut(parent) {
            if prev.is_none() {
                record.first_child = next;
            }
            if next.is_none() {
                record.last_child = prev;
            }
        }
        self.release(parent, Hold::Child);
    }
}

impl Record {
    fn new(id: SessionId, parent: SessionId, heap: &'static str) -> Record {
        Record {
            id,
            heap,
            parent,
            first_child: None,
            last_child: None,
            prev_sibling: None,
            next_sibling: None,
            children: 0,
            holds: 0,
            pending_to: 0,
            pending_from: 0,
            handles: 0,
            pids: 0,
            forks: 0,
            aliases: Few::new(),
            tags: Few::new(),
            timers: Few::new(),
            signals: Few::new(),
            first_source: None,
            mark: 0,
            starting: true,
            stopping: false,
        }
    }

    /// The separate count of a kind of hold; aliases and tags are counted by their lists.
    #[inline]
    fn counter(&mut self, hold: Hold) -> Option<&mut u32> {
        match hold {
            Hold::EventTo => Some(&mut self.pending_to),
            Hold::EventFrom => Some(&mut self.pending_from),
            Hold::Handle => Some(&mut self.handles),
            Hold::Child => Some(&mut self.children),
            Hold::Pid => Some(&mut self.pids),
            Hold::Fork => Some(&mut self.forks),
            Hold::Alias | Hold::Tag => None,
        }
    }
}

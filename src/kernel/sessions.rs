//! The records of the living sessions: their place in the tree and the count of what keeps each alive.

use std::fmt;
use std::rc::Rc;

use super::alarm_heap::AlarmKey;
use super::background::Place;
use super::few::Few;
use super::holds::{Alias, Child, EventFrom, EventTo, Hold, Kind, Ledger, Lifeline, Postback, Signal, Tag};
use super::postback::ANON_EVENT;
use super::serials::{self, Serials};
use super::signals::{SignalWatch, WAITS_FOR_SIGNAL};
use crate::error::Error;
use crate::name::Name;

/// Identifies a session for good.
///
/// Once the session has stopped, using its id is an error. The id never names another session. Using the id of another
/// kernel's session is an error, too.
///
/// `Display` shows an id as `session 3`. The sessions of a kernel are numbered 1, 2, 3, ... in order of creation. The
/// kernel has the number 0. A forked process goes on with its copy of the kernel, so the ids stay valid there.
///
/// POE: a session's `ID`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(u64);

/// How many bits of a [`SessionId`] name the slot of its record; the rest is the serial number.
const SLOT_BITS: u32 = 24;
pub(super) const SERIAL_BITS: u32 = 64 - SLOT_BITS;

impl SessionId {
    /// The kernel, which is the root of the session tree, and the destination of signals to all sessions.
    ///
    /// All kernels have this id. It means the kernel that it is used with.
    pub const KERNEL: SessionId = SessionId(0);

    fn new(slot: usize, serial: u64) -> SessionId {
        SessionId(serial << SLOT_BITS | slot as u64)
    }

    pub(crate) fn slot(self) -> usize {
        (self.0 & ((1 << SLOT_BITS) - 1)) as usize
    }

    /// Returns the session's number: 1 for the first session that its kernel created.
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
    pub(crate) place: Place,
    /// `None` for the kernel, and on the way from one parent to another.
    parent: Option<Hold<Child>>,
    first_child: Link,
    last_child: Link,
    prev_sibling: Link,
    next_sibling: Link,
    pub(crate) life: Lifeline,
    pub(crate) aliases: Few<Name, Hold<Alias>>,
    pub(crate) tags: Few<Name, References>,
    /// By name, the first of the session's alarms of that name; the alarms link to each other.
    pub(crate) timers: Few<Name, AlarmKey>,
    pub(crate) signals: Few<Name, Interest>,
    /// The first of the sources it owns; the sources link to each other.
    pub(crate) first_source: Option<u32>,
    /// Its `_start` has not returned: its parent does not know of it yet.
    pub(crate) starting: bool,
    /// Its `_stop` has begun.
    pub(crate) stopping: bool,
}

type Link = Option<std::num::NonZeroU32>;

/// The extra references to a session under one tag, which count as one reason.
pub(crate) struct References {
    pub(crate) count: u32,
    pub(crate) _hold: Hold<Tag>,
}

/// A signal that a session watches.
pub(crate) struct Interest {
    pub(crate) watch: SignalWatch,
    /// It keeps the session alive.
    pub(crate) hold: Option<Hold<Signal>>,
}

/// What keeps both ends of a waiting event alive. A session that sends to itself is held once. A session that has
/// stopped is not held.
pub(crate) struct Ends {
    _to: Option<Hold<EventTo>>,
    _from: Option<Hold<EventFrom>>,
}

/// All records, the kernel's own in slot 0.
pub(crate) struct Sessions {
    slots: Vec<Option<Record>>,
    free: Vec<u32>,
    serials: Serials,
    living: usize,
    /// How many of the living sessions keep nothing running.
    background: usize,
    pub(crate) ledger: Rc<Ledger>,
    /// The lifelines of removed sessions, for new ones.
    spare: Vec<Lifeline>,
}

impl Sessions {
    pub(crate) fn new() -> Sessions {
        let ledger = Rc::default();
        let kernel = Record::new(SessionId::KERNEL, "()", Lifeline::new(SessionId::KERNEL, &ledger));
        Sessions {
            slots: vec![Some(kernel)],
            free: Vec::new(),
            serials: Serials::default(),
            living: 0,
            background: 0,
            ledger,
            spare: Vec::new(),
        }
    }

    /// Returns how many sessions live, the kernel not counted.
    pub(crate) fn living(&self) -> usize {
        self.living
    }

    /// Tells whether any session lives that keeps nothing running.
    pub(crate) fn has_background(&self) -> bool {
        self.background > 0
    }

    /// Tells whether a session lives and keeps nothing running.
    pub(crate) fn is_background(&self, id: SessionId) -> bool {
        self.has_background() && self.place(id) != Place::Foreground
    }

    pub(crate) fn place(&self, id: SessionId) -> Place {
        self.get(id).map_or(Place::Foreground, |record| record.place)
    }

    /// Gives a session that was just created its place.
    pub(crate) fn put(&mut self, id: SessionId, place: Place) {
        let Some(record) = self.get_mut(id).filter(|_| place != Place::Foreground) else { return };
        record.place = place;
        record.life.make_background();
        self.background += 1;
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
        let spare = self.spare.pop().and_then(|life| life.renew(id));
        let record = Record::new(id, heap, spare.unwrap_or_else(|| Lifeline::new(id, &self.ledger)));
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
        let record = self.slots[id.slot()].take();
        record.inspect(|record| {
            self.background -= usize::from(record.place != Place::Foreground);
            record.life.end();
        })
    }

    /// Keeps the lifeline of a removed record for a new one.
    pub(crate) fn recycle(&mut self, life: Lifeline) {
        self.spare.push(life);
    }

    pub(crate) fn free_slot(&mut self, slot: usize) {
        self.free.push(slot as u32);
    }

    /// Makes one more reason for a session to stay alive; there is none for one that has stopped.
    #[inline]
    pub(crate) fn hold<K: Kind>(&self, id: SessionId) -> Option<Hold<K>> {
        self.get(id).map(|record| record.life.hold())
    }

    /// Keeps both ends of an event alive.
    #[inline]
    pub(crate) fn hold_ends(&self, dest: SessionId, sender: SessionId) -> Ends {
        let from = if sender == dest { None } else { self.hold(sender) };
        Ends { _to: self.hold(dest), _from: from }
    }

    /// Tells whether anything keeps a session alive.
    pub(crate) fn is_held(&self, id: SessionId) -> bool {
        self.get(id).is_some_and(|record| record.life.holds() > 0)
    }

    /// Takes the session that was marked last and that still nothing keeps alive.
    pub(crate) fn next_marked(&self) -> Option<SessionId> {
        while let Some(id) = self.ledger.take_mark() {
            // The latest mark settles a session that was marked more than once. If it is held, letting go will mark it again.
            if self.get(id).is_some_and(|record| record.life.holds() == 0 && !record.stopping) {
                return Some(id);
            }
        }
        None
    }

    /// Returns a session's parent; the kernel for a session that has stopped.
    pub(crate) fn parent(&self, id: SessionId) -> SessionId {
        self.get(id).map_or(SessionId::KERNEL, Record::parent)
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

    /// Lists `root` and all its descendants in the reverse of breadth-first order: deepest level first, within a level
    /// the newest first, `root` last.
    pub(crate) fn visiting_order(&self, root: SessionId) -> Vec<SessionId> {
        // All sessions descend from the kernel.
        let mut order = Vec::with_capacity(if root == SessionId::KERNEL { self.living() + 1 } else { 1 });
        order.push(root);
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
        let hold = self.hold(parent);
        if let Some(record) = self.get_mut(id) {
            record.parent = hold;
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
    }

    fn unlink(&mut self, id: SessionId) {
        let Some(record) = self.get_mut(id) else { return };
        let (prev, next) = (record.prev_sibling.take(), record.next_sibling.take());
        let Some(parent) = record.parent.take() else { return };
        if let Some(before) = prev.and_then(|slot| self.slots[slot.get() as usize].as_mut()) {
            before.next_sibling = next;
        }
        if let Some(after) = next.and_then(|slot| self.slots[slot.get() as usize].as_mut()) {
            after.prev_sibling = prev;
        }
        if let Some(record) = self.get_mut(parent.id()) {
            if prev.is_none() {
                record.first_child = next;
            }
            if next.is_none() {
                record.last_child = prev;
            }
        }
    }
}

impl Record {
    fn new(id: SessionId, heap: &'static str, life: Lifeline) -> Record {
        Record {
            id,
            heap,
            place: Place::Foreground,
            parent: None,
            first_child: None,
            last_child: None,
            prev_sibling: None,
            next_sibling: None,
            life,
            aliases: Few::new(),
            tags: Few::new(),
            timers: Few::new(),
            signals: Few::new(),
            first_source: None,
            starting: true,
            stopping: false,
        }
    }

    /// Returns the session's parent. The kernel is its own parent.
    pub(crate) fn parent(&self) -> SessionId {
        self.parent.as_ref().map_or(SessionId::KERNEL, Hold::id)
    }

    /// Returns how many extra references there are under `tag`, those that the kernel itself keeps included.
    pub(crate) fn references(&self, tag: Name) -> u32 {
        self.tags.get(tag).map_or(0, |references| references.count) + self.references_of_kernel(tag)
    }

    /// Returns how many of the extra references under `tag` the kernel itself keeps.
    pub(crate) fn references_of_kernel(&self, tag: Name) -> u32 {
        if tag == ANON_EVENT {
            self.life.holds_for::<Postback>()
        } else if tag == WAITS_FOR_SIGNAL {
            self.signals.iter().filter(|(_, interest)| interest.hold.is_some()).count() as u32
        } else {
            0
        }
    }

    /// Returns the tags under which there are extra references.
    pub(crate) fn referenced(&self) -> impl Iterator<Item = Name> {
        let postbacks = (self.life.holds_for::<Postback>() > 0).then(|| Name::new(ANON_EVENT));
        let waits = self.signals.iter().any(|(_, interest)| interest.hold.is_some());
        let signals = waits.then(|| Name::new(WAITS_FOR_SIGNAL));
        self.tags.keys().chain(postbacks.into_iter().chain(signals).filter(|tag| !self.tags.has(*tag)))
    }
}

//! The machine's table of children: what must not go wrong goes by this, and not by the board.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use super::{Deaf, Edition, Escalation, Meter, Stint};

/// One child: its slot, and which owner of the slot it is. No two children have the same key.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Key {
    /// The slot, counted from 0.
    pub slot: usize,
    /// Counts the owners of the slot.
    pub generation: u32,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

/// One child.
#[derive(Clone, Copy, Debug)]
pub struct Child {
    /// Which one.
    pub key: Key,
    /// How many were entered before it.
    pub number: u64,
    /// Which settings it was forked with.
    pub edition: Edition,
    /// Post-forking: it has no request, and shows that a child with its settings can start.
    pub is_probe: bool,
    /// When it was forked.
    pub forked_at: Duration,
    /// What it has been told.
    pub told: Told,
    /// How far the babysitter has come with it.
    pub(super) escalation: Option<Escalation>,
    pub(super) meter: Meter,
    /// How long it has been in its status.
    pub(super) stint: Stint,
    /// It was stopped when it was last looked at.
    pub(super) is_stopped: bool,
    /// It was asked whether it accepts, and had waited since then, in milliseconds of the machine's time.
    pub(super) asked: Option<u64>,
    /// It says that it waits, and does not accept.
    pub(super) deaf: Option<Deaf>,
    /// How long it has been stopped while this process was not.
    pub(super) stopped_for: Duration,
    /// It has reported that it waits, as far as was seen.
    pub(super) is_ready: bool,
    /// For how long it has been saying that it waits although it was asked to go, from the first look that saw it on.
    pub(super) overdue_for: Option<Duration>,
    /// The log has it already that it is not ready for requests.
    pub(super) is_told_unready: bool,
    /// It is of an edition that is not the current one any more, and has a while to end.
    pub(super) outdated: Option<Outdated>,
}

/// A child is to end within a while.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outdated {
    /// Since when.
    pub(super) since: Duration,
    pub(super) cut: Cut,
}

/// Whether a child was ended that has not ended by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Cut {
    No,
    Interrupted(Duration),
    Killed,
}

impl Outdated {
    pub(super) fn since(now: Duration) -> Outdated {
        Outdated { since: now, cut: Cut::No }
    }
}

/// What the parent wants of a child, or has told it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Told {
    /// Nothing: it is to stay.
    Stay,
    /// Nothing yet: it is to go when another can take its place.
    BeReplaced,
    /// To go: it is one spare too many, or an operator does not want it.
    Go,
    /// To go: it has too much memory.
    GoForMemory,
    /// To go at once: its time after a reload is up.
    Cut,
    /// It was killed.
    Die,
}

impl Child {
    fn new(fork: InFlight, number: u64, forked_at: Duration) -> Child {
        let InFlight { key, edition, is_probe, .. } = fork;
        Child {
            key,
            number,
            edition,
            is_probe,
            forked_at,
            told: Told::Stay,
            escalation: None,
            meter: Meter::default(),
            stint: Stint::default(),
            is_stopped: false,
            asked: None,
            deaf: None,
            stopped_for: Duration::ZERO,
            is_ready: false,
            overdue_for: None,
            is_told_unready: false,
            outdated: None,
        }
    }

    /// Tells whether it was told to go.
    pub fn is_retiring(&self) -> bool {
        matches!(self.told, Told::Go | Told::GoForMemory | Told::Cut | Told::Die)
    }
}

/// A fork that was asked for and has not been carried out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InFlight {
    /// Which child it will be.
    pub key: Key,
    /// Which settings it will have.
    pub edition: Edition,
    /// Post-forking: which request it is for.
    pub request: Option<Request>,
    /// See [`Child::is_probe`].
    pub is_probe: bool,
}

/// A request for a post-forking daemon.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Request {
    /// Counts up; a request of which the fork has failed goes back to its place by it.
    pub number: u64,
    /// `l` or `r` for its child to begin with.
    pub is_long: bool,
}

/// All children, the forks in flight, and which slots are free.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// In no order.
    children: Vec<Child>,
    slots: Vec<Slot>,
    free: BTreeSet<usize>,
    in_flight: VecDeque<InFlight>,
    /// How many forks were asked for.
    forked: u64,
    /// How many children were entered.
    entered: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// How many owners it has had.
    generation: u32,
    /// Where its child is in the list.
    place: Option<usize>,
}

impl Table {
    /// Makes a table with so many free slots.
    pub fn new(slots: usize) -> Table {
        let mut table = Table::default();
        table.grow(slots);
        table
    }

    /// Makes it have at least so many slots.
    pub fn grow(&mut self, slots: usize) {
        self.free.extend(self.slots.len()..slots);
        self.slots.resize(slots.max(self.slots.len()), Slot::default());
    }

    /// Returns how many slots there are.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Takes the lowest free slot for a fork, and returns how many forks were asked for before; `None` if no slot is free.
    pub fn begin_fork(&mut self, edition: Edition, request: Option<Request>, is_probe: bool) -> Option<(Key, u64)> {
        let slot = self.free.pop_first()?;
        let generation = self.slots[slot].generation.wrapping_add(1);
        self.slots[slot].generation = generation;
        let key = Key { slot, generation };
        self.in_flight.push_back(InFlight { key, edition, request, is_probe });
        self.forked += 1;
        Some((key, self.forked - 1))
    }

    /// Takes a fork out of those in flight; `None` if it is not one of them.
    pub fn end_fork(&mut self, key: Key) -> Option<InFlight> {
        let place = self.in_flight.iter().position(|fork| fork.key == key)?;
        self.in_flight.remove(place)
    }

    /// Takes all forks out of those in flight.
    pub fn end_forks(&mut self) -> VecDeque<InFlight> {
        std::mem::take(&mut self.in_flight)
    }

    /// Enters a child whose fork was carried out.
    pub fn enter(&mut self, fork: InFlight, now: Duration) {
        self.slots[fork.key.slot].place = Some(self.children.len());
        self.children.push(Child::new(fork, self.entered, now));
        self.entered += 1;
    }

    /// Takes a child off; `None` if it is not on the table.
    pub fn remove(&mut self, key: Key) -> Option<Child> {
        let place = self.place(key)?;
        self.slots[key.slot].place = None;
        let child = self.children.swap_remove(place);
        if let Some(moved) = self.children.get(place) {
            self.slots[moved.key.slot].place = Some(place);
        }
        Some(child)
    }

    /// Frees the slot of a child that was taken off, or of a fork that came to nothing.
    pub fn free(&mut self, key: Key) {
        self.free.insert(key.slot);
    }

    /// Finds a child.
    #[cfg(test)]
    pub fn child(&self, key: Key) -> Option<&Child> {
        self.place(key).map(|place| &self.children[place])
    }

    /// Finds a child.
    pub fn child_mut(&mut self, key: Key) -> Option<&mut Child> {
        self.place(key).map(|place| &mut self.children[place])
    }

    fn place(&self, key: Key) -> Option<usize> {
        let place = self.slots.get(key.slot)?.place?;
        (self.children[place].key == key).then_some(place)
    }

    /// Returns all children, in no order.
    pub fn children(&self) -> &[Child] {
        &self.children
    }

    /// Returns all children, in no order.
    pub fn children_mut(&mut self) -> &mut [Child] {
        &mut self.children
    }

    /// Returns the present owner of a slot.
    pub fn owner(&self, slot: usize) -> Option<Key> {
        let place = self.slots.get(slot)?.place?;
        Some(self.children[place].key)
    }

    /// Returns the forks in flight, in the order in which they were asked for.
    pub fn in_flight(&self) -> &VecDeque<InFlight> {
        &self.in_flight
    }

    /// Returns how many children there are or are on the way.
    #[cfg(test)]
    pub fn total(&self) -> usize {
        self.children.len() + self.in_flight.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::check;

    const NOW: Duration = Duration::ZERO;

    #[test] // D-SB-02, D-SB-04
    fn table_that_is_full_refuses_a_fork() {
        let mut table = Table::new(2);
        let keys: Vec<Key> =
            (0..2).filter_map(|_| table.begin_fork(Edition(1), None, false)).map(|(key, _)| key).collect();
        assert_eq!(keys.iter().map(|key| key.slot).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(table.begin_fork(Edition(1), None, false), None);
        table.grow(3);
        assert_eq!(table.begin_fork(Edition(1), None, false).map(|(key, number)| (key.slot, number)), Some((2, 2)));
    }

    #[test] // D-SB-04: slots are never shared, and no key comes twice, whatever the order of deaths
    fn no_slot_has_two_owners_and_no_key_comes_twice() {
        check(|dice| {
            let slots = dice.number(1..6) as usize;
            let mut table = Table::new(slots);
            let (mut flying, mut alive, mut dead, mut seen) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            for number in 0..dice.number(1..200) {
                match dice.below(5) {
                    0 | 1 => {
                        let lowest =
                            (0..slots).find(|slot| flying.iter().chain(&alive).all(|key: &Key| key.slot != *slot));
                        let got = table.begin_fork(Edition(1), None, false).map(|(key, _)| key);
                        assert_eq!(got.map(|key| key.slot), lowest, "step {number}");
                        if let Some(key) = got {
                            assert!(!seen.contains(&key));
                            seen.push(key);
                            flying.push(key);
                        }
                    }
                    2 if !flying.is_empty() => {
                        let key = flying.swap_remove(dice.below(flying.len() as u64) as usize);
                        let fork = table.end_fork(key).expect("it is in flight");
                        assert_eq!(fork.key, key);
                        table.enter(fork, NOW);
                        alive.push(key);
                    }
                    3 if !flying.is_empty() => {
                        let key = flying.swap_remove(dice.below(flying.len() as u64) as usize);
                        table.end_fork(key);
                        table.free(key);
                        dead.push(key);
                    }
                    _ if !alive.is_empty() => {
                        let key = alive.swap_remove(dice.below(alive.len() as u64) as usize);
                        assert_eq!(table.remove(key).map(|child| child.key), Some(key));
                        table.free(key);
                        dead.push(key);
                    }
                    _ => {}
                }
                assert!(dead.iter().all(|key| table.child(*key).is_none() && table.end_fork(*key).is_none()));
                assert!(alive.iter().all(|key| table.owner(key.slot) == Some(*key)));
                assert_eq!((table.children().len(), table.total()), (alive.len(), alive.len() + flying.len()));
                if let Some(key) = dead.first() {
                    assert!(table.remove(*key).is_none());
                }
            }
        });
    }
}

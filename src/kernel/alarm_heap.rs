//! The pending alarms: a binary heap that knows where each alarm stands, so that one can be taken out of the middle.

use slab::Slab;

use super::clock::Due;
use super::queue::Event;

/// A pending alarm's place in the slab.
pub(crate) type AlarmKey = u32;

/// Alarms by due time, then by sequence number.
pub(crate) struct AlarmHeap {
    alarms: Slab<Alarm>,
    /// A binary min-heap; `Alarm::place` of `order[i].key` is `i`.
    order: Vec<Item>,
}

/// One pending alarm.
pub(crate) struct Alarm {
    /// Never used twice: a stale [`AlarmId`](super::AlarmId) is recognised by it.
    pub(crate) serial: u64,
    pub(crate) event: Event,
    /// The neighbours among the session's alarms of the same name.
    pub(crate) prev: Option<AlarmKey>,
    pub(crate) next: Option<AlarmKey>,
    due: Due,
    /// Decides among alarms with the same due time; a moved alarm gets a new one.
    seq: u64,
    place: usize,
}

#[derive(Clone, Copy)]
struct Item {
    due: Due,
    seq: u64,
    key: AlarmKey,
}

impl Item {
    fn before(&self, other: &Item) -> bool {
        (self.due, self.seq) < (other.due, other.seq)
    }
}

/// The `place` of an alarm that is in the slab but not in the heap.
const OUTSIDE: usize = usize::MAX;

impl AlarmHeap {
    pub(crate) fn new() -> AlarmHeap {
        AlarmHeap { alarms: Slab::new(), order: Vec::new() }
    }

    /// Returns how many alarms pend, those outside the heap included.
    pub(crate) fn len(&self) -> usize {
        self.alarms.len()
    }

    pub(crate) fn get(&self, key: AlarmKey) -> Option<&Alarm> {
        self.alarms.get(key as usize)
    }

    pub(crate) fn get_mut(&mut self, key: AlarmKey) -> Option<&mut Alarm> {
        self.alarms.get_mut(key as usize)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (AlarmKey, &Alarm)> {
        self.alarms.iter().map(|(key, alarm)| (key as AlarmKey, alarm))
    }

    /// Stores an alarm without ordering it; [`schedule`](AlarmHeap::schedule) does that.
    pub(crate) fn store(&mut self, due: Due, serial: u64, event: Event) -> AlarmKey {
        let alarm = Alarm { serial, event, prev: None, next: None, due, seq: serial, place: OUTSIDE };
        AlarmKey::try_from(self.alarms.insert(alarm)).expect("fewer than 2^32 alarms")
    }

    /// Puts a stored alarm in its place, behind alarms with the same due time and a lower `seq`.
    pub(crate) fn schedule(&mut self, key: AlarmKey, due: Due, seq: u64) {
        self.set_aside(key, due, seq);
        self.order.push(Item { due, seq, key });
        self.sift_up(self.order.len() - 1);
    }

    /// Notes a new due time for an alarm that stays outside the heap for now.
    pub(crate) fn set_aside(&mut self, key: AlarmKey, due: Due, seq: u64) {
        self.unschedule(key);
        let alarm = &mut self.alarms[key as usize];
        (alarm.due, alarm.seq) = (due, seq);
    }

    /// Returns the due time and sequence number of the first alarm.
    pub(crate) fn first(&self) -> Option<(Due, u64)> {
        self.order.first().map(|item| (item.due, item.seq))
    }

    pub(crate) fn first_key(&self) -> Option<AlarmKey> {
        self.order.first().map(|item| item.key)
    }

    /// Takes an alarm out, wherever it stands.
    pub(crate) fn remove(&mut self, key: AlarmKey) -> Option<Alarm> {
        self.alarms.get(key as usize)?;
        self.unschedule(key);
        Some(self.alarms.remove(key as usize))
    }

    fn unschedule(&mut self, key: AlarmKey) {
        let place = self.alarms[key as usize].place;
        if place == OUTSIDE {
            return;
        }
        self.alarms[key as usize].place = OUTSIDE;
        let last = self.order.len() - 1;
        self.order.swap_remove(place);
        if place < last {
            // What came from the end may belong either way.
            let place = self.sift_up(place);
            self.sift_down(place);
        }
    }

    fn sift_up(&mut self, mut place: usize) -> usize {
        let item = self.order[place];
        while place > 0 {
            let above = (place - 1) / 2;
            if !item.before(&self.order[above]) {
                break;
            }
            self.set(place, self.order[above]);
            place = above;
        }
        self.set(place, item);
        place
    }

    fn sift_down(&mut self, mut place: usize) {
        let item = self.order[place];
        loop {
            let mut below = 2 * place + 1;
            if below >= self.order.len() {
                break;
            }
            if below + 1 < self.order.len() && self.order[below + 1].before(&self.order[below]) {
                below += 1;
            }
            if !self.order[below].before(&item) {
                break;
            }
            self.set(place, self.order[below]);
            place = below;
        }
        self.set(place, item);
    }

    fn set(&mut self, place: usize, item: Item) {
        self.order[place] = item;
        self.alarms[item.key as usize].place = place;
    }
}

impl Alarm {
    pub(crate) fn due(&self) -> Due {
        self.due
    }

    /// What alarms are dispatched by: due time, then sequence number.
    pub(crate) fn order(&self) -> (Due, u64) {
        (self.due, self.seq)
    }
}

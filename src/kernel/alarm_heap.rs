//! The pending alarms: a binary heap that knows where each alarm stands, so that one can be taken out of the middle.

use slab::Slab;

use super::clock::Due;
use super::holds::{EventTo, Hold};
use super::queue::Event;

/// A pending alarm's place in the slab.
pub(crate) type AlarmKey = u32;

/// Alarms by due time, then by sequence number.
pub(crate) struct AlarmHeap {
    alarms: Slab<Alarm>,
    /// By [`Turn`], binary min-heaps; `Alarm::place` of `heaps[turn][i].key` is `turn` and `i`.
    heaps: [Vec<Item>; 2],
}

/// In which queue phase an alarm may be dispatched.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// In the running one, when it is due.
    This,
    /// In the next one.
    Next,
}

/// One pending alarm.
pub(crate) struct Alarm {
    /// Never used twice, so that a stale [`AlarmId`](super::AlarmId) is recognised.
    pub(crate) serial: u64,
    pub(crate) event: Event,
    /// Keeps the session alive that has set the alarm, and gets it.
    _hold: Option<Hold<EventTo>>,
    /// The neighbours among the session's alarms of the same name.
    pub(crate) prev: Option<AlarmKey>,
    pub(crate) next: Option<AlarmKey>,
    due: Due,
    /// Decides among alarms with the same due time; a moved alarm gets a new one.
    seq: u64,
    /// `None` while it is in the slab but in no heap.
    place: Option<(Turn, u32)>,
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

impl AlarmHeap {
    pub(crate) fn new() -> AlarmHeap {
        AlarmHeap { alarms: Slab::new(), heaps: [Vec::new(), Vec::new()] }
    }

    /// Returns how many alarms are pending.
    pub(crate) fn len(&self) -> usize {
        self.alarms.len()
    }

    pub(crate) fn get(&self, key: AlarmKey) -> Option<&Alarm> {
        self.alarms.get(key as usize)
    }

    pub(crate) fn get_mut(&mut self, key: AlarmKey) -> Option<&mut Alarm> {
        self.alarms.get_mut(key as usize)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Alarm> {
        self.alarms.iter().map(|(_, alarm)| alarm)
    }

    /// Stores an alarm without ordering it; [`schedule`](AlarmHeap::schedule) does that.
    pub(crate) fn store(&mut self, due: Due, serial: u64, event: Event, hold: Option<Hold<EventTo>>) -> AlarmKey {
        let alarm = Alarm { serial, event, _hold: hold, prev: None, next: None, due, seq: serial, place: None };
        AlarmKey::try_from(self.alarms.insert(alarm)).expect("fewer than 2^32 alarms")
    }

    /// Puts a stored alarm in its place, behind alarms with the same due time and a lower `seq`.
    pub(crate) fn schedule(&mut self, key: AlarmKey, turn: Turn, due: Due, seq: u64) {
        self.unschedule(key);
        let alarm = &mut self.alarms[key as usize];
        (alarm.due, alarm.seq) = (due, seq);
        let heap = &mut self.heaps[turn as usize];
        heap.push(Item { due, seq, key });
        let last = heap.len() - 1;
        self.sift_up(turn, last);
    }

    /// Returns the due time and sequence number of the first alarm.
    pub(crate) fn first(&self, turn: Turn) -> Option<(Due, u64)> {
        self.heaps[turn as usize].first().map(|item| (item.due, item.seq))
    }

    pub(crate) fn first_key(&self, turn: Turn) -> Option<AlarmKey> {
        self.heaps[turn as usize].first().map(|item| item.key)
    }

    /// Returns the alarms of the next phase, in any order.
    pub(crate) fn of_next_turn(&self) -> Vec<AlarmKey> {
        self.heaps[Turn::Next as usize].iter().map(|item| item.key).collect()
    }

    /// Takes an alarm out, wherever it stands.
    pub(crate) fn remove(&mut self, key: AlarmKey) -> Option<Alarm> {
        self.alarms.get(key as usize)?;
        self.unschedule(key);
        Some(self.alarms.remove(key as usize))
    }

    fn unschedule(&mut self, key: AlarmKey) {
        let Some((turn, place)) = self.alarms[key as usize].place.take() else { return };
        let heap = &mut self.heaps[turn as usize];
        let place = place as usize;
        heap.swap_remove(place);
        if place < heap.len() {
            // The item that came from the end may belong further up or further down.
            let place = self.sift_up(turn, place);
            self.sift_down(turn, place);
        }
    }

    fn sift_up(&mut self, turn: Turn, mut place: usize) -> usize {
        let heap = &mut self.heaps[turn as usize];
        let item = heap[place];
        while place > 0 {
            let above = (place - 1) / 2;
            if !item.before(&heap[above]) {
                break;
            }
            let moved = heap[above];
            set(&mut self.alarms, heap, turn, place, moved);
            place = above;
        }
        set(&mut self.alarms, heap, turn, place, item);
        place
    }

    fn sift_down(&mut self, turn: Turn, mut place: usize) {
        let heap = &mut self.heaps[turn as usize];
        let item = heap[place];
        loop {
            let mut below = 2 * place + 1;
            if below >= heap.len() {
                break;
            }
            if below + 1 < heap.len() && heap[below + 1].before(&heap[below]) {
                below += 1;
            }
            if !heap[below].before(&item) {
                break;
            }
            let moved = heap[below];
            set(&mut self.alarms, heap, turn, place, moved);
            place = below;
        }
        set(&mut self.alarms, heap, turn, place, item);
    }
}

/// Puts an item somewhere in a heap.
fn set(alarms: &mut Slab<Alarm>, heap: &mut [Item], turn: Turn, place: usize, item: Item) {
    heap[place] = item;
    // There are fewer than 2^32 alarms, see `store`.
    alarms[item.key as usize].place = Some((turn, place as u32));
}

impl Alarm {
    pub(crate) fn due(&self) -> Due {
        self.due
    }

    /// Returns the order in which alarms are dispatched: by due time, then by sequence number.
    pub(crate) fn order(&self) -> (Due, u64) {
        (self.due, self.seq)
    }
}

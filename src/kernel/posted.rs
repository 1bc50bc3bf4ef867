//! The posted events: first in, first out, except that the events of a session that stops are taken out of the middle.

use std::collections::VecDeque;

use super::clock::Due;
use super::queue::Event;
use super::sessions::{Ends, SessionId};

/// The posted events in the order of their sequence numbers.
///
/// Each event has a place number: the first event ever has 0, the next one 1. A place number minus `passed` is the
/// event's index in `fifo`, so that no event has to be searched for. (Sequence numbers have gaps, because alarms take
/// some.)
#[derive(Default)]
pub(super) struct PostedEvents {
    /// If it is not empty, the first event has not been taken out.
    fifo: VecDeque<Posted>,
    /// The place number of the first event.
    passed: u64,
    /// How many events were taken out of the middle and still have their place.
    gaps: usize,
    index: Index,
}

struct Posted {
    due: Due,
    seq: u64,
    /// `None` once it was taken out.
    waiting: Option<Waiting>,
}

struct Waiting {
    event: Event,
    ends: Ends,
}

impl Waiting {
    /// Releases the holds on both ends.
    #[inline]
    fn release(self) -> Event {
        drop(self.ends);
        self.event
    }
}

impl PostedEvents {
    /// Returns how many events wait.
    pub(super) fn len(&self) -> usize {
        self.fifo.len() - self.gaps
    }

    /// Appends an event. `due` must not go backwards from one post to the next, and `seq` must grow.
    #[inline]
    pub(super) fn push(&mut self, due: Due, seq: u64, event: Event, ends: Ends) {
        self.fifo.push_back(Posted { due, seq, waiting: Some(Waiting { event, ends }) });
    }

    /// Returns the due time and the sequence number of the first event.
    #[inline]
    pub(super) fn first(&self) -> Option<(Due, u64)> {
        self.fifo.front().map(|posted| (posted.due, posted.seq))
    }

    /// Takes the first event. From now on it keeps no session alive.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Event> {
        let waiting = self.fifo.pop_front()?.waiting;
        self.passed += 1;
        if self.gaps > 0 {
            self.close_first_gaps();
        }
        waiting.map(Waiting::release)
    }

    /// Takes out the events to and from a session.
    pub(super) fn take_of(&mut self, session: SessionId) -> Vec<Event> {
        self.list_new();
        let mut taken = Vec::new();
        for number in self.index.take(session) {
            // Events before the first one were dispatched.
            let place = number.checked_sub(self.passed).map(|place| place as usize);
            let waiting = place.and_then(|place| self.fifo.get_mut(place)?.waiting.take());
            taken.extend(waiting.map(Waiting::release));
        }
        self.gaps += taken.len();
        self.close_first_gaps();
        taken
    }

    /// Takes out the events that `unwanted` picks, by looking at all of them.
    pub(super) fn take_where(&mut self, unwanted: impl Fn(&Event) -> bool) -> Vec<Event> {
        if self.fifo.is_empty() {
            return Vec::new();
        }
        let picked = |posted: &mut Posted| posted.waiting.take_if(|waiting| unwanted(&waiting.event));
        let taken: Vec<Event> = self.fifo.iter_mut().filter_map(picked).map(Waiting::release).collect();
        self.gaps += taken.len();
        self.close_first_gaps();
        taken
    }

    /// Returns the events that wait, each with its due time and its sequence number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Due, u64, &Event)> {
        self.fifo.iter().filter_map(|posted| Some((posted.due, posted.seq, &posted.waiting.as_ref()?.event)))
    }

    /// Empties the index when no event is left for it.
    pub(super) fn forget_index(&mut self) {
        if !self.index.is_empty() && self.fifo.is_empty() {
            self.index.clear();
        }
    }

    fn close_first_gaps(&mut self) {
        while self.fifo.front().is_some_and(|posted| posted.waiting.is_none()) {
            self.fifo.pop_front();
            self.passed += 1;
            self.gaps -= 1;
        }
    }

    /// Brings the index up to date.
    fn list_new(&mut self) {
        // An event is listed twice at most. All other entries are for events that were dispatched: a new index costs
        // less than those.
        if self.index.len() > 4 * self.fifo.len() + SMALL_INDEX {
            self.index.clear();
        }
        let listed = self.index.next.saturating_sub(self.passed) as usize;
        for (posted, number) in self.fifo.range(listed..).zip(self.passed.max(self.index.next)..) {
            self.index.next = number + 1;
            let Some(Waiting { event, .. }) = &posted.waiting else { continue };
            self.index.add(event.dest, number);
            if event.sender != event.dest {
                self.index.add(event.sender, number);
            }
        }
    }
}

/// An index of so many numbers is not worth being made anew.
const SMALL_INDEX: usize = 64;

/// Which events are to or from which session.
///
/// It is made when a session stops whose events wait, and not with each post: most events are dispatched. Every event
/// enters it once at most, so stopping all sessions costs no more than looking at each event.
#[derive(Default)]
struct Index {
    /// By the session's slot. A list is valid only in its own round. This memory is kept, because filling it anew would
    /// take time in proportion to the number of slots.
    lists: Vec<List>,
    /// Place numbers. Those of one session are linked in their order. Events that were dispatched since are still
    /// listed.
    numbers: Vec<Number>,
    /// Counts how often the index was emptied.
    round: u64,
    /// Events from this place number on are not listed yet.
    next: u64,
}

/// Where in `numbers` the first and the last number of a session are.
#[derive(Clone, Copy)]
struct List {
    session: SessionId,
    round: u64,
    ends: Option<(u32, u32)>,
}

struct Number {
    number: u64,
    next: Option<u32>,
}

impl Index {
    fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    fn len(&self) -> usize {
        self.numbers.len()
    }

    fn clear(&mut self) {
        self.numbers = Vec::new();
        self.round += 1;
        self.next = 0;
    }

    /// Lists a number for a session, behind the numbers that it already has.
    fn add(&mut self, session: SessionId, number: u64) {
        // The kernel never stops.
        if session == SessionId::KERNEL {
            return;
        }
        let slot = session.slot();
        if slot >= self.lists.len() {
            self.lists.resize(slot + 1, List { session: SessionId::KERNEL, round: 0, ends: None });
        }
        let list = &mut self.lists[slot];
        if list.session > session {
            // The slot belongs to a later session: this session has stopped.
            return;
        }
        let place = u32::try_from(self.numbers.len()).expect("fewer than 2^32 numbers");
        self.numbers.push(Number { number, next: None });
        let ends = list.ends.filter(|_| list.session == session && list.round == self.round);
        if let Some((_, last)) = ends {
            self.numbers[last as usize].next = Some(place);
        }
        *list = List { session, round: self.round, ends: Some((ends.map_or(place, |(first, _)| first), place)) };
    }

    /// Takes a session's numbers out of its list, and returns them in their order.
    fn take(&mut self, session: SessionId) -> impl Iterator<Item = u64> {
        let is_current = |list: &&mut List| list.session == session && list.round == self.round;
        let list = self.lists.get_mut(session.slot()).filter(is_current);
        let mut next = list.and_then(|list| list.ends.take()).map(|(first, _)| first);
        std::iter::from_fn(move || {
            let number = &self.numbers[next? as usize];
            next = number.next;
            Some(number.number)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::super::sessions::Sessions;
    use super::*;
    use crate::args::Args;
    use crate::name::Name;

    #[test] // also for a session that has the slot of one that has stopped, and with the index made anew
    fn events_of_a_session_are_found_as_in_a_list_that_is_searched() {
        let (mut posted, mut model) = (PostedEvents::default(), Vec::<(u64, SessionId, SessionId)>::new());
        let sessions = RefCell::new(Sessions::new());
        let create = |stopped: Option<SessionId>| {
            let mut sessions = sessions.borrow_mut();
            if let Some(id) = stopped {
                sessions.remove(id);
                sessions.free_slot(id.slot());
            }
            sessions.create(SessionId::KERNEL, "()").expect("there are few sessions")
        };
        let mut living: Vec<SessionId> = (0..20).map(|_| create(None)).collect();
        let mut random = 1_u32;
        for step in 0..20_000_u64 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let pick = |bits: u32| living[(random >> bits) as usize % living.len()];
            match (random >> 24) % 16 {
                // Long stretches without a stop, and then many of them.
                0 if step % 2000 < 500 => {
                    let stopped = pick(4);
                    let taken = posted.take_of(stopped);
                    let is_its = |(_, dest, sender): &(u64, SessionId, SessionId)| [*dest, *sender].contains(&stopped);
                    let expected: Vec<_> = model.extract_if(.., |event| is_its(event)).map(ends).collect();
                    assert_eq!(taken.iter().map(|event| (event.dest, event.sender)).collect::<Vec<_>>(), expected);
                    let place = living.iter().position(|id| *id == stopped).expect("it lives");
                    living[place] = create(Some(stopped));
                }
                1 if step % 500 == 0 => {
                    let unwanted = pick(8);
                    let taken = posted.take_where(|event| event.dest == unwanted);
                    let expected: Vec<_> = model.extract_if(.., |(_, dest, _)| *dest == unwanted).map(ends).collect();
                    assert_eq!(taken.iter().map(|event| (event.dest, event.sender)).collect::<Vec<_>>(), expected);
                }
                2..9 => {
                    let event = posted.pop().map(|event| (event.dest, event.sender));
                    assert_eq!(event, (!model.is_empty()).then(|| ends(model.remove(0))));
                    posted.forget_index();
                }
                _ => {
                    let mut event = Event::from_kernel(pick(4), Name::new("e"), Args::new());
                    event.sender = if random.is_multiple_of(3) { SessionId::KERNEL } else { pick(12) };
                    model.push((step, event.dest, event.sender));
                    let ends = sessions.borrow().hold_ends(event.dest, event.sender);
                    posted.push(Due::default(), step, event, ends);
                }
            }
            assert_eq!(posted.len(), model.len());
            assert_eq!(posted.first().map(|(_, seq)| seq), model.first().map(|(seq, ..)| *seq));
        }
    }

    fn ends((_, dest, sender): (u64, SessionId, SessionId)) -> (SessionId, SessionId) {
        (dest, sender)
    }
}

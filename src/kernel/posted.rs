//! The posted events: first in, first out, but those of a session that stops are taken out of the middle.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::clock::Due;
use super::queue::Event;
use super::sessions::SessionId;

/// The posted events in the order of their sequence numbers.
#[derive(Default)]
pub(super) struct PostedEvents {
    /// The first one has not been taken out.
    fifo: VecDeque<Posted>,
    /// How many were taken out of the middle and still have their place.
    gaps: usize,
    index: Index,
}

struct Posted {
    due: Due,
    seq: u64,
    /// `None` once it was taken out.
    event: Option<Event>,
}

/// Which events are to or from which session.
///
/// It is made when a session stops whose events wait, and not with each post: most events are dispatched. Every event
/// enters it once at most, so stopping all sessions costs no more than looking at each event.
#[derive(Default)]
struct Index {
    /// Sequence numbers, in order. Events that were dispatched since are still listed.
    of: FxHashMap<SessionId, Vec<u64>>,
    /// How many numbers `of` has.
    len: usize,
    /// Events from this number on are not listed yet.
    next: u64,
}

impl PostedEvents {
    /// Returns how many events wait.
    pub(super) fn len(&self) -> usize {
        self.fifo.len() - self.gaps
    }

    /// Appends an event. `due` must not go backwards from one post to the next, and `seq` must grow.
    #[inline]
    pub(super) fn push(&mut self, due: Due, seq: u64, event: Event) {
        self.fifo.push_back(Posted { due, seq, event: Some(event) });
    }

    /// Returns the due time and the sequence number of the first event.
    #[inline]
    pub(super) fn first(&self) -> Option<(Due, u64)> {
        self.fifo.front().map(|posted| (posted.due, posted.seq))
    }

    /// Takes the first event.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Event> {
        let event = self.fifo.pop_front()?.event;
        if self.gaps > 0 {
            self.close_first_gaps();
        }
        event
    }

    /// Takes out the events to and from a session.
    pub(super) fn take_of(&mut self, session: SessionId) -> Vec<Event> {
        self.list_new();
        let Some(numbers) = self.index.of.remove(&session) else { return Vec::new() };
        self.index.len -= numbers.len();
        let mut taken = Vec::new();
        for number in numbers {
            if let Ok(place) = self.fifo.binary_search_by_key(&number, |posted| posted.seq) {
                taken.extend(self.fifo[place].event.take());
            }
        }
        self.gaps += taken.len();
        self.close_first_gaps();
        taken
    }

    /// Takes out the events that `unwanted` picks, by looking at all of them.
    pub(super) fn take_where(&mut self, unwanted: impl Fn(&Event) -> bool) -> Vec<Event> {
        let mut taken = Vec::new();
        self.fifo.retain_mut(|posted| {
            if posted.event.as_ref().is_some_and(&unwanted) {
                taken.extend(posted.event.take());
            }
            posted.event.is_some()
        });
        self.gaps = 0;
        taken
    }

    /// Returns the events that wait, each with its due time and its sequence number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Due, u64, &Event)> {
        self.fifo.iter().filter_map(|posted| Some((posted.due, posted.seq, posted.event.as_ref()?)))
    }

    /// Gives back what the index takes when no event is left for it.
    pub(super) fn forget_index(&mut self) {
        if self.index.len > 0 && self.fifo.is_empty() {
            self.index = Index::default();
        }
    }

    fn close_first_gaps(&mut self) {
        while self.fifo.front().is_some_and(|posted| posted.event.is_none()) {
            self.fifo.pop_front();
            self.gaps -= 1;
        }
    }

    /// Brings the index up to date.
    fn list_new(&mut self) {
        // An event has two numbers at most. What more there is was dispatched: making the index anew costs less than that.
        if self.index.len > 4 * self.fifo.len() + SMALL_INDEX {
            self.index = Index::default();
        }
        let first = self.fifo.partition_point(|posted| posted.seq < self.index.next);
        for posted in self.fifo.range(first..) {
            self.index.next = posted.seq + 1;
            let Some(event) = &posted.event else { continue };
            let sender = Some(event.sender).filter(|sender| *sender != event.dest);
            // The kernel never stops.
            for session in [Some(event.dest), sender].into_iter().flatten().filter(|id| *id != SessionId::KERNEL) {
                self.index.of.entry(session).or_default().push(posted.seq);
                self.index.len += 1;
            }
        }
    }
}

/// An index of so many numbers is not worth being made anew.
const SMALL_INDEX: usize = 64;

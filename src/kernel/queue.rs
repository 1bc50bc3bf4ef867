//! The event queue: posted events in a FIFO, alarms in a heap, merged by due time and then sequence number.

use std::collections::VecDeque;
use std::panic::Location;

use super::alarm_heap::{Alarm, AlarmHeap, AlarmKey};
use super::clock::Due;
use super::sessions::SessionId;
use super::signals::Signal;
use crate::args::Args;
use crate::name::Name;

/// An event on its way to a session.
pub(crate) struct Event {
    pub(crate) dest: SessionId,
    pub(crate) sender: SessionId,
    pub(crate) name: Name,
    /// The state from which it was sent.
    pub(crate) from: Option<Name>,
    /// The statement that sent it.
    pub(crate) location: &'static Location<'static>,
    pub(crate) args: Args,
    pub(crate) kind: Kind,
}

/// What dispatching an event means.
pub(crate) enum Kind {
    /// A state of `dest` runs.
    Post,
    /// The same, from an alarm or delay.
    Alarm,
    /// `dest` and its descendants are visited.
    Signal(Box<Signal>),
    /// Nothing: queued at a session's creation so that it lives until the loop has seen it once (K-GC-04).
    StartUp,
    /// Nothing but that a source gets a turn: a listener that had to rest after it ran out of descriptors, a stream whose
    /// time for closing is up.
    Retry(super::source::SourceKey),
}

/// An event in the FIFO.
struct Posted {
    due: Due,
    seq: u64,
    event: Event,
}

/// One queue phase: what [`EventQueue::next_in`] finds.
pub(crate) struct Phase {
    now: Due,
    /// The first sequence number that belongs to the next phase.
    boundary: u64,
    /// In a slice that a state runs: the `now` of the phase in which that state runs.
    outer: Option<Due>,
}

/// Which event is next. It is told before it is taken: wrapped in results on its way up, an event would be copied at
/// each, and that is slow as processors go.
pub(crate) enum Next {
    Posted,
    Alarm(AlarmKey),
}

/// All that waits to be dispatched.
pub(crate) struct EventQueue {
    fifo: VecDeque<Posted>,
    alarms: AlarmHeap,
    next_seq: u64,
    /// While a queue phase runs: its `now`.
    phase: Option<Due>,
    /// Alarms set during the queue phase that are due already. They wait for the next one, outside the heap, so that an
    /// alarm that sets itself in the past for ever can't starve the sources.
    fresh: Vec<AlarmKey>,
}

impl EventQueue {
    pub(crate) fn new() -> EventQueue {
        EventQueue { fifo: VecDeque::new(), alarms: AlarmHeap::new(), next_seq: 1, phase: None, fresh: Vec::new() }
    }

    /// Returns how many events wait, alarms included.
    pub(crate) fn len(&self) -> usize {
        self.fifo.len() + self.alarms.len()
    }

    /// Appends a posted event. `now` must not go backwards from one post to the next.
    #[inline]
    pub(crate) fn post(&mut self, now: Due, event: Event) {
        let seq = self.take_seq();
        self.fifo.push_back(Posted { due: now, seq, event });
    }

    /// Adds an alarm; `serial` is its identity for good.
    pub(crate) fn set_alarm(&mut self, due: Due, event: Event) -> (AlarmKey, u64) {
        let seq = self.take_seq();
        let key = self.alarms.store(due, seq, event);
        self.place_alarm(key, due, seq);
        (key, seq)
    }

    /// Gives a pending alarm another due time, behind those that have it already.
    pub(crate) fn move_alarm(&mut self, key: AlarmKey, due: Due) {
        if self.alarms.get(key).is_some_and(|alarm| alarm.due() != due) {
            let seq = self.take_seq();
            self.fresh.retain(|fresh| *fresh != key);
            self.place_alarm(key, due, seq);
        }
    }

    pub(crate) fn remove_alarm(&mut self, key: AlarmKey) -> Option<Alarm> {
        if !self.fresh.is_empty() {
            self.fresh.retain(|fresh| *fresh != key);
        }
        self.alarms.remove(key)
    }

    pub(crate) fn alarm(&self, key: AlarmKey) -> Option<&Alarm> {
        self.alarms.get(key)
    }

    pub(crate) fn alarm_mut(&mut self, key: AlarmKey) -> Option<&mut Alarm> {
        self.alarms.get_mut(key)
    }

    /// Opens a queue phase: what is queued and due at `now` is this slice's work.
    pub(crate) fn begin_phase(&mut self, now: Due) -> Phase {
        let outer = self.phase.take();
        // In a slice that a state runs: what the outer phase has put off is due in this one.
        self.place_fresh();
        self.phase = Some(now);
        Phase { now, boundary: self.next_seq, outer }
    }

    /// Finds the next event that was queued before the phase began and is due in it.
    #[inline]
    pub(crate) fn next_in(&self, phase: &Phase) -> Option<Next> {
        let Phase { now, boundary, .. } = *phase;
        let posted = self.fifo.front().filter(|posted| posted.seq < boundary && posted.due <= now);
        let posted = posted.map(|posted| (posted.due, posted.seq));
        // An alarm that was moved or set since the phase began waits in `fresh` if it is due, and isn't here.
        let alarm = self.alarms.first().filter(|(due, seq)| *due <= now && *seq < boundary);
        let take_alarm = match (posted, alarm) {
            (None, None) => return None,
            (Some(_), None) => false,
            (None, Some(_)) => true,
            (Some(posted), Some(alarm)) => alarm < posted,
        };
        if take_alarm { self.alarms.first_key().map(Next::Alarm) } else { Some(Next::Posted) }
    }

    /// Returns when the first alarm is due, those left out that wait for the next phase.
    #[inline]
    pub(crate) fn first_alarm(&self) -> Option<Due> {
        self.alarms.first().map(|(due, _)| due)
    }

    /// Takes the first of the posted events.
    #[inline]
    pub(crate) fn pop_posted(&mut self) -> Option<Event> {
        self.fifo.pop_front().map(|posted| posted.event)
    }

    /// Takes the alarm that [`next_in`](EventQueue::next_in) found: one that is next is not in `fresh`.
    pub(crate) fn pop_alarm(&mut self, key: AlarmKey) -> Option<Alarm> {
        self.alarms.remove(key)
    }

    /// Closes a queue phase; in a slice that a state runs, the outer one goes on.
    pub(crate) fn end_phase(&mut self, phase: &Phase) {
        self.phase = phase.outer;
        self.place_fresh();
    }

    /// Returns when the first event is due.
    pub(crate) fn next_due(&self) -> Option<Due> {
        let posted = self.fifo.front().map(|posted| posted.due);
        let alarm = self.alarms.first().map(|(due, _)| due);
        let fresh = self.fresh.iter().filter_map(|key| self.alarms.get(*key)).map(Alarm::due);
        posted.into_iter().chain(alarm).chain(fresh).min()
    }

    /// Takes out the posted events that `unwanted` picks.
    pub(crate) fn remove_posted(&mut self, unwanted: impl Fn(&Event) -> bool) -> Vec<Event> {
        let (gone, kept) = std::mem::take(&mut self.fifo).into_iter().partition(|posted| unwanted(&posted.event));
        self.fifo = kept;
        let gone: VecDeque<Posted> = gone;
        gone.into_iter().map(|posted| posted.event).collect()
    }

    /// Returns everything that waits, in the order in which it will be dispatched, with ids and due times.
    pub(crate) fn entries(&self) -> Vec<(Due, u64, &Event)> {
        let posted = self.fifo.iter().map(|posted| ((posted.due, posted.seq), posted.seq, &posted.event));
        let alarms = self.alarms.iter().map(|(_, alarm)| (alarm.order(), alarm.serial, &alarm.event));
        let mut all: Vec<_> = posted.chain(alarms).collect();
        all.sort_by_key(|(order, ..)| *order);
        all.into_iter().map(|((due, _), id, event)| (due, id, event)).collect()
    }

    fn place_alarm(&mut self, key: AlarmKey, due: Due, seq: u64) {
        if self.phase.is_some_and(|now| due <= now) {
            self.alarms.set_aside(key, due, seq);
            self.fresh.push(key);
        } else {
            self.alarms.schedule(key, due, seq);
        }
    }

    /// Puts the alarms that a phase has put off where they belong now.
    fn place_fresh(&mut self) {
        for key in std::mem::take(&mut self.fresh) {
            if let Some((due, seq)) = self.alarms.get(key).map(Alarm::order) {
                self.place_alarm(key, due, seq);
            }
        }
    }

    fn take_seq(&mut self) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        seq
    }
}

//! The event queue: posted events in a FIFO, alarms in a heap, merged by due time and then sequence number.

use std::panic::Location;

use super::alarm_heap::{Alarm, AlarmHeap, AlarmKey, Turn};
use super::clock::{Due, earlier};
use super::holds::{EventTo, Hold};
use super::posted::PostedEvents;
use super::sessions::{Ends, SessionId};
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
    /// A state of `dest` runs, because an alarm or a delay is due.
    Alarm,
    /// `dest` and its descendants are visited.
    Signal(Box<Signal>),
    /// Nothing happens. Queued when a session is created, so that it lives until the loop has seen it once (K-GC-04).
    StartUp,
}

/// One queue phase: what [`EventQueue::next_in`] finds.
pub(crate) struct Phase {
    now: Due,
    /// The first sequence number that belongs to the next phase.
    boundary: u64,
    /// In a slice that a state runs: the `now` of the phase in which that state runs.
    outer: Option<Due>,
}

/// Which event is next. The event itself is taken later: wrapped in a result, it would be copied at each level on its
/// way up, which is slow.
pub(crate) enum Next {
    Posted,
    Alarm(AlarmKey),
}

/// All events that wait to be dispatched.
pub(crate) struct EventQueue {
    posted: PostedEvents,
    alarms: AlarmHeap,
    next_seq: u64,
    /// While a queue phase runs: its `now`. Alarms that are set during the phase and are already due wait for the next
    /// phase, so that an alarm which again and again sets itself in the past can't starve the sources.
    phase: Option<Due>,
}

impl EventQueue {
    pub(crate) fn new() -> EventQueue {
        EventQueue { posted: PostedEvents::default(), alarms: AlarmHeap::new(), next_seq: 1, phase: None }
    }

    /// Returns how many events wait, alarms included.
    pub(crate) fn len(&self) -> usize {
        self.posted.len() + self.alarms.len()
    }

    /// Appends a posted event, which keeps its `ends` alive as long as it waits. `now` must not go backwards from one post to
    /// the next.
    #[inline]
    pub(crate) fn post(&mut self, now: Due, event: Event, ends: Ends) {
        let seq = self.take_seq();
        self.posted.push(now, seq, event, ends);
    }

    /// Adds an alarm, which keeps its session alive; `serial` is its identity for good.
    pub(crate) fn set_alarm(&mut self, due: Due, event: Event, hold: Option<Hold<EventTo>>) -> (AlarmKey, u64) {
        let seq = self.take_seq();
        let key = self.alarms.store(due, seq, event, hold);
        self.place_alarm(key, due, seq);
        (key, seq)
    }

    /// Gives a pending alarm another due time, behind the alarms that already have that due time.
    pub(crate) fn move_alarm(&mut self, key: AlarmKey, due: Due) {
        if self.alarms.get(key).is_some_and(|alarm| alarm.due() != due) {
            let seq = self.take_seq();
            self.place_alarm(key, due, seq);
        }
    }

    pub(crate) fn remove_alarm(&mut self, key: AlarmKey) -> Option<Alarm> {
        self.alarms.remove(key)
    }

    pub(crate) fn alarm(&self, key: AlarmKey) -> Option<&Alarm> {
        self.alarms.get(key)
    }

    pub(crate) fn alarm_mut(&mut self, key: AlarmKey) -> Option<&mut Alarm> {
        self.alarms.get_mut(key)
    }

    /// Opens a queue phase: the events that are queued and due at `now` are this slice's work.
    pub(crate) fn begin_phase(&mut self, now: Due) -> Phase {
        let outer = self.phase.take();
        // In a slice that a state runs: the alarms that the outer phase has put off are due in this phase.
        self.place_those_put_off();
        self.phase = Some(now);
        Phase { now, boundary: self.next_seq, outer }
    }

    /// Finds the next event that was queued before the phase began and is due in it.
    #[inline]
    pub(crate) fn next_in(&self, phase: &Phase) -> Option<Next> {
        let Phase { now, boundary, .. } = *phase;
        let posted = self.posted.first().filter(|(due, seq)| *due <= now && *seq < boundary);
        // An alarm that was moved or set since the phase began waits for the next phase, even if it is due.
        let alarm = self.alarms.first(Turn::This).filter(|(due, seq)| *due <= now && *seq < boundary);
        let take_alarm = match (posted, alarm) {
            (None, None) => return None,
            (Some(_), None) => false,
            (None, Some(_)) => true,
            (Some(posted), Some(alarm)) => alarm < posted,
        };
        if take_alarm { self.alarms.first_key(Turn::This).map(Next::Alarm) } else { Some(Next::Posted) }
    }

    /// Returns when the first alarm is due, apart from those that the running phase has found due and put off.
    #[inline]
    pub(crate) fn first_alarm(&self) -> Option<Due> {
        self.alarms.first(Turn::This).map(|(due, _)| due)
    }

    /// Takes the first of the posted events.
    #[inline]
    pub(crate) fn pop_posted(&mut self) -> Option<Event> {
        self.posted.pop()
    }

    /// Takes the alarm that [`next_in`](EventQueue::next_in) found.
    pub(crate) fn pop_alarm(&mut self, key: AlarmKey) -> Option<Alarm> {
        self.alarms.remove(key)
    }

    /// Closes a queue phase. In a slice that a state runs, the outer phase goes on.
    pub(crate) fn end_phase(&mut self, phase: &Phase) {
        self.phase = phase.outer;
        self.place_those_put_off();
        self.posted.forget_index();
    }

    /// Returns when the first event is due.
    pub(crate) fn next_due(&self) -> Option<Due> {
        let due = |first: Option<(Due, u64)>| first.map(|(due, _)| due);
        let [this, next] = [Turn::This, Turn::Next].map(|turn| due(self.alarms.first(turn)));
        earlier(due(self.posted.first()), earlier(this, next))
    }

    /// Takes out the posted events to and from a session.
    pub(crate) fn remove_posted_of(&mut self, session: SessionId) -> Vec<Event> {
        self.posted.take_of(session)
    }

    /// Takes out the posted events that `unwanted` picks.
    pub(crate) fn remove_posted(&mut self, unwanted: impl Fn(&Event) -> bool) -> Vec<Event> {
        self.posted.take_where(unwanted)
    }

    /// Returns everything that waits, in the order in which it will be dispatched, with ids and due times.
    pub(crate) fn entries(&self) -> Vec<(Due, u64, &Event)> {
        let posted = self.posted.iter().map(|(due, seq, event)| ((due, seq), seq, event));
        let alarms = self.alarms.iter().map(|alarm| (alarm.order(), alarm.serial, &alarm.event));
        let mut all: Vec<_> = posted.chain(alarms).collect();
        all.sort_by_key(|(order, ..)| *order);
        all.into_iter().map(|((due, _), id, event)| (due, id, event)).collect()
    }

    fn place_alarm(&mut self, key: AlarmKey, due: Due, seq: u64) {
        let turn = if self.phase.is_some_and(|now| due <= now) { Turn::Next } else { Turn::This };
        self.alarms.schedule(key, turn, due, seq);
    }

    /// Puts the alarms that a phase has put off where they belong now.
    #[inline]
    fn place_those_put_off(&mut self) {
        if self.alarms.first(Turn::Next).is_some() {
            self.place_all_put_off();
        }
    }

    #[cold]
    fn place_all_put_off(&mut self) {
        for key in self.alarms.of_next_turn() {
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

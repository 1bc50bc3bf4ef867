//! Alarms and delays, by name and by id.

use std::fmt;
use std::panic::Location;
use std::time::{Duration, SystemTime};

use super::alarm_heap::{Alarm, AlarmKey};
use super::clock::{Due, nanos};
use super::core::{Active, Core};
use super::queue::{Event, Kind, Next, Phase};
use super::sessions::SessionId;
use crate::args::{Args, IntoArgs};
use crate::calls::calls;
use crate::error::Error;
use crate::name::Name;

/// Identifies one alarm or delay until it fires or is removed.
///
/// Using the id after that, or with another kernel, is an error.
///
/// POE: the number that `alarm_set` and `delay_set` return.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AlarmId {
    /// The session that set it. No other kernel has a session of this id.
    session: SessionId,
    key: AlarmKey,
    serial: u64,
}

impl AlarmId {
    /// The id of no alarm: serial numbers begin with 1.
    pub(super) const NONE: AlarmId = AlarmId { session: SessionId::KERNEL, key: 0, serial: 0 };
}

impl fmt::Display for AlarmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "alarm {}", self.serial)
    }
}

/// By how much, and which way, [`Context::alarm_adjust`](crate::Context::alarm_adjust) moves an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shift {
    /// Towards the past.
    Earlier(Duration),
    /// Towards the future.
    Later(Duration),
}

/// An alarm that was removed before it fired.
#[derive(Debug)]
#[non_exhaustive]
pub struct RemovedAlarm {
    /// The event that it would have sent.
    pub event: Name,
    /// The time at which it would have sent the event.
    pub due: SystemTime,
    /// The arguments that the event would have had.
    pub args: Args,
}

calls! {
    /// Alarms and delays.
    for a running session, with self:

    /// Replaces all of the running session's alarms named `event` with one that is due at the wall-clock time `when`.
    ///
    /// An alarm for a time in the past is due at once, and its event goes before the events that were posted after that
    /// time. An event that was posted while no alarm was set counts as posted when the kernel last read the clock,
    /// which is usually the beginning of the slice.
    ///
    /// POE: `alarm` with a time.
    #[track_caller]
    pub fn alarm(&mut self, event: impl Into<Name>, when: SystemTime, args: impl IntoArgs) {
        let event = event.into();
        self.clear_alarms(event);
        let due = self.wall_due(when);
        self.set(event, due, args.into_args(), Location::caller());
    }

    /// Sets one more alarm of the running session, due at the wall-clock time `when`.
    ///
    /// POE: `alarm_add`.
    #[track_caller]
    pub fn alarm_add(&mut self, event: impl Into<Name>, when: SystemTime, args: impl IntoArgs) {
        let due = self.wall_due(when);
        self.set(event.into(), due, args.into_args(), Location::caller());
    }

    /// Sets one more alarm of the running session, due at the wall-clock time `when`, and returns its id.
    ///
    /// POE: `alarm_set`.
    #[track_caller]
    pub fn alarm_set(&mut self, event: impl Into<Name>, when: SystemTime, args: impl IntoArgs) -> AlarmId {
        let due = self.wall_due(when);
        self.set(event.into(), due, args.into_args(), Location::caller())
    }

    /// Replaces all of the running session's alarms named `event` with one that is due `after` from now.
    ///
    /// POE: `delay` with a time, in seconds.
    #[track_caller]
    pub fn delay(&mut self, event: impl Into<Name>, after: Duration, args: impl IntoArgs) {
        let event = event.into();
        self.clear_alarms(event);
        self.delay_at(event, after, args.into_args(), Location::caller());
    }

    /// Sets one more alarm of the running session, due `after` from now.
    ///
    /// POE: `delay_add`.
    #[track_caller]
    pub fn delay_add(&mut self, event: impl Into<Name>, after: Duration, args: impl IntoArgs) {
        self.delay_at(event.into(), after, args.into_args(), Location::caller());
    }

    /// Sets one more alarm of the running session, due `after` from now, and returns its id.
    ///
    /// POE: `delay_set`.
    #[track_caller]
    pub fn delay_set(&mut self, event: impl Into<Name>, after: Duration, args: impl IntoArgs) -> AlarmId {
        self.delay_at(event.into(), after, args.into_args(), Location::caller())
    }

    /// Removes all of the running session's alarms and delays named `event`, and returns how many there were.
    ///
    /// It does not matter by which call they were set. Posted events of that name stay.
    ///
    /// POE: `alarm` without a time.
    pub fn alarm_clear(&mut self, event: impl Into<Name>) -> usize {
        self.clear_alarms(event.into())
    }

    /// Does the same as [`alarm_clear`](crate::Context::alarm_clear).
    ///
    /// POE: `delay` without a time.
    pub fn delay_clear(&mut self, event: impl Into<Name>) -> usize {
        self.clear_alarms(event.into())
    }

    /// Moves a pending alarm or delay of the running session, and returns its new due time.
    ///
    /// The alarm goes behind other alarms that are due at the same time. A shift of zero changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchAlarm`] once it has fired or been removed; [`Error::NotYourAlarm`] if another session set it.
    ///
    /// POE: `alarm_adjust`.
    pub fn alarm_adjust(&mut self, alarm: AlarmId, shift: Shift) -> Result<SystemTime, Error> {
        let due = self.own_alarm(alarm)?.due();
        let due = match shift {
            Shift::Earlier(span) => due.saturating_sub(nanos(span)),
            Shift::Later(span) => due.saturating_add(nanos(span)),
        };
        self.queue.move_alarm(alarm.key, due);
        Ok(self.clock.to_wall(due))
    }

    /// Moves a pending alarm or delay of the running session to `after` from now, and returns its new due time.
    ///
    /// # Errors
    ///
    /// As [`alarm_adjust`](crate::Context::alarm_adjust).
    ///
    /// POE: `delay_adjust`, which does not say why it failed.
    pub fn delay_adjust(&mut self, alarm: AlarmId, after: Duration) -> Result<SystemTime, Error> {
        self.own_alarm(alarm)?;
        let due = self.clock.advance().saturating_add(nanos(after));
        self.queue.move_alarm(alarm.key, due);
        Ok(self.clock.to_wall(due))
    }

    /// Removes a pending alarm or delay of the running session, and returns it.
    ///
    /// # Errors
    ///
    /// As [`alarm_adjust`](crate::Context::alarm_adjust).
    ///
    /// POE: `alarm_remove`.
    pub fn alarm_remove(&mut self, alarm: AlarmId) -> Result<RemovedAlarm, Error> {
        self.own_alarm(alarm)?;
        let removed = self.drop_alarm(alarm.key).ok_or(Error::NoSuchAlarm(alarm))?;
        let due = self.clock.to_wall(removed.due());
        Ok(RemovedAlarm { event: removed.event.name, due, args: removed.event.args })
    }

    /// Removes all alarms and delays of the running session, and returns them in the order in which they were due.
    ///
    /// POE: `alarm_remove_all`.
    pub fn alarm_remove_all(&mut self) -> Vec<RemovedAlarm> {
        let mut removed = self.drop_alarms_of(self.active.session);
        removed.sort_by_key(Alarm::order);
        let wall = |alarm: Alarm| RemovedAlarm {
            event: alarm.event.name,
            due: self.clock.to_wall(alarm.due()),
            args: alarm.event.args,
        };
        removed.into_iter().map(wall).collect()
    }
}

impl Core {
    /// Takes the next event that is due. From now on the event keeps no session alive.
    #[inline]
    pub(crate) fn pop_due(&mut self, phase: &Phase) -> Option<Event> {
        match self.queue.next_in(phase)? {
            Next::Posted => self.queue.pop_posted(),
            Next::Alarm(key) => {
                let alarm = self.queue.pop_alarm(key)?;
                self.unlink(key, &alarm);
                Some(alarm.event)
            }
        }
    }

    /// Tells whether an alarm has neither fired nor been removed.
    #[inline]
    pub(crate) fn is_pending(&self, id: AlarmId) -> bool {
        self.queue.alarm(id.key).is_some_and(|alarm| alarm.serial == id.serial && alarm.event.dest == id.session)
    }

    /// Lets the program count as idle although an alarm for `event` of this session is set. At most one such alarm may
    /// be set at a time.
    pub(crate) fn let_alarms_pass(&mut self, session: SessionId, event: Name) {
        self.passing.push((session, event));
    }

    /// Tells whether all that waits is passing alarms and events for background sessions.
    pub(super) fn has_only_passing_alarms(&self) -> bool {
        let waiting = self.queue.len() - self.sessions.ledger.background_events();
        let passes = |event: &Event| {
            matches!(event.kind, Kind::Alarm) && self.passing.contains(&(event.dest, event.name))
                || self.sessions.is_background(event.dest)
        };
        // There are few passing alarms, so this looks at few entries.
        waiting == 0
            || waiting <= self.passing.len() && self.queue.entries().into_iter().all(|(.., event)| passes(event))
    }

    /// Removes every alarm of a session.
    pub(crate) fn drop_alarms_of(&mut self, session: SessionId) -> Vec<Alarm> {
        let Some(record) = self.sessions.get_mut(session) else { return Vec::new() };
        let mut removed = Vec::new();
        for (_, first) in record.timers.take_all() {
            let mut next = Some(first);
            while let Some(alarm) = next.and_then(|key| self.queue.remove_alarm(key)) {
                next = alarm.next;
                removed.push(alarm);
            }
        }
        removed
    }

    /// Converts an absolute time, and reads the clock, so that what is posted from now on is stamped with this moment.
    fn wall_due(&mut self, when: SystemTime) -> Due {
        self.clock.advance();
        self.clock.at_wall(when)
    }

    fn delay_at(&mut self, event: Name, after: Duration, args: Args, location: &'static Location<'static>) -> AlarmId {
        // A delay counts from this call: the slice may have begun long ago.
        let due = self.clock.advance().saturating_add(nanos(after));
        self.set(event, due, args, location)
    }

    fn set(&mut self, name: Name, due: Due, args: Args, location: &'static Location<'static>) -> AlarmId {
        let Active { session, event: from } = self.active;
        let event = Event { dest: session, sender: session, name, from, location, args, kind: Kind::Alarm };
        let (key, serial) = self.queue.set_alarm(due, event, self.sessions.hold(session));
        self.link(session, name, key);
        AlarmId { session, key, serial }
    }

    fn clear_alarms(&mut self, name: Name) -> usize {
        let me = self.active.session;
        let mut count = 0;
        while let Some(key) = self.first_of(me, name) {
            self.drop_alarm(key);
            count += 1;
        }
        count
    }

    fn own_alarm(&self, id: AlarmId) -> Result<&Alarm, Error> {
        let alarm = self.queue.alarm(id.key).filter(|_| self.is_pending(id)).ok_or(Error::NoSuchAlarm(id))?;
        if alarm.event.dest != self.active.session {
            return Err(Error::NotYourAlarm(id));
        }
        Ok(alarm)
    }

    fn drop_alarm(&mut self, key: AlarmKey) -> Option<Alarm> {
        let alarm = self.queue.remove_alarm(key)?;
        self.unlink(key, &alarm);
        Some(alarm)
    }

    fn first_of(&self, session: SessionId, name: Name) -> Option<AlarmKey> {
        self.sessions.get(session)?.timers.get(name).copied()
    }

    /// Puts an alarm at the head of its session's alarms of that name.
    fn link(&mut self, session: SessionId, name: Name, key: AlarmKey) {
        let Some(record) = self.sessions.get_mut(session) else { return };
        let Some(old) = record.timers.insert(name, key) else { return };
        if let Some(alarm) = self.queue.alarm_mut(key) {
            alarm.next = Some(old);
        }
        if let Some(alarm) = self.queue.alarm_mut(old) {
            alarm.prev = Some(key);
        }
    }

    /// Takes a removed alarm out of its session's list.
    fn unlink(&mut self, key: AlarmKey, alarm: &Alarm) {
        if let Some(before) = alarm.prev.and_then(|prev| self.queue.alarm_mut(prev)) {
            before.next = alarm.next;
        }
        if let Some(after) = alarm.next.and_then(|next| self.queue.alarm_mut(next)) {
            after.prev = alarm.prev;
        }
        if alarm.prev.is_some() {
            return;
        }
        let Some(record) = self.sessions.get_mut(alarm.event.dest) else { return };
        // The kernel's own alarms are in no list.
        let Some(first) = record.timers.get_mut(alarm.event.name).filter(|first| **first == key) else { return };
        match alarm.next {
            Some(next) => *first = next,
            None => drop(record.timers.remove(alarm.event.name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Kernel;
    use crate::session::Session;

    #[test]
    fn alarm_that_passes_does_not_keep_the_program_from_being_idle() {
        let mut kernel = Kernel::new().expect("a kernel");
        let session = Session::new(())
            .state("_start", |cx| {
                let me = cx.session();
                cx.core_mut().let_alarms_pass(me, Name::new("tick"));
                cx.delay("tick", Duration::from_secs(3600), ());
            })
            .state("other", |cx| cx.delay("other", Duration::from_secs(3600), ()))
            .state("only_tick", |cx| {
                cx.delay_clear("other");
            })
            .spawn(&mut kernel)
            .expect("a session");
        for (event, is_idle) in [("only_tick", true), ("other", false), ("only_tick", true)] {
            kernel.post(session, event, ()).expect("it lives");
            kernel.run_one_timeslice().expect("a slice");
            assert_eq!(kernel.core.is_idle(), is_idle, "{event}");
        }
        assert!(!kernel.core.passing.is_empty());
        kernel.stop();
        assert!(kernel.core.passing.is_empty());
    }
}

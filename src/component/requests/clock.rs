//! The time limits of a connection, which depend on what it has in hand.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use super::{CLOCK, Cx, cx_now};
use crate::component::accepted::shutdown;
use crate::component::connection::{Connection, Link};
use crate::component::load::NEW;
use crate::component::protocol::Protocol;
use crate::error::Result;
use crate::filter::Filter;
use crate::kernel::{Due, nanos};

impl<F: Filter, H: 'static> Protocol<F, H> {
    /// Returns when there is something to be done if nothing happens until then.
    fn next_due(&self, heap: &Connection<F, H>) -> Option<Due> {
        let requests = &heap.requests;
        let after = |from: Due, span: Option<Duration>| Some(from.saturating_add(nanos(span?)));
        let first = |one: Option<Due>, other: Option<Due>| one.into_iter().chain(other).min();
        match (requests.in_hand() > 0, requests.is_arriving, requests.is_ending) {
            (true, _, _) => after(requests.since, self.request_timeout),
            (false, true, is_ending) => {
                let pause = if is_ending { Some(REST) } else { self.idle_timeout };
                first(after(requests.since, self.arrival()), after(requests.looked, pause))
            }
            (false, false, true) => after(requests.since, Some(requests.way())),
            // Looking is the only way to see that a request has begun to come.
            (false, false, false) => {
                first(after(requests.since, self.idle_timeout), after(requests.looked, self.arrival()))
            }
        }
    }

    /// Returns how long a request may take to come as a whole.
    fn arrival(&self) -> Option<Duration> {
        self.arrival_timeout.or(self.request_timeout)
    }

    /// Has the connection looked at in time. The alarm is moved only if it would be too late: where one request follows the other,
    /// it is set once in the time that one may take.
    #[inline]
    pub(super) fn set_clock(&self, cx: &mut Cx<'_, F, H>) {
        let is_limited = self.idle_timeout.or(self.arrival()).is_some();
        if !is_limited && !cx.heap().requests.is_ending {
            return;
        }
        let now = cx_now(cx);
        let heap = cx.heap();
        let Some(due) = self.next_due(heap).filter(|_| heap.is_connected() && !heap.is_shutting_down) else { return };
        let (set, alarm) = (heap.requests.due, heap.requests.alarm);
        let alarm = alarm.filter(|alarm| cx.core().is_pending(*alarm));
        if alarm.is_some() && set.is_some_and(|set| set <= due) {
            return;
        }
        self.set_alarm(cx, due, Duration::from_nanos(u64::try_from(due.saturating_sub(now)).unwrap_or(0)));
    }

    /// Sets the alarm to a time that is `after` from now.
    fn set_alarm(&self, cx: &mut Cx<'_, F, H>, due: Due, after: Duration) {
        let alarm = cx.heap().requests.alarm;
        let is_moved = alarm.is_some_and(|alarm| cx.delay_adjust(alarm, after).is_ok());
        let alarm = if is_moved { alarm } else { Some(cx.delay_set(CLOCK, after, ())) };
        let requests = &mut cx.heap().requests;
        (requests.due, requests.alarm) = (Some(due), alarm);
    }

    /// The alarm: a connection is idle for too long, or a request takes too long, or it was set for something else.
    pub(in crate::component) fn look_at_clock(&self, cx: &mut Cx<'_, F, H>) -> Result {
        let now = cx_now(cx);
        let heap = cx.heap();
        (heap.requests.due, heap.requests.alarm) = (None, None);
        if matches!(heap.link, Link::Securing(_)) && heap.requests.is_ending {
            return self.look_at_handshake(cx, now);
        }
        let is_due = self.next_due(heap).is_some_and(|due| due <= now);
        if !is_due || heap.is_shutting_down || !heap.is_connected() {
            self.set_clock(cx);
            return Ok(());
        }
        let is_busy = heap.requests.in_hand() > 0;
        if !is_busy && self.is_in_time(heap, now) {
            self.set_clock(cx);
            return Ok(());
        }
        let is_late = is_busy || heap.requests.is_arriving;
        if !is_late && heap.requests.is_ending && heap.is_idle(now) {
            return self.let_go(cx);
        }
        let callback = match (is_late, heap.requests.is_ending) {
            (true, _) => &self.callbacks.on_request_timeout,
            (false, false) => &self.callbacks.on_idle,
            (false, true) => &None,
        };
        let told = catch_unwind(AssertUnwindSafe(|| callback.as_ref().map_or(Ok(()), |callback| callback(cx))));
        // Also if the callback has panicked: its time is over for good.
        cx.heap().is_shutting_down = true;
        cx.yield_("shutdown", ());
        self.count_off(cx);
        told.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Limits a handshake at the end of a process: the client may have a request, but may not hold up the end for the time that
    /// handshakes have.
    pub(in crate::component) fn limit_handshake(&self, cx: &mut Cx<'_, F, H>) {
        let now = cx_now(cx);
        let octets = cx.heap().octets();
        cx.heap().requests.rest(now, octets);
        self.set_alarm(cx, now.saturating_add(nanos(NEW)), NEW);
    }

    /// The alarm during a handshake. A client that has not sent anything in a moment has no request.
    fn look_at_handshake(&self, cx: &mut Cx<'_, F, H>, now: Due) -> Result {
        let heap = cx.heap();
        let has_spoken = heap.octets() > 0 || heap.has_input();
        let due = heap.requests.since.saturating_add(nanos(REST));
        if has_spoken && now < due {
            self.set_alarm(cx, due, Duration::from_nanos(u64::try_from(due - now).unwrap_or(0)));
            return Ok(());
        }
        if let Link::Securing(wheel) = &heap.link {
            wheel.close_without_waiting();
        }
        shutdown(self, cx)
    }

    /// Looks what has come without being a whole request, and tells whether the client still has time. For a time at which
    /// something is due.
    fn is_in_time(&self, heap: &mut Connection<F, H>, now: Due) -> bool {
        let octets = heap.octets();
        // A client that does not read its answers is not read from.
        let is_unread = heap.has_no_output() && heap.has_input();
        let has_come = is_unread || octets > heap.requests.octets;
        let is_arriving = is_unread || heap.has_begun();
        let is_within =
            |from: Due, span: Option<Duration>| span.is_none_or(|span| now < from.saturating_add(nanos(span)));
        let requests = &mut heap.requests;
        let (was_arriving, is_ending) = (requests.is_arriving, requests.is_ending);
        (requests.octets, requests.looked, requests.is_arriving) = (octets, now, is_arriving);
        let begins_anew = match (was_arriving, is_arriving) {
            // The time for a whole request does not begin anew with each part of it.
            (true, true) => return has_come && is_within(requests.since, self.arrival()),
            (false, true) => has_come || is_ending || self.arrival().is_some(),
            // The client has sent something else than a request, such as an empty line.
            (_, false) => has_come && !is_ending,
        };
        if begins_anew {
            requests.since = now;
        }
        begins_anew || (!is_arriving && !is_ending && is_within(requests.since, self.idle_timeout))
    }
}

/// How long the end of a process waits for a request that has begun to come and does not go on.
const REST: Duration = Duration::from_secs(5);

//! What a connection has in hand: requests that begin and end.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::accepted::shutdown;
use super::connection::{Connection, Link};
use super::load::{InHand, NEW, PAUSE};
use super::protocol::Protocol;
use crate::error::Result;
use crate::filter::Filter;
use crate::kernel::{AlarmId, Context, Due, Postback, SessionId, has_input, nanos};
use crate::wheel::ReadWrite;

mod clock;

/// What a connection knows of its requests. The program changes it while the component's own states do not run, so part of it
/// are cells.
#[derive(Default)]
pub(super) struct Requests {
    in_hand: Cell<u32>,
    /// The program says itself when requests begin and end.
    is_explicit: Cell<bool>,
    /// The record that is being handled has begun the request in hand.
    is_of_record: Cell<bool>,
    /// The component looks when the running callback has returned.
    is_looked_at: Cell<bool>,
    /// Has the component look when something has ended at another time.
    look: Option<Postback>,
    /// Something is in hand, as of the last look.
    counted: Option<InHand>,
    /// Since when something is in hand, or a part of a request is there, or neither and nothing has come.
    since: Due,
    /// A part of a request is there, as of the last look.
    is_arriving: bool,
    /// How many bytes had come by the last record, or the last look.
    octets: u64,
    /// When the last record came, or the last look was.
    looked: Due,
    /// It has sent a record.
    has_spoken: bool,
    /// When the connection is looked at.
    due: Option<Due>,
    /// The alarm for that, unless the program has taken it back with all of its own.
    alarm: Option<AlarmId>,
    /// The process ends, or wants to have the connection back: the request in hand is the last.
    pub(super) is_ending: bool,
}

impl Requests {
    /// The program has put something: an answer, unless it says itself what one is.
    #[inline]
    pub(super) fn put(&self) {
        if self.in_hand.get() > 0 && !self.is_explicit.get() {
            self.in_hand.set(0);
            self.ask_for_look();
        }
    }

    pub(super) fn begin(&self) {
        let before = if self.is_explicit.replace(true) { self.in_hand.get() } else { 0 };
        self.in_hand.set(before + 1);
    }

    pub(super) fn end(&self) {
        self.is_explicit.set(true);
        self.in_hand.set(self.in_hand.get().saturating_sub(1));
        self.ask_for_look();
    }

    /// The record that is being handled is none. Other requests stay in hand.
    pub(super) fn take_back(&self) {
        if self.is_of_record.replace(false) && !self.is_explicit.get() {
            self.in_hand.set(0);
        }
    }

    pub(super) fn in_hand(&self) -> u32 {
        self.in_hand.get()
    }

    /// Returns for how long the next request may be on its way.
    fn way(&self) -> Duration {
        if self.has_spoken { PAUSE } else { NEW }
    }

    /// Tells whether there is an alarm for the connection.
    pub(super) fn is_timed(&self) -> bool {
        self.alarm.is_some()
    }

    #[inline]
    fn ask_for_look(&self) {
        // Without a postback the look comes behind the state of the program that runs.
        if let (Some(look), 0) = (&self.look, self.in_hand.get())
            && !self.is_looked_at.replace(true)
        {
            look.call(());
        }
    }

    /// The callback that a look was to follow has not returned.
    pub(super) fn callback_has_panicked(&self) {
        self.is_looked_at.set(false);
    }

    /// Has the program say when requests begin and end, from the first record on.
    #[cfg(feature = "service")]
    pub(super) fn count_explicitly(&self) {
        self.is_explicit.set(true);
    }

    /// Nothing is in hand, and nothing is known to be on its way.
    fn rest(&mut self, now: Due, octets: u64) {
        (self.since, self.looked, self.octets, self.is_arriving) = (now, now, octets, false);
    }

    /// Returns the same for the next protocol of the connection, which has not said yet that it counts requests itself.
    pub(super) fn pass_on(&mut self) -> Requests {
        Requests { is_explicit: Cell::default(), is_of_record: Cell::default(), ..std::mem::take(self) }
    }

    /// Begins anew, without a connection.
    pub(super) fn reset(&mut self) {
        *self = Requests { is_ending: self.is_ending, ..Requests::default() };
    }
}

type Cx<'a, F, H> = Context<'a, Connection<F, H>>;

impl<F: Filter, H> Connection<F, H> {
    /// Tells whether a server's client waits for nothing: all is answered and written, and nothing has come since.
    fn is_idle(&self, now: Due) -> bool {
        if !self.is_connected() {
            return false;
        }
        let is_known = now >= self.requests.since.saturating_add(nanos(self.requests.way()));
        let is_done = !self.is_shutting_down && self.requests.in_hand() == 0 && self.has_no_output();
        is_known && is_done && !self.has_begun() && !self.has_input()
    }

    /// Tells whether a part of the next request is there.
    fn has_begun(&self) -> bool {
        let has_begun = |wheel: &ReadWrite<F>| wheel.input_filter(|filter| !filter.is_between_records());
        let has_come = |wheel: &ReadWrite<F>| !wheel.get_pending().is_empty() || wheel.transport_holds_input();
        self.wheel().is_some_and(|wheel| has_begun(wheel) || has_come(wheel))
    }

    fn octets(&self) -> u64 {
        self.any_wheel().map_or(0, ReadWrite::input_octets)
    }

    /// Returns the wheel, also during a handshake.
    fn any_wheel(&self) -> Option<&ReadWrite<F>> {
        match &self.link {
            Link::Open(wheel) | Link::Securing(wheel) => Some(wheel),
            Link::Closed | Link::Connecting(_) | Link::Announced(_) => None,
        }
    }

    /// Tells whether something has come that was not read yet. A socket whose input has ended is readable for ever.
    fn has_input(&self) -> bool {
        let has_input = |wheel: &ReadWrite<F>| wheel.with_fd(|fd| Ok(has_input(fd))).unwrap_or(false);
        self.any_wheel().is_some_and(|wheel| !wheel.reads_no_more() && has_input(wheel))
    }
}

impl<F: Filter, H: 'static> Protocol<F, H> {
    /// A connection is there.
    pub(super) fn begin_requests(&self, cx: &mut Cx<'_, F, H>) {
        let now = cx_now(cx);
        let heap = cx.heap();
        // Another protocol may have read some before.
        let octets = heap.octets();
        heap.requests.rest(now, octets);
        self.set_clock(cx);
    }

    /// A record has come. Its callback runs before [`settle`](Protocol::settle).
    #[inline]
    pub(super) fn begin_request(&self, cx: &mut Cx<'_, F, H>) {
        let now = cx_now(cx);
        let heap = cx.heap();
        let octets = heap.octets();
        let requests = &mut heap.requests;
        requests.is_looked_at.set(true);
        requests.has_spoken = true;
        if requests.counted.is_none() {
            requests.rest(now, octets);
        }
        // A client's input is no request but an answer.
        if heap.door.is_some() && !requests.is_explicit.get() && requests.in_hand.get() == 0 {
            requests.in_hand.set(1);
            requests.is_of_record.set(true);
            self.count(cx, now);
        }
    }

    fn count(&self, cx: &mut Cx<'_, F, H>, now: Due) {
        let heap = cx.heap();
        let Some(door) = &heap.door else { return };
        if heap.requests.counted.is_none() {
            heap.requests.counted = Some(door.load.begin());
            heap.requests.since = now;
        }
        if door.load.is_news(now) {
            let listener = heap.listener;
            let _ = cx.call(listener, PROGRESS, ());
        }
    }

    /// Looks what is in hand now.
    #[inline]
    pub(super) fn settle(&self, cx: &mut Cx<'_, F, H>) -> Result {
        let now = cx_now(cx);
        let requests = &mut cx.heap().requests;
        requests.is_looked_at.set(false);
        requests.is_of_record.set(false);
        match (requests.counted.is_some(), requests.in_hand.get() > 0) {
            (true, false) => self.end_request(cx, now),
            (is_counted, true) => {
                // Of one that ends nothing is waited for any more.
                if !is_counted && !cx.heap().is_shutting_down {
                    self.count(cx, now);
                }
                // A session that has stopped has nothing to look at.
                if cx.heap().requests.look.is_none()
                    && let Ok(look) = cx.postback(SETTLE, ())
                {
                    look.weaken();
                    cx.heap().requests.look = Some(look);
                }
            }
            (false, false) => {}
        }
        self.set_clock(cx);
        Ok(())
    }

    /// A state of the program has run on the session, or a callback that is not for a record. It may have begun or ended requests,
    /// and it may have taken all alarms of the session back.
    pub(super) fn look_after(&self, cx: &mut Cx<'_, F, H>) -> Result {
        let heap = cx.heap();
        let is_looked_at = heap.requests.is_looked_at.get();
        if is_looked_at || !heap.is_connected() { Ok(()) } else { self.settle(cx) }
    }

    fn end_request(&self, cx: &mut Cx<'_, F, H>, now: Due) {
        let heap = cx.heap();
        let octets = heap.octets();
        heap.requests.rest(now, octets);
        self.count_off(cx);
        if cx.heap().requests.is_ending {
            cx.yield_(LAST, ());
        }
    }

    /// Nothing of this connection is in hand any more, answered or not.
    pub(super) fn count_off(&self, cx: &mut Cx<'_, F, H>) {
        let now = cx_now(cx);
        let heap = cx.heap();
        let was_counted = heap.requests.counted.take().is_some();
        let (listener, Some(door)) = (heap.listener, heap.door.as_ref().filter(|_| was_counted)) else { return };
        door.load.ended(now);
        let (is_news, wants_a_look) = (door.load.is_news(now), door.load.wants_a_look());
        if is_news {
            let _ = cx.call(listener, PROGRESS, ());
        }
        if wants_a_look {
            let _ = cx.call(listener, LOOK, ());
        }
    }

    /// The request that was to be the last has ended. If a record behind it has begun another one meanwhile, the connection ends after
    /// that.
    pub(super) fn end_if_done(&self, cx: &mut Cx<'_, F, H>) -> Result {
        let heap = cx.heap();
        if heap.requests.in_hand() > 0 || heap.is_shutting_down { Ok(()) } else { shutdown(self, cx) }
    }

    /// Lets go of a client that waits for nothing, at once; of any other after the request in hand.
    pub(super) fn drain(&self, cx: &mut Cx<'_, F, H>) -> Result {
        let now = cx_now(cx);
        // A child that has had its share may get TERM as well. That gives no client its time anew.
        let was_ending = std::mem::replace(&mut cx.heap().requests.is_ending, true);
        if !cx.heap().is_connected() {
            // The header of a proxy has a time limit of its own, which is short.
            if matches!(cx.heap().link, Link::Securing(_)) && !was_ending {
                self.limit_handshake(cx);
            }
            return Ok(());
        }
        if cx.heap().is_idle(now) {
            return self.let_go(cx);
        }
        let (octets, has_begun) = (cx.heap().octets(), cx.heap().has_begun());
        let requests = &mut cx.heap().requests;
        if requests.in_hand.get() == 0 && !was_ending {
            // What is on its way has a moment to come. A request that was seen to come already gets no time anew.
            let since = if has_begun && requests.is_arriving { requests.since } else { now };
            requests.rest(now, octets);
            (requests.since, requests.is_arriving) = (since, has_begun);
        }
        requests.due = None;
        self.set_clock(cx);
        Ok(())
    }

    /// Another client waits. This one can come again, if it waits for nothing.
    pub(super) fn release(&self, cx: &mut Cx<'_, F, H>) -> Result {
        let now = cx_now(cx);
        if cx.heap().is_idle(now) { self.let_go(cx) } else { Ok(()) }
    }

    fn let_go(&self, cx: &mut Cx<'_, F, H>) -> Result {
        if let Some(wheel) = cx.heap().wheel() {
            // All is written, and nothing unread would cost the peer the end of it.
            wheel.close_without_waiting();
        }
        // At once: a record that came before an event could begin a request that nothing answers.
        shutdown(self, cx)
    }

    /// Says since when this client waits for nothing, if it does, and if that is longer than the one that was found before.
    pub(super) fn tell_if_idle(&self, cx: &mut Cx<'_, F, H>) -> Result {
        let found: LongestIdle = cx.take(0)?;
        let (now, me) = (cx_now(cx), cx.session());
        let heap = cx.heap();
        let since = heap.requests.since;
        // The comparison is free. Whether the client is idle the system has to say.
        if found.get().is_none_or(|(longest, _)| since < longest) && heap.is_idle(now) {
            found.set(Some((since, me)));
        }
        Ok(())
    }
}

/// Since when a client waits for nothing, and whose it is.
pub(super) type LongestIdle = Rc<Cell<Option<(Due, SessionId)>>>;

#[inline]
fn cx_now<F: Filter, H: 'static>(cx: &mut Cx<'_, F, H>) -> Due {
    cx.core().clock.now()
}

/// The names of the events of a connection.
pub(super) const SETTLE: &str = "tcp_settle";
pub(super) const CLOCK: &str = "tcp_clock";
pub(super) const DRAIN: &str = "tcp_drain";
pub(super) const RELEASE: &str = "tcp_release";
pub(super) const IS_IDLE: &str = "tcp_is_idle";
pub(super) const LAST: &str = "tcp_last";

/// The names of the events that it sends to the session that has accepted it.
pub(super) const PROGRESS: &str = "tcp_progress";
pub(super) const LOOK: &str = "tcp_look";

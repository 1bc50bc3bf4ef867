//! What the connections of one process have in hand, for the Daemon.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::kernel::{Due, nanos};

/// Shared by the connections of a process and the session that has accepted them.
#[derive(Default)]
pub(super) struct Load {
    in_hand: Cell<u32>,
    /// A Daemon is told of requests.
    pub(super) is_reported: Cell<bool>,
    /// The Daemon was told that nothing is in hand.
    pub(super) is_resting: Cell<bool>,
    /// When the Daemon was last told that a request is in hand.
    told: Cell<Due>,
    /// When the latest request has ended.
    ended: Cell<Due>,
    /// Until then a connection is new, which has asked for nothing yet.
    new_until: Cell<Due>,
    /// When the session that listens will look whether a request is in hand.
    pub(super) look_at: Cell<Option<Due>>,
}

impl Load {
    /// Forgets everything, in a forked process.
    pub(super) fn reset(&self) {
        self.in_hand.set(0);
        self.is_reported.set(false);
        self.is_resting.set(false);
        self.look_at.set(None);
        self.new_until.set(0);
    }

    /// Returns how many connections have a request in hand.
    pub(super) fn in_hand(&self) -> u32 {
        self.in_hand.get()
    }

    /// A connection has been accepted, which was told.
    pub(super) fn accepted(&self, now: Due) {
        self.told.set(now);
        self.is_resting.set(false);
        self.new_until.set(now.saturating_add(nanos(NEW)));
    }

    /// Counts a request until what is returned is dropped.
    pub(super) fn begin(self: &Rc<Self>) -> InHand {
        self.in_hand.set(self.in_hand.get() + 1);
        self.new_until.set(0);
        InHand(Rc::clone(self))
    }

    /// A request has ended.
    pub(super) fn ended(&self, now: Due) {
        self.ended.set(now);
    }

    /// Has the Daemon told once more that nothing is in hand, but not before a pause.
    pub(super) fn rest_anew(&self, now: Due) {
        self.is_resting.set(false);
        self.ended.set(now);
    }

    /// Tells whether it is time to say that requests begin and end.
    pub(super) fn is_news(&self, now: Due) -> bool {
        let is_due = self.is_resting.get() || now >= self.told.get().saturating_add(nanos(PAUSE));
        let is_news = self.is_reported.get() && is_due;
        if is_news {
            self.told.set(now);
        }
        is_news
    }

    /// Tells whether the session that listens has to look, as no request is in hand any more. Where one request follows the other it
    /// has to look once in a while.
    pub(super) fn wants_a_look(&self) -> bool {
        let is_of_use = self.is_reported.get() && self.in_hand.get() == 0 && !self.is_resting.get();
        is_of_use && self.look_at.get().is_none_or(|at| at > self.rest_begins())
    }

    /// Returns from when on the Daemon may be told that nothing is in hand.
    pub(super) fn rest_begins(&self) -> Due {
        self.ended.get().saturating_add(nanos(PAUSE)).max(self.new_until.get())
    }
}

/// A request in hand.
pub(super) struct InHand(Rc<Load>);

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.in_hand.set(self.0.in_hand.get().saturating_sub(1));
    }
}

/// How long after a request a client has nothing in hand: one that asks for one thing after the other needs less. And how often
/// it is said that requests come and go.
pub(super) const PAUSE: Duration = Duration::from_millis(50);

/// The same for a new client, whose first request is on its way.
pub(super) const NEW: Duration = Duration::from_secs(1);

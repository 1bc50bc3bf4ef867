//! Measurements that only the loop and its listeners can make, for sessions that ask for them: how long connections
//! have waited to be accepted, and how long the turns of the loop take. The kernel does not know what they are for.
//!
//! Nothing is measured unless a session asks. If one does, an accepted connection costs one more system call, and a
//! turn of the loop costs at most one more reading of the clock.

use std::os::fd::AsFd;
use std::time::Duration;

use super::clock::Due;
use super::core::Core;
use super::dispatch::discard;
use super::queue::Event;
use super::sessions::SessionId;
use super::turn::Turn;
use crate::args::IntoArgs;
use crate::name::Name;
use crate::sys::accept_queue;

/// The sessions that ask for measurements.
#[derive(Default)]
pub(crate) struct Measures {
    accepts: Vec<(SessionId, Name)>,
    turns: Vec<(SessionId, Count)>,
    /// When the present turn of the loop began.
    turn_began: Option<Due>,
}

/// Is told how long a turn has taken.
type Count = Box<dyn FnMut(Duration)>;

impl Core {
    /// Calls `state` of `session` for each TCP connection that any listener of this process accepts, before the
    /// listener's session gets the connection. ARG0 = the listener's [`SourceKey`](super::SourceKey), ARG1 = the
    /// session that owns the listener, ARG2 = how long the connection has waited, a [`Duration`].
    ///
    /// Forked children do the same. If the system does not tell how long, `state` is not called.
    pub(crate) fn measure_accepts(&mut self, session: SessionId, state: impl Into<Name>) {
        self.measures.accepts.push((session, state.into()));
    }

    /// Calls `count` with the length of each turn of the loop, without the time in which the process slept. Forked
    /// children do not.
    ///
    /// If a state runs a turn of its own, the outer turn counts as two.
    pub(crate) fn measure_turns(&mut self, session: SessionId, count: impl FnMut(Duration) + 'static) {
        self.measures.turns.push((session, Box::new(count)));
    }

    /// Ends all measuring for this session.
    pub(crate) fn stop_measuring(&mut self, session: SessionId) {
        self.measures.accepts.retain(|(other, _)| *other != session);
        self.measures.turns.retain(|(other, _)| *other != session);
    }

    /// Ends the counting of turns, in a process that was just forked.
    pub(super) fn disown_measures(&mut self) {
        // Leaked, because freeing it would write to pages that are shared with the parent.
        std::mem::forget(std::mem::take(&mut self.measures.turns));
    }

    /// Notes that the process is awake since `now`.
    #[inline]
    pub(super) fn begin_turn(&mut self, now: Due) {
        self.measures.turn_began = Some(now);
    }

    /// Notes that the process goes to sleep, for at most `wait`.
    #[inline]
    pub(super) fn end_turn(&mut self, wait: Option<Duration>) {
        if !self.measures.turns.is_empty() {
            self.count_turn(wait);
        }
    }

    fn count_turn(&mut self, wait: Option<Duration>) {
        // If there is an alarm to wait for, `wait` was computed with a new reading of the clock.
        let is_read = wait.is_some_and(|wait| !wait.is_zero());
        let now = if is_read { self.clock.now() } else { self.clock.advance() };
        let Some(began) = self.measures.turn_began.take() else { return };
        let span = Duration::from_nanos(now.saturating_sub(began).max(0).cast_unsigned());
        self.measures.turns.iter_mut().for_each(|(_, count)| count(span));
    }
}

impl Turn<'_> {
    /// Notes that the source, which is a listener, has accepted this TCP connection.
    pub(crate) fn has_accepted(&mut self, connection: impl AsFd) {
        if self.kernel.core.measures.accepts.is_empty() {
            return;
        }
        let Some(waited) = accept_queue::waited(connection.as_fd()) else { return };
        for (session, state) in self.kernel.core.measures.accepts.clone() {
            let args = (self.key(), self.owner(), waited).into_args();
            discard(self.kernel.dispatch_event(&mut Event::from_kernel(session, state, args)));
        }
        self.outcome(true);
    }
}

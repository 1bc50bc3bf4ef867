//! A kernel whose clock a test moves: what the kernel itself has for [`TestKernel`](crate::testing::TestKernel).

use std::process::ExitStatus;
use std::time::{Duration, SystemTime};

use super::Kernel;
use super::clock::{Clock, Due};
use super::core::Core;
use crate::error::Error;
use crate::name::Name;

/// The time that a test moves, and what goes with it.
pub(super) struct ManualTime {
    /// What the clock shows.
    pub(super) now: Due,
    /// How long a slice without work may wait for the poller.
    patience: Duration,
    /// The test may still act, so that the program is never idle.
    is_held: bool,
}

impl Default for ManualTime {
    fn default() -> ManualTime {
        ManualTime { now: 0, patience: Duration::ZERO, is_held: true }
    }
}

impl Core {
    /// Tells whether a test may still act, so that idle sessions must not get `IDLE`.
    pub(super) fn is_held_by_test(&self) -> bool {
        self.clock.manual_time().is_some_and(|time| time.is_held)
    }

    /// Bounds how long the poller waits. The test's clock stands still meanwhile, so waiting for an alarm would never
    /// end.
    pub(super) fn limit_wait(&self, wait: Option<Duration>) -> Option<Duration> {
        match self.clock.manual_time() {
            Some(_) if wait == Some(Duration::ZERO) => wait,
            Some(time) => Some(time.patience),
            None => wait,
        }
    }

    /// Refuses a call that would make another process go on with this kernel.
    pub(crate) fn refuse_to_fork_in_test(&self) -> Result<(), Error> {
        if self.clock.manual_time().is_some() { Err(Error::ForkInTest) } else { Ok(()) }
    }

    /// Returns the time that a test moves. Only kernels that have it are asked.
    fn time(&mut self) -> &mut ManualTime {
        self.clock.manual_time_mut().expect("a `TestKernel` has a clock that is moved by hand")
    }
}

impl Kernel {
    /// Makes a kernel whose clock shows `wall` until a test moves it.
    pub(crate) fn new_manual(wall: SystemTime) -> Result<Kernel, Error> {
        Kernel::with_clock(|| Clock::manual(wall))
    }

    /// Returns how far the clock was moved.
    pub(crate) fn manual_now(&self) -> Due {
        self.core.clock.manual_time().map_or(0, |time| time.now)
    }

    /// Moves the clock to `due`, unless it shows a later time.
    pub(crate) fn move_clock(&mut self, due: Due) {
        let time = self.core.time();
        time.now = time.now.max(due);
        self.core.clock.advance();
    }

    /// Returns when the next alarm is due, or the next time for which a wheel waits.
    pub(crate) fn next_manual_due(&self) -> Option<Due> {
        self.core.next_due()
    }

    /// Says how long a slice without work may wait for the poller. The clock stands still meanwhile.
    pub(crate) fn set_patience(&mut self, patience: Duration) {
        self.core.time().patience = patience;
    }

    /// Says whether the test may still act. While it may, no session gets the signal `IDLE`.
    pub(crate) fn hold(&mut self, is_held: bool) {
        self.core.time().is_held = is_held;
    }

    /// Tells whether a slice would find anything to do without waiting and without the clock moving.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] when the poller fails.
    pub(crate) fn has_work(&mut self) -> Result<bool, Error> {
        self.core.collect_postings();
        if self.time_until_next() == Some(Duration::ZERO) || self.core.sources.has_ready() {
            return Ok(true);
        }
        // What is registered only now may be ready.
        self.core.sources.sync_stale();
        if self.core.poll(Some(Duration::ZERO))? {
            self.core.take_os_signals();
        }
        Ok(self.core.sources.has_ready() || self.time_until_next() == Some(Duration::ZERO))
    }

    /// Delivers a signal as if the system had sent it to this process. Returns whether a session watches it.
    pub(crate) fn deliver_signal(&mut self, signal: Name) -> bool {
        let is_watched = self.core.signals.is_watched(signal);
        if is_watched {
            self.core.signal_from_kernel(signal, ());
        }
        is_watched
    }

    /// Tells of the end of a child that need not exist. Returns whether a session waits for it.
    pub(crate) fn deliver_end(&mut self, pid: i32, status: ExitStatus) -> bool {
        let is_awaited = self.core.is_awaited(pid);
        if is_awaited {
            self.core.tell_of_end(pid, status);
        }
        is_awaited
    }
}

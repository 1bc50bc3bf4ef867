//! Time in which this process ran: pure functions of the times at which the process looked.
//!
//! A process is not told when it is stopped, its cgroup is frozen or its machine is suspended. After a frozen cgroup it is not even
//! told that the freeze is over. What it can see is that a look comes later than planned. So it looks often, and counts no more
//! than the planned time for a look that came late.

use std::time::Duration;

/// A clock that stands still while this process does. Times count from a start of the caller's choosing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RunClock {
    /// How often it is to be looked at.
    every: Duration,
    /// When it was looked at last.
    last: Duration,
}

impl RunClock {
    /// Starts a clock at `now` that is to be looked at every so often.
    pub fn new(every: Duration, now: Duration) -> RunClock {
        RunClock { every, last: now }
    }

    /// Returns for how long this process has run since the last look.
    ///
    /// Of a look that comes more than half as late again as it should no more counts than the time between two looks. So
    /// a stop never counts for more than that, and a process that is stopped again and again still sees time pass.
    pub fn advance(&mut self, now: Duration) -> Duration {
        let gap = now.saturating_sub(self.last);
        self.last = self.last.max(now);
        if gap <= self.every.saturating_add(self.every / 2) { gap } else { self.every }
    }
}

/// How long a child has been at what it is doing, without the time in which nothing ran.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stint {
    /// When it began, in milliseconds since 1970: another time means that it is doing something else by now.
    since_ms: u64,
    /// How long it has lasted.
    pub lasted: Duration,
}

impl Stint {
    /// Returns what has become of it by a look at `now_ms`, at which the child has been doing the same since `since_ms`.
    /// `ran` is how long it has run since the last look.
    pub fn seen(self, since_ms: u64, now_ms: u64, ran: Duration) -> Stint {
        let before = if since_ms == self.since_ms { self.lasted } else { Duration::ZERO };
        let most = Duration::from_millis(now_ms.saturating_sub(since_ms));
        Stint { since_ms, lasted: before.saturating_add(ran).min(most) }
    }
}

/// What is left of a time that was given, and that passes only while this process runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Grace {
    left: Duration,
    clock: RunClock,
}

impl Grace {
    /// Gives so much time from `now` on, to be looked at every so often.
    pub fn new(left: Duration, every: Duration, now: Duration) -> Grace {
        Grace { left, clock: RunClock::new(every, now) }
    }

    /// Returns how much is left.
    pub fn left(&mut self, now: Duration) -> Duration {
        self.left = self.left.saturating_sub(self.clock.advance(now));
        self.left
    }

    /// Returns what was left at the last look.
    pub fn last_left(&self) -> Duration {
        self.left
    }

    /// Returns how long to wait with the next look.
    pub fn next_look(&self) -> Duration {
        self.clock.every.min(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::check;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test] // D-BA-06
    fn look_that_comes_late_counts_as_one_in_time() {
        let mut clock = RunClock::new(ms(100), ms(1000));
        assert_eq!(clock.advance(ms(1100)), ms(100));
        assert_eq!(clock.advance(ms(1250)), ms(150), "as late as a busy machine makes it");
        assert_eq!(clock.advance(ms(1401)), ms(100), "something has kept it from running");
        assert_eq!(clock.advance(ms(12_000)), ms(100));
        assert_eq!(clock.advance(ms(12_001)), ms(1));
        assert_eq!(clock.advance(ms(5000)), ms(0), "no clock runs backwards");
        assert_eq!(clock.advance(ms(12_002)), ms(1));
    }

    #[test] // D-BA-06: a request that was half a second old when all was stopped for eleven
    fn stop_counts_for_one_look_at_most() {
        let (mut clock, mut stint) = (RunClock::new(ms(625), ms(0)), Stint::default());
        for now in [625, 1250, 1875, 2500] {
            stint = stint.seen(500, now, clock.advance(ms(now)));
        }
        // What it did before the first look counts from when it began.
        assert_eq!(stint.lasted, ms(2000));
        stint = stint.seen(2600, 14_000, clock.advance(ms(14_000)));
        assert_eq!(stint.lasted, ms(625));
        stint = stint.seen(2600, 14_625, clock.advance(ms(14_625)));
        assert_eq!(stint.lasted, ms(1250));
    }

    #[test] // D-BA-06
    fn another_request_begins_at_nothing() {
        let stint = Stint::default().seen(1000, 1400, ms(300)).seen(1000, 1700, ms(300));
        assert_eq!(stint.lasted, ms(600));
        assert_eq!(stint.seen(1900, 2000, ms(300)).lasted, ms(100), "no longer than it has been at it");
        assert_eq!(stint.seen(1700, 1701, ms(300)).lasted, ms(1));
        assert_eq!(stint.seen(1800, 1700, ms(300)).lasted, ms(0), "from a clock that is ahead");
        assert_eq!(stint.seen(1000, 3000, ms(0)).lasted, ms(600), "a child that is stopped does not run");
    }

    #[test] // D-SH-07
    fn grace_passes_while_the_process_runs() {
        let mut grace = Grace::new(ms(1000), ms(125), ms(0));
        assert_eq!(grace.next_look(), ms(125));
        assert_eq!(grace.left(ms(125)), ms(875));
        assert_eq!(grace.left(ms(60_000)), ms(750));
        for look in 1..=5 {
            assert_eq!(grace.left(ms(60_000 + 125 * look)), ms(750 - 125 * look));
        }
        assert_eq!(grace.next_look(), ms(125));
        assert_eq!(grace.left(ms(60_700)), ms(50));
        assert_eq!(grace.next_look(), ms(50));
        assert_eq!(grace.left(ms(60_750)), ms(0));
    }

    #[test] // D-BA-06: whatever the stops, a child that is stuck is found, and none before its time
    fn stuck_child_is_found_after_its_limit_of_running() {
        check(|dice| {
            let (mut clock, mut stint) = (RunClock::new(ms(100), ms(0)), Stint::default());
            let (mut now, mut ran, mut stops) = (0, 0, 0);
            for (running, stop) in
                dice.list(200, |dice| (1 + dice.below(99), dice.maybe(|dice| 1 + dice.below(99_999))))
            {
                ran += running;
                now += running + stop.unwrap_or(0);
                stops += u64::from(stop.is_some());
                stint = stint.seen(0, now, clock.advance(ms(now)));
                // What is counted of each stop is bounded, and all that ran is counted.
                assert!(stint.lasted >= ms(ran));
                assert!(stint.lasted <= ms(ran + 150 * stops));
            }
        });
    }
}

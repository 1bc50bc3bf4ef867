//! How long to wait with the next fork when children die as soon as they live.

use std::time::Duration;

/// Watches for children that die within a second of their fork, one after the other.
///
/// Times count from a start of the caller's choosing.
#[derive(Clone, Copy, Debug, Default)]
pub struct CrashLoop {
    /// How many have died so in a row, a whole pool at once being one.
    deaths: u32,
    /// When the last of these died; its successors are forked after that.
    last: Option<Duration>,
}

impl CrashLoop {
    /// Takes note of a child that has ended at `now` without ever having had a request. Returns how long to wait before the
    /// next fork: nothing for the first of a row, then 100 ms, and twice as long each time, up to 30 s.
    ///
    /// `forked` is when it was forked. A child that was forked before the last such death does not lengthen the row. So ten
    /// children that die together are one failure, and not ten in a row.
    ///
    /// POE: nothing like it.
    pub fn died(&mut self, forked: Duration, now: Duration) -> Duration {
        if now.saturating_sub(forked) >= STAYED_UP {
            self.stayed_up(forked);
            return Duration::ZERO;
        }
        if self.last.is_none_or(|last| forked >= last) {
            self.deaths = self.deaths.saturating_add(1);
            self.last = Some(now);
        }
        match self.deaths {
            0 | 1 => Duration::ZERO,
            deaths => FIRST_WAIT.saturating_mul(1 << (deaths - 2).min(16)).min(LONGEST_WAIT),
        }
    }

    /// Takes note of a child, forked at `forked`, that has stayed up for a second or has had a request. If it was forked after
    /// the last death, the row is over.
    pub fn stayed_up(&mut self, forked: Duration) {
        if self.last.is_some_and(|last| forked >= last) {
            *self = CrashLoop::default();
        }
    }

    /// Returns how many have died in a row.
    pub fn deaths(&self) -> u32 {
        self.deaths
    }
}

/// A child that has lived for so long has not failed at once.
pub const STAYED_UP: Duration = Duration::from_secs(1);

/// The first wait.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// No wait is longer.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::check;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test] // D-PF-08: exponential, up to 30 s
    fn the_wait_doubles_up_to_half_a_minute() {
        let mut crashes = CrashLoop::default();
        let mut now = Duration::ZERO;
        let mut waits = Vec::new();
        for _ in 0..12 {
            let wait = crashes.died(now, now + ms(5));
            waits.push(wait.as_millis());
            now += ms(5) + wait;
        }
        assert_eq!(waits, [0, 100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
    }

    #[test] // D-PF-08: one that stays up resets it
    fn one_that_stays_up_ends_the_row() {
        let mut crashes = CrashLoop::default();
        crashes.died(ms(0), ms(1));
        assert_eq!(crashes.died(ms(1), ms(2)), ms(100));
        // One that was there before all that says nothing about those that are forked now.
        crashes.stayed_up(ms(0));
        assert_eq!(crashes.died(ms(102), ms(103)), ms(200));
        crashes.stayed_up(ms(303));
        assert_eq!(crashes.died(ms(2000), ms(2001)), ms(0));
        assert_eq!(crashes.died(ms(2001), ms(2002)), ms(100));
        // The same when it dies later on.
        assert_eq!(crashes.died(ms(2102), ms(3102)), ms(0));
        assert_eq!(crashes.deaths(), 0);
    }

    #[test] // D-PF-08: "repeatedly"
    fn a_pool_that_dies_together_is_one_failure() {
        let mut crashes = CrashLoop::default();
        for child in 0..50 {
            assert_eq!(crashes.died(ms(child), ms(100 + child)), ms(0));
        }
        assert_eq!(crashes.deaths(), 1);
    }

    #[test] // D-PF-08: no storm, whatever the children do
    fn waits_are_bounded_and_rows_count_up() {
        check(|dice| {
            let mut crashes = CrashLoop::default();
            let mut now = Duration::ZERO;
            for (pause, life) in dice.list(60, |dice| (dice.below(2000), dice.below(1100))) {
                let forked = now + ms(pause);
                now = forked + ms(life);
                let before = crashes.deaths();
                let wait = crashes.died(forked, now);
                assert!(wait <= LONGEST_WAIT);
                assert_eq!(crashes.deaths(), if life < 1000 { before + 1 } else { 0 });
                assert_eq!(wait.is_zero(), crashes.deaths() < 2);
            }
        });
    }
}

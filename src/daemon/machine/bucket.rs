//! A token bucket.

use std::time::Duration;

/// Rations forks: a number at once, then so many a second.
///
/// Whole arithmetic, so that no run of it, however long, grants more than the burst and the rate allow.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    /// The most it can hold, in billionths of a token.
    capacity: u64,
    /// What it held at `at`, in billionths of a token.
    level: u64,
    /// Tokens gained a second, which is the same as billionths gained a nanosecond.
    per_second: u32,
    /// The last time it was looked into, since whatever start the caller counts from.
    at: Duration,
}

impl TokenBucket {
    /// Makes a full bucket of `burst` tokens that gains `per_second` tokens a second.
    ///
    /// With a `burst` of 0 it never grants anything, with a `per_second` of 0 nothing after the burst. Times given to
    /// it count from a start of the caller's choosing.
    pub fn new(burst: u32, per_second: u32) -> Self {
        let capacity = u64::from(burst) * NANOS;
        Self { capacity, level: capacity, per_second, at: Duration::ZERO }
    }

    /// Takes up to `want` tokens at `now` and returns how many there were to take.
    ///
    /// A `now` before the last one counts as the last one.
    pub fn take(&mut self, now: Duration, want: u32) -> u32 {
        self.level = self.level_at(now);
        self.at = self.at.max(now);
        // The level is at most `u32::MAX` tokens, so the minimum fits.
        let granted = (self.level / NANOS).min(u64::from(want));
        self.level -= granted * NANOS;
        u32::try_from(granted).unwrap_or(want)
    }

    /// Returns how long after `now` there will be a token: zero if there is one, `None` if there never will be.
    pub fn ready_in(&self, now: Duration) -> Option<Duration> {
        let missing = NANOS.saturating_sub(self.level_at(now));
        if missing == 0 {
            return Some(Duration::ZERO);
        }
        let reachable = self.capacity >= NANOS && self.per_second > 0;
        // Rounded up: a caller that comes back after exactly this long finds the token there. A `now` that lags behind
        // the last one has that much further to go.
        let lag = self.at.saturating_sub(now);
        reachable.then(|| lag + Duration::from_nanos(missing.div_ceil(u64::from(self.per_second))))
    }

    /// Returns what it holds at `now`, in billionths of a token.
    fn level_at(&self, now: Duration) -> u64 {
        let gained = now.saturating_sub(self.at).as_nanos().saturating_mul(u128::from(self.per_second));
        let level = gained.saturating_add(u128::from(self.level)).min(u128::from(self.capacity));
        u64::try_from(level).unwrap_or(self.capacity)
    }
}

/// Nanoseconds in a second, and billionths in a token.
pub(super) const NANOS: u64 = 1_000_000_000;

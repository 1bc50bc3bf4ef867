//! Time: monotonic inside, wall clock at the edges.

use std::time::{Duration, Instant, SystemTime};

/// A point in time: nanoseconds since the kernel was made; negative for alarms set before that.
pub(crate) type Due = i64;

/// The kernel's only clock.
///
/// Absolute times are converted once, when an alarm is set, with an offset fixed at the start: a wall clock that is
/// stepped later moves no alarm.
pub(crate) struct Clock {
    base: Instant,
    wall_base: SystemTime,
    /// The latest reading; what posts are stamped with, so that no post reads the clock.
    now: Due,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        Clock { base: Instant::now(), wall_base: SystemTime::now(), now: 0 }
    }

    /// Reads the clock.
    pub(crate) fn advance(&mut self) -> Due {
        self.now = self.now.max(nanos(self.base.elapsed()));
        self.now
    }

    /// Returns the latest reading.
    pub(crate) fn now(&self) -> Due {
        self.now
    }

    /// Converts a wall-clock time; what lies centuries away is clamped.
    pub(crate) fn at_wall(&self, time: SystemTime) -> Due {
        match time.duration_since(self.wall_base) {
            Ok(later) => nanos(later),
            Err(earlier) => -nanos(earlier.duration()),
        }
    }

    /// Converts to wall-clock time.
    pub(crate) fn to_wall(&self, due: Due) -> SystemTime {
        let span = Duration::from_nanos(due.unsigned_abs());
        let time = if due < 0 { self.wall_base.checked_sub(span) } else { self.wall_base.checked_add(span) };
        time.unwrap_or(self.wall_base)
    }
}

/// Returns a span in nanoseconds, at most some 292 years.
pub(crate) fn nanos(span: Duration) -> Due {
    Due::try_from(span.as_nanos()).unwrap_or(Due::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_times_survive_the_conversion() {
        let clock = Clock::new();
        for time in [SystemTime::UNIX_EPOCH, clock.wall_base, clock.wall_base + Duration::from_millis(1500)] {
            assert_eq!(clock.to_wall(clock.at_wall(time)), time);
        }
    }
}

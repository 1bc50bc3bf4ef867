//! Time: monotonic inside, wall clock at the edges.

use std::time::{Duration, Instant, SystemTime};

#[cfg(target_os = "linux")]
use nix::time::{ClockId, clock_gettime};

/// A point in time: nanoseconds since the kernel was made; negative for alarms set before that.
pub(crate) type Due = i64;

/// The kernel's only clock.
///
/// Absolute times are converted once, when an alarm is set, with an offset fixed at the start: a wall clock that is
/// stepped later moves no alarm.
pub(crate) struct Clock {
    base: Instant,
    wall_base: SystemTime,
    system: System,
    /// The latest reading. No event is stamped with a later time.
    now: Due,
    /// Takes the place of the system's clock in a test.
    #[cfg(feature = "testing")]
    manual: Option<super::manual::ManualTime>,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        let base = Instant::now();
        Clock {
            base,
            wall_base: SystemTime::now(),
            system: System::new(base),
            now: 0,
            #[cfg(feature = "testing")]
            manual: None,
        }
    }

    /// Makes a clock that only a test moves, and that shows `wall` until then.
    #[cfg(feature = "testing")]
    pub(super) fn manual(wall: SystemTime) -> Clock {
        Clock { wall_base: wall, manual: Some(Default::default()), ..Clock::new() }
    }

    /// Returns the time that a test moves.
    #[cfg(feature = "testing")]
    #[inline]
    pub(super) fn manual_time(&self) -> Option<&super::manual::ManualTime> {
        self.manual.as_ref()
    }

    #[cfg(feature = "testing")]
    pub(super) fn manual_time_mut(&mut self) -> Option<&mut super::manual::ManualTime> {
        self.manual.as_mut()
    }

    /// Reads the clock.
    pub(crate) fn advance(&mut self) -> Due {
        self.now = self.now.max(self.elapsed());
        self.now
    }

    /// Returns the time stamp of an event that is posted now. `first_alarm` is when the first pending alarm is due.
    ///
    /// The event belongs behind the alarms that are due by now and in front of all others, however long the running state
    /// has taken. A precise reading costs half as much as dispatching an event. So the precise clock is read only if
    /// the coarse clock says that an alarm may be due. If no alarm is set, neither clock is read.
    #[inline]
    pub(crate) fn stamp(&mut self, first_alarm: Option<Due>) -> Due {
        let Some(first_alarm) = first_alarm else { return self.now };
        let coarse = self.coarse();
        self.now = self.now.max(coarse);
        if first_alarm.saturating_sub(coarse) < COARSE_LAG { self.advance() } else { self.now }
    }

    /// Converts a moment that a postback has noted by [`moment`].
    pub(crate) fn noted(&mut self, moment: Instant) -> Due {
        #[cfg(feature = "testing")]
        if self.manual.is_some() {
            return self.advance();
        }
        let noted = nanos(moment.saturating_duration_since(self.base));
        self.now = self.now.max(noted);
        noted
    }

    #[inline]
    fn elapsed(&self) -> Due {
        #[cfg(feature = "testing")]
        if let Some(time) = &self.manual {
            return time.now;
        }
        self.system.elapsed()
    }

    #[inline]
    fn coarse(&self) -> Due {
        #[cfg(feature = "testing")]
        if let Some(time) = &self.manual {
            return time.now;
        }
        self.system.coarse()
    }

    /// Returns the latest reading.
    pub(crate) fn now(&self) -> Due {
        self.now
    }

    /// Converts a wall-clock time. A time that is centuries away is clamped.
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

/// Reads the clock where there is no kernel at hand; for [`Clock::noted`].
pub(crate) fn moment() -> Instant {
    Instant::now()
}

/// The system's clock, read without the detours of [`Instant`].
#[cfg(target_os = "linux")]
struct System {
    /// What it showed when the kernel was made, or later.
    base: Due,
}

#[cfg(target_os = "linux")]
impl System {
    fn new(_: Instant) -> System {
        System { base: read(ClockId::CLOCK_MONOTONIC) }
    }

    #[inline]
    fn elapsed(&self) -> Due {
        read(ClockId::CLOCK_MONOTONIC) - self.base
    }

    /// Reads the time of the last tick. That takes a fifth of the time, and is never ahead of the precise clock.
    #[inline]
    fn coarse(&self) -> Due {
        read(ClockId::CLOCK_MONOTONIC_COARSE) - self.base
    }
}

#[cfg(target_os = "linux")]
#[inline]
fn read(clock: ClockId) -> Due {
    // Linux has both clocks, as does the standard library's `Instant`, which panics without.
    let time = clock_gettime(clock).expect("there is a monotonic clock");
    time.tv_sec().saturating_mul(1_000_000_000).saturating_add(time.tv_nsec())
}

/// Other systems have no coarse clock that goes with the precise one.
#[cfg(not(target_os = "linux"))]
struct System(Instant);

#[cfg(not(target_os = "linux"))]
impl System {
    fn new(base: Instant) -> System {
        System(base)
    }

    fn elapsed(&self) -> Due {
        nanos(self.0.elapsed())
    }

    fn coarse(&self) -> Due {
        self.elapsed()
    }
}

/// By how much the coarse clock may lag: ten times the longest tick that Linux is built with.
const COARSE_LAG: Due = 100_000_000;

/// Returns the earlier of two times; `None` is never.
#[inline]
pub(super) fn earlier(one: Option<Due>, other: Option<Due>) -> Option<Due> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
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

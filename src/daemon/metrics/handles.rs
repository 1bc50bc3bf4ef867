//! What the application counts by.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::memory::Memory;
use super::register::Combine;
use crate::daemon::view;

/// Where the numbers of a metric begin in each block.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) memory: Arc<Memory>,
    pub(super) word: usize,
}

impl Place {
    #[inline]
    fn own(&self, offset: usize) -> &AtomicU64 {
        self.memory.own(self.word + offset)
    }

    /// One atomic addition. A load and a store would save a nanosecond, and lose counts: threads of a child write the same block, and
    /// so do processes that other code has forked. Relaxed, as no other memory depends on it.
    #[inline]
    fn add(&self, offset: usize, number: u64) {
        self.own(offset).fetch_add(number, Relaxed);
    }
}

/// A number that only grows: what has happened how often.
#[derive(Clone)]
pub struct Counter(pub(super) Place);

impl Counter {
    /// Counts one.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// Counts so many.
    #[inline]
    pub fn add(&self, number: u64) {
        self.0.add(0, number);
    }
}

/// A number that goes up and down: how much there is of something at present.
///
/// Each process has a value of its own, 0 at first. [`Combine`] says how the values of all processes become one. A value goes with
/// its process.
#[derive(Clone)]
pub struct Gauge {
    place: Place,
    /// What the value of this process is kept as is the value with these bits changed. Zero, with which a block begins, is then the
    /// value that does not change the result.
    bias: u64,
}

impl Gauge {
    pub(super) fn new(place: Place, combine: Combine) -> Gauge {
        Gauge { place, bias: combine.bias() }
    }

    /// Sets the value of this process.
    #[inline]
    pub fn set(&self, value: i64) {
        self.place.own(0).store(value.cast_unsigned() ^ self.bias, Relaxed);
    }

    /// Adds to the value of this process, or takes away.
    #[inline]
    pub fn add(&self, difference: i64) {
        let difference = difference.cast_unsigned();
        if self.bias == 0 {
            return self.place.add(0, difference);
        }
        // A value that was never set is 0.
        let value = |kept: u64| if kept == 0 { 0 } else { kept ^ self.bias };
        let add = |kept| Some(value(kept).wrapping_add(difference) ^ self.bias);
        let _ = self.place.own(0).fetch_update(Relaxed, Relaxed, add);
    }

    /// Adds one.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// Takes one away.
    #[inline]
    pub fn dec(&self) {
        self.add(-1);
    }
}

/// Durations: how many were how long.
///
/// Its buckets are those of [`view::Histogram`], from 64 µs to 84 s. It is shown in seconds, so its name should end in `_seconds`.
#[derive(Clone)]
pub struct Histogram(pub(super) Place);

impl Histogram {
    /// Counts a duration. In the sum it counts for 2 years at most.
    #[inline]
    pub fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).map_or(LONGEST, |nanos| nanos.min(LONGEST));
        // The bucket comes last: an observation that is counted is in the sum.
        self.0.add(view::Histogram::BUCKETS, nanos);
        self.0.add(view::Histogram::bucket_of(nanos / 1000), 1);
    }
}

/// What a duration counts for in a sum at most, in nanoseconds. Sums of these wrap around after 256, and not after one.
const LONGEST: u64 = 1 << 56;

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counter").finish_non_exhaustive()
    }
}

impl fmt::Debug for Gauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gauge").finish_non_exhaustive()
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram").finish_non_exhaustive()
    }
}

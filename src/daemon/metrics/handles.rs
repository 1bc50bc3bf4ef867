//! The handles by which an application counts.

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

    /// One atomic addition. A load and a store would save a nanosecond and lose counts, because threads of a child write the same
    /// block. So do processes that other code has forked. Relaxed, as no other memory depends on it.
    #[inline]
    fn add(&self, offset: usize, number: u64) {
        self.own(offset).fetch_add(number, Relaxed);
    }
}

/// A number that only grows: how often something has happened.
#[derive(Clone)]
pub struct Counter(pub(super) Place);

impl Counter {
    /// Adds one.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `number`.
    #[inline]
    pub fn add(&self, number: u64) {
        self.0.add(0, number);
    }
}

/// A number that goes up and down: how much there is of something at present.
///
/// Each process has its own value, 0 at first. [`Combine`] says how the values of all processes become one. When a process ends, its
/// value no longer counts.
#[derive(Clone)]
pub struct Gauge {
    place: Place,
    /// A process stores its value with these bits changed. Zero, with which a block begins, then stands for the value that does not
    /// change the result.
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

    /// Adds `difference` to the value of this process. A negative `difference` makes the value smaller.
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

    /// Subtracts one.
    #[inline]
    pub fn dec(&self) {
        self.add(-1);
    }
}

/// A histogram of durations: how often something took how long.
///
/// The buckets are those of [`view::Histogram`], from 64 µs to 84 s. A histogram is shown in seconds, so its name should end in
/// `_seconds`.
#[derive(Clone)]
pub struct Histogram(pub(super) Place);

impl Histogram {
    /// Counts a duration. A duration of more than 2 years adds 2 years to the sum.
    #[inline]
    pub fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).map_or(LONGEST, |nanos| nanos.min(LONGEST));
        // The bucket comes last: an observation that is counted is in the sum.
        self.0.add(view::Histogram::BUCKETS, nanos);
        self.0.add(view::Histogram::bucket_of(nanos / 1000), 1);
    }
}

/// The most that a duration adds to a sum, in nanoseconds. So a sum wraps around after 256 such durations, and not after one.
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

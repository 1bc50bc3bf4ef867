//! What children have done, counted by each in its own place.
//!
//! Each number has one writer, the child, which loads it and stores one that is larger. There is nothing to lock. A child that is
//! killed between two stores leaves every number whole.
//!
//! When the parent has reaped a child it **folds** the child's numbers into those of all that have ended. It puts the new sums
//! together where no reader looks. Then one store of the word [`Ledger::folding`] makes them count, and says of which slot the
//! numbers are in them already. Then the parent clears the slot's own numbers, and says so by another store. A reader
//! that finds the word changed behind its back begins again. At each moment the sums are right, also if the parent is stopped or
//! killed in between.

use std::iter::zip;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::daemon::view::Histogram;
use crate::inject::{self, Point};
use crate::sys::atomics::{AtomicU64, fence};
use crate::sys::shared_memory::Slot;
use crate::sys::shown_memory::{BUCKETS, Cells, Ledger, Stats};

/// What all children of a Daemon have done, those that have ended included.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::daemon) struct Totals {
    /// Requests that were begun.
    pub(in crate::daemon) requests: u64,
    /// Requests of which the application says that they have failed.
    pub(in crate::daemon) failed: u64,
    /// For how long children had a request in hand, all together.
    pub(in crate::daemon) busy: Duration,
    /// Durations of requests. Without buckets if they are not counted.
    pub(in crate::daemon) request: Histogram,
    /// How long connections had waited when they were accepted. Without buckets if they are not counted.
    pub(in crate::daemon) accept_wait: Histogram,
    /// Children ended at each attempt to read: nothing else is known.
    pub(in crate::daemon) torn: bool,
}

/// Durations counted in plain memory, for what only one process has to tell.
#[derive(Clone, Debug)]
pub(in crate::daemon) struct Recorder {
    buckets: [u64; Histogram::BUCKETS],
    sum: Duration,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder { buckets: [0; Histogram::BUCKETS], sum: Duration::ZERO }
    }
}

impl Recorder {
    /// Counts one duration.
    pub(in crate::daemon) fn record(&mut self, span: Duration) {
        self.buckets[Histogram::bucket_of(micros(span))] += 1;
        self.sum = self.sum.saturating_add(span);
    }

    /// Returns what was counted.
    pub(in crate::daemon) fn histogram(&self) -> Histogram {
        Histogram::new(self.buckets.to_vec(), self.sum)
    }
}

/// Which of the two places of a number changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// The processes of the Daemon decide by them and tell of them, and other programs look at a copy.
    Inner,
    /// Other programs look at them.
    Shown,
}

/// A duration, and in which bucket it counts: looked up once for both places.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    micros: u64,
    bucket: usize,
}

impl From<Duration> for Sample {
    #[inline]
    fn from(span: Duration) -> Sample {
        let micros = micros(span);
        Sample { micros, bucket: Histogram::bucket_of(micros).min(BUCKETS - 1) }
    }
}

/// Counts one duration. The number of durations is the sum of the buckets, so it is right although `sum` is stored later.
#[inline]
pub(super) fn record(cells: &Cells, sample: Sample, which: Which) {
    add(&cells.buckets[sample.bucket], 1);
    if which == Which::Shown {
        inject::pass(Point::ChildRecord);
    }
    add(&cells.sum, sample.micros);
}

/// Counts a request that has failed.
pub(super) fn count_failed(stats: &Stats) {
    add(&stats.failed, 1);
}

/// The child has a request in hand from now on.
pub(super) fn begin_busy(stats: &Stats, now: u64) {
    let word = stats.busy.load(Relaxed);
    stats.busy_since.store(now, Relaxed);
    stats.busy.store(busy_at(word, now).wrapping_sub(now) << 1 | 1, Relaxed);
}

/// The child has no request in hand any more.
pub(super) fn end_busy(stats: &Stats, now: u64, which: Which) {
    let word = stats.busy.load(Relaxed);
    if word & 1 == 1 {
        stats.busy.store(busy_at(word, now) << 1, Relaxed);
        let span = Duration::from_micros(now.saturating_sub(stats.busy_since.load(Relaxed)));
        record(&stats.request, span.into(), which);
    }
}

/// Reads the word of [`Stats::busy`]: twice the time in microseconds; while the child is busy the time less `now`, twice, and 1.
/// So one store begins, one ends, and a reader needs one load.
fn busy_at(word: u64, now: u64) -> u64 {
    let time = word.cast_signed() >> 1;
    let time = if word & 1 == 1 { time.wrapping_add(now.cast_signed()) } else { time };
    time.max(0).cast_unsigned()
}

/// Adds the numbers of a child that has ended to those of all ended children. Then `clear` makes the slot new, before any reader
/// looks at it again. Parent only.
pub(super) fn fold(
    ledger: &Ledger,
    at: usize,
    slot: &Slot,
    stats: &Stats,
    now: u64,
    which: Which,
    clear: impl FnOnce(),
) {
    let word = ledger.folding.load(Relaxed);
    let (old, new) = (&ledger.retired[current(word)], &ledger.retired[1 - current(word)]);
    // A reader that sees a store below sees the word that came before, and so does not look there in vain.
    fence(Release);
    let sum = |to: &AtomicU64, from: &AtomicU64, more: u64| to.store(from.load(Relaxed).wrapping_add(more), Relaxed);
    for (to, from, more) in
        [(&new.request, &old.request, &stats.request), (&new.accept_wait, &old.accept_wait, &stats.accept_wait)]
    {
        for ((to, from), more) in zip(zip(&to.buckets, &from.buckets), &more.buckets) {
            sum(to, from, more.load(Relaxed));
        }
        sum(&to.sum, &from.sum, more.sum.load(Relaxed));
    }
    // Never busy by the lowest bit.
    sum(&new.busy, &old.busy, busy_at(stats.busy.load(Relaxed), now) << 1);
    sum(&new.requests, &old.requests, slot.requests.load(Relaxed));
    sum(&new.failed, &old.failed, stats.failed.load(Relaxed));
    let next = (word & !SLOT_MASK).wrapping_add(FOLD) ^ CURRENT;
    ledger.folding.store(next | (at as u64 + 1) << SLOT_SHIFT, Release);
    fence(Release); // no store of what follows becomes visible before that one does
    if which == Which::Shown {
        inject::pass(Point::Fold);
    }
    for cells in [&stats.request, &stats.accept_wait] {
        cells.buckets.iter().for_each(|bucket| bucket.store(0, Relaxed));
        cells.sum.store(0, Relaxed);
    }
    stats.busy.store(0, Relaxed);
    stats.failed.store(0, Relaxed);
    clear();
    ledger.folding.store(next, Release);
}

/// Makes the numbers of a child that has ended in `to` those in `from`. The child may have been killed before it had written both.
/// No number gets less, as a child writes to `from` first.
pub(super) fn level(to: &Stats, from: &Stats) {
    let store = |to: &AtomicU64, from: &AtomicU64| to.store(from.load(Relaxed), Relaxed);
    for (to, from) in [(&to.request, &from.request), (&to.accept_wait, &from.accept_wait)] {
        zip(&to.buckets, &from.buckets).for_each(|(to, from)| store(to, from));
        store(&to.sum, &from.sum);
    }
    store(&to.busy_since, &from.busy_since);
    store(&to.busy, &from.busy);
    store(&to.failed, &from.failed);
}

/// Sums up what the children have done that had these slots and those that have them. `None` if children ended at each of a
/// bounded number of attempts. What children have in hand counts until `now`.
pub(super) fn sum_up(ledger: &Ledger, slots: &[Slot], stats: &[Stats], now: Option<u64>) -> Option<Totals> {
    (0..ATTEMPTS).find_map(|_| try_to_sum_up(ledger, slots, stats, now))
}

pub(super) fn try_to_sum_up(ledger: &Ledger, slots: &[Slot], stats: &[Stats], now: Option<u64>) -> Option<Totals> {
    // Loads are relaxed with a fence: the memory may be one that this process can't write.
    let word = ledger.folding.load(Relaxed);
    fence(Acquire);
    let retired = &ledger.retired[current(word)];
    let mut sums = Sums::default();
    sums.add(retired, now);
    sums.requests = retired.requests.load(Relaxed);
    for (at, (slot, stats)) in zip(slots, stats).enumerate() {
        if (word & SLOT_MASK) >> SLOT_SHIFT == at as u64 + 1 {
            continue;
        }
        sums.requests = sums.requests.wrapping_add(slot.requests.load(Relaxed));
        sums.add(stats, now);
    }
    // Pairs with the fences in `fold`: if any load above saw a store of a later one, the load below sees that it has begun.
    fence(Acquire);
    (ledger.folding.load(Relaxed) == word).then(|| sums.totals())
}

struct Sums {
    requests: u64,
    failed: u64,
    busy: u64,
    request: ([u64; BUCKETS], u64),
    accept_wait: ([u64; BUCKETS], u64),
}

impl Default for Sums {
    fn default() -> Sums {
        Sums { requests: 0, failed: 0, busy: 0, request: ([0; BUCKETS], 0), accept_wait: ([0; BUCKETS], 0) }
    }
}

impl Sums {
    fn add(&mut self, stats: &Stats, now: Option<u64>) {
        // Without the time, what goes on does not count.
        let now = now.unwrap_or_else(|| stats.busy_since.load(Relaxed));
        self.failed = self.failed.wrapping_add(stats.failed.load(Relaxed));
        self.busy = self.busy.wrapping_add(busy_at(stats.busy.load(Relaxed), now));
        for ((buckets, sum), cells) in
            [(&mut self.request, &stats.request), (&mut self.accept_wait, &stats.accept_wait)]
        {
            for (total, bucket) in zip(buckets, &cells.buckets) {
                *total = total.wrapping_add(bucket.load(Relaxed));
            }
            *sum = sum.wrapping_add(cells.sum.load(Relaxed));
        }
    }

    fn totals(self) -> Totals {
        let histogram =
            |(buckets, sum): ([u64; BUCKETS], u64)| Histogram::new(buckets.to_vec(), Duration::from_micros(sum));
        Totals {
            requests: self.requests,
            failed: self.failed,
            busy: Duration::from_micros(self.busy),
            request: histogram(self.request),
            accept_wait: histogram(self.accept_wait),
            torn: false,
        }
    }
}

/// Which of the two retired totals counts.
fn current(word: u64) -> usize {
    usize::from(word & CURRENT != 0)
}

/// Adds to a number that has no other writer.
fn add(cell: &AtomicU64, more: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(more), Relaxed);
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// Returns the time by a clock that is the same in all processes and that nobody sets, in microseconds.
pub(super) fn now_us() -> u64 {
    // There is such a clock on every system.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| micros(time.into()))
}

/// The bit of [`Ledger::folding`] that says which of the two counts.
const CURRENT: u64 = 1;
/// The bits that hold one more than the slot that is folded.
const SLOT_MASK: u64 = 0xFFFF << SLOT_SHIFT;
const SLOT_SHIFT: u32 = 1;
/// The rest counts how often children were folded.
const FOLD: u64 = 1 << 17;

/// How often a reader tries: some 100 µs each with a thousand slots.
const ATTEMPTS: u32 = 100;

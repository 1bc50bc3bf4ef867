//! Histograms of durations.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A histogram of durations: how many observations fell into each bucket.
///
/// There are three buckets to an octave from 64 µs to 84 s, one bucket below and one above. Within that range an estimate is at most
/// 12.5 % off.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Histogram {
    /// The sum of all observations, in seconds.
    pub sum: f64,
    /// How many observations fell into each bucket, lowest first. Empty if the durations are not known.
    pub buckets: Vec<u64>,
}

impl Histogram {
    /// How many buckets there are.
    pub const BUCKETS: usize = 63;

    /// How many buckets there are to an octave. The upper bound of each bucket whose number is a multiple of it is an octave's.
    pub(crate) const PER_OCTAVE: usize = 3;

    /// Makes a histogram of what was counted in each bucket, and the sum of all observations.
    pub(crate) fn new(buckets: Vec<u64>, sum: Duration) -> Histogram {
        Histogram { sum: sum.as_secs_f64(), buckets }
    }

    /// Adds what was counted elsewhere. Where nothing is known of one of the two, nothing is known of the sum.
    pub(crate) fn plus(mut self, other: &Histogram) -> Histogram {
        if self.buckets.is_empty() || other.buckets.is_empty() {
            return Histogram::default();
        }
        std::iter::zip(&mut self.buckets, &other.buckets).for_each(|(own, other)| *own += other);
        Histogram { sum: self.sum + other.sum, ..self }
    }

    /// Returns how many observations there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Returns the bucket that an observation of so many microseconds falls into.
    pub(crate) const fn bucket_of(microseconds: u64) -> usize {
        let Some(octave) = (microseconds >> LOWEST_OCTAVE).checked_ilog2() else { return 0 };
        let octave = octave as usize;
        // The first 32 bits of the value, its highest bit at the top.
        let mantissa = (microseconds << microseconds.leading_zeros() >> 32) as u32;
        let third = (mantissa >= ONE_THIRD) as usize + (mantissa >= TWO_THIRDS) as usize;
        let bucket = 1 + octave * 3 + third;
        if bucket < Self::BUCKETS { bucket } else { Self::BUCKETS - 1 }
    }

    /// Returns the upper bound of a bucket in seconds. `bucket` counts from 0. The bound of the last bucket is infinite.
    pub fn upper_bound(bucket: usize) -> f64 {
        if bucket + 1 >= Self::BUCKETS {
            return f64::INFINITY;
        }
        let octaves = f64::from(u32::try_from(bucket).unwrap_or(u32::MAX)) / 3.0;
        LOWEST * octaves.exp2()
    }

    /// Estimates a quantile, in seconds. With a `share` of `0.99`, 99 % of all observations were not longer. `None` without
    /// observations.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = ((count as f64 * share).ceil() as u64).clamp(1, count);
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|observations| {
            seen += observations;
            seen >= rank
        })?;
        Some(match bucket {
            0 => LOWEST / 2.0,
            last if last + 1 == Self::BUCKETS => Self::upper_bound(last - 1),
            // In the middle, as the widths grow: a sixth of an octave below the upper bound.
            bucket => Self::upper_bound(bucket) / (1.0 / 6.0_f64).exp2(),
        })
    }
}

/// The upper bound of the first bucket, in seconds.
const LOWEST: f64 = 64e-6;

/// 64 microseconds are 2 to this power.
const LOWEST_OCTAVE: u32 = 6;

/// 2 to the power of 31 and a third.
const ONE_THIRD: u32 = 2_705_659_853;

/// 2 to the power of 31 and two thirds.
const TWO_THIRDS: u32 = 3_408_917_802;

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // O-ST-10
    fn every_duration_falls_into_the_bucket_whose_bounds_are_around_it() {
        for microseconds in
            (0..200_000).chain((17..28).flat_map(|bit| (0..64).map(move |part| (1 << bit) + (part << (bit - 6)))))
        {
            let (bucket, seconds) = (Histogram::bucket_of(microseconds), microseconds as f64 / 1e6);
            assert!(seconds < Histogram::upper_bound(bucket), "{microseconds} µs in bucket {bucket}");
            assert!(
                bucket == 0 || seconds >= Histogram::upper_bound(bucket - 1) * 0.999_999,
                "{microseconds} µs in bucket {bucket}"
            );
        }
        assert_eq!(Histogram::bucket_of(u64::MAX), Histogram::BUCKETS - 1);
    }

    #[test] // O-ST-10
    fn a_quantile_is_at_most_an_eighth_off() {
        for microseconds in
            (64..5_000).chain((13..26).flat_map(|bit| (0..64).map(move |part| (1 << bit) + (part << (bit - 6)))))
        {
            let mut buckets = vec![0; Histogram::BUCKETS];
            buckets[Histogram::bucket_of(microseconds)] = 1;
            let estimate = Histogram::new(buckets, Duration::ZERO).quantile(0.5).unwrap();
            let seconds = microseconds as f64 / 1e6;
            assert!((estimate / seconds - 1.0).abs() <= 0.125, "{microseconds} µs: {estimate}");
        }
    }

    #[test] // O-ST-07: what is not known is not 0
    fn sum_with_what_is_not_known_is_not_known() {
        let one = |bucket: usize| {
            let mut buckets = vec![0; Histogram::BUCKETS];
            buckets[bucket] = 1;
            Histogram::new(buckets, Duration::from_millis(1))
        };
        let both = one(3).plus(&one(5));
        assert_eq!((both.count(), both.buckets[3], both.buckets[5], both.sum), (2, 1, 1, 0.002));
        assert_eq!(one(3).plus(&Histogram::default()), Histogram::default());
        assert_eq!(Histogram::default().plus(&one(3)), Histogram::default());
    }

    #[test]
    fn no_observation_has_no_quantile() {
        assert_eq!(Histogram::default().quantile(0.5), None);
    }
}

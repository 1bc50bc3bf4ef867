//! What does it cost to count, in memory that the processes of a Daemon share?
//!
//! The peer is the least that a count can be which loses nothing among threads: a relaxed `fetch_add` on an `AtomicU64` of the
//! process's own. A histogram adds twice.

use std::hint::black_box;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use lenore::daemon::metrics::{Combine, Counter, Gauge, Histogram};
use lenore::{Daemon, Kernel};

mod ratios;

use ratios::{Budget, Rounds};

/// What is counted by.
struct Meters {
    counter: Counter,
    gauge: Gauge,
    histogram: Histogram,
    bare: AtomicU64,
    /// So that not each duration falls into the same bucket.
    duration: Duration,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut kernel = Kernel::new()?;
    let metrics = Daemon::builder().spawn(&mut kernel)?.metrics();
    let mut meters = Meters {
        counter: metrics.counter("counted_total", "A counter")?,
        gauge: metrics.gauge("present", "A gauge", Combine::Sum)?,
        histogram: metrics.histogram("taken_seconds", "A histogram")?,
        bare: AtomicU64::new(0),
        duration: Duration::ZERO,
    };
    Rounds::measure(
        "metrics",
        1,
        &mut meters,
        &[
            ("counter_inc", |meters, bencher| bencher.iter(|| black_box(&meters.counter).inc())),
            ("gauge_set", |meters, bencher| bencher.iter(|| black_box(&meters.gauge).set(black_box(7)))),
            ("histogram_observe", |meters, bencher| {
                let Meters { histogram, duration, .. } = meters;
                bencher.iter(|| {
                    *duration = Duration::from_nanos((duration.subsec_nanos() + 999_983) as u64 % 1_000_000_000);
                    black_box(&*histogram).observe(black_box(*duration));
                });
            }),
            ("bare_fetch_add", |meters, bencher| bencher.iter(|| black_box(&meters.bare).fetch_add(1, Relaxed))),
        ],
    )
    .nanos("counter_inc", Budget::AtMost(20.0))
    .times("counter_inc", "bare_fetch_add", Budget::None)
    .nanos("gauge_set", Budget::AtMost(20.0))
    .nanos("histogram_observe", Budget::AtMost(20.0))
    .times("histogram_observe", "bare_fetch_add", Budget::None)
    .nanos("bare_fetch_add", Budget::None)
    .print();
    Ok(())
}

//! Counters, gauges and histograms of an application that has several processes.
//!
//! [A child's memory is its own](crate::guide::memory), so a number that a child counts in its own memory is lost with the child. The
//! metrics of a Daemon are in memory that the parent shares with its children. Children count, and the parent adds up.
//!
//! Three places show the sums: [`Snapshot::metrics`](crate::daemon::view::Snapshot::metrics), the status page, and the metrics that the
//! Daemon offers to Prometheus.
//!
//! # How to use them
//!
//! Declare each metric in the parent, after [`spawn`](crate::daemon::DaemonBuilder::spawn) and before the first child is forked. Do it in
//! the state that spawns the Daemon, or on `daemon_start`. A handle is cheap to clone. It works in each process and in each thread. A
//! [`component::Server`](crate::component::Server#metrics) passes handles to its callbacks in a cell.
//!
//! ```
//! use std::time::Duration;
//!
//! use lenore::daemon::metrics::{Combine, Counter, Gauge, Histogram};
//! use lenore::daemon::view::Sample;
//! use lenore::{Context, Daemon, Kernel, Result, Session};
//!
//! struct Site {
//!     daemon: Daemon,
//!     logins: Counter,
//!     connections: Gauge,
//!     lookup: Histogram,
//! }
//!
//! fn start(cx: &mut Context<'_, Option<Site>>) -> Result {
//!     cx.sig("daemon_start", "daemon_start");
//!     // With `start_children` the rest stays the same, and the children count.
//!     let daemon = Daemon::builder().spawn(cx)?;
//!     let metrics = daemon.metrics();
//!     let site = Site {
//!         daemon,
//!         logins: metrics.counter("logins_total", "Users who have logged in")?,
//!         connections: metrics.gauge("database_connections", "Connections to the database", Combine::Sum)?,
//!         lookup: metrics.histogram("lookup_seconds", "How long the database takes")?,
//!     };
//!     *cx.heap() = Some(site);
//!     Ok(())
//! }
//!
//! fn serve(cx: &mut Context<'_, Option<Site>>) -> Result {
//!     let site = cx.heap().as_ref().unwrap();
//!     site.logins.inc();
//!     site.connections.set(3);
//!     site.lookup.observe(Duration::from_millis(4));
//!
//!     let daemon = site.daemon;
//!     let snapshot = daemon.snapshot(cx)?.unwrap();
//!     assert_eq!(snapshot.metrics.len(), 3);
//!     assert_eq!(snapshot.metrics[0].name, "logins_total");
//!     assert_eq!(snapshot.metrics[0].sample, Sample::Counter(1));
//!     assert_eq!(snapshot.metrics[1].sample, Sample::Gauge(3));
//!     let Sample::Histogram(lookup) = &snapshot.metrics[2].sample else { panic!() };
//!     assert_eq!((lookup.count(), lookup.sum), (1, 0.004));
//!     Ok(daemon.shutdown(cx)?)
//! }
//!
//! # fn main() -> std::result::Result<(), lenore::Error> {
//! let mut kernel = Kernel::new()?;
//! Session::new(None).state("_start", start).state("daemon_start", serve).spawn(&mut kernel)?;
//! kernel.run()
//! # }
//! ```
//!
//! # What is lost, and what is not
//!
//! - Each count is one atomic addition. The sums stay right if a child is killed at any moment. The count of a histogram is always the
//!   sum of its buckets. Its sum of durations can be off by the one observation during which the child was killed.
//! - The parent takes over the counts of a dead child before the child's slot is used again. Counters and histograms never go back. The
//!   value that a dead child had given to a gauge is forgotten.
//! - A process that a child has forked counts, too, and so does a process that other code in the parent has forked. Such a process has
//!   no slot, so its gauges are not shown. If the kernel does not know of the fork, the process counts for the process that forked it.
//! - Handles go on working after the Daemon has ended. Then their counts are not shown anywhere.
//!
//! # Limits
//!
//! The metrics of a Daemon together have room for 1024 numbers. A counter or a gauge takes one number, a histogram takes 64. A child
//! that counts uses 8192 bytes of shared memory. A child that does not count uses none. The first metric maps 134 MB of address space,
//! of which only the used part takes memory.
//!
//! POE: nothing like it.

mod error;
mod handles;
mod memory;
mod names;
mod register;
#[cfg(test)]
mod tests;

pub use error::MetricError;
pub use handles::{Counter, Gauge, Histogram};
pub use register::{Combine, Metrics};
pub(in crate::daemon) use register::{Register, enter, find, leave};

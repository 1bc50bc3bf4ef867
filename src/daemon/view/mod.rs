//! A [`Snapshot`] has everything that an operator can see of a Daemon. [`text`] writes a snapshot for terminals.
//!
//! [`Daemon::snapshot`](crate::Daemon::snapshot) takes a snapshot of the Daemon in this process, and
//! [`BoardFile::snapshot`](crate::daemon::BoardFile::snapshot) of a Daemon in another process. The status page, the metrics, and the
//! answers at the control socket are written from a snapshot alone.

#![allow(dead_code, reason = "what fills it in comes piece by piece")]

mod carried;
mod histogram;
mod human;
pub(in crate::daemon) mod json;
mod letters;
pub(in crate::daemon) mod metrics;
#[cfg(feature = "status")]
pub(in crate::daemon) mod page;
#[cfg(test)]
pub(in crate::daemon) mod sample;
mod snapshot;
pub mod text;

pub(in crate::daemon) use carried::Carried;
pub use histogram::Histogram;
#[cfg(test)]
pub(in crate::daemon) use letters::known;
pub(in crate::daemon) use snapshot::time_text;
pub use snapshot::{
    ChildView, Counters, Death, Durations, Family, Kind, ListenerView, Phase, Pool, ProcessView, Queue, Reload,
    Reloads, SCHEMA, Sample, Service, Snapshot, States, Upgrade, Upgrades, When,
};

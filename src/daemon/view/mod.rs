//! What a Daemon looks like from outside: one [`Snapshot`], and its forms.
//!
//! A snapshot is taken in one pass. Everything that shows it is a pure function of it.

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

//! The parent: tells the machine what happens, and carries out what it decides.

#[cfg(feature = "control")]
mod asking;
#[cfg(feature = "control")]
pub(super) mod asks;
mod candidate;
mod channel;
#[cfg(feature = "control")]
pub(super) mod clients;
#[cfg(feature = "control")]
pub(super) mod consumption;
pub(super) mod drive;
pub(super) mod ending;
pub(super) mod events;
mod eyes;
#[cfg(feature = "control")]
pub(super) mod glance;
pub(super) mod launcher;
#[cfg(feature = "control")]
mod ledger;
#[cfg(feature = "control")]
mod levels;
pub(super) mod manager;
#[cfg(feature = "control")]
pub(super) mod measures;
mod names;
#[cfg(feature = "control")]
mod news;
pub(super) mod oom;
#[cfg(feature = "control")]
mod outside;
#[cfg(feature = "control")]
pub(super) mod picture;
mod pids;
pub(super) mod predecessor;
mod refused;
pub(super) mod reload;
pub(super) mod role;
mod say;
mod scout;
pub(super) mod scouting;
#[cfg(feature = "control")]
mod seen;
mod signals;
#[cfg(feature = "status")]
pub(super) mod status_listener;
#[cfg(feature = "control")]
pub(super) mod steer;
pub(super) mod store;
pub(super) mod succession;
mod successor;
pub(super) mod taking_over;
#[cfg(feature = "control")]
mod timings;
pub(super) mod upgrade;
mod upgrading;
pub(super) mod usage;
#[cfg(feature = "control")]
mod verdicts;
#[cfg(feature = "status")]
pub(super) mod visitors;

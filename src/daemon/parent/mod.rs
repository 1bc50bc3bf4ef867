//! The parent: tells the machine what happens, and carries out what it decides.

pub(super) mod drive;
pub(super) mod ending;
pub(super) mod events;
mod eyes;
pub(super) mod launcher;
pub(super) mod oom;
#[cfg(feature = "control")]
pub(super) mod picture;
mod pids;
mod refused;
pub(super) mod role;
mod say;
mod signals;
pub(super) mod usage;

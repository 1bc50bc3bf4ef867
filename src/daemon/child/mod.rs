//! The child: taking its place, reporting what it does, going when it is told to.

#[cfg(feature = "control")]
pub(super) mod asked;
pub(super) mod ending;
mod last_timers;
pub(super) mod orphan;
pub(super) mod release;
pub(super) mod requests;
pub(super) mod role;
pub(super) mod slot;
mod time;
pub(super) mod words;

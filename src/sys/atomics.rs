//! The atomic integers of the memory that processes share; where a model checker looks at them, its own in their place.

#[cfg(lenore_loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, fence};
#[cfg(lenore_shuttle)]
pub(crate) use shuttle::sync::atomic::{AtomicU32, AtomicU64, fence};
#[cfg(not(any(lenore_loom, lenore_shuttle)))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, fence};

//! Everything that needs `unsafe`, one small file for each need, behind safe functions.
#![allow(unsafe_code)]

pub(crate) mod child;
pub(crate) mod disposition;
#[cfg(target_os = "linux")]
pub(crate) mod exclusive;
pub(crate) mod file_lock;
pub(crate) mod fork;
pub(crate) mod priority;
pub(crate) mod shared_memory;
#[cfg(feature = "pty")]
pub(crate) mod terminal;
pub(crate) mod wait;

//! Everything that needs `unsafe`, and what that relies on: one small file for each need, behind safe functions.
#![allow(unsafe_code)]

pub(crate) mod accept_queue;
pub(crate) mod atomics;
pub(crate) mod child;
pub(crate) mod controlling_terminal;
#[cfg_attr(any(lenore_loom, lenore_shuttle), allow(dead_code, reason = "a model has memory of its own"))]
#[cfg_attr(not(feature = "control"), allow(dead_code, reason = "only a board that is shown has a file"))]
mod cut_short;
pub(crate) mod descriptors;
pub(crate) mod disconnect;
pub(crate) mod disposition;
pub(crate) mod environment;
#[cfg(target_os = "linux")]
pub(crate) mod exclusive;
pub(crate) mod exec;
pub(crate) mod file_lock;
pub(crate) mod fork;
#[cfg_attr(any(lenore_loom, lenore_shuttle), allow(dead_code, reason = "a model has memory of its own"))]
#[cfg_attr(not(feature = "control"), allow(dead_code, reason = "only a board that is shown has a file"))]
pub(crate) mod mapping;
#[cfg(any(lenore_loom, lenore_shuttle))]
pub(crate) mod modelled_memory;
#[cfg_attr(not(target_os = "linux"), path = "no_parent_death.rs")]
pub(crate) mod parent_death;
pub(crate) mod passing;
pub(crate) mod peer;
#[cfg(target_os = "linux")]
pub(crate) mod pidfd;
pub(crate) mod priority;
#[cfg(target_os = "linux")]
pub(crate) mod procfs;
#[cfg_attr(any(lenore_loom, lenore_shuttle), allow(dead_code, reason = "a model has memory of its own"))]
pub(crate) mod shared_memory;
#[cfg(feature = "control")]
pub(crate) mod shared_words;
#[cfg_attr(any(lenore_loom, lenore_shuttle), allow(dead_code, reason = "a model has memory of its own"))]
#[cfg_attr(not(feature = "control"), allow(dead_code, reason = "only a board that is shown has it"))]
pub(crate) mod shown_memory;
pub(crate) mod signal_pipe;
#[cfg(feature = "pty")]
pub(crate) mod terminal;
pub(crate) mod threads;
pub(crate) mod wait;

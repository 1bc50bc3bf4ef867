//! What a parent gives a child on its way.

use std::os::fd::OwnedFd;

use crate::daemon::config::Held;
use crate::daemon::machine::Key;

/// What a new child is told.
pub(super) struct Birth {
    pub(super) key: Key,
    /// It begins with `l`.
    pub(super) is_long: bool,
    /// How many requests it is to handle; `None` for any number.
    pub(super) share: Option<u64>,
    /// It has no request, and shows that it can start.
    pub(super) is_probe: bool,
    /// The configuration that it has, if the program has one.
    pub(super) config: Option<Held>,
    /// Its standard error for as long as its parent wants to know what it says, and what ends when the parent does not any more.
    pub(super) stderr: Option<(OwnedFd, OwnedFd)>,
}

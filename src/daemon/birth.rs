//! What a parent gives a child on its way.

use std::any::Any;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use crate::daemon::machine::{Edition, Key};

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
    pub(super) config: Option<(Edition, Rc<dyn Any>)>,
    /// Its standard error for as long as its parent wants to know what it says, and what ends when the parent does not any more.
    pub(super) stderr: Option<(OwnedFd, OwnedFd)>,
}

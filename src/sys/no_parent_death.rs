//! Where the system sends no signal at the parent's death: a child notices when its state returns.

use std::os::fd::RawFd;
use std::time::Duration;

pub(crate) fn prepare() -> nix::Result<bool> {
    Ok(true)
}

pub(crate) fn arm(_owner: i32, _parent: i32, _poller: RawFd, _otherwise: Duration) -> nix::Result<()> {
    Ok(())
}

pub(crate) fn note_listeners(_fds: impl Iterator<Item = RawFd>) {}

pub(crate) fn set_limit(_limit: Option<Duration>) {}

pub(crate) fn disarm() {}

pub(crate) fn end_with(_parent: i32) -> nix::Result<()> {
    Ok(())
}

pub(crate) fn has_replaced_listeners() -> bool {
    false
}

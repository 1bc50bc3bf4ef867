//! flock(2), whose lock belongs to the open file and not to a value that unlocks when it is dropped.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc;

/// Takes the exclusive lock of an open file without waiting; `EWOULDBLOCK` if somebody else has it.
///
/// The lock ends when the last descriptor of this open file is closed, in whichever process. That a child drops its
/// copy must not unlock it for the parent, as dropping nix's `Flock` would.
pub(crate) fn try_lock(file: impl AsFd) -> nix::Result<()> {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: flock takes two numbers and touches no memory; the descriptor is open, as it is borrowed.
    Errno::result(unsafe { libc::flock(fd, libc::LOCK_EX | libc::LOCK_NB) }).map(drop)
}

//! Taking a socket away from a descriptor that goes on being somebody's.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Puts a new socket, which is neither bound nor connected, behind a descriptor; what was there is closed in this process.
///
/// # Errors
///
/// When there is no descriptor left for the new socket; nothing is changed then.
pub(crate) fn disconnect(fd: impl AsFd) -> nix::Result<()> {
    let idle = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: dup3 takes numbers and touches no memory. Both descriptors are open, as one is owned and one is borrowed, and
    // stay open: whoever owns `fd` finds another socket behind its number, and never a file of somebody else's.
    Errno::result(unsafe { libc::dup3(idle.as_raw_fd(), fd.as_fd().as_raw_fd(), libc::O_CLOEXEC) }).map(drop)
}

//! Watching a descriptor with `EPOLLEXCLUSIVE`, which mio has no interest for.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use mio::{Registry, Token};
use nix::libc;

/// A listening socket that several processes watch, each with an epoll instance of its own: a connection wakes one of
/// them. Level-triggered, so that a listener that was not drained is reported again.
///
/// The kernel allows no change to such a registration but its removal (`EPOLL_CTL_MOD` is `EINVAL`), which mio's own
/// `deregister` does as well as any.
pub(crate) struct Exclusive(pub(crate) RawFd);

impl Exclusive {
    pub(crate) fn register_with(&self, registry: &Registry, token: Token) -> io::Result<()> {
        let mut event =
            libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLEXCLUSIVE) as u32, u64: token.0 as u64 };
        // SAFETY: `event` is a valid `epoll_event` that outlives the call, which copies it. Both descriptors are plain
        // numbers to the system call: one that is not open, or no epoll instance, is an error and touches no memory.
        let done = unsafe { libc::epoll_ctl(registry.as_raw_fd(), libc::EPOLL_CTL_ADD, self.0, &mut event) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

//! The controlling terminal: whether this process has one.

use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sys::stat::Mode;

/// Tells whether this process has a controlling terminal. `None` means that the system does not say, as in a chroot
/// without `/dev/tty`.
pub(crate) fn has_controlling_terminal() -> Option<bool> {
    // Without O_NONBLOCK a serial line could make the open wait for its carrier.
    let flags = OFlag::O_RDONLY | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    match open("/dev/tty", flags, Mode::empty()) {
        Ok(_) => Some(true),
        Err(Errno::ENXIO) => Some(false),
        Err(_) => [libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO]
            .into_iter()
            .any(is_controlling_terminal)
            .then_some(true),
    }
}

/// Tells whether a descriptor is the controlling terminal of this process.
fn is_controlling_terminal(fd: RawFd) -> bool {
    // SAFETY: takes a number and returns one. It fails for any number that is not an open descriptor of that terminal.
    unsafe { libc::tcgetpgrp(fd) >= 0 }
}

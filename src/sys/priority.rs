//! The process's niceness.

use nix::errno::Errno;
use nix::libc;

/// Returns the niceness of this process.
pub(crate) fn niceness() -> nix::Result<i32> {
    Errno::clear();
    // SAFETY: getpriority takes two numbers and touches no memory.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    // -1 is a niceness as well as the sign of an error.
    match Errno::last() {
        errno if nice == -1 && errno != Errno::UnknownErrno => Err(errno),
        _ => Ok(nice),
    }
}

/// Sets the niceness of this process.
pub(crate) fn set_niceness(nice: i32) -> nix::Result<()> {
    // SAFETY: setpriority takes three numbers and touches no memory.
    Errno::result(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) }).map(drop)
}

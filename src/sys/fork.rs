//! fork(2) and what has to be around it.

use nix::errno::Errno;
use nix::unistd::{ForkResult, Pid};

/// Which side of the fork this is.
pub(crate) enum Side {
    Parent(Pid),
    Child,
}

/// Forks the process.
///
/// # Errors
///
/// `Err(Ok(n))` when the process has `n` threads, more than one; `Err(Err(errno))` when the system refuses.
pub(crate) fn fork() -> Result<Side, Result<usize, Errno>> {
    let threads = thread_count();
    if threads > 1 {
        return Err(Ok(threads));
    }
    // SAFETY: the process has a single thread, so no lock is held by a thread that the child would not have, and
    // everything that is allowed in the parent is allowed in the child. Where threads can't be counted (not Linux),
    // the caller's documentation asks for it.
    match unsafe { nix::unistd::fork() } {
        Ok(ForkResult::Parent { child }) => Ok(Side::Parent(child)),
        Ok(ForkResult::Child) => Ok(Side::Child),
        Err(errno) => Err(Err(errno)),
    }
}

/// Leaves the process at once: nothing is flushed twice and no destructor of the parent's runs.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` ends the process and returns to nobody; it may be called at any time.
    unsafe { nix::libc::_exit(status) }
}

/// Counts the threads of this process; 1 where the system doesn't say.
#[cfg(target_os = "linux")]
pub(crate) fn thread_count() -> usize {
    use std::os::unix::fs::MetadataExt;
    // A directory has a link from its parent, one from itself, and one from each directory in it: here one a thread.
    // One system call, where reading the list or a status file takes several, at every fork.
    std::fs::metadata("/proc/self/task").map_or(1, |task| task.nlink().saturating_sub(2).max(1) as usize)
}

/// Counts the threads of this process; 1 where the system doesn't say.
#[cfg(not(target_os = "linux"))]
pub(crate) fn thread_count() -> usize {
    1
}

//! fork(2) and what has to be around it.

use nix::errno::Errno;
use nix::unistd::{ForkResult, Pid};

use super::threads::{NotAlone, make_sure_alone};

/// Which side of the fork this is.
pub(crate) enum Side {
    Parent(Pid),
    Child,
}

/// Why there was no fork.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Other threads, or no way to know.
    NotAlone(NotAlone),
    /// The system refused.
    BySystem(Errno),
}

/// Forks the process. It waits for threads that are about to end.
///
/// # Errors
///
/// [`Refused`] when the process has more than one thread, when its threads can't be counted, and when the system refuses.
pub(crate) fn fork() -> Result<Side, Refused> {
    make_sure_alone().map_err(Refused::NotAlone)?;
    // SAFETY: on Linux the system has just said that this is the only thread, and no other can have begun since: only this
    // one could have started it. So no lock is held by a thread that the child would not have, and everything that is
    // allowed in the parent is allowed in the child. Elsewhere threads can't be counted, and the public documentation asks
    // the caller to have one only.
    match unsafe { nix::unistd::fork() } {
        Ok(ForkResult::Parent { child }) => Ok(Side::Parent(child)),
        Ok(ForkResult::Child) => Ok(Side::Child),
        Err(errno) => Err(Refused::BySystem(errno)),
    }
}

/// Leaves the process at once: nothing is flushed twice and no destructor of the parent's runs.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` ends the process and returns to nobody; it may be called at any time.
    unsafe { nix::libc::_exit(status) }
}

/// Forks a process whose other threads wait for this one.
///
/// It is for the process of one test: the test harness has given the test a thread, and waits for that thread. The child has
/// this thread alone.
#[cfg(feature = "testing")]
pub(crate) fn fork_beside_a_waiting_harness() -> Result<Side, Errno> {
    // SAFETY: the child may do anything if no other thread holds a lock at this moment. The process was started for one test, with
    // `--test-threads=1`: its other thread is the harness's, which has started this one and waits for it in a channel.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Side::Parent(child)),
        ForkResult::Child => Ok(Side::Child),
    }
}

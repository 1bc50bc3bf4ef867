//! Processes by their pid: what the system says of one, and a signal to it.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::sys::wait::{Halt, peek_halted};

/// What the system says about a child.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::daemon) enum ProcessState {
    Runs,
    Stopped,
    Exited,
    /// It is no child of this process any more.
    Gone,
}

/// Asks without waiting and without reaping.
pub(in crate::daemon) fn look(pid: i32) -> ProcessState {
    match peek_halted(pid) {
        Ok(Some(Halt::Stopped)) => ProcessState::Stopped,
        Ok(Some(Halt::Ended)) => ProcessState::Exited,
        Err(Errno::ECHILD) => ProcessState::Gone,
        Ok(None) | Err(_) => ProcessState::Runs,
    }
}

/// Sends a signal to one process.
pub(in crate::daemon) fn send(pid: i32, signal: Signal) {
    debug_assert!(pid > 1, "0, -1 and 1 mean others than a child");
    if pid <= 1 {
        return;
    }
    // Other code may have waited for it, and its number be anybody's.
    if look(pid) == ProcessState::Gone {
        return;
    }
    if let Err(errno) = kill(Pid::from_raw(pid), signal) {
        log::warn!(target: "lenore::daemon", "can't send {signal} to child {pid}: {errno}");
    }
}

/// Returns the children of a process, theirs, and so on, where the system tells.
pub(in crate::daemon) fn descendants(pid: i32) -> Vec<i32> {
    #[cfg(target_os = "linux")]
    {
        let mut found = vec![pid];
        let mut at = 0;
        // Each process has one parent, so this ends. They may fork meanwhile.
        while let Some(pid) = found.get(at).copied() {
            at += 1;
            let children = crate::sys::procfs::read_to_string(format!("{pid}/task/{pid}/children")).unwrap_or_default();
            found.extend(children.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        }
        found.split_off(1)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = pid;
        Vec::new()
    }
}

/// Kills a process that need not be a child of this one.
pub(in crate::daemon) fn kill_other(pid: i32) {
    if pid > 1 {
        // It may be gone.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

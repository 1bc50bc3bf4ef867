//! Children of this process that other code has forked and reported.

use nix::sys::signal::Signal;

use crate::daemon::error::DaemonError;
use crate::daemon::heap::Cx;
use crate::daemon::processes::{ProcessState, look, send};
use crate::error::Result;
use crate::reply::Return;

/// Reports one.
pub(in crate::daemon) fn report(cx: &mut Cx<'_>) -> Result<Return<Result<(), DaemonError>>> {
    let pid = *cx.arg::<i32>(0)?;
    // Nobody would ever hear of its end; and what is not positive means whole groups of processes.
    if pid <= 1 || look(pid) == ProcessState::Gone {
        let error = DaemonError::NotAChild(pid);
        log::error!(target: "lenore::daemon", "{error} (reported at {})", cx.caller());
        return Ok(Return(Err(error)));
    }
    cx.sig_child(pid, "foreign_child_reaped", ());
    if !cx.heap().foreign.contains(&pid) {
        cx.heap().foreign.push(pid);
    }
    if cx.heap().is_over {
        send(pid, Signal::SIGTERM);
    }
    Ok(Return(Ok(())))
}

/// The system says that one has ended.
pub(in crate::daemon) fn reaped(cx: &mut Cx<'_>) -> Result {
    let pid = *cx.arg::<i32>(1)?;
    cx.heap().foreign.retain(|other| *other != pid);
    Ok(())
}

/// Forgets those that other code has waited for: nobody will tell of their end. Those that have ended and are still there are
/// told of soon.
pub(in crate::daemon) fn forget_vanished(cx: &mut Cx<'_>) {
    if cx.heap().foreign.is_empty() {
        return;
    }
    // Its SIGCHLD may have been lost, or be under way.
    cx.core_mut().children.look = true;
    let (heap, core) = cx.parts();
    // What the kernel has reaped in this very slice is as gone, but the event that says how is in the queue.
    heap.foreign.retain(|&pid| {
        let has_vanished = core.awaits_child(pid) && look(pid) == ProcessState::Gone;
        if has_vanished {
            // Its number may mean another process by now: nothing is sent to it, nothing waited for.
            core.sig_child_clear(pid);
        }
        !has_vanished
    });
}

//! The end of a Daemon in its parent.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::daemon::announce::announce;
use crate::daemon::board::SlotIndex;
use crate::daemon::board::doorbell::Doorbell;
use crate::daemon::ending::{self, KEPT_ALIVE};
use crate::daemon::error::DaemonError;
use crate::daemon::heap::{Cx, Heap, Role};
use crate::daemon::machine::{Cause, Child, Death, Failure, Grace, Note, Shutdown};
use crate::daemon::parent::say;
use crate::daemon::processes::send;
use crate::daemon::settings::Forking;
use crate::error::{Exception, Result};
use crate::sys::wait::{reap, wait_for_end};

/// Takes every trace of the Daemon out of the kernel, and tells the application.
pub(super) fn end(cx: &mut Cx<'_>, how: Shutdown) -> Result {
    cx.heap().is_over = true;
    let withdrawn = ending::withdraw(cx);
    let (heap, core) = cx.parts();
    if let Some(end) = heap.doorbell.as_ref().and_then(Doorbell::parents_end) {
        core.select_read_clear(end);
    }
    let told = announce(cx, "daemon_shutdown", (how,));
    let me = cx.session();
    let _ = cx.refcount_decrement(me, KEPT_ALIVE);
    withdrawn.and(told)
}

/// Notes what `run` is to return: the first failure.
pub(super) fn note_failure(cx: &mut Cx<'_>, failure: Failure) {
    let Heap { role: Role::Parent(parent), settings, .. } = cx.heap() else { return };
    let exception = match failure {
        Failure::Fork => {
            let Some(refused) = parent.refused.take() else { return };
            log::error!(target: "lenore::daemon", "the Daemon shuts down: {}", refused.error);
            parent.failure.get_or_insert(Exception::from(refused.error));
            return;
        }
        Failure::LauncherGone => {
            log::error!(target: "lenore::daemon", "shutting down: the launcher ended before the daemon was ready");
            return;
        }
        Failure::ChildrenFail { failures, key, cause } => {
            DaemonError::ChildrenFail { failures, pid: parent.pids.name(key), cause }
        }
        Failure::StartTimeout { ready, wanted } => {
            DaemonError::StartTimeout { ready, wanted, limit: settings.start_timeout }
        }
    };
    log::error!(target: "lenore::daemon", "shutting down: {exception}");
    parent.failure.get_or_insert(Exception::from(exception));
}

/// Tells whether connections of this process may still be served although the Daemon has ended. Another Daemon in this process would
/// keep it for reasons of its own.
pub(super) fn may_drain(cx: &mut Cx<'_>) -> bool {
    cx.heap().settings.forking == Forking::None && !ending::has_other_daemon(cx)
}

/// No child is left. What has brought the Daemon down becomes what `run` returns, when all else is done.
pub(super) fn finish(cx: &mut Cx<'_>) -> Result {
    if cx.heap().settings.forking != Forking::None {
        ending::look_what_is_left(cx);
    }
    match cx.heap().role.parent_mut().and_then(|parent| parent.failure.take()) {
        // What has failed told the log when it did.
        Some(exception) => Err(exception.logged()),
        None => Ok(()),
    }
}

/// The session is stopped by force, and the loop is about to end or has ended: no event will tell of the children's end.
/// So they are waited for here, as long as they are given at any shutdown.
pub(in crate::daemon) fn last_resort(cx: &mut Cx<'_>) {
    let Heap { role: Role::Parent(parent), foreign, settings, .. } = cx.heap() else { return };
    let mut left: Vec<i32> = parent.pids.all().chain(foreign.iter().copied()).collect();
    if left.is_empty() {
        return;
    }
    log::warn!(target: "lenore::daemon", "the kernel stops and waits for {} children", left.len());
    foreign.iter().for_each(|pid| send(*pid, Signal::SIGTERM));
    parent.pids.all().for_each(|pid| send(pid, Signal::SIGQUIT));
    left.iter().for_each(|pid| send(*pid, Signal::SIGCONT));
    let begin = Instant::now();
    let mut killed = Vec::new();
    let mut grace = Grace::new(settings.shutdown_timeout, settings.look_every(), Duration::ZERO);
    while !left.is_empty() && !grace.left(begin.elapsed()).is_zero() {
        left.retain(|pid| !has_ended(*pid));
        // There is no loop left to be told by.
        std::thread::sleep(LOOK_AGAIN);
    }
    for pid in left {
        ending::kill_late(pid);
        let _ = wait_for_end(pid);
        has_ended(pid);
        killed.push(pid);
    }
    let now = cx.now() + begin.elapsed();
    let now = cx.heap().age(now);
    let Heap { role: Role::Parent(parent), foreign, settings, board, .. } = cx.heap() else { return };
    let mut children: Vec<Child> = parent.machine.table().children().to_vec();
    children.sort_unstable_by_key(|child| child.number);
    for Child { key, forked_at, .. } in children {
        let Some(pid) = parent.pids.remove(key) else { continue };
        let cause = if killed.contains(&pid) { Cause::Killed } else { Cause::Shutdown };
        let last = board.as_ref().and_then(|board| board.read(SlotIndex::from(key)).ok());
        let (requests, age) = (last.map_or(0, |last| last.requests), now.saturating_sub(forked_at));
        say::record(settings, pid, &Death { key, cause, age, requests, note: Note::None });
    }
    foreign.clear();
}

/// Reaps a child if it has ended.
fn has_ended(pid: i32) -> bool {
    !matches!(reap(pid), Ok(None) | Err(Errno::EINTR))
}

/// How often the last resort looks whether children have ended.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

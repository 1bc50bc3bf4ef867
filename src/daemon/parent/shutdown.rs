//! The end of a Daemon in its parent, and from there in all of its children.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::daemon::announce::announce;
use crate::daemon::board::doorbell::Doorbell;
use crate::daemon::cause::Cause;
use crate::daemon::ending::{self, Haste, KEPT_ALIVE};
use crate::daemon::heap::{Cx, Heap, Role};
use crate::daemon::machine::{Grace, Phase};
use crate::daemon::parent::babysit;
use crate::daemon::parent::deaths;
use crate::daemon::parent::pool;
use crate::daemon::parent::role::Parent;
use crate::daemon::parent::table::Orders;
use crate::daemon::processes::send;
use crate::daemon::settings::Forking;
use crate::error::{Exception, Result};
use crate::sys::wait::{reap, wait_for_end};

/// TERM or INT after the Daemon was shut down. After a QUIT it makes the end come sooner: children are told as well.
pub(in crate::daemon) fn signalled_again(cx: &mut Cx<'_>) {
    signal_children(cx.heap(), Signal::SIGTERM);
    if is_alone(cx.heap()) {
        ending::look_again_what_is_left(cx);
    }
}

/// QUIT, or a call: has the requests that wait for a child served before the end. They are in hand as well, their clients were
/// accepted.
pub(in crate::daemon) fn drain(cx: &mut Cx<'_>) -> Result {
    if cx.heap().is_over || is_draining(cx.heap()) {
        return Ok(());
    }
    let grace = cx.heap().settings.shutdown_timeout;
    ending::give_grace(cx, grace);
    if has_requests(cx.heap()) {
        pool::pause_intake(cx)?;
    }
    end_if_drained(cx)
}

/// Tells whether a post-forking Daemon serves what is queued, before a graceful end.
pub(super) fn is_draining(heap: &Heap) -> bool {
    heap.grace.is_some() && !heap.is_over
}

/// The time for the end is up: for requests that have no child yet, or for children.
pub(in crate::daemon) fn grace_is_over(cx: &mut Cx<'_>) -> Result {
    if cx.heap().is_over { kill_children(cx) } else { end_after_requests(cx) }
}

fn has_requests(heap: &Heap) -> bool {
    let has = |parent: &Parent| !(parent.queue.is_empty() && parent.in_flight.is_empty());
    heap.settings.forking == Forking::Post && heap.role.parent().is_some_and(has)
}

/// Ends a Daemon that is to end when there is a child for every request.
pub(super) fn end_if_drained(cx: &mut Cx<'_>) -> Result {
    if has_requests(cx.heap()) { Ok(()) } else { end_after_requests(cx) }
}

/// What children have in hand they finish. Also when the time is up for requests that have no child yet.
fn end_after_requests(cx: &mut Cx<'_>) -> Result {
    end(cx, Signal::SIGQUIT)
}

/// Shuts the Daemon down in this process and in all of its children. A second time does nothing.
pub(in crate::daemon) fn shutdown(cx: &mut Cx<'_>) -> Result {
    end(cx, Signal::SIGTERM)
}

/// Shuts it down because it can't go on. The first failure is what `run` returns.
pub(super) fn fail(cx: &mut Cx<'_>, failure: Exception) -> Result {
    if let Some(parent) = cx.heap().role.parent_mut() {
        parent.failure.get_or_insert(failure);
    }
    shutdown(cx)
}

/// Takes every trace of the Daemon out of the kernel and tells everybody, children by `signal`.
fn end(cx: &mut Cx<'_>, signal: Signal) -> Result {
    if cx.heap().is_over {
        return Ok(());
    }
    let Some(parent) = cx.heap().role.parent_mut() else { return Ok(()) };
    parent.phase = Phase::ShuttingDown;
    log::debug!(target: "lenore::daemon", "shutting down with {} children", parent.children.len());
    cx.heap().is_over = true;
    signal_children(cx.heap(), signal);
    // For those that are stopped, and do nothing else to the others.
    signal_children(cx.heap(), Signal::SIGCONT);
    ending::withdraw(cx)?;
    let (heap, core) = cx.parts();
    if let Some(parent) = heap.role.parent_mut() {
        parent.queue.clear();
    }
    if let Some(end) = heap.doorbell.as_ref().and_then(Doorbell::parents_end) {
        core.select_read_clear(end);
    }
    let haste = if signal == Signal::SIGQUIT { Haste::AfterRequests } else { Haste::AtOnce };
    announce(cx, "daemon_shutdown", (haste,))?;
    let me = cx.session();
    let _ = cx.refcount_decrement(me, KEPT_ALIVE);
    babysit::bury_vanished(cx)?;
    if is_alone(cx.heap()) {
        return end_alone(cx);
    }
    ending::give_rest_of_grace(cx);
    Ok(())
}

/// The grace is over.
fn kill_children(cx: &mut Cx<'_>) -> Result {
    // The babysitter does not come any more.
    babysit::bury_vanished(cx)?;
    let Some(parent) = cx.heap().role.parent_mut() else { return Ok(()) };
    for child in &mut parent.children {
        child.orders = Orders::Die;
        ending::kill_late(child.pid);
    }
    ending::kill_foreign(cx);
    end_if_alone(cx)
}

/// After the last child was reaped there is nobody left to be killed.
pub(in crate::daemon) fn end_if_alone(cx: &mut Cx<'_>) -> Result {
    if cx.heap().is_over && is_alone(cx.heap()) {
        cx.alarm_remove_all();
        return end_alone(cx);
    }
    Ok(())
}

/// No child is left. What has brought the Daemon down becomes what `run` returns, when all else is done.
fn end_alone(cx: &mut Cx<'_>) -> Result {
    if cx.heap().settings.forking != Forking::None {
        ending::look_what_is_left(cx);
    }
    match cx.heap().role.parent_mut().and_then(|parent| parent.failure.take()) {
        // What has failed told the log when it did.
        Some(exception) => Err(exception.logged()),
        None => Ok(()),
    }
}

/// Sends a signal of the operating system to every child. None of these pids can have come to mean another process: a
/// child keeps its pid until it is reaped, and is off the table from then on.
pub(in crate::daemon) fn signal_children(heap: &Heap, signal: Signal) {
    let Some(parent) = heap.role.parent() else { return };
    parent.children.iter().for_each(|child| send(child.pid, signal));
}

/// The session is stopped by force, and the loop is about to end or has ended: nobody will hear of the children's end.
/// So they are waited for here, as long as they are given at any shutdown.
pub(in crate::daemon) fn last_resort(cx: &mut Cx<'_>) {
    let Heap { role: Role::Parent(parent), foreign, settings, .. } = cx.heap() else { return };
    if parent.children.is_empty() && foreign.is_empty() {
        return;
    }
    let mut left: Vec<i32> = parent.children.iter().map(|child| child.pid).chain(foreign.iter().copied()).collect();
    log::warn!(target: "lenore::daemon", "the kernel stops; {} children are waited for", left.len());
    foreign.iter().for_each(|pid| send(*pid, Signal::SIGTERM));
    parent.children.iter().for_each(|child| send(child.pid, Signal::SIGQUIT));
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
    let Heap { role: Role::Parent(parent), foreign, settings, board, .. } = cx.heap() else { return };
    for child in std::mem::take(&mut parent.children) {
        let cause = if killed.contains(&child.pid) { Cause::Killed } else { Cause::Shutdown };
        let requests = board.as_ref().and_then(|board| board.read(child.slot).ok()).map_or(0, |last| last.requests);
        deaths::record(settings, &child, cause, "", now.duration_since(child.forked_at).unwrap_or_default(), requests);
    }
    foreign.clear();
}

/// Reaps a child if it has ended.
fn has_ended(pid: i32) -> bool {
    !matches!(reap(pid), Ok(None) | Err(Errno::EINTR))
}

/// Tells whether this process has no children, and none on the way.
fn is_alone(heap: &Heap) -> bool {
    let has_none = |parent: &Parent| parent.children.is_empty() && parent.in_flight.is_empty();
    heap.foreign.is_empty() && heap.role.parent().is_none_or(has_none)
}

/// How often the last resort looks whether children have ended.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

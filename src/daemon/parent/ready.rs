//! The end of the start, as far as the launcher of a program that has detached waits for it.
//!
//! A pool is ready when the application has handled `daemon_parent` and enough children have reported `Wait`. The start
//! fails when children die in their set-up time and again, and when it takes too long.

use crate::daemon::board::{SlotSnapshot, Status};
use crate::daemon::cause::Cause;
use crate::daemon::error::DaemonError;
use crate::daemon::heap::{Cx, Heap};
use crate::daemon::launch::Launch;
use crate::daemon::parent::pool;
use crate::daemon::parent::shutdown;
use crate::daemon::parent::table::Row;
use crate::daemon::settings::Forking;
use crate::error::{Exception, Result};

/// Somebody waits: begins to watch for the launcher's answer, or its death. Weakly: it keeps nothing alive.
pub(in crate::daemon) fn launched(cx: &mut Cx<'_>) -> Result {
    let launch: Launch = cx.take(0)?;
    let end = launch.end().clone();
    cx.heap().process.launch = Some(launch);
    cx.select_read_weak(&end, "launcher_answered", ())?;
    let limit = cx.heap().settings.start_timeout;
    cx.delay("start_late", limit, ());
    Ok(())
}

/// Behind `daemon_parent` in the queue. And once more round the loop: an application that could not handle it, a `DIE`
/// signal by now, is not ready.
pub(in crate::daemon) fn ready_soon(cx: &mut Cx<'_>) {
    cx.yield_("ready", ());
}

/// The application has handled the last signal of the start.
pub(in crate::daemon) fn ready(cx: &mut Cx<'_>) -> Result {
    if cx.heap().is_over {
        // By the application, in that very signal. The launcher hears of it when everything has ended.
        return Ok(());
    }
    let Some(parent) = cx.heap().role.parent_mut() else { return Ok(()) };
    parent.start.is_handled = true;
    tell_if_ready(cx)
}

/// Lets the launcher end if all is there that it waits for.
pub(super) fn tell_if_ready(cx: &mut Cx<'_>) -> Result {
    let heap = cx.heap();
    let is_handled = heap.role.parent().is_some_and(|parent| parent.start.is_handled);
    if !is_handled || ready_children(heap) < wanted_children(heap) {
        return Ok(());
    }
    if let Some(parent) = heap.role.parent_mut() {
        parent.start.is_handled = false;
    }
    let Some(launch) = &mut heap.process.launch else { return Ok(()) };
    let told = launch.ready();
    cx.delay_clear("start_late");
    match told {
        // The acknowledgement is still to come.
        Ok(()) => Ok(()),
        Err(_) => give_up(cx),
    }
}

/// Returns how many children have to have reported `Wait` at the end of the start.
fn wanted_children(heap: &Heap) -> usize {
    let settings = &heap.settings;
    match settings.forking {
        Forking::Pre => settings.min_spare.min(settings.start_children).min(settings.max_children) as usize,
        Forking::Post | Forking::None => 0,
    }
}

/// Returns how many children have reported `Wait`. One that has served its share of requests is replaced, but was ready.
fn ready_children(heap: &Heap) -> usize {
    let Some(parent) = heap.role.parent() else { return 0 };
    let alive = parent.children.iter().filter(|child| pool::does(heap, child).is_some_and(is_set_up));
    alive.count() + parent.start.served
}

fn is_set_up(status: Status) -> bool {
    status == Status::Wait || status.is_taken()
}

/// A child has ended. Those that die before they are ready, one after the other, make the start fail: whoever has started
/// the program is to hear of it.
pub(super) fn learn_from_death(cx: &mut Cx<'_>, child: &Row, cause: Cause, last: Option<SlotSnapshot>) -> Result {
    let now = cx.now();
    let heap = cx.heap();
    let Some(parent) = heap.role.parent_mut() else { return Ok(()) };
    if heap.process.launch.is_none() || child.is_retiring() {
        return Ok(());
    }
    let start = &mut parent.start;
    if last.is_some_and(|last| last.requests > 0) {
        start.served += 1;
        return Ok(());
    }
    if last.is_some_and(|last| is_set_up(last.status)) {
        return Ok(());
    }
    if start.last_failure.is_none_or(|last| child.forked_at >= last) {
        start.failures += 1;
        start.last_failure = Some(now);
    }
    let failures = start.failures;
    if failures < FAILURES { Ok(()) } else { fail(cx, DaemonError::ChildrenFail { failures, pid: child.pid, cause }) }
}

/// The time for the start is up.
pub(in crate::daemon) fn start_late(cx: &mut Cx<'_>) -> Result {
    let heap = cx.heap();
    if heap.process.launch.is_none() || heap.is_over {
        return Ok(());
    }
    let (ready, wanted, limit) = (ready_children(heap), wanted_children(heap), heap.settings.start_timeout);
    fail(cx, DaemonError::StartTimeout { ready, wanted, limit })
}

fn fail(cx: &mut Cx<'_>, error: DaemonError) -> Result {
    log::error!(target: "lenore::daemon", "shutting down: {error}");
    shutdown::fail(cx, Exception::from(error))
}

/// The launcher acknowledges that the daemon is ready, or else was interrupted or killed. Whoever did so does not want the
/// daemon.
pub(in crate::daemon) fn launcher_answered(cx: &mut Cx<'_>) -> Result {
    let Some(launch) = cx.heap().process.launch.take() else { return Ok(()) };
    cx.select_read_clear(launch.end());
    if launch.is_acknowledged() { Ok(()) } else { give_up(cx) }
}

fn give_up(cx: &mut Cx<'_>) -> Result {
    log::error!(target: "lenore::daemon", "shutting down: the launcher ended before the daemon was ready");
    shutdown::shutdown(cx)
}

/// `_stop`: when everything was stopped because a state failed, that is the reason for the launcher.
pub(in crate::daemon) fn report_failure(cx: &mut Cx<'_>) {
    let reason = cx.core().pending_exception.as_ref().map(ToString::to_string);
    if let Some(reason) = reason {
        cx.heap().process.fail(&reason);
    }
}

/// How many times in a row children may die in their set-up while a launcher waits.
const FAILURES: u32 = 5;

//! The end of a child: why, and one record of it in the log.

use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;
use std::os::unix::process::ExitStatusExt;

use crate::daemon::board::{SlotIndex, Status};
use crate::daemon::cause::Cause;
use crate::daemon::heap::Cx;
use crate::daemon::machine::Phase;
use crate::daemon::parent::oom::Killer;
use crate::daemon::parent::pool;
use crate::daemon::parent::ready;
use crate::daemon::parent::role::Parent;
use crate::daemon::parent::shutdown;
use crate::daemon::parent::table::{Orders, Row};
use crate::daemon::settings::{Forking, Settings};
use crate::error::Result;

/// The system says that a child has ended.
pub(in crate::daemon) fn reaped(cx: &mut Cx<'_>) -> Result {
    let (pid, status) = (*cx.arg::<i32>(1)?, *cx.arg::<ExitStatus>(2)?);
    let generation = *cx.arg::<u32>(4)?;
    bury(cx, pid, generation, Some(status))
}

/// Takes a child off the table and its slot off the board; once, whoever brings the news and however often.
///
/// `status` is `None` for one that has vanished.
pub(super) fn bury(cx: &mut Cx<'_>, pid: i32, generation: u32, status: Option<ExitStatus>) -> Result {
    let now = cx.now();
    let heap = cx.heap();
    let Some(parent) = heap.role.parent_mut() else { return Ok(()) };
    let is_it = |child: &Row| child.pid == pid && child.generation == generation;
    let Some(place) = parent.children.iter().position(is_it) else { return Ok(()) };
    let child = parent.children.remove(place);
    let last = match &mut heap.board {
        // Another owner's slot is none of this child's.
        Some(board) if board.generation(child.slot) == Some(generation) => board.reclaim(child.slot),
        _ => None,
    };
    let (cause, note) = explain_kill(parent, cause(&child, status, last.map(|last| last.status), parent.phase));
    // A KILL leaves no core, so that it has another note.
    let note = if status.is_some_and(|status| status.core_dumped()) { " core=dumped" } else { note };
    parent.deaths.count(cause);
    parent.queues.begun_by_dead += last.map_or(0, |last| last.requests);
    let age = now.duration_since(child.forked_at).unwrap_or_default();
    let requests = last.map_or(0, |last| last.requests);
    record(&heap.settings, &child, cause, note, age, requests);
    if heap.settings.forking == Forking::Pre && !heap.is_over {
        pool::learn_from_death(cx, &child, cause, last);
        ready::learn_from_death(cx, &child, cause, last)?;
        if !cause.is_in_order() {
            pool::wake_idle(cx.heap());
        }
    }
    pool::maintain(cx)?;
    shutdown::end_if_alone(cx)
}

/// Finds whom a KILL is from that the Daemon has not sent. The second value is what else there is to be said of it.
fn explain_kill(parent: &mut Parent, cause: Cause) -> (Cause, &'static str) {
    if cause != Cause::Signaled(Signal::SIGKILL as i32) {
        return (cause, "");
    }
    match parent.oom_kills.explain() {
        Killer::System => (Cause::OutOfMemory, ""),
        Killer::Other => (cause, " note=\"KILL not sent by the Daemon, nor by the OOM killer\""),
        Killer::Unknown => (cause, " note=\"KILL not sent by the Daemon, maybe by the OOM killer\""),
    }
}

/// The one record that each child leaves.
pub(super) fn record(settings: &Settings, child: &Row, cause: Cause, note: &str, age: Duration, requests: u64) {
    let level = match (cause.is_in_order(), settings.verbose) {
        (false, _) => log::Level::Warn,
        (true, true) => log::Level::Info,
        (true, false) => log::Level::Debug,
    };
    let (pid, slot, age): (i32, SlotIndex, f64) = (child.pid, child.slot, age.as_secs_f64());
    log::log!(
        target: "lenore::daemon", level,
        "child has ended: pid={pid} slot={slot} cause={cause} age={age:.3} requests={requests}{note}"
    );
}

/// Finds the cause: what was done to the child before what the system says of it.
fn cause(child: &Row, status: Option<ExitStatus>, last: Option<Status>, phase: Phase) -> Cause {
    let Some(status) = status else { return Cause::Vanished };
    if let Some(escalation) = child.escalation {
        return Cause::Rogue(escalation.why);
    }
    if let Some(signal) = status.signal() {
        return match (phase, Signal::try_from(signal)) {
            (Phase::ShuttingDown, Ok(Signal::SIGKILL)) if child.orders == Orders::Die => Cause::Killed,
            // One that had not come round to listening yet, or that takes its default action.
            (Phase::ShuttingDown, Ok(Signal::SIGTERM)) => Cause::Shutdown,
            _ => Cause::Signaled(signal),
        };
    }
    match (status.code().unwrap_or_default(), child.orders) {
        (code @ 1.., _) => Cause::Exited(code),
        _ if phase == Phase::ShuttingDown => Cause::Shutdown,
        (_, Orders::Go) => Cause::Retired,
        (_, Orders::GoForMemory) => Cause::Memory,
        _ if last == Some(Status::Exit) => Cause::Recycled,
        (code, _) => Cause::Exited(code),
    }
}

//! The end of a child: why, one record of it in the log, and how many ended for which reason.

use std::fmt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;
use std::os::unix::process::ExitStatusExt;

use crate::daemon::board::{SlotIndex, Status};
use crate::daemon::machine::{Phase, Rogue};
use crate::daemon::parent::oom::Killer;
use crate::daemon::parent::pool;
use crate::daemon::parent::ready;
use crate::daemon::parent::shutdown;
use crate::daemon::session::{Child, Cx, Heap, Orders};
use crate::daemon::settings::Forking;
use crate::error::Result;

/// Why a child has ended.
///
/// POE: nothing like it.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// It has left by itself, with this exit code.
    Exited(i32),
    /// A signal has ended it that the Daemon did not send.
    Signaled(i32),
    /// The system has killed it, as memory had run out. Known where a control group of Linux counts such kills.
    OutOfMemory,
    /// It has handled as many requests as it was to.
    Recycled,
    /// It was one spare too many.
    Retired,
    /// It had more memory resident than `memory_limit`.
    Memory,
    /// It has broken a rule.
    Rogue(Rogue),
    /// It has ended with the Daemon.
    Shutdown,
    /// It has not ended with the Daemon, and was killed when the time was up.
    Killed,
    /// It is gone, and this process was not told how: other code has waited for it.
    Vanished,
}

impl Cause {
    /// Tells whether nobody need be told.
    fn is_in_order(self) -> bool {
        use Cause::{Exited, Memory, Recycled, Retired, Shutdown};
        matches!(self, Exited(0) | Recycled | Retired | Memory | Shutdown)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Cause::Exited(code) => write!(f, "exited:{code}"),
            Cause::Signaled(number) => match Signal::try_from(number) {
                Ok(signal) => write!(f, "signal:{signal}"),
                Err(_) => write!(f, "signal:{number}"),
            },
            Cause::OutOfMemory => f.write_str("oom"),
            Cause::Recycled => f.write_str("recycled"),
            Cause::Retired => f.write_str("retired"),
            Cause::Memory => f.write_str("memory_limit"),
            Cause::Rogue(why) => write!(f, "rogue:{why}"),
            Cause::Shutdown => f.write_str("shutdown"),
            Cause::Killed => f.write_str("killed"),
            Cause::Vanished => f.write_str("vanished"),
        }
    }
}

/// How many children have ended for which [`Cause`].
#[non_exhaustive]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deaths {
    /// [`Cause::Exited`] with 0.
    pub exited: u64,
    /// [`Cause::Exited`] with anything else.
    pub failed: u64,
    /// [`Cause::Signaled`].
    pub signaled: u64,
    /// [`Cause::OutOfMemory`].
    pub out_of_memory: u64,
    /// [`Cause::Recycled`].
    pub recycled: u64,
    /// [`Cause::Retired`].
    pub retired: u64,
    /// [`Cause::Memory`].
    pub memory: u64,
    /// [`Cause::Rogue`].
    pub rogue: u64,
    /// [`Cause::Shutdown`].
    pub shutdown: u64,
    /// [`Cause::Killed`].
    pub killed: u64,
    /// [`Cause::Vanished`].
    pub vanished: u64,
}

impl Deaths {
    /// Returns how many children have ended.
    pub fn total(&self) -> u64 {
        self.by_name().into_iter().map(|(_, count)| count).sum()
    }

    fn count(&mut self, cause: Cause) {
        let count = match cause {
            Cause::Exited(0) => &mut self.exited,
            Cause::Exited(_) => &mut self.failed,
            Cause::Signaled(_) => &mut self.signaled,
            Cause::OutOfMemory => &mut self.out_of_memory,
            Cause::Recycled => &mut self.recycled,
            Cause::Retired => &mut self.retired,
            Cause::Memory => &mut self.memory,
            Cause::Rogue(_) => &mut self.rogue,
            Cause::Shutdown => &mut self.shutdown,
            Cause::Killed => &mut self.killed,
            Cause::Vanished => &mut self.vanished,
        };
        *count += 1;
    }

    fn by_name(&self) -> [(&'static str, u64); 11] {
        [
            ("exited", self.exited),
            ("failed", self.failed),
            ("signaled", self.signaled),
            ("oom", self.out_of_memory),
            ("recycled", self.recycled),
            ("retired", self.retired),
            ("memory_limit", self.memory),
            ("rogue", self.rogue),
            ("shutdown", self.shutdown),
            ("killed", self.killed),
            ("vanished", self.vanished),
        ]
    }
}

impl fmt::Display for Deaths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, count) in self.by_name().into_iter().filter(|(_, count)| *count > 0) {
            write!(f, "{separator}{count} {name}")?;
            separator = ", ";
        }
        Ok(())
    }
}

/// The system says that a child has ended.
pub(in crate::daemon) fn reaped(cx: &mut Cx<'_>) -> Result {
    let (pid, status) = (*cx.arg::<i32>(1)?, *cx.arg::<ExitStatus>(2)?);
    let generation = *cx.arg::<u32>(4)?;
    bury(cx, pid, generation, Some(status))
}

/// Takes a child off the table and its slot off the board; once, whoever brings the news and however often.
///
/// `status` is `None` for one that has vanished.
pub(in crate::daemon) fn bury(cx: &mut Cx<'_>, pid: i32, generation: u32, status: Option<ExitStatus>) -> Result {
    let now = cx.now();
    let heap = cx.heap();
    let Some(place) = heap.children.iter().position(|child| child.pid == pid && child.generation == generation) else {
        return Ok(());
    };
    let child = heap.children.remove(place);
    let last = match &mut heap.board {
        // Another owner's slot is none of this child's.
        Some(board) if board.generation(child.slot) == Some(generation) => board.reclaim(child.slot),
        _ => None,
    };
    let (cause, note) = explain_kill(heap, cause(&child, status, last.map(|last| last.status), heap.phase));
    // A KILL leaves no core, so that it has another note.
    let note = if status.is_some_and(|status| status.core_dumped()) { " core=dumped" } else { note };
    heap.deaths.count(cause);
    heap.queues.begun_by_dead += last.map_or(0, |last| last.requests);
    let age = now.duration_since(child.forked_at).unwrap_or_default();
    let requests = last.map_or(0, |last| last.requests);
    record(heap, &child, cause, note, age, requests);
    if heap.settings.forking == Forking::Pre && !heap.is_shutting_down() {
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
fn explain_kill(heap: &mut Heap, cause: Cause) -> (Cause, &'static str) {
    if cause != Cause::Signaled(Signal::SIGKILL as i32) {
        return (cause, "");
    }
    match heap.oom_kills.explain() {
        Killer::System => (Cause::OutOfMemory, ""),
        Killer::Other => (cause, " note=\"KILL not sent by the Daemon, nor by the OOM killer\""),
        Killer::Unknown => (cause, " note=\"KILL not sent by the Daemon, maybe by the OOM killer\""),
    }
}

/// The one record that each child leaves.
pub(in crate::daemon) fn record(heap: &Heap, child: &Child, cause: Cause, note: &str, age: Duration, requests: u64) {
    let level = match (cause.is_in_order(), heap.settings.verbose) {
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
fn cause(child: &Child, status: Option<ExitStatus>, last: Option<Status>, phase: Phase) -> Cause {
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

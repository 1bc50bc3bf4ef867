//! The end of a child: why, and how many ended for which reason.

use std::fmt;

use super::{Child, End, Escalation, Phase, Rogue, Status, Told};

/// Why a child has ended.
///
/// POE: nothing like it.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The child has exited by itself, with this exit code.
    Exited(i32),
    /// A signal that the Daemon did not send has ended the child.
    Signaled(i32),
    /// The system has killed the child because memory ran out. Known only where a control group of Linux counts such kills.
    OutOfMemory,
    /// The child has ended its work, with exit code 0: it has handled as many requests as `requests` allows, or its one request if
    /// post-forking. Or the program has called [`Daemon::shutdown`](crate::Daemon::shutdown) in the child.
    Recycled,
    /// The parent asked the child to leave. The child was a surplus spare, a reload replaced it, or an operator retired it. Or it had
    /// paused its listeners while clients waited.
    Retired,
    /// The child had more memory resident than `memory_limit`.
    Memory,
    /// The Daemon has ended the child because it was rogue: it broke a limit, was stopped, or did not answer.
    Rogue(Rogue),
    /// The child has ended because the Daemon shut down.
    Shutdown,
    /// The Daemon has killed the child. The child had not ended within `shutdown_timeout`, or an operator has asked for it with
    /// `lenorectl kill`. Or a reload was rolled back, and the child with the new configuration had not ended.
    Killed,
    /// A reload has replaced the child, and the child was ended because it had not finished its work within `drain_limit`.
    Cut,
    /// The child is gone, and the parent does not know how it ended. Other code has waited for it.
    Vanished,
}

impl Cause {
    /// Tells whether an operator need not be told.
    pub(in crate::daemon) fn is_in_order(self) -> bool {
        use Cause::{Exited, Memory, Recycled, Retired, Shutdown};
        matches!(self, Exited(0) | Recycled | Retired | Memory | Shutdown)
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
    /// [`Cause::Cut`].
    pub cut: u64,
    /// [`Cause::Vanished`].
    pub vanished: u64,
}

impl Deaths {
    /// Returns how many children have ended.
    pub fn total(&self) -> u64 {
        self.by_name().into_iter().map(|(_, count)| count).sum()
    }

    pub(super) fn count(&mut self, cause: Cause) {
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
            Cause::Cut => &mut self.cut,
            Cause::Vanished => &mut self.vanished,
        };
        *count += 1;
    }

    /// Returns the name of each cause, and how many children have ended for it.
    pub(in crate::daemon) fn by_name(&self) -> [(&'static str, u64); 12] {
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
            ("cut", self.cut),
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

/// Finds the cause: what was done to the child before what the system says of it.
pub(super) fn cause(child: &Child, end: End, last: Option<Status>, phase: Phase) -> Cause {
    if end == End::Vanished {
        return Cause::Vanished;
    }
    if let Some(Escalation { why, .. }) = child.escalation {
        return Cause::Rogue(why);
    }
    match end {
        End::Signaled { signal: KILL, .. } if child.told == Told::Die => Cause::Killed,
        End::Signaled { signal: KILL | INT, .. } | End::Exited(0) if child.told == Told::Cut => Cause::Cut,
        // One that had not come round to listening yet, or that takes its default action.
        End::Signaled { signal: TERM | INT, .. } if phase == Phase::ShuttingDown => Cause::Shutdown,
        End::Signaled { signal, .. } => Cause::Signaled(signal),
        End::Exited(code @ 1..) => Cause::Exited(code),
        _ if phase == Phase::ShuttingDown => Cause::Shutdown,
        _ if child.told == Told::Go => Cause::Retired,
        _ if child.told == Told::GoForMemory => Cause::Memory,
        _ if last == Some(Status::Exit) => Cause::Recycled,
        End::Exited(code) => Cause::Exited(code),
        End::Vanished => Cause::Vanished,
    }
}

/// What the system calls SIGKILL, SIGINT and SIGTERM, everywhere.
pub(super) const KILL: i32 = 9;
const INT: i32 = 2;
const TERM: i32 = 15;

//! Named points at which a test stops a process, ends it, or has it fail, from outside the program.
//!
//! With the feature `fork-hooks` the environment variable `LENORE_INJECT` says what happens where, see [`Plan`](plan::Plan).
//! It is read when a Daemon is spawned. Without the feature a point compiles to nothing.

#[cfg(feature = "fork-hooks")]
mod plan;

#[cfg(feature = "fork-hooks")]
pub(crate) use plan::{prepare, reach};

/// A place in the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// In the process that forks, before the system is asked. A failure is taken for the system's `EAGAIN`.
    KernelFork,
    /// In a process that copies a descriptor, before the system is asked. A failure is taken for the system's `EMFILE`.
    Copy,
    /// In the parent, before it opens the slot of a child and asks for the fork.
    ForkBefore,
    /// In the parent, after a fork that succeeded or failed, before the machine is told.
    Forked,
    /// In the parent, after a child was reaped, before the machine is told.
    Reaped,
    /// In the parent, before each effect.
    Effect,
    /// In the parent, before it opens the log file again. A failure is taken for the file's.
    Reopen,
    /// In the parent, when what a child has counted counts among what all have that have ended, and the child's slot still has it.
    #[cfg_attr(not(feature = "control"), allow(dead_code, reason = "nothing is counted"))]
    Fold,
    /// In a child, before it claims its slot.
    ChildBegin,
    /// In a child, when it has claimed its slot.
    ChildClaimed,
    /// In a child, when it would notice the end of a parent while a state does not return.
    ChildWatching,
    /// In a pre-forked child, before it first reports `Wait`.
    ChildReady,
    /// In a child, between the write of `Wait` into its slot and the ring of the bell.
    ChildWait,
    /// In a child, before it notes that a request begins.
    ChildRequest,
    /// In a child, in the middle of the count of a duration.
    #[cfg_attr(not(feature = "control"), allow(dead_code, reason = "nothing is counted"))]
    ChildRecord,
    /// In a child, before it opens the log file again.
    ChildReopen,
    /// In a child that was asked to go after the request in hand, before it looks whether there is one.
    ChildRetire,
    /// In a child, when its slot says that it ends, before its application is told.
    ChildExit,
}

/// Passes a point.
///
/// # Errors
///
/// What the point is to fail with.
#[cfg(not(feature = "fork-hooks"))]
#[inline(always)]
#[expect(clippy::inline_always, clippy::unnecessary_wraps, reason = "nothing is left of it")]
pub(crate) const fn reach(_: Point) -> Result<(), crate::error::Error> {
    Ok(())
}

/// Passes a point that can't fail.
#[inline]
pub(crate) fn pass(point: Point) {
    // The plan has no failure for it.
    let _ = reach(point);
}

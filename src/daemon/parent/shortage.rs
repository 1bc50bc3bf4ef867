//! Forks that fail and may succeed later: when they are tried again, and what the log says of it.

use std::time::Duration;

use nix::errno::Errno;

use crate::daemon::heap::Cx;
use crate::daemon::parent::pool;
use crate::daemon::parent::role::{Parent, Reason};
use crate::daemon::parent::shutdown;
use crate::daemon::parent::table::Request;
use crate::daemon::settings::Forking;
use crate::error::{Error, Result};

impl Reason {
    /// `None` for what will not get better.
    fn of(error: &Error) -> Option<Reason> {
        match error {
            Error::Threads { .. } => Some(Reason::Threads),
            Error::Os { source, .. } => match source.raw_os_error().map(Errno::from_raw)? {
                errno @ (Errno::EAGAIN | Errno::ENOMEM) => Some(Reason::System(errno)),
                _ => None,
            },
            _ => None,
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Reason::System(_) => "see RLIMIT_NPROC of the user, pids.max and memory.max of the cgroup",
            Reason::Threads => "join threads before requests and children come, or start them in the children",
        }
    }
}

/// A fork has failed. Waits a while if it may succeed later; anything else will not get better.
pub(super) fn fork_failed(cx: &mut Cx<'_>, request: Request, error: Error) -> Result {
    let Some(parent) = cx.heap().role.parent_mut() else { return Ok(()) };
    pool::put_back(parent, request);
    pool::forget_growth(cx.heap());
    // The others that were asked for together would fail as this one has.
    pool::cancel_forks(cx);
    let Some(reason) = Reason::of(&error) else {
        log::error!(target: "lenore::daemon", "the Daemon shuts down: {error}");
        return shutdown::fail(cx, error.into());
    };
    if cx.heap().is_over {
        return Ok(());
    }
    let now = cx.now();
    let heap = cx.heap();
    let missing = pool::missing(heap);
    let Some(parent) = heap.role.parent_mut() else { return Ok(()) };
    let pause = (parent.shortage.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
    parent.shortage.pause = pause;
    if parent.shortage.outage.failed(reason, now) {
        log::warn!(
            target: "lenore::daemon",
            "forks fail and are tried again: {error}; {}: children={} missing={} next_try={:.1}",
            reason.advice(), parent.children.len(), missing, pause.as_secs_f64()
        );
        heap.process.not_yet(&error);
    }
    pool::pause_forks(cx, pause);
    match cx.heap().settings.forking {
        Forking::Post => pool::pause_intake(cx),
        _ => Ok(()),
    }
}

/// A fork has succeeded: the next one that fails is tried again soon.
pub(super) fn fork_succeeded(parent: &mut Parent) {
    parent.shortage.pause = Duration::ZERO;
}

/// Ends the shortage if no fork is missing any more.
pub(super) fn end_if_over(cx: &mut Cx<'_>) {
    let now = cx.now();
    let heap = cx.heap();
    let is_waiting = |parent: &Parent| parent.no_fork_before.is_some() || !parent.in_flight.is_empty();
    if heap.role.parent().is_none_or(is_waiting) || pool::missing(heap) > 0 {
        return;
    }
    let Some(parent) = heap.role.parent_mut() else { return };
    parent.shortage.pause = Duration::ZERO;
    if let Some(ended) = parent.shortage.outage.end(now) {
        log::info!(target: "lenore::daemon", "no fork is missing any more: children={} {ended}", parent.children.len());
    }
}

/// How long the first pause after a failed fork is.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// How long such pauses get.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

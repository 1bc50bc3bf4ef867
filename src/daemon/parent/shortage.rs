//! Forks that fail and may succeed later: when they are tried again, and what the log says of it.

use std::time::Duration;

use nix::errno::Errno;

use crate::daemon::parent::pool;
use crate::daemon::parent::shutdown;
use crate::daemon::session::{Cx, Heap, Request};
use crate::daemon::settings::Forking;
use crate::error::{Error, Result};
use crate::outage::Outage;

/// Whether forks have failed, and some are still missing.
#[derive(Default)]
pub(in crate::daemon) struct Shortage {
    outage: Outage<Cause>,
    /// How long the last pause was; zero before the first.
    pause: Duration,
}

/// What may pass: the log has a line for each that it changes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The system is short of processes or memory, or this user is.
    System(Errno),
    /// The program has started a thread.
    Threads,
}

impl Cause {
    /// `None` for what will not get better.
    fn of(error: &Error) -> Option<Cause> {
        match error {
            Error::Threads { .. } => Some(Cause::Threads),
            Error::Os { source, .. } => match source.raw_os_error().map(Errno::from_raw)? {
                errno @ (Errno::EAGAIN | Errno::ENOMEM) => Some(Cause::System(errno)),
                _ => None,
            },
            _ => None,
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Cause::System(_) => "see RLIMIT_NPROC of the user, pids.max and memory.max of the cgroup",
            Cause::Threads => "join threads before requests and children come, or start them in the children",
        }
    }
}

/// A fork has failed. Waits a while if it may succeed later; anything else will not get better.
pub(in crate::daemon) fn fork_failed(cx: &mut Cx<'_>, request: Request, error: Error) -> Result {
    pool::put_back(cx.heap(), request);
    pool::forget_growth(cx.heap());
    // The others that were asked for together would fail as this one has.
    pool::cancel_forks(cx);
    let Some(cause) = Cause::of(&error) else {
        log::error!(target: "lenore::daemon", "the Daemon shuts down: {error}");
        cx.heap().failure.get_or_insert(error.into());
        return shutdown::shutdown(cx);
    };
    if cx.heap().is_shutting_down() {
        return Ok(());
    }
    let now = cx.now();
    let heap = cx.heap();
    let pause = (heap.shortage.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
    heap.shortage.pause = pause;
    if heap.shortage.outage.failed(cause, now) {
        log::warn!(
            target: "lenore::daemon",
            "forks fail and are tried again: {error}; {}: children={} missing={} next_try={:.1}",
            cause.advice(), heap.children.len(), pool::missing(heap), pause.as_secs_f64()
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
pub(in crate::daemon) fn fork_succeeded(heap: &mut Heap) {
    heap.shortage.pause = Duration::ZERO;
}

/// Ends the shortage if no fork is missing any more.
pub(in crate::daemon) fn end_if_over(cx: &mut Cx<'_>) {
    let now = cx.now();
    let heap = cx.heap();
    if heap.no_fork_before.is_some() || !heap.in_flight.is_empty() || pool::missing(heap) > 0 {
        return;
    }
    heap.shortage.pause = Duration::ZERO;
    if let Some(ended) = heap.shortage.outage.end(now) {
        log::info!(target: "lenore::daemon", "no fork is missing any more: children={} {ended}", heap.children.len());
    }
}

/// How long the first pause after a failed fork is.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// How long such pauses get.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

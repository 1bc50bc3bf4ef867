//! How long a child may take without a parent.

use std::time::Duration;

use crate::daemon::board::{Status, epoch_ms};
use crate::daemon::child::last_timers::LastTimers;
use crate::daemon::child::slot::own_status;
use crate::daemon::heap::{Cx, Heap};
use crate::daemon::settings::Settings;
use crate::error::Error;

/// Sets how long the request in hand may still take. Without a parent only, and again whenever the status changes.
pub(super) fn keep_time(cx: &mut Cx<'_>) {
    let Some(status) = own_status(cx.heap()).filter(|status| status.is_busy()) else { return };
    let (span, _) = time_left(cx, status);
    with_timers(cx.heap(), |timers, _| timers.end_after(span));
}

/// This child has been shut down: what its sessions still do may take as long as at any shutdown.
pub(super) fn ended(heap: &mut Heap) {
    with_timers(heap, |timers, settings| timers.kill_after(settings.shutdown_timeout));
}

fn with_timers(heap: &mut Heap, set: impl FnOnce(&mut LastTimers, &Settings) -> Result<(), Error>) {
    if let Some(timers) = heap.role.child_mut().and_then(|child| child.last_timers.as_mut())
        && let Err(error) = set(timers, &heap.settings)
    {
        log::error!(target: "lenore::daemon", "child has no time limit, and the parent is gone: {error} pid={}", std::process::id());
    }
}

/// Returns what is left of the time for a request, and the setting that says so.
pub(super) fn time_left(cx: &mut Cx<'_>, status: Status) -> (Duration, &'static str) {
    let now = epoch_ms(cx.now());
    let Heap { settings, role, board, .. } = cx.heap();
    let (limit, setting) = match status {
        Status::Long => (settings.rules.long_timeout, "long_timeout"),
        _ => (settings.rules.request_timeout, "request_timeout"),
    };
    let Some(limit) = limit else { return (settings.shutdown_timeout, "shutdown_timeout") };
    let own = role.child().zip(board.as_ref()).and_then(|(child, board)| board.read(child.slot).ok());
    let spent = own.map_or(0, |own| now.saturating_sub(own.since_ms));
    (limit.saturating_sub(Duration::from_millis(spent)), setting)
}

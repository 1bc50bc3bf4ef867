//! A child's slot of the board: what this child does, as everybody sees it.

#[cfg(feature = "control")]
use std::time::Duration;

use crate::daemon::board::{Ring, Status, epoch_ms};
use crate::daemon::heap::{Cx, Heap};
use crate::daemon::settings::{Forking, Settings};
use crate::inject::{self, Point};
#[cfg(feature = "control")]
use crate::kernel::SourceKey;
use crate::sys::parent_death;

/// Returns what this child does; `None` in other processes.
pub(super) fn own_status(heap: &Heap) -> Option<Status> {
    heap.board.as_ref()?.status(heap.role.child()?.slot)
}

/// Writes this child's slot, and rings if that is news to the parent.
pub(super) fn set_status(cx: &mut Cx<'_>, status: Status) {
    let now = epoch_ms(cx.now());
    let heap = cx.heap();
    let (Some(child), Some(board)) = (heap.role.child(), &heap.board) else { return };
    let slot = child.slot;
    if board.status(slot) != Some(status) {
        set_limit(&heap.settings, status);
    }
    let ring = board.set_status(slot, status, now);
    if status == Status::Wait {
        inject::pass(Point::ChildWait);
    }
    let is_news = match heap.settings.forking {
        Forking::Pre => ring == Ring::Yes,
        // Its parent goes by who is alive, and hears of that from the system. It answers no bell, so another may have rung it.
        _ => status == Status::Keep && board.is_full(),
    };
    if let (true, Some(doorbell)) = (is_news, &heap.doorbell) {
        doorbell.ring();
    }
}

/// A listener has accepted a connection that has waited for so long.
#[cfg(feature = "control")]
pub(in crate::daemon) fn accepted(heap: &Heap, listener: SourceKey, waited: Duration) {
    let (Some(child), Some(board)) = (heap.role.child(), &heap.board) else { return };
    // One that the application has opened for itself is not the service's.
    if child.listeners.contains(&listener) {
        board.record_accept_wait(child.slot, waited);
    }
}

/// Notes for how long this process may stay blocked in what begins now, if the parent dies meanwhile.
pub(super) fn set_limit(settings: &Settings, status: Status) {
    parent_death::set_limit(match status {
        Status::Long => settings.rules.long_timeout,
        Status::Req => settings.rules.request_timeout,
        _ => None,
    });
}

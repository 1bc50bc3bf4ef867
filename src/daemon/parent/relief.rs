//! A client that waits goes before one that keeps a child and has nothing in hand.
//!
//! A child whose connection is idle says so ([`Status::Keep`]). While there can't be more children, and none waits, the
//! parent asks the kernel to be told of a client at its paused listeners. If one comes, and still waits after [`PATIENCE`],
//! the child that has kept its client for longest is asked to let it go. Most clients of a full pool wait for less: some
//! child is about to be done.
//!
//! Nothing is polled, and no request wakes the parent. It is rung when a child begins to keep a connection in a full pool,
//! and, while some child keeps one, when the last child that waits is taken. After each time that it was told it looks no
//! sooner than after `PATIENCE`: a pool that is full for a moment a thousand times a second costs it no more than one that
//! is full all the time.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::daemon::board::{Scoreboard, SlotIndex, Status};
use crate::daemon::heap::{Cx, Heap};
use crate::daemon::machine::{Counts, Intake};
use crate::daemon::parent::pool;
use crate::daemon::parent::role::Relief;
use crate::daemon::parent::table::Row;
use crate::daemon::processes::send;
use crate::daemon::processes::{Look, look};
use crate::daemon::settings::Forking;
use crate::error::Result;

/// Looks whether clients may wait that nobody is there for. Returns the idle count below which a child has to ring for
/// that, 0 for never.
pub(super) fn review(cx: &mut Cx<'_>, counts: Counts, is_full: bool) -> u32 {
    let me = cx.session();
    let (heap, core) = cx.parts();
    if let Some(board) = &heap.board {
        board.publish_full(is_full);
    }
    let is_of_use = is_full && kept(heap).next().is_some();
    let is_short = counts.idle == 0 && counts.starting == 0;
    let Some(parent) = heap.role.parent_mut() else { return 0 };
    match (parent.relief, is_of_use && is_short) {
        (Relief::Looking(_), _) => return 0,
        (Relief::Off, true) => {
            parent.relief = Relief::Watching;
            core.await_backlog(me, "client_waits");
        }
        (Relief::Watching, false) => {
            parent.relief = Relief::Off;
            core.forget_backlog(me, "client_waits");
        }
        (Relief::Off, false) | (Relief::Watching, true) => {}
    }
    u32::from(is_of_use && !is_short)
}

/// A client waits that nobody accepts, or that was accepted and has no child. If no child keeps a client, the next one that
/// begins to will ring.
pub(in crate::daemon) fn client_waits(cx: &mut Cx<'_>) {
    let heap = cx.heap();
    let is_over = heap.is_over;
    let Some(parent) = heap.role.parent_mut().filter(|_| !is_over) else { return };
    if matches!(parent.relief, Relief::Looking(_)) {
        return;
    }
    parent.relief = Relief::Off;
    if kept(heap).next().is_some() {
        look_later(cx, 0);
    }
}

/// A moment after a client began to wait: whether it was that client or is another one does not matter.
pub(in crate::daemon) fn relieve(cx: &mut Cx<'_>) -> Result {
    let (heap, core) = cx.parts();
    let Some(parent) = heap.role.parent_mut() else { return Ok(()) };
    let before = std::mem::take(&mut parent.relief);
    let is_asked = heap.board.as_ref().is_some_and(Scoreboard::is_asked_to_release);
    if let (Relief::Looking(more @ 1..), true) = (before, is_asked) {
        look_later(cx, more - 1);
        return Ok(());
    }
    let counts = pool::count(heap);
    let Some(parent) = heap.role.parent() else { return Ok(()) };
    let waits = match heap.settings.forking {
        Forking::Pre => counts.idle + counts.starting == 0 && core.has_backlog(),
        // A child on its way out leaves its place to one of them.
        _ => parent.intake == Intake::Paused && parent.queue.len().max(usize::from(core.has_backlog())) > leaving(heap),
    };
    if let (true, Some((pid, slot)), Some(board)) = (waits, longest_kept(heap), &heap.board) {
        log::debug!(target: "lenore::daemon", "child is asked to let its idle client go: pid={pid} slot={slot}");
        board.ask_to_release(slot);
        send(pid, Signal::SIGCONT);
        look_later(cx, LOOKS);
    }
    pool::maintain(cx)
}

fn look_later(cx: &mut Cx<'_>, more: u32) {
    let Some(parent) = cx.heap().role.parent_mut() else { return };
    parent.relief = Relief::Looking(more);
    cx.delay("relieve", PATIENCE, ());
}

/// The children that keep a client, as far as they are of use to another one.
fn kept(heap: &Heap) -> impl Iterator<Item = &Row> {
    let keeps = |child: &&Row| {
        let status = heap.board.as_ref().and_then(|board| board.status(child.slot));
        status == Some(Status::Keep) && !child.is_retiring() && !child.is_stopped
    };
    heap.role.parent().into_iter().flat_map(|parent| &parent.children).filter(keeps)
}

/// Counts the children that will be gone soon.
fn leaving(heap: &Heap) -> usize {
    let status = |child: &Row| heap.board.as_ref().and_then(|board| board.status(child.slot));
    let is_leaving = |child: &&Row| child.is_retiring() || status(child) == Some(Status::Exit);
    heap.role.parent().map_or(0, |parent| parent.children.iter().filter(is_leaving).count())
}

/// Finds the child that has kept its client for longest. One that is stopped would go on, which is not for us to say.
fn longest_kept(heap: &Heap) -> Option<(i32, SlotIndex)> {
    let since = |child: &Row| heap.board.as_ref()?.read(child.slot).ok().map(|slot| slot.since_ms);
    let mut kept: Vec<(u64, i32, SlotIndex)> =
        kept(heap).filter_map(|child| Some((since(child)?, child.pid, child.slot))).collect();
    kept.sort_unstable_by_key(|(since_ms, ..)| *since_ms);
    kept.into_iter().find(|(_, pid, _)| look(*pid) == Look::Runs).map(|(_, pid, slot)| (pid, slot))
}

/// How long a client waits before another one is let go for it, and how long the parent waits for what comes of that.
const PATIENCE: Duration = Duration::from_millis(20);

/// How often the parent looks whether a child has taken notice, before it asks another one: half a second in all.
const LOOKS: u32 = 25;

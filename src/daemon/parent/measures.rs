//! Has the kernel measure what only the parent can, and takes down what the kernel tells of it.

use std::rc::Rc;
use std::time::Duration;

use crate::daemon::heap::{Cx, Heap, Role};
use crate::daemon::parent::timings::Timings;
use crate::daemon::settings::Forking;
use crate::kernel::SessionId;

/// Begins to measure, if durations are counted at all: in this process, and in the children that it will fork.
pub(in crate::daemon) fn begin(cx: &mut Cx<'_>) {
    let me = cx.session();
    let (heap, core) = cx.parts();
    let Heap { role: Role::Parent(parent), board: Some(board), .. } = heap else { return };
    if !board.counts() {
        return;
    }
    let timings = Timings::default();
    let loop_turn = Rc::clone(&timings.loop_turn);
    core.measure_turns(me, move |span| loop_turn.borrow_mut().record(span));
    core.measure_accepts(me, "accepted");
    parent.timings = Some(Box::new(timings));
}

/// A listener of the session `owner` has accepted a connection in this process. The parent of a pool accepts none for it.
pub(in crate::daemon) fn accepted(cx: &mut Cx<'_>, owner: SessionId, waited: Duration) {
    let me = cx.session();
    let Heap { role: Role::Parent(parent), settings, .. } = cx.heap() else { return };
    let is_service = parent.owner.map_or(owner != me, |service| owner == service);
    if let Some(timings) = parent.timings.as_mut().filter(|_| is_service && settings.forking != Forking::Pre) {
        timings.accept_wait.record(waited);
    }
}

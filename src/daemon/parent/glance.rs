//! Looks at the Daemon once for all clients that ask in the same turn of the loop. So many clients can't keep the parent from its
//! children.

use std::rc::Rc;

use crate::daemon::heap::Cx;
use crate::daemon::parent::consumption::Detail;
use crate::daemon::parent::picture;
use crate::daemon::parent::seen::Seen;
use crate::daemon::view::Snapshot;

fn seen<'a>(cx: &'a mut Cx<'_>) -> Option<&'a mut Seen> {
    picture::begin(cx);
    Some(&mut cx.heap().role.parent_mut()?.ledger.as_mut()?.seen)
}

/// Returns a snapshot of this turn that tells so much of what children use; `None` in a process that is not the parent.
pub(super) fn look(cx: &mut Cx<'_>, detail: Option<Detail>) -> Option<Rc<Snapshot>> {
    if let Some(snapshot) = seen(cx)?.snapshot(detail) {
        return Some(snapshot);
    }
    let snapshot = picture::take_with_usage(cx, detail)?;
    // Comes when every connection has had its turn. Who asks after that may have seen what has happened meanwhile.
    cx.yield_("turn_ends", ());
    Some(seen(cx)?.keep(detail, snapshot))
}

/// Returns whether a client may have an answer now that takes long to write. Others have their turn before the next such answer.
pub(super) fn may_write(cx: &mut Cx<'_>) -> bool {
    let may = seen(cx).is_none_or(Seen::may_write);
    if may {
        cx.yield_("turn_ends", ());
    }
    may
}

/// Every client that has asked in this turn of the loop is answered, or put off.
pub(in crate::daemon) fn turn_ends(cx: &mut Cx<'_>) {
    if let Some(seen) = seen(cx) {
        seen.turn_ends();
    }
}

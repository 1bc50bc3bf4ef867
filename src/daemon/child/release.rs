//! A child that is woken: it looks for clients, says whether it accepts, and may have to let go of the client that it keeps.

use crate::daemon::announce::announce;
use crate::daemon::board::Status;
#[cfg(feature = "control")]
use crate::daemon::child::asked;
use crate::daemon::child::slot::{own_status, set_status};
use crate::daemon::child::time;
use crate::daemon::heap::Cx;
use crate::error::Result;

/// CONT: this child goes on after a stop, or its parent wants it to look. Passes the question on if there is one. A request may
/// have come since it was asked.
pub(in crate::daemon) fn woken(cx: &mut Cx<'_>) -> Result {
    let Some(slot) = cx.heap().role.child().map(|child| child.slot) else { return Ok(()) };
    // The system announces a connection to one process only, and that process may have died.
    cx.core_mut().sources.retry_listeners();
    if cx.heap().board.as_ref().is_some_and(|board| board.is_called(slot)) {
        let accepts = accepts(cx);
        if let Some(board) = &cx.heap().board {
            board.answer_call(slot, accepts);
        }
    }
    #[cfg(feature = "control")]
    asked::look(cx);
    let is_asked = cx.heap().board.as_ref().is_some_and(|board| board.takes_release(slot));
    if is_asked && !cx.heap().is_over { release(cx) } else { Ok(()) }
}

/// Tells whether this child accepts, as far as can be seen: one that has never had a listener may accept in its own way.
fn accepts(cx: &mut Cx<'_>) -> bool {
    let has_had_none = cx.heap().role.child().is_none_or(|child| child.listeners.is_empty());
    let sources = &cx.core().sources;
    let listeners = sources.listeners();
    if listeners.is_empty() { has_had_none } else { listeners.into_iter().any(|key| !sources.is_paused(key)) }
}

/// Asks the application to let go of the client that it keeps, if it keeps one.
pub(in crate::daemon) fn release(cx: &mut Cx<'_>) -> Result {
    if own_status(cx.heap()) != Some(Status::Keep) {
        return Ok(());
    }
    announce(cx, "daemon_release", ())?;
    // The client is not idle then, or is still being let go: the parent is to ask another child, and not this one again.
    if own_status(cx.heap()) == Some(Status::Keep) {
        set_status(cx, Status::Req);
        time::keep_time(cx);
    }
    Ok(())
}

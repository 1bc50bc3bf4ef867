//! The launcher of a program that has detached: it waits until the daemon is ready.

use std::io;

use crate::daemon::heap::Cx;

/// Tells the launcher that the daemon is ready. Its acknowledgement is still to come.
///
/// # Errors
///
/// The launcher is gone.
pub(super) fn tell(cx: &mut Cx<'_>) -> io::Result<()> {
    cx.heap().process.launch.as_mut().map_or(Ok(()), |launch| launch.ready())
}

/// Tells the launcher why the daemon is not ready yet.
pub(super) fn delay(cx: &mut Cx<'_>) {
    let heap = cx.heap();
    if let Some(refused) = heap.role.parent().and_then(|parent| parent.refused.as_ref()) {
        heap.process.not_yet(&refused.error);
    }
}

/// `_stop`: when everything was stopped because a state failed, that is the reason for the launcher.
pub(in crate::daemon) fn report_failure(cx: &mut Cx<'_>) {
    let reason = cx.core().pending_exception.as_ref().map(ToString::to_string);
    if let Some(reason) = reason {
        cx.heap().process.fail(&reason);
    }
}

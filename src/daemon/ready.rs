//! The end of the start, as far as somebody waits for it: the launcher of a program that has detached.

use super::process::Launch;
use super::session::Cx;
use super::shutdown;
use crate::error::Result;

/// Somebody waits: begins to watch for the launcher's answer, or its death. Weakly: it keeps nothing alive.
pub(super) fn launched(cx: &mut Cx<'_>) -> Result {
    let launch: Launch = cx.take(0)?;
    let end = launch.end().clone();
    cx.heap().process.launch = Some(launch);
    cx.select_read_weak(&end, "launcher_answered", ())?;
    Ok(())
}

/// Behind `daemon_parent` in the queue. And once more round the loop: an application that could not handle it, a `DIE`
/// signal by now, is not ready.
pub(super) fn ready_soon(cx: &mut Cx<'_>) {
    cx.yield_("ready", ());
}

/// The application has handled the last signal of the start.
pub(super) fn ready(cx: &mut Cx<'_>) -> Result {
    if cx.heap().is_shutting_down() {
        // By the application, in that very signal. The launcher hears of it when everything has ended.
        return Ok(());
    }
    let Some(launch) = &mut cx.heap().process.launch else { return Ok(()) };
    match launch.ready() {
        // The acknowledgement is still to come.
        Ok(()) => Ok(()),
        Err(_) => give_up(cx),
    }
}

/// The launcher acknowledges that the daemon is ready, or else was interrupted or killed. Whoever did so does not want the
/// daemon.
pub(super) fn launcher_answered(cx: &mut Cx<'_>) -> Result {
    let Some(launch) = cx.heap().process.launch.take() else { return Ok(()) };
    cx.select_read_clear(launch.end());
    if launch.is_acknowledged() { Ok(()) } else { give_up(cx) }
}

fn give_up(cx: &mut Cx<'_>) -> Result {
    log::error!(target: "lenore::daemon", "shutting down: the launcher ended before the daemon was ready");
    shutdown::shutdown(cx)
}

/// `_stop`: when everything was stopped because a state failed, that is the reason for the launcher.
pub(super) fn report_failure(cx: &mut Cx<'_>) {
    let reason = cx.pending_exception.as_ref().map(ToString::to_string);
    if let Some(reason) = reason {
        cx.heap().process.fail(&reason);
    }
}

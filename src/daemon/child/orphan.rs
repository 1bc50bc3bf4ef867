//! A child whose parent is gone enforces its own time limits, and ends.
//!
//! Timers of the system keep its time. They do not keep a session alive, and they also end a process that is stuck in a state. If a
//! child is stuck when the parent dies, [`parent_death`] does what can't wait for the state.

use crate::daemon::child::ending;
use crate::daemon::child::last_timers::LastTimers;
use crate::daemon::child::slot::own_status;
use crate::daemon::child::time::{self, keep_time, time_left};
use crate::daemon::heap::Cx;
use crate::error::{Error, Result};
use crate::sys::parent_death;

/// Before children are forked: prepares what [`watch_parent`] relies on.
pub(in crate::daemon) fn prepare() {
    let reason = match parent_death::prepare() {
        Ok(true) => return,
        Ok(false) => "the program has a handler for SIGRTMAX-1".to_owned(),
        Err(errno) => Error::os("sigaction", "SIGRTMAX-1", errno).to_string(),
    };
    log::warn!(
        target: "lenore::daemon",
        "children that are blocked when the parent is killed keep their listeners until their state returns: {reason}"
    );
}

/// In a new child: has the parent's end noticed also while a state does not return.
pub(super) fn watch_parent(cx: &mut Cx<'_>) {
    let Some(parent) = cx.heap().role.child().map(|child| child.parent) else { return };
    let (own, grace) = (cx.pid() as i32, cx.heap().settings.shutdown_timeout);
    if let Err(errno) = parent_death::arm(own, parent, cx.core().sources.poller(), grace) {
        let error = Error::os("timer_create", "for the parent's end", errno);
        log::warn!(
            target: "lenore::daemon",
            "child {} does not notice the parent's end while it is blocked: {error}", cx.pid()
        );
    }
}

/// The other end of the doorbell is gone, and with it the parent. No other process will look after this one any more.
pub(in crate::daemon) fn parent_gone(cx: &mut Cx<'_>) -> Result {
    let end = cx.heap().doorbell.as_ref().map(|doorbell| doorbell.childs_end().clone());
    if let Some(end) = end {
        cx.select_read_clear(&end);
    }
    parent_death::disarm();
    let pid = cx.pid();
    if cx.heap().is_over {
        return finish(cx);
    }
    match own_status(cx.heap()).filter(|status| status.is_busy()) {
        Some(status) => {
            let (span, setting) = time_left(cx, status);
            log::warn!(
                target: "lenore::daemon",
                "child ends after its request because the parent is gone: pid={pid} status={} limit={setting} left={:.1}",
                status.letter(), span.as_secs_f64()
            );
        }
        None => log::warn!(target: "lenore::daemon", "child ends because the parent is gone: pid={pid}"),
    }
    match LastTimers::new() {
        Ok(timers) => set_timers(cx, timers),
        Err(error) => {
            // Nothing would bound what it has in hand.
            log::error!(target: "lenore::daemon", "child ends at once because it can't set its time limit: {error} pid={pid}");
            return ending::shutdown(cx);
        }
    }
    keep_time(cx);
    ending::go_when_done(cx)
}

/// This child had been shut down, but had not ended, when the parent was killed.
fn finish(cx: &mut Cx<'_>) -> Result {
    let (pid, span) = (cx.pid(), cx.heap().settings.shutdown_timeout);
    match LastTimers::new() {
        Ok(timers) => {
            log::warn!(
                target: "lenore::daemon",
                "child was already ending, and the parent is gone: pid={pid} limit=shutdown_timeout left={:.1}", span.as_secs_f64()
            );
            set_timers(cx, timers);
            time::ended(cx.heap());
        }
        Err(error) => {
            log::error!(target: "lenore::daemon", "child has no time limit, and the parent is gone: {error} pid={pid}")
        }
    }
    Ok(())
}

fn set_timers(cx: &mut Cx<'_>, timers: LastTimers) {
    if let Some(child) = cx.heap().role.child_mut() {
        child.last_timers = Some(timers);
    }
}

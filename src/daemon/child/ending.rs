//! The end of the Daemon in a child, at once or after the request in hand.

use crate::daemon::announce::announce;
use crate::daemon::board::Status;
use crate::daemon::child::release::release;
use crate::daemon::child::slot::{own_status, set_status};
use crate::daemon::child::time;
use crate::daemon::ending;
use crate::daemon::foreign;
use crate::daemon::heap::{Cx, Role};
use crate::daemon::listening;
use crate::daemon::machine::Shutdown;
use crate::error::Result;
use crate::inject::{self, Point};
use crate::sys::parent_death;

/// Ends this child, after the request in hand if there is one. From here on it accepts nothing.
pub(in crate::daemon) fn go_when_done(cx: &mut Cx<'_>) -> Result {
    inject::reach(Point::ChildRetire)?;
    match own_status(cx.heap()) {
        Some(status) if status.is_taken() => {
            if let Some(child) = cx.heap().role.child_mut() {
                child.is_retiring = true;
            }
            // One that serves several requests at a time would never be done if it went on accepting.
            let told = announce(cx, "daemon_pause", ());
            stop_listening(cx);
            told.and_then(|()| release(cx))
        }
        _ => shutdown(cx),
    }
}

/// Shuts the Daemon down in a child or in a bystander. A second call does nothing.
pub(in crate::daemon) fn shutdown(cx: &mut Cx<'_>) -> Result {
    if cx.heap().is_over {
        return Ok(());
    }
    cx.heap().is_over = true;
    set_status(cx, Status::Exit);
    inject::reach(Point::ChildExit)?;
    ending::withdraw(cx)?;
    // A child goes on watching its end of the doorbell: the parent may be killed before this child has ended.
    let told = announce(cx, "daemon_shutdown", (Shutdown::Immediate,));
    stop_listening(cx);
    time::ended(cx.heap());
    told?;
    foreign::forget_vanished(cx);
    if !cx.heap().foreign.is_empty() {
        ending::give_rest_of_grace(cx);
    }
    Ok(())
}

/// TERM. The first one may let the request in hand be finished, as QUIT does.
///
/// QUIT may have come before, as the parent sends QUIT when it gets TERM. A supervisor that sends TERM to each process of a service
/// may signal this process only after that.
pub(in crate::daemon) fn terminated(cx: &mut Cx<'_>) -> Result {
    let heap = cx.heap();
    let waits = heap.settings.term == Shutdown::Graceful && !heap.is_over;
    match heap.role.child_mut() {
        // Without a parent TERM comes from a timer: the time for the request is over.
        Some(child) if waits && child.last_timers.is_none() && !child.is_terminated => {
            child.is_terminated = true;
            go_when_done(cx)
        }
        _ => signalled(cx),
    }
}

/// INT, or a TERM that means the same.
pub(in crate::daemon) fn signalled(cx: &mut Cx<'_>) -> Result {
    if !cx.heap().is_over {
        return shutdown(cx);
    }
    if cx.heap().foreign.is_empty() {
        ending::look_again_what_is_left(cx);
    }
    Ok(())
}

/// Stops the alarms when the last process that other code has forked was reaped: none is left to be killed.
pub(in crate::daemon) fn end_if_alone(cx: &mut Cx<'_>) {
    if cx.heap().is_over && cx.heap().foreign.is_empty() {
        cx.alarm_remove_all();
    }
}

/// The grace is over.
pub(in crate::daemon) fn grace_is_over(cx: &mut Cx<'_>) {
    ending::kill_foreign(cx);
    end_if_alone(cx);
}

/// Notes which listeners are the service's, and what is closed if this process is blocked when the parent dies. A listener that
/// the application opens during a request, for that request's own connections, is not the service's.
pub(super) fn note_listeners(cx: &mut Cx<'_>) {
    let listeners = cx.core().sources.listeners();
    parent_death::note_listeners(listeners.iter().filter_map(|key| Some(cx.core().sources.source(*key)?.fd())));
    if let Some(child) = cx.heap().role.child_mut() {
        child.listeners = listeners;
    }
}

/// Closes the service's listeners, which the application may have forgotten or merely paused. As long as a process has such a
/// socket, the system lets clients into its queue, and no other program can have its address.
fn stop_listening(cx: &mut Cx<'_>) {
    listening::let_go(cx.heap());
    let listeners = match &mut cx.heap().role {
        Role::Child(child) => &mut child.listeners,
        Role::Bystander(bystander) => &mut bystander.listeners,
        Role::Parent(_) => return,
    };
    for key in std::mem::take(listeners) {
        cx.core_mut().close_listener(key);
    }
}

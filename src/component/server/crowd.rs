//! A process that has as many connections as it may have lets idle ones go for clients that wait.
//!
//! With one connection a child the Daemon sees to that, which knows whether another child has room.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::pool::Pool;
use crate::component::listener::Cx;
use crate::component::requests::{IS_IDLE, LongestIdle, RELEASE};
use crate::daemon::Forking;
use crate::error::Result;
use crate::kernel::SessionId;

#[derive(Default)]
pub(super) struct Crowd {
    /// There is an alarm, or the kernel was asked to tell of a client that waits.
    is_looked_after: Cell<bool>,
    /// A client has waited at the last look.
    has_waited: Cell<bool>,
}

/// One connection more: if it is the last that there is room for, the kernel is to tell of a client that waits.
pub(super) fn look_later(pool: &Pool, cx: &mut Cx<'_>) {
    let is_own_affair = match pool.forking.get() {
        Forking::None => true,
        Forking::Pre => pool.limit.get() != Some(1),
        Forking::Post => false,
    };
    let will_be_full = pool.limit.get().is_some_and(|limit| cx.heap().connections() + 1 >= limit);
    if is_own_affair && will_be_full && !pool.crowd.is_looked_after.replace(true) {
        pool.crowd.has_waited.set(false);
        wait_for_client(cx);
    }
}

fn wait_for_client(cx: &mut Cx<'_>) {
    let me = cx.session();
    cx.core_mut().await_backlog(me, WAITED_FOR);
}

/// A client waits at a listener of this process, perhaps at one of another server, or for another process to take it.
pub(super) fn found(pool: &Pool, cx: &mut Cx<'_>) -> Result {
    if pool.crowd.is_looked_after.get() {
        cx.delay(CROWDED, PAUSE, ());
        pool.crowd.has_waited.set(cx.heap().has_client());
    }
    Ok(())
}

/// Lets the client go that is idle for longest, if clients wait at this look and at the one before.
pub(super) fn look(pool: &Pool, cx: &mut Cx<'_>) -> Result {
    let is_full = pool.limit.get().is_some_and(|limit| cx.heap().connections() >= limit);
    if !is_full || !cx.heap().listens() {
        pool.crowd.is_looked_after.set(false);
        return Ok(());
    }
    let waits = cx.heap().has_client();
    let has_waited = pool.crowd.has_waited.replace(waits);
    if !waits {
        wait_for_client(cx);
        return Ok(());
    }
    if has_waited && let Some(session) = longest_idle(cx) {
        let _ = cx.post(session, RELEASE, ());
    }
    cx.delay(CROWDED, PAUSE, ());
    Ok(())
}

pub(super) fn stop_looking(pool: &Pool, cx: &mut Cx<'_>) {
    if pool.crowd.is_looked_after.replace(false) {
        cx.delay_clear(CROWDED);
        let me = cx.session();
        cx.core_mut().forget_backlog(me, WAITED_FOR);
    }
}

/// Asks all connections of this process which of them is idle for longest.
pub(super) fn longest_idle(cx: &mut Cx<'_>) -> Option<SessionId> {
    let found = LongestIdle::default();
    let sessions: Vec<SessionId> = cx.heap().sessions().collect();
    for session in sessions {
        // One that has stopped is not idle.
        let _ = cx.call(session, IS_IDLE, (Rc::clone(&found),));
    }
    found.get().map(|(_, session)| session)
}

/// The event that tells of a client that waits while the process is full.
pub(super) const WAITED_FOR: &str = "waited_for";

/// The event for a look whether clients wait.
pub(super) const CROWDED: &str = "crowded";

/// How long a client waits before another one is let go for it, and how often is looked while clients wait.
const PAUSE: Duration = Duration::from_millis(50);

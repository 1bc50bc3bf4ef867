//! What a child reports of its requests: that they come and go, and that there are none.
//!
//! Not each of them: it is said once in a while that there is progress, and when nothing has been in hand for a moment.

use std::time::Duration;

use super::crowd::longest_idle;
use super::pool::Pool;
use crate::component::listener::Cx;
use crate::component::requests::RELEASE;
use crate::daemon::Report;
use crate::error::Result;

/// A connection of this process was accepted, which the Daemon knows.
pub(super) fn accepted(pool: &Pool, cx: &mut Cx<'_>) {
    let now = cx.core().clock.now();
    pool.load.accepted(now);
    if pool.load.wants_a_look() {
        set_alarm(pool, cx);
    }
}

/// Requests begin and end.
pub(super) fn progress(pool: &Pool, cx: &mut Cx<'_>) -> Result {
    pool.load.is_resting.set(false);
    pool.daemon.get().map_or(Ok(()), |daemon| Ok(daemon.makes_progress(cx)?))
}

/// Nothing is in hand any more.
pub(super) fn look_later(pool: &Pool, cx: &mut Cx<'_>) -> Result {
    if pool.load.wants_a_look() {
        set_alarm(pool, cx);
    }
    Ok(())
}

fn set_alarm(pool: &Pool, cx: &mut Cx<'_>) {
    let (now, at) = (cx.core().clock.now(), pool.load.rest_begins());
    pool.load.look_at.set(Some(at));
    cx.delay(REST, Duration::from_nanos(u64::try_from(at.saturating_sub(now)).unwrap_or(0)), ());
}

/// Tells the Daemon if nothing has been in hand for a moment.
pub(super) fn look(pool: &Pool, cx: &mut Cx<'_>) -> Result {
    pool.load.look_at.set(None);
    if cx.heap().connections() == 0 || !pool.load.wants_a_look() {
        return Ok(());
    }
    if pool.load.rest_begins() > cx.core().clock.now() {
        set_alarm(pool, cx);
        return Ok(());
    }
    pool.load.is_resting.set(true);
    pool.report(cx, Report::Keep)
}

/// A client waits, and no child has room. The client that is idle for longest can come again.
pub(super) fn release(pool: &Pool, cx: &mut Cx<'_>) -> Result {
    if let Some(session) = longest_idle(cx) {
        let _ = cx.post(session, RELEASE, ());
    }
    // The Daemon has this child as busy from now on. Without a pause a child that is asked to go, and has a client that can't be
    // released, would report and be asked in turn without end.
    let now = cx.core().clock.now();
    pool.load.rest_anew(now);
    look_later(pool, cx)
}

/// Without connections there is nothing to look at.
pub(super) fn stop_looking(pool: &Pool, cx: &mut Cx<'_>) {
    if pool.load.look_at.take().is_some() {
        cx.delay_clear(REST);
    }
}

/// A forked process begins with nothing.
pub(super) fn leave(pool: &Pool, cx: &mut Cx<'_>) {
    stop_looking(pool, cx);
    pool.load.reset();
}

/// The event for a look whether anything is in hand.
pub(super) const REST: &str = "rest";

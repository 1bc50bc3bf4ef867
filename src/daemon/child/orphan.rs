//! A child whose parent is gone: it ends by itself what the parent would have ended.
//!
//! Its time is kept by timers of the system, which keep no session alive and also end a process that is stuck in a state.
//! In one that is stuck when the parent dies, [`parent_death`] does what can't wait for the state.

use std::mem::ManuallyDrop;
use std::os::fd::RawFd;
use std::time::Duration;

use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

use crate::daemon::board::Status;
use crate::daemon::board::epoch_ms;
use crate::daemon::child;
use crate::daemon::parent::shutdown;
use crate::daemon::session::{Cx, Heap, Role};
use crate::daemon::settings::Settings;
use crate::error::{Error, Result};
use crate::sys::parent_death;

/// What ends this process: TERM, on which the Daemon shuts it down, and KILL.
///
/// Never dropped: a process that this one forks has the values, but not the timers.
pub(in crate::daemon) struct LastTimers {
    term: ManuallyDrop<Timer>,
    kill: ManuallyDrop<Timer>,
}

impl LastTimers {
    fn new() -> Result<LastTimers, Error> {
        let new = |signal| {
            let event = SigEvent::new(SigevNotify::SigevSignal { signal, si_value: 0 });
            let timer = Timer::new(ClockId::CLOCK_MONOTONIC, event);
            timer.map(ManuallyDrop::new).map_err(|errno| Error::os("timer_create", signal, errno))
        };
        Ok(LastTimers { term: new(Signal::SIGTERM)?, kill: new(Signal::SIGKILL)? })
    }

    /// Lets the process go on for `span`, and then gives it a last moment to end in order.
    fn end_after(&mut self, span: Duration) -> Result<(), Error> {
        set(&mut self.term, span)?;
        set(&mut self.kill, span + LAST_MOMENT)
    }

    /// The process is ending in order: for that it has `span`, if it does not have less.
    fn kill_after(&mut self, span: Duration) -> Result<(), Error> {
        let left = match self.kill.get() {
            Ok(Some(Expiration::OneShot(left))) => Duration::from(left),
            _ => Duration::MAX,
        };
        // Zero: never.
        set_to(&mut self.term, Duration::ZERO)?;
        set(&mut self.kill, span.min(left))
    }
}

fn set(timer: &mut Timer, span: Duration) -> Result<(), Error> {
    set_to(timer, span.clamp(SOON, LATEST))
}

fn set_to(timer: &mut Timer, span: Duration) -> Result<(), Error> {
    timer
        .set(Expiration::OneShot(span.into()), TimerSetTimeFlags::empty())
        .map_err(|errno| Error::os("timer_settime", format_args!("{span:?}"), errno))
}

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
pub(in crate::daemon) fn watch_parent(cx: &mut Cx<'_>) {
    let (own, parent, grace) = (cx.pid() as i32, cx.heap().parent, cx.heap().settings.shutdown_timeout);
    if let Err(errno) = parent_death::arm(own, parent, cx.core().sources.poller(), grace) {
        let error = Error::os("timer_create", "for the parent's end", errno);
        log::warn!(
            target: "lenore::daemon",
            "child {} does not notice the parent's end while it is blocked: {error}", cx.pid()
        );
    }
}

/// Notes what is closed if this process is blocked when the parent dies.
pub(in crate::daemon) fn note_listeners(fds: impl Iterator<Item = RawFd>) {
    parent_death::note_listeners(fds);
}

/// Notes for how long this process may stay blocked in what begins now, if the parent dies meanwhile.
pub(in crate::daemon) fn set_limit(settings: &Settings, status: Status) {
    parent_death::set_limit(match status {
        Status::Long => settings.rules.long_timeout,
        Status::Req => settings.rules.request_timeout,
        _ => None,
    });
}

/// The other end of the doorbell is gone, and with it the parent. No other process will look after this one any more.
pub(in crate::daemon) fn parent_gone(cx: &mut Cx<'_>) -> Result {
    let end = cx.heap().doorbell.as_ref().map(|doorbell| doorbell.childs_end().clone());
    if let Some(end) = end {
        cx.select_read_clear(&end);
    }
    parent_death::disarm();
    let pid = cx.pid();
    if cx.heap().is_shutting_down() {
        return finish(cx);
    }
    match child::own_status(cx.heap()).filter(|status| status.is_busy()) {
        Some(status) => {
            let (span, setting) = time_left(cx, status);
            log::warn!(
                target: "lenore::daemon",
                "the parent is gone, child {pid} ends after its request: status={} limit={setting} left={:.1}",
                status.letter(), span.as_secs_f64()
            );
        }
        None => log::warn!(target: "lenore::daemon", "the parent is gone, child {pid} ends"),
    }
    match LastTimers::new() {
        Ok(timers) => cx.heap().last_timers = Some(timers),
        Err(error) => {
            // Nothing would bound what it has in hand.
            log::error!(target: "lenore::daemon", "child {pid} ends at once, as it can't set its time limit: {error}");
            return shutdown::shutdown(cx);
        }
    }
    keep_time(cx);
    child::go_when_done(cx)
}

/// This child had been shut down, but had not ended, when the parent was killed.
fn finish(cx: &mut Cx<'_>) -> Result {
    let (pid, span) = (cx.pid(), cx.heap().settings.shutdown_timeout);
    match LastTimers::new() {
        Ok(timers) => {
            log::warn!(
                target: "lenore::daemon",
                "the parent is gone, child {pid} finishes its end: limit=shutdown_timeout left={:.1}", span.as_secs_f64()
            );
            cx.heap().last_timers = Some(timers);
            ended(cx.heap());
        }
        Err(error) => {
            log::error!(target: "lenore::daemon", "the parent is gone, child {pid} has no time limit: {error}")
        }
    }
    Ok(())
}

/// Sets how long the request in hand may still take. Without a parent only, and again whenever the status changes.
pub(in crate::daemon) fn keep_time(cx: &mut Cx<'_>) {
    let Some(status) = child::own_status(cx.heap()).filter(|status| status.is_busy()) else { return };
    let (span, _) = time_left(cx, status);
    with_timers(cx.heap(), |timers, _| timers.end_after(span));
}

/// This child has been shut down: what its sessions still do may take as long as at any shutdown.
pub(in crate::daemon) fn ended(heap: &mut Heap) {
    with_timers(heap, |timers, settings| timers.kill_after(settings.shutdown_timeout));
}

fn with_timers(heap: &mut Heap, set: impl FnOnce(&mut LastTimers, &Settings) -> Result<(), Error>) {
    if let Some(timers) = &mut heap.last_timers
        && let Err(error) = set(timers, &heap.settings)
    {
        log::error!(target: "lenore::daemon", "the parent is gone, and there is no time limit: {error}");
    }
}

/// Returns what is left of the time for a request, and the setting that says so.
fn time_left(cx: &mut Cx<'_>, status: Status) -> (Duration, &'static str) {
    let now = epoch_ms(cx.now());
    let Heap { settings, role, board, .. } = cx.heap();
    let (limit, setting) = match status {
        Status::Long => (settings.rules.long_timeout, "long_timeout"),
        _ => (settings.rules.request_timeout, "request_timeout"),
    };
    let Some(limit) = limit else { return (settings.shutdown_timeout, "shutdown_timeout") };
    let own = match (role, board) {
        (Role::Child { slot, .. }, Some(board)) => board.read(*slot).ok(),
        _ => None,
    };
    let spent = own.map_or(0, |own| now.saturating_sub(own.since_ms));
    (limit.saturating_sub(Duration::from_millis(spent)), setting)
}

/// How long a child whose time is up may take to close its connections in order.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// What a span of zero comes to: a timer that is set to zero never goes off.
const SOON: Duration = Duration::from_millis(1);

/// What a span comes to that the system could not count.
const LATEST: Duration = Duration::from_secs(365 * 24 * 3600);

//! The timers that end a child whose parent is gone.

use std::mem::ManuallyDrop;
use std::time::Duration;

use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

use crate::error::{Error, Result};

/// What ends this process: TERM, on which the Daemon shuts it down, and KILL.
///
/// Never dropped: a process that this one forks has the values, but not the timers.
pub(super) struct LastTimers {
    term: ManuallyDrop<Timer>,
    kill: ManuallyDrop<Timer>,
}

impl LastTimers {
    pub(super) fn new() -> Result<LastTimers, Error> {
        let new = |signal| {
            let event = SigEvent::new(SigevNotify::SigevSignal { signal, si_value: 0 });
            let timer = Timer::new(ClockId::CLOCK_MONOTONIC, event);
            timer.map(ManuallyDrop::new).map_err(|errno| Error::os("timer_create", signal, errno))
        };
        Ok(LastTimers { term: new(Signal::SIGTERM)?, kill: new(Signal::SIGKILL)? })
    }

    /// Lets the process go on for `span`, and then gives it a last moment to end in order.
    pub(super) fn end_after(&mut self, span: Duration) -> Result<(), Error> {
        set(&mut self.term, span)?;
        set(&mut self.kill, span + LAST_MOMENT)
    }

    /// The process is ending in order: for that it has `span`, if it does not have less.
    pub(super) fn kill_after(&mut self, span: Duration) -> Result<(), Error> {
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

/// How long a child whose time is up may take to close its connections in order.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// What a span of zero comes to: a timer that is set to zero never goes off.
const SOON: Duration = Duration::from_millis(1);

/// What a span comes to that the system could not count.
const LATEST: Duration = Duration::from_secs(365 * 24 * 3600);

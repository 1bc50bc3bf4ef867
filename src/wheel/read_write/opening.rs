//! The time before a transport can carry records, as during a handshake.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::time::Duration;

use super::state::State;
use crate::args::IntoArgs;
use crate::kernel::{Delivery, Due, Next, Turn, nanos};
use crate::name::Name;
use crate::wheel::stream::Stream;

/// Whether the transport is ready, and how long it may take.
pub(super) struct Opening {
    /// The event for a transport that is ready.
    on_ready: Option<Name>,
    limit: Duration,
    /// When the time is up. `None` before the first turn.
    due: Cell<Option<Due>>,
    phase: Cell<Phase>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    /// The transport is ready, and the session was told if it has an event for that.
    Ready,
    /// The transport will never be ready.
    Failed,
}

impl Opening {
    pub(super) fn new(on_ready: Option<Name>, limit: Duration) -> Opening {
        Opening { on_ready, limit, due: Cell::new(None), phase: Cell::new(Phase::Waiting) }
    }
}

impl State {
    /// Tells the session once that the transport is ready, or gives up a transport whose time is up. Returns the
    /// outcome of the event.
    #[inline]
    pub(super) fn open(&self, cx: &mut Turn<'_>) -> Delivery {
        if self.opening.phase.get() == Phase::Waiting { self.look_whether_ready(cx) } else { Delivery::Done }
    }

    fn look_whether_ready(&self, cx: &mut Turn<'_>) -> Delivery {
        if self.transport_is_ready() {
            self.opening.phase.set(Phase::Ready);
            return match self.opening.on_ready {
                Some(event) if !self.base.closing.get() => self.base.dispatch(cx, event, (self.base.id,).into_args()),
                _ => Delivery::Done,
            };
        }
        if self.outbox.has_failed() {
            self.fail_to_open();
            return Delivery::Done;
        }
        let (now, limit) = (cx.read_clock(), self.opening.limit);
        let due = self.opening.due.get().unwrap_or_else(|| now.saturating_add(nanos(limit)));
        self.opening.due.set(Some(due));
        if now >= due {
            let text = format!("it was not done within {limit:?}");
            self.outbox.fail(self, io::Error::new(ErrorKind::TimedOut, text));
            self.fail_to_open();
        }
        Delivery::Done
    }

    /// Gives up a transport that is not ready. The failure is reported as one of the output, and not a second time for
    /// the input.
    fn fail_to_open(&self) {
        self.opening.phase.set(Phase::Failed);
        self.reader.ended.set(true);
        self.mark_dirty();
    }

    /// Returns the operation of a failure of the output.
    pub(super) fn output_operation(&self) -> &'static str {
        let is_open = self.opening.phase.get() == Phase::Ready || !self.is_over_transport || self.transport_is_ready();
        if is_open { "write" } else { "handshake" }
    }

    fn transport_is_ready(&self) -> bool {
        self.port.stream.borrow().as_ref().is_none_or(Stream::is_ready)
    }

    /// Does what [`open`](Self::open) does in a turn of writing, so that nothing is flushed before. Input may have come
    /// to the transport together with the end of the handshake, which the poller does not report.
    #[inline]
    pub(super) fn open_to_write(&self, cx: &mut Turn<'_>) -> Delivery {
        if !self.is_over_transport || self.opening.phase.get() != Phase::Waiting {
            return Delivery::Done;
        }
        let told = self.look_whether_ready(cx);
        if self.opening.phase.get() == Phase::Ready && self.port.is_open.get() {
            self.port.wake();
        }
        told
    }

    /// Returns when the wheel looks again, if it waits for the transport and nothing is due sooner.
    #[inline]
    pub(super) fn or_until_ready(&self, next: Next) -> Next {
        match (self.opening.due.get(), next) {
            (Some(due), Next::Wait) if self.opening.phase.get() == Phase::Waiting => Next::At(due),
            (Some(due), Next::At(other)) if self.opening.phase.get() == Phase::Waiting => Next::At(due.min(other)),
            _ => next,
        }
    }
}

/// Default for `handshake_timeout`.
pub(super) const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

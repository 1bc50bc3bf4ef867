//! A source's turn: what it may do while it has one, and what the kernel makes of its answer.

use super::Kernel;
use super::clock::Due;
use super::core::Core;
use super::sessions::SessionId;
use super::source::{Readiness, SourceKey};
use crate::args::Args;
use crate::destroy::destroy;
use crate::error::Exception;
use crate::name::Name;

/// What a source answers at the end of its turn: what is to come next.
///
/// After any answer the kernel asks the source what it wants of the poller, and whether it keeps its owner alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The next turn comes when the poller has news of the source, or when its wheel asks for one. A time that was set
    /// stays set.
    Wait,
    /// Another turn in the next slice, whatever the poller says.
    Again(Readiness),
    /// A turn for reading at this time, unless the source is closed before. This replaces a time that was set before.
    At(Due),
    /// As [`Wait`](Next::Wait), but the poller reports readiness again that it has already reported.
    Recheck,
    /// The source is done: the kernel takes it out of the poller and closes it. Then the source may tell its owner, in
    /// [`closed`](super::Source::closed).
    Close,
}

/// What has become of an event that a source has sent.
///
/// POE: nothing like it; a wheel looks after each `call` whether it is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// The state has run to its end, or the session has no state of that name.
    Done,
    /// The state has failed. End the turn, and send further events in the next slice, behind the `DIE` signal.
    Failed,
    /// The source is closed, because its wheel was dropped or its session has stopped. Or this is a forked child, and
    /// the turn belongs to the parent. There is nothing left to do, and the turn's answer is ignored.
    Over,
}

/// The kernel, as far as a source that has its turn may use it.
pub(crate) struct Turn<'a> {
    pub(super) kernel: &'a mut Kernel,
    key: SourceKey,
    owner: SessionId,
    /// How often the process had forked when the turn began.
    forked: u32,
    /// The source was closed by its own answer, and is telling its owner.
    is_closed: bool,
    is_over: bool,
}

impl<'a> Turn<'a> {
    pub(super) fn new(kernel: &'a mut Kernel, key: SourceKey, owner: SessionId, is_closed: bool) -> Turn<'a> {
        let forked = kernel.core.forked;
        Turn { kernel, key, owner, forked, is_closed, is_over: false }
    }

    /// Lends the turn to the source of a program. If it finds the turn over, the turn is over for the lender as well.
    pub(crate) fn part<T>(&mut self, what: impl FnOnce(Turn<'_>) -> T) -> T {
        let Turn { kernel, key, owner, forked, is_closed, is_over } = self;
        let part = Turn { kernel, key: *key, owner: *owner, forked: *forked, is_closed: *is_closed, is_over: *is_over };
        let result = what(part);
        self.outcome(true);
        result
    }

    /// Runs a state of the source's owner. `wheel` is the event's caller state. Once the turn is over, no event is
    /// sent.
    pub(crate) fn deliver(&mut self, wheel: Name, event: Name, args: Args) -> Delivery {
        if self.is_over {
            destroy(args);
            return Delivery::Over;
        }
        let is_done = self.kernel.dispatch_from_source(self.owner, event, Some(wheel), args);
        self.outcome(is_done)
    }

    /// Turns a failure in the source, outside of its owner's states, into the owner's `DIE` signal.
    pub(crate) fn die(&mut self, wheel: Name, exception: Exception) -> Delivery {
        if self.is_over {
            destroy(exception);
            return Delivery::Over;
        }
        self.kernel.die_in_source(self.owner, wheel, exception);
        self.outcome(false)
    }

    pub(super) fn outcome(&mut self, is_done: bool) -> Delivery {
        let Core { forked, sources, .. } = &self.kernel.core;
        self.is_over = *forked != self.forked || !self.is_closed && !sources.is_open(self.key);
        match is_done {
            _ if self.is_over => Delivery::Over,
            true => Delivery::Done,
            false => Delivery::Failed,
        }
    }

    /// Tells whether the source is closed, or this is a child that was forked during the turn. The source then does nothing
    /// more: a child that keeps it gives it turns of its own.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Tells whether something was put into the source's wheel that is still to be flushed.
    pub(crate) fn is_flush_due(&self) -> bool {
        self.kernel.core.sources.is_flush_due(self.key)
    }

    /// Returns the buffer into which every stream reads.
    pub(crate) fn buffer(&mut self) -> &mut [u8] {
        &mut self.kernel.core.sources.read_buffer
    }

    #[cfg(feature = "control")]
    pub(super) fn key(&self) -> SourceKey {
        self.key
    }

    #[cfg(feature = "control")]
    pub(super) fn owner(&self) -> SessionId {
        self.owner
    }

    /// Returns the time at which the slice has begun, or later.
    pub(crate) fn now(&self) -> Due {
        self.kernel.core.clock.now()
    }

    /// Reads the clock.
    pub(crate) fn read_clock(&mut self) -> Due {
        self.kernel.core.clock.advance()
    }

    /// Returns the kernel's core, for a source that makes other sources.
    pub(crate) fn core(&mut self) -> &mut Core {
        &mut self.kernel.core
    }
}

//! The trait that a program implements, and the types that its methods use.

use std::fmt;
use std::os::fd::AsFd;
use std::time::Instant;

use super::{AfterFork, Delivery, Wanted};
use crate::args::IntoArgs;
use crate::kernel::{Readiness, Turn as KernelTurn};
use crate::name::Name;
use crate::wheel::WheelId;

/// What a wheel of your own does: which readiness it wants, and what it does when it gets a turn.
/// [`Wheel`](super::Wheel) shows a complete source.
///
/// The kernel calls [`as_fd`](AsFd::as_fd) once, in [`Wheel::start`](super::Wheel::start), and watches that descriptor
/// until the wheel is closed. The kernel owns the source until then, and gives no mutable reference to it. So the
/// descriptor can't be closed too early.
///
/// The methods take `&self`, because a state that [`Turn::deliver`] runs may call the source through its wheel. Put
/// fields that change into a [`Cell`](std::cell::Cell) or a [`RefCell`](std::cell::RefCell). If a source holds a borrow
/// of a `RefCell` while it delivers, and the state needs the same `RefCell`, the program panics.
///
/// POE: a subclass of `POE::Wheel`, which calls `select_read` and `select_write` itself.
pub trait Source: AsFd + 'static {
    /// Returns the readiness for which the source gets turns. `None` means no turns, as when the source is paused.
    ///
    /// The kernel asks at the start, after each turn, after each [`Wheel::with`](super::Wheel::with) and after a fork.
    ///
    /// Default: [`Wanted::READ`].
    fn wanted(&self) -> Option<Wanted> {
        Some(Wanted::READ)
    }

    /// Does a bounded amount of work, and returns what comes next.
    ///
    /// `readiness` is [`Readiness::Read`] or [`Readiness::Write`]. One turn is for one of them. A turn may come
    /// although the descriptor is not ready. An error on the descriptor causes a turn for both, whatever the source
    /// wants.
    ///
    /// # Panics
    ///
    /// It should not panic. A panic closes the wheel, and sends its session a `DIE` signal.
    fn turn(&self, cx: &mut Turn<'_>, readiness: Readiness) -> Next;

    /// Tells whether a forked child keeps the source. The kernel calls this in the child. If the source is kept, it
    /// must forget here what only the parent must do, such as writing output that waits.
    ///
    /// Default: [`AfterFork::Close`].
    fn after_fork(&self) -> AfterFork {
        AfterFork::Close
    }

    /// Returns the state of the source for [`peek`](crate::Context::peek). The text comes after the name of the
    /// source's type.
    ///
    /// Default: nothing.
    fn describe(&self) -> String {
        String::new()
    }
}

/// What a source answers at the end of its turn. The kernel then asks for the [readiness](Source::wanted) that the
/// source wants.
///
/// POE: nothing like it. A wheel calls `select_read`, `select_write` and `delay` whenever it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The next turn comes when the poller reports the descriptor. The poller reports each change to ready only once,
    /// so the source must have read or written until `WouldBlock`. An earlier [`At`](Next::At) still counts.
    Wait,
    /// The next turn comes in the next slice, even if the poller reports nothing. Answer this to give others their turn
    /// before the source has seen `WouldBlock`.
    Again(Readiness),
    /// As [`Wait`](Next::Wait), but a turn for reading comes at this time at the latest. It replaces an earlier time.
    At(Instant),
    /// The kernel closes the wheel. It takes the descriptor out of the poller, and drops the source.
    Close,
}

/// A source's turn, with which it reaches its session.
///
/// POE: `$poe_kernel`, as the hidden handler of a wheel uses it.
pub struct Turn<'a> {
    kernel: KernelTurn<'a>,
    wheel: Name,
    id: WheelId,
}

impl fmt::Debug for Turn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("wheel", &self.wheel).field("id", &self.id).finish_non_exhaustive()
    }
}

impl<'a> Turn<'a> {
    pub(super) fn new(kernel: KernelTurn<'a>, wheel: Name, id: WheelId) -> Turn<'a> {
        Turn { kernel, wheel, id }
    }

    /// Runs the state `event` of the wheel's session with `args`, and returns whether the turn may go on.
    ///
    /// The state may do anything. It may put into other wheels, call this source through
    /// [`Wheel::with`](super::Wheel::with), drop the wheel, or fork. By custom the last argument is the
    /// [`id`](Turn::id). After [`Delivery::Over`] nothing more is delivered, and the answer of the turn has no effect.
    ///
    /// POE: `$poe_kernel->call` with the wheel's session.
    pub fn deliver(&mut self, event: impl Into<Name>, args: impl IntoArgs) -> Delivery {
        self.kernel.deliver(self.wheel, event.into(), args.into_args())
    }

    /// Returns the wheel's id, the same as [`Wheel::id`](super::Wheel::id).
    ///
    /// POE: `ID`.
    pub fn id(&self) -> WheelId {
        self.id
    }

    /// Lends at least 64 KiB of memory to read into. All sources share it, so the next [`deliver`](Turn::deliver)
    /// overwrites its content.
    ///
    /// POE: nothing like it. `sysread` makes a string.
    pub fn buffer(&mut self) -> &mut [u8] {
        self.kernel.buffer()
    }
}

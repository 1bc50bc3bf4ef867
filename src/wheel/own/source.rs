//! What a program implements, and what its source gets and answers.

use std::fmt;
use std::os::fd::AsFd;
use std::time::Instant;

use super::{AfterFork, Delivery, Wanted};
use crate::args::IntoArgs;
use crate::kernel::{Readiness, Turn as KernelTurn};
use crate::name::Name;
use crate::wheel::WheelId;

/// What a wheel of the program's own does: which readiness it wants, and what it does with it. [`Wheel`](super::Wheel) shows
/// a whole one.
///
/// The kernel asks [`as_fd`](AsFd::as_fd) once, in [`Wheel::start`](super::Wheel::start), and watches that descriptor until the
/// wheel is closed. It holds the source as long, and nobody gets it mutably meanwhile. So the descriptor can't be closed too early.
///
/// The methods take `&self`, because a state that [`Turn::deliver`] runs may call the source through its wheel. What changes
/// stands in a [`Cell`](std::cell::Cell) or a [`RefCell`](std::cell::RefCell). A source that holds a borrow of a `RefCell` while
/// it delivers panics if that state needs the `RefCell`.
///
/// POE: a subclass of `POE::Wheel`, which calls `select_read` and `select_write` itself.
pub trait Source: AsFd + 'static {
    /// Returns the readiness for which the source is to get turns, or `None` for none, as when it is paused.
    ///
    /// The kernel asks at the start, after each turn, after each [`Wheel::with`](super::Wheel::with) and after a fork.
    ///
    /// Default: [`Wanted::READ`].
    fn wanted(&self) -> Option<Wanted> {
        Some(Wanted::READ)
    }

    /// Does one bounded turn of work, and says what is to come next.
    ///
    /// `readiness` is [`Readiness::Read`] or [`Readiness::Write`]; one turn is for one of them. A turn may come although the
    /// descriptor is not ready, and an error on the descriptor causes a turn for both, whatever was wanted.
    ///
    /// # Panics
    ///
    /// It should not. A panic closes the wheel, and is the `DIE` signal of the wheel's session.
    fn turn(&self, cx: &mut Turn<'_>, readiness: Readiness) -> Next;

    /// Tells whether a forked child keeps the source. One that does forgets here what the parent alone must do, such as output
    /// that waits. The call comes in the child.
    ///
    /// Default: [`AfterFork::Close`].
    fn after_fork(&self) -> AfterFork {
        AfterFork::Close
    }

    /// Says for [`peek`](crate::Context::peek) what the source is at. The text comes behind the name of its type.
    ///
    /// Default: nothing.
    fn describe(&self) -> String {
        String::new()
    }
}

/// What a source answers at the end of its turn. The kernel then asks for what it [wants](Source::wanted).
///
/// POE: nothing like it; a wheel calls `select_read`, `select_write` and `delay` as it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The next turn comes when the poller has news of the descriptor. The poller tells once of what has become ready, so the
    /// source has read or written until `WouldBlock`. A time for which the source waits stays.
    Wait,
    /// The next turn comes in the next slice, whatever the poller says: the source has not seen `WouldBlock`, but others are
    /// to have their turn.
    Again(Readiness),
    /// As [`Wait`](Next::Wait). A turn for reading comes at this time at the latest. It takes the place of an earlier time.
    At(Instant),
    /// The wheel is closed: the kernel takes the descriptor out of the poller, and drops the source.
    Close,
}

/// A source's turn: how it reaches its session.
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

    /// Runs the state `event` of the wheel's session with `args`, and says what has become of it.
    ///
    /// The state may do everything: put into other wheels, call this source through [`Wheel::with`](super::Wheel::with), drop the
    /// wheel, fork. By custom the last argument is the [`id`](Turn::id). After [`Delivery::Over`] nothing is delivered any more,
    /// and the answer of the turn does not count.
    ///
    /// POE: `$poe_kernel->call` with the wheel's session.
    pub fn deliver(&mut self, event: impl Into<Name>, args: impl IntoArgs) -> Delivery {
        self.kernel.deliver(self.wheel, event.into(), args.into_args())
    }

    /// Returns the wheel's id, which [`Wheel::id`](super::Wheel::id) tells the session.
    ///
    /// POE: `ID`.
    pub fn id(&self) -> WheelId {
        self.id
    }

    /// Lends memory to read into, of 64 KiB or more. All sources share it: what it holds is lost at the next
    /// [`deliver`](Turn::deliver).
    ///
    /// POE: nothing like it; `sysread` makes a string.
    pub fn buffer(&mut self) -> &mut [u8] {
        self.kernel.buffer()
    }
}

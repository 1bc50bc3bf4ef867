//! What a source is to the kernel: its name, what it asks of the poller, and how it leaves word.

use std::cell::RefCell;
use std::os::fd::RawFd;
use std::rc::Rc;

use mio::{Interest, Token};

use super::Kernel;

/// Names one source; one that was closed is recognised by its generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SourceKey {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl SourceKey {
    pub(super) fn token(self) -> Token {
        Token((self.generation as usize) << 32 | self.index as usize)
    }

    pub(super) fn from_token(token: Token) -> SourceKey {
        SourceKey { index: token.0 as u32, generation: (token.0 >> 32) as u32 }
    }
}

/// One thing that is watched, and what to do when it is ready.
///
/// Implemented by the state that a wheel shares with the kernel. The descriptor belongs to that state.
pub(crate) trait Source {
    /// Returns the descriptor while it is open.
    fn fd(&self) -> RawFd;

    /// Returns what readiness is wanted at present; `None` for none, as of a paused listener.
    fn wanted(&self) -> Option<Wanted>;

    /// Does one bounded turn of work; what is left over is asked for again by [`Sources::requeue`](super::sources::Sources::requeue).
    fn turn(self: Rc<Self>, kernel: &mut Kernel, key: SourceKey, mode: Mode);

    /// Writes what was put since the last time.
    fn flush(self: Rc<Self>, _kernel: &mut Kernel, _key: SourceKey) {}

    /// Notes that the poller saw the peer close its side: a read that returns less than it could is not the last then.
    fn read_closed(&self) {}

    /// Closes the descriptor. It is not registered any more.
    fn close(&self);

    /// Tells whether a forked child keeps the source; if so, forgets what the parent alone must do.
    fn fork(&self) -> AfterFork;

    /// Says for `peek` what it is and for which event.
    fn describe(&self) -> String;
}

/// What becomes of a source in a forked child.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterFork {
    Keep,
    Close,
}

/// What a handle was ready for: ARG1 of the event of a `select_read` or `select_write`.
///
/// POE: the numbers 0 and 1 there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Reading, an end of file included.
    Read,
    /// Writing.
    Write,
}

/// The readiness that a source asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Read,
    Write,
    Both,
    /// Connections on a listener that other processes may watch as well.
    Accept,
}

impl Wanted {
    pub(crate) fn of(read: bool, write: bool) -> Option<Wanted> {
        match (read, write) {
            (false, false) => None,
            (true, false) => Some(Wanted::Read),
            (false, true) => Some(Wanted::Write),
            (true, true) => Some(Wanted::Both),
        }
    }

    pub(super) fn interest(self) -> Interest {
        match self {
            Wanted::Read | Wanted::Accept => Interest::READABLE,
            Wanted::Write => Interest::WRITABLE,
            Wanted::Both => Interest::READABLE | Interest::WRITABLE,
        }
    }
}

/// Where wheels leave word for the kernel: they are used while the heap that holds them is borrowed.
#[derive(Default)]
pub(crate) struct Mailbox {
    /// Wheels with something put into them.
    pub(super) dirty: RefCell<Vec<SourceKey>>,
    /// Wheels whose handle is gone.
    pub(super) dropped: RefCell<Vec<SourceKey>>,
    /// Wheels that want other readiness than before.
    pub(super) changed: RefCell<Vec<SourceKey>>,
    /// Wheels that have work which no readiness will announce.
    pub(super) woken: RefCell<Vec<SourceKey>>,
}

impl Mailbox {
    pub(crate) fn dirty(&self, key: SourceKey) {
        self.dirty.borrow_mut().push(key);
    }

    pub(crate) fn dropped(&self, key: SourceKey) {
        self.dropped.borrow_mut().push(key);
    }

    pub(crate) fn changed(&self, key: SourceKey) {
        self.changed.borrow_mut().push(key);
    }

    pub(crate) fn woken(&self, key: SourceKey) {
        self.woken.borrow_mut().push(key);
    }
}

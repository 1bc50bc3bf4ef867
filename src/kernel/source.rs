//! What a source is to the kernel: its name, what it asks of the poller, and how it leaves word.

use std::io;
use std::num::NonZeroU8;
use std::os::fd::{OwnedFd, RawFd};

use mio::{Interest, Token};
use nix::errno::Errno;

use super::listeners::Findable;
use super::turn::{Next, Turn};
use crate::sys::accept_queue::AcceptQueue;

/// Names one source of a kernel. The key of a closed source is recognised by its generation, which no other source has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SourceKey(u64);

impl SourceKey {
    /// Returns `None` if one of the two is too large.
    pub(super) fn new(index: usize, generation: u64) -> Option<SourceKey> {
        // Without the largest index no token is `usize::MAX`.
        let fits = index < INDEX_MASK && generation < 1 << (64 - INDEX_BITS);
        fits.then_some(SourceKey(generation << INDEX_BITS | index as u64))
    }

    #[inline]
    pub(super) fn index(self) -> usize {
        self.0 as usize & INDEX_MASK
    }

    #[inline]
    pub(super) fn generation(self) -> u64 {
        self.0 >> INDEX_BITS
    }

    /// Returns the token under which the poller reports the source. On a system with 32 bits it has only the low bits
    /// of the generation. They are enough, as the poller does not report what was closed before the wait.
    pub(super) fn token(self) -> Token {
        Token(self.0 as usize)
    }

    /// Returns the index of the source to which a token belongs.
    pub(super) fn index_of(token: Token) -> usize {
        token.0 & INDEX_MASK
    }
}

/// How many bits of a key are the index; the rest is the generation.
const INDEX_BITS: u32 = 24;
const INDEX_MASK: usize = (1 << INDEX_BITS) - 1;

/// One thing that is watched, and what to do when it is ready.
///
/// Implemented by the state that a wheel shares with the kernel. The descriptor belongs to that state.
pub(crate) trait Source {
    /// Returns the descriptor while it is open.
    fn fd(&self) -> RawFd;

    /// Returns the readiness that the source wants at present. `None` if it wants none, like a paused listener.
    fn wanted(&self) -> Option<Wanted>;

    /// Tells whether the source keeps its owner alive. A source that sends nothing until its owner does something does
    /// not.
    fn keeps_owner(&self) -> bool {
        true
    }

    /// Does one bounded turn of work, and says what is to come next.
    fn turn(&self, cx: &mut Turn<'_>, readiness: Readiness) -> Next;

    /// Writes what was put since the last time, and says what is to come next.
    fn flush(&self, _cx: &mut Turn<'_>) -> Next {
        Next::Wait
    }

    /// Tells the owner of the end, after [`Next::Close`].
    fn closed(&self, _cx: &mut Turn<'_>) {}

    /// Notes that a short read need not be the last: the poller saw the peer close its side, or saw urgent data. A read
    /// ends in front of urgent data, even if there is more behind it.
    fn short_reads(&self) {}

    /// Tells whether it is a listener, paused or not.
    fn is_listener(&self) -> bool {
        false
    }

    /// Returns how another process finds the listener; `None` for a listener that is not passed on.
    fn known_as(&self) -> Option<KnownAs> {
        None
    }

    /// Makes a listener accept nothing, whatever its wheel says, or ends that if `_held` is false.
    fn hold(&self, _held: bool) {}

    /// Asks the system whether a client waits at it now.
    fn has_client(&self) -> bool {
        false
    }

    /// Reads how many clients wait at a listener, or why the system does not tell.
    fn queue(&self) -> nix::Result<AcceptQueue> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Returns another descriptor of a listener that is passed on.
    fn duplicate(&self) -> io::Result<OwnedFd> {
        Err(Errno::EOPNOTSUPP.into())
    }

    /// Closes the descriptor. It is not registered any more.
    fn close(&self);

    /// Tells whether a forked child keeps the source; if so, forgets what the parent alone must do.
    fn fork(&self) -> AfterFork;

    /// Says for `peek` what it is and for which event.
    fn describe(&self) -> String;
}

/// How another process finds a listener that is passed to it. The other process is a successor, to which this process
/// describes the listener, or a program that a service manager starts in place of this one.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownAs {
    pub(crate) name: Option<String>,
    /// The addresses that were asked for.
    pub(crate) asked: Vec<String>,
    /// Its path is removed when it is closed.
    pub(crate) owns_path: bool,
    /// How a program finds it that knows nothing of this process; `None` if it would not.
    pub(crate) findable: Option<Findable>,
}

/// What becomes of a source in a forked child.
///
/// POE: nothing like it; a child keeps every wheel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AfterFork {
    /// The child watches the descriptor as well, with a poller of its own.
    Keep,
    /// The child closes the source before it does anything else.
    Close,
}

/// What a handle was ready for: ARG1 of the event of a `select_read`, `select_write` or `select_expedite`.
///
/// POE: the numbers 0, 1 and 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Readiness {
    /// Reading, an end of file included.
    Read,
    /// Writing.
    Write,
    /// Reading urgent data: the out-of-band byte of a TCP connection. Linux only.
    Expedite,
}

impl Readiness {
    /// All of them, in the order in which the I/O step serves them.
    pub(super) const ALL: [Readiness; 3] = [Readiness::Read, Readiness::Write, Readiness::Expedite];

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The readiness that a source asks for: one kind at least.
///
/// POE: whether `select_read` or `select_write` has an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
// In one byte, as it is compared after each turn.
pub struct Wanted(NonZeroU8);

/// A listener that other processes may watch as well. The bits below it are the kinds of readiness.
const SHARED: u8 = 1 << 3;
/// The poller reports urgent data as well, which `Source::short_reads` tells the reader.
const MINDS_URGENT: u8 = 1 << 4;
/// The source itself does not ask for this. Sessions have asked about it.
const FOR_OTHERS: u8 = 1 << 5;

impl Wanted {
    /// Connections on a listener.
    pub(crate) const ACCEPT: Wanted = Wanted::new(Readiness::Read.bit() | SHARED);

    /// News of connections at a listener at which this process does not accept. It takes no wake-up away from the
    /// processes that accept.
    pub(super) const BACKLOG: Wanted = Wanted::new(Readiness::Read.bit() | FOR_OTHERS);

    /// Reading, an end of file included.
    pub const READ: Wanted = Wanted::new(Readiness::Read.bit());

    /// Writing.
    pub const WRITE: Wanted = Wanted::new(Readiness::Write.bit());

    /// Reading and writing.
    pub const BOTH: Wanted = Wanted::new(Readiness::Read.bit() | Readiness::Write.bit());

    const fn new(bits: u8) -> Wanted {
        Wanted(NonZeroU8::new(bits).expect("something is wanted"))
    }

    /// Returns `None` if nothing is wanted.
    #[inline]
    pub(crate) fn of(read: bool, write: bool, expedite: bool) -> Option<Wanted> {
        NonZeroU8::new(u8::from(read) | (u8::from(write) << 1) | (u8::from(expedite) << 2)).map(Wanted)
    }

    /// Does what [`of`](Wanted::of) does, for a source whose reads may end in front of urgent data.
    #[inline]
    pub(crate) fn of_stream(read: bool, write: bool) -> Option<Wanted> {
        let reading = if read { Readiness::Read.bit() | MINDS_URGENT } else { 0 };
        NonZeroU8::new(reading | (u8::from(write) << 1)).map(Wanted)
    }

    #[inline]
    pub(super) fn has(self, readiness: Readiness) -> bool {
        self.0.get() & readiness.bit() != 0
    }

    pub(super) fn is_shared(self) -> bool {
        self.0.get() & SHARED != 0
    }

    /// Converts it to the poller's type.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` for urgent data where the poller knows none.
    pub(super) fn interest(self) -> io::Result<Interest> {
        let mut interest: Option<Interest> = None;
        let mut add = |more: Interest| interest = Some(interest.map_or(more, |some| some | more));
        if self.has(Readiness::Read) {
            add(Interest::READABLE);
            #[cfg(target_os = "linux")]
            if self.0.get() & MINDS_URGENT != 0 {
                add(Interest::PRIORITY);
            }
        }
        if self.has(Readiness::Write) {
            add(Interest::WRITABLE);
        }
        if self.has(Readiness::Expedite) {
            #[cfg(target_os = "linux")]
            add(Interest::PRIORITY);
            #[cfg(not(target_os = "linux"))]
            return Err(nix::errno::Errno::EOPNOTSUPP.into());
        }
        interest.ok_or_else(|| io::Error::other("nothing to watch for"))
    }
}

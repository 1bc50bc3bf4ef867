//! What a source is to the kernel: its name, what it asks of the poller, and how it leaves word.

use std::io;
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
        Token((self.generation as usize) << INDEX_BITS | self.index as usize)
    }

    pub(super) fn from_token(token: Token) -> SourceKey {
        SourceKey { index: (token.0 & ((1 << INDEX_BITS) - 1)) as u32, generation: (token.0 >> INDEX_BITS) as u32 }
    }

    /// Returns the generation after `generation`. It fits into a token beside an index, and no token is `usize::MAX`.
    pub(super) fn next_generation(generation: u32) -> u32 {
        let most = ((usize::MAX >> INDEX_BITS) >> 1) as u32;
        if generation >= most { 1 } else { generation + 1 }
    }
}

/// How many bits of a token are the index; the rest is the generation. A 32-bit system has room for a million sources, which is
/// as many descriptors as a process may have there.
const INDEX_BITS: u32 = if usize::BITS >= 64 { 32 } else { 20 };

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

    /// Notes that a read that returns less than it could need not be the last: the poller saw the peer close its side, or
    /// urgent data, in front of which a read ends whatever lies behind.
    fn short_reads(&self) {}

    /// Tells whether connections come in by it, paused or not.
    fn is_listener(&self) -> bool {
        false
    }

    /// Asks the system whether a client waits at it now.
    fn has_client(&self) -> bool {
        false
    }

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

/// What a handle was ready for: ARG1 of the event of a `select_read`, `select_write` or `select_expedite`.
///
/// POE: the numbers 0, 1 and 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Reading, an end of file included.
    Read,
    /// Writing.
    Write,
    /// Reading what is urgent: out-of-band data of a TCP connection. Linux only.
    Expedite,
}

impl Mode {
    /// All modes, in the order in which the I/O step serves them.
    pub(super) const ALL: [Mode; 3] = [Mode::Read, Mode::Write, Mode::Expedite];
}

/// The readiness that a source asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// By mode; at least one of them.
    modes: [bool; 3],
    /// A listener that other processes may watch as well.
    pub(super) is_shared: bool,
    /// Whoever reads is told of urgent data as well, by `Source::short_reads`.
    minds_urgent: bool,
    /// Not what the source itself asks for, but what others want to know of it.
    is_for_others: bool,
}

impl Wanted {
    /// Connections on a listener.
    pub(crate) const ACCEPT: Wanted =
        Wanted { modes: [true, false, false], is_shared: true, minds_urgent: false, is_for_others: false };

    /// News of connections at a listener that this process does not accept at. It takes no wake-up away from those who
    /// accept.
    pub(super) const BACKLOG: Wanted =
        Wanted { modes: [true, false, false], is_shared: false, minds_urgent: false, is_for_others: true };

    /// Nothing but the end of connecting.
    pub(crate) const WRITE: Wanted =
        Wanted { modes: [false, true, false], is_shared: false, minds_urgent: false, is_for_others: false };

    /// Returns `None` if nothing is wanted.
    pub(crate) fn of(read: bool, write: bool, expedite: bool) -> Option<Wanted> {
        let modes = [read, write, expedite];
        modes.contains(&true).then_some(Wanted { modes, is_shared: false, minds_urgent: false, is_for_others: false })
    }

    /// The same, for a source whose reads may end in front of urgent data.
    pub(crate) fn of_stream(read: bool, write: bool) -> Option<Wanted> {
        Wanted::of(read, write, false).map(|wanted| Wanted { minds_urgent: read, ..wanted })
    }

    pub(super) fn has(self, mode: Mode) -> bool {
        self.modes[mode as usize]
    }

    /// Says it in the poller's words.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` for urgent data where the poller knows none.
    pub(super) fn interest(self) -> io::Result<Interest> {
        let mut interest: Option<Interest> = None;
        let mut add = |more: Interest| interest = Some(interest.map_or(more, |some| some | more));
        if self.has(Mode::Read) {
            add(Interest::READABLE);
            #[cfg(target_os = "linux")]
            if self.minds_urgent {
                add(Interest::PRIORITY);
            }
        }
        if self.has(Mode::Write) {
            add(Interest::WRITABLE);
        }
        if self.has(Mode::Expedite) {
            #[cfg(target_os = "linux")]
            add(Interest::PRIORITY);
            #[cfg(not(target_os = "linux"))]
            return Err(nix::errno::Errno::EOPNOTSUPP.into());
        }
        interest.ok_or_else(|| io::Error::other("nothing to watch for"))
    }
}

//! Wheels: each does one I/O job for the session that made it, and sends it events.
//!
//! A wheel belongs to the session that was active when it was made. It is a handle: the kernel owns the descriptor, and
//! closes it when the handle is dropped, before the next event is dispatched. A wheel may be dropped inside any of its
//! own events. What a wheel watches keeps its session alive.
//!
//! A wheel is begun by a function that names what it is made on, [`ReadWrite::stream`], [`FollowTail::path`], [`Run::program`],
//! [`SocketFactory::tcp`], [`ListenAccept::listener`], and that returns a builder. The builder's last call says what begins:
//! `start`, or `listen`, `connect` or `bind` for a socket to be made.
//!
//! An error event has one argument: ARG0 = a [`Failure`], which says the operation, the errno, its text, the wheel, and what
//! it is about. The end of the input is one as well ([`is_end_of_input`](Failure::is_end_of_input)). After an error event
//! there is as a rule nothing left to do but to drop the wheel.
//!
//! A record that the filter refuses is another event, the refused event, as the wheel goes on with the next record: ARG0 =
//! the [`FilterError`](crate::filter::FilterError), ARG1 = the [`WheelId`]. A wheel without a refused event logs the first of
//! them. Two failures of a filter are error events all the same, with the operation `"filter"`: a record that was put and
//! can't be sent, and input in which the next record can't be found for certain
//! ([`is_out_of_step`](crate::filter::FilterError::is_out_of_step)).
//!
//! For a job that none of these wheels does, a program has a wheel of its own: [`own`] says how to write one, in a page.
//!
//! POE: `POE::Wheel`.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

mod failure;
mod follow_tail;
mod listen_accept;
pub mod own;
mod put;
mod read_write;
mod refusals;
mod run;
mod socket_factory;
mod stream;

pub use failure::Failure;
pub use follow_tail::{FollowTail, FollowTailBuilder, TailEvent};
pub use listen_accept::{ListenAccept, ListenAcceptBuilder};
pub use put::Put;
pub use read_write::{ReadWrite, ReadWriteBuilder, StreamEvent};
#[cfg(feature = "pty")]
pub use run::Winsize;
pub use run::{Conduit, OnDrop, Redirect, Run, RunBuilder, RunEvent};
pub use socket_factory::{Address, Domain, SocketEvent, SocketFactory, SocketFactoryBuilder};
pub use stream::Transport;

pub(crate) use socket_factory::{Bound, Rota};

/// Identifies a wheel in its events; never used twice in a process.
///
/// POE: a wheel's `ID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WheelId(u64);

impl WheelId {
    fn next() -> WheelId {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        WheelId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Display for WheelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wheel {}", self.0)
    }
}

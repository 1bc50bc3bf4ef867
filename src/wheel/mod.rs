//! Wheels: each does one I/O job for the session that made it, and sends it events.
//!
//! A wheel belongs to the session that makes it. The program holds a handle, and the kernel owns the descriptor. When
//! the program drops the handle, the kernel closes the descriptor before it dispatches the next event. A state may drop
//! a wheel inside any of the wheel's own events. A wheel keeps its session alive as long as it watches something.
//!
//! A function such as [`ReadWrite::stream`], [`FollowTail::path`], [`Run::program`], [`SocketFactory::tcp`] or
//! [`ListenAccept::listener`] takes what the wheel works on, and returns a builder. The builder's last call starts the
//! wheel. It is `start`, or for a new socket `listen`, `connect` or `bind`.
//!
//! An error event has one argument. ARG0 is a [`Failure`], which has the operation, the errno, its text, the wheel's
//! id, and the path or address in question. The end of the input is an error event as well: see
//! [`is_end_of_input`](Failure::is_end_of_input). After an error event, a session usually drops the wheel.
//!
//! When the filter refuses a record, the wheel sends its refused event and goes on with the next record. ARG0 is the
//! [`FilterError`](crate::filter::FilterError), ARG1 the [`WheelId`]. A wheel without a refused event logs the first
//! refused record. Two failures of a filter are error events instead, with the operation `"filter"`:
//!
//! - The output filter can't encode a record that the session has put.
//! - The input filter can't tell where the next record begins
//!   ([`is_out_of_step`](crate::filter::FilterError::is_out_of_step)).
//!
//! For any other job, a program can write its own wheel. [`own`] says how, on one page.
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

pub(crate) use socket_factory::{Bound, Rota, clash};

/// Identifies a wheel in its events. A process never uses an id twice.
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

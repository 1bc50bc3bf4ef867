//! POE's kernel, in Rust.
#![warn(missing_docs)]
#![deny(unsafe_code)]
#![warn(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

mod args;
mod error;
pub mod filter;
mod kernel;
mod name;
mod reply;
mod session;
mod sys;

pub use args::{ArgError, Args, Found, IntoArgs};
pub use error::{Died, Error, Exception, Result};
pub use kernel::{
    AlarmId, ChildChange, Context, Core, Dest, EventKind, Handle, Kernel, Mode, PeekedEvent, PeekedSession,
    PeekedSource, Reason, RemovedAlarm, SessionId, Shift, Snapshot,
};
pub use name::Name;
pub use reply::{IntoReturn, Reply, Return};
pub use session::Session;

//! POE's kernel, in Rust.
#![deny(unsafe_code)]

mod args;
pub mod daemon;
mod error;
pub mod filter;
mod kernel;
mod name;
mod reply;
mod session;
mod sys;
pub mod wheel;

pub use args::{ArgError, Args, Found, IntoArgs};
pub use daemon::Daemon;
pub use error::{Died, Error, Exception, Result};
#[cfg(feature = "fork-hooks")]
pub use kernel::ForkStage;
pub use kernel::{
    AlarmId, ChildChange, Context, Core, Dest, EventKind, Handle, Kernel, Mode, PeekedEvent, PeekedSession,
    PeekedSource, Reason, RemovedAlarm, SessionId, Shift, Snapshot,
};
pub use name::Name;
pub use reply::{IntoReturn, Reply, Return};
pub use session::Session;

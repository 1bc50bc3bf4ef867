//! The Daemon session: everything a forking or pre-forking server needs but its service.
pub(crate) mod builder;
mod child;
mod doorbell;
mod error;
pub(crate) mod policy;
mod pool;
pub(crate) mod scoreboard;
mod session;
pub(crate) mod settings;
mod shutdown;
mod status;

pub use builder::{Daemon, DaemonBuilder};
pub use error::DaemonError;
pub use scoreboard::{BoardError, PeerLabel, Report, Status, UnknownStatus};
pub use settings::{Mode, SettingsError};
pub use status::{ChildStatus, DaemonStatus, Peek};

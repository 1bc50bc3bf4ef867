//! The Daemon session: everything a forking or pre-forking server needs but its service.
//!
//! The application listens, accepts and serves; the Daemon forks, counts, retires, reaps and shuts down. The two talk by
//! signals of the kernel (watched with [`Context::sig`](crate::Context::sig)) and by [`Daemon::update_status`].
//!
//! There are three kinds of servers, each below with what happens in which order and a complete program:
//!
//! - [Pre-forking](#pre-forking): a pool of children waits for requests. For many short requests.
//! - [Post-forking](#post-forking): a child is forked for each request. For few or long ones, and for the strictest
//!   separation between them.
//! - [Non-forking](#non-forking): one process that is a well-behaved daemon.
//!
//! Then: [how a program becomes a daemon](#becoming-a-daemon), what each [signal](#signals) means, all
//! [settings](#settings), [how to look inside](#dump-of-a-running-server), how an operator sees and steers a server while
//! [it runs](#running-it), how its [configuration is changed](#changing-it-while-it-runs) meanwhile, and why [a child's memory is its own](crate::guide::memory).
//!
//! A server of connections need not do any of it by hand: [`component::Server`](crate::component::Server) says all this to
//! the Daemon by itself.
//!
//! POE: `POE::Component::Daemon`.
#![doc = include_str!("guide.md")]
#![cfg_attr(feature = "control", doc = include_str!("running.md"))]
#![doc = include_str!("changing.md")]

mod announce;
mod birth;
pub(crate) mod board;
pub(crate) mod builder;
mod bystander;
mod cause;
mod child;
mod config;
#[cfg(feature = "control")]
mod control;
mod ending;
mod error;
mod foreign;
mod handle;
mod heap;
#[cfg(test)]
mod house;
mod launch;
mod listening;
pub(crate) mod machine;
#[cfg(feature = "control")]
pub mod metrics;
mod notify;
mod parent;
mod processes;
mod reports;
mod session;
pub(crate) mod settings;
mod status;
#[cfg(feature = "control")]
pub mod view;

pub use board::{BoardError, PeerLabel, Report, Status, UnknownStatus};
#[cfg(feature = "control")]
pub use board::{BoardFile, BoardFileError, ParentState};
pub use builder::DaemonBuilder;
pub use config::PoolSettings;
#[cfg(feature = "control")]
pub use control::{Rights, Who};
pub use error::DaemonError;
pub use handle::Daemon;
pub use launch::Privileges;
pub use machine::{Backlog, Cause, Deaths, Reckoning, Rogue, Shutdown};
pub use settings::{Forking, SettingsError};
pub use status::{ChildStatus, DaemonStatus, Peek};

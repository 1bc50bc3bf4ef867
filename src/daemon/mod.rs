//! The Daemon session: it forks, counts, replaces, reaps and shuts down the processes of a server.
//!
//! A server of connections needs none of this by hand. [`component::Server`](crate::component::Server) talks to the Daemon by itself.
//! This page is for other servers, and for what a `Server` is made of.
//!
//! Your program listens, accepts and serves. The Daemon tells it what to do by signals of the kernel, which a session watches with
//! [`Context::sig`](crate::Context::sig). Your program tells the Daemon what it does by [`Daemon::update_status`].
//!
//! | kind of server | what it does | use it for |
//! | --- | --- | --- |
//! | [pre-forking](#pre-forking) | a pool of children waits for requests | many short requests |
//! | [post-forking](#post-forking) | a child is forked for each request | few or long requests, and the strictest separation |
//! | [non-forking](#non-forking) | one process, which is a well-behaved daemon | state that all clients share |
//!
//! | you want to | read |
//! | --- | --- |
//! | leave the terminal, or run under systemd or in a container | [becoming a daemon](#becoming-a-daemon) |
//! | know what a signal does | [signals](#signals) |
//! | know why and when a child ends | [the end of a child](#the-end-of-a-child) |
//! | choose a setting | [all settings](#all-settings) |
//! | see and steer a server while it runs | [running it](#running-it), with the feature `control` |
//! | change its configuration or its program | [changing it while it runs](#changing-it-while-it-runs) |
//! | know what a child shares with its parent | [memory](crate::guide::memory) |
//!
//! POE: `POE::Component::Daemon`.
#![doc = include_str!("../guide/daemon/pre_forking.md")]
#![doc = include_str!("../guide/daemon/pre_forking.svg")]
#![doc = ""]
#![doc = include_str!("../guide/daemon/pre_forking_program.md")]
#![doc = include_str!("../guide/daemon/post_forking.md")]
#![doc = include_str!("../guide/daemon/post_forking.svg")]
#![doc = ""]
#![doc = include_str!("../guide/daemon/post_forking_program.md")]
#![doc = include_str!("../guide/daemon/non_forking.md")]
#![doc = include_str!("../guide/daemon/non_forking.svg")]
#![doc = ""]
#![doc = include_str!("../guide/daemon/non_forking_program.md")]
#![doc = include_str!("../guide/daemon/becoming_a_daemon.md")]
#![doc = include_str!("../guide/daemon/signals.md")]
#![doc = include_str!("../guide/daemon/the_end_of_a_child.md")]
#![doc = include_str!("../guide/daemon/settings.md")]
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

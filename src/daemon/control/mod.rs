//! The control socket: who may ask what of a running Daemon, how it is asked, and how the answer looks.
//!
//! Nothing here acts. The parent's session takes the commands out of a [`Control`], carries them out, and puts the answers in.

mod client;
mod command;
mod denials;
mod dialect;
mod orders;
mod pace;
mod places;
mod quoted;
mod rights;
mod server;
mod socket;
mod state_file;
mod supervisor;

pub use rights::{Rights, Who};

pub(in crate::daemon) use client::{Client, Watching};
pub(in crate::daemon) use command::{ChildName, Command, HELP, Request};
pub(in crate::daemon) use dialect::{Code, Dialect, Outcome, Refusal, Reply};
pub(in crate::daemon) use orders::{Asker, Ended, Orders, Subject, outcome_line, read_outcome};
#[cfg(feature = "status")]
pub(in crate::daemon) use places::places;
pub(in crate::daemon) use quoted::Quoted;
pub(in crate::daemon) use rights::{Policy, own_uid};
pub(in crate::daemon) use server::{Accepted, Control};
pub(in crate::daemon) use socket::{Access, Place, Socket, temporary_of};
pub(in crate::daemon) use state_file::{StateFile, may_write, paths_of};
pub(in crate::daemon) use supervisor::supervisor;

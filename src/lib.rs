//! POE's kernel and pre-forking Daemon, in Rust.
//!
//! A **session** is a heap of any type and a table of named **states**. The **kernel** runs a state when its session gets
//! an **event** of that name: posted by a session, set as an alarm, sent by a wheel that has read a record, or a signal. One
//! process, one thread, no `async`.
//!
//! A **[`Daemon`]** is a session that makes a server of the program: it forks a pool of children before the
//! requests come, or one for each request, watches over them, and shuts them down.
//!
//! ```
//! use std::time::Duration;
//! use lenore::{Kernel, Session};
//!
//! # fn main() -> Result<(), lenore::Error> {
//! let mut kernel = Kernel::new()?;
//! Session::new(0)
//!     .state("_start", |cx| {
//!         cx.alias_set("ticker")?;
//!         cx.yield_("tick", ());
//!         Ok(())
//!     })
//!     .state("tick", |cx| {
//!         *cx.heap() += 1;
//!         if *cx.heap() < 3 {
//!             cx.delay("tick", Duration::from_millis(1), ());
//!         }
//!     })
//!     .state("_stop", |cx| assert_eq!(*cx.heap(), 3))
//!     .spawn(&mut kernel)?;
//! kernel.run()
//! # }
//! ```
//!
//! # Where to find what
//!
//! | POE | here |
//! | --- | --- |
//! | `POE::Session->create` | [`Session`] |
//! | `@_[KERNEL, HEAP, SENDER, STATE, ARG0..]` | [`Context`] |
//! | `$poe_kernel->yield`, `delay`, `sig`, `alias_set`, ... | [`Context`], and [`Calls`] beside a borrowed heap |
//! | `$poe_kernel->post`, `call`, `signal`, ... | [`Context`] and [`Kernel`]; [`AsKernel`] for either |
//! | `run`, `stop`, `has_forked` | [`Kernel`] |
//! | `POE::Wheel::*` | [`wheel`] |
//! | `POE::NFA` | [`nfa`] |
//! | `POE::Filter::*` | [`filter`] |
//! | `POE::Component::Server::TCP`, `POE::Component::Client::TCP`, `POE::Component::Resolver` | [`component`] |
//! | `POE::Component::Daemon` | [`daemon`] |
//! | `die` in a handler | an `Err` or a panic; [`Exception`] |
//!
//! [`porting`] is the guide for those who come from POE. [`guide`] has pages on what programs often need, such as [a job beside the
//! server](guide::background).
//!
//! # Logging
//!
//! The library never prints (a state that panics prints through Rust's panic hook). It logs through the [`log`] crate with a target for each subsystem, which play the part of
//! POE's `TRACE_*` switches: `lenore::events`, `lenore::sessions`, `lenore::signals`, `lenore::children`,
//! `lenore::sources`, `lenore::wheels`, `lenore::fork`, `lenore::exceptions`, `lenore::daemon`, `lenore::component`,
//! `lenore::http`, `lenore::access`.
//!
//! **Without a logger nothing of it is seen**: neither that a server of POE's kind could not listen, nor why a child has died.
//! A program begins by installing one. The module `logging`, with the feature of that name, has one for programs with several
//! processes, which the examples use; any other logger for the `log` crate will do. When something does not happen that should,
//! [look here](guide::nothing_happens).
//!
//! # Testing
//!
//! The module `testing`, with the feature of that name, has a kernel whose clock a test moves, streams that it writes and reads, and a
//! runner for tests that fork. A session of timeouts and retries is tested in 30 lines, and without waiting.
#![deny(unsafe_code)]

#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
compile_error!("lenore runs on Linux; it compiles for FreeBSD. Other systems lack what the Daemon needs of them.");

mod args;
mod calls;
pub mod component;
pub mod daemon;
mod destroy;
mod environment;
mod error;
pub mod filter;
pub mod guide;
mod handover;
#[cfg(any(feature = "control", feature = "logging", feature = "service"))]
mod harmful;
mod inherited;
mod inject;
mod kernel;
#[cfg(feature = "control")]
mod log_level;
#[cfg(feature = "logging")]
pub mod logging;
mod name;
pub mod nfa;
mod outage;
pub mod porting;
mod reply;
#[cfg(any(feature = "control", feature = "logging"))]
mod rfc3339;
mod session;
mod shown;
mod states;
mod sys;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(feature = "tls")]
pub mod tls;
pub mod wheel;

pub use args::{ArgError, Args, Found, IntoArgs};
pub use daemon::Daemon;
pub use error::{Died, Error, Exception, Result};
#[cfg(feature = "fork-hooks")]
pub use kernel::ForkStage;
pub use kernel::{
    AlarmId, AsKernel, Callback, Calls, ChildChange, Context, Dest, EventKind, Exceptions, Handle, InState, Kernel,
    PeekedEvent, PeekedSession, PeekedSource, Postback, Readiness, Reason, RemovedAlarm, SessionId, SessionOption,
    Shift, Snapshot, Switch, UnknownOption,
};
pub use name::{EventOrNone, Name};
pub use reply::{IntoReturn, Reply, ReplyValue, Return};
pub use session::Session;

/// The README's example, so that it compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

//! Unix servers that handle requests in child processes, with one thread per process and without `async`.
//!
//! | you want to | begin with |
//! | --- | --- |
//! | serve clients over TCP or UNIX sockets | [`component::Server`], which runs one handler in one process, in many, or in a pool |
//! | serve HTTP | `component::http`, with the feature `service` |
//! | manage child processes by hand, or become a daemon | [`daemon`] |
//! | run programs, follow files, connect, listen | [`wheel`], with records cut by a [`filter`] |
//! | do a job beside the server, deploy it, find out why nothing happens | [`guide`] |
//! | port a POE program | [`porting`] |
//!
//! Everything here is built from two things: sessions and the kernel. A **session** has a heap, which is private data
//! of any type, and a table of named **states**, which are its handlers. The **kernel** is the event loop. It runs a
//! state when the session gets an **event** of that name. A session posts an event, an alarm sends one when it is due,
//! a wheel sends one for each record that it reads, and a signal becomes an event for each session that watches it.
//!
//! ```
//! use std::time::Duration;
//! use lenore::{Kernel, Session};
//!
//! # fn main() -> Result<(), lenore::Error> {
//! let mut kernel = Kernel::new()?;
//! Session::new(0)
//!     .state("_start", |cx| cx.yield_("tick", ()))
//!     .state("tick", |cx| {
//!         *cx.heap() += 1;
//!         if *cx.heap() < 3 {
//!             cx.delay("tick", Duration::from_millis(1), ());
//!         }
//!     })
//!     .state("_stop", |cx| assert_eq!(*cx.heap(), 3)) // nothing keeps the session any more
//!     .spawn(&mut kernel)?;
//! kernel.run()
//! # }
//! ```
//!
//! A **[`Daemon`]** is a session that turns the program into a server. It forks a pool of children before clients
//! connect, or one child for each request. It watches the children, replaces those that die, and shuts them down.
//!
//! # Features
//!
//! None is on by default.
//!
//! | feature | what it adds |
//! | --- | --- |
//! | `control` | a control socket for operators, the scoreboard as a file, the status as JSON, the application's own metrics |
//! | `ctl` | the command `lenorectl`: `cargo install lenore --features ctl` |
//! | `fork-hooks` | for tests of programs: a test can step in at each stage of a fork |
//! | `http` | `filter::Httpd`: requests and responses of HTTP/1.1 |
//! | `inotify` | on Linux, the system tells [`wheel::FollowTail`] when a file changes |
//! | `logging` | `lenore::logging`: a logger whose lines stay whole among several processes, as text, JSON or for the journal |
//! | `pty` | pseudo-terminals for [`wheel::Run`] |
//! | `serde` | `filter::Frame`: values of any type that serde knows |
//! | `service` | `component::http`: routes, JSON, forms, answers sent later, streams and files |
//! | `status` | a page, metrics for Prometheus, and probes over HTTP |
//! | `testing` | `lenore::testing`, for tests of programs: a clock that the test moves, streams, signals, tests that fork |
//! | `tls` | `lenore::tls`: TLS by rustls, for streams, servers and clients |
//!
//! # Logging
//!
//! **Install a logger first.** Without one you see neither why a child died nor that a server could not listen. The
//! module `logging` (feature `logging`) has a logger for programs with several processes. Any other logger for the
//! [`log`] crate works too.
//!
//! The crate never prints. It logs under one target for each subsystem: `lenore::daemon`, `lenore::component`, `lenore::http`,
//! `lenore::access`, `lenore::audit`, `lenore::events`, `lenore::sessions`, `lenore::signals`, `lenore::children`, `lenore::sources`,
//! `lenore::wheels`, `lenore::fork`, `lenore::exceptions`, `lenore::refcounts`. [`guide::log_lines`] lists the lines that an operator may
//! want to search for. If something that should happen does not, read [`guide::nothing_happens`].
//!
//! # Testing
//!
//! The module `testing` (feature `testing`) has a kernel whose clock a test moves, streams that the test writes and
//! reads, and a runner for tests that fork. Timeouts and retries can be tested in 30 lines, without waiting for any of
//! them.
//!
//! # Coming from POE
//!
//! | POE | here |
//! | --- | --- |
//! | `POE::Session->create` | [`Session`] |
//! | `@_[KERNEL, HEAP, SENDER, STATE, ARG0..]` | [`Context`] |
//! | `$poe_kernel->yield`, `delay`, `sig`, `alias_set`, ... | [`Context`], and [`Calls`] beside a borrowed heap |
//! | `$poe_kernel->post`, `call`, `signal`, ... | [`Context`] and [`Kernel`]; [`AsKernel`] for either |
//! | `run`, `stop`, `has_forked` | [`Kernel`] |
//! | `POE::Wheel::*`, `POE::Filter::*`, `POE::NFA` | [`wheel`], [`filter`], [`nfa`] |
//! | `POE::Component::Server::TCP`, `POE::Component::Client::TCP`, `POE::Component::Resolver` | [`component`] |
//! | `POE::Component::Daemon` | [`daemon`] |
//! | `die` in a handler | an `Err` or a panic; [`Exception`] |
#![cfg_attr(docsrs, feature(doc_cfg))]
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

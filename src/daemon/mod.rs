//! The Daemon session: everything a forking or pre-forking server needs but its service.
//!
//! The application listens, accepts and serves; the Daemon forks, counts, retires, reaps and shuts down. The two talk by
//! signals of the kernel (watched with [`Core::sig`](crate::Core::sig)) and by [`Daemon::update_status`].
//!
//! # Pre-forking
//!
//! [`start_children`](DaemonBuilder::start_children) makes it so. Children are forked before the requests come, and
//! each serves many, one after the other.
//!
//! ```text
//! parent       Daemon: daemon_start, forks start_children, daemon_parent
//! each child   Daemon: daemon_child       application: sets itself up, update_status(Wait)
//!              Daemon: daemon_accept      application: resumes its listener
//!                                         a connection: pauses the listener, update_status(Req)
//!                                         ... serves it ...  update_status(Done)
//!              Daemon: daemon_accept, or daemon_shutdown once the child has had its share of requests
//! ```
//!
//! The children that wait are kept between `min_spare` and `max_spare`. A child rings the parent when their number
//! leaves these bounds; there is no polling, and no wake-up of the parent for each request. A child too many finishes the
//! request that it may have by the time it hears of it.
//!
//! # Post-forking
//!
//! [`max_children`](DaemonBuilder::max_children) alone makes it so. A child is forked for each request.
//!
//! ```text
//! parent       a connection: update_status_with(Req, socket); its copy of the socket is closed after the fork
//! child        Daemon: daemon_child with the socket as ARG1      application: serves it, update_status(Done)
//!              Daemon: daemon_shutdown; the child ends
//! parent       Daemon: daemon_pause as soon as there are max_children, daemon_accept when there are fewer
//! ```
//!
//! Requests that come in between wait in order, and are forked for as children end.
//!
//! # Non-forking
//!
//! With neither, the Daemon looks after signals, `status` and `peek` of a single process.
//!
//! # Becoming a daemon
//!
//! A program may leave its terminal, log to a file, be found by a pid file, and give up root on its way; each of
//! it is a setting of [`DaemonBuilder`], and all of it happens in [`spawn`](DaemonBuilder::spawn). What only root may open
//! is opened before: the usual application listens in its `_start` and spawns the Daemon after that.
//!
//! ```no_run
//! use lenore::wheel::SocketFactory;
//! use lenore::{Daemon, Kernel, Session};
//!
//! # fn main() -> Result<(), lenore::Error> {
//! let mut kernel = Kernel::new()?;
//! Session::new(None)
//!     .state("_start", |cx| {
//!         let listener = SocketFactory::tcp("0.0.0.0:80").on_accept("accept").listen(cx)?;
//!         listener.pause_accept();
//!         *cx.heap() = Some(listener);
//!         Daemon::builder()
//!             .start_children(10)
//!             .detach(true)
//!             .logfile("/var/log/exampled.log")
//!             .pid_file("/run/exampled.pid")
//!             .user("www-data")
//!             .spawn(cx)?;
//!         Ok(())
//!     })
//!     .spawn(&mut kernel)?;
//! kernel.run()
//! # }
//! ```
//!
//! With `detach` the call returns in another process, and there alone; the kernel, with its sessions, streams and alarms, has
//! moved there. Child processes that the program had before can't move, which the log says. The process that was
//! started waits until the daemon is ready, so that its exit status tells whether there is one.
//!
//! A `log` logger that writes to standard error needs nothing else to write to the log file, and nothing to be done on HUP.
//!
//! # Signals
//!
//! `daemon_start`, `daemon_parent`, `daemon_HUP`, and `daemon_child` and `daemon_accept` when pre-forking, are posted.
//! `daemon_pause`, `daemon_shutdown`, and `daemon_child` and `daemon_accept` when post-forking, are dispatched at once.
//!
//! | from outside | effect |
//! | --- | --- |
//! | TERM, INT | shutdown of the process that gets it, with all its children |
//! | QUIT | the same after the requests in hand |
//! | HUP | `daemon_HUP`, and the log file is reopened, in the parent and then in all children |
//!
//! # Dump of a running server
//!
//! ```text
//! cx.sig("USR2", "peek");
//! .state("peek", |cx| { let daemon = cx.heap().daemon; log::info!("{}", daemon.peek(cx, true)?); Ok(()) })
//! ```
//!
//! Then `kill -USR2 PID` shows every session and why it stays alive, what is watched, and the scoreboard.
//!
//! POE: `POE::Component::Daemon`.

mod babysit;
pub(crate) mod builder;
mod child;
mod deaths;
mod doorbell;
mod error;
mod handle;
mod hang_up;
pub(crate) mod policy;
mod pool;
mod process;
mod ready;
mod resize;
pub(crate) mod scoreboard;
mod session;
pub(crate) mod settings;
mod shutdown;
mod status;

pub use builder::DaemonBuilder;
pub use deaths::{Cause, Deaths};
pub use error::DaemonError;
pub use handle::Daemon;
pub use policy::Rogue;
pub use process::Privileges;
pub use scoreboard::{BoardError, PeerLabel, Report, Status, UnknownStatus};
pub use settings::{Mode, SettingsError};
pub use status::{ChildStatus, DaemonStatus, Peek};

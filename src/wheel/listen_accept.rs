//! `ListenAccept`: accepts connections on a socket that listens already.

use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use nix::sys::socket::{AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt};

use super::socket_factory::listening::{ACCEPTS_PER_TURN, Accepted, Acceptor, Listener, Manner};
use super::socket_factory::report::Report;
use super::{SocketEvent, WheelId};
use crate::error::Error;
use crate::kernel::{InState, core_of, set_nonblocking};
use crate::name::Name;

/// A wheel that accepts connections on a socket that listens already. The program has made the socket itself, or got it
/// from another process. For sockets that systemd passes at the start, use
/// [`SocketFactory`](super::SocketFactory#sockets-that-were-inherited).
///
/// The accept event gets ARG0 = the socket, which does not block, ARG1 = the peer's address, ARG2 = the [`WheelId`].
/// Socket and address are a [`TcpStream`](std::net::TcpStream) and a [`std::net::SocketAddr`], or a
/// [`UnixStream`](std::os::unix::net::UnixStream) and a [`std::os::unix::net::SocketAddr`]. The state that takes the
/// socket owns it. If no state takes it, it is closed.
///
/// A forked child keeps the listener, and both processes accept from one backlog.
///
/// ```
/// use std::net::{SocketAddr, TcpListener, TcpStream};
/// use lenore::{Kernel, Session};
/// use lenore::wheel::ListenAccept;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let client = TcpStream::connect(listener.local_addr()?)?;
/// let mut kernel = Kernel::new()?;
/// Session::new(None)
///     .args((listener,))
///     .state("_start", |cx| {
///         let listener: TcpListener = cx.take(0)?;
///         *cx.heap() = Some(ListenAccept::listener(listener).on_accept("accept").on_error("failed").start(cx)?);
///         Ok(())
///     })
///     .state("accept", move |cx| {
///         let (_socket, peer): (TcpStream, SocketAddr) = (cx.take(0)?, cx.take(1)?);
///         assert_eq!(peer, client.local_addr()?);
///         *cx.heap() = None;
///         Ok(())
///     })
///     .spawn(&mut kernel)?;
/// kernel.run()?;
/// # Ok(())
/// # }
/// ```
///
/// POE: `POE::Wheel::ListenAccept`.
#[must_use = "a wheel that is dropped is closed: keep it in the heap"]
pub struct ListenAccept {
    report: Rc<Report>,
    acceptor: Rc<Acceptor>,
}

/// Sets how a [`ListenAccept`] works. [`ListenAccept::listener`] makes one.
#[must_use = "does nothing until it is started"]
#[derive(Debug)]
pub struct ListenAcceptBuilder {
    listener: OwnedFd,
    on_accept: Option<Name>,
    on_error: Option<Name>,
}

impl ListenAccept {
    /// Returns the builder of a wheel that takes over a listener: a [`TcpListener`](std::net::TcpListener), a
    /// [`UnixListener`](std::os::unix::net::UnixListener), or the descriptor of one.
    ///
    /// POE: `Handle`.
    #[doc(alias = "Handle")]
    pub fn listener(listener: impl Into<OwnedFd>) -> ListenAcceptBuilder {
        ListenAcceptBuilder { listener: listener.into(), on_accept: None, on_error: None }
    }

    /// Returns the id that the wheel's events carry.
    ///
    /// POE: `ID`.
    #[doc(alias = "ID")]
    pub fn id(&self) -> WheelId {
        self.report.id
    }

    /// Stops accepting until [`resume_accept`](ListenAccept::resume_accept). Clients wait in the backlog. Another
    /// process that listens on the same socket may accept them.
    ///
    /// POE: only `SocketFactory` has it.
    pub fn pause_accept(&self) {
        self.acceptor.set_paused(true);
    }

    /// Accepts connections again after [`pause_accept`](ListenAccept::pause_accept).
    ///
    /// POE: only `SocketFactory` has it.
    pub fn resume_accept(&self) {
        self.acceptor.set_paused(false);
    }

    /// Changes the name of one of the wheel's events, from the next event on.
    ///
    /// POE: `event`.
    pub fn event(&self, event: SocketEvent, name: impl Into<Name>) {
        self.report.set_event(event, name.into());
    }
}

impl Drop for ListenAccept {
    fn drop(&mut self) {
        self.acceptor.let_go();
    }
}

impl fmt::Debug for ListenAccept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ListenAccept({})", self.id())
    }
}

impl ListenAcceptBuilder {
    /// Names the event for each connection. Required.
    ///
    /// POE: `AcceptEvent`.
    #[doc(alias = "AcceptEvent")]
    pub fn on_accept(mut self, event: impl Into<Name>) -> Self {
        self.on_accept = Some(event.into());
        self
    }

    /// Names the event for failures to accept. Their operation is `"accept"`. Without it failures are logged.
    ///
    /// When the process runs out of file descriptors, clients wait in the backlog. The listener tries again ten times a
    /// second, and sends the event each time. Without the event, it logs one line when this begins, and one when it
    /// accepts again.
    ///
    /// POE: `ErrorEvent`.
    #[doc(alias = "ErrorEvent")]
    pub fn on_error(mut self, event: impl Into<Name>) -> Self {
        self.on_error = Some(event.into());
        self
    }

    /// Makes the listener non-blocking and starts to accept, for the running session.
    ///
    /// # Errors
    ///
    /// After an error the descriptor is closed.
    ///
    /// - [`Error::InvalidSetting`] without an accept event, and for a descriptor that is not a listening TCP or UNIX
    ///   stream socket
    /// - [`Error::Os`] if the descriptor is not a socket, or can't be watched
    /// - [`Error::NoActiveSession`] once the session has stopped
    ///
    /// POE: `new`.
    pub fn start(self, cx: &mut impl InState) -> Result<ListenAccept, Error> {
        let core = core_of(cx);
        let owner = core.running()?;
        let Some(on_accept) = self.on_accept else { return Err(invalid("on_accept", "is required")) };
        let listener = check(self.listener)?;
        let report = Rc::new(Report {
            id: WheelId::next(),
            owner,
            wheel: Name::new(WHEEL),
            on_success: on_accept.into(),
            on_error: self.on_error.into(),
        });
        let manner = Manner {
            args: Accepted::into_args,
            accepts_per_turn: ACCEPTS_PER_TURN,
            reports_aborted: true,
            logs_shortages: false,
            rota: None,
        };
        let acceptor = Acceptor::start(core, Rc::clone(&report), manner, listener.into(), None)?;
        Ok(ListenAccept { report, acceptor })
    }
}

/// Takes over a descriptor if it listens.
pub(super) fn check(fd: OwnedFd) -> Result<Listener, Error> {
    let what = format!("descriptor {}", fd.as_raw_fd());
    let fail = |call, errno: nix::Error| Error::os(call, &what, errno);
    let listens = getsockopt(&fd, sockopt::AcceptConn).map_err(|errno| fail("getsockopt", errno))?;
    if !listens {
        return Err(invalid("listener", "the socket does not listen"));
    }
    let kind = getsockopt(&fd, sockopt::SockType).map_err(|errno| fail("getsockopt", errno))?;
    let address: SockaddrStorage = getsockname(fd.as_raw_fd()).map_err(|errno| fail("getsockname", errno))?;
    set_nonblocking(&fd).map_err(|error| Error::os("fcntl", &what, error))?;
    match (kind, address.family()) {
        (SockType::Stream, Some(AddressFamily::Inet | AddressFamily::Inet6)) => Ok(Listener::tcp(fd.into())),
        (SockType::Stream, Some(AddressFamily::Unix)) => Ok(Listener::unix(fd.into())),
        _ => Err(invalid("listener", "it is neither a TCP socket nor a UNIX stream socket")),
    }
}

fn invalid(setting: &'static str, reason: &'static str) -> Error {
    Error::InvalidSetting { setting, reason }
}

const WHEEL: &str = "ListenAccept";

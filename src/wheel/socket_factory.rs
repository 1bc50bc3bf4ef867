//! `SocketFactory`: makes sockets, by accepting or by connecting.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::{WheelId, error_args};
use crate::args::IntoArgs;
use crate::error::Error;
use crate::kernel::{AfterFork, Core, Kernel, Kind, Mailbox, Mode, SessionId, Source, SourceKey, Wanted};
use crate::name::Name;

/// A wheel that makes sockets: it listens and accepts connections, or connects.
///
/// The accept and connect events get ARG0 = the socket ([`TcpStream`], non-blocking), ARG1 = the peer's
/// [`IpAddr`](std::net::IpAddr), ARG2 = its port (`u16`), ARG3 = the [`WheelId`]. The socket belongs to whoever takes it, usually for a
/// [`ReadWrite`](super::ReadWrite); one that nobody takes is closed.
///
/// ```
/// use std::net::TcpStream;
/// use lenore::{Kernel, Session};
/// use lenore::wheel::SocketFactory;
///
/// # fn main() -> Result<(), lenore::Error> {
/// let mut kernel = Kernel::new()?;
/// Session::new(Vec::<SocketFactory>::new())
///     .state("_start", |cx| {
///         let listener = SocketFactory::tcp("127.0.0.1:0").on_accept("accept").on_error("failed").listen(cx)?;
///         let client = SocketFactory::tcp(listener.local_addr()?.to_string()).on_connect("connected").connect(cx)?;
///         cx.heap().extend([listener, client]);
///         Ok(())
///     })
///     .state("connected", |_| ())
///     .state("accept", |cx| {
///         let _socket: TcpStream = cx.take(0)?;
///         cx.heap().clear();
///         Ok(())
///     })
///     .spawn(&mut kernel)?;
/// kernel.run()
/// # }
/// ```
///
/// POE: `POE::Wheel::SocketFactory`.
pub struct SocketFactory(Rc<State>);

/// Says what a [`SocketFactory`] is to do; made by [`SocketFactory::tcp`].
#[must_use = "does nothing until it is told to listen or to connect"]
pub struct SocketFactoryBuilder {
    address: String,
    on_success: Option<Name>,
    on_error: Option<Name>,
}

impl SocketFactory {
    /// Begins a wheel for TCP. `address` is `host:port`, with port 0 for any free one to listen on; a host name is
    /// looked up, which blocks.
    pub fn tcp(address: impl Into<String>) -> SocketFactoryBuilder {
        SocketFactoryBuilder { address: address.into(), on_success: None, on_error: None }
    }

    /// Returns the id that its events carry.
    ///
    /// POE: `ID`.
    pub fn id(&self) -> WheelId {
        self.0.id
    }

    /// Returns the address that a listener is bound to.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] when the wheel does not listen, or not any more.
    ///
    /// POE: `getsockname`.
    #[doc(alias = "getsockname")]
    pub fn local_addr(&self) -> Result<SocketAddr, Error> {
        let address = match &*self.0.socket.borrow() {
            Socket::Listening(listener) => listener.local_addr(),
            _ => Err(ErrorKind::NotConnected.into()),
        };
        address.map_err(|error| Error::os("getsockname", self.0.id, error))
    }

    /// Stops accepting until [`resume_accept`](SocketFactory::resume_accept); clients wait in the backlog, where
    /// another process that listens on the same socket may accept them.
    ///
    /// POE: `pause_accept`.
    pub fn pause_accept(&self) {
        self.set_paused(true);
    }

    /// Accepts connections again.
    ///
    /// POE: `resume_accept`.
    pub fn resume_accept(&self) {
        self.set_paused(false);
    }

    fn set_paused(&self, paused: bool) {
        if self.0.paused.replace(paused) != paused {
            self.0.changed();
        }
    }
}

impl Drop for SocketFactory {
    fn drop(&mut self) {
        if self.0.open.replace(false) {
            self.0.key.get().inspect(|key| self.0.mailbox.dropped(*key));
        }
    }
}

impl SocketFactoryBuilder {
    /// Names the event that a listener sends for each connection.
    ///
    /// POE: `SuccessEvent`.
    #[doc(alias = "SuccessEvent")]
    pub fn on_accept(mut self, event: impl Into<Name>) -> Self {
        self.on_success = Some(event.into());
        self
    }

    /// Names the event that is sent once when the connection is made.
    ///
    /// POE: `SuccessEvent`.
    pub fn on_connect(self, event: impl Into<Name>) -> Self {
        self.on_accept(event)
    }

    /// Names the event that is sent when accepting or connecting fails; without one, failures are logged.
    ///
    /// POE: `FailureEvent`.
    #[doc(alias = "FailureEvent")]
    pub fn on_error(mut self, event: impl Into<Name>) -> Self {
        self.on_error = Some(event.into());
        self
    }

    /// Binds the address and listens, for the running session.
    ///
    /// A forked child keeps the listener, and both accept from one backlog.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] when the address can't be resolved or bound; [`Error::NoActiveSession`] outside of any state.
    ///
    /// POE: `new` without a RemoteAddress, which reports a failure to bind as a FailureEvent.
    pub fn listen(self, core: &mut Core) -> Result<SocketFactory, Error> {
        let fail = |call, error| Error::os(call, &self.address, error);
        let listener = TcpListener::bind(&self.address).map_err(|error| fail("bind", error))?;
        listener.set_nonblocking(true).map_err(|error| fail("ioctl", error))?;
        let socket = Socket::Listening(mio::net::TcpListener::from_std(listener));
        self.start(core, socket, Vec::new())
    }

    /// Begins to connect to the address, for the running session; the addresses of a name are tried one after the
    /// other.
    ///
    /// Whatever goes wrong from here on is an error event.
    ///
    /// # Errors
    ///
    /// [`Error::NoActiveSession`] outside of any state.
    ///
    /// POE: `new` with a RemoteAddress.
    pub fn connect(self, core: &mut Core) -> Result<SocketFactory, Error> {
        let resolved = self.address.to_socket_addrs().map(|found| found.collect::<Vec<_>>());
        let (operation, failure, rest) = match resolved {
            Ok(mut rest) => {
                rest.reverse();
                match connect_next(&mut rest) {
                    Ok(stream) => return self.start(core, Socket::Connecting(stream), rest),
                    Err(error) => ("connect", error, rest),
                }
            }
            Err(error) => ("getaddrinfo", error, Vec::new()),
        };
        let wheel = self.start(core, Socket::Closed, rest)?;
        wheel.0.post_failure(core, operation, &failure);
        Ok(wheel)
    }

    fn start(self, core: &mut Core, socket: Socket, rest: Vec<SocketAddr>) -> Result<SocketFactory, Error> {
        let owner = core.session();
        if owner == SessionId::KERNEL {
            return Err(Error::NoActiveSession);
        }
        let is_open = !matches!(socket, Socket::Closed);
        let state = Rc::new(State {
            id: WheelId::next(),
            owner,
            socket: RefCell::new(socket),
            rest: RefCell::new(rest),
            on_success: self.on_success,
            on_error: self.on_error,
            key: Cell::new(None),
            mailbox: core.mailbox(),
            open: Cell::new(is_open),
            paused: Cell::new(false),
            resting: Cell::new(false),
        });
        if is_open {
            let source: Rc<dyn Source> = state.clone();
            let set_key = |key| {
                state.key.set(Some(key));
                source
            };
            core.add_source(owner, set_key)?;
        }
        Ok(SocketFactory(state))
    }
}

/// What the wheel shares with the kernel.
struct State {
    id: WheelId,
    owner: SessionId,
    socket: RefCell<Socket>,
    /// Addresses still to be tried, the next one last.
    rest: RefCell<Vec<SocketAddr>>,
    on_success: Option<Name>,
    on_error: Option<Name>,
    /// None if nothing was ever watched, as after a connect that failed at once.
    key: Cell<Option<SourceKey>>,
    mailbox: Rc<Mailbox>,
    open: Cell<bool>,
    paused: Cell<bool>,
    /// There was no descriptor left for a connection. It stays in the backlog, and the listener would be reported
    /// ready without end, so it is not watched for a moment.
    resting: Cell<bool>,
}

enum Socket {
    Listening(mio::net::TcpListener),
    Connecting(mio::net::TcpStream),
    Closed,
}

/// How many connections one turn accepts: enough to be worth the turn, few enough to keep nobody waiting.
const ACCEPTS_PER_TURN: usize = 16;

/// How long a listener rests that can't accept for want of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

impl State {
    fn changed(&self) {
        self.key.get().inspect(|key| self.mailbox.changed(*key));
    }

    fn accept_some(&self, kernel: &mut Kernel, key: SourceKey) {
        let forked = kernel.core.forked;
        if self.resting.replace(false) {
            self.changed();
        }
        for _ in 0..ACCEPTS_PER_TURN {
            // A state may have paused or dropped the wheel; and in a child that was forked meanwhile, this turn is the
            // parent's.
            if !self.open.get() || self.paused.get() || kernel.core.forked != forked {
                return;
            }
            let accepted = match &*self.socket.borrow() {
                Socket::Listening(listener) => listener.accept(),
                _ => return,
            };
            match accepted {
                Ok((stream, peer)) => self.succeed(kernel, stream, peer),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                Err(error) => {
                    if is_shortage(&error) {
                        self.resting.set(true);
                        kernel.core.set_kernel_alarm(ACCEPT_REST, Kind::Retry(key));
                    }
                    self.changed();
                    return self.fail(kernel, "accept", &error);
                }
            }
        }
        kernel.core.sources.requeue(key, Mode::Read);
    }

    fn finish_connecting(self: &Rc<Self>, kernel: &mut Kernel, key: SourceKey) {
        let outcome = match &*self.socket.borrow() {
            Socket::Connecting(stream) => match stream.take_error() {
                Ok(None) => stream.peer_addr(),
                Ok(Some(error)) | Err(error) => Err(error),
            },
            _ => return,
        };
        match outcome {
            Err(error) if error.kind() == ErrorKind::NotConnected => {}
            Err(error) => self.connect_failed(kernel, key, error),
            Ok(peer) => {
                // Away from the poller while the descriptor is still in its place; from then on the wheel is inert.
                let socket = kernel.core.release_source(key, || self.socket.replace(Socket::Closed));
                self.open.set(false);
                if let Socket::Connecting(stream) = socket {
                    self.succeed(kernel, stream, peer);
                }
            }
        }
    }

    /// Tries the next address, if there is one.
    fn connect_failed(self: &Rc<Self>, kernel: &mut Kernel, key: SourceKey, error: io::Error) {
        let next = connect_next(&mut self.rest.borrow_mut());
        kernel.core.remove_source(key);
        match next {
            Err(_) => self.fail(kernel, "connect", &error),
            Ok(stream) => {
                self.socket.replace(Socket::Connecting(stream));
                self.open.set(true);
                let me = Rc::clone(self);
                let again = kernel.core.add_source(self.owner, |key| {
                    me.key.set(Some(key));
                    me
                });
                if let Err(error) = again {
                    self.fail(kernel, "connect", &io::Error::other(error.to_string()));
                }
            }
        }
    }

    fn succeed(&self, kernel: &mut Kernel, stream: mio::net::TcpStream, peer: SocketAddr) {
        let Some(event) = self.on_success else { return };
        let args = (TcpStream::from(stream), peer.ip(), peer.port(), self.id).into_args();
        kernel.dispatch_from_source(self.owner, event, Some(Name::new("SocketFactory")), args);
    }

    fn fail(&self, kernel: &mut Kernel, operation: &'static str, error: &io::Error) {
        match self.on_error {
            Some(event) => {
                let args = error_args(operation, error, self.id);
                kernel.dispatch_from_source(self.owner, event, Some(Name::new("SocketFactory")), args);
            }
            None => log::error!(target: "lenore::wheels", "{} of {}: {operation}: {error}", self.id, self.owner),
        }
    }

    /// A failure inside the constructor is posted: the caller does not have the wheel yet.
    fn post_failure(&self, core: &mut Core, operation: &'static str, error: &io::Error) {
        match self.on_error {
            Some(event) => core.yield_(event, error_args(operation, error, self.id)),
            None => log::error!(target: "lenore::wheels", "{} of {}: {operation}: {error}", self.id, self.owner),
        }
    }
}

impl Source for State {
    fn fd(&self) -> RawFd {
        match &*self.socket.borrow() {
            Socket::Listening(listener) => listener.as_raw_fd(),
            Socket::Connecting(stream) => stream.as_raw_fd(),
            Socket::Closed => -1,
        }
    }

    fn wanted(&self) -> Option<Wanted> {
        match &*self.socket.borrow() {
            Socket::Listening(_) if self.paused.get() || self.resting.get() => None,
            Socket::Listening(_) => Some(Wanted::ACCEPT),
            Socket::Connecting(_) => Some(Wanted::WRITE),
            Socket::Closed => None,
        }
    }

    fn turn(self: Rc<Self>, kernel: &mut Kernel, key: SourceKey, mode: Mode) {
        match mode {
            Mode::Read => self.accept_some(kernel, key),
            Mode::Write => self.finish_connecting(kernel, key),
            Mode::Expedite => {}
        }
    }

    fn close(&self) {
        self.open.set(false);
        self.socket.replace(Socket::Closed);
    }

    fn fork(&self) -> AfterFork {
        match &*self.socket.borrow() {
            Socket::Listening(_) => AfterFork::Keep,
            _ => AfterFork::Close,
        }
    }

    fn describe(&self) -> String {
        let event = self.on_success.map_or("nothing", Name::as_str);
        match &*self.socket.borrow() {
            Socket::Listening(listener) => {
                let address = listener.local_addr().map_or_else(|error| error.to_string(), |addr| addr.to_string());
                let paused = if self.paused.get() { ", paused" } else { "" };
                format!("SocketFactory ({}) listening on {address} -> {event}{paused}", self.id)
            }
            _ => format!("SocketFactory ({}) connecting -> {event}", self.id),
        }
    }
}

/// Begins to connect to the last address of the list that allows it, taking it and those after it out.
fn connect_next(rest: &mut Vec<SocketAddr>) -> io::Result<mio::net::TcpStream> {
    let mut failure = io::Error::from(Errno::EADDRNOTAVAIL);
    while let Some(address) = rest.pop() {
        match mio::net::TcpStream::connect(address) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Tells whether a later try may succeed without the peer doing anything.
fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM];
    error.raw_os_error().is_some_and(|errno| shortages.contains(&Errno::from_raw(errno)))
}

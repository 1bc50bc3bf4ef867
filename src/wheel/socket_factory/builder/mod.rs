//! The settings of a `SocketFactory` before it starts.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use super::address::{Address, Domain};
use super::datagram::Local;
use super::inheriting::Origin;
use super::listening::{ACCEPTS_PER_TURN, Accepted, Opened};
use super::report::Report;
use super::rota::Rota;
use super::socket::CallError;
use super::{Job, SocketFactory};
use crate::args::{Args, IntoArgs};
use crate::component::Resolver;
use crate::error::Error;
use crate::kernel::{Core, InState, Switch, core_of};
use crate::name::Name;
use crate::wheel::WheelId;

mod making;

/// Sets what a [`SocketFactory`] does. [`SocketFactory::tcp`] and its siblings make one.
///
/// Settings that do not apply to the socket are ignored, such as a listen queue for a socket that connects.
#[must_use = "does nothing until it is told to listen, to connect or to bind"]
pub struct SocketFactoryBuilder {
    transport: Transport,
    address: Address,
    origin: Origin,
    on_success: Option<Name>,
    on_error: Option<Name>,
    posts_failures: bool,
    bind_address: Option<Address>,
    domain: Option<Domain>,
    reuse: Option<Switch>,
    v6_only: Option<Switch>,
    unlink: Switch,
    listen_queue: Option<u32>,
    accepts_per_turn: usize,
    connect_timeout: Option<Duration>,
    resolver: Option<Resolver>,
    logs_shortages: bool,
    rota: Option<Rc<Rota>>,
    /// The addresses that a listener has asked for.
    asked: Vec<String>,
    /// Makes the arguments of a listener's success event.
    accepted_args: fn(Accepted, WheelId) -> Args,
}

impl fmt::Debug for SocketFactoryBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketFactoryBuilder")
            .field("transport", &self.transport)
            .field("address", &self.address)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// A socket that listens already. [`start`](Bound::start) makes the wheel that accepts from it.
pub(crate) struct Bound {
    builder: SocketFactoryBuilder,
    socket: Opened,
}

impl Bound {
    /// Returns the address that the socket is bound to.
    pub(crate) fn local_addr(&self) -> Result<SocketAddr, Error> {
        let local = self.socket.listener.local().and_then(Local::addr);
        local.map_err(|error| Error::os("getsockname", &self.builder.address, error))
    }

    /// Returns the path that a UNIX socket is bound to, or `None` for any other socket.
    pub(crate) fn local_path(&self) -> Result<Option<PathBuf>, Error> {
        let local = self.socket.listener.local();
        let local = local.map_err(|error| Error::os("getsockname", &self.builder.address, error))?;
        Ok(if let Local::Path(path) = local { Some(path) } else { None })
    }

    /// Returns a copy of the socket, without a wheel.
    ///
    /// # Errors
    ///
    /// `EMFILE` if the process has no file descriptor left.
    pub(crate) fn into_fd(self) -> io::Result<OwnedFd> {
        self.socket.listener.as_fd().try_clone_to_owned()
    }

    /// Starts to accept, for the running session.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] if the socket can't be watched.
    pub(crate) fn start(self, core: &mut Core) -> Result<SocketFactory, Error> {
        let report = self.builder.report(core, "on_accept")?;
        let acceptor = self.builder.accept(core, &report, self.socket)?;
        Ok(SocketFactory { report, job: Job::Listening(acceptor) })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Udp,
    Unix,
    UnixDatagram,
}

/// Why a wheel was not started.
pub(super) enum Problem {
    /// The call was wrong, or the kernel can't watch another descriptor.
    Error(Error),
    /// The system has refused a call.
    Call(CallError),
}

impl Problem {
    fn into_error(self, address: &Address) -> Error {
        match self {
            Problem::Error(error) => error,
            Problem::Call(failure) => Error::os(failure.operation, address, failure.error),
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        Problem::Error(error)
    }
}

impl From<CallError> for Problem {
    fn from(failure: CallError) -> Problem {
        Problem::Call(failure)
    }
}

impl SocketFactoryBuilder {
    pub(super) fn new(transport: Transport, address: Address) -> SocketFactoryBuilder {
        SocketFactoryBuilder {
            transport,
            address,
            origin: Origin::Found { name: None },
            on_success: None,
            on_error: None,
            posts_failures: false,
            bind_address: None,
            domain: None,
            reuse: None,
            v6_only: None,
            unlink: Switch::Off,
            listen_queue: None,
            accepts_per_turn: ACCEPTS_PER_TURN,
            connect_timeout: None,
            resolver: None,
            logs_shortages: false,
            rota: None,
            asked: Vec::new(),
            accepted_args: split_args,
        }
    }

    /// Returns the builder of a wheel on a socket that was inherited under this name.
    pub(super) fn inherited(name: String) -> SocketFactoryBuilder {
        // The socket itself determines the transport.
        let builder = SocketFactoryBuilder::new(Transport::Tcp, name.as_str().into());
        SocketFactoryBuilder { origin: Origin::Inherited { name }, ..builder }
    }

    /// Returns the builder of a wheel on a socket that listens already.
    pub(crate) fn given(fd: OwnedFd) -> SocketFactoryBuilder {
        let address = format!("descriptor {}", fd.as_raw_fd());
        let builder = SocketFactoryBuilder::new(Transport::Tcp, address.into());
        SocketFactoryBuilder { origin: Origin::Given(Some(fd)), ..builder }
    }

    /// Sets the name under which the wheel looks for an inherited socket, such as `FileDescriptorName=` in a systemd
    /// socket unit.
    ///
    /// [`listen`](SocketFactoryBuilder::listen) and [`bind`](SocketFactoryBuilder::bind) take over the inherited socket
    /// of this name, at whatever address. If there is none, they look for the address. See
    /// [`SocketFactory`](SocketFactory#sockets-that-were-inherited). Default: no name.
    ///
    /// POE: nothing like it.
    pub fn listener_name(mut self, name: impl Into<String>) -> Self {
        if let Origin::Found { name: found } = &mut self.origin {
            *found = Some(name.into());
        }
        self
    }

    /// Names the success event of a listener. It comes for each connection.
    ///
    /// POE: `SuccessEvent`.
    #[doc(alias = "SuccessEvent")]
    pub fn on_accept(mut self, event: impl Into<Name>) -> Self {
        self.on_success = Some(event.into());
        self
    }

    /// Names the success event of a wheel that connects. It comes once, when the connection is made.
    ///
    /// POE: `SuccessEvent`.
    #[doc(alias = "SuccessEvent")]
    pub fn on_connect(self, event: impl Into<Name>) -> Self {
        self.on_accept(event)
    }

    /// Names the success event of a wheel that binds. The wheel posts it once, with the socket.
    ///
    /// POE: `SuccessEvent`.
    #[doc(alias = "SuccessEvent")]
    pub fn on_bind(self, event: impl Into<Name>) -> Self {
        self.on_accept(event)
    }

    /// Names the event for failures to accept or connect. Without it failures are logged.
    ///
    /// When the process runs out of file descriptors, clients wait in the backlog. The listener tries again ten times a
    /// second, and sends the event each time. Without the event, it logs one line when this begins, and one when it
    /// accepts again.
    ///
    /// POE: `FailureEvent`.
    #[doc(alias = "FailureEvent")]
    pub fn on_error(mut self, event: impl Into<Name>) -> Self {
        self.on_error = Some(event.into());
        self
    }

    /// Makes a listener log shortages of the system's resources, instead of sending its session an event. The
    /// components use this, because their programs have no event for a shortage.
    pub(crate) fn log_shortages(mut self) -> Self {
        self.logs_shortages = true;
        self
    }

    /// Makes a listener take turns with other listeners of its session.
    pub(crate) fn takes_turns(mut self, rota: Rc<Rota>) -> Self {
        self.rota = Some(rota);
        self
    }

    /// Makes `listen` and `bind` post failures as error events, instead of returning them. After such a failure the
    /// wheel does nothing more. `connect` always posts its failures.
    ///
    /// POE: what it always does.
    pub fn post_failures(mut self) -> Self {
        self.posts_failures = true;
        self
    }

    /// Binds a socket that connects to an address, a port, or the path of a UNIX socket first. Without this call the
    /// system chooses the local address.
    ///
    /// POE: `BindAddress` and `BindPort` beside a RemoteAddress.
    #[doc(alias("BindAddress", "BindPort"))]
    pub fn bind_address(mut self, address: impl Into<Address>) -> Self {
        self.bind_address = Some(address.into());
        self
    }

    /// Uses only the addresses of one family when a name stands for several. It also chooses the family of an address
    /// without a host. Default: all families, and IPv4 for an address without a host.
    ///
    /// POE: `SocketDomain`.
    #[doc(alias = "SocketDomain")]
    pub fn domain(mut self, domain: Domain) -> Self {
        self.domain = Some(domain);
        self
    }

    /// Sets or clears `SO_REUSEADDR`, which allows binding an address that old connections still use. A server needs it
    /// to be restarted at once. Default: on for TCP sockets that listen, off for all others.
    ///
    /// POE: `Reuse`, which is off unless asked for.
    #[doc(alias = "Reuse")]
    pub fn reuse(mut self, reuse: Switch) -> Self {
        self.reuse = Some(reuse);
        self
    }

    /// Sets whether a socket bound to an IPv6 address is for IPv6 only. For a wheel on IPv4 it has no effect.
    ///
    /// Without this call the system decides. By default, a socket on Linux that is bound to `[::]` takes IPv4 as well.
    /// Its peers have addresses such as `::ffff:192.0.2.1`, and no IPv4 socket can be bound to the same port. OpenBSD
    /// always keeps the two apart.
    ///
    /// POE: nothing like it; the system decides.
    pub fn v6_only(mut self, only: Switch) -> Self {
        self.v6_only = Some(only);
        self
    }

    /// Removes the path of a UNIX socket when the wheel ends, and a stale one before binding.
    ///
    /// A stale path is a socket on which no process listens any more, as after a killed server. A socket in use, or any
    /// other file, stays, and the bind fails with `EADDRINUSE`. Two servers must not start on one path at the same
    /// moment, because a socket that is bound but does not listen yet looks stale. Use a lock, such as that of a pid
    /// file.
    ///
    /// The wheel removes the path when it is dropped or its session stops, if the path is still the same file. Only the
    /// process that bound the path removes it. A forked child that drops its copy does not. If the Daemon detaches the
    /// program, the detached process takes that duty over. Keep the wheel as long as the socket, even after it has
    /// handed the socket over.
    ///
    /// POE: nothing like it; the path is never removed.
    pub fn unlink_path(mut self) -> Self {
        self.unlink = Switch::On;
        self
    }

    /// Sets how many connections may wait to be accepted. The system's limit still applies. Default: the system's
    /// limit.
    ///
    /// POE: `ListenQueue`.
    #[doc(alias = "ListenQueue")]
    pub fn listen_queue(mut self, connections: u32) -> Self {
        self.listen_queue = Some(connections);
        self
    }

    /// Sets how many connections a listener accepts at most before other wheels and posted events get their turn.
    /// Default: 16. Minimum: 1.
    ///
    /// POE: 1, always.
    pub fn accepts_per_turn(mut self, connections: usize) -> Self {
        self.accepts_per_turn = connections;
        self
    }

    /// Stops connecting after `timeout`. The error event then has the operation `"connect"` and `ETIMEDOUT`.
    ///
    /// The timeout begins with the call to [`connect`](SocketFactoryBuilder::connect), or when a
    /// [`resolver`](Self::resolver) has looked the name up. It covers all addresses of the name together. If it is
    /// short, every address gets a share. Default: none. The system then gives up on TCP after about two minutes for
    /// each address. A UNIX socket waits as long as the listener's queue is full.
    ///
    /// POE: nothing like it; `Component::Client::TCP` has a ConnectTimeout.
    #[doc(alias = "ConnectTimeout")]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// Sets a [`Resolver`] that looks up the name to connect to, so that the program need not wait. If the lookup
    /// fails, the error event has the operation `"getaddrinfo"`, with `ETIMEDOUT` if a helper process of the resolver
    /// took too long. Default: none. [`connect`](SocketFactoryBuilder::connect) then looks the name up itself, and the
    /// program waits.
    ///
    /// POE: nothing like it.
    pub fn resolver(mut self, resolver: Resolver) -> Self {
        self.resolver = Some(resolver);
        self
    }

    /// Binds a stream socket to the address and listens, for the running session. If a name stands for several
    /// addresses, the wheel takes the first that it can bind. It takes over an
    /// [inherited](SocketFactory#sockets-that-were-inherited) socket instead, if there is one.
    ///
    /// # Errors
    ///
    /// - [`Error::Os`] if the address can't be resolved or bound, unless
    ///   [`post_failures`](SocketFactoryBuilder::post_failures) was called
    /// - [`Error::InvalidSetting`] or [`Error::InvalidAddress`] for a wrong call
    /// - [`Error::NotInherited`] if the inherited socket of the wheel's name has another type
    /// - [`Error::NoActiveSession`] once the session has stopped
    ///
    /// POE: `new` without a RemoteAddress. It reports a failure to bind as a FailureEvent.
    pub fn listen(mut self, cx: &mut impl InState) -> Result<SocketFactory, Error> {
        let core = core_of(cx);
        let report = self.report(core, "on_accept")?;
        let outcome = self.begin_listening(core, &report);
        self.finish(core, report, outcome, self.posts_failures)
    }

    /// Starts to connect to the address, for the running session.
    ///
    /// The addresses of a name race as in RFC 8305 (happy eyeballs). IPv6 and IPv4 take turns, beginning with the
    /// family of the first address. If an attempt has neither succeeded nor failed after 250 ms, the wheel tries the
    /// next address beside it. The first connection wins, and the wheel closes the other sockets. With a local port in
    /// [`bind_address`](SocketFactoryBuilder::bind_address), the wheel tries one address at a time.
    ///
    /// If the queue of a UNIX listener is full, the wheel tries again until the listener accepts, as a blocking call
    /// would wait.
    ///
    /// All later failures are error events. If several addresses have failed, the errno is that of the last attempt,
    /// and the text names each address with its reason.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSetting`] or [`Error::InvalidAddress`] for a wrong call, or [`Error::NoActiveSession`] once the
    /// session has stopped.
    ///
    /// POE: `new` with a RemoteAddress.
    pub fn connect(self, cx: &mut impl InState) -> Result<SocketFactory, Error> {
        let core = core_of(cx);
        let report = self.report(core, "on_connect")?;
        let outcome = self.begin_connecting(core, &report);
        self.finish(core, report, outcome, true)
    }

    /// Makes a datagram socket, binds it to the address, and posts the success event with it to the running session.
    ///
    /// After that the wheel does nothing more. Dropping the wheel does not close the socket, which belongs to the state
    /// that takes it.
    ///
    /// # Errors
    ///
    /// As [`listen`](SocketFactoryBuilder::listen).
    ///
    /// POE: `new` for `udp` without a RemoteAddress. It reports a failure to bind as a FailureEvent.
    pub fn bind(self, cx: &mut impl InState) -> Result<SocketFactory, Error> {
        let core = core_of(cx);
        let report = self.report(core, "on_bind")?;
        let outcome = self.make_bound(core, &report);
        self.finish(core, report, outcome, self.posts_failures)
    }

    /// Returns where the wheel sends its events. `setter` is the method that names the success event of such a wheel.
    fn report(&self, core: &Core, setter: &'static str) -> Result<Rc<Report>, Error> {
        let owner = core.running()?;
        let Some(on_success) = self.on_success else { return Err(invalid(setter, "is required")) };
        if self.posts_failures && self.on_error.is_none() {
            return Err(invalid("post_failures", "needs on_error"));
        }
        Ok(Rc::new(Report {
            id: WheelId::next(),
            owner,
            wheel: Name::new(WHEEL),
            on_success: on_success.into(),
            on_error: self.on_error.into(),
        }))
    }

    /// Binds a socket and listens. This needs no session, and no session gets an event for a failure.
    ///
    /// # Errors
    ///
    /// As [`listen`](SocketFactoryBuilder::listen).
    pub(crate) fn bind_listener(mut self) -> Result<Bound, Error> {
        match self.make_listener() {
            Ok(socket) => Ok(Bound { builder: self, socket }),
            Err(problem) => Err(problem.into_error(&self.address)),
        }
    }

    /// Finds out whether a listener of TCP could be bound here, by a socket that is closed at once.
    ///
    /// # Errors
    ///
    /// As [`listen`](SocketFactoryBuilder::listen).
    pub(crate) fn try_to_bind(self) -> Result<(), Error> {
        self.try_listener().map_err(|problem| problem.into_error(&self.address))
    }

    /// Makes the peer's whole address ARG1 of the success event, and the wheel's id ARG2.
    pub(crate) fn whole_address(mut self) -> Self {
        self.accepted_args = Accepted::into_args;
        self
    }
}

/// The peer's address in two arguments, as in POE.
fn split_args(accepted: Accepted, id: WheelId) -> Args {
    match accepted {
        Accepted::Tcp(stream, peer) => (stream, peer.ip(), peer.port(), id).into_args(),
        Accepted::Unix(stream, peer) => (stream, super::address::path_of(&peer), (), id).into_args(),
    }
}

fn invalid(setting: &'static str, reason: &'static str) -> Error {
    Error::InvalidSetting { setting, reason }
}

const WHEEL: &str = "SocketFactory";

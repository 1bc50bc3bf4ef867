//! What a `SocketFactory` is told before it begins.

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

/// Says what a [`SocketFactory`] is to do; made by [`SocketFactory::tcp`] and its kin.
///
/// A setting that makes no sense for the socket, such as a listen queue for one that connects, is ignored.
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

/// A socket that listens already, with the wheel that is to accept: whose, is still open.
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

    /// Returns the path that a UNIX socket is bound to; `None` if it is none.
    pub(crate) fn local_path(&self) -> Result<Option<PathBuf>, Error> {
        let local = self.socket.listener.local();
        let local = local.map_err(|error| Error::os("getsockname", &self.builder.address, error))?;
        Ok(if let Local::Path(path) = local { Some(path) } else { None })
    }

    /// Returns the socket, without a wheel.
    ///
    /// # Errors
    ///
    /// `EMFILE`: there is no descriptor left.
    pub(crate) fn into_fd(self) -> io::Result<OwnedFd> {
        self.socket.listener.as_fd().try_clone_to_owned()
    }

    /// Begins to accept, for the running session.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] when the socket can't be watched.
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

/// Why a wheel was not begun.
pub(super) enum Problem {
    /// By a mistake in the call, or because the kernel can't watch one more descriptor.
    Error(Error),
    /// The system has refused.
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

    /// Begins a wheel on a socket that was inherited by this name.
    pub(super) fn inherited(name: String) -> SocketFactoryBuilder {
        // Which it is, the socket says.
        let builder = SocketFactoryBuilder::new(Transport::Tcp, name.as_str().into());
        SocketFactoryBuilder { origin: Origin::Inherited { name }, ..builder }
    }

    /// Begins a wheel on a socket that listens already.
    pub(crate) fn given(fd: OwnedFd) -> SocketFactoryBuilder {
        let address = format!("descriptor {}", fd.as_raw_fd());
        let builder = SocketFactoryBuilder::new(Transport::Tcp, address.into());
        SocketFactoryBuilder { origin: Origin::Given(Some(fd)), ..builder }
    }

    /// Sets the name by which the socket is found if it was inherited: `FileDescriptorName=` of systemd's socket units. Default:
    /// none, and it is found by its address.
    ///
    /// [`listen`](SocketFactoryBuilder::listen) and [`bind`](SocketFactoryBuilder::bind) take over a socket that was inherited by this
    /// name, wherever it is bound. If there is none, they go by the address. See
    /// [`SocketFactory`](SocketFactory#sockets-that-were-inherited).
    ///
    /// POE: nothing like it.
    pub fn listener_name(mut self, name: impl Into<String>) -> Self {
        if let Origin::Found { name: found } = &mut self.origin {
            *found = Some(name.into());
        }
        self
    }

    /// Names the success event of a listener, sent for each connection.
    ///
    /// POE: `SuccessEvent`.
    #[doc(alias = "SuccessEvent")]
    pub fn on_accept(mut self, event: impl Into<Name>) -> Self {
        self.on_success = Some(event.into());
        self
    }

    /// Names the success event of a wheel that connects, sent once when the connection is made.
    ///
    /// POE: `SuccessEvent`.
    #[doc(alias = "SuccessEvent")]
    pub fn on_connect(self, event: impl Into<Name>) -> Self {
        self.on_accept(event)
    }

    /// Names the success event of a wheel that binds, posted once with the socket.
    ///
    /// POE: `SuccessEvent`.
    #[doc(alias = "SuccessEvent")]
    pub fn on_bind(self, event: impl Into<Name>) -> Self {
        self.on_accept(event)
    }

    /// Names the event that is sent when accepting or connecting fails. Without one, failures are logged.
    ///
    /// A listener that can't accept because the process has run out of descriptors tries again ten times a second, with an event
    /// each time. Without an event the log has one line when that begins and one when the listener accepts again.
    ///
    /// POE: `FailureEvent`.
    #[doc(alias = "FailureEvent")]
    pub fn on_error(mut self, event: impl Into<Name>) -> Self {
        self.on_error = Some(event.into());
        self
    }

    /// Has a listener tell the log, and not its session, that the system is short of something. For the components, whose
    /// programs have no event for it.
    pub(crate) fn log_shortages(mut self) -> Self {
        self.logs_shortages = true;
        self
    }

    /// Has a listener take turns with others of its session.
    pub(crate) fn takes_turns(mut self, rota: Rc<Rota>) -> Self {
        self.rota = Some(rota);
        self
    }

    /// Makes `listen` and `bind` report what they find out with the error event too, which is posted, instead of
    /// returning it; the wheel is inert then. `connect` does so anyway.
    ///
    /// POE: what it always does.
    pub fn post_failures(mut self) -> Self {
        self.posts_failures = true;
        self
    }

    /// Binds a socket that is to connect first: to an address, a port, or the path of a UNIX socket. Without it the
    /// system chooses.
    ///
    /// POE: `BindAddress` and `BindPort` beside a RemoteAddress.
    #[doc(alias("BindAddress", "BindPort"))]
    pub fn bind_address(mut self, address: impl Into<Address>) -> Self {
        self.bind_address = Some(address.into());
        self
    }

    /// Takes only the addresses of one family that a name stands for; and says which one *any address* is of, which is
    /// IPv4 otherwise.
    ///
    /// POE: `SocketDomain`.
    #[doc(alias = "SocketDomain")]
    pub fn domain(mut self, domain: Domain) -> Self {
        self.domain = Some(domain);
        self
    }

    /// Sets or clears `SO_REUSEADDR`: whether an address may be bound that old connections still use.
    ///
    /// It is set for TCP sockets that listen, so that a server can be started again at once, and for no others.
    ///
    /// POE: `Reuse`, which is off unless asked for.
    #[doc(alias = "Reuse")]
    pub fn reuse(mut self, reuse: Switch) -> Self {
        self.reuse = Some(reuse);
        self
    }

    /// Says whether a socket bound to an IPv6 address is for IPv6 only.
    ///
    /// Otherwise the system decides: on Linux, as delivered, one bound to `[::]` takes IPv4 as well, with peers such as
    /// `::ffff:192.0.2.1`, and the same port can't be bound for IPv4 beside it; OpenBSD always keeps them apart. On a
    /// wheel for IPv4 it does nothing.
    ///
    /// POE: nothing like it; the system decides.
    pub fn v6_only(mut self, only: Switch) -> Self {
        self.v6_only = Some(only);
        self
    }

    /// Lets the path of a UNIX socket come and go with the wheel.
    ///
    /// A socket that nobody listens on any more is removed before binding, as left by a process that was killed; one in
    /// use, or any other file, is not: the bind fails with `EADDRINUSE`. Two servers must not begin on one path at the
    /// same moment: one that has bound but does not listen yet looks dead. A lock, such as that of a pid file, sees to
    /// that.
    ///
    /// The path is removed when the wheel is dropped or its session stops, but only by the process that bound it, not
    /// by a forked child that drops its copy, and only if it is still the same file. A program that the Daemon detaches
    /// takes it along. Keep the wheel as long as the socket, also if the socket was handed over.
    ///
    /// POE: nothing like it; the path is never removed.
    pub fn unlink_path(mut self) -> Self {
        self.unlink = Switch::On;
        self
    }

    /// Says how many connections may wait to be accepted; as many as the system allows unless told, and never more.
    ///
    /// POE: `ListenQueue`.
    #[doc(alias = "ListenQueue")]
    pub fn listen_queue(mut self, connections: u32) -> Self {
        self.listen_queue = Some(connections);
        self
    }

    /// Says how many connections a listener accepts at most before other wheels and posted events get their turn: 1 or
    /// more, 16 unless told.
    ///
    /// POE: 1, always.
    pub fn accepts_per_turn(mut self, connections: usize) -> Self {
        self.accepts_per_turn = connections;
        self
    }

    /// Gives up connecting after a time: the error event is `"connect"` with `ETIMEDOUT`.
    ///
    /// The time counts from the call, once a name is looked up, and for all addresses of a name together. Every address gets a
    /// share of a time that is short. Without a timeout the system gives up on TCP after some two minutes for each address, and a
    /// UNIX socket waits for room in the listener's queue for as long as it takes.
    ///
    /// POE: nothing like it; `Component::Client::TCP` has a ConnectTimeout.
    #[doc(alias = "ConnectTimeout")]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// Has a [`Resolver`] look up the name to connect to, so that the program does not wait for it. Default: none, and
    /// [`connect`](SocketFactoryBuilder::connect) looks it up at once.
    ///
    /// A failure to look it up is an error event of `"getaddrinfo"`, with `ETIMEDOUT` if a helper of the resolver took too long.
    /// [`connect_timeout`](SocketFactoryBuilder::connect_timeout) begins when the name is looked up.
    ///
    /// POE: nothing like it.
    pub fn resolver(mut self, resolver: Resolver) -> Self {
        self.resolver = Some(resolver);
        self
    }

    /// Binds a stream socket to the address and listens, for the running session. Of several addresses that a name
    /// stands for, it is the first that can be had. A socket that was
    /// [inherited](SocketFactory#sockets-that-were-inherited) is taken over instead.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] when the address can't be resolved or bound, unless
    /// [`post_failures`](SocketFactoryBuilder::post_failures) was called; [`Error::InvalidSetting`] or
    /// [`Error::InvalidAddress`] for a wrong call; [`Error::NotInherited`] if the inherited socket of its name is of another type;
    /// [`Error::NoActiveSession`] once the session has stopped.
    ///
    /// POE: `new` without a RemoteAddress, which reports a failure to bind as a FailureEvent.
    pub fn listen(mut self, cx: &mut impl InState) -> Result<SocketFactory, Error> {
        let core = core_of(cx);
        let report = self.report(core, "on_accept")?;
        let outcome = self.begin_listening(core, &report);
        self.finish(core, report, outcome, self.posts_failures)
    }

    /// Begins to connect to the address, for the running session.
    ///
    /// The addresses of a name race as in RFC 8305 (happy eyeballs). IPv6 and IPv4 take turns, beginning with the family of the
    /// first address. If an attempt has neither succeeded nor failed after 250 ms, the next address is tried beside it. The first
    /// connection wins, and the other sockets are closed. A socket with a port of its own,
    /// [`bind_address`](SocketFactoryBuilder::bind_address), tries one address at a time.
    ///
    /// If the queue of a UNIX listener is full, the wheel tries again until the listener accepts, as a call that blocks would wait.
    ///
    /// Whatever goes wrong from here on is an error event. If several addresses have failed, the errno is that of the last, and
    /// the text names each address with its reason.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSetting`] or [`Error::InvalidAddress`] for a wrong call; [`Error::NoActiveSession`] once
    /// the session has stopped.
    ///
    /// POE: `new` with a RemoteAddress.
    pub fn connect(self, cx: &mut impl InState) -> Result<SocketFactory, Error> {
        let core = core_of(cx);
        let report = self.report(core, "on_connect")?;
        let outcome = self.begin_connecting(core, &report);
        self.finish(core, report, outcome, true)
    }

    /// Makes a datagram socket, binds it to the address, and posts it to the running session.
    ///
    /// The wheel itself has nothing left to do then. Dropping it closes nothing: the socket belongs to whoever takes
    /// it.
    ///
    /// # Errors
    ///
    /// As [`listen`](SocketFactoryBuilder::listen).
    ///
    /// POE: `new` for `udp` without a RemoteAddress, which reports a failure to bind as a FailureEvent.
    pub fn bind(self, cx: &mut impl InState) -> Result<SocketFactory, Error> {
        let core = core_of(cx);
        let report = self.report(core, "on_bind")?;
        let outcome = self.make_bound(core, &report);
        self.finish(core, report, outcome, self.posts_failures)
    }

    /// `setter` is the method that names the success event of such a wheel.
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

    /// Binds a socket and listens. No session is needed for that, and none hears of a failure.
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

    /// Has the peer's address be one argument of the success event, ARG1, and the wheel's id be ARG2.
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

//! `TcpClient`: a session that connects, and may connect again.

use std::cell::RefCell;
use std::fmt;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::connection::{Connection, ERROR, FLUSHED, HIGH, IMPATIENT, INPUT, LOW, Link, READY, REFUSED};
use super::protocol::Protocol;
use super::requests::{CLOCK, SETTLE};
use super::resolver::Resolver;
use super::secure::{self, Secure};
use super::socket::Socket;
use super::tcp_server::check_alias;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::kernel::{AsKernel, Context, SessionId, kernel_of};
use crate::name::Name;
use crate::outage::Outage;
use crate::reply::IntoReturn;
use crate::session::{Handler, Session, handler};
use crate::states::States;
use crate::wheel::{Failure, SocketFactory};

type Cx<'a, F, H> = Context<'a, Connection<F, H>>;
type Callback<F, H> = Box<dyn Fn(&mut Cx<'_, F, H>) -> Result>;
type Trouble<F, H> = Box<dyn Fn(&mut Cx<'_, F, H>, &Failure) -> Result>;

/// A client. It is a session that has one connection at a time.
///
/// ```
/// use lenore::Kernel;
/// use lenore::component::{Protocol, TcpClient, TcpServer};
/// use lenore::filter::Line;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut kernel = Kernel::new()?;
/// # let echo = Protocol::new(Line::new()).on_input(|cx, line: String| cx.heap().put(line));
/// # let server = TcpServer::new("127.0.0.1:0", echo).spawn(&mut kernel)?;
/// # let address = server.local_addr().to_string();
/// let asking = Protocol::with_heap(Line::new(), || 0)
///     .on_connect(|cx| cx.heap().put("what time is it?"))
///     .on_input(move |cx, answer: String| {
///         println!("{answer}");
/// #       assert_eq!(answer, "what time is it?");
/// #       cx.post(server, "shutdown", ())?;
///         cx.yield_("shutdown", ());
/// #       lenore::Result::Ok(())
///     });
/// TcpClient::new(address, asking)
///     .on_connect_error(|cx, failure| {
///         let client = cx.heap();
///         **client += 1; // the heap lives as long as the session, whatever becomes of its connections
///         eprintln!("{}, try {}: {failure}", client.target(), **client);
///         cx.delay("reconnect", std::time::Duration::from_secs(1), ());
///     })
///     .spawn(&mut kernel)?;
/// kernel.run()?;
/// # Ok(())
/// # }
/// ```
///
/// # Events that the program may post to it
///
/// | event | effect |
/// | --- | --- |
/// | `reconnect` | connects again; drops an open connection and its unwritten output, without `on_disconnect` |
/// | `connect` | the same; ARG0 = the new address, `host:port`, or ARG0 = a host and ARG1 = its port (`u16`) |
/// | `shutdown` | ends the connection when all output is written, or ends the attempt to connect at once |
///
/// # Connecting again
///
/// The program decides whether to try again. It calls `cx.delay("reconnect", ..)` in [`on_connect_error`](TcpClient::on_connect_error)
/// and in [`Protocol::on_disconnect`]. A session without a connection ends unless something keeps it alive, such as that delay or an
/// alias.
///
/// To end such a client for good, call `cx.delay_clear("reconnect")`, then post `shutdown`, and set no delay in the `on_disconnect`
/// that follows. `shutdown` removes the alias, but no delay. `examples/log_shipper.rs` does this.
///
/// POE: `POE::Component::Client::TCP`.
#[must_use = "does nothing until it is spawned"]
pub struct TcpClient<F: Filter, H: 'static = ()> {
    protocol: Protocol<F, H>,
    address: String,
    settings: Settings<F, H>,
}

impl<F: Filter, H> fmt::Debug for TcpClient<F, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpClient").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What does not change from one connection to the next.
struct Settings<F: Filter, H: 'static> {
    /// The targets are paths.
    is_unix: bool,
    secure: Option<Secure>,
    alias: Option<Name>,
    bind_address: Option<String>,
    timeout: Option<Duration>,
    resolver: Option<Resolver>,
    on_started: Option<Callback<F, H>>,
    on_connect_error: Option<Trouble<F, H>>,
}

impl<F: Filter, H: 'static> TcpClient<F, H> {
    /// Begins a client of the server at `address`, `host:port`. Without a [`resolver`](TcpClient::resolver) the look-up of a host name
    /// blocks the process.
    ///
    /// POE: `new`, with `RemoteAddress` and `RemotePort`.
    #[doc(alias("RemoteAddress", "RemotePort"))]
    pub fn new(address: impl Into<String>, protocol: Protocol<F, H>) -> TcpClient<F, H> {
        TcpClient::with(address.into(), protocol, false)
    }

    /// Begins a client of the server that listens on the UNIX stream socket at `path`. [`Connection::target`] returns the path, and the
    /// event `connect` takes a path as ARG0.
    ///
    /// POE: `new`, with `Domain` `AF_UNIX` and the path as `RemoteAddress`.
    pub fn unix(path: impl Into<String>, protocol: Protocol<F, H>) -> TcpClient<F, H> {
        TcpClient::with(path.into(), protocol, true)
    }

    fn with(address: String, protocol: Protocol<F, H>, is_unix: bool) -> TcpClient<F, H> {
        let settings = Settings {
            is_unix,
            secure: None,
            alias: None,
            bind_address: None,
            timeout: None,
            resolver: None,
            on_started: None,
            on_connect_error: None,
        };
        TcpClient { protocol, address, settings }
    }

    /// Speaks TLS with the server, with these settings, and wants a certificate for the host of the [target](Connection::target).
    ///
    /// [`Protocol::on_connect`] is called when the handshake is done. A handshake that fails is an attempt to connect that has
    /// failed: [`on_connect_error`](TcpClient::on_connect_error) hears of it, with the operation `"handshake"`.
    ///
    /// POE: `Client_SSLify` of `POE::Component::SSLify`.
    #[cfg(feature = "tls")]
    #[doc(alias = "SSLify")]
    pub fn tls(mut self, settings: crate::tls::Client) -> Self {
        self.settings.secure = Some(Secure::Client(settings, None));
        self
    }

    /// The same with a server whose certificate is for `name`, whatever the target: the name of a host, or an IP address.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidAddress`] for a text that is neither the name of a host nor an IP address.
    #[cfg(feature = "tls")]
    pub fn tls_with_name(mut self, settings: crate::tls::Client, name: impl Into<String>) -> Result<Self, Error> {
        let name = name.into();
        super::secure::check_name(&name)?;
        self.settings.secure = Some(Secure::Client(settings, Some(name)));
        Ok(self)
    }

    /// Sets the alias of the session.
    ///
    /// POE: `Alias`.
    pub fn alias(mut self, alias: impl Into<Name>) -> Self {
        self.settings.alias = Some(alias.into());
        self
    }

    /// Sets the address that it connects from, `host:port` or a host alone; the system chooses unless set.
    ///
    /// POE: `BindAddress` and `BindPort`.
    #[doc(alias("BindAddress", "BindPort"))]
    pub fn bind_address(mut self, address: impl Into<String>) -> Self {
        self.settings.bind_address = Some(address.into());
        self
    }

    /// Sets how long an attempt to connect may take, to all addresses of the host together; as long as the system lets it unless
    /// set. See [`SocketFactoryBuilder::connect_timeout`](crate::wheel::SocketFactoryBuilder::connect_timeout).
    ///
    /// POE: `ConnectTimeout`, in seconds.
    #[doc(alias = "ConnectTimeout")]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = Some(timeout);
        self
    }

    /// Has a [`Resolver`] look the host name up, anew with each attempt; the program itself does unless set, and waits for it. See
    /// [`SocketFactoryBuilder::resolver`](crate::wheel::SocketFactoryBuilder::resolver).
    ///
    /// POE: nothing like it.
    pub fn resolver(mut self, resolver: Resolver) -> Self {
        self.settings.resolver = Some(resolver);
        self
    }

    /// Is called in the session's `_start`, before it begins to connect.
    ///
    /// POE: `Started`, with `Args`.
    pub fn on_started<R: IntoReturn>(mut self, callback: impl Fn(&mut Cx<'_, F, H>) -> R + 'static) -> Self {
        self.settings.on_started = Some(Box::new(move |cx| callback(cx).without_value()));
        self
    }

    /// Is called when an attempt to connect has failed. The failure says what went wrong, and [`Connection::target`] with whom.
    ///
    /// Without this callback the first failure is logged, each that has another reason than the one before, and that a connection
    /// is made at last.
    ///
    /// POE: `ConnectError`.
    #[doc(alias = "ConnectError")]
    pub fn on_connect_error<R: IntoReturn>(
        mut self,
        callback: impl Fn(&mut Cx<'_, F, H>, &Failure) -> R + 'static,
    ) -> Self {
        self.settings.on_connect_error = Some(Box::new(move |cx, failure| callback(cx, failure).without_value()));
        self
    }

    /// Creates the session, which begins to connect in the next slice, and returns its id.
    ///
    /// # Errors
    ///
    /// [`Error::AliasTaken`]; [`Error::ReservedState`] for a state of the protocol that would replace one of the
    /// component's; [`Error::InvalidSetting`] for marks that make no sense; [`Error::TooManySessions`]. Nothing was created then.
    ///
    /// POE: `new`.
    pub fn spawn<K: AsKernel>(self, kernel: &mut K) -> Result<SessionId, Error> {
        let TcpClient { protocol, address, settings } = self;
        protocol.check()?;
        check_alias(kernel_of(kernel), settings.alias)?;
        let heap = Connection::<F, H>::new((protocol.make_heap)(), address);
        let client = Rc::new(Client { protocol, settings, outage: RefCell::default() });
        let state = |run: fn(&Client<F, H>, &mut Cx<'_, F, H>) -> Result| {
            let client = Rc::clone(&client);
            handler(move |cx| run(&client, cx))
        };
        let looked_after = |run: fn(&Client<F, H>, &mut Cx<'_, F, H>) -> Result| {
            let client = Rc::clone(&client);
            handler(move |cx| {
                let told = run(&client, cx);
                client.protocol.look_after(cx).and(told)
            })
        };
        let own = |state: &Handler| {
            let (client, state) = (Rc::clone(&client), state.clone());
            Handler::new(move |kernel, event| {
                let reply = state.run(kernel, event);
                client.protocol.look_after(&mut Cx::<F, H>::new(kernel, event))?;
                reply
            })
        };
        let mut states = vec![
            ("_start".into(), state(Client::start)),
            ("connect".into(), state(Client::connect)),
            ("reconnect".into(), state(Client::reconnect)),
            ("tcp_connected".into(), state(Client::connected)),
            ("tcp_not_connected".into(), state(Client::not_connected)),
            (READY.into(), state(Client::ready)),
            (INPUT.into(), state(|client, cx| client.protocol.got_input(cx))),
            (FLUSHED.into(), looked_after(Client::flushed)),
            (HIGH.into(), looked_after(|client, cx| client.protocol.got_high(cx))),
            (LOW.into(), looked_after(|client, cx| client.protocol.got_low(cx))),
            (ERROR.into(), looked_after(Client::failed)),
            (REFUSED.into(), looked_after(|client, cx| client.protocol.got_refused(cx))),
            (IMPATIENT.into(), state(Client::impatient)),
            (SETTLE.into(), state(|client, cx| client.protocol.settle(cx))),
            (CLOCK.into(), state(|client, cx| client.protocol.look_at_clock(cx))),
            ("shutdown".into(), state(Client::shutdown)),
        ];
        states.extend(client.protocol.states.iter().map(|(name, state)| (*name, own(state))));
        Session::with_states(heap, States::new(states)).spawn(kernel)
    }
}

/// What the states of a client work with.
struct Client<F: Filter, H: 'static> {
    protocol: Protocol<F, H>,
    settings: Settings<F, H>,
    /// With whom no connection is made, and for which errno, if the program has no callback for it.
    outage: RefCell<Outage<(String, i32)>>,
}

impl<F: Filter, H: 'static> Client<F, H> {
    fn start(&self, cx: &mut Cx<'_, F, H>) -> Result {
        self.set_alias(cx)?;
        cx.yield_("reconnect", ());
        self.settings.on_started.as_ref().map_or(Ok(()), |on_started| on_started(cx))
    }

    /// A shutdown has taken it away.
    fn set_alias(&self, cx: &mut Cx<'_, F, H>) -> Result {
        Ok(self.settings.alias.map_or(Ok(()), |alias| cx.alias_set(alias))?)
    }

    /// Remembers whom to connect to from now on.
    fn connect(&self, cx: &mut Cx<'_, F, H>) -> Result {
        if !cx.args().is_empty() {
            let host = match cx.arg::<&'static str>(0) {
                Ok(host) => String::from(*host),
                Err(_) => cx.take::<String>(0)?,
            };
            let target = if cx.args().len() > 1 { with_port(&host, *cx.arg::<u16>(1)?) } else { host };
            cx.heap().target = target;
        }
        self.reconnect(cx)
    }

    fn reconnect(&self, cx: &mut Cx<'_, F, H>) -> Result {
        if cx.heap().requests.is_timed() {
            cx.delay_clear(CLOCK);
        }
        cx.heap().reset();
        self.set_alias(cx)?;
        let target = cx.heap().target.clone();
        if let Some(Err(error)) = self.settings.secure.as_ref().map(|secure| secure.check(&target)) {
            return self.give_up(cx, &Failure::of_error("connect", &error));
        }
        let factory = if self.settings.is_unix { SocketFactory::unix(target) } else { SocketFactory::tcp(target) };
        let mut factory = factory.on_connect("tcp_connected").on_error("tcp_not_connected");
        if let Some(address) = &self.settings.bind_address {
            factory = factory.bind_address(address.as_str());
        }
        if let Some(timeout) = self.settings.timeout {
            factory = factory.connect_timeout(timeout);
        }
        if let Some(resolver) = self.settings.resolver {
            factory = factory.resolver(resolver);
        }
        match factory.connect(cx) {
            Ok(factory) => cx.heap().link = Link::Connecting(factory),
            // An address that makes no sense.
            Err(error) => return self.give_up(cx, &Failure::of_error("connect", &error)),
        }
        Ok(())
    }

    fn connected(&self, cx: &mut Cx<'_, F, H>) -> Result {
        let socket = if self.settings.is_unix {
            Socket::Unix(cx.take::<UnixStream>(0)?)
        } else {
            Socket::Tcp(cx.take::<TcpStream>(0)?, SocketAddr::new(cx.take::<IpAddr>(1)?, cx.take(2)?))
        };
        cx.heap().link = Link::Closed;
        cx.heap().set_peer(socket.peer());
        if self.settings.secure.is_none() {
            self.end_outage(cx);
        }
        self.protocol.open(cx, socket, self.settings.secure.as_ref()).map(drop)
    }

    /// The handshake is done.
    fn ready(&self, cx: &mut Cx<'_, F, H>) -> Result {
        if matches!(cx.heap().link, Link::Securing(_)) {
            self.end_outage(cx);
        }
        secure::ready(&self.protocol, cx)
    }

    /// The attempt to connect has succeeded, with its handshake if there is one.
    fn end_outage(&self, cx: &mut Cx<'_, F, H>) {
        if let Some(ended) = self.outage.borrow_mut().end(cx.now()) {
            let session = cx.session();
            log::info!(target: "lenore::component", "{session} is connected to {}: {ended}", cx.heap().target);
        }
    }

    fn not_connected(&self, cx: &mut Cx<'_, F, H>) -> Result {
        let mut failure = cx.take::<Failure>(0)?;
        // One that could not even begin is posted, and may come after a newer attempt has begun.
        let is_current = matches!(&cx.heap().link, Link::Connecting(factory) if Some(factory.id()) == failure.wheel);
        if self.settings.timeout.is_some() && failure.errno == Errno::ETIMEDOUT as i32 {
            // As in POE, whose component has the timeout.
            failure.wheel = None;
        }
        if is_current { self.give_up(cx, &failure) } else { Ok(()) }
    }

    fn give_up(&self, cx: &mut Cx<'_, F, H>, failure: &Failure) -> Result {
        cx.heap().link = Link::Closed;
        if let Some(on_connect_error) = &self.settings.on_connect_error {
            return on_connect_error(cx, failure);
        }
        // A program that tries again does so without end, and each try fails as the one before.
        let (session, now, target) = (cx.session(), cx.now(), cx.heap().target.clone());
        if self.outage.borrow_mut().failed((target.clone(), failure.errno), now) {
            log::warn!(target: "lenore::component", "{session} can't connect to {target}: {failure}");
        }
        Ok(())
    }

    fn flushed(&self, cx: &mut Cx<'_, F, H>) -> Result {
        let told = self.protocol.callbacks.on_flushed.as_ref().map_or(Ok(()), |on_flushed| on_flushed(cx));
        if cx.heap().is_shutting_down {
            self.finish(cx)?;
        }
        told
    }

    fn failed(&self, cx: &mut Cx<'_, F, H>) -> Result {
        let failure = cx.take::<Failure>(0)?;
        if matches!(cx.heap().link, Link::Securing(_)) {
            cx.heap().close();
            return self.give_up(cx, &failure);
        }
        let id = cx.heap().id();
        let told = self.protocol.tell_error(cx, &failure, false);
        // Unless the program has begun anew already.
        if id == cx.heap().id() {
            self.end(cx)?;
        }
        told
    }

    fn shutdown(&self, cx: &mut Cx<'_, F, H>) -> Result {
        self.forget(cx);
        cx.heap().is_shutting_down = true;
        self.finish(cx)
    }

    /// The peer takes nothing: the connection is closed, and not flushed.
    fn impatient(&self, cx: &mut Cx<'_, F, H>) -> Result {
        cx.heap().is_broken = true;
        self.disconnect(cx)
    }

    /// Disconnects as soon as there is nothing left to write.
    fn finish(&self, cx: &mut Cx<'_, F, H>) -> Result {
        if cx.heap().has_no_output() {
            return self.disconnect(cx);
        }
        cx.heap().wait_for_peer();
        Ok(())
    }

    /// Ends a connection that is of no more use.
    fn end(&self, cx: &mut Cx<'_, F, H>) -> Result {
        self.forget(cx);
        cx.heap().is_shutting_down = true;
        self.disconnect(cx)
    }

    /// Nobody is to find this client, or to wait for it.
    fn forget(&self, cx: &mut Cx<'_, F, H>) {
        // It is gone already after a second shutdown.
        self.settings.alias.map(|alias| cx.alias_remove(alias));
    }

    /// Closes, and tells the program if there was a connection.
    fn disconnect(&self, cx: &mut Cx<'_, F, H>) -> Result {
        let was_connected = cx.heap().is_connected();
        if cx.heap().requests.is_timed() {
            cx.delay_clear(CLOCK);
        }
        cx.heap().close();
        match &self.protocol.callbacks.on_disconnect {
            Some(on_disconnect) if was_connected => on_disconnect(cx),
            _ => Ok(()),
        }
    }
}

/// Joins a host and a port; an IPv6 address needs brackets.
fn with_port(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

//! `TcpServer`: a session that listens, and makes a session of each connection.

use std::cell::Cell;
use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;

use super::accepted::opener;
use super::listen::Listen;
use super::listener::{self, Accept, Admission, Listener};
use super::protocol::Protocol;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::kernel::{AsKernel, Context, Dest, Kernel, SessionId, kernel_of};
use crate::name::Name;
use crate::reply::IntoReturn;
use crate::wheel::Failure;

/// A server in one process: a session that listens, and a session for each connection as its child.
///
/// Use [`Server`](super::Server) in a program that has a Daemon, or may fork one day.
///
/// ```
/// use lenore::Kernel;
/// use lenore::component::{Protocol, TcpServer};
/// use lenore::filter::Line;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let echo = Protocol::new(Line::new()).on_input(|cx, line: String| cx.heap().put(line));
/// let mut kernel = Kernel::new()?;
/// let server = TcpServer::new("127.0.0.1:0", echo)
///     .alias("echo")
///     .concurrency(100)
///     .spawn(&mut kernel)?;
/// println!("listening on {}", server.local_addr());
/// # assert_eq!(kernel.alias_resolve("echo")?, server.session());
/// # kernel.post(server, "shutdown", ())?;
/// kernel.run()?;
/// # Ok(())
/// # }
/// ```
///
/// # Events that the program may post to it
///
/// | event | effect |
/// | --- | --- |
/// | `shutdown` | stops listening; connections go on, and the session ends with the last of them |
/// | `set_concurrency` | ARG0 = how many connections there may be: a `u32`, an `Option<u32>` with `None` for any number, or an `i32` as in POE with -1 for any number |
/// | `disconnected` | counts one connection less; the program posts it if it has an [`acceptor`](TcpServer::acceptor) |
///
/// POE: `POE::Component::Server::TCP`.
#[must_use = "does nothing until it is spawned"]
pub struct TcpServer {
    listen: Listen,
    alias: Option<Name>,
    concurrency: Option<u32>,
    accept: Result<Accept, Error>,
    on_started: Option<Callback>,
    on_stopped: Option<Callback>,
    on_error: Option<Trouble>,
}

impl fmt::Debug for TcpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpServer").field("listen", &self.listen).finish_non_exhaustive()
    }
}

type Callback = Box<dyn Fn(&mut Context<'_, Listener>) -> Result>;
type Trouble = Box<dyn Fn(&mut Context<'_, Listener>, &Failure) -> Result>;

impl TcpServer {
    /// Begins a server that listens on `address` and runs `protocol` for each connection. The address is `host:port`. Port 0 means any
    /// free port.
    ///
    /// POE: `new` with `ClientInput`; `Address` or `Hostname`, and `Port`.
    #[doc(alias("Hostname", "Port"))]
    pub fn new<F: Filter, H: 'static>(address: impl Into<String>, protocol: impl Into<Protocol<F, H>>) -> TcpServer {
        TcpServer::on(Listen::tcp(address.into()), protocol)
    }

    /// Begins a server that listens at `listen`, such as a UNIX socket, and runs `protocol` for each connection.
    ///
    /// ```
    /// use lenore::Kernel;
    /// use lenore::component::{Listen, Protocol, TcpClient, TcpServer};
    /// use lenore::filter::Line;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let path = std::env::temp_dir().join(format!("lenore-tcp-server-{}", std::process::id())).display().to_string();
    /// let mut kernel = Kernel::new()?;
    /// let echo = Protocol::new(Line::new()).on_input(|cx, line: String| cx.heap().put(line));
    /// let server = TcpServer::on(Listen::unix(&path), echo).spawn(&mut kernel)?;
    /// let asking = Protocol::new(Line::new())
    ///     .on_connect(|cx| cx.heap().put("who is there?"))
    ///     .on_input(move |cx, answer: String| {
    ///         assert_eq!(answer, "who is there?");
    ///         cx.yield_("shutdown", ());
    ///         Ok(cx.post(server, "shutdown", ())?)
    ///     });
    /// TcpClient::unix(&path, asking).spawn(&mut kernel)?;
    /// kernel.run()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// POE: `new` with `Domain` `AF_UNIX`.
    pub fn on<F: Filter, H: 'static>(listen: Listen, protocol: impl Into<Protocol<F, H>>) -> TcpServer {
        TcpServer::with(listen, opener(protocol.into()).map(Accept::Open))
    }

    /// Begins a server that hands each accepted socket, with its peer's address, to `acceptor`, in the session that
    /// listens.
    ///
    /// Whoever has the socket posts `disconnected` to that session at its end if the server has a
    /// [`concurrency`](TcpServer::concurrency).
    ///
    /// POE: `new` with `Acceptor`.
    #[doc(alias = "Acceptor")]
    pub fn acceptor<R: IntoReturn>(
        address: impl Into<String>,
        acceptor: impl Fn(&mut Context<'_, Listener>, TcpStream, SocketAddr) -> R + 'static,
    ) -> TcpServer {
        let hand_over = move |cx: &mut Context<'_, Listener>, socket, peer| acceptor(cx, socket, peer).without_value();
        TcpServer::with(Listen::tcp(address.into()), Ok(Accept::HandOver(Rc::new(hand_over))))
    }

    fn with(listen: Listen, accept: Result<Accept, Error>) -> TcpServer {
        TcpServer { listen, alias: None, concurrency: None, accept, on_started: None, on_stopped: None, on_error: None }
    }

    /// Sets the name by which a socket that systemd has passed is taken over; see
    /// [`SocketFactoryBuilder::listener_name`](crate::wheel::SocketFactoryBuilder::listener_name). Default: none, and one that is bound
    /// to the server's address is.
    ///
    /// POE: nothing like it.
    pub fn listener_name(mut self, name: impl Into<String>) -> Self {
        self.listen.set_name(name.into());
        self
    }

    /// Sets the alias of the session that listens.
    ///
    /// POE: `Alias`.
    pub fn alias(mut self, alias: impl Into<Name>) -> Self {
        self.alias = Some(alias.into());
        self
    }

    /// Sets how many connections there may be at a time; any number unless set, none with 0 until `set_concurrency` says
    /// otherwise. More clients wait in the listener's backlog. Idle clients stay connected all the same. A [`Server`](super::Server)
    /// closes the connection that is idle for longest.
    ///
    /// POE: `Concurrency`.
    #[doc(alias = "Concurrency")]
    pub fn concurrency(mut self, connections: u32) -> Self {
        self.concurrency = Some(connections);
        self
    }

    /// Is called once the server listens.
    ///
    /// POE: `Started`, with `ListenerArgs`.
    #[doc(alias = "Started")]
    pub fn on_started<R: IntoReturn>(mut self, callback: impl Fn(&mut Context<'_, Listener>) -> R + 'static) -> Self {
        self.on_started = Some(Box::new(move |cx| callback(cx).without_value()));
        self
    }

    /// Is called when the session that listens ends.
    ///
    /// POE: `Stopped`.
    #[doc(alias = "Stopped")]
    pub fn on_stopped<R: IntoReturn>(mut self, callback: impl Fn(&mut Context<'_, Listener>) -> R + 'static) -> Self {
        self.on_stopped = Some(Box::new(move |cx| callback(cx).without_value()));
        self
    }

    /// Is called for each accept that fails. A listener that can't accept because the process has run out of descriptors tries
    /// again by itself, ten times a second.
    ///
    /// Without this callback a shortage is one warning when it begins and one line when the server accepts again. Any other
    /// failure is logged, and the server stops listening.
    ///
    /// POE: `Error`.
    #[doc(alias = "Error")]
    pub fn on_error<R: IntoReturn>(
        mut self,
        callback: impl Fn(&mut Context<'_, Listener>, &Failure) -> R + 'static,
    ) -> Self {
        self.on_error = Some(Box::new(move |cx, failure| callback(cx, failure).without_value()));
        self
    }

    /// Listens, creates the session that accepts, and returns its id with the address.
    ///
    /// An event is posted to what it returns as to the session's id.
    ///
    /// ```
    /// use std::net::TcpStream;
    /// use lenore::Kernel;
    /// use lenore::component::{Protocol, TcpServer};
    /// use lenore::filter::Line;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut kernel = Kernel::new()?;
    /// let server = TcpServer::new("127.0.0.1:0", Protocol::new(Line::new())).spawn(&mut kernel)?;
    /// let client = TcpStream::connect(server.local_addr())?;
    /// kernel.post(server, "shutdown", ())?;
    /// # drop(client);
    /// kernel.run()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Os`] when the address can't be resolved or bound, [`Error::InvalidAddress`] when it is none;
    /// [`Error::AliasTaken`]; [`Error::ReservedState`] for a state of the protocol that would replace one of the component's;
    /// [`Error::InvalidSetting`] for marks that make no sense; [`Error::TooManySessions`]. Nothing was created then.
    ///
    /// POE: `new`, which reports a failure to bind to `Error`.
    pub fn spawn<K: AsKernel>(self, kernel: &mut K) -> Result<Listening, Error> {
        let TcpServer { listen, alias, concurrency, accept, on_started, on_stopped, on_error } = self;
        let accept = accept?;
        check_alias(kernel_of(kernel), alias)?;
        let has_callback = on_error.is_some();
        let settings = |wheel| {
            let wheel = listener::wheel(wheel).on_error("tcp_failed");
            if has_callback { wheel } else { wheel.log_shortages() }
        };
        let opening = listen.bind(settings, None, &Rc::default())?;
        let local_addr = opening.door.address.tcp();
        let limit = Rc::new(Limit(Cell::new(concurrency)));
        let session = listener::session(vec![opening], accept, Rc::clone(&limit) as Rc<dyn Admission>)
            .state("_start", move |cx| {
                alias.map_or(Ok(()), |alias| cx.alias_set(alias))?;
                listener::listen(cx)?;
                on_started.as_ref().map_or(Ok(()), |on_started| on_started(cx))
            })
            .state("tcp_failed", move |cx| {
                let failure = cx.take::<Failure>(0)?;
                match &on_error {
                    Some(on_error) => on_error(cx, &failure),
                    None => {
                        listener::give_up(cx, &failure);
                        Ok(())
                    }
                }
            })
            .state("set_concurrency", move |cx| {
                limit.0.set(concurrency_of(cx)?);
                cx.heap().adjust();
                Ok(())
            })
            .state("shutdown", move |cx| {
                cx.heap().close();
                // It is gone already after a second shutdown.
                alias.map(|alias| cx.alias_remove(alias));
            })
            .state("_stop", move |cx| on_stopped.as_ref().map_or(Ok(()), |on_stopped| on_stopped(cx)))
            .spawn(kernel)?;
        Ok(Listening { session, local_addr })
    }
}

/// A [`TcpServer`] that was spawned: its session, to which events can be posted, and where it listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Listening {
    session: SessionId,
    local_addr: Option<SocketAddr>,
}

impl Listening {
    /// Returns the session that listens, the parent of the connections' sessions.
    pub fn session(self) -> SessionId {
        self.session
    }

    /// Returns the address that it listens on, with the port that it was given.
    ///
    /// # Panics
    ///
    /// If it listens on a UNIX socket, which has none.
    #[track_caller]
    pub fn local_addr(self) -> SocketAddr {
        self.local_addr.expect("the server listens on a UNIX socket, which has no address of TCP")
    }
}

impl From<Listening> for SessionId {
    fn from(listening: Listening) -> SessionId {
        listening.session
    }
}

impl From<Listening> for Dest<'_> {
    fn from(listening: Listening) -> Self {
        listening.session.into()
    }
}

/// Lets as many connections in as the program says.
struct Limit(Cell<Option<u32>>);

impl Admission for Limit {
    fn limit(&self) -> Option<u32> {
        self.0.get()
    }
}

/// Reads ARG0 of `set_concurrency`.
fn concurrency_of(cx: &mut Context<'_, Listener>) -> Result<Option<u32>> {
    if let Ok(limit) = cx.arg::<u32>(0) {
        return Ok(Some(*limit));
    }
    if let Ok(limit) = cx.arg::<i32>(0) {
        return Ok(u32::try_from(*limit).ok());
    }
    Ok(*cx.arg::<Option<u32>>(0)?)
}

/// Refuses an alias that somebody has, before anything is created.
pub(super) fn check_alias(kernel: &Kernel, alias: Option<Name>) -> Result<(), Error> {
    let Some(alias) = alias else { return Ok(()) };
    kernel.core.alias_resolve(alias).map_or(Ok(()), |owner| Err(Error::AliasTaken { alias, owner }))
}

//! `Server`: one protocol, run in one process or in many.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::accepted::{Opener, opener};
use super::listen::{Listen, ListenAddr, Opening};
use super::listener::{self, Accept, Listener};
use super::load::Load;
use super::protocol::{Prepare, Protocol};
use crate::daemon::{Daemon, DaemonBuilder, Shutdown};
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::kernel::{AsKernel, Context, Kernel, SessionId, kernel_of};
use crate::name::Name;
use crate::reply::IntoReturn;
use crate::wheel::Rota;
use pool::Pool;

mod crowd;
mod error;
mod handle;
mod load;
mod pool;
mod processes;

pub use error::ServerError;
pub use handle::ServerHandle;
pub use processes::{Processes, UnknownProcesses};

/// A server that runs a [`Protocol`] for each connection, in as many processes as a setting says.
///
/// ```no_run
/// use lenore::Kernel;
/// use lenore::component::{Processes, Protocol, Server};
/// use lenore::filter::Line;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let echo = Protocol::new(Line::new()).on_input(|cx, line: String| cx.heap().put(line));
/// let processes: Processes = std::env::args().nth(1).as_deref().unwrap_or("prefork").parse()?; // single, fork or prefork
/// let mut kernel = Kernel::new()?;
/// let server = Server::tcp("127.0.0.1:7777", echo).processes(processes).connections_per_child(100).spawn(&mut kernel)?;
/// println!("listening on {}", server.local_addr());
/// kernel.run()?;
/// # Ok(())
/// # }
/// ```
///
/// The server spawns a [`Daemon`] and works with it: it listens, pauses, resumes, reports what each process does, and ends. Give the
/// Daemon's settings as a [`DaemonBuilder`] to [`daemon`](Server::daemon).
///
/// # Ending
///
/// TERM and QUIT end the server when its requests in hand are answered. They may take
/// [`shutdown_timeout`](DaemonBuilder::shutdown_timeout). Default: 10 s. Meanwhile:
///
/// - A process accepts no more connections once it learns of the end. A child that is in a callback learns of it when the
///   callback returns. Until then its socket stays open, and the child may still serve a client that connects meanwhile.
/// - An idle connection is closed at once.
/// - A busy connection is closed after its answer. [`Connection::is_ending`](super::Connection::is_ending) lets the protocol say so to the
///   client.
/// - A client that has just connected has one second for its first request. So has a TLS client, from the end of its handshake on. A
///   handshake is given up after one second if the client has sent nothing, and otherwise after five. The same holds in a child that
///   has had its share of `requests`.
/// - A request that has begun to come may pause for five seconds.
///
/// INT, and a second TERM, shut down every connection as soon as its output is written. With [`DaemonBuilder::term`] and
/// [`Shutdown::Immediate`] the first TERM does that as well.
///
/// # Requests
///
/// A request is what the protocol says with [`Connection::request_begins`](super::Connection::request_begins). If the protocol does not
/// call it, a request is a record, up to the next `put`. A connection without a request in hand is idle.
///
/// If a client waits to be accepted, and no process has room, the server closes the connection that has been idle for longest.
///
/// # One process
///
/// Each connection is a session of this process. When `shutdown_timeout` is over after TERM or QUIT, the server shuts down the
/// connections that are left, and logs a warning.
///
/// # A child for each connection
///
/// The parent accepts. Each child serves one connection and ends with it. [`connections_per_child`](Server::connections_per_child) has no
/// effect.
///
/// # A pool of children
///
/// A child accepts while it has fewer connections than [`connections_per_child`](Server::connections_per_child). Default: 1. With one
/// connection the Daemon's own page describes it all. With more:
///
/// - *Status*: a child is busy (`r`) while it has a request in hand. It keeps (`k`) clients without one, and waits (`w`) without a
///   connection.
/// - *Size*: only children that wait are spares. Room in a busy child does not count. Under steady load all children are busy, and the pool
///   grows to `max_children`. So the pool serves `max_children` times `connections_per_child` clients.
/// - *Spreading*: a child that has accepted goes to the end of the system's queue of waiting processes. Otherwise the system would wake
///   the same child until that child is full.
/// - *Requests*: each connection counts as one. A child that has had its share accepts no more, closes idle connections, and ends
///   after the last request in hand. Until then it counts towards `max_children`. If requests take long, set
///   [`requests`](DaemonBuilder::requests) to 0 or to a high number.
/// - *Retiring*: the Daemon retires children that wait. If such a child has connections by then, it does the same as a child that has
///   had its share.
/// - *Babysitting*: the Daemon's `request_timeout` counts from the latest request that a child has begun or ended, to within 50 ms. It
///   does not count while the child has no request in hand. So the Daemon kills a child that makes no progress.
///   [`Protocol::request_timeout`] is for one slow request among others.
/// - *Graceful shutdown* (TERM, QUIT): every child does the same. The Daemon kills those that are left after `shutdown_timeout`.
///
/// In all modes a client may wait in the system's queue until a process accepts it. If a child ends, another process serves
/// that client. If the whole server ends, the system refuses that client.
///
/// # Several servers
///
/// A kernel can have several servers, in any modes. Each needs a Daemon with its own alias
/// (`daemon(Daemon::builder().alias("Other"))`). The servers are independent: a child serves only the port of the server that has forked
/// it, and [`ServerHandle::daemon`] shuts one server down. A signal from outside goes to all of them.
///
/// A process that the program itself forks serves no port. The parent keeps its connections at such a fork. In the child their sessions
/// have lost the connections and their alarms, and no callback runs.
#[cfg_attr(feature = "control", doc = "")]
#[cfg_attr(feature = "control", doc = include_str!("metrics.md"))]
///
/// POE: nothing like it; POE::Component::Daemon leaves all of this to the program.
#[must_use = "does nothing until it is spawned"]
pub struct Server {
    listens: Vec<Listen>,
    /// It listens on what the Daemon's configuration says, too.
    is_configured: bool,
    open: Result<Opener, Error>,
    processes: Option<Processes>,
    connections_per_child: Option<u32>,
    prepare: Option<Prepare>,
    on_child: Option<SetUp>,
    peek_on: Option<Name>,
    follow: Option<Follow>,
    daemon: DaemonBuilder,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("listens", &self.listens)
            .field("processes", &self.processes)
            .finish_non_exhaustive()
    }
}

/// Has the listeners of a process follow the configuration of the Daemon.
type Follow = Box<dyn Fn(&mut Context<'_, Listener>, Daemon) -> Result>;

/// What is done in each process that serves.
type SetUp = Box<dyn Fn(&mut Context<'_, Listener>) -> Result>;

impl Server {
    /// Begins a server that listens on `address`, `host:port` with port 0 for any free one, and treats each connection
    /// as `protocol` says.
    pub fn tcp<F: Filter, H: 'static>(address: impl Into<String>, protocol: impl Into<Protocol<F, H>>) -> Server {
        Server::on(Listen::tcp(address.into()), protocol)
    }

    /// Begins a server on a socket that listens already, which it takes over: a [`TcpListener`](std::net::TcpListener), a
    /// [`UnixListener`](std::os::unix::net::UnixListener), or the descriptor of one.
    ///
    /// A server that [`tcp`](Server::tcp) begins takes over by itself what systemd has passed.
    pub fn listener<F: Filter, H: 'static>(
        listener: impl Into<OwnedFd>,
        protocol: impl Into<Protocol<F, H>>,
    ) -> Server {
        Server::on(Listen::descriptor(listener), protocol)
    }

    /// Begins a server that listens as `listen` says, and treats each connection as `protocol` says.
    pub fn on<F: Filter, H: 'static>(listen: Listen, protocol: impl Into<Protocol<F, H>>) -> Server {
        let protocol = protocol.into();
        Server {
            listens: vec![listen],
            prepare: protocol.prepare.clone(),
            is_configured: false,
            open: opener(protocol),
            processes: None,
            connections_per_child: None,
            on_child: None,
            peek_on: None,
            follow: None,
            daemon: Daemon::builder(),
        }
    }

    /// Begins a server that listens on the addresses of the Daemon's configuration, as far as
    /// [`PoolSettings::listen`](crate::daemon::PoolSettings::listen) says. A reload may add some and drop others.
    ///
    /// [`daemon`](Server::daemon) has to set a configuration ([`DaemonBuilder::config`], [`DaemonBuilder::config_pool`]) that names
    /// at least one address. A reload to a configuration that names none is rejected. Places that [`listen`](Server::listen) adds stay
    /// whatever the configuration says.
    ///
    /// ```no_run
    /// use lenore::component::{Protocol, Server};
    /// use lenore::daemon::PoolSettings;
    /// use lenore::filter::Line;
    /// use lenore::{Daemon, Kernel};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// fn load(bytes: &[u8]) -> Result<Vec<String>, std::str::Utf8Error> {
    ///     Ok(std::str::from_utf8(bytes)?.lines().map(str::to_owned).collect())
    /// }
    ///
    /// fn pool(addresses: &Vec<String>) -> PoolSettings {
    ///     addresses.iter().fold(PoolSettings::new(), PoolSettings::listen)
    /// }
    ///
    /// let echo = Protocol::new(Line::new()).on_input(|cx, line: String| cx.heap().put(line));
    /// let daemon = Daemon::builder().start_children(4).config("addresses.conf", load).config_pool(pool);
    /// let mut kernel = Kernel::new()?;
    /// Server::configured(echo).daemon(daemon).spawn(&mut kernel)?;
    /// kernel.run()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn configured<F: Filter, H: 'static>(protocol: Protocol<F, H>) -> Server {
        let server = Server::tcp("", protocol);
        Server { listens: Vec::new(), is_configured: true, ..server }
    }

    /// Listens at one more place, with the same protocol and the same processes.
    ///
    /// Each process that accepts does so at all places, and its connections count together. A busy place does not keep the clients
    /// of another one waiting: a process takes from them in turn.
    pub fn listen(mut self, listen: Listen) -> Self {
        self.listens.push(listen);
        self
    }

    /// Sets the name by which a socket that systemd has passed is taken over, for the place that the server began with; see
    /// [`Listen::name`], which is for any. Default: none, and one that is bound to the server's address is.
    pub fn listener_name(mut self, name: impl Into<String>) -> Self {
        if let Some(first) = self.listens.first_mut() {
            first.set_name(name.into());
        }
        self
    }

    /// Sets in how many processes it runs; what the Daemon's own settings say unless set, and that is one process unless
    /// they say otherwise.
    pub fn processes(mut self, processes: Processes) -> Self {
        self.processes = Some(processes);
        self
    }

    /// Sets how many connections a child of a pool may have at a time, 1 unless set; and a server that is one process, any
    /// number unless set. Not 0.
    pub fn connections_per_child(mut self, connections: u32) -> Self {
        self.connections_per_child = Some(connections);
        self
    }

    /// Is called in each process that serves, before its first connection, in a state of the session that listens: the place
    /// for what is not to be shared, such as a connection to a database. If it fails, so does the process.
    pub fn on_child<R: IntoReturn>(mut self, callback: impl Fn(&mut Context<'_, Listener>) -> R + 'static) -> Self {
        self.on_child = Some(Box::new(move |cx| callback(cx).without_value()));
        self
    }

    /// Has the listeners that speak TLS follow the Daemon's configuration: `pick` says which settings of TLS a configuration has,
    /// whose type is the one that [`DaemonBuilder::config`] loads.
    ///
    /// Children that are forked after a reload have the new certificates. A server of one process has them for each connection that
    /// begins after the reload. If the files of the new certificates can't be used, loading the configuration should fail: then
    /// everything stays as it was, and the log says why.
    ///
    /// ```no_run
    /// use lenore::component::{Listen, Protocol, Server};
    /// use lenore::filter::Line;
    /// use lenore::{Daemon, Kernel, tls};
    ///
    /// /// The file has two lines: the paths of the certificate and of its key.
    /// fn load(bytes: &[u8]) -> Result<tls::Server, String> {
    ///     let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    ///     let (cert, key) = text.trim().split_once('\n').ok_or("there are no two lines")?;
    ///     tls::Server::pem(cert, key).build().map_err(|error| error.to_string())
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let tls = load(&std::fs::read("tls.conf")?)?;
    /// let echo = Protocol::new(Line::new()).on_input(|cx, line: String| cx.heap().put(line));
    /// let mut kernel = Kernel::new()?;
    /// Server::on(Listen::tcp("[::]:7777").tls(tls), echo)
    ///     .processes("prefork".parse()?)
    ///     .daemon(Daemon::builder().config("tls.conf", load))
    ///     .tls_of(|config: &tls::Server| config.clone())
    ///     .spawn(&mut kernel)?;
    /// kernel.run()?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tls")]
    pub fn tls_of<T: 'static>(mut self, pick: fn(&T) -> crate::tls::Server) -> Self {
        self.follow = Some(Box::new(move |cx, daemon| {
            let new = pick(&*daemon.config::<T, _>(cx)?);
            cx.heap().secured().for_each(|tls| tls.follow(&new));
            Ok(())
        }));
        self
    }

    /// Has a process that gets `signal`, `"USR2"` for one, log at info level what the kernel and the Daemon are doing: every
    /// session and why it stays alive, and the scoreboard.
    pub fn peek_on(mut self, signal: impl Into<Name>) -> Self {
        self.peek_on = Some(signal.into());
        self
    }

    /// Sets the Daemon's settings. What is not set has the Daemon's default, with two exceptions. Unless
    /// [`requests`](DaemonBuilder::requests) is set, a child of a pool is replaced after 1000 connections, not after one. Unless
    /// [`term`](DaemonBuilder::term) is set, the first TERM waits for requests in hand as [QUIT does](Server#ending), where the Daemon's
    /// default shuts connections down at once.
    pub fn daemon(mut self, daemon: DaemonBuilder) -> Self {
        self.daemon = daemon;
        self
    }

    /// Listens and spawns the Daemon. Children are forked when the kernel runs.
    ///
    /// # Errors
    ///
    /// [`ServerError::Listen`] when the address can't be bound or the listener can't be used, [`ServerError::Daemon`] when the Daemon's settings are
    /// wrong or it can't be spawned, [`ServerError::NoAddresses`], [`ServerError::NoConnections`] and [`ServerError::NoChildren`] for
    /// settings with which no client could be served. Nothing is left half done.
    pub fn spawn<K: AsKernel>(self, kernel: &mut K) -> Result<ServerHandle, ServerError> {
        let Server {
            listens,
            is_configured,
            open,
            processes,
            connections_per_child,
            prepare,
            on_child,
            peek_on,
            follow,
            daemon,
        } = self;
        let open = open.map_err(ServerError::Session)?;
        if connections_per_child == Some(0) {
            return Err(ServerError::NoConnections);
        }
        let daemon = daemon.requests_unless_set(REQUESTS).term_unless_set(Shutdown::Graceful);
        let daemon = match processes {
            None => daemon,
            Some(Processes::Fork { max_children: 0 } | Processes::PreFork { start_children: 0 }) => {
                return Err(ServerError::NoChildren);
            }
            Some(Processes::Single) => daemon.start_children(0).max_children(0),
            Some(Processes::Fork { max_children }) => daemon.start_children(0).max_children(max_children),
            Some(Processes::PreFork { start_children }) => daemon.start_children(start_children),
        };
        let daemon = if is_configured { daemon.needs_addresses() } else { daemon };
        let kernel = kernel_of(kernel);
        // Before the Daemon gives up the privileges that an address may need. A failure to accept goes to the log.
        let rota = (listens.len() > 1 || is_configured).then(|| Rc::new(Rota::default()));
        let load = Rc::new(Load::default());
        let bind = |listen: Listen| listen.bind(listener::wheel, rota.as_ref(), &load);
        let sockets: Vec<Opening> =
            listens.into_iter().map(bind).collect::<Result<_, Error>>().map_err(ServerError::Listen)?;
        let mut local_addrs: Vec<ListenAddr> = sockets.iter().map(|opening| opening.door.address.clone()).collect();
        let pool = Rc::new(Pool::new(prepare, on_child, follow, rota.filter(|_| is_configured), load));
        let session = pool::spawn(kernel, sockets, Accept::Open(open), &pool, peek_on).map_err(ServerError::Session)?;
        let outcome = daemon.spawn(kernel).and_then(|daemon| Ok((daemon, daemon.status(kernel)?.forking)));
        match outcome {
            Ok((daemon, forking)) => {
                pool.adopt(daemon, forking, connections_per_child);
                daemon.tells_of_failures(kernel).map_err(ServerError::Daemon)?;
                daemon.accepts_on_listeners_of(kernel, session).map_err(ServerError::Daemon)?;
                if is_configured {
                    let configured = listen_as_configured(daemon, session, kernel).inspect_err(|_| {
                        let _ = daemon.shutdown(kernel);
                        kernel.stop_session(session, SessionId::KERNEL);
                    })?;
                    local_addrs.extend(configured.into_iter().map(ListenAddr::Tcp));
                }
                Ok(ServerHandle { daemon, session, local_addrs: local_addrs.leak() })
            }
            Err(error) => {
                kernel.stop_session(session, SessionId::KERNEL);
                Err(ServerError::Daemon(error))
            }
        }
    }
}

/// Has the session listen on what the configuration says. Returns these addresses.
fn listen_as_configured(
    daemon: Daemon,
    session: SessionId,
    kernel: &mut Kernel,
) -> Result<Vec<SocketAddr>, ServerError> {
    let addresses = daemon.addresses(kernel).map_err(ServerError::Daemon)?;
    if addresses.is_empty() {
        return Err(ServerError::NoAddresses);
    }
    let listens = kernel.call(session, "listen", ()).and_then(|reply| reply.take::<Result<(), Error>>());
    listens.and_then(|listens| listens).map_err(ServerError::Listen)?;
    Ok(addresses)
}

/// How many connections a child of a pool serves before it is replaced, unless set: enough for the fork not to matter, few
/// enough for whatever leaks.
const REQUESTS: u64 = 1000;

//! Where a server listens: the settings of one listener.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use super::complaints::Complaints;
use super::load::Load;
use super::secure::Secure;
use crate::error::Error;
use crate::wheel::{Address, Bound, Rota, SocketFactory, SocketFactoryBuilder};

/// One place where a server listens, and how.
///
/// A [`Server`](super::Server) has any number of them for one protocol and one pool, a [`TcpServer`](super::TcpServer) has one.
///
/// ```
/// use lenore::Kernel;
/// use lenore::component::{Listen, Protocol, Server};
/// use lenore::filter::Line;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let path = std::env::temp_dir().join(format!("lenore-listen-{}", std::process::id()));
/// let echo = Protocol::new(Line::new()).on_input(|cx, line: String| cx.heap().put(line));
/// let mut kernel = Kernel::new()?;
/// let server = Server::on(Listen::tcp("127.0.0.1:0").name("public"), echo)
///     .listen(Listen::unix(&path))
///     .listen(Listen::tcp("127.0.0.1:0").proxy_protocol())
///     .spawn(&mut kernel)?;
/// for address in server.local_addrs() {
///     println!("listening on {address}");
/// }
/// # assert_eq!(server.local_addrs().len(), 3);
/// # server.daemon().shutdown(&mut kernel)?;
/// kernel.run()?;
/// # assert!(!path.exists());
/// # Ok(())
/// # }
/// ```
///
/// POE: `Address`, `Port` and `Domain` of `POE::Component::Server::TCP`, which has one place.
#[must_use = "does nothing until a server has it"]
pub struct Listen {
    place: Place,
    name: Option<String>,
    proxy: Option<Duration>,
    secure: Option<Secure>,
}

enum Place {
    Tcp(Address),
    Unix(PathBuf),
    Descriptor(OwnedFd),
}

impl Listen {
    /// Listens on `address`, `host:port`, with port 0 for any free one. A host name is looked up, which blocks. An empty address is an
    /// error, unless the listener has a [`name`](Listen::name).
    pub fn tcp(address: impl Into<Address>) -> Listen {
        Listen::at(Place::Tcp(address.into()))
    }

    /// Listens on a UNIX stream socket at `path`.
    ///
    /// A socket that a process which was killed has left there is removed first. The path goes with the server. See
    /// [`SocketFactoryBuilder::unlink_path`](crate::wheel::SocketFactoryBuilder::unlink_path). Who may connect is for the permissions
    /// of the directory, and the process's umask, to say.
    pub fn unix(path: impl Into<PathBuf>) -> Listen {
        Listen::at(Place::Unix(path.into()))
    }

    /// Takes over a stream socket that listens already, of TCP or a UNIX one: a [`TcpListener`](std::net::TcpListener), a
    /// [`UnixListener`](std::os::unix::net::UnixListener), or the descriptor of one.
    ///
    /// What systemd has passed needs no such call: see [`name`](Listen::name).
    pub fn descriptor(listener: impl Into<OwnedFd>) -> Listen {
        Listen::at(Place::Descriptor(listener.into()))
    }

    fn at(place: Place) -> Listen {
        Listen { place, name: None, proxy: None, secure: None }
    }

    /// Names the listener: a socket of this name that systemd has passed is taken over, wherever it is bound. Default: none, and a
    /// socket is taken over that is bound to the listener's address.
    ///
    /// The name is also what [`Connection::listener_name`](super::Connection::listener_name) tells. For sockets that systemd passes
    /// see [`SocketFactoryBuilder::listener_name`](crate::wheel::SocketFactoryBuilder::listener_name).
    #[doc(alias("LISTEN_FDNAMES", "FileDescriptorName"))]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Expects the header of the PROXY protocol, version 1 or 2, at the beginning of each connection. HAProxy, nginx and load
    /// balancers send it, to tell whom they pass on.
    ///
    /// [`Connection::remote_addr`](super::Connection::remote_addr) is then the client's address, and
    /// [`Connection::proxy_addr`](super::Connection::proxy_addr) the proxy's. No callback of the protocol runs before the header is
    /// there. A connection without a valid header, or whose header takes longer than
    /// [`proxy_timeout`](Listen::proxy_timeout), is closed. The log has a line for it, at most one a minute for each listener in each
    /// process.
    ///
    /// A client that can connect to such a listener can claim any address. Make the listener reachable for the proxy only.
    #[doc(alias("HAProxy", "send-proxy"))]
    pub fn proxy_protocol(self) -> Self {
        self.proxy_timeout(PROXY_TIMEOUT)
    }

    /// Expects the header of the [PROXY protocol](Listen::proxy_protocol), and sets how long it may take. Default: 3 s.
    pub fn proxy_timeout(mut self, timeout: Duration) -> Self {
        self.proxy = Some(timeout);
        self
    }

    /// Speaks TLS with each client, with these settings. The handshake is done in the process that has the connection.
    ///
    /// Behind a proxy that uses the [PROXY protocol](Listen::proxy_protocol) TLS begins after the header. No callback of the protocol
    /// but `pre_connect` runs before the handshake is done: [`Protocol::on_connect`](super::Protocol::on_connect) comes then, and
    /// [`Connection::tls`](super::Connection::tls) tells what was agreed on. A client whose handshake fails never was a connection:
    /// it gets an alert, and the log has a line.
    ///
    /// ```no_run
    /// use lenore::component::{Listen, Protocol, Server};
    /// use lenore::filter::Line;
    /// use lenore::{Kernel, tls};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let tls = tls::Server::pem("cert.pem", "key.pem").build()?;
    /// let echo = Protocol::new(Line::new()).on_input(|cx, line: String| cx.heap().put(line));
    /// let mut kernel = Kernel::new()?;
    /// Server::on(Listen::tcp("[::]:7777").tls(tls), echo).processes("prefork".parse()?).spawn(&mut kernel)?;
    /// kernel.run()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// POE: `Server_SSLify` of `POE::Component::SSLify`.
    #[cfg(feature = "tls")]
    #[doc(alias("SSLify", "HTTPS"))]
    pub fn tls(mut self, settings: crate::tls::Server) -> Self {
        self.secure = Some(Secure::Server(settings));
        self
    }

    pub(super) fn set_name(&mut self, name: String) {
        self.name = Some(name);
    }

    /// Binds the socket, and listens. The caller says what the wheel sends.
    ///
    /// # Errors
    ///
    /// As [`SocketFactoryBuilder::listen`].
    pub(super) fn bind(
        self,
        settings: impl FnOnce(SocketFactoryBuilder) -> SocketFactoryBuilder,
        rota: Option<&Rc<Rota>>,
        load: &Rc<Load>,
    ) -> Result<Opening, Error> {
        let Listen { place, name, proxy, secure } = self;
        let mut wheel = match place {
            // For the wheel it is a random port of all interfaces. Here a setting of the program is missing.
            Place::Tcp(address) if name.is_none() && address.to_string().is_empty() => {
                return Err(Error::InvalidAddress {
                    address: String::new(),
                    reason: "it is empty, and needs a host, a port or both",
                });
            }
            Place::Tcp(address) => SocketFactory::tcp(address),
            Place::Unix(path) => SocketFactory::unix(path).unlink_path(),
            Place::Descriptor(fd) => SocketFactoryBuilder::given(fd),
        };
        if let Some(name) = &name {
            wheel = wheel.listener_name(name.as_str());
        }
        if let Some(rota) = rota {
            wheel = wheel.takes_turns(Rc::clone(rota));
        }
        let socket = settings(wheel).bind_listener()?;
        let address = match socket.local_path()? {
            Some(path) => ListenAddr::Unix(path),
            None => ListenAddr::Tcp(socket.local_addr()?),
        };
        Ok(Opening {
            socket,
            door: Rc::new(Door {
                name,
                address,
                proxy,
                secure,
                complaints: Complaints::default(),
                complaints_of_input: Complaints::default(),
                load: Rc::clone(load),
                complaints_of_tls: Complaints::default(),
            }),
        })
    }
}

impl fmt::Debug for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        f.debug_struct("Listen").field("place", &self.place).field("name", name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Tcp(address) => address.fmt(f),
            Place::Unix(path) => path.display().fmt(f),
            Place::Descriptor(fd) => write!(f, "descriptor {}", fd.as_raw_fd()),
        }
    }
}

/// Where a server listens in fact.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ListenAddr {
    /// On an address of TCP.
    Tcp(SocketAddr),
    /// On a path, or on a name in the abstract namespace, which begins with a zero byte.
    Unix(PathBuf),
}

impl ListenAddr {
    /// Returns the address of TCP; `None` for a UNIX socket.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            ListenAddr::Tcp(address) => Some(*address),
            ListenAddr::Unix(_) => None,
        }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddr::Tcp(address) => address.fmt(f),
            ListenAddr::Unix(path) => Address::from(path.as_path()).fmt(f),
        }
    }
}

/// A listener that is bound, and has no wheel yet.
pub(super) struct Opening {
    pub(super) socket: Bound,
    pub(super) door: Rc<Door>,
}

/// What the connections of a listener have to know of it.
pub(super) struct Door {
    pub(super) name: Option<String>,
    pub(super) address: ListenAddr,
    /// It expects the header of the PROXY protocol, within this time.
    pub(super) proxy: Option<Duration>,
    /// It speaks TLS.
    pub(super) secure: Option<Secure>,
    pub(super) complaints: Complaints,
    pub(super) complaints_of_input: Complaints,
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "there are no handshakes"))]
    pub(super) complaints_of_tls: Complaints,
    /// What its connections have in hand, and those of the other listeners of its session.
    pub(super) load: Rc<Load>,
}

/// How long the header of the PROXY protocol may take, unless set.
const PROXY_TIMEOUT: Duration = Duration::from_secs(3);

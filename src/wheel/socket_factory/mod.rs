//! `SocketFactory`: makes sockets. It accepts them from a listener, connects them, or only binds them.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;

use nix::errno::Errno;

use super::WheelId;
use crate::error::Error;
use crate::kernel::Source;
use crate::name::Name;

mod address;
mod attempts;
mod builder;
mod clash;
mod connecting;
mod datagram;
mod inheriting;
pub(super) mod listening;
pub(super) mod report;
mod resolving;
mod rota;
mod socket;

pub use address::{Address, Domain};
pub use builder::SocketFactoryBuilder;

pub(crate) use builder::Bound;
pub(crate) use clash::clash;
pub(crate) use rota::Rota;

use builder::Transport;
use connecting::Connector;
use datagram::Local;
use listening::{Acceptor, Listener};
use report::Report;
use resolving::Resolving;
use socket::BoundPath;

/// A wheel that makes sockets: it listens and accepts connections, connects, or binds a datagram socket.
///
/// # The success event
///
/// ARG0 is the socket, which does not block. ARG3 is the [`WheelId`]. ARG1 and ARG2 are the peer's address:
///
/// | made by | then | ARG0 | ARG1 | ARG2 |
/// | --- | --- | --- | --- | --- |
/// | [`tcp`] | `listen`, `connect` | [`TcpStream`] | its [`IpAddr`] | its port, `u16` |
/// | [`unix`] | `listen`, `connect` | [`UnixStream`] | its path, [`PathBuf`] | `()` |
/// | [`udp`] | `connect` | [`UdpSocket`] | its [`IpAddr`] | its port, `u16` |
/// | [`udp`] | `bind` | [`UdpSocket`] | `()` | `()` |
/// | [`unix_datagram`] | `connect` | [`UnixDatagram`] | its path, [`PathBuf`] | `()` |
/// | [`unix_datagram`] | `bind` | [`UnixDatagram`] | `()` | `()` |
///
/// The path is empty for a UNIX client that is not bound. An abstract name begins with a zero byte.
///
/// The state that takes the socket owns it. A stream usually goes into a [`ReadWrite`](super::ReadWrite), a datagram
/// socket into a [`Handle`](crate::Handle) for [`select_read`](crate::Context::select_read). If no state takes the
/// socket, it is closed.
///
/// # What goes wrong
///
/// - A wrong call returns an error at once. [`Error::InvalidSetting`] is most often a missing success event.
///   [`Error::InvalidAddress`] is a text that is not an address, or an address without a port to connect to.
/// - `connect` reports everything else with the error event, even a failure that it finds at once. It posts such a
///   failure, so the event arrives even if the wheel is dropped before.
/// - `listen` and `bind` return everything else, such as an address that is in use. After
///   [`post_failures`](SocketFactoryBuilder::post_failures) they post the error event instead, as in POE.
/// - Later failures, such as a process that runs out of file descriptors, are error events: see
///   [`on_error`](SocketFactoryBuilder::on_error). Without an error event they are logged.
///
/// ARG0 of the error event is a [`Failure`](super::Failure). Its operation is one of these:
///
/// - `"getaddrinfo"` with `EADDRNOTAVAIL` for a host that is not found
/// - `"getservbyname"` with `EADDRNOTAVAIL` for a service that is not found
/// - `"pack_sockaddr_un"` for a path that is too long
/// - the system call that failed: `"socket"`, `"setsockopt"`, `"bind"`, `"listen"`, `"accept"`, `"connect"` or
///   `"getpeername"`
///
/// # Sockets that were inherited
///
/// systemd, and launchers like it, open sockets before they start a program, and pass them with `LISTEN_FDS`. `listen`
/// and `bind` take over such a socket instead of making one. The program need not ask for it. They look for a socket in
/// this order:
///
/// - by the wheel's [`listener_name`](SocketFactoryBuilder::listener_name), at whatever address. The launcher gives the
///   name, such as `FileDescriptorName=` in a systemd socket unit. If several sockets have one name, each wheel gets
///   the next. A socket of that name but of another type is an error.
/// - by the wheel's address. The whole address must be equal: `0.0.0.0:80` and `[::]:80` differ. Port 0 never matches.
///   Symbolic links in a path are followed before it is compared.
///
/// A wheel never takes a socket just because it is the only one. A program may have several listeners, and the first to
/// ask may be one that strangers must not reach.
///
/// The listener also accepts clients that connected before the program started. The socket keeps the options that the
/// launcher has set, except for the queue: [`listen_queue`](SocketFactoryBuilder::listen_queue) sets it anew, and logs
/// that. The path of an inherited UNIX socket stays, even after [`unlink_path`](SocketFactoryBuilder::unlink_path).
///
/// [`SocketFactory::inherited`] takes an inherited socket by name, and fails if there is none. When a
/// [`Daemon`](crate::Daemon) begins to serve, it closes inherited sockets that no wheel has taken, and logs that. See
/// also [`Kernel::new`](crate::Kernel::new).
///
/// # Forks
///
/// A forked child keeps a listener, and both processes accept from one backlog. A socket that is still connecting stays
/// with the parent only.
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
///         let client = SocketFactory::tcp(listener.local_addr()?).on_connect("connected").on_error("failed");
///         let client = client.connect(cx)?;
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
///
/// [`IpAddr`]: std::net::IpAddr
/// [`TcpStream`]: std::net::TcpStream
/// [`UdpSocket`]: std::net::UdpSocket
/// [`UnixDatagram`]: std::os::unix::net::UnixDatagram
/// [`UnixStream`]: std::os::unix::net::UnixStream
/// [`tcp`]: SocketFactory::tcp
/// [`udp`]: SocketFactory::udp
/// [`unix`]: SocketFactory::unix
/// [`unix_datagram`]: SocketFactory::unix_datagram
#[must_use = "a wheel that is dropped is closed: keep it in the heap"]
pub struct SocketFactory {
    report: Rc<Report>,
    job: Job,
}

/// What the wheel does.
enum Job {
    Listening(Rc<Acceptor>),
    Connecting(Rc<Connector>),
    /// Waits until a name is looked up, and then connects.
    Resolving(Rc<Resolving>),
    /// Nothing any more, as the wheel has handed the socket over. The wheel keeps the socket's path until it is
    /// dropped.
    HandedOver {
        local: Local,
        _path: Option<BoundPath>,
    },
    /// Nothing, as the wheel has failed and reported that.
    Failed,
}

/// One of the events of a [`SocketFactory`] or a [`ListenAccept`](super::ListenAccept), for their `event` methods.
///
/// POE: `SuccessEvent` and `FailureEvent`, or `AcceptEvent` and `ErrorEvent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SocketEvent {
    /// A socket is ready: accepted, connected or bound.
    Success,
    /// Accepting, connecting or binding has failed.
    #[doc(alias = "FailureEvent")]
    Error,
}

impl SocketFactory {
    /// Returns the builder of a wheel for TCP over IPv4 or IPv6. The wheel can [`listen`](SocketFactoryBuilder::listen)
    /// at `address`, or [`connect`](SocketFactoryBuilder::connect) to it. Looking up a name blocks the program: see
    /// [`Address`].
    ///
    /// POE: `new` with SocketProtocol `tcp`, its default.
    #[doc(alias("SocketProtocol", "RemoteAddress", "RemotePort"))]
    pub fn tcp(address: impl Into<Address>) -> SocketFactoryBuilder {
        SocketFactoryBuilder::new(Transport::Tcp, address.into())
    }

    /// Returns the builder of a wheel for UDP over IPv4 or IPv6. The wheel can [`bind`](SocketFactoryBuilder::bind) a
    /// socket to `address`, or [`connect`](SocketFactoryBuilder::connect) one to it.
    ///
    /// The session gets the socket, and watches it with [`select_read`](crate::Context::select_read) or a [wheel of its
    /// own](super::own) for datagrams. A [`ReadWrite`](super::ReadWrite) refuses the socket, because datagrams are not
    /// a stream.
    ///
    /// The socket does not block, so each receive may fail with `WouldBlock`. That is not an error. Either the datagram
    /// had a wrong checksum, or another process has received it.
    ///
    /// ```
    /// use std::io::ErrorKind;
    /// use std::net::UdpSocket;
    /// use lenore::{Handle, Kernel, Readiness, Session};
    /// use lenore::wheel::SocketFactory;
    ///
    /// # fn main() -> Result<(), lenore::Error> {
    /// let mut kernel = Kernel::new()?;
    /// Session::new(None)
    ///     .state("_start", |cx| {
    ///         SocketFactory::udp("127.0.0.1:0").on_bind("bound").bind(cx)?;
    ///         Ok(())
    ///     })
    ///     .state("bound", |cx| {
    ///         let socket: UdpSocket = cx.take(0)?;
    ///         socket.send_to(b"hello", socket.local_addr()?)?;
    ///         cx.select_read(&Handle::duplicate(&socket)?, "datagram", ())?;
    ///         *cx.heap() = Some(socket);
    ///         Ok(())
    ///     })
    ///     .state("datagram", |cx| {
    ///         let handle: Handle = cx.take(0)?;
    ///         let mut octets = [0; 100];
    ///         let socket = cx.heap().as_ref().expect("it is bound");
    ///         let (length, _peer) = match socket.recv_from(&mut octets) {
    ///             Ok(received) => received,
    ///             Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()), // nothing for this process
    ///             Err(error) => return Err(error.into()),
    ///         };
    ///         assert_eq!(&octets[..length], b"hello");
    ///         cx.select_read_clear(&handle);
    ///         Ok(())
    ///     })
    ///     .spawn(&mut kernel)?;
    /// kernel.run()
    /// # }
    /// ```
    ///
    /// # UDP in a pool of children
    ///
    /// If a program binds a socket before it forks, all children share that socket and its queue. A datagram wakes
    /// every child that watches the socket. One child receives it, and the others get `WouldBlock`. Two datagrams of
    /// one peer may go to different children, and be answered out of order.
    ///
    /// The Daemon does not see datagrams. A child reports each one that it serves with
    /// [`update_status`](crate::Daemon::update_status), as for connections. While the child is busy, it should clear
    /// its watcher, so that further datagrams wake only other children.
    ///
    /// There are two alternatives. One child receives for all. Or each child binds its own socket with `SO_REUSEPORT`
    /// after the fork, and the system chooses the child by the peer's address.
    ///
    /// POE: `new` with SocketProtocol `udp`.
    pub fn udp(address: impl Into<Address>) -> SocketFactoryBuilder {
        SocketFactoryBuilder::new(Transport::Udp, address.into())
    }

    /// Returns the builder of a wheel for UNIX stream sockets. The wheel can [`listen`](SocketFactoryBuilder::listen)
    /// at `path`, or [`connect`](SocketFactoryBuilder::connect) to it.
    ///
    /// When the listener is dropped, the path stays, as in POE, unless the program calls
    /// [`unlink_path`](SocketFactoryBuilder::unlink_path). On Linux, a path that begins with a zero byte is a name in
    /// the abstract namespace, not a file.
    ///
    /// POE: `new` with SocketDomain `AF_UNIX`.
    pub fn unix(path: impl Into<Address>) -> SocketFactoryBuilder {
        SocketFactoryBuilder::new(Transport::Unix, path.into())
    }

    /// Returns the builder of a wheel for UNIX datagram sockets. The wheel can [`bind`](SocketFactoryBuilder::bind) one
    /// to `path`, or [`connect`](SocketFactoryBuilder::connect) one to it. To get answers, a socket that connects needs
    /// its own path: [`bind_address`](SocketFactoryBuilder::bind_address).
    ///
    /// POE: `new` with SocketDomain `AF_UNIX` and SocketType `SOCK_DGRAM`.
    pub fn unix_datagram(path: impl Into<Address>) -> SocketFactoryBuilder {
        SocketFactoryBuilder::new(Transport::UnixDatagram, path.into())
    }

    /// Returns the builder of a wheel for a socket that this process has inherited under the name `name`. Call
    /// [`listen`](SocketFactoryBuilder::listen) for a TCP or UNIX stream socket, [`bind`](SocketFactoryBuilder::bind)
    /// for a datagram socket. The arguments of the success event are those of the socket's type.
    ///
    /// systemd calls a socket without a name `unknown`. If several sockets have one name, each call gets the next.
    ///
    /// # Errors
    ///
    /// `listen` and `bind` fail with [`Error::NotInherited`] if there is no such socket. The error lists the names that
    /// there are.
    ///
    /// ```no_run
    /// # use lenore::wheel::SocketFactory;
    /// # fn start(cx: &mut lenore::Context<'_, Option<SocketFactory>>) -> lenore::Result {
    /// let listener = SocketFactory::inherited("http").on_accept("accept").on_error("failed").listen(cx)?;
    /// # *cx.heap() = Some(listener);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// POE: nothing like it.
    #[doc(alias("LISTEN_FDS", "LISTEN_FDNAMES", "sd_listen_fds", "socket activation"))]
    pub fn inherited(name: impl Into<String>) -> SocketFactoryBuilder {
        SocketFactoryBuilder::inherited(name.into())
    }

    /// Returns the id that the wheel's events carry.
    ///
    /// POE: `ID`.
    #[doc(alias = "ID")]
    pub fn id(&self) -> WheelId {
        self.report.id
    }

    /// Returns the address that the socket is bound to. This tells which port a listener on port 0 has got.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] with `ENOTCONN` if the wheel no longer has a socket, as after it has connected, or with
    /// `EAFNOSUPPORT` if the socket is a UNIX socket.
    ///
    /// POE: `getsockname`.
    #[doc(alias = "getsockname")]
    pub fn local_addr(&self) -> Result<SocketAddr, Error> {
        self.local().and_then(Local::addr).map_err(|error| Error::os("getsockname", self.id(), error))
    }

    /// Returns the path that the UNIX socket is bound to. The path is empty if the socket is not bound.
    ///
    /// # Errors
    ///
    /// As [`local_addr`](SocketFactory::local_addr), but with `EAFNOSUPPORT` if the socket is not a UNIX socket.
    ///
    /// POE: `getsockname`.
    #[doc(alias = "getsockname")]
    pub fn local_path(&self) -> Result<PathBuf, Error> {
        let path = self.local().and_then(|local| match local {
            Local::Path(path) => Ok(path),
            Local::Addr(_) => Err(Errno::EAFNOSUPPORT.into()),
        });
        path.map_err(|error| Error::os("getsockname", self.id(), error))
    }

    fn local(&self) -> io::Result<Local> {
        match &self.job {
            Job::Listening(acceptor) => acceptor.with_listener(Listener::local),
            Job::Connecting(connector) => connector.local(),
            Job::Resolving(resolving) => resolving.local(),
            Job::HandedOver { local, .. } => Ok(local.clone()),
            Job::Failed => Err(Errno::ENOTCONN.into()),
        }
    }

    /// Stops accepting until [`resume_accept`](SocketFactory::resume_accept). Clients wait in the backlog. Another
    /// process that listens on the same socket may accept them. Without a listener, this call has no effect.
    ///
    /// POE: `pause_accept`.
    pub fn pause_accept(&self) {
        if let Job::Listening(acceptor) = &self.job {
            acceptor.set_paused(true);
        }
    }

    /// Accepts connections again after [`pause_accept`](SocketFactory::pause_accept).
    ///
    /// POE: `resume_accept`.
    pub fn resume_accept(&self) {
        if let Job::Listening(acceptor) = &self.job {
            acceptor.set_paused(false);
        }
    }

    /// Asks the system whether a client waits to be accepted.
    pub(crate) fn has_client(&self) -> bool {
        matches!(&self.job, Job::Listening(acceptor) if acceptor.has_client())
    }

    /// Changes the name of one of the wheel's events, from the next event on. An event can't be taken away.
    ///
    /// POE: `event`.
    pub fn event(&self, event: SocketEvent, name: impl Into<Name>) {
        self.report.set_event(event, name.into());
    }
}

impl Drop for SocketFactory {
    fn drop(&mut self) {
        match &self.job {
            Job::Listening(acceptor) => acceptor.let_go(),
            Job::Connecting(connector) => connector.let_go(),
            Job::Resolving(resolving) => resolving.let_go(),
            Job::HandedOver { .. } | Job::Failed => {}
        }
    }
}

impl fmt::Debug for SocketFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SocketFactory({})", self.id())
    }
}

//! `SocketFactory`: makes sockets, by accepting, by connecting, or by just binding them.

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
/// ARG0 is the socket, which does not block; ARG3 is the [`WheelId`]. The peer stands between them:
///
/// | begun with | told to | ARG0 | ARG1 | ARG2 |
/// | --- | --- | --- | --- | --- |
/// | [`tcp`] | `listen`, `connect` | [`TcpStream`] | its [`IpAddr`] | its port, `u16` |
/// | [`unix`] | `listen`, `connect` | [`UnixStream`] | its path, [`PathBuf`] | `()` |
/// | [`udp`] | `connect` | [`UdpSocket`] | its [`IpAddr`] | its port, `u16` |
/// | [`udp`] | `bind` | [`UdpSocket`] | `()` | `()` |
/// | [`unix_datagram`] | `connect` | [`UnixDatagram`] | its path, [`PathBuf`] | `()` |
/// | [`unix_datagram`] | `bind` | [`UnixDatagram`] | `()` | `()` |
///
/// The path of a UNIX client that is not bound is empty; that of an abstract name begins with a zero byte. The socket
/// belongs to whoever takes it, a stream usually for a [`ReadWrite`](super::ReadWrite), a datagram socket for a
/// [`Handle`](crate::Handle) and [`select_read`](crate::Context::select_read); one that nobody takes is closed.
///
/// # What goes wrong
///
/// - A wrong call is an error at once: [`Error::InvalidSetting`], above all for want of a success event, or
///   [`Error::InvalidAddress`], for a text that is no address, or one without a port to connect to.
/// - `connect` reports all else with the error event, be it found at once or later: whoever connects has to handle it
///   anyway. What was found at once is posted, and arrives even if the wheel has gone by then.
/// - `listen` and `bind` return all else that they find out: a server that can't have its address hears of it where it
///   asks. After [`post_failures`](SocketFactoryBuilder::post_failures) it is the error event, as in POE.
/// - What goes wrong later is the error event: when there is no descriptor left for a connection, it waits in the
///   backlog, and the listener tries again every tenth of a second. Without an error event it is logged.
///
/// The error event has ARG0 = a [`Failure`](super::Failure). Its operation is `"getaddrinfo"` for a host that is not found,
/// `"getservbyname"` for a service (both with
/// `EADDRNOTAVAIL`), `"pack_sockaddr_un"` for a path that is too long, or the system call: `"socket"`, `"setsockopt"`,
/// `"bind"`, `"listen"`, `"accept"`, `"connect"`, `"getpeername"`.
///
/// # Sockets that were inherited
///
/// systemd, and launchers like it, open sockets before they start a program, and pass them by `LISTEN_FDS`. `listen` and `bind` take
/// over such a socket instead of making one, without a word of the program:
///
/// - the one of the wheel's [`listener_name`](SocketFactoryBuilder::listener_name), wherever it is bound. The names come with the
///   sockets: `FileDescriptorName=` in a socket unit of systemd. Of several with one name each wheel gets the next. A socket of the
///   name that is of another type is an error.
/// - else the one that is bound to the wheel's address. All of the address counts: `0.0.0.0:80` and `[::]:80` are two. Port 0 is no
///   address. A path is compared after symbolic links were followed.
///
/// A socket is never taken because there is no other. A program may have several listeners, and the first to ask may be one that
/// strangers must not reach.
///
/// Clients that have connected before the program was started are accepted. The socket's options are the launcher's, except for the
/// queue: [`listen_queue`](SocketFactoryBuilder::listen_queue), if it was called, sets the queue anew, and the log says so. The
/// path of a UNIX socket is left in place, also with [`unlink_path`](SocketFactoryBuilder::unlink_path).
///
/// [`SocketFactory::inherited`] asks for a socket by name and is not content with another one. What no wheel has asked for is closed
/// when a [`Daemon`](crate::Daemon) begins to serve, with a line in the log. See also [`Kernel::new`](crate::Kernel::new).
///
/// # Forks
///
/// A forked child keeps a listener, and both accept from one backlog; a socket that is still connecting is its
/// parent's.
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
    /// Waits for a name, and then connects.
    Resolving(Rc<Resolving>),
    /// Nothing any more: the socket was handed over. Its path goes with the wheel.
    HandedOver {
        local: Local,
        _path: Option<BoundPath>,
    },
    /// Nothing: it has failed, and said so.
    Failed,
}

/// One of the events of a [`SocketFactory`] or a [`ListenAccept`](super::ListenAccept), to be changed by `event`.
///
/// POE: `SuccessEvent` and `FailureEvent`, or `AcceptEvent` and `ErrorEvent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SocketEvent {
    /// A socket was made.
    Success,
    /// Something has failed.
    #[doc(alias = "FailureEvent")]
    Error,
}

impl SocketFactory {
    /// Begins a wheel for TCP, over IPv4 or IPv6: to [`listen`](SocketFactoryBuilder::listen) at `address`, or to
    /// [`connect`](SocketFactoryBuilder::connect) to it. A name is looked up, which blocks: see [`Address`].
    ///
    /// POE: `new` with SocketProtocol `tcp`, its default.
    #[doc(alias("SocketProtocol", "RemoteAddress", "RemotePort"))]
    pub fn tcp(address: impl Into<Address>) -> SocketFactoryBuilder {
        SocketFactoryBuilder::new(Transport::Tcp, address.into())
    }

    /// Begins a wheel for UDP, over IPv4 or IPv6: to [`bind`](SocketFactoryBuilder::bind) a socket to `address`, or to
    /// [`connect`](SocketFactoryBuilder::connect) one to it.
    ///
    /// The socket is not the wheel's: its session watches it with [`select_read`](crate::Context::select_read), or has a
    /// [wheel of its own](super::own) for datagrams. A [`ReadWrite`](super::ReadWrite) refuses it, as datagrams are no stream.
    ///
    /// The socket does not block, so each receive may fail with `WouldBlock`. That is not an error: the datagram had a wrong
    /// checksum, or another process has received it.
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
    /// A socket that was bound before the fork is one socket with one queue, in all children. A datagram wakes every child that
    /// watches it; one of them gets it, the others get `WouldBlock`. Two datagrams of one peer may go to different children, and
    /// be answered out of order. The Daemon does not see datagrams. A child reports each one that it serves by
    /// [`update_status`](crate::Daemon::update_status), as for connections. While it is busy it clears its watcher, so that datagrams
    /// wake other children alone. Alternatives are one child that receives for all, and a socket for each child, bound after the
    /// fork with `SO_REUSEPORT`. Then the system chooses the child by the peer's address.
    ///
    /// POE: `new` with SocketProtocol `udp`.
    pub fn udp(address: impl Into<Address>) -> SocketFactoryBuilder {
        SocketFactoryBuilder::new(Transport::Udp, address.into())
    }

    /// Begins a wheel for UNIX stream sockets: to [`listen`](SocketFactoryBuilder::listen) at `path`, or to
    /// [`connect`](SocketFactoryBuilder::connect) to it.
    ///
    /// The path stays when the listener goes, as in POE, unless [`unlink_path`](SocketFactoryBuilder::unlink_path) says
    /// otherwise. On Linux a path that begins with a zero byte is a name in the abstract namespace, and no file.
    ///
    /// POE: `new` with SocketDomain `AF_UNIX`.
    pub fn unix(path: impl Into<Address>) -> SocketFactoryBuilder {
        SocketFactoryBuilder::new(Transport::Unix, path.into())
    }

    /// Begins a wheel for UNIX datagram sockets: to [`bind`](SocketFactoryBuilder::bind) one to `path`, or to
    /// [`connect`](SocketFactoryBuilder::connect) one to it. One that is to get answers needs a path of its own,
    /// [`bind_address`](SocketFactoryBuilder::bind_address).
    ///
    /// POE: `new` with SocketDomain `AF_UNIX` and SocketType `SOCK_DGRAM`.
    pub fn unix_datagram(path: impl Into<Address>) -> SocketFactoryBuilder {
        SocketFactoryBuilder::new(Transport::UnixDatagram, path.into())
    }

    /// Begins a wheel for a socket that was passed to this process by the name `name`: to
    /// [`listen`](SocketFactoryBuilder::listen) on a stream socket, of TCP or a UNIX one, or to
    /// [`bind`](SocketFactoryBuilder::bind) a datagram socket. The arguments of the success event are those of the socket's type.
    ///
    /// A socket without a name is called `unknown` by systemd. Of several with one name each call gets the next.
    ///
    /// # Errors
    ///
    /// `listen` and `bind` fail with [`Error::NotInherited`] if there is no such socket, and name those that there are.
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

    /// Returns the id that its events carry.
    ///
    /// POE: `ID`.
    #[doc(alias = "ID")]
    pub fn id(&self) -> WheelId {
        self.report.id
    }

    /// Returns the address that its socket is bound to: the port that a listener was given, above all.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] with `ENOTCONN` when the wheel has no socket any more, as after it has connected; with
    /// `EAFNOSUPPORT` when it is a UNIX socket.
    ///
    /// POE: `getsockname`.
    #[doc(alias = "getsockname")]
    pub fn local_addr(&self) -> Result<SocketAddr, Error> {
        self.local().and_then(Local::addr).map_err(|error| Error::os("getsockname", self.id(), error))
    }

    /// Returns the path that its UNIX socket is bound to, empty if it is not.
    ///
    /// # Errors
    ///
    /// As [`local_addr`](SocketFactory::local_addr), with `EAFNOSUPPORT` when it is no UNIX socket.
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

    /// Stops accepting until [`resume_accept`](SocketFactory::resume_accept); clients wait in the backlog, where
    /// another process that listens on the same socket may accept them. Does nothing to a wheel that does not listen.
    ///
    /// POE: `pause_accept`.
    pub fn pause_accept(&self) {
        if let Job::Listening(acceptor) = &self.job {
            acceptor.set_paused(true);
        }
    }

    /// Accepts connections again.
    ///
    /// POE: `resume_accept`.
    pub fn resume_accept(&self) {
        if let Job::Listening(acceptor) = &self.job {
            acceptor.set_paused(false);
        }
    }

    /// Tells whether a client waits to be accepted. Asks the system.
    pub(crate) fn has_client(&self) -> bool {
        matches!(&self.job, Job::Listening(acceptor) if acceptor.has_client())
    }

    /// Changes the name of one of the wheel's events, from the next one on; neither can be taken away.
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

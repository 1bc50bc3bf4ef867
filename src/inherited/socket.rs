//! A socket that was inherited: what it is, and whether it can be used.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt};

use crate::handover::Passed;
use crate::sys::descriptors::set_nonblocking;

/// Where a socket is bound.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Ip(SocketAddr),
    /// Empty for a socket without a name, with a leading zero byte for a name in Linux's abstract namespace.
    Path(PathBuf),
}

impl Place {
    /// Tells whether a socket could be found here.
    pub(crate) fn is_somewhere(&self) -> bool {
        self.is(self)
    }

    /// Tells whether this is a path in the file system.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self, Place::Path(path) if !matches!(path.as_os_str().as_bytes(), [] | [0, ..]))
    }

    /// Tells whether both are one address. Port 0 is any port, and so no address. Paths are one if they lead to one file.
    pub(super) fn is(&self, other: &Place) -> bool {
        match (self, other) {
            (Place::Ip(SocketAddr::V4(one)), Place::Ip(SocketAddr::V4(other))) => one.port() != 0 && one == other,
            (Place::Ip(SocketAddr::V6(one)), Place::Ip(SocketAddr::V6(other))) => {
                let parts = |address: &std::net::SocketAddrV6| (*address.ip(), address.port(), address.scope_id());
                one.port() != 0 && parts(one) == parts(other)
            }
            (Place::Path(one), Place::Path(other)) => is_one_path(one, other),
            _ => false,
        }
    }
}

fn is_one_path(one: &Path, other: &Path) -> bool {
    let first = |path: &Path| path.as_os_str().as_bytes().first().copied();
    match (first(one), first(other)) {
        (None, _) | (_, None) => false,
        (Some(0), _) | (_, Some(0)) => one == other,
        _ => resolved(one) == resolved(other),
    }
}

fn resolved(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Ip(address) => address.fmt(f),
            Place::Path(path) => f.write_str(&path.to_string_lossy().replace('\0', "@")),
        }
    }
}

/// What a socket is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A stream socket that listens.
    Stream,
    Datagram,
}

/// An inherited socket.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) name: String,
    pub(crate) fd: OwnedFd,
    pub(crate) kind: Kind,
    pub(crate) place: Place,
    /// What the predecessor of this process says of it.
    pub(crate) passed: Passed,
    /// Which configuration has had it prepared, for a listener that is to come.
    pub(super) prepared_for: Option<Owner>,
    /// This process, or one before it that it was forked from, has bound it: it was not passed.
    pub(super) is_own: bool,
    /// It does not listen for now, and whether other sockets may have had its address when it did.
    pub(super) is_quiet: Option<bool>,
}

/// A configuration of this process.
pub(crate) type Owner = u64;

impl Socket {
    /// Tells whether a listener that asks for this place is meant. One that asks for any port is, if the predecessor's did.
    pub(super) fn is_at(&self, place: &Place) -> bool {
        self.place.is(place) || self.passed.asked.contains(&place.to_string())
    }

    /// Looks at a descriptor, and makes it non-blocking.
    ///
    /// # Errors
    ///
    /// Why it is none that can be used.
    pub(super) fn examine(name: &str, fd: OwnedFd) -> Result<Socket, String> {
        let what = |doing: &str, error: io::Error| match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOTSOCK) => "not a socket".to_owned(),
            _ => format!("{doing}: {error}"),
        };
        let call = |doing: &'static str| move |errno: Errno| what(doing, errno.into());
        let kind = getsockopt(&fd, sockopt::SockType).map_err(call("getsockopt"))?;
        let address: SockaddrStorage = getsockname(fd.as_raw_fd()).map_err(call("getsockname"))?;
        let family = match address.family() {
            Some(AddressFamily::Inet | AddressFamily::Inet6) => Family::Ip,
            Some(AddressFamily::Unix) => Family::Unix,
            other => return Err(format!("a socket of the family {other:?}, neither an internet nor a UNIX socket")),
        };
        let kind = match kind {
            SockType::Stream if getsockopt(&fd, sockopt::AcceptConn).map_err(call("getsockopt"))? => Kind::Stream,
            // As systemd passes with Accept=yes.
            SockType::Stream => return Err("a stream socket that does not listen".to_owned()),
            SockType::Datagram => Kind::Datagram,
            other => return Err(format!("a socket of the type {other:?}, neither stream nor datagram")),
        };
        set_nonblocking(&fd).map_err(|error| what("fcntl", error))?;
        let place = place_of(&fd, family).map_err(|error| what("getsockname", error))?;
        Ok(Socket {
            name: name.to_owned(),
            fd,
            kind,
            place,
            passed: Passed::default(),
            prepared_for: None,
            is_own: false,
            is_quiet: None,
        })
    }
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match (self.kind, &self.place) {
            (Kind::Stream, Place::Ip(_)) => "tcp",
            (Kind::Datagram, Place::Ip(_)) => "udp",
            (Kind::Stream, Place::Path(_)) => "unix",
            (Kind::Datagram, Place::Path(_)) => "unix datagram",
        };
        write!(f, "name={:?} type={kind:?} address={}", self.name, self.place)
    }
}

#[derive(Clone, Copy)]
enum Family {
    Ip,
    Unix,
}

/// Asks where a socket is bound, by a copy of the descriptor: the type of the socket makes no difference to the question.
fn place_of(fd: &OwnedFd, family: Family) -> io::Result<Place> {
    let copy = fd.try_clone()?;
    match family {
        Family::Ip => UdpSocket::from(copy).local_addr().map(Place::Ip),
        Family::Unix => UnixDatagram::from(copy).local_addr().map(|address| Place::Path(path_of(&address))),
    }
}

/// Returns the path of a UNIX address: empty for a socket that is not bound, with a leading zero byte for an abstract
/// name.
pub(crate) fn path_of(address: &std::os::unix::net::SocketAddr) -> PathBuf {
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::ffi::OsStringExt;
        if let Some(name) = address.as_abstract_name() {
            return PathBuf::from(std::ffi::OsString::from_vec([&[0], name].concat()));
        }
    }
    address.as_pathname().map(Path::to_owned).unwrap_or_default()
}

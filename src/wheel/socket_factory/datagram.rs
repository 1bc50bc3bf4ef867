//! Datagram sockets: how they are made, bound or connected, and handed over.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use nix::errno::Errno;

use super::address::{Address, Target, path_of};
use crate::args::{Args, IntoArgs};
use crate::wheel::WheelId;

/// The address that a socket is bound to.
#[derive(Debug, Clone)]
pub(super) enum Local {
    Addr(SocketAddr),
    Path(PathBuf),
}

impl Local {
    /// Returns the address, or an error for a UNIX socket.
    pub(super) fn addr(self) -> io::Result<SocketAddr> {
        match self {
            Local::Addr(address) => Ok(address),
            Local::Path(_) => Err(Errno::EAFNOSUPPORT.into()),
        }
    }
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Local::Addr(address) => address.fmt(f),
            Local::Path(path) => Address::from(path.as_path()).fmt(f),
        }
    }
}

/// A socket that is ready at once.
pub(super) enum Datagram {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl Datagram {
    /// Takes a socket of the family of `target`.
    pub(super) fn new(fd: OwnedFd, target: &Target) -> Datagram {
        match target {
            Target::Ip(_) => Datagram::Udp(fd.into()),
            Target::Unix(..) => Datagram::Unix(fd.into()),
        }
    }

    pub(super) fn local(&self) -> io::Result<Local> {
        match self {
            Datagram::Udp(socket) => socket.local_addr().map(Local::Addr),
            Datagram::Unix(socket) => socket.local_addr().map(|address| Local::Path(path_of(&address))),
        }
    }

    /// Makes the arguments of the success event. Without a peer ARG1 and ARG2 are `()`.
    pub(super) fn into_args(self, peer: Option<Target>, id: WheelId) -> Args {
        match (self, peer) {
            (Datagram::Udp(socket), Some(Target::Ip(peer))) => (socket, peer.ip(), peer.port(), id).into_args(),
            (Datagram::Udp(socket), _) => (socket, (), (), id).into_args(),
            (Datagram::Unix(socket), Some(Target::Unix(path, _))) => (socket, path, (), id).into_args(),
            (Datagram::Unix(socket), _) => (socket, (), (), id).into_args(),
        }
    }
}

//! A connection's socket, of either kind, and what becomes of it.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use super::listen::Door;
use crate::filter::Filter;
use crate::wheel::{ReadWrite, ReadWriteBuilder};

/// The socket of a connection, which does not block.
pub(super) enum Socket {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Socket {
    /// Returns the peer's address, which only TCP has.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        match self {
            Socket::Tcp(_, peer) => Some(*peer),
            Socket::Unix(_) => None,
        }
    }

    /// Makes it the stream of a connection, with what the listener wants between the two: the only place where that is done. A
    /// client's connection has no listener.
    pub(super) fn into_stream<F: Filter>(self, filter: F, _door: Option<&Door>) -> ReadWriteBuilder<F> {
        match self {
            Socket::Tcp(socket, _) => ReadWrite::stream(socket, filter),
            Socket::Unix(socket) => ReadWrite::stream(socket, filter),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(socket, _) => socket.as_fd(),
            Socket::Unix(socket) => socket.as_fd(),
        }
    }
}

/// A socket that was accepted, and by which listener.
pub(super) struct Accepted {
    pub(super) socket: Socket,
    pub(super) door: Rc<Door>,
}

impl Accepted {
    /// Returns what the scoreboard calls the peer, if that is known: a proxy is still to say whom it passes on.
    pub(super) fn label(&self) -> Option<String> {
        match &self.socket {
            _ if self.door.proxy.is_some() => None,
            Socket::Tcp(_, peer) => Some(peer.ip().to_canonical().to_string()),
            Socket::Unix(_) => Some(String::from("unix")),
        }
    }
}

//! A connection's socket, of either kind, and what becomes of it.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use super::listen::Door;
use super::secure::{Handshake, Secure};
use crate::error::Result;
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

    /// Makes it the stream of a connection with `target`, with TLS between the two if `secure` says so: the only place where that
    /// is done.
    ///
    /// # Errors
    ///
    /// What `secure` can't do.
    pub(super) fn into_stream<F: Filter>(
        self,
        filter: F,
        secure: Option<&Secure>,
        target: &str,
    ) -> Result<(ReadWriteBuilder<F>, Option<Handshake>)> {
        let fd = match self {
            Socket::Tcp(socket, _) => OwnedFd::from(socket),
            Socket::Unix(socket) => OwnedFd::from(socket),
        };
        let Some(secure) = secure else { return Ok((ReadWrite::stream(fd, filter), None)) };
        let (stream, handshake) = secure.stream(fd, filter, target)?;
        Ok((stream, Some(handshake)))
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

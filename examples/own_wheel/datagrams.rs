//! A wheel for UDP: an event for each datagram.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use lenore::wheel::Failure;
use lenore::wheel::own::{Delivery, Next, Source, Turn};
use lenore::{Name, Readiness};

/// A UDP socket. The datagram event gets ARG0 = the bytes (`Vec<u8>`), ARG1 = the peer's address ([`SocketAddr`]), ARG2 = the
/// wheel's id. The error event gets a [`Failure`], and then the wheel is closed.
pub struct Datagrams {
    pub socket: UdpSocket,
    pub on_datagram: Name,
    pub on_error: Name,
}

impl Datagrams {
    /// Sends a datagram at once. If the socket has no room, the datagram is lost. The network may lose it as well.
    pub fn send(&self, bytes: &[u8], peer: SocketAddr) -> io::Result<()> {
        match self.socket.send_to(bytes, peer) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }
}

impl AsFd for Datagrams {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Source for Datagrams {
    fn turn(&self, cx: &mut Turn<'_>, _: Readiness) -> Next {
        for _ in 0..DATAGRAMS_PER_TURN {
            let (length, peer) = match self.socket.recv_from(cx.buffer()) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Next::Wait,
                Err(error) => {
                    cx.deliver(self.on_error, (Failure::new("recv_from", &error, cx.id()),));
                    return Next::Close;
                }
            };
            let bytes = cx.buffer()[..length].to_vec();
            match cx.deliver(self.on_datagram, (bytes, peer, cx.id())) {
                Delivery::Done => {}
                Delivery::Failed => break, // the DIE signal comes first, then the rest
                Delivery::Over => return Next::Wait,
            }
        }
        Next::Again(Readiness::Read)
    }

    fn describe(&self) -> String {
        let address = self.socket.local_addr().map_or_else(|error| error.to_string(), |address| address.to_string());
        format!("on {address} -> {}", self.on_datagram)
    }
}

/// So that a busy peer does not keep the other wheels from their turns.
const DATAGRAMS_PER_TURN: usize = 64;

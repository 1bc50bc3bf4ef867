//! A descriptor to read from and write to, by the shortest way through the system.

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockType, getsockopt, recv, send, sockopt};

use crate::error::Error;

/// A socket, pipe or terminal.
pub(crate) struct Descriptor {
    fd: OwnedFd,
    /// As far as is known; the first call tells. Sockets have calls of their own, which take the system less time.
    is_socket: Cell<bool>,
}

impl Descriptor {
    pub(crate) fn new(fd: OwnedFd) -> Descriptor {
        Descriptor { fd, is_socket: Cell::new(true) }
    }

    /// Reads once.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> nix::Result<usize> {
        if self.is_socket.get() {
            match recv(self.fd.as_raw_fd(), buffer, MsgFlags::empty()) {
                Err(Errno::ENOTSOCK) => self.is_socket.set(false),
                received => return received,
            }
        }
        nix::unistd::read(&self.fd, buffer)
    }

    /// Tells whether a read that returns less than it could may leave more behind, of which an edge-triggered poller would
    /// never tell: a terminal hands out a line at a time, a UNIX socket what was sent with descriptors by itself, a datagram
    /// socket datagrams. TCP does so in front of urgent data alone, of which the poller tells on Linux.
    pub(crate) fn reads_short(&self) -> bool {
        // What only a TCP socket has.
        !cfg!(target_os = "linux") || getsockopt(&self.fd, sockopt::TcpNoDelay).is_err()
    }

    /// Writes once.
    pub(crate) fn write(&self, octets: &[u8]) -> nix::Result<usize> {
        if self.is_socket.get() {
            match send(self.fd.as_raw_fd(), octets, MsgFlags::empty()) {
                Err(Errno::ENOTSOCK) => self.is_socket.set(false),
                sent => return sent,
            }
        }
        nix::unistd::write(&self.fd, octets)
    }
}

/// Refuses a socket without connections: of a datagram socket every read is a message, and an empty one looks like the end. A
/// connected socket for packets has an end, and passes.
pub(crate) fn check_is_stream(fd: impl AsFd) -> Result<(), Error> {
    // What is no socket has no type.
    match getsockopt(&fd, sockopt::SockType) {
        Ok(kind) if !matches!(kind, SockType::Stream | SockType::SeqPacket) => {
            Err(Error::InvalidSetting { setting: "handle", reason: NO_STREAM })
        }
        _ => Ok(()),
    }
}

/// Why a datagram socket is refused, and what to do instead.
const NO_STREAM: &str = "it is a datagram socket: watch it with select_read, and receive until WouldBlock";

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pass(ours: impl Into<OwnedFd>, theirs: impl Into<OwnedFd>) -> bool {
        let (ours, theirs) = (Descriptor::new(ours.into()), Descriptor::new(theirs.into()));
        let mut buffer = [0; 8];
        for text in [&b"one"[..], b"two"] {
            assert_eq!(ours.write(text), Ok(3));
            assert_eq!(theirs.read(&mut buffer), Ok(3));
            assert_eq!(&buffer[..3], text);
        }
        drop(ours);
        assert_eq!(theirs.read(&mut buffer), Ok(0));
        theirs.is_socket.get()
    }

    #[test]
    fn what_is_a_socket_and_what_is_not_is_found_out() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert!(pass(ours, theirs));
        let (theirs, ours) = std::io::pipe().unwrap();
        assert!(!pass(ours, theirs));
    }
}

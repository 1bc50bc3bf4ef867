//! A descriptor to read from and write to, with as few system calls as possible.

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockType, getsockopt, recv, send, sockopt};

use crate::error::Error;

/// A socket, pipe or terminal.
pub(crate) struct Descriptor {
    fd: OwnedFd,
    /// Whether it is a socket. The first call finds out. Sockets have their own calls, which take the system less time.
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

    /// Tells whether a read that returns less than it could may leave more behind. An edge-triggered poller would not
    /// report that rest. A terminal returns a line at a time, a UNIX socket returns bytes that came with descriptors
    /// separately, and a datagram socket returns datagrams. TCP does so only before urgent data, which the poller
    /// reports on Linux.
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

/// Refuses a socket without connections. Every read from a datagram socket is a message, and an empty message looks
/// like the end. A connected packet socket has an end, and passes.
pub(crate) fn check_is_stream(fd: impl AsFd) -> Result<(), Error> {
    // Anything but a socket has no type.
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

//! The socket below TLS.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{self, MsgFlags, recv, send, sendmsg};

/// A socket with the calls that rustls wants of it.
pub(super) struct Socket(OwnedFd);

impl Socket {
    pub(super) fn new(fd: OwnedFd) -> Socket {
        Socket(fd)
    }

    pub(super) fn shut_down(&self, how: Shutdown) -> io::Result<()> {
        let how = match how {
            Shutdown::Read => socket::Shutdown::Read,
            Shutdown::Write => socket::Shutdown::Write,
            Shutdown::Both => socket::Shutdown::Both,
        };
        Ok(socket::shutdown(self.0.as_raw_fd(), how)?)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        uninterrupted(|| recv(self.0.as_raw_fd(), buffer, MsgFlags::empty()))
    }
}

impl Write for Socket {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        uninterrupted(|| send(self.0.as_raw_fd(), octets, MsgFlags::empty()))
    }

    /// All records that wait go out by one call.
    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        if let [part] = parts {
            return self.write(part);
        }
        uninterrupted(|| sendmsg::<()>(self.0.as_raw_fd(), parts, &[], MsgFlags::empty(), None))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Calls again as long as a signal interrupts.
fn uninterrupted(mut call: impl FnMut() -> nix::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return Ok(result?),
        }
    }
}

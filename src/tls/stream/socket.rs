//! The socket below TLS.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{self, MsgFlags, getsockopt, recv, send, sendmsg, sockopt};

/// A socket with the calls that rustls wants of it.
pub(super) struct Socket {
    fd: OwnedFd,
    /// A read that returns less than it could has taken all there was.
    is_tcp: bool,
    is_drained: bool,
}

impl Socket {
    pub(super) fn new(fd: OwnedFd) -> Socket {
        // What only a TCP socket has. Others may have more behind a short read, of which the poller would not tell.
        let is_tcp = cfg!(target_os = "linux") && getsockopt(&fd, sockopt::TcpNoDelay).is_ok();
        Socket { fd, is_tcp, is_drained: false }
    }

    /// Tells whether the last read has taken all there was. The end of the input may have come since, of which the poller tells.
    pub(super) fn is_drained(&self) -> bool {
        self.is_drained
    }

    pub(super) fn shut_down(&self, how: Shutdown) -> io::Result<()> {
        let how = match how {
            Shutdown::Read => socket::Shutdown::Read,
            Shutdown::Write => socket::Shutdown::Write,
            Shutdown::Both => socket::Shutdown::Both,
        };
        Ok(socket::shutdown(self.fd.as_raw_fd(), how)?)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = uninterrupted(|| recv(self.fd.as_raw_fd(), buffer, MsgFlags::empty()))?;
        self.is_drained = self.is_tcp && count < buffer.len();
        Ok(count)
    }
}

impl Write for Socket {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        uninterrupted(|| send(self.fd.as_raw_fd(), octets, MsgFlags::empty()))
    }

    /// All records that wait go out by one call.
    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        if let [part] = parts {
            return self.write(part);
        }
        uninterrupted(|| sendmsg::<()>(self.fd.as_raw_fd(), parts, &[], MsgFlags::empty(), None))
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

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
    /// How many bytes were read.
    received: u64,
    record: Record,
}

/// Where in a record of TLS the input has got to.
#[derive(Default)]
struct Record {
    /// As much of the header as was read: five bytes, of which the last two are the length of what follows.
    header: [u8; HEADER],
    read: usize,
    /// How much of what follows the header is still to come.
    left: usize,
}

const HEADER: usize = 5;

impl Record {
    /// Notes that these bytes were read.
    fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.read < HEADER {
                let count = bytes.len().min(HEADER - self.read);
                self.header[self.read..][..count].copy_from_slice(&bytes[..count]);
                self.read += count;
                self.left = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
                bytes = &bytes[count..];
            } else {
                let count = bytes.len().min(self.left);
                self.left -= count;
                bytes = &bytes[count..];
            }
            if self.read == HEADER && self.left == 0 {
                self.read = 0;
            }
        }
    }

    fn is_whole(&self) -> bool {
        self.read == 0
    }
}

impl Socket {
    pub(super) fn new(fd: OwnedFd) -> Socket {
        // Only a TCP socket has this option. Other sockets may have more data behind a short read, of which the poller
        // would not tell.
        let is_tcp = cfg!(target_os = "linux") && getsockopt(&fd, sockopt::TcpNoDelay).is_ok();
        Socket { fd, is_tcp, is_drained: false, received: 0, record: Record::default() }
    }

    /// Tells whether the last read has taken all there was. The end of the input may have come since, of which the poller tells.
    pub(super) fn is_drained(&self) -> bool {
        self.is_drained
    }

    /// Returns how many bytes were read.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Tells whether a part of a record was read, and the rest was not.
    pub(super) fn is_within_a_record(&self) -> bool {
        !self.record.is_whole()
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
        self.received += count as u64;
        self.record.follow(&buffer[..count]);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn record(length: usize) -> Vec<u8> {
        let mut record = vec![23, 3, 3];
        record.extend(u16::try_from(length).unwrap().to_be_bytes());
        record.resize(HEADER + length, 7);
        record
    }

    #[test]
    fn record_is_whole_at_its_end_only_however_it_is_cut() {
        let input = [record(3), record(0), record(300), record(1)].concat();
        let ends = [8, 13, 318, 324];
        for size in [1, 2, 5, 7, 100, input.len()] {
            let (mut seen, mut at) = (Record::default(), 0);
            assert!(seen.is_whole());
            for piece in input.chunks(size) {
                seen.follow(piece);
                at += piece.len();
                assert_eq!(seen.is_whole(), ends.contains(&at), "at {at} in pieces of {size}");
            }
        }
    }
}

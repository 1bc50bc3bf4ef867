//! A peer that reads, writes and leaves as it likes.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::socket::{Shutdown, setsockopt, shutdown, sockopt};
use nix::unistd::{read, write};

use super::Tally;
use crate::read_write::tcp_pair;

/// The other side: the two ends of a socket, or of two pipes.
pub(super) struct Peer {
    pub(super) to: Option<OwnedFd>,
    pub(super) from: Option<OwnedFd>,
    pub(super) is_socket: bool,
}

impl Peer {
    pub(super) fn send(&mut self, octets: &[u8]) {
        if let Some(to) = &self.to {
            let _ = write(to, octets);
        }
    }

    pub(super) fn end_output(&mut self) {
        if let Some(to) = self.to.take_if(|_| self.from.is_some() || !self.is_socket)
            && self.is_socket
        {
            let _ = shutdown(to.as_raw_fd(), Shutdown::Write);
        }
    }

    pub(super) fn close(&mut self) {
        self.to = None;
        self.from = None;
    }

    pub(super) fn reset(&mut self) {
        if let Some(from) = self.from.as_ref().filter(|_| self.is_socket) {
            // Only TCP knows it.
            let _ = setsockopt(from, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
        }
        self.close();
    }

    /// Reads what is there, `most` bytes at most; at the end of it all, or after an error, closes.
    pub(super) fn receive(&mut self, tally: &Tally, mut most: usize) {
        let mut buffer = [0; 4096];
        while let Some(from) = self.from.as_ref().filter(|_| most > 0) {
            let size = buffer.len().min(most);
            match read(from, &mut buffer[..size]) {
                Ok(count @ 1..) => {
                    tally.received.borrow_mut().extend_from_slice(&buffer[..count]);
                    most -= count;
                }
                Err(Errno::EAGAIN) => return,
                Ok(_) | Err(_) => return self.close(),
            }
        }
    }
}

pub(super) fn ends(kind: u64) -> (OwnedFd, Option<OwnedFd>, Peer) {
    let (ours, other, to, from): (OwnedFd, _, OwnedFd, OwnedFd) = match kind {
        0 => {
            let ((input, to), (from, output)) = (io::pipe().unwrap(), io::pipe().unwrap());
            (input.into(), Some(output.into()), to.into(), from.into())
        }
        1 => {
            let (ours, theirs) = tcp_pair();
            (ours.into(), None, theirs.try_clone().unwrap().into(), theirs.into())
        }
        _ => {
            let (ours, theirs) = UnixStream::pair().unwrap();
            (ours.into(), None, theirs.try_clone().unwrap().into(), theirs.into())
        }
    };
    for fd in [&to, &from] {
        fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    }
    (ours, other, Peer { to: Some(to), from: Some(from), is_socket: kind > 0 })
}

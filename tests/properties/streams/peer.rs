//! The other side of a wheel: it sends, reads and leaves when it is told to.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::socket::{Shutdown, setsockopt, shutdown, sockopt};
use nix::unistd::{read, write};

/// What leads to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Pipes,
    Tcp,
    Unix,
    /// A socket for each direction.
    TwoSockets,
    /// One socket, given as two descriptors.
    Twice,
}

/// This process's ends: the second one if there are two.
pub(super) type Ends = (OwnedFd, Option<OwnedFd>);

pub(super) struct Peer {
    kind: Kind,
    to: Option<OwnedFd>,
    /// `None` after the end, or once the peer does not read any more.
    pub(super) from: Option<OwnedFd>,
    pub(super) received: Vec<u8>,
    /// It has stopped to read by itself.
    pub(super) is_deaf: bool,
    /// It has ended its output.
    pub(super) is_mute: bool,
}

impl Peer {
    /// Makes both sides; small buffers make each side wait for the other often.
    pub(super) fn new(kind: Kind, has_small_buffers: bool) -> (Ends, Peer) {
        let (input, output, to, from): (OwnedFd, Option<OwnedFd>, OwnedFd, OwnedFd) = match kind {
            Kind::Pipes => {
                let ((input, to), (from, output)) = (io::pipe().unwrap(), io::pipe().unwrap());
                (input.into(), Some(output.into()), to.into(), from.into())
            }
            Kind::TwoSockets => {
                let ((input, to), (from, output)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
                (input.into(), Some(output.into()), to.into(), from.into())
            }
            Kind::Tcp => {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                (listener.accept().unwrap().0.into(), None, theirs.try_clone().unwrap().into(), theirs.into())
            }
            Kind::Unix | Kind::Twice => {
                let (ours, theirs) = UnixStream::pair().unwrap();
                let again = (kind == Kind::Twice).then(|| ours.try_clone().unwrap().into());
                (ours.into(), again, theirs.try_clone().unwrap().into(), theirs.into())
            }
        };
        for fd in [&to, &from] {
            fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        }
        if has_small_buffers {
            let all = [Some(&input), output.as_ref(), Some(&to), Some(&from)];
            all.into_iter().flatten().for_each(|fd| make_small(kind, fd));
        }
        let peer = Peer { kind, to: Some(to), from: Some(from), received: Vec::new(), is_deaf: false, is_mute: false };
        ((input, output), peer)
    }

    /// Returns how many of the bytes there was room for.
    pub(super) fn send(&mut self, bytes: &[u8]) -> usize {
        self.to.as_ref().filter(|_| !self.is_mute).map_or(0, |to| write(to, bytes).unwrap_or(0))
    }

    pub(super) fn end_output(&mut self) {
        self.is_mute = true;
        match self.kind {
            Kind::Pipes | Kind::TwoSockets => self.to = None,
            _ => self.shut_down(Shutdown::Write),
        }
    }

    /// Stops to read, if that is something the other side can learn.
    pub(super) fn end_input(&mut self) {
        match self.kind {
            Kind::Tcp => return,
            Kind::Pipes | Kind::TwoSockets => {}
            Kind::Unix | Kind::Twice => {
                // As long as something is left in it, the system tells the other side nothing.
                self.receive(usize::MAX);
                self.shut_down(Shutdown::Read);
            }
        }
        self.is_deaf = true;
        self.from = None;
    }

    fn shut_down(&self, how: Shutdown) {
        if let Some(to) = &self.to {
            let _ = shutdown(to.as_raw_fd(), how);
        }
    }

    pub(super) fn close(&mut self) {
        (self.is_mute, self.is_deaf) = (true, true);
        (self.to, self.from) = (None, None);
    }

    pub(super) fn reset(&mut self) {
        if let (Some(to), Kind::Tcp) = (&self.to, self.kind) {
            setsockopt(to, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
        }
        self.close();
    }

    /// Reads `most` bytes at most of those that are there.
    pub(super) fn receive(&mut self, mut most: usize) {
        let mut buffer = [0; 4096];
        while let Some(from) = self.from.as_ref().filter(|_| most > 0) {
            let size = buffer.len().min(most);
            match read(from, &mut buffer[..size]) {
                Ok(count @ 1..) => {
                    self.received.extend_from_slice(&buffer[..count]);
                    most -= count;
                }
                Err(Errno::EAGAIN) => return,
                Ok(_) | Err(_) => self.from = None,
            }
        }
    }
}

fn make_small(kind: Kind, fd: &OwnedFd) {
    match kind {
        Kind::Pipes => {
            fcntl(fd.as_fd(), FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
        }
        // A window of less than a segment is opened by a timer.
        Kind::Tcp => setsockopt(fd, sockopt::SndBuf, &16_384).unwrap(),
        _ => setsockopt(fd, sockopt::SndBuf, &4096).unwrap(),
    }
}

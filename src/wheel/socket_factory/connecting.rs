//! Connecting: what a connecting `SocketFactory` shares with the kernel.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::address::{Target, path_of};
use super::datagram::Local;
use super::report::Report;
use super::socket::{self, BoundPath, Failure, Made, Options};
use crate::args::{Args, IntoArgs};
use crate::error::Error;
use crate::kernel::{AfterFork, Core, Due, Kernel, Mailbox, Mode, Source, SourceKey, Wanted, nanos};
use crate::wheel::WheelId;

/// What there is to try: the sockets' options, where they are bound, and whom to connect to.
pub(super) struct Attempts {
    pub(super) options: Options,
    /// What a socket is bound to before it connects, if it is of the same family; empty for nothing.
    pub(super) locals: Vec<Target>,
    /// Addresses still to be tried, the next one last.
    pub(super) remotes: Vec<Target>,
}

impl Attempts {
    /// Begins to connect to the next address that allows it. Returns the last failure when there is no other.
    pub(super) fn next(&mut self) -> Result<(Made, Target), Failure> {
        let mut failure = Failure { operation: "connect", error: Errno::EADDRNOTAVAIL.into() };
        while let Some(remote) = self.remotes.pop() {
            match self.begin(&remote) {
                Ok(made) => return Ok((made, remote)),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn begin(&self, remote: &Target) -> Result<Made, Failure> {
        let family = remote.family();
        let local = self.locals.iter().find(|local| local.family() == family);
        if local.is_none() && !self.locals.is_empty() {
            return Err(Failure { operation: "bind", error: Errno::EAFNOSUPPORT.into() });
        }
        let made = self.options.make(family, local)?;
        socket::connect(&made.0, remote)?;
        Ok(made)
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

enum Progress {
    UnderWay,
    /// With the arguments of the success event still to be made.
    Connected(Peer),
    Failed(Failure),
}

enum Peer {
    Tcp(SocketAddr),
    Unix(std::os::unix::net::SocketAddr),
}

impl Stream {
    fn new(fd: OwnedFd, remote: &Target) -> Stream {
        match remote {
            Target::Ip(_) => Stream::Tcp(fd.into()),
            Target::Unix(..) => Stream::Unix(fd.into()),
        }
    }

    fn fd(&self) -> RawFd {
        match self {
            Stream::Tcp(stream) => stream.as_raw_fd(),
            Stream::Unix(stream) => stream.as_raw_fd(),
        }
    }

    fn progress(&self) -> Progress {
        let (error, peer) = match self {
            Stream::Tcp(stream) => (stream.take_error(), stream.peer_addr().map(Peer::Tcp)),
            Stream::Unix(stream) => (stream.take_error(), stream.peer_addr().map(Peer::Unix)),
        };
        match (error, peer) {
            (Ok(Some(error)) | Err(error), _) => Progress::Failed(Failure { operation: "connect", error }),
            (Ok(None), Ok(peer)) => Progress::Connected(peer),
            (Ok(None), Err(error)) if error.kind() == ErrorKind::NotConnected => Progress::UnderWay,
            (Ok(None), Err(error)) => Progress::Failed(Failure { operation: "getpeername", error }),
        }
    }

    fn into_args(self, peer: Peer, id: WheelId) -> Args {
        match (self, peer) {
            (Stream::Tcp(stream), Peer::Tcp(peer)) => (stream, peer.ip(), peer.port(), id).into_args(),
            (Stream::Unix(stream), Peer::Unix(peer)) => (stream, path_of(&peer), (), id).into_args(),
            _ => unreachable!("a peer is of its stream's family"),
        }
    }
}

/// A socket that connects, shared with the kernel.
pub(super) struct Connector {
    report: Rc<Report>,
    attempts: RefCell<Attempts>,
    /// `None` once the outcome is known, or the wheel closed.
    stream: RefCell<Option<Stream>>,
    /// The path that the socket is bound to; it goes when the wheel does.
    path: RefCell<Option<BoundPath>>,
    key: Cell<Option<SourceKey>>,
    mailbox: Rc<Mailbox>,
    /// Neither dropped nor closed.
    open: Cell<bool>,
    /// When to give up.
    deadline: Option<Due>,
}

impl Connector {
    /// Waits, for the wheel's session, for the first of the attempts, which is under way.
    pub(super) fn start(
        core: &mut Core,
        report: Rc<Report>,
        attempts: Attempts,
        first: (Made, Target),
        timeout: Option<Duration>,
    ) -> Result<Rc<Connector>, Error> {
        let deadline = timeout.map(|timeout| core.clock.advance().saturating_add(nanos(timeout)));
        let connector = Rc::new(Connector {
            report,
            attempts: RefCell::new(attempts),
            stream: RefCell::new(None),
            path: RefCell::new(None),
            key: Cell::new(None),
            mailbox: core.mailbox(),
            open: Cell::new(false),
            deadline,
        });
        connector.watch(core, first)?;
        Ok(connector)
    }

    /// Returns where the socket that connects is bound.
    ///
    /// # Errors
    ///
    /// `ENOTCONN` when the outcome is known, or the wheel closed.
    pub(super) fn local(&self) -> io::Result<Local> {
        match &*self.stream.borrow() {
            Some(Stream::Tcp(stream)) => stream.local_addr().map(Local::Addr),
            Some(Stream::Unix(stream)) => stream.local_addr().map(|address| Local::Path(path_of(&address))),
            None => Err(Errno::ENOTCONN.into()),
        }
    }

    pub(super) fn let_go(&self) {
        if self.open.replace(false) {
            self.key.get().inspect(|key| self.mailbox.dropped(*key));
        }
    }

    /// Waits for the outcome of one attempt.
    fn watch(self: &Rc<Self>, core: &mut Core, ((fd, path), remote): (Made, Target)) -> Result<(), Error> {
        self.stream.replace(Some(Stream::new(fd, &remote)));
        self.path.replace(path);
        self.open.set(true);
        let source = Rc::clone(self);
        let key = core.add_source(self.report.owner, |key| {
            source.key.set(Some(key));
            source
        })?;
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_sub(core.clock.advance());
            core.wake_source_after(key, Duration::from_nanos(left.try_into().unwrap_or(0)));
        }
        Ok(())
    }

    fn look(self: &Rc<Self>, kernel: &mut Kernel, key: SourceKey) {
        let Some(progress) = self.stream.borrow().as_ref().map(Stream::progress) else { return };
        match progress {
            Progress::UnderWay if self.deadline.is_some_and(|deadline| kernel.core.clock.now() >= deadline) => {
                kernel.core.remove_source(key);
                self.report.fail(kernel, &Failure { operation: "connect", error: Errno::ETIMEDOUT.into() });
            }
            Progress::UnderWay => {}
            Progress::Failed(failure) => self.try_next(kernel, key, &failure),
            Progress::Connected(peer) => {
                // Away from the poller while the descriptor is still in its place; from then on the wheel is inert.
                let stream = kernel.core.release_source(key, || self.stream.take());
                self.open.set(false);
                if let Some(stream) = stream {
                    self.report.succeed(kernel, stream.into_args(peer, self.report.id));
                }
            }
        }
    }

    fn try_next(self: &Rc<Self>, kernel: &mut Kernel, key: SourceKey, failure: &Failure) {
        // The old socket is closed first: the next one may have to be bound to the same port.
        kernel.core.remove_source(key);
        let Ok(next) = self.attempts.borrow_mut().next() else { return self.report.fail(kernel, failure) };
        if let Err(error) = self.watch(&mut kernel.core, next) {
            let error = io::Error::other(error.to_string());
            self.report.fail(kernel, &Failure { operation: "connect", error });
        }
    }
}

impl Source for Connector {
    fn fd(&self) -> RawFd {
        self.stream.borrow().as_ref().map_or(-1, Stream::fd)
    }

    fn wanted(&self) -> Option<Wanted> {
        self.stream.borrow().as_ref().map(|_| Wanted::WRITE)
    }

    fn turn(self: Rc<Self>, kernel: &mut Kernel, key: SourceKey, _mode: Mode) {
        // Writing for the poller's news, reading for the time that is up: either way there is one thing to look at.
        self.look(kernel, key);
    }

    fn close(&self) {
        self.open.set(false);
        self.stream.take();
    }

    fn fork(&self) -> AfterFork {
        AfterFork::Close
    }

    fn describe(&self) -> String {
        format!("SocketFactory ({}) connecting -> {}", self.report.id, self.report.on_success.get())
    }
}

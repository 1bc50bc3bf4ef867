//! Connecting: what a connecting `SocketFactory` shares with the kernel.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::address::{Target, path_of};
use super::attempts::{ATTEMPT_DELAY, Attempts, PAUSES};
use super::builder::Problem;
use super::datagram::Local;
use super::report::Report;
use super::socket::{self, Begun, BoundPath, Failure};
use crate::args::{Args, IntoArgs};
use crate::error::Error;
use crate::kernel::{AfterFork, Core, Due, Kernel, Mailbox, Mode, Source, SourceKey, Wanted, nanos};
use crate::wheel::WheelId;

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

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
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

/// All attempts of a wheel to connect.
///
/// They race as RFC 8305 has it: an address that does not answer is given [`ATTEMPT_DELAY`] before the next is tried beside it,
/// and the first connection wins.
pub(super) struct Connector {
    report: Rc<Report>,
    attempts: RefCell<Attempts>,
    /// Those that are under way, oldest first. Empty once the outcome is known, or the wheel closed.
    tries: RefCell<Vec<Rc<Try>>>,
    /// The path that the socket is bound to; it goes when the wheel does.
    path: RefCell<Option<BoundPath>>,
    mailbox: Rc<Mailbox>,
    /// Neither dropped nor closed.
    open: Cell<bool>,
    /// When to give up.
    deadline: Option<Due>,
    /// When to go on to the next address, although an attempt is under way.
    next_at: Cell<Due>,
    /// How long an attempt is alone.
    delay: Duration,
}

/// A socket that connects, shared with the kernel.
struct Try {
    connector: Rc<Connector>,
    remote: Target,
    key: SourceKey,
    /// `None` once the outcome is known, or the wheel closed.
    stream: RefCell<Option<Stream>>,
    /// When to ask again whether the listener's queue has room, and how long after that; `None` while the poller is asked.
    again: Cell<Option<(Due, Duration)>>,
}

impl Connector {
    /// Begins, for the wheel's session.
    ///
    /// # Errors
    ///
    /// When no address allows it; or the kernel can't watch one more descriptor.
    pub(super) fn start(
        core: &mut Core,
        report: Rc<Report>,
        attempts: Attempts,
        timeout: Option<Duration>,
    ) -> Result<Rc<Connector>, Problem> {
        let now = core.clock.advance();
        let addresses = u32::try_from(attempts.left()).unwrap_or(u32::MAX).max(1);
        let connector = Rc::new(Connector {
            report,
            attempts: RefCell::new(attempts),
            tries: RefCell::default(),
            path: RefCell::new(None),
            mailbox: core.mailbox(),
            open: Cell::new(true),
            deadline: timeout.map(|timeout| now.saturating_add(nanos(timeout))),
            next_at: Cell::new(Due::MAX),
            // In a short time every address gets its share.
            delay: timeout.map_or(ATTEMPT_DELAY, |timeout| ATTEMPT_DELAY.min(timeout / addresses)),
        });
        if !connector.begin_next(core)? {
            let failure = connector.attempts.borrow_mut().failure();
            return Err(failure.into());
        }
        connector.set_timer(core);
        Ok(connector)
    }

    /// Returns where the socket that connects is bound; of several the one that began first.
    ///
    /// # Errors
    ///
    /// `ENOTCONN` when the outcome is known, or the wheel closed.
    pub(super) fn local(&self) -> io::Result<Local> {
        let tries = self.tries.borrow();
        let stream = tries.first().map(|first| first.stream.borrow());
        match stream.as_deref() {
            Some(Some(Stream::Tcp(stream))) => stream.local_addr().map(Local::Addr),
            Some(Some(Stream::Unix(stream))) => stream.local_addr().map(|address| Local::Path(path_of(&address))),
            Some(None) | None => Err(Errno::ENOTCONN.into()),
        }
    }

    pub(super) fn let_go(&self) {
        if self.open.replace(false) {
            self.tries.take().iter().for_each(|attempt| self.mailbox.dropped(attempt.key));
        }
    }

    /// Begins the next attempt that can be begun; tells whether there was one.
    fn begin_next(self: &Rc<Self>, core: &mut Core) -> Result<bool, Error> {
        let Some((made, begun, remote)) = self.attempts.borrow_mut().next() else { return Ok(false) };
        let (fd, path) = made;
        let now = core.clock.advance();
        self.next_at.set(now.saturating_add(nanos(self.share(now))));
        self.path.replace(path);
        let mut stream = Some(Stream::new(fd, &remote));
        let again = (begun == Begun::Queue).then(|| (now.saturating_add(nanos(PAUSES.0)), PAUSES.0));
        let mut attempt = None;
        core.add_source(self.report.owner, |key| {
            let made = Try {
                connector: Rc::clone(self),
                remote,
                key,
                stream: RefCell::new(stream.take()),
                again: Cell::new(again),
            };
            attempt.insert(Rc::new(made)).clone()
        })?;
        self.tries.borrow_mut().extend(attempt);
        Ok(true)
    }

    /// Returns how long the attempt that begins now is alone.
    fn share(&self, now: Due) -> Duration {
        let attempts = self.attempts.borrow();
        match self.deadline {
            _ if !attempts.is_one_by_one() => self.delay,
            None => Duration::MAX,
            Some(deadline) => {
                let left = u64::try_from(deadline.saturating_sub(now)).unwrap_or(0);
                Duration::from_nanos(left / (attempts.left() as u64 + 1))
            }
        }
    }

    /// Looks at all attempts, and does what is due.
    fn step(self: &Rc<Self>, kernel: &mut Kernel) {
        let now = kernel.core.clock.now();
        let tries = self.tries.borrow().clone();
        for attempt in tries {
            match attempt.progress(now) {
                Progress::UnderWay => {}
                Progress::Failed(failure) => self.fail(kernel, &attempt, failure),
                Progress::Connected(peer) => return self.succeed(kernel, &attempt, peer),
            }
        }
        let timed_out = || Failure { operation: "connect", error: Errno::ETIMEDOUT.into() };
        let is_over = self.deadline.is_some_and(|deadline| now >= deadline);
        let is_next = now >= self.next_at.get() && self.attempts.borrow().left() > 0;
        if is_over || is_next && self.attempts.borrow().is_one_by_one() {
            let tries = self.tries.borrow().clone();
            tries.iter().for_each(|attempt| self.fail(kernel, attempt, timed_out()));
        }
        if !is_over && (is_next || self.tries.borrow().is_empty()) {
            match self.begin_next(&mut kernel.core) {
                Ok(true) => {}
                Ok(false) => self.next_at.set(Due::MAX),
                // The kernel can't watch one more descriptor: what is under way goes on.
                Err(error) if !self.tries.borrow().is_empty() => {
                    log::warn!(target: "lenore::wheels", "{}: {error}", self.report.id);
                    self.next_at.set(Due::MAX);
                }
                Err(error) => {
                    self.open.set(false);
                    let error = io::Error::other(error.to_string());
                    return self.report.fail(kernel, &Failure { operation: "connect", error });
                }
            }
        }
        if self.tries.borrow().is_empty() {
            self.open.set(false);
            let failure = self.attempts.borrow_mut().failure();
            return self.report.fail(kernel, &failure);
        }
        self.set_timer(&mut kernel.core);
    }

    /// Closes an attempt. That comes before the next begins, which may have to be bound to the same port.
    fn fail(&self, kernel: &mut Kernel, attempt: &Rc<Try>, failure: Failure) {
        self.tries.borrow_mut().retain(|other| other.key != attempt.key);
        kernel.core.remove_source(attempt.key);
        self.attempts.borrow_mut().failed(attempt.remote.clone(), failure);
    }

    /// Hands the connection over; from then on the wheel is inert.
    fn succeed(&self, kernel: &mut Kernel, attempt: &Rc<Try>, peer: Peer) {
        self.open.set(false);
        for other in self.tries.take().iter().filter(|other| other.key != attempt.key) {
            kernel.core.remove_source(other.key);
        }
        // Away from the poller while the descriptor is still in its place.
        let stream = kernel.core.release_source(attempt.key, || attempt.stream.take());
        if let Some(stream) = stream {
            self.report.succeed(kernel, stream.into_args(peer, self.report.id));
        }
    }

    /// Sees to a turn when the next thing is due. One attempt has the timer for all.
    fn set_timer(&self, core: &mut Core) {
        let tries = self.tries.borrow();
        let next = if self.attempts.borrow().left() > 0 { self.next_at.get() } else { Due::MAX };
        let again = tries.iter().filter_map(|attempt| attempt.again.get()).map(|(due, _)| due).min();
        let due = next.min(self.deadline.unwrap_or(Due::MAX)).min(again.unwrap_or(Due::MAX));
        if let (Some(first), true) = (tries.first(), due < Due::MAX) {
            let left = due.saturating_sub(core.clock.advance());
            core.wake_source_after(first.key, Duration::from_nanos(left.try_into().unwrap_or(0)));
        }
    }
}

impl Try {
    /// Looks at what has become of it, and asks a full queue again when that is due.
    fn progress(&self, now: Due) -> Progress {
        let stream = self.stream.borrow();
        let Some(stream) = stream.as_ref() else { return Progress::UnderWay };
        match self.again.get() {
            None => stream.progress(),
            Some((due, _)) if now < due => Progress::UnderWay,
            Some((_, pause)) => match socket::connect(stream.as_fd(), &self.remote) {
                Err(failure) => Progress::Failed(failure),
                Ok(Begun::UnderWay) => {
                    self.again.set(None);
                    self.connector.mailbox.changed(self.key);
                    Progress::UnderWay
                }
                Ok(Begun::Queue) => {
                    let pause = (pause * 2).min(PAUSES.1);
                    self.again.set(Some((now.saturating_add(nanos(pause)), pause)));
                    Progress::UnderWay
                }
            },
        }
    }
}

impl Source for Try {
    fn fd(&self) -> RawFd {
        self.stream.borrow().as_ref().map_or(-1, |stream| stream.as_fd().as_raw_fd())
    }

    fn wanted(&self) -> Option<Wanted> {
        // A socket that has not begun to connect would be reported at once.
        self.stream.borrow().as_ref().filter(|_| self.again.get().is_none()).map(|_| Wanted::WRITE)
    }

    fn turn(self: Rc<Self>, kernel: &mut Kernel, _key: SourceKey, _mode: Mode) {
        // Writing for the poller's news, reading for the time that is up: either way there is one thing to look at.
        let connector = Rc::clone(&self.connector);
        if connector.open.get() {
            connector.step(kernel);
        }
    }

    fn close(&self) {
        self.stream.take();
        // None but those of a wheel that is closed are still among them.
        self.connector.tries.borrow_mut().retain(|other| other.key != self.key);
    }

    fn fork(&self) -> AfterFork {
        AfterFork::Close
    }

    fn describe(&self) -> String {
        let Report { id, on_success, .. } = &*self.connector.report;
        let waits = if self.again.get().is_some() { ", whose queue is full" } else { "" };
        format!("SocketFactory ({id}) connecting to {}{waits} -> {}", self.remote, on_success.get())
    }
}

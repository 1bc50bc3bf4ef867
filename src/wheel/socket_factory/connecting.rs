//! Connecting: the part of a connecting `SocketFactory` that it shares with the kernel.

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
use super::socket::{self, Begun, BoundPath, CallError};
use crate::args::{Args, IntoArgs};
use crate::error::Error;
use crate::kernel::{AfterFork, Core, Due, Mailbox, Next, Readiness, Source, SourceKey, Turn, Wanted, nanos};
use crate::wheel::WheelId;

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

enum Progress {
    UnderWay,
    /// Connected. The arguments of the success event are still to be made.
    Connected(Peer),
    Failed(CallError),
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
            (Ok(Some(error)) | Err(error), _) => Progress::Failed(CallError { operation: "connect", error }),
            (Ok(None), Ok(peer)) => Progress::Connected(peer),
            (Ok(None), Err(error)) if error.kind() == ErrorKind::NotConnected => Progress::UnderWay,
            (Ok(None), Err(error)) => Progress::Failed(CallError { operation: "getpeername", error }),
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
/// They race as in RFC 8305. If an address does not answer within [`ATTEMPT_DELAY`], the next is tried beside it, and
/// the first connection wins.
/// and the first connection wins.
pub(super) struct Connector {
    report: Rc<Report>,
    attempts: RefCell<Attempts>,
    /// The attempts under way, oldest first. Empty once the outcome is known, or the wheel is closed.
    tries: RefCell<Vec<Rc<Try>>>,
    /// The path that the socket is bound to. It is removed when the wheel is dropped.
    path: RefCell<Option<BoundPath>>,
    mailbox: Rc<Mailbox>,
    /// Neither dropped nor closed.
    open: Cell<bool>,
    /// When to give up.
    deadline: Option<Due>,
    /// When to begin with the next address, although an attempt is under way.
    next_at: Cell<Due>,
    /// How long an attempt is alone before the next begins.
    delay: Duration,
}

/// A socket that connects, shared with the kernel.
struct Try {
    connector: Rc<Connector>,
    remote: Target,
    key: SourceKey,
    /// `None` once the outcome is known, or the wheel closed.
    stream: RefCell<Option<Stream>>,
    /// When to ask again whether the listener's queue has room, and the pause after that. `None` while the poller
    /// watches the socket.
    again: Cell<Option<(Due, Duration)>>,
    /// The outcome for which the attempt is closed.
    outcome: RefCell<Option<Outcome>>,
}

/// How an attempt ends.
enum Outcome {
    Connected(Peer),
    Failed(CallError),
}

impl Connector {
    /// Begins to connect, for the wheel's session.
    ///
    /// # Errors
    ///
    /// An error if no address allows it, or if the kernel can't watch another descriptor.
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
            // If the timeout is short, every address gets a share of it.
            delay: timeout.map_or(ATTEMPT_DELAY, |timeout| ATTEMPT_DELAY.min(timeout / addresses)),
        });
        if !connector.begin_next(core)? {
            let failure = connector.attempts.borrow_mut().failure();
            return Err(failure.into());
        }
        Ok(connector)
    }

    /// Returns the address that the connecting socket is bound to. If there are several, it is that of the oldest
    /// attempt.
    ///
    /// # Errors
    ///
    /// `ENOTCONN` once the outcome is known, or the wheel is closed.
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

    /// Begins the next attempt. Returns whether there was one that could begin.
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
                outcome: RefCell::new(None),
            };
            attempt.insert(Rc::new(made)).clone()
        })?;
        let Some(attempt) = attempt else { return Ok(false) };
        let key = attempt.key;
        self.tries.borrow_mut().push(attempt);
        self.due().inspect(|due| core.wake_source_at(key, *due));
        Ok(true)
    }

    /// Returns how long the attempt that begins now is alone before the next begins.
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

    /// Goes on after an attempt has failed and is closed. The close comes first, because the next attempt may have to
    /// bind the same port.
    fn go_on(self: &Rc<Self>, cx: &mut Turn<'_>) {
        if !self.tries.borrow().is_empty() {
            return;
        }
        let failure = match self.is_too_late(cx.now()) {
            true => None,
            false => match self.begin_next(cx.core()) {
                Ok(true) => return,
                Ok(false) => None,
                Err(error) => Some(CallError::of_error("connect", &error)),
            },
        };
        self.open.set(false);
        let failure = failure.unwrap_or_else(|| self.attempts.borrow_mut().failure());
        self.report.fail(cx, &failure);
    }

    /// Tries the next address beside those under way, if that is due.
    fn begin_beside(self: &Rc<Self>, cx: &mut Turn<'_>) {
        if !self.is_next_due(cx.now()) {
            return;
        }
        match self.begin_next(cx.core()) {
            Ok(true) => {}
            Ok(false) => self.next_at.set(Due::MAX),
            // The kernel can't watch another descriptor. The attempts under way go on.
            Err(error) => {
                log::warn!(target: "lenore::wheels", "{}: {error}", self.report.id);
                self.next_at.set(Due::MAX);
            }
        }
    }

    fn is_too_late(&self, now: Due) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }

    fn is_next_due(&self, now: Due) -> bool {
        now >= self.next_at.get() && self.attempts.borrow().left() > 0
    }

    /// Returns when the next step of any attempt is due.
    fn due(&self) -> Option<Due> {
        let next = Some(self.next_at.get()).filter(|_| self.attempts.borrow().left() > 0);
        let tries = self.tries.borrow();
        let again = tries.iter().filter_map(|attempt| attempt.again.get()).map(|(due, _)| due);
        again.chain(next).chain(self.deadline).min().filter(|due| *due < Due::MAX)
    }
}

impl Try {
    /// Looks whether the attempt has succeeded or failed, and asks a full queue again when that is due.
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
        // The poller would report a socket at once that has not begun to connect.
        self.stream.borrow().as_ref().filter(|_| self.again.get().is_none()).map(|_| Wanted::WRITE)
    }

    fn turn(&self, cx: &mut Turn<'_>, _readiness: Readiness) -> Next {
        // A turn for writing comes from the poller, a turn for reading from the time limit. Both need the same look.
        let (connector, now) = (&self.connector, cx.now());
        if !connector.open.get() {
            return Next::Wait;
        }
        let timed_out = || CallError { operation: "connect", error: Errno::ETIMEDOUT.into() };
        let outcome = match self.progress(now) {
            Progress::Connected(peer) => {
                // From now on the wheel does nothing.
                connector.open.set(false);
                let mailbox = &connector.mailbox;
                connector
                    .tries
                    .borrow()
                    .iter()
                    .filter(|other| other.key != self.key)
                    .for_each(|other| mailbox.dropped(other.key));
                Outcome::Connected(peer)
            }
            Progress::Failed(failure) => Outcome::Failed(failure),
            Progress::UnderWay if connector.is_too_late(now) => Outcome::Failed(timed_out()),
            Progress::UnderWay if connector.is_next_due(now) && connector.attempts.borrow().is_one_by_one() => {
                Outcome::Failed(timed_out())
            }
            Progress::UnderWay => {
                connector.begin_beside(cx);
                return connector.due().map_or(Next::Wait, Next::At);
            }
        };
        self.outcome.replace(Some(outcome));
        Next::Close
    }

    fn close(&self) {
        if !matches!(&*self.outcome.borrow(), Some(Outcome::Connected(_))) {
            self.stream.take();
        }
        self.connector.tries.borrow_mut().retain(|other| other.key != self.key);
    }

    fn closed(&self, cx: &mut Turn<'_>) {
        let outcome = self.outcome.take();
        match outcome {
            Some(Outcome::Connected(peer)) => {
                let Some(stream) = self.stream.take() else { return };
                let report = &self.connector.report;
                report.succeed(cx, stream.into_args(peer, report.id));
            }
            Some(Outcome::Failed(failure)) => {
                self.connector.attempts.borrow_mut().failed(self.remote.clone(), failure);
                self.connector.go_on(cx);
            }
            None => {}
        }
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

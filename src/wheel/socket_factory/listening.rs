//! Accepting: the part of a listening `SocketFactory` or a `ListenAccept` that it shares with the kernel.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::address::path_of;
use super::datagram::Local;
use super::report::Report;
use super::rota::Rota;
use super::socket::{BoundPath, CallError};
use crate::args::{Args, IntoArgs};
use crate::error::Error;
use crate::kernel::{
    AfterFork, Core, Delivery, Due, Findable, KnownAs, Mailbox, Next, Readiness, Source, SourceKey, Turn, Wanted,
    has_input, nanos,
};
use crate::outage::Outage;
use crate::sys::accept_queue::{self, AcceptQueue};
use crate::sys::parent_death::has_replaced_listeners;
use crate::wheel::WheelId;

/// Default for the connections that one turn accepts: enough to be worth the turn, and few enough not to keep others
/// waiting.
pub(in crate::wheel) const ACCEPTS_PER_TURN: usize = 16;

/// How long a listener rests after an accept has failed, usually because the process has run out of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// How long a listener must accept without a failure before the log says that it accepts again. A process at its limit
/// of descriptors fails whenever a client comes, and accepts whenever a client goes.
const CALM: Duration = Duration::from_secs(2);

/// An accepted connection, and its peer.
pub(in crate::wheel) enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream, UnixAddress),
}

impl Accepted {
    /// Returns the socket, the peer's address and the wheel's id.
    pub(in crate::wheel) fn into_args(self, id: WheelId) -> Args {
        match self {
            Accepted::Tcp(stream, peer) => (stream, peer, id).into_args(),
            Accepted::Unix(stream, peer) => (stream, peer, id).into_args(),
        }
    }
}

/// A socket that listens.
pub(in crate::wheel) enum Listener {
    /// Accepts through mio, which makes the new socket non-blocking in the same call where it can.
    Tcp(mio::net::TcpListener),
    /// Accepts without mio, because mio loses the abstract name of a peer.
    Unix(UnixListener),
}

impl Listener {
    /// Takes over a non-blocking listener.
    pub(in crate::wheel) fn tcp(listener: TcpListener) -> Listener {
        Listener::Tcp(mio::net::TcpListener::from_std(listener))
    }

    /// Takes over a non-blocking listener.
    pub(in crate::wheel) fn unix(listener: UnixListener) -> Listener {
        Listener::Unix(listener)
    }

    fn accept(&self) -> io::Result<Accepted> {
        Ok(match self {
            Listener::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                Accepted::Tcp(stream.into(), peer)
            }
            Listener::Unix(listener) => {
                let (stream, peer) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Accepted::Unix(stream, peer)
            }
        })
    }

    pub(super) fn local(&self) -> io::Result<Local> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().map(Local::Addr),
            Listener::Unix(listener) => listener.local_addr().map(|address| Local::Path(path_of(&address))),
        }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener) => listener.as_fd(),
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.local() {
            Ok(local) => local.fmt(f),
            Err(error) => error.fmt(f),
        }
    }
}

/// A listening socket before a wheel accepts from it.
pub(in crate::wheel) struct Opened {
    pub(in crate::wheel) listener: Listener,
    /// The path that is removed with the listener.
    pub(in crate::wheel) path: Option<BoundPath>,
    /// How a process that takes over would find the listener.
    pub(in crate::wheel) findable: Option<Findable>,
}

impl From<Listener> for Opened {
    /// Makes a socket that no other process finds.
    fn from(listener: Listener) -> Opened {
        Opened { listener, path: None, findable: None }
    }
}

/// How the two wheels differ.
pub(in crate::wheel) struct Manner {
    /// Makes the arguments of the success event.
    pub(in crate::wheel) args: fn(Accepted, WheelId) -> Args,
    pub(in crate::wheel) accepts_per_turn: usize,
    /// Whether a connection that was aborted before it was accepted is an error event.
    pub(in crate::wheel) reports_aborted: bool,
    /// Whether shortages of the system, such as of descriptors, are logged instead of sent as error events.
    pub(in crate::wheel) logs_shortages: bool,
    /// The listeners with which it takes turns.
    pub(in crate::wheel) rota: Option<Rc<Rota>>,
}

/// A listener, shared with the kernel.
pub(in crate::wheel) struct Acceptor {
    report: Rc<Report>,
    manner: Manner,
    /// `None` once closed.
    listener: RefCell<Option<Listener>>,
    /// The path that is removed with the listener.
    path: RefCell<Option<BoundPath>>,
    key: Cell<Option<SourceKey>>,
    mailbox: Rc<Mailbox>,
    /// The listener is neither dropped nor closed.
    open: Cell<bool>,
    paused: Cell<bool>,
    /// The process does not accept at all.
    held: Cell<bool>,
    known_as: Option<KnownAs>,
    /// An accept has failed, usually because the process has run out of descriptors. The connection stays in the
    /// backlog, so the poller would report the listener without end. It is not watched for a moment.
    resting: Cell<bool>,
    /// Failures that were logged, if no event reports them.
    outage: RefCell<Outage<Errno>>,
    /// When the outage counts as over.
    calm_at: Cell<Option<Due>>,
    /// Its place among the listeners with which it takes turns.
    place: Cell<u64>,
}

impl Acceptor {
    /// Starts to watch a listener for the wheel's session.
    pub(in crate::wheel) fn start(
        core: &mut Core,
        report: Rc<Report>,
        manner: Manner,
        socket: Opened,
        known_as: Option<KnownAs>,
    ) -> Result<Rc<Acceptor>, Error> {
        let owner = report.owner;
        let Opened { listener, path, findable } = socket;
        let owns_path = path.is_some();
        let acceptor = Rc::new(Acceptor {
            report,
            manner,
            listener: RefCell::new(Some(listener)),
            path: RefCell::new(path),
            key: Cell::new(None),
            mailbox: core.mailbox(),
            open: Cell::new(true),
            paused: Cell::new(false),
            held: Cell::new(false),
            known_as: known_as.map(|known_as| KnownAs { owns_path, findable, ..known_as }),
            resting: Cell::new(false),
            outage: RefCell::default(),
            calm_at: Cell::new(None),
            place: Cell::new(0),
        });
        if let Some(rota) = &acceptor.manner.rota {
            acceptor.place.set(rota.join(&acceptor));
        }
        let source = Rc::clone(&acceptor);
        core.add_source(owner, |key| {
            source.key.set(Some(key));
            source
        })?;
        Ok(acceptor)
    }

    /// Calls `what` with the listener.
    ///
    /// # Errors
    ///
    /// `ENOTCONN` if the listener is closed, and any error that `what` returns.
    pub(in crate::wheel) fn with_listener<T>(&self, what: impl FnOnce(&Listener) -> io::Result<T>) -> io::Result<T> {
        self.listener.borrow().as_ref().map_or(Err(Errno::ENOTCONN.into()), what)
    }

    pub(in crate::wheel) fn set_paused(&self, paused: bool) {
        if self.paused.replace(paused) != paused {
            self.key.get().inspect(|key| self.mailbox.changed(*key));
        }
    }

    /// The wheel's handle was dropped. The kernel closes the listener before the next event.
    pub(in crate::wheel) fn let_go(&self) {
        if self.open.replace(false) {
            self.key.get().inspect(|key| self.mailbox.dropped(*key));
        }
    }

    fn accept_some(&self, cx: &mut Turn<'_>) -> Next {
        self.resting.set(false);
        self.note_calm(cx.core());
        if self.manner.rota.as_ref().is_some_and(|rota| rota.gives_way(self.place.get())) {
            return Next::Again(Readiness::Read);
        }
        for _ in 0..self.manner.accepts_per_turn {
            // A state may have paused it.
            if self.paused.get() || self.held.get() {
                return Next::Wait;
            }
            let accepted = match &*self.listener.borrow() {
                Some(listener) => listener.accept(),
                None => return Next::Wait,
            };
            let delivery = match accepted {
                Ok(accepted) => {
                    self.note_success(cx.core());
                    if let Some(rota) = &self.manner.rota {
                        rota.accepted(self.place.get());
                    }
                    #[cfg(feature = "control")]
                    if let Accepted::Tcp(stream, _) = &accepted {
                        cx.has_accepted(stream);
                    }
                    self.report.succeed(cx, (self.manner.args)(accepted, self.report.id))
                }
                Err(error) => match Trouble::of(&error) {
                    // The accept did not run out of descriptors, so the next one may succeed.
                    Trouble::NobodyThere => {
                        self.note_success(cx.core());
                        return Next::Wait;
                    }
                    Trouble::Interrupted => continue,
                    Trouble::Aborted if !self.manner.reports_aborted => continue,
                    Trouble::Aborted | Trouble::OneConnection => self.fail(cx, error),
                    // The parent has died, and this child's listeners were replaced with sockets that accept nothing.
                    // That is not a failure.
                    Trouble::Listener if has_replaced_listeners() => return Next::Wait,
                    // Linux takes a descriptor before it looks into the queue. It may fail for want of a descriptor
                    // although no client waits.
                    Trouble::Listener if is_shortage(errno_of(&error)) && !self.has_client() => return Next::Wait,
                    Trouble::Listener => {
                        self.resting.set(true);
                        let rested = cx.read_clock().saturating_add(nanos(ACCEPT_REST));
                        if self.logs(&error) {
                            self.note_failure(cx.core(), &error);
                        } else {
                            self.fail(cx, error);
                        }
                        return Next::At(rested);
                    }
                },
            };
            if delivery == Delivery::Over {
                return Next::Wait;
            }
        }
        // An edge-triggered poller does not report the clients that are left.
        Next::Again(Readiness::Read)
    }

    /// Tells whether a failure to accept is logged, instead of sent to the session. The next attempt will probably fail
    /// in the same way, so the log gets only the first.
    fn logs(&self, error: &io::Error) -> bool {
        self.report.on_error.get().is_none() || (self.manner.logs_shortages && is_shortage(errno_of(error)))
    }

    fn note_failure(&self, core: &Core, error: &io::Error) {
        let errno = errno_of(error);
        self.calm_at.set(None);
        if !self.outage.borrow_mut().failed(errno, core.now()) {
            return;
        }
        let level = if is_shortage(errno) { log::Level::Warn } else { log::Level::Error };
        let advice = match errno {
            Errno::EMFILE => "; see RLIMIT_NOFILE of the process",
            Errno::ENFILE => "; see fs.file-max of the system",
            _ => "",
        };
        log::log!(
            target: "lenore::wheels", level,
            "listener can't accept for now: accept: {error}{advice}: address={} errno={errno:?} session={} pid={}",
            self.address(), self.report.owner.number(), core.pid()
        );
    }

    /// Sets the time at which the outage counts as over, unless another accept fails before.
    fn note_success(&self, core: &Core) {
        let mut outage = self.outage.borrow_mut();
        if outage.is_present() && outage.succeeded(core.now()) {
            self.calm_at.set(Some(core.clock.now().saturating_add(nanos(CALM))));
        }
    }

    fn note_calm(&self, core: &Core) {
        let mut outage = self.outage.borrow_mut();
        if outage.is_present()
            && let Some(ended) = outage.end_if_calm(core.now(), CALM)
        {
            self.calm_at.set(None);
            log::info!(
                target: "lenore::wheels", "listener accepts again: address={} {ended} pid={}", self.address(), core.pid()
            );
        }
    }

    fn address(&self) -> String {
        self.listener.borrow().as_ref().map_or_else(String::new, Listener::to_string)
    }

    fn fail(&self, cx: &mut Turn<'_>, error: io::Error) -> Delivery {
        self.report.fail(cx, &CallError { operation: "accept", error })
    }
}

impl Source for Acceptor {
    fn fd(&self) -> RawFd {
        self.listener.borrow().as_ref().map_or(-1, |listener| listener.as_fd().as_raw_fd())
    }

    fn wanted(&self) -> Option<Wanted> {
        let is_off = self.paused.get() || self.held.get() || self.resting.get();
        if is_off || self.listener.borrow().is_none() { None } else { Some(Wanted::ACCEPT) }
    }

    fn is_listener(&self) -> bool {
        self.listener.borrow().is_some()
    }

    fn duplicate(&self) -> io::Result<OwnedFd> {
        self.with_listener(|listener| listener.as_fd().try_clone_to_owned())
    }

    fn known_as(&self) -> Option<KnownAs> {
        self.known_as.clone()
    }

    fn hold(&self, held: bool) {
        self.held.set(held);
    }

    fn has_client(&self) -> bool {
        self.listener.borrow().as_ref().is_some_and(|listener| has_input(listener.as_fd()))
    }

    fn queue(&self) -> nix::Result<AcceptQueue> {
        self.listener.borrow().as_ref().map_or(Err(Errno::EBADF), |listener| accept_queue::read(listener.as_fd()))
    }

    fn turn(&self, cx: &mut Turn<'_>, readiness: Readiness) -> Next {
        let next = if readiness == Readiness::Read { self.accept_some(cx) } else { Next::Wait };
        match (next, self.calm_at.get()) {
            (Next::Wait, Some(due)) => Next::At(due),
            _ => next,
        }
    }

    fn close(&self) {
        self.open.set(false);
        // Removes the path before it closes the socket, so that no client finds a path without a listener.
        self.path.take();
        self.listener.take();
    }

    fn fork(&self) -> AfterFork {
        // The parent may not have set the time at which the listener goes on, so the child does not wait for it.
        self.resting.set(false);
        AfterFork::Keep
    }

    fn describe(&self) -> String {
        let Report { wheel, id, on_success, .. } = &*self.report;
        let event = on_success.get();
        match &*self.listener.borrow() {
            Some(listener) => {
                let paused = if self.paused.get() { ", paused" } else { "" };
                format!("{wheel} ({id}) listening on {listener} -> {event}{paused}")
            }
            None => format!("{wheel} ({id}) closed"),
        }
    }
}

/// Why an accept has failed.
#[derive(Debug, PartialEq)]
enum Trouble {
    /// No client waits, because another process has accepted it.
    NobodyThere,
    /// A signal has interrupted the call.
    Interrupted,
    /// The client has aborted the connection while it waited.
    Aborted,
    /// This connection has failed. The next one may work.
    OneConnection,
    /// The next attempt would fail in the same way: the system is short of something, or the socket does not listen any
    /// more.
    Listener,
}

fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}

/// Tells whether the system is short of something, so that a later try may succeed.
fn is_shortage(errno: Errno) -> bool {
    matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM)
}

impl Trouble {
    fn of(error: &io::Error) -> Trouble {
        match errno_of(error) {
            Errno::EAGAIN => Trouble::NobodyThere,
            Errno::EINTR => Trouble::Interrupted,
            Errno::ECONNABORTED => Trouble::Aborted,
            // Linux reports network errors of a new connection through accept.
            Errno::EPERM
            | Errno::EPROTO
            | Errno::ENOPROTOOPT
            | Errno::ENETDOWN
            | Errno::ENETUNREACH
            | Errno::EHOSTDOWN
            | Errno::EHOSTUNREACH
            | Errno::ECONNRESET
            | Errno::ETIMEDOUT => Trouble::OneConnection,
            #[cfg(target_os = "linux")]
            Errno::ENONET => Trouble::OneConnection,
            _ => Trouble::Listener,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(errno: Errno) -> Trouble {
        Trouble::of(&errno.into())
    }

    #[test] // K-SF-12: which errors are passed over, and after which the listener is tried again at once
    fn errors_of_accept_are_told_apart() {
        assert_eq!(trouble(Errno::EAGAIN), Trouble::NobodyThere);
        assert_eq!(trouble(Errno::ECONNABORTED), Trouble::Aborted);
        assert_eq!(trouble(Errno::EPROTO), Trouble::OneConnection);
        for shortage in [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM] {
            assert_eq!(trouble(shortage), Trouble::Listener);
        }
        // Shut down by somebody else who has it.
        assert_eq!(trouble(Errno::EINVAL), Trouble::Listener);
    }
}

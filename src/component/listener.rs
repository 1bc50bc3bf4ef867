//! The session that listens, of every server: it accepts, makes a session of each connection, and counts them.
//!
//! Servers differ in who lets a connection in: that is the [`Admission`]'s to say.

use std::collections::HashSet;
use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use rustc_hash::FxBuildHasher;

use super::accepted::Opener;
use super::listen::{Door, Listen, ListenAddr, Opening};
use super::load::Load;
use super::socket::{Accepted, Socket};
use crate::error::{Error, Result};
use crate::kernel::{Context, SessionId};
use crate::session::Session;
use crate::wheel::{Failure, Rota, SocketFactory, SocketFactoryBuilder, WheelId};

/// The heap of the session that listens, of a [`TcpServer`](super::TcpServer) or a [`Server`](super::Server).
///
/// POE: `$_[HEAP]` with its fields `listener`, `concurrency`, `connections`.
pub struct Listener {
    /// None once this process listens no more.
    sockets: Vec<(SocketFactory, Rc<Door>)>,
    /// Which of their addresses a configuration says.
    configured: Vec<SocketAddr>,
    /// This process listens no more.
    is_closed: bool,
    accept: Accept,
    admission: Rc<dyn Admission>,
    /// The sessions of connections.
    sessions: HashSet<SessionId, FxBuildHasher>,
    /// Connections whose sessions are being made: more than one if a callback of a connection runs slices of the kernel meanwhile.
    opening: u32,
    /// Connections that an acceptor has taken, as far as their end was not reported.
    handed_over: u32,
    /// The log knows that `disconnected` came too often.
    is_miscount_logged: bool,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("connections", &self.connections()).finish_non_exhaustive()
    }
}

/// The context of a state of the session that listens.
pub(super) type Cx<'a> = Context<'a, Listener>;

/// What is done with an accepted socket.
#[derive(Clone)]
pub(super) enum Accept {
    /// It becomes a session.
    Open(Opener),
    /// The program has it, and posts `disconnected` at its end.
    HandOver(Acceptor),
}

pub(super) type Acceptor = Rc<dyn Fn(&mut Cx<'_>, TcpStream, SocketAddr) -> Result>;

/// Who lets connections in.
pub(super) trait Admission {
    /// Returns how many connections this process may have at a time; `None` for any number.
    fn limit(&self) -> Option<u32>;

    /// Tells whether this process may accept at present, however few connections it has.
    fn is_open(&self) -> bool {
        true
    }

    /// Decides about a connection that was accepted, and returns it if it is this process's.
    fn admit(&self, _cx: &mut Cx<'_>, accepted: Accepted) -> Result<Option<Accepted>> {
        Ok(Some(accepted))
    }

    /// Hears that a callback of a connection has failed.
    fn failed(&self, _cx: &mut Cx<'_>) {}

    /// Hears that a connection of this process has ended.
    fn ended(&self, _cx: &mut Cx<'_>) -> Result {
        Ok(())
    }
}

/// Prepares a wheel for a session that listens. The caller adds its own settings.
pub(super) fn wheel(socket: SocketFactoryBuilder) -> SocketFactoryBuilder {
    socket.on_accept(ACCEPTED).whole_address()
}

/// Begins a session that listens on sockets that were bound before, so that nothing is created for an address that can't be had.
/// Its `_start` is to call [`listen`].
pub(super) fn session(sockets: Vec<Opening>, accept: Accept, admission: Rc<dyn Admission>) -> Session<Listener> {
    let heap = Listener {
        sockets: Vec::new(),
        configured: Vec::new(),
        is_closed: false,
        accept,
        admission,
        sessions: HashSet::default(),
        opening: 0,
        handed_over: 0,
        is_miscount_logged: false,
    };
    Session::new(heap)
        .args((sockets,))
        .state(ACCEPTED, accepted)
        .state("disconnected", disconnected)
        .state(FAILED, failed)
}

/// A callback of a connection has failed.
fn failed(cx: &mut Cx<'_>) {
    let admission = Rc::clone(&cx.heap().admission);
    admission.failed(cx);
}

/// Begins to accept, as far as the admission says so.
pub(super) fn listen(cx: &mut Cx<'_>) -> Result<(), Error> {
    for Opening { socket, door } in cx.take::<Vec<Opening>>(0)? {
        let socket = socket.start(cx.core_mut())?;
        cx.heap().sockets.push((socket, door));
    }
    cx.heap().adjust();
    Ok(())
}

/// Has this process listen on these addresses besides those that it began with, and on no others, if it listens. An address that it
/// listens on keeps its socket. The wheels take turns by `rota`.
///
/// # Errors
///
/// [`Error::Os`] for an address that can't be had. The others are listened on all the same.
pub(super) fn listen_on(
    cx: &mut Cx<'_>,
    addresses: &[SocketAddr],
    rota: &Rc<Rota>,
    load: &Rc<Load>,
) -> Result<(), Error> {
    let heap = cx.heap();
    if heap.is_closed {
        return Ok(());
    }
    let former = std::mem::take(&mut heap.configured);
    let goes = |address: SocketAddr| former.contains(&address) && !addresses.contains(&address);
    heap.sockets.retain(|(_, door)| !door.address.tcp().is_some_and(goes));
    let mut outcome = Ok(());
    for address in addresses {
        if !former.contains(address) {
            let opening = Listen::tcp(address.to_string()).bind(wheel, Some(rota), load);
            let started = opening.and_then(|Opening { socket, door }| Ok((socket.start(cx.core_mut())?, door)));
            match started {
                Ok(started) => cx.heap().sockets.push(started),
                Err(error) => {
                    outcome = Err(error);
                    continue;
                }
            }
        }
        cx.heap().configured.push(*address);
    }
    cx.heap().adjust();
    outcome
}

impl Listener {
    /// Returns the first address of TCP that it listens on; `None` if there is none, and once it listens no more.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local_addrs().find_map(ListenAddr::tcp)
    }

    /// Returns where it listens, in the order in which that was asked for; nothing once it listens no more.
    pub fn local_addrs(&self) -> impl Iterator<Item = &ListenAddr> {
        self.sockets.iter().map(|(_, door)| &door.address)
    }

    /// Returns how many connections this process has.
    pub fn connections(&self) -> u32 {
        self.sessions.len() as u32 + self.opening + self.handed_over
    }

    /// Returns how many connections this process may have at a time; `None` for any number.
    pub fn concurrency(&self) -> Option<u32> {
        self.admission.limit()
    }

    /// Accepts exactly while there may be one more connection, and takes the socket away from the poller otherwise: a process that
    /// does not accept must not be woken in another's place.
    pub(super) fn adjust(&self) {
        if self.sockets.is_empty() {
            return;
        }
        let has_room = self.admission.limit().is_none_or(|limit| self.connections() < limit);
        let accepts = has_room && self.admission.is_open();
        for (socket, _) in &self.sockets {
            if accepts { socket.resume_accept() } else { socket.pause_accept() }
        }
    }

    /// Listens no more in this process.
    pub(super) fn close(&mut self) {
        self.sockets.clear();
        self.configured.clear();
        self.is_closed = true;
    }

    /// Returns the settings of those that speak TLS.
    #[cfg(feature = "tls")]
    pub(super) fn secured(&self) -> impl Iterator<Item = &crate::tls::Server> {
        self.sockets.iter().filter_map(|(_, door)| match &door.secure {
            Some(super::secure::Secure::Server(tls)) => Some(tls),
            _ => None,
        })
    }

    /// Tells whether this process listens, though it may have paused that.
    pub(super) fn listens(&self) -> bool {
        !self.sockets.is_empty()
    }

    /// Tells whether a client waits that this process may not take.
    pub(super) fn has_client(&self) -> bool {
        self.sockets.iter().any(|(socket, _)| socket.has_client())
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.sessions.iter().copied()
    }

    /// Returns the sessions of all connections, and has none of them any more.
    pub(super) fn take_sessions(&mut self) -> impl Iterator<Item = SessionId> + use<> {
        std::mem::take(&mut self.sessions).into_iter()
    }
}

fn accepted(cx: &mut Cx<'_>) -> Result {
    let wheel: WheelId = cx.take(2)?;
    let door = cx.heap().sockets.iter().find(|(socket, _)| socket.id() == wheel).map(|(_, door)| Rc::clone(door));
    // It may have been closed by the state that has got the connection before.
    let Some(door) = door else { return Ok(()) };
    let socket = match cx.take::<TcpStream>(0) {
        Ok(socket) => Socket::Tcp(socket, cx.take(1)?),
        Err(_) => Socket::Unix(cx.take::<UnixStream>(0)?),
    };
    let accepted = Accepted { socket, door };
    let admission = Rc::clone(&cx.heap().admission);
    match admission.admit(cx, accepted)? {
        Some(accepted) => open(cx, accepted),
        None => Ok(()),
    }
}

/// Makes a session of a connection, or hands it over.
pub(super) fn open(cx: &mut Cx<'_>, accepted: Accepted) -> Result {
    match cx.heap().accept.clone() {
        Accept::HandOver(acceptor) => {
            // Who hands over listens on TCP only.
            let Socket::Tcp(socket, peer) = accepted.socket else { return Ok(()) };
            cx.heap().handed_over += 1;
            cx.heap().adjust();
            acceptor(cx, socket, peer)
        }
        Accept::Open(open) => {
            cx.heap().opening += 1;
            cx.heap().adjust();
            let session = open(cx, accepted);
            cx.heap().opening -= 1;
            let lives = session.as_ref().is_ok_and(|session| cx.core().sessions.is_alive(*session));
            cx.heap().sessions.extend(session.as_ref().ok().filter(|_| lives));
            cx.heap().adjust();
            session?;
            // What one has said that was stopped as soon as it began counts only now.
            if lives { Ok(()) } else { tell_of_end(cx) }
        }
    }
}

/// A connection's session has stopped, or the program tells of the end of what an acceptor has taken.
fn disconnected(cx: &mut Cx<'_>) -> Result {
    let sender = cx.sender();
    let heap = cx.heap();
    if !heap.sessions.remove(&sender) {
        if heap.opening > 0 {
            return Ok(());
        }
        match heap.handed_over.checked_sub(1) {
            Some(rest) => heap.handed_over = rest,
            None => log_miscount(cx),
        }
    }
    cx.heap().adjust();
    tell_of_end(cx)
}

fn tell_of_end(cx: &mut Cx<'_>) -> Result {
    let admission = Rc::clone(&cx.heap().admission);
    admission.ended(cx)
}

fn log_miscount(cx: &mut Cx<'_>) {
    if !std::mem::replace(&mut cx.heap().is_miscount_logged, true) {
        let session = cx.session();
        log::warn!(target: "lenore::component", "{session}: more connections have ended than began, and more such ends will not be logged");
    }
}

/// Tells of a listener that can't go on, and listens no more.
pub(super) fn give_up(cx: &mut Cx<'_>, failure: &Failure) {
    let session = cx.session();
    log::warn!(target: "lenore::component", "{session} does not listen: {failure}");
    cx.heap().close();
}

/// What a connection's session tells of a callback that has failed.
pub(super) const FAILED: &str = "callback_failed";

/// The event for a connection that was accepted.
const ACCEPTED: &str = "tcp_got_connection";

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::Kernel;

    /// Writes down how many connections there are at each end.
    #[derive(Default)]
    struct Ends(RefCell<Vec<u32>>);

    impl Admission for Ends {
        fn limit(&self) -> Option<u32> {
            None
        }

        fn ended(&self, cx: &mut Cx<'_>) -> Result {
            self.0.borrow_mut().push(cx.heap().connections());
            Ok(())
        }
    }

    #[test] // A child of a Daemon must not report that it is done while a connection is being made.
    fn a_connection_that_is_being_made_counts_when_another_ends() -> Result<(), Error> {
        let opener = |cx: &mut Cx<'_>, accepted: Accepted| {
            let listener = cx.session();
            let Socket::Tcp(socket, _) = accepted.socket else { unreachable!("it listens on TCP") };
            Session::new(socket)
                .state("_start", |cx| {
                    // The second one ends the first, and the third one itself.
                    let _ = cx.signal_now("connection", "KILL", ());
                    if cx.heap().peer_addr().is_ok() && cx.session().number() < 4 {
                        return Ok(cx.alias_set("connection")?);
                    }
                    Ok(cx.signal_now(cx.session(), "KILL", ())?)
                })
                .state("_stop", move |cx| drop(cx.call(listener, "disconnected", ())))
                .spawn(cx)
        };
        let ends = Rc::new(Ends::default());
        let opening = Listen::tcp("127.0.0.1:0").bind(wheel, None, &Rc::default())?;
        let address = opening.door.address.tcp().expect("of TCP");
        let mut kernel = Kernel::new()?;
        session(vec![opening], Accept::Open(Rc::new(opener)), ends.clone())
            .state("_start", |cx| Ok(listen(cx)?))
            .state("shutdown", |cx| cx.heap().close())
            .spawn(&mut kernel)?;
        let _peers: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(address).expect("it listens")).collect();
        kernel.run_while(|| ends.0.borrow().len() < 3)?;
        assert_eq!(*ends.0.borrow(), [1, 1, 0]);
        Ok(())
    }
}

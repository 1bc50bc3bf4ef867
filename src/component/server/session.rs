//! The session behind a `Server`: it listens, and does what the Daemon wants done in each process.

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::rc::Rc;

use super::SetUp;
use crate::component::accepted::Opener;
use crate::component::connection::LEFT;
use crate::daemon::{Daemon, Haste, Mode, Report};
use crate::error::{Error, Result};
use crate::kernel::{Context, Kernel, SessionId};
use crate::name::Name;
use crate::session::Session;
use crate::wheel::SocketFactory;

/// What the session keeps, in whichever process it finds itself.
struct Heap {
    open: Opener,
    on_child: Option<SetUp>,
    /// From `adopt` on, before which it has sent nothing.
    daemon: Option<Daemon>,
    mode: Mode,
    /// This process is a child of the Daemon.
    is_child: bool,
    /// How many connections this process may have at a time; `None` for any number.
    limit: Option<u32>,
    listener: Option<SocketFactory>,
    /// The Daemon lets this process accept.
    is_allowed: bool,
    /// The listener is on its way to the end of the queue.
    is_requeueing: bool,
    connections: HashSet<SessionId>,
}

type Cx<'a> = Context<'a, Heap>;

/// A socket on its way to the child that is forked for it.
struct Accepted {
    socket: TcpStream,
    peer: SocketAddr,
}

/// Creates the session, and leaves in `bound` what came of listening.
pub(super) fn spawn(
    kernel: &mut Kernel,
    address: String,
    open: Opener,
    on_child: Option<SetUp>,
    peek_on: Option<Name>,
    bound: Rc<RefCell<Result<SocketAddr, Error>>>,
) -> Result<SessionId, Error> {
    let heap = Heap {
        open,
        on_child,
        daemon: None,
        mode: Mode::NonForking,
        is_child: false,
        limit: None,
        listener: None,
        is_allowed: false,
        is_requeueing: false,
        connections: HashSet::new(),
    };
    Session::new(heap)
        .state("_start", move |cx| {
            *bound.borrow_mut() = listen(cx, &address);
            peek_on.map_or(Ok(()), |signal| watch_for_peek(cx, signal))
        })
        .state("adopt", adopt)
        .state("daemon_start", if_own(begin))
        .state("daemon_child", if_own(begin_child))
        .state("daemon_accept", if_own(resume))
        .state("daemon_pause", if_own(pause))
        .state("daemon_shutdown", if_own(end))
        .state("forked", forked)
        .state("whose_child", leave_unless_own)
        .state("accept", accepted)
        .state("requeue", requeue)
        .state("disconnected", disconnected)
        .state("peek", |cx| {
            let Some(daemon) = cx.heap().daemon else { return Ok(()) };
            log::info!(target: "lenore::component", "{}", daemon.peek(cx, true)?);
            Ok(())
        })
        .state("hurry", |cx| {
            cx.sig_handled();
            shut_down_connections(cx);
        })
        .spawn(kernel)
}

impl Heap {
    /// Accepts if this process may have one more connection, and takes the listener away from the poller otherwise: a
    /// process that does not accept must not be woken in another's place.
    fn adjust(&self) {
        let Some(listener) = &self.listener else { return };
        let has_room = self.limit.is_none_or(|limit| self.connections.len() < limit as usize);
        if self.is_allowed && !self.is_requeueing && has_room {
            listener.resume_accept();
        } else {
            listener.pause_accept();
        }
    }
}

/// Makes a state for a signal of this server's Daemon; those of other Daemons in the kernel are none of its business.
fn if_own(state: fn(&mut Cx<'_>) -> Result) -> impl Fn(&mut Cx<'_>) -> Result {
    // One whose arguments the program has taken is taken for our own: nearly always there is one Daemon.
    move |cx| match Daemon::of_signal(cx) {
        Some(daemon) if cx.heap().daemon != Some(daemon) => Ok(()),
        _ => state(cx),
    }
}

fn listen(cx: &mut Cx<'_>, address: &str) -> Result<SocketAddr, Error> {
    // A failure to accept goes to the log, and the listener tries again by itself.
    let listener = SocketFactory::tcp(address).on_accept("accept").listen(cx)?;
    listener.pause_accept();
    let address = listener.local_addr()?;
    cx.heap().listener = Some(listener);
    for signal in ["daemon_start", "daemon_child", "daemon_accept", "daemon_pause", "daemon_shutdown"] {
        cx.sig(signal, signal);
    }
    cx.sig("FORKED", "forked");
    Ok(address)
}

/// An alias keeps no program alive, but its session as long as there is another: whoever asks why a server does not end is to
/// be told, and not to end the parent in the middle by the signal's default action.
fn watch_for_peek(cx: &mut Cx<'_>, signal: Name) -> Result {
    cx.sig(signal, "peek");
    let alias = format!("server ({})", cx.session());
    Ok(cx.alias_set(alias)?)
}

fn adopt(cx: &mut Cx<'_>) -> Result {
    let (daemon, mode, limit) = (cx.take(0)?, cx.take(1)?, cx.take::<Option<u32>>(2)?);
    let heap = cx.heap();
    heap.daemon = Some(daemon);
    heap.mode = mode;
    heap.limit = match mode {
        Mode::PreForking => limit.or(Some(1)),
        Mode::NonForking => limit,
        // The parent has none, and a child has the one that it was forked for.
        Mode::PostForking => None,
    };
    Ok(())
}

/// The Daemon is there. What serves in this process begins to accept.
fn begin(cx: &mut Cx<'_>) -> Result {
    if cx.heap().mode == Mode::NonForking {
        set_up(cx)?;
    }
    cx.heap().is_allowed = cx.heap().mode != Mode::PreForking;
    cx.heap().adjust();
    Ok(())
}

/// A new process, whoever has forked it, and before anything else happens in it: whom it is to serve, if anybody, it
/// is told by its Daemon. A listener that accepts here would take clients away from those who can serve them.
fn forked(cx: &mut Cx<'_>) {
    // What this process has of them is no more than what keeps it alive: alarms that would do once more what they do there.
    for session in std::mem::take(&mut cx.heap().connections) {
        let _ = cx.call(session, LEFT, ());
    }
    let heap = cx.heap();
    heap.is_child = false;
    heap.is_allowed = false;
    if heap.mode == Mode::PreForking {
        heap.adjust();
        // The Daemon does not know yet.
        cx.yield_("whose_child", ());
    } else {
        // The parent goes on listening; a child that is forked for a connection has that.
        heap.listener = None;
    }
}

/// In a child of another Daemon, or of the program, there is no pool to be one of.
fn leave_unless_own(cx: &mut Cx<'_>) {
    let daemon = cx.heap().daemon;
    let is_own = daemon.is_some_and(|daemon| daemon.status(cx).is_ok_and(|status| status.slot.is_some()));
    if !is_own {
        cx.heap().listener = None;
    }
}

/// A new child.
fn begin_child(cx: &mut Cx<'_>) -> Result {
    cx.heap().is_child = true;
    if cx.heap().mode == Mode::PreForking {
        set_up(cx)?;
        return report(cx, Report::Wait);
    }
    let Accepted { socket, peer } = cx.take(1)?;
    set_up(cx)?;
    open(cx, socket, peer)
}

fn set_up(cx: &mut Cx<'_>) -> Result {
    // Taken out for as long as it runs: it needs the kernel, and with it the heap.
    let Some(on_child) = cx.heap().on_child.take() else { return Ok(()) };
    let outcome = on_child(cx.as_mut());
    cx.heap().on_child = Some(on_child);
    outcome
}

fn report(cx: &mut Cx<'_>, report: Report) -> Result {
    let daemon = cx.heap().daemon;
    Ok(daemon.map_or(Ok(()), |daemon| daemon.update_status(cx, report))?)
}

fn accepted(cx: &mut Cx<'_>) -> Result {
    let (socket, peer) = (cx.take::<TcpStream>(0)?, SocketAddr::new(cx.take::<IpAddr>(1)?, cx.take(2)?));
    let Some(daemon) = cx.heap().daemon else { return Ok(()) };
    match cx.heap().mode {
        Mode::NonForking => {}
        Mode::PostForking => return Ok(daemon.update_status_with(cx, Report::Req, Accepted { socket, peer })?),
        Mode::PreForking => {
            if !daemon.begin_request(cx)? {
                // This one is the last.
                cx.heap().listener = None;
            } else if cx.heap().limit != Some(1) {
                cx.heap().is_requeueing = true;
                cx.yield_("requeue", (Hop::First,));
            }
        }
    }
    open(cx, socket, peer)
}

/// Makes a session of a connection.
fn open(cx: &mut Cx<'_>, socket: TcpStream, peer: SocketAddr) -> Result {
    if let (true, Some(daemon)) = (cx.heap().is_child, cx.heap().daemon) {
        daemon.set_peer_label(cx, peer.ip().to_canonical().to_string())?;
    }
    let open = Rc::clone(&cx.heap().open);
    let session = open(cx.as_mut(), socket, peer)?;
    // One that was stopped as soon as it began has said so already.
    if cx.sessions.is_alive(session) {
        cx.heap().connections.insert(session);
    }
    cx.heap().adjust();
    Ok(())
}

/// The kernel hears of a change of mind before it waits, and not in between: the first of these two events comes before
/// it has taken the listener out of the poller, the second one after that.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hop {
    First,
    Second,
}

/// Sends the listener to the end of the queue of those that the system may wake for a connection. It would always wake the
/// first, whatever that one has to do already.
fn requeue(cx: &mut Cx<'_>) -> Result {
    if cx.take::<Hop>(0)? == Hop::First {
        cx.yield_("requeue", (Hop::Second,));
    } else {
        cx.heap().is_requeueing = false;
        cx.heap().adjust();
    }
    Ok(())
}

/// A connection's session has stopped.
fn disconnected(cx: &mut Cx<'_>) -> Result {
    let session = cx.sender();
    cx.heap().connections.remove(&session);
    cx.heap().adjust();
    // The Daemon answers with `daemon_accept`, or ends this process.
    if cx.heap().is_child && cx.heap().connections.is_empty() { report(cx, Report::Done) } else { Ok(()) }
}

/// The next connection may come.
fn resume(cx: &mut Cx<'_>) -> Result {
    cx.heap().is_allowed = true;
    cx.heap().adjust();
    Ok(())
}

/// The parent of forked children has as many as it may have; or a child is asked to go, and has something in hand.
fn pause(cx: &mut Cx<'_>) -> Result {
    let heap = cx.heap();
    heap.is_allowed = false;
    if heap.is_child {
        heap.listener = None;
    }
    heap.adjust();
    Ok(())
}

fn end(cx: &mut Cx<'_>) -> Result {
    cx.heap().is_allowed = false;
    cx.heap().listener = None;
    if cx.arg::<Haste>(1).map_or(Haste::AtOnce, |haste| *haste) == Haste::AtOnce {
        shut_down_connections(cx);
    } else {
        // The Daemon has heard enough by now, but whoever sends one of these does not want to wait any longer.
        cx.sig("TERM", "hurry");
        cx.sig("INT", "hurry");
    }
    Ok(())
}

fn shut_down_connections(cx: &mut Cx<'_>) {
    let (heap, core) = cx.split();
    for session in &heap.connections {
        // One that has stopped is no longer among them; and if it were, it would need no shutdown.
        let _ = core.post(*session, "shutdown", ());
    }
}

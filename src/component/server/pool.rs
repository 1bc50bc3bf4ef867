//! The admission of a `Server`: a Daemon says which process accepts, and how long.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use super::crowd::{self, Crowd};
use super::load;
use super::{Follow, SetUp};
use crate::component::connection::LEFT;
use crate::component::listen::Opening;
use crate::component::listener::{self, Accept, Admission, Cx, Listener};
use crate::component::load::Load;
use crate::component::protocol::Prepare;
use crate::component::proxy::LABEL;
use crate::component::requests::{DRAIN, LOOK, PROGRESS};
use crate::component::socket::Accepted;
use crate::daemon::machine::Grace;
use crate::daemon::{Daemon, Forking, Report, Shutdown};
use crate::error::{Error, Result};
use crate::kernel::{Kernel, SessionId};
use crate::name::Name;
use crate::reply::Return;
use crate::session::Session;
use crate::wheel::Rota;

/// What the Daemon lets this process do, in whichever process it finds itself.
pub(super) struct Pool {
    prepare: Option<Prepare>,
    on_child: Option<SetUp>,
    follow: Option<Follow>,
    /// It listens on what the Daemon's configuration says, and this is how its wheels take turns.
    configured: Option<Rc<Rota>>,
    /// From `adopt` on, before which it has sent nothing.
    pub(super) daemon: Cell<Option<Daemon>>,
    pub(super) forking: Cell<Forking>,
    /// This process is a child of the Daemon.
    pub(super) is_child: Cell<bool>,
    /// How many connections this process may have at a time; `None` for any number.
    pub(super) limit: Cell<Option<u32>>,
    /// The Daemon lets this process accept.
    is_allowed: Cell<bool>,
    /// The listener is on its way to the end of the queue.
    is_requeueing: Cell<bool>,
    /// For how long connections of this process may still hold up its end.
    grace: Cell<Option<Grace>>,
    /// What the connections of this process have in hand.
    pub(super) load: Rc<Load>,
    pub(super) crowd: Crowd,
}

impl Pool {
    pub(super) fn new(
        prepare: Option<Prepare>,
        on_child: Option<SetUp>,
        follow: Option<Follow>,
        configured: Option<Rc<Rota>>,
        load: Rc<Load>,
    ) -> Pool {
        Pool {
            prepare,
            on_child,
            follow,
            configured,
            load,
            crowd: Crowd::default(),
            daemon: Cell::new(None),
            forking: Cell::new(Forking::None),
            is_child: Cell::new(false),
            limit: Cell::new(None),
            is_allowed: Cell::new(false),
            is_requeueing: Cell::new(false),
            grace: Cell::new(None),
        }
    }

    /// Learns whose pool it is, and how many connections a process of it may have.
    pub(super) fn adopt(&self, daemon: Daemon, forking: Forking, connections: Option<u32>) {
        self.daemon.set(Some(daemon));
        self.forking.set(forking);
        self.limit.set(match forking {
            Forking::Pre => connections.or(Some(1)),
            Forking::None => connections,
            // The parent has none, and a child has the one that it was forked for.
            Forking::Post => None,
        });
    }

    pub(super) fn report(&self, cx: &mut Cx<'_>, report: Report) -> Result {
        Ok(self.daemon.get().map_or(Ok(()), |daemon| daemon.update_status(cx, report))?)
    }

    /// Bounds for how long the connections of this process may hold up its end. Those of children are bounded by their parent.
    fn begin_grace(&self, cx: &mut Cx<'_>) -> Result {
        if let Some(daemon) = self.daemon.get().filter(|_| cx.heap().connections() > 0) {
            let begin = since_epoch(cx);
            let grace = daemon.grace_of_clients(cx, begin)?;
            self.grace.set(Some(grace));
            cx.delay("grace", grace.next_look(), ());
        }
        Ok(())
    }

    fn end_grace(&self, cx: &mut Cx<'_>) {
        if self.grace.take().is_some() {
            cx.delay_clear("grace");
        }
    }

    fn set_up(&self, cx: &mut Cx<'_>) -> Result {
        self.follow(cx)?;
        self.prepare.as_ref().map_or(Ok(()), |prepare| prepare())?;
        self.on_child.as_ref().map_or(Ok(()), |on_child| on_child(cx))
    }

    /// Takes over what the listeners need of the configuration.
    fn follow(&self, cx: &mut Cx<'_>) -> Result {
        match (&self.follow, self.daemon.get()) {
            (Some(follow), Some(daemon)) => follow(cx, daemon),
            _ => Ok(()),
        }
    }

    /// Has a connection of this process be one that the scoreboard tells of.
    fn label(&self, cx: &mut Cx<'_>, accepted: &Accepted) -> Result {
        // Without a slot on the board no text is made.
        let label = if self.is_child.get() { accepted.label() } else { None };
        label.map_or(Ok(()), |label| self.set_label(cx, label))
    }

    fn set_label(&self, cx: &mut Cx<'_>, label: String) -> Result {
        match self.daemon.get().filter(|_| self.is_child.get()) {
            Some(daemon) => Ok(daemon.set_peer_label(cx, label)?),
            None => Ok(()),
        }
    }
}

impl Admission for Pool {
    fn limit(&self) -> Option<u32> {
        self.limit.get()
    }

    fn is_open(&self) -> bool {
        self.is_allowed.get() && !self.is_requeueing.get()
    }

    fn admit(&self, cx: &mut Cx<'_>, accepted: Accepted) -> Result<Option<Accepted>> {
        let Some(daemon) = self.daemon.get() else { return Ok(None) };
        match self.forking.get() {
            Forking::None => {}
            Forking::Post => {
                daemon.update_status_with(cx, Report::Req, accepted)?;
                return Ok(None);
            }
            Forking::Pre => {
                if !daemon.begin_request(cx)? {
                    // This one is the last. It and all others end as soon as they have nothing in hand.
                    cx.heap().close();
                    if self.limit.get() != Some(1) {
                        cx.yield_("drain", ());
                    }
                } else if self.limit.get() != Some(1) {
                    self.is_requeueing.set(true);
                    cx.yield_("requeue", (Hop::First,));
                }
            }
        }
        self.label(cx, &accepted)?;
        load::accepted(self, cx);
        crowd::look_later(self, cx);
        Ok(Some(accepted))
    }

    fn failed(&self, cx: &mut Cx<'_>) {
        // Once it has ended nothing counts any more.
        self.daemon.get().map(|daemon| daemon.request_failed(cx));
    }

    /// The Daemon answers with `daemon_accept`, or ends this process.
    fn ended(&self, cx: &mut Cx<'_>) -> Result {
        if cx.heap().connections() > 0 {
            // It may have had the only request in hand.
            return load::look_later(self, cx);
        }
        // Nothing is left to wait for, and the timer would keep the process alive.
        self.end_grace(cx);
        load::stop_looking(self, cx);
        crowd::stop_looking(self, cx);
        if self.is_child.get() { self.report(cx, Report::Done) } else { Ok(()) }
    }
}

/// Creates the session that listens and does what the Daemon wants done in each process.
pub(super) fn spawn(
    kernel: &mut Kernel,
    sockets: Vec<Opening>,
    accept: Accept,
    pool: &Rc<Pool>,
    peek_on: Option<Name>,
) -> Result<SessionId, Error> {
    let state = |run: fn(&Pool, &mut Cx<'_>) -> Result| {
        let pool = Rc::clone(pool);
        move |cx: &mut Cx<'_>| run(&pool, cx)
    };
    // The server ignores the signals of other Daemons in the kernel. If the program has taken a signal's arguments, the server
    // takes the signal for its own: nearly every kernel has one Daemon.
    let own = |run: fn(&Pool, &mut Cx<'_>) -> Result| {
        let pool = Rc::clone(pool);
        move |cx: &mut Cx<'_>| match Daemon::of_signal(cx) {
            Some(daemon) if pool.daemon.get() != Some(daemon) => Ok(()),
            _ => run(&pool, cx),
        }
    };
    let session: Session<Listener> = listener::session(sockets, accept, Rc::clone(pool) as Rc<dyn Admission>);
    session
        .state("_start", move |cx| {
            listener::listen(cx)?;
            for signal in SIGNALS {
                cx.sig(signal, signal);
            }
            cx.sig("FORKED", "forked");
            peek_on.map_or(Ok(()), |signal| watch_for_peek(cx, signal))
        })
        .state("listen", {
            let pool = Rc::clone(pool);
            move |cx: &mut Cx<'_>| Return(listen_as_configured(&pool, cx))
        })
        .state("daemon_reload", own(reloaded))
        .state("daemon_start", own(begin))
        .state("daemon_child", own(begin_child))
        .state("daemon_accept", own(resume))
        .state("daemon_pause", own(pause))
        .state("daemon_release", own(load::release))
        .state("daemon_shutdown", own(end))
        .state(PROGRESS, state(load::progress))
        .state(LOOK, state(load::look_later))
        .state(load::REST, state(load::look))
        .state(crowd::WAITED_FOR, state(crowd::found))
        .state(crowd::CROWDED, state(crowd::look))
        .state("forked", state(forked))
        .state("whose_child", state(leave_unless_own))
        .state("requeue", state(requeue))
        .state("drain", |cx: &mut Cx<'_>| drain(cx))
        .state(LABEL, state(label))
        .state("peek", state(peek))
        .state("hurry", state(hurry))
        .state("grace", state(look_at_grace))
        .spawn(kernel)
}

/// The signals of a Daemon that a server acts on.
const SIGNALS: [&str; 7] = [
    "daemon_start",
    "daemon_child",
    "daemon_accept",
    "daemon_pause",
    "daemon_release",
    "daemon_reload",
    "daemon_shutdown",
];

/// Listens on what the configuration of this process says, and on nothing else of the kind.
fn listen_as_configured(pool: &Pool, cx: &mut Cx<'_>) -> Result<(), Error> {
    let (Some(daemon), Some(rota)) = (pool.daemon.get(), &pool.configured) else { return Ok(()) };
    // A Daemon that has ended has closed the listeners.
    let addresses = daemon.addresses(cx).unwrap_or_default();
    listener::listen_on(cx, &addresses, rota, &pool.load)
}

/// The parent has another configuration. What it adds is bound by now, so that nothing can be wrong with it but a lack of descriptors.
fn reloaded(pool: &Pool, cx: &mut Cx<'_>) -> Result {
    if let Err(error) = listen_as_configured(pool, cx) {
        log::error!(target: "lenore::component", "{} does not listen on all addresses: {error}", cx.session());
    }
    pool.follow(cx)
}

/// Watches for the signal, also while the server ends. The alias keeps this session alive as long as another session lives. Without
/// it the signal would have its default action at that time, and end the parent.
fn watch_for_peek(cx: &mut Cx<'_>, signal: Name) -> Result {
    cx.sig(signal, "peek");
    let alias = format!("server ({})", cx.session());
    Ok(cx.alias_set(alias)?)
}

fn peek(pool: &Pool, cx: &mut Cx<'_>) -> Result {
    let Some(daemon) = pool.daemon.get() else { return Ok(()) };
    log::info!(target: "lenore::component", "{}", daemon.peek(cx, true)?);
    Ok(())
}

/// The Daemon is there. What serves in this process begins to accept.
fn begin(pool: &Pool, cx: &mut Cx<'_>) -> Result {
    if pool.forking.get() == Forking::None {
        pool.set_up(cx)?;
    }
    pool.is_allowed.set(pool.forking.get() != Forking::Pre);
    cx.heap().adjust();
    Ok(())
}

/// Runs first in a new process, which the Daemon or the program has forked. The Daemon tells a child of its own what to serve.
/// Until then the listener must not accept: it would take clients away from processes that can serve them.
fn forked(pool: &Pool, cx: &mut Cx<'_>) -> Result {
    // The parent has the connections. Here their alarms would keep the process alive, and do once more what they do there.
    for session in cx.heap().take_sessions() {
        let _ = cx.call(session, LEFT, ());
    }
    pool.end_grace(cx);
    load::leave(pool, cx);
    crowd::stop_looking(pool, cx);
    pool.is_child.set(false);
    pool.is_allowed.set(false);
    if pool.forking.get() == Forking::Pre {
        cx.heap().adjust();
        // The Daemon does not know yet.
        cx.yield_("whose_child", ());
    } else {
        // The parent goes on listening; a child that is forked for a connection has that.
        cx.heap().close();
    }
    Ok(())
}

/// Closes the listener in a child that another Daemon or the program has forked: it is not in this server's pool.
fn leave_unless_own(pool: &Pool, cx: &mut Cx<'_>) -> Result {
    let is_own = pool.daemon.get().is_some_and(|daemon| daemon.status(cx).is_ok_and(|status| status.slot.is_some()));
    if !is_own {
        cx.heap().close();
    }
    Ok(())
}

/// A new child.
fn begin_child(pool: &Pool, cx: &mut Cx<'_>) -> Result {
    pool.is_child.set(true);
    pool.load.is_reported.set(true);
    if pool.forking.get() == Forking::Pre {
        listen_as_configured(pool, cx)?;
    }
    if pool.forking.get() == Forking::Pre {
        pool.set_up(cx)?;
        return pool.report(cx, Report::Wait);
    }
    let accepted = cx.take::<Accepted>(1)?;
    pool.set_up(cx)?;
    pool.label(cx, &accepted)?;
    load::accepted(pool, cx);
    listener::open(cx, accepted)
}

/// A proxy has said whom it passes on.
fn label(pool: &Pool, cx: &mut Cx<'_>) -> Result {
    let label = cx.take(0)?;
    pool.set_label(cx, label)
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
fn requeue(pool: &Pool, cx: &mut Cx<'_>) -> Result {
    if cx.take::<Hop>(0)? == Hop::First {
        cx.yield_("requeue", (Hop::Second,));
    } else {
        pool.is_requeueing.set(false);
        cx.heap().adjust();
    }
    Ok(())
}

/// The next connection may come.
fn resume(pool: &Pool, cx: &mut Cx<'_>) -> Result {
    pool.is_allowed.set(true);
    cx.heap().adjust();
    Ok(())
}

/// The parent of forked children has as many as it may have; or a child is asked to go, and has something in hand.
fn pause(pool: &Pool, cx: &mut Cx<'_>) -> Result {
    pool.is_allowed.set(false);
    if pool.is_child.get() {
        cx.heap().close();
        drain(cx);
    }
    cx.heap().adjust();
    Ok(())
}

fn end(pool: &Pool, cx: &mut Cx<'_>) -> Result {
    pool.is_allowed.set(false);
    cx.heap().close();
    if cx.arg::<Shutdown>(1).map_or(Shutdown::Immediate, |how| *how) == Shutdown::Immediate {
        shut_down_connections(cx);
        return Ok(());
    }
    // The Daemon ends already. A person who sends one of these now does not want to wait for the clients.
    cx.sig("TERM", "hurry");
    cx.sig("INT", "hurry");
    drain(cx);
    pool.begin_grace(cx)
}

/// TERM or INT after a graceful end has begun.
fn hurry(pool: &Pool, cx: &mut Cx<'_>) -> Result {
    cx.sig_handled();
    pool.end_grace(cx);
    shut_down_connections(cx);
    Ok(())
}

/// Looks for how long connections may still hold up the end of this process. After that they are shut down.
fn look_at_grace(pool: &Pool, cx: &mut Cx<'_>) -> Result {
    let Some(mut grace) = pool.grace.get() else { return Ok(()) };
    if !grace.left(since_epoch(cx)).is_zero() {
        pool.grace.set(Some(grace));
        cx.delay("grace", grace.next_look(), ());
        return Ok(());
    }
    pool.grace.set(None);
    let (session, connections, in_hand) = (cx.session(), cx.heap().connections(), pool.load.in_hand());
    log::warn!(
        target: "lenore::component",
        "{session} shuts its connections down, as shutdown_timeout is over: in_hand={in_hand} connections={connections}"
    );
    shut_down_connections(cx);
    Ok(())
}

fn since_epoch(cx: &Cx<'_>) -> Duration {
    cx.now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn shut_down_connections(cx: &mut Cx<'_>) {
    post_to_connections(cx, "shutdown");
}

/// Idle clients are let go at once, and the others after the request in hand.
fn drain(cx: &mut Cx<'_>) {
    post_to_connections(cx, DRAIN);
}

fn post_to_connections(cx: &mut Cx<'_>, event: &str) {
    let (heap, core) = cx.parts();
    for session in heap.sessions() {
        // One that has stopped is no longer among them; and if it were, it would need no event.
        let _ = core.post(session, event, ());
    }
}

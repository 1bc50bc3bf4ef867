//! The end of a Daemon, in each of its processes.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::daemon::announce::announce;
use crate::daemon::board::Status;
use crate::daemon::board::doorbell::Doorbell;
use crate::daemon::cause::Cause;
use crate::daemon::child;
use crate::daemon::machine::{Grace, Intake, Phase};
use crate::daemon::parent::babysit;
use crate::daemon::parent::deaths;
use crate::daemon::parent::pool;
use crate::daemon::processes::send;
use crate::daemon::session::{Cx, Heap, KEPT_ALIVE, Orders, Role, signal_children};
use crate::daemon::settings::Forking;
use crate::error::Result;
use crate::kernel::Reason;
use crate::name::Name;
use crate::sys::wait::{reap, wait_for_end};

/// How a Daemon ends: ARG1 of `daemon_shutdown`.
///
/// A child that was asked to go after its requests reports that it is done before it gets the signal, and is told
/// `AtOnce`. It is a server without children that has to know.
///
/// POE: nothing like it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Haste {
    /// By TERM, INT or [`Daemon::shutdown`](crate::Daemon::shutdown).
    AtOnce,
    /// By QUIT: requests in hand are to be finished first.
    AfterRequests,
}

/// TERM or INT. After a QUIT it makes the end come sooner: children are told as well.
pub(in crate::daemon) fn signalled(cx: &mut Cx<'_>) -> Result {
    cx.sig_handled();
    if cx.heap().is_shutting_down() {
        signal_children(cx.heap(), Signal::SIGTERM);
        if is_alone(cx.heap()) {
            cx.yield_("what_is_left", (Asked::Again, FIRST_LOOK));
        }
        return Ok(());
    }
    shutdown(cx)
}

/// QUIT, or a call: requests in hand are finished first.
pub(in crate::daemon) fn graceful(cx: &mut Cx<'_>) -> Result {
    cx.sig_handled();
    match cx.heap().role {
        Role::Parent => drain(cx),
        Role::Child { .. } => child::go_when_done(cx),
        Role::Bystander => Ok(()),
    }
}

/// Has the requests that wait for a child served before the end: they are in hand as well, their clients were accepted.
fn drain(cx: &mut Cx<'_>) -> Result {
    if cx.heap().is_shutting_down() || cx.heap().is_draining() {
        return Ok(());
    }
    let grace = cx.heap().settings.shutdown_timeout;
    give_grace(cx, grace);
    if cx.heap().intake == Intake::Open && has_requests(cx.heap()) {
        pool::pause(cx)?;
    }
    end_if_drained(cx)
}

/// Gives children so much time, in which this process runs: what is stopped with it can't end.
fn give_grace(cx: &mut Cx<'_>, left: Duration) {
    let now = cx.now();
    let heap = cx.heap();
    let grace = Grace::new(left, heap.settings.look_every(), heap.age(now));
    heap.grace = Some(grace);
    cx.delay("grace", grace.next_look(), ());
}

/// Looks how much is left of that time. After it nobody waits any longer.
pub(in crate::daemon) fn grace(cx: &mut Cx<'_>) -> Result {
    let now = cx.now();
    let heap = cx.heap();
    let now = heap.age(now);
    let Some(grace) = &mut heap.grace else { return Ok(()) };
    if !grace.left(now).is_zero() {
        let next = grace.next_look();
        cx.delay("grace", next, ());
        return Ok(());
    }
    if heap.is_shutting_down() { kill_children(cx) } else { end_after_requests(cx) }
}

fn has_requests(heap: &Heap) -> bool {
    heap.settings.forking == Forking::Post && !(heap.queue.is_empty() && heap.in_flight.is_empty())
}

/// Ends a Daemon that is to end when there is a child for every request.
pub(in crate::daemon) fn end_if_drained(cx: &mut Cx<'_>) -> Result {
    if has_requests(cx.heap()) { Ok(()) } else { end_after_requests(cx) }
}

/// What children have in hand they finish. Also when the time is up for requests that have no child yet.
fn end_after_requests(cx: &mut Cx<'_>) -> Result {
    end(cx, Signal::SIGQUIT)
}

/// Shuts the Daemon down in this process, and from the parent in all of its children. A second time does nothing.
pub(in crate::daemon) fn shutdown(cx: &mut Cx<'_>) -> Result {
    end(cx, Signal::SIGTERM)
}

/// Takes every trace of the Daemon out of the kernel and tells everybody, children by `signal`.
fn end(cx: &mut Cx<'_>, signal: Signal) -> Result {
    if cx.heap().is_shutting_down() {
        return Ok(());
    }
    cx.heap().phase = Phase::ShuttingDown;
    child::set_status(cx, Status::Exit);
    let was_parent = cx.heap().role == Role::Parent;
    if was_parent {
        log::debug!(target: "lenore::daemon", "shutting down with {} children", cx.heap().children.len());
        signal_children(cx.heap(), signal);
        // For those that are stopped, and do nothing else to the others.
        signal_children(cx.heap(), Signal::SIGCONT);
    }
    // Of whichever process reported them: a child may have helpers of its own.
    cx.heap().foreign.iter().for_each(|pid| send(*pid, Signal::SIGTERM));
    let alias = Name::new(&cx.heap().settings.alias);
    // Another name, which nobody can mistake for the Daemon's, instead of none. An alias does not keep the program
    // alive; and while there is a session, signals that come twice, as from a terminal and then from the parent, find it
    // watching and don't strike down a process that is finishing its work.
    //
    // In a child that was forked while its parent was shutting down it has been done already.
    let _ = cx.alias_remove(alias);
    let hidden = Name::new(&format!("{alias} (ended, {})", cx.session()));
    cx.alias_set(hidden)?;
    cx.alarm_remove_all();
    let (heap, core) = cx.parts();
    heap.queue.clear();
    // A child goes on watching its own end: the parent may be killed before this child has ended.
    if let Some(end) = heap.doorbell.as_ref().and_then(Doorbell::parents_end) {
        core.select_read_clear(end);
    }
    let haste = if signal == Signal::SIGQUIT { Haste::AfterRequests } else { Haste::AtOnce };
    let told = announce(cx, "daemon_shutdown", (haste,));
    if !was_parent {
        child::ended(cx);
    }
    told?;
    if was_parent {
        let me = cx.session();
        let _ = cx.refcount_decrement(me, KEPT_ALIVE);
    }
    babysit::bury_vanished(cx)?;
    if is_alone(cx.heap()) {
        look_what_is_left(cx);
        return fail_if_it_failed(cx);
    }
    let now = cx.now();
    let heap = cx.heap();
    let (now, full) = (heap.age(now), heap.settings.shutdown_timeout);
    // What a graceful end has taken so far was part of it.
    let left = heap.grace.as_mut().map_or(full, |grace| grace.left(now));
    give_grace(cx, left);
    Ok(())
}

/// Says what keeps this process, the Daemon's own session apart; `None` if nothing does, or if it waits for children: another
/// Daemon's, for one.
fn kept_by(cx: &Cx<'_>) -> Option<String> {
    let me = cx.session();
    let others = cx.peek().sessions.into_iter().filter(|session| session.id != me);
    let mut kept = Vec::new();
    for session in others {
        let is_daemon = |reason: &Reason| matches!(reason, Reason::ExtraReference(tag, _) if *tag == KEPT_ALIVE);
        if session.reasons.iter().any(|reason| is_daemon(reason) || matches!(reason, Reason::ChildProcess(_))) {
            return None;
        }
        let mut reasons = session.reasons.iter().filter(|reason| !passes(reason)).peekable();
        if reasons.peek().is_some() {
            let reasons: Vec<String> = reasons.map(ToString::to_string).collect();
            kept.push(format!("{}: {}", session.id, reasons.join(", ")));
        }
    }
    (!kept.is_empty()).then(|| kept.join("; "))
}

/// Tells whether a reason to live keeps no process: a parent goes when its children do, events are over soon, and sessions
/// that have but an alias go when nothing else is left.
fn passes(reason: &Reason) -> bool {
    matches!(reason, Reason::Child(_) | Reason::EventsTo(_) | Reason::EventsFrom(_) | Reason::Alias(_))
}

/// The grace is over.
fn kill_children(cx: &mut Cx<'_>) -> Result {
    // The babysitter does not come any more.
    babysit::bury_vanished(cx)?;
    let heap = cx.heap();
    heap.children.iter_mut().for_each(|child| child.orders = Orders::Die);
    for pid in heap.pids() {
        log::warn!(target: "lenore::daemon", "child {pid} has not ended in time and is killed");
        send(pid, Signal::SIGKILL);
    }
    // One that other code waits for, or whose SIGCHLD is lost, is noticed then.
    let full = cx.heap().settings.shutdown_timeout;
    give_grace(cx, full);
    end_if_alone(cx)
}

/// After the last child was reaped there is nobody left to be killed.
pub(in crate::daemon) fn end_if_alone(cx: &mut Cx<'_>) -> Result {
    let heap = cx.heap();
    if heap.is_shutting_down() && is_alone(heap) {
        cx.alarm_remove_all();
        look_what_is_left(cx);
        return fail_if_it_failed(cx);
    }
    Ok(())
}

/// Has a process looked at that should end by itself now. A server without children may have clients, of whom it alone knows.
fn look_what_is_left(cx: &mut Cx<'_>) {
    if cx.heap().role == Role::Parent && cx.heap().settings.forking != Forking::None {
        cx.yield_("what_is_left", (Asked::Once, FIRST_LOOK));
    }
}

/// Why somebody may want to know what keeps a process.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Once,
    Again,
}

/// Tells of a process that does not end although there is nothing left to be done in it: most likely the application has
/// forgotten to drop its listener.
///
/// Not in the moment in which it is told to end: what its sessions have just dropped is closed after their states, and what
/// they have posted to themselves to be done last comes in the next slices.
pub(in crate::daemon) fn what_is_left(cx: &mut Cx<'_>) -> Result {
    let (asked, look) = (*cx.arg::<Asked>(0)?, *cx.arg::<u32>(1)?);
    if look < LAST_LOOK {
        cx.yield_("what_is_left", (asked, look + 1));
        return Ok(());
    }
    let Some(reasons) = kept_by(cx) else { return Ok(()) };
    match asked {
        Asked::Once => {
            log::warn!(target: "lenore::daemon", "no child is left, but process {} is kept by {reasons}", cx.pid());
        }
        Asked::Again => {
            log::info!(target: "lenore::daemon", "asked again to end, process {} is kept by {reasons}", cx.pid());
        }
    }
    Ok(())
}

/// What has brought the Daemon down becomes what `run` returns, when all else is done.
fn fail_if_it_failed(cx: &mut Cx<'_>) -> Result {
    match cx.heap().failure.take() {
        // What has failed told the log when it did.
        Some(exception) => Err(exception.logged()),
        None => Ok(()),
    }
}

/// The session is stopped by force, and the loop is about to end or has ended: nobody will hear of the children's end.
/// So they are waited for here, as long as they are given at any shutdown.
pub(in crate::daemon) fn last_resort(cx: &mut Cx<'_>) {
    let heap = cx.heap();
    if heap.role != Role::Parent || (heap.children.is_empty() && heap.foreign.is_empty()) {
        return;
    }
    log::warn!(target: "lenore::daemon", "the kernel stops; {} children are waited for", heap.pids().count());
    heap.foreign.iter().for_each(|pid| send(*pid, Signal::SIGTERM));
    signal_children(heap, Signal::SIGQUIT);
    heap.pids().for_each(|pid| send(pid, Signal::SIGCONT));
    let begin = Instant::now();
    let mut left: Vec<i32> = heap.pids().collect();
    let mut killed = Vec::new();
    let mut grace = Grace::new(heap.settings.shutdown_timeout, heap.settings.look_every(), Duration::ZERO);
    while !left.is_empty() && !grace.left(begin.elapsed()).is_zero() {
        left.retain(|pid| !has_ended(*pid));
        // There is no loop left to be told by.
        std::thread::sleep(LOOK_AGAIN);
    }
    for pid in left {
        log::warn!(target: "lenore::daemon", "child {pid} has not ended in time and is killed");
        send(pid, Signal::SIGKILL);
        let _ = wait_for_end(pid);
        has_ended(pid);
        killed.push(pid);
    }
    let now = cx.now() + begin.elapsed();
    let heap = cx.heap();
    for child in std::mem::take(&mut heap.children) {
        let cause = if killed.contains(&child.pid) { Cause::Killed } else { Cause::Shutdown };
        let requests =
            heap.board.as_ref().and_then(|board| board.read(child.slot).ok()).map_or(0, |last| last.requests);
        deaths::record(heap, &child, cause, "", now.duration_since(child.forked_at).unwrap_or_default(), requests);
    }
    heap.foreign.clear();
}

/// Reaps a child if it has ended.
fn has_ended(pid: i32) -> bool {
    !matches!(reap(pid), Ok(None) | Err(Errno::EINTR))
}

/// Tells whether this process has no children, and none on the way.
fn is_alone(heap: &Heap) -> bool {
    heap.children.is_empty() && heap.foreign.is_empty() && heap.in_flight.is_empty()
}

/// In which slices [`what_is_left`] looks, from the end on; the last of them tells.
const FIRST_LOOK: u32 = 1;
const LAST_LOOK: u32 = 3;

/// How often the last resort looks whether children have ended.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

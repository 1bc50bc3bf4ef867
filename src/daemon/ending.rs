//! The end of a Daemon: what it has in common in all of its processes.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::daemon::foreign;
use crate::daemon::heap::Cx;
use crate::daemon::machine::Grace;
use crate::daemon::processes::send;
use crate::error::Result;
use crate::kernel::Reason;
use crate::name::Name;

/// Takes every trace of the Daemon out of the kernel, and has the processes end that other code of this one has forked.
pub(in crate::daemon) fn withdraw(cx: &mut Cx<'_>) -> Result {
    // Of whichever process reported them: a child may have helpers of its own.
    cx.heap().foreign.iter().for_each(|pid| send(*pid, Signal::SIGTERM));
    let alias = Name::new(&cx.heap().settings.alias);
    // The session takes another alias, which does not keep the program alive. While the session is there it watches signals. So a
    // signal that comes twice, from a terminal and then from the parent, does not kill a process that is finishing its work.
    //
    // A child that was forked while its parent was shutting down has that alias already.
    let _ = cx.alias_remove(alias);
    if let Some(ended) = cx.heap().ended_alias {
        cx.alias_set(ended)?;
    }
    cx.alarm_remove_all();
    Ok(())
}

/// Gives the children that have to end before this process so much time. Time in which this process is stopped does not count:
/// its children may be stopped as well.
pub(in crate::daemon) fn give_grace(cx: &mut Cx<'_>, left: Duration) {
    let now = cx.now();
    let heap = cx.heap();
    let grace = Grace::new(left, heap.settings.look_every(), heap.age(now));
    heap.grace = Some(grace);
    cx.delay("grace", grace.next_look(), ());
}

/// Gives them what is left of `shutdown_timeout`: what a graceful end has taken so far was part of it.
pub(in crate::daemon) fn give_rest_of_grace(cx: &mut Cx<'_>) {
    let now = cx.now();
    let heap = cx.heap();
    let (now, full) = (heap.age(now), heap.settings.shutdown_timeout);
    let left = heap.grace.as_mut().map_or(full, |grace| grace.left(now));
    give_grace(cx, left);
}

/// Looks whether that time is up, and looks again later if it is not. After that time no process is waited for.
pub(in crate::daemon) fn is_grace_over(cx: &mut Cx<'_>) -> bool {
    let now = cx.now();
    let heap = cx.heap();
    let now = heap.age(now);
    let Some(grace) = &mut heap.grace else { return false };
    if grace.left(now).is_zero() {
        return true;
    }
    let next = grace.next_look();
    cx.delay("grace", next, ());
    false
}

/// The grace is over for processes that other code has forked.
pub(in crate::daemon) fn kill_foreign(cx: &mut Cx<'_>) {
    foreign::forget_vanished(cx);
    cx.heap().foreign.iter().for_each(|pid| kill_late(*pid));
    // One that other code waits for, or whose SIGCHLD is lost, is noticed then.
    let full = cx.heap().settings.shutdown_timeout;
    give_grace(cx, full);
}

/// Kills a child that has had its time.
pub(in crate::daemon) fn kill_late(pid: i32) {
    log::warn!(target: "lenore::daemon", "child has not ended in time and is killed: pid={pid}");
    send(pid, Signal::SIGKILL);
}

/// Looks later at this process, which should end by itself now. A server without children may still have clients, which the Daemon
/// does not know of.
pub(in crate::daemon) fn look_what_is_left(cx: &mut Cx<'_>) {
    cx.yield_("what_is_left", (Asked::Once, FIRST_LOOK));
}

/// Has it looked at again: it was told to end once more.
pub(in crate::daemon) fn look_again_what_is_left(cx: &mut Cx<'_>) {
    cx.yield_("what_is_left", (Asked::Again, FIRST_LOOK));
}

/// Which request to end makes the Daemon say what keeps a process.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Once,
    Again,
}

/// Logs that a process does not end although the Daemon has nothing left to do in it. Most likely the application has forgotten to
/// drop its listener.
///
/// It looks some slices after the process was told to end. What sessions have just dropped is closed after their states, and events
/// that they have posted to themselves come in the next slices.
pub(in crate::daemon) fn what_is_left(cx: &mut Cx<'_>) -> Result {
    let (asked, look) = (*cx.arg::<Asked>(0)?, *cx.arg::<u32>(1)?);
    if look < LAST_LOOK {
        cx.yield_("what_is_left", (asked, look + 1));
        return Ok(());
    }
    let Some(reasons) = kept_by(cx) else { return Ok(()) };
    match asked {
        Asked::Once => {
            log::warn!(target: "lenore::daemon", "process is still running because of {reasons}: pid={}", cx.pid());
        }
        Asked::Again => {
            log::info!(
                target: "lenore::daemon",
                "process was told again to end and is still running because of {reasons}: pid={}", cx.pid()
            );
        }
    }
    Ok(())
}

/// Says what keeps this process alive, apart from the Daemon's own session and background sessions. `None` if nothing does, or if a
/// session waits for children, such as those of another Daemon.
fn kept_by(cx: &Cx<'_>) -> Option<String> {
    let me = cx.session();
    let others = cx.peek().sessions.into_iter().filter(|session| session.id != me);
    let mut kept = Vec::new();
    for session in others.filter(|session| !session.is_background) {
        if session.reasons.iter().any(|reason| is_daemon(reason) || matches!(reason, Reason::ChildProcess(_))) {
            return None;
        }
        let mut reasons = session.reasons.iter().filter(|reason| !passes(reason)).peekable();
        if reasons.peek().is_some() {
            let reasons: Vec<String> = reasons.map(ToString::to_string).collect();
            kept.push(format!("{}: {}", session.label(), reasons.join(", ")));
        }
    }
    (!kept.is_empty()).then(|| kept.join("; "))
}

/// Tells whether this process has a Daemon besides this one that has not ended.
pub(in crate::daemon) fn has_other_daemon(cx: &Cx<'_>) -> bool {
    let me = cx.session();
    cx.peek().sessions.iter().any(|session| session.id != me && session.reasons.iter().any(is_daemon))
}

fn is_daemon(reason: &Reason) -> bool {
    matches!(reason, Reason::ExtraReference(tag, _) if *tag == KEPT_ALIVE)
}

/// Tells whether a reason to live does not keep the process. A parent session ends with its children, and events are over soon. A
/// session that only has an alias ends when nothing else is left.
fn passes(reason: &Reason) -> bool {
    matches!(reason, Reason::Child(_) | Reason::EventsTo(_) | Reason::EventsFrom(_) | Reason::Alias(_))
}

/// In which slices [`what_is_left`] looks, from the end on; the last of them tells.
const FIRST_LOOK: u32 = 1;
const LAST_LOOK: u32 = 3;

/// The tag under which the Daemon keeps itself alive in the parent.
pub(in crate::daemon) const KEPT_ALIVE: &str = "daemon";

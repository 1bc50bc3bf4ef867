//! The parent's side: counting, forking, reaping.

use std::process::ExitStatus;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::policy::{Counts, Demand, Intake, Notice, Phase, postfork, prefork};
use super::scoreboard::{Ring, SlotIndex, Status};
use super::session::{Child, Cx, Heap, InFlight, Request, Role, broadcast, epoch_ms, send};
use super::settings::Mode;
use super::shutdown;
use crate::args::{Args, IntoArgs};
use crate::error::{Error, Result};
use crate::kernel::SessionId;

/// A child has rung: the number of idle ones has left its bounds.
pub(super) fn bell(cx: &mut Cx<'_>) -> Result {
    if let Some(doorbell) = &cx.heap().doorbell {
        doorbell.answer();
    }
    maintain(cx)
}

/// Looks at the board and does what the policy says.
pub(super) fn maintain(cx: &mut Cx<'_>) -> Result {
    if cx.heap().role != Role::Parent || cx.heap().is_shutting_down() {
        return Ok(());
    }
    match cx.heap().settings.mode {
        Mode::PreForking => keep_spares(cx),
        Mode::PostForking => serve_queue(cx),
        Mode::NonForking => Ok(()),
    }
}

/// Forks what is missing and retires what is too much.
fn keep_spares(cx: &mut Cx<'_>) -> Result {
    if cx.heap().is_pausing_forks {
        return Ok(());
    }
    // Publishing new thresholds may find that the count has left them meanwhile; unchanged ones never do.
    for _ in 0..3 {
        let heap = cx.heap();
        let limits = heap.settings.limits();
        if let Some(board) = &heap.board {
            board.answer_bell();
        }
        let decision = prefork(count(heap), limits, heap.phase);
        let granted = ration(cx, decision.fork);
        for _ in 0..granted {
            ask_for_fork(cx, 0, Args::new())?;
        }
        retire(cx.heap(), decision.retire);
        let ring = cx.heap().board.as_mut().map_or(Ring::No, |board| board.publish(decision.thresholds));
        if ring == Ring::No {
            break;
        }
    }
    Ok(())
}

/// Counts the children by what they do.
fn count(heap: &Heap) -> Counts {
    let in_flight = heap.in_flight.len() as u32;
    let mut counts =
        Counts { children: heap.children.len() as u32 + in_flight, starting: in_flight, ..Counts::default() };
    for child in &heap.children {
        let status = heap.board.as_ref().and_then(|board| board.status(child.slot));
        match status {
            _ if child.is_retiring => counts.retiring += 1,
            Some(Status::Wait) => counts.idle += 1,
            Some(status) if status.is_starting() => counts.starting += 1,
            Some(Status::Exit) => counts.retiring += 1,
            _ => counts.busy += 1,
        }
    }
    counts
}

/// Takes up to `wanted` forks out of the bucket; for the rest it comes back when there are more. The first children
/// are not rationed.
fn ration(cx: &mut Cx<'_>, wanted: u32) -> u32 {
    if cx.heap().phase == Phase::StartingUp || wanted == 0 {
        return wanted;
    }
    let now = cx.now().duration_since(cx.heap().born).unwrap_or_default();
    let granted = cx.heap().forks.take(now, wanted);
    if granted < wanted
        && let Some(wait) = cx.heap().forks.ready_in(now)
    {
        cx.delay("maintain", wait, ());
    }
    granted
}

/// Asks idle children to go. Each finishes the request that it may have accepted by the time it hears of it.
fn retire(heap: &mut Heap, number: u32) {
    let board = heap.board.as_ref();
    let is_idle = |child: &Child| board.and_then(|board| board.status(child.slot)) == Some(Status::Wait);
    let idle = heap.children.iter_mut().filter(|child| !child.is_retiring && is_idle(child));
    for child in idle.take(number as usize) {
        child.is_retiring = true;
        log::debug!(target: "lenore::daemon", "child {} is retired", child.pid);
        send(child.pid, Signal::SIGQUIT);
    }
}

/// Queues a request and forks for it if there is room.
pub(super) fn take_request(cx: &mut Cx<'_>, payload: Args) -> Result {
    let heap = cx.heap();
    heap.requests_seen += 1;
    heap.queue.push_back(Request { number: heap.requests_seen, payload });
    serve_queue(cx)
}

/// Asks for a fork for the first queued request if there is room, and tells the application whether there is more.
///
/// One fork at a time; the next is asked for when it is known what became of this one. If several were under way and the
/// first failed, the others would overtake its request.
fn serve_queue(cx: &mut Cx<'_>) -> Result {
    let heap = cx.heap();
    if heap.is_pausing_forks {
        return Ok(());
    }
    let demand = Demand {
        children: (heap.children.len() + heap.in_flight.len()) as u32,
        queued: heap.queue.len(),
        intake: heap.intake,
        max_children: heap.settings.max_children,
    };
    let decision = postfork(demand);
    if decision.fork > 0
        && cx.heap().in_flight.is_empty()
        && let Some(request) = cx.heap().queue.pop_front()
    {
        ask_for_fork(cx, request.number, request.payload)?;
    }
    match decision.notice {
        Notice::Pause => pause(cx)?,
        // Not before the fork has succeeded: it may be one that has failed before.
        Notice::Accept if cx.heap().in_flight.is_empty() => accept(cx)?,
        Notice::Accept | Notice::Nothing => {}
    }
    Ok(())
}

/// Tells the application to go on. At once, as with the pause: a posted signal would come after a pause that is
/// decided on later, and have the last word.
fn accept(cx: &mut Cx<'_>) -> Result {
    cx.heap().intake = Intake::Open;
    cx.signal_now(SessionId::KERNEL, "daemon_accept", ())?;
    Ok(())
}

/// Tells the application to take no more, before it can take the next one.
fn pause(cx: &mut Cx<'_>) -> Result {
    cx.heap().intake = Intake::Paused;
    cx.signal_now(SessionId::KERNEL, "daemon_pause", ())?;
    Ok(())
}

fn ask_for_fork(cx: &mut Cx<'_>, number: u64, payload: Args) -> Result {
    let now = epoch_ms(cx.now());
    let Some(board) = &mut cx.heap().board else { return Ok(()) };
    match board.allocate(now) {
        Ok((slot, generation)) => {
            cx.heap().in_flight.push_back(InFlight { slot, generation, number });
            cx.fork("forked", "begin_child", (slot, generation).into_args().chain(payload));
        }
        Err(full) => {
            // Never silently: there are more slots than children may be.
            log::error!(target: "lenore::daemon", "no child is forked: {full}");
            put_back(cx.heap(), number, payload);
        }
    }
    Ok(())
}

/// A fork was carried out, or failed.
pub(super) fn forked(cx: &mut Cx<'_>) -> Result {
    let Some(InFlight { slot, generation, number }) = cx.heap().in_flight.pop_front() else { return Ok(()) };
    match cx.take::<Result<i32, Error>>(0)? {
        Ok(pid) => {
            let forked_at = cx.now();
            cx.heap().children.push(Child { pid, slot, generation, forked_at, is_retiring: false });
            cx.heap().fork_pause = FIRST_FORK_PAUSE;
            cx.sig_child(pid, "reaped", (slot, generation));
            report(cx.heap(), format_args!("child {pid} is forked into slot {slot}"));
            if cx.heap().is_shutting_down() {
                // Asked for before the shutdown was.
                send(pid, Signal::SIGTERM);
            }
        }
        Err(error) => {
            let payload = std::mem::take(cx.args()).skip(3);
            if let Some(board) = &mut cx.heap().board {
                board.reclaim(slot);
            }
            fork_failed(cx, number, payload, &error)?;
        }
    }
    shutdown::end_if_alone(cx);
    match cx.heap().settings.mode {
        Mode::PreForking => end_start_up(cx),
        _ => maintain(cx),
    }
}

/// The first children are there: from now on the policy decides.
fn end_start_up(cx: &mut Cx<'_>) -> Result {
    let heap = cx.heap();
    let is_complete = heap.children.len() >= heap.settings.start_children as usize;
    if heap.phase == Phase::StartingUp && heap.in_flight.is_empty() && is_complete {
        heap.phase = Phase::Running;
        broadcast(cx, "daemon_parent");
        maintain(cx)?;
    }
    Ok(())
}

/// Waits a while if the system is short of something; anything else will not get better.
fn fork_failed(cx: &mut Cx<'_>, number: u64, payload: Args, error: &Error) -> Result {
    put_back(cx.heap(), number, payload);
    let errno = match error {
        Error::Os { source, .. } => source.raw_os_error().map(Errno::from_raw),
        _ => None,
    };
    if !matches!(errno, Some(Errno::EAGAIN | Errno::ENOMEM)) {
        log::error!(target: "lenore::daemon", "the Daemon shuts down: {error}");
        return shutdown::shutdown(cx);
    }
    if cx.heap().is_shutting_down() {
        return Ok(());
    }
    if !cx.heap().is_pausing_forks {
        let heap = cx.heap();
        let wait = heap.fork_pause;
        heap.is_pausing_forks = true;
        heap.fork_pause = (wait * 2).min(LONGEST_FORK_PAUSE);
        cx.delay("retry_forks", wait, ());
    }
    if cx.heap().settings.mode == Mode::PostForking && cx.heap().intake == Intake::Open {
        pause(cx)?;
    }
    Ok(())
}

/// Tries again after a pause.
pub(super) fn retry_forks(cx: &mut Cx<'_>) -> Result {
    cx.heap().is_pausing_forks = false;
    maintain(cx)
}

/// Puts a request that could not be served back in its place.
fn put_back(heap: &mut Heap, number: u64, payload: Args) {
    if number == 0 {
        return;
    }
    let place = heap.queue.partition_point(|request| request.number < number);
    heap.queue.insert(place, Request { number, payload });
}

/// A child has ended.
pub(super) fn reaped(cx: &mut Cx<'_>) -> Result {
    let (pid, status) = (*cx.arg::<i32>(1)?, *cx.arg::<ExitStatus>(2)?);
    let (slot, generation) = (*cx.arg::<SlotIndex>(3)?, *cx.arg::<u32>(4)?);
    let now = cx.now();
    let heap = cx.heap();
    let Some(place) = heap.children.iter().position(|child| child.pid == pid && child.generation == generation) else {
        return Ok(());
    };
    let child = heap.children.remove(place);
    let last = match &mut heap.board {
        // Another owner's slot is none of this child's.
        Some(board) if board.generation(slot) == Some(generation) => board.reclaim(slot),
        _ => None,
    };
    let age = now.duration_since(child.forked_at).unwrap_or_default();
    let requests = last.map_or(0, |last| last.requests);
    let text = format_args!("child {pid} in slot {slot} has ended ({status}) after {age:.1?} and {requests} requests");
    if status.success() {
        report(heap, text)
    } else {
        log::warn!(target: "lenore::daemon", "{text}")
    }
    maintain(cx)?;
    shutdown::end_if_alone(cx);
    Ok(())
}

/// Logs the coming and going of a child, which `verbose` makes worth an operator's while.
fn report(heap: &Heap, text: std::fmt::Arguments<'_>) {
    let level = if heap.settings.verbose { log::Level::Info } else { log::Level::Debug };
    log::log!(target: "lenore::daemon", level, "{text}");
}

/// How long the first pause after a failed fork is.
pub(super) const FIRST_FORK_PAUSE: Duration = Duration::from_millis(100);

/// How long such pauses get.
const LONGEST_FORK_PAUSE: Duration = Duration::from_secs(1);

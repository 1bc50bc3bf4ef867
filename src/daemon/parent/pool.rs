//! The parent's side: counting, forking, reaping.

use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;

use crate::args::{Args, IntoArgs};
use crate::daemon::announce::{announce, broadcast};
use crate::daemon::board::epoch_ms;
use crate::daemon::board::{Ring, SlotSnapshot, Status};
use crate::daemon::cause::Cause;
use crate::daemon::heap::{Cx, Heap};
use crate::daemon::machine::{
    Counts, Demand, Growth, Intake, Limits, Notice, Phase, STAYED_UP, Thresholds, postfork, prefork, share,
};
use crate::daemon::parent::babysit;
use crate::daemon::parent::queue_watch;
use crate::daemon::parent::ready;
use crate::daemon::parent::relief;
use crate::daemon::parent::role::Parent;
use crate::daemon::parent::shortage;
use crate::daemon::parent::shutdown;
use crate::daemon::parent::table::{InFlight, Orders, Request, Row};
use crate::daemon::processes::send;
use crate::daemon::settings::Forking;
use crate::error::{Error, Result};
use crate::kernel::AfterRun;

/// A child has rung: the number of idle ones has left its bounds.
pub(in crate::daemon) fn bell(cx: &mut Cx<'_>) -> Result {
    if let Some(doorbell) = &cx.heap().doorbell {
        doorbell.answer();
    }
    maintain(cx)
}

/// Looks at the board and does what the policy says.
pub(in crate::daemon) fn maintain(cx: &mut Cx<'_>) -> Result {
    if !cx.heap().supervises() {
        return Ok(());
    }
    match cx.heap().settings.forking {
        Forking::Pre => {
            // A TTOU may have made do with the children that are there.
            end_start_up(cx)?;
            keep_spares(cx)?;
            ready::tell_if_ready(cx)
        }
        Forking::Post => serve_queue(cx),
        Forking::None => Ok(()),
    }
}

/// The application has handled `daemon_start`: from now on children are forked, and looked after.
pub(in crate::daemon) fn fork_first_children(cx: &mut Cx<'_>) -> Result {
    if !cx.heap().supervises() {
        return Ok(());
    }
    babysit::begin(cx);
    if cx.heap().settings.forking == Forking::Pre {
        return maintain(cx);
    }
    if let Some(parent) = cx.heap().role.parent_mut() {
        parent.phase = Phase::Running;
    }
    ready::ready(cx)
}

/// Forks what is missing and retires what is too much.
fn keep_spares(cx: &mut Cx<'_>) -> Result {
    // Publishing new thresholds may find that the count has left them meanwhile; unchanged ones never do.
    for _ in 0..3 {
        let heap = cx.heap();
        let limits = heap.settings.limits();
        if let Some(board) = &heap.board {
            board.answer_bell();
        }
        note_ready(heap);
        let counts = count(heap);
        let asked = queue_watch::weigh(cx, counts);
        let held = queue_watch::held(cx, counts);
        let may_be_kept = if held.is_on { Limits { max_spare: u32::MAX, ..limits } } else { limits };
        let Some(parent) = cx.heap().role.parent() else { return Ok(()) };
        let growth = queue_watch::growth(parent, asked);
        let asked = asked.unwrap_or_default();
        let decision = prefork(counts, may_be_kept, parent.phase, growth, asked.children);
        let granted = ration(cx, decision.fork);
        if granted == decision.fork {
            set_growth(cx.heap(), decision.growth);
        }
        queue_watch::grown(cx, granted, asked);
        for _ in 0..granted {
            ask_for_fork(cx, Request { number: 0, is_long: false, payload: Args::new() })?;
        }
        let surplus = queue_watch::retirable(cx, decision.retire, counts);
        let heap = cx.heap();
        retire(heap, surplus);
        retire_replaced(heap, counts.idle >= limits.min_spare || counts.total() >= limits.max_children);
        let is_full = counts.total() >= limits.max_children || forks_pause(heap);
        let low = decision.thresholds.low.max(relief::review(cx, counts, is_full)).max(held.low);
        let heap = cx.heap();
        let thresholds = Thresholds { low, ..decision.thresholds }.with_ghosts(ghosts(heap));
        let ring = heap.board.as_mut().map_or(Ring::No, |board| board.publish(thresholds));
        if ring == Ring::No {
            break;
        }
    }
    queue_watch::watch(cx);
    Ok(())
}

/// Returns what a child says that it does.
pub(super) fn does(heap: &Heap, child: &Row) -> Option<Status> {
    heap.board.as_ref().and_then(|board| board.status(child.slot))
}

/// Counts the children by what they do. One that is stopped, or that is to be replaced, is no spare.
pub(super) fn count(heap: &Heap) -> Counts {
    let Some(parent) = heap.role.parent() else { return Counts::default() };
    let in_flight = parent.in_flight.len() as u32;
    let mut counts =
        Counts { children: parent.children.len() as u32 + in_flight, starting: in_flight, ..Counts::default() };
    for child in &parent.children {
        match does(heap, child) {
            _ if child.is_retiring() => counts.retiring += 1,
            _ if child.is_stopped || child.orders == Orders::BeReplaced => counts.busy += 1,
            Some(Status::Wait) => counts.idle += 1,
            Some(status) if status.is_starting() => counts.starting += 1,
            Some(Status::Exit) => counts.retiring += 1,
            _ => counts.busy += 1,
        }
    }
    counts
}

/// Counts those that the board takes for idle and [`count`] does not, and that will not go away by themselves.
fn ghosts(heap: &Heap) -> u32 {
    let is_ghost = |child: &&Row| {
        (child.is_stopped || child.orders == Orders::BeReplaced) && does(heap, child) == Some(Status::Wait)
    };
    heap.role.parent().map_or(0, |parent| parent.children.iter().filter(is_ghost).count() as u32)
}

/// Tells the budget which children have become ready since it was last told. Each rings when it does.
fn note_ready(heap: &mut Heap) {
    let Some(parent) = heap.role.parent_mut() else { return };
    let board = heap.board.as_ref();
    let is_up = |child: &Row| {
        let status = board.and_then(|board| board.status(child.slot));
        status.is_some_and(|status| status == Status::Wait || status.is_taken())
    };
    let mut ready = 0;
    for child in parent.children.iter_mut().filter(|child| !child.is_ready) {
        child.is_ready = is_up(child);
        ready += u32::from(child.is_ready);
        let first_wait = board.and_then(|board| board.read(child.slot).ok());
        if let Some(slot) = first_wait.filter(|slot| slot.status == Status::Wait && slot.requests == 0) {
            parent.queues.start.measured(Duration::from_millis(slot.since_ms.saturating_sub(slot.started_ms)));
        }
    }
    parent.forks.are_ready(ready);
}

/// Tells the budget whether a child that has ended was ever ready, if it was not told before.
fn note_end(parent: &mut Parent, child: &Row, last: Option<SlotSnapshot>) {
    if child.is_ready {
        return;
    }
    match last {
        Some(last) if last.requests > 0 || last.status == Status::Wait || last.status.is_taken() => {
            parent.forks.are_ready(1);
        }
        _ if child.is_retiring() => {}
        _ => parent.forks.died_early(),
    }
}

/// Returns how many of the `wanted` children may be forked now. For the others it comes back: a child that becomes ready or dies
/// brings the news itself. Replacements of early deaths wait for the clock, as does the place of a child that takes too long to
/// start. The first children are not rationed.
fn ration(cx: &mut Cx<'_>, wanted: u32) -> u32 {
    let now = cx.now();
    let heap = cx.heap();
    if forks_pause(heap) {
        return 0;
    }
    if is_starting_up(heap) {
        return wanted;
    }
    let (starting, next_late) = starting_in_time(heap, now);
    let now = heap.age(now);
    let Some(parent) = heap.role.parent_mut() else { return 0 };
    let granted = parent.forks.grant(now, wanted, starting);
    if granted < wanted {
        let replacement = parent.forks.ready_in(now).filter(|wait| !wait.is_zero());
        if let Some(wait) = [replacement, next_late].into_iter().flatten().min() {
            cx.delay("maintain", wait, ());
        }
    }
    granted
}

/// Counts the children that are starting and have not taken too long yet. The second value is how long the first of them has
/// left. A child that hangs before it is ready must not keep a place of the budget's window for ever.
fn starting_in_time(heap: &Heap, now: SystemTime) -> (u32, Option<Duration>) {
    let Some(parent) = heap.role.parent() else { return (0, None) };
    let limit = STAYED_UP.max(parent.queues.start.estimate().saturating_mul(LATE));
    let is_starting = |child: &&Row| {
        !child.is_retiring()
            && !child.is_stopped
            && child.orders != Orders::BeReplaced
            && does(heap, child).is_some_and(Status::is_starting)
    };
    let (mut number, mut next) = (parent.in_flight.len() as u32, None);
    for child in parent.children.iter().filter(is_starting) {
        let left = limit.saturating_sub(now.duration_since(child.forked_at).unwrap_or_default());
        if !left.is_zero() {
            number += 1;
            next = Some(next.map_or(left, |next: Duration| next.min(left)));
        }
    }
    (number, next)
}

/// Asks idle children to go. Each finishes the request that it may have accepted by the time it hears of it.
fn retire(heap: &mut Heap, number: u32) {
    let Some(parent) = heap.role.parent_mut() else { return };
    let board = heap.board.as_ref();
    let is_idle = |child: &Row| board.and_then(|board| board.status(child.slot)) == Some(Status::Wait);
    let idle = parent.children.iter_mut().filter(|child| child.orders == Orders::Stay && is_idle(child));
    for child in idle.take(number as usize) {
        tell_to_go(child, Orders::Go);
    }
}

/// Asks those that are to be replaced to go, the idle ones if others `can_stand_in`.
fn retire_replaced(heap: &mut Heap, can_stand_in: bool) {
    let Some(parent) = heap.role.parent_mut() else { return };
    let board = heap.board.as_ref();
    let is_idle = |child: &Row| board.and_then(|board| board.status(child.slot)) == Some(Status::Wait);
    let replaced = parent.children.iter_mut().filter(|child| child.orders == Orders::BeReplaced);
    replaced.filter(|child| can_stand_in || !is_idle(child)).for_each(|child| tell_to_go(child, Orders::GoForMemory));
}

fn tell_to_go(child: &mut Row, orders: Orders) {
    child.orders = orders;
    log::debug!(target: "lenore::daemon", "child {} is retired", child.pid);
    send(child.pid, Signal::SIGQUIT);
}

/// Queues a request and forks for it if there is room.
pub(in crate::daemon) fn take_request(cx: &mut Cx<'_>, is_long: bool, payload: Args) -> Result {
    let Some(parent) = cx.heap().role.parent_mut() else { return Ok(()) };
    parent.requests_seen += 1;
    parent.queue.push_back(Request { number: parent.requests_seen, is_long, payload });
    serve_queue(cx)
}

/// Asks for a fork for the first queued request if there is room, and tells the application whether there is more.
///
/// One fork at a time; the next is asked for when it is known what became of this one. If several were under way and the
/// first failed, the others would overtake its request.
fn serve_queue(cx: &mut Cx<'_>) -> Result {
    let heap = cx.heap();
    let Some(parent) = heap.role.parent_mut() else { return Ok(()) };
    if parent.no_fork_before.is_some() {
        return Ok(());
    }
    let demand = Demand {
        children: (parent.children.len() + parent.in_flight.len()) as u32,
        queued: parent.queue.len(),
        intake: parent.intake,
        max_children: heap.settings.max_children,
    };
    let decision = postfork(demand);
    if decision.fork > 0
        && parent.in_flight.is_empty()
        && let Some(request) = parent.queue.pop_front()
    {
        ask_for_fork(cx, request)?;
    }
    if shutdown::is_draining(cx.heap()) {
        return shutdown::end_if_drained(cx);
    }
    match decision.notice {
        Notice::Pause => pause(cx)?,
        // Not before the fork has succeeded: it may be one that has failed before.
        Notice::Accept if !forks_are_in_flight(cx.heap()) => accept(cx)?,
        Notice::Accept | Notice::Nothing => {}
    }
    let Some(parent) = cx.heap().role.parent() else { return Ok(()) };
    let (is_full, has_queue) = (parent.intake == Intake::Paused, !parent.queue.is_empty());
    if is_full {
        queue_watch::watch(cx);
    }
    relief::review(cx, Counts::default(), is_full);
    // These were accepted, and wait all the same.
    if is_full && has_queue {
        relief::client_waits(cx);
    }
    Ok(())
}

/// Tells the application to go on. At once, as with the pause: a posted signal would come after a pause that is
/// decided on later, and have the last word.
fn accept(cx: &mut Cx<'_>) -> Result {
    let Some(parent) = cx.heap().role.parent_mut() else { return Ok(()) };
    parent.intake = Intake::Open;
    announce(cx, "daemon_accept", ())
}

/// Has clients wait outside, unless they do already.
pub(super) fn pause_intake(cx: &mut Cx<'_>) -> Result {
    let is_open = cx.heap().role.parent().is_some_and(|parent| parent.intake == Intake::Open);
    if is_open { pause(cx) } else { Ok(()) }
}

/// Tells the application to take no more, before it can take the next one.
pub(super) fn pause(cx: &mut Cx<'_>) -> Result {
    let Some(parent) = cx.heap().role.parent_mut() else { return Ok(()) };
    parent.intake = Intake::Paused;
    announce(cx, "daemon_pause", ())
}

fn ask_for_fork(cx: &mut Cx<'_>, request: Request) -> Result {
    let now = epoch_ms(cx.now());
    let heap = cx.heap();
    let (Some(parent), Some(board)) = (heap.role.parent_mut(), &mut heap.board) else { return Ok(()) };
    match board.allocate(now) {
        Ok((slot, generation)) => {
            let Request { number, is_long, payload } = request;
            parent.in_flight.push_back(InFlight { slot, generation, number, is_long });
            let share = heap
                .settings
                .requests
                .map(|requests| share(requests.get(), heap.settings.requests_jitter, parent.forked));
            parent.forked += 1;
            let after_run = if heap.settings.children_return { AfterRun::Return } else { AfterRun::Exit };
            let payload = (slot, is_long, share).into_args().chain(payload);
            cx.core_mut().fork_then(after_run, "forked", "begin_child", payload);
        }
        Err(full) => {
            // Never silently: there are more slots than children may be.
            log::error!(target: "lenore::daemon", "no child is forked: {full}");
            put_back(parent, request);
        }
    }
    Ok(())
}

/// A fork was carried out, or failed.
pub(in crate::daemon) fn forked(cx: &mut Cx<'_>) -> Result {
    let Some(parent) = cx.heap().role.parent_mut() else { return Ok(()) };
    let Some(InFlight { slot, generation, number, is_long }) = parent.in_flight.pop_front() else { return Ok(()) };
    match cx.take::<Result<i32, Error>>(0)? {
        Ok(pid) => {
            let forked_at = cx.now();
            if let Some(parent) = cx.heap().role.parent_mut() {
                parent.children.push(Row::new(pid, slot, generation, forked_at));
                shortage::fork_succeeded(parent);
            }
            cx.sig_child(pid, "reaped", (slot, generation));
            report(cx.heap(), format_args!("child {pid} is forked into slot {slot}"));
            if cx.heap().is_over {
                // Asked for before the shutdown was.
                send(pid, Signal::SIGTERM);
            }
        }
        Err(error) => {
            let payload = std::mem::take(cx.args()).skip(4);
            if let Some(board) = &mut cx.heap().board {
                board.reclaim(slot);
            }
            shortage::fork_failed(cx, Request { number, is_long, payload }, error)?;
        }
    }
    shutdown::end_if_alone(cx)?;
    match cx.heap().settings.forking {
        Forking::Pre => end_start_up(cx)?,
        _ => maintain(cx)?,
    }
    shortage::end_if_over(cx);
    Ok(())
}

/// The first children are there: from now on the policy decides.
fn end_start_up(cx: &mut Cx<'_>) -> Result {
    let heap = cx.heap();
    let first = heap.settings.start_children.min(heap.settings.max_children);
    let Some(parent) = heap.role.parent_mut() else { return Ok(()) };
    let is_complete = parent.children.len() >= first as usize;
    if parent.phase == Phase::StartingUp && parent.in_flight.is_empty() && is_complete {
        parent.phase = Phase::Running;
        broadcast(cx, "daemon_parent");
        cx.yield_("ready_soon", ());
        keep_spares(cx)?;
    }
    Ok(())
}

/// Takes back the forks that were asked for and that have not been carried out.
pub(super) fn cancel_forks(cx: &mut Cx<'_>) {
    let me = cx.session();
    let (heap, core) = cx.parts();
    drop(core.drop_forks_of(me));
    let Some(parent) = heap.role.parent_mut() else { return };
    for InFlight { slot, .. } in parent.in_flight.drain(..) {
        if let Some(board) = &mut heap.board {
            board.reclaim(slot);
        }
    }
}

/// Returns how many forks are to be made at once, were there nothing in their way.
pub(super) fn missing(heap: &Heap) -> usize {
    let Some(parent) = heap.role.parent() else { return 0 };
    match heap.settings.forking {
        Forking::Pre => prefork(count(heap), heap.settings.limits(), parent.phase, parent.growth, 0).fork as usize,
        _ => parent.queue.len(),
    }
}

/// The next shortage is met by a single step.
pub(super) fn forget_growth(heap: &mut Heap) {
    set_growth(heap, Growth::default());
}

fn set_growth(heap: &mut Heap, growth: Growth) {
    if let Some(parent) = heap.role.parent_mut() {
        parent.growth = growth;
    }
}

/// Tells whether nothing is forked for a while.
fn forks_pause(heap: &Heap) -> bool {
    heap.role.parent().is_some_and(|parent| parent.no_fork_before.is_some())
}

fn is_starting_up(heap: &Heap) -> bool {
    heap.role.parent().is_some_and(|parent| parent.phase == Phase::StartingUp)
}

fn forks_are_in_flight(heap: &Heap) -> bool {
    heap.role.parent().is_some_and(|parent| !parent.in_flight.is_empty())
}

/// Forks nothing for so long; of two pauses the one that ends later counts.
pub(super) fn pause_forks(cx: &mut Cx<'_>, wait: Duration) {
    let until = cx.now() + wait;
    let Some(parent) = cx.heap().role.parent_mut() else { return };
    if parent.no_fork_before.is_none_or(|before| before < until) {
        parent.no_fork_before = Some(until);
        cx.delay("retry_forks", wait, ());
    }
}

/// Tries again after a pause.
pub(in crate::daemon) fn retry_forks(cx: &mut Cx<'_>) -> Result {
    let Some(parent) = cx.heap().role.parent_mut() else { return Ok(()) };
    parent.no_fork_before = None;
    maintain(cx)?;
    shortage::end_if_over(cx);
    Ok(())
}

/// Puts a request that could not be served back in its place.
pub(super) fn put_back(parent: &mut Parent, request: Request) {
    if request.number == 0 {
        return;
    }
    let place = parent.queue.partition_point(|other| other.number < request.number);
    parent.queue.insert(place, request);
}

/// Children that die as soon as they live are followed after a pause.
///
/// One that has had a request does not count: a request that kills its child must not close the shop.
pub(super) fn learn_from_death(cx: &mut Cx<'_>, child: &Row, cause: Cause, last: Option<SlotSnapshot>) {
    let now = cx.now();
    let requests = last.map_or(0, |last| last.requests);
    let heap = cx.heap();
    find_survivors(heap, now);
    let (died, forked) = (heap.age(now), heap.age(child.forked_at));
    let Some(parent) = heap.role.parent_mut() else { return };
    note_end(parent, child, last);
    if requests > 0 {
        return parent.crashes.stayed_up(forked);
    }
    if matches!(cause, Cause::Retired | Cause::Memory | Cause::Rogue(_)) {
        return;
    }
    // That it is not there any more does not mean that somebody has taken it up.
    parent.growth = Growth::default();
    let wait = parent.crashes.died(forked, died);
    if !wait.is_zero() {
        let deaths = parent.crashes.deaths();
        // Each death has its record. The pauses are what an operator can't do anything about.
        let level = if parent.crash_loop.failed((), now) { log::Level::Warn } else { log::Level::Debug };
        log::log!(
            target: "lenore::daemon", level,
            "children die as soon as they are forked, {deaths} in a row: the next is forked in {wait:?}"
        );
        pause_forks(cx, wait);
    }
}

/// Ends the row of deaths if a child that was forked after the last of them has stayed up, or has had a request.
fn find_survivors(heap: &mut Heap, now: SystemTime) {
    let born = heap.born;
    let time = |at: SystemTime| at.duration_since(born).unwrap_or_default();
    let Some(parent) = heap.role.parent_mut() else { return };
    for alive in &parent.children {
        let has_worked =
            heap.board.as_ref().and_then(|board| board.read(alive.slot).ok()).is_some_and(|s| s.requests > 0);
        if has_worked || time(now).saturating_sub(time(alive.forked_at)) >= STAYED_UP {
            parent.crashes.stayed_up(time(alive.forked_at));
        }
    }
}

/// Says that children do not die any more as soon as they live, once.
pub(super) fn end_crash_loop_if_over(heap: &mut Heap, now: SystemTime) {
    if !heap.role.parent().is_some_and(|parent| parent.crash_loop.is_present()) {
        return;
    }
    find_survivors(heap, now);
    let Some(parent) = heap.role.parent_mut() else { return };
    if parent.crashes.deaths() == 0
        && let Some(ended) = parent.crash_loop.end(now)
    {
        log::info!(target: "lenore::daemon", "children stay up again: children={} {ended}", parent.children.len());
    }
}

/// Makes the idle children look whether somebody waits for them. The system tells one process of each connection; if that
/// is dead or stopped, nobody else was told.
pub(super) fn wake_idle(heap: &Heap) {
    let Some(parent) = heap.role.parent() else { return };
    let idle = parent.children.iter().filter(|child| !child.is_stopped && does(heap, child) == Some(Status::Wait));
    idle.for_each(|child| send(child.pid, Signal::SIGCONT));
}

/// Logs the coming and going of a child, which `verbose` makes worth an operator's while.
fn report(heap: &Heap, text: std::fmt::Arguments<'_>) {
    let level = if heap.settings.verbose { log::Level::Info } else { log::Level::Debug };
    log::log!(target: "lenore::daemon", level, "{text}");
}

/// A child that takes so many times as long to start as others did takes too long, if that is a second at least.
const LATE: u32 = 4;

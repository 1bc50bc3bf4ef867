//! Looks into the listeners' queues: for how many more children the clients there ask, and whether they wait too long.
//!
//! While a child is idle the queues tell nothing: the client at the front is about to be accepted. So a pool looks for growth
//! only while no child is idle, when a child rings and each few milliseconds. What has to be noticed besides is found without
//! polling. The parent asks the kernel to be told of a client at its paused listeners, looks once a second while there is
//! something to look at, and then asks again. An idle daemon does nothing, a busy one is woken once a second.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::daemon::board::Scoreboard;
use crate::daemon::heap::{Cx, Heap};
use crate::daemon::machine::{
    Counts, Growth, Hearing, Held, Intake, OverloadNews, Phase, Reckoning, Status, default_hold, may_retire,
};
use crate::daemon::parent::pool;
use crate::daemon::parent::role::{Parent, QueueWatch, Watch};
use crate::daemon::parent::table::{Orders, Row};
use crate::daemon::processes::send;
use crate::daemon::processes::{Look, look};
use crate::daemon::settings::Forking;
use crate::daemon::status::Backlog;
use crate::error::Result;
use crate::kernel::{Core, Queues, SessionId};
use crate::reply::Return;

impl QueueWatch {
    pub(super) fn queues(&self, core: &Core) -> Option<Queues> {
        core.read_queues(self.owner)
    }
}

/// What the clients in the queues ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// So many more children.
    pub(super) children: u32,
    /// More clients wait than children that are starting and spares that are due could serve.
    is_crowd: bool,
}

/// Returns what the clients in the queues ask for, and `None` if the system does not tell how many wait.
pub(super) fn weigh(cx: &mut Cx<'_>, counts: Counts) -> Option<Asked> {
    let now = cx.now();
    let (heap, core) = cx.parts();
    let now = heap.age(now);
    let parent = heap.role.parent_mut()?;
    if counts.idle > 0 || parent.phase != Phase::Running {
        parent.queues.service.someone_is_idle();
        return (parent.queues.seen != Backlog::Unreadable).then(Asked::default);
    }
    let Some(queues) = parent.queues.queues(core) else {
        parent.queues.seen = Backlog::Unreadable;
        return None;
    };
    let begun = begun(parent, heap.board.as_ref());
    let (target, min_spare) = (heap.settings.wait_target, heap.settings.min_spare);
    let watch = &mut parent.queues;
    watch.service.look(now, counts.busy, begun);
    let (service, start) = (watch.service.estimate(), watch.start.estimate());
    let reckoning = Reckoning::new(counts, queues.waiting, service, start, target);
    watch.seen = Backlog::Seen(reckoning);
    let is_full = counts.total() >= heap.settings.max_children || parent.no_fork_before.is_some();
    if is_full {
        return Some(Asked::default());
    }
    if reckoning.missing > 0 {
        log::debug!(target: "lenore::daemon", "clients wait for more children: {reckoning}");
    }
    cx.delay("weigh_queue", start.max(SHORTEST_LOOK), ());
    let is_crowd = queues.waiting.saturating_sub(counts.starting) > min_spare;
    Some(Asked { children: reckoning.missing, is_crowd })
}

/// The listeners of this session, ARG0, are those on which the children accept. Before that, all that are paused are.
pub(in crate::daemon) fn serves(cx: &mut Cx<'_>) -> Result<Return<()>> {
    let owner = *cx.arg::<SessionId>(0)?;
    if let Some(parent) = cx.heap().role.parent_mut() {
        parent.queues.owner = Some(owner);
    }
    Ok(Return(()))
}

/// Returns how many requests were begun since the Daemon was.
fn begun(parent: &Parent, board: Option<&Scoreboard>) -> u64 {
    let Some(board) = board else { return 0 };
    let alive = parent.children.iter().filter_map(|child| board.read(child.slot).ok());
    parent.queues.begun_by_dead + alive.map(|slot| slot.requests).sum::<u64>()
}

/// Takes note of children that were forked while clients asked for so many.
pub(super) fn grown(cx: &mut Cx<'_>, forked: u32, asked: Asked) {
    let by = if asked.is_crowd { forked } else { forked.min(asked.children) };
    let now = cx.now();
    let heap = cx.heap();
    let (now, hold) = (heap.age(now), hold_time(heap));
    if let Some(parent) = heap.role.parent_mut() {
        parent.queues.hold.grown(now, by, hold);
    }
}

/// Returns whether spares are kept for the next wave.
pub(super) fn held(cx: &mut Cx<'_>, counts: Counts) -> Held {
    let now = cx.now();
    let heap = cx.heap();
    let (now, hold, max_spare) = (heap.age(now), hold_time(heap), heap.settings.max_spare);
    let Some(parent) = heap.role.parent_mut() else { return Held::default() };
    let held = parent.queues.hold.review(now, counts, max_spare, hold);
    if let Some(next) = held.next {
        cx.delay("end_hold", next, ());
    }
    held
}

fn hold_time(heap: &Heap) -> Duration {
    let start = || heap.role.parent().map_or(Duration::ZERO, |parent| parent.queues.start.estimate());
    heap.settings.shrink_hold.unwrap_or_else(|| default_hold(start()))
}

/// Returns how many of `number` idle children may be retired.
pub(super) fn retirable(cx: &mut Cx<'_>, number: u32, counts: Counts) -> u32 {
    if number < counts.idle {
        return number;
    }
    let (heap, core) = cx.parts();
    let queues = heap.role.parent().and_then(|parent| parent.queues.queues(core));
    let waiting = queues.map_or(0, |queues| queues.waiting);
    may_retire(number, counts, waiting)
}

/// Asks to be told of the next client, if it was not asked already and is not looking.
pub(super) fn watch(cx: &mut Cx<'_>) {
    let me = cx.session();
    let (heap, core) = cx.parts();
    let Some(parent) = heap.role.parent_mut() else { return };
    if parent.queues.watch == Watch::Off {
        parent.queues.watch = Watch::Asked;
        core.await_backlog(me, "client_in_queue");
    }
}

/// A client waits, perhaps for no longer than it takes a child to accept it.
pub(in crate::daemon) fn client_in_queue(cx: &mut Cx<'_>) -> Result {
    let Some(parent) = cx.heap().role.parent_mut() else { return Ok(()) };
    parent.queues.watch = Watch::Looking;
    look_at_queue(cx)
}

/// A look: what is there to be told, and when to look again.
pub(in crate::daemon) fn look_at_queue(cx: &mut Cx<'_>) -> Result {
    let now = cx.now();
    let (heap, core) = cx.parts();
    let (now, is_over, counts) = (heap.age(now), heap.is_over, pool::count(heap));
    let Some(parent) = heap.role.parent().filter(|parent| !is_over && parent.queues.watch == Watch::Looking) else {
        return Ok(());
    };
    let queues = parent.queues.queues(core);
    let waiting = queues.map_or_else(|| u32::from(core.has_backlog()), |queues| queues.waiting);
    let is_full = match heap.settings.forking {
        Forking::Pre => counts.total() >= heap.settings.max_children && counts.idle + counts.starting == 0,
        // Failed forks pause it as well.
        _ => parent.intake == Intake::Paused && counts.total() >= heap.settings.max_children,
    };
    let max = heap.settings.max_children;
    let idle = if heap.settings.forking == Forking::Pre { counts.idle } else { 0 };
    let Some(parent) = heap.role.parent_mut() else { return Ok(()) };
    tell_overload(&mut parent.queues, max, now, if is_full { waiting } else { 0 }, queues);
    tell_full(&mut parent.queues, now, queues);
    let hearing = parent.queues.unheard.look(now, idle, waiting);
    let found = hearing == Hearing::Deaf && wake_deaf(heap, waiting);
    let Some(parent) = heap.role.parent_mut() else { return Ok(()) };
    let watch = &mut parent.queues;
    if hearing == Hearing::Deaf {
        watch.in_vain = if found { 0 } else { watch.in_vain.saturating_add(1) };
    }
    if waiting == 0 {
        watch.in_vain = 0;
    }
    let goes_on = hearing == Hearing::Unclear || watch.overload.is_present() || watch.full.is_present();
    let event = if goes_on { "look_at_queue" } else { "watch_queue" };
    // Whoever these clients wait for, it is not the idle children: no need to wake those each second.
    let pause = LOOK * (1 << watch.in_vain.min(6));
    cx.delay(event, pause, ());
    if hearing == Hearing::Deaf { pool::maintain(cx) } else { Ok(()) }
}

/// A second after a look that found nothing: the next client is news again.
pub(in crate::daemon) fn watch_again(cx: &mut Cx<'_>) {
    let is_over = cx.heap().is_over;
    if let Some(parent) = cx.heap().role.parent_mut().filter(|_| !is_over) {
        parent.queues.watch = Watch::Off;
        watch(cx);
    }
}

/// A line when clients begin to wait for a full pool, and one when they do no longer.
fn tell_overload(watch: &mut QueueWatch, max: u32, now: Duration, waiting: u32, queues: Option<Queues>) {
    match watch.overload.look(now, waiting) {
        Some(OverloadNews::Begun) => {
            let limit = queues.map_or_else(|| "unknown".to_owned(), |queues| queues.limit.to_string());
            log::warn!(
                target: "lenore::daemon",
                "clients wait and all children are busy: max_children={max} waiting={waiting} backlog={limit}"
            );
        }
        Some(OverloadNews::Ended { lasted, deepest }) => {
            log::info!(
                target: "lenore::daemon",
                "clients no longer wait for busy children: lasted={:.1} deepest={deepest}", lasted.as_secs_f64()
            );
        }
        None => {}
    }
}

/// A line when the system begins to turn clients away, and one when it does no longer.
fn tell_full(watch: &mut QueueWatch, now: Duration, queues: Option<Queues>) {
    let full = queues.and_then(|queues| queues.full);
    match watch.full.look(now, full.map_or(0, |full| full.waiting)) {
        Some(OverloadNews::Begun) => {
            let (waiting, limit) = full.map_or((0, 0), |full| (full.waiting, full.limit));
            log::error!(
                target: "lenore::daemon",
                "the queue of a listener is full and the system turns clients away: waiting={waiting} backlog={limit}; \
                 see listen_queue, and net.core.somaxconn, which limits it"
            );
        }
        Some(OverloadNews::Ended { lasted, deepest }) => {
            log::info!(
                target: "lenore::daemon",
                "the queue of the listener has room again: lasted={:.1} deepest={deepest}", lasted.as_secs_f64()
            );
        }
        None => {}
    }
}

/// Clients wait, and children say that they do: those that are stopped are spares no longer, and the others are woken. Returns
/// whether one is stopped.
fn wake_deaf(heap: &mut Heap, waiting: u32) -> bool {
    let Some(parent) = heap.role.parent_mut() else { return false };
    let is_full = parent.children.len() >= heap.settings.max_children as usize;
    let board = heap.board.as_ref();
    let says_idle = |child: &Row| {
        child.orders == Orders::Stay
            && !child.is_stopped
            && board.and_then(|board| board.status(child.slot)) == Some(Status::Wait)
    };
    let mut found = false;
    for child in parent.children.iter_mut().filter(|child| says_idle(child)) {
        if look(child.pid) != Look::Stopped {
            continue;
        }
        found = true;
        let (pid, slot) = (child.pid, child.slot);
        let what = if is_full { "is continued" } else { "is no spare any more" };
        log::warn!(
            target: "lenore::daemon",
            "child that waits for clients does not accept because it is stopped, and {what}: pid={pid} slot={slot} waiting={waiting}"
        );
        if is_full {
            send(pid, Signal::SIGCONT);
        } else {
            child.is_stopped = true;
        }
    }
    // The system may have told the stopped child of the client, and nobody else.
    pool::wake_idle(heap);
    found
}

/// A pool that can't see the queue doubles its steps; one that can does not.
pub(super) fn growth(parent: &Parent, asked: Option<Asked>) -> Growth {
    if asked.is_some() { Growth::default() } else { parent.growth }
}

/// How often the queues are looked at for growth while no child is idle, unless children take longer to start.
const SHORTEST_LOOK: Duration = Duration::from_millis(5);

/// How often they are looked at otherwise, at most: a little more than [`Unheard`] wants.
const LOOK: Duration = Duration::from_millis(1010);

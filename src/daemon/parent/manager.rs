//! Tells the service manager what happens, if one has started the program.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::daemon::board::{Scoreboard, SlotIndex, Status};
use crate::daemon::heap::{Cx, Heap, Role};
use crate::daemon::machine::{Grace, Key, Phase};
use crate::daemon::notify::{Counts, Ill, Manager, Named, PoolSketch, Sight, Sketch, errno_of, status, with_verdict};
use crate::daemon::parent::role::{Naming, Parent};
use crate::daemon::parent::store::CHANGED;
use crate::daemon::settings::Forking;
use crate::kernel::Handle;
use crate::name::Name;

fn manager<'a>(cx: &'a mut Cx<'_>) -> Option<&'a mut Manager> {
    cx.heap().role.parent_mut()?.manager.as_deref_mut()
}

/// The start begins. Nothing of this keeps the program. Returns whether there is a manager.
pub(in crate::daemon) fn begin(cx: &mut Cx<'_>) -> bool {
    let is_managed = manager(cx).is_some();
    if is_managed {
        let me = cx.session();
        cx.core_mut().let_alarms_pass(me, Name::new(TICK));
    }
    is_managed
}

/// The Daemon is ready. Returns whether a manager was told.
pub(in crate::daemon) fn ready(cx: &mut Cx<'_>) -> bool {
    let (age, text) = (age(cx), status_text(cx));
    let Some(manager) = manager(cx) else { return false };
    manager.ready(age, &text);
    arm(cx);
    true
}

/// Tells why the Daemon has failed.
pub(in crate::daemon) fn failed(cx: &mut Cx<'_>) {
    let Some(parent) = cx.heap().role.parent_mut() else { return };
    if let (Some(manager), Some(failure)) = (&mut parent.manager, &parent.failure) {
        manager.failed(&failure.to_string(), errno_of(failure.error()));
    }
}

/// Something changes from now on, while the Daemon serves: `what` is a word for it.
pub(in crate::daemon) fn begin_change(cx: &mut Cx<'_>, what: &str) {
    let (age, text) = (age(cx), pool_text(cx, what));
    // Not the loop's time: the manager has asked after the loop has read that, perhaps.
    let monotonic = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    if let Some(manager) = manager(cx) {
        manager.begin_change(age, monotonic, what, &text);
        arm(cx);
    }
}

/// That is over, and this has become of it.
pub(in crate::daemon) fn end_change(cx: &mut Cx<'_>, verdict: &str) {
    let age = age(cx);
    if !manager(cx).is_some_and(|manager| manager.is_changing()) {
        return;
    }
    let phase = phase(cx).unwrap_or("ready");
    let text = pool_text(cx, phase);
    if let Some(manager) = manager(cx) {
        manager.end_change(age, verdict, text);
        arm(cx);
    }
}

/// Keeps for the status what became of a change.
pub(in crate::daemon) fn note_verdict(cx: &mut Cx<'_>, verdict: &str) {
    if let Some(manager) = manager(cx) {
        manager.note_verdict(verdict);
    }
}

/// Another process serves: the manager hears nothing of this one any more, but which process is the main one.
pub(in crate::daemon) fn mute(cx: &mut Cx<'_>) {
    if let Some(manager) = manager(cx) {
        manager.mute();
    }
}

/// This process serves, and the manager hears so at once.
pub(in crate::daemon) fn unmute(cx: &mut Cx<'_>) {
    let (age, text) = (age(cx), status_text(cx));
    if let Some(manager) = manager(cx) {
        manager.unmute(age, &text);
        // What has changed meanwhile.
        cx.yield_(CHANGED, ());
        arm(cx);
    }
}

/// Has the manager take `pid` for the main process of the service. `event` is posted to this session, with a [`Named`], once the manager has
/// read that, or when it is not worth waiting any longer. Only one process is named at a time: the last.
pub(in crate::daemon) fn name_main_process(cx: &mut Cx<'_>, pid: i32, event: &'static str) {
    stop_naming(cx);
    let until = age(cx) + NAMING_LIMIT;
    let sent = manager(cx).map_or(Ok(None), |manager| manager.name_main_process(pid));
    let end = match sent {
        Ok(Some(end)) => Handle::new(end),
        Ok(None) => return cx.yield_(event, (Named::ToNobody,)),
        Err(error) => {
            log::warn!(target: "lenore::daemon", "the service manager can't be told of process {pid}: {error}");
            return cx.yield_(event, (Named::Late,));
        }
    };
    let watched = cx.select_read_weak(&end, "main_process_named", ());
    if let Some(parent) = cx.heap().role.parent_mut() {
        parent.naming = Some(Naming { end, event, until });
    }
    match watched {
        Ok(()) => arm(cx),
        Err(_) => end_naming(cx, Named::Late),
    }
}

/// The manager has read which process is the main one.
pub(in crate::daemon) fn main_process_named(cx: &mut Cx<'_>) {
    end_naming(cx, Named::Read);
}

fn end_naming(cx: &mut Cx<'_>, named: Named) {
    if let Some(event) = stop_naming(cx) {
        cx.yield_(event, (named,));
    }
}

/// Returns whom the manager's answer would have been told.
fn stop_naming(cx: &mut Cx<'_>) -> Option<&'static str> {
    let Naming { end, event, .. } = cx.heap().role.parent_mut()?.naming.take()?;
    cx.select_read_clear(&end);
    if let Some(manager) = manager(cx) {
        manager.forget_main_process();
    }
    Some(event)
}

/// Something has happened.
pub(in crate::daemon) fn look(cx: &mut Cx<'_>) {
    let age = age(cx);
    let Some(parent) = cx.heap().role.parent_mut() else { return };
    let ends = parent.machine.phase() == Phase::ShuttingDown;
    let Some(manager) = parent.manager.as_deref_mut() else { return };
    let had_changes = manager.has_changes();
    let is_due = manager.note_change(age);
    let begins_to_end = ends && !manager.is_stopping();
    if begins_to_end {
        let text = status_text(cx);
        if let Some(manager) = self::manager(cx) {
            manager.stopping(&text);
        }
    } else if is_due {
        say_status(cx, age);
    }
    if begins_to_end || is_due || !had_changes {
        arm(cx);
    }
}

/// Something is due.
pub(in crate::daemon) fn tick(cx: &mut Cx<'_>) {
    let age = age(cx);
    let Some(manager) = manager(cx) else { return };
    manager.retry();
    if manager.status_is_due(age) {
        say_status(cx, age);
    }
    if self::manager(cx).is_some_and(|manager| manager.ping_is_due(age)) {
        ping(cx, age);
    }
    if let Some(parent) = cx.heap().role.parent_mut() {
        let left = parent.drain.as_mut().map(|drain| drain.left(age)).or_else(|| parent.machine.grace_left());
        if let Some(manager) = &mut parent.manager {
            manager.extend(age, left.unwrap_or_default());
        }
        if parent.naming.as_ref().is_some_and(|naming| age >= naming.until) {
            end_naming(cx, Named::Late);
        }
    }
    arm(cx);
}

fn ping(cx: &mut Cx<'_>, age: Duration) {
    let health = health(cx);
    let gives_up = cx.heap().settings.gives_up;
    let Some(manager) = manager(cx) else { return };
    match health {
        Ok(()) => manager.ping(age),
        Err(ill) if gives_up => manager.give_up(&ill.to_string()),
        Err(_) => manager.skip(age),
    }
}

/// Tells whether the Daemon lives: whether it serves clients, or will by itself.
pub(in crate::daemon) fn health(cx: &mut Cx<'_>) -> Result<(), Ill> {
    let (age, now) = (age(cx), cx.now());
    let Heap { role: Role::Parent(parent), settings, board, .. } = cx.heap() else { return Ok(()) };
    if parent.machine.phase() == Phase::ShuttingDown || parent.machine.is_resting() {
        return Ok(());
    }
    let counts = (settings.forking != Forking::None).then(|| counts(parent, board.as_ref()));
    let sight = Sight {
        ready: counts.map(|counts| counts.busy + counts.idle),
        min_spare: parent.machine.settings().min_spare,
        // The queues of a pool's listeners don't matter: `min_spare` is at least 1.
        queue: parent.machine.queued(),
        round_is_overdue: parent.machine.round_is_overdue(age),
        forks_fail: parent.shortage.lasts(now),
    };
    let health = parent.health.look(age, settings.health_limit, sight);
    let was_ill = std::mem::replace(&mut parent.is_ill, health.is_err());
    match health {
        Err(ill) if !was_ill => log::error!(target: "lenore::daemon", "the Daemon can't recover by itself: {ill}"),
        Ok(()) if was_ill => log::info!(target: "lenore::daemon", "the Daemon has recovered"),
        _ => {}
    }
    health
}

fn say_status(cx: &mut Cx<'_>, age: Duration) {
    let text = status_text(cx);
    if let Some(manager) = manager(cx) {
        manager.say_status(age, text);
    }
}

fn status_text(cx: &mut Cx<'_>) -> String {
    if let Some(phase) = phase(cx) {
        return pool_text(cx, phase);
    }
    let doing = manager(cx).map(|manager| manager.doing());
    let (doing, verdict) = doing.map(|(doing, verdict)| (doing.to_owned(), verdict.to_owned())).unwrap_or_default();
    with_verdict(pool_text(cx, &doing), &verdict)
}

/// Returns a word for the time in which the Daemon does not serve as ever; `None` if it does.
fn phase(cx: &mut Cx<'_>) -> Option<&'static str> {
    let machine = &cx.heap().role.parent()?.machine;
    match machine.phase() {
        _ if machine.ends_gently() => Some("draining"),
        Phase::ShuttingDown => Some("stopping"),
        Phase::StartingUp => Some("starting"),
        Phase::Running => None,
    }
}

fn pool_text(cx: &mut Cx<'_>, doing: &str) -> String {
    let (heap, core) = cx.parts();
    let Heap { role: Role::Parent(parent), settings, board, .. } = heap else { return String::new() };
    let queue = match settings.forking {
        Forking::Pre => core.read_queues(parent.owner).map(|queues| queues.waiting as usize),
        Forking::Post => Some(parent.machine.queued()),
        Forking::None => None,
    };
    let board = board.as_ref();
    let pool = (settings.forking != Forking::None).then(|| PoolSketch {
        counts: counts(parent, board),
        queue,
        board: letters(parent, board),
    });
    status(doing, &Sketch { pool, generation: parent.machine.edition().0 })
}

/// Returns the scoreboard as one letter a slot.
fn letters(parent: &Parent, board: Option<&Scoreboard>) -> String {
    let table = parent.machine.table();
    let mut letters = vec![Status::Empty.letter(); table.slots()];
    let letter = |key: Key| match board.and_then(|board| board.status(SlotIndex::from(key))) {
        // It has just been forked, and has not claimed its slot.
        Some(Status::Empty) => Status::Forking.letter(),
        Some(status) => status.letter(),
        None => '?',
    };
    let forks = table.in_flight().iter().map(|fork| (fork.key, Status::Forking.letter()));
    for (key, letter) in forks.chain(table.children().iter().map(|child| (child.key, letter(child.key)))) {
        if let Some(place) = letters.get_mut(key.slot) {
            *place = letter;
        }
    }
    letters.into_iter().collect()
}

fn counts(parent: &Parent, board: Option<&Scoreboard>) -> Counts {
    let mut counts = Counts::default();
    for child in parent.machine.table().children() {
        counts.children += 1;
        match board.and_then(|board| board.status(SlotIndex::from(child.key))) {
            Some(status) if status.is_taken() => counts.busy += 1,
            Some(Status::Wait) => counts.idle += 1,
            _ => {}
        }
    }
    counts
}

/// Has this looked at again when something is due.
pub(in crate::daemon) fn arm(cx: &mut Cx<'_>) {
    let age = age(cx);
    let Some(parent) = cx.heap().role.parent() else { return };
    let of_manager = parent.manager.as_ref().and_then(|manager| manager.next_due(age));
    let of_naming = parent.naming.as_ref().map(|naming| naming.until.saturating_sub(age));
    if let Some(due) = of_manager.into_iter().chain(of_naming).min() {
        cx.delay(TICK, due.max(SHORTEST), ());
    }
}

/// The Daemon has ended, and this process still serves its clients: the manager goes on hearing of it until the session stops.
pub(in crate::daemon) fn drain(cx: &mut Cx<'_>) {
    let (age, text, full) = (age(cx), status_text(cx), cx.heap().settings.shutdown_timeout);
    if let Some(parent) = cx.heap().role.parent_mut()
        && let Some(manager) = &mut parent.manager
    {
        parent.drain = Some(Grace::new(full, DRAIN_LOOKED_AT_EVERY, age));
        manager.stopping(&text);
        arm(cx);
    }
}

/// Nothing is left to be told.
pub(in crate::daemon) fn let_go(cx: &mut Cx<'_>) {
    let text = status_text(cx);
    if let Some(manager) = manager(cx) {
        manager.stopping(&text);
    }
    forget(cx);
}

/// The session stops: there is nobody who could tell anything.
pub(in crate::daemon) fn forget(cx: &mut Cx<'_>) {
    stop_naming(cx);
    if cx.heap().role.parent_mut().and_then(|parent| parent.manager.take()).is_some() {
        let _ = cx.delay_clear(TICK);
    }
}

fn age(cx: &mut Cx<'_>) -> Duration {
    let now = cx.now();
    cx.heap().age(now)
}

const TICK: &str = "manager_tick";

/// For how long the manager may leave unread which process is the main one.
const NAMING_LIMIT: Duration = Duration::from_secs(5);

/// A tick comes as often at least.
const DRAIN_LOOKED_AT_EVERY: Duration = Duration::from_secs(1);

/// The shortest time between two looks.
const SHORTEST: Duration = Duration::from_millis(10);

//! Tells the machine what has happened, and carries out what it wants done.

use crate::args::IntoArgs;
use crate::daemon::announce::{announce, broadcast};
use crate::daemon::birth::Birth;
use crate::daemon::board::{Ring, SlotIndex, epoch_ms};
use crate::daemon::ending;
use crate::daemon::foreign;
use crate::daemon::heap::{Cx, Heap, Role};
use crate::daemon::listening;
use crate::daemon::machine::{
    Announcement, Death, Effect, Fork, Input, Message, Order, OrderId, Published, Timer, Verdict, Watch,
};
use crate::daemon::parent::ending as parent_ending;
use crate::daemon::parent::eyes::Eyes;
use crate::daemon::parent::launcher;
use crate::daemon::parent::manager;
use crate::daemon::parent::reload;
use crate::daemon::parent::role::Parent;
use crate::daemon::parent::say;
use crate::daemon::parent::signals::system_signal;
#[cfg(feature = "status")]
use crate::daemon::parent::status_listener;
#[cfg(feature = "control")]
use crate::daemon::parent::{asks, clients, news, picture, verdicts};
use crate::daemon::parent::{predecessor, upgrade};
use crate::daemon::processes::send;
use crate::error::Result;
use crate::inject::{self, Point};
use crate::kernel::AfterRun;

/// Tells the parent's machine, if this process has one, and carries out what follows.
///
/// All of it is carried out, also behind an effect of which the application's part has failed. The first failure is returned.
pub(in crate::daemon) fn drive(cx: &mut Cx<'_>, input: Input) -> Result {
    let Some(parent) = cx.heap().role.parent_mut() else { return Ok(()) };
    parent.inputs.push_back(input);
    // The application may call while it is told something. What it asks for comes after the effects that are under way:
    // they were decided on without it.
    if std::mem::replace(&mut parent.is_driving, true) {
        return Ok(());
    }
    let mut outcome = Ok(());
    let mut looks = 0;
    while let Some(input) = next_input(cx) {
        if let Err(exception) = drive_one(cx, input, &mut looks) {
            outcome = outcome.and(Err(exception));
        }
    }
    outcome
}

fn next_input(cx: &mut Cx<'_>) -> Option<Input> {
    let parent = cx.heap().role.parent_mut()?;
    let next = parent.inputs.pop_front();
    parent.is_driving = next.is_some();
    next
}

fn drive_one(cx: &mut Cx<'_>, input: Input, looks: &mut u32) -> Result {
    if matches!(input, Input::Due(Timer::Babysit | Timer::Grace)) {
        look_at_foreign(cx)?;
    }
    #[cfg(feature = "control")]
    if let Input::Reopened { has_failed } = input {
        news::of_log(cx, has_failed);
    }
    let (mut outcome, mut look_again) = (Ok(()), false);
    for effect in step(cx, input) {
        inject::pass(Point::Effect);
        match carry_out(cx, effect) {
            Ok(again) => look_again |= again,
            Err(exception) => outcome = outcome.and(Err(exception)),
        }
    }
    #[cfg(feature = "control")]
    news::of_phase(cx);
    manager::look(cx);
    predecessor::look(cx);
    *looks += u32::from(look_again);
    if look_again && *looks < LOOKS {
        return outcome.and(drive(cx, Input::Bell));
    }
    if look_again {
        // Other sessions have their turn first.
        cx.yield_("bell", ());
    }
    outcome
}

/// Forgets children of other code that such code has waited for.
fn look_at_foreign(cx: &mut Cx<'_>) -> Result {
    foreign::forget_vanished(cx);
    let left = cx.heap().foreign.len();
    drive(cx, Input::Foreign(left))
}

/// An operator or the application asks for something, and does not listen for the verdict.
pub(in crate::daemon) fn order(cx: &mut Cx<'_>, order: Order) -> Result {
    let Some(id) = number_order(cx) else { return Ok(()) };
    drive(cx, Input::Asked(id, order))
}

/// Returns the number of the next order.
pub(super) fn number_order(cx: &mut Cx<'_>) -> Option<OrderId> {
    let parent = cx.heap().role.parent_mut()?;
    parent.orders += 1;
    Some(OrderId(parent.orders))
}

fn step(cx: &mut Cx<'_>, input: Input) -> Vec<Effect> {
    let now = cx.now();
    let (heap, core) = cx.parts();
    let (age, born_ms) = (heap.age(now), epoch_ms(heap.born));
    let Heap { role: Role::Parent(parent), board, .. } = heap else { return Vec::new() };
    let Parent { machine, pids, told, oom_kills, owner, .. } = &mut **parent;
    let mut eyes = Eyes { board: board.as_mut(), born_ms, pids, told, oom_kills, core, owner: *owner };
    let effects = machine.step(age, &mut eyes, input);
    #[cfg(feature = "control")]
    if let Some(board) = board.as_mut().filter(|board| board.is_shown()) {
        board.beat(epoch_ms(now));
        board.tell(picture::facts(parent));
    }
    effects
}

/// Returns whether children may have had news meanwhile.
fn carry_out(cx: &mut Cx<'_>, effect: Effect) -> Result<bool> {
    match effect {
        Effect::Fork(fork) => ask_for_fork(cx, fork),
        Effect::CancelForks => {
            let me = cx.session();
            drop(cx.core_mut().drop_forks_of(me));
            reload::forks_taken_back(cx);
            if let Some(parent) = cx.heap().role.parent_mut() {
                parent.forks.clear();
            }
        }
        Effect::Signal(key, signal) => {
            let heap = cx.heap();
            if let Some(pid) = heap.role.parent().and_then(|parent| parent.pids.of(key)) {
                send(pid, system_signal(signal, heap.settings.term));
            }
        }
        Effect::KillForeign => cx.heap().foreign.iter().for_each(|pid| ending::kill_late(*pid)),
        Effect::Arm(timer, span) => cx.delay(state_of(timer), span, ()),
        Effect::Disarm(timer) => drop(cx.delay_clear(state_of(timer))),
        Effect::DisarmAll => {
            drop(cx.alarm_remove_all());
            rearm_watching(cx);
            #[cfg(feature = "control")]
            asks::arm(cx);
        }
        Effect::Announce(Announcement::Parent) => {
            broadcast(cx, "daemon_parent");
            cx.yield_("ready_soon", ());
        }
        Effect::Announce(Announcement::Pause) => announce(cx, "daemon_pause", ())?,
        Effect::Announce(Announcement::Accept) => announce(cx, "daemon_accept", ())?,
        Effect::Publish(published) => return Ok(publish(cx, published)),
        Effect::LookAgain => return Ok(true),
        Effect::Await(watch) => {
            let me = cx.session();
            cx.core_mut().await_backlog(me, state_for(watch));
        }
        Effect::Forget(watch) => {
            let me = cx.session();
            cx.core_mut().forget_backlog(me, state_for(watch));
        }
        Effect::AskToRelease(key) => {
            if let Some(board) = &cx.heap().board {
                board.ask_to_release(SlotIndex::from(key));
            }
        }
        Effect::Call(key) => {
            if let Some(board) = &cx.heap().board {
                board.call(SlotIndex::from(key));
            }
        }
        Effect::GrowBoard(slots) => {
            if let Some(board) = &mut cx.heap().board {
                board.grow(slots);
            }
        }
        Effect::Record(death) => record(cx, &death),
        Effect::Say(message) => tell(cx, &message),
        Effect::Answer(id, verdict) => answer(cx, id, verdict),
        Effect::DropRequests => {
            if let Some(parent) = cx.heap().role.parent_mut() {
                drop(std::mem::take(&mut parent.payloads));
            }
        }
        Effect::Reopen => {
            broadcast(cx, "daemon_HUP");
            cx.yield_("reopen", ());
        }
        Effect::TellLauncher => {
            if launcher::tell(cx).is_err() {
                drive(cx, Input::LauncherGone { has_acknowledged: false })?;
            }
            // It does not acknowledge. Nor does a predecessor.
            if manager::ready(cx) {
                drive(cx, Input::LauncherGone { has_acknowledged: true })?;
            }
            if predecessor::tell_ready(cx) {
                drive(cx, Input::LauncherGone { has_acknowledged: true })?;
            }
        }
        Effect::DelayLauncher => launcher::delay(cx),
        Effect::End(how) => {
            listening::let_go(cx.heap());
            let told = parent_ending::end(cx, how);
            rearm_watching(cx);
            look_at_foreign(cx)?;
            told?;
        }
        Effect::Fail(failure) => {
            parent_ending::note_failure(cx, failure);
            manager::failed(cx);
        }
        Effect::Finish => {
            reload::let_go(cx);
            upgrade::tell_counts(cx);
            // Without children this process has the connections. Operators and the manager hear of it until it ends.
            if parent_ending::may_drain(cx) {
                manager::drain(cx);
            } else {
                manager::let_go(cx);
                // A successor that was told to end may still hold the addresses. The session stops when it has gone, and answers then.
                if !upgrade::waits_for_an_end(cx) {
                    let_operators_go(cx);
                }
                #[cfg(feature = "status")]
                status_listener::end(cx);
            }
            parent_ending::finish(cx)?;
        }
        Effect::Scout(edition) => reload::begin(cx, edition),
        Effect::EndScout => reload::end_scout(cx),
        Effect::Load(edition) => {
            if let Some(loaded) = reload::load(cx, edition) {
                drive(cx, loaded)?;
            }
        }
        Effect::Adopt(edition) => reload::adopt(cx, edition),
        Effect::Drop(edition) => reload::forget(cx, edition),
        Effect::StartSuccessor(attempt) => upgrade::start(cx, attempt),
        Effect::HandOver(_) => upgrade::hand_over(cx),
        Effect::EndSuccessor(_) => upgrade::end_successor(cx),
        Effect::HurrySuccessor => upgrade::hurry_successor(cx),
        Effect::TakeBack => upgrade::take_back(cx),
        Effect::Rest(rests) => upgrade::rest(cx, rests),
        Effect::LeaveAll => upgrade::leave_all(cx),
        Effect::TellWhatIsLeft => ending::look_again_what_is_left(cx),
    }
    Ok(false)
}

/// Nothing is left that operators could see or steer.
#[cfg_attr(not(feature = "control"), expect(unused_variables, reason = "there are none"))]
pub(in crate::daemon) fn let_operators_go(cx: &mut Cx<'_>) {
    #[cfg(feature = "control")]
    {
        verdicts::tell_of_end(cx);
        clients::let_go(cx);
    }
}

/// Goes on to look after those who watch, when all timers were stopped.
fn rearm_watching(cx: &mut Cx<'_>) {
    #[cfg(feature = "control")]
    clients::arm(cx);
    #[cfg(feature = "status")]
    status_listener::arm(cx);
    manager::arm(cx);
    upgrade::arm(cx);
}

fn ask_for_fork(cx: &mut Cx<'_>, fork: Fork) {
    inject::pass(Point::ForkBefore);
    let now = epoch_ms(cx.now());
    #[cfg(feature = "control")]
    cx.heap().metrics.open(fork.key.slot);
    #[cfg(feature = "control")]
    asks::prepare(cx, fork.key);
    let stderr = reload::watch(cx, &fork);
    let Heap { role: Role::Parent(parent), board: Some(board), settings, config, .. } = cx.heap() else { return };
    let Fork { key, edition, request, is_long, share, is_probe, .. } = fork;
    let config = config.as_ref().map(|config| config.of(edition));
    parent.forks.push_back((key, request));
    board.open(SlotIndex::from(key), key.generation, now);
    let payload = request.and_then(|number| parent.payloads.remove(&number)).unwrap_or_default();
    let after_run = if settings.children_return { AfterRun::Return } else { AfterRun::Exit };
    let birth = Birth { key, is_long, share, is_probe, config, stderr };
    let args = (birth,).into_args().chain(payload);
    cx.core_mut().fork_then(after_run, "forked", "begin_child", args);
}

/// Tells the children what they go by.
fn publish(cx: &mut Cx<'_>, published: Published) -> bool {
    let Some(board) = &mut cx.heap().board else { return false };
    board.publish_full(published.is_full);
    board.publish(published.thresholds) == Ring::Yes
}

fn record(cx: &mut Cx<'_>, death: &Death) {
    reload::child_ended(cx, death.key);
    // Before another child is forked into the slot, which the machine has asked for after this.
    #[cfg(feature = "control")]
    cx.heap().metrics.reclaim(death.key.slot);
    let Heap { role: Role::Parent(parent), settings, .. } = cx.heap() else { return };
    let Some(pid) = parent.pids.remove(death.key) else { return };
    say::record(settings, pid, death);
    #[cfg(feature = "control")]
    {
        picture::remember(cx, death, pid);
        verdicts::note_end(cx, pid, death);
        news::of_death(cx, pid, death);
    }
    // Nothing is waited for that was reaped, or that other code has waited for.
    cx.sig_child_clear(pid);
    #[cfg(feature = "control")]
    asks::ended(cx, death.key, pid);
    upgrade::tell_counts(cx);
}

fn tell(cx: &mut Cx<'_>, message: &Message) {
    match message {
        Message::Reload(edition, news) => reload::hear(cx, *edition, news),
        Message::Upgrade(_, news) => upgrade::hear(cx, news),
        Message::CrashLoop { deaths, .. } => predecessor::ill(cx, *deaths),
        _ => {}
    }
    let now = cx.now();
    let Heap { role: Role::Parent(parent), settings, board, .. } = cx.heap() else { return };
    #[cfg(feature = "control")]
    if let Some(ledger) = &mut parent.ledger {
        ledger.heard(message);
    }
    say::say(parent, settings, board.as_mut(), message, now);
    #[cfg(feature = "control")]
    news::of_message(cx, message);
}

/// An asker by a signal does not listen.
#[cfg_attr(not(feature = "control"), expect(unused_variables, reason = "nobody listens"))]
fn answer(cx: &mut Cx<'_>, id: OrderId, verdict: Verdict) {
    log::debug!(target: "lenore::daemon", "order {} is {verdict}", id.0);
    #[cfg(feature = "control")]
    if let Some(order) = verdicts::answered(cx, id, verdict) {
        asks::await_reopening(cx, order);
    }
}

/// The state that a timer is an event for.
fn state_of(timer: Timer) -> &'static str {
    match timer {
        Timer::Maintain => "maintain",
        Timer::WeighQueue => "weigh_queue",
        Timer::EndHold => "end_hold",
        Timer::RetryForks => "retry_forks",
        Timer::Relieve => "relieve",
        Timer::LookAtQueue => "look_at_queue",
        Timer::HearAnswers => "hear_answers",
        Timer::WatchQueue => "watch_queue",
        Timer::Babysit => "babysit",
        Timer::LookAtChildren => "look_at_children",
        Timer::Grace => "grace",
        Timer::LameDuck => "lame_duck",
        Timer::StartLate => "start_late",
        Timer::LoadLate => "load_late",
        Timer::RollLate => "roll_late",
        Timer::Probation => "probation",
        Timer::Cut => "cut",
        Timer::Upgrade => "upgrade",
    }
}

fn state_for(watch: Watch) -> &'static str {
    match watch {
        Watch::Queue => "client_in_queue",
        Watch::Relief => "client_waits",
    }
}

/// How often the board is looked at again in a row.
const LOOKS: u32 = 3;

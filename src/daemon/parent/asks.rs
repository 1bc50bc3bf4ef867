//! Asks children for what only they know or can do, and hands their answers on: their sessions, their log level, their log file.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use log::LevelFilter;
use nix::sys::signal::Signal;

use crate::daemon::board::SlotIndex;
use crate::daemon::board::asks::LevelOrder;
use crate::daemon::board::doorbell::Answer;
use crate::daemon::heap::{Cx, Heap, Role};
use crate::daemon::machine::Key;
use crate::daemon::parent::asking::{Heard, Show, What};
use crate::daemon::parent::outside;
use crate::daemon::parent::role::Parent;
use crate::daemon::parent::verdicts;
use crate::daemon::processes::{ProcessState, look, send};
use crate::log_level;
use crate::name::Name;

/// The Daemon begins. What is asked of children keeps nothing alive.
pub(in crate::daemon) fn begin(cx: &mut Cx<'_>) {
    let me = cx.session();
    cx.core_mut().let_alarms_pass(me, Name::new(LATE));
}

/// A child is about to be forked into a slot: it is asked nothing that its predecessor was asked.
pub(super) fn prepare(cx: &mut Cx<'_>, key: Key) {
    if let Some(asks) = &cx.heap().asks {
        asks.wipe(SlotIndex::from(key));
    }
}

/// Asks a child to show its sessions. The answer comes by [`verdicts::shown`], also if the child gives none.
pub(super) fn show(cx: &mut Cx<'_>, order: u64, key: Key) {
    let now = age(cx);
    let Heap { role: Role::Parent(parent), asks: Some(asks), .. } = cx.heap() else { return };
    let number = parent.asking.show(order, key, now, PATIENCE);
    asks.ask_to_show(SlotIndex::from(key), number);
    wake(parent, key);
    arm(cx);
}

/// Sets the level of this process and of its children, or of one child alone, for ever or for a time. Who has followed comes by
/// [`verdicts::confirmed`].
pub(super) fn set_level(
    cx: &mut Cx<'_>,
    order: u64,
    level: Option<LevelFilter>,
    only: Option<Key>,
    lasts: Option<Duration>,
) {
    let now = age(cx);
    let until = lasts.map(|lasts| now.saturating_add(lasts));
    let Some(parent) = cx.heap().role.parent_mut() else { return };
    parent.levels.set(level, only, until);
    let (number, keys) = order_level(cx, level, only);
    let Some(parent) = cx.heap().role.parent_mut() else { return };
    parent.asking.begin_round(What::Level, number, order, keys, now + PATIENCE);
    heard(cx);
    arm(cx);
}

/// Tells this process and its children, or one child alone, what to log. Returns the number of the question, and which children were
/// asked.
fn order_level(cx: &mut Cx<'_>, level: Option<LevelFilter>, only: Option<Key>) -> (u32, Vec<Key>) {
    if only.is_none() {
        // Children that are forked from now on inherit it.
        log_level::set(level);
    }
    let Heap { role: Role::Parent(parent), asks, .. } = cx.heap() else { return (0, Vec::new()) };
    let keys = only.map_or_else(|| keys(parent), |key| vec![key]);
    let number = parent.asking.next_number();
    if let Some(asks) = asks {
        keys.iter().for_each(|key| asks.order_level(SlotIndex::from(*key), LevelOrder { number, level }));
        keys.iter().for_each(|key| wake(parent, *key));
    }
    (number, keys)
}

/// Goes back to the levels that were set before, where their time is up.
fn end_levels(cx: &mut Cx<'_>) {
    let now = age(cx);
    let Some(parent) = cx.heap().role.parent_mut() else { return };
    for (only, level) in parent.levels.end(now) {
        order_level(cx, level, only);
        match only {
            Some(key) => log::info!(target: "lenore::daemon", "log level of child {key} is set back"),
            None => log::info!(target: "lenore::daemon", "log level is set back"),
        }
    }
}

/// The log file is about to be opened again, here first: children say what has become of theirs.
pub(in crate::daemon) fn expect_reopening(cx: &mut Cx<'_>) {
    let Heap { role: Role::Parent(parent), asks: Some(asks), .. } = cx.heap() else { return };
    asks.expect_reopening(parent.asking.next_number());
}

/// Children were told to open their log file again. Who has done so comes by [`verdicts::confirmed`].
pub(super) fn await_reopening(cx: &mut Cx<'_>, order: u64) {
    let now = age(cx);
    let Heap { role: Role::Parent(parent), asks, .. } = cx.heap() else { return };
    let (keys, number) = (keys(parent), asks.as_ref().map_or(0, |asks| asks.reopening()));
    parent.asking.begin_round(What::Reopen, number, order, keys, now + PATIENCE);
    heard(cx);
}

/// A child has rung: takes what was answered, and looks who has done what.
pub(in crate::daemon) fn heard(cx: &mut Cx<'_>) {
    let answers = cx.heap().doorbell.as_ref().map(|doorbell| doorbell.answer()).unwrap_or_default();
    for answer in answers {
        take_answer(cx, answer);
    }
    let now = age(cx);
    let Heap { role: Role::Parent(parent), asks, .. } = cx.heap() else { return };
    if parent.asking.is_idle() {
        return;
    }
    let asks = asks.as_ref();
    let confirmed = parent.asking.hear(now, |what, number, key| {
        let Some(asks) = asks else { return Heard::Nothing };
        let slot = SlotIndex::from(key);
        match what {
            // A later order has taken its place, or this one is carried out.
            What::Level if asks.heard_level(slot) >= number => Heard::Done,
            What::Level => Heard::Nothing,
            What::Reopen => match asks.reopened(slot) {
                reopened if reopened.number < number => Heard::Nothing,
                reopened if reopened.has_failed => Heard::Failed,
                _ => Heard::Done,
            },
        }
    });
    confirmed.into_iter().for_each(|confirmed| verdicts::confirmed(cx, &confirmed));
    arm(cx);
}

/// The time of some question is up.
pub(in crate::daemon) fn late(cx: &mut Cx<'_>) {
    let now = age(cx);
    let Some(parent) = cx.heap().role.parent_mut() else { return };
    for show in parent.asking.late_shows(now) {
        give_up(cx, show);
    }
    end_levels(cx);
    heard(cx);
    arm(cx);
}

/// A child has ended: it answers nothing any more.
pub(super) fn ended(cx: &mut Cx<'_>, key: Key, pid: i32) {
    let Some(parent) = cx.heap().role.parent_mut() else { return };
    parent.levels.forget(key);
    if parent.asking.is_idle() {
        return;
    }
    for Show { order, key, .. } in parent.asking.ended(key) {
        let text = "the child has ended meanwhile\n".to_owned();
        verdicts::shown(cx, order, (key, pid), false, text);
    }
    heard(cx);
}

fn take_answer(cx: &mut Cx<'_>, answer: Answer) {
    let Answer { number, file } = answer;
    let Some(parent) = cx.heap().role.parent_mut() else { return };
    let shown = parent.asking.shown(number);
    let Some(key) = shown.first().map(|show| show.key) else { return };
    let pid = parent.pids.name(key);
    let (answered, text) = match read(file) {
        Ok(text) => (true, text),
        Err(error) => (false, format!("its answer can't be read: {error}\n")),
    };
    for Show { order, .. } in shown {
        verdicts::shown(cx, order, (key, pid), answered, text.clone());
    }
}

/// Reads what a child has written. From its beginning: the child has left the file at its end.
fn read(file: OwnedFd) -> std::io::Result<String> {
    use std::io::{Seek, SeekFrom};
    let mut file = File::from(file);
    if !file.metadata()?.is_file() {
        // A pipe, say, might never come to its end.
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A child has not answered in time: it is described from outside.
fn give_up(cx: &mut Cx<'_>, show: Show) {
    let Show { order, key, .. } = show;
    let now: SystemTime = cx.now();
    let Heap { role: Role::Parent(parent), asks, board, .. } = cx.heap() else { return };
    if let Some(asks) = asks {
        asks.forget_to_show(SlotIndex::from(key));
    }
    let Some(pid) = parent.pids.of(key) else { return };
    let slot = board.as_ref().and_then(|board| board.read(SlotIndex::from(key)).ok());
    let text = outside::describe(pid, slot, now);
    verdicts::shown(cx, order, (key, pid), false, text);
}

/// Has a child look at what it is asked. One that is stopped is left so, and looks when it is continued.
fn wake(parent: &Parent, key: Key) {
    if let Some(pid) = parent.pids.of(key).filter(|pid| look(*pid) != ProcessState::Stopped) {
        send(pid, Signal::SIGCONT);
    }
}

fn keys(parent: &Parent) -> Vec<Key> {
    parent.machine.table().children().iter().map(|child| child.key).collect()
}

/// Has another look taken when the time of a question is up.
pub(super) fn arm(cx: &mut Cx<'_>) {
    let now = age(cx);
    let Some(parent) = cx.heap().role.parent() else { return };
    if let Some(due) = parent.asking.next_due().into_iter().chain(parent.levels.next_due()).min() {
        cx.delay(LATE, due.saturating_sub(now), ());
    }
}

fn age(cx: &mut Cx<'_>) -> Duration {
    let now = cx.now();
    cx.heap().age(now)
}

const LATE: &str = "asks_late";

/// How long a child may take for an answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// How much of a child's answer is read.
const LONGEST: u64 = 4 << 20;

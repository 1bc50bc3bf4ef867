//! Upgrades, as far as the parent that has served so far carries them out: it starts its successor, hands over, and takes back.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::daemon::heap::Cx;
use crate::daemon::machine::{Attempt, UpgradeNews};
use crate::daemon::parent::candidate::Told;
use crate::daemon::parent::successor::{Estate, Successor, successor};
use crate::daemon::parent::upgrading::Upgrading;
use crate::daemon::parent::{manager, names};
use crate::daemon::processes::{descendants, kill_other, send};
use crate::handover;
use crate::kernel::KnownAs;

pub(super) fn upgrading<'a>(cx: &'a mut Cx<'_>) -> Option<&'a mut Upgrading> {
    cx.heap().role.parent_mut().map(|parent| &mut parent.upgrade)
}

pub(super) fn present<'a>(cx: &'a mut Cx<'_>) -> Option<&'a mut Successor> {
    upgrading(cx)?.successor.as_mut()
}

/// Starts a successor.
pub(super) fn start(cx: &mut Cx<'_>, attempt: Attempt) {
    if let Err(cause) = try_start(cx, attempt) {
        // Behind what is under way: the machine is told as of a fork that fails.
        cx.yield_("successor_failed", (attempt, cause));
    }
}

fn try_start(cx: &mut Cx<'_>, attempt: Attempt) -> std::result::Result<(), String> {
    let started = handover::start();
    let Some(upgrading) = upgrading(cx) else { return Ok(()) };
    upgrading.told = Told::default();
    let asked = upgrading.asked.take().map(|path| started.resolve(&path));
    let program = asked.or_else(|| started.program.clone());
    let program = program.ok_or("the path of this program is not known: name a program")?;
    let no_copy = |error: io::Error| format!("a descriptor can't be copied: {error}");
    let mut listeners = cx.core().copy_listeners().map_err(no_copy)?;
    listeners.extend(copy_of_status(cx).map_err(no_copy)?);
    let pid_file = cx.heap().process.pid_file.as_ref().map(|file| file.copy()).transpose().map_err(no_copy)?;
    let estate = Estate {
        program,
        directory: started.directory.clone(),
        arguments: started.arguments.clone(),
        listeners,
        pid_file,
    };
    let me = cx.session();
    let (successor, errand) =
        successor(me, attempt, estate).map_err(|error| format!("the channel can't be made: {error}"))?;
    let (channel, words) = (successor.channel.handle.clone(), successor.words.end.clone());
    if let Some(upgrading) = self::upgrading(cx) {
        upgrading.successor = Some(successor);
    }
    let watched = cx
        .select_read_weak(&channel, "successor_says", ())
        .and_then(|()| cx.select_read_weak(&words, "successor_writes", ()));
    watched.map_err(|error| format!("the channel can't be watched: {error}"))?;
    cx.core_mut().fork_for(me, errand);
    Ok(())
}

/// The successor takes the status listener over as well.
#[cfg(feature = "status")]
fn copy_of_status(cx: &mut Cx<'_>) -> io::Result<Option<(OwnedFd, KnownAs)>> {
    let visitors = cx.heap().role.parent().and_then(|parent| parent.visitors.as_deref());
    let Some(listener) = visitors.and_then(|visitors| visitors.listener.as_ref()) else { return Ok(None) };
    let known_as = KnownAs { name: Some("status".to_owned()), ..KnownAs::default() };
    Ok(Some((listener.try_clone()?.into(), known_as)))
}

#[cfg(not(feature = "status"))]
fn copy_of_status(_: &mut Cx<'_>) -> io::Result<Option<(OwnedFd, KnownAs)>> {
    Ok(None)
}

pub(super) fn note_last_words(cx: &mut Cx<'_>) {
    let Some(upgrading) = upgrading(cx) else { return };
    if let Some(successor) = &mut upgrading.successor {
        successor.words.take();
        upgrading.told.last_words = successor.words.text();
    }
}

pub(super) fn forget_successor(cx: &mut Cx<'_>) {
    let Some(successor) = upgrading(cx).and_then(|upgrading| upgrading.successor.take()) else { return };
    cx.select_read_clear(&successor.channel.handle);
    cx.select_read_clear(&successor.words.end);
    cx.delay_clear(LATE);
}

/// Ends the successor. A successor that has greeted finishes what it has in hand. A program that has not greeted is killed: it may
/// not be one that can take over.
pub(super) fn end_successor(cx: &mut Cx<'_>) {
    note_last_words(cx);
    let grace = cx.heap().settings.shutdown_timeout + MORE_GRACE;
    let Some(successor) = present(cx) else { return };
    match (successor.give_up(), successor.has_greeted) {
        (None, _) => forget_successor(cx),
        (Some(_), true) => {
            successor.channel.say("end");
            successor.ends_by = Some(Instant::now() + grace);
            arm(cx);
        }
        (Some(pid), false) => kill(pid),
    }
}

/// Has a successor that was told to end cut what it has in hand. One that has not even said that it ends gets little time.
pub(super) fn hurry_successor(cx: &mut Cx<'_>) {
    let Some(successor) = present(cx).filter(|successor| successor.is_ending) else { return };
    let Some(pid) = successor.pid.get() else { return };
    if !successor.says_it_ends {
        let soon = Instant::now() + HURRY;
        successor.ends_by = Some(successor.ends_by.map_or(soon, |ends_by| ends_by.min(soon)));
    }
    send(pid, Signal::SIGTERM);
    arm(cx);
}

/// A successor that was told to end does so: its children have the time that this process's own have.
pub(super) fn successor_ends(cx: &mut Cx<'_>) {
    let grace = cx.heap().settings.shutdown_timeout + MORE_GRACE;
    let Some(successor) = present(cx).filter(|successor| successor.ends_by.is_some()) else { return };
    if !std::mem::replace(&mut successor.says_it_ends, true) {
        successor.ends_by = Some(Instant::now() + grace);
        arm(cx);
    }
}

/// Goes on to wait for the end of a successor, also when all timers were stopped.
pub(super) fn arm(cx: &mut Cx<'_>) {
    if let Some(ends_by) = present(cx).and_then(|successor| successor.ends_by) {
        cx.delay(LATE, ends_by.saturating_duration_since(Instant::now()), ());
    }
}

/// Tells whether a successor was told to end, and has not ended yet.
pub(super) fn waits_for_an_end(cx: &mut Cx<'_>) -> bool {
    present(cx).is_some_and(|successor| successor.is_ending && successor.pid.get().is_some())
}

/// Kills a process and what it has forked.
pub(super) fn kill(pid: i32) {
    // Looked up before: afterwards they are others' children.
    let others = descendants(pid);
    send(pid, Signal::SIGKILL);
    others.into_iter().for_each(kill_other);
}

/// The session stops: a successor that was told to end gets no more time.
pub(in crate::daemon) fn last_resort(cx: &mut Cx<'_>) {
    if let Some(pid) = present(cx).filter(|successor| successor.is_ending).and_then(|successor| successor.pid.get()) {
        kill(pid);
        names::settle(cx);
    }
}

/// The successor is ready. It gets the names, when the service manager knows who it is.
pub(super) fn hand_over(cx: &mut Cx<'_>) {
    let Some(pid) = present(cx).and_then(|successor| successor.pid.get()) else { return };
    manager::name_main_process(cx, pid, "manager_knows");
}

/// Tells the successor what was counted here, so that it goes on to be counted.
pub(super) fn tell_counts(cx: &mut Cx<'_>) {
    #[cfg(feature = "control")]
    {
        use crate::daemon::parent::picture;
        use crate::daemon::view::Carried;
        if !upgrading(cx).is_some_and(|upgrading| upgrading.is_handed_over && upgrading.successor.is_some()) {
            return;
        }
        let Some(mut snapshot) = picture::take(cx) else { return };
        // Of those that have ended all of it. Of the others what was last seen, without asking the system again for each.
        snapshot.counters.cpu_by_slot = picture::processor_time_by_slot(cx);
        if let Ok(text) = serde_json::to_string(&Carried::of(snapshot))
            && let Some(successor) = present(cx)
        {
            successor.channel.say(&format!("counted {text}"));
        }
    }
    #[cfg(not(feature = "control"))]
    let _ = cx;
}

/// The names are this process's again.
pub(super) fn take_back(cx: &mut Cx<'_>) {
    let Some(upgrading) = upgrading(cx) else { return };
    if std::mem::take(&mut upgrading.is_handed_over) {
        names::take_back(cx);
    }
    let pid = cx.pid().cast_signed();
    manager::name_main_process(cx, pid, "named_again");
    manager::unmute(cx);
}

/// Accepts nothing, or accepts again.
pub(super) fn rest(cx: &mut Cx<'_>, rests: bool) {
    let me = cx.session();
    cx.core_mut().hold_listeners(rests, me);
}

/// Says a line to a successor that has the names.
pub(super) fn tell_successor(cx: &mut Cx<'_>, line: &str) {
    if let Some(upgrading) = upgrading(cx).filter(|upgrading| upgrading.is_handed_over)
        && let Some(successor) = &mut upgrading.successor
    {
        successor.channel.say(line);
    }
}

/// The successor has everything for good.
pub(super) fn leave_all(cx: &mut Cx<'_>) {
    names::leave(cx);
    manager::forget(cx);
    tell_successor(cx, "draining");
    // It is the system's from now on, and nothing here waits for it.
    let Some(pid) = present(cx).and_then(|successor| successor.pid.get()) else { return };
    cx.sig_child_clear(pid);
    cx.core_mut().let_outlive(pid);
}

/// The machine has news of an upgrade.
pub(super) fn hear(cx: &mut Cx<'_>, news: &UpgradeNews) {
    match news {
        UpgradeNews::Begun => manager::begin_change(cx, "upgrading"),
        UpgradeNews::Rejected { .. } => manager::end_change(cx, "upgrade rejected"),
        UpgradeNews::RolledBack { .. } => {
            // Said already if the names had changed hands.
            manager::end_change(cx, "upgrade rolled back");
            manager::note_verdict(cx, "upgrade rolled back");
        }
        _ => {}
    }
    #[cfg(feature = "control")]
    {
        let now = cx.now();
        if let Some(upgrading) = upgrading(cx) {
            upgrading.count(news, now);
        }
    }
}

/// The alarm for a successor that does not end.
const LATE: &str = "successor_late";

/// How much longer than its children a successor may take to end.
const MORE_GRACE: Duration = Duration::from_secs(2);

/// How long a successor may take to say that it ends if nobody wants to wait.
const HURRY: Duration = Duration::from_secs(1);

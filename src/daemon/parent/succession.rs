//! What a parent hears of its successor, told to the machine: what it says and writes, and its end.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use crate::daemon::heap::{Cx, Heap, Role};
use crate::daemon::machine::{Attempt, End, Input, Order, Timer, UpgradeFault};
use crate::daemon::parent::channel::word_of;
use crate::daemon::parent::drive::{drive, order};
use crate::daemon::parent::manager;
use crate::daemon::parent::names;
use crate::daemon::parent::upgrade::{
    forget_successor, kill, note_last_words, present, successor_ends, tell_counts, upgrading,
};
use crate::daemon::processes::{ProcessState, look};
use crate::error::Result;
use crate::handover;

/// Somebody wants an upgrade to this program. Returns why that is not possible, as far as the machine does not know it.
pub(in crate::daemon) fn ask(cx: &mut Cx<'_>, program: Option<PathBuf>) -> Option<String> {
    let refused = why_not(cx);
    if refused.is_none()
        && let Some(upgrading) = upgrading(cx).filter(|upgrading| upgrading.successor.is_none())
    {
        upgrading.asked = program;
    }
    refused
}

fn why_not(cx: &mut Cx<'_>) -> Option<String> {
    if cx.pid() == 1 {
        return Some("process 1 can't be upgraded: the container would end with it".to_owned());
    }
    let Heap { role: Role::Parent(parent), process, .. } = cx.heap() else {
        return Some("this process is not the Daemon's parent".to_owned());
    };
    if let Some(predecessor) = &parent.upgrade.predecessor {
        return Some(format!("process {}, from which this one has taken over, has not ended yet", predecessor.pid));
    }
    if let Some(pid) = parent.upgrade.successor.as_ref().filter(|last| last.is_ending).and_then(|last| last.pid.get()) {
        return Some(format!("process {pid} of the last upgrade has not ended yet"));
    }
    if process.has_jail() {
        return Some(
            "an upgrade needs root for chroot, and this process can't leave its own root directory".to_owned(),
        );
    }
    names::why_not(cx)
}

/// Notes why an upgrade has failed, unless a reason is known already, and tells the machine.
fn fail(cx: &mut Cx<'_>, attempt: Attempt, fault: UpgradeFault, cause: String) {
    if let Some(upgrading) = upgrading(cx)
        && upgrading.told.cause.is_empty()
    {
        upgrading.told.cause = cause;
    }
    // What the application has failed of is not the successor's fault, and nobody hears of it here.
    let _ = drive(cx, Input::SuccessorFailed(attempt, fault));
}

/// The successor could not be forked.
pub(in crate::daemon) fn successor_failed(cx: &mut Cx<'_>) -> Result {
    let (attempt, cause) = (*cx.arg::<Attempt>(0)?, cx.take::<String>(1)?);
    fail(cx, attempt, UpgradeFault::NotStarted, cause);
    Ok(())
}

/// The successor has said something.
pub(in crate::daemon) fn successor_says(cx: &mut Cx<'_>) -> Result {
    let Some(successor) = present(cx) else { return Ok(()) };
    let attempt = successor.attempt;
    let (lines, is_over) = successor.channel.hear();
    if is_over {
        let handle = successor.channel.handle.clone();
        cx.select_read_clear(&handle);
    }
    for line in lines {
        if line == "ending" {
            successor_ends(cx);
        }
        if present(cx).is_some_and(|successor| successor.attempt == attempt && !successor.is_ending) {
            hear_line(cx, attempt, &line)?;
        }
    }
    Ok(())
}

fn hear_line(cx: &mut Cx<'_>, attempt: Attempt, line: &str) -> Result {
    let (word, rest) = word_of(line);
    let has_greeted = present(cx).is_some_and(|successor| successor.has_greeted);
    match word {
        "greeting" if word_of(rest).0.parse() == Ok(handover::VERSION) => {
            if let Some(successor) = present(cx) {
                successor.has_greeted = true;
            }
            return drive(cx, Input::SuccessorGreeted(attempt));
        }
        "cannot" if !has_greeted => fail(cx, attempt, UpgradeFault::NotStarted, rest.to_owned()),
        _ if !has_greeted => {
            let cause = format!("it says {line:?}, and this program speaks version {}", handover::VERSION);
            fail(cx, attempt, UpgradeFault::WrongGreeting, cause);
        }
        "ready" => return drive(cx, Input::SuccessorReady(attempt)),
        "taken" => return drive(cx, Input::SuccessorTookOver(attempt)),
        "failed" => fail(cx, attempt, UpgradeFault::NotTaken, rest.to_owned()),
        "ill" => fail(cx, attempt, UpgradeFault::CrashLoop, rest.to_owned()),
        "stopping" => return drive(cx, Input::SuccessorStops(attempt)),
        "finish" => return order(cx, Order::Finish),
        // A later version may say more.
        _ => {}
    }
    Ok(())
}

/// The successor has written to its standard error.
pub(in crate::daemon) fn successor_writes(cx: &mut Cx<'_>) {
    let Some(successor) = present(cx) else { return };
    if !successor.words.take() {
        let end = successor.words.end.clone();
        cx.select_read_clear(&end);
    }
}

/// The successor has ended.
pub(in crate::daemon) fn successor_ended(cx: &mut Cx<'_>) -> Result {
    let (status, attempt) = (*cx.arg::<ExitStatus>(2)?, *cx.arg::<Attempt>(3)?);
    // Whatever it has said before is heard first.
    successor_says(cx)?;
    let Some(successor) = present(cx).filter(|successor| successor.attempt == attempt) else { return Ok(()) };
    // It was reaped: nothing is sent to it any more.
    let pid = successor.pid.take();
    let is_ending = successor.is_ending;
    note_last_words(cx);
    let end = match status.signal() {
        Some(signal) => End::Signaled { signal, has_core: status.core_dumped() },
        None => End::Exited(status.code().unwrap_or_default()),
    };
    if is_ending {
        log::info!(target: "lenore::daemon", "successor has ended: pid={} {status}", pid.unwrap_or_default());
    } else {
        fail(cx, attempt, UpgradeFault::Died(end), String::new());
    }
    // It may have taken names after they were taken back.
    if names::settle(cx) {
        // What it has said of itself is said anew.
        drive(cx, Input::Bell)?;
    }
    if let Some(pid) = pid {
        names::sweep(cx, pid);
    }
    forget_successor(cx);
    Ok(())
}

/// The successor has not ended although it was told to.
pub(in crate::daemon) fn successor_late(cx: &mut Cx<'_>) {
    if let Some(pid) = present(cx).filter(|successor| successor.is_ending).and_then(|successor| successor.pid.get()) {
        log::warn!(target: "lenore::daemon", "successor has not ended in time and is killed: pid={pid}");
        kill(pid);
    }
}

/// The service manager knows, or does not answer, or there is none.
pub(in crate::daemon) fn manager_knows(cx: &mut Cx<'_>) {
    let is_wanted = present(cx).is_some_and(|successor| !successor.is_ending);
    if !is_wanted {
        return;
    }
    names::give_away(cx);
    manager::mute(cx);
    if let Some(upgrading) = upgrading(cx) {
        upgrading.is_handed_over = true;
    }
    tell_counts(cx);
    tell_orders(cx);
    if let Some(successor) = present(cx) {
        successor.channel.say("go");
    }
}

/// Tells the successor of the orders that were given here: it is asked about them from now on.
fn tell_orders(cx: &mut Cx<'_>) {
    let Some(parent) = cx.heap().role.parent_mut() else { return };
    let Some(successor) = &mut parent.upgrade.successor else { return };
    successor.channel.say(&format!("orders {}", parent.orders));
    #[cfg(feature = "control")]
    if let Some(control) = &parent.control {
        control.orders.lines().into_iter().for_each(|line| successor.channel.say(&format!("verdict {line}")));
        control.orders.unfinished().into_iter().for_each(|number| successor.channel.say(&format!("pending {number}")));
    }
}

/// The time for the present stage of an upgrade is up. Not before all is heard that has happened, and not because this process was
/// late itself.
pub(in crate::daemon) fn due(cx: &mut Cx<'_>) -> Result {
    successor_says(cx)?;
    let greeting_limit = cx.heap().settings.greeting_limit;
    if let Some(successor) = present(cx).filter(|successor| !successor.is_ending) {
        let had = successor.forked_at.get().map_or(Duration::ZERO, |forked_at| forked_at.elapsed());
        let has_ended =
            successor.pid.get().is_some_and(|pid| matches!(look(pid), ProcessState::Exited | ProcessState::Gone));
        let left = if has_ended { SOON } else { greeting_limit.saturating_sub(had) };
        if has_ended || !successor.has_greeted && !left.is_zero() {
            cx.delay("upgrade", left.max(SOON), ());
            return Ok(());
        }
    }
    drive(cx, Input::Due(Timer::Upgrade))
}

/// The news of an end are on the way.
const SOON: Duration = Duration::from_millis(5);

//! The babysitter: looks at every child now and then, and deals with those that are out of bounds.

use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;

use crate::daemon::board::{SlotSnapshot, epoch_ms};
use crate::daemon::foreign;
use crate::daemon::heap::{Cx, Heap, Role};
use crate::daemon::machine::{Sight, Step, judge};
use crate::daemon::parent::deaths;
use crate::daemon::parent::pool;
use crate::daemon::parent::table::{Orders, Row};
use crate::daemon::parent::usage::Told;
use crate::daemon::processes::{Look, look, send};
use crate::daemon::settings::{Forking, Settings};
use crate::error::Result;

/// Sets the first round, and the first look in between.
pub(super) fn begin(cx: &mut Cx<'_>) {
    if cx.heap().settings.forking != Forking::None {
        let (round, look) = (cx.heap().settings.babysit, cx.heap().settings.look_every());
        cx.delay("babysit", round, ());
        cx.delay("look_at_children", look, ());
    }
    if cx.heap().settings.forking == Forking::Pre
        && cx.heap().settings.rules.memory_limit.is_some()
        && let Some(parent) = cx.heap().role.parent_mut()
    {
        parent.told.check_memory();
    }
}

/// Between two rounds: looks who runs, so that no limit counts time in which nobody did.
pub(in crate::daemon) fn look_at_children(cx: &mut Cx<'_>) {
    if cx.heap().supervises() {
        let (now, next) = (cx.now(), cx.heap().settings.look_every());
        cx.delay("look_at_children", next, ());
        measure(cx.heap(), now);
        pool::end_crash_loop_if_over(cx.heap(), now);
    }
}

/// Adds to the time for which each child has been at what it is doing, or stopped.
fn measure(heap: &mut Heap, now: SystemTime) {
    let age = heap.age(now);
    let Some(parent) = heap.role.parent_mut() else { return };
    let ran = parent.run_clock.advance(age);
    for child in &mut parent.children {
        let is_stopped = look(child.pid) == Look::Stopped;
        let runs = if is_stopped { Duration::ZERO } else { ran };
        child.stopped_for = if is_stopped { child.stopped_for + ran } else { Duration::ZERO };
        if let Some(slot) = heap.board.as_ref().and_then(|board| board.read(child.slot).ok()) {
            child.stint = child.stint.seen(slot.since_ms, epoch_ms(now), runs);
        }
    }
}

/// One round.
pub(in crate::daemon) fn round(cx: &mut Cx<'_>) -> Result {
    if !cx.heap().supervises() {
        return Ok(());
    }
    let (now, next) = (cx.now(), cx.heap().settings.babysit);
    cx.delay("babysit", next, ());
    measure(cx.heap(), now);
    let Heap { role: Role::Parent(parent), settings, board, .. } = cx.heap() else { return Ok(()) };
    parent.oom_kills.forget_old();
    let mut has_stopped = false;
    for child in &mut parent.children {
        match look(child.pid) {
            Look::Gone | Look::Exited => {}
            look => {
                let slot = board.as_ref().and_then(|board| board.read(child.slot).ok());
                has_stopped |= examine(child, slot, settings, &mut parent.told, look == Look::Stopped, now);
            }
        }
    }
    bury_vanished(cx)?;
    if has_stopped {
        pool::wake_idle(cx.heap());
    }
    // A pool at rest does not say so by itself.
    pool::forget_growth(cx.heap());
    // Also a bell that a child has raised and was stopped before it could ring is answered by this.
    pool::maintain(cx)
}

/// Takes those off the table, foreign ones included, that other code has waited for: nobody will tell of their end. Those
/// that have ended and are still there are told of soon.
pub(super) fn bury_vanished(cx: &mut Cx<'_>) -> Result {
    // Its SIGCHLD may have been lost, or be under way: looking once more costs nothing.
    cx.core_mut().children.look = true;
    let (heap, core) = cx.parts();
    // What the kernel has reaped in this very slice is as gone, but the event that says how is in the queue.
    let has_vanished = |pid| core.awaits_child(pid) && look(pid) == Look::Gone;
    let Some(parent) = heap.role.parent() else { return Ok(()) };
    let gone = parent.children.iter().filter(|child| has_vanished(child.pid));
    let gone: Vec<(i32, u32)> = gone.map(|child| (child.pid, child.generation)).collect();
    for (pid, generation) in gone {
        // Its number may mean another process by now: nothing is sent to it, nothing waited for.
        cx.sig_child_clear(pid);
        deaths::bury(cx, pid, generation, None)?;
    }
    foreign::forget_vanished(cx);
    Ok(())
}

/// Examines one child and takes the next step if it needs one. Returns whether it was found stopped for the first time.
fn examine(
    child: &mut Row,
    slot: Option<SlotSnapshot>,
    settings: &Settings,
    told: &mut Told,
    is_stopped: bool,
    now: SystemTime,
) -> bool {
    let (rules, forking, babysit) = (settings.rules, settings.forking, settings.babysit);
    let in_status = child.stint.lasted;
    let was_stopped = std::mem::replace(&mut child.is_stopped, is_stopped);
    let doing = slot.map_or(child.meter.doing, |slot| (slot.requests, slot.status.is_busy()));
    let age = now.duration_since(child.forked_at).unwrap_or_default();
    child.meter = told.read_meter(child.pid, child.meter, doing, age, in_status);
    let is_unready = slot.is_some_and(|slot| slot.status.is_starting());
    if forking == Forking::Pre && is_unready && in_status >= babysit && !child.is_told_unready {
        child.is_told_unready = true;
        log::warn!(
            target: "lenore::daemon",
            "child {} in slot {} gets no requests: for {:.1} s it has not reported Wait, as the state for daemon_child should",
            child.pid, child.slot, in_status.as_secs_f64()
        );
    }
    let sight = Sight {
        status: slot.map(|slot| slot.status),
        in_status,
        cpu: child.meter.used,
        // In the round before, and not only while this process was stopped as well.
        is_stopped: was_stopped && is_stopped && child.stopped_for >= babysit / 2,
    };
    let before = child.escalation;
    child.escalation = judge(&sight, &rules, before);
    match child.escalation {
        Some(escalation) => {
            let signal = match escalation.step {
                Step::Interrupt => Signal::SIGINT,
                Step::Terminate => Signal::SIGTERM,
                Step::Kill => Signal::SIGKILL,
            };
            let (pid, slot, why) = (child.pid, child.slot, escalation.why);
            log::warn!(
                target: "lenore::daemon",
                "child is rogue: pid={pid} slot={slot} why={why} status={} for={:.1} cpu={:.1}: {signal} is sent",
                sight.status.map_or('?', |status| status.letter()),
                in_status.as_secs_f64(),
                sight.cpu.as_secs_f64(),
            );
            send(pid, signal);
            if is_stopped && signal != Signal::SIGKILL {
                send(pid, Signal::SIGCONT);
            }
        }
        None if before.is_some() => {
            log::info!(target: "lenore::daemon", "child {} in slot {} has calmed down", child.pid, child.slot);
        }
        None => {}
    }
    if forking == Forking::Pre {
        weigh(child, rules.memory_limit, told);
    }
    is_stopped && !was_stopped
}

/// Marks a child that has grown too large; it is replaced when it can be.
fn weigh(child: &mut Row, limit: Option<u64>, told: &mut Told) {
    if child.orders != Orders::Stay {
        return;
    }
    if let (Some(limit), Some(resident)) = (limit, limit.and_then(|_| told.resident(child.pid)))
        && resident > limit
    {
        log::info!(
            target: "lenore::daemon",
            "child {} in slot {} has {resident} octets resident, more than memory_limit ({limit}), and will be replaced",
            child.pid, child.slot
        );
        child.orders = Orders::BeReplaced;
    }
}

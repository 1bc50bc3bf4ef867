//! Taking over from the process that has served so far. Until that says so, this one has a pool but no names, and no service manager.

use nix::unistd::dup2_stderr;

#[cfg(feature = "control")]
use crate::daemon::control::{Orders, read_outcome};
use crate::daemon::heap::Cx;
use crate::daemon::machine::{Input, Order, Shutdown};
use crate::daemon::parent::channel::word_of;
use crate::daemon::parent::drive::{drive, order};
use crate::daemon::parent::manager;
use crate::daemon::parent::names;
use crate::daemon::parent::predecessor::{predecessor, say};
use crate::daemon::parent::reload;
use crate::error::Result;

/// The predecessor has said something, or is gone.
pub(in crate::daemon) fn says(cx: &mut Cx<'_>) -> Result {
    let Some(predecessor) = predecessor(cx) else { return Ok(()) };
    let (lines, is_gone) = predecessor.channel.hear();
    // It has not waited for this process, which was stopped perhaps: what comes before that is out of date.
    if lines.iter().any(|line| line == "end") {
        withdraw(cx)?;
    }
    for line in lines {
        let (word, rest) = word_of(&line);
        match word {
            "go" => take_over(cx)?,
            "counted" => count(cx, rest),
            "verdict" => note_verdict(cx, rest),
            "orders" => follow_orders(cx, rest),
            "pending" => expect_verdict(cx, rest),
            "draining" => {
                if let Some(predecessor) = super::predecessor::predecessor(cx) {
                    predecessor.is_draining = true;
                }
            }
            // A later version may say more.
            _ => {}
        }
    }
    if is_gone { gone(cx) } else { Ok(()) }
}

fn count(cx: &mut Cx<'_>, text: &str) {
    #[cfg(feature = "control")]
    match serde_json::from_str(text) {
        Ok(carried) => {
            if let Some(parent) = cx.heap().role.parent_mut() {
                parent.upgrade.carried = Some(Box::new(carried));
            }
        }
        Err(error) => log::warn!(target: "lenore::daemon", "counters of the predecessor can't be read: {error}"),
    }
    #[cfg(not(feature = "control"))]
    let _ = (cx, text);
}

/// Orders that the predecessor was given are asked about here from now on. Those that are given here have other numbers.
fn follow_orders(cx: &mut Cx<'_>, number: &str) {
    if let (Ok(number), Some(parent)) = (number.parse(), cx.heap().role.parent_mut()) {
        parent.orders = number;
    }
}

/// The predecessor still carries out an order.
fn expect_verdict(cx: &mut Cx<'_>, number: &str) {
    #[cfg(feature = "control")]
    if let (Ok(number), Some(orders)) = (number.parse(), orders(cx)) {
        orders.expect(number);
    }
    #[cfg(not(feature = "control"))]
    let _ = (cx, number);
}

#[cfg(feature = "control")]
fn orders<'a>(cx: &'a mut Cx<'_>) -> Option<&'a mut Orders> {
    Some(&mut cx.heap().role.parent_mut()?.control.as_deref_mut()?.orders)
}

/// The predecessor has carried out an order, or has not.
fn note_verdict(cx: &mut Cx<'_>, text: &str) {
    #[cfg(feature = "control")]
    if let (Some((number, outcome)), Some(orders)) = (read_outcome(text), orders(cx)) {
        orders.note(number, outcome);
    }
    #[cfg(not(feature = "control"))]
    let _ = (cx, text);
}

/// This process serves from now on.
fn take_over(cx: &mut Cx<'_>) -> Result {
    let Some(predecessor) = predecessor(cx).filter(|predecessor| !predecessor.has_handed_over) else { return Ok(()) };
    if predecessor.is_withdrawn {
        return Ok(());
    }
    predecessor.has_handed_over = true;
    let (pid, stderr) = (predecessor.pid, predecessor.stderr.take());
    if let Some(stderr) = stderr {
        // Both are open.
        let _ = dup2_stderr(&stderr);
    }
    if let Some(Err(error)) = cx.heap().process.log_file.as_ref().map(|log_file| log_file.redirect()) {
        log::error!(target: "lenore::daemon", "standard output and standard error can't be redirected: {error}");
    }
    reload::end_trial(cx);
    if let Err(error) = names::take(cx) {
        log::error!(target: "lenore::daemon", "this process can't take over from process {pid}: {error}");
        say(cx, format_args!("failed {error}"));
        return withdraw(cx);
    }
    log::info!(target: "lenore::daemon", "this process has taken over from process {pid}");
    // A manager that was told by the predecessor who is to serve is told by this process that it does.
    let manager = super::predecessor::predecessor(cx).and_then(|predecessor| predecessor.manager.take());
    if let Some(parent) = cx.heap().role.parent_mut() {
        parent.manager = manager;
    }
    manager::begin(cx);
    manager::ready(cx);
    say(cx, format_args!("taken"));
    Ok(())
}

/// The predecessor goes on in place of this process, which finishes what it has in hand.
fn withdraw(cx: &mut Cx<'_>) -> Result {
    let Some(predecessor) = predecessor(cx) else { return Ok(()) };
    predecessor.is_withdrawn = true;
    predecessor.channel.say("ending");
    log::info!(target: "lenore::daemon", "process {} goes on in place of this one", predecessor.pid);
    names::give_back(cx);
    order(cx, Order::Stop(Shutdown::Graceful))
}

/// The predecessor has ended. If it has not handed over before, no other process serves, and no launcher waits for this process.
fn gone(cx: &mut Cx<'_>) -> Result {
    take_over(cx)?;
    drive(cx, Input::LauncherGone { has_acknowledged: true })?;
    let Some(predecessor) = cx.heap().role.parent_mut().and_then(|parent| parent.upgrade.predecessor.take()) else {
        return Ok(());
    };
    cx.select_read_clear(&predecessor.channel.handle);
    #[cfg(feature = "control")]
    if let Some(orders) = orders(cx) {
        orders.expect_nothing();
    }
    if !predecessor.is_withdrawn {
        names::clean_up(cx);
    }
    log::info!(target: "lenore::daemon", "predecessor has ended: pid={}", predecessor.pid);
    Ok(())
}

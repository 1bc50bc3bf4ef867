//! What a parent tells the process that has served so far.

use std::fmt;

use crate::daemon::heap::Cx;
use crate::daemon::machine::Phase;
use crate::daemon::parent::upgrading::Predecessor;
use crate::error::Result;

pub(super) fn predecessor<'a>(cx: &'a mut Cx<'_>) -> Option<&'a mut Predecessor> {
    cx.heap().role.parent_mut()?.upgrade.predecessor.as_mut()
}

/// The session begins. Weakly: it keeps nothing alive.
pub(in crate::daemon) fn begin(cx: &mut Cx<'_>) -> Result {
    let Some(handle) = predecessor(cx).map(|predecessor| predecessor.channel.handle.clone()) else { return Ok(()) };
    cx.select_read_weak(&handle, "predecessor_says", ())?;
    Ok(())
}

pub(super) fn say(cx: &mut Cx<'_>, line: fmt::Arguments<'_>) -> bool {
    let Some(predecessor) = predecessor(cx) else { return false };
    predecessor.channel.say(&line.to_string());
    true
}

/// Something has happened. An operator who ends this process does not want the predecessor to go on.
pub(super) fn look(cx: &mut Cx<'_>) {
    let Some(parent) = cx.heap().role.parent_mut() else { return };
    let ends = parent.machine.phase() == Phase::ShuttingDown || parent.machine.ends_gently();
    let is_wanted = ends && parent.failure.is_none();
    let Some(predecessor) = &mut parent.upgrade.predecessor else { return };
    if is_wanted && !predecessor.is_withdrawn && !std::mem::replace(&mut predecessor.knows_of_end, true) {
        predecessor.channel.say("stopping");
    }
}

/// Children die as soon as they are forked.
pub(super) fn ill(cx: &mut Cx<'_>, deaths: u32) {
    say(cx, format_args!("ill {deaths} in a row"));
}

/// An operator wants the predecessor to end now. Returns whether there is one.
#[cfg(feature = "control")]
pub(in crate::daemon) fn finish(cx: &mut Cx<'_>) -> bool {
    predecessor(cx).is_some_and(|predecessor| predecessor.has_handed_over) && say(cx, format_args!("finish"))
}

/// The pool is ready: the predecessor waits for that as a launcher does. Returns whether there is one.
pub(super) fn tell_ready(cx: &mut Cx<'_>) -> bool {
    log::debug!(target: "lenore::daemon", "this process is ready to take over");
    say(cx, format_args!("ready"))
}

//! A child that its parent has asked for something: to show its sessions, to log at another level, or to say whether it has reopened
//! its log file.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::daemon::board::asks::Reopened;
use crate::daemon::heap::Cx;
use crate::daemon::status::Peek;
use crate::error::{Error, Result};
use crate::log_level;

/// Woken by its parent: looks what it is asked.
pub(in crate::daemon) fn look(cx: &mut Cx<'_>) {
    let heap = cx.heap();
    let (Some(child), Some(asks)) = (heap.role.child(), &heap.asks) else { return };
    let slot = child.slot;
    if let Some(order) = asks.new_level(slot) {
        log_level::set(order.level);
        asks.hear_level(slot, order.number);
        ring(cx);
    }
    let question = cx.heap().asks.as_ref().and_then(|asks| asks.takes_show(slot));
    if let Some(number) = question
        && let Err(error) = show(cx, number)
    {
        // The parent says that this child has not answered. That is no reason to end.
        log::warn!(target: "lenore::daemon", "child {} can't show its sessions: {error}", cx.pid());
    }
}

/// Before the log file is opened again: the number of the order, 0 if nobody wants to know.
pub(in crate::daemon) fn reopening(cx: &mut Cx<'_>) -> u32 {
    cx.heap().asks.as_ref().map_or(0, |asks| asks.reopening())
}

/// The log file was opened again, or could not be.
pub(in crate::daemon) fn reopened(cx: &mut Cx<'_>, number: u32, has_failed: bool) {
    let heap = cx.heap();
    if let (Some(child), Some(asks), 1..) = (heap.role.child(), &heap.asks, number) {
        asks.note_reopened(child.slot, Reopened { number, has_failed });
        ring(cx);
    }
}

fn ring(cx: &mut Cx<'_>) {
    if let Some(doorbell) = &cx.heap().doorbell {
        doorbell.ring();
    }
}

/// Writes down what this process does, and hands that to the parent.
fn show(cx: &mut Cx<'_>, number: u32) -> Result<(), Error> {
    let (kernel, pid) = (cx.peek(), cx.pid());
    let peek = Peek { kernel, daemon: cx.heap().status(pid), verbose: true };
    let file = in_memory(&peek.to_string())?;
    send(cx, (number, file, TRIES));
    Ok(())
}

/// A file that only its owners can find. The parent reads it at its leisure, and no process waits for another.
fn in_memory(text: &str) -> Result<File, Error> {
    let file = memfd_create("lenore-peek", MFdFlags::MFD_CLOEXEC)
        .map_err(|errno| Error::os("memfd_create", "for what the parent has asked", errno))?;
    let mut file = File::from(file);
    file.write_all(text.as_bytes()).map_err(|error| Error::os("write", "for what the parent has asked", error))?;
    Ok(file)
}

/// Tries again to hand the answer over, ARG0.
pub(in crate::daemon) fn send_again(cx: &mut Cx<'_>) -> Result {
    let answer = cx.take::<(u32, File, u32)>(0)?;
    send(cx, answer);
    Ok(())
}

/// Hands an answer over. The doorbell has no room while many ring, and the parent does not wait long for the answer.
fn send(cx: &mut Cx<'_>, (number, file, tries): (u32, File, u32)) {
    let Some(doorbell) = &cx.heap().doorbell else { return };
    if doorbell.send_answer(number, &file).is_err() && tries > 0 {
        cx.delay_add("answer_again", TRY_AGAIN, ((number, file, tries - 1),));
    }
}

const TRY_AGAIN: Duration = Duration::from_millis(20);

/// As many tries as fit into the time that the parent waits.
const TRIES: u32 = 50;

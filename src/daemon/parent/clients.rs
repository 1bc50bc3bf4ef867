//! Clients of the control socket as the kernel sees them: what they are watched for, and when they are let go.

use std::time::{Duration, Instant};

use crate::daemon::control::{Accepted, Client, Control, Place};
use crate::daemon::heap::Cx;
use crate::daemon::parent::picture;
use crate::kernel::Handle;
use crate::name::Name;

/// Begins to listen, if there is a control socket. Weakly: it keeps nothing alive.
pub(in crate::daemon) fn begin(cx: &mut Cx<'_>) {
    if control(cx).is_none() {
        return;
    }
    picture::begin(cx);
    let me = cx.session();
    cx.core_mut().let_alarms_pass(me, Name::new(TICK));
    watch_listener(cx);
    arm(cx);
}

pub(super) fn control<'a>(cx: &'a mut Cx<'_>) -> Option<&'a mut Control> {
    cx.heap().role.parent_mut()?.control.as_deref_mut()
}

pub(super) fn client<'a>(cx: &'a mut Cx<'_>, number: u64) -> Option<&'a mut Client> {
    control(cx)?.clients.get_mut(&number)
}

/// Nothing is left to be told: everything is let go. Those who watch hear that this is the end.
pub(in crate::daemon) fn let_go(cx: &mut Cx<'_>) {
    let control = cx.heap().role.parent_mut().and_then(|parent| parent.control.take());
    let control = control.map(|mut control| {
        control.say_goodbye();
        control
    });
    for handle in control.into_iter().flat_map(|control| control.into_handles()) {
        forget(cx, &handle);
    }
    let _ = cx.delay_clear(TICK);
}

fn forget(cx: &mut Cx<'_>, handle: &Handle) {
    cx.select_read_clear(handle);
    cx.select_write_clear(handle);
}

fn watch_listener(cx: &mut Cx<'_>) {
    let Some(control) = control(cx) else { return };
    let handle = control.socket.handle().clone();
    control.rests_until = None;
    if let Err(error) = cx.select_read_weak(&handle, "control_accept", ()) {
        log::error!(target: "lenore::daemon", "control: nobody can connect for now: {error}");
        rest(cx, REST);
    }
}

/// Leaves the listener alone for a while, in which clients wait in its queue.
fn rest(cx: &mut Cx<'_>, pause: Duration) {
    let Some(control) = control(cx) else { return };
    control.rests_until = Some(Instant::now() + pause);
    let handle = control.socket.handle().clone();
    cx.select_read_clear(&handle);
}

/// Clients wait: takes some of them.
pub(in crate::daemon) fn accept(cx: &mut Cx<'_>) {
    for _ in 0..ACCEPTS {
        let (now, Some(control)) = (Instant::now(), control(cx)) else { return };
        match control.accept(now) {
            Accepted::Client(number) => {
                // Most have sent what they want, and those that have hung up already need not be watched.
                if let Some(client) = control.clients.get_mut(&number) {
                    (0..2).for_each(|_| client.fill());
                }
                settle(cx, number);
            }
            Accepted::Refused => {}
            Accepted::None => break,
            Accepted::TooFast(pause) => {
                if control.flood.tells(now) {
                    log::warn!(target: "lenore::daemon", "control: more than 500 clients a second connect, and the rest have to wait");
                }
                rest(cx, pause);
                break;
            }
            Accepted::Failed(errno) => {
                if control.shortage.tells(now) {
                    log::warn!(target: "lenore::daemon", "control: no client can be accepted for now: {}", errno.desc());
                }
                // It would be ready all the time.
                rest(cx, REST);
                break;
            }
        }
        let evicted = self::control(cx).map(|control| std::mem::take(&mut control.evicted)).unwrap_or_default();
        evicted.iter().for_each(|client| forget(cx, &client.handle));
    }
    arm(cx);
}

/// Has the kernel watch a client for what is of interest now.
fn watch(cx: &mut Cx<'_>, number: u64) {
    let Some(client) = client(cx, number) else { return };
    let (reads, writes) = (client.wants_to_read(), client.unwritten() > 0);
    let (was_read, was_written) = (client.is_read, client.is_written);
    (client.is_read, client.is_written) = (reads, writes);
    let handle = client.handle.clone();
    let mut outcome = Ok(());
    match (was_read, reads) {
        (false, true) => outcome = cx.select_read_weak(&handle, "control_read", (number,)),
        (true, false) => cx.select_read_clear(&handle),
        _ => {}
    }
    match (was_written, writes) {
        (false, true) => {
            outcome = outcome.and_then(|()| cx.core_mut().select_write_weak(&handle, "control_write", (number,)));
        }
        (true, false) => cx.select_write_clear(&handle),
        _ => {}
    }
    if let Err(error) = outcome {
        log::warn!(target: "lenore::daemon", "control: a client can't be watched and is let go: {error}");
        drop_client(cx, number);
    }
}

fn drop_client(cx: &mut Cx<'_>, number: u64) {
    let Some(client) = control(cx).and_then(|control| control.clients.remove(&number)) else { return };
    forget(cx, &client.handle);
}

/// Writes to a client what there is for it, and lets it go if that was the last. What it has sent meanwhile has its turn later.
pub(super) fn settle(cx: &mut Cx<'_>, number: u64) {
    let Some(client) = client(cx, number) else { return };
    client.flush(Instant::now());
    client.hurry_if_gone();
    if client.is_over() {
        return drop_client(cx, number);
    }
    let (has_line, is_slow) = (client.has_line(), client.unwritten() > 0);
    watch(cx, number);
    if has_line {
        cx.yield_("control_more", (number,));
    }
    if is_slow {
        arm(cx);
    }
}

/// Has another look taken when something is due.
pub(super) fn arm(cx: &mut Cx<'_>) {
    let (is_over, babysit) = (cx.heap().is_over, cx.heap().settings.babysit);
    let Some(control) = control(cx) else { return };
    let now = Instant::now();
    let of_clients = control.next_due(now);
    let of_listener = match control.rests_until {
        Some(until) => Some(until.saturating_duration_since(now)),
        None => (!is_over).then_some(babysit),
    };
    if let Some(due) = of_clients.into_iter().chain(of_listener).min() {
        // Not for each of many that come at a time.
        cx.delay(TICK, due.max(SHORTEST), ());
    }
}

/// Looks after clients that do nothing, and whether the path is still there.
pub(in crate::daemon) fn tick(cx: &mut Cx<'_>) {
    let Some(control) = control(cx) else { return };
    let now = Instant::now();
    let is_rested = control.rests_until.is_some_and(|until| until <= now);
    let overdue = control.overdue(now);
    overdue.into_iter().for_each(|number| drop_client(cx, number));
    if is_rested {
        watch_listener(cx);
    }
    look_at_path(cx);
    arm(cx);
}

/// Makes the socket again if its path was taken away.
fn look_at_path(cx: &mut Cx<'_>) {
    let Some(control) = control(cx) else { return };
    match control.socket.place() {
        Place::Unknown => return,
        Place::Ours => {
            control.is_loss_told = false;
            return;
        }
        Place::Lost => {}
    }
    // Those who have found it before.
    accept(cx);
    let Some(control) = self::control(cx) else { return };
    let (old, path) = (control.socket.handle().clone(), control.socket.path().to_owned());
    match control.socket.make_again() {
        Ok(()) => {
            log::warn!(target: "lenore::daemon", "control: the socket was gone and is made again: path={}", path.display());
            cx.select_read_clear(&old);
            watch_listener(cx);
        }
        Err(error) => {
            if !std::mem::replace(&mut control.is_loss_told, true) {
                log::warn!(target: "lenore::daemon", "control: the socket is gone and can't be made again: {error}");
            }
        }
    }
}

const TICK: &str = "control_tick";

/// How many clients are taken in one turn.
const ACCEPTS: usize = 8;

/// How long the listener is left alone when no client can be accepted.
const REST: Duration = Duration::from_secs(1);

/// The shortest time between two looks.
const SHORTEST: Duration = Duration::from_millis(10);

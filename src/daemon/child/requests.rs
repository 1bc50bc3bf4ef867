//! The child's side: taking its place, and reporting what it does.

use nix::unistd::Pid;

use crate::daemon::announce::{announce, broadcast};
use crate::daemon::birth::Birth;
use crate::daemon::board::{Report, SlotIndex, Status, epoch_ms};
use crate::daemon::child::ending::{note_listeners, shutdown};
use crate::daemon::child::orphan;
use crate::daemon::child::role::Child;
use crate::daemon::child::slot::{own_status, set_limit, set_status};
use crate::daemon::child::time;
use crate::daemon::child::words;
use crate::daemon::heap::{Cx, Heap, Role};
use crate::daemon::listening;
use crate::daemon::reports::log_mistake;
use crate::daemon::settings::Forking;
use crate::error::Result;
use crate::inject::{self, Point};

/// The first thing that happens in a new child, apart from leaving to the parent what is the parent's.
pub(in crate::daemon) fn begin(cx: &mut Cx<'_>) -> Result {
    inject::reach(Point::ChildBegin)?;
    let Birth { key, is_long, share, is_probe, config, stderr } = cx.take(0)?;
    let slot = SlotIndex::from(key);
    let payload = std::mem::take(cx.args()).skip(1);
    let (pid, now) = (Pid::from_raw(cx.pid() as i32), epoch_ms(cx.now()));
    let heap = cx.heap();
    // Only what was just forked can become a child.
    let Role::Bystander(bystander) = &mut heap.role else { return Ok(()) };
    heap.role = Role::Child(Child::new(std::mem::take(bystander), slot, share));
    if let Some(board) = &heap.board {
        board.claim(slot, pid, now);
    }
    if let (Some(own), Some(config)) = (&mut heap.config, config) {
        own.settle(config);
    }
    #[cfg(feature = "control")]
    heap.metrics.become_child(slot.get());
    if let Some(stderr) = stderr {
        words::begin(cx, stderr);
    }
    inject::reach(Point::ChildClaimed)?;
    note_listeners(cx);
    orphan::watch_parent(cx);
    inject::reach(Point::ChildWatching)?;
    let heap = cx.heap();
    if let Some(end) = heap.doorbell.as_ref().map(|doorbell| doorbell.childs_end().clone()) {
        // Weakly: a child ends when its own sessions do.
        cx.select_read_weak(&end, "parent_gone", ())?;
    }
    if cx.heap().is_over {
        // The fork was asked for before the parent's shutdown, which this process has inherited but must do itself.
        cx.heap().is_over = false;
        return shutdown(cx);
    }
    if cx.heap().settings.forking != Forking::Pre {
        listening::let_go(cx.heap());
    }
    match cx.heap().settings.forking {
        Forking::Pre => {
            broadcast(cx, "daemon_child");
            cx.yield_("first_wait", ());
        }
        _ if is_probe => {
            announce(cx, "daemon_probe", ())?;
            cx.yield_("probed", ());
        }
        _ => {
            begin_request(cx, if is_long { Status::Long } else { Status::Req });
            announce(cx, "daemon_child", payload)?;
        }
    }
    Ok(())
}

/// Behind `daemon_probe` in the queue: this child has shown that it can start, and has nothing else to do.
pub(in crate::daemon) fn probed(cx: &mut Cx<'_>) -> Result {
    set_status(cx, Status::Wait);
    shutdown(cx)
}

/// Behind `daemon_child` in the queue: the application is set up.
pub(in crate::daemon) fn first_wait(cx: &mut Cx<'_>) {
    if own_status(cx.heap()) == Some(Status::Forked) {
        set_status(cx, Status::FirstWait);
    }
}

/// The application says whom it serves.
pub(in crate::daemon) fn set_peer_label(cx: &mut Cx<'_>) -> Result {
    let label: String = cx.take(0)?;
    let heap = cx.heap();
    if let (Some(child), Some(board)) = (heap.role.child(), &heap.board) {
        board.set_peer_label(child.slot, &label);
    }
    Ok(())
}

/// The application says what this child is doing.
pub(in crate::daemon) fn report(cx: &mut Cx<'_>, report: Report) -> Result {
    match (cx.heap().settings.forking, report) {
        (_, Report::Req | Report::Long) => begin_request(cx, report.status()),
        (_, Report::Keep) => keep(cx),
        (Forking::Pre, _) => end_request(cx)?,
        _ => {
            set_status(cx, Status::Wait);
            shutdown(cx)?;
        }
    }
    Ok(())
}

/// The application begins a request, perhaps while it has others in hand. Returns whether it may take another one meanwhile.
pub(in crate::daemon) fn begin_one_of_several(cx: &mut Cx<'_>) -> bool {
    let now = epoch_ms(cx.now());
    let heap = cx.heap();
    match (heap.role.child(), &heap.board, own_status(heap)) {
        (Some(child), Some(board), Some(status)) if status.is_taken() => {
            board.count_another(child.slot, now);
            set_limit(&heap.settings, status);
            if status == Status::Keep {
                set_status(cx, Status::Req);
            }
        }
        _ => begin_request(cx, Status::Req),
    }
    !is_retiring(cx.heap()) && !has_had_enough(cx.heap())
}

/// Requests begin and end. What `request_timeout` goes by begins anew, and a client that was kept has something in hand.
pub(in crate::daemon) fn progress(cx: &mut Cx<'_>) {
    let now = epoch_ms(cx.now());
    let heap = cx.heap();
    match (heap.role.child(), &heap.board, own_status(heap)) {
        (Some(_), _, Some(Status::Keep)) => set_status(cx, Status::Req),
        (Some(child), Some(board), Some(status)) if status.is_taken() => {
            board.begin_anew(child.slot, now);
            set_limit(&heap.settings, status);
        }
        _ => return,
    }
    time::keep_time(cx);
}

fn begin_request(cx: &mut Cx<'_>, status: Status) {
    inject::pass(Point::ChildRequest);
    let heap = cx.heap();
    // A child that keeps a client counts the client's next request as the same one.
    let was_taken = own_status(heap).is_some_and(Status::is_taken);
    if let (Some(child), Some(board), false) = (heap.role.child(), &heap.board, was_taken) {
        board.count_request(child.slot);
    }
    set_status(cx, status);
    time::keep_time(cx);
}

/// The child has nothing in hand, and keeps its client.
fn keep(cx: &mut Cx<'_>) {
    match own_status(cx.heap()) {
        Some(status) if status.is_busy() => set_status(cx, Status::Keep),
        Some(Status::Keep) => {}
        _ => {
            let caller = cx.caller();
            log_mistake(
                cx,
                log::Level::Warn,
                "keep",
                format_args!("status keep reported without a Req or Long before it (at {caller}) does nothing"),
            );
        }
    }
    // It was asked to go after the request in hand. Not before the state that reports this has returned: it may have
    // something to put.
    if is_retiring(cx.heap()) {
        cx.yield_("release", ());
    }
}

/// A pre-forked child is ready for the next request, or has had its last.
fn end_request(cx: &mut Cx<'_>) -> Result {
    let before = own_status(cx.heap());
    if before.is_some_and(Status::is_starting) {
        inject::reach(Point::ChildReady)?;
        // What it does not listen on by now is another edition's.
        listening::let_go(cx.heap());
        note_listeners(cx);
    }
    if is_retiring(cx.heap()) || has_had_enough(cx.heap()) {
        return shutdown(cx);
    }
    if before == Some(Status::Wait) {
        let caller = cx.caller();
        log_mistake(
            cx,
            log::Level::Warn,
            "wait",
            format_args!(
                "status wait reported twice in a row (at {caller}): a Wait or Done without a Req or Long before it does nothing"
            ),
        );
        return Ok(());
    }
    set_status(cx, Status::Wait);
    broadcast(cx, "daemon_accept");
    Ok(())
}

/// Tells whether the child has handled as many requests as it may.
fn has_had_enough(heap: &Heap) -> bool {
    let (Some(child), Some(board)) = (heap.role.child(), &heap.board) else { return false };
    child.share.is_some_and(|share| board.read(child.slot).is_ok_and(|own| own.requests >= share))
}

/// Tells whether the child was asked to go after the request in hand.
fn is_retiring(heap: &Heap) -> bool {
    heap.role.child().is_some_and(|child| child.is_retiring)
}

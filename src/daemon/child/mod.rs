//! The child's side: taking its place, reporting what it does, going when it is told to.

pub(super) mod orphan;

use nix::unistd::Pid;

use crate::daemon::announce::{announce, broadcast};
use crate::daemon::board::epoch_ms;
use crate::daemon::board::{Report, Ring, SlotIndex, Status};
use crate::daemon::error::DaemonError;
use crate::daemon::machine::Phase;
use crate::daemon::parent::pool;
use crate::daemon::parent::relief;
use crate::daemon::parent::shutdown;
use crate::daemon::session::{Cx, Heap, Role};
use crate::daemon::settings::Forking;
use crate::error::Result;
use crate::reply::Return;

/// The first thing that happens in a new child, apart from leaving to the parent what is the parent's.
pub(super) fn begin(cx: &mut Cx<'_>) -> Result {
    let slot = *cx.arg::<SlotIndex>(0)?;
    let (is_long, share) = (*cx.arg::<bool>(1)?, *cx.arg::<Option<u64>>(2)?);
    let payload = std::mem::take(cx.args()).skip(3);
    let (pid, now) = (Pid::from_raw(cx.pid() as i32), epoch_ms(cx.now()));
    let heap = cx.heap();
    heap.role = Role::Child { slot, is_retiring: false };
    heap.share = share;
    if let Some(board) = &heap.board {
        board.claim(slot, pid, now);
    }
    note_listeners(cx);
    orphan::watch_parent(cx);
    let heap = cx.heap();
    if let Some(end) = heap.doorbell.as_ref().map(|doorbell| doorbell.childs_end().clone()) {
        // Weakly: a child ends when its own sessions do.
        cx.select_read_weak(&end, "parent_gone", ())?;
    }
    if cx.heap().is_shutting_down() {
        // The fork was asked for before the parent's shutdown, which this process has inherited but must do itself.
        cx.heap().phase = Phase::Running;
        return shutdown::shutdown(cx);
    }
    match cx.heap().settings.forking {
        Forking::Pre => {
            broadcast(cx, "daemon_child");
            cx.yield_("first_wait", ());
        }
        _ => {
            begin_request(cx, if is_long { Status::Long } else { Status::Req });
            announce(cx, "daemon_child", payload)?;
        }
    }
    Ok(())
}

/// Behind `daemon_child` in the queue: the application is set up.
pub(super) fn first_wait(cx: &mut Cx<'_>) {
    if own_status(cx.heap()) == Some(Status::Forked) {
        set_status(cx, Status::FirstWait);
    }
}

/// The application says whom it serves.
pub(super) fn set_peer_label(cx: &mut Cx<'_>) -> Result {
    let label: String = cx.take(0)?;
    let heap = cx.heap();
    if let (Role::Child { slot, .. }, Some(board)) = (heap.role, &heap.board) {
        board.set_peer_label(slot, &label);
    }
    Ok(())
}

/// Ends this child, after the request in hand if there is one. From here on it accepts nothing.
pub(super) fn go_when_done(cx: &mut Cx<'_>) -> Result {
    match own_status(cx.heap()) {
        Some(status) if status.is_taken() => {
            if let Role::Child { is_retiring, .. } = &mut cx.heap().role {
                *is_retiring = true;
            }
            // One that serves several requests at a time would never be done if it went on accepting.
            let told = announce(cx, "daemon_pause", ());
            stop_listening(cx);
            told.and_then(|()| relief::release(cx))
        }
        _ => shutdown::shutdown(cx),
    }
}

/// The Daemon has ended in this child, and the application has been told so.
pub(super) fn ended(cx: &mut Cx<'_>) {
    stop_listening(cx);
    orphan::ended(cx.heap());
}

/// Notes which listeners are the service's. One that the application opens during a request, for that request's own
/// connections, is not.
fn note_listeners(cx: &mut Cx<'_>) {
    let listeners = cx.core().sources.listeners();
    orphan::note_listeners(listeners.iter().filter_map(|key| Some(cx.core().sources.source(*key)?.fd())));
    cx.heap().listeners = listeners;
}

/// Closes the service's listeners, which the application may have forgotten or merely paused: as long as one process has
/// such a socket, clients are let into its queue, and no other program can have its address.
fn stop_listening(cx: &mut Cx<'_>) {
    for key in std::mem::take(&mut cx.heap().listeners) {
        cx.core_mut().close_listener(key);
    }
}

/// The application says what it is doing.
pub(super) fn update_status(cx: &mut Cx<'_>) -> Result<Return<Result<(), DaemonError>>> {
    let report = match read_report(cx) {
        Ok(report) => report,
        Err(error) => return refuse(cx, error),
    };
    let forking = cx.heap().settings.forking;
    let role = cx.heap().role;
    match (forking, role, report) {
        (Forking::None, ..) => {}
        _ if cx.heap().is_shutting_down() => {}
        (Forking::Post, Role::Parent, Report::Req | Report::Long) => {
            let payload = std::mem::take(cx.args()).skip(1);
            pool::take_request(cx, report == Report::Long, payload)?;
        }
        (_, Role::Parent, _) => {
            let role = if forking == Forking::Pre { "the parent of a pre-forking server" } else { "the parent" };
            return refuse(cx, DaemonError::WrongProcess { report: report.to_string(), role });
        }
        (_, Role::Bystander, _) => {
            let role = "a process that the Daemon did not fork";
            return refuse(cx, DaemonError::WrongProcess { report: report.to_string(), role });
        }
        (_, Role::Child { .. }, Report::Req | Report::Long) => begin_request(cx, report.status()),
        (_, Role::Child { is_retiring, .. }, Report::Keep) => keep(cx, is_retiring),
        (Forking::Pre, Role::Child { is_retiring, .. }, _) => end_request(cx, is_retiring)?,
        (_, Role::Child { .. }, _) => {
            set_status(cx, Status::Wait);
            shutdown::shutdown(cx)?;
        }
    }
    Ok(Return(Ok(())))
}

/// The application begins a request, perhaps while it has others in hand.
pub(super) fn begin_one_of_several(cx: &mut Cx<'_>) -> Result<Return<Result<bool, DaemonError>>> {
    let now = epoch_ms(cx.now());
    let heap = cx.heap();
    if heap.settings.forking == Forking::None || heap.is_shutting_down() {
        return Ok(Return(Ok(!heap.is_shutting_down())));
    }
    let role = match heap.role {
        Role::Parent => "the parent",
        Role::Bystander => "a process that the Daemon did not fork",
        Role::Child { slot, is_retiring } => {
            match (&heap.board, own_status(heap)) {
                (Some(board), Some(status)) if status.is_taken() => {
                    board.count_another(slot, now);
                    orphan::set_limit(&heap.settings, status);
                    if status == Status::Keep {
                        set_status(cx, Status::Req);
                    }
                }
                _ => begin_request(cx, Status::Req),
            }
            return Ok(Return(Ok(!is_retiring && !has_had_enough(cx.heap()))));
        }
    };
    let error = DaemonError::WrongProcess { report: Report::Req.to_string(), role };
    let caller = cx.caller();
    log_mistake(cx, log::Level::Error, "refused", format_args!("{error} (reported at {caller})"));
    Ok(Return(Err(error)))
}

/// A `call` gets the error as its value; whoever posted the event finds it in the log.
fn refuse(cx: &mut Cx<'_>, error: DaemonError) -> Result<Return<Result<(), DaemonError>>> {
    let what = if matches!(error, DaemonError::UnknownStatus(_)) { "unknown" } else { "refused" };
    let caller = cx.caller();
    log_mistake(cx, log::Level::Error, what, format_args!("{error} (reported at {caller})"));
    Ok(Return(Err(error)))
}

/// Logs a mistake of the application. Each request makes it again, so that what comes from the same place later is for those who
/// debug. `what` tells the mistakes of one place apart.
fn log_mistake(cx: &mut Cx<'_>, level: log::Level, what: &'static str, text: std::fmt::Arguments<'_>) {
    let mistake = (what, cx.caller());
    let mistakes = &mut cx.heap().mistakes;
    if mistakes.contains(&mistake) {
        log::debug!(target: "lenore::daemon", "{text}");
    } else {
        mistakes.push(mistake);
        log::log!(target: "lenore::daemon", level, "{text}; this process logs the next ones from there at debug level");
    }
}

/// Reads ARG0, which may be a [`Report`] or its word.
fn read_report(cx: &mut Cx<'_>) -> Result<Report, DaemonError> {
    let word = if let Ok(report) = cx.arg::<Report>(0) {
        return Ok(*report);
    } else if let Ok(word) = cx.arg::<&'static str>(0) {
        (*word).to_owned()
    } else if let Ok(word) = cx.arg::<String>(0) {
        word.clone()
    } else {
        let found = cx.args().type_name(0).unwrap_or("nothing");
        return Err(DaemonError::UnknownStatus(format!("an argument of type {found}")));
    };
    word.parse().map_err(|_| DaemonError::UnknownStatus(word))
}

fn begin_request(cx: &mut Cx<'_>, status: Status) {
    let heap = cx.heap();
    // The next request of a client that was kept is no other client's.
    let was_taken = own_status(heap).is_some_and(Status::is_taken);
    if let (Role::Child { slot, .. }, Some(board), false) = (heap.role, &heap.board, was_taken) {
        board.count_request(slot);
    }
    set_status(cx, status);
    orphan::keep_time(cx);
}

/// The child has nothing in hand, and keeps its client.
fn keep(cx: &mut Cx<'_>, is_retiring: bool) {
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
    if is_retiring {
        cx.yield_("release", ());
    }
}

/// A pre-forked child is ready for the next request, or has had its last.
fn end_request(cx: &mut Cx<'_>, is_retiring: bool) -> Result {
    let before = own_status(cx.heap());
    if before.is_some_and(Status::is_starting) {
        note_listeners(cx);
    }
    if is_retiring || has_had_enough(cx.heap()) {
        return shutdown::shutdown(cx);
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
    let (Role::Child { slot, .. }, Some(board), Some(share)) = (heap.role, &heap.board, heap.share) else {
        return false;
    };
    board.read(slot).is_ok_and(|own| own.requests >= share)
}

pub(super) fn own_status(heap: &Heap) -> Option<Status> {
    match (heap.role, &heap.board) {
        (Role::Child { slot, .. }, Some(board)) => board.status(slot),
        _ => None,
    }
}

/// Writes this child's slot, and rings if that is news to the parent.
pub(super) fn set_status(cx: &mut Cx<'_>, status: Status) {
    let now = epoch_ms(cx.now());
    let heap = cx.heap();
    let (Role::Child { slot, .. }, Some(board)) = (heap.role, &heap.board) else { return };
    if board.status(slot) != Some(status) {
        orphan::set_limit(&heap.settings, status);
    }
    let ring = board.set_status(slot, status, now);
    let is_news = match heap.settings.forking {
        Forking::Pre => ring == Ring::Yes,
        // Its parent goes by who is alive, and hears of that from the system. It answers no bell, so another may have rung it.
        _ => status == Status::Keep && board.is_full(),
    };
    if let (true, Some(doorbell)) = (is_news, &heap.doorbell) {
        doorbell.ring();
    }
}

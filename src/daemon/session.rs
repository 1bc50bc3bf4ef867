//! The Daemon session: its states, and which role a state is for.

use std::any::Any;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::daemon::announce::broadcast;
use crate::daemon::board::Report;
use crate::daemon::board::doorbell::Doorbell;
use crate::daemon::child;
use crate::daemon::child::orphan;
use crate::daemon::config::Config;
use crate::daemon::ending::{self, KEPT_ALIVE};
use crate::daemon::error::DaemonError;
use crate::daemon::foreign;
use crate::daemon::heap::{Cx, Heap, Role};
use crate::daemon::listening;
use crate::daemon::machine::{Grace, Input, Order, Shutdown, Timer, Watch};
#[cfg(feature = "control")]
use crate::daemon::metrics;
#[cfg(feature = "control")]
use crate::daemon::parent::asks;
#[cfg(feature = "control")]
use crate::daemon::parent::clients;
use crate::daemon::parent::drive::{drive, let_operators_go, order};
use crate::daemon::parent::ending as parent_ending;
use crate::daemon::parent::events;
use crate::daemon::parent::launcher;
use crate::daemon::parent::manager;
use crate::daemon::parent::reload as parent_reload;
use crate::daemon::parent::scouting;
#[cfg(feature = "status")]
use crate::daemon::parent::status_listener;
use crate::daemon::parent::store;
#[cfg(feature = "control")]
use crate::daemon::parent::{glance, measures, picture, steer};
use crate::daemon::parent::{predecessor, succession, taking_over, upgrade as parent_upgrade};
use crate::daemon::reports::{read_report, refuse};
use crate::daemon::settings::Forking;
use crate::daemon::status::{DaemonStatus, Peek};
use crate::error::{Error, Result};
use crate::inject::{self, Point};
#[cfg(feature = "control")]
use crate::kernel::SourceKey;
use crate::kernel::{AsKernel, SessionId, ignore_unwatched, was_ignored};
use crate::name::Name;
use crate::reply::Return;
use crate::session::Session;

/// Creates the session.
pub(super) fn spawn<K: AsKernel>(heap: Heap, kernel: &mut K) -> Result<SessionId, Error> {
    let session = Session::new(heap);
    #[cfg(feature = "control")]
    let session = session
        .state("snapshot", |cx| Return(picture::take(cx)))
        .state("accepted", accepted)
        .state("control_accept", clients::accept)
        .state("control_read", steer::read)
        .state("control_write", steer::write)
        .state("control_more", steer::more)
        .state("control_tick", steer::tick)
        .state("answer_again", child::asked::send_again)
        .state("asks_late", asks::late)
        .state("turn_ends", glance::turn_ends);
    #[cfg(feature = "status")]
    let session = session
        .state("status_accept", status_listener::accept)
        .state("status_request", status_listener::request)
        .state("status_flushed", status_listener::flushed)
        .state("status_gone", status_listener::gone)
        .state("status_idle", status_listener::close_idle)
        .state("status_leave", status_listener::leave)
        .state("status_tick", status_listener::tick);
    session
        .state("_start", start)
        .state("begin", begin)
        .state("fork_first_children", fork_first_children)
        .state("update_status", update_status)
        .state("begin_request", begin_request)
        .state("request_failed", request_failed)
        .state("failures_are_told", failures_are_told)
        .state("progress", child::requests::progress)
        .state("status", |cx| Return(status(cx)))
        .state("peek", peek_and_log)
        .state("look", |cx| Return(status_and_peek(cx)))
        .state("foreign_child", foreign_child)
        .state("foreign_child_reaped", foreign_child_reaped)
        .state("shutdown", shut_down)
        .state("signalled", signalled)
        .state("terminated", terminated)
        .state("graceful_shutdown", shut_down_gracefully)
        .state("grace", look_at_grace)
        .state("lame_duck", |cx| drive(cx, Input::Due(Timer::LameDuck)))
        .state("what_is_left", ending::what_is_left)
        .state("hup", hup)
        .state("reopen", reopen)
        .state("ready", |cx| drive(cx, Input::Started))
        .state("ready_soon", events::ready_soon)
        .state("launched", events::launched)
        .state("manager_tick", manager::tick)
        .state("listeners_changed", store::tell)
        .state("keep_listeners", store::tell)
        .state("main_process_named", manager::main_process_named)
        .state("reload", reload)
        .state("edition_adopted", parent_reload::adopted)
        .state("scout", scouting::read)
        .state("scout_says", parent_reload::scout_says)
        .state("scout_ended", scouting::scout_ended)
        .state("scout_failed", scouting::scout_failed)
        .state("child_says", parent_reload::child_says)
        .state("load_late", |cx| drive(cx, Input::Due(Timer::LoadLate)))
        .state("roll_late", |cx| drive(cx, Input::Due(Timer::RollLate)))
        .state("probation", |cx| drive(cx, Input::Due(Timer::Probation)))
        .state("cut", |cx| drive(cx, Input::Due(Timer::Cut)))
        .state("begin_upgrade", begin_upgrade)
        .state("successor_says", succession::successor_says)
        .state("successor_writes", succession::successor_writes)
        .state("successor_ended", succession::successor_ended)
        .state("successor_failed", succession::successor_failed)
        .state("successor_late", succession::successor_late)
        .state("manager_knows", succession::manager_knows)
        .state("named_again", |_| ())
        .state("predecessor_says", taking_over::says)
        .state("upgrade", succession::due)
        .state("start_late", |cx| drive(cx, Input::Due(Timer::StartLate)))
        .state("launcher_answered", events::launcher_answered)
        .state("forked_by_kernel", leave_to_parent)
        .state("bell", bell)
        .state("maintain", |cx| drive(cx, Input::Due(Timer::Maintain)))
        .state("weigh_queue", |cx| drive(cx, Input::Due(Timer::WeighQueue)))
        .state("end_hold", |cx| drive(cx, Input::Due(Timer::EndHold)))
        .state("client_in_queue", |cx| drive(cx, Input::Client(Watch::Queue)))
        .state("look_at_queue", |cx| drive(cx, Input::Due(Timer::LookAtQueue)))
        .state("hear_answers", |cx| drive(cx, Input::Due(Timer::HearAnswers)))
        .state("watch_queue", |cx| drive(cx, Input::Due(Timer::WatchQueue)))
        .state("serves", serves)
        .state("grace_of_clients", grace_of_clients)
        .state("retry_forks", |cx| drive(cx, Input::Due(Timer::RetryForks)))
        .state("client_waits", |cx| drive(cx, Input::Client(Watch::Relief)))
        .state("relieve", |cx| drive(cx, Input::Due(Timer::Relieve)))
        .state("release", child::release::release)
        .state("forked", events::forked)
        .state("reaped", events::reaped)
        .state("babysit", |cx| drive(cx, Input::Due(Timer::Babysit)))
        .state("look_at_children", |cx| drive(cx, Input::Due(Timer::LookAtChildren)))
        .state("continued", continued)
        .state("stranger_reaped", |_| ())
        .state("grow", grow)
        .state("shrink", shrink)
        .state("_stop", stop)
        .state("begin_child", child::requests::begin)
        .state("first_wait", child::requests::first_wait)
        .state("probed", child::requests::probed)
        .state("words_over", child::words::end)
        .state("config", config)
        .state("addresses", |cx| {
            let addresses = cx.heap().config.as_ref().map(|config| config.addresses().to_vec());
            Return(addresses.unwrap_or_default())
        })
        .state("whose_process", let_go_unless_child)
        .state("set_peer_label", child::requests::set_peer_label)
        .state("parent_gone", orphan::parent_gone)
        .spawn(kernel)
}

fn start(cx: &mut Cx<'_>) -> Result {
    if cx.heap().settings.forking != Forking::None {
        cx.core_mut().expect_children();
    }
    let alias = Name::new(&cx.heap().settings.alias);
    cx.alias_set(alias)?;
    // Made once: each child takes it when it ends.
    cx.heap().ended_alias = Some(Name::new(&format!("{alias} (ended, {})", cx.session())));
    // Held from here on, and not by the alias: that alone would not keep the program from being idle.
    let me = cx.session();
    #[cfg(feature = "control")]
    metrics::enter(me, &cx.heap().metrics);
    cx.refcount_increment(me, KEPT_ALIVE)?;
    cx.sig("TERM", "terminated");
    cx.sig("INT", "signalled");
    cx.sig("shutdown", "shutdown");
    cx.sig("QUIT", "graceful_shutdown");
    cx.sig("HUP", "hup");
    // Under nohup it is to live on without its terminal.
    let is_on_terminal = cx.core().has_terminal() && cx.heap().process.log_file.is_none();
    cx.heap().ends_on_hup = is_on_terminal && !was_ignored(Signal::SIGHUP);
    cx.sig("FORKED", "forked_by_kernel");
    if cx.heap().settings.forking != Forking::None {
        orphan::prepare();
        cx.sig("CONT", "continued");
        // From the system only without a controlling terminal: with one they stop a job that uses it in the background.
        cx.sig("TTIN", "grow");
        cx.sig("TTOU", "shrink");
    }
    if cx.pid() == 1 {
        // The first process of a container inherits all orphans, and no other process reaps them.
        cx.sig("CHLD", "stranger_reaped");
    }
    let (takes, lame_duck) = (cx.heap().settings.shutdown_timeout, cx.heap().settings.lame_duck);
    if cx.pid() == 1 || !lame_duck.is_zero() {
        let (most, enough) = (takes.as_secs_f64(), takes.as_secs() + 2);
        log::info!(
            target: "lenore::daemon",
            "shutdown takes up to {most} s: send KILL later than that, for example terminationGracePeriodSeconds={enough}"
        );
    }
    if let Some(end) = cx.heap().doorbell.as_ref().and_then(Doorbell::parents_end).cloned() {
        cx.select_read(&end, "bell", ())?;
    }
    #[cfg(feature = "control")]
    if cx.heap().board.as_ref().is_some_and(|board| board.is_shown()) {
        picture::begin(cx);
    }
    #[cfg(feature = "control")]
    clients::begin(cx);
    #[cfg(feature = "control")]
    asks::begin(cx);
    #[cfg(feature = "status")]
    status_listener::begin(cx)?;
    #[cfg(feature = "control")]
    measures::begin(cx);
    predecessor::begin(cx)?;
    broadcast(cx, "daemon_start");
    cx.yield_("begin", ());
    events::begun(cx)
}

/// Behind `daemon_start` in the queue: the children are to be forked after everybody has handled that. And once more
/// round the loop: an application that could not start, a `DIE` signal by now, stops everything before it has children.
fn begin(cx: &mut Cx<'_>) {
    cx.yield_("fork_first_children", ());
}

/// Its end, in order or by force. The launcher hears of it when nothing is left.
fn stop(cx: &mut Cx<'_>) {
    #[cfg(feature = "control")]
    {
        let me = cx.session();
        metrics::leave(me);
        cx.core_mut().stop_measuring(me);
    }
    let heap = cx.heap();
    match heap.role {
        Role::Parent(_) => {
            parent_ending::last_resort(cx);
            parent_upgrade::last_resort(cx);
            launcher::report_failure(cx);
            // While signals are still watched. One that comes later may end the process where it stands.
            drop(cx.heap().process.pid_file.take());
            #[cfg(feature = "control")]
            if let Some(board) = &mut cx.heap().board {
                board.withdraw();
            }
            let_operators_go(cx);
            #[cfg(feature = "status")]
            status_listener::close(cx);
            manager::forget(cx);
        }
        Role::Child(_) => {
            if !heap.settings.children_return {
                // The process exits: the system unmaps it sooner or later, and the call alone takes as long as a dozen others.
                std::mem::forget(heap.board.take());
                #[cfg(feature = "control")]
                heap.metrics.keep_mapped();
            }
            // The parent sends these to all of its children, of which this is one until it is reaped, whatever it still does.
            ignore_unwatched(Signal::SIGHUP);
            ignore_unwatched(Signal::SIGQUIT);
        }
        Role::Bystander(_) => {}
    }
    if cx.heap().settings.forking != Forking::None && !cx.core().signals.is_leaving() {
        cx.core_mut().expect_no_children();
    }
}

/// A listener of this process, ARG0, of the session ARG1, has accepted a connection that has waited for ARG2.
#[cfg(feature = "control")]
fn accepted(cx: &mut Cx<'_>) -> Result {
    let (listener, owner, waited) = (*cx.arg::<SourceKey>(0)?, *cx.arg::<SessionId>(1)?, *cx.arg::<Duration>(2)?);
    match cx.heap().role {
        Role::Parent(_) => measures::accepted(cx, owner, waited),
        Role::Child(_) => child::slot::accepted(cx.heap(), listener, waited),
        Role::Bystander(_) => {}
    }
    Ok(())
}

/// In a process that was just forked, by whomever: gives up everything that is the parent's alone. If it was forked by
/// this Daemon, `begin_child` comes next.
fn leave_to_parent(cx: &mut Cx<'_>) -> Result {
    let me = cx.session();
    let (heap, core) = cx.parts();
    if heap.role.parent().is_some() {
        let _ = core.refcount_decrement(me, KEPT_ALIVE);
    }
    heap.leave_to_parent(core);
    // What the Daemon was told and was about to tell, `daemon_parent` for one, concerns the parent.
    drop(core.drop_posted_of(me));
    core.alarm_remove_all();
    // TTIN and TTOU have no effect here. But where there is no terminal they stay watched: by default they stop a process, and
    // `pkill -TTIN` reaches children as well as the parent.
    core.sig_clear("CHLD");
    if cx.heap().config.as_ref().is_some_and(|config| !config.all_addresses().is_empty()) {
        // It is not known yet whether this is a child.
        cx.yield_("whose_process", ());
    }
    Ok(())
}

/// Behind `begin_child`, if this is a child of the Daemon. Another process listens on nothing that its configuration names.
fn let_go_unless_child(cx: &mut Cx<'_>) {
    if matches!(cx.heap().role, Role::Bystander(_)) {
        listening::let_go(cx.heap());
    }
}

/// The application says what this process is doing.
fn update_status(cx: &mut Cx<'_>) -> Result<Return<Result<(), DaemonError>>> {
    let report = match read_report(cx) {
        Ok(report) => report,
        Err(error) => return refuse(cx, error),
    };
    let heap = cx.heap();
    if heap.settings.forking == Forking::None || heap.is_over {
        return Ok(Return(Ok(())));
    }
    let role = match (&heap.role, heap.settings.forking, report) {
        (Role::Child(_), ..) => {
            child::requests::report(cx, report)?;
            return Ok(Return(Ok(())));
        }
        (Role::Parent(_), Forking::Post, Report::Req | Report::Long) => {
            let payload = std::mem::take(cx.args()).skip(1);
            events::take_request(cx, report == Report::Long, payload)?;
            return Ok(Return(Ok(())));
        }
        (Role::Parent(_), Forking::Pre, _) => "the parent of a pre-forking server",
        (Role::Parent(_), ..) => PARENT,
        (Role::Bystander(_), ..) => BYSTANDER,
    };
    refuse(cx, DaemonError::WrongProcess { report: report.to_string(), role })
}

/// The application begins a request, perhaps while it has others in hand.
fn begin_request(cx: &mut Cx<'_>) -> Result<Return<Result<bool, DaemonError>>> {
    let heap = cx.heap();
    if heap.settings.forking == Forking::None || heap.is_over {
        return Ok(Return(Ok(!heap.is_over)));
    }
    let role = match heap.role {
        Role::Child(_) => return Ok(Return(Ok(child::requests::begin_one_of_several(cx)))),
        Role::Parent(_) => PARENT,
        Role::Bystander(_) => BYSTANDER,
    };
    refuse(cx, DaemonError::WrongProcess { report: Report::Req.to_string(), role })
}

/// The application says that a request of this process has failed.
#[cfg_attr(
    not(feature = "control"),
    expect(unused_variables, reason = "the count is shown with the feature `control` only")
)]
fn request_failed(cx: &mut Cx<'_>) {
    #[cfg(feature = "control")]
    {
        let heap = cx.heap();
        match (&heap.role, &heap.board) {
            (Role::Child(child), Some(board)) => board.count_failed(child.slot()),
            (Role::Parent(_), _) => heap.failures.count += 1,
            _ => {}
        }
    }
}

/// The application tells of each request that fails.
#[cfg_attr(
    not(feature = "control"),
    expect(unused_variables, reason = "the count is shown with the feature `control` only")
)]
fn failures_are_told(cx: &mut Cx<'_>) {
    #[cfg(feature = "control")]
    {
        cx.heap().failures.are_told = true;
    }
}

/// Shuts the Daemon down in this process, and from the parent in all of its children. A second time does nothing.
fn shut_down(cx: &mut Cx<'_>) -> Result {
    if cx.heap().is_over {
        return Ok(());
    }
    match cx.heap().role {
        Role::Parent(_) => order(cx, Order::Stop(Shutdown::Immediate)),
        Role::Child(_) | Role::Bystander(_) => child::ending::shutdown(cx),
    }
}

/// TERM.
fn terminated(cx: &mut Cx<'_>) -> Result {
    cx.sig_handled();
    match cx.heap().role {
        Role::Parent(_) => order(cx, Order::Terminate),
        Role::Child(_) => child::ending::terminated(cx),
        Role::Bystander(_) => signalled(cx),
    }
}

/// INT, or something that means the same.
fn signalled(cx: &mut Cx<'_>) -> Result {
    cx.sig_handled();
    let heap = cx.heap();
    if heap.role.parent().is_some() {
        return order(cx, Order::Stop(Shutdown::Immediate));
    }
    child::ending::signalled(cx)
}

/// QUIT, or a call: requests in hand are finished first.
fn shut_down_gracefully(cx: &mut Cx<'_>) -> Result {
    cx.sig_handled();
    match cx.heap().role {
        Role::Parent(_) => order(cx, Order::Stop(Shutdown::Graceful)),
        Role::Child(_) => child::ending::go_when_done(cx),
        Role::Bystander(_) => Ok(()),
    }
}

/// Looks how much is left of the time for the end.
fn look_at_grace(cx: &mut Cx<'_>) -> Result {
    if cx.heap().role.parent().is_some() {
        return drive(cx, Input::Due(Timer::Grace));
    }
    if ending::is_grace_over(cx) {
        child::ending::grace_is_over(cx);
    }
    Ok(())
}

/// The application reports a child that other code has forked.
fn foreign_child(cx: &mut Cx<'_>) -> Result<Return<Result<(), DaemonError>>> {
    let reported = foreign::report(cx)?;
    let number = cx.heap().foreign.len();
    drive(cx, Input::Foreign(number))?;
    Ok(reported)
}

fn foreign_child_reaped(cx: &mut Cx<'_>) -> Result {
    foreign::reaped(cx)?;
    match cx.heap().role {
        Role::Parent(_) => {
            let left = cx.heap().foreign.len();
            return drive(cx, Input::Foreign(left));
        }
        Role::Child(_) | Role::Bystander(_) => child::ending::end_if_alone(cx),
    }
    Ok(())
}

/// HUP: the application is told, the log file is opened again, and the children are told to do the same. Or, for a server
/// whose log goes to a terminal: the terminal is gone, and the server ends.
///
/// The file is opened again behind the application's signal in the queue. So what the application's states write on the signal still
/// goes to the old file.
fn hup(cx: &mut Cx<'_>) -> Result {
    cx.sig_handled();
    if cx.heap().ends_on_hup {
        if cx.heap().supervises() {
            log::info!(target: "lenore::daemon", "shutting down: HUP, with a controlling terminal and without a logfile");
        }
        return signalled(cx);
    }
    if cx.heap().role.parent().is_some() {
        if cx.heap().config.is_none() {
            // A manager that has asked by HUP waits for an answer of a program that has nothing to reload, too.
            manager::begin_change(cx, "reloading");
        }
        order(cx, Order::Reopen)?;
        // Behind the log file in the queue.
        cx.yield_("reload", ());
        return Ok(());
    }
    broadcast(cx, "daemon_HUP");
    cx.yield_("reopen", ());
    Ok(())
}

/// A program that has a configuration reloads it.
fn reload(cx: &mut Cx<'_>) -> Result {
    if cx.heap().role.parent().is_some() && cx.heap().config.is_some() {
        return order(cx, Order::Reload);
    }
    manager::end_change(cx, "");
    Ok(())
}

/// The application wants the program to be upgraded: ARG0 is the new one, or none to execute this one's path again.
fn begin_upgrade(cx: &mut Cx<'_>) -> Result<Return<Result<(), DaemonError>>> {
    let program: Option<PathBuf> = cx.take(0)?;
    let reason = match succession::ask(cx, program) {
        None => order(cx, Order::Upgrade).map(|()| None)?,
        refused => refused,
    };
    Ok(Return(reason.map_or(Ok(()), |reason| Err(DaemonError::NotUpgraded { reason }))))
}

/// What this process has of the configuration.
fn config(cx: &mut Cx<'_>) -> Return<Option<Rc<dyn Any>>> {
    Return(cx.heap().config.as_ref().map(Config::value))
}

/// Opens the log file again, and only then tells the children: the file is there when they look for it.
///
/// A child that is forked before this is on the table by now and is told; one that is forked later has the new file.
fn reopen(cx: &mut Cx<'_>) -> Result {
    let pid = cx.pid();
    let point = if cx.heap().role.parent().is_some() { Point::Reopen } else { Point::ChildReopen };
    #[cfg(feature = "control")]
    let order = if cx.heap().role.parent().is_some() {
        asks::expect_reopening(cx);
        0
    } else {
        child::asked::reopening(cx)
    };
    let mut has_failed = inject::reach(point).is_err();
    if let Some(log_file) = &cx.heap().process.log_file {
        match log_file.redirect() {
            Ok(()) => {
                log::info!(target: "lenore::daemon", "process {pid} has reopened {}", log_file.path().display());
                child::words::replaced(cx);
            }
            Err(error) => {
                has_failed = true;
                log::error!(target: "lenore::daemon", "the old log file stays in use: {error} pid={pid}");
            }
        }
    }
    #[cfg(feature = "control")]
    child::asked::reopened(cx, order, has_failed);
    drive(cx, Input::Reopened { has_failed })
}

/// Behind `daemon_start`: the parent begins its work.
fn fork_first_children(cx: &mut Cx<'_>) -> Result {
    // The application listens by now. No child is to have the rest.
    let left_over = cx.heap().process.close_unclaimed()?;
    store::begin(cx, left_over);
    if let Heap { role: Role::Parent(parent), settings, .. } = cx.heap() {
        parent.begin(settings);
    }
    drive(cx, Input::Begin)
}

/// A child has rung.
fn bell(cx: &mut Cx<'_>) -> Result {
    #[cfg(feature = "control")]
    asks::heard(cx);
    #[cfg(not(feature = "control"))]
    if let Some(doorbell) = &cx.heap().doorbell {
        doorbell.answer();
    }
    drive(cx, Input::Bell)
}

/// The listeners of this session, ARG0, are those on which the children accept. Before that, all that are paused are.
fn serves(cx: &mut Cx<'_>) -> Result<Return<()>> {
    let owner = *cx.arg::<SessionId>(0)?;
    if let Some(parent) = cx.heap().role.parent_mut() {
        parent.serves(owner);
    }
    Ok(Return(()))
}

/// Returns how long the clients of this process may hold up a graceful end that begins at ARG0.
fn grace_of_clients(cx: &mut Cx<'_>) -> Result<Return<Grace>> {
    let begin = *cx.arg::<Duration>(0)?;
    let settings = &cx.heap().settings;
    Ok(Return(Grace::new(settings.shutdown_timeout, settings.look_every(), begin)))
}

/// TTIN: there may be one child more, and one spare more is kept.
fn grow(cx: &mut Cx<'_>) -> Result {
    cx.sig_handled();
    order(cx, Order::Resize(1))
}

/// TTOU: the opposite.
fn shrink(cx: &mut Cx<'_>) -> Result {
    cx.sig_handled();
    order(cx, Order::Resize(-1))
}

/// CONT: this process goes on after a stop, or its parent wants it to look.
fn continued(cx: &mut Cx<'_>) -> Result {
    cx.sig_handled();
    child::release::woken(cx)
}

fn status(cx: &mut Cx<'_>) -> DaemonStatus {
    let pid = cx.pid();
    cx.heap().status(pid)
}

fn status_and_peek(cx: &mut Cx<'_>) -> Result<Peek, Error> {
    let verbose = *cx.arg::<bool>(0)?;
    Ok(Peek { kernel: cx.peek(), daemon: status(cx), verbose })
}

fn peek_and_log(cx: &mut Cx<'_>) -> Result<Return<Peek>> {
    let peek = status_and_peek(cx)?;
    log::info!(target: "lenore::daemon", "{peek}");
    Ok(Return(peek))
}

/// What processes are called in an error.
const PARENT: &str = "the parent";
const BYSTANDER: &str = "a process that the Daemon did not fork";

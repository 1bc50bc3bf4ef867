//! The Daemon session: its heap, its states, and what all roles share.

use std::collections::VecDeque;
use std::panic::Location;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;

use crate::args::Args;
use crate::daemon::announce::broadcast;
use crate::daemon::board::doorbell::Doorbell;
use crate::daemon::board::{PeerLabel, Scoreboard, SlotIndex, Status};
use crate::daemon::cause::Deaths;
use crate::daemon::child;
use crate::daemon::child::orphan;
use crate::daemon::child::orphan::LastTimers;
use crate::daemon::error::DaemonError;
use crate::daemon::launch::Process;
use crate::daemon::machine::{Budget, CrashLoop, Escalation, Grace, Growth, Intake, Meter, Phase, RunClock, Stint};
use crate::daemon::parent::babysit;
use crate::daemon::parent::deaths;
use crate::daemon::parent::hang_up;
use crate::daemon::parent::oom::OomKills;
use crate::daemon::parent::pool;
use crate::daemon::parent::queue_watch::{self, QueueWatch};
use crate::daemon::parent::ready;
use crate::daemon::parent::ready::Start;
use crate::daemon::parent::relief;
use crate::daemon::parent::relief::Relief;
use crate::daemon::parent::resize;
use crate::daemon::parent::resize::Size;
use crate::daemon::parent::shortage::Shortage;
use crate::daemon::parent::shutdown;
use crate::daemon::parent::usage::Told;
use crate::daemon::processes::{Look, look, send};
use crate::daemon::settings::{Forking, Settings};
use crate::daemon::status::{ChildStatus, DaemonStatus, Peek};
use crate::error::{Error, Exception, Result};
use crate::kernel::{AsKernel, Context, SessionId, SourceKey, ignore_unwatched, was_ignored};
use crate::name::Name;
use crate::outage::Outage;
use crate::reply::Return;
use crate::session::Session;

pub(super) type Cx<'a> = Context<'a, Heap>;

/// What the Daemon session keeps, in whichever process it finds itself.
pub(super) struct Heap {
    pub(super) settings: Settings,
    /// What TTIN and TTOU have made of the settings.
    pub(super) size: Size,
    pub(super) role: Role,
    /// Who forks the children.
    pub(super) parent: i32,
    /// `None` for a server that does not fork.
    pub(super) board: Option<Scoreboard>,
    pub(super) doorbell: Option<Doorbell>,
    pub(super) process: Process,
    /// HUP means that the terminal is gone, and with it who started the program.
    pub(super) ends_on_hup: bool,
    pub(super) phase: Phase,
    /// The parent's own table; what must not go wrong goes by this and not by the board.
    pub(super) children: Vec<Child>,
    /// Children that other code forked.
    pub(super) foreign: Vec<i32>,
    /// Forks asked for and not carried out yet, in order.
    pub(super) in_flight: VecDeque<InFlight>,
    /// Post-forking: requests that wait for a child, in the order in which they came.
    pub(super) queue: VecDeque<Request>,
    pub(super) requests_seen: u64,
    /// What is left of `shutdown_timeout`, from a graceful end's beginning on.
    pub(super) grace: Option<Grace>,
    pub(super) intake: Intake,
    pub(super) forks: Budget,
    /// Pre-forking: how the next shortage of spares is met.
    pub(super) growth: Growth,
    /// In the parent: what it knows of the clients that wait in its listeners' queues.
    pub(super) queues: QueueWatch,
    /// What the budget's time counts from.
    pub(super) born: SystemTime,
    /// A fork has failed, or children die as soon as they live: nothing is forked before this.
    pub(super) no_fork_before: Option<SystemTime>,
    /// Forks fail for the time being.
    pub(super) shortage: Shortage,
    pub(super) crashes: CrashLoop,
    /// That children die as soon as they live, as the log knows.
    pub(super) crash_loop: Outage<()>,
    /// How many children were forked; each finds its own number of requests by it.
    pub(super) forked: u64,
    pub(super) deaths: Deaths,
    /// In the parent: whom the system has killed.
    pub(super) oom_kills: OomKills,
    /// In the parent: which limits can't be enforced, as the log knows.
    pub(super) told: Told,
    /// For how long this process has run.
    pub(super) run_clock: RunClock,
    /// In a child: how many requests it is to handle; `None` for any number.
    pub(super) share: Option<u64>,
    /// While a launcher waits.
    pub(super) start: Start,
    /// Which mistakes of the application are in the log, by what they are and where they were made.
    pub(super) mistakes: Vec<(&'static str, &'static Location<'static>)>,
    /// In a child: the listeners that it accepts requests on.
    pub(super) listeners: Vec<SourceKey>,
    /// In a child whose parent is gone: what ends it.
    pub(super) last_timers: Option<LastTimers>,
    /// In the parent: whether it waits for clients who wait.
    pub(super) relief: Relief,
    /// Why the Daemon could not go on: what `run` is to return.
    pub(super) failure: Option<Exception>,
}

/// What this process is to the Daemon.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Parent,
    Child {
        slot: SlotIndex,
        /// It was asked to go: after the request in hand.
        is_retiring: bool,
    },
    /// A child that somebody else forked: nothing here is its business.
    Bystander,
}

/// One child, as its parent knows it.
pub(super) struct Child {
    pub(super) pid: i32,
    pub(super) slot: SlotIndex,
    pub(super) generation: u32,
    pub(super) forked_at: SystemTime,
    pub(super) orders: Orders,
    /// How far the babysitter has come with it.
    pub(super) escalation: Option<Escalation>,
    pub(super) meter: Meter,
    /// How long it has been in its status.
    pub(super) stint: Stint,
    /// It was stopped when the babysitter last came round.
    pub(super) is_stopped: bool,
    /// How long it has been stopped while this process was not.
    pub(super) stopped_for: Duration,
    /// It has reported that it waits, as far as the parent has seen.
    pub(super) is_ready: bool,
    /// The log has it already that it is not ready for requests.
    pub(super) is_told_unready: bool,
}

/// What the parent wants of a child, or has told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Orders {
    Stay,
    /// Not told yet: it is to go when another can take its place.
    BeReplaced,
    /// Told: it is one spare too many.
    Go,
    /// Told: it has too much memory.
    GoForMemory,
    /// Killed, as the time was up.
    Die,
}

impl Child {
    pub(super) fn new(pid: i32, slot: SlotIndex, generation: u32, forked_at: SystemTime) -> Child {
        let (orders, meter) = (Orders::Stay, Meter::default());
        let (stint, is_stopped, stopped_for, is_told_unready) = (Stint::default(), false, Duration::ZERO, false);
        Child {
            pid,
            slot,
            generation,
            forked_at,
            orders,
            escalation: None,
            meter,
            stint,
            is_stopped,
            stopped_for,
            is_ready: false,
            is_told_unready,
        }
    }

    /// It has been told to go.
    pub(super) fn is_retiring(&self) -> bool {
        matches!(self.orders, Orders::Go | Orders::GoForMemory | Orders::Die)
    }
}

/// A fork that was asked for.
pub(super) struct InFlight {
    pub(super) slot: SlotIndex,
    pub(super) generation: u32,
    /// Post-forking: which request it is for.
    pub(super) number: u64,
    pub(super) is_long: bool,
}

/// A request for a post-forking daemon.
pub(super) struct Request {
    /// Counts up; a request whose fork failed goes back to its place by it.
    pub(super) number: u64,
    /// `l` or `r` for its child to begin with.
    pub(super) is_long: bool,
    pub(super) payload: Args,
}

impl Heap {
    pub(super) fn new(settings: Settings, now: SystemTime) -> Result<Heap, DaemonError> {
        let has_children = settings.forking != Forking::None;
        let board =
            has_children.then(|| Scoreboard::new(settings.slots())).transpose().map_err(DaemonError::Scoreboard)?;
        let make_doorbell =
            || Doorbell::new().map_err(|source| DaemonError::Kernel { doing: "hanging the doorbell", source });
        let doorbell = has_children.then(make_doorbell).transpose()?;
        let forks = Budget::new(settings.fork_burst, settings.forks_per_second);
        Ok(Heap {
            size: Size::new(&settings),
            run_clock: RunClock::new(settings.look_every(), Duration::ZERO),
            settings,
            role: Role::Parent,
            parent: std::process::id() as i32,
            board,
            doorbell,
            process: Process::default(),
            ends_on_hup: false,
            phase: Phase::StartingUp,
            children: Vec::new(),
            foreign: Vec::new(),
            in_flight: VecDeque::new(),
            queue: VecDeque::new(),
            requests_seen: 0,
            grace: None,
            intake: Intake::Open,
            forks,
            growth: Growth::default(),
            queues: QueueWatch::default(),
            born: now,
            no_fork_before: None,
            shortage: Shortage::default(),
            crashes: CrashLoop::default(),
            crash_loop: Outage::default(),
            forked: 0,
            deaths: Deaths::default(),
            oom_kills: OomKills::default(),
            told: Told::default(),
            share: None,
            start: Start::default(),
            mistakes: Vec::new(),
            listeners: Vec::new(),
            last_timers: None,
            relief: Relief::Off,
            failure: None,
        })
    }

    pub(super) fn is_shutting_down(&self) -> bool {
        self.phase == Phase::ShuttingDown
    }

    /// Post-forking: it serves what is queued, before a graceful end.
    pub(super) fn is_draining(&self) -> bool {
        self.grace.is_some() && !self.is_shutting_down()
    }

    /// Returns what the policy's times count from.
    pub(super) fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.born).unwrap_or_default()
    }

    /// All whom this process has to look after.
    pub(super) fn pids(&self) -> impl Iterator<Item = i32> {
        self.children.iter().map(|child| child.pid).chain(self.foreign.iter().copied())
    }

    fn status(&self, pid: u32) -> DaemonStatus {
        let status = |child: &Child| {
            let board = self.board.as_ref();
            let status = board.and_then(|board| board.status(child.slot)).unwrap_or(Status::Exit);
            let slot = board.and_then(|board| board.read(child.slot).ok());
            let (requests, peer) = slot.map_or((0, PeerLabel::new("")), |slot| (slot.requests, slot.peer));
            ChildStatus { pid: child.pid, status, requests, peer }
        };
        DaemonStatus {
            alias: self.settings.alias.clone(),
            pid,
            forking: self.settings.forking,
            is_child: self.role != Role::Parent,
            children: self.children.iter().map(status).collect(),
            slot: match self.role {
                Role::Child { slot, .. } => Some(slot.get()),
                _ => None,
            },
            board: self.board.as_ref().map(Scoreboard::letters).unwrap_or_default(),
            free: self.board.as_ref().map(Scoreboard::free).unwrap_or_default(),
            queued: self.queue.len(),
            deaths: self.deaths,
            backlog: self.queues.seen,
        }
    }
}

/// Creates the session.
pub(super) fn spawn<K: AsKernel>(heap: Heap, kernel: &mut K) -> Result<SessionId, Error> {
    Session::new(heap)
        .state("_start", start)
        .state("begin", begin)
        .state("fork_first_children", fork_first_children)
        .state("update_status", child::update_status)
        .state("begin_request", child::begin_one_of_several)
        .state("status", |cx| Return(status(cx)))
        .state("peek", peek_and_log)
        .state("look", |cx| Return(status_and_peek(cx)))
        .state("foreign_child", foreign_child)
        .state("foreign_child_reaped", foreign_child_reaped)
        .state("shutdown", shutdown::shutdown)
        .state("signalled", shutdown::signalled)
        .state("graceful_shutdown", shutdown::graceful)
        .state("grace", shutdown::grace)
        .state("what_is_left", shutdown::what_is_left)
        .state("hang_up", hang_up::hang_up)
        .state("reopen", hang_up::reopen)
        .state("ready", ready::ready)
        .state("ready_soon", ready::ready_soon)
        .state("launched", ready::launched)
        .state("start_late", ready::start_late)
        .state("launcher_answered", ready::launcher_answered)
        .state("forked_by_kernel", leave_to_parent)
        .state("bell", pool::bell)
        .state("maintain", pool::maintain)
        .state("weigh_queue", pool::maintain)
        .state("end_hold", pool::maintain)
        .state("client_in_queue", queue_watch::client_in_queue)
        .state("look_at_queue", queue_watch::look_at_queue)
        .state("watch_queue", queue_watch::watch_again)
        .state("serves", queue_watch::serves)
        .state("retry_forks", pool::retry_forks)
        .state("client_waits", relief::client_waits)
        .state("relieve", relief::relieve)
        .state("release", relief::release)
        .state("forked", pool::forked)
        .state("reaped", deaths::reaped)
        .state("babysit", babysit::round)
        .state("look_at_children", babysit::look_at_children)
        .state("continued", babysit::continued)
        .state("stranger_reaped", |_| ())
        .state("grow", resize::grow)
        .state("shrink", resize::shrink)
        .state("_stop", stop)
        .state("begin_child", child::begin)
        .state("first_wait", child::first_wait)
        .state("set_peer_label", child::set_peer_label)
        .state("parent_gone", orphan::parent_gone)
        .spawn(kernel)
}

fn start(cx: &mut Cx<'_>) -> Result {
    let alias = Name::new(&cx.heap().settings.alias);
    cx.alias_set(alias)?;
    // Held from here on, and not by the alias: that alone would not keep the program from being idle.
    let me = cx.session();
    cx.refcount_increment(me, KEPT_ALIVE)?;
    for signal in ["TERM", "INT"] {
        cx.sig(signal, "signalled");
    }
    cx.sig("shutdown", "shutdown");
    cx.sig("QUIT", "graceful_shutdown");
    cx.sig("HUP", "hang_up");
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
        // The first process of a container is everybody's parent in the end, and whom it does not reap nobody does.
        cx.sig("CHLD", "stranger_reaped");
    }
    if let Some(end) = cx.heap().doorbell.as_ref().and_then(Doorbell::parents_end).cloned() {
        cx.select_read(&end, "bell", ())?;
    }
    broadcast(cx, "daemon_start");
    cx.yield_("begin", ());
    Ok(())
}

/// Behind `daemon_start` in the queue: the children are to be forked after everybody has handled that. And once more
/// round the loop: an application that could not start, a `DIE` signal by now, stops everything before it has children.
fn begin(cx: &mut Cx<'_>) {
    cx.yield_("fork_first_children", ());
}

fn fork_first_children(cx: &mut Cx<'_>) -> Result {
    if cx.heap().role != Role::Parent || cx.heap().is_shutting_down() {
        return Ok(());
    }
    babysit::begin(cx);
    if cx.heap().settings.forking == Forking::Pre {
        return pool::maintain(cx);
    }
    cx.heap().phase = Phase::Running;
    ready::ready(cx)
}

/// Its end, in order or by force. The launcher hears of it when nothing is left.
fn stop(cx: &mut Cx<'_>) {
    if let Role::Child { .. } = cx.heap().role {
        if !cx.heap().settings.children_return {
            // The process exits: the system unmaps it sooner or later, and the call alone takes as long as a dozen others.
            std::mem::forget(cx.heap().board.take());
        }
        // The parent sends these to all of its children, of which this is one until it is reaped, whatever it still does.
        ignore_unwatched(Signal::SIGHUP);
        ignore_unwatched(Signal::SIGQUIT);
    }
    shutdown::last_resort(cx);
    ready::report_failure(cx);
}

/// In a process that was just forked, by whomever: gives up everything that is the parent's alone. If it was forked by
/// this Daemon, `begin_child` comes next.
fn leave_to_parent(cx: &mut Cx<'_>) -> Result {
    let me = cx.session();
    let (heap, core) = cx.parts();
    if heap.role == Role::Parent {
        let _ = core.refcount_decrement(me, KEPT_ALIVE);
    }
    heap.role = Role::Bystander;
    for pid in heap.children.drain(..).map(|child| child.pid).chain(heap.foreign.drain(..)) {
        core.sig_child_clear(pid);
    }
    heap.in_flight.clear();
    heap.grace = None;
    heap.oom_kills = OomKills::default();
    heap.failure = None;
    heap.relief = Relief::Off;
    heap.queues = QueueWatch::default();
    // What the Daemon was told and was about to tell, `daemon_parent` for one, concerns the parent.
    drop(core.drop_posted_of(me));
    // The sockets of requests that other children will handle: their peers must see the end when those close them.
    heap.queue.clear();
    if let Some(doorbell) = &mut heap.doorbell {
        if let Some(end) = doorbell.parents_end() {
            core.select_read_clear(end);
        }
        doorbell.become_childs();
        core.select_read_clear(doorbell.childs_end());
    }
    if let Some(launch) = &heap.process.launch {
        core.select_read_clear(launch.end());
    }
    heap.process.leave_to_parent();
    core.alarm_remove_all();
    // TTIN and TTOU mean nothing here, but go on being watched where there is no terminal: by default they stop a process,
    // and `pkill -TTIN` reaches children as well as the parent.
    core.sig_clear("CHLD");
    Ok(())
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

fn foreign_child(cx: &mut Cx<'_>) -> Result<Return<Result<(), DaemonError>>> {
    let pid = *cx.arg::<i32>(0)?;
    // Nobody would ever hear of its end; and what is not positive means whole groups of processes.
    if pid <= 1 || look(pid) == Look::Gone {
        let error = DaemonError::NotAChild(pid);
        log::error!(target: "lenore::daemon", "{error} (reported at {})", cx.caller());
        return Ok(Return(Err(error)));
    }
    cx.sig_child(pid, "foreign_child_reaped", ());
    if !cx.heap().foreign.contains(&pid) {
        cx.heap().foreign.push(pid);
    }
    if cx.heap().is_shutting_down() {
        send(pid, Signal::SIGTERM);
    }
    Ok(Return(Ok(())))
}

fn foreign_child_reaped(cx: &mut Cx<'_>) -> Result {
    let pid = *cx.arg::<i32>(1)?;
    cx.heap().foreign.retain(|other| *other != pid);
    shutdown::end_if_alone(cx)
}

/// Sends a signal of the operating system to every child. None of these pids can have come to mean another process: a
/// child keeps its pid until it is reaped, and is off the table from then on.
pub(super) fn signal_children(heap: &Heap, signal: Signal) {
    if heap.role == Role::Parent {
        heap.children.iter().for_each(|child| send(child.pid, signal));
    }
}

/// The tag under which the Daemon keeps itself alive in the parent.
pub(super) const KEPT_ALIVE: &str = "daemon";

//! What the parent has as such: its children, and how far it has come with each of its tasks. Data only.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;

use crate::daemon::board::{PeerLabel, Scoreboard, Status};
use crate::daemon::bystander::Bystander;
use crate::daemon::cause::Deaths;
use crate::daemon::machine::{
    Budget, CrashLoop, Growth, Hold, Intake, Overload, Phase, RunClock, ServiceTime, StartTime, Unheard,
};
use crate::daemon::parent::oom::OomKills;
use crate::daemon::parent::table::{InFlight, Request, Row};
use crate::daemon::parent::usage::Told;
use crate::daemon::settings::Settings;
use crate::daemon::status::{Backlog, ChildStatus, DaemonStatus};
use crate::error::Exception;
use crate::kernel::{Core, SessionId};
use crate::outage::Outage;

/// The process that forks the children. What it has is out of reach of a child's code.
pub(in crate::daemon) struct Parent {
    /// This process.
    pub(super) pid: i32,
    pub(super) phase: Phase,
    /// What TTIN and TTOU have made of the settings.
    pub(super) size: Size,
    /// What must not go wrong goes by this table and not by the board.
    pub(super) children: Vec<Row>,
    /// Forks asked for and not carried out yet, in order.
    pub(super) in_flight: VecDeque<InFlight>,
    /// Post-forking: requests that wait for a child, in the order in which they came.
    pub(super) queue: VecDeque<Request>,
    pub(super) requests_seen: u64,
    pub(super) intake: Intake,
    pub(super) forks: Budget,
    /// Pre-forking: how the next shortage of spares is met.
    pub(super) growth: Growth,
    /// What it knows of the clients that wait in its listeners' queues.
    pub(super) queues: QueueWatch,
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
    /// Whom the system has killed.
    pub(super) oom_kills: OomKills,
    /// Which limits can't be enforced, as the log knows.
    pub(super) told: Told,
    /// For how long this process has run.
    pub(super) run_clock: RunClock,
    /// While a launcher waits.
    pub(super) start: Start,
    /// Whether it waits for clients who wait.
    pub(super) relief: Relief,
    /// Why the Daemon could not go on: what `run` is to return.
    pub(super) failure: Option<Exception>,
}

impl Parent {
    pub(in crate::daemon) fn new(settings: &Settings, oom_kills: OomKills) -> Parent {
        Parent {
            pid: std::process::id().cast_signed(),
            phase: Phase::StartingUp,
            size: Size::new(settings),
            children: Vec::new(),
            in_flight: VecDeque::new(),
            queue: VecDeque::new(),
            requests_seen: 0,
            intake: Intake::Open,
            forks: Budget::new(settings.fork_burst, settings.forks_per_second),
            growth: Growth::default(),
            queues: QueueWatch::default(),
            no_fork_before: None,
            shortage: Shortage::default(),
            crashes: CrashLoop::default(),
            crash_loop: Outage::default(),
            forked: 0,
            deaths: Deaths::default(),
            oom_kills,
            told: Told::default(),
            run_clock: RunClock::new(settings.look_every(), Duration::ZERO),
            start: Start::default(),
            relief: Relief::Off,
            failure: None,
        }
    }

    /// Returns what is left of this in a process that was just forked, and gives up the rest there.
    pub(in crate::daemon) fn leave(self, core: &mut Core) -> Bystander {
        let Parent {
            pid,
            children,
            // The sockets of requests that other children will handle: their peers must see the end when those close them.
            queue: _,
            // An open file.
            oom_kills: _,
            // The rest are numbers and notes of what the parent has seen, wants and has said.
            phase: _,
            size: _,
            in_flight: _,
            requests_seen: _,
            intake: _,
            forks: _,
            growth: _,
            queues: _,
            no_fork_before: _,
            shortage: _,
            crashes: _,
            crash_loop: _,
            forked: _,
            deaths: _,
            told: _,
            run_clock: _,
            start: _,
            relief: _,
            failure: _,
        } = self;
        children.iter().for_each(|child| core.sig_child_clear(child.pid));
        Bystander { parent: pid, listeners: Vec::new() }
    }

    /// Writes into a status what only the parent knows.
    pub(in crate::daemon) fn describe(&self, board: Option<&Scoreboard>, status: &mut DaemonStatus) {
        let child_status = |child: &Row| {
            let status = board.and_then(|board| board.status(child.slot)).unwrap_or(Status::Exit);
            let slot = board.and_then(|board| board.read(child.slot).ok());
            let (requests, peer) = slot.map_or((0, PeerLabel::new("")), |slot| (slot.requests, slot.peer));
            ChildStatus { pid: child.pid, status, requests, peer }
        };
        status.children = self.children.iter().map(child_status).collect();
        status.queued = self.queue.len();
        status.deaths = self.deaths;
        status.backlog = self.queues.seen;
    }
}

/// How far a Daemon is from the size that it was set to.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub(super) max_children: u32,
    pub(super) min_spare: u32,
    pub(super) max_spare: u32,
    /// How many more children there may be than that, or less.
    pub(super) shift: i64,
}

impl Size {
    fn new(settings: &Settings) -> Size {
        let Settings { max_children, min_spare, max_spare, .. } = *settings;
        Size { max_children, min_spare, max_spare, shift: 0 }
    }
}

/// What the parent knows of the clients that wait in the queues.
#[derive(Debug, Default)]
pub(super) struct QueueWatch {
    /// Whose listeners are the Daemon's; `None` for all that this process has paused.
    pub(super) owner: Option<SessionId>,
    pub(super) service: ServiceTime,
    pub(super) start: StartTime,
    pub(super) hold: Hold,
    pub(super) seen: Backlog,
    /// How many requests were begun by children that are gone.
    pub(super) begun_by_dead: u64,
    pub(super) overload: Overload,
    pub(super) full: Overload,
    pub(super) unheard: Unheard,
    /// How often in a row idle children were woken for clients that waited all the same.
    pub(super) in_vain: u32,
    pub(super) watch: Watch,
}

/// How far the watch has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Watch {
    #[default]
    Off,
    /// The kernel will tell of a client.
    Asked,
    /// It looks again after a while.
    Looking,
}

/// Whether forks have failed, and some are still missing.
#[derive(Default)]
pub(super) struct Shortage {
    pub(super) outage: Outage<Reason>,
    /// How long the last pause was; zero before the first.
    pub(super) pause: Duration,
}

/// What may pass: the log has a line for each that it changes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The system is short of processes or memory, or this user is.
    System(Errno),
    /// The program has started a thread.
    Threads,
}

/// How far the start has come, while a launcher waits for it.
#[derive(Default)]
pub(super) struct Start {
    /// The application has handled the last signal of the start.
    pub(super) is_handled: bool,
    /// How many children have served requests and ended since.
    pub(super) served: usize,
    /// How many children in a row have died in their set-up, those that were forked together being one.
    pub(super) failures: u32,
    /// When the last of these died; its successors are forked after that.
    pub(super) last_failure: Option<SystemTime>,
}

/// How far the parent has come with letting idle clients go for others that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Relief {
    /// Not needed, or not possible.
    #[default]
    Off,
    /// It will be told of a client that waits.
    Watching,
    /// It was told, and looks after a moment whether the client still waits. Then so many looks more if a child was asked and
    /// has not taken notice.
    Looking(u32),
}

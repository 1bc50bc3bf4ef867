//! What the parent has as such: the machine that decides, and what carrying out needs besides. Data only.

use std::collections::{BTreeMap, VecDeque};
#[cfg(feature = "status")]
use std::net::TcpListener;
use std::time::Duration;

use nix::unistd::dup2_stderr;

use crate::args::Args;
use crate::daemon::board::{PeerLabel, Scoreboard, SlotIndex, Status};
use crate::daemon::bystander::Bystander;
#[cfg(feature = "control")]
use crate::daemon::control::Control;
#[cfg(feature = "status")]
use crate::daemon::control::places;
use crate::daemon::machine::{Child, Grace, Input, Key, Machine};
use crate::daemon::notify::{Health, Manager, Store};
#[cfg(feature = "control")]
use crate::daemon::parent::asking::Asking;
use crate::daemon::parent::candidate::Reloading;
#[cfg(feature = "control")]
use crate::daemon::parent::ledger::Ledger;
#[cfg(feature = "control")]
use crate::daemon::parent::levels::Levels;
use crate::daemon::parent::oom::OomKills;
use crate::daemon::parent::pids::Pids;
use crate::daemon::parent::refused::{Reason, Refused};
#[cfg(feature = "control")]
use crate::daemon::parent::timings::Timings;
use crate::daemon::parent::upgrading::{Predecessor, Upgrading};
use crate::daemon::parent::usage::Told;
#[cfg(feature = "status")]
use crate::daemon::parent::visitors::{MOST_CLIENTS, Visitors};
use crate::daemon::settings::{Forking, Settings};
use crate::daemon::status::{ChildStatus, DaemonStatus};
use crate::error::Exception;
use crate::handover;
use crate::kernel::{Core, Handle, SessionId, SourceKey};
use crate::outage::Outage;

/// The process that forks the children. What it has is out of reach of a child's code.
pub(in crate::daemon) struct Parent {
    /// This process.
    pub(super) pid: i32,
    pub(super) machine: Machine,
    /// What the machine is still to be told.
    pub(super) inputs: VecDeque<Input>,
    /// What it wants done is being carried out.
    pub(super) is_driving: bool,
    pub(super) pids: Pids,
    /// Post-forking: what the application has handed over with each request that has no child yet, by its number.
    pub(super) payloads: BTreeMap<u64, Args>,
    pub(super) requests_seen: u64,
    /// Forks that were asked for, in order, each with the request that it is for.
    pub(super) forks: VecDeque<(Key, Option<u64>)>,
    /// How many orders were given.
    pub(super) orders: u64,
    /// Whose listeners are the Daemon's; `None` for all that this process has paused.
    pub(super) owner: Option<SessionId>,
    /// Whom the system has killed.
    pub(super) oom_kills: OomKills,
    /// Which limits can't be enforced, as the log knows.
    pub(super) told: Told,
    /// Why the last fork that failed was refused.
    pub(super) refused: Option<Refused>,
    /// Forks fail for the time being: how many, and since when.
    pub(super) shortage: Outage<Reason>,
    /// Children die as soon as they live: how many, and since when.
    pub(super) crash_loop: Outage<()>,
    /// What it has of a reload.
    pub(super) reload: Reloading,
    /// What it has of an upgrade.
    pub(super) upgrade: Upgrading,
    /// Why the Daemon could not go on: what `run` is to return.
    pub(super) failure: Option<Exception>,
    /// Until nothing is left to wait for, if a service manager has started the program.
    pub(super) manager: Option<Box<Manager>>,
    /// The listeners that the manager keeps, if the program wants that.
    pub(super) store: Option<Store<SourceKey>>,
    /// Which process the manager is to take for the main one, until it has read that.
    pub(super) naming: Option<Naming>,
    /// What is left of the time for clients of this process, when the Daemon has ended: as the manager is told.
    pub(super) drain: Option<Grace>,
    /// Whether the Daemon lives.
    pub(super) health: Health,
    /// The log knows that it does not.
    pub(super) is_ill: bool,
    /// From the first time on that somebody may look from outside.
    #[cfg(feature = "control")]
    pub(super) ledger: Option<Box<Ledger>>,
    /// If durations are counted.
    #[cfg(feature = "control")]
    pub(super) timings: Option<Box<Timings>>,
    /// Until nothing is left to wait for and no connection of this process is open, if there is a control socket.
    #[cfg(feature = "control")]
    pub(super) control: Option<Box<Control>>,
    /// As long, if there is a status listener.
    #[cfg(feature = "status")]
    pub(super) visitors: Option<Box<Visitors>>,
    /// What children were asked for and have not answered.
    #[cfg(feature = "control")]
    pub(super) asking: Asking,
    /// What is logged because an operator wants it.
    #[cfg(feature = "control")]
    pub(super) levels: Levels,
}

/// The manager was told which process is the main one.
pub(super) struct Naming {
    /// At its end of file the manager has read that.
    pub(super) end: Handle,
    /// What is posted then.
    pub(super) event: &'static str,
    /// For how long that is waited for, as the Daemon's age.
    pub(super) until: Duration,
}

impl Parent {
    pub(in crate::daemon) fn new(settings: &Settings, oom_kills: OomKills) -> Parent {
        Parent {
            pid: std::process::id().cast_signed(),
            machine: Machine::new(settings.clone()),
            inputs: VecDeque::new(),
            is_driving: false,
            pids: Pids::default(),
            payloads: BTreeMap::new(),
            requests_seen: 0,
            forks: VecDeque::new(),
            orders: 0,
            owner: None,
            oom_kills,
            told: Told::default(),
            refused: None,
            shortage: Outage::default(),
            crash_loop: Outage::default(),
            reload: Reloading::default(),
            upgrade: Upgrading::default(),
            failure: None,
            manager: None,
            store: None,
            naming: None,
            drain: None,
            health: Health::default(),
            is_ill: false,
            #[cfg(feature = "control")]
            ledger: None,
            #[cfg(feature = "control")]
            timings: None,
            #[cfg(feature = "control")]
            control: None,
            #[cfg(feature = "status")]
            visitors: None,
            #[cfg(feature = "control")]
            asking: Asking::default(),
            #[cfg(feature = "control")]
            levels: Levels::default(),
        }
    }

    /// Operators may come to this socket.
    #[cfg(feature = "control")]
    pub(in crate::daemon) fn let_in(&mut self, control: Option<Control>) {
        self.control = control.map(Box::new);
    }

    /// Clients may come to this listener to see the status.
    #[cfg(feature = "status")]
    pub(in crate::daemon) fn show_to(&mut self, listener: Option<TcpListener>) {
        self.visitors = listener.map(|listener| Box::new(Visitors::new(listener, places(MOST_CLIENTS))));
    }

    /// This service manager wants to be told, and keeps the listeners if it is asked to.
    pub(in crate::daemon) fn answers_to(&mut self, manager: Option<Manager>, keeps_listeners: bool) {
        self.store = manager.as_ref().filter(|_| keeps_listeners).map(|_| Store::default());
        self.manager = manager.map(Box::new);
    }

    /// This process is to take over from another one, and tells the service manager nothing before it has.
    pub(in crate::daemon) fn follows(&mut self, predecessor: handover::Predecessor) {
        let handover::Predecessor { pid, channel, stderr, .. } = predecessor;
        self.upgrade.predecessor = Some(Predecessor::new(pid, channel, stderr, self.manager.take()));
    }

    /// The children are about to be forked.
    pub(in crate::daemon) fn begin(&mut self, settings: &Settings) {
        if settings.forking == Forking::Pre && settings.rules.memory_limit.is_some() {
            self.told.check_memory();
        }
    }

    /// The children accept on the listeners of this session, and on no others.
    pub(in crate::daemon) fn serves(&mut self, owner: SessionId) {
        self.owner = Some(owner);
    }

    /// Returns what is left of this in a process that was just forked, and gives up the rest there.
    pub(in crate::daemon) fn leave(self, core: &mut Core) -> Bystander {
        let Parent {
            pid,
            pids,
            // The sockets of requests that other children will handle: their peers must see the end when those close them.
            payloads: _,
            // An open file.
            oom_kills: _,
            // A socket.
            manager: _,
            machine,
            // The rest are numbers and notes of what the parent has seen, wants and has said.
            inputs: _,
            is_driving: _,
            requests_seen: _,
            forks: _,
            orders: _,
            owner: _,
            told: _,
            refused: _,
            shortage: _,
            crash_loop: _,
            store: _,
            reload,
            upgrade,
            naming,
            drain: _,
            failure: _,
            health: _,
            is_ill: _,
            #[cfg(feature = "control")]
            ledger,
            #[cfg(feature = "control")]
            timings,
            #[cfg(feature = "control")]
            control,
            // A listener and connections. Wheels close by being dropped.
            #[cfg(feature = "status")]
                visitors: _,
            #[cfg(feature = "control")]
                asking: _,
            #[cfg(feature = "control")]
                levels: _,
        } = self;
        #[cfg(feature = "control")]
        if ledger.is_some() {
            core.forget_processor_time();
            // As below.
            std::mem::forget(ledger);
        }
        #[cfg(feature = "control")]
        std::mem::forget(timings);
        #[cfg(feature = "control")]
        control.into_iter().flat_map(|control| control.into_handles()).for_each(|handle| {
            core.select_read_clear(&handle);
            core.select_write_clear(&handle);
        });
        naming.into_iter().for_each(|naming| core.select_read_clear(&naming.end));
        reload.into_handles().for_each(|handle| core.select_read_clear(&handle));
        let (handles, stderr) = upgrade.into_handles();
        handles.iter().for_each(|handle| core.select_read_clear(handle));
        if let Some(stderr) = stderr {
            // Nobody reads the parent's for as long as this process lives. Both are open.
            let _ = dup2_stderr(&stderr);
        }
        pids.all().for_each(|pid| core.sig_child_clear(pid));
        // Plain memory. To free it would write to pages all over the heap, each of which is copied then.
        std::mem::forget((machine, pids));
        Bystander { parent: pid, listeners: Vec::new() }
    }

    /// Writes into a status what only the parent knows.
    pub(in crate::daemon) fn describe(&self, board: Option<&Scoreboard>, status: &mut DaemonStatus) {
        let mut children: Vec<&Child> = self.machine.table().children().iter().collect();
        children.sort_unstable_by_key(|child| child.number);
        let child_status = |child: &Child| {
            let slot = SlotIndex::from(child.key);
            let status = board.and_then(|board| board.status(slot)).unwrap_or(Status::Exit);
            let slot = board.and_then(|board| board.read(slot).ok());
            let (requests, peer) = slot.map_or((0, PeerLabel::new("")), |slot| (slot.requests, slot.peer));
            ChildStatus { pid: self.pids.name(child.key), status, requests, peer }
        };
        status.children = children.into_iter().map(child_status).collect();
        status.queued = self.machine.queued();
        status.deaths = self.machine.deaths();
        status.backlog = self.machine.backlog();
    }
}

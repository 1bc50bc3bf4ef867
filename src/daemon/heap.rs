//! What the Daemon session keeps, in whichever process it finds itself.

use std::panic::Location;
use std::time::{Duration, SystemTime};

use crate::daemon::board::Scoreboard;
#[cfg(feature = "control")]
use crate::daemon::board::asks::Asks;
use crate::daemon::board::doorbell::Doorbell;
use crate::daemon::bystander::Bystander;
use crate::daemon::child::role::Child;
use crate::daemon::config::Config;
use crate::daemon::error::DaemonError;
use crate::daemon::launch::Process;
use crate::daemon::machine::{Backlog, Grace};
use crate::daemon::parent::oom::OomKills;
use crate::daemon::parent::role::Parent;
use crate::daemon::settings::{Forking, Settings};
use crate::daemon::status::DaemonStatus;
use crate::kernel::{Context, Core};
use crate::name::Name;

pub(super) type Cx<'a> = Context<'a, Heap>;

/// What every process of the Daemon has, and its role.
pub(super) struct Heap {
    pub(super) settings: Settings,
    /// The alias once the Daemon has ended.
    pub(super) ended_alias: Option<Name>,
    /// `None` for a server that does not fork, unless other programs are to see it.
    pub(super) board: Option<Scoreboard>,
    pub(super) doorbell: Option<Doorbell>,
    /// What the parent asks of single children, if an operator may have it ask.
    #[cfg(feature = "control")]
    pub(super) asks: Option<Asks>,
    pub(super) process: Process,
    /// The program's configuration, if it has one.
    pub(super) config: Option<Config>,
    /// HUP means that the terminal is gone, and with it who started the program.
    pub(super) ends_on_hup: bool,
    /// The Daemon has been shut down in this process.
    pub(super) is_over: bool,
    /// Children of this process that other code forked.
    pub(super) foreign: Vec<i32>,
    /// What is left of `shutdown_timeout`, from a graceful end's beginning on.
    pub(super) grace: Option<Grace>,
    /// When the Daemon was spawned. Its times count from this.
    pub(super) born: SystemTime,
    /// Which mistakes of the application are in the log, by what they are and where they were made.
    pub(super) mistakes: Vec<(&'static str, &'static Location<'static>)>,
    pub(super) role: Role,
    /// What the application says of requests that have failed.
    #[cfg(feature = "control")]
    pub(super) failures: Failures,
    /// What the application counts.
    #[cfg(feature = "control")]
    pub(super) metrics: std::rc::Rc<crate::daemon::metrics::Register>,
}

/// Requests that have failed.
#[cfg(feature = "control")]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Failures {
    /// In a process without a slot on the board: how many.
    pub(super) count: u64,
    /// The application tells of each, so that none are known when there were none.
    pub(super) are_told: bool,
}

/// What this process is to the Daemon, and what it has as such.
pub(super) enum Role {
    Parent(Box<Parent>),
    Child(Child),
    /// A process that was just forked, or that other code has forked.
    Bystander(Bystander),
}

impl Role {
    pub(super) fn parent(&self) -> Option<&Parent> {
        if let Role::Parent(parent) = self { Some(parent) } else { None }
    }

    pub(super) fn parent_mut(&mut self) -> Option<&mut Parent> {
        if let Role::Parent(parent) = self { Some(parent) } else { None }
    }

    pub(super) fn child(&self) -> Option<&Child> {
        if let Role::Child(child) = self { Some(child) } else { None }
    }

    pub(super) fn child_mut(&mut self) -> Option<&mut Child> {
        if let Role::Child(child) = self { Some(child) } else { None }
    }
}

impl Heap {
    /// Makes what a parent has. `board` is one that other programs may look at, if they are to.
    pub(super) fn new(
        settings: Settings,
        board: Option<Scoreboard>,
        oom_kills: OomKills,
        now: SystemTime,
    ) -> Result<Heap, DaemonError> {
        let has_children = settings.forking != Forking::None;
        let board = match board {
            None if has_children => Some(Scoreboard::new(settings.slots()).map_err(DaemonError::Scoreboard)?),
            board => board,
        };
        let make_doorbell =
            || Doorbell::new().map_err(|source| DaemonError::Kernel { doing: "hanging the doorbell", source });
        let doorbell = has_children.then(make_doorbell).transpose()?;
        Ok(Heap {
            role: Role::Parent(Box::new(Parent::new(&settings, oom_kills))),
            settings,
            ended_alias: None,
            board,
            doorbell,
            #[cfg(feature = "control")]
            asks: None,
            process: Process::default(),
            config: None,
            ends_on_hup: false,
            is_over: false,
            foreign: Vec::new(),
            grace: None,
            born: now,
            mistakes: Vec::new(),
            #[cfg(feature = "control")]
            failures: Failures::default(),
            #[cfg(feature = "control")]
            metrics: crate::daemon::metrics::Register::new(),
        })
    }

    /// Tells whether this process has children of the Daemon to look after, now and later.
    pub(super) fn supervises(&self) -> bool {
        self.role.parent().is_some() && !self.is_over
    }

    /// Returns what the Daemon's times count from its spawning.
    pub(super) fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.born).unwrap_or_default()
    }

    /// In a process that was just forked, by whomever: gives up everything that is its parent's alone.
    pub(super) fn leave_to_parent(&mut self, core: &mut Core) {
        let bystander = match std::mem::replace(&mut self.role, Role::Bystander(Bystander::default())) {
            Role::Parent(parent) => parent.leave(core),
            Role::Child(child) => child.leave(core),
            Role::Bystander(bystander) => bystander,
        };
        self.role = Role::Bystander(bystander);
        self.foreign.drain(..).for_each(|pid| core.sig_child_clear(pid));
        self.grace = None;
        if let Some(doorbell) = &mut self.doorbell {
            if let Some(end) = doorbell.parents_end() {
                core.select_read_clear(end);
            }
            doorbell.become_childs();
            core.select_read_clear(doorbell.childs_end());
        }
        if let Some(launch) = &self.process.launch {
            core.select_read_clear(launch.end());
        }
        self.process.leave_to_parent();
        #[cfg(feature = "control")]
        if let Some(board) = &mut self.board {
            board.leave_to_parent();
        }
        #[cfg(feature = "control")]
        self.metrics.become_other();
    }

    pub(super) fn status(&self, pid: u32) -> DaemonStatus {
        let mut status = DaemonStatus {
            alias: self.settings.alias.clone(),
            pid,
            forking: self.settings.forking,
            is_child: self.role.parent().is_none(),
            children: Vec::new(),
            slot: self.role.child().map(|child| child.slot().get()),
            board: self.board.as_ref().map(Scoreboard::letters).unwrap_or_default(),
            free: self.board.as_ref().map(Scoreboard::free).unwrap_or_default(),
            queued: 0,
            deaths: Default::default(),
            backlog: Backlog::default(),
        };
        if let Some(parent) = self.role.parent() {
            parent.describe(self.board.as_ref(), &mut status);
        }
        status
    }
}

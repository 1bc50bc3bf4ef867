//! What decides: how many children there are, which of them has to go, when forks are tried again, how the end goes.
//!
//! [`Machine::step`] is told what has happened and returns what is to be done. It does not know a clock, a process or a kernel.
//! Time is an argument, children are slots and generations, and what it may look at is behind [`Outside`]. So a test can play whole
//! days of a daemon in a moment, and any moment again: see `sim/`.

use std::collections::VecDeque;
use std::time::Duration;

mod babysit;
mod bucket;
mod budget;
mod clients;
mod crash_loop;
mod deaf;
mod deaths;
mod demand;
mod edition;
mod effect;
mod faults;
mod forks;
mod growth;
mod input;
mod intake;
mod orders;
mod pool;
mod reap;
mod relief;
mod reload;
mod requests;
mod resize;
mod rest;
mod rogue;
mod roll;
mod run_time;
mod shutdown;
mod spares;
mod start;
mod status;
mod successor;
mod table;
mod upgrade;
mod waiting;

pub use bucket::TokenBucket;
pub use budget::Budget;
pub use clients::Backlog;
pub use crash_loop::{CrashLoop, STAYED_UP};
pub use deaths::{Cause, Deaths};
pub use demand::{Held, Hold, Reckoning, ServiceTime, StartTime, default_hold, may_retire};
pub use edition::{Edition, Rejection, ReloadNews, Setback, Tunable};
pub use effect::{Announcement, Death, Effect, Failure, Fork, Message, Note, Published, Signal};
pub use faults::Fault;
pub use growth::Growth;
pub use input::{Answer, End, Input, Killer, Outside, Process, Queues, Refusal, Says, Timer, Watch};
pub use intake::{Demand, Intake, Notice, postfork};
pub use orders::{NewSize, Order, OrderId, Shutdown, Verdict, Why};
pub use rogue::{Escalation, Meter, Rogue, Rules, Sight, Step, judge};
pub use run_time::{Grace, RunClock, Stint};
pub use spares::{Counts, Limits, Phase, Thresholds, prefork, share};
pub use status::{Report, Status, UnknownStatus};
pub use successor::{Attempt, UpgradeFault, UpgradeNews};
pub use table::{Child, Key, Request, Table, Told};
pub use waiting::{Hearing, Overload, OverloadNews, Unheard};

use clients::Clients;
use deaf::Deaf;
use forks::Shortage;
use orders::Pending;
use relief::Relief;
use reload::Reload;
use resize::Size;
use start::Start;
use upgrade::Upgrade;

use crate::daemon::settings::{Forking, Settings};

/// The deciding part of a Daemon's parent.
#[derive(Clone, Debug)]
pub struct Machine {
    settings: Settings,
    /// What orders have made of the settings.
    size: Size,
    phase: Phase,
    table: Table,
    /// Post-forking: requests that wait for a child, in the order in which they came.
    requests: VecDeque<Request>,
    intake: Intake,
    budget: Budget,
    /// Pre-forking: how the next shortage of spares is met.
    growth: Growth,
    clients: Clients,
    relief: Relief,
    published: Option<Published>,
    /// Forks have failed, or children die as soon as they live: nothing is forked before this.
    no_fork_before: Option<Duration>,
    shortage: Shortage,
    crashes: CrashLoop,
    /// The log knows that children die as soon as they live.
    is_crash_loop_told: bool,
    deaths: Deaths,
    /// For how long this process has run.
    run_clock: RunClock,
    last_measured: Duration,
    /// When the babysitter's next round is due; `None` if none was asked for.
    next_round: Option<Duration>,
    start: Start,
    has_begun: bool,
    /// What is left of `shutdown_timeout`, from a graceful end's beginning on.
    grace: Option<Grace>,
    /// It serves as before, but says that it is about to end gracefully.
    is_lame: bool,
    is_finished: bool,
    /// The end does not wait for requests in hand.
    cuts_requests: bool,
    /// How many children other code has forked.
    foreign: usize,
    pending: Pending,
    reload: Reload,
    upgrade: Upgrade,
    effects: Vec<Effect>,
    #[cfg(test)]
    fault: Option<Fault>,
}

/// One step: when it is, and what can be looked at.
struct Moment<'a> {
    now: Duration,
    outside: &'a mut dyn Outside,
}

impl Moment<'_> {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Machine {
    /// Makes the machine of a Daemon with these settings.
    pub fn new(settings: Settings) -> Machine {
        Machine {
            size: Size::new(&settings),
            phase: Phase::StartingUp,
            table: Table::new(settings.slots()),
            requests: VecDeque::new(),
            intake: Intake::Open,
            budget: Budget::new(settings.fork_burst, settings.forks_per_second),
            growth: Growth::default(),
            clients: Clients::default(),
            relief: Relief::default(),
            published: None,
            no_fork_before: None,
            shortage: Shortage::default(),
            crashes: CrashLoop::default(),
            is_crash_loop_told: false,
            deaths: Deaths::default(),
            run_clock: RunClock::new(settings.look_every(), Duration::ZERO),
            last_measured: Duration::ZERO,
            next_round: None,
            start: Start::default(),
            has_begun: false,
            grace: None,
            is_lame: false,
            is_finished: false,
            cuts_requests: false,
            foreign: 0,
            pending: Pending::default(),
            reload: Reload::new(&settings),
            upgrade: Upgrade::default(),
            effects: Vec::new(),
            settings,
            #[cfg(test)]
            fault: None,
        }
    }

    /// Makes a machine that has a fault.
    #[cfg(test)]
    pub fn with_fault(settings: Settings, fault: Fault) -> Machine {
        Machine { fault: Some(fault), ..Machine::new(settings) }
    }

    /// Tells whether it has this fault.
    #[cfg(test)]
    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "with tests it looks")]
    const fn has(&self, _: Fault) -> bool {
        false
    }

    /// Takes note of what has happened, `now` after the Daemon was made, and returns what is to be done about it, in order.
    ///
    /// It is total: what does not fit is ignored.
    pub fn step(&mut self, now: Duration, outside: &mut dyn Outside, input: Input) -> Vec<Effect> {
        let at = &mut Moment { now, outside };
        match input {
            Input::Begin => self.begin(at),
            // The pool is looked at in any case.
            Input::Bell | Input::Due(Timer::Maintain | Timer::WeighQueue | Timer::EndHold) => {}
            Input::Forked(key, outcome) => self.forked(at, key, outcome),
            Input::Reaped(key, end) => self.reap(at, key, end),
            Input::Request { number, is_long } => self.take_request(Request { number, is_long }),
            Input::Client(Watch::Queue) => self.client_in_queue(at),
            Input::Client(Watch::Relief) => self.client_waits(at),
            Input::Asked(id, order) => self.take_order(at, id, order),
            Input::Reopened { has_failed } => self.reopened(has_failed),
            Input::Launched => self.launched(),
            Input::Started => self.started(),
            Input::LauncherGone { has_acknowledged } => self.launcher_is_gone(at, has_acknowledged),
            Input::Foreign(number) => self.foreign_changed(at, number),
            Input::Due(Timer::RetryForks) => self.retry_forks(),
            Input::Due(Timer::Relieve) => self.relieve(at),
            Input::Due(Timer::LookAtQueue) => self.look_at_queue(at),
            Input::Due(Timer::HearAnswers) => self.hear_answers(at),
            Input::Due(Timer::WatchQueue) => self.watch_queue_again(),
            Input::Due(Timer::Babysit) => self.babysit(at),
            Input::Due(Timer::LookAtChildren) => self.look_at_children(at),
            Input::Due(Timer::Grace) => self.look_at_grace(at),
            Input::Due(Timer::LameDuck) => self.end_lame_duck(at),
            Input::Due(Timer::StartLate) => self.start_is_late(at),
            Input::ScoutBegins(edition) => self.scout_begins(edition),
            Input::Scouted(edition, outcome) => self.scouted(at, edition, outcome),
            Input::Loaded(edition, outcome) => self.loaded(at, edition, outcome),
            Input::Due(Timer::LoadLate) => self.load_is_late(at),
            Input::Due(Timer::Probation) => self.end_probation(),
            Input::Due(timer @ (Timer::RollLate | Timer::Cut)) => self.reload_timer_is_due(timer),
            Input::SuccessorGreeted(attempt) => self.successor_greeted(at, attempt),
            Input::SuccessorReady(attempt) => self.successor_ready(at, attempt),
            Input::SuccessorTookOver(attempt) => self.successor_took_over(at, attempt),
            Input::SuccessorFailed(attempt, why) => self.successor_failed(at, attempt, why),
            Input::SuccessorStops(attempt) => self.successor_stops(at, attempt),
            Input::Due(Timer::Upgrade) => self.upgrade_is_due(at),
        }
        self.maintain(at);
        std::mem::take(&mut self.effects)
    }

    /// `daemon_start` was handled: the first children are forked.
    fn begin(&mut self, at: &Moment<'_>) {
        if self.is_shutting_down() {
            return;
        }
        self.has_begun = true;
        self.begin_babysitting(at);
        if self.settings.forking != Forking::Pre {
            self.phase = Phase::Running;
            self.started();
        }
    }

    /// Looks at the board and does what the policy says. The end of every step: whatever was done before it, nothing that is
    /// missing waits for the next one.
    fn maintain(&mut self, at: &mut Moment<'_>) {
        if self.has_begun && !self.is_shutting_down() {
            match self.settings.forking {
                Forking::Pre if self.is_resting() && !self.has(Fault::ForksWhileResting) => self.keep_resting(at),
                Forking::Pre => {
                    // A TTOU may have made do with the children that are there.
                    self.end_start_up();
                    self.keep_spares(at);
                }
                Forking::Post => self.serve_requests(at),
                Forking::None => self.begin_roll_if_due(at),
            }
        }
        if !self.is_shutting_down() {
            self.cut_outdated(at);
        }
        self.end_shortage_if_over(at);
        self.tell_if_ready(at);
        self.finish_if_alone();
    }

    fn is_shutting_down(&self) -> bool {
        self.phase == Phase::ShuttingDown
    }

    /// Tells whether it ends after the requests in hand.
    pub fn ends_gently(&self) -> bool {
        self.is_lame || self.is_draining() || self.is_shutting_down() && !self.cuts_requests
    }

    /// Returns how much time children have left to end, as it was at the last look. `None` if the Daemon does not end.
    pub fn grace_left(&self) -> Option<Duration> {
        self.grace.as_ref().map(Grace::last_left)
    }

    /// Post-forking: it serves what is queued, before a graceful end.
    pub fn is_draining(&self) -> bool {
        self.grace.is_some() && !self.is_lame && !self.is_shutting_down()
    }

    /// Returns the table of children.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Returns the settings as orders have changed them.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns where in its life the Daemon is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Returns since when clients have waited although all children are busy and there can't be more.
    #[cfg(feature = "control")]
    pub fn saturated_since(&self) -> Option<Duration> {
        self.clients.overload.since()
    }

    /// Returns for how long clients have waited so, all in all.
    #[cfg(feature = "control")]
    pub fn saturated_for(&self) -> Duration {
        self.clients.overload.total()
    }

    /// Tells whether forks wait: the last ones have failed, or children die as soon as they live.
    #[cfg(feature = "control")]
    pub fn is_backing_off(&self) -> bool {
        self.no_fork_before.is_some()
    }

    /// Returns how many children have ended, and why.
    pub fn deaths(&self) -> Deaths {
        self.deaths
    }

    /// Returns how many requests wait for a child.
    pub fn queued(&self) -> usize {
        self.requests.len()
    }

    /// Returns what was last seen of the clients that wait to be accepted.
    pub fn backlog(&self) -> Backlog {
        self.clients.seen
    }
}

#[cfg(test)]
mod reload_tests;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod upgrade_tests;

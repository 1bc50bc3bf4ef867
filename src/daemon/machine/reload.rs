//! Reloads: a new edition of the settings is tried, and then taken or given up, while the pool goes on serving.
//!
//! Each child has the edition of the settings that it was forked with. A reload is a *run*, which has these stages:
//!
//! 1. *Asked*: the file is about to be read. An order that comes now gets the verdict of this run.
//! 2. *Scouting*: a process of its own loads what was read. An order that comes from now on gets the verdict of the next run.
//! 3. *Loading*: the parent loads the same bytes.
//! 4. *Waiting*: until all children are of one edition. No more than two editions have children at a time.
//! 5. *Rolling*: see `roll`. At its end the new edition is the current one, or its children are gone.
//!
//! After that the former edition is kept for the time of the *probation*, and goes on if the new one crash-loops.

use std::time::Duration;

#[cfg(any(test, feature = "control"))]
use super::edition::ReloadStage;
use super::edition::{FIRST, Tunable};
use super::resize::Limits;
use super::roll::{Goal, Roll};
use super::{
    Edition, Effect, Fault, Machine, Message, Moment, OrderId, Rejection, ReloadNews, Setback, Timer, Verdict, Why,
};
use crate::daemon::settings::{Forking, Settings};

/// Which editions there are, and what is under way.
#[derive(Clone, Debug)]
pub(super) struct Reload {
    pub(super) current: Edition,
    /// What the file of the current edition says.
    tunable: Tunable,
    last: Edition,
    run: Option<Run>,
    /// Who has asked for another run after this one, and whether for a check only.
    next: Vec<Asker>,
    pub(super) roll: Option<Roll>,
    probation: Option<Probation>,
    /// When the timers are due, so that they are not armed anew at each step.
    pub(super) late_at: Option<Duration>,
    pub(super) cut_at: Option<Duration>,
    /// An operator does not want to wait for those that were replaced.
    pub(super) cuts_now: bool,
}

#[derive(Clone, Copy, Debug)]
struct Asker {
    order: OrderId,
    is_check: bool,
}

#[derive(Clone, Debug)]
struct Run {
    edition: Edition,
    askers: Vec<Asker>,
    stage: Stage,
    begun: Duration,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Asked,
    Scouting,
    Loading,
    Waiting(Tunable),
    Rolling,
}

/// The former edition, which goes on if the current one crash-loops.
#[derive(Clone, Copy, Debug)]
struct Probation {
    edition: Edition,
    tunable: Tunable,
    /// The size before, as orders had changed it.
    size: Limits,
    /// How many children were ready before.
    ready_before: u32,
}

impl Reload {
    pub(super) fn has_probation(&self) -> bool {
        self.probation.is_some()
    }

    #[cfg(test)]
    pub(super) fn has_run(&self) -> bool {
        self.run.is_some()
    }

    pub(super) fn new(settings: &Settings) -> Reload {
        Reload {
            current: FIRST,
            tunable: Tunable::of(settings),
            last: FIRST,
            run: None,
            next: Vec::new(),
            roll: None,
            probation: None,
            late_at: None,
            cut_at: None,
            cuts_now: false,
        }
    }
}

impl Machine {
    /// Somebody asks for a reload, or for a check, which is one that ends when the file was loaded.
    pub(super) fn ask_for_reload(&mut self, at: &Moment<'_>, order: OrderId, is_check: bool) {
        if !self.settings.reload.is_possible {
            return self.answer(order, Verdict::Refused(Why::NoConfiguration));
        }
        if self.is_lame || self.is_draining() {
            return self.answer(order, Verdict::Refused(Why::ShuttingDown));
        }
        if self.is_upgrading() {
            return self.answer(order, Verdict::Refused(Why::Upgrading));
        }
        let asker = Asker { order, is_check };
        let joins_late = self.has(Fault::ReloadJoinsLate);
        match &mut self.reload.run {
            None => self.begin_run(at, vec![asker]),
            // The file was not read yet.
            Some(run) if run.stage == Stage::Asked || joins_late => run.askers.push(asker),
            Some(_) => self.reload.next.push(asker),
        }
    }

    fn begin_run(&mut self, at: &Moment<'_>, askers: Vec<Asker>) {
        let edition = Edition(self.reload.last.0 + 1);
        self.reload.last = edition;
        self.reload.run = Some(Run { edition, askers, stage: Stage::Asked, begun: at.now });
        self.effects.extend([Effect::Say(Message::Reload(edition, ReloadNews::Begun)), Effect::Scout(edition)]);
    }

    /// The file is about to be read.
    pub(super) fn scout_begins(&mut self, edition: Edition) {
        if let Some(run) = self.run_in(edition, Stage::Asked) {
            run.stage = Stage::Scouting;
            if !self.has(Fault::LoadNotLimited) {
                self.effects.push(Effect::Arm(Timer::LoadLate, self.settings.reload.load_timeout));
            }
        }
    }

    fn run_in(&mut self, edition: Edition, stage: Stage) -> Option<&mut Run> {
        self.reload.run.as_mut().filter(|run| run.edition == edition && run.stage == stage)
    }

    /// The scout has loaded the file, or has not.
    pub(super) fn scouted(&mut self, at: &Moment<'_>, edition: Edition, outcome: Result<(), Rejection>) {
        let Some(run) = self.run_in(edition, Stage::Scouting) else { return };
        if let Err(why) = outcome {
            self.effects.push(Effect::Disarm(Timer::LoadLate));
            return self.reject(at, why);
        }
        run.stage = Stage::Loading;
        let (checks, askers): (Vec<Asker>, Vec<Asker>) =
            std::mem::take(&mut run.askers).into_iter().partition(|asker| asker.is_check);
        let (is_over, took) = (askers.is_empty(), at.now.saturating_sub(run.begun));
        run.askers = askers;
        self.effects.push(Effect::Disarm(Timer::LoadLate));
        if !is_over {
            self.effects.extend(checks.into_iter().map(|asker| Effect::Answer(asker.order, Verdict::Applied)));
            return self.effects.push(Effect::Load(edition));
        }
        self.effects.push(Effect::Say(Message::Reload(edition, ReloadNews::Checked { took })));
        self.effects.extend(checks.into_iter().map(|asker| Effect::Answer(asker.order, Verdict::Applied)));
        self.effects.push(Effect::Drop(edition));
        self.end_run(at);
    }

    /// The parent has loaded the same bytes, or has not.
    pub(super) fn loaded(&mut self, at: &Moment<'_>, edition: Edition, outcome: Result<Tunable, Rejection>) {
        let Some(run) = self.run_in(edition, Stage::Loading) else { return };
        match outcome {
            Err(why) => self.reject(at, why),
            Ok(tunable) => {
                run.stage = Stage::Waiting(tunable);
                self.effects.push(Effect::Say(Message::Reload(edition, ReloadNews::Loaded)));
            }
        }
    }

    /// The scout has had its time.
    pub(super) fn load_is_late(&mut self, at: &Moment<'_>) {
        if self.reload.run.as_ref().is_some_and(|run| run.stage == Stage::Scouting) {
            self.effects.push(Effect::EndScout);
            self.reject(at, Rejection::TimedOut);
        }
    }

    fn reject(&mut self, at: &Moment<'_>, why: Rejection) {
        let Some(run) = &self.reload.run else { return };
        let took = at.now.saturating_sub(run.begun);
        let is_check = run.askers.iter().all(|asker| asker.is_check);
        self.effects.extend([
            Effect::Say(Message::Reload(run.edition, ReloadNews::Rejected { why, took, is_check })),
            Effect::Drop(run.edition),
        ]);
        self.answer_run(Verdict::Rejected(why));
        self.end_run(at);
    }

    fn answer_run(&mut self, verdict: Verdict) {
        let askers = self.reload.run.as_mut().map(|run| std::mem::take(&mut run.askers)).unwrap_or_default();
        self.effects.extend(askers.into_iter().map(|asker| Effect::Answer(asker.order, verdict)));
    }

    /// The run has its verdict. Those who have asked meanwhile get the next one.
    fn end_run(&mut self, at: &Moment<'_>) {
        self.reload.run = None;
        let next = std::mem::take(&mut self.reload.next);
        if !next.is_empty() && !self.has(Fault::CoalescedReloadLost) {
            self.begin_run(at, next);
        }
    }

    /// Begins to roll, if a run waits for that and no third edition has children.
    pub(super) fn begin_roll_if_due(&mut self, at: &mut Moment<'_>) {
        let Some(Run { edition, stage: Stage::Waiting(tunable), .. }) = self.reload.run else { return };
        let is_due = self.has_begun && self.reload.roll.is_none();
        if self.settings.forking != Forking::None
            && !(is_due && (self.has_one_edition() || self.has(Fault::ThreeEditions)))
        {
            return;
        }
        self.end_probation();
        if let Some(run) = &mut self.reload.run {
            run.stage = Stage::Rolling;
        }
        let ready_before = self.ready(at);
        self.reload.roll = Some(Roll::new(edition, Goal::Forward(tunable), ready_before, at.now));
        if self.settings.forking == Forking::None {
            self.applied(at);
        }
    }

    fn has_one_edition(&self) -> bool {
        let current = self.reload.current;
        self.table.children().iter().all(|child| child.edition == current)
            && self.table.in_flight().iter().all(|fork| fork.edition == current)
    }

    /// The new edition is the current one.
    pub(super) fn applied(&mut self, at: &mut Moment<'_>) {
        let Some(Roll { to, goal: Goal::Forward(tunable), ready_before, .. }) = self.reload.roll.take() else { return };
        let took = self.reload.run.as_ref().map_or(Duration::ZERO, |run| at.now.saturating_sub(run.begun));
        let former = Probation {
            edition: self.reload.current,
            tunable: self.reload.tunable,
            size: Limits::of(&self.settings),
            ready_before,
        };
        self.effects.push(Effect::Adopt(to));
        self.become_edition(to, tunable, tunable.size);
        self.effects.push(Effect::Say(Message::Reload(to, ReloadNews::Applied { took })));
        if self.settings.has_way_back() {
            self.reload.probation = Some(former);
            self.effects.push(Effect::Arm(Timer::Probation, self.settings.reload.probation));
        } else {
            self.effects.push(Effect::Drop(former.edition));
        }
        self.outdate_others(at);
        self.answer_run(Verdict::Applied);
        self.end_run(at);
    }

    /// Has the settings of another edition. The numbers that it changes become those of `size`.
    fn become_edition(&mut self, edition: Edition, tunable: Tunable, size: Limits) {
        let former = std::mem::replace(&mut self.reload.tunable, tunable);
        self.reload.current = edition;
        (self.settings.requests, self.settings.requests_jitter) = (tunable.requests, tunable.requests_jitter);
        self.change_size(former, tunable, size);
        // What the children of the former edition have done says nothing about these.
        self.crashes = Default::default();
        if self.shortage_is_none() && self.no_fork_before.take().is_some() {
            self.effects.push(Effect::Disarm(Timer::RetryForks));
        }
    }

    /// The old children are all there again.
    pub(super) fn rolled_back(&mut self, at: &Moment<'_>, why: Setback) {
        self.reload.roll = None;
        let Some(run) = &self.reload.run else { return };
        let took = at.now.saturating_sub(run.begun);
        self.effects.extend([
            Effect::Say(Message::Reload(run.edition, ReloadNews::RolledBack { why, took })),
            Effect::Drop(run.edition),
        ]);
        self.answer_run(Verdict::RolledBack(why));
        self.end_run(at);
    }

    /// Children of the current edition die as soon as they are forked. During the probation the former edition goes on, once.
    pub(super) fn take_back(&mut self, at: &Moment<'_>) {
        if self.has(Fault::ProbationIgnored) {
            return;
        }
        let Some(Probation { edition, tunable, size, ready_before }) = self.reload.probation.take() else { return };
        let failed = self.reload.current;
        self.effects.extend([
            Effect::Disarm(Timer::Probation),
            Effect::Say(Message::Reload(failed, ReloadNews::TakenBack { to: edition })),
            Effect::Adopt(edition),
        ]);
        self.become_edition(edition, tunable, size);
        self.reload.roll = Some(Roll::new(edition, Goal::Again(failed), ready_before, at.now));
    }

    /// The probation is over: there is no way back any more.
    pub(super) fn end_probation(&mut self) {
        if let Some(former) = self.reload.probation.take() {
            self.effects.extend([
                Effect::Disarm(Timer::Probation),
                Effect::Say(Message::Reload(self.reload.current, ReloadNews::ProbationOver)),
                Effect::Drop(former.edition),
            ]);
        }
    }

    /// The Daemon is to end: whatever was to become of its settings.
    pub(super) fn supersede_reload(&mut self) {
        self.reload.roll = None;
        self.reload.probation = None;
        let next = std::mem::take(&mut self.reload.next);
        let Some(run) = self.reload.run.take() else { return };
        if run.stage == Stage::Scouting {
            self.effects.extend([Effect::Disarm(Timer::LoadLate), Effect::EndScout]);
        }
        self.effects.push(Effect::Say(Message::Reload(run.edition, ReloadNews::Superseded)));
        if self.has(Fault::ReloadNotSuperseded) {
            return;
        }
        let askers = run.askers.into_iter().chain(next);
        self.effects.extend(askers.map(|asker| Effect::Answer(asker.order, Verdict::Superseded)));
    }

    /// What these timers are for is looked at after each step, and they are armed anew if need be.
    pub(super) fn reload_timer_is_due(&mut self, timer: Timer) {
        match timer {
            Timer::RollLate => self.reload.late_at = None,
            _ => self.reload.cut_at = None,
        }
    }

    /// Tells whether this is the run that is under way, and somebody wants it applied.
    pub fn runs_for_more_than_checks(&self, edition: Edition) -> bool {
        self.reload
            .run
            .as_ref()
            .is_some_and(|run| run.edition == edition && run.askers.iter().any(|asker| !asker.is_check))
    }

    /// Tells whether a run is under way, or a way back.
    pub fn is_reloading(&self) -> bool {
        self.reload.run.is_some() || self.reload.roll.is_some()
    }

    /// Returns the edition that is in force.
    pub fn edition(&self) -> Edition {
        self.reload.current
    }

    /// Returns the run that is under way, or the edition on probation, and how far it has come.
    #[cfg(any(test, feature = "control"))]
    pub fn reload_stage(&self) -> Option<(Edition, ReloadStage)> {
        let Some(run) = &self.reload.run else {
            return match &self.reload.roll {
                Some(roll) => Some((roll.to, ReloadStage::RollingBack)),
                None => self.reload.probation.map(|_| (self.reload.current, ReloadStage::Probation)),
            };
        };
        let stage = match (run.stage, &self.reload.roll) {
            (Stage::Asked | Stage::Scouting | Stage::Loading, _) => ReloadStage::Scouting,
            (Stage::Rolling, Some(roll)) => roll.stage(),
            (Stage::Waiting(_) | Stage::Rolling, _) => ReloadStage::Waiting,
        };
        Some((run.edition, stage))
    }
}

//! Upgrades: a successor is started, proves itself, and takes this process's place while clients are served.
//!
//! The successor is the program, forked and executed anew, with the same listeners. An upgrade is an *attempt*, which has these
//! stages:
//!
//! 1. *Spawned*: the successor has been started, and is to greet within `greeting_limit`.
//! 2. *Loading*: it has greeted, and is to be ready. Both serve clients from then on.
//! 3. *Ready*: it is, and is given the names.
//! 4. *Probation*: it has them. This process *rests*: its children are asked to go, none are forked, and it accepts nothing. Its
//!    listeners stay open, so that it can take everything back.
//!
//! From the start of the successor until it has taken over it has `upgrade_timeout`. After the probation there is no way back: this
//! process ends as after QUIT, with `drain_limit` for its children.
//!
//! What the resting pool does is in `rest`.

use std::time::Duration;

use super::roll::PATIENCE;
#[cfg(any(test, feature = "control"))]
use super::successor::UpgradeStage;
use super::{
    Attempt, Effect, Fault, Machine, Message, Moment, OrderId, Phase, Rejection, Setback, Shutdown, Timer,
    UpgradeFault, UpgradeNews, Verdict, Why,
};
use crate::daemon::settings::Forking;

/// What is known of successors.
#[derive(Clone, Debug, Default)]
pub(super) struct Upgrade {
    last: u32,
    run: Option<Run>,
    /// A successor has taken over, and has not failed since.
    pub(super) is_resting: bool,
    /// It has everything for good.
    has_left: bool,
    /// This process has just taken everything back, and its pool has no children.
    pub(super) refills: bool,
}

/// An attempt that is under way.
#[derive(Clone, Copy, Debug)]
struct Run {
    attempt: Attempt,
    order: OrderId,
    stage: Stage,
    begun: Duration,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Spawned,
    Loading,
    Ready,
    Probation,
}

impl Machine {
    /// Somebody asks for an upgrade.
    pub(super) fn ask_for_upgrade(&mut self, at: &Moment<'_>, order: OrderId) {
        let why = if self.is_lame || self.is_draining() {
            Some(Why::ShuttingDown)
        } else if self.upgrade.run.is_some() && !self.has(Fault::TwoAttempts) {
            Some(Why::Upgrading)
        } else if !self.has_started() {
            Some(Why::StartingUp)
        } else if self.is_reloading() {
            Some(Why::Reloading)
        } else {
            None
        };
        if let Some(why) = why {
            return self.answer(order, Verdict::Refused(why));
        }
        self.end_probation();
        let attempt = Attempt(self.upgrade.last + 1);
        self.upgrade.last = attempt.0;
        self.upgrade.run = Some(Run { attempt, order, stage: Stage::Spawned, begun: at.now });
        self.effects.extend([
            Effect::Say(Message::Upgrade(attempt, UpgradeNews::Begun)),
            Effect::Arm(Timer::Upgrade, self.settings.greeting_limit),
            Effect::StartSuccessor(attempt),
        ]);
    }

    fn run_of(&mut self, attempt: Attempt, stage: Stage) -> Option<&mut Run> {
        let is_any = self.has(Fault::FormerAttemptHeard);
        self.upgrade.run.as_mut().filter(|run| (run.attempt == attempt || is_any) && run.stage == stage)
    }

    /// The successor speaks the same language.
    pub(super) fn successor_greeted(&mut self, at: &Moment<'_>, attempt: Attempt) {
        let limit = self.settings.upgrade_timeout;
        let Some(run) = self.run_of(attempt, Stage::Spawned) else { return };
        run.stage = Stage::Loading;
        let left = limit.saturating_sub(at.now.saturating_sub(run.begun));
        self.effects
            .extend([Effect::Say(Message::Upgrade(attempt, UpgradeNews::Greeted)), Effect::Arm(Timer::Upgrade, left)]);
    }

    /// The successor can serve.
    pub(super) fn successor_ready(&mut self, at: &mut Moment<'_>, attempt: Attempt) {
        let Some(run) = self.run_of(attempt, Stage::Loading) else { return };
        run.stage = Stage::Ready;
        self.effects.extend([Effect::Say(Message::Upgrade(attempt, UpgradeNews::Ready)), Effect::HandOver(attempt)]);
        if self.has(Fault::RetiredBeforeTookOver) {
            self.send_all_away(at);
        }
    }

    /// The successor has the names.
    pub(super) fn successor_took_over(&mut self, at: &mut Moment<'_>, attempt: Attempt) {
        let Some(run) = self.run_of(attempt, Stage::Ready) else { return };
        run.stage = Stage::Probation;
        let took = at.now.saturating_sub(run.begun);
        self.effects.push(Effect::Say(Message::Upgrade(attempt, UpgradeNews::TookOver { took })));
        self.begin_to_rest(at);
        let probation = self.settings.reload.probation;
        if probation.is_zero() {
            self.upgrade_applied(at);
        } else if self.has(Fault::SuccessorOnProbationForEver) {
            self.effects.push(Effect::Disarm(Timer::Upgrade));
        } else {
            self.effects.push(Effect::Arm(Timer::Upgrade, probation));
        }
    }

    /// The time for the present stage is up.
    pub(super) fn upgrade_is_due(&mut self, at: &mut Moment<'_>) {
        let Some(run) = self.upgrade.run else { return };
        match run.stage {
            Stage::Spawned if self.has(Fault::GreetingNotLimited) => {}
            Stage::Spawned => self.successor_failed(at, run.attempt, UpgradeFault::NotGreeted),
            Stage::Loading => self.successor_failed(at, run.attempt, UpgradeFault::Late),
            Stage::Ready => self.successor_failed(at, run.attempt, UpgradeFault::NotTaken),
            Stage::Probation => self.upgrade_applied(at),
        }
    }

    /// The successor has failed: all is as it was before.
    pub(super) fn successor_failed(&mut self, at: &Moment<'_>, attempt: Attempt, why: UpgradeFault) {
        let is_any = self.has(Fault::FormerAttemptHeard);
        let Some(run) = self.upgrade.run.filter(|run| run.attempt == attempt || is_any) else { return };
        if self.has(Fault::DeathOnProbationIgnored) && run.stage == Stage::Probation {
            return;
        }
        self.let_go_of_successor();
        let took = at.now.saturating_sub(run.begun);
        let (news, verdict) = if run.stage == Stage::Spawned {
            (UpgradeNews::Rejected { why, took }, Verdict::Rejected(Rejection::Successor(why)))
        } else {
            (UpgradeNews::RolledBack { why, took }, Verdict::RolledBack(Setback::Successor(why)))
        };
        self.effects.push(Effect::Say(Message::Upgrade(run.attempt, news)));
        self.answer(run.order, verdict);
    }

    /// Ends the attempt, and has again what was given away.
    fn let_go_of_successor(&mut self) {
        let Some(run) = self.upgrade.run.take() else { return };
        self.effects.push(Effect::Disarm(Timer::Upgrade));
        if !self.has(Fault::SuccessorNotEnded) {
            self.effects.push(Effect::EndSuccessor(run.attempt));
        }
        let was_given = matches!(run.stage, Stage::Ready | Stage::Probation);
        if was_given && !(run.stage == Stage::Ready && self.has(Fault::NamesNotTakenBack)) {
            self.effects.push(Effect::TakeBack);
        }
        if run.stage == Stage::Probation {
            self.end_rest();
        }
    }

    /// The probation is over, or an operator does not want to wait for that.
    fn upgrade_applied(&mut self, at: &mut Moment<'_>) {
        self.leave_to_successor(at, true);
        let limit =
            if self.has(Fault::UpgradeDrainNotLimited) { Duration::MAX } else { self.settings.reload.drain_limit };
        self.drain(at, limit);
    }

    /// An operator ends the successor that is on probation. He wants no server at all, so nothing is taken back.
    pub(super) fn successor_stops(&mut self, at: &mut Moment<'_>, attempt: Attempt) {
        if self.run_of(attempt, Stage::Probation).is_some() {
            self.leave_to_successor(at, false);
            self.drain(at, self.settings.shutdown_timeout);
        }
    }

    /// Gives the successor that has taken over everything for good.
    fn leave_to_successor(&mut self, at: &Moment<'_>, is_applied: bool) {
        let Some(run) = self.upgrade.run.take() else { return };
        self.upgrade.has_left = true;
        let took = at.now.saturating_sub(run.begun);
        let (news, verdict) = if is_applied {
            (UpgradeNews::Applied { took }, Verdict::Applied)
        } else {
            (UpgradeNews::Superseded, Verdict::Superseded)
        };
        self.effects.extend([Effect::Disarm(Timer::Upgrade), Effect::Say(Message::Upgrade(run.attempt, news))]);
        self.answer(run.order, verdict);
        if !self.has(Fault::NamesNotLeft) {
            self.effects.push(Effect::LeaveAll);
        }
    }

    /// Nobody wants to wait for the requests in hand: a successor that was told to end has no time for its own either.
    pub(super) fn hurry_successor(&mut self) {
        if self.upgrade.last > 0 {
            self.effects.push(Effect::HurrySuccessor);
        }
    }

    /// The Daemon is to end: a successor that has taken over stays, any other goes.
    pub(super) fn settle_upgrade(&mut self, at: &Moment<'_>) {
        let Some(run) = self.upgrade.run else { return };
        if run.stage == Stage::Probation {
            return self.leave_to_successor(at, true);
        }
        self.let_go_of_successor();
        self.effects.push(Effect::Say(Message::Upgrade(run.attempt, UpgradeNews::Superseded)));
        if !self.has(Fault::UpgradeNotSuperseded) {
            self.answer(run.order, Verdict::Superseded);
        }
    }

    /// Somebody does not want to wait for those that have been replaced: by a successor, or by a reload.
    pub(super) fn finish_by_order(&mut self, at: &mut Moment<'_>, id: OrderId) {
        if self.upgrade.run.is_some_and(|run| run.stage == Stage::Probation) {
            self.answer(id, Verdict::Applied);
            return self.upgrade_applied(at);
        }
        let ends = self.upgrade.has_left || self.ends_gently();
        if ends && !self.has(Fault::FinishIgnored) {
            self.stop(at, id, Shutdown::Immediate);
            if self.upgrade.has_left {
                // As those that a reload has replaced.
                self.shorten_grace(at, PATIENCE);
            }
            return;
        }
        let verdict = if !self.is_shutting_down() && self.cut_outdated_now() {
            Verdict::Applied
        } else {
            Verdict::Refused(Why::NothingToFinish)
        };
        self.answer(id, verdict);
    }

    /// Tells whether the start is over, and nobody waits for that.
    fn has_started(&self) -> bool {
        let is_complete = self.settings.forking != Forking::Pre || self.phase == Phase::Running;
        self.has_begun && is_complete && !self.start.is_awaited()
    }

    /// Tells whether an upgrade is under way, up to the end of this process.
    pub(super) fn is_upgrading(&self) -> bool {
        self.upgrade.run.is_some() || self.upgrade.has_left
    }

    /// Tells whether a successor serves in this process's place.
    pub fn is_resting(&self) -> bool {
        self.upgrade.is_resting
    }

    /// Tells whether a successor has everything for good.
    pub(super) fn has_left(&self) -> bool {
        self.upgrade.has_left
    }

    /// Returns how far an upgrade has come.
    #[cfg(any(test, feature = "control"))]
    pub fn upgrade_stage(&self) -> Option<UpgradeStage> {
        let Some(run) = self.upgrade.run else { return self.upgrade.has_left.then_some(UpgradeStage::Draining) };
        Some(match run.stage {
            Stage::Spawned => UpgradeStage::Spawned,
            Stage::Loading => UpgradeStage::Loading,
            Stage::Ready => UpgradeStage::Ready,
            Stage::Probation => UpgradeStage::Probation,
        })
    }
}

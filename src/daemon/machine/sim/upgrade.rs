//! What must hold of upgrades: by what the machine has said and done so far.

use super::decisions::Chain;
use super::rules::{Rules, Violation, broken, micros};
use super::world::World;
use crate::daemon::machine::{
    Attempt, Effect, Input, Machine, Message, Order, Phase, Rejection, Setback, Shutdown, Signal, Timer, TokenBucket,
    UpgradeFault, UpgradeNews, Verdict,
};

/// What is known of the upgrade that is under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    run: Option<Run>,
    /// The successor has taken over: the Daemon accepts nothing.
    pub(super) rests: bool,
    /// The successor has everything for good.
    pub(super) has_left: bool,
    /// Everything was taken back in this step.
    pub(super) refills: bool,
    /// The verdict that whoever has asked is owed in this step.
    owed: Option<Verdict>,
    /// An order to finish has something to do.
    pub(super) can_finish: bool,
    /// Since when replaced children have no more time.
    pub(super) cut_at: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    attempt: Attempt,
    begun: u64,
    has_greeted: bool,
    is_ready: bool,
    /// It has the names, or is about to.
    has_names: bool,
    took_over: Option<u64>,
    is_ended: bool,
    is_over: bool,
}

impl Model {
    fn run_of(&mut self, attempt: Attempt) -> Option<&mut Run> {
        self.run.as_mut().filter(|run| run.attempt == attempt)
    }
}

/// Which successor this is said of.
fn attempt_of(input: &Input) -> Option<Attempt> {
    match *input {
        Input::SuccessorGreeted(attempt)
        | Input::SuccessorReady(attempt)
        | Input::SuccessorTookOver(attempt)
        | Input::SuccessorFailed(attempt, _)
        | Input::SuccessorStops(attempt) => Some(attempt),
        _ => None,
    }
}

impl Rules {
    /// What is about to be told.
    pub(super) fn before_upgrade(&mut self, input: &Input, machine: &Machine, world: &World) {
        let now = world.now;
        match *input {
            Input::SuccessorGreeted(attempt) => {
                if let Some(run) = self.upgrade.run_of(attempt) {
                    run.has_greeted = true;
                }
            }
            Input::SuccessorReady(attempt) => {
                if let Some(run) = self.upgrade.run_of(attempt) {
                    run.is_ready = run.has_greeted;
                }
            }
            Input::SuccessorTookOver(attempt) => {
                if let Some(run) = self.upgrade.run_of(attempt).filter(|run| run.has_names) {
                    run.took_over.get_or_insert(now);
                }
            }
            Input::Asked(_, Order::Finish) => {
                let is_on_probation = self.upgrade.run.is_some_and(|run| run.took_over.is_some());
                let ends = self.upgrade.has_left || machine.ends_gently();
                let is_replaced = |child: &crate::daemon::machine::Child| child.outdated.is_some();
                self.upgrade.can_finish = is_on_probation || ends;
                if !is_on_probation && !ends && machine.table().children().iter().any(is_replaced) {
                    self.upgrade.cut_at = Some(now);
                }
                if ends && !is_on_probation {
                    self.hurry(world, micros(self.first.shutdown_timeout).min(CUT_LIMIT));
                }
            }
            Input::Asked(_, Order::Stop(Shutdown::Immediate) | Order::Terminate) => {
                self.hurry(world, micros(self.first.shutdown_timeout));
            }
            _ => {}
        }
    }

    /// Children that have `drain_limit` have no more than this time from now on.
    fn hurry(&mut self, world: &World, limit: u64) {
        if let Some(since) = self.stopping_since.filter(|_| self.upgrade.has_left) {
            let ran = (world.now - since).saturating_sub(world.suspended_since(since));
            self.stop_limit = self.stop_limit.min(ran + limit);
        }
    }

    /// The machine wants something done.
    pub(super) fn upgrade_goes_on(&mut self, now: u64, input: &Input, effect: &Effect) -> Result<(), Violation> {
        let model = &mut self.upgrade;
        match effect {
            Effect::StartSuccessor(attempt) => {
                if model.run.is_some() || model.has_left {
                    return broken("one upgrade at a time", attempt);
                }
                model.run = Some(Run {
                    attempt: *attempt,
                    begun: now,
                    has_greeted: false,
                    is_ready: false,
                    has_names: false,
                    took_over: None,
                    is_ended: false,
                    is_over: false,
                });
            }
            Effect::HandOver(attempt) => match model.run_of(*attempt) {
                Some(run) if run.is_ready && !run.has_names => run.has_names = true,
                _ => return broken("a successor gets the names once, when it is ready", attempt),
            },
            Effect::EndSuccessor(attempt) => match model.run_of(*attempt) {
                Some(run) => run.is_ended = true,
                None => return broken("the successor is ended that was started", attempt),
            },
            Effect::TakeBack => match &mut model.run {
                Some(run) if run.has_names => run.has_names = false,
                _ => return broken("only names that were given are taken back", ""),
            },
            Effect::Rest(true) => {
                if model.rests || model.run.is_none_or(|run| run.took_over.is_none()) {
                    return broken("a rest begins when the successor has taken over", "");
                }
                model.rests = true;
            }
            Effect::Rest(false) => {
                if !std::mem::take(&mut model.rests) || model.has_left {
                    return broken("a rest ends that has begun", "");
                }
                model.refills = true;
                self.crashes = Chain::default();
                self.early = 0;
                self.replacements = TokenBucket::new(self.first.fork_burst, self.first.forks_per_second);
            }
            Effect::LeaveAll => {
                if model.has_left || model.run.is_none_or(|run| run.took_over.is_none()) {
                    return broken("a successor that has taken over gets everything once", "");
                }
                (model.has_left, model.run) = (true, None);
            }
            Effect::End(_) => {
                if let Some(run) = model.run {
                    return broken("an end settles an upgrade before", format_args!("{run:?}"));
                }
            }
            Effect::Say(Message::Upgrade(attempt, news)) => return self.hear_upgrade(now, input, *attempt, *news),
            _ => {}
        }
        Ok(())
    }

    fn hear_upgrade(&mut self, now: u64, input: &Input, attempt: Attempt, news: UpgradeNews) -> Result<(), Violation> {
        if news == UpgradeNews::Begun {
            return Ok(());
        }
        if attempt_of(input).is_some_and(|heard| heard != attempt) {
            return broken("a former successor is not heard", format_args!("{input:?}: {news:?}"));
        }
        let Some(run) = self.upgrade.run_of(attempt) else {
            return broken("news are of the upgrade that is under way", format_args!("{attempt} {news:?}"));
        };
        let for_long = now - run.begun;
        let is_all_back = run.is_ended && !run.has_names;
        match news {
            UpgradeNews::Begun | UpgradeNews::Greeted | UpgradeNews::Ready | UpgradeNews::TookOver { .. } => {
                return Ok(());
            }
            UpgradeNews::Rejected { why, .. } | UpgradeNews::RolledBack { why, .. } => {
                let is_rejected = matches!(news, UpgradeNews::Rejected { .. });
                let has_greeted = run.has_greeted;
                if !is_all_back || self.upgrade.rests {
                    return broken("of a successor that has failed nothing is left", format_args!("{news:?}"));
                }
                if has_greeted == is_rejected {
                    return broken("a successor is rejected that has not greeted", format_args!("{news:?}"));
                }
                let limit = match (input, why) {
                    (Input::Due(_), UpgradeFault::NotGreeted) => micros(self.first.greeting_limit),
                    (Input::Due(_), _) => micros(self.first.upgrade_timeout),
                    _ => 0,
                };
                if for_long < limit {
                    return broken("a successor has its time", format_args!("{news:?} after {for_long} us"));
                }
                self.upgrade.owed = Some(if is_rejected {
                    Verdict::Rejected(Rejection::Successor(why))
                } else {
                    Verdict::RolledBack(Setback::Successor(why))
                });
                self.upgrade.run = None;
            }
            UpgradeNews::Applied { .. } => {
                let Some(took_over) = run.took_over else {
                    return broken("an upgrade is applied when the successor has taken over", attempt);
                };
                run.is_over = true;
                let is_soon = now < took_over + micros(self.first.reload.probation);
                if *input == Input::Due(Timer::Upgrade) && is_soon {
                    return broken("a probation has its time", format_args!("{} us", now - took_over));
                }
                self.upgrade.owed = Some(Verdict::Applied);
                self.ends_from(now, micros(self.first.reload.drain_limit));
            }
            UpgradeNews::Superseded => {
                if matches!(input, Input::SuccessorStops(_)) {
                    run.is_over = true;
                    self.ends_from(now, micros(self.first.shutdown_timeout));
                } else if !is_all_back || run.took_over.is_some() {
                    return broken("of a successor that is not wanted nothing is left", format_args!("{run:?}"));
                } else {
                    self.upgrade.run = None;
                }
                self.upgrade.owed = Some(Verdict::Superseded);
            }
        }
        Ok(())
    }

    fn ends_from(&mut self, now: u64, limit: u64) {
        if self.stopping_since.is_none() {
            (self.stopping_since, self.stop_limit) = (Some(now), limit);
        }
    }

    /// The verdict of an upgrade is what was said of it.
    pub(super) fn upgrade_is_answered(&mut self, order: u64, verdict: Verdict) -> Result<(), Violation> {
        if let Verdict::Refused(_) = verdict {
            return Ok(());
        }
        match self.upgrade.owed.take() {
            Some(owed) if owed == verdict => Ok(()),
            owed => {
                broken("the verdict of an upgrade is what became of it", format_args!("{order} {verdict}, {owed:?}"))
            }
        }
    }

    /// A step was taken, and nothing of it is carried out.
    pub(super) fn examine_upgrade(
        &mut self,
        input: &Input,
        effects: &[Effect],
        machine: &Machine,
        world: &World,
    ) -> Result<(), Violation> {
        let model = &self.upgrade;
        if let Some(owed) = model.owed {
            return broken("each order has one verdict", format_args!("an upgrade: {owed}"));
        }
        if model.run.is_some_and(|run| run.is_over) {
            return broken("a successor that is past its probation has everything", format_args!("{:?}", model.run));
        }
        if let (Some(attempt), Some(run)) = (attempt_of(input), model.run)
            && attempt == run.attempt
        {
            let is_heard = match *input {
                Input::SuccessorReady(_) => run.has_names || !run.is_ready,
                Input::SuccessorTookOver(_) => model.rests || run.took_over.is_none(),
                Input::SuccessorStops(_) => run.took_over.is_none(),
                Input::SuccessorFailed(..) => false,
                _ => true,
            };
            if !is_heard {
                return broken("what a successor does has its effect", format_args!("{input:?}: {run:?}"));
            }
        }
        if machine.is_resting() != model.rests {
            return broken(
                "who says that it rests does",
                format_args!("{}, really {}", machine.is_resting(), model.rests),
            );
        }
        if !world.is_pre() || machine.phase() == Phase::ShuttingDown {
            return Ok(());
        }
        if model.rests {
            let stays = |child: &&crate::daemon::machine::Child| !self.owners[child.key.slot].is_told;
            return match machine.table().children().iter().find(stays) {
                Some(child) => broken("who rests asks all children to go", child.key),
                None => Ok(()),
            };
        }
        let sends_away = effects.iter().any(|effect| matches!(effect, Effect::Signal(_, Signal::Quit)));
        if attempt_of(input).is_some() && sends_away {
            let staying = machine.table().children().iter().filter(|child| !child.is_retiring()).count() as u32;
            if staying + self.asked < machine.settings().min_spare {
                return broken(
                    "no child is asked to go before the successor has taken over",
                    format_args!("{input:?}"),
                );
            }
        }
        Ok(())
    }

    /// What must be so a while after the last disturbance.
    pub(super) fn upgrade_is_over(&self, machine: &Machine) -> Result<(), Violation> {
        match machine.upgrade_stage() {
            Some(stage) => broken("an upgrade comes to an end", format_args!("{stage:?}")),
            None => Ok(()),
        }
    }
}

/// How long children that are to end at once have after `finish`.
const CUT_LIMIT: u64 = 2_000_000;

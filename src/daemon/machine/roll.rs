//! A roll: children of one edition take the place of those of another, one after the other.
//!
//! Forward, the first new child is a *canary*. No old child is asked to go before the canary has reported that it waits, on its own
//! slot of the board. From then on an old child goes when there are as many ready children without it as before, less
//! `max_unavailable`. A new child is forked when there is room, which is `max_children` plus `surge`.
//!
//! If a new child dies before the roll is over, or is not ready in time, the roll turns round. Then old children take the place of the
//! new children in the same way.
//!
//! A child that was asked to go finishes its work, for as long as `drain_limit` says. Then it is ended.
//!
//! A post-forking server has no children to replace. Its canary is a probe: a child without a request.

use std::time::Duration;

#[cfg(any(test, feature = "control"))]
use super::edition::ReloadStage;
use super::edition::{ReloadNews, Setback, Tunable};
use super::pool::is_up;
use super::table::{Cut, Outdated};
use super::{
    Cause, Child, Edition, Effect, Fault, Key, Machine, Message, Moment, Process, Says, Signal, Status, Timer, Told,
};
use crate::daemon::settings::Forking;

/// One roll.
#[derive(Clone, Copy, Debug)]
pub(super) struct Roll {
    /// The edition that the children are to have.
    pub(super) to: Edition,
    pub(super) goal: Goal,
    /// How many children were ready when the first roll began.
    pub(super) ready_before: u32,
    begun: Duration,
    /// A child of this edition has been ready.
    is_proven: bool,
}

/// What a roll is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal {
    /// A new edition, which is not the current one before the roll is over.
    Forward(Tunable),
    /// The current edition, as the new one has failed.
    Back(Setback),
    /// The former edition, which is the current one again, as this one has failed on probation.
    Again(Edition),
}

impl Roll {
    pub(super) fn new(to: Edition, goal: Goal, ready_before: u32, now: Duration) -> Roll {
        Roll { to, goal, ready_before, begun: now, is_proven: !matches!(goal, Goal::Forward(_)) }
    }

    #[cfg(any(test, feature = "control"))]
    pub(super) fn stage(&self) -> ReloadStage {
        match self.goal {
            Goal::Forward(_) if !self.is_proven => ReloadStage::Canary,
            Goal::Forward(_) => ReloadStage::Rolling,
            Goal::Back(_) | Goal::Again(_) => ReloadStage::RollingBack,
        }
    }

    fn is_forward(&self) -> bool {
        matches!(self.goal, Goal::Forward(_))
    }
}

impl Machine {
    /// Returns the edition of children that are forked because they are missing: the new one as soon as a child of it was ready.
    pub(super) fn edition_to_fork(&self) -> Edition {
        self.reload.roll.filter(|roll| roll.is_proven).map_or(self.reload.current, |roll| roll.to)
    }

    /// Returns how many requests children of this edition handle, and how much less than that.
    pub(super) fn requests_of(&self, edition: Edition) -> (Option<u64>, u64) {
        let (requests, jitter) = match self.reload.roll {
            Some(Roll { to, goal: Goal::Forward(tunable), .. }) if to == edition => {
                (tunable.requests, tunable.requests_jitter)
            }
            _ => (self.settings.requests, self.settings.requests_jitter),
        };
        (requests.map(|requests| requests.get()), jitter)
    }

    /// Tells whether a roll is under way: then no child is retired for another reason.
    pub fn is_rolling(&self) -> bool {
        self.reload.roll.is_some()
    }

    /// Tells whether children of this edition are candidates: what they do is no sign of how the pool fares.
    pub(super) fn is_on_trial(&self, edition: Edition) -> bool {
        self.reload.roll.is_some_and(|roll| roll.is_forward() && roll.to == edition)
    }

    /// Does what can be done now.
    pub(super) fn advance_roll(&mut self, at: &mut Moment<'_>) {
        self.begin_roll_if_due(at);
        self.look_for_proof(at);
        self.look_for_late(at);
        let Some(roll) = self.reload.roll else { return self.wait_for_late(at) };
        if self.settings.forking == Forking::Post {
            self.advance_probe(at, roll);
        } else {
            if roll.is_proven || self.has(Fault::RollsWithoutCanary) {
                self.replace(at, roll);
            }
            if self.is_replaced(at, roll) {
                self.end_roll(at, roll);
            } else {
                self.fork_for_roll(at, roll);
            }
        }
        self.wait_for_late(at);
    }

    fn look_for_proof(&mut self, at: &Moment<'_>) {
        let Some(roll) = self.reload.roll.filter(|roll| !roll.is_proven) else { return };
        let is_pre = self.settings.forking == Forking::Pre;
        let is_proof = |child: &Child| child.edition == roll.to && at.outside.status(child.key).is_some_and(is_up);
        if is_pre && self.table.children().iter().any(is_proof) {
            self.prove();
        }
    }

    fn prove(&mut self) {
        if let Some(roll) = self.reload.roll.as_mut().filter(|roll| !roll.is_proven) {
            roll.is_proven = true;
            self.effects.push(Effect::Say(Message::Reload(roll.to, ReloadNews::Rolling)));
        }
    }

    /// A new child that is not ready in time sets the reload back, as does a canary for which there is no room.
    fn look_for_late(&mut self, at: &mut Moment<'_>) {
        let Some(roll) = self.reload.roll.filter(Roll::is_forward) else { return };
        let limit = self.settings.start_timeout;
        let is_late =
            |child: &&Child| is_starting(at, child, roll.to) && at.now.saturating_sub(child.forked_at) >= limit;
        if let Some(child) = self.table.children().iter().find(is_late) {
            return self.set_back(at, Setback::Late(child.key));
        }
        if !roll.is_proven && self.of_edition(roll.to) == 0 && at.now.saturating_sub(roll.begun) >= limit {
            self.set_back(at, Setback::NoRoom);
        }
    }

    /// Turns round: the new edition has failed.
    fn set_back(&mut self, at: &mut Moment<'_>, why: Setback) {
        let Some(roll) = self.reload.roll.filter(Roll::is_forward) else { return };
        self.effects.push(Effect::Say(Message::Reload(roll.to, ReloadNews::SetBack(why))));
        if self.has(Fault::NotRefilled) {
            return self.rolled_back(at, why);
        }
        let back = Roll::new(self.reload.current, Goal::Back(why), roll.ready_before, at.now);
        self.reload.roll = Some(back);
    }

    /// Counts the children of an edition that stay, and those on the way.
    fn of_edition(&self, edition: Edition) -> u32 {
        let stays = |child: &&Child| child.edition == edition && !child.is_retiring();
        let children = self.table.children().iter().filter(stays).count();
        let in_flight = self.table.in_flight().iter().filter(|fork| fork.edition == edition).count();
        (children + in_flight) as u32
    }

    /// Counts the children that can serve clients.
    pub(super) fn ready(&self, at: &Moment<'_>) -> u32 {
        self.table.children().iter().filter(|child| serves(at, child)).count() as u32
    }

    /// Returns how many children have to stay ready.
    fn floor(&self, roll: Roll) -> u32 {
        roll.ready_before.min(self.settings.max_children).saturating_sub(self.settings.reload.max_unavailable)
    }

    /// Asks children of the other edition to go: those that serve nobody, and as many as the others can do without. First those
    /// that are idle, the oldest of them first.
    fn replace(&mut self, at: &mut Moment<'_>, roll: Roll) {
        let goes = |child: &&Child| child.edition != roll.to && !child.is_retiring();
        let mut outgoing: Vec<(bool, bool, u64, Key)> = self
            .table
            .children()
            .iter()
            .filter(goes)
            .map(|child| {
                let is_idle = at.outside.status(child.key) == Some(Status::Wait);
                (serves(at, child), !is_idle, child.number, child.key)
            })
            .collect();
        outgoing.sort_unstable();
        let floor = if self.has(Fault::RollsAllAtOnce) { 0 } else { self.floor(roll) };
        let mut left = self.ready(at).saturating_sub(floor);
        for (serves, .., key) in outgoing {
            if serves && left == 0 {
                break;
            }
            left -= u32::from(serves);
            self.send_away(at, key);
        }
        // Others that go, for whatever reason, have no more time than these: their places are needed.
        for child in self.table.children_mut().iter_mut().filter(|child| child.is_retiring()) {
            child.outdated.get_or_insert(Outdated::since(at.now));
        }
    }

    fn send_away(&mut self, at: &mut Moment<'_>, key: Key) {
        if let Some(child) = self.table.child_mut(key) {
            child.outdated = Some(Outdated::since(at.now));
        }
        self.ask_to_go(at, key);
    }

    /// Asks a child to go, and has it hear of that.
    pub(super) fn ask_to_go(&mut self, at: &mut Moment<'_>, key: Key) {
        let is_stopped = at.outside.process(key) == Process::Stopped;
        let Some(child) = self.table.child_mut(key) else { return };
        child.told = Told::Go;
        self.effects.extend([Effect::Say(Message::Retired(key)), Effect::Signal(key, Signal::Quit)]);
        if is_stopped {
            // It would not hear of it. The place that it takes is needed.
            self.effects.push(Effect::Signal(key, Signal::Cont));
        }
    }

    /// Tells whether no child of the other edition stays, or accepts another client. On the way back the pool has its former size as well, unless that takes
    /// too long.
    fn is_replaced(&self, at: &Moment<'_>, roll: Roll) -> bool {
        let has_others = self.table.children().iter().any(|child| may_accept(at, child, roll.to))
            || self.table.in_flight().iter().any(|fork| fork.edition != roll.to);
        let is_late = at.now.saturating_sub(roll.begun) >= self.settings.start_timeout;
        let is_filled = roll.is_forward() || is_late || self.ready(at) >= self.floor(roll);
        roll.is_proven && !has_others && is_filled
    }

    fn end_roll(&mut self, at: &mut Moment<'_>, roll: Roll) {
        match roll.goal {
            Goal::Forward(_) => self.applied(at),
            Goal::Back(why) => self.rolled_back(at, why),
            Goal::Again(failed) => {
                self.reload.roll = None;
                self.effects.push(Effect::Drop(failed));
            }
        }
    }

    /// Forks the canary, and then as many children as may be starting at once.
    fn fork_for_roll(&mut self, at: &mut Moment<'_>, roll: Roll) {
        // That children of the other edition crash is no reason to wait.
        if self.no_fork_before.is_some() && !(self.shortage_is_none() && roll.is_forward()) {
            return;
        }
        let reload = &self.settings.reload;
        let max = self.settings.max_children;
        let (wanted, at_once) = if roll.is_proven {
            (roll.ready_before.clamp(1, max), reload.surge + reload.max_unavailable)
        } else {
            (1, 1)
        };
        let starting = self.table.children().iter().filter(|child| is_starting(at, child, roll.to)).count()
            + self.table.in_flight().iter().filter(|fork| fork.edition == roll.to).count();
        let missing = wanted.saturating_sub(self.of_edition(roll.to));
        let number = missing.min(at_once.saturating_sub(starting as u32)).min(self.room_for_roll());
        for _ in 0..number {
            self.ask_for_fork_of(None, roll.to);
        }
    }

    fn room_for_roll(&self) -> u32 {
        let all = self.table.children().len() + self.table.in_flight().len();
        let surge = if self.has(Fault::SurgeNotLimited) { u32::MAX / 2 } else { self.settings.reload.surge };
        self.settings.max_children.saturating_add(surge).saturating_sub(all as u32)
    }

    /// Post-forking: forks the probe, or ends it.
    fn advance_probe(&mut self, at: &mut Moment<'_>, roll: Roll) {
        match roll.goal {
            Goal::Forward(_) if self.of_edition(roll.to) == 0 => {
                if self.no_fork_before.is_none() && self.table.in_flight().is_empty() && self.room_for_roll() > 0 {
                    self.ask_for_fork_of(None, roll.to);
                }
            }
            Goal::Forward(_) => {}
            Goal::Back(why) => {
                let is_probe = |child: &&Child| child.is_probe && !child.is_retiring();
                let probes: Vec<Key> = self.table.children().iter().filter(is_probe).map(|child| child.key).collect();
                probes.into_iter().for_each(|key| self.send_away(at, key));
                if self.table.in_flight().iter().all(|fork| !fork.is_probe) {
                    self.rolled_back(at, why);
                }
            }
            // The former edition has the next requests, and that is all.
            Goal::Again(_) => self.end_roll(at, roll),
        }
    }

    /// A child has ended: a new one whose end is not in order, or that was never ready, sets the reload back.
    pub(super) fn roll_learns_from_death(&mut self, at: &mut Moment<'_>, child: &Child, cause: Cause, last: &Says) {
        if !self.is_on_trial(child.edition) {
            return;
        }
        // The Daemon, or an operator, did not want it any more.
        if child.is_retiring() && !matches!(cause, Cause::Rogue(_)) {
            return;
        }
        // A probe has gone by itself. Another child may have gone because it does not want to start.
        let is_ready = |status: Status| is_up(status) || child.is_probe && status == Status::Exit;
        let was_ready = child.is_ready || last.requests > 0 || last.status.is_some_and(is_ready);
        if !cause.is_in_order() || !was_ready {
            return self.set_back(at, Setback::Died(child.key, cause));
        }
        if self.settings.forking == Forking::Post {
            return self.applied(at);
        }
        self.prove();
    }

    /// Has the timer due when the next new child is late.
    fn wait_for_late(&mut self, at: &Moment<'_>) {
        let limit = self.settings.start_timeout;
        let next = self.reload.roll.and_then(|roll| {
            let starting = self.table.children().iter().filter(|child| is_starting(at, child, roll.to));
            let born = starting.map(|child| child.forked_at).min();
            let is_waiting = !roll.is_forward() || (!roll.is_proven && self.of_edition(roll.to) == 0);
            born.filter(|_| roll.is_forward()).or(is_waiting.then_some(roll.begun)).map(|since| since + limit)
        });
        let leaving = self.reload.roll.and_then(|roll| self.next_to_have_left(at, roll.to));
        let next = [next, leaving].into_iter().flatten().min();
        // One that is over has had its effect.
        let next = next.filter(|due| *due > at.now);
        if self.reload.late_at == next {
            return;
        }
        self.reload.late_at = next;
        self.effects.push(match next {
            Some(due) => Effect::Arm(Timer::RollLate, due.saturating_sub(at.now)),
            None => Effect::Disarm(Timer::RollLate),
        });
    }

    /// Returns when the first child of another edition that was asked to go is not waited for any more.
    fn next_to_have_left(&self, at: &Moment<'_>, edition: Edition) -> Option<Duration> {
        let leaving = self.table.children().iter().filter(|child| may_accept(at, child, edition));
        leaving.filter_map(|child| Some(child.outdated?.since + PATIENCE)).min()
    }

    /// From now on those that are not of the current edition have the drain limit. Those of a pool have been asked to go.
    pub(super) fn outdate_others(&mut self, at: &Moment<'_>) {
        let current = self.reload.current;
        for child in self.table.children_mut().iter_mut().filter(|child| child.edition != current) {
            child.outdated.get_or_insert(Outdated::since(at.now));
        }
    }

    /// Has those ended at once that have the drain limit. Returns whether there are any.
    pub(super) fn cut_outdated_now(&mut self) -> bool {
        let waits = |child: &Child| child.outdated.is_some_and(|outdated| outdated.cut == Cut::No);
        self.reload.cuts_now = self.table.children().iter().any(waits);
        self.reload.cuts_now
    }

    /// Ends those that have had the time that a child has after a reload.
    pub(super) fn cut_outdated(&mut self, at: &mut Moment<'_>) {
        let mut next: Option<Duration> = None;
        let is_now = std::mem::take(&mut self.reload.cuts_now);
        let limit = self.settings.reload.drain_limit;
        if self.has(Fault::DrainNotLimited) {
            return;
        }
        for child in self.table.children_mut() {
            let Some(outdated) = &mut child.outdated else { continue };
            let is_new = at.outside.status(child.key).is_some_and(Status::is_starting);
            let mut due = match outdated.cut {
                Cut::No if is_now => at.now,
                Cut::No if is_new => outdated.since + PATIENCE,
                Cut::No => outdated.since.saturating_add(limit),
                Cut::Interrupted(since) => since + PATIENCE,
                Cut::Killed => continue,
            };
            if due <= at.now {
                let is_first = outdated.cut == Cut::No;
                // One that was told to go in its set-up has no client.
                let signal = if is_first && !is_new { Signal::Int } else { Signal::Kill };
                child.told = if is_new { Told::Die } else { Told::Cut };
                if is_first {
                    self.effects.push(Effect::Say(Message::NotGone(child.key)));
                }
                self.effects.push(Effect::Signal(child.key, signal));
                if signal == Signal::Kill {
                    outdated.cut = Cut::Killed;
                    continue;
                }
                outdated.cut = Cut::Interrupted(at.now);
                due = at.now + PATIENCE;
            }
            next = Some(next.map_or(due, |next| next.min(due)));
        }
        if self.reload.cut_at == next {
            return;
        }
        self.reload.cut_at = next;
        self.effects.push(match next {
            Some(due) => Effect::Arm(Timer::Cut, due.saturating_sub(at.now)),
            None => Effect::Disarm(Timer::Cut),
        });
    }
}

/// Tells whether a child of another edition may accept one more client: it stays, or has not heard yet that it is to go. One that
/// does not hear is not waited for.
fn may_accept(at: &Moment<'_>, child: &Child, edition: Edition) -> bool {
    let hears = || child.outdated.is_some_and(|outdated| at.now < outdated.since + PATIENCE);
    let has_heard = || at.outside.status(child.key).is_some_and(|status| status.is_taken() || status == Status::Exit);
    child.edition != edition && (!child.is_retiring() || hears() && !has_heard())
}

/// Tells whether a child can serve clients.
fn serves(at: &Moment<'_>, child: &Child) -> bool {
    let is_well = !child.is_retiring() && !child.is_stopped && child.deaf.is_none();
    is_well && at.outside.status(child.key).is_some_and(is_up)
}

/// Tells whether a child of this edition has not been ready yet, and is to be.
fn is_starting(at: &Moment<'_>, child: &Child, edition: Edition) -> bool {
    let was_ready = child.is_ready || at.outside.status(child.key).is_none_or(|status| !status.is_starting());
    child.edition == edition && !child.is_retiring() && !was_ready
}

/// How long a child has to end that was told so.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

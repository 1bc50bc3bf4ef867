//! A child has ended: the table, the record, and what is learnt from it.

use super::deaths::{KILL, cause};
use super::{
    Cause, Child, CrashLoop, Death, Effect, End, Fault, Growth, Key, Killer, Machine, Message, Moment, Note, Process,
    STAYED_UP, Says, Verdict,
};
use crate::daemon::settings::Forking;

impl Machine {
    /// Takes a child off the table, once, whoever brings the news and however often.
    pub(super) fn reap(&mut self, at: &mut Moment<'_>, key: Key, end: End) {
        let owner = self.table.owner(key.slot).filter(|_| self.has(Fault::DeathOfFormerOwner));
        let key = owner.unwrap_or(key);
        let Some(child) = self.table.remove(key) else { return };
        let last = at.outside.reclaim(key);
        self.table.free(key);
        let (cause, note) = explain(at, cause(&child, end, last.status, self.phase));
        // A KILL leaves no core, so that it has another note.
        let note = if matches!(end, End::Signaled { has_core: true, .. }) { Note::Core } else { note };
        self.deaths.count(cause);
        self.clients.begun_by_dead += last.requests;
        let age = at.now.saturating_sub(child.forked_at);
        let death = Effect::Record(Death { key, cause, age, requests: last.requests, note });
        if self.has(Fault::DeathCountedTwice) {
            self.deaths.count(cause);
            self.effects.push(death.clone());
        }
        self.effects.push(death);
        if !(end == End::Vanished && self.has(Fault::VerdictLost)) {
            self.answer_all(|pending| pending.take_deaths(key), Verdict::Applied);
        }
        if self.has(Fault::DeadSignalled) {
            self.effects.push(Effect::Signal(key, super::Signal::Kill));
        }
        if self.is_shutting_down() || self.is_resting() {
            return;
        }
        // What becomes of children on trial, or of a former edition, says nothing about those that serve.
        let counts = child.edition == self.reload.current || self.has(Fault::CandidatesCount);
        self.roll_learns_from_death(at, &child, cause, &last);
        if self.settings.forking == Forking::Post && counts {
            self.probation_learns_from_death(at, &child, cause);
        }
        if self.settings.forking == Forking::Pre {
            if counts {
                self.learn_from_death(at, &child, cause, &last);
                self.start_learns_from_death(at, &child, cause, &last);
            }
            // One that was replaced may have been told of a client that it did not accept any more.
            let has_left_client = child.outdated.is_some() && at.outside.has_client();
            if (!cause.is_in_order() || has_left_client) && !self.has(Fault::NotWokenAfterDeath) {
                self.wake_idle(at);
            }
        }
    }

    /// Takes those off the table that other code has waited for.
    pub(super) fn reap_vanished(&mut self, at: &mut Moment<'_>) {
        if self.has(Fault::VanishedStays) {
            return;
        }
        let keys: Vec<Key> = self.table.children().iter().map(|child| child.key).collect();
        for key in keys {
            if at.outside.process(key) == Process::Gone {
                self.reap(at, key, End::Vanished);
            }
        }
    }

    /// Children that die as soon as they live are followed after a pause.
    ///
    /// One that has had a request does not count: a request that kills its child must not close the shop.
    fn learn_from_death(&mut self, at: &Moment<'_>, child: &Child, cause: Cause, last: &Says) {
        self.note_end(child, last);
        self.find_survivors(at);
        if last.requests > 0 {
            return self.crashes.stayed_up(child.forked_at);
        }
        if matches!(cause, Cause::Retired | Cause::Memory | Cause::Rogue(_)) {
            return;
        }
        // That it is not there any more does not mean that a client has taken it up.
        self.growth = Growth::default();
        let wait = self.crashes.died(child.forked_at, at.now);
        if !wait.is_zero() && !self.has(Fault::CrashLoopNotSlowed) {
            let is_known = std::mem::replace(&mut self.is_crash_loop_told, true);
            self.effects.push(Effect::Say(Message::CrashLoop { deaths: self.crashes.deaths(), wait, is_known }));
            self.pause_forks(at, wait);
            self.take_back(at);
        }
    }

    /// Post-forking: children on probation that fail as soon as they are forked bring the former edition back, although each has had a
    /// request. One request may be to blame for one of them, and hardly for some in a row.
    fn probation_learns_from_death(&mut self, at: &Moment<'_>, child: &Child, cause: Cause) {
        if !self.reload.has_probation() || child.is_retiring() {
            return;
        }
        if cause.is_in_order() {
            // Several run at a time. One that was forked before the last that failed is as good a sign as one after it.
            self.crashes = CrashLoop::default();
            return;
        }
        self.crashes.died(child.forked_at, at.now);
        if self.crashes.deaths() >= FAILURES_ON_PROBATION {
            self.crashes = CrashLoop::default();
            self.take_back(at);
        }
    }

    /// Tells the budget whether a child that has ended was ever ready, if it was not told before.
    fn note_end(&mut self, child: &Child, last: &Says) {
        if child.is_ready {
            return;
        }
        if last.requests > 0 || last.status.is_some_and(super::pool::is_up) {
            self.budget.are_ready(1);
        } else if !child.is_retiring() {
            self.budget.died_early();
        }
    }

    /// Ends the row of deaths if a child that was forked after the last of them has stayed up, or has had a request.
    fn find_survivors(&mut self, at: &Moment<'_>) {
        for child in self.table.children() {
            let has_worked = at.outside.says(child.key).is_some_and(|says| says.requests > 0);
            if has_worked || at.now.saturating_sub(child.forked_at) >= STAYED_UP {
                self.crashes.stayed_up(child.forked_at);
            }
        }
    }

    /// Says once that children do not die any more as soon as they live.
    pub(super) fn end_crash_loop_if_over(&mut self, at: &Moment<'_>) {
        if !self.is_crash_loop_told {
            return;
        }
        self.find_survivors(at);
        if self.crashes.deaths() == 0 {
            self.is_crash_loop_told = false;
            self.effects.push(Effect::Say(Message::CrashLoopOver { children: self.table.children().len() }));
        }
    }
}

/// How many children of a post-forking server fail in a row before the former edition goes on.
const FAILURES_ON_PROBATION: u32 = 3;

/// Finds which process a KILL is from that the Daemon has not sent, and what else there is to be said of it.
fn explain(at: &mut Moment<'_>, cause: Cause) -> (Cause, Note) {
    if cause != Cause::Signaled(KILL) {
        return (cause, Note::None);
    }
    match at.outside.killer() {
        Killer::System => (Cause::OutOfMemory, Note::None),
        Killer::Other => (cause, Note::KilledByOther),
        Killer::Unknown => (cause, Note::KilledPerhapsBySystem),
    }
}

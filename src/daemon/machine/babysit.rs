//! The babysitter: looks at every child now and then, and deals with those that are out of bounds.

use std::time::Duration;

use super::{
    Child, Effect, Fault, Growth, Key, Machine, Message, Moment, Process, Sight, Signal, Status, Step, Timer, Told,
    judge,
};
use crate::daemon::settings::Forking;

impl Machine {
    /// Sets the first round, and the first look in between.
    pub(super) fn begin_babysitting(&mut self, at: &Moment<'_>) {
        if self.settings.forking != Forking::None {
            self.next_round = Some(at.now + self.settings.babysit);
            let (round, look) = (self.settings.babysit, self.settings.look_every());
            self.effects.extend([Effect::Arm(Timer::Babysit, round), Effect::Arm(Timer::LookAtChildren, look)]);
        }
    }

    /// Tells whether a round is late by a whole one at `now`, which a loop that turns does not let happen.
    pub fn round_is_overdue(&self, now: Duration) -> bool {
        !self.is_shutting_down() && self.next_round.is_some_and(|due| now > due + self.settings.babysit)
    }

    /// Between two rounds: looks which children run, so that no limit counts time in which none of this did.
    pub(super) fn look_at_children(&mut self, at: &mut Moment<'_>) {
        if self.is_shutting_down() {
            return;
        }
        self.effects.push(Effect::Arm(Timer::LookAtChildren, self.settings.look_every()));
        self.measure(at);
        self.end_crash_loop_if_over(at);
    }

    /// Adds to the time for which each child has been at what it is doing, or stopped.
    fn measure(&mut self, at: &mut Moment<'_>) {
        let gap = at.now.saturating_sub(self.last_measured);
        self.last_measured = at.now;
        let ran = self.run_clock.advance(at.now);
        let ran = if self.has(Fault::SuspensionCounts) { gap } else { ran };
        for child in self.table.children_mut() {
            let is_stopped = at.outside.process(child.key) == Process::Stopped;
            let runs = if is_stopped { Duration::ZERO } else { ran };
            child.stopped_for = if is_stopped { child.stopped_for + ran } else { Duration::ZERO };
            let is_overdue = child.is_retiring() && at.outside.status(child.key) == Some(Status::Wait);
            child.overdue_for =
                is_overdue.then(|| child.overdue_for.map_or(Duration::ZERO, |overdue_for| overdue_for + runs));
            if let Some(says) = at.outside.says(child.key) {
                child.stint = child.stint.seen(says.since_ms, at.now_ms(), runs);
            }
        }
    }

    /// One round.
    pub(super) fn babysit(&mut self, at: &mut Moment<'_>) {
        if self.is_shutting_down() {
            return;
        }
        self.next_round = Some(at.now + self.settings.babysit);
        if !self.has(Fault::BabysitOnce) {
            self.effects.push(Effect::Arm(Timer::Babysit, self.settings.babysit));
        }
        self.measure(at);
        self.review_deaf(at);
        at.outside.forget_kills();
        let mut has_stopped = false;
        let keys: Vec<Key> = self.table.children().iter().map(|child| child.key).collect();
        for key in keys {
            match at.outside.process(key) {
                Process::Gone | Process::Ended => {}
                process => has_stopped |= self.examine(at, key, process == Process::Stopped),
            }
        }
        self.reap_vanished(at);
        if has_stopped {
            self.wake_idle(at);
        }
        // A pool at rest does not say so by itself.
        self.growth = Growth::default();
    }

    /// Examines one child and takes the next step if it needs one. Returns whether it was found stopped for the first time.
    fn examine(&mut self, at: &mut Moment<'_>, key: Key, is_stopped: bool) -> bool {
        let (rules, forking, babysit) = (self.settings.rules, self.settings.forking, self.settings.babysit);
        let says = at.outside.says(key);
        let Some(child) = self.table.child_mut(key) else { return false };
        let in_status = child.stint.lasted;
        let was_stopped = std::mem::replace(&mut child.is_stopped, is_stopped);
        let status = says.and_then(|says| says.status);
        let doing = says.map_or(child.meter.doing, |says| (says.requests, says.status.is_some_and(Status::is_busy)));
        let age = at.now.saturating_sub(child.forked_at);
        child.meter = at.outside.meter(key, child.meter, doing, age, in_status);
        if forking == Forking::Pre
            && status.is_some_and(Status::is_starting)
            && in_status >= babysit
            && !child.is_told_unready
        {
            child.is_told_unready = true;
            self.effects.push(Effect::Say(Message::Unready { key, since: in_status }));
        }
        let sight = Sight {
            status,
            in_status,
            cpu: child.meter.used,
            // In the round before, and not only while this process was stopped as well.
            is_stopped: was_stopped && is_stopped && child.stopped_for >= babysit / 2,
            // One that has had a request meanwhile has that long again.
            overdue_for: child.overdue_for.unwrap_or_default().min(in_status),
            is_unresponsive: child.deaf.is_some_and(|deaf| !deaf.is_paused),
        };
        let before = child.escalation;
        child.escalation = judge(&sight, &rules, before);
        match child.escalation {
            Some(escalation) => {
                let (why, step) = (escalation.why, escalation.step);
                let signal = match step {
                    Step::Interrupt => Signal::Int,
                    Step::Terminate => Signal::Term,
                    Step::Kill => Signal::Kill,
                };
                self.effects.push(Effect::Say(Message::Rogue {
                    key,
                    why,
                    status,
                    since: in_status,
                    cpu: sight.cpu,
                    step,
                }));
                self.effects.push(Effect::Signal(key, signal));
                if is_stopped && signal != Signal::Kill {
                    self.effects.push(Effect::Signal(key, Signal::Cont));
                }
            }
            None if before.is_some() => self.effects.push(Effect::Say(Message::RogueCleared(key))),
            None => {}
        }
        if forking == Forking::Pre {
            let limit = rules.memory_limit;
            weigh(at, child, limit, &mut self.effects);
        }
        is_stopped && !was_stopped
    }
}

/// Marks a child that has grown too large; it is replaced when it can be.
fn weigh(at: &mut Moment<'_>, child: &mut Child, limit: Option<u64>, effects: &mut Vec<Effect>) {
    if child.told != Told::Stay {
        return;
    }
    if let Some(limit) = limit
        && let Some(resident) = at.outside.resident(child.key)
        && resident > limit
    {
        effects.push(Effect::Say(Message::TooLarge { key: child.key, resident, limit }));
        child.told = Told::BeReplaced;
    }
}

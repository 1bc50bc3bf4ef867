//! A pre-forking pool: who is counted as what, what is forked, and which children are asked to go.

use std::time::Duration;

use super::{
    Announcement, Child, Counts, Effect, Fault, Growth, Limits, Machine, Message, Moment, Phase, Process, Published,
    STAYED_UP, Says, Signal, Status, Thresholds, Timer, Told, prefork,
};

impl Machine {
    /// Forks what is missing and asks those to go that are too many.
    pub(super) fn keep_spares(&mut self, at: &mut Moment<'_>) {
        if !self.has(Fault::BellAnsweredLate) {
            at.outside.answer_bell();
        }
        self.review_deaf(at);
        self.note_ready(at);
        self.advance_roll(at);
        // A reload that has just been applied may have changed them.
        let limits = self.settings.limits();
        let counts = self.count(at);
        if self.has(Fault::BellAnsweredLate) {
            at.outside.answer_bell();
        }
        let asked = self.weigh(at, counts);
        let held = self.hold(at, counts);
        let may_be_kept = if held.is_on { Limits { max_spare: u32::MAX, ..limits } } else { limits };
        // A pool that can't see the queue doubles its steps. One that can does not.
        let growth = if asked.is_some() { Growth::default() } else { self.growth };
        let asked = asked.unwrap_or_default();
        let decision = prefork(counts, may_be_kept, self.phase, growth, asked.children);
        let granted = self.ration(at, decision.fork);
        if granted == decision.fork {
            self.growth = decision.growth;
        }
        self.grown(at, granted, asked);
        for _ in 0..granted {
            self.ask_for_fork(None);
        }
        // A roll has its own reasons to have children go.
        if !self.is_rolling() {
            let surplus = self.retirable(at, decision.retire);
            self.retire(at, surplus);
            self.retire_replaced(at, counts);
        }
        let is_full = counts.total() >= limits.max_children || self.no_fork_before.is_some();
        let low = decision.thresholds.low.max(self.review_relief(at, counts, is_full)).max(held.low);
        let thresholds = Thresholds { low, ..decision.thresholds }.with_stale_idle(self.stale_idle(at));
        self.publish(Published { thresholds, is_full });
        self.watch_queue();
    }

    /// Tells the children what they go by, if that has changed. A child may have begun to keep a client just before it could know
    /// that the pool is full. It did not ring for that, so the board is looked at again.
    pub(super) fn publish(&mut self, published: Published) {
        let before = self.published.replace(published);
        if before == Some(published) {
            return;
        }
        self.effects.push(Effect::Publish(published));
        if published.is_full && !before.is_some_and(|before| before.is_full) && !self.has(Fault::FullNotReviewed) {
            self.effects.push(Effect::LookAgain);
        }
    }

    /// Counts the children by what they do. One that is stopped or deaf, or that is to be replaced, is no spare.
    pub(super) fn count(&self, at: &Moment<'_>) -> Counts {
        let in_flight = if self.has(Fault::InFlightNotCounted) { 0 } else { self.table.in_flight().len() as u32 };
        let children = self.table.children().len() as u32 + in_flight;
        let mut counts = Counts { children, starting: in_flight, ..Counts::default() };
        for child in self.table.children() {
            match at.outside.status(child.key) {
                _ if child.is_retiring() => counts.retiring += 1,
                _ if self.is_no_spare(child) => counts.busy += 1,
                Some(Status::Wait) => counts.idle += 1,
                Some(status) if status.is_starting() && self.has(Fault::StartingNotCounted) => {}
                Some(status) if status.is_starting() => counts.starting += 1,
                Some(Status::Exit) => counts.retiring += 1,
                _ => counts.busy += 1,
            }
        }
        counts
    }

    /// Tells whether a child must not be counted as a spare, whatever it says.
    fn is_no_spare(&self, child: &Child) -> bool {
        let is_stopped = child.is_stopped && !self.has(Fault::StoppedIsIdle);
        is_stopped || child.deaf.is_some() || child.told == Told::BeReplaced
    }

    /// Counts those that the board takes for idle and [`count`](Machine::count) does not, and that will not go away by
    /// themselves.
    fn stale_idle(&self, at: &Moment<'_>) -> u32 {
        let is_stale = |child: &&Child| {
            (self.is_no_spare(child) || child.overdue_for.is_some())
                && at.outside.status(child.key) == Some(Status::Wait)
        };
        self.table.children().iter().filter(is_stale).count() as u32
    }

    /// Tells the budget which children have become ready since it was last told. Each rings when it does.
    fn note_ready(&mut self, at: &Moment<'_>) {
        let mut ready = 0;
        for child in self.table.children_mut().iter_mut().filter(|child| !child.is_ready) {
            child.is_ready = at.outside.status(child.key).is_some_and(is_up);
            if !child.is_ready {
                continue;
            }
            ready += 1;
            let says = at.outside.says(child.key);
            let ready_at = says.map_or(at.now, |says| Duration::from_millis(says.since_ms).min(at.now));
            // One that was fast was ready before the parent knew that it had forked.
            let by_itself = says.map_or(0, |says| says.since_ms.saturating_sub(says.started_ms));
            let took = ready_at.saturating_sub(child.forked_at).max(Duration::from_millis(by_itself));
            self.effects.push(Effect::Say(Message::Ready { key: child.key, took }));
            let first_wait = says.filter(|says| says.status == Some(Status::Wait) && says.requests == 0);
            if let Some(Says { since_ms, started_ms, .. }) = first_wait {
                self.clients.start.measured(Duration::from_millis(since_ms.saturating_sub(started_ms)));
            }
        }
        if !self.has(Fault::WindowNeverOpens) {
            self.budget.are_ready(ready);
        }
    }

    /// Returns how many of the `wanted` children may be forked now. For the others it comes back: a child that becomes ready
    /// or dies brings the news itself. Replacements of early deaths wait for the clock, as does the place of a child that takes
    /// too long to start. The first children are not rationed.
    fn ration(&mut self, at: &Moment<'_>, wanted: u32) -> u32 {
        if self.no_fork_before.is_some() {
            return 0;
        }
        let is_first = self.phase == Phase::StartingUp || std::mem::take(&mut self.upgrade.refills);
        if is_first || self.has(Fault::EarlyDeathsNotRationed) {
            return wanted;
        }
        let (starting, next_late) = self.starting_in_time(at);
        let granted = self.budget.grant(at.now, wanted, starting);
        if granted < wanted {
            let replacement = self.budget.ready_in(at.now).filter(|wait| !wait.is_zero());
            if let Some(wait) = [replacement, next_late].into_iter().flatten().min() {
                self.effects.push(Effect::Arm(Timer::Maintain, wait));
            }
        }
        granted
    }

    /// Counts the children that are starting and have not taken too long yet. The second value is how long the first of them
    /// has left. A child that hangs before it is ready must not keep a place of the budget's window for ever.
    fn starting_in_time(&self, at: &Moment<'_>) -> (u32, Option<Duration>) {
        let limit = STAYED_UP.max(self.clients.start.estimate().saturating_mul(LATE));
        let is_starting = |child: &&Child| {
            !child.is_retiring()
                && !self.is_no_spare(child)
                && at.outside.status(child.key).is_some_and(Status::is_starting)
        };
        let (mut number, mut next) = (self.table.in_flight().len() as u32, None);
        for child in self.table.children().iter().filter(is_starting) {
            let left = limit.saturating_sub(at.now.saturating_sub(child.forked_at));
            if !left.is_zero() {
                number += 1;
                next = Some(next.map_or(left, |next: Duration| next.min(left)));
            }
        }
        (number, next)
    }

    /// Asks idle children to go, those first that have been there for longest. Each finishes the request that it may have
    /// accepted by the time it hears of it.
    fn retire(&mut self, at: &Moment<'_>, number: u32) {
        if number == 0 {
            return;
        }
        let signal = if self.has(Fault::SpareCutOff) { Signal::Term } else { Signal::Quit };
        let is_idle = |child: &&mut Child| {
            child.told == Told::Stay
                && !child.is_stopped
                && child.deaf.is_none()
                && at.outside.status(child.key) == Some(Status::Wait)
        };
        let mut idle: Vec<&mut Child> = self.table.children_mut().iter_mut().filter(is_idle).collect();
        idle.sort_unstable_by_key(|child| child.number);
        for child in idle.into_iter().take(number as usize) {
            child.told = Told::Go;
            self.effects.extend([Effect::Say(Message::Retired(child.key)), Effect::Signal(child.key, signal)]);
        }
    }

    /// Asks children that are to be replaced to go. Idle children go when other children can stand in for them, or when there is no
    /// room for other children.
    fn retire_replaced(&mut self, at: &Moment<'_>, counts: Counts) {
        let is_replaced = |child: &Child| child.told == Told::BeReplaced;
        if self.has(Fault::LargeNeverGoes) || !self.table.children().iter().any(is_replaced) {
            return;
        }
        let limits = self.settings.limits();
        let has_no_room = counts.total() >= limits.max_children && self.starting_in_time(at).0 == 0;
        let can_stand_in = counts.idle >= limits.min_spare || has_no_room;
        for child in self.table.children_mut().iter_mut().filter(|child| child.told == Told::BeReplaced) {
            if can_stand_in || at.outside.status(child.key) != Some(Status::Wait) {
                child.told = Told::GoForMemory;
                self.effects
                    .extend([Effect::Say(Message::Retired(child.key)), Effect::Signal(child.key, Signal::Quit)]);
            }
        }
    }

    /// The first children are there: from now on the policy decides.
    pub(super) fn end_start_up(&mut self) {
        let first = self.settings.start_children.min(self.settings.max_children);
        let is_complete = self.table.children().len() >= first as usize;
        if self.phase == Phase::StartingUp && self.table.in_flight().is_empty() && is_complete {
            self.phase = Phase::Running;
            self.effects.push(Effect::Announce(Announcement::Parent));
        }
    }

    /// Makes the idle children look whether a client waits for them. The system tells one process of each connection. If that
    /// process is dead or stopped, no other was told.
    ///
    /// A stopped child stays stopped. The operator who has stopped it continues it.
    pub(super) fn wake_idle(&mut self, at: &mut Moment<'_>) {
        for child in self.table.children() {
            let is_idle = !child.is_stopped && at.outside.status(child.key) == Some(Status::Wait);
            if is_idle && at.outside.process(child.key) == Process::Runs {
                self.effects.push(Effect::Signal(child.key, Signal::Cont));
            }
        }
    }
}

/// Tells whether a child with this status has been ready for requests.
pub(super) fn is_up(status: Status) -> bool {
    status == Status::Wait || status.is_taken()
}

/// A child that takes so many times as long to start as others did takes too long, if that is a second at least.
const LATE: u32 = 4;

//! Forks: asked for, carried out, failed, taken back, put off.

use std::time::Duration;

use super::{
    Edition, Effect, Failure, Fault, Fork, Growth, Key, Machine, Message, Moment, Refusal, Request, Shutdown, Signal,
    Timer, share,
};
use crate::daemon::settings::Forking;

/// Whether forks have failed, and some are still missing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shortage {
    /// Why, as the log knows.
    told: Option<i32>,
    /// How long the last pause was; zero before the first.
    pause: Duration,
}

impl Machine {
    /// Asks for a fork, for a request of a post-forking server.
    pub(super) fn ask_for_fork(&mut self, request: Option<Request>) {
        self.ask_for_fork_of(request, self.edition_to_fork());
    }

    /// Asks for a fork of a child that has this edition of the settings.
    pub(super) fn ask_for_fork_of(&mut self, request: Option<Request>, edition: Edition) {
        let is_probe = request.is_none() && self.settings.forking == Forking::Post;
        let Some((key, number)) = self.table.begin_fork(edition, request, is_probe) else {
            // Never silently: there are more slots than children may be.
            self.effects.push(Effect::Say(Message::BoardFull { slots: self.table.slots() }));
            if let Some(request) = request {
                self.put_back(request);
            }
            return;
        };
        let (requests, jitter) = self.requests_of(edition);
        let share = requests.map(|requests| share(requests, jitter, number));
        let is_long = request.is_some_and(|request| request.is_long);
        let request = request.map(|request| request.number);
        let is_watched = self.is_on_trial(edition);
        self.effects.push(Effect::Fork(Fork { key, edition, request, is_long, share, is_probe, is_watched }));
    }

    /// A fork was carried out, or it failed.
    pub(super) fn forked(&mut self, at: &mut Moment<'_>, key: Key, outcome: Result<(), Refusal>) {
        let Some(fork) = self.table.end_fork(key) else { return };
        match outcome {
            Ok(()) => {
                self.table.enter(fork, at.now);
                if !self.is_rolling() {
                    // A reload may have been applied since it was asked for.
                    self.outdate_others(at);
                }
                self.shortage.pause = Duration::ZERO;
                self.effects.push(Effect::Say(Message::Forked(key)));
                if self.is_shutting_down() && !self.has(Fault::ForkedAfterShutdown) {
                    // It was asked for before the shutdown was.
                    self.effects.push(Effect::Signal(key, Signal::Term));
                } else if self.rests_without_forks() && !self.has(Fault::ForkedWhileRestingStays) {
                    self.ask_to_go(at, key);
                }
            }
            Err(refusal) => {
                self.free(at, key);
                self.fork_failed(at, fork.request, refusal);
            }
        }
    }

    /// Tells whether no fork has failed, or all that were missing have succeeded since.
    pub(super) fn shortage_is_none(&self) -> bool {
        self.shortage.told.is_none()
    }

    fn free(&mut self, at: &mut Moment<'_>, key: Key) {
        at.outside.reclaim(key);
        if !self.has(Fault::SlotLeaks) {
            self.table.free(key);
        }
    }

    /// Waits a while if the next fork may succeed. Anything else will not get better.
    fn fork_failed(&mut self, at: &mut Moment<'_>, request: Option<Request>, refusal: Refusal) {
        if let Some(request) = request {
            self.put_back(request);
        }
        // The next shortage of spares is met by a single step.
        self.growth = Growth::default();
        // The others that were asked for together would fail as this one has.
        self.cancel_forks(at);
        // The child would have been told to end.
        if self.is_shutting_down() || self.rests_without_forks() {
            return;
        }
        let Refusal::ForNow(kind) = refusal else {
            self.effects.push(Effect::Fail(Failure::Fork));
            return self.end(at, Shutdown::Immediate);
        };
        let pause = (self.shortage.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.shortage.pause = pause;
        if self.shortage.told.replace(kind) != Some(kind) {
            let (children, missing) = (self.table.children().len(), self.missing(at));
            self.effects.push(Effect::Say(Message::ForksFail { children, missing, next_try: pause }));
            self.effects.push(Effect::DelayLauncher);
        }
        self.pause_forks(at, pause);
        if self.settings.forking == Forking::Post {
            self.pause_intake();
        }
    }

    /// Takes back the forks that were asked for and that have not been carried out.
    fn cancel_forks(&mut self, at: &mut Moment<'_>) {
        if self.has(Fault::CancelledStillInFlight) {
            return self.effects.push(Effect::CancelForks);
        }
        let cancelled = self.table.end_forks();
        if cancelled.is_empty() {
            return;
        }
        self.effects.push(Effect::CancelForks);
        for fork in cancelled {
            self.free(at, fork.key);
        }
    }

    /// Forks nothing for so long; of two pauses the one that ends later counts.
    pub(super) fn pause_forks(&mut self, at: &Moment<'_>, wait: Duration) {
        let until = at.now + wait;
        if self.no_fork_before.is_none_or(|before| before < until) {
            self.no_fork_before = Some(until);
            if !self.has(Fault::RetryNotArmed) {
                self.effects.push(Effect::Arm(Timer::RetryForks, wait));
            }
        }
    }

    /// The pause is over.
    pub(super) fn retry_forks(&mut self) {
        if !self.has(Fault::FailureForGood) {
            self.no_fork_before = None;
        }
    }

    /// Says once that no fork is missing any more.
    pub(super) fn end_shortage_if_over(&mut self, at: &Moment<'_>) {
        if self.is_shutting_down()
            || self.is_resting()
            || self.shortage.told.is_none()
            || self.no_fork_before.is_some()
            || !self.table.in_flight().is_empty()
        {
            return;
        }
        if self.missing(at) == 0 {
            self.shortage = Shortage::default();
            self.effects.push(Effect::Say(Message::ForksSucceed { children: self.table.children().len() }));
        }
    }

    /// Returns how many forks were to be made at once, were there nothing in their way.
    fn missing(&self, at: &Moment<'_>) -> usize {
        match self.settings.forking {
            Forking::Pre => {
                super::prefork(self.count(at), self.settings.limits(), self.phase, self.growth, 0).fork as usize
            }
            _ => self.requests.len(),
        }
    }
}

/// How long the first pause after a failed fork is.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// How long such pauses get.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

//! The end of the start, as far as the launcher of a program that has detached waits for it.
//!
//! A pool is ready when the application has handled `daemon_parent` and enough children have reported `Wait`. The start
//! fails when children die in their set-up time and again, and when it takes too long.

use std::time::Duration;

use super::pool::is_up;
use super::{Cause, Child, Effect, Failure, Machine, Moment, Says, Shutdown, Timer};
use crate::daemon::settings::Forking;

/// How far the start has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Start {
    /// A launcher waits.
    is_awaited: bool,
    /// The application has handled the last signal of the start.
    is_handled: bool,
    /// How many children have served requests and ended since.
    served: usize,
    /// How many children in a row have died in their set-up, those that were forked together being one.
    failures: u32,
    /// When the last of these died; its successors are forked after that.
    last_failure: Option<Duration>,
}

impl Start {
    pub(super) fn is_awaited(&self) -> bool {
        self.is_awaited
    }
}

impl Machine {
    /// A launcher waits.
    pub(super) fn launched(&mut self) {
        self.start.is_awaited = true;
        self.effects.push(Effect::Arm(Timer::StartLate, self.settings.start_timeout));
    }

    /// The application has handled the last signal of the start. If it has shut the Daemon down in that very signal, the
    /// launcher hears of it when everything has ended.
    pub(super) fn started(&mut self) {
        self.start.is_handled = !self.is_shutting_down();
    }

    /// Lets the launcher end if all is there that it waits for.
    pub(super) fn tell_if_ready(&mut self, at: &Moment<'_>) {
        // A launcher must not hear of a daemon that ends already.
        if self.is_shutting_down() || !self.start.is_handled || self.ready_children(at) < self.wanted_children() {
            return;
        }
        self.start.is_handled = false;
        if self.start.is_awaited {
            self.effects.extend([Effect::Disarm(Timer::StartLate), Effect::TellLauncher]);
        }
    }

    /// Returns how many children have to have reported `Wait` at the end of the start.
    fn wanted_children(&self) -> usize {
        let settings = &self.settings;
        match settings.forking {
            Forking::Pre => settings.min_spare.min(settings.start_children).min(settings.max_children) as usize,
            Forking::Post | Forking::None => 0,
        }
    }

    /// Returns how many children have reported `Wait`. One that has served its share of requests is replaced, but was ready.
    fn ready_children(&self, at: &Moment<'_>) -> usize {
        let is_ready = |child: &&Child| at.outside.status(child.key).is_some_and(is_up);
        self.table.children().iter().filter(is_ready).count() + self.start.served
    }

    /// A child has ended. If children die before they are ready, one after the other, the start fails, so that the person or
    /// program that has started the daemon hears of it.
    pub(super) fn start_learns_from_death(&mut self, at: &mut Moment<'_>, child: &Child, cause: Cause, last: &Says) {
        if !self.start.is_awaited || child.is_retiring() {
            return;
        }
        let start = &mut self.start;
        if last.requests > 0 {
            start.served += 1;
            return;
        }
        if last.status.is_some_and(is_up) {
            return;
        }
        if start.last_failure.is_none_or(|last| child.forked_at >= last) {
            start.failures += 1;
            start.last_failure = Some(at.now);
        }
        let failures = start.failures;
        if failures >= FAILURES {
            self.fail(at, Failure::ChildrenFail { failures, key: child.key, cause });
        }
    }

    /// The time for the start is up.
    pub(super) fn start_is_late(&mut self, at: &mut Moment<'_>) {
        if self.start.is_awaited && !self.is_shutting_down() {
            let (ready, wanted) = (self.ready_children(at), self.wanted_children());
            self.fail(at, Failure::StartTimeout { ready, wanted });
        }
    }

    /// The launcher has acknowledged that the daemon is ready, or it was interrupted or killed. Then the daemon is not wanted.
    pub(super) fn launcher_is_gone(&mut self, at: &mut Moment<'_>, has_acknowledged: bool) {
        if std::mem::take(&mut self.start.is_awaited) && !has_acknowledged {
            self.fail(at, Failure::LauncherGone);
        }
    }

    /// A Daemon that is shutting down already has a reason for that.
    fn fail(&mut self, at: &mut Moment<'_>, failure: Failure) {
        if self.is_shutting_down() {
            return;
        }
        self.effects.push(Effect::Fail(failure));
        self.end(at, Shutdown::Immediate);
    }
}

/// How many times in a row children may die in their set-up while a launcher waits.
const FAILURES: u32 = 5;

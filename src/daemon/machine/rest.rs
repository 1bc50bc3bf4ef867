//! Rest: a successor serves, and this process only keeps what it needs to take over again.
//!
//! The children of a pool are asked to go, and none are forked. What waits in the queues is the successor's affair, so nothing of
//! it is looked at. A post-forking server still serves the requests that its application has handed in: their clients were
//! accepted.

use super::{Budget, Effect, Fault, Growth, Machine, Moment, Published, Thresholds, Timer};
use crate::daemon::settings::Forking;

impl Machine {
    /// Accepts nothing from now on.
    pub(super) fn begin_to_rest(&mut self, at: &mut Moment<'_>) {
        self.upgrade.is_resting = true;
        self.effects.push(Effect::Rest(true));
        match self.settings.forking {
            Forking::Pre => self.send_all_away(at),
            Forking::Post => {
                self.pause_intake();
                if self.has(Fault::QueueDroppedAtRest) {
                    self.requests.clear();
                }
            }
            Forking::None => {}
        }
        self.stop_watching_queues();
        if self.settings.forking == Forking::Pre {
            // Nothing is forked, so that nothing has to wait.
            self.no_fork_before = None;
            let timers = [Timer::Maintain, Timer::EndHold, Timer::RetryForks];
            self.effects.extend(timers.map(Effect::Disarm));
        }
    }

    /// Serves again, with new children. What was learnt of the former ones says nothing about these.
    pub(super) fn end_rest(&mut self) {
        if !self.has(Fault::NotRefilledAfterRest) {
            self.upgrade.is_resting = false;
        }
        self.upgrade.refills = !self.upgrade.is_resting;
        self.effects.push(Effect::Rest(false));
        if self.settings.forking == Forking::Pre {
            self.growth = Growth::default();
            self.crashes = Default::default();
            self.budget = Budget::new(self.settings.fork_burst, self.settings.forks_per_second);
        }
        if self.settings.forking != Forking::None {
            self.look_again_soon();
        }
    }

    /// Asks all children of a pool to go, after what they have in hand.
    pub(super) fn send_all_away(&mut self, at: &mut Moment<'_>) {
        let mut staying: Vec<_> = self.table.children().iter().filter(|child| !child.is_retiring()).collect();
        staying.sort_unstable_by_key(|child| child.number);
        let keys: Vec<_> = staying.into_iter().map(|child| child.key).collect();
        keys.into_iter().for_each(|key| self.ask_to_go(at, key));
    }

    /// Tells whether a pool rests, for which nothing is forked.
    pub(super) fn rests_without_forks(&self) -> bool {
        self.is_resting() && self.settings.forking == Forking::Pre
    }

    /// The end of a step while the pool rests.
    pub(super) fn keep_resting(&mut self, at: &mut Moment<'_>) {
        at.outside.answer_bell();
        self.publish(Published { thresholds: Thresholds::SILENT, is_full: false });
    }
}

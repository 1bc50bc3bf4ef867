//! When a run may be cut short, because nothing is left to happen.

use super::child::Flaw;
use super::driver::Driver;
use super::rules::Violation;
use crate::daemon::machine::{Child, Timer, Told};

impl Driver {
    /// Lets so much time pass. A brief run stops as soon as the pool has been quiet for some rounds of the babysitter.
    pub(super) fn run_until_quiet(&mut self, span: u64) -> Result<(), Violation> {
        if !self.is_brief {
            return self.run(span);
        }
        let end = self.world.now + span;
        while self.world.now < end && !self.rules.is_over() {
            let was_quiet = self.is_quiet();
            let some = if was_quiet { SOME_ROUNDS } else { 1_000_000 };
            self.run(some.min(end - self.world.now))?;
            if was_quiet && self.is_quiet() {
                break;
            }
        }
        Ok(())
    }

    /// Tells whether nothing is left to happen but that the babysitter looks at idle children.
    pub fn is_quiet(&self) -> bool {
        let (world, table) = (&self.world, self.machine.table());
        let is_round = |timer: &Timer| matches!(timer, Timer::Babysit | Timer::LookAtChildren);
        let mut timers = Timer::ALL.iter().filter(|timer| self.timers[**timer as usize] < u64::MAX);
        let is_idle = |child: &super::child::Child| {
            child.runs() && child.next.is_none() && child.flaw == Flaw::None && world.slots[child.key.slot].is_idle
        };
        let stays = |child: &Child| {
            let is_well = child.told == Told::Stay && !child.is_stopped && child.deaf.is_none();
            is_well && world.child(child.key).is_some_and(is_idle)
        };
        let alive = world.children.iter().flatten().filter(|child| child.is_alive()).count();
        world.next_event() == u64::MAX
            && world.inbox.is_empty()
            && world.queue.is_empty()
            && self.forks.is_empty()
            && self.returning.is_none()
            && timers.all(is_round)
            && alive == table.children().len()
            && table.children().iter().all(stays)
    }

    /// Tells whether the Daemon has ended: nothing that is to happen later matters any more.
    pub fn has_ended(&self) -> bool {
        self.rules.is_over() && self.rules.stopping_since.is_some()
    }
}

/// How long a quiet pool is looked at: a round of the babysitter, and what comes between two.
const SOME_ROUNDS: u64 = 12_000_000;

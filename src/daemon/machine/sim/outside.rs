//! What the machine sees of the world.

use std::time::Duration;

use super::child::Flaw;
use super::world::{Event, World};
use crate::daemon::machine::{Answer, Key, Killer, Meter, Outside, Process, Queues, Says, Status};

impl Outside for World {
    fn answer_bell(&mut self) {
        self.race();
        self.is_rung = false;
        self.news_at = None;
    }

    fn status(&self, key: Key) -> Option<Status> {
        World::status(self, key.slot)
    }

    fn says(&self, key: Key) -> Option<Says> {
        self.slots.get(key.slot).filter(|slot| !slot.is_torn).map(|slot| slot.says)
    }

    fn reclaim(&mut self, key: Key) -> Says {
        if self.child(key).is_some_and(|child| child.is_alive()) {
            self.wrong = Some(("no slot is taken from a child that lives", key.to_string()));
        }
        let Some(slot) = self.slots.get(key.slot) else { return Says::default() };
        let last = slot.says;
        self.wipe(key.slot, Status::Empty);
        self.is_rung = false;
        last
    }

    fn process(&mut self, key: Key) -> Process {
        let Some(child) = self.child(key) else { return Process::Gone };
        match (&child.end, child.is_gone) {
            (Some(_), true) => Process::Gone,
            (Some(_), false) => {
                // The parent notices by this, should it have missed the signal.
                if !child.is_told_of {
                    self.plan(10, Event::Deaths);
                }
                Process::Ended
            }
            (None, _) if child.is_stopped => Process::Stopped,
            (None, _) => Process::Runs,
        }
    }

    fn meter(&mut self, key: Key, meter: Meter, doing: (u64, bool), age: Duration, since: Duration) -> Meter {
        let Some(child) = self.child(key) else { return meter };
        let total = Duration::from_micros(child.cpu(self.now));
        let gained = meter.gained(total, age, 2, || Some(1)).unwrap_or_default();
        meter.read(doing, total, age, gained, since)
    }

    fn resident(&mut self, key: Key) -> Option<u64> {
        let now = self.now;
        let child = self.child(key)?;
        let has_grown = child.flaw == Flaw::Grows && now >= child.born + u64::from(child.delay) * 1000;
        Some(if has_grown { 1 << 40 } else { 1 << 20 })
    }

    fn killer(&mut self) -> Killer {
        if self.oom_kills == 0 {
            return if self.knobs.salt.is_multiple_of(2) { Killer::Other } else { Killer::Unknown };
        }
        self.oom_kills -= 1;
        Killer::System
    }

    fn forget_kills(&mut self) {
        self.race();
        self.oom_kills = 0;
    }

    fn queues(&mut self) -> Option<Queues> {
        self.race();
        self.reads += 1;
        let (waiting, limit) = (self.queue.len(), self.knobs.backlog);
        let full = (waiting > limit).then_some((waiting, limit));
        (self.knobs.blind == 0).then_some(Queues { waiting, limit, full })
    }

    fn has_client(&mut self) -> bool {
        !self.queue.is_empty()
    }

    fn answer(&self, key: Key) -> Answer {
        self.child(key).map_or(Answer::Missing, |child| child.answer)
    }

    fn is_asked_to_release(&self) -> bool {
        self.release.is_some()
    }
}

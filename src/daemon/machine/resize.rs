//! One child more, one child less, while it runs.

use super::{Effect, Fault, Machine, Message, OrderId, Verdict, Why};
use crate::daemon::settings::{Forking, MOST_SLOTS, Settings};

/// How far a Daemon is from the size that it was set to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    max_children: u32,
    min_spare: u32,
    max_spare: u32,
    /// How many more children there may be than that, or less.
    shift: i64,
}

impl Size {
    pub(super) fn new(settings: &Settings) -> Size {
        let Settings { max_children, min_spare, max_spare, .. } = *settings;
        Size { max_children, min_spare, max_spare, shift: 0 }
    }

    /// Shifts everything by `step`, unless no child or too many would be left. Each limit remembers what it has not gone
    /// along with, so that the way back leads to where it came from.
    fn shift(&mut self, step: i64, settings: &mut Settings) -> Result<(), Why> {
        let shift = self.shift + step;
        let at = |limit: u32| u32::try_from((i64::from(limit) + shift).max(1)).unwrap_or(u32::MAX);
        if i64::from(self.max_children) + shift < 1 {
            return Err(Why::Smallest);
        }
        if step > 0 && settings.slots() >= MOST_SLOTS {
            return Err(Why::Largest);
        }
        self.shift = shift;
        settings.max_children = at(self.max_children);
        if settings.forking == Forking::Pre {
            settings.min_spare = at(self.min_spare);
            settings.max_spare = at(self.max_spare);
        }
        Ok(())
    }
}

impl Machine {
    /// TTIN: there may be one child more, and one spare more is kept. TTOU: the opposite. One child remains in any case.
    pub(super) fn resize(&mut self, id: OrderId, by: i32) {
        if self.settings.forking == Forking::None {
            return self.answer(id, Verdict::Refused(Why::NoChildren));
        }
        if self.has(Fault::ResizeForgets) {
            self.size = Size::new(&self.settings);
        }
        let outcome = self.size.shift(i64::from(by), &mut self.settings);
        if outcome.is_ok() {
            let slots = self.settings.slots();
            self.table.grow(slots);
            self.effects.push(Effect::GrowBoard(slots));
        }
        let (max_children, min_spare, max_spare) =
            (self.settings.max_children, self.settings.min_spare, self.settings.max_spare);
        self.effects.push(Effect::Say(match outcome {
            Ok(()) => Message::Resized { max_children, min_spare, max_spare },
            Err(why) => Message::NotResized(why),
        }));
        self.answer(id, outcome.map_or_else(Verdict::Refused, |()| Verdict::Applied));
    }
}

//! How many children there may be, changed while it runs.

use super::{Effect, Fault, Machine, Message, NewSize, OrderId, Tunable, Verdict, Why};
use crate::daemon::settings::{Forking, Given, MOST_SLOTS, Settings};

/// How far a Daemon is from the size that it was set to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// What the program has set.
    first: Limits,
    /// What was set last.
    base: Limits,
    /// How many more children there may be than that, or less.
    shift: i64,
}

/// The numbers that are resized.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Limits {
    pub(super) max_children: u32,
    pub(super) min_spare: u32,
    pub(super) max_spare: u32,
}

impl Limits {
    pub(super) fn of(settings: &Settings) -> Limits {
        let Settings { max_children, min_spare, max_spare, .. } = *settings;
        Limits { max_children, min_spare, max_spare }
    }
}

impl Size {
    pub(super) fn new(settings: &Settings) -> Size {
        let limits = Limits::of(settings);
        Size { first: limits, base: limits, shift: 0 }
    }

    /// Shifts everything by `step`, unless no child or too many would be left. Each limit remembers what it has not gone
    /// along with, so that the way back leads to where it came from.
    fn shift(&mut self, step: i64, settings: &mut Settings) -> Result<(), Why> {
        let shift = self.shift + step;
        let at = |limit: u32| u32::try_from((i64::from(limit) + shift).max(1)).unwrap_or(u32::MAX);
        let Limits { max_children, min_spare, max_spare } = self.base;
        if i64::from(max_children) + shift < 1 {
            return Err(Why::Smallest);
        }
        if step > 0 && settings.slots() >= MOST_SLOTS {
            return Err(Why::Largest);
        }
        self.shift = shift;
        settings.max_children = at(max_children);
        if settings.forking == Forking::Pre {
            settings.min_spare = at(min_spare);
            settings.max_spare = at(max_spare);
        }
        Ok(())
    }

    /// Has exactly these limits from now on. They are checked as a set.
    fn set(&mut self, limits: Limits, settings: &mut Settings) -> Result<(), Why> {
        let mut wanted = settings.clone();
        (wanted.max_children, wanted.min_spare, wanted.max_spare) =
            (limits.max_children, limits.min_spare, limits.max_spare);
        if wanted.max_children < 1 {
            return Err(Why::Smallest);
        }
        if wanted.slots() > MOST_SLOTS {
            return Err(Why::Largest);
        }
        if wanted.forking == Forking::Pre && wanted.min_spare < 1 {
            return Err(Why::NoSpare);
        }
        if wanted.max_spare < wanted.min_spare {
            return Err(Why::SpareLimits { max_spare: wanted.max_spare, min_spare: wanted.min_spare });
        }
        (self.base, self.shift) = (limits, 0);
        *settings = wanted;
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
        self.resized(id, outcome);
    }

    /// An operator says how many there may be. TTIN and TTOU go on from there.
    pub(super) fn set_size(&mut self, id: OrderId, size: NewSize) {
        let NewSize { max_children, min_spare, max_spare } = size;
        match self.settings.forking {
            Forking::None => return self.answer(id, Verdict::Refused(Why::NoChildren)),
            Forking::Post if min_spare.is_some() || max_spare.is_some() => {
                return self.answer(id, Verdict::Refused(Why::NotAPool));
            }
            Forking::Pre | Forking::Post => {}
        }
        let now = Limits::of(&self.settings);
        let limits = Limits {
            max_children: max_children.unwrap_or(now.max_children),
            min_spare: min_spare.unwrap_or(now.min_spare),
            max_spare: max_spare.unwrap_or(now.max_spare),
        };
        let shift = self.size.shift;
        let outcome = self.size.set(limits, &mut self.settings);
        if self.has(Fault::SizeSetInPart) && outcome.is_err() && limits.max_children > 0 {
            self.settings.max_children = limits.max_children.min(now.max_children);
        }
        if self.has(Fault::ShiftOutlivesSet) {
            self.size.shift = shift;
        }
        self.resized(id, outcome);
    }

    /// An operator wants the size back that the program has set.
    pub(super) fn reset_size(&mut self, id: OrderId) {
        if self.settings.forking == Forking::None {
            return self.answer(id, Verdict::Refused(Why::NoChildren));
        }
        let outcome = self.size.set(self.size.first, &mut self.settings);
        self.resized(id, outcome);
    }

    /// A reload has brought other settings. The numbers that it changes become those of `values`. What orders have made of the others
    /// stays.
    pub(super) fn change_size(&mut self, from: Tunable, to: Tunable, values: Limits) {
        self.size.first = to.size;
        if from.size == to.size {
            return;
        }
        let now = if self.has(Fault::ReloadForgetsSize) { values } else { Limits::of(&self.settings) };
        let orders_count = !self.has(Fault::OrderedNumberFollows);
        let next = |number: fn(&Limits) -> u32, is_given: fn(&Given) -> bool| {
            let [from_number, to_number, now] = [&from.size, &to.size, &now].map(number);
            let is_changed = from_number != to_number;
            // Neither configuration has this number. It follows from the others, unless an order has changed it.
            let follows = !is_given(&from.given) && !is_given(&to.given);
            let is_ordered = now != from_number && orders_count;
            if is_changed && !(follows && is_ordered) { number(&values) } else { now }
        };
        let limits = Limits {
            max_children: next(|limits| limits.max_children, |given| given.max_children),
            min_spare: next(|limits| limits.min_spare, |given| given.min_spare),
            max_spare: next(|limits| limits.max_spare, |given| given.max_spare),
        };
        // The spares of the file may contradict those of the operator. Then the file's count.
        let spares_of_file = Limits { max_children: limits.max_children, ..to.size };
        let outcome =
            self.size.set(limits, &mut self.settings).or_else(|_| self.size.set(spares_of_file, &mut self.settings));
        if outcome.is_ok() {
            self.size_changed();
        }
    }

    fn size_changed(&mut self) {
        let slots = self.settings.slots();
        self.table.grow(slots);
        let Limits { max_children, min_spare, max_spare } = Limits::of(&self.settings);
        self.effects
            .extend([Effect::GrowBoard(slots), Effect::Say(Message::Resized { max_children, min_spare, max_spare })]);
    }

    pub(super) fn resized(&mut self, id: OrderId, outcome: Result<(), Why>) {
        match outcome {
            Ok(()) => self.size_changed(),
            Err(why) => self.effects.push(Effect::Say(Message::NotResized(why))),
        }
        self.answer(id, outcome.map_or_else(Verdict::Refused, |()| Verdict::Applied));
    }
}

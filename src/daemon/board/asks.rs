//! What the parent asks of single children, and who has heard it, in memory that they share.
//!
//! A child looks here when its parent has woken it. Every question has a number, so that an answer to an earlier one is not taken
//! for that to a later one. Numbers begin with 1.

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};

use log::LevelFilter;

use super::{Scoreboard, SlotIndex};
use crate::sys::shared_words::SharedWords;

/// The questions to all children of a Daemon.
#[derive(Debug)]
pub(in crate::daemon) struct Asks(SharedWords);

/// What the parent wants a child to log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::daemon) struct LevelOrder {
    /// The number of the question.
    pub(in crate::daemon) number: u32,
    /// One level for all targets; `None` for what the program has set.
    pub(in crate::daemon) level: Option<LevelFilter>,
}

/// What a child has made of its log file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::daemon) struct Reopened {
    /// The number of the order that it has carried out last; 0 for none.
    pub(in crate::daemon) number: u32,
    /// The file could not be opened.
    pub(in crate::daemon) has_failed: bool,
}

impl Asks {
    /// Maps the memory.
    ///
    /// # Errors
    ///
    /// What `mmap` says.
    pub(in crate::daemon) fn new() -> io::Result<Asks> {
        SharedWords::new(FIRST + Scoreboard::MAX_SLOTS * STRIDE).map(Asks)
    }

    /// Makes a slot new for a child about to be forked. Parent only.
    pub(in crate::daemon) fn wipe(&self, slot: SlotIndex) {
        for place in [SHOW, LEVEL, HEARD_LEVEL, REOPENED] {
            self.word(slot, place).store(0, Release);
        }
    }

    /// Asks a child to show its sessions. Parent only, which then wakes the child.
    pub(in crate::daemon) fn ask_to_show(&self, slot: SlotIndex, number: u32) {
        self.word(slot, SHOW).store(number.into(), Release);
    }

    /// Takes the question back, if the child has not taken it. Parent only.
    pub(in crate::daemon) fn forget_to_show(&self, slot: SlotIndex) {
        self.word(slot, SHOW).store(0, Release);
    }

    /// Returns the number of the question if the running child was asked to show its sessions, once for each time. Child only.
    pub(in crate::daemon) fn takes_show(&self, slot: SlotIndex) -> Option<u32> {
        // Looked at first: a store would make the page the child's at each waking.
        let word = self.word(slot, SHOW);
        if word.load(Acquire) == 0 {
            return None;
        }
        Some(word.swap(0, AcqRel) as u32).filter(|number| *number > 0)
    }

    /// Tells a child what to log. Parent only, which then wakes the child.
    pub(in crate::daemon) fn order_level(&self, slot: SlotIndex, order: LevelOrder) {
        let level = order.level.map_or(NO_LEVEL, |level| level as u64);
        self.word(slot, LEVEL).store(u64::from(order.number) << 8 | level, Release);
    }

    /// Returns what the running child is to log, if it has not heard of it. Child only.
    pub(in crate::daemon) fn new_level(&self, slot: SlotIndex) -> Option<LevelOrder> {
        let order = self.word(slot, LEVEL).load(Acquire);
        let number = (order >> 8) as u32;
        if number == self.heard_level(slot) {
            return None;
        }
        let level = order & 0xff;
        Some(LevelOrder { number, level: LevelFilter::iter().find(|filter| *filter as u64 == level) })
    }

    /// Notes that the running child logs what it was told to. Child only.
    pub(in crate::daemon) fn hear_level(&self, slot: SlotIndex, number: u32) {
        self.word(slot, HEARD_LEVEL).store(number.into(), Release);
    }

    /// Returns the number of the last order about the level that a child has carried out; 0 for none.
    pub(in crate::daemon) fn heard_level(&self, slot: SlotIndex) -> u32 {
        self.word(slot, HEARD_LEVEL).load(Acquire) as u32
    }

    /// Gives the next reopening of log files a number. Parent only, before it tells the children.
    pub(in crate::daemon) fn expect_reopening(&self, number: u32) {
        self.0.words()[0].store(number.into(), Release);
    }

    /// Returns the number of the reopening that is under way; 0 if nobody has asked. Child only, before it opens its file.
    pub(in crate::daemon) fn reopening(&self) -> u32 {
        self.0.words()[0].load(Acquire) as u32
    }

    /// Notes what the running child has made of its log file. Child only.
    pub(in crate::daemon) fn note_reopened(&self, slot: SlotIndex, reopened: Reopened) {
        let Reopened { number, has_failed } = reopened;
        self.word(slot, REOPENED).store(u64::from(number) << 1 | u64::from(has_failed), Release);
    }

    /// Returns what a child has made of its log file.
    pub(in crate::daemon) fn reopened(&self, slot: SlotIndex) -> Reopened {
        let word = self.word(slot, REOPENED).load(Acquire);
        Reopened { number: (word >> 1) as u32, has_failed: word & 1 != 0 }
    }

    fn word(&self, slot: SlotIndex, place: usize) -> &AtomicU64 {
        &self.0.words()[FIRST + slot.get() * STRIDE + place]
    }
}

/// The first word is for all slots; the rest of its cache line is not used.
const FIRST: usize = 8;

/// Half a cache line for each slot: two children that answer at once may wait for each other once.
const STRIDE: usize = 4;

const SHOW: usize = 0;
const LEVEL: usize = 1;
const HEARD_LEVEL: usize = 2;
const REOPENED: usize = 3;

/// In place of a level: what the program has set.
const NO_LEVEL: u64 = 0xff;

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(place: usize) -> SlotIndex {
        SlotIndex(place)
    }

    #[test] // O-CT-11
    fn each_question_is_taken_once_and_by_its_child() {
        let asks = Asks::new().unwrap();
        asks.ask_to_show(slot(1), 7);
        assert_eq!(asks.takes_show(slot(0)), None);
        assert_eq!(asks.takes_show(slot(1)), Some(7));
        assert_eq!(asks.takes_show(slot(1)), None);
        asks.ask_to_show(slot(1), 8);
        asks.forget_to_show(slot(1));
        assert_eq!(asks.takes_show(slot(1)), None);
    }

    #[test] // O-CT-15
    fn a_level_is_new_until_it_was_heard() {
        let asks = Asks::new().unwrap();
        let last = slot(Scoreboard::MAX_SLOTS - 1);
        assert_eq!(asks.new_level(last), None);
        for (number, level) in [(1, None), (2, Some(LevelFilter::Off)), (3, Some(LevelFilter::Trace))] {
            let order = LevelOrder { number, level };
            asks.order_level(last, order);
            assert_eq!(asks.new_level(last), Some(order));
            asks.hear_level(last, number);
            assert_eq!((asks.new_level(last), asks.heard_level(last)), (None, number));
        }
    }

    #[test] // O-CT-16
    fn a_reopening_has_a_number_and_an_outcome() {
        let asks = Asks::new().unwrap();
        assert_eq!(asks.reopening(), 0);
        asks.expect_reopening(4);
        assert_eq!(asks.reopening(), 4);
        let outcome = Reopened { number: 4, has_failed: true };
        asks.note_reopened(slot(2), outcome);
        assert_eq!(asks.reopened(slot(2)), outcome);
        assert_eq!(asks.reopened(slot(3)), Reopened { number: 0, has_failed: false });
    }

    #[test] // O-CT-13: the slot's next owner is another child
    fn the_next_owner_of_a_slot_is_asked_nothing() {
        let asks = Asks::new().unwrap();
        asks.ask_to_show(slot(0), 1);
        asks.order_level(slot(0), LevelOrder { number: 2, level: None });
        asks.note_reopened(slot(0), Reopened { number: 3, has_failed: false });
        asks.wipe(slot(0));
        assert_eq!((asks.takes_show(slot(0)), asks.new_level(slot(0)), asks.reopened(slot(0)).number), (None, None, 0));
    }
}

//! A filter that does what no filter should.

use std::rc::Rc;

use lenore::filter::{Filter, FilterError};

use super::Tally;
use util::Dice;

/// What goes wrong in a filter, each in so many of a hundred calls.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Habits {
    pub(super) feed_panics: u64,
    pub(super) feed_refuses: u64,
    pub(super) panics_and_keeps: u64,
    pub(super) panics_and_takes: u64,
    pub(super) refuses_and_keeps: u64,
    pub(super) refuses_and_takes: u64,
    pub(super) loses_step: u64,
    pub(super) yields_and_keeps: u64,
    pub(super) pending_panics: u64,
    pub(super) clone_panics: u64,
    pub(super) hand_over_fails: u64,
    pub(super) finish_lies: u64,
    pub(super) last_panics: u64,
    pub(super) put_panics: u64,
    pub(super) put_refuses: u64,
}

impl Habits {
    pub(super) fn of(dice: &mut Dice) -> Habits {
        let mut habits = Habits::default();
        let all = [
            &mut habits.feed_panics,
            &mut habits.feed_refuses,
            &mut habits.panics_and_keeps,
            &mut habits.panics_and_takes,
            &mut habits.refuses_and_keeps,
            &mut habits.refuses_and_takes,
            &mut habits.loses_step,
            &mut habits.yields_and_keeps,
            &mut habits.pending_panics,
            &mut habits.clone_panics,
            &mut habits.hand_over_fails,
            &mut habits.finish_lies,
            &mut habits.last_panics,
            &mut habits.put_panics,
            &mut habits.put_refuses,
        ];
        let many = dice.below(4);
        for habit in all {
            *habit = match dice.below(8) {
                roll if roll < many => [5, 30, 30, 100][dice.below(4) as usize],
                _ => 0,
            };
        }
        habits
    }

    /// Tells whether the filter makes so much of each line that its input takes seconds.
    pub(super) fn last_for_ever(&self) -> bool {
        self.yields_and_keeps == 100 || self.refuses_and_keeps == 100
    }
}

/// Lines for a filter with bad habits. What it delivers is the number of the record.
pub(super) struct Nasty {
    pub(super) input: Vec<u8>,
    pub(super) habits: Habits,
    pub(super) tally: Rc<Tally>,
}

impl Nasty {
    fn does(&self, percent: u64) -> bool {
        self.tally.roll(percent)
    }

    fn record(&self) -> u64 {
        self.tally.made.set(self.tally.made.get() + 1);
        self.tally.made.get()
    }
}

impl Filter for Nasty {
    type Input = u64;
    type Output = [u8];

    fn get_one_start(&mut self, chunk: &[u8]) -> std::result::Result<(), FilterError> {
        assert!(!self.does(self.habits.feed_panics), "fed");
        if self.does(self.habits.feed_refuses) {
            return Err(FilterError::BufferFull { limit: 3, needed: chunk.len() });
        }
        self.input.extend_from_slice(chunk);
        Ok(())
    }

    fn get_one(&mut self) -> std::result::Result<Option<u64>, FilterError> {
        let Some(end) = self.input.iter().position(|octet| *octet == b'\n') else { return Ok(None) };
        assert!(!self.does(self.habits.panics_and_keeps), "asked for a record");
        let reason = || String::from("on purpose");
        if self.does(self.habits.refuses_and_keeps) {
            return Err(FilterError::malformed(reason()));
        }
        if self.does(self.habits.yields_and_keeps) {
            return Ok(Some(self.record()));
        }
        self.input.drain(..=end);
        assert!(!self.does(self.habits.panics_and_takes), "in the middle of a record");
        if self.does(self.habits.refuses_and_takes) {
            return Err(FilterError::malformed(reason()));
        }
        if self.does(self.habits.loses_step) {
            return Err(FilterError::out_of_step(reason()));
        }
        Ok(Some(self.record()))
    }

    fn get_last(&mut self) -> std::result::Result<Option<u64>, FilterError> {
        assert!(!self.does(self.habits.last_panics), "asked for the last record");
        self.input.clear();
        Ok(Some(self.record()))
    }

    fn put(&mut self, record: &[u8], out: &mut Vec<u8>) -> std::result::Result<(), FilterError> {
        out.extend_from_slice(&record[..record.len() / 2]);
        assert!(!self.does(self.habits.put_panics), "with half a record put");
        if self.does(self.habits.put_refuses) {
            return Err(FilterError::Malformed { reason: "on purpose".into() });
        }
        out.extend_from_slice(&record[record.len() / 2..]);
        self.tally.put.borrow_mut().extend_from_slice(record);
        Ok(())
    }

    fn get_pending(&self) -> &[u8] {
        assert!(!self.does(self.habits.pending_panics), "asked for what is pending");
        &self.input
    }

    fn hand_over(&self) -> std::result::Result<&[u8], FilterError> {
        let fails = self.does(self.habits.hand_over_fails);
        if fails { Err(FilterError::CannotSwitch { held: 1 }) } else { Ok(&self.input) }
    }

    fn finish_record(&mut self, chunk: &[u8]) -> Option<usize> {
        match self.does(self.habits.finish_lies) {
            true => [None, Some(chunk.len() + 1), Some(1)][self.tally.below(3) as usize],
            false => Some(0),
        }
    }

    fn clone_config(&self) -> Self {
        assert!(!self.does(self.habits.clone_panics), "cloned");
        Nasty { input: Vec::new(), habits: self.habits, tally: self.tally.clone() }
    }
}

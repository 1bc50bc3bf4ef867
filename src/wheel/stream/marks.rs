//! Back-pressure: how much output may wait before its session should put no more, and when it may go on.

use std::cell::Cell;

use crate::error::Error;
use crate::name::Name;

/// The marks, in bytes of waiting output.
#[derive(Clone, Copy)]
pub(crate) struct Marks {
    pub(crate) low: usize,
    pub(crate) high: usize,
}

/// The events for the marks.
#[derive(Clone, Copy, Default)]
pub(crate) struct MarkEvents {
    pub(crate) high: Option<Name>,
    pub(crate) low: Option<Name>,
}

impl Marks {
    pub(crate) fn check(self) -> Result<(), Error> {
        match self {
            Marks { low: 0, .. } => invalid("marks", "the low mark must be above 0"),
            Marks { low, high } if low >= high => invalid("marks", "the low mark must be below the high mark"),
            _ => Ok(()),
        }
    }
}

impl MarkEvents {
    /// Tells whether `marks` and these events go together. `auto_pause` is another use for marks.
    pub(crate) fn check(self, marks: Option<Marks>, auto_pause: bool) -> Result<(), Error> {
        match (marks, self) {
            (Some(marks), MarkEvents { low, .. }) => {
                marks.check()?;
                if low.is_none() && !auto_pause {
                    return invalid("marks", "need on_low: no other event says that the output has drained");
                }
                Ok(())
            }
            (None, _) if auto_pause => invalid("auto_pause", "needs marks"),
            (None, MarkEvents { high: Some(_), .. }) => invalid("on_high", "needs marks"),
            (None, MarkEvents { low: Some(_), .. }) => invalid("on_low", "needs marks"),
            (None, _) => Ok(()),
        }
    }
}

fn invalid(setting: &'static str, reason: &'static str) -> Result<(), Error> {
    Err(Error::InvalidSetting { setting, reason })
}

/// Whether an output has reached its high mark.
#[derive(Default)]
pub(crate) struct Level {
    marks: Cell<Option<Marks>>,
    /// The output has reached the high mark, and not drained to the low mark since.
    high: Cell<bool>,
    /// The high event is still to be sent.
    high_is_due: Cell<bool>,
}

impl Level {
    pub(crate) fn new(marks: Option<Marks>) -> Level {
        Level { marks: Cell::new(marks), ..Level::default() }
    }

    pub(crate) fn marks(&self) -> Option<Marks> {
        self.marks.get()
    }

    /// Moves the marks. The `waiting` bytes may then be beyond one of them.
    pub(crate) fn set_marks(&self, marks: Marks, waiting: usize) {
        self.marks.set(Some(marks));
        self.rise(waiting);
    }

    /// Notes that `waiting` bytes wait after a `put`. Returns whether the output has reached the high mark.
    pub(crate) fn rise(&self, waiting: usize) -> bool {
        let is_high = self.marks.get().is_some_and(|marks| waiting >= marks.high);
        if is_high && !self.high.replace(true) {
            self.high_is_due.set(true);
        }
        is_high
    }

    /// Notes that `waiting` bytes wait after a write. Returns whether the low event is due.
    pub(crate) fn fall(&self, waiting: usize) -> bool {
        let may_go_on = self.high.get() && self.marks.get().is_none_or(|marks| waiting <= marks.low);
        if may_go_on {
            self.high.set(false);
        }
        may_go_on
    }

    pub(crate) fn is_high(&self) -> bool {
        self.high.get()
    }

    /// Tells whether the high event is due, once.
    pub(crate) fn take_high(&self) -> bool {
        self.high_is_due.take()
    }

    /// Forgets that the output was high, because nothing waits any more. No event is due.
    pub(crate) fn forget(&self) {
        self.high.set(false);
        self.high_is_due.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // K-RE-22: at the high mark once, and again only after the low one
    fn each_mark_is_told_of_once() {
        let level = Level::new(Some(Marks { low: 2, high: 5 }));
        assert!(!level.rise(4) && !level.take_high());
        assert!(level.rise(5) && level.rise(6) && level.is_high());
        assert!(level.take_high() && !level.take_high());
        assert!(!level.fall(3) && !level.rise(4) && level.is_high());
        assert!(level.fall(2) && !level.fall(0) && !level.is_high());
        assert!(level.rise(5) && level.take_high());
        level.set_marks(Marks { low: 6, high: 9 }, 5);
        assert!(level.fall(5), "it is below the new low mark");
        level.set_marks(Marks { low: 1, high: 4 }, 5);
        assert!(level.take_high() && level.is_high());
    }
}

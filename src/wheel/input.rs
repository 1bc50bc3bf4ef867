//! Input on its way through a filter to a session: what `Run` and `FollowTail` have in common.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::read_write::reader::guarded;
use super::read_write::records::{Former, Records, Unfed};
use crate::error::Exception;
use crate::filter::{Filter, FilterError};
use crate::kernel::{Kernel, Mode, SourceKey};

/// A filter, and what it has made of the input so far.
pub(super) struct Input<F: Filter> {
    filter: RefCell<F>,
    former: Former,
    /// What the filter has told of its limit.
    filter_limit: Cell<usize>,
    /// What was read and did not fit into the filter, or was pending in the one before.
    unfed: RefCell<Unfed>,
    /// Records that the filter refused, for the error event.
    refused: RefCell<Vec<FilterError>>,
    /// What the filter has panicked with, for the `DIE` signal; it has been put back to its beginning.
    panic: RefCell<Option<Exception>>,
    /// Records may be left in the filter, as their delivery was interrupted.
    has_rest: Cell<bool>,
    /// What is left after them is the last record, unfinished as it is.
    last_is_due: Cell<bool>,
}

/// Where the records go. No borrow of the [`Input`] lasts while one of these runs.
pub(super) trait Recipient<F: Filter> {
    /// Tells whether the wheel is there, wants records and is not paused.
    fn takes_more(&self) -> bool;

    /// Sends a record to the session; returns whether its state came to its end.
    fn record(&self, kernel: &mut Kernel, record: F::Input) -> bool;

    /// Tells the session of a record that the filter refused.
    fn refused(&self, kernel: &mut Kernel, error: FilterError);

    /// Makes a `DIE` signal of the filter's panic.
    fn panicked(&self, kernel: &mut Kernel, exception: Exception);
}

impl<F: Filter> Input<F> {
    pub(super) fn new(filter: F) -> Input<F> {
        Input {
            filter: RefCell::new(filter),
            former: Former::default(),
            filter_limit: Cell::new(usize::MAX),
            unfed: RefCell::default(),
            refused: RefCell::default(),
            panic: RefCell::default(),
            has_rest: Cell::new(false),
            last_is_due: Cell::new(false),
        }
    }

    /// Gives the filter a chunk, of which it takes what there is room for; the rest comes when that is delivered.
    pub(super) fn feed(&self, chunk: &[u8]) {
        let chunk = self.guard(|| self.former.pass(chunk)).unwrap_or_default();
        let fed = if self.unfed.borrow().is_empty() { self.offer(chunk) } else { 0 };
        if fed < chunk.len() {
            self.unfed.borrow_mut().put(&chunk[fed..]);
        }
        self.has_rest.set(true);
    }

    fn offer(&self, chunk: &[u8]) -> usize {
        let mut limit = self.filter_limit.get();
        let feed = || Records::feed(&mut *self.filter.borrow_mut(), chunk, &mut limit, &mut self.refused.borrow_mut());
        let fed = self.guard(feed).unwrap_or(chunk.len());
        self.filter_limit.set(limit);
        fed
    }

    /// Calls the filter. One that panics is put back to its beginning, without the input that has brought it to that.
    fn guard<T>(&self, call: impl FnOnce() -> T) -> Option<T> {
        match guarded(call) {
            Ok(value) => Some(value),
            Err(exception) => {
                self.reset();
                self.panic.replace(Some(exception));
                self.has_rest.set(true);
                None
            }
        }
    }

    /// Sends the records that are complete, one event each. Returns whether it came to their end: not if the wheel was
    /// dropped or paused, or a state failed; what is left is then delivered later, if ever.
    pub(super) fn deliver(&self, kernel: &mut Kernel, key: SourceKey, to: &impl Recipient<F>) -> bool {
        let forked = kernel.core.forked;
        while self.has_rest.get() {
            if let Some(exception) = self.panic.take() {
                to.panicked(kernel, exception);
            }
            while to.takes_more() && kernel.core.forked == forked && !self.refused.borrow().is_empty() {
                let error = self.refused.borrow_mut().remove(0);
                to.refused(kernel, error);
            }
            // Asked last: any state may have dropped or paused the wheel; and in a child that was forked meanwhile, this
            // turn is the parent's.
            if !to.takes_more() || kernel.core.forked != forked {
                return false;
            }
            match self.next() {
                // A record that was refused on the way to the end is still to be told of.
                Ok(None) => self.has_rest.set(!self.refused.borrow().is_empty() || self.panic.borrow().is_some()),
                Ok(Some(record)) => {
                    if !to.record(kernel, record) {
                        kernel.core.sources.requeue(key, Mode::Read);
                        return false;
                    }
                }
                Err(error) => self.refused.borrow_mut().push(error),
            }
        }
        true
    }

    /// Takes the next record, feeding the filter as long as there is none and nothing to complain of.
    fn next(&self) -> Result<Option<F::Input>, FilterError> {
        loop {
            let Some(next) = self.guard(|| self.filter.borrow_mut().get_one()) else { return Ok(None) };
            if !matches!(next, Ok(None)) || !self.refused.borrow().is_empty() {
                return next;
            }
            if self.unfed.borrow().is_empty() {
                return if self.last_is_due.take() {
                    self.guard(|| self.filter.borrow_mut().get_last()).unwrap_or(Ok(None))
                } else {
                    next
                };
            }
            let mut unfed = self.unfed.take();
            unfed.start += self.offer(unfed.rest());
            self.unfed.replace(unfed);
        }
    }

    /// Has the next delivery end with the unfinished last record.
    pub(super) fn finish(&self) {
        if !self.pending().is_empty() {
            self.last_is_due.set(true);
            self.has_rest.set(true);
        }
    }

    /// Takes out the records that are complete, for nobody.
    pub(super) fn discard(&self) {
        // Each record takes an octet at least, and so does what is refused.
        for _ in 0..=2 * self.pending().len() {
            let is_last = matches!(self.next(), Ok(None));
            if self.refused.take().is_empty() && is_last {
                break;
            }
        }
        self.has_rest.set(false);
    }

    /// Puts another filter in place, which is given what the former one has not parsed.
    pub(super) fn replace(&self, filter: F) {
        let old = self.filter.replace(filter);
        self.former.take_over(Rc::new(RefCell::new(old)), &self.unfed, &self.refused);
        self.filter_limit.set(usize::MAX);
        self.has_rest.set(true);
    }

    /// Forgets all input.
    pub(super) fn reset(&self) {
        let empty = self.filter.borrow().clone_config();
        self.filter.replace(empty);
        self.former.forget();
        self.unfed.take();
        self.refused.take();
        self.has_rest.set(false);
        self.last_is_due.set(false);
    }

    /// Looks at the filter.
    pub(super) fn look<T>(&self, look: impl FnOnce(&mut F) -> T) -> T {
        look(&mut self.filter.borrow_mut())
    }

    /// Returns what has been read and not been parsed: records that wait, and the beginning of one.
    pub(super) fn pending(&self) -> Vec<u8> {
        [self.filter.borrow().get_pending(), self.unfed.borrow().rest()].concat()
    }
}

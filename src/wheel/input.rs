//! Input on its way through a filter to a session: what `Run` and `FollowTail` have in common.

use std::cell::{Cell, RefCell};

use crate::filter::{Filter, FilterError};
use crate::kernel::{Kernel, Mode, SourceKey};

/// A filter, and what it has made of the input so far.
pub(super) struct Input<F: Filter> {
    filter: RefCell<F>,
    /// Records that the filter refused, for the error event.
    refused: RefCell<Vec<FilterError>>,
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
}

impl<F: Filter> Input<F> {
    pub(super) fn new(filter: F) -> Input<F> {
        Input {
            filter: RefCell::new(filter),
            refused: RefCell::default(),
            has_rest: Cell::new(false),
            last_is_due: Cell::new(false),
        }
    }

    /// Gives the filter a chunk.
    pub(super) fn feed(&self, chunk: &[u8]) {
        let mut filter = self.filter.borrow_mut();
        // The filter gives up what does not fit, and takes the chunk at the second offer.
        for _ in 0..2 {
            match filter.get_one_start(chunk) {
                Ok(()) => break,
                Err(error) => self.refused.borrow_mut().push(error),
            }
        }
        self.has_rest.set(true);
    }

    /// Sends the records that are complete, one event each. Returns whether it came to their end: not if the wheel was
    /// dropped or paused, or a state failed; what is left is then delivered later, if ever.
    pub(super) fn deliver(&self, kernel: &mut Kernel, key: SourceKey, to: &impl Recipient<F>) -> bool {
        let forked = kernel.core.forked;
        while self.has_rest.get() {
            if to.takes_more() {
                let refused = self.refused.take();
                refused.into_iter().for_each(|error| to.refused(kernel, error));
            }
            // Asked last: any state may have dropped or paused the wheel; and in a child that was forked meanwhile, this
            // turn is the parent's.
            if !to.takes_more() || kernel.core.forked != forked {
                return false;
            }
            match self.next() {
                Ok(None) => self.has_rest.set(false),
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

    fn next(&self) -> Result<Option<F::Input>, FilterError> {
        let mut filter = self.filter.borrow_mut();
        match filter.get_one() {
            Ok(None) if self.last_is_due.take() => filter.get_last(),
            other => other,
        }
    }

    /// Has the next delivery end with the unfinished last record.
    pub(super) fn finish(&self) {
        if !self.filter.borrow().get_pending().is_empty() {
            self.last_is_due.set(true);
            self.has_rest.set(true);
        }
    }

    /// Takes out the records that are complete, for nobody.
    pub(super) fn discard(&self) {
        let mut filter = self.filter.borrow_mut();
        // Each record takes an octet at least.
        for _ in 0..=filter.get_pending().len() {
            if matches!(filter.get_one(), Ok(None)) {
                break;
            }
        }
        self.refused.take();
        self.has_rest.set(false);
    }

    /// Puts another filter in place, which is given what the former one has not parsed.
    pub(super) fn replace(&self, filter: F) {
        let former = self.filter.replace(filter);
        self.feed(former.get_pending());
    }

    /// Forgets all input.
    pub(super) fn reset(&self) {
        let empty = self.filter.borrow().clone_config();
        self.filter.replace(empty);
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
        self.filter.borrow().get_pending().to_vec()
    }
}

//! Input on its way through a filter to a session: what `Run` and `FollowTail` have in common.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::records::{Former, Progress, RECORDS_PER_TURN, REFUSALS_PER_TURN, Records, Unfed};
use crate::error::Exception;
use crate::filter::{Filter, FilterError};
use crate::kernel::{Delivery, Mode, Next, Turn};
use crate::wheel::read_write::reader::guarded;

/// A filter, and what it has made of the input so far.
pub(in crate::wheel) struct Input<F: Filter> {
    filter: RefCell<F>,
    former: Former,
    /// What the filter has told of its limit.
    filter_limit: Cell<usize>,
    /// What was read and did not fit into the filter, or was pending in the one before.
    unfed: RefCell<Unfed>,
    /// Records that the filter refused, for the error event.
    refused: RefCell<Vec<FilterError>>,
    /// What the filter has panicked with, for the `DIE` signal.
    panic: RefCell<Option<Exception>>,
    progress: Progress,
    /// Records may be left in the filter, as their delivery was interrupted.
    has_rest: Cell<bool>,
    /// What is left after them is the last record, unfinished as it is.
    last_is_due: Cell<bool>,
}

/// Where the records go. No borrow of the [`Input`] lasts while one of these runs.
pub(in crate::wheel) trait Recipient<F: Filter> {
    /// Tells whether the wheel is there, wants records and is not paused.
    fn takes_more(&self) -> bool;

    /// Sends a record to the session.
    fn record(&self, cx: &mut Turn<'_>, record: F::Input) -> Delivery;

    /// Tells the session of a record that the filter refused.
    fn refused(&self, cx: &mut Turn<'_>, error: FilterError) -> Delivery;

    /// Makes a `DIE` signal of the filter's panic.
    fn panicked(&self, cx: &mut Turn<'_>, exception: Exception) -> Delivery;
}

impl<F: Filter> Input<F> {
    pub(in crate::wheel) fn new(filter: F) -> Input<F> {
        Input {
            filter: RefCell::new(filter),
            former: Former::default(),
            filter_limit: Cell::new(usize::MAX),
            unfed: RefCell::default(),
            refused: RefCell::default(),
            panic: RefCell::default(),
            progress: Progress::default(),
            has_rest: Cell::new(false),
            last_is_due: Cell::new(false),
        }
    }

    /// Gives the filter a chunk, of which it takes what there is room for; the rest comes when that is delivered.
    pub(in crate::wheel) fn feed(&self, chunk: &[u8]) {
        let chunk = self.guard(|| self.former.pass(chunk)).unwrap_or_default();
        let fed = if self.unfed.borrow().is_empty() { self.offer(chunk).unwrap_or(chunk.len()) } else { 0 };
        if fed < chunk.len() {
            self.unfed.borrow_mut().put(&chunk[fed..]);
        }
        self.has_rest.set(true);
    }

    /// Returns how much the filter has taken; `None` if it has panicked.
    fn offer(&self, chunk: &[u8]) -> Option<usize> {
        let mut limit = self.filter_limit.get();
        let feed = || Records::feed(&mut *self.filter.borrow_mut(), chunk, &mut limit, &mut self.refused.borrow_mut());
        let fed = self.guard(feed);
        self.filter_limit.set(limit);
        fed
    }

    /// Calls the filter, and keeps what it panics with.
    fn guard<T>(&self, call: impl FnOnce() -> T) -> Option<T> {
        guarded(call).map_err(|exception| self.panic.replace(Some(exception))).ok()
    }

    /// Sends the records that are complete, one event each.
    ///
    /// # Errors
    ///
    /// What the source is to answer if that did not come to their end: the wheel was dropped or paused, or a state or the filter
    /// failed, or there are too many for a turn. What is left is then delivered later, if ever.
    pub(in crate::wheel) fn deliver(&self, cx: &mut Turn<'_>, to: &impl Recipient<F>) -> Result<(), Next> {
        if !self.has_rest.get() && self.panic.borrow().is_none() {
            return Ok(());
        }
        let mut refusals = 0;
        for _ in 0..RECORDS_PER_TURN {
            // Asked each time: any state may have paused the wheel.
            if !to.takes_more() {
                return Err(Next::Wait);
            }
            let delivery = if let Some(exception) = self.panic.take() {
                to.panicked(cx, exception)
            } else if refusals == REFUSALS_PER_TURN {
                break;
            } else if let Some(error) = self.next_refused() {
                refusals += 1;
                to.refused(cx, error)
            } else {
                match self.next() {
                    Some(Ok(Some(record))) => {
                        self.progress.made();
                        to.record(cx, record)
                    }
                    Some(Ok(None)) if self.refused.borrow().is_empty() => {
                        self.progress.made();
                        self.has_rest.set(false);
                        return Ok(());
                    }
                    // A record that was refused on the way to the end is still to be told of.
                    Some(Ok(None)) => continue,
                    Some(Err(error)) => {
                        self.refuse(error);
                        continue;
                    }
                    // If it has not advanced, what is left waits for more input: it would panic without end.
                    None => {
                        self.has_rest.set(self.progress.after_panic(self.left().unwrap_or(usize::MAX)));
                        continue;
                    }
                }
            };
            match delivery {
                Delivery::Done => {}
                Delivery::Failed => break,
                Delivery::Over => return Err(Next::Wait),
            }
        }
        Err(Next::Again(Mode::Read))
    }

    fn next_refused(&self) -> Option<FilterError> {
        let mut refused = self.refused.borrow_mut();
        if refused.is_empty() { None } else { Some(refused.remove(0)) }
    }

    /// Keeps what the filter complains of, and drops the input of one that refuses without end.
    #[cold]
    fn refuse(&self, error: FilterError) {
        self.refused.borrow_mut().push(error);
        let Some(left) = self.guard(|| self.pending().len()) else { return };
        if !self.progress.after_refusal(left) {
            let told = self.refused.take();
            let is_reset = self.reset();
            self.refused.replace(told);
            self.refused.borrow_mut().push(self.progress.end(left));
            // What can't be reset would refuse for ever: it waits for more input.
            self.has_rest.set(is_reset);
        }
    }

    /// Returns how many octets have not become records; `None` if the filter panics when it is asked.
    fn left(&self) -> Option<usize> {
        guarded(|| self.pending().len()).ok()
    }

    /// Takes the next record, feeding the filter as long as there is none and nothing to complain of. `None` if the filter has
    /// panicked.
    fn next(&self) -> Option<Result<Option<F::Input>, FilterError>> {
        loop {
            let next = self.guard(|| self.filter.borrow_mut().get_one())?;
            if !matches!(next, Ok(None)) || !self.refused.borrow().is_empty() {
                return Some(next);
            }
            if self.unfed.borrow().is_empty() {
                return if self.last_is_due.take() { self.last() } else { Some(next) };
            }
            // Taken out while it is fed: a filter that panics on it does not get it again.
            let mut unfed = self.unfed.take();
            unfed.start += self.offer(unfed.rest())?;
            self.unfed.replace(unfed);
        }
    }

    /// Takes the unfinished last record. A filter that panics on it is put back to its beginning, as it would be asked again.
    #[cold]
    fn last(&self) -> Option<Result<Option<F::Input>, FilterError>> {
        let last = self.guard(|| self.filter.borrow_mut().get_last());
        if last.is_none() {
            self.reset();
        }
        last
    }

    /// Has the next delivery end with the unfinished last record.
    pub(in crate::wheel) fn finish(&self) {
        if self.left() != Some(0) {
            self.last_is_due.set(true);
            self.has_rest.set(true);
        }
    }

    /// Takes out the records that are complete, for nobody.
    pub(in crate::wheel) fn discard(&self) {
        // Each record takes an octet at least, and so does what is refused.
        for _ in 0..=2 * self.left().unwrap_or(0) {
            let is_last = matches!(self.next(), None | Some(Ok(None)));
            if self.refused.take().is_empty() && is_last {
                break;
            }
        }
        self.has_rest.set(false);
    }

    /// Puts another filter in place, which is given what the former one has not parsed.
    pub(in crate::wheel) fn replace(&self, filter: F) {
        let old = self.filter.replace(filter);
        self.former.take_over(Rc::new(RefCell::new(old)), &self.unfed, &self.refused);
        self.filter_limit.set(usize::MAX);
        self.has_rest.set(true);
    }

    /// Forgets all input. Returns whether the filter does, too: not if it has panicked.
    pub(in crate::wheel) fn reset(&self) -> bool {
        let is_reset = self.guard(|| {
            let empty = self.filter.borrow().clone_config();
            drop(self.filter.replace(empty));
        });
        self.former.forget();
        self.unfed.take();
        self.refused.take();
        self.progress.made();
        self.has_rest.set(false);
        self.last_is_due.set(false);
        is_reset.is_some()
    }

    /// Looks at the filter.
    pub(in crate::wheel) fn look<T>(&self, look: impl FnOnce(&mut F) -> T) -> T {
        look(&mut self.filter.borrow_mut())
    }

    /// Returns what has been read and not been parsed: records that wait, and the beginning of one.
    pub(in crate::wheel) fn pending(&self) -> Vec<u8> {
        [self.filter.borrow().get_pending(), self.unfed.borrow().rest()].concat()
    }
}

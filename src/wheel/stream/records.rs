//! A filter's input side without its types: what lets a wheel go on with another filter between two records.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::args::{Args, IntoArgs};
use crate::filter::{Filter, FilterError};
use crate::wheel::WheelId;

/// Any [`Filter`], as far as reading goes.
pub(crate) trait Records {
    /// Offers the filter as much of `chunk` as it will take, and returns how much that was: at least one byte, so that
    /// the chunk comes to an end. What it refused is added to `refused`.
    ///
    /// `limit` is the most that the filter will hold, as far as its errors have told.
    fn feed(&mut self, chunk: &[u8], limit: &mut usize, refused: &mut Vec<FilterError>) -> usize;

    /// Takes the next record, as the arguments of an input event.
    fn next(&mut self, id: WheelId) -> Result<Option<Args>, FilterError>;

    /// Takes the unfinished last record in the same form.
    fn last(&mut self, id: WheelId) -> Result<Option<Args>, FilterError>;

    fn pending(&self) -> &[u8];

    /// What another filter is to be fed first.
    fn hand_over(&self) -> Result<&[u8], FilterError>;

    /// How many bytes of what follows are still this filter's; `None` if all are, and perhaps more.
    fn finish_record(&mut self, chunk: &[u8]) -> Option<usize>;

    /// Gives up all input.
    fn reset(&mut self);
}

impl<F: Filter> Records for F {
    fn feed(&mut self, chunk: &[u8], limit: &mut usize, refused: &mut Vec<FilterError>) -> usize {
        let room =
            self.room().min(limit.saturating_sub(if *limit == usize::MAX { 0 } else { self.get_pending().len() }));
        let fits = chunk.len().min(room.max(1));
        let Err(error) = self.get_one_start(&chunk[..fits]) else { return fits };
        let again = if let FilterError::BufferFull { limit: told, .. } = error {
            *limit = told;
            true
        } else {
            false
        };
        refused.push(error);
        if !again {
            return fits;
        }
        // The filter has given up the record in progress, and takes what fits at the second offer.
        let fits = fits.min((*limit).max(1));
        refused.extend(self.get_one_start(&chunk[..fits]).err());
        fits
    }

    fn next(&mut self, id: WheelId) -> Result<Option<Args>, FilterError> {
        Ok(self.get_one()?.map(|record| (record, id).into_args()))
    }

    fn last(&mut self, id: WheelId) -> Result<Option<Args>, FilterError> {
        Ok(self.get_last()?.map(|record| (record, id).into_args()))
    }

    fn pending(&self) -> &[u8] {
        self.get_pending()
    }

    fn hand_over(&self) -> Result<&[u8], FilterError> {
        Filter::hand_over(self)
    }

    fn finish_record(&mut self, chunk: &[u8]) -> Option<usize> {
        Filter::finish_record(self, chunk)
    }

    fn reset(&mut self) {
        *self = self.clone_config();
    }
}

/// A filter that the wheel's handle knows by its type.
pub(crate) type SharedRecords = Rc<RefCell<dyn Records>>;

/// Whether a filter gets on with its input. One that panics or refuses without taking any would do so for ever.
#[derive(Default)]
pub(crate) struct Progress {
    /// How many bytes were left the last time that it failed, unless it has done well since.
    left: Cell<Option<usize>>,
    /// How many records it has refused since it took some input.
    refusals: Cell<usize>,
}

impl Progress {
    /// A record has come, or the filter waits for more input.
    #[inline]
    pub(crate) fn made(&self) {
        self.left.set(None);
    }

    /// The filter has panicked, with `left` bytes to go. Tells whether to try again: not if it has taken none of them since
    /// the last time.
    pub(crate) fn after_panic(&self, left: usize) -> bool {
        self.left.replace(Some(left)).is_none_or(|before| left < before)
    }

    /// The filter has refused a record, with `left` bytes to go. Tells whether to try again: not after too many refusals of
    /// which none has taken any.
    pub(crate) fn after_refusal(&self, left: usize) -> bool {
        let has_taken = self.left.replace(Some(left)).is_none_or(|before| left < before);
        self.refusals.set(if has_taken { 0 } else { self.refusals.get() + 1 });
        self.refusals.get() < REFUSALS_WITHOUT_INPUT
    }

    /// What is told of a filter that is not tried again, and whose `left` bytes are given up.
    pub(crate) fn end(&self, left: usize) -> FilterError {
        self.made();
        let reason = format!("the filter refuses without taking input: {left} bytes are dropped");
        FilterError::out_of_step(reason)
    }
}

/// How many records a filter may refuse without taking any input: some refuse several that they have made of one.
const REFUSALS_WITHOUT_INPUT: usize = 16 * super::inbox::COMPLAINTS_PER_TURN;

/// The filter before the present one, while bytes that belong to its last record may still come.
#[derive(Default)]
pub(crate) struct Former(RefCell<Option<SharedRecords>>);

impl Former {
    /// Has a new filter fed what is pending in the `old` one, ahead of what that was not fed at all.
    ///
    /// # Errors
    ///
    /// What the old one can't hand over.
    pub(crate) fn take_over(&self, old: SharedRecords, unfed: &RefCell<Unfed>) -> Result<(), FilterError> {
        let mut lost = Ok(());
        let pending = {
            let old = old.borrow();
            let pending = old.hand_over().unwrap_or_else(|error| {
                lost = Err(error);
                old.pending()
            });
            pending.to_vec()
        };
        // One that waits for the end of its own last record has let nothing through to the filter that is replaced here.
        if self.0.borrow().is_none() {
            self.0.replace(Some(old));
        }
        let octets = [&pending, self.pass(unfed.borrow().rest())].concat();
        unfed.replace(Unfed { octets, start: 0 });
        lost
    }

    /// Returns what of `chunk` is input for the present filter.
    pub(crate) fn pass<'a>(&self, chunk: &'a [u8]) -> &'a [u8] {
        let Some(old) = self.0.take() else { return chunk };
        let finished = old.borrow_mut().finish_record(chunk);
        match finished {
            Some(count) => &chunk[count.min(chunk.len())..],
            None => {
                self.0.replace(Some(old));
                &[]
            }
        }
    }

    pub(crate) fn forget(&self) {
        self.0.take();
    }
}

/// Bytes for a filter, from `start` on.
#[derive(Default)]
pub(crate) struct Unfed {
    pub(crate) octets: Vec<u8>,
    pub(crate) start: usize,
}

impl Unfed {
    pub(crate) fn rest(&self) -> &[u8] {
        &self.octets[self.start..]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.octets.len()
    }

    pub(crate) fn put(&mut self, chunk: &[u8]) {
        self.octets.drain(..self.start);
        self.start = 0;
        self.octets.extend_from_slice(chunk);
    }
}

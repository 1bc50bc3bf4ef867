//! The input side of a filter without its types, so that a wheel can change to another filter between two records.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::args::{Args, IntoArgs};
use crate::filter::{Filter, FilterError};
use crate::wheel::WheelId;

/// Any [`Filter`], for reading.
pub(crate) trait Records {
    /// Offers the filter as much of `chunk` as it will take, and returns how much it has dealt with. That is at least
    /// one byte, so that the chunk comes to an end. Refusals are added to `refused`.
    ///
    /// `limit` is the most that the filter will hold, as far as its errors have told.
    fn feed(&mut self, chunk: &[u8], limit: &mut usize, refused: &mut Vec<FilterError>) -> usize;

    /// Takes the next record, as the arguments of an input event.
    fn next(&mut self, id: WheelId) -> Result<Option<Args>, FilterError>;

    /// Takes the unfinished last record in the same form.
    fn last(&mut self, id: WheelId) -> Result<Option<Args>, FilterError>;

    fn pending(&self) -> &[u8];

    /// Returns the input for a filter that takes over.
    fn hand_over(&self) -> Result<&[u8], FilterError>;

    /// Returns how many bytes of `chunk` still belong to this filter, or `None` if all do and more may follow.
    fn finish_record(&mut self, chunk: &[u8]) -> Option<usize>;

    /// Discards all input.
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

/// Whether a filter makes progress with its input. A filter that panics or refuses without taking input would do so
/// forever.
#[derive(Default)]
pub(crate) struct Progress {
    /// How many bytes were left at the last failure. `None` after a success.
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

    /// The filter has panicked, and `left` bytes are left. Returns whether to try again, which is only if it has taken
    /// some since the last failure.
    pub(crate) fn after_panic(&self, left: usize) -> bool {
        self.left.replace(Some(left)).is_none_or(|before| left < before)
    }

    /// The filter has refused a record, and `left` bytes are left. Returns whether to try again, which is not after too
    /// many refusals without taking input.
    pub(crate) fn after_refusal(&self, left: usize) -> bool {
        let has_taken = self.left.replace(Some(left)).is_none_or(|before| left < before);
        self.refusals.set(if has_taken { 0 } else { self.refusals.get() + 1 });
        self.refusals.get() < REFUSALS_WITHOUT_INPUT
    }

    /// Returns the error for a filter that is not tried again, and whose `left` bytes are discarded.
    pub(crate) fn end(&self, left: usize) -> FilterError {
        self.made();
        let reason = format!("the filter refuses without taking input: {left} bytes are dropped");
        FilterError::out_of_step(reason)
    }
}

/// How many records a filter may refuse without taking input. Some filters refuse several records that they have made
/// of one.
const REFUSALS_WITHOUT_INPUT: usize = 16 * super::inbox::COMPLAINTS_PER_TURN;

/// The previous filter, while bytes that belong to its last record may still come.
#[derive(Default)]
pub(crate) struct Former(RefCell<Option<SharedRecords>>);

impl Former {
    /// Feeds the new filter the input that is pending in the `old` one, and then the input that was not fed at all.
    ///
    /// # Errors
    ///
    /// The old filter's error if it can't hand over its input.
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
        // A filter that still waits for the end of its own last record has passed nothing to the filter that is now
        // replaced.
        if self.0.borrow().is_none() {
            self.0.replace(Some(old));
        }
        let octets = [&pending, self.pass(unfed.borrow().rest())].concat();
        unfed.replace(Unfed { octets, start: 0 });
        lost
    }

    /// Returns the part of `chunk` that is input for the current filter.
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

//! Input on its way through a filter to a session. No byte is read here.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::records::{Former, Progress, SharedRecords, Unfed};
use crate::args::Args;
use crate::error::Exception;
use crate::filter::FilterError;
use crate::kernel::{Delivery, Next, Readiness, Turn};
use crate::wheel::WheelId;

/// A filter, and what it has made of the input so far. No borrow lasts while a state runs.
pub(in crate::wheel) struct Inbox {
    /// ARG1 of each record's event.
    id: WheelId,
    filter: RefCell<SharedRecords>,
    former: Former,
    /// What the filter has told of its limit.
    filter_limit: Cell<usize>,
    /// What was read and did not fit into the filter, or was pending in the one before.
    unfed: RefCell<Unfed>,
    /// What the session is still to be told of the filter.
    complaints: RefCell<VecDeque<Complaint>>,
    has_complaints: Cell<bool>,
    progress: Progress,
    /// Records may be left in the filter, as their delivery was interrupted.
    has_rest: Cell<bool>,
    /// What is left after them is the last record, unfinished as it is.
    last_is_due: Cell<bool>,
}

/// What a filter has done in place of a record.
enum Complaint {
    Refused(FilterError),
    Panicked(Exception),
}

/// What comes next out of the filter.
enum Parsed {
    /// With the wheel's id, the arguments of the record's event.
    Record(Args),
    Complaint,
    Nothing,
}

/// Where the records go.
pub(in crate::wheel) trait Recipient {
    /// Tells whether the wheel wants records and is not paused.
    fn takes_more(&self) -> bool;

    /// Sends a record to the session.
    fn record(&self, cx: &mut Turn<'_>, args: Args) -> Delivery;

    /// Tells the session of a record that the filter refused.
    fn refused(&self, cx: &mut Turn<'_>, error: FilterError) -> Delivery;

    /// Makes a `DIE` signal of the filter's panic.
    fn panicked(&self, cx: &mut Turn<'_>, exception: Exception) -> Delivery;
}

impl Inbox {
    pub(in crate::wheel) fn new(id: WheelId, filter: SharedRecords) -> Inbox {
        Inbox {
            id,
            filter: RefCell::new(filter),
            former: Former::default(),
            filter_limit: Cell::new(usize::MAX),
            unfed: RefCell::default(),
            complaints: RefCell::default(),
            has_complaints: Cell::new(false),
            progress: Progress::default(),
            has_rest: Cell::new(false),
            last_is_due: Cell::new(false),
        }
    }

    /// Gives the filter a chunk, of which it takes what there is room for; the rest comes when that is delivered.
    pub(in crate::wheel) fn feed(&self, chunk: &[u8]) {
        self.has_rest.set(true);
        let fed = guarded(|| {
            let chunk = self.former.pass(chunk);
            // Something is in front of it if it did not fit, or the filter has panicked.
            let fed = if self.unfed.borrow().is_empty() { self.offer(chunk) } else { 0 };
            if fed < chunk.len() {
                self.unfed.borrow_mut().put(&chunk[fed..]);
            }
        });
        if let Err(exception) = fed {
            self.complain(Complaint::Panicked(exception));
        }
    }

    /// Returns how much the filter has taken.
    fn offer(&self, chunk: &[u8]) -> usize {
        let (mut limit, mut refused) = (self.filter_limit.get(), Vec::new());
        let fed = self.filter.borrow().borrow_mut().feed(chunk, &mut limit, &mut refused);
        self.filter_limit.set(limit);
        refused.into_iter().for_each(|error| self.complain(Complaint::Refused(error)));
        fed
    }

    /// Tells whether what was fed has not been delivered to its end.
    #[inline]
    pub(in crate::wheel) fn has_rest(&self) -> bool {
        self.has_rest.get() || self.has_complaints.get()
    }

    /// Sends the records that are complete, one event each.
    ///
    /// # Errors
    ///
    /// What the source is to answer if that did not come to their end: the wheel was dropped or paused, or a state or the filter
    /// failed, or there are too many for a turn. What is left is then delivered later, if ever.
    pub(in crate::wheel) fn deliver(&self, cx: &mut Turn<'_>, to: &impl Recipient) -> Result<(), Next> {
        if !self.has_rest() {
            return Ok(());
        }
        let mut complaints = 0;
        for _ in 0..RECORDS_PER_TURN {
            // Asked each time: any state may have paused the wheel.
            if !to.takes_more() {
                return Err(Next::Wait);
            }
            if complaints == COMPLAINTS_PER_TURN {
                break;
            }
            let delivery = match self.next() {
                Parsed::Record(args) => to.record(cx, args),
                Parsed::Complaint => {
                    complaints += 1;
                    match self.next_complaint() {
                        Some(Complaint::Refused(error)) => to.refused(cx, error),
                        Some(Complaint::Panicked(exception)) => to.panicked(cx, exception),
                        None => Delivery::Done,
                    }
                }
                Parsed::Nothing => {
                    self.has_rest.set(false);
                    return Ok(());
                }
            };
            match delivery {
                Delivery::Done => {}
                Delivery::Failed => break,
                Delivery::Over => return Err(Next::Wait),
            }
        }
        Err(Next::Again(Readiness::Read))
    }

    fn complain(&self, complaint: Complaint) {
        self.complaints.borrow_mut().push_back(complaint);
        self.has_complaints.set(true);
    }

    #[cold]
    fn next_complaint(&self) -> Option<Complaint> {
        let mut complaints = self.complaints.borrow_mut();
        let next = complaints.pop_front();
        self.has_complaints.set(!complaints.is_empty());
        next
    }

    #[inline]
    fn next(&self) -> Parsed {
        if self.has_complaints.get() {
            return Parsed::Complaint;
        }
        guarded(|| self.parse()).unwrap_or_else(|exception| {
            self.complain(Complaint::Panicked(exception));
            // If it has not advanced, what is left waits for more input: it would panic without end.
            self.has_rest.set(self.progress.after_panic(guarded(|| self.left()).unwrap_or(usize::MAX)));
            Parsed::Complaint
        })
    }

    /// Takes the next record, feeding the filter as long as there is none and nothing to complain of.
    fn parse(&self) -> Parsed {
        loop {
            let next = self.filter.borrow().borrow_mut().next(self.id);
            match next {
                Ok(Some(args)) => {
                    self.progress.made();
                    return Parsed::Record(args);
                }
                Ok(None) if self.has_complaints.get() => return Parsed::Complaint,
                Ok(None) => {}
                Err(error) => {
                    self.refuse(error);
                    return Parsed::Complaint;
                }
            }
            if self.unfed.borrow().is_empty() {
                if self.last_is_due.get() {
                    return self.last();
                }
                self.progress.made();
                return Parsed::Nothing;
            }
            // Taken out while it is fed: a filter that panics on it does not get it again.
            let mut unfed = self.unfed.take();
            unfed.start += self.offer(unfed.rest());
            self.unfed.replace(unfed);
        }
    }

    /// Takes the unfinished last record. A filter that panics on it is put back to its beginning, as it would be asked again.
    #[cold]
    fn last(&self) -> Parsed {
        self.last_is_due.set(false);
        match guarded(|| self.filter.borrow().borrow_mut().last(self.id)) {
            Ok(Ok(Some(args))) => return Parsed::Record(args),
            Ok(Ok(None)) => return Parsed::Nothing,
            Ok(Err(error)) => self.refuse(error),
            Err(exception) => {
                self.reset_input();
                self.complain(Complaint::Panicked(exception));
            }
        }
        Parsed::Complaint
    }

    /// Notes what the filter complains of, and drops the input of one that refuses without end.
    #[cold]
    fn refuse(&self, error: FilterError) {
        self.complain(Complaint::Refused(error));
        let Ok(left) = guarded(|| self.left()) else { return };
        if !self.progress.after_refusal(left) {
            let is_reset = self.reset_input();
            self.complain(Complaint::Refused(self.progress.end(left)));
            // What can't be reset would refuse for ever: it waits for more input.
            self.has_rest.set(is_reset);
        }
    }

    /// Returns how many bytes have not become records.
    fn left(&self) -> usize {
        self.filter.borrow().borrow().pending().len() + self.unfed.borrow().rest().len()
    }

    /// Has the next delivery end with the unfinished last record.
    pub(in crate::wheel) fn finish(&self) {
        if guarded(|| self.left()).ok() != Some(0) {
            self.last_is_due.set(true);
            self.has_rest.set(true);
        }
    }

    /// Drops the records that are complete.
    pub(in crate::wheel) fn discard(&self) {
        // Each record takes a byte at least, and so does what is refused.
        for _ in 0..=2 * guarded(|| self.left()).unwrap_or(0) {
            let is_last = match self.next() {
                Parsed::Record(_) => false,
                Parsed::Complaint => matches!(self.next_complaint(), Some(Complaint::Panicked(_))),
                Parsed::Nothing => true,
            };
            if is_last {
                break;
            }
        }
        self.has_rest.set(false);
    }

    /// Goes on with another filter.
    pub(in crate::wheel) fn set_filter(&self, filter: SharedRecords) {
        self.filter.replace(filter);
    }

    /// Has the filter that is there now fed what the `old` one leaves to it. What that can't hand over is a complaint. Returns
    /// whether the wheel has to ask for a turn, as no delivery is under way.
    pub(in crate::wheel) fn take_over(&self, old: SharedRecords) -> bool {
        let taken = guarded(|| self.former.take_over(old, &self.unfed));
        let complaint = match taken {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Complaint::Refused(error)),
            Err(exception) => Some(Complaint::Panicked(exception)),
        };
        complaint.into_iter().for_each(|complaint| self.complain(complaint));
        self.filter_limit.set(usize::MAX);
        // Also without anything to be fed: the new filter may have come with input of its own. If there was a rest, there is
        // a delivery that goes on, or that waits for its own reasons.
        !self.has_rest.replace(true)
    }

    /// Forgets all input. Returns whether the filter does, too: not if it has panicked.
    pub(in crate::wheel) fn reset(&self) -> bool {
        self.complaints.take();
        self.has_complaints.set(false);
        self.reset_input()
    }

    fn reset_input(&self) -> bool {
        let is_reset = guarded(|| self.filter.borrow().borrow_mut().reset());
        self.former.forget();
        self.unfed.take();
        self.progress.made();
        self.has_rest.set(false);
        self.last_is_due.set(false);
        is_reset.map_err(|exception| self.complain(Complaint::Panicked(exception))).is_ok()
    }

    /// Returns what has been read and not been parsed: records that wait, and the beginning of one.
    pub(in crate::wheel) fn pending(&self) -> Vec<u8> {
        let filter = self.filter.borrow();
        let filter = filter.borrow();
        [filter.pending(), self.unfed.borrow().rest()].concat()
    }
}

/// Calls a filter, whose panic is not to end the kernel.
pub(in crate::wheel) fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, Exception> {
    catch_unwind(AssertUnwindSafe(call)).map_err(Exception::from_panic)
}

/// How many records one turn delivers at most: more than the bytes of a usual read, whatever the filter makes of them.
const RECORDS_PER_TURN: usize = 128 * 1024;

/// How many complaints one turn tells of at most, so that a peer that sends nothing else does not keep other sources waiting.
pub(super) const COMPLAINTS_PER_TURN: usize = 1024;

//! Input on its way through a filter to a session. The reading itself is done elsewhere.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::records::{Former, Progress, SharedRecords, Unfed};
use crate::args::Args;
use crate::error::Exception;
use crate::filter::FilterError;
use crate::kernel::{Delivery, Next, Readiness, Turn};
use crate::wheel::WheelId;

/// A filter, and the input that it holds or that still waits for it. No borrow lasts while a state runs.
pub(in crate::wheel) struct Inbox {
    /// ARG1 of each record's event.
    id: WheelId,
    filter: RefCell<SharedRecords>,
    former: Former,
    /// The filter's limit, as far as its errors have told.
    filter_limit: Cell<usize>,
    /// Input that did not fit into the filter, or was pending in the filter before.
    unfed: RefCell<Unfed>,
    /// Refusals and panics of the filter that the session has not been told of.
    complaints: RefCell<VecDeque<Complaint>>,
    has_complaints: Cell<bool>,
    progress: Progress,
    /// Records may be left in the filter, because their delivery was interrupted.
    has_rest: Cell<bool>,
    /// After those records, the unfinished last record is delivered.
    last_is_due: Cell<bool>,
}

/// What a filter has done instead of returning a record.
enum Complaint {
    Refused(FilterError),
    Panicked(Exception),
}

/// What the filter returns next.
enum Parsed {
    /// The arguments of the record's event, with the wheel's id.
    Record(Args),
    Complaint,
    Nothing,
}

/// Receives the records.
pub(in crate::wheel) trait Recipient {
    /// Tells whether the wheel wants records and is not paused.
    fn takes_more(&self) -> bool;

    /// Sends a record to the session.
    fn record(&self, cx: &mut Turn<'_>, args: Args) -> Delivery;

    /// Tells the session of a record that the filter refused.
    fn refused(&self, cx: &mut Turn<'_>, error: FilterError) -> Delivery;

    /// Turns the filter's panic into a `DIE` signal.
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

    /// Gives the filter as much of a chunk as fits. The rest waits until the records are delivered.
    pub(in crate::wheel) fn feed(&self, chunk: &[u8]) {
        self.has_rest.set(true);
        let fed = guarded(|| {
            let chunk = self.former.pass(chunk);
            // Earlier bytes come first, if they did not fit or the filter has panicked.
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

    /// Tells whether some of the input has not been delivered.
    #[inline]
    pub(in crate::wheel) fn has_rest(&self) -> bool {
        self.has_rest.get() || self.has_complaints.get()
    }

    /// Sends the complete records, one event each.
    ///
    /// # Errors
    ///
    /// The answer for the source, if not all records were delivered. The wheel was dropped or paused, a state or the
    /// filter failed, or there are too many records for one turn. The rest is then delivered later, if at all.
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
            // If the filter has not advanced, the rest waits for more input. Otherwise the filter would panic forever.
            self.has_rest.set(self.progress.after_panic(guarded(|| self.left()).unwrap_or(usize::MAX)));
            Parsed::Complaint
        })
    }

    /// Takes the next record. As long as there is none and no complaint, it feeds the filter.
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
            // The bytes are taken out while the filter is fed, so that a filter which panics on them does not get them
            // again.
            let mut unfed = self.unfed.take();
            unfed.start += self.offer(unfed.rest());
            self.unfed.replace(unfed);
        }
    }

    /// Takes the unfinished last record. A filter that panics on it is reset, because it would be asked again.
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

    /// Notes a refusal, and drops the input of a filter that would refuse forever.
    #[cold]
    fn refuse(&self, error: FilterError) {
        self.complain(Complaint::Refused(error));
        let Ok(left) = guarded(|| self.left()) else { return };
        if !self.progress.after_refusal(left) {
            let is_reset = self.reset_input();
            self.complain(Complaint::Refused(self.progress.end(left)));
            // A filter that can't be reset would refuse forever, so it waits for more input.
            self.has_rest.set(is_reset);
        }
    }

    /// Returns how many bytes have not become records.
    fn left(&self) -> usize {
        self.filter.borrow().borrow().pending().len() + self.unfed.borrow().rest().len()
    }

    /// Makes the next delivery end with the unfinished last record.
    pub(in crate::wheel) fn finish(&self) {
        if guarded(|| self.left()).ok() != Some(0) {
            self.last_is_due.set(true);
            self.has_rest.set(true);
        }
    }

    /// Drops the records that are complete.
    pub(in crate::wheel) fn discard(&self) {
        // Each record or refusal takes at least one byte.
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

    /// Feeds the current filter the input that the `old` one hands over. If the old one can't, that is a complaint.
    /// Returns whether the wheel must ask for a turn, because no delivery is under way.
    pub(in crate::wheel) fn take_over(&self, old: SharedRecords) -> bool {
        let taken = guarded(|| self.former.take_over(old, &self.unfed));
        let complaint = match taken {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Complaint::Refused(error)),
            Err(exception) => Some(Complaint::Panicked(exception)),
        };
        complaint.into_iter().for_each(|complaint| self.complain(complaint));
        self.filter_limit.set(usize::MAX);
        // Even if nothing was fed, because the new filter may have brought its own input. If there was a rest before,
        // its delivery goes on, or waits for its own reasons.
        !self.has_rest.replace(true)
    }

    /// Discards all input. Returns whether the filter is usable, which it is not after a panic.
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

    /// Returns the input that is not parsed: records that wait, and the beginning of one.
    pub(in crate::wheel) fn pending(&self) -> Vec<u8> {
        let filter = self.filter.borrow();
        let filter = filter.borrow();
        [filter.pending(), self.unfed.borrow().rest()].concat()
    }
}

/// Calls a filter. Its panic must not end the kernel, so it becomes an error.
pub(in crate::wheel) fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, Exception> {
    catch_unwind(AssertUnwindSafe(call)).map_err(Exception::from_panic)
}

/// How many records one turn delivers at most. It is more than a usual read has bytes.
const RECORDS_PER_TURN: usize = 128 * 1024;

/// How many complaints one turn tells of at most, so that a peer that sends nothing else does not keep other sources waiting.
pub(super) const COMPLAINTS_PER_TURN: usize = 1024;

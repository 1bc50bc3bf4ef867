//! One direction of a wheel: reads chunks, has a filter cut them, and sends an event for each record.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::socket::{Shutdown, shutdown};

use super::base::{Base, Port};
use super::writer::Writer;
use crate::args::{Args, IntoArgs};
use crate::error::Exception;
use crate::filter::FilterError;
use crate::kernel::{AfterFork, Delivery, Mode, Next, Source, Turn, Wanted};
use crate::name::Name;
use crate::wheel::error_args;
use crate::wheel::stream::Stream;
use crate::wheel::stream::records::{Former, Progress, RECORDS_PER_TURN, REFUSALS_PER_TURN, SharedRecords, Unfed};

/// How input is read and delivered. A source by itself when its descriptor is for input alone. No borrow lasts while a
/// state runs.
pub(crate) struct Reader {
    pub(crate) base: Rc<Base>,
    pub(crate) port: Rc<Port>,
    /// The wheel's other direction.
    pub(crate) writer: Option<Rc<Writer>>,
    filter: RefCell<SharedRecords>,
    former: Former,
    /// What the filter has told of its limit.
    filter_limit: Cell<usize>,
    on_input: Cell<Option<Name>>,
    settings: InputSettings,
    paused: Cell<bool>,
    /// Ended by the program.
    shut: Cell<bool>,
    /// There is nothing more to read.
    pub(crate) ended: Cell<bool>,
    /// A short read need not be the last: by what the stream is, or as the poller has seen the end of the input. `None`
    /// before the first.
    reads_short: Cell<Option<bool>>,
    /// Records may be left in the filter, as their delivery was interrupted.
    has_rest: Cell<bool>,
    /// What was read and has not been fed to the filter: it did not fit, or was pending in the filter before this one.
    unfed: RefCell<Unfed>,
    /// The unfinished record that the end of file makes the last one is still to be delivered.
    last_is_due: Cell<bool>,
    /// How the input ended, until the session has been told.
    ending: RefCell<Option<Ending>>,
    refused: RefCell<Vec<FilterError>>,
    progress: Progress,
}

/// What a reader is told once and for all.
#[derive(Clone, Copy)]
pub(crate) struct InputSettings {
    /// How much one read takes at most.
    pub(crate) block_size: usize,
    /// An unfinished record at the end of file is delivered.
    pub(crate) delivers_last: bool,
    /// Nothing is read while the wheel's own output is above its high mark.
    pub(crate) auto_pause: bool,
}

enum Ending {
    EndOfFile,
    Failed(io::Error),
}

/// What one read has come to.
enum Input {
    Some {
        may_be_more: bool,
    },
    Nothing,
    /// The filter has panicked on it.
    Panicked(Exception),
    Ended(Ending),
}

/// What the filter has made of the input.
enum Parsed {
    Record(Args),
    /// One at least, and there may be more of either.
    Refused,
    Nothing,
}

impl Reader {
    pub(crate) fn new(
        base: Rc<Base>,
        port: Rc<Port>,
        writer: Option<Rc<Writer>>,
        filter: SharedRecords,
        on_input: Option<Name>,
        settings: InputSettings,
    ) -> Reader {
        Reader {
            base,
            port,
            writer,
            filter: RefCell::new(filter),
            former: Former::default(),
            filter_limit: Cell::new(usize::MAX),
            on_input: Cell::new(on_input),
            settings,
            paused: Cell::new(false),
            shut: Cell::new(false),
            ended: Cell::new(false),
            reads_short: Cell::new(None),
            has_rest: Cell::new(false),
            unfed: RefCell::default(),
            last_is_due: Cell::new(false),
            ending: RefCell::default(),
            refused: RefCell::default(),
            progress: Progress::default(),
        }
    }

    pub(crate) fn pause(&self) {
        self.paused.set(true);
    }

    pub(crate) fn resume(&self) {
        if self.paused.replace(false) {
            self.port.wake();
        }
    }

    /// Stops reading and delivering for good.
    pub(crate) fn shut_down(&self) {
        if self.shut.replace(true) {
            return;
        }
        if let Some(stream) = &*self.port.stream.borrow() {
            // What is no socket can't be told; not to read it any more is all there is.
            let _ = shutdown(stream.as_raw_fd(), Shutdown::Read);
        }
        self.port.changed();
        self.port.wake();
    }

    /// Sets or takes away the input event; without one, nothing is read or delivered.
    pub(crate) fn set_event(&self, event: Option<Name>) {
        if self.on_input.replace(event).is_some() != event.is_some() {
            self.port.changed();
            self.port.wake();
        }
    }

    /// Goes on with another filter.
    pub(crate) fn set_filter(&self, filter: SharedRecords) {
        self.filter.replace(filter);
    }

    /// Has a new filter fed what the `old` one leaves to it.
    pub(crate) fn take_over(&self, old: SharedRecords) {
        self.former.take_over(old, &self.unfed, &self.refused);
        self.filter_limit.set(usize::MAX);
        // Also without anything to be fed: the new filter may have come with input of its own. If there was a rest, there is
        // a delivery that goes on, or that waits for its own reasons.
        if !self.has_rest.replace(true) {
            self.port.wake();
        }
    }

    /// Returns what has been read and is no part of a record yet.
    pub(crate) fn pending(&self) -> Vec<u8> {
        let mut octets = self.filter.borrow().borrow().pending().to_vec();
        octets.extend_from_slice(self.unfed.borrow().rest());
        octets
    }

    /// Tells whether readiness is wanted.
    pub(crate) fn is_wanted(&self) -> bool {
        self.on_input.get().is_some() && !self.shut.get()
    }

    /// Tells whether nothing can be read or delivered any more.
    pub(crate) fn is_over(&self) -> bool {
        let nothing_waits = !self.has_rest.get() && self.ending.borrow().is_none();
        self.shut.get() || nothing_waits && self.ended.get()
    }

    /// Tells whether nothing is read or delivered unless the program sets an input event.
    pub(crate) fn is_idle(&self) -> bool {
        self.on_input.get().is_none()
    }

    #[inline]
    fn can_deliver(&self) -> bool {
        self.port.is_open.get()
            && !self.paused.get()
            && self.is_wanted()
            && !self.base.closing.get()
            && !(self.settings.auto_pause && self.writer.as_ref().is_some_and(|writer| writer.holds_input()))
    }

    /// Reads and delivers: one chunk for each turn, all of its records.
    pub(crate) fn read_some(&self, cx: &mut Turn<'_>) -> Next {
        // An error on the descriptor is reported as readiness for both, whatever was asked for. What an earlier turn could
        // not deliver comes first.
        if !self.can_deliver() {
            return Next::Wait;
        }
        if self.has_rest.get()
            && let Err(next) = self.deliver(cx)
        {
            return next;
        }
        // Ends with the first read that fills the buffer, finds nothing, or finds the end.
        let mut reads = 0;
        while !self.ended.get() {
            reads += 1;
            match self.read_chunk(cx) {
                Input::Some { may_be_more } => {
                    if let Err(next) = self.deliver(cx) {
                        return next;
                    }
                    if may_be_more || reads == SHORT_READS_PER_TURN {
                        return Next::Again(Mode::Read);
                    }
                    if !self.reads_short() {
                        self.port.is_watched.set(true);
                        return Next::Wait;
                    }
                }
                Input::Nothing => {
                    self.port.is_watched.set(true);
                    return Next::Wait;
                }
                Input::Panicked(exception) => {
                    // As after an `Err` of a state, what else there is comes in the next slice, behind the `DIE` signal.
                    self.has_rest.set(true);
                    cx.die(self.base.name, exception);
                    return Next::Again(Mode::Read);
                }
                Input::Ended(ending) => {
                    self.ended.set(true);
                    self.port.is_watched.set(true);
                    let is_whole = matches!(ending, Ending::EndOfFile);
                    self.ending.replace(Some(ending));
                    if is_whole && self.settings.delivers_last {
                        self.last_is_due.set(true);
                        if let Err(next) = self.deliver(cx) {
                            return next;
                        }
                    }
                }
            }
        }
        self.report_end(cx);
        Next::Wait
    }

    /// Tells the session, once, that there is no more to read.
    fn report_end(&self, cx: &mut Turn<'_>) {
        let is_whole = matches!(&*self.ending.borrow(), Some(Ending::EndOfFile));
        if let (true, Some(writer)) = (is_whole, &self.writer) {
            // Before the session hears of it, and drops the wheel: what it has put is to go out first.
            if writer.write_some(cx) != Next::Wait {
                writer.mark_dirty();
            }
        }
        // A state may have set another filter, whose records come first. It has asked for a turn.
        if !self.can_deliver() || self.has_rest.get() {
            return;
        }
        let Some(ending) = self.ending.take() else { return };
        let args = match ending {
            Ending::EndOfFile => ("read", 0_i32, String::new(), self.base.id).into_args(),
            Ending::Failed(error) => error_args("read", &error, self.base.id),
        };
        self.base.report(cx, args);
    }

    /// Reads once, into the filter.
    fn read_chunk(&self, cx: &mut Turn<'_>) -> Input {
        let buffer = &mut cx.buffer()[..self.settings.block_size];
        let count = loop {
            let Some(stream) = &*self.port.stream.borrow() else { return Input::Nothing };
            match stream.read(buffer) {
                Ok(0) => return Input::Ended(Ending::EndOfFile),
                Ok(count) => break count,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Input::Nothing,
                Err(errno) => return Input::Ended(Ending::Failed(errno.into())),
            }
        };
        let may_be_more = count == buffer.len();
        let fed = guarded(|| {
            let chunk = self.former.pass(&buffer[..count]);
            // Something is in front of it only after the filter has panicked.
            let fed = if self.unfed.borrow().is_empty() { self.feed(chunk) } else { 0 };
            if fed < chunk.len() {
                self.unfed.borrow_mut().put(&chunk[fed..]);
            }
        });
        fed.map_or_else(Input::Panicked, |()| Input::Some { may_be_more })
    }

    fn feed(&self, chunk: &[u8]) -> usize {
        let mut limit = self.filter_limit.get();
        let fed = self.filter.borrow().borrow_mut().feed(chunk, &mut limit, &mut self.refused.borrow_mut());
        self.filter_limit.set(limit);
        fed
    }

    /// Sends the records that are complete, one event each.
    ///
    /// # Errors
    ///
    /// What the source is to answer if that did not come to their end: the wheel was dropped or paused, or a state or the filter
    /// failed, or there are too many for a turn. What is left is then delivered later, if ever.
    fn deliver(&self, cx: &mut Turn<'_>) -> Result<(), Next> {
        let mut refusals = 0;
        self.has_rest.set(true);
        for _ in 0..RECORDS_PER_TURN {
            // Asked each time: any state may have paused the wheel.
            let Some(event) = self.on_input.get().filter(|_| self.can_deliver()) else { return Err(Next::Wait) };
            if refusals == REFUSALS_PER_TURN {
                break;
            }
            let delivery = if let Some(error) = self.next_refused() {
                refusals += 1;
                self.base.report_refused(cx, error)
            } else {
                match guarded(|| self.next_or_end()) {
                    Ok(Parsed::Record(args)) => {
                        self.progress.made();
                        self.base.dispatch(cx, event, args)
                    }
                    Ok(Parsed::Refused) => continue,
                    Ok(Parsed::Nothing) => {
                        self.progress.made();
                        self.has_rest.set(false);
                        return Ok(());
                    }
                    Err(exception) => {
                        // If it has not advanced, what is left waits for more input: it would panic without end.
                        let left = guarded(|| self.left()).unwrap_or(usize::MAX);
                        self.has_rest.set(self.progress.after_panic(left));
                        cx.die(self.base.name, exception)
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

    /// Takes the next record, or drops the input of a filter that refuses without end.
    fn next_or_end(&self) -> Parsed {
        let next = self.next();
        if matches!(next, Parsed::Refused) {
            self.go_on_or_give_up();
        }
        next
    }

    #[cold]
    fn go_on_or_give_up(&self) {
        let left = self.left();
        if !self.progress.after_refusal(left) {
            self.filter.borrow().borrow_mut().reset();
            self.unfed.take();
            self.refused.borrow_mut().push(self.progress.end(left));
        }
    }

    /// Returns how many octets have not become records.
    fn left(&self) -> usize {
        self.filter.borrow().borrow().pending().len() + self.unfed.borrow().rest().len()
    }

    /// Takes the next record, feeding the filter as long as there is none and nothing to complain of.
    fn next(&self) -> Parsed {
        let id = self.base.id;
        loop {
            let next = self.filter.borrow().borrow_mut().next(id);
            match next {
                Ok(Some(args)) => return Parsed::Record(args),
                Err(error) => return self.refuse(error),
                Ok(None) => {}
            }
            if !self.refused.borrow().is_empty() {
                return Parsed::Refused;
            }
            if self.unfed.borrow().is_empty() {
                return if self.last_is_due.take() { self.last() } else { Parsed::Nothing };
            }
            // Taken out while it is fed: a filter that panics on it does not get it again.
            let mut unfed = self.unfed.take();
            unfed.start += self.feed(unfed.rest());
            self.unfed.replace(unfed);
        }
    }

    /// Takes the unfinished last record, if there is one.
    #[cold]
    fn last(&self) -> Parsed {
        let last = self.filter.borrow().borrow_mut().last(self.base.id);
        match last {
            Ok(args) => args.map_or(Parsed::Nothing, Parsed::Record),
            Err(error) => self.refuse(error),
        }
    }

    /// Keeps what the filter complains of for its event.
    #[cold]
    fn refuse(&self, error: FilterError) -> Parsed {
        self.refused.borrow_mut().push(error);
        Parsed::Refused
    }

    /// Forgets in a forked child what the parent has read. Returns whether the wheel can be used: not if its filter has
    /// panicked.
    pub(crate) fn forget(&self) -> bool {
        let is_reset = guarded(|| self.filter.borrow().borrow_mut().reset()).is_ok();
        self.former.forget();
        self.unfed.take();
        self.refused.take();
        self.has_rest.set(false);
        // The poller may not have been asked yet, or its answer may have been on the list that the child has not got.
        self.port.is_watched.set(true);
        is_reset
    }

    pub(crate) fn note_short_reads(&self) {
        self.reads_short.set(Some(true));
    }

    fn reads_short(&self) -> bool {
        if self.reads_short.get().is_none() {
            let stream = self.port.stream.borrow();
            self.reads_short.set(Some(stream.as_ref().is_some_and(Stream::reads_short)));
        }
        self.reads_short.get() == Some(true)
    }

    pub(crate) fn describe(&self) -> String {
        let event = self.on_input.get().map_or("nothing", Name::as_str);
        let mut text = format!("{} ({}) -> {event}", self.base.name, self.base.id);
        for (flag, word) in [(&self.paused, ", paused"), (&self.ended, ", at end of file"), (&self.shut, ", shut down")]
        {
            if flag.get() {
                text += word;
            }
        }
        text
    }
}

impl Source for Reader {
    fn fd(&self) -> RawFd {
        self.port.raw_fd()
    }

    fn wanted(&self) -> Option<Wanted> {
        Wanted::of_stream(self.port.is_watched.get() && self.is_wanted(), false)
    }

    /// Nothing comes of a descriptor for input alone unless the program sets an input event.
    fn keeps_owner(&self) -> bool {
        !self.is_idle()
    }

    fn turn(&self, cx: &mut Turn<'_>, mode: Mode) -> Next {
        let next = if mode == Mode::Read { self.read_some(cx) } else { Next::Wait };
        if self.is_over() { Next::Close } else { next }
    }

    fn short_reads(&self) {
        self.note_short_reads();
    }

    fn close(&self) {
        self.port.close();
    }

    fn fork(&self) -> AfterFork {
        if self.base.after_fork == AfterFork::Keep && self.forget() { AfterFork::Keep } else { AfterFork::Close }
    }

    fn describe(&self) -> String {
        self.describe()
    }
}

/// How many short reads one turn does at most: a peer may send as fast as this process reads.
pub(crate) const SHORT_READS_PER_TURN: usize = 16;

/// Calls a filter, whose panic is not to end the kernel.
pub(crate) fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, Exception> {
    catch_unwind(AssertUnwindSafe(call)).map_err(Exception::from_panic)
}

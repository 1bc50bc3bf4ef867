//! Output on its way from a session to a descriptor: kept, written when the descriptor takes it, measured by the marks.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};

use super::Stream;
use super::marks::{Level, MarkEvents, Marks};
use super::output::{Output, WRITES_PER_TURN};
use crate::filter::{FilterError, put_whole};
use crate::kernel::{Next, Readiness, Turn};
use crate::name::Name;
use crate::wheel::Put;

/// What was put, and what the session is to be told of it. No borrow lasts while a state runs.
///
/// Writing and telling are two things: [`write`](Outbox::write) may be asked for in the middle of a state, whose session hears of
/// it when it has returned.
pub(in crate::wheel) struct Outbox {
    output: RefCell<Output>,
    level: Level,
    events: Cell<OutputEvents>,
    /// Records that the filter refused, for the error event.
    refused: RefCell<Vec<FilterError>>,
    /// The descriptor takes no more for now; the poller will say when it does.
    blocked: Cell<bool>,
    /// The buffer was written to its end, and the session has not been told.
    drained: Cell<bool>,
    failed: Cell<bool>,
    /// What the session is to be told of the failure.
    failure: RefCell<Option<io::Error>>,
    /// Shut down by the program.
    shut: Cell<bool>,
    /// To be shut down when everything is written.
    shuts_when_drained: Cell<bool>,
}

/// The events of an outbox.
#[derive(Clone, Copy, Default)]
pub(in crate::wheel) struct OutputEvents {
    pub(in crate::wheel) flushed: Option<Name>,
    pub(in crate::wheel) marks: MarkEvents,
}

/// Whose outbox it is: where the bytes go, and who is told.
pub(in crate::wheel) trait Sender {
    fn stream(&self) -> &RefCell<Option<Stream>>;

    /// Tells whether the wheel is there.
    fn is_open(&self) -> bool;

    /// Sends the flushed, high or low event.
    fn tell(&self, cx: &mut Turn<'_>, event: Name);

    /// Tells of a record that the filter refused.
    fn refused(&self, cx: &mut Turn<'_>, error: &FilterError);

    /// Tells of an error of writing.
    fn failed(&self, cx: &mut Turn<'_>, error: &io::Error);

    /// Shows the peer the end of the output.
    fn end(&self);

    /// The descriptor takes no more: the poller is wanted.
    fn blocked(&self);

    /// Has the input that may have waited for the output go on.
    fn release_input(&self) {}

    /// Tells whether something is written that the descriptor has not taken. There is a flush when it has.
    fn holds_output(&self) -> bool {
        false
    }

    /// Tells whether the descriptor is closed with the end of the output. The session is told of that end afterwards, by
    /// [`Outbox::tell_of_writing`].
    fn closes_with_output(&self) -> bool {
        false
    }
}

impl Outbox {
    pub(in crate::wheel) fn new(events: OutputEvents, marks: Option<Marks>) -> Outbox {
        Outbox {
            output: RefCell::default(),
            level: Level::new(marks),
            events: Cell::new(events),
            refused: RefCell::default(),
            blocked: Cell::new(false),
            drained: Cell::new(false),
            failed: Cell::new(false),
            failure: RefCell::default(),
            shut: Cell::new(false),
            shuts_when_drained: Cell::new(false),
        }
    }

    /// Appends what `make` makes.
    pub(in crate::wheel) fn put(&self, make: impl FnOnce(&mut Vec<u8>) -> Result<(), FilterError>) -> Put {
        let len = {
            let mut output = self.output.borrow_mut();
            match put_whole(&mut output.bytes, make) {
                Ok(()) => output.end_message(),
                Err(error) => self.refused.borrow_mut().push(error),
            }
            output.len()
        };
        match self.level.rise(len) {
            _ if self.is_over() => Put::Closed,
            true => Put::High,
            false => Put::Accepted,
        }
    }

    /// Returns how many bytes wait.
    pub(in crate::wheel) fn len(&self) -> usize {
        self.output.borrow().len()
    }

    /// Returns how many bytes were written in all: another number than before if the peer has taken any.
    pub(in crate::wheel) fn written(&self) -> usize {
        self.output.borrow().written()
    }

    /// Returns how many messages wait, one of which may be written in part.
    pub(in crate::wheel) fn messages(&self) -> usize {
        self.output.borrow().messages()
    }

    pub(in crate::wheel) fn is_high(&self) -> bool {
        self.level.is_high()
    }

    #[inline]
    pub(in crate::wheel) fn is_blocked(&self) -> bool {
        self.blocked.get() && !self.is_over()
    }

    /// Notes that the descriptor may take more.
    pub(in crate::wheel) fn unblock(&self) {
        self.blocked.set(false);
    }

    /// Tells whether nothing will be written any more.
    #[inline]
    pub(in crate::wheel) fn is_over(&self) -> bool {
        self.failed.get() || self.shut.get()
    }

    pub(in crate::wheel) fn has_failed(&self) -> bool {
        self.failed.get()
    }

    /// Tells whether nothing is left to write, or nothing will be.
    pub(in crate::wheel) fn is_done(&self) -> bool {
        self.is_over() || self.len() == 0
    }

    /// Tells whether the program has ended the output, or it will end when it is written.
    pub(in crate::wheel) fn is_ending(&self) -> bool {
        self.is_over() || self.shuts_when_drained.get()
    }

    pub(in crate::wheel) fn marks(&self) -> Option<Marks> {
        self.level.marks()
    }

    /// Moves the marks, on whose other side the output may find itself.
    pub(in crate::wheel) fn set_marks(&self, marks: Marks) {
        self.level.set_marks(marks, self.len());
    }

    pub(in crate::wheel) fn set_events(&self, change: impl FnOnce(&mut OutputEvents)) {
        let mut events = self.events.get();
        change(&mut events);
        self.events.set(events);
    }

    /// Ends the output, whatever waits.
    pub(in crate::wheel) fn shut_down(&self, to: &impl Sender) {
        if !self.shut.replace(true) {
            self.output.borrow_mut().give_up();
            to.end();
            to.release_input();
        }
    }

    /// Ends the output when everything is written.
    pub(in crate::wheel) fn shut_down_when_drained(&self) {
        self.shuts_when_drained.set(true);
    }

    /// Writes as much as the descriptor takes in one turn, and tells the session what has come of it.
    pub(in crate::wheel) fn write_some(&self, cx: &mut Turn<'_>, to: &impl Sender) -> Next {
        if !self.refused.borrow().is_empty() {
            self.tell_refused(cx, to);
        }
        if self.level.take_high() {
            self.tell(cx, to, self.events.get().marks.high);
        }
        // Closed, or in a child that was forked meanwhile: a child has nothing to write, and shuts nothing down.
        if cx.is_over() {
            return Next::Wait;
        }
        self.write(to, WRITES_PER_TURN);
        if to.closes_with_output() && (self.is_over() || self.is_written_to_its_end()) {
            self.shut_down(to);
            return Next::Close;
        }
        let has_more = !self.is_done() && !self.blocked.get();
        self.tell_of_writing(cx, to);
        if has_more { Next::Again(Readiness::Write) } else { Next::Wait }
    }

    /// Tells whether all is written that ever will be.
    fn is_written_to_its_end(&self) -> bool {
        self.drained.get() && self.shuts_when_drained.get() && self.len() == 0
    }

    /// Tells the session what has come of writing.
    pub(in crate::wheel) fn tell_of_writing(&self, cx: &mut Turn<'_>, to: &impl Sender) {
        // Not if a state has dropped the wheel at the high mark: `put` may have written, and failed, before that.
        if let Some(error) = self.failure.take().filter(|_| to.is_open()) {
            to.failed(cx, &error);
        }
        if self.level.fall(self.len()) {
            to.release_input();
            self.tell(cx, to, self.events.get().marks.low);
        }
        // Not if a state has put more since: there will be another end.
        if self.drained.get() && !to.holds_output() && self.drained.take() && self.len() == 0 {
            if self.shuts_when_drained.get() {
                self.shut_down(to);
            }
            self.tell(cx, to, self.events.get().flushed);
        }
    }

    #[cold]
    fn tell_refused(&self, cx: &mut Turn<'_>, to: &impl Sender) {
        for error in self.refused.take() {
            // A state may have dropped the wheel on the one before.
            if to.is_open() {
                to.refused(cx, &error);
            }
        }
    }

    fn tell(&self, cx: &mut Turn<'_>, to: &impl Sender, event: Option<Name>) {
        if let (Some(event), true) = (event, to.is_open()) {
            to.tell(cx, event);
        }
    }

    /// Writes as much as the descriptor takes in `calls` system calls.
    pub(in crate::wheel) fn write(&self, to: &impl Sender, calls: usize) {
        let mut output = self.output.borrow_mut();
        if self.blocked.get() || self.is_over() {
            return;
        }
        if output.len() == 0 {
            if self.shuts_when_drained.get() {
                drop(output);
                self.shut_down(to);
            }
            return;
        }
        let written = to.stream().borrow().as_ref().map_or(Ok(()), |stream| output.write_to(stream, calls));
        match written {
            Ok(()) if output.len() == 0 => self.drained.set(true),
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.blocked.set(true);
                to.blocked();
            }
            Err(error) => {
                drop(output);
                self.fail(to, error);
            }
        }
    }

    /// Ends the output by an error.
    pub(in crate::wheel) fn fail(&self, to: &impl Sender, error: io::Error) {
        if !self.failed.replace(true) {
            self.output.borrow_mut().give_up();
            self.drained.set(false);
            self.failure.replace(Some(error));
            to.release_input();
        }
    }

    /// Forgets in a forked child what the parent has put.
    pub(in crate::wheel) fn forget(&self) {
        self.output.borrow_mut().clear();
        self.drained.set(false);
        self.level.forget();
        self.refused.take();
    }

    /// Drops what the closed descriptor will not get.
    pub(in crate::wheel) fn discard(&self) {
        self.output.take();
    }

    pub(in crate::wheel) fn describe(&self) -> String {
        let waiting = self.len();
        let mut text = if waiting > 0 { format!(", {waiting} bytes to write") } else { String::new() };
        if self.is_high() {
            text += ", above the high mark";
        }
        text
    }
}

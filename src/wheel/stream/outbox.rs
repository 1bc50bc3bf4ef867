//! Output on its way from a session to a descriptor. It waits until the descriptor takes it, and the marks measure it.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};

use super::Stream;
use super::marks::{Level, MarkEvents, Marks};
use super::output::{Output, WRITES_PER_TURN};
use crate::filter::{FilterError, put_whole};
use crate::kernel::{Next, Readiness, Turn};
use crate::name::Name;
use crate::wheel::Put;

/// The output that waits, and the events that are due. No borrow lasts while a state runs.
///
/// Writing and sending events are separate. [`write`](Outbox::write) may be called inside a state. The events come when
/// the state has returned.
pub(in crate::wheel) struct Outbox {
    output: RefCell<Output>,
    level: Level,
    events: Cell<OutputEvents>,
    /// Errors for records that the filter refused, which are still to be reported.
    refused: RefCell<Vec<FilterError>>,
    /// The descriptor takes no more for now. The poller will report when it does.
    blocked: Cell<bool>,
    /// Everything was written, and the session has not been told.
    drained: Cell<bool>,
    failed: Cell<bool>,
    /// The error to report.
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

/// The owner of an outbox: where the bytes go, and where the events go.
pub(in crate::wheel) trait Sender {
    fn stream(&self) -> &RefCell<Option<Stream>>;

    /// Tells whether the wheel is there.
    fn is_open(&self) -> bool;

    /// Sends the flushed, high or low event.
    fn tell(&self, cx: &mut Turn<'_>, event: Name);

    /// Reports a record that the filter refused.
    fn refused(&self, cx: &mut Turn<'_>, error: &FilterError);

    /// Reports an error of writing.
    fn failed(&self, cx: &mut Turn<'_>, error: &io::Error);

    /// Shows the peer the end of the output.
    fn end(&self);

    /// The descriptor takes no more, so the poller must watch it.
    fn blocked(&self);

    /// Lets input go on that has waited for the output.
    fn release_input(&self) {}

    /// Tells whether a transport has bytes that the descriptor has not taken. When the descriptor has taken them, there
    /// is a flush.
    fn holds_output(&self) -> bool {
        false
    }

    /// Tells whether the descriptor is closed when the output ends. Then [`Outbox::tell_of_writing`] is called after
    /// the close.
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

    /// Appends the record that `make` encodes.
    pub(in crate::wheel) fn put(&self, make: impl FnOnce(&mut Vec<u8>) -> Result<(), FilterError>) -> Put {
        let len = {
            let mut output = self.output.borrow_mut();
            match put_whole(&mut output.bytes, make) {
                Ok(()) => output.end_message(),
                Err(error) => self.refused.borrow_mut().push(error),
            }
            output.len()
        };
        if self.is_over() {
            // What is lost is never written, so no low event would follow a high one.
            return Put::Closed;
        }
        if self.level.rise(len) { Put::High } else { Put::Accepted }
    }

    /// Returns how many bytes wait.
    pub(in crate::wheel) fn len(&self) -> usize {
        self.output.borrow().len()
    }

    /// Returns how many bytes were written in all. The number changes when the peer takes any.
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

    /// Tells whether no byte is left to write, or none will be written.
    pub(in crate::wheel) fn is_done(&self) -> bool {
        self.is_over() || self.len() == 0
    }

    /// Tells whether the program has ended the output, or it ends when all is written.
    pub(in crate::wheel) fn is_ending(&self) -> bool {
        self.is_over() || self.shuts_when_drained.get()
    }

    pub(in crate::wheel) fn marks(&self) -> Option<Marks> {
        self.level.marks()
    }

    /// Moves the marks. The output may then be beyond one of them.
    pub(in crate::wheel) fn set_marks(&self, marks: Marks) {
        let waiting = if self.is_over() { 0 } else { self.len() };
        self.level.set_marks(marks, waiting);
    }

    pub(in crate::wheel) fn set_events(&self, change: impl FnOnce(&mut OutputEvents)) {
        let mut events = self.events.get();
        change(&mut events);
        self.events.set(events);
    }

    /// Ends the output, and discards what waits.
    pub(in crate::wheel) fn shut_down(&self, to: &impl Sender) {
        if !self.shut.replace(true) {
            if self.len() > 0 {
                self.drained.set(false);
            }
            self.output.borrow_mut().give_up();
            to.end();
            to.release_input();
        }
    }

    /// Ends the output when everything is written.
    pub(in crate::wheel) fn shut_down_when_drained(&self) {
        self.shuts_when_drained.set(true);
    }

    /// Writes as much as the descriptor takes in one turn, and sends the events that result.
    pub(in crate::wheel) fn write_some(&self, cx: &mut Turn<'_>, to: &impl Sender) -> Next {
        if !self.refused.borrow().is_empty() {
            self.tell_refused(cx, to);
        }
        if self.level.take_high() {
            self.tell(cx, to, self.events.get().marks.high);
        }
        // The wheel is closed, or this is a child that was forked meanwhile. A child writes nothing, and shuts nothing
        // down.
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

    /// Tells whether all is written, and no more will come.
    fn is_written_to_its_end(&self) -> bool {
        self.drained.get() && self.shuts_when_drained.get() && self.len() == 0
    }

    /// Sends the events that result from writing.
    pub(in crate::wheel) fn tell_of_writing(&self, cx: &mut Turn<'_>, to: &impl Sender) {
        // No event if a state has dropped the wheel at the high mark. `put` may have written, and failed, before that.
        if let Some(error) = self.failure.take().filter(|_| to.is_open()) {
            to.failed(cx, &error);
        }
        if self.level.fall(self.len()) {
            to.release_input();
            self.tell(cx, to, self.events.get().marks.low);
        }
        // No event if a state has put more since. It comes when that is written. What was put after the end never is.
        let is_written = || self.len() == 0 || self.shut.get();
        if self.drained.get() && !to.holds_output() && self.drained.take() && is_written() {
            if self.shuts_when_drained.get() {
                self.shut_down(to);
            }
            self.tell(cx, to, self.events.get().flushed);
        }
    }

    #[cold]
    fn tell_refused(&self, cx: &mut Turn<'_>, to: &impl Sender) {
        for error in self.refused.take() {
            // A state may have dropped the wheel because of the error before.
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

    /// Discards in a forked child what the parent has put.
    pub(in crate::wheel) fn forget(&self) {
        self.output.borrow_mut().clear();
        self.drained.set(false);
        self.level.forget();
        self.refused.take();
    }

    /// Discards what waits, as the descriptor is closed.
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

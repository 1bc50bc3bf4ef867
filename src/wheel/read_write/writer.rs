//! The other direction of a wheel: what was put is kept, written when the descriptor takes it, and measured by the marks.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use nix::sys::socket::{Shutdown, shutdown};

use super::base::{Base, Port};
use crate::args::IntoArgs;
use crate::filter::{FilterError, put_whole};
use crate::kernel::{AfterFork, Mode, Next, Source, Turn, Wanted};
use crate::name::Name;
use crate::wheel::error_args;
use crate::wheel::stream::marks::{Level, MarkEvents, Marks};
use crate::wheel::stream::output::{Output, WRITES_PER_TURN};

/// How output is kept and written. A source by itself when its descriptor is for output alone. No borrow lasts while a
/// state runs.
///
/// Writing and telling the session of it are two things: [`write`](Writer::write) may be asked for in the middle of a
/// state, whose session hears of it when it has returned.
pub(crate) struct Writer {
    pub(crate) base: Rc<Base>,
    pub(crate) port: Rc<Port>,
    pub(crate) output: RefCell<Output>,
    /// A put into an empty buffer is written at once.
    auto_flush: bool,
    level: Level,
    on_flushed: Cell<Option<Name>>,
    on_high: Cell<Option<Name>>,
    on_low: Cell<Option<Name>>,
    /// The port of the wheel's input, if that waits while the output is above its high mark.
    holds_back: RefCell<Option<Rc<Port>>>,
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

/// The events of a writer.
#[derive(Clone, Copy, Default)]
pub(crate) struct OutputEvents {
    pub(crate) flushed: Option<Name>,
    pub(crate) marks: MarkEvents,
}

impl Writer {
    pub(crate) fn new(
        base: Rc<Base>,
        port: Rc<Port>,
        events: OutputEvents,
        marks: Option<Marks>,
        auto_flush: bool,
    ) -> Writer {
        Writer {
            base,
            port,
            output: RefCell::default(),
            auto_flush,
            level: Level::new(marks),
            on_flushed: Cell::new(events.flushed),
            on_high: Cell::new(events.marks.high),
            on_low: Cell::new(events.marks.low),
            holds_back: RefCell::default(),
            refused: RefCell::default(),
            blocked: Cell::new(false),
            drained: Cell::new(false),
            failed: Cell::new(false),
            failure: RefCell::default(),
            shut: Cell::new(false),
            shuts_when_drained: Cell::new(false),
        }
    }

    /// Has the input at `port` wait while the output is above its high mark.
    pub(crate) fn hold_back(&self, port: Rc<Port>) {
        self.holds_back.replace(Some(port));
    }

    /// Appends what `make` makes, and tells whether the high mark is reached.
    pub(crate) fn put(&self, make: impl FnOnce(&mut Vec<u8>) -> Result<(), FilterError>) -> bool {
        if !self.port.is_open.get() && !self.is_over() {
            return false;
        }
        let (was_empty, len) = {
            let mut output = self.output.borrow_mut();
            let was_empty = output.len() == 0;
            match put_whole(&mut output.bytes, make) {
                Ok(()) => output.end_message(),
                Err(error) => self.refused.borrow_mut().push(error),
            }
            (was_empty, output.len())
        };
        self.mark_dirty();
        let is_high = self.level.rise(len);
        if self.auto_flush && was_empty {
            self.write(WRITES_PER_TURN);
        }
        is_high
    }

    /// Writes now, as much as the descriptor takes, and returns how many octets are left.
    pub(crate) fn flush_now(&self) -> usize {
        self.write(usize::MAX);
        self.mark_dirty();
        self.output.borrow().len()
    }

    /// Asks for a flush once the running state has returned.
    pub(crate) fn mark_dirty(&self) {
        self.port.mailbox.flush(self.port.key.get());
    }

    pub(crate) fn is_high(&self) -> bool {
        self.level.is_high()
    }

    /// Tells whether the input is to wait for the output: not for one that will never drain.
    #[inline]
    pub(crate) fn holds_input(&self) -> bool {
        self.level.is_high() && !self.is_over()
    }

    /// Has the input that may have waited go on.
    fn release_input(&self) {
        self.holds_back.borrow().iter().for_each(|port| port.wake());
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.get() && !self.is_over()
    }

    /// Tells whether nothing will be written any more.
    pub(crate) fn is_over(&self) -> bool {
        self.failed.get() || self.shut.get()
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.get()
    }

    /// Tells whether nothing is left to write, or nothing will be.
    pub(crate) fn is_done(&self) -> bool {
        self.is_over() || self.output.borrow().len() == 0
    }

    pub(crate) fn marks(&self) -> Option<Marks> {
        self.level.marks()
    }

    /// Moves the marks, on whose other side the output may find itself.
    pub(crate) fn set_marks(&self, marks: Marks) {
        self.level.set_marks(marks, self.output.borrow().len());
        self.mark_dirty();
    }

    pub(crate) fn set_flushed_event(&self, event: Option<Name>) {
        self.on_flushed.set(event);
    }

    pub(crate) fn set_high_event(&self, event: Option<Name>) {
        self.on_high.set(event);
    }

    pub(crate) fn set_low_event(&self, event: Option<Name>) {
        self.on_low.set(event);
    }

    /// Ends the output, whatever waits.
    pub(crate) fn shut_down(&self) {
        if self.shut.replace(true) {
            return;
        }
        self.output.borrow_mut().give_up();
        if let Some(stream) = &*self.port.stream.borrow() {
            // What is no socket can't be told. The end of a pipe's output is its being closed, when it is for output alone.
            let _ = shutdown(stream.as_raw_fd(), Shutdown::Write);
        }
        self.release_input();
        self.mark_dirty();
    }

    /// Ends the output when everything is written.
    pub(crate) fn shut_down_when_drained(&self) {
        self.shuts_when_drained.set(true);
        self.mark_dirty();
    }

    /// Writes as much as the descriptor takes in one turn, and tells the session what has come of it.
    pub(crate) fn write_some(&self, cx: &mut Turn<'_>) -> Next {
        for error in self.refused.take() {
            // A state may have dropped the wheel on the one before.
            if self.port.is_open.get() {
                self.base.report_filter(cx, &error);
            }
        }
        if self.level.take_high() {
            self.tell(cx, self.on_high.get());
        }
        // Closed, or in a child that was forked meanwhile: a child has nothing to write, and shuts nothing down.
        if cx.is_over() {
            return Next::Wait;
        }
        self.write(WRITES_PER_TURN);
        let has_more = !self.is_done() && !self.blocked.get();
        // Not if a state has dropped the wheel at the high mark: `put` may have written, and failed, before that.
        if let Some(error) = self.failure.take().filter(|_| self.port.is_open.get()) {
            self.base.report(cx, error_args("write", &error, self.base.id));
        }
        if self.level.fall(self.output.borrow().len()) {
            self.release_input();
            self.tell(cx, self.on_low.get());
        }
        // Not if a state has put more since: there will be another end.
        if self.drained.take() && self.output.borrow().len() == 0 {
            if self.shuts_when_drained.get() {
                self.shut_down();
            }
            self.tell(cx, self.on_flushed.get());
        }
        if has_more { Next::Again(Mode::Write) } else { Next::Wait }
    }

    fn tell(&self, cx: &mut Turn<'_>, event: Option<Name>) {
        if let (Some(event), true, false) = (event, self.port.is_open.get(), self.base.closing.get()) {
            self.base.dispatch(cx, event, (self.base.id,).into_args());
        }
    }

    /// Writes as much as the descriptor takes in `calls` system calls.
    fn write(&self, calls: usize) {
        let mut output = self.output.borrow_mut();
        if self.blocked.get() || self.is_over() {
            return;
        }
        if output.len() == 0 {
            if self.shuts_when_drained.get() {
                drop(output);
                self.shut_down();
            }
            return;
        }
        let written = self.port.stream.borrow().as_ref().map_or(Ok(()), |stream| output.write_to(stream, calls));
        match written {
            Ok(()) if output.len() == 0 => self.drained.set(true),
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.blocked.set(true);
                self.port.is_watched.set(true);
                self.port.changed();
            }
            Err(error) => {
                self.failed.set(true);
                output.give_up();
                self.failure.replace(Some(error));
                self.release_input();
            }
        }
    }

    /// Notes that the descriptor may take more.
    pub(crate) fn unblock(&self) {
        self.blocked.set(false);
    }

    /// Forgets in a forked child what the parent has put.
    pub(crate) fn forget(&self) {
        self.output.borrow_mut().clear();
        self.drained.set(false);
        self.level.forget();
        self.refused.take();
    }

    /// Drops what the closed descriptor will not get.
    pub(crate) fn discard(&self) {
        self.output.take();
    }

    pub(crate) fn describe(&self) -> String {
        let mut text = String::new();
        let waiting = self.output.borrow().len();
        if waiting > 0 {
            text = format!(", {waiting} octets to write");
        }
        for (flag, word) in [(self.level.is_high(), ", above the high mark"), (self.base.closing.get(), ", closing")] {
            if flag {
                text += word;
            }
        }
        text
    }
}

impl Source for Writer {
    fn fd(&self) -> RawFd {
        self.port.raw_fd()
    }

    fn wanted(&self) -> Option<Wanted> {
        Wanted::of(false, self.port.is_watched.get() && self.is_blocked(), false)
    }

    fn turn(&self, cx: &mut Turn<'_>, mode: Mode) -> Next {
        if mode != Mode::Write {
            return Next::Wait;
        }
        self.unblock();
        self.flush(cx)
    }

    fn flush(&self, cx: &mut Turn<'_>) -> Next {
        let next = self.write_some(cx);
        let is_needless = if self.base.closing.get() { self.is_done() } else { self.is_over() && !cx.is_flush_due() };
        if is_needless { Next::Close } else { next }
    }

    fn close(&self) {
        self.port.close();
        self.discard();
    }

    fn fork(&self) -> AfterFork {
        // A wheel whose handle is gone is there for its output alone, and that is the parent's to write.
        if self.base.after_fork == AfterFork::Close || self.base.closing.get() {
            return AfterFork::Close;
        }
        self.forget();
        AfterFork::Keep
    }

    fn describe(&self) -> String {
        format!("{} ({}), output{}", self.base.name, self.base.id, self.describe())
    }
}

//! The other direction of a wheel: what was put, on its way to the descriptor.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use nix::sys::socket::{Shutdown, shutdown};

use super::base::{Base, Port};
use crate::args::IntoArgs;
use crate::filter::FilterError;
use crate::kernel::{AfterFork, Mode, Next, Source, Turn, Wanted};
use crate::name::Name;
use crate::wheel::error_args;
use crate::wheel::stream::Stream;
use crate::wheel::stream::marks::Marks;
use crate::wheel::stream::outbox::{Outbox, OutputEvents, Sender};
use crate::wheel::stream::output::WRITES_PER_TURN;

/// How output is kept and written. A source by itself when its descriptor is for output alone.
pub(crate) struct Writer {
    pub(crate) base: Rc<Base>,
    pub(crate) port: Rc<Port>,
    pub(crate) outbox: Outbox,
    /// A put into an empty buffer is written at once.
    auto_flush: bool,
    /// The port of the wheel's input, if that waits while the output is above its high mark.
    holds_back: RefCell<Option<Rc<Port>>>,
}

impl Writer {
    pub(crate) fn new(
        base: Rc<Base>,
        port: Rc<Port>,
        events: OutputEvents,
        marks: Option<Marks>,
        auto_flush: bool,
    ) -> Writer {
        Writer { base, port, outbox: Outbox::new(events, marks), auto_flush, holds_back: RefCell::default() }
    }

    /// Has the input at `port` wait while the output is above its high mark.
    pub(crate) fn hold_back(&self, port: Rc<Port>) {
        self.holds_back.replace(Some(port));
    }

    /// Appends what `make` makes, and tells whether the high mark is reached.
    pub(crate) fn put(&self, make: impl FnOnce(&mut Vec<u8>) -> Result<(), FilterError>) -> bool {
        if !self.port.is_open.get() && !self.outbox.is_over() {
            return false;
        }
        let writes_now = self.auto_flush && self.outbox.len() == 0;
        let is_high = self.outbox.put(make);
        self.mark_dirty();
        if writes_now {
            self.outbox.write(self, WRITES_PER_TURN);
        }
        is_high
    }

    /// Writes now, as much as the descriptor takes, and returns how many octets are left.
    pub(crate) fn flush_now(&self) -> usize {
        self.outbox.write(self, usize::MAX);
        self.mark_dirty();
        self.outbox.len()
    }

    /// Asks for a flush once the running state has returned.
    pub(crate) fn mark_dirty(&self) {
        self.port.mailbox.flush(self.port.key.get());
    }

    /// Tells whether the input is to wait for the output: not for one that will never drain.
    #[inline]
    pub(crate) fn holds_input(&self) -> bool {
        self.outbox.is_high() && !self.outbox.is_over()
    }

    /// Moves the marks, on whose other side the output may find itself.
    pub(crate) fn set_marks(&self, marks: Marks) {
        self.outbox.set_marks(marks);
        self.mark_dirty();
    }

    /// Ends the output, whatever waits.
    pub(crate) fn shut_down(&self) {
        self.outbox.shut_down(self);
        self.mark_dirty();
    }

    /// Ends the output when everything is written.
    pub(crate) fn shut_down_when_drained(&self) {
        self.outbox.shut_down_when_drained();
        self.mark_dirty();
    }

    pub(crate) fn describe_output(&self) -> String {
        let closing = if self.base.closing.get() { ", closing" } else { "" };
        self.outbox.describe() + closing
    }
}

impl Sender for Writer {
    fn stream(&self) -> &RefCell<Option<Stream>> {
        &self.port.stream
    }

    fn is_open(&self) -> bool {
        self.port.is_open.get()
    }

    fn tell(&self, cx: &mut Turn<'_>, event: Name) {
        if !self.base.closing.get() {
            self.base.dispatch(cx, event, (self.base.id,).into_args());
        }
    }

    fn refused(&self, cx: &mut Turn<'_>, error: &FilterError) {
        self.base.report_filter(cx, error);
    }

    fn failed(&self, cx: &mut Turn<'_>, error: &io::Error) {
        self.base.report(cx, error_args("write", error, self.base.id));
    }

    /// What is no socket can't be told. The end of a pipe's output is its being closed, when it is for output alone.
    fn end(&self) {
        if let Some(stream) = &*self.port.stream.borrow() {
            let _ = shutdown(stream.as_raw_fd(), Shutdown::Write);
        }
    }

    fn blocked(&self) {
        self.port.is_watched.set(true);
        self.port.changed();
    }

    fn release_input(&self) {
        self.holds_back.borrow().iter().for_each(|port| port.wake());
    }
}

impl Source for Writer {
    fn fd(&self) -> RawFd {
        self.port.raw_fd()
    }

    fn wanted(&self) -> Option<Wanted> {
        Wanted::of(false, self.port.is_watched.get() && self.outbox.is_blocked(), false)
    }

    fn turn(&self, cx: &mut Turn<'_>, mode: Mode) -> Next {
        if mode != Mode::Write {
            return Next::Wait;
        }
        self.outbox.unblock();
        self.flush(cx)
    }

    fn flush(&self, cx: &mut Turn<'_>) -> Next {
        let next = self.outbox.write_some(cx, self);
        let is_needless =
            if self.base.closing.get() { self.outbox.is_done() } else { self.outbox.is_over() && !cx.is_flush_due() };
        if is_needless { Next::Close } else { next }
    }

    fn close(&self) {
        self.port.close();
        self.outbox.discard();
    }

    fn fork(&self) -> AfterFork {
        // A wheel whose handle is gone is there for its output alone, and that is the parent's to write.
        if self.base.after_fork == AfterFork::Close || self.base.closing.get() {
            return AfterFork::Close;
        }
        self.outbox.forget();
        AfterFork::Keep
    }

    fn describe(&self) -> String {
        format!("{} ({}), output{}", self.base.name, self.base.id, self.describe_output())
    }
}

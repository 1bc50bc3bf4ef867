//! The output of a wheel: records on their way to the descriptor.

use std::cell::RefCell;
use std::io;

use super::base::Port;
use super::state::State;
use crate::args::IntoArgs;
use crate::filter::FilterError;
use crate::kernel::{AfterFork, Turn};
use crate::name::Name;
use crate::wheel::stream::Stream;
use crate::wheel::stream::marks::Marks;
use crate::wheel::stream::outbox::Sender;
use crate::wheel::stream::output::WRITES_PER_TURN;
use crate::wheel::{Failure, Put};

impl State {
    /// Returns the descriptor that the wheel writes to.
    #[inline]
    pub(super) fn output_port(&self) -> &Port {
        self.output_port.as_ref().unwrap_or(&self.port)
    }

    /// Appends the record that `make` encodes.
    pub(super) fn put(&self, make: impl FnOnce(&mut Vec<u8>) -> Result<(), FilterError>) -> Put {
        if !self.output_port().is_open.get() && !self.outbox.is_over() {
            return Put::Closed;
        }
        let writes_now = self.auto_flush && self.outbox.len() == 0;
        let put = self.outbox.put(make);
        self.mark_dirty();
        if writes_now {
            self.outbox.write(self, WRITES_PER_TURN);
        }
        put
    }

    /// Writes now, as much as the descriptor takes, and returns how many bytes are left.
    pub(super) fn flush_now(&self) -> usize {
        self.outbox.write(self, usize::MAX);
        self.mark_dirty();
        self.outbox.len()
    }

    /// Lets a transport do what it can.
    #[inline]
    pub(super) fn advance_transport(&self) {
        if self.is_over_transport {
            self.advance();
        }
    }

    fn advance(&self) {
        let advanced = self.port.stream.borrow().as_ref().map_or(Ok(()), Stream::advance);
        if let Err(error) = advanced {
            self.outbox.fail(self, error);
        }
        self.port.is_watched.set(true);
    }

    /// Tells whether a transport holds something that the descriptor has not taken.
    #[inline]
    pub(super) fn transport_wants_write(&self) -> bool {
        self.is_over_transport
            && !self.outbox.has_failed()
            && self.port.stream.borrow().as_ref().is_some_and(Stream::wants_write)
    }

    /// Tells whether a transport waits for input that the wheel may not want.
    #[inline]
    pub(super) fn transport_wants_read(&self) -> bool {
        self.is_over_transport
            && !self.outbox.has_failed()
            && self.port.stream.borrow().as_ref().is_some_and(Stream::wants_read)
    }

    /// Asks for a flush once the running state has returned.
    pub(super) fn mark_dirty(&self) {
        self.output_port().mailbox.flush(self.output_port().key.get());
    }

    /// Tells whether the input waits for the output. It does not wait for an output that will never drain.
    #[inline]
    pub(super) fn holds_input(&self) -> bool {
        self.outbox.is_high() && !self.outbox.is_over()
    }

    /// Moves the marks. The output may then be beyond one of them.
    pub(super) fn set_marks(&self, marks: Marks) {
        self.outbox.set_marks(marks);
        self.mark_dirty();
    }

    /// Ends the output, and discards what waits.
    pub(super) fn shut_down_output(&self) {
        self.outbox.shut_down(self);
        self.mark_dirty();
    }

    /// Ends the output when everything is written.
    pub(super) fn shut_down_output_when_drained(&self) {
        self.outbox.shut_down_when_drained();
        self.mark_dirty();
    }

    pub(super) fn fork_output(&self) -> AfterFork {
        // A wheel without a handle exists only for its output, which the parent writes.
        if self.base.after_fork == AfterFork::Close || self.base.closing.get() {
            return AfterFork::Close;
        }
        self.outbox.forget();
        AfterFork::Keep
    }

    pub(super) fn describe_output(&self) -> String {
        let closing = if self.base.closing.get() { ", closing" } else { "" };
        self.outbox.describe() + closing
    }
}

impl Sender for State {
    fn stream(&self) -> &RefCell<Option<Stream>> {
        &self.output_port().stream
    }

    fn is_open(&self) -> bool {
        self.output_port().is_open.get()
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
        self.base.report(cx, Failure::new(self.output_operation(), error, self.base.id));
    }

    /// Only a socket can show its end while it is open. A pipe's output ends when the pipe is closed.
    fn end(&self) {
        if let Some(stream) = &*self.output_port().stream.borrow() {
            let _ = stream.shut_down();
        }
    }

    fn blocked(&self) {
        self.output_port().is_watched.set(true);
        self.output_port().changed();
    }

    fn holds_output(&self) -> bool {
        self.transport_wants_write()
    }

    fn release_input(&self) {
        if self.reader.settings.auto_pause {
            self.port.wake();
        }
    }
}

//! `ReadWrite`: records in, records out, over one descriptor or two.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::stream::marks::Marks;
use super::stream::{Stream, Transport};
use super::{Put, WheelId};
use crate::error::Error;
use crate::filter::{AsRecord, Filter};
use crate::name::Name;

mod base;
mod builder;
mod duplex;
mod ends;
mod opening;
pub(super) mod reader;
mod state;
mod writer;

pub use builder::ReadWriteBuilder;

use state::State;

/// A wheel that reads records from a stream and writes records to it, with a [`Filter`] between records and bytes.
///
/// The input event gets ARG0 = the record and ARG1 = the [`WheelId`]. The flushed, high and low events get ARG0 = the
/// [`WheelId`]. The [module's documentation](super) describes the error and refused events. A wheel without an input
/// event does not read.
///
/// An end of file is an error event. The wheel can still write after it, because the peer may have closed only its own
/// half. The wheel keeps its session alive until the wheel is dropped, or until neither direction works any more. A
/// direction stops working when it ends, fails or is shut down.
///
/// Dropping the wheel discards output that is not written yet. To write it first, call
/// [`close_after_flush`](ReadWrite::close_after_flush).
///
/// ```
/// use std::os::unix::net::UnixStream;
/// use lenore::{Kernel, Session};
/// use lenore::filter::Line;
/// use lenore::wheel::ReadWrite;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (ours, theirs) = UnixStream::pair()?;
/// let mut kernel = Kernel::new()?;
/// let mut ends = vec![ours, theirs];
/// Session::new(Vec::<ReadWrite<Line>>::new())
///     .state("_start", |cx| {
///         for end in cx.take::<Vec<UnixStream>>(0)? {
///             let wheel = ReadWrite::stream(end, Line::new()).on_input("input").start(cx)?;
///             cx.heap().push(wheel);
///         }
///         cx.heap()[0].put("to the other end");
///         Ok(())
///     })
///     .state("input", |cx| {
///         assert_eq!(cx.take::<String>(0)?, "to the other end");
///         cx.heap().clear();
///         Ok(())
///     })
///     .args((std::mem::take(&mut ends),))
///     .spawn(&mut kernel)?;
/// kernel.run()?;
/// # Ok(())
/// # }
/// ```
///
/// # Slow readers
///
/// Output that the peer does not take waits in memory, without a limit. The wheel never drops output, and never blocks
/// a state. If the peer may be slow, set [`watermarks`](ReadWriteBuilder::watermarks), and have the session look at one
/// of these:
///
/// - what [`put`](ReadWrite::put) returns: after [`Put::High`](super::Put::High) the session puts no more before the
///   low event
/// - the high event, which says the same
/// - [`is_high`](ReadWrite::is_high), which is true from the high mark until the output has drained to the low mark
///
/// A session that puts only in answer to input uses [`auto_pause`](ReadWriteBuilder::auto_pause). The wheel then reads
/// no input while its output is above the high mark, so the peer gets no further until it reads. The output never grows
/// beyond the high mark plus one reply. When an error or the program has ended the output, the wheel reads on until the
/// input ends.
///
/// # Filters
///
/// The filter can be replaced between two records of one chunk. The new filter gets the bytes that the old one has not
/// used. [`set_filter`](ReadWrite::set_filter) takes a filter of the same type.
/// [`switch_filter`](ReadWrite::switch_filter) takes one of another type, and returns a wheel of another type with the
/// same descriptor and id:
///
/// ```
/// # use std::io::{Read, Write};
/// # use std::os::unix::net::UnixStream;
/// # use lenore::{Kernel, Session};
/// use lenore::filter::{Line, Stream};
/// use lenore::wheel::ReadWrite;
///
/// enum Client { Talking(ReadWrite<Line>), Sending(ReadWrite<Stream>), Gone }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (ours, mut theirs) = UnixStream::pair()?;
/// # let mut kernel = Kernel::new()?;
/// theirs.write_all(b"DATA\r\nand\nthe rest")?;
/// Session::new(Client::Gone)
///     .args((ours,))
///     .state("_start", |cx| {
///         let stream = cx.take::<UnixStream>(0)?;
///         let wheel = ReadWrite::stream(stream, Line::new()).on_input("line").start(cx)?;
///         *cx.heap() = Client::Talking(wheel);
///         Ok(())
///     })
///     .state("line", |cx| {
///         assert_eq!(cx.take::<String>(0)?, "DATA");
///         if let Client::Talking(wheel) = std::mem::replace(cx.heap(), Client::Gone) {
///             wheel.event_clear(lenore::wheel::StreamEvent::Flushed);
///             wheel.event(lenore::wheel::StreamEvent::Input, "data");
///             *cx.heap() = Client::Sending(wheel.switch_filter(Stream::new()));
///         }
///         Ok(())
///     })
///     .state("data", |cx| {
///         assert_eq!(cx.take::<Vec<u8>>(0)?, b"and\nthe rest");
///         *cx.heap() = Client::Gone;
///         Ok(())
///     })
///     .spawn(&mut kernel)?;
/// kernel.run()?;
/// # Ok(())
/// # }
/// ```
///
/// POE: `POE::Wheel::ReadWrite`.
#[must_use = "a wheel that is dropped is closed: keep it in the heap"]
pub struct ReadWrite<I: Filter, O: Filter = I> {
    state: Owned,
    /// The reader has it too, without its type.
    input: Rc<RefCell<I>>,
    output: RefCell<O>,
}

impl<I: Filter, O: Filter> fmt::Debug for ReadWrite<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadWrite").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// What the kernel works with. Dropping it closes the wheel.
struct Owned(Rc<State>);

/// One of the events of a [`ReadWrite`], for [`ReadWrite::event`] and [`ReadWrite::event_clear`].
///
/// POE: `InputEvent`, `FlushedEvent`, `ErrorEvent`, `HighEvent` and `LowEvent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StreamEvent {
    /// A record has come.
    Input,
    /// Everything put has been written.
    Flushed,
    /// An error has occurred, or the input has ended.
    Error,
    /// The filter has refused a record. POE: nothing like it.
    Refused,
    /// The output has reached the high mark.
    High,
    /// The output has drained to the low mark.
    Low,
}

impl<F: Filter> ReadWrite<F> {
    /// Returns the builder of a wheel that takes over a socket, a pipe or a terminal. `filter` is for the input, and
    /// [its other half](crate::filter#two-halves) for the output.
    ///
    /// POE: `new` with `Handle` and `Filter`.
    #[doc(alias = "Handle")]
    pub fn stream(stream: impl Into<OwnedFd>, filter: F) -> ReadWriteBuilder<F> {
        ReadWriteBuilder::new(Stream::new(stream.into()), None, filter)
    }

    /// Returns the builder of a wheel that reads from one descriptor and writes to another, such as two pipes, or
    /// standard input and output.
    ///
    /// POE: `new` with `InputHandle` and `OutputHandle`.
    #[doc(alias = "InputHandle")]
    #[doc(alias = "OutputHandle")]
    pub fn streams(input: impl Into<OwnedFd>, output: impl Into<OwnedFd>, filter: F) -> ReadWriteBuilder<F> {
        ReadWriteBuilder::new(Stream::new(input.into()), Some(output.into()), filter)
    }

    /// Returns the builder of a wheel over the program's own [`Transport`], such as TLS over a socket. The wheel makes
    /// the transport's descriptor non-blocking.
    ///
    /// POE: `new` with a tied handle.
    pub fn transport(transport: impl Transport, filter: F) -> ReadWriteBuilder<F> {
        ReadWriteBuilder::new(Stream::over(Box::new(transport)), None, filter)
    }

    /// Replaces both filters. `filter` becomes the [input filter](Self::set_input_filter), and [its other
    /// half](crate::filter#two-halves) the [output filter](Self::set_output_filter).
    ///
    /// POE: `set_filter`.
    pub fn set_filter(&self, filter: F) {
        self.set_output_filter(filter.output_half());
        self.set_input_filter(filter);
    }
}

impl<I: Filter, O: Filter> ReadWrite<I, O> {
    /// Returns the id that the wheel's events carry.
    ///
    /// POE: `ID`.
    #[doc(alias = "ID")]
    pub fn id(&self) -> WheelId {
        self.state.0.base.id
    }

    /// Appends a record to the output, and returns [whether the session should put more](Put).
    ///
    /// The wheel writes the record when the running state has returned, together with all other records put by then. If
    /// many streams are ready at once, up to three others may get their turn first. When the filter refuses the record,
    /// the wheel sends an error event with the operation `"filter"`.
    ///
    /// `put` discards the record and returns [`Put::Closed`] once nothing can be written any more. Once the wheel's
    /// descriptor is closed, because its session has stopped, or in a forked child, it does nothing else. After an
    /// error of writing, or after [`shutdown_output`](ReadWrite::shutdown_output), the record still adds to
    /// [`pending_output`](ReadWrite::pending_output).
    ///
    /// POE: `put`, which takes a list of records.
    pub fn put(&self, record: impl AsRecord<O::Output>) -> Put {
        self.state.0.put(|bytes| self.output.borrow_mut().put(record.as_record(), bytes))
    }

    /// Tells whether the output has reached the high mark, and has not drained to the low mark since.
    ///
    /// POE: nothing like it.
    pub fn is_high(&self) -> bool {
        self.state.0.outbox.is_high()
    }

    /// Writes inside the running state, as much as the descriptor takes. Returns how many bytes are left. The events
    /// that result, such as the flushed event, come when the state has returned.
    ///
    /// POE: `flush`.
    pub fn flush(&self) -> usize {
        self.state.0.flush_now()
    }

    /// Returns how many bytes wait to be written.
    ///
    /// POE: `get_driver_out_octets`.
    #[doc(alias = "get_driver_out_octets")]
    #[doc(alias = "driver_out_octets")]
    pub fn pending_output(&self) -> usize {
        self.state.0.outbox.len()
    }

    /// Returns how many records wait to be written, including one that is partly written.
    ///
    /// POE: `get_driver_out_messages`.
    #[doc(alias = "get_driver_out_messages")]
    pub fn driver_out_messages(&self) -> usize {
        self.state.0.outbox.messages()
    }

    /// Stops reading and delivering at once, until [`resume_input`](ReadWrite::resume_input). Records that the wheel
    /// has already read wait.
    ///
    /// POE: `pause_input`.
    pub fn pause_input(&self) {
        self.state.0.pause_input();
    }

    /// Reads and delivers again after [`pause_input`](ReadWrite::pause_input).
    ///
    /// POE: `resume_input`.
    pub fn resume_input(&self) {
        self.state.0.resume_input();
    }

    /// Ends the input for good, at once. Nothing more is delivered, not even records already read. No event is sent.
    /// The output goes on.
    ///
    /// After [`shutdown_output`](ReadWrite::shutdown_output) as well, Linux answers further data from a TCP peer with a
    /// reset. The reset can cost the peer the end of the output.
    ///
    /// POE: `shutdown_input`.
    pub fn shutdown_input(&self) {
        self.state.0.shut_down_input();
    }

    /// Ends the output for good, at once. Output that waits is discarded, including what the running state has put. The
    /// peer sees an end of file. The input goes on.
    ///
    /// If the wheel has a separate descriptor for the output, it closes that, unless it is a socket.
    ///
    /// POE: `shutdown_output`.
    pub fn shutdown_output(&self) {
        self.state.0.shut_down_output();
    }

    /// Ends the output as [`shutdown_output`](ReadWrite::shutdown_output) does, but only when everything put is
    /// written.
    ///
    /// POE: nothing like it; `shutdown_output` in the FlushedEvent.
    pub fn shutdown_output_after_flush(&self) {
        self.state.0.shut_down_output_when_drained();
    }

    /// Changes the name of one of the wheel's events, or names an event that had no name. The new name counts from the
    /// next event on.
    ///
    /// POE: `event`.
    pub fn event(&self, event: StreamEvent, name: impl Into<Name>) {
        self.set_event(event, Some(name.into()));
    }

    /// Takes one of the wheel's events away. Without an input event the wheel reads nothing. Records that it has
    /// already read wait until there is an input event again.
    ///
    /// POE: `event` without a value, which loses those records.
    pub fn event_clear(&self, event: StreamEvent) {
        self.set_event(event, None);
    }

    fn set_event(&self, event: StreamEvent, name: Option<Name>) {
        match event {
            StreamEvent::Input => self.state.0.set_input_event(name),
            StreamEvent::Flushed => self.state.0.outbox.set_events(|events| events.flushed = name),
            StreamEvent::Error => self.state.0.base.on_error.set(name),
            StreamEvent::Refused => self.state.0.base.refusals.set_event(name),
            StreamEvent::High => self.state.0.outbox.set_events(|events| events.marks.high = name),
            StreamEvent::Low => self.state.0.outbox.set_events(|events| events.marks.low = name),
        }
    }

    /// Moves the high mark, in bytes. If that much output already waits, the wheel sends the high event.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSetting`] if the wheel was started without marks, or if the new mark is not above the low mark.
    /// The marks stay as they are.
    ///
    /// POE: `set_high_mark`, which warns.
    pub fn set_high_mark(&self, octets: usize) -> Result<(), Error> {
        self.set_marks("high mark", |marks| Marks { high: octets, ..marks })
    }

    /// Moves the low mark, in bytes. If the output had reached the high mark, and no more than `octets` waits, the
    /// wheel sends the low event.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSetting`] if the wheel was started without marks, or if the new mark is 0 or not below the high
    /// mark. The marks stay as they are.
    ///
    /// POE: `set_low_mark`, which warns.
    pub fn set_low_mark(&self, octets: usize) -> Result<(), Error> {
        self.set_marks("low mark", |marks| Marks { low: octets, ..marks })
    }

    fn set_marks(&self, setting: &'static str, change: impl FnOnce(Marks) -> Marks) -> Result<(), Error> {
        let marks =
            self.state.0.outbox.marks().ok_or(Error::InvalidSetting { setting, reason: "the wheel has no marks" })?;
        let marks = change(marks);
        marks.check()?;
        self.state.0.set_marks(marks);
        Ok(())
    }

    /// Replaces the input filter. The new filter is fed what is pending in the old one, and the wheel delivers the
    /// records. If the running state is the wheel's input event, they come right after it, in the same turn. Otherwise
    /// they come in the next slice.
    ///
    /// Bytes that still belong to the old filter's last record are dropped when they come ([`Filter::finish_record`]).
    /// So the new filter gets the same bytes however the network has cut the input. If the old filter can't hand over
    /// its input ([`Filter::hand_over`]), the wheel sends an error event.
    ///
    /// POE: `set_input_filter`, which delivers them before it returns.
    pub fn set_input_filter(&self, filter: I) {
        let old = self.input.replace(filter);
        self.state.0.take_over(Rc::new(RefCell::new(old)));
    }

    /// Replaces the output filter. Records already put stay as the old filter encoded them.
    ///
    /// POE: `set_output_filter`.
    pub fn set_output_filter(&self, filter: O) {
        self.output.replace(filter);
    }

    /// Calls `look` with the input filter, to read or change its settings, and returns what `look` returns.
    ///
    /// POE: `get_input_filter`.
    #[doc(alias = "get_input_filter")]
    pub fn input_filter<T>(&self, look: impl FnOnce(&mut I) -> T) -> T {
        look(&mut self.input.borrow_mut())
    }

    /// Calls `look` with the output filter, to read or change its settings, and returns what `look` returns.
    ///
    /// POE: `get_output_filter`.
    #[doc(alias = "get_output_filter")]
    pub fn output_filter<T>(&self, look: impl FnOnce(&mut O) -> T) -> T {
        look(&mut self.output.borrow_mut())
    }

    /// Returns a copy of the bytes that the wheel has read but not delivered. After an end of file they are the
    /// unfinished last record.
    ///
    /// POE: `get_pending` of the input filter.
    pub fn get_pending(&self) -> Vec<u8> {
        self.state.0.reader.inbox.pending()
    }

    /// Returns how many bytes have come.
    #[inline]
    pub(crate) fn input_octets(&self) -> u64 {
        let received = self.state.0.port.stream.borrow().as_ref().and_then(Stream::received);
        received.unwrap_or_else(|| self.state.0.reader.octets())
    }

    /// Tells whether the transport holds input that the wheel has not read, even part of a record.
    pub(crate) fn transport_holds_input(&self) -> bool {
        self.state.0.port.stream.borrow().as_ref().is_some_and(Stream::holds_input)
    }

    /// Returns how many bytes were put in all, written or not. The number may wrap.
    #[cfg(feature = "service")]
    pub(crate) fn output_octets(&self) -> usize {
        self.state.0.outbox.written().wrapping_add(self.state.0.outbox.len())
    }

    /// Tells whether nothing more is read: the input has ended, or was shut down.
    pub(crate) fn reads_no_more(&self) -> bool {
        self.state.0.reader.reads_no_more()
    }

    /// Replaces both filters with filters of another type, as [`switch_input_filter`](Self::switch_input_filter) and
    /// [`switch_output_filter`](Self::switch_output_filter) do.
    ///
    /// POE: `set_filter`.
    #[doc(alias = "set_filter")]
    pub fn switch_filter<F: Filter>(self, filter: F) -> ReadWrite<F> {
        let output = filter.output_half();
        self.switch_output_filter(output).switch_input_filter(filter)
    }

    /// Replaces the input filter with one of another type, as [`set_input_filter`](Self::set_input_filter) does. The
    /// returned wheel has the same descriptor, id, events and output.
    ///
    /// POE: `set_input_filter`.
    #[doc(alias = "set_input_filter")]
    pub fn switch_input_filter<J: Filter>(self, filter: J) -> ReadWrite<J, O> {
        let ReadWrite { state, input: old, output } = self;
        let input = Rc::new(RefCell::new(filter));
        state.0.reader.inbox.set_filter(input.clone());
        state.0.take_over(old);
        ReadWrite { state, input, output }
    }

    /// Replaces the output filter with one of another type. Records already put stay as the old filter encoded them.
    ///
    /// POE: `set_output_filter`.
    #[doc(alias = "set_output_filter")]
    pub fn switch_output_filter<P: Filter>(self, filter: P) -> ReadWrite<I, P> {
        let ReadWrite { state, input, .. } = self;
        ReadWrite { state, input, output: RefCell::new(filter) }
    }

    /// Makes the wheel close without waiting for the peer to close its side.
    pub(crate) fn close_without_waiting(&self) {
        self.state.0.closing.set_close_timeout(Duration::ZERO);
    }

    /// Calls `what` with the descriptor that the wheel reads from.
    ///
    /// # Errors
    ///
    /// `ENOTCONN` once the descriptor is closed, and any error that `what` returns.
    pub(crate) fn with_fd<T>(&self, what: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        let stream = self.state.0.port.stream.borrow();
        stream.as_ref().map_or_else(|| Err(Errno::ENOTCONN.into()), |stream| stream.with_fd(what))
    }

    /// Sends `event` once, with ARG0 = the [`WheelId`], if the peer takes none of the waiting output for as long as
    /// [`write_timeout`](ReadWriteBuilder::write_timeout). This is for a program that waits for the output to be
    /// written before it closes the wheel.
    pub(crate) fn limit_patience(&self, event: impl Into<Name>) {
        self.state.0.limit_patience(event.into());
    }

    /// Gives the wheel up. It closes on its own when everything put so far is written, or can't be.
    ///
    /// The wheel delivers no more input. When all is written, it closes its side, and waits until the peer closes its
    /// own or [`close_timeout`](ReadWriteBuilder::close_timeout) has passed. Until then the wheel keeps the session
    /// alive, and discards what it receives on a socket. Linux would answer unread input with a reset, which can cost
    /// the peer the end of the output.
    ///
    /// If the peer takes no output for [`write_timeout`](ReadWriteBuilder::write_timeout), the wheel closes and
    /// discards the rest.
    ///
    /// POE: nothing like it; dropping the wheel in its FlushedEvent.
    pub fn close_after_flush(self) {
        let state = &self.state.0;
        // A transport may hold output, and has to show the end itself.
        let is_unheard = state.outbox.has_failed() || state.reader.ended.get() && !state.is_over_transport;
        if !state.output_port().is_open.get() || state.outbox.is_done() && is_unheard {
            return;
        }
        state.base.closing.set(true);
        if state.output_port.is_some() {
            state.port.drop_later();
        }
        state.mark_dirty();
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if !self.0.base.closing.get() {
            self.0.port.drop_later();
            self.0.output_port().drop_later();
        }
    }
}

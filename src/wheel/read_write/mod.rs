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
/// The input event gets ARG0 = the record, ARG1 = the [`WheelId`]; the flushed, high and low events ARG0 = the
/// [`WheelId`]; the error and refused events are described in the [module's documentation](super).
///
/// An end of file is an error event, after which the wheel can still write: the peer may have closed only its own half.
/// The wheel, and with it the session, stays until it is dropped. Dropping it discards what was not written yet;
/// [`close_after_flush`](ReadWrite::close_after_flush) doesn't. A wheel that can neither read nor write any more does not
/// keep its session: each direction has ended, has failed or was shut down. A wheel without an input event does not read.
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
/// What is put and can't be written waits in memory, without a limit of its own: the wheel never drops output, and never
/// makes a state wait. A session whose peer may be slow sets [`watermarks`](ReadWriteBuilder::watermarks), and then minds one of
///
/// - what [`put`](ReadWrite::put) returns: [`Put::High`](super::Put::High) means that it should put no more before the low event;
/// - the high event, which says the same to whoever is not looking at `put`;
/// - [`is_high`](ReadWrite::is_high), which stays true from the one to the other.
///
/// A session that only puts in answer to input uses [`auto_pause`](ReadWriteBuilder::auto_pause): the input waits for the
/// output, and the peer, in the end, for itself. Its output never grows beyond the high mark and one reply. When the output
/// has ended, by an error or by the program, the input goes on: its own end is still to come.
///
/// # Filters
///
/// The filter can be replaced between two records of one chunk: what the old one has not used is the new one's. With a
/// filter of the same type the wheel stays ([`set_filter`](ReadWrite::set_filter)); with one of another type it becomes
/// another wheel with the same descriptor and id ([`switch_filter`](ReadWrite::switch_filter)):
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
    /// What the reader knows without its types.
    input: Rc<RefCell<I>>,
    output: RefCell<O>,
}

impl<I: Filter, O: Filter> fmt::Debug for ReadWrite<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadWrite").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// What the kernel works with; dropped, it closes.
struct Owned(Rc<State>);

/// One of the events of a [`ReadWrite`], to be changed by [`ReadWrite::event`].
///
/// POE: `InputEvent`, `FlushedEvent`, `ErrorEvent`, `HighEvent` and `LowEvent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StreamEvent {
    /// A record has come.
    Input,
    /// Everything put is written.
    Flushed,
    /// An error, or the end of file.
    Error,
    /// The filter has refused a record. POE: nothing like it.
    Refused,
    /// The output has reached the high mark.
    High,
    /// The output has drained to the low mark.
    Low,
}

impl<F: Filter> ReadWrite<F> {
    /// Begins a wheel on a socket, pipe or terminal, which it takes over. The output gets
    /// [the other half](crate::filter#two-halves) of `filter`.
    ///
    /// POE: `new` with `Handle` and `Filter`.
    #[doc(alias = "Handle")]
    pub fn stream(stream: impl Into<OwnedFd>, filter: F) -> ReadWriteBuilder<F> {
        ReadWriteBuilder::new(Stream::new(stream.into()), None, filter)
    }

    /// Begins a wheel that reads from one descriptor and writes to another: two pipes, or standard input and output.
    ///
    /// POE: `new` with `InputHandle` and `OutputHandle`.
    #[doc(alias = "InputHandle")]
    #[doc(alias = "OutputHandle")]
    pub fn streams(input: impl Into<OwnedFd>, output: impl Into<OwnedFd>, filter: F) -> ReadWriteBuilder<F> {
        ReadWriteBuilder::new(Stream::new(input.into()), Some(output.into()), filter)
    }

    /// Begins a wheel over a [`Transport`] of the program's own, such as TLS over a socket. Its descriptor is made non-blocking.
    ///
    /// POE: `new` with a tied handle.
    pub fn transport(transport: impl Transport, filter: F) -> ReadWriteBuilder<F> {
        ReadWriteBuilder::new(Stream::over(Box::new(transport)), None, filter)
    }

    /// Replaces both filters: as [`set_input_filter`](Self::set_input_filter) and
    /// [`set_output_filter`](Self::set_output_filter), the latter with [the other half](crate::filter#two-halves) of `filter`.
    ///
    /// POE: `set_filter`.
    pub fn set_filter(&self, filter: F) {
        self.set_output_filter(filter.output_half());
        self.set_input_filter(filter);
    }
}

impl<I: Filter, O: Filter> ReadWrite<I, O> {
    /// Returns the id that its events carry.
    ///
    /// POE: `ID`.
    #[doc(alias = "ID")]
    pub fn id(&self) -> WheelId {
        self.state.0.base.id
    }

    /// Appends a record to the output. The [answer](Put) says whether that takes more, has reached the high mark, so that it
    /// is time to put no more before the low event, or is closed.
    ///
    /// The record is written once the running state has returned, together with whatever else was put by then; when many
    /// streams are ready at once, up to three more may get their turn first. One that the filter refuses is an error event,
    /// `"filter"`. After the wheel's descriptor was closed, by its session's end or in a forked child, `put` does nothing;
    /// after an error of writing or [`shutdown_output`](ReadWrite::shutdown_output), what is put adds up and is never sent.
    ///
    /// POE: `put`, which takes a list of records.
    pub fn put(&self, record: impl AsRecord<O::Output>) -> Put {
        self.state.0.put(|bytes| self.output.borrow_mut().put(record.as_record(), bytes))
    }

    /// Tells whether the output has reached the high mark and not drained to the low one since.
    ///
    /// POE: nothing like it.
    pub fn is_high(&self) -> bool {
        self.state.0.outbox.is_high()
    }

    /// Writes now, in the middle of the running state, as much as the descriptor takes, and returns how many bytes are
    /// left. The events that come of it follow when the state has returned.
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

    /// Returns how many records wait to be written, one that is written in part included.
    ///
    /// POE: `get_driver_out_messages`.
    #[doc(alias = "get_driver_out_messages")]
    pub fn driver_out_messages(&self) -> usize {
        self.state.0.outbox.messages()
    }

    /// Stops reading and delivering until [`resume_input`](ReadWrite::resume_input), at once: records that were read
    /// already wait.
    ///
    /// POE: `pause_input`.
    pub fn pause_input(&self) {
        self.state.0.pause_input();
    }

    /// Goes on reading and delivering.
    ///
    /// POE: `resume_input`.
    pub fn resume_input(&self) {
        self.state.0.resume_input();
    }

    /// Ends the input for good, at once: nothing more is delivered, of what was read already neither, and no event tells of
    /// it. The output goes on.
    ///
    /// Once the output is shut down as well, Linux answers what a TCP peer still sends with a reset, which can cost the peer the
    /// end of the output.
    ///
    /// POE: `shutdown_input`.
    pub fn shutdown_input(&self) {
        self.state.0.shut_down_input();
    }

    /// Ends the output for good, at once: what waits to be written never is, this state's own `put`s included. The peer
    /// sees an end of file; the input goes on.
    ///
    /// Of a wheel with two descriptors the output's is closed, unless it is a socket.
    ///
    /// POE: `shutdown_output`.
    pub fn shutdown_output(&self) {
        self.state.0.shut_down_output();
    }

    /// Ends the output as [`shutdown_output`](ReadWrite::shutdown_output) does, as soon as everything put is written.
    ///
    /// POE: nothing like it; `shutdown_output` in the FlushedEvent.
    pub fn shutdown_output_after_flush(&self) {
        self.state.0.shut_down_output_when_drained();
    }

    /// Changes the name of one of the wheel's events, from the next one on, or gives it one.
    ///
    /// POE: `event`.
    pub fn event(&self, event: StreamEvent, name: impl Into<Name>) {
        self.set_event(event, Some(name.into()));
    }

    /// Takes one of the wheel's events away. Without an input event nothing is read; records that were read already wait
    /// until there is one again.
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

    /// Moves the high mark, in bytes. If that much output waits already, the high event follows.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSetting`] when the wheel was started without marks, or it would not be above the low mark; the
    /// marks stay as they are.
    ///
    /// POE: `set_high_mark`, which warns.
    pub fn set_high_mark(&self, octets: usize) -> Result<(), Error> {
        self.set_marks("high mark", |marks| Marks { high: octets, ..marks })
    }

    /// Moves the low mark, in bytes. If no more output waits and the high mark was reached, the low event follows.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSetting`] when the wheel was started without marks, or it would be 0 or not below the high mark;
    /// the marks stay as they are.
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

    /// Replaces the input filter. The new one is fed what is pending in the old one, and its records are delivered: in the
    /// same turn, right after the running state, when that is the wheel's input event; in the next slice otherwise. Bytes
    /// that still belong to the old filter's last record are dropped when they come ([`Filter::finish_record`]): which
    /// bytes the new filter gets does not depend on how the network has cut the input. What the old one can't hand over
    /// ([`Filter::hand_over`]) is an error event.
    ///
    /// POE: `set_input_filter`, which delivers them before it returns.
    pub fn set_input_filter(&self, filter: I) {
        let old = self.input.replace(filter);
        self.state.0.take_over(Rc::new(RefCell::new(old)));
    }

    /// Replaces the output filter. What was put already stays as the old one made it.
    ///
    /// POE: `set_output_filter`.
    pub fn set_output_filter(&self, filter: O) {
        self.output.replace(filter);
    }

    /// Looks at the input filter, or changes its settings.
    ///
    /// POE: `get_input_filter`.
    #[doc(alias = "get_input_filter")]
    pub fn input_filter<T>(&self, look: impl FnOnce(&mut I) -> T) -> T {
        look(&mut self.input.borrow_mut())
    }

    /// Looks at the output filter, or changes its settings.
    ///
    /// POE: `get_output_filter`.
    #[doc(alias = "get_output_filter")]
    pub fn output_filter<T>(&self, look: impl FnOnce(&mut O) -> T) -> T {
        look(&mut self.output.borrow_mut())
    }

    /// Returns what has been read and is no part of a delivered record; it stays where it is. After an end of file this is
    /// the unfinished last record.
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

    /// Tells whether the transport has input that was not read: whole, or a part.
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

    /// Replaces both filters by others of another type: as [`switch_input_filter`](Self::switch_input_filter) and
    /// [`switch_output_filter`](Self::switch_output_filter).
    ///
    /// POE: `set_filter`.
    #[doc(alias = "set_filter")]
    pub fn switch_filter<F: Filter>(self, filter: F) -> ReadWrite<F> {
        let output = filter.output_half();
        self.switch_output_filter(output).switch_input_filter(filter)
    }

    /// Replaces the input filter by one of another type, as [`set_input_filter`](Self::set_input_filter) does. The wheel that
    /// it returns has the same descriptor, id, events and output.
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

    /// Replaces the output filter by one of another type. What was put already stays as the old one made it.
    ///
    /// POE: `set_output_filter`.
    #[doc(alias = "set_output_filter")]
    pub fn switch_output_filter<P: Filter>(self, filter: P) -> ReadWrite<I, P> {
        let ReadWrite { state, input, .. } = self;
        ReadWrite { state, input, output: RefCell::new(filter) }
    }

    /// Has the end of the wheel not wait for the peer to close its side.
    pub(crate) fn close_without_waiting(&self) {
        self.state.0.closing.set_close_timeout(Duration::ZERO);
    }

    /// Does something with the descriptor that it reads from.
    ///
    /// # Errors
    ///
    /// `ENOTCONN` once that is closed, besides what `what` says.
    pub(crate) fn with_fd<T>(&self, what: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        let stream = self.state.0.port.stream.borrow();
        stream.as_ref().map_or_else(|| Err(Errno::ENOTCONN.into()), |stream| stream.with_fd(what))
    }

    /// Sends `event`, with ARG0 = the [`WheelId`], if the peer takes nothing of the output that waits for as long as
    /// [`write_timeout`](ReadWriteBuilder::write_timeout) says: once, and for a program that is about to close when all is written.
    pub(crate) fn limit_patience(&self, event: impl Into<Name>) {
        self.state.0.limit_patience(event.into());
    }

    /// Lets go of the wheel: it closes by itself as soon as everything put so far is written, or can't be.
    ///
    /// No more input is delivered. When all is written the wheel closes its side, and waits for the peer to close its own, or
    /// for [`close_timeout`](ReadWriteBuilder::close_timeout) to pass; what a socket receives meanwhile is discarded, as the system would
    /// answer unread input with a reset, which costs the peer the end of the output. The session stays alive until then. A
    /// peer that takes nothing of the output is given up after some time ([`write_timeout`](ReadWriteBuilder::write_timeout)).
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

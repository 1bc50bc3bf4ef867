//! The builder of a `ReadWrite`.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use super::base::{Base, Port};
use super::duplex::Closing;
use super::ends::{InputEnd, OutputEnd};
use super::opening::{HANDSHAKE_LIMIT, Opening};
use super::reader::{InputSettings, Reader};
use super::state::State;
use super::{Owned, ReadWrite};
use crate::error::Error;
use crate::filter::Filter;
use crate::kernel::{AfterFork, Core, InState, SessionId, Source, SourceKey, core_of, set_nonblocking};
use crate::name::Name;
use crate::wheel::WheelId;
use crate::wheel::refusals::Refusals;
use crate::wheel::stream::inbox::Inbox;
use crate::wheel::stream::marks::Marks;
use crate::wheel::stream::outbox::{Outbox, OutputEvents};
use crate::wheel::stream::{Stream, check_is_stream};

/// Sets how a [`ReadWrite`] works. [`ReadWrite::stream`] makes one.
#[must_use = "does nothing until it is started"]
pub struct ReadWriteBuilder<I: Filter, O: Filter = I> {
    input: Stream,
    /// `None` if the wheel writes to the input's descriptor.
    output: Option<OwnedFd>,
    input_filter: I,
    output_filter: O,
    on_input: Option<Name>,
    on_error: Option<Name>,
    on_refused: Option<Name>,
    on_ready: Option<Name>,
    handshake_timeout: Duration,
    output_events: OutputEvents,
    marks: Option<Marks>,
    auto_flush: bool,
    settings: InputSettings,
    close_timeout: Duration,
    write_timeout: Duration,
    after_fork: AfterFork,
}

impl<I: Filter, O: Filter> fmt::Debug for ReadWriteBuilder<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadWriteBuilder").field("on_input", &self.on_input).finish_non_exhaustive()
    }
}

impl<F: Filter> ReadWriteBuilder<F> {
    pub(super) fn new(input: Stream, output: Option<OwnedFd>, filter: F) -> ReadWriteBuilder<F> {
        ReadWriteBuilder {
            input,
            output,
            output_filter: filter.output_half(),
            input_filter: filter,
            on_input: None,
            on_error: None,
            on_refused: None,
            on_ready: None,
            handshake_timeout: HANDSHAKE_LIMIT,
            output_events: OutputEvents::default(),
            marks: None,
            auto_flush: false,
            settings: InputSettings { block_size: BLOCK_SIZE, delivers_last: false, auto_pause: false },
            close_timeout: CLOSE_TIMEOUT,
            write_timeout: WRITE_TIMEOUT,
            after_fork: AfterFork::Close,
        }
    }
}

impl<I: Filter, O: Filter> ReadWriteBuilder<I, O> {
    /// Sets a filter for the output that has another type, or other settings, than the input's.
    ///
    /// POE: `OutputFilter`. The filter given first is then the `InputFilter`.
    #[doc(alias = "OutputFilter")]
    pub fn output_filter<P: Filter>(self, filter: P) -> ReadWriteBuilder<I, P> {
        let ReadWriteBuilder { input, output, input_filter, on_input, on_error, on_refused, output_events, .. } = self;
        let ReadWriteBuilder { on_ready, handshake_timeout, marks, auto_flush, settings, close_timeout, .. } = self;
        let ReadWriteBuilder { write_timeout, after_fork, .. } = self;
        ReadWriteBuilder {
            input,
            output,
            input_filter,
            output_filter: filter,
            on_input,
            on_error,
            on_refused,
            on_ready,
            handshake_timeout,
            output_events,
            marks,
            auto_flush,
            settings,
            close_timeout,
            write_timeout,
            after_fork,
        }
    }

    /// Names the event for each record. Without it the wheel reads nothing, and does not notice an end of file.
    ///
    /// POE: `InputEvent`.
    #[doc(alias = "InputEvent")]
    pub fn on_input(mut self, event: impl Into<Name>) -> Self {
        self.on_input = Some(event.into());
        self
    }

    /// Names the event that the wheel sends whenever everything put has been written.
    ///
    /// POE: `FlushedEvent`.
    #[doc(alias = "FlushedEvent")]
    pub fn on_flushed(mut self, event: impl Into<Name>) -> Self {
        self.output_events.flushed = Some(event.into());
        self
    }

    /// Names the event for errors and for the end of file. Without it neither is reported.
    ///
    /// POE: `ErrorEvent`.
    #[doc(alias = "ErrorEvent")]
    pub fn on_error(mut self, event: impl Into<Name>) -> Self {
        self.on_error = Some(event.into());
        self
    }

    /// Names the event for a record that the input filter refuses. Without it the wheel logs the first refused record.
    /// In both cases the wheel goes on with the next record.
    ///
    /// POE: nothing like it. An exception in a filter reaches the program.
    pub fn on_refused(mut self, event: impl Into<Name>) -> Self {
        self.on_refused = Some(event.into());
        self
    }

    /// Names the event for a [`Transport`](crate::wheel::Transport) that becomes
    /// [ready](crate::wheel::Transport::is_ready), as when a handshake is done. ARG0 is the [`WheelId`]. The event
    /// comes once, before the first record. Without it the wheel does not report the handshake.
    ///
    /// POE: nothing like it.
    pub fn on_ready(mut self, event: impl Into<Name>) -> Self {
        self.on_ready = Some(event.into());
        self
    }

    /// Sets how long a [`Transport`](crate::wheel::Transport) may take to become ready. After that the wheel sends an
    /// error event with the operation `"handshake"` and `ETIMEDOUT`, and neither reads nor writes any more. Default: 10
    /// s.
    ///
    /// POE: nothing like it.
    pub fn handshake_timeout(mut self, span: Duration) -> Self {
        self.handshake_timeout = span;
        self
    }

    /// Sets the marks, in bytes of waiting output. At `high` or more the session should put no more. At `low` or less
    /// it may put again. Marks need an [`on_low`](Self::on_low) event or [`auto_pause`](Self::auto_pause).
    ///
    /// POE: `LowMark` and `HighMark`.
    #[doc(alias = "LowMark")]
    #[doc(alias = "HighMark")]
    #[doc(alias = "marks")]
    pub fn watermarks(mut self, low: usize, high: usize) -> Self {
        self.marks = Some(Marks { low, high });
        self
    }

    /// Names the event that the wheel sends when a `put` has brought the output to the high mark.
    ///
    /// The event comes when the running state has returned. [`ReadWrite::put`] returns the same news at once.
    ///
    /// POE: `HighEvent`, which POE hardly ever sends.
    #[doc(alias = "HighEvent")]
    pub fn on_high(mut self, event: impl Into<Name>) -> Self {
        self.output_events.marks.high = Some(event.into());
        self
    }

    /// Names the event that the wheel sends when the output has reached the high mark and then drained to the low mark.
    ///
    /// POE: `LowEvent`.
    #[doc(alias = "LowEvent")]
    pub fn on_low(mut self, event: impl Into<Name>) -> Self {
        self.output_events.marks.low = Some(event.into());
        self
    }

    /// Pauses the input from when the output reaches the high mark until it has drained to the low mark. This protects
    /// an echo server, or any server that answers each request with one reply, from a peer that sends and does not
    /// read.
    ///
    /// POE: nothing like it.
    pub fn auto_pause(mut self) -> Self {
        self.settings.auto_pause = true;
        self
    }

    /// Makes a [`put`](ReadWrite::put) into an empty buffer write at once, inside `put`. This is for states that work
    /// long after a `put`. Otherwise the wheel writes when the state has returned.
    ///
    /// POE: `AutoFlush`. There the flushed event may come before `put` returns. Here it comes when the state has
    /// returned.
    #[doc(alias = "AutoFlush")]
    pub fn auto_flush(mut self) -> Self {
        self.auto_flush = true;
        self
    }

    /// Delivers an unfinished last record at the end of file, in an input event before the error event. The filter must
    /// support it ([`Filter::get_last`]). Otherwise the bytes stay in the filter, and [`ReadWrite::get_pending`]
    /// returns them.
    ///
    /// POE: nothing like it.
    pub fn deliver_last(mut self) -> Self {
        self.settings.delivers_last = true;
        self
    }

    /// Sets how many bytes one read takes at most. A wheel reads once in its turn, and delivers all records of that
    /// block before other wheels get their turns. Default: 65536. Minimum: 1.
    ///
    /// POE: `BlockSize` of `POE::Driver::SysRW`, the only driver.
    #[doc(alias = "BlockSize")]
    #[doc(alias = "Driver")]
    pub fn block_size(mut self, octets: usize) -> Self {
        self.settings.block_size = octets;
        self
    }

    /// Sets how long [`close_after_flush`](ReadWrite::close_after_flush) waits for the peer to close its side, after
    /// everything is written. Zero means that it does not wait. Default: 2 s.
    ///
    /// POE: nothing like it.
    #[doc(alias = "linger")]
    pub fn close_timeout(mut self, span: Duration) -> Self {
        self.close_timeout = span;
        self
    }

    /// Sets how long, after [`close_after_flush`](ReadWrite::close_after_flush), the wheel waits for a peer that takes
    /// none of the waiting output. Then the wheel closes and discards the rest. Default: 1 min.
    ///
    /// The wheel checks once per such span, so a peer that takes some and then stops has up to twice as long. A slow
    /// peer that keeps reading has as long as it needs. A wheel with two descriptors waits without a limit, because its
    /// output may be a terminal, or a program that was stopped for a while.
    ///
    /// POE: nothing like it.
    #[doc(alias = "patience")]
    pub fn write_timeout(mut self, span: Duration) -> Self {
        self.write_timeout = span;
        self
    }

    /// Lets a forked child keep the stream. Without this call a child closes its copy, so that the peer sees the end
    /// when the parent closes the stream. The child forgets what the parent has read but not delivered, and put but not
    /// written. The child's copy of a [`Transport`](crate::wheel::Transport) has what the parent's held at the fork.
    pub fn keep_after_fork(mut self) -> Self {
        self.after_fork = AfterFork::Keep;
        self
    }

    /// Makes the descriptors non-blocking and starts the wheel for the running session.
    ///
    /// Non-blocking is a property of the open file. A terminal or an inherited pipe may share that file with other
    /// processes.
    ///
    /// # Errors
    ///
    /// After an error the descriptors are closed.
    ///
    /// - [`Error::InvalidSetting`] if the marks are not `0 < low < high`, if there are marks without
    ///   [`on_low`](Self::on_low) and [`auto_pause`](Self::auto_pause), if there are no marks for a setting that needs
    ///   them, if the block size is 0, or for a datagram socket, such as a `UdpSocket`
    /// - [`Error::Os`] if a descriptor can't be made non-blocking
    /// - [`Error::NoActiveSession`] once the session has stopped
    ///
    /// POE: `new`.
    pub fn start(self, cx: &mut impl InState) -> Result<ReadWrite<I, O>, Error> {
        let core = core_of(cx);
        let owner = core.running()?;
        self.check()?;
        self.input.with_fd(prepare)?;
        self.output.as_ref().map_or(Ok(()), |output| prepare(output.as_fd()))?;
        core.sources.read_at_most(self.settings.block_size);
        let base = Base {
            id: WheelId::next(),
            owner,
            name: Name::new("ReadWrite"),
            on_error: Cell::new(self.on_error),
            refusals: Refusals::new(self.on_refused),
            after_fork: self.after_fork,
            closing: Cell::new(false),
        };
        let filter = Rc::new(RefCell::new(self.input_filter));
        let mailbox = core.mailbox();
        let reader = Reader::new(Inbox::new(base.id, filter.clone()), self.on_input, self.settings);
        let outbox = Outbox::new(self.output_events, self.marks);
        let opening = Opening::new(self.on_ready, self.handshake_timeout);
        let closing = Closing::new(self.close_timeout, self.write_timeout);
        let make = |key, output_port| {
            let is_over_transport = self.input.is_own();
            let port = Port::new(self.input, key, mailbox.clone());
            Rc::new(State {
                base,
                is_over_transport,
                port,
                output_port,
                reader,
                outbox,
                auto_flush: self.auto_flush,
                opening,
                closing,
            })
        };
        let state = match self.output {
            None => add(core, owner, |key| {
                let state = make(key, None);
                (state.clone(), state)
            })?,
            Some(output) => {
                let state = add(core, owner, |key| {
                    let state = make(key, Some(Port::new(Stream::new(output), key, mailbox.clone())));
                    (Rc::new(OutputEnd(state.clone())), state)
                })?;
                let added = add(core, owner, |key| {
                    state.port.key.set(key);
                    (Rc::new(InputEnd(state.clone())), ())
                });
                added.inspect_err(|_| state.output_port().drop_later())?;
                state
            }
        };
        // Tries the first read without the poller. A peer that has just connected has often sent data already, and a
        // wheel that is done by then need not be registered with the poller. A transport may have to begin a handshake.
        if self.on_input.is_some() || state.is_over_transport {
            state.port.wake();
        }
        Ok(ReadWrite { state: Owned(state), input: filter, output: RefCell::new(self.output_filter) })
    }

    fn check(&self) -> Result<(), Error> {
        if self.settings.block_size == 0 {
            return Err(Error::InvalidSetting { setting: "block_size", reason: "must be at least 1" });
        }
        self.output_events.marks.check(self.marks, self.settings.auto_pause)
    }
}

/// Checks that a wheel can work with a descriptor, and makes it non-blocking.
fn prepare(fd: BorrowedFd<'_>) -> Result<(), Error> {
    check_is_stream(fd)?;
    set_nonblocking(fd).map_err(|error| Error::os("fcntl", format_args!("descriptor {}", fd.as_raw_fd()), error))
}

/// Adds a source, and returns the second value that `make` returns.
fn add<S: Source + 'static, T>(
    core: &mut Core,
    owner: SessionId,
    make: impl FnOnce(SourceKey) -> (Rc<S>, T),
) -> Result<T, Error> {
    let mut made = None;
    core.add_source(owner, |key| {
        let (source, rest) = make(key);
        made = Some(rest);
        source
    })?;
    Ok(made.expect("add_source has made it"))
}

/// Default for `block_size`.
const BLOCK_SIZE: usize = 64 * 1024;

/// Default for `close_timeout`: enough for the system to retransmit once or twice.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Default for `write_timeout`.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

//! `ReadWrite`: records in, records out, over one descriptor.

use std::borrow::Borrow;
use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use nix::errno::Errno;

use super::{WheelId, error_args};
use crate::args::{Args, IntoArgs};
use crate::error::Error;
use crate::filter::{Filter, FilterError};
use crate::kernel::{AfterFork, Core, Kernel, Mailbox, Mode, SessionId, Source, SourceKey, Wanted, set_nonblocking};
use crate::name::Name;

/// A wheel that reads records from a stream and writes records to it, with a [`Filter`] between records and bytes.
///
/// The input event gets ARG0 = the record, ARG1 = the [`WheelId`]; the flushed event ARG0 = the [`WheelId`]; the error
/// event is described in the [module's documentation](super).
///
/// An end of file is an error event, after which the wheel can still write: the peer may have closed only its own half.
/// The wheel, and with it the session, stays until it is dropped. Dropping it discards what was not written yet;
/// [`close_after_flush`](ReadWrite::close_after_flush) doesn't.
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
///             let wheel = ReadWrite::new(end, Line::new()).on_input("input").start(cx)?;
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
/// POE: `POE::Wheel::ReadWrite`.
pub struct ReadWrite<F: Filter>(Rc<State<F>>);

/// Says how a [`ReadWrite`] is to work; made by [`ReadWrite::new`].
#[must_use = "does nothing until it is started"]
pub struct ReadWriteBuilder<F: Filter> {
    fd: OwnedFd,
    filter: F,
    on_input: Option<Name>,
    on_flushed: Option<Name>,
    on_error: Option<Name>,
    after_fork: AfterFork,
}

impl<F: Filter> ReadWrite<F> {
    /// Begins a wheel on a socket, pipe or terminal, which it takes over. Output gets a filter with the same settings.
    #[allow(clippy::new_ret_no_self, reason = "POE's constructor takes its parameters by name")]
    pub fn new(stream: impl Into<OwnedFd>, filter: F) -> ReadWriteBuilder<F> {
        ReadWriteBuilder {
            fd: stream.into(),
            filter,
            on_input: None,
            on_flushed: None,
            on_error: None,
            after_fork: AfterFork::Close,
        }
    }

    /// Returns the id that its events carry.
    ///
    /// POE: `ID`.
    pub fn id(&self) -> WheelId {
        self.0.id
    }

    /// Appends a record to the output. It is written once the running state has returned, together with whatever else
    /// was put by then.
    ///
    /// A record that the filter refuses is an error event, `"filter"`. After the wheel's descriptor was closed, by its
    /// session's end or in a forked child, it does nothing.
    ///
    /// POE: `put`.
    pub fn put<R: Borrow<F::Output>>(&self, record: R) {
        let state = &*self.0;
        if !state.open.get() {
            return;
        }
        let done = state.output_filter.borrow_mut().put(record.borrow(), &mut state.output.borrow_mut().bytes);
        if let Err(error) = done {
            state.refused.borrow_mut().push(error);
        }
        state.mark_dirty();
    }

    /// Returns how many octets wait to be written.
    ///
    /// POE: `get_driver_out_octets`.
    #[doc(alias = "get_driver_out_octets")]
    pub fn driver_out_octets(&self) -> usize {
        self.0.output.borrow().len()
    }

    /// Stops reading and delivering until [`resume_input`](ReadWrite::resume_input), at once: records that were read
    /// already wait.
    ///
    /// POE: `pause_input`.
    pub fn pause_input(&self) {
        self.0.paused.set(true);
    }

    /// Goes on reading and delivering.
    ///
    /// POE: `resume_input`.
    pub fn resume_input(&self) {
        if self.0.paused.replace(false) {
            self.0.mailbox.woken(self.0.key.get());
        }
    }

    /// Lets go of the wheel: it closes by itself as soon as everything put so far is written, or can't be.
    ///
    /// No more input is delivered. The session stays alive until then.
    ///
    /// POE: nothing like it; dropping the wheel in its FlushedEvent.
    pub fn close_after_flush(self) {
        if self.0.open.get() && !self.0.output_failed.get() && self.driver_out_octets() > 0 {
            self.0.lingering.set(true);
            self.0.mark_dirty();
        }
    }
}

impl<F: Filter> Drop for ReadWrite<F> {
    fn drop(&mut self) {
        if !self.0.lingering.get() && self.0.open.replace(false) {
            self.0.mailbox.dropped(self.0.key.get());
        }
    }
}

impl<F: Filter> ReadWriteBuilder<F> {
    /// Names the event for each record; without one, nothing is read, and an end of file goes unnoticed.
    ///
    /// POE: `InputEvent`.
    #[doc(alias = "InputEvent")]
    pub fn on_input(mut self, event: impl Into<Name>) -> Self {
        self.on_input = Some(event.into());
        self
    }

    /// Names the event that is sent whenever everything put has been written.
    ///
    /// POE: `FlushedEvent`.
    #[doc(alias = "FlushedEvent")]
    pub fn on_flushed(mut self, event: impl Into<Name>) -> Self {
        self.on_flushed = Some(event.into());
        self
    }

    /// Names the event for errors and for the end of file; without one, they pass in silence.
    ///
    /// POE: `ErrorEvent`.
    #[doc(alias = "ErrorEvent")]
    pub fn on_error(mut self, event: impl Into<Name>) -> Self {
        self.on_error = Some(event.into());
        self
    }

    /// Lets a forked child keep the stream; usually it belongs to the process that opened it alone, so that the peer
    /// sees the end when that process closes it. What the parent has read but not delivered is the parent's to deliver,
    /// and what it has put but not written is the parent's to write.
    pub fn keep_after_fork(mut self) -> Self {
        self.after_fork = AfterFork::Keep;
        self
    }

    /// Makes the descriptor non-blocking and starts the wheel for the running session.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] when the descriptor can't be made non-blocking; [`Error::NoActiveSession`] outside of any state. The
    /// descriptor is closed then.
    ///
    /// POE: `new`.
    pub fn start(self, core: &mut Core) -> Result<ReadWrite<F>, Error> {
        let owner = core.session();
        if owner == SessionId::KERNEL {
            return Err(Error::NoActiveSession);
        }
        let fd = self.fd.as_raw_fd();
        set_nonblocking(&self.fd).map_err(|error| Error::os("fcntl", format_args!("descriptor {fd}"), error))?;
        let mailbox = core.mailbox();
        let make = |key| {
            Rc::new(State {
                id: WheelId::next(),
                owner,
                key: Cell::new(key),
                mailbox: mailbox.clone(),
                output_filter: RefCell::new(self.filter.clone_config()),
                input_filter: RefCell::new(self.filter),
                fd: RefCell::new(Some(self.fd)),
                output: RefCell::default(),
                refused: RefCell::default(),
                on_input: self.on_input,
                on_flushed: self.on_flushed,
                on_error: self.on_error,
                after_fork: self.after_fork,
                open: Cell::new(true),
                dirty: Cell::new(false),
                paused: Cell::new(false),
                lingering: Cell::new(false),
                watching: Cell::new(false),
                blocked: Cell::new(false),
                read_closed: Cell::new(false),
                input_ended: Cell::new(false),
                output_failed: Cell::new(false),
            })
        };
        let mut state = None;
        let key = core.add_source(owner, |key| state.insert(make(key)).clone())?;
        // The first read is tried without asking the poller: a peer that has just connected has often sent already,
        // and a wheel that is done by then was never registered at all.
        if self.on_input.is_some() {
            mailbox.woken(key);
        }
        Ok(ReadWrite(state.expect("add_source has made it")))
    }
}

/// What the wheel shares with the kernel. No borrow lasts while a state runs.
struct State<F: Filter> {
    id: WheelId,
    owner: SessionId,
    key: Cell<SourceKey>,
    mailbox: Rc<Mailbox>,
    input_filter: RefCell<F>,
    output_filter: RefCell<F>,
    fd: RefCell<Option<OwnedFd>>,
    output: RefCell<Output>,
    /// Records that the output filter refused, for the error event.
    refused: RefCell<Vec<FilterError>>,
    on_input: Option<Name>,
    on_flushed: Option<Name>,
    on_error: Option<Name>,
    after_fork: AfterFork,
    /// Neither dropped nor closed.
    open: Cell<bool>,
    /// It stands on the list of wheels to be flushed.
    dirty: Cell<bool>,
    paused: Cell<bool>,
    /// The handle is gone, the output isn't.
    lingering: Cell<bool>,
    /// The poller is wanted, as the descriptor has refused to give or take more.
    watching: Cell<bool>,
    /// The descriptor takes no more for now; the poller will say when it does.
    blocked: Cell<bool>,
    /// The poller has seen the end of the input, so a short read is not the last.
    read_closed: Cell<bool>,
    input_ended: Cell<bool>,
    output_failed: Cell<bool>,
}

/// Octets to be written, from `start` on.
#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    start: usize,
}

impl Output {
    fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.start = 0;
        // What one slow reader piled up is not kept for ever.
        self.bytes.shrink_to(KEPT_OUTPUT);
    }
}

/// How much memory an empty output buffer keeps.
const KEPT_OUTPUT: usize = 64 * 1024;

/// What one read has come to.
enum Input {
    Some { may_be_more: bool },
    Nothing,
    End,
    Failed(io::Error),
}

impl<F: Filter> State<F> {
    fn mark_dirty(&self) {
        if !self.dirty.replace(true) {
            self.mailbox.dirty(self.key.get());
        }
    }

    fn can_deliver(&self) -> bool {
        self.open.get() && !self.paused.get() && !self.lingering.get()
    }

    /// Reads and delivers: one chunk for each turn, all of its records.
    fn read_some(&self, kernel: &mut Kernel, key: SourceKey) {
        // An error on the descriptor is reported as readiness for both, whatever was asked for.
        if self.on_input.is_none() {
            return;
        }
        // What an earlier turn could not deliver comes first.
        if !self.deliver(kernel, key) {
            return;
        }
        // Ends with the first read that fills the buffer, finds nothing, or finds the end; a peer that has closed
        // can't send more than the system holds for it.
        while !self.input_ended.get() {
            match self.read_chunk(kernel) {
                Input::Some { may_be_more } => {
                    if !self.deliver(kernel, key) {
                        return;
                    }
                    if may_be_more {
                        return kernel.core.sources.requeue(key, Mode::Read);
                    }
                    if !self.read_closed.get() {
                        return self.watch();
                    }
                }
                Input::Nothing => return self.watch(),
                Input::End => {
                    // Before the session hears of it, and drops the wheel: what it has put is to go out first.
                    self.write_some(kernel, key);
                    self.input_ended.set(true);
                    self.watch();
                    return self.report(kernel, ("read", 0_i32, String::new(), self.id).into_args());
                }
                Input::Failed(error) => {
                    self.input_ended.set(true);
                    self.watch();
                    return self.report(kernel, error_args("read", &error, self.id));
                }
            }
        }
    }

    fn watch(&self) {
        if !self.watching.replace(true) {
            self.mailbox.changed(self.key.get());
        }
    }

    /// Reads once, into the filter.
    fn read_chunk(&self, kernel: &mut Kernel) -> Input {
        let buffer = &mut kernel.core.sources.read_buffer;
        let fd = self.fd.borrow();
        let Some(fd) = &*fd else { return Input::Nothing };
        let count = loop {
            match nix::unistd::read(fd, buffer) {
                Ok(0) => return Input::End,
                Ok(count) => break count,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Input::Nothing,
                Err(errno) => return Input::Failed(errno.into()),
            }
        };
        let mut filter = self.input_filter.borrow_mut();
        if let Err(error) = filter.get_one_start(&buffer[..count]) {
            self.refused.borrow_mut().push(error);
            // The filter has given up what did not fit, and takes the chunk at the second offer.
            if let Err(error) = filter.get_one_start(&buffer[..count]) {
                self.refused.borrow_mut().push(error);
            }
        }
        Input::Some { may_be_more: count == buffer.len() }
    }

    /// Sends the records that are complete, one event each. Returns whether it came to their end: not if the wheel
    /// was dropped or paused, or a state failed; what is left is then delivered later, if ever.
    fn deliver(&self, kernel: &mut Kernel, key: SourceKey) -> bool {
        let Some(event) = self.on_input else { return true };
        let forked = kernel.core.forked;
        loop {
            if self.can_deliver() {
                self.report_refused(kernel);
            }
            // Asked last: any state may have dropped or paused the wheel; and in a child that was forked meanwhile, this
            // turn is the parent's.
            if !self.can_deliver() || kernel.core.forked != forked {
                return false;
            }
            let record = self.input_filter.borrow_mut().get_one();
            match record {
                Ok(None) => return true,
                Ok(Some(record)) => {
                    let args = (record, self.id).into_args();
                    if !kernel.dispatch_from_source(self.owner, event, Some(Name::new("ReadWrite")), args) {
                        kernel.core.sources.requeue(key, Mode::Read);
                        return false;
                    }
                }
                Err(error) => self.refused.borrow_mut().push(error),
            }
        }
    }

    fn report_refused(&self, kernel: &mut Kernel) {
        for error in self.refused.take() {
            let args = ("filter", Errno::EBADMSG as i32, error.to_string(), self.id).into_args();
            self.report(kernel, args);
        }
    }

    fn report(&self, kernel: &mut Kernel, args: Args) {
        if let (Some(event), true) = (self.on_error, self.open.get() && !self.lingering.get()) {
            kernel.dispatch_from_source(self.owner, event, Some(Name::new("ReadWrite")), args);
        }
    }

    /// Writes as much as the descriptor takes.
    fn write_some(&self, kernel: &mut Kernel, key: SourceKey) {
        self.dirty.set(false);
        self.report_refused(kernel);
        if self.output.borrow().len() == 0 || self.blocked.get() || self.output_failed.get() {
            return;
        }
        match self.write_output() {
            Ok(()) => self.flushed(kernel, key),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.blocked.set(true);
                self.watching.set(true);
                self.mailbox.changed(key);
            }
            Err(error) => {
                self.output_failed.set(true);
                if self.lingering.get() {
                    return kernel.core.remove_source(key);
                }
                self.report(kernel, error_args("write", &error, self.id));
            }
        }
    }

    fn write_output(&self) -> io::Result<()> {
        let fd = self.fd.borrow();
        let Some(fd) = &*fd else { return Ok(()) };
        let mut output = self.output.borrow_mut();
        while output.len() > 0 {
            match nix::unistd::write(fd, &output.bytes[output.start..]) {
                Ok(count) => output.start += count,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        output.clear();
        Ok(())
    }

    fn flushed(&self, kernel: &mut Kernel, key: SourceKey) {
        if self.lingering.get() {
            return kernel.core.remove_source(key);
        }
        if let Some(event) = self.on_flushed {
            kernel.dispatch_from_source(self.owner, event, Some(Name::new("ReadWrite")), (self.id,).into_args());
        }
    }
}

impl<F: Filter> Source for State<F> {
    fn fd(&self) -> RawFd {
        self.fd.borrow().as_ref().map_or(-1, |fd| fd.as_raw_fd())
    }

    /// Reading is asked for once and for all; edge triggering makes it free. Writing is asked for from the first time
    /// that the descriptor would not take everything.
    fn wanted(&self) -> Option<Wanted> {
        if !self.watching.get() {
            return None;
        }
        Wanted::of(self.on_input.is_some(), self.blocked.get())
    }

    fn turn(self: Rc<Self>, kernel: &mut Kernel, key: SourceKey, mode: Mode) {
        match mode {
            Mode::Read => self.read_some(kernel, key),
            Mode::Write => {
                self.blocked.set(false);
                self.write_some(kernel, key);
            }
        }
    }

    fn flush(self: Rc<Self>, kernel: &mut Kernel, key: SourceKey) {
        self.write_some(kernel, key);
    }

    fn read_closed(&self) {
        self.read_closed.set(true);
    }

    fn close(&self) {
        self.open.set(false);
        self.lingering.set(false);
        self.fd.take();
        self.output.take();
    }

    fn fork(&self) -> AfterFork {
        // A wheel whose handle is gone is there for its output alone, and that is the parent's to write.
        if self.after_fork == AfterFork::Close || self.lingering.get() {
            return AfterFork::Close;
        }
        self.output.borrow_mut().clear();
        self.dirty.set(false);
        self.refused.take();
        let empty = self.input_filter.borrow().clone_config();
        self.input_filter.replace(empty);
        // The poller may not have been asked yet, or its answer may have been on the list that the child has not got.
        self.watching.set(true);
        AfterFork::Keep
    }

    fn describe(&self) -> String {
        let event = self.on_input.map_or("nothing", Name::as_str);
        let mut text = format!("ReadWrite ({}) -> {event}", self.id);
        let waiting = self.output.borrow().len();
        if waiting > 0 {
            text += &format!(", {waiting} octets to write");
        }
        for (flag, word) in
            [(&self.paused, "paused"), (&self.input_ended, "at end of file"), (&self.lingering, "closing")]
        {
            if flag.get() {
                text += ", ";
                text += word;
            }
        }
        text
    }
}

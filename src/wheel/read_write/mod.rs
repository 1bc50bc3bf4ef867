//! `ReadWrite`: records in, records out, over one descriptor.

use std::borrow::Borrow;
use std::cell::{Cell, RefCell};
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use super::WheelId;
use crate::error::Error;
use crate::filter::Filter;
use crate::kernel::{AfterFork, Core, SessionId, set_nonblocking};
use crate::name::Name;

mod output;
mod state;

use state::State;

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
    /// No more input is delivered; what a socket has received by then is discarded, as the system would answer unread
    /// input with a reset, which costs the peer the end of the output. The session stays alive until then.
    ///
    /// POE: nothing like it; dropping the wheel in its FlushedEvent.
    pub fn close_after_flush(self) {
        if self.0.open.get() && !self.0.output_failed.get() && self.driver_out_octets() > 0 {
            self.0.lingering.set(true);
            self.0.mark_dirty();
        } else {
            self.0.discard_input();
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
                name: Name::new("ReadWrite"),
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
                has_rest: Cell::new(false),
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

//! What a `ReadWrite` shares with the kernel: reading and delivering, writing, and what the poller is asked for.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use super::output::Output;
use crate::args::{Args, IntoArgs};
use crate::filter::{Filter, FilterError};
use crate::kernel::{AfterFork, Kernel, Mailbox, Mode, SessionId, Source, SourceKey, Wanted};
use crate::name::Name;
use crate::wheel::{WheelId, error_args};

/// What the wheel shares with the kernel. No borrow lasts while a state runs.
pub(super) struct State<F: Filter> {
    pub(super) id: WheelId,
    pub(super) owner: SessionId,
    /// What its events say they were sent from.
    pub(super) name: Name,
    pub(super) key: Cell<SourceKey>,
    pub(super) mailbox: Rc<Mailbox>,
    pub(super) input_filter: RefCell<F>,
    pub(super) output_filter: RefCell<F>,
    pub(super) fd: RefCell<Option<OwnedFd>>,
    pub(super) output: RefCell<Output>,
    /// Records that the output filter refused, for the error event.
    pub(super) refused: RefCell<Vec<FilterError>>,
    pub(super) on_input: Option<Name>,
    pub(super) on_flushed: Option<Name>,
    pub(super) on_error: Option<Name>,
    pub(super) after_fork: AfterFork,
    /// Neither dropped nor closed.
    pub(super) open: Cell<bool>,
    /// It stands on the list of wheels to be flushed.
    pub(super) dirty: Cell<bool>,
    pub(super) paused: Cell<bool>,
    /// Records may be left in the filter, as their delivery was interrupted.
    pub(super) has_rest: Cell<bool>,
    /// The handle is gone, the output isn't.
    pub(super) lingering: Cell<bool>,
    /// The poller is wanted, as the descriptor has refused to give or take more.
    pub(super) watching: Cell<bool>,
    /// The descriptor takes no more for now; the poller will say when it does.
    pub(super) blocked: Cell<bool>,
    /// The poller has seen the end of the input, so a short read is not the last.
    pub(super) read_closed: Cell<bool>,
    pub(super) input_ended: Cell<bool>,
    pub(super) output_failed: Cell<bool>,
}

/// What one read has come to.
enum Input {
    Some { may_be_more: bool },
    Nothing,
    End,
    Failed(io::Error),
}

impl<F: Filter> State<F> {
    /// Asks for a flush once the running state has returned.
    pub(super) fn mark_dirty(&self) {
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
        if !self.can_deliver() || self.has_rest.get() && !self.deliver(kernel, key) {
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
        self.has_rest.set(true);
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
                Ok(None) => {
                    self.has_rest.set(false);
                    return true;
                }
                Ok(Some(record)) => {
                    let args = (record, self.id).into_args();
                    if !kernel.dispatch_from_source(self.owner, event, Some(self.name), args) {
                        kernel.core.sources.requeue(key, Mode::Read);
                        return false;
                    }
                }
                Err(error) => self.refused.borrow_mut().push(error),
            }
        }
    }

    fn report_refused(&self, kernel: &mut Kernel) {
        if self.refused.borrow().is_empty() {
            return;
        }
        for error in self.refused.take() {
            let args = ("filter", Errno::EBADMSG as i32, error.to_string(), self.id).into_args();
            self.report(kernel, args);
        }
    }

    fn report(&self, kernel: &mut Kernel, args: Args) {
        if let (Some(event), true) = (self.on_error, self.open.get() && !self.lingering.get()) {
            kernel.dispatch_from_source(self.owner, event, Some(self.name), args);
        }
    }

    /// Writes as much as the descriptor takes.
    fn write_some(&self, kernel: &mut Kernel, key: SourceKey) {
        self.dirty.set(false);
        self.report_refused(kernel);
        if self.output.borrow().len() == 0 || self.blocked.get() || self.output_failed.get() {
            return;
        }
        let written = self.fd.borrow().as_ref().map_or(Ok(()), |fd| self.output.borrow_mut().write_to(fd));
        match written {
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

    /// Takes out what the peer has sent and nobody will read. A TCP socket that is closed with input left in it is reset,
    /// and the peer loses what is still on its way to it.
    pub(super) fn discard_input(&self) {
        let mut scratch = [0; 16 * 1024];
        let fd = self.fd.borrow();
        let Some(fd) = &*fd else { return };
        // Bounded, for a peer that sends without end. What is no socket refuses, and needs no such care.
        for _ in 0..DISCARDS {
            match recv(fd.as_raw_fd(), &mut scratch, MsgFlags::MSG_DONTWAIT) {
                Ok(1..) | Err(Errno::EINTR) => {}
                Ok(0) | Err(_) => return,
            }
        }
    }

    fn flushed(&self, kernel: &mut Kernel, key: SourceKey) {
        if self.lingering.get() {
            self.discard_input();
            return kernel.core.remove_source(key);
        }
        if let Some(event) = self.on_flushed {
            kernel.dispatch_from_source(self.owner, event, Some(self.name), (self.id,).into_args());
        }
    }
}

/// How many reads a wheel that closes spends on unread input: more than any receive buffer holds by default.
const DISCARDS: usize = 512;

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
        Wanted::of(self.on_input.is_some(), self.blocked.get(), false)
    }

    fn turn(self: Rc<Self>, kernel: &mut Kernel, key: SourceKey, mode: Mode) {
        match mode {
            Mode::Read => self.read_some(kernel, key),
            Mode::Write => {
                self.blocked.set(false);
                self.write_some(kernel, key);
            }
            Mode::Expedite => {}
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

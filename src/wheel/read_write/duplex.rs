//! Both directions of a wheel on one descriptor, and how that is closed without a loss.

use std::cell::Cell;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, recv, shutdown};

use super::reader::Reader;
use super::writer::Writer;
use crate::kernel::{AfterFork, Due, Kernel, Mode, Source, SourceKey, Wanted, nanos};

/// A reader and a writer that share a port.
pub(crate) struct Duplex {
    reader: Rc<Reader>,
    writer: Rc<Writer>,
    /// How long the wheel waits for the peer to close after it has closed its own side.
    linger: Duration,
    /// How long the wheel that closes waits for a peer that takes nothing.
    patience: Duration,
    /// The handle is gone and output waits: when to look again, and how much waited the last time.
    next_look: Cell<Option<(Due, usize)>>,
    /// Everything is written, and that is how long the peer has still got.
    last_call: Cell<Option<Due>>,
}

/// What a look at unread input has found.
enum Unread {
    Nothing,
    More,
    Ended,
}

impl Duplex {
    pub(crate) fn new(reader: Rc<Reader>, writer: Rc<Writer>, linger: Duration, patience: Duration) -> Duplex {
        Duplex { reader, writer, linger, patience, next_look: Cell::new(None), last_call: Cell::new(None) }
    }

    /// Does what is due once there is nothing more to write, and nothing to read.
    #[inline]
    fn after_turn(&self, kernel: &mut Kernel, key: SourceKey) {
        if self.reader.base.closing.get() || self.writer.is_over() {
            self.end(kernel, key);
        }
    }

    #[cold]
    fn end(&self, kernel: &mut Kernel, key: SourceKey) {
        if self.reader.base.closing.get() {
            kernel.core.fasten_source(key);
            if self.last_call.get().is_none() && (self.writer.is_done() || self.has_waited_to_the_end(kernel, key)) {
                self.begin_to_close(kernel, key);
            }
        } else if self.writer.has_news() {
            // Told at the flush that it is waiting for, which comes back here.
        } else if self.writer.is_over() && self.reader.is_over() {
            self.release(kernel, key);
        } else if self.writer.is_over() && self.reader.is_idle() {
            kernel.core.loosen_source(key);
        } else {
            kernel.core.fasten_source(key);
        }
    }

    /// Waits for the peer to take what waits, unless it has taken nothing for too long: then the wheel is closed. Returns
    /// whether everything is written by now.
    fn has_waited_to_the_end(&self, kernel: &mut Kernel, key: SourceKey) -> bool {
        let now = kernel.core.clock.advance();
        if let Some((due, before)) = self.next_look.get() {
            if now < due {
                return false;
            }
            // The poller keeps quiet until there is much room, and a slow peer may have made a little.
            self.writer.unblock();
            self.writer.write_some(kernel, key);
            if self.writer.is_done() {
                return true;
            }
            if self.writer.output.borrow().len() >= before {
                kernel.core.remove_source(key);
                return false;
            }
        }
        let waiting = self.writer.output.borrow().len();
        self.next_look.set(Some((now.saturating_add(nanos(self.patience)), waiting)));
        kernel.core.wake_source_after(key, self.patience);
        false
    }

    /// Stops keeping the session for what can't do anything any more. The descriptor stays open as long as the wheel.
    fn release(&self, kernel: &mut Kernel, key: SourceKey) {
        let output = self.writer.output.take();
        let stream = kernel.core.release_source(key, || self.reader.port.stream.take());
        self.reader.port.stream.replace(stream);
        self.writer.output.replace(output);
    }

    /// Closes this side, and gives the peer time to read to the end. A TCP socket that is closed with input left in it, or
    /// that gets more afterwards, is reset, and then the peer loses what is still on its way to it.
    fn begin_to_close(&self, kernel: &mut Kernel, key: SourceKey) {
        let is_needless = self.reader.ended.get() || self.writer.has_failed() || self.linger.is_zero();
        if is_needless || !self.shut_down_output() {
            self.discard();
            return kernel.core.remove_source(key);
        }
        self.last_call.set(Some(kernel.core.clock.advance().saturating_add(nanos(self.linger))));
        // Not an alarm of its own: it has to go with the source, whatever ends that.
        kernel.core.wake_source_after(key, self.linger);
        self.wait_for_the_end(kernel, key);
    }

    /// Tells whether the peer will notice: what is no socket, or lost its peer, has none that does.
    fn shut_down_output(&self) -> bool {
        let stream = self.writer.port.stream.borrow();
        stream.as_ref().is_some_and(|stream| shutdown(stream.as_raw_fd(), Shutdown::Write).is_ok())
    }

    /// Reads what nobody wants until the peer has closed, too, or its time is up.
    fn wait_for_the_end(&self, kernel: &mut Kernel, key: SourceKey) {
        let Some(last_call) = self.last_call.get() else { return };
        let is_late = kernel.core.clock.advance() >= last_call;
        match self.discard() {
            Unread::Ended => {}
            _ if is_late => {}
            Unread::More => return kernel.core.sources.requeue(key, Mode::Read),
            Unread::Nothing => {
                self.reader.port.is_watched.set(true);
                return self.reader.port.changed();
            }
        }
        kernel.core.remove_source(key);
    }

    /// Takes out what the peer has sent and nobody will read.
    fn discard(&self) -> Unread {
        let mut scratch = [0; 16 * 1024];
        let stream = self.reader.port.stream.borrow();
        let Some(stream) = &*stream else { return Unread::Ended };
        // Bounded, for a peer that sends without end. What is no socket refuses, and needs no such care.
        for _ in 0..DISCARDS_PER_TURN {
            match recv(stream.as_raw_fd(), &mut scratch, MsgFlags::MSG_DONTWAIT) {
                Ok(1..) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Unread::Nothing,
                Ok(0) | Err(_) => return Unread::Ended,
            }
        }
        Unread::More
    }
}

impl Source for Duplex {
    fn fd(&self) -> RawFd {
        self.reader.port.raw_fd()
    }

    /// Reading is asked for once and for all; edge triggering makes it free. Writing is asked for from the first time
    /// that the descriptor would not take everything.
    fn wanted(&self) -> Option<Wanted> {
        if !self.reader.port.is_watched.get() {
            return None;
        }
        Wanted::of_stream(self.reader.is_wanted() || self.last_call.get().is_some(), self.writer.is_blocked())
    }

    fn turn(self: Rc<Self>, kernel: &mut Kernel, key: SourceKey, mode: Mode) {
        match mode {
            Mode::Read if self.last_call.get().is_some() => return self.wait_for_the_end(kernel, key),
            Mode::Read => self.reader.read_some(kernel, key),
            Mode::Write => {
                self.writer.unblock();
                self.writer.write_some(kernel, key);
            }
            Mode::Expedite => {}
        }
        self.after_turn(kernel, key);
    }

    fn flush(self: Rc<Self>, kernel: &mut Kernel, key: SourceKey) {
        self.writer.write_some(kernel, key);
        self.after_turn(kernel, key);
    }

    fn short_reads(&self) {
        self.reader.note_short_reads();
    }

    fn close(&self) {
        self.writer.port.close();
        self.writer.discard();
    }

    fn fork(&self) -> AfterFork {
        match self.writer.fork() {
            AfterFork::Keep if !self.reader.forget() => AfterFork::Close,
            fate => fate,
        }
    }

    fn describe(&self) -> String {
        self.reader.describe() + &self.writer.describe()
    }
}

/// How many reads one turn spends on unread input: more than any receive buffer holds by default.
const DISCARDS_PER_TURN: usize = 512;

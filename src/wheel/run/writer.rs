//! What the child reads: records on their way from the session to its standard input.

use std::borrow::Borrow;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::socket::{Shutdown, shutdown};

use super::{Conduit, STDIN, Shared};
use crate::args::IntoArgs;
use crate::filter::{Filter, FilterError};
use crate::kernel::{AfterFork, Kernel, Mode, Source, SourceKey, Wanted};

/// The parent's end of the child's standard input.
pub(super) struct Writer<F: Filter> {
    pub(super) shared: Rc<Shared>,
    pub(super) key: SourceKey,
    pub(super) filter: RefCell<F>,
    pub(super) fd: RefCell<Option<OwnedFd>>,
    pub(super) output: RefCell<Output>,
    /// Records that the filter refused, for the error event.
    pub(super) refused: RefCell<Vec<FilterError>>,
    /// It stands on the list of wheels to be flushed.
    pub(super) dirty: Cell<bool>,
    /// The pipe is full; the poller will say when it isn't.
    pub(super) blocked: Cell<bool>,
    pub(super) phase: Cell<Phase>,
}

/// What a writer is there for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// For what was put before, and no more.
    Closing,
    Closed,
}

/// Octets to be written, from `start` on.
#[derive(Default)]
pub(super) struct Output {
    octets: Vec<u8>,
    start: usize,
    /// Where in `octets` each record ends that is not written whole.
    ends: VecDeque<usize>,
}

impl Output {
    pub(super) fn len(&self) -> usize {
        self.octets.len() - self.start
    }

    pub(super) fn records(&self) -> usize {
        self.ends.len()
    }

    /// Notes what was appended as one record. Nothing is none.
    fn end_record(&mut self) {
        if self.ends.back().copied().unwrap_or(self.start) < self.octets.len() {
            self.ends.push_back(self.octets.len());
        }
    }

    /// Writes everything, or as much as `fd` takes: what is left when it fails stays, `WouldBlock` included.
    fn write_to(&mut self, fd: impl AsFd) -> io::Result<()> {
        let done = loop {
            if self.len() == 0 {
                break Ok(());
            }
            match nix::unistd::write(&fd, &self.octets[self.start..]) {
                Ok(count) => self.start += count,
                Err(Errno::EINTR) => {}
                Err(errno) => break Err(errno.into()),
            }
        };
        let whole = self.ends.partition_point(|end| *end <= self.start);
        self.ends.drain(..whole);
        // A child that is slow but never idle must not make the buffer keep all that it has read; what is moved to the
        // front is no more than what was written.
        if self.start >= self.len() {
            self.octets.drain(..self.start);
            self.octets.shrink_to(KEPT);
            self.ends.iter_mut().for_each(|end| *end -= self.start);
            self.start = 0;
        }
        done
    }
}

/// How much memory an empty buffer keeps.
const KEPT: usize = 64 * 1024;

impl<F: Filter> Writer<F> {
    /// Appends a record to the output.
    pub(super) fn put<R: Borrow<F::Output>>(&self, record: R) {
        let mut output = self.output.borrow_mut();
        match self.filter.borrow_mut().put(record.borrow(), &mut output.octets) {
            Ok(()) => output.end_record(),
            Err(error) => self.refused.borrow_mut().push(error),
        }
        self.mark_dirty();
    }

    /// Closes the pipe; what was not written is lost.
    pub(super) fn shut_down(&self) {
        if self.phase.replace(Phase::Closed) != Phase::Closed {
            self.end_socket();
            self.shared.mailbox.dropped(self.key);
        }
    }

    /// Closes the pipe once everything is written.
    pub(super) fn shut_down_after_flush(&self) {
        if self.phase.get() == Phase::Open {
            self.phase.set(Phase::Closing);
            self.mark_dirty();
        }
    }

    /// Tells the child of the end of its input where closing doesn't, as the output has the same socket open.
    fn end_socket(&self) {
        if self.shared.conduit == Conduit::SocketPair
            && let Some(fd) = &*self.fd.borrow()
        {
            // What fails is a pipe, which closing is enough for, or a socket whose other end is gone.
            let _ = shutdown(fd.as_raw_fd(), Shutdown::Write);
        }
    }

    /// Asks for a flush once the running state has returned.
    fn mark_dirty(&self) {
        if !self.dirty.replace(true) {
            self.shared.mailbox.dirty(self.key);
        }
    }

    /// Writes as much as the pipe takes.
    fn write_some(&self, kernel: &mut Kernel, key: SourceKey) {
        self.dirty.set(false);
        for error in self.refused.take() {
            self.shared.report_refused(kernel, &error, STDIN);
        }
        let had = self.output.borrow().len();
        if self.blocked.get() || self.phase.get() == Phase::Closed {
            return;
        }
        let written = self.fd.borrow().as_ref().map_or(Ok(()), |fd| self.output.borrow_mut().write_to(fd));
        match written {
            Ok(()) => {
                if self.phase.get() == Phase::Closing {
                    self.end_socket();
                    kernel.core.remove_source(key);
                }
                if had > 0 {
                    self.shared.send(kernel, self.shared.on_stdin.get(), (self.shared.id,).into_args());
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.blocked.set(true);
                self.shared.mailbox.changed(key);
            }
            Err(error) => {
                kernel.core.remove_source(key);
                self.shared.report(kernel, "write", &error, STDIN);
            }
        }
    }
}

impl<F: Filter> Source for Writer<F> {
    fn fd(&self) -> RawFd {
        self.fd.borrow().as_ref().map_or(-1, |fd| fd.as_raw_fd())
    }

    fn wanted(&self) -> Option<Wanted> {
        Wanted::of(false, self.blocked.get(), false)
    }

    /// Whatever the poller says of it, an error included, writing is how to find out.
    fn turn(self: Rc<Self>, kernel: &mut Kernel, key: SourceKey, _: Mode) {
        if self.blocked.replace(false) {
            self.shared.mailbox.changed(key);
        }
        self.write_some(kernel, key);
    }

    fn flush(self: Rc<Self>, kernel: &mut Kernel, key: SourceKey) {
        self.write_some(kernel, key);
    }

    fn close(&self) {
        self.phase.set(Phase::Closed);
        self.fd.take();
    }

    fn fork(&self) -> AfterFork {
        AfterFork::Close
    }

    fn describe(&self) -> String {
        let waiting = self.output.borrow().len();
        format!("Run ({}) {STDIN} of {}, {waiting} octets to write", self.shared.id, self.shared.describe_process())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::kernel::set_nonblocking;

    #[test] // K-RU-44: octets and records, whatever the pipe takes at a time
    fn what_waits_is_counted_while_it_is_written() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        set_nonblocking(&writer).unwrap();
        let mut output = Output::default();
        let mut put = 0;
        for number in 0..1000_usize {
            output.octets.extend(std::iter::repeat_n(number as u8, 997));
            output.end_record();
            put += 997;
        }
        output.end_record(); // nothing is no record
        let mut seen = Vec::new();
        while output.len() > 0 {
            let _ = output.write_to(&writer);
            let mut chunk = [0; 5000];
            let count = reader.read(&mut chunk).unwrap();
            seen.extend_from_slice(&chunk[..count]);
            let written = put - output.len();
            assert_eq!(output.records(), 1000 - written / 997);
        }
        drop(writer);
        reader.read_to_end(&mut seen).unwrap();
        assert_eq!(seen.len(), put);
        assert!(seen.chunks(997).enumerate().all(|(number, record)| record.iter().all(|octet| *octet == number as u8)));
    }
}

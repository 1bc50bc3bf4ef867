//! What the child reads: records on their way from the session to its standard input.

use std::borrow::Borrow;
use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use nix::sys::socket::{Shutdown, shutdown};

use super::{Conduit, STDIN, Shared};
use crate::args::IntoArgs;
use crate::filter::{Filter, FilterError, put_whole};
use crate::kernel::{AfterFork, Mode, Next, Source, SourceKey, Turn, Wanted};
use crate::name::Name;
use crate::wheel::stream::Stream;
use crate::wheel::stream::marks::{Level, MarkEvents};
use crate::wheel::stream::output::{Output, WRITES_PER_TURN};

/// The parent's end of the child's standard input.
pub(super) struct Writer<F: Filter> {
    pub(super) shared: Rc<Shared>,
    pub(super) key: SourceKey,
    pub(super) filter: RefCell<F>,
    pub(super) fd: RefCell<Option<Stream>>,
    pub(super) output: RefCell<Output>,
    pub(super) level: Level,
    pub(super) mark_events: Cell<MarkEvents>,
    /// Records that the filter refused, for the error event.
    pub(super) refused: RefCell<Vec<FilterError>>,
    /// The pipe is full; the poller will say when it isn't.
    pub(super) blocked: Cell<bool>,
    pub(super) phase: Cell<Phase>,
    /// How much the turn had to write that has closed it, as the program has asked.
    pub(super) last: Cell<usize>,
    /// Why it is closed, if the program has not asked for it.
    pub(super) failure: RefCell<Option<io::Error>>,
}

/// What a writer is there for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// For what was put before, and no more.
    Closing,
    Closed,
}

impl<F: Filter> Writer<F> {
    /// Appends a record to the output, and tells whether the high mark is reached.
    pub(super) fn put<R: Borrow<F::Output>>(&self, record: R) -> bool {
        let mut output = self.output.borrow_mut();
        match put_whole(&mut output.bytes, |bytes| self.filter.borrow_mut().put(record.borrow(), bytes)) {
            Ok(()) => output.end_message(),
            Err(error) => self.refused.borrow_mut().push(error),
        }
        self.mark_dirty();
        self.level.rise(output.len())
    }

    pub(super) fn set_mark_events(&self, change: impl FnOnce(&mut MarkEvents)) {
        let mut events = self.mark_events.get();
        change(&mut events);
        self.mark_events.set(events);
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
        self.shared.mailbox.flush(self.key);
    }

    /// Writes as much as the pipe takes in one turn, and tells the session what has come of it.
    fn write_some(&self, cx: &mut Turn<'_>) -> Next {
        for error in self.refused.take() {
            self.shared.report_filter(cx, &error, STDIN);
        }
        if self.level.take_high() {
            self.tell(cx, self.mark_events.get().high);
        }
        let had = self.output.borrow().len();
        if self.blocked.get() || self.phase.get() == Phase::Closed {
            return Next::Wait;
        }
        let written = self
            .fd
            .borrow()
            .as_ref()
            .map_or(Ok(()), |stream| self.output.borrow_mut().write_to(stream, WRITES_PER_TURN));
        let next = match written {
            Ok(()) if self.output.borrow().len() > 0 => Next::Again(Mode::Write),
            Ok(()) if self.phase.get() == Phase::Closing => {
                self.phase.set(Phase::Closed);
                self.end_socket();
                // The session is told when the child can see the end.
                self.last.set(had);
                return Next::Close;
            }
            Ok(()) => Next::Wait,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.blocked.set(true);
                Next::Wait
            }
            Err(error) => {
                self.phase.set(Phase::Closed);
                self.failure.replace(Some(error));
                return Next::Close;
            }
        };
        self.tell_of_room(cx, had);
        next
    }

    /// Tells the session what has come of a turn that began with `had` octets to write.
    fn tell_of_room(&self, cx: &mut Turn<'_>, had: usize) {
        if self.level.fall(self.output.borrow().len()) {
            self.tell(cx, self.mark_events.get().low);
        }
        // Not if a state has put more since: there will be another end.
        if had > 0 && self.output.borrow().len() == 0 {
            self.tell(cx, self.shared.on_stdin.get());
        }
    }

    fn tell(&self, cx: &mut Turn<'_>, event: Option<Name>) {
        self.shared.send(cx, event, (self.shared.id,).into_args());
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
    fn turn(&self, cx: &mut Turn<'_>, _: Mode) -> Next {
        self.blocked.set(false);
        self.write_some(cx)
    }

    fn flush(&self, cx: &mut Turn<'_>) -> Next {
        self.write_some(cx)
    }

    fn closed(&self, cx: &mut Turn<'_>) {
        match self.failure.take() {
            Some(error) => _ = self.shared.report(cx, "write", &error, STDIN),
            None => self.tell_of_room(cx, self.last.get()),
        }
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

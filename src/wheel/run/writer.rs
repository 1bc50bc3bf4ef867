//! What the child reads: records on their way from the session to its standard input.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use nix::sys::socket::{Shutdown, shutdown};

use super::{Conduit, STDIN, Shared};
use crate::args::IntoArgs;
use crate::filter::FilterError;
use crate::kernel::{AfterFork, Next, Readiness, Source, SourceKey, Turn, Wanted};
use crate::name::Name;
use crate::wheel::Put;
use crate::wheel::stream::Stream;
use crate::wheel::stream::outbox::{Outbox, Sender};

/// The parent's end of the child's standard input.
pub(super) struct Writer {
    shared: Rc<Shared>,
    key: SourceKey,
    pub(super) fd: RefCell<Option<Stream>>,
    pub(super) outbox: Outbox,
}

impl Writer {
    pub(super) fn new(shared: Rc<Shared>, key: SourceKey, fd: OwnedFd, outbox: Outbox) -> Writer {
        Writer { shared, key, fd: RefCell::new(Some(Stream::new(fd))), outbox }
    }

    /// Appends the record that `encode` encodes, unless the output is shut down or about to be.
    pub(super) fn put(&self, encode: impl FnOnce(&mut Vec<u8>) -> Result<(), FilterError>) -> Put {
        if self.outbox.is_ending() {
            return Put::Closed;
        }
        self.ask_for_flush();
        self.outbox.put(encode)
    }

    /// Closes the pipe, and discards what is not written.
    pub(super) fn shut_down(&self) {
        self.outbox.shut_down(self);
        self.shared.mailbox.dropped(self.key);
    }

    /// Closes the pipe once everything is written.
    pub(super) fn shut_down_after_flush(&self) {
        self.outbox.shut_down_when_drained();
        self.ask_for_flush();
    }

    fn ask_for_flush(&self) {
        self.shared.mailbox.flush(self.key);
    }
}

impl Sender for Writer {
    fn stream(&self) -> &RefCell<Option<Stream>> {
        &self.fd
    }

    fn is_open(&self) -> bool {
        self.shared.open.get()
    }

    fn tell(&self, cx: &mut Turn<'_>, event: Name) {
        self.shared.send(cx, Some(event), (self.shared.id,).into_args());
    }

    fn refused(&self, cx: &mut Turn<'_>, error: &FilterError) {
        self.shared.report_filter(cx, error, STDIN);
    }

    fn failed(&self, cx: &mut Turn<'_>, error: &io::Error) {
        self.shared.report(cx, "write", error, STDIN);
    }

    /// The close shows the child the end, unless the output still has the same socket open.
    fn end(&self) {
        if self.shared.conduit == Conduit::SocketPair
            && let Some(fd) = &*self.fd.borrow()
        {
            // It fails for a pipe, for which closing is enough, and for a socket whose other end is gone.
            let _ = shutdown(fd.as_raw_fd(), Shutdown::Write);
        }
    }

    fn closes_with_output(&self) -> bool {
        true
    }

    /// The kernel asks for the wanted readiness after each turn. This writes only in turns.
    fn blocked(&self) {}
}

impl Source for Writer {
    fn fd(&self) -> RawFd {
        self.fd.borrow().as_ref().map_or(-1, |fd| fd.as_raw_fd())
    }

    fn wanted(&self) -> Option<Wanted> {
        Wanted::of(false, self.outbox.is_blocked(), false)
    }

    /// Whatever the poller reports, even an error, a write finds out.
    fn turn(&self, cx: &mut Turn<'_>, _: Readiness) -> Next {
        self.outbox.unblock();
        self.flush(cx)
    }

    fn flush(&self, cx: &mut Turn<'_>) -> Next {
        self.outbox.write_some(cx, self)
    }

    fn closed(&self, cx: &mut Turn<'_>) {
        self.outbox.tell_of_writing(cx, self);
    }

    fn close(&self) {
        // Nothing can be put any more.
        self.outbox.shut_down(self);
        self.fd.take();
    }

    fn fork(&self) -> AfterFork {
        AfterFork::Close
    }

    fn describe(&self) -> String {
        let waiting = self.outbox.len();
        format!("Run ({}) {STDIN} of {}, {waiting} bytes to write", self.shared.id, self.shared.describe_process())
    }
}

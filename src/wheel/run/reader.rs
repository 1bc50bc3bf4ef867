//! What the child writes: one of its output streams, on its way to the session.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use super::{Conduit, Shared};
use crate::args::Args;
use crate::error::Exception;
use crate::filter::FilterError;
use crate::kernel::{AfterFork, Delivery, Next, Readiness, Source, SourceKey, Turn, Wanted};
use crate::name::Name;
use crate::wheel::read_write::reader::SHORT_READS_PER_TURN;
use crate::wheel::stream::Stream;
use crate::wheel::stream::inbox::{Inbox, Recipient};
use crate::wheel::stream::records::SharedRecords;

/// The parent's end of the child's standard output or standard error.
pub(super) struct Reader {
    shared: Rc<Shared>,
    key: SourceKey,
    /// The subject of its failures: `"STDOUT"` or `"STDERR"`.
    stream: &'static str,
    event: Cell<Option<Name>>,
    inbox: Inbox,
    pub(super) fd: RefCell<Option<Stream>>,
    pub(super) paused: Cell<bool>,
    /// An unfinished last record is delivered.
    delivers_last: bool,
    /// A short read may leave more behind. The poller has reported the end of the input, or the stream is a socket,
    /// over which descriptors may be sent.
    reads_short: Cell<bool>,
    /// The error that has ended the input, unless it was the end of file.
    error: RefCell<Option<io::Error>>,
}

/// The result of one read.
enum Chunk {
    Some { may_be_more: bool },
    Nothing,
    End,
    Failed(io::Error),
}

impl Reader {
    pub(super) fn new(
        shared: Rc<Shared>,
        key: SourceKey,
        stream: &'static str,
        event: Option<Name>,
        filter: SharedRecords,
        fd: OwnedFd,
        delivers_last: bool,
    ) -> Reader {
        shared.outputs.set(shared.outputs.get() + 1);
        Reader {
            inbox: Inbox::new(shared.id, filter),
            reads_short: Cell::new(shared.conduit == Conduit::SocketPair),
            shared,
            key,
            stream,
            event: Cell::new(event),
            fd: RefCell::new(Some(Stream::new(fd))),
            paused: Cell::new(false),
            delivers_last,
            error: RefCell::default(),
        }
    }

    /// Feeds the new filter the input that the `old` one has not parsed.
    pub(super) fn take_over(&self, old: SharedRecords) {
        self.inbox.take_over(old);
        self.wake();
    }

    /// Goes on with a filter of another type.
    pub(super) fn switch_filter(&self, filter: SharedRecords, old: SharedRecords) {
        self.inbox.set_filter(filter);
        self.take_over(old);
    }

    pub(super) fn resume(&self) {
        if self.paused.replace(false) {
            self.wake();
        }
    }

    /// Sets or takes away the event for records. Without one the wheel does not read the stream.
    pub(super) fn set_event(&self, event: Option<Name>) {
        if self.event.replace(event).is_none() {
            self.wake();
        }
    }

    /// Makes the kernel close the stream before the next event.
    pub(super) fn shut_down(&self) {
        if self.fd.borrow().is_some() {
            self.shared.mailbox.dropped(self.key);
        }
    }

    /// Asks for a turn without readiness from the poller.
    pub(super) fn wake(&self) {
        if self.fd.borrow().is_some() {
            self.shared.mailbox.woken(self.key);
        }
    }

    /// Reads one chunk, and delivers all of its records. A turn does this once.
    fn read_some(&self, cx: &mut Turn<'_>) -> Result<Next, Next> {
        if !self.takes_more() {
            return Ok(Next::Wait);
        }
        self.inbox.deliver(cx, self)?;
        // Ends with the first read that fills the buffer, finds nothing, or finds the end. Once all writers have closed
        // the pipe, no more data comes.
        for _ in 0..SHORT_READS_PER_TURN {
            match self.read_chunk(cx) {
                Chunk::Some { may_be_more } => {
                    self.inbox.deliver(cx, self)?;
                    if may_be_more {
                        return Ok(Next::Again(Readiness::Read));
                    }
                    if !self.reads_short.get() {
                        return Ok(Next::Wait);
                    }
                }
                Chunk::Nothing => return Ok(Next::Wait),
                Chunk::End => return self.end(cx, None),
                Chunk::Failed(error) => return self.end(cx, Some(error)),
            }
        }
        Ok(Next::Again(Readiness::Read))
    }

    /// Reads once, into the filter.
    fn read_chunk(&self, cx: &mut Turn<'_>) -> Chunk {
        let buffer = cx.buffer();
        let fd = self.fd.borrow();
        let Some(stream) = &*fd else { return Chunk::Nothing };
        let count = loop {
            match stream.read(buffer) {
                Ok(0) => return Chunk::End,
                Ok(count) => break count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Chunk::Nothing,
                Err(error) => return Chunk::Failed(error),
            }
        };
        self.inbox.feed(&buffer[..count]);
        // A terminal returns its data in small pieces, so a short read need not be the last.
        Chunk::Some { may_be_more: count == buffer.len() || self.shared.conduit.is_terminal() }
    }

    /// Ends the stream. If the unfinished record must wait, the next turn reads the end again and comes back here.
    fn end(&self, cx: &mut Turn<'_>, error: Option<io::Error>) -> Result<Next, Next> {
        if self.delivers_last {
            self.inbox.finish();
            self.inbox.deliver(cx, self)?;
        }
        self.error.replace(error);
        Ok(Next::Close)
    }
}

impl Recipient for Reader {
    fn takes_more(&self) -> bool {
        self.fd.borrow().is_some() && self.shared.open.get() && !self.paused.get() && self.event.get().is_some()
    }

    fn record(&self, cx: &mut Turn<'_>, args: Args) -> Delivery {
        self.shared.send(cx, self.event.get(), args)
    }

    fn refused(&self, cx: &mut Turn<'_>, error: FilterError) -> Delivery {
        self.shared.report_refused(cx, error, self.stream)
    }

    fn panicked(&self, cx: &mut Turn<'_>, exception: Exception) -> Delivery {
        cx.die(self.shared.name, exception)
    }
}

impl Source for Reader {
    fn fd(&self) -> RawFd {
        self.fd.borrow().as_ref().map_or(-1, |fd| fd.as_raw_fd())
    }

    /// Always asks for reading, which costs nothing with edge triggering. During a pause the wheel just does not read.
    fn wanted(&self) -> Option<Wanted> {
        Wanted::of(true, false, false)
    }

    fn turn(&self, cx: &mut Turn<'_>, _: Readiness) -> Next {
        self.read_some(cx).unwrap_or_else(|next| next)
    }

    /// Reports the end of the stream, and the close event if it was the last one.
    fn closed(&self, cx: &mut Turn<'_>) {
        match self.error.take() {
            None => self.shared.report_end(cx, self.stream),
            Some(error) => self.shared.report(cx, "read", &error, self.stream),
        };
        self.shared.output_ended(cx);
    }

    fn short_reads(&self) {
        self.reads_short.set(true);
    }

    fn close(&self) {
        self.fd.take();
    }

    /// The child process belongs to the parent, and so does its output.
    fn fork(&self) -> AfterFork {
        AfterFork::Close
    }

    fn describe(&self) -> String {
        let event = self.event.get().map_or("nothing", Name::as_str);
        let paused = if self.paused.get() { ", paused" } else { "" };
        format!("Run ({}) {} of {} -> {event}{paused}", self.shared.id, self.stream, self.shared.describe_process())
    }
}

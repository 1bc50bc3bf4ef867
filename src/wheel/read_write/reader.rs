//! The input of a wheel: it reads chunks, has a filter cut them, and sends an event for each record.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;

use nix::sys::socket::{Shutdown, shutdown};

use super::state::State;
use crate::args::Args;
use crate::error::Exception;
use crate::filter::FilterError;
use crate::kernel::{Delivery, Next, Readiness, Turn};
use crate::name::Name;
use crate::wheel::Failure;
use crate::wheel::stream::Stream;
use crate::wheel::stream::inbox::{Inbox, Recipient};
use crate::wheel::stream::records::SharedRecords;

/// How input is read and delivered.
pub(crate) struct Reader {
    pub(super) inbox: Inbox,
    on_input: Cell<Option<Name>>,
    pub(super) settings: InputSettings,
    paused: Cell<bool>,
    /// The program has shut the input down.
    shut: Cell<bool>,
    /// The input has ended, or reading has failed.
    pub(super) ended: Cell<bool>,
    /// A short read may leave more behind, because of the kind of stream, or because the poller has reported the end of
    /// the input. `None` before the first read.
    reads_short: Cell<Option<bool>>,
    /// How the input ended, until the session has been told.
    ending: RefCell<Option<Ending>>,
    /// How many bytes were read.
    octets: Cell<u64>,
}

/// The settings of a reader, which do not change.
#[derive(Clone, Copy)]
pub(crate) struct InputSettings {
    /// How much one read takes at most.
    pub(crate) block_size: usize,
    /// An unfinished record at the end of file is delivered.
    pub(crate) delivers_last: bool,
    /// Nothing is read while the wheel's own output is above its high mark.
    pub(crate) auto_pause: bool,
}

enum Ending {
    EndOfFile,
    Failed(io::Error),
}

/// The result of one read.
enum Input {
    Some { may_be_more: bool },
    Nothing,
    Ended(Ending),
}

impl Reader {
    pub(super) fn new(inbox: Inbox, on_input: Option<Name>, settings: InputSettings) -> Reader {
        Reader {
            inbox,
            on_input: Cell::new(on_input),
            settings,
            paused: Cell::new(false),
            shut: Cell::new(false),
            ended: Cell::new(false),
            reads_short: Cell::new(None),
            ending: RefCell::default(),
            octets: Cell::new(0),
        }
    }

    /// Returns how many bytes were read.
    #[inline]
    pub(super) fn octets(&self) -> u64 {
        self.octets.get()
    }

    /// Tells whether the reader wants readiness.
    pub(super) fn is_wanted(&self) -> bool {
        self.on_input.get().is_some() && !self.shut.get()
    }

    /// Tells whether nothing can be read or delivered any more.
    pub(super) fn is_over(&self) -> bool {
        let nothing_waits = !self.inbox.has_rest() && self.ending.borrow().is_none();
        self.shut.get() || nothing_waits && self.ended.get()
    }

    /// Tells whether nothing more is read. What was read before may still be delivered.
    pub(super) fn reads_no_more(&self) -> bool {
        self.shut.get() || self.ended.get()
    }

    /// Tells whether nothing is read or delivered unless the program sets an input event.
    pub(super) fn is_idle(&self) -> bool {
        self.on_input.get().is_none()
    }

    pub(super) fn note_short_reads(&self) {
        self.reads_short.set(Some(true));
    }
}

impl State {
    pub(super) fn pause_input(&self) {
        self.reader.paused.set(true);
    }

    pub(super) fn resume_input(&self) {
        if self.reader.paused.replace(false) {
            self.port.wake();
        }
    }

    /// Stops reading and delivering for good.
    pub(super) fn shut_down_input(&self) {
        if self.reader.shut.replace(true) {
            return;
        }
        // A transport may have to read in order to write.
        if let Some(stream) = &*self.port.stream.borrow()
            && !self.is_over_transport
        {
            // Anything but a socket can't be shut down. The wheel just does not read it any more.
            let _ = shutdown(stream.as_raw_fd(), Shutdown::Read);
        }
        self.port.changed();
        self.port.wake();
    }

    /// Sets or takes away the input event. Without one the wheel reads and delivers nothing.
    pub(super) fn set_input_event(&self, event: Option<Name>) {
        if self.reader.on_input.replace(event).is_some() != event.is_some() {
            self.port.changed();
            self.port.wake();
        }
    }

    /// Feeds the new filter the input that the `old` one hands over.
    pub(super) fn take_over(&self, old: SharedRecords) {
        if self.reader.inbox.take_over(old) {
            self.port.wake();
        }
    }

    #[inline]
    fn can_deliver(&self) -> bool {
        self.port.is_open.get()
            && !self.reader.paused.get()
            && self.reader.is_wanted()
            && !self.base.closing.get()
            && !(self.reader.settings.auto_pause && self.holds_input())
    }

    /// Reads one chunk, and delivers all of its records. A turn does this once.
    pub(super) fn read_some(&self, cx: &mut Turn<'_>) -> Next {
        // An error on the descriptor causes turns for both directions, whatever the wheel wants. First comes what an
        // earlier turn could not deliver.
        if !self.can_deliver() {
            return Next::Wait;
        }
        if let Err(next) = self.reader.inbox.deliver(cx, self) {
            return next;
        }
        // Ends with the first read that fills the buffer, finds nothing, or finds the end.
        let mut reads = 0;
        while !self.reader.ended.get() {
            reads += 1;
            match self.read_chunk(cx) {
                Input::Some { may_be_more } => {
                    if let Err(next) = self.reader.inbox.deliver(cx, self) {
                        return next;
                    }
                    if may_be_more || reads == SHORT_READS_PER_TURN {
                        return Next::Again(Readiness::Read);
                    }
                    if !self.reads_short() {
                        self.port.is_watched.set(true);
                        return Next::Wait;
                    }
                }
                Input::Nothing => {
                    self.port.is_watched.set(true);
                    return Next::Wait;
                }
                Input::Ended(ending) => {
                    self.reader.ended.set(true);
                    self.port.is_watched.set(true);
                    let is_whole = matches!(ending, Ending::EndOfFile);
                    self.reader.ending.replace(Some(ending));
                    if is_whole && self.reader.settings.delivers_last {
                        self.reader.inbox.finish();
                        if let Err(next) = self.reader.inbox.deliver(cx, self) {
                            return next;
                        }
                    }
                }
            }
        }
        self.report_end(cx);
        Next::Wait
    }

    /// Tells the session, once, that there is no more to read.
    fn report_end(&self, cx: &mut Turn<'_>) {
        let is_whole = matches!(&*self.reader.ending.borrow(), Some(Ending::EndOfFile));
        // Writes first, because the session may drop the wheel when it hears of the end.
        if is_whole && self.outbox.write_some(cx, self) != Next::Wait {
            self.mark_dirty();
        }
        // A state may have set another filter, whose records come first. The state has asked for a turn. A child that
        // was forked meanwhile gets the event in its own turn.
        if !self.can_deliver() || self.reader.inbox.has_rest() || cx.is_over() {
            return;
        }
        let Some(ending) = self.reader.ending.take() else { return };
        let failure = match ending {
            Ending::EndOfFile => Failure::end_of_input(self.base.id),
            Ending::Failed(error) => Failure::new("read", &error, self.base.id),
        };
        self.base.report(cx, failure);
    }

    /// Reads once, into the filter.
    fn read_chunk(&self, cx: &mut Turn<'_>) -> Input {
        let buffer = &mut cx.buffer()[..self.reader.settings.block_size];
        let stream = self.port.stream.borrow();
        let Some(stream) = &*stream else { return Input::Nothing };
        let count = loop {
            match stream.read(buffer) {
                Ok(0) => return Input::Ended(Ending::EndOfFile),
                Ok(count) => break count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Input::Nothing,
                Err(error) => return Input::Ended(Ending::Failed(error)),
            }
        };
        let may_be_more = count == buffer.len() || stream.has_input();
        self.reader.octets.set(self.reader.octets.get() + count as u64);
        self.reader.inbox.feed(&buffer[..count]);
        Input::Some { may_be_more }
    }

    /// Discards in a forked child what the parent has read. Returns whether the filter is usable, which it is not after
    /// a panic.
    pub(super) fn forget_input(&self) -> bool {
        let is_reset = self.reader.inbox.reset();
        // The parent may not have asked the poller yet, or the poller's answer was in a list that the child does not
        // have.
        self.port.is_watched.set(true);
        is_reset
    }

    fn reads_short(&self) -> bool {
        if let Some(reads_short) = self.reader.reads_short.get() {
            return reads_short;
        }
        let reads_short = self.port.stream.borrow().as_ref().is_some_and(Stream::reads_short);
        if !self.is_over_transport {
            self.reader.reads_short.set(Some(reads_short));
        }
        reads_short
    }

    pub(super) fn describe_input(&self) -> String {
        let event = self.reader.on_input.get().map_or("nothing", Name::as_str);
        let mut text = format!("{} ({}) -> {event}", self.base.name, self.base.id);
        let Reader { paused, ended, shut, .. } = &self.reader;
        for (flag, word) in [(paused, ", paused"), (ended, ", at end of file"), (shut, ", shut down")] {
            if flag.get() {
                text += word;
            }
        }
        text
    }
}

impl Recipient for State {
    #[inline]
    fn takes_more(&self) -> bool {
        self.can_deliver()
    }

    #[inline]
    fn record(&self, cx: &mut Turn<'_>, args: Args) -> Delivery {
        self.reader.on_input.get().map_or(Delivery::Done, |event| self.base.dispatch(cx, event, args))
    }

    fn refused(&self, cx: &mut Turn<'_>, error: FilterError) -> Delivery {
        self.base.report_refused(cx, error)
    }

    fn panicked(&self, cx: &mut Turn<'_>, exception: Exception) -> Delivery {
        cx.die(self.base.name, exception)
    }
}

/// How many short reads one turn does at most. A peer may send as fast as this process reads.
pub(crate) const SHORT_READS_PER_TURN: usize = 16;

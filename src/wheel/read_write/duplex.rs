//! A wheel with both directions on one descriptor, and how it closes without losing output.

use std::cell::Cell;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use super::state::State;
use crate::args::IntoArgs;
use crate::kernel::{AfterFork, Delivery, Due, Next, Readiness, Source, Turn, Wanted, nanos};
use crate::name::Name;

/// How a wheel ends, with or without its handle.
pub(super) struct Closing {
    /// How long the wheel waits for the peer to close after it has closed its own side.
    close_timeout: Cell<Duration>,
    /// How long the wheel waits for a peer that takes no output before it gives up.
    write_timeout: Duration,
    /// The event for a peer that takes no output, if the program waits until the output is written.
    impatient: Cell<Option<Name>>,
    /// Set while the end waits for output: when to look again, and how many bytes were written by the last look.
    next_look: Cell<Option<(Due, usize)>>,
    /// Set once everything is written: until when the peer may close its side.
    last_call: Cell<Option<Due>>,
    /// The kernel has no more use for the wheel, but its handle still exists.
    is_released: Cell<bool>,
}

impl Closing {
    pub(super) fn new(close_timeout: Duration, write_timeout: Duration) -> Closing {
        Closing {
            close_timeout: Cell::new(close_timeout),
            write_timeout,
            impatient: Cell::new(None),
            next_look: Cell::new(None),
            last_call: Cell::new(None),
            is_released: Cell::new(false),
        }
    }

    pub(super) fn set_close_timeout(&self, close_timeout: Duration) {
        self.close_timeout.set(close_timeout);
    }
}

/// The result of reading input that no session wants.
enum Unread {
    Nothing,
    More,
    Ended,
}

impl State {
    /// Takes the next step if the wheel is ending. Sees to it that the wheel looks again at the handshake's time limit.
    #[inline]
    fn after_turn(&self, cx: &mut Turn<'_>, next: Next) -> Next {
        let is_ending = self.base.closing.get() || self.outbox.is_over() || self.closing.impatient.get().is_some();
        let next = if is_ending { self.end(cx, next) } else { next };
        // The peer's time to close has its own limit.
        if self.closing.last_call.get().is_some() { next } else { self.or_until_ready(next) }
    }

    /// Sends `event` if the peer takes none of the output for as long as the wheel's write_timeout.
    pub(super) fn limit_patience(&self, event: Name) {
        self.closing.impatient.set(Some(event));
        self.closing.next_look.take();
        self.mark_dirty();
    }

    #[cold]
    fn end(&self, cx: &mut Turn<'_>, next: Next) -> Next {
        if self.base.closing.get() {
            if self.closing.last_call.get().is_some() {
                return next;
            }
            return if self.is_written() { self.begin_to_close(cx, next) } else { self.wait_for_peer(cx, next) };
        }
        if self.closing.impatient.get().is_some() && !self.outbox.is_over() && !self.is_written() {
            return self.wait_for_peer(cx, next);
        }
        // A flush comes first, because it may have events to send. Then the kernel comes back here.
        if !cx.is_flush_due() && self.outbox.is_over() && self.reader.is_over() && !self.transport_wants_write() {
            self.closing.is_released.set(true);
            return Next::Close;
        }
        next
    }

    fn is_written(&self) -> bool {
        self.outbox.is_done() && !self.transport_wants_write()
    }

    /// Waits for the peer to take the output. If the peer has taken none for too long, the wheel closes, or its session
    /// gets an event.
    fn wait_for_peer(&self, cx: &mut Turn<'_>, next: Next) -> Next {
        let now = cx.read_clock();
        if let Some((due, before)) = self.closing.next_look.get() {
            if now < due {
                // The limit of a handshake may have replaced this time.
                return if next == Next::Wait { Next::At(due) } else { next };
            }
            // The poller reports only when there is much room, and a slow peer may have made a little.
            self.outbox.unblock();
            if self.outbox.write_some(cx, self) != Next::Wait {
                self.mark_dirty();
            }
            let is_closing = self.base.closing.get();
            if self.is_written() {
                return if is_closing { self.begin_to_close(cx, next) } else { next };
            }
            if self.outbox.written() == before {
                return if is_closing { Next::Close } else { self.tell_of_impatience(cx) };
            }
        }
        let written = self.outbox.written();
        let due = now.saturating_add(nanos(self.closing.write_timeout));
        self.closing.next_look.set(Some((due, written)));
        if next != Next::Wait {
            self.mark_dirty();
        }
        Next::At(due)
    }

    fn tell_of_impatience(&self, cx: &mut Turn<'_>) -> Next {
        self.closing.next_look.take();
        if let Some(event) = self.closing.impatient.take() {
            self.base.dispatch(cx, event, (self.base.id,).into_args());
        }
        Next::Wait
    }

    /// Closes this side, and gives the peer time to read to the end. If a TCP socket is closed with unread input, or
    /// gets more input afterwards, the system resets the connection. The peer then loses output that is still on its
    /// way.
    fn begin_to_close(&self, cx: &mut Turn<'_>, next: Next) -> Next {
        // Closing shows the end, except that a transport may have bytes to write for that.
        if self.is_over_transport && !self.outbox.has_failed() && self.show_the_end() {
            self.advance_transport();
            if self.transport_wants_write() {
                self.closing.next_look.take();
                return self.wait_for_peer(cx, next);
            }
        }
        let is_needless =
            self.reader.ended.get() || self.outbox.has_failed() || self.closing.close_timeout.get().is_zero();
        if is_needless || !self.show_the_end() {
            self.discard();
            return Next::Close;
        }
        let last_call = cx.read_clock().saturating_add(nanos(self.closing.close_timeout.get()));
        self.closing.last_call.set(Some(last_call));
        self.wait_for_the_end(cx, last_call)
    }

    /// Shows the peer the end of the output. Returns whether the peer can notice. A descriptor that is not a socket, or
    /// that has lost its peer, has no such peer.
    fn show_the_end(&self) -> bool {
        let stream = self.port.stream.borrow();
        stream.as_ref().is_some_and(|stream| stream.shut_down().is_ok())
    }

    /// Reads and discards input until the peer has closed its side too, or its time is up.
    fn wait_for_the_end(&self, cx: &mut Turn<'_>, last_call: Due) -> Next {
        let is_late = cx.read_clock() >= last_call;
        match self.discard() {
            Unread::Ended if !self.transport_wants_write() => Next::Close,
            _ if is_late => Next::Close,
            Unread::More => Next::Again(Readiness::Read),
            Unread::Nothing | Unread::Ended => {
                self.port.is_watched.set(true);
                Next::At(last_call)
            }
        }
    }

    /// Reads and discards what the peer has sent.
    fn discard(&self) -> Unread {
        let mut scratch = [0; 16 * 1024];
        let stream = self.port.stream.borrow();
        let Some(stream) = &*stream else { return Unread::Ended };
        // The loop is bounded, because a peer may send without end. Anything but a socket returns an error, and needs
        // no discarding.
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

impl Source for State {
    fn fd(&self) -> RawFd {
        self.port.raw_fd()
    }

    /// Always asks for reading, which costs nothing with edge triggering. Asks for writing from the first time that the
    /// descriptor does not take everything.
    fn wanted(&self) -> Option<Wanted> {
        if !self.port.is_watched.get() {
            return None;
        }
        let is_closing = self.closing.last_call.get().is_some();
        let reads = self.reader.is_wanted() || is_closing || self.transport_wants_read();
        Wanted::of_stream(reads, self.outbox.is_blocked() || self.transport_wants_write())
    }

    /// A wheel that can't write, and reads nothing unless the program sets an input event, does not keep its session.
    fn keeps_owner(&self) -> bool {
        self.base.closing.get() || !self.outbox.is_over() || self.transport_wants_write() || !self.reader.is_idle()
    }

    fn turn(&self, cx: &mut Turn<'_>, readiness: Readiness) -> Next {
        let next = match (readiness, self.closing.last_call.get()) {
            (Readiness::Read, Some(last_call)) => return self.wait_for_the_end(cx, last_call),
            (Readiness::Read, None) => {
                if self.is_over_transport {
                    self.advance_transport();
                    // Input that was read may be what writing waits for.
                    self.outbox.unblock();
                    self.mark_dirty();
                    match self.open(cx) {
                        Delivery::Done => {}
                        // The rest comes after the `DIE` signal.
                        Delivery::Failed => return Next::Again(Readiness::Read),
                        Delivery::Over => return Next::Wait,
                    }
                }
                self.read_some(cx)
            }
            (Readiness::Write, _) => {
                if self.is_over_transport {
                    // Bytes that were written may be what reading waits for.
                    self.port.wake();
                }
                self.advance_transport();
                if self.open_to_write(cx) == Delivery::Over {
                    return Next::Wait;
                }
                self.outbox.unblock();
                self.outbox.write_some(cx, self)
            }
            (Readiness::Expedite, _) => Next::Wait,
        };
        self.after_turn(cx, next)
    }

    fn flush(&self, cx: &mut Turn<'_>) -> Next {
        self.advance_transport();
        if self.open_to_write(cx) == Delivery::Over {
            return Next::Wait;
        }
        let next = self.outbox.write_some(cx, self);
        self.after_turn(cx, next)
    }

    fn short_reads(&self) {
        self.reader.note_short_reads();
    }

    fn close(&self) {
        // If no event can come any more, the descriptor stays open as long as the handle, which keeps the unwritten
        // output.
        if self.closing.is_released.get() {
            return self.port.is_open.set(false);
        }
        self.port.close();
        self.outbox.discard();
    }

    fn fork(&self) -> AfterFork {
        match self.fork_output() {
            AfterFork::Keep if !self.forget_input() => AfterFork::Close,
            fate => fate,
        }
    }

    fn describe(&self) -> String {
        self.describe_input() + &self.describe_output()
    }
}

/// How many reads one turn spends on discarding input. It is more than any receive buffer holds by default.
const DISCARDS_PER_TURN: usize = 512;

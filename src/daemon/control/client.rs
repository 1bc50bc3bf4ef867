//! One client: what it has sent, what it is still to read.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Map, Value};

use super::command::Request;
use super::dialect::{Code, Dialect, Outcome, Refusal};
use super::rights::Rights;
use crate::kernel::Handle;
use crate::sys::peer::Peer;

/// A connection to the control socket.
#[derive(Debug)]
pub(in crate::daemon) struct Client {
    pub(in crate::daemon) handle: Handle,
    pub(in crate::daemon) peer: Peer,
    /// The name of the program that has connected, as it was at its first command.
    pub(in crate::daemon) comm: Option<String>,
    pub(in crate::daemon) rights: Option<Rights>,
    input: Vec<u8>,
    /// How many bytes of `input` are known to have no end of line in them.
    searched: usize,
    output: Vec<u8>,
    /// How many bytes of `output` are written.
    written: usize,
    /// When it connected, or when the last of what it is to read was taken.
    since: Instant,
    has_commanded: bool,
    /// It sends nothing more.
    is_at_end: bool,
    /// It is let go once it has read everything.
    is_last: bool,
    /// Nothing can be written to it any more.
    is_lost: bool,
    /// What it has asked for and gets in another turn: answers of this kind take long to write.
    pub(in crate::daemon) put_off: Option<(Dialect, Request)>,
    /// The order that it waits for.
    pub(in crate::daemon) waits: Option<u64>,
    /// It gets events.
    pub(in crate::daemon) watches: Option<Watching>,
    /// What the kernel watches it for.
    pub(in crate::daemon) is_read: bool,
    pub(in crate::daemon) is_written: bool,
}

/// What a client that gets events has missed.
#[derive(Clone, Copy, Debug)]
pub(in crate::daemon) struct Watching {
    pub(in crate::daemon) dialect: Dialect,
    pub(in crate::daemon) dropped: u64,
}

impl Client {
    pub(super) fn new(handle: Handle, peer: Peer, rights: Option<Rights>, now: Instant) -> Client {
        Client {
            handle,
            peer,
            comm: None,
            rights,
            input: Vec::new(),
            searched: 0,
            output: Vec::new(),
            written: 0,
            since: now,
            has_commanded: false,
            is_at_end: false,
            is_last: false,
            is_lost: false,
            put_off: None,
            waits: None,
            watches: None,
            is_read: false,
            is_written: false,
        }
    }

    /// Reads once what has come.
    pub(in crate::daemon) fn fill(&mut self) {
        let mut chunk = [0; CHUNK];
        match self.handle.read(&mut chunk) {
            Ok(0) => self.is_at_end = true,
            Ok(_) if self.is_last => {}
            Ok(count) => self.input.extend_from_slice(&chunk[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.is_lost = true,
        }
    }

    /// Stops waiting for an answer that nobody will read. What was sent before the client hung up is still done.
    pub(in crate::daemon) fn hurry_if_gone(&mut self) {
        if self.is_at_end && self.waits.is_some() && self.is_hung_up() {
            self.waits = None;
            self.output = Vec::new();
            self.written = 0;
        }
    }

    /// Takes a line out of what has come, unless an answer is under way. A client that has closed its side need not end its last
    /// line.
    pub(in crate::daemon) fn next_line(&mut self) -> Option<Vec<u8>> {
        if self.is_busy() {
            return None;
        }
        let end = memchr::memchr(b'\n', &self.input[self.searched..]).map(|end| self.searched + end);
        let mut line = match end {
            Some(end) if end <= LONGEST_LINE => {
                let rest = self.input.split_off(end + 1);
                std::mem::replace(&mut self.input, rest)
            }
            None if self.input.len() <= LONGEST_LINE && self.is_at_end && !self.input.is_empty() => {
                std::mem::take(&mut self.input)
            }
            None if self.input.len() <= LONGEST_LINE => {
                self.searched = self.input.len();
                return None;
            }
            _ => {
                let text = format_args!("a line has at most {LONGEST_LINE} bytes");
                let dialect = Dialect::of(&self.input);
                self.input = Vec::new();
                self.searched = 0;
                self.answer(dialect, &Err(Refusal::new(Code::TooLong, text)));
                self.is_last = true;
                return None;
            }
        };
        self.searched = 0;
        self.has_commanded = true;
        self.comm.get_or_insert_with(|| name_of(&self.peer));
        while matches!(line.last(), Some(b'\n' | b'\r')) {
            line.pop();
        }
        Some(line)
    }

    /// Tells whether the next command has to wait.
    fn is_busy(&self) -> bool {
        self.put_off.is_some()
            || self.waits.is_some()
            || self.watches.is_some()
            || self.is_last
            || self.is_lost
            || self.unwritten() > 0
    }

    /// Tells whether a whole command has come that is not taken yet.
    pub(in crate::daemon) fn has_line(&self) -> bool {
        !self.is_busy()
            && (memchr::memchr(b'\n', &self.input[self.searched..]).is_some()
                || self.is_at_end && !self.input.is_empty())
    }

    /// Puts the end of a command.
    pub(in crate::daemon) fn answer(&mut self, dialect: Dialect, outcome: &Outcome) {
        dialect.write(outcome, &mut self.output);
    }

    /// Puts an event for a client that watches. One that does not read misses it.
    pub(in crate::daemon) fn tell(&mut self, event: &Map<String, Value>) {
        let is_slow = self.unwritten() > MOST_UNREAD_EVENTS;
        let Some(watching) = &mut self.watches else { return };
        if is_slow {
            watching.dropped += 1;
            return;
        }
        let dialect = watching.dialect;
        self.own_up();
        dialect.write_event(event, &mut self.output);
    }

    /// Says how many events it has missed, if it has.
    fn own_up(&mut self) {
        let Some(Watching { dialect, dropped }) = &mut self.watches else { return };
        if let count @ 1.. = std::mem::take(dropped) {
            let event = [("event".to_owned(), "dropped".into()), ("count".to_owned(), count.into())];
            dialect.write_event(&event.into_iter().collect(), &mut self.output);
        }
    }

    /// Lets it go once it has read everything.
    pub(in crate::daemon) fn close_after_flush(&mut self) {
        self.is_last = true;
    }

    pub(in crate::daemon) fn unwritten(&self) -> usize {
        self.output.len() - self.written
    }

    /// Writes as much as it takes now.
    pub(in crate::daemon) fn flush(&mut self, now: Instant) {
        self.write(now);
        if self.unwritten() == 0 {
            // It reads again.
            self.own_up();
            self.write(now);
        }
        if self.unwritten() > MOST_UNREAD {
            log::debug!(
                target: "lenore::daemon",
                "control: client does not read and is dropped: unread={} uid={} pid={}", self.unwritten(), self.peer.uid, self.peer.pid
            );
            self.is_lost = true;
        }
    }

    fn write(&mut self, now: Instant) {
        while self.unwritten() > 0 && !self.is_lost {
            match self.handle.write(&self.output[self.written..]) {
                Ok(0) => break,
                Ok(count) => {
                    self.written += count;
                    self.since = now;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.is_lost = true,
            }
        }
        if self.unwritten() == 0 {
            self.output = Vec::new();
            self.written = 0;
        }
    }

    /// Tells whether it can be let go.
    pub(in crate::daemon) fn is_over(&self) -> bool {
        let is_idle = self.unwritten() == 0 && self.put_off.is_none() && self.waits.is_none() && !self.has_line();
        self.is_lost || is_idle && (self.is_last || self.is_at_end && self.watches.is_none()) || self.has_hung_up()
    }

    /// Tells whether it has hung up. The kernel may not have told yet, so that what it has sent before is read here.
    pub(super) fn has_left(&mut self) -> bool {
        if !self.is_hung_up() {
            return false;
        }
        while !self.is_at_end && !self.is_lost && self.wants_to_read() {
            self.fill();
        }
        true
    }

    /// Tells whether the other end is closed for reading as well. Where the kernel watches it, it tells so by itself.
    fn has_hung_up(&self) -> bool {
        self.is_at_end && !self.has_line() && self.is_hung_up()
    }

    /// Tells whether the client has hung up, and so will read no answer.
    pub(in crate::daemon) fn is_hung_up(&self) -> bool {
        let mut asked = [PollFd::new(self.handle.as_fd(), PollFlags::empty())];
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR;
        poll(&mut asked, PollTimeout::ZERO).is_ok() && asked[0].revents().is_some_and(|found| found.intersects(gone))
    }

    /// Tells whether there is a reason to read: there is room, and there may be something.
    pub(in crate::daemon) fn wants_to_read(&self) -> bool {
        !self.is_at_end && self.input.len() <= LONGEST_LINE
    }

    /// Returns when it is let go if nothing happens; `None` for never.
    pub(in crate::daemon) fn due(&self) -> Option<Instant> {
        if !self.has_commanded {
            return Some(self.since + IDLE);
        }
        (self.unwritten() > 0 && self.watches.is_none()).then(|| self.since + STALLED)
    }
}

/// Returns the name of the program that has connected.
#[cfg(target_os = "linux")]
fn name_of(peer: &Peer) -> String {
    let name = (peer.pid > 0).then(|| crate::sys::procfs::read_to_string(format!("{}/comm", peer.pid)).ok()).flatten();
    name.unwrap_or_default().trim_end_matches('\n').to_owned()
}

#[cfg(not(target_os = "linux"))]
fn name_of(_: &Peer) -> String {
    String::new()
}

/// How much is read in one turn.
const CHUNK: usize = 16 * 1024;

/// How long a command may be.
const LONGEST_LINE: usize = 64 * 1024;

/// How many bytes a client may leave unread. An answer about the largest pool fits. One answer is unread at most, because a client's next
/// command waits until the client has read the answer to the one before.
const MOST_UNREAD: usize = 8 * 1024 * 1024;

/// How much of events a client may leave unread before it misses the next.
const MOST_UNREAD_EVENTS: usize = 64 * 1024;

/// How long a client may take for its first command.
const IDLE: Duration = Duration::from_secs(10);

/// How long a client may read nothing of its answer.
const STALLED: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;

//! What a service manager is told, in systemd's protocol: sd_notify(3).
//!
//! A manager is told when the server is ready, when it ends, what it does, and that it lives. Only the parent process tells it
//! anything: children do not have the socket.

mod health;
mod outbox;
mod socket;
mod store;
mod text;

use std::ffi::OsStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(in crate::daemon) use health::{Health, Ill, Sight};
pub(in crate::daemon) use store::{DEFAULT_NAME, Listening, Step, Store};
pub(in crate::daemon) use text::{Counts, PoolSketch, Sketch, errno_of, minute_of_day, status, with_verdict};

use crate::environment;
use crate::error::Error;
use outbox::{About, Letter, Outbox, Sent};
use socket::ManagerSocket;

/// The service manager that has started this process.
#[derive(Debug)]
pub(in crate::daemon) struct Manager {
    outbox: Outbox,
    /// How often it wants to hear that the server lives.
    watchdog: Option<Watchdog>,
    /// The last status that was sent, and when.
    status: String,
    status_at: Option<Duration>,
    /// Something has happened since.
    is_dirty: bool,
    /// It knows that the server is ready, or ends.
    said: Said,
    /// It does not listen to this process: another one serves.
    is_muted: bool,
    /// What it was told that changes, until it is told that this is over.
    change: Option<String>,
    /// What became of the last change.
    verdict: String,
    /// When it was last told that the end takes longer.
    extended_at: Option<Duration>,
}

/// What has become of telling the manager which process is the main one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::daemon) enum Named {
    /// It has read that, and all that was sent before.
    Read,
    /// It has not read that in time, or could not be told.
    Late,
    /// There is nobody to be told.
    ToNobody,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Said {
    Nothing,
    Ready,
    Stopping,
}

#[derive(Debug)]
struct Watchdog {
    every: Duration,
    last: Option<Duration>,
}

impl Manager {
    /// Returns the manager that has started this process; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidEnvironment`], which names the variable and its value.
    pub(in crate::daemon) fn of_this_process() -> Result<Option<Manager>, Error> {
        let taken = environment::taken();
        // Another Daemon of this process, or of the one that has forked it, would contradict the first.
        if IS_CLAIMED.swap(true, Ordering::Relaxed) {
            return Ok(None);
        }
        Manager::read(|name| taken.get(name), std::process::id())
    }

    /// Reads what the manager has told this process in its environment. `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidEnvironment`], which names the variable and its value.
    pub(in crate::daemon) fn read<'a>(
        get: impl Fn(&str) -> Option<&'a OsStr>,
        pid: u32,
    ) -> Result<Option<Manager>, Error> {
        let Some(address) = get(NOTIFY_SOCKET).filter(|address| !address.is_empty()) else { return Ok(None) };
        let period = period(&get, pid)?;
        let socket = match ManagerSocket::new(address) {
            Ok(socket) => Some(socket),
            Err(why) => {
                let address = address.to_string_lossy();
                log::warn!(target: "lenore::daemon", "the service manager is not told anything: {NOTIFY_SOCKET}={address}: {why}");
                None
            }
        };
        Ok(Some(Manager {
            outbox: Outbox::new(socket),
            watchdog: period.map(|period| Watchdog { every: period / 3, last: None }),
            status: String::new(),
            status_at: None,
            is_dirty: false,
            said: Said::Nothing,
            is_muted: false,
            change: None,
            verdict: String::new(),
            extended_at: None,
        }))
    }

    /// The server is ready for clients. Said once.
    pub(in crate::daemon) fn ready(&mut self, now: Duration, status: &str) {
        if self.said == Said::Nothing && !self.is_muted {
            self.said = Said::Ready;
            self.say_ready(About::Ready, now, status);
            // Its clock begins with this.
            self.ping(now);
        }
    }

    /// Tells whether the manager would keep sockets for this process now.
    pub(in crate::daemon) fn keeps_sockets(&self) -> bool {
        self.outbox.leads_anywhere() && self.said != Said::Stopping && !self.is_muted
    }

    /// Has the manager keep a socket. Returns whether it was told.
    pub(in crate::daemon) fn keep_socket(&mut self, name: &str, socket: BorrowedFd<'_>) -> bool {
        // Nothing can happen to a listener that is worth being polled for.
        self.outbox.say_with(&format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0"), Some(socket)) == Sent::Yes
    }

    /// Has the manager let go of all sockets of this name. Returns whether it was told.
    pub(in crate::daemon) fn let_go_of_sockets(&mut self, name: &str) -> bool {
        self.outbox.say(&format!("FDSTOREREMOVE=1\nFDNAME={name}")) == Sent::Yes
    }

    /// The server ends, and nothing can change that any more. Said once.
    pub(in crate::daemon) fn stopping(&mut self, status: &str) {
        if self.said == Said::Stopping {
            return;
        }
        self.said = Said::Stopping;
        self.change = None;
        self.say_stopping(status);
    }

    /// Something changes while the server serves, and `monotonic` is the system's monotonic clock. The manager counts a reload that
    /// it has asked for as begun only if that is not before the time at which it has asked.
    pub(in crate::daemon) fn begin_change(&mut self, now: Duration, monotonic: Duration, what: &str, status: &str) {
        if self.said != Said::Ready || self.is_muted {
            return;
        }
        self.change = Some(what.to_owned());
        // A change that is over needs no telling if another one begins.
        self.outbox.forget(About::Change);
        let micros = monotonic.as_micros();
        self.say_surely(About::Change, format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS={status}"));
        self.has_said(now, status);
    }

    /// Tells whether the manager knows of a change that is not over.
    pub(in crate::daemon) fn is_changing(&self) -> bool {
        self.change.is_some()
    }

    /// The change is over, and this has become of it.
    pub(in crate::daemon) fn end_change(&mut self, now: Duration, verdict: &str, status: String) {
        if self.change.take().is_some() {
            self.note_verdict(verdict);
            if self.said == Said::Ready && !self.is_muted {
                let status = with_verdict(status, &self.verdict);
                self.say_ready(About::Change, now, &status);
            }
        }
    }

    /// Keeps what became of a change.
    pub(in crate::daemon) fn note_verdict(&mut self, verdict: &str) {
        self.verdict = text::one_line(verdict).chars().take(LONGEST_VERDICT).collect();
    }

    /// Returns what the server is doing while it serves, and what became of the last change.
    pub(in crate::daemon) fn doing(&self) -> (&str, &str) {
        match &self.change {
            Some(what) => (what, ""),
            None => ("ready", &self.verdict),
        }
    }

    /// Another process serves, and the manager does not listen to this one: it hears nothing but which process is the main one.
    pub(in crate::daemon) fn mute(&mut self) {
        self.is_muted = true;
        self.outbox.forget_all();
    }

    /// This process serves. It says so at once.
    pub(in crate::daemon) fn unmute(&mut self, now: Duration, status: &str) {
        self.is_muted = false;
        self.change = None;
        if self.said == Said::Stopping {
            return self.say_stopping(status);
        }
        self.said = Said::Ready;
        self.say_ready(About::Ready, now, status);
        self.ping(now);
    }

    /// Another process is the main one of the service from now on, and is to be heard in place of this one. Returns a pipe whose end of file means
    /// that the manager has read this; `None` if there is nobody who would.
    pub(in crate::daemon) fn name_main_process(&mut self, pid: i32) -> io::Result<Option<OwnedFd>> {
        if !self.outbox.leads_anywhere() {
            return Ok(None);
        }
        self.forget_main_process();
        let (ours, theirs) = io::pipe()?;
        // The manager then knows that it has the process that is meant, and not one that has got its pid meanwhile.
        let number = number_of(pid).map_or_else(String::new, |number| format!("\nMAINPIDFDID={number}"));
        self.say_surely(About::MainProcess, format!("MAINPID={pid}{number}"));
        // By itself in its datagram, with nothing but the descriptor: that is closed when all before it was read.
        let fd = Some(theirs.into());
        self.outbox.say_surely(Letter { about: About::MainProcess, text: "BARRIER=1".to_owned(), fd });
        Ok(Some(ours.into()))
    }

    /// If it was not sent so far, the manager need not hear which process is the main one.
    pub(in crate::daemon) fn forget_main_process(&mut self) {
        self.outbox.forget(About::MainProcess);
    }

    /// The Daemon was not spawned. Another one may be.
    pub(in crate::daemon) fn gives_way(mut self, cause: &str, errno: Option<i32>) {
        self.failed(cause, errno);
        IS_CLAIMED.store(false, Ordering::Relaxed);
    }

    /// The start has failed, or the server could not go on. The errno says so to programs, where the system is to blame.
    pub(in crate::daemon) fn failed(&mut self, cause: &str, errno: Option<i32>) {
        let cause = text::one_line(cause);
        let errno = errno.map_or_else(String::new, |errno| format!("\nERRNO={errno}"));
        self.say(&format!("STATUS={cause}{errno}\nEXIT_STATUS=1"));
    }

    /// The end takes longer: children still work.
    pub(in crate::daemon) fn extend(&mut self, now: Duration, left: Duration) {
        let is_due = self.extended_at.is_none_or(|last| now >= last + EXTEND_EVERY);
        if self.said != Said::Stopping || self.is_muted || !is_due || left.is_zero() {
            return;
        }
        self.extended_at = Some(now);
        // A bit more than is needed at most, so that the children are killed by their parent, which tells why.
        let span = left.min(EXTEND_BY) + EXTEND_EVERY;
        self.say(&format!("EXTEND_TIMEOUT_USEC={}", span.as_micros()));
    }

    /// Something has happened. Returns whether a status can be sent at once.
    pub(in crate::daemon) fn note_change(&mut self, now: Duration) -> bool {
        self.is_dirty = true;
        self.status_is_due(now)
    }

    /// Tells whether something has happened since the last status.
    pub(in crate::daemon) fn has_changes(&self) -> bool {
        self.is_dirty
    }

    /// Tells whether the manager knows that the server ends.
    pub(in crate::daemon) fn is_stopping(&self) -> bool {
        self.said == Said::Stopping
    }

    /// Tells whether there is a new status to send, and the last one was sent long enough ago.
    pub(in crate::daemon) fn status_is_due(&self, now: Duration) -> bool {
        self.is_dirty && self.is_told() && self.status_at.is_none_or(|last| now >= last + STATUS_EVERY)
    }

    /// Sends a status, unless it is the one that was sent last.
    pub(in crate::daemon) fn say_status(&mut self, now: Duration, status: String) {
        self.is_dirty = false;
        if status == self.status {
            return;
        }
        self.say(&format!("STATUS={status}"));
        self.has_said(now, &status);
    }

    /// Tells whether the manager waits to hear that the server lives.
    pub(in crate::daemon) fn ping_is_due(&self, now: Duration) -> bool {
        let is_due = |watchdog: &Watchdog| watchdog.last.is_none_or(|last| now >= last + watchdog.every);
        self.is_told() && self.watchdog.as_ref().is_some_and(is_due)
    }

    /// The server lives.
    pub(in crate::daemon) fn ping(&mut self, now: Duration) {
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.last = Some(now);
            self.say("WATCHDOG=1");
        }
    }

    /// The server does not live, and would not by itself.
    pub(in crate::daemon) fn give_up(&mut self, why: &str) {
        self.say(&format!("WATCHDOG=trigger\nSTATUS={}", text::one_line(why)));
    }

    /// Leaves out a ping.
    pub(in crate::daemon) fn skip(&mut self, now: Duration) {
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.last = Some(now);
        }
    }

    /// Sends again what has not been sent.
    pub(in crate::daemon) fn retry(&mut self) {
        self.outbox.retry();
    }

    /// Returns when there is something to do next; `None` if only something that happens can bring it about.
    pub(in crate::daemon) fn next_due(&self, now: Duration) -> Option<Duration> {
        let owed = self.outbox.owes().then_some(RETRY);
        let left = |last: Option<Duration>, every: Duration| {
            last.map_or(Duration::ZERO, |last| (last + every).saturating_sub(now))
        };
        let is_told = self.is_told();
        let status = (is_told && self.is_dirty).then(|| left(self.status_at, STATUS_EVERY));
        let ping = self.watchdog.as_ref().filter(|_| is_told).map(|watchdog| left(watchdog.last, watchdog.every));
        let extension = (is_told && self.said == Said::Stopping).then(|| left(self.extended_at, EXTEND_EVERY));
        owed.into_iter().chain(status).chain(ping).chain(extension).min()
    }

    /// Tells whether the manager knows that the server serves or ends, and listens.
    fn is_told(&self) -> bool {
        self.said != Said::Nothing && !self.is_muted
    }

    fn say_ready(&mut self, about: About, now: Duration, status: &str) {
        self.say_surely(about, format!("READY=1\nSTATUS={status}"));
        self.has_said(now, status);
    }

    fn say_stopping(&mut self, status: &str) {
        if !self.is_muted {
            self.say_surely(About::Stopping, format!("STOPPING=1\nSTATUS={status}"));
        }
    }

    fn has_said(&mut self, now: Duration, status: &str) {
        status.clone_into(&mut self.status);
        self.status_at = Some(now);
    }

    fn say_surely(&mut self, about: About, text: String) {
        self.outbox.say_surely(Letter { about, text, fd: None });
    }

    fn say(&mut self, message: &str) {
        if !self.is_muted {
            self.outbox.say(message);
        }
    }
}

/// Returns how often the manager wants to hear from this process.
fn period<'a>(get: &impl Fn(&str) -> Option<&'a OsStr>, pid: u32) -> Result<Option<Duration>, Error> {
    let invalid = |variable: &'static str, value: &OsStr, reason: &str| Error::InvalidEnvironment {
        variable,
        value: value.to_string_lossy().into_owned(),
        reason: reason.to_owned(),
    };
    let number = |value: &OsStr| value.to_str().and_then(|value| value.parse::<u64>().ok());
    if let Some(value) = get(WATCHDOG_PID) {
        let named = number(value).ok_or_else(|| invalid(WATCHDOG_PID, value, "not a process"))?;
        if named != u64::from(pid) {
            return Ok(None);
        }
    }
    let Some(value) = get(WATCHDOG_USEC) else { return Ok(None) };
    let micros = number(value).ok_or_else(|| invalid(WATCHDOG_USEC, value, "not a number of microseconds"))?;
    let period = Duration::from_micros(micros);
    if period < SHORTEST_PERIOD {
        let reason = format!("a watchdog's period is at least {} ms", SHORTEST_PERIOD.as_millis());
        return Err(invalid(WATCHDOG_USEC, value, &reason));
    }
    Ok(Some(period))
}

/// A Daemon speaks to the manager.
static IS_CLAIMED: AtomicBool = AtomicBool::new(false);

pub(in crate::daemon) const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
const WATCHDOG_USEC: &str = "WATCHDOG_USEC";
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// A third of it has to be longer than an ordinary turn of the loop.
const SHORTEST_PERIOD: Duration = Duration::from_millis(50);

/// How many characters of a verdict are kept: it may have the text of an error in it.
const LONGEST_VERDICT: usize = 500;

/// How often a status is sent at most.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// How often the manager hears that the end takes longer, and how much longer at a time.
const EXTEND_EVERY: Duration = Duration::from_secs(1);
const EXTEND_BY: Duration = Duration::from_secs(4);

/// How soon it is tried again to send what the manager has to know.
const RETRY: Duration = Duration::from_millis(100);

/// Returns the number that process `pid` alone has, if the system tells.
#[cfg(target_os = "linux")]
fn number_of(pid: i32) -> Option<u64> {
    crate::sys::pidfd::inode(pid)
}

#[cfg(not(target_os = "linux"))]
fn number_of(_: i32) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests;

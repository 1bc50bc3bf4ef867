//! What a service manager is told, in systemd's protocol: sd_notify(3).
//!
//! A manager is told when the server is ready, when it ends, what it does, and that it lives. Only the parent process tells it
//! anything: children do not have the socket.

mod health;
mod socket;
mod text;

use std::ffi::OsStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(in crate::daemon) use health::{Health, Ill, Sight};
pub(in crate::daemon) use text::{Counts, status};

use crate::environment;
use crate::error::Error;
use socket::{ManagerSocket, Sent};

/// The service manager that has started this process.
#[derive(Debug)]
pub(in crate::daemon) struct Manager {
    /// `None` if it has no address that can be reached.
    socket: Option<ManagerSocket>,
    /// How often it wants to hear that the server lives.
    watchdog: Option<Watchdog>,
    /// The last status that was sent, and when.
    status: String,
    status_at: Option<Duration>,
    /// Something has happened since.
    is_dirty: bool,
    /// It knows that the server is ready, or ends.
    said: Said,
    /// What it must hear, and could not be sent.
    owed: Option<String>,
    /// When it was last told that the end takes longer.
    extended_at: Option<Duration>,
    /// The log knows that it can't be reached.
    is_loss_told: bool,
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
            socket,
            watchdog: period.map(|period| Watchdog { every: period / 3, last: None }),
            status: String::new(),
            status_at: None,
            is_dirty: false,
            said: Said::Nothing,
            owed: None,
            extended_at: None,
            is_loss_told: false,
        }))
    }

    /// The server is ready for clients. Said once.
    pub(in crate::daemon) fn ready(&mut self, now: Duration, status: &str) {
        if self.said != Said::Nothing {
            return;
        }
        self.said = Said::Ready;
        self.say_surely(format!("READY=1\nSTATUS={status}"));
        status.clone_into(&mut self.status);
        self.status_at = Some(now);
        // Its clock begins with this.
        self.ping(now);
    }

    /// The server ends, and nothing can change that any more. Said once.
    pub(in crate::daemon) fn stopping(&mut self, status: &str) {
        if self.said == Said::Stopping {
            return;
        }
        self.said = Said::Stopping;
        self.say_surely(format!("STOPPING=1\nSTATUS={status}"));
    }

    /// The Daemon was not spawned. Another one may be.
    pub(in crate::daemon) fn gives_way(mut self, cause: &str) {
        self.failed(cause);
        IS_CLAIMED.store(false, Ordering::Relaxed);
    }

    /// The start has failed, or the server could not go on.
    pub(in crate::daemon) fn failed(&mut self, cause: &str) {
        let cause = text::one_line(cause);
        self.say(&format!("STATUS={cause}\nEXIT_STATUS=1"));
    }

    /// The end takes longer: children still work.
    pub(in crate::daemon) fn extend(&mut self, now: Duration, left: Duration) {
        let is_due = self.extended_at.is_none_or(|last| now >= last + EXTEND_EVERY);
        if self.said != Said::Stopping || !is_due || left.is_zero() {
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
        self.is_dirty && self.said != Said::Nothing && self.status_at.is_none_or(|last| now >= last + STATUS_EVERY)
    }

    /// Sends a status, unless it is the one that was sent last.
    pub(in crate::daemon) fn say_status(&mut self, now: Duration, status: String) {
        self.is_dirty = false;
        if status == self.status {
            return;
        }
        self.say(&format!("STATUS={status}"));
        self.status = status;
        self.status_at = Some(now);
    }

    /// Tells whether the manager waits to hear that the server lives.
    pub(in crate::daemon) fn ping_is_due(&self, now: Duration) -> bool {
        let is_due = |watchdog: &Watchdog| watchdog.last.is_none_or(|last| now >= last + watchdog.every);
        self.said != Said::Nothing && self.watchdog.as_ref().is_some_and(is_due)
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
        if let Some(owed) = self.owed.take() {
            self.say_surely(owed);
        }
    }

    /// Returns when there is something to do next; `None` if only something that happens can bring it about.
    pub(in crate::daemon) fn next_due(&self, now: Duration) -> Option<Duration> {
        let owed = self.owed.is_some().then_some(RETRY);
        let left = |last: Option<Duration>, every: Duration| {
            last.map_or(Duration::ZERO, |last| (last + every).saturating_sub(now))
        };
        let is_told = self.said != Said::Nothing;
        let status = (is_told && self.is_dirty).then(|| left(self.status_at, STATUS_EVERY));
        let ping = self.watchdog.as_ref().filter(|_| is_told).map(|watchdog| left(watchdog.last, watchdog.every));
        let extension = (self.said == Said::Stopping).then(|| left(self.extended_at, EXTEND_EVERY));
        owed.into_iter().chain(status).chain(ping).chain(extension).min()
    }

    /// Sends what the manager has to know: it is tried again until it is sent.
    fn say_surely(&mut self, message: String) {
        if self.say(&message) == Sent::No {
            self.owed = Some(message);
        }
    }

    fn say(&mut self, message: &str) -> Sent {
        // It is not to hear of what comes later first.
        if self.owed.is_some() {
            self.retry();
        }
        let Some(socket) = &self.socket else { return Sent::Never };
        match socket.send(message) {
            Ok(()) => {
                self.is_loss_told = false;
                Sent::Yes
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_loss_told, true) {
                    log::warn!(target: "lenore::daemon", "the service manager can't be told for now: {error}");
                }
                Sent::No
            }
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

/// How often a status is sent at most.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// How often the manager hears that the end takes longer, and how much longer at a time.
const EXTEND_EVERY: Duration = Duration::from_secs(1);
const EXTEND_BY: Duration = Duration::from_secs(4);

/// How soon it is tried again to send what the manager has to know.
const RETRY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;

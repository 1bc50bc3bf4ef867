//! Registering sources with the poller, and its reports.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use mio::event::Event as Report;
use mio::unix::SourceFd;
use mio::{Events, Poll, Token};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use super::{Entry, Sources};
use crate::error::Error;
use crate::kernel::core::Core;
use crate::kernel::source::{Readiness, SourceKey, Wanted};

/// How many sources one call of the poller reports at most.
const EVENTS: usize = 256;

/// The token of the kernel's own signal pipe.
const SIGNALS: Token = Token(usize::MAX);

impl Entry {
    /// Asks the system whether a read would find something.
    #[cold]
    fn has_input(&self) -> bool {
        // A descriptor that is not a socket refuses the call. It has no urgent data.
        recv(self.source.fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) != Err(Errno::EAGAIN)
    }
}

impl Sources {
    /// Makes the poller report readiness again that it has already reported. So a watcher's event recurs while its
    /// handle is ready, although the poller is edge-triggered.
    pub(crate) fn rearm(&mut self, key: SourceKey) {
        let Some(entry) = self.get(key) else { return };
        if entry.always_ready {
            let Some(wanted) = entry.source.wanted() else { return };
            Readiness::ALL
                .into_iter()
                .filter(|readiness| wanted.has(*readiness))
                .for_each(|readiness| self.requeue(key, readiness));
        } else if let (Some(wanted), Some(registered)) = (entry.source.wanted(), entry.registered) {
            if wanted == registered {
                let fd = entry.source.fd();
                let registry = self.poll.registry();
                let again = |interest| registry.reregister(&mut SourceFd(&fd), key.token(), interest);
                if let Err(error) = wanted.interest().and_then(again) {
                    log::error!(target: "lenore::sources", "can't watch descriptor {fd} again: {error}");
                }
            } else {
                self.stale.push(key);
            }
        }
    }

    /// Returns the descriptor of the poller.
    pub(crate) fn poller(&self) -> RawFd {
        self.poll.as_raw_fd()
    }

    /// Brings what the poller watches in line with what the source wants.
    pub(crate) fn sync(&mut self, key: SourceKey) -> Result<(), Error> {
        let Some(entry) = self.get(key) else { return Ok(()) };
        let (wanted, registered, fd) = (self.wanted_of(entry), entry.registered, entry.source.fd());
        if entry.always_ready {
            self.rearm(key);
            return Ok(());
        }
        if wanted == registered {
            return Ok(());
        }
        log::trace!(target: "lenore::sources", "descriptor {fd}: {}", wanted.map_or("not watched".into(), |w| format!("{w:?}")));
        let registry = self.poll.registry();
        let done = match (registered, wanted) {
            (None, None) => Ok(()),
            (None, Some(wanted)) if wanted.is_shared() => add_shared(&self.poll, fd, key.token()),
            (None, Some(wanted)) => {
                wanted.interest().and_then(|interest| registry.register(&mut SourceFd(&fd), key.token(), interest))
            }
            (Some(_), None) => registry.deregister(&mut SourceFd(&fd)),
            // A shared registration can't be changed.
            (Some(before), Some(wanted)) if before.is_shared() || wanted.is_shared() => {
                self.deregister(key);
                return self.sync(key);
            }
            (Some(_), Some(wanted)) => {
                wanted.interest().and_then(|interest| registry.reregister(&mut SourceFd(&fd), key.token(), interest))
            }
        };
        let mut always_ready = false;
        match done {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(Errno::EPERM as i32) => always_ready = true,
            Err(error) => return Err(Error::os("epoll_ctl", format_args!("descriptor {fd}"), error)),
        }
        let entry = &mut self.entries[key.index()];
        entry.registered = if always_ready { None } else { wanted };
        entry.always_ready = always_ready;
        if always_ready {
            self.rearm(key);
        }
        Ok(())
    }

    /// Returns the readiness for which a source is watched: the one that it wants, or for a paused listener the one
    /// that sessions have asked about.
    pub(super) fn wanted_of(&self, entry: &Entry) -> Option<Wanted> {
        let is_asked = || self.backlog.is_awaited() && entry.source.is_listener();
        entry.source.wanted().or_else(|| is_asked().then_some(Wanted::BACKLOG))
    }

    pub(in crate::kernel) fn is_registered_for_backlog(&self, key: SourceKey) -> bool {
        self.get(key).is_some_and(|entry| entry.registered == Some(Wanted::BACKLOG))
    }

    /// Takes the paused listeners out of the poller. When they come back, the poller reports those that are ready once
    /// more.
    pub(in crate::kernel) fn deregister_backlog(&mut self) {
        for key in self.listeners() {
            if self.is_registered_for_backlog(key) {
                self.deregister(key);
            }
        }
    }

    /// Tells the poller what has changed since the last poll. A handle that was paused and resumed costs nothing.
    pub(in crate::kernel) fn sync_stale(&mut self) {
        if self.stale.is_empty() {
            return;
        }
        for key in std::mem::take(&mut self.stale) {
            if let Err(error) = self.sync(key) {
                log::error!(target: "lenore::sources", "{error}");
            }
        }
    }

    /// Finds the source to which a token belongs, unless it is closed.
    fn key_of(&self, token: Token) -> Option<SourceKey> {
        self.entries.get(SourceKey::index_of(token)).map(|entry| entry.key).filter(|key| key.token() == token)
    }

    /// Notes one report of the poller.
    fn note(&mut self, key: SourceKey, report: &Report) {
        if self.takes_for_backlog(key) {
            return;
        }
        let is_urgent = is_urgent(report);
        // mio reports urgent data as readable. If there is only urgent data, there is nothing to read, and a read might
        // block.
        let is_readable = report.is_readable() && (!is_urgent || self.get(key).is_some_and(Entry::has_input));
        let reading = is_readable || report.is_read_closed() || report.is_error();
        let writing = report.is_writable() || report.is_write_closed() || report.is_error();
        if report.is_read_closed() || report.is_error() || is_urgent {
            self.get(key).inspect(|entry| entry.source.short_reads());
        }
        if reading {
            self.requeue(key, Readiness::Read);
        }
        if writing {
            self.requeue(key, Readiness::Write);
        }
        // The reader is told of urgent data as well.
        let wants = |entry: &Entry| entry.registered.is_some_and(|wanted| wanted.has(Readiness::Expedite));
        if is_urgent && self.get(key).is_some_and(wants) {
            self.requeue(key, Readiness::Expedite);
        }
    }

    pub(super) fn deregister(&mut self, key: SourceKey) {
        let entry = self.entry_mut(key);
        let Some(entry) = entry.filter(|entry| entry.registered.is_some()) else { return };
        let fd = entry.source.fd();
        entry.registered = None;
        if let Err(error) = self.poll.registry().deregister(&mut SourceFd(&fd)) {
            log::warn!(target: "lenore::sources", "can't stop watching descriptor {fd}: {error}");
        }
    }

    /// Takes a poller of this process's own in place of its parent's.
    pub(super) fn renew_poll(&mut self) -> Result<(), Error> {
        let parents = std::mem::replace(&mut self.poll, new_poll()?);
        if cfg!(not(target_os = "linux")) {
            // A kqueue is not inherited. Its number is free in the child, and the new kqueue most likely has it by now.
            std::mem::forget(parents);
        }
        Ok(())
    }
}

impl Core {
    /// Registers the signal pipe with the poller.
    pub(crate) fn watch_signal_pipe(&mut self) -> Result<(), Error> {
        self.signals.delivery.register(self.sources.poll.registry(), SIGNALS)
    }

    /// Waits for readiness at most `wait` (`None`: for ever), and notes it. Tells whether a signal has arrived.
    pub(in crate::kernel) fn poll(&mut self, wait: Option<Duration>) -> Result<bool, Error> {
        // Taken out of `self`, because `note` needs the rest of it.
        let mut events = self.sources.events.take().unwrap_or_else(|| Events::with_capacity(EVENTS));
        let polled = self.sources.poll.poll(&mut events, wait);
        let mut signalled = false;
        if polled.is_ok() {
            for report in &events {
                match report.token() {
                    SIGNALS => signalled = true,
                    token => self.sources.key_of(token).into_iter().for_each(|key| self.sources.note(key, report)),
                }
            }
        }
        self.sources.events = Some(events);
        match polled {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(false),
            Err(error) => return Err(Error::os("epoll_wait", "", error)),
        }
        self.tell_of_backlog();
        Ok(signalled)
    }
}

pub(super) fn new_poll() -> Result<Poll, Error> {
    Poll::new().map_err(|error| Error::os("epoll_create", "", error))
}

/// Tells whether the poller has seen urgent data.
#[cfg(target_os = "linux")]
fn is_urgent(report: &Report) -> bool {
    report.is_priority()
}

/// Other systems do not report urgent data.
#[cfg(not(target_os = "linux"))]
fn is_urgent(_: &Report) -> bool {
    false
}

/// Watches a listener such that the system wakes one of the processes that watch it, not all.
#[cfg(target_os = "linux")]
fn add_shared(poll: &Poll, fd: RawFd, token: Token) -> io::Result<()> {
    crate::sys::exclusive::Exclusive(fd).register_with(poll.registry(), token)
}

/// Elsewhere all of them wake, and all but one find nothing.
#[cfg(not(target_os = "linux"))]
fn add_shared(poll: &Poll, fd: RawFd, token: Token) -> io::Result<()> {
    poll.registry().register(&mut SourceFd(&fd), token, mio::Interest::READABLE)
}

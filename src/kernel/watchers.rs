//! `select_read`, `select_write` and `select_expedite`: watching a descriptor of the program's own, as long as it is ready.

use std::cell::{Cell, RefCell};
use std::mem::forget;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};

use super::core::Core;
use super::few::Few;
use super::handle::{Handle, has_input};
use super::peek::MOST_SHOWN;
use super::sessions::SessionId;
use super::set_nonblocking;
use super::source::{AfterFork, Readiness, Source, SourceKey, Wanted};
use super::turn::{Delivery, Next, Turn};
use crate::args::{IntoArgs, Template};
use crate::calls::calls;
use crate::destroy::{destroy, destroy_all};
use crate::error::Error;
use crate::name::{EventOrNone, Name};
use crate::sys::accept_queue::{self, AcceptQueue};
use crate::sys::disconnect::disconnect;

/// A watched descriptor and the sessions that watch it.
pub(crate) struct Watched {
    handle: RefCell<Option<Handle>>,
    watchers: RefCell<Few<(SessionId, Readiness), Watcher>>,
    /// By readiness: how many watch for it.
    counts: [Cell<usize>; 3],
    paused_read: Cell<bool>,
    paused_write: Cell<bool>,
    /// There is no pause for urgent data (K-IO-15).
    never_paused: Cell<bool>,
    /// Watching it keeps no session alive.
    weak: bool,
}

/// Whether a watched descriptor keeps its session alive.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strength {
    Strong,
    Weak,
}

#[derive(Clone)]
struct Watcher {
    event: Name,
    extra: Template,
}

impl Watched {
    fn paused(&self, readiness: Readiness) -> &Cell<bool> {
        match readiness {
            Readiness::Read => &self.paused_read,
            Readiness::Write => &self.paused_write,
            Readiness::Expedite => &self.never_paused,
        }
    }

    fn is_watched(&self, readiness: Readiness) -> bool {
        self.counts[readiness as usize].get() > 0
    }

    fn watcher(&self, session: SessionId, readiness: Readiness) -> Option<Watcher> {
        self.watchers.borrow().get((session, readiness)).cloned()
    }

    /// Adds a watcher, or replaces the session's for the same readiness.
    fn add(&self, session: SessionId, readiness: Readiness, watcher: Watcher) {
        let former = self.watchers.borrow_mut().insert((session, readiness), watcher);
        let count = &self.counts[readiness as usize];
        count.set(count.get() + usize::from(former.is_none()));
    }

    fn remove(&self, session: SessionId, readiness: Readiness) -> Option<Watcher> {
        let watcher = self.watchers.borrow_mut().remove((session, readiness))?;
        let count = &self.counts[readiness as usize];
        count.set(count.get() - 1);
        Some(watcher)
    }

    /// Returns the sessions that watch for `readiness`, in the order in which they began to.
    fn sessions(&self, readiness: Readiness) -> Vec<SessionId> {
        self.watchers.borrow().keys().filter(|(_, other)| *other == readiness).map(|(session, _)| session).collect()
    }

    fn has(&self, session: SessionId) -> bool {
        let watchers = self.watchers.borrow();
        Readiness::ALL.into_iter().any(|readiness| watchers.has((session, readiness)))
    }
}

impl Source for Watched {
    fn fd(&self) -> RawFd {
        self.handle.borrow().as_ref().map_or(-1, |handle| handle.as_raw_fd())
    }

    fn wanted(&self) -> Option<Wanted> {
        let wants = |readiness| self.is_watched(readiness) && !self.paused(readiness).get();
        Wanted::of(wants(Readiness::Read), wants(Readiness::Write), wants(Readiness::Expedite))
    }

    fn keeps_owner(&self) -> bool {
        // Each watcher keeps its own session alive.
        false
    }

    fn turn(&self, cx: &mut Turn<'_>, readiness: Readiness) -> Next {
        let Some(handle) = self.handle.borrow().clone() else { return Next::Wait };
        for session in self.sessions(readiness) {
            // An earlier session's state may have ended, changed or paused this session's watching.
            let Some(watcher) = self.watcher(session, readiness).filter(|_| !self.paused(readiness).get()) else {
                continue;
            };
            let is_done = match watcher.extra.copy() {
                Ok(extra) => {
                    let args = (handle.clone(), readiness).into_args().chain(extra);
                    cx.kernel.dispatch_from_source(session, watcher.event, None, args)
                }
                Err(exception) => {
                    cx.kernel.die_in_source(session, watcher.event, exception);
                    false
                }
            };
            destroy(watcher);
            if cx.outcome(is_done) == Delivery::Over {
                break;
            }
        }
        Next::Recheck
    }

    fn close(&self) {
        self.handle.take();
        destroy_all(self.watchers.take().take_all());
        self.counts.iter().for_each(|count| count.set(0));
    }

    fn is_listener(&self) -> bool {
        self.handle.borrow().as_ref().is_some_and(|handle| getsockopt(handle, sockopt::AcceptConn) == Ok(true))
    }

    fn has_client(&self) -> bool {
        self.handle.borrow().as_ref().is_some_and(has_input)
    }

    fn queue(&self) -> nix::Result<AcceptQueue> {
        self.handle.borrow().as_ref().map_or(Err(Errno::EBADF), |handle| accept_queue::read(handle.as_fd()))
    }

    fn fork(&self) -> AfterFork {
        AfterFork::Keep
    }

    fn describe(&self) -> String {
        let watchers = self.watchers.borrow();
        let one = |((session, readiness), watcher): ((SessionId, Readiness), &Watcher)| {
            let verb = match readiness {
                Readiness::Read => "read",
                Readiness::Write => "write",
                Readiness::Expedite => "expedite",
            };
            let paused = if self.paused(readiness).get() { ", paused" } else { "" };
            format!("{session} {verb} -> {}{paused}", watcher.event)
        };
        let names: Vec<String> = watchers.iter().take(MOST_SHOWN).map(one).collect();
        let more = match watchers.len().saturating_sub(MOST_SHOWN) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        format!("select {}{more}", names.join("; "))
    }
}

calls! {
    /// Watching descriptors.
    for a running session, with self:

    /// Sends the running session `event` in every slice in which `handle` can be read or is at its end.
    ///
    /// The state gets ARG0 = the [`Handle`], ARG1 = [`Readiness::Read`], then a copy of `extra`. It runs as soon as the
    /// kernel finds the handle ready, not through the queue. The kernel makes the handle non-blocking. A second call
    /// for the same handle replaces the event and the extra arguments, and ends a pause. A watched handle keeps its
    /// session alive.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] when the descriptor can't be watched; [`Error::NoActiveSession`] once the
    /// session has stopped.
    ///
    /// POE: `select_read` with an event.
    pub fn select_read(
        &mut self,
        handle: &Handle,
        event: impl Into<Name>,
        extra: impl IntoArgs + Clone + 'static,
    ) -> Result<(), Error> {
        self.watch(handle, Readiness::Read, event.into(), Template::new(extra), Strength::Strong)
    }

    /// Does what [`select_read`](crate::Context::select_read) does, without keeping the session or the program alive.
    ///
    /// Use it for a handle that matters only as long as the program has something else to do. The first call for a
    /// handle decides whether all its watching is weak.
    ///
    /// # Errors
    ///
    /// As [`select_read`](crate::Context::select_read).
    ///
    /// POE: nothing like it.
    pub fn select_read_weak(
        &mut self,
        handle: &Handle,
        event: impl Into<Name>,
        extra: impl IntoArgs + Clone + 'static,
    ) -> Result<(), Error> {
        self.watch(handle, Readiness::Read, event.into(), Template::new(extra), Strength::Weak)
    }

    /// Sends the running session `event` in every slice in which `handle` can be written.
    ///
    /// Otherwise it is as [`select_read`](crate::Context::select_read).
    ///
    /// # Errors
    ///
    /// As [`select_read`](crate::Context::select_read).
    ///
    /// POE: `select_write` with an event.
    pub fn select_write(
        &mut self,
        handle: &Handle,
        event: impl Into<Name>,
        extra: impl IntoArgs + Clone + 'static,
    ) -> Result<(), Error> {
        self.watch(handle, Readiness::Write, event.into(), Template::new(extra), Strength::Strong)
    }

    /// Sends the running session `event` in every slice in which `handle` has urgent data.
    ///
    /// Urgent data is a TCP connection's out-of-band byte. Otherwise it is as
    /// [`select_read`](crate::Context::select_read).
    ///
    /// # Errors
    ///
    /// As [`select_read`](crate::Context::select_read); `EOPNOTSUPP` except on Linux.
    ///
    /// POE: `select_expedite` with an event.
    pub fn select_expedite(
        &mut self,
        handle: &Handle,
        event: impl Into<Name>,
        extra: impl IntoArgs + Clone + 'static,
    ) -> Result<(), Error> {
        self.watch(handle, Readiness::Expedite, event.into(), Template::new(extra), Strength::Strong)
    }

    /// Sets the events for reading, for writing and for urgent data at once; `None` ends that kind of watching.
    ///
    /// ```
    /// # use std::os::unix::net::UnixStream;
    /// # use lenore::{Handle, Kernel, Session};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (ours, _theirs) = UnixStream::pair()?;
    /// # let mut kernel = Kernel::new()?;
    /// Session::new(Handle::new(ours))
    ///     .state("_start", |cx| {
    ///         let handle = cx.heap().clone();
    ///         cx.select(&handle, "readable", "writable", None, ())?;
    ///         Ok(())
    ///     })
    ///     .state("writable", |cx| {
    ///         let handle = cx.heap().clone();
    ///         cx.select(&handle, None, None, None, ())?;
    ///         Ok(())
    ///     })
    ///     .spawn(&mut kernel)?;
    /// kernel.run()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`select_read`](crate::Context::select_read); the kinds before the one that failed are set.
    ///
    /// POE: `select`.
    pub fn select(
        &mut self,
        handle: &Handle,
        read: impl Into<EventOrNone>,
        write: impl Into<EventOrNone>,
        expedite: impl Into<EventOrNone>,
        extra: impl IntoArgs + Clone + 'static,
    ) -> Result<(), Error> {
        let extra = Template::new(extra);
        for (readiness, event) in Readiness::ALL.into_iter().zip([read.into(), write.into(), expedite.into()]) {
            match event.name() {
                Some(event) => self.watch(handle, readiness, event, extra.clone(), Strength::Strong)?,
                None => self.unselect(handle, readiness),
            }
        }
        Ok(())
    }

    /// Ends the running session's watching of `handle` for urgent data, if it does that.
    ///
    /// POE: `select_expedite` without an event.
    pub fn select_expedite_clear(&mut self, handle: &Handle) {
        self.unselect(handle, Readiness::Expedite);
    }

    /// Ends the running session's watching of `handle` for reading, if it does that.
    ///
    /// POE: `select_read` without an event.
    pub fn select_read_clear(&mut self, handle: &Handle) {
        self.unselect(handle, Readiness::Read);
    }

    /// Ends the running session's watching of `handle` for writing, if it does that.
    ///
    /// POE: `select_write` without an event.
    pub fn select_write_clear(&mut self, handle: &Handle) {
        self.unselect(handle, Readiness::Write);
    }

    /// Stops the events of all sessions that watch `handle` for reading, until they are resumed.
    ///
    /// [`select_resume_read`](crate::Context::select_resume_read) resumes them. Returns whether any session watches the
    /// handle for reading. A paused watcher still keeps its session alive.
    ///
    /// POE: `select_pause_read`.
    pub fn select_pause_read(&mut self, handle: &Handle) -> bool {
        self.pause(handle, Readiness::Read, true)
    }

    /// Undoes [`select_pause_read`](crate::Context::select_pause_read), and returns whether any session watches.
    ///
    /// POE: `select_resume_read`.
    pub fn select_resume_read(&mut self, handle: &Handle) -> bool {
        self.pause(handle, Readiness::Read, false)
    }

    /// Stops the events of all sessions that watch `handle` for writing, until they are resumed.
    ///
    /// [`select_resume_write`](crate::Context::select_resume_write) resumes them. Returns whether any session watches
    /// the handle for writing. A paused watcher still keeps its session alive.
    ///
    /// POE: `select_pause_write`.
    pub fn select_pause_write(&mut self, handle: &Handle) -> bool {
        self.pause(handle, Readiness::Write, true)
    }

    /// Undoes [`select_pause_write`](crate::Context::select_pause_write), and returns whether any session watches.
    ///
    /// POE: `select_resume_write`.
    pub fn select_resume_write(&mut self, handle: &Handle) -> bool {
        self.pause(handle, Readiness::Write, false)
    }
}

impl Core {
    /// Does what `select_write` does, as weakly as `select_read_weak`.
    #[cfg(feature = "control")]
    pub(crate) fn select_write_weak(
        &mut self,
        handle: &Handle,
        event: impl Into<Name>,
        extra: impl IntoArgs + Clone + 'static,
    ) -> Result<(), Error> {
        self.watch(handle, Readiness::Write, event.into(), Template::new(extra), Strength::Weak)
    }

    fn watch(
        &mut self,
        handle: &Handle,
        readiness: Readiness,
        event: Name,
        extra: Template,
        strength: Strength,
    ) -> Result<(), Error> {
        let session = self.active.session;
        if session == SessionId::KERNEL {
            return Err(Error::NoActiveSession);
        }
        let (key, watched) = match self.watched(handle) {
            Some(found) => found,
            None => self.watch_descriptor(handle, strength == Strength::Weak)?,
        };
        let is_new_here = !watched.has(session);
        let watcher = Watcher { event, extra };
        watched.add(session, readiness, watcher);
        watched.paused(readiness).set(false);
        if is_new_here {
            let hold = if watched.weak { None } else { self.sessions.hold(session) };
            self.sources.watched_by.entry(session).or_default().insert(handle.as_raw_fd(), hold);
        }
        // At once and not before the next poll: the caller is to hear of a descriptor that can't be watched.
        self.sources.sync(key).inspect_err(|_| self.unselect(handle, readiness))
    }

    fn watch_descriptor(&mut self, handle: &Handle, weak: bool) -> Result<(SourceKey, Rc<Watched>), Error> {
        let fd = handle.as_raw_fd();
        set_nonblocking(handle).map_err(|error| Error::os("fcntl", format_args!("descriptor {fd}"), error))?;
        let watched = Rc::new(Watched {
            handle: RefCell::new(Some(handle.clone())),
            watchers: RefCell::default(),
            counts: Default::default(),
            paused_read: Cell::default(),
            paused_write: Cell::default(),
            never_paused: Cell::default(),
            weak,
        });
        // Owned by the kernel: several sessions may share it, and each is held by its own watchers.
        let source: Rc<dyn Source> = watched.clone();
        let key = self.add_source(SessionId::KERNEL, |_| source)?;
        self.sources.watched_fds.insert(fd, (key, watched.clone()));
        Ok((key, watched))
    }

    fn watched(&self, handle: &Handle) -> Option<(SourceKey, Rc<Watched>)> {
        self.sources.watched_fds.get(&handle.as_raw_fd()).cloned()
    }

    fn unselect(&mut self, handle: &Handle, readiness: Readiness) {
        let me = self.active.session;
        self.end_watching(handle.as_raw_fd(), me, &[readiness]);
    }

    /// Ends all watching of a stopping session.
    pub(crate) fn remove_watchers_of(&mut self, session: SessionId) {
        let Some(fds) = self.sources.watched_by.get(&session) else { return };
        let fds: Vec<RawFd> = fds.keys().collect();
        fds.into_iter().for_each(|fd| self.end_watching(fd, session, &Readiness::ALL));
    }

    /// Leaks the extra arguments of a session's watchers.
    pub(super) fn forget_extras_of_watchers(&self, session: SessionId) {
        let fds = self.sources.watched_by.get(&session).into_iter().flat_map(|fds| fds.keys());
        for (_, watched) in fds.filter_map(|fd| self.sources.watched_fds.get(&fd)) {
            let watchers = watched.watchers.borrow();
            // A clone that is never dropped keeps what the clones share.
            watchers
                .iter()
                .filter(|((owner, _), _)| *owner == session)
                .for_each(|(_, watcher)| forget(watcher.clone()));
        }
    }

    /// Returns the descriptors that a session watches and that keep it alive, sorted.
    pub(crate) fn watched_by(&self, session: SessionId) -> Vec<RawFd> {
        let Some(fds) = self.sources.watched_by.get(&session) else { return Vec::new() };
        let mut fds: Vec<RawFd> = fds.iter().filter(|(_, hold)| hold.is_some()).map(|(fd, _)| fd).collect();
        fds.sort_unstable();
        fds
    }

    /// Ends all watching of a descriptor, and puts a socket in its place that does nothing, because the descriptor's
    /// owner still has the number. Returns whether `key` names a watched descriptor.
    pub(crate) fn close_watched(&mut self, key: SourceKey) -> bool {
        let Some(fd) = self.sources.source(key).map(|source| source.fd()) else { return false };
        let found = self.sources.watched_fds.get(&fd).filter(|(other, _)| *other == key);
        let Some(watched) = found.map(|(_, watched)| Rc::clone(watched)) else { return false };
        let handle = watched.handle.borrow().clone();
        let sessions: Vec<SessionId> = watched.watchers.borrow().keys().map(|(session, _)| session).collect();
        for session in sessions {
            self.end_watching(fd, session, &Readiness::ALL);
        }
        let replaced = handle.map_or(Ok(()), |handle| disconnect(&handle));
        if let Err(error) = replaced {
            log::error!(target: "lenore::sources", "descriptor {fd} stays open: {error}");
        }
        true
    }

    /// Ends a session's watching of a descriptor for these kinds.
    fn end_watching(&mut self, fd: RawFd, session: SessionId, kinds: &[Readiness]) {
        let Some((key, watched)) = self.sources.watched_fds.get(&fd).cloned() else { return };
        // Dropped at the end, when the tables are in order: the extra arguments are the program's own.
        let gone: Vec<Watcher> = kinds.iter().filter_map(|readiness| watched.remove(session, *readiness)).collect();
        if !gone.is_empty()
            && !watched.has(session)
            && let Some(fds) = self.sources.watched_by.get_mut(&session)
        {
            fds.remove(fd);
            if fds.is_empty() {
                self.sources.watched_by.remove(&session);
            }
        }
        if watched.watchers.borrow().is_empty() {
            self.sources.watched_fds.remove(&fd);
            self.remove_source(key);
        } else {
            self.mailbox().changed(key);
        }
        destroy_all(gone);
    }

    fn pause(&mut self, handle: &Handle, readiness: Readiness, paused: bool) -> bool {
        let Some((key, watched)) = self.watched(handle).filter(|(_, watched)| watched.is_watched(readiness)) else {
            return false;
        };
        watched.paused(readiness).set(paused);
        self.mailbox().changed(key);
        true
    }
}

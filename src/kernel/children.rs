//! Child processes: which session waits for which pid, and reaping.

use std::cell::Cell;
use std::mem::forget;
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use rustc_hash::FxHashMap;

use super::core::Core;
use super::few::Few;
use super::holds::{ChildProcess, Hold};
use super::queue::Kind;
use super::sessions::SessionId;
use crate::args::{Args, IntoArgs};
use crate::calls::calls;
use crate::name::Name;
#[cfg(target_os = "linux")]
use crate::sys::procfs::{children_of_this_process, name_of};
#[cfg(feature = "control")]
use crate::sys::wait::reap_with_usage;
use crate::sys::wait::{Which, peek_ended, reap, wait_for_end_at_most};

/// The registrations of `sig_child`, and the children that the kernel reaps in any case.
#[derive(Default)]
pub(crate) struct Children {
    /// By pid.
    watches: FxHashMap<i32, Few<SessionId, ChildWatch>>,
    /// For which pids each session waits.
    awaited_by: FxHashMap<SessionId, Few<i32, ()>>,
    /// How many registrations there are.
    registered: usize,
    /// How many watch CHLD for children that may be registered later.
    expecting: usize,
    /// By pid.
    adopted: FxHashMap<i32, Adopted>,
    /// The awaited child that the last look found.
    seen: Cell<Option<i32>>,
    /// A child may have exited before the kernel caught SIGCHLD: look once without a signal (K-SG-52).
    pub(crate) look: bool,
    /// A child that was forked when the kernel already caught SIGCHLD: the system will tell of its end.
    pub(super) announced: Option<i32>,
    /// A child that may go on when this process has ended.
    outliving: Option<i32>,
    /// The session that wants to know the processor time of its children, and the times known so far, by pid.
    #[cfg(feature = "control")]
    spent: Option<(SessionId, FxHashMap<i32, Duration>)>,
}

/// A child that is reaped in any case, and the session that has started it.
struct Adopted {
    child: Process,
    owner: SessionId,
}

pub(crate) struct ChildWatch {
    pub(crate) pid: i32,
    pub(crate) session: SessionId,
    pub(crate) event: Name,
    extra: Args,
    _hold: Option<Hold<ChildProcess>>,
}

impl ChildWatch {
    /// Drops the watch, but leaks its extra arguments.
    pub(super) fn forget_extra(self) {
        forget(self.extra);
    }
}

/// A child process that the kernel reaps whether or not a session waits for it. Clones share what is known of it.
#[derive(Clone)]
pub(crate) struct Process {
    pid: i32,
    life: Rc<Cell<Life>>,
}

/// What has become of a child process.
#[derive(Clone, Copy)]
enum Life {
    /// It runs, or has ended and was not reaped: no other process can have its pid.
    Unreaped,
    Reaped(ExitStatus),
    /// Other code has reaped it, or it is the child of the process that this one was forked from.
    Lost,
}

impl Process {
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Returns how it ended, once the kernel has reaped it.
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        match self.life.get() {
            Life::Reaped(status) => Some(status),
            Life::Unreaped | Life::Lost => None,
        }
    }

    /// Sends it a signal, unless its pid may belong to another process by now.
    ///
    /// # Errors
    ///
    /// `ESRCH` once it was reaped, and in a forked process, which is not its parent.
    pub(crate) fn kill(&self, signal: Signal) -> nix::Result<()> {
        kill(self.unreaped()?, signal)
    }

    /// Sends a signal to the process group that it leads; otherwise as [`kill`](Process::kill).
    pub(crate) fn kill_group(&self, signal: Signal) -> nix::Result<()> {
        killpg(self.unreaped()?, signal)
    }

    /// Waits at most `limit` for it to end, and returns whether it has. This neither reaps it nor tells the sessions
    /// that wait for it.
    pub(crate) fn wait(&self, limit: Duration) -> nix::Result<bool> {
        wait_for_end_at_most(self.unreaped()?.as_raw(), limit)
    }

    fn unreaped(&self) -> nix::Result<Pid> {
        match self.life.get() {
            Life::Unreaped => Ok(Pid::from_raw(self.pid)),
            Life::Reaped(_) | Life::Lost => Err(Errno::ESRCH),
        }
    }
}

impl Children {
    /// Returns the child processes for which a session waits, in the order in which it began to.
    pub(crate) fn awaited_by(&self, session: SessionId) -> impl Iterator<Item = i32> {
        self.awaited_by.get(&session).into_iter().flat_map(Few::keys)
    }

    fn wants(&self, pid: i32) -> bool {
        self.watches.contains_key(&pid) || self.adopted.contains_key(&pid)
    }

    /// Returns the number of registrations, present and expected, and of adopted children. Each counts as a watcher of
    /// CHLD.
    fn registrations(&self) -> usize {
        self.registered + self.expecting + self.adopted.len()
    }

    fn add(&mut self, watch: ChildWatch) -> Option<ChildWatch> {
        let (pid, session) = (watch.pid, watch.session);
        self.awaited_by.entry(session).or_default().insert(pid, ());
        let former = self.watches.entry(pid).or_default().insert(session, watch);
        self.registered += usize::from(former.is_none());
        former
    }

    fn remove(&mut self, pid: i32, session: SessionId) -> Option<ChildWatch> {
        let watchers = self.watches.get_mut(&pid)?;
        let watch = watchers.remove(session)?;
        self.registered -= 1;
        if watchers.is_empty() {
            self.watches.remove(&pid);
        }
        if let Some(pids) = self.awaited_by.get_mut(&session) {
            pids.remove(pid);
            if pids.is_empty() {
                self.awaited_by.remove(&session);
            }
        }
        Some(watch)
    }
}

calls! {
    /// Child processes.
    for a running session, with self:

    /// Makes the running session get `event` once, when the child process `pid` has exited.
    ///
    /// The state gets ARG0 = `"CHLD"`, ARG1 = the pid (`i32`), ARG2 = its [`ExitStatus`], then `extra`. The
    /// registration keeps the session alive. A second registration for the same pid replaces the first. If the child
    /// has already exited, the session still gets the event, unless other code has reaped the child.
    ///
    /// POE: `sig_child`, whose ARG2 is the number in `$?`.
    pub fn sig_child(&mut self, pid: i32, event: impl Into<Name>, extra: impl IntoArgs) {
        self.sig_child_for(self.active.session, pid, event.into(), extra.into_args());
    }

    /// Ends the running session's registration for a child process, if it has one.
    ///
    /// POE: `sig_child` without an event.
    pub fn sig_child_clear(&mut self, pid: i32) {
        let me = self.active.session;
        if let Some(watch) = self.children.remove(pid, me) {
            self.signals.unwatch(Name::new("CHLD"));
            drop(watch);
        }
    }
}

impl Core {
    /// Does what [`sig_child`](crate::Context::sig_child) does, for any session.
    pub(crate) fn sig_child_for(&mut self, session: SessionId, pid: i32, event: Name, extra: Args) {
        let watch = ChildWatch { pid, session, event, extra, _hold: self.sessions.hold(session) };
        self.children.look |= self.children.announced != Some(pid);
        if self.children.add(watch).is_none() {
            self.signals.watch(Name::new("CHLD"));
        }
    }

    /// Keeps CHLD watched until [`expect_no_children`](Core::expect_no_children), for a session that waits for children
    /// again and again. To catch the signal anew for each child would cost some system calls and copied pages with each
    /// fork.
    pub(crate) fn expect_children(&mut self) {
        self.children.expecting += 1;
        self.signals.watch(Name::new("CHLD"));
    }

    /// Ends what [`expect_children`](Core::expect_children) has begun.
    pub(crate) fn expect_no_children(&mut self) {
        self.children.expecting -= 1;
        self.signals.unwatch(Name::new("CHLD"));
    }

    /// Tells whether the running session waits for a child process. It does not any more once the event of the child's
    /// end is queued.
    pub(crate) fn awaits_child(&self, pid: i32) -> bool {
        self.children.watches.get(&pid).is_some_and(|watchers| watchers.has(self.active.session))
    }

    /// Makes the kernel keep the processor time of the running session's children when it reaps them.
    #[cfg(feature = "control")]
    pub(crate) fn keep_processor_time(&mut self) {
        self.children.spent.get_or_insert((self.active.session, FxHashMap::default()));
    }

    /// Ends what [`keep_processor_time`](Core::keep_processor_time) has begun.
    #[cfg(feature = "control")]
    pub(crate) fn forget_processor_time(&mut self) {
        self.children.spent = None;
    }

    /// Returns the processor time that a reaped child has used, and forgets it.
    #[cfg(feature = "control")]
    pub(crate) fn take_processor_time(&mut self, pid: i32) -> Option<Duration> {
        self.children.spent.as_mut()?.1.remove(&pid)
    }

    /// Reaps a child, and notes its processor time if the session that waits for it wants to know.
    fn reap_and_count(&mut self, pid: i32) -> nix::Result<Option<ExitStatus>> {
        #[cfg(feature = "control")]
        if let Children { watches, spent: Some((session, spent)), .. } = &mut self.children
            && watches.get(&pid).is_some_and(|watchers| watchers.has(*session))
        {
            let reaped = reap_with_usage(pid)?;
            spent.extend(reaped.map(|(_, time)| (pid, time)));
            return Ok(reaped.map(|(status, _)| status));
        }
        reap(pid)
    }

    /// Makes sure that a child of this process is reaped when it ends. `owner` has started it.
    pub(crate) fn adopt_child(&mut self, pid: i32, owner: SessionId) -> Process {
        let child = Process { pid, life: Rc::new(Cell::new(Life::Unreaped)) };
        // It may have ended already.
        self.children.look = true;
        match self.children.adopted.insert(pid, Adopted { child: child.clone(), owner }) {
            // Other code has reaped the former child: the system has given its pid to this one.
            Some(former) => former.child.life.set(Life::Lost),
            None => self.signals.watch(Name::new("CHLD")),
        }
        child
    }

    /// Forgets an adopted child.
    fn release_adopted(&mut self, pid: i32, life: Life) {
        if let Some(Adopted { child, .. }) = self.children.adopted.remove(&pid) {
            child.life.set(life);
            self.signals.unwatch(Name::new("CHLD"));
        }
    }

    /// Forgets all adopted children in a forked process, which has none.
    pub(super) fn disown_adopted(&mut self) {
        let pids: Vec<i32> = self.children.adopted.keys().copied().collect();
        pids.into_iter().for_each(|pid| self.release_adopted(pid, Life::Lost));
    }

    /// Removes the registrations of a session, and returns them.
    pub(crate) fn drop_child_watches_of(&mut self, session: SessionId) -> Vec<ChildWatch> {
        let pids: Vec<i32> = self.children.awaited_by(session).collect();
        let gone: Vec<ChildWatch> = pids.into_iter().filter_map(|pid| self.children.remove(pid, session)).collect();
        gone.iter().for_each(|_| self.signals.unwatch(Name::new("CHLD")));
        gone
    }

    /// Removes all registrations, and returns them.
    pub(crate) fn drop_all_child_watches(&mut self) -> Vec<ChildWatch> {
        let sessions: Vec<SessionId> = self.children.awaited_by.keys().copied().collect();
        sessions.into_iter().flat_map(|session| self.drop_child_watches_of(session)).collect()
    }

    /// Tells whether a session that is not in the background waits for a child process and there is one.
    pub(crate) fn awaits_children(&self) -> bool {
        // Any other child is not reaped, and so would be awaited for ever.
        let everybody = self.reaps_everybody() && self.is_watched_in_foreground(Name::new("CHLD"));
        (everybody || !self.children.watches.is_empty())
            && peek_ended(Which::Any).is_ok()
            && (everybody || self.has_awaited_child())
    }

    /// Notes that one child may go on when this process has ended: no warning is due.
    pub(crate) fn let_outlive(&mut self, pid: i32) {
        self.children.outliving = Some(pid);
    }

    /// Tells whether a child process for which a session waits is there.
    fn has_awaited_child(&self) -> bool {
        let Children { watches, seen, .. } = &self.children;
        let is_there = |pid: &i32| peek_ended(Which::Pid(*pid)).is_ok();
        let counts = |pid: &i32| {
            let mut watchers = watches.get(pid).into_iter().flat_map(Few::keys);
            watchers.any(|session| !self.sessions.is_background(session))
        };
        // The one that was there is looked for first: the kernel asks in every slice with an empty queue.
        let last = seen.get().filter(|pid| counts(pid) && is_there(pid));
        seen.set(last.or_else(|| watches.keys().copied().find(|pid| counts(pid) && is_there(pid))));
        seen.get().is_some()
    }

    /// Tells whether a session watches CHLD, so that the kernel reaps every child.
    pub(crate) fn reaps_everybody(&self) -> bool {
        self.signals.watchers(Name::new("CHLD")) > self.children.registrations()
    }

    /// Warns, at the end of a run, of children whose end no session will hear of. It leaves them alone: other code may
    /// have started them.
    pub(crate) fn report_leftover_children(&mut self) {
        if !self.children.adopted.is_empty() {
            self.reap_registered();
        }
        match peek_ended(Which::Any) {
            Ok(Some(pid)) => {
                log::warn!(target: "lenore::children", "child {pid} has ended and no session waits for it")
            }
            // It may be the child that is allowed to.
            Ok(None) if self.children.outliving.is_some() => {}
            Ok(None) => {
                let text = "the run ends, but child processes are still running";
                log::warn!(target: "lenore::children", "{text}: {}", self.describe_leftover_children());
            }
            Err(_) => {}
        }
    }

    /// Names the children that are there, as far as the system or the kernel knows them: `4711 (sleep, of session 3), 4712 (sh)`.
    fn describe_leftover_children(&self) -> String {
        let adopted = &self.children.adopted;
        let mut pids = all_children().unwrap_or_else(|| adopted.keys().copied().collect());
        pids.retain(|pid| peek_ended(Which::Pid(*pid)).is_ok());
        pids.sort_unstable();
        if pids.is_empty() {
            return String::from("the system does not tell which");
        }
        let describe = |pid: &i32| {
            // A function's child goes by the name of this program.
            let owner = adopted.get(pid).map(|adopted| format!("of {}", adopted.owner));
            let known: Vec<String> = program_of(*pid).into_iter().chain(owner).collect();
            if known.is_empty() { pid.to_string() } else { format!("{pid} ({})", known.join(", ")) }
        };
        let mut text = pids.iter().take(MOST_NAMED).map(describe).collect::<Vec<_>>().join(", ");
        if pids.len() > MOST_NAMED {
            text += &format!(" and {} more", pids.len() - MOST_NAMED);
        }
        text
    }

    /// Reaps every child that has exited and that is to be reaped. One SIGCHLD may stand for many.
    pub(crate) fn reap(&mut self) {
        self.children.look = false;
        // If it has ended, this finds it.
        self.children.announced = None;
        // Every look reaps a child, so the number of children bounds the loop.
        let everybody = self.reaps_everybody();
        while let Ok(Some(pid)) = peek_ended(Which::Any) {
            let wanted = everybody || self.children.wants(pid);
            if !wanted || !self.reap_one(pid) {
                // A child that is not ours to reap stands first in the system's list: ask for each of ours by pid.
                self.reap_registered();
                return;
            }
        }
    }

    fn reap_registered(&mut self) {
        // A pid that is not positive would stand for any child, or for those of a group.
        let watched = self.children.watches.keys().copied().filter(|pid| *pid > 0);
        let mut pids: Vec<i32> = watched.chain(self.children.adopted.keys().copied()).collect();
        pids.sort_unstable();
        pids.dedup();
        for pid in pids {
            self.reap_one(pid);
        }
    }

    /// Reaps `pid` if it has exited, and tells those who wait for it.
    fn reap_one(&mut self, pid: i32) -> bool {
        let status = match self.reap_and_count(pid) {
            Ok(Some(status)) => status,
            Err(Errno::ECHILD) => {
                self.release_adopted(pid, Life::Lost);
                return false;
            }
            _ => return false,
        };
        log::debug!(target: "lenore::children", "reaped {pid}: {status}");
        self.release_adopted(pid, Life::Reaped(status));
        self.tell_of_end(pid, status);
        true
    }

    /// Tells the sessions that wait for a child, and those that watch CHLD, that it has ended.
    pub(super) fn tell_of_end(&mut self, pid: i32, status: ExitStatus) {
        let watchers: Vec<SessionId> = self.children.watches.get(&pid).into_iter().flat_map(Few::keys).collect();
        for watch in watchers.into_iter().filter_map(|session| self.children.remove(pid, session)).collect::<Vec<_>>() {
            let ChildWatch { session, event, extra, _hold, .. } = watch;
            let args = ("CHLD", pid, status).into_args().chain(extra);
            // The event holds the session before the registration lets go of it.
            self.enqueue_from_kernel(session, event, args, Kind::Post);
            self.signals.unwatch(Name::new("CHLD"));
        }
        let chld = Name::new("CHLD");
        if self.signals.is_watched(chld) {
            self.signal_from_kernel(chld, (pid, status));
        }
    }

    /// Tells whether a session would be told that this child has ended.
    #[cfg(feature = "testing")]
    pub(super) fn is_awaited(&self, pid: i32) -> bool {
        self.children.watches.contains_key(&pid) || self.reaps_everybody()
    }
}

/// Returns the child processes of this process, if the system tells.
fn all_children() -> Option<Vec<i32>> {
    #[cfg(target_os = "linux")]
    return children_of_this_process().ok();
    #[cfg(not(target_os = "linux"))]
    None
}

/// Returns the name of the program that a process executes, if the system tells.
fn program_of(pid: i32) -> Option<String> {
    #[cfg(target_os = "linux")]
    return name_of(pid).ok();
    #[cfg(not(target_os = "linux"))]
    {
        let _ = pid;
        None
    }
}

/// How many children a warning names.
const MOST_NAMED: usize = 8;

//! Child processes: who waits for which pid, and reaping them.

use std::cell::Cell;
use std::process::ExitStatus;
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::core::Core;
use super::queue::Kind;
use super::sessions::{Hold, SessionId};
use crate::args::{Args, IntoArgs};
use crate::name::Name;
use crate::sys::wait::{Which, peek_ended, reap, wait_for_end};

/// The registrations of `sig_child`, and the children that are reaped without anybody asking.
#[derive(Default)]
pub(crate) struct Children {
    watches: Vec<ChildWatch>,
    adopted: Vec<Process>,
    /// A child may have exited before anybody listened to SIGCHLD: look once without being told (K-SG-52).
    pub(crate) look: bool,
}

pub(crate) struct ChildWatch {
    pub(crate) pid: i32,
    pub(crate) session: SessionId,
    pub(crate) event: Name,
    extra: Args,
}

/// A child process that the kernel reaps whether or not a session waits for it; clones know the same.
#[derive(Clone)]
pub(crate) struct Process {
    pid: i32,
    life: Rc<Cell<Life>>,
}

/// What has become of a child process.
#[derive(Clone, Copy)]
enum Life {
    /// It runs, or has ended and not been reaped: its pid is nobody else's.
    Unreaped,
    Reaped(ExitStatus),
    /// Somebody else has reaped it, or it is the child of the process that this one was forked from.
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

    /// Sends it a signal, unless its pid may be a stranger's by now.
    ///
    /// # Errors
    ///
    /// `ESRCH` once it was reaped, and in a forked process, whose child it isn't.
    pub(crate) fn kill(&self, signal: Signal) -> nix::Result<()> {
        kill(self.unreaped()?, signal)
    }

    /// Sends the process group that it leads a signal; as [`kill`](Process::kill).
    pub(crate) fn kill_group(&self, signal: Signal) -> nix::Result<()> {
        killpg(self.unreaped()?, signal)
    }

    /// Waits until it has ended. It is left to be reaped, and whoever waits for it to be told.
    pub(crate) fn wait(&self) -> nix::Result<()> {
        wait_for_end(self.unreaped()?.as_raw())
    }

    fn unreaped(&self) -> nix::Result<Pid> {
        match self.life.get() {
            Life::Unreaped => Ok(Pid::from_raw(self.pid)),
            Life::Reaped(_) | Life::Lost => Err(Errno::ESRCH),
        }
    }
}

impl Children {
    pub(crate) fn watches(&self) -> &[ChildWatch] {
        &self.watches
    }

    fn wants(&self, pid: i32) -> bool {
        self.watches.iter().any(|watch| watch.pid == pid) || self.adopted.iter().any(|child| child.pid == pid)
    }
}

impl Core {
    /// Makes the running session get `event` once, when the child process `pid` has exited.
    ///
    /// The state gets ARG0 = `"CHLD"`, ARG1 = the pid (`i32`), ARG2 = its [`ExitStatus`], then `extra`. The
    /// registration keeps the session alive; a second one for the same pid replaces the first. A child that has
    /// exited already is reported all the same, if nobody else has reaped it.
    ///
    /// POE: `sig_child`, whose ARG2 is the number in `$?`.
    pub fn sig_child(&mut self, pid: i32, event: impl Into<Name>, extra: impl IntoArgs) {
        self.sig_child_for(self.active.session, pid, event.into(), extra.into_args());
    }

    /// Does what [`sig_child`](Core::sig_child) does, for any session.
    pub(crate) fn sig_child_for(&mut self, session: SessionId, pid: i32, event: Name, extra: Args) {
        let watch = ChildWatch { pid, session, event, extra };
        self.children.look = true;
        let watches = &mut self.children.watches;
        match watches.iter_mut().find(|other| other.pid == pid && other.session == session) {
            Some(other) => *other = watch,
            None => {
                watches.push(watch);
                self.sessions.hold(session, Hold::Pid);
                self.signals.watch(Name::new("CHLD"));
            }
        }
    }

    /// Takes the running session's interest in a child process back; without one it does nothing.
    ///
    /// POE: `sig_child` without an event.
    pub fn sig_child_clear(&mut self, pid: i32) {
        let me = self.active.session;
        self.drop_child_watches(|watch| watch.pid == pid && watch.session == me);
    }

    /// Tells whether the running session waits for a child process; not any more when the event of its end is under way.
    pub(crate) fn awaits_child(&self, pid: i32) -> bool {
        self.children.watches.iter().any(|watch| watch.pid == pid && watch.session == self.active.session)
    }

    /// Makes sure that a child of this process is reaped when it ends.
    pub(crate) fn adopt_child(&mut self, pid: i32) -> Process {
        let child = Process { pid, life: Rc::new(Cell::new(Life::Unreaped)) };
        self.children.adopted.push(child.clone());
        // It may have ended already.
        self.children.look = true;
        self.signals.watch(Name::new("CHLD"));
        child
    }

    /// Forgets an adopted child.
    fn release_adopted(&mut self, pid: i32, life: Life) {
        if let Some(place) = self.children.adopted.iter().position(|child| child.pid == pid) {
            self.children.adopted.swap_remove(place).life.set(life);
            self.signals.unwatch(Name::new("CHLD"));
        }
    }

    /// Forgets all adopted children in a forked process, which has none.
    pub(super) fn disown_adopted(&mut self) {
        while let Some(pid) = self.children.adopted.last().map(Process::pid) {
            self.release_adopted(pid, Life::Lost);
        }
    }

    /// Removes the registrations that `unwanted` picks, and returns them.
    pub(crate) fn drop_child_watches(&mut self, unwanted: impl Fn(&ChildWatch) -> bool) -> Vec<ChildWatch> {
        let (gone, kept) = std::mem::take(&mut self.children.watches).into_iter().partition(unwanted);
        self.children.watches = kept;
        let gone: Vec<ChildWatch> = gone;
        for watch in &gone {
            self.sessions.release(watch.session, Hold::Pid);
            self.signals.unwatch(Name::new("CHLD"));
        }
        gone
    }

    /// Tells whether somebody waits for a child process and there is one.
    pub(crate) fn awaits_children(&self) -> bool {
        self.signals.is_watched(Name::new("CHLD"))
            && if self.reaps_everybody() {
                peek_ended(Which::Any).is_ok()
            } else {
                // Any other child is not reaped, and so would be awaited for ever.
                self.children.watches.iter().any(|watch| peek_ended(Which::Pid(watch.pid)).is_ok())
            }
    }

    /// Tells whether a session watches CHLD, and so gets every child.
    fn reaps_everybody(&self) -> bool {
        let chld = Name::new("CHLD");
        self.sessions.ids().iter().any(|id| self.sessions.get(*id).is_some_and(|record| record.watches(chld)))
    }

    /// At the end of a run: children whose end nobody will hear of any more are worth a warning. They are left alone:
    /// they may be somebody else's.
    pub(crate) fn report_leftover_children(&mut self) {
        if !self.children.adopted.is_empty() {
            self.reap_registered();
        }
        match peek_ended(Which::Any) {
            Ok(Some(pid)) => log::warn!(target: "lenore::children", "child {pid} has ended and nobody waits for it"),
            Ok(None) => log::warn!(target: "lenore::children", "the run ends, but child processes are still running"),
            Err(_) => {}
        }
    }

    /// Reaps every child that has exited and that somebody wants to be reaped: one SIGCHLD may stand for many.
    pub(crate) fn reap(&mut self) {
        self.children.look = false;
        // Every look reaps a child, so the number of children bounds the loop.
        let everybody = self.reaps_everybody();
        while let Ok(Some(pid)) = peek_ended(Which::Any) {
            let wanted = everybody || self.children.wants(pid);
            if !wanted || !self.reap_one(pid) {
                // Somebody else's child stands before ours in the system's list: ask for each of ours by pid.
                self.reap_registered();
                return;
            }
        }
    }

    fn reap_registered(&mut self) {
        // What is not positive stands for any child, or for those of a group.
        let watched = self.children.watches.iter().map(|watch| watch.pid).filter(|pid| *pid > 0);
        let mut pids: Vec<i32> = watched.chain(self.children.adopted.iter().map(Process::pid)).collect();
        pids.sort_unstable();
        pids.dedup();
        for pid in pids {
            self.reap_one(pid);
        }
    }

    /// Reaps `pid` if it has exited, and tells those who wait for it.
    fn reap_one(&mut self, pid: i32) -> bool {
        let status = match reap(pid) {
            Ok(Some(status)) => status,
            Err(Errno::ECHILD) => {
                self.release_adopted(pid, Life::Lost);
                return false;
            }
            _ => return false,
        };
        log::debug!(target: "lenore::children", "reaped {pid}: {status}");
        self.release_adopted(pid, Life::Reaped(status));
        for watch in self.drop_child_watches_keeping(pid) {
            let args = ("CHLD", pid, status).into_args().chain(watch.extra);
            self.enqueue_from_kernel(watch.session, watch.event, args, Kind::Post);
            self.release_child_watch(watch.session);
        }
        let chld = Name::new("CHLD");
        if self.signals.is_watched(chld) {
            self.signal_from_kernel(chld, (pid, status));
        }
        true
    }

    /// Takes out the registrations for `pid` while they still hold their sessions, which the event is to hold next.
    fn drop_child_watches_keeping(&mut self, pid: i32) -> Vec<ChildWatch> {
        let (gone, kept) = std::mem::take(&mut self.children.watches).into_iter().partition(|watch| watch.pid == pid);
        self.children.watches = kept;
        gone
    }

    fn release_child_watch(&mut self, session: SessionId) {
        self.sessions.release(session, Hold::Pid);
        self.signals.unwatch(Name::new("CHLD"));
    }
}

//! Child processes: who waits for which pid, and reaping them.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use super::core::Core;
use super::queue::Kind;
use super::sessions::{Hold, SessionId};
use crate::args::{Args, IntoArgs};
use crate::name::Name;

/// The registrations of `sig_child`.
#[derive(Default)]
pub(crate) struct Children {
    watches: Vec<ChildWatch>,
    /// A child may have exited before anybody listened to SIGCHLD: look once without being told (K-SG-52).
    pub(crate) look: bool,
}

pub(crate) struct ChildWatch {
    pub(crate) pid: i32,
    pub(crate) session: SessionId,
    pub(crate) event: Name,
    extra: Args,
}

impl Children {
    pub(crate) fn watches(&self) -> &[ChildWatch] {
        &self.watches
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
        let session = self.active.session;
        let watch = ChildWatch { pid, session, event: event.into(), extra: extra.into_args() };
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
                peek_exited(Id::All).is_ok()
            } else {
                // Any other child is not reaped, and so would be awaited for ever.
                self.children.watches.iter().any(|watch| peek_exited(Id::Pid(Pid::from_raw(watch.pid))).is_ok())
            }
    }

    /// Tells whether a session watches CHLD, and so gets every child.
    fn reaps_everybody(&self) -> bool {
        let chld = Name::new("CHLD");
        self.sessions.ids().iter().any(|id| self.sessions.get(*id).is_some_and(|record| record.watches(chld)))
    }

    /// At the end of a run: children whose end nobody will hear of any more are worth a warning. They are left alone:
    /// they may be somebody else's.
    pub(crate) fn report_leftover_children(&self) {
        match peek_exited(Id::All) {
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
        while let Ok(Some(pid)) = peek_exited(Id::All) {
            let wanted = everybody || self.children.watches.iter().any(|watch| watch.pid == pid);
            if !wanted || !self.reap_one(pid) {
                // Somebody else's child stands before ours in the system's list: ask for each of ours by pid.
                self.reap_registered();
                return;
            }
        }
    }

    fn reap_registered(&mut self) {
        // What is not positive stands for any child, or for those of a group.
        let mut pids: Vec<i32> = self.children.watches.iter().map(|watch| watch.pid).filter(|pid| *pid > 0).collect();
        pids.dedup();
        for pid in pids {
            self.reap_one(pid);
        }
    }

    /// Reaps `pid` if it has exited, and tells those who wait for it.
    fn reap_one(&mut self, pid: i32) -> bool {
        let status = match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => ExitStatus::from_raw(code << 8),
            Ok(WaitStatus::Signaled(_, signal, core)) => {
                ExitStatus::from_raw(signal as i32 | if core { 0x80 } else { 0 })
            }
            _ => return false,
        };
        log::debug!(target: "lenore::children", "reaped {pid}: {status}");
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

/// Returns the pid of a child among `which` that has exited, without reaping it; an error if there is no such child.
fn peek_exited(which: Id<'_>) -> nix::Result<Option<i32>> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    match waitid(which, flags) {
        Ok(WaitStatus::StillAlive) => Ok(None),
        Ok(status) => Ok(status.pid().map(Pid::as_raw)),
        Err(errno) => Err(errno),
    }
}

//! Moving the program into another process, away from its terminal and from the process that started it.
//!
//! The sessions do not see the move as a fork. One process goes on where the other stops, with every stream, alarm and
//! event. So a state that is on the stack may ask for the move, and nothing has to be closed.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, setsid};

use super::Kernel;
use crate::destroy::destroy;
use crate::error::Error;
use crate::sys::disposition;
use crate::sys::fork::{Refused, Side, exit_now, fork};

/// Which of the two processes this is after [`Kernel::detach_process`].
pub(crate) enum Detached {
    /// The process that was started from outside. Its kernel is of no use any more, and it should end by
    /// [`exit_launcher`].
    Launcher,
    /// The process that goes on, unless its kernel could not be moved.
    Daemon(Result<(), Error>),
}

impl Kernel {
    /// Forks twice, with a new session of processes in between. So the process that goes on does not lead that session, and
    /// can't get a controlling terminal.
    ///
    /// On return in the launcher all signals have their default action, except for those that are ignored. The launcher
    /// only waits from then on.
    ///
    /// # Errors
    ///
    /// [`Error::Threads`] or [`Error::Os`] when it was not possible to fork; this process then goes on as it was.
    pub(crate) fn detach_process(&mut self) -> Result<Detached, Error> {
        #[cfg(feature = "testing")]
        self.core.refuse_to_fork_in_test()?;
        self.flush_everything();
        #[cfg(feature = "fork-hooks")]
        self.core.at(super::ForkStage::BeforeFork).map_err(|error| Error::os("fork", "", error))?;
        let mask = SigSet::all()
            .thread_swap_mask(SigmaskHow::SIG_SETMASK)
            .map_err(|errno| Error::os("sigprocmask", "", errno))?;
        let restore = || mask.thread_set_mask().map_err(|errno| Error::os("sigprocmask", "", errno));
        let middle = match fork() {
            Ok(Side::Parent(middle)) => middle,
            Ok(Side::Child) => {
                fork_again_or_exit();
                let moved = self.move_here().and_then(|()| restore());
                return Ok(Detached::Daemon(moved));
            }
            Err(refused) => {
                restore()?;
                return Err(refused.into());
            }
        };
        if let Some(errno) = failure_of(middle) {
            restore()?;
            return Err(Error::os("fork", "", errno));
        }
        // Before signals are unblocked: a signal that this process caught would be lost, as no loop reads its pipe any
        // more.
        disposition::reset_handlers();
        // An error from here on is no reason to go on in this process: the daemon goes on.
        let _ = restore();
        Ok(Detached::Launcher)
    }

    /// Makes the kernel this process's own. The other process looks at it no more, so only what belongs to a process
    /// is made anew: the poller, and the delivery of signals.
    fn move_here(&mut self) -> Result<(), Error> {
        let core = &mut self.core;
        core.move_sources()?;
        // The signals that had arrived and that no session has been told of. Signals are blocked, so no more will
        // arrive.
        let arrived = core.signals.delivery.pending();
        core.signals.delivery.leave_terminal();
        core.signals.delivery.close();
        core.signals.delivery.renew()?;
        core.watch_signal_pipe()?;
        core.moved_here();
        core.id.take();
        for signal in arrived.into_iter().filter(|signal| *signal != "CHLD") {
            core.signal_from_kernel(signal, ());
        }
        core.children.look = false;
        // Those children are reaped by other processes now. So by the time of a signal their pids may belong to
        // strangers.
        core.disown_adopted();
        for watch in core.drop_all_child_watches() {
            let (pid, session) = (watch.pid, watch.session);
            log::warn!(target: "lenore::children", "{session} will not hear of the end of child {pid}, which belongs to the process that launched this one");
            destroy(watch);
        }
        Ok(())
    }
}

/// Ends a launcher: what is in its buffers is the daemon's to write, and its kernel the daemon's to drop.
pub(crate) fn exit_launcher(status: i32) -> ! {
    exit_now(status)
}

/// The process in the middle: leads a new session without a terminal, and leaves at once. Returns in its child.
fn fork_again_or_exit() {
    let failed = match setsid() {
        Err(errno) => errno,
        Ok(_) => match fork() {
            Ok(Side::Child) => return,
            Ok(Side::Parent(_)) => exit_now(0),
            Err(Refused::BySystem(errno)) => errno,
            // It was forked by a single thread, and has not started any.
            Err(Refused::NotAlone(_)) => Errno::EAGAIN,
        },
    };
    // The exit status is the errno: it is less than 256 everywhere.
    exit_now((failed as i32).clamp(1, 255))
}

/// Waits for the process in the middle, which leaves at once, and returns what kept it from forking.
fn failure_of(middle: Pid) -> Option<Errno> {
    loop {
        return match waitpid(middle, None) {
            Ok(WaitStatus::Exited(_, 0)) => None,
            Ok(WaitStatus::Exited(_, errno)) => Some(Errno::from_raw(errno)),
            Ok(WaitStatus::Signaled(..)) => Some(Errno::EINTR),
            Err(Errno::EINTR) | Ok(_) => continue,
            // Another part of the program has reaped it. The daemon itself tells the launcher whether it lives.
            Err(_) => None,
        };
    }
}

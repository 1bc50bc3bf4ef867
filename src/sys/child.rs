//! What a child process does between the fork and its program.

use std::io::{self, Read, Write};
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::unistd::{Gid, Pid, Uid, setgid, setgroups, setpgid, setuid};

use super::descriptors::most_descriptors;
use super::priority::{niceness, set_niceness};

/// How a child is to differ from its parent, beside its standard streams.
#[derive(Default)]
pub(crate) struct Setup {
    pub(crate) place: Place,
    /// What it adds to its niceness.
    pub(crate) nice: i32,
    /// The groups that it is in beside `gid`; `None` leaves them alone.
    pub(crate) groups: Option<Vec<Gid>>,
    pub(crate) gid: Option<Gid>,
    pub(crate) uid: Option<Uid>,
}

/// Among which other processes a child is.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In its parent's process group.
    #[default]
    ParentsGroup,
    /// The leader of a process group.
    OwnGroup,
    /// The leader of a session, whose controlling terminal is its standard input.
    #[cfg(feature = "pty")]
    OwnTerminal,
}

/// A system call that failed on the way to a child's program.
pub(super) type Failure = (&'static str, Errno);

impl Setup {
    /// Makes the running process, a child that was just forked, what it is to be; signals are left as a new program
    /// expects them.
    ///
    /// Calls nothing that is not safe between fork and exec: no memory is allocated and no lock taken.
    pub(crate) fn apply(&self) -> Result<(), Failure> {
        match self.place {
            Place::ParentsGroup => {}
            Place::OwnGroup => setpgid(Pid::from_raw(0), Pid::from_raw(0)).map_err(|errno| (SETPGID, errno))?,
            #[cfg(feature = "pty")]
            Place::OwnTerminal => {
                nix::unistd::setsid().map_err(|errno| (SETSID, errno))?;
                super::terminal::take_control().map_err(|errno| (TIOCSCTTY, errno))?;
            }
        }
        if self.nice != 0 {
            let nice = niceness().map(|now| now.saturating_add(self.nice));
            nice.and_then(set_niceness).map_err(|errno| (SETPRIORITY, errno))?;
        }
        // In this order: whoever has given up being root may change nothing else.
        if let Some(groups) = &self.groups {
            setgroups(groups).map_err(|errno| (SETGROUPS, errno))?;
        }
        if let Some(gid) = self.gid {
            setgid(gid).map_err(|errno| (SETGID, errno))?;
        }
        if let Some(uid) = self.uid {
            setuid(uid).map_err(|errno| (SETUID, errno))?;
        }
        default_all_signals();
        // A mask survives exec: what is blocked here, the program would never hear of.
        SigSet::empty().thread_set_mask().map_err(|errno| (SIGMASK, errno))
    }
}

/// Starts a program; returns its pid once it has been executed.
///
/// It inherits no descriptor but its standard streams.
///
/// # Errors
///
/// The system call that failed, in this process or in the child, and why.
pub(crate) fn spawn(mut command: Command, setup: Setup) -> Result<i32, (&'static str, io::Error)> {
    let (mut steps, mut step) = io::pipe().map_err(|error| ("pipe", error))?;
    let before_exec = move || {
        let done = setup.apply();
        set_close_on_exec(3);
        let name = done.map_or_else(|(name, _)| name, |()| EXECVE);
        let number = STEPS.iter().position(|step| *step == name).unwrap_or_default();
        // Which step is about to fail, or to succeed and close the pipe; a name that got lost is no reason to give up.
        let _ = step.write(&[number as u8]);
        done.map_err(|(_, errno)| io::Error::from(errno))
    };
    // SAFETY: in the child, where only what is async-signal-safe may be done as another thread may hold any lock,
    // `before_exec` makes system calls and nothing else: what it allocates was allocated before, errors with an errno
    // allocate nothing, and `position` and `write` on a pipe don't either.
    unsafe { command.pre_exec(before_exec) };
    // The child inherits the mask: a signal that comes before `before_exec` has done away with this process's handlers
    // waits until then, and is not swallowed by one of them.
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK);
    let mask = mask.map_err(|errno| (SIGMASK, io::Error::from(errno)))?;
    let spawned = command.spawn();
    // It was in force a moment ago, so it can't be refused.
    let _ = mask.thread_set_mask();
    // With it goes this process's end of the pipe for steps, and those of the standard streams that are the child's.
    drop(command);
    spawned.map(|child| child.id() as i32).map_err(|error| {
        let mut number = [0];
        let step = match steps.read(&mut number) {
            Ok(1) => STEPS[usize::from(number[0]).min(STEPS.len() - 1)],
            _ => "fork",
        };
        (step, error)
    })
}

const SETPGID: &str = "setpgid";
#[cfg(feature = "pty")]
const SETSID: &str = "setsid";
#[cfg(feature = "pty")]
const TIOCSCTTY: &str = "TIOCSCTTY";
const SETPRIORITY: &str = "setpriority";
const SETGROUPS: &str = "setgroups";
const SETGID: &str = "setgid";
const SETUID: &str = "setuid";
const SIGMASK: &str = "sigprocmask";
const EXECVE: &str = "execve";

/// What the child says that it has come to, as the place in this list.
const STEPS: &[&str] = &[
    SETPGID,
    #[cfg(feature = "pty")]
    SETSID,
    #[cfg(feature = "pty")]
    TIOCSCTTY,
    SETPRIORITY,
    SETGROUPS,
    SETGID,
    SETUID,
    SIGMASK,
    EXECVE,
];

/// Gives every signal its default action, those included that a launcher may have ignored.
fn default_all_signals() {
    for signal in 1..=LAST_SIGNAL {
        // SAFETY: `SIG_DFL` runs no code of this process. For numbers that are no signals, or can't be changed, the
        // call fails and changes nothing.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// The highest signal number that there is on any Unix.
const LAST_SIGNAL: libc::c_int = 64;

/// Marks every descriptor from `first` on to be closed when a program is executed.
///
/// The standard library opens its own so, but a launcher or a C library may not have.
pub(super) fn set_close_on_exec(first: RawFd) {
    #[cfg(target_os = "linux")]
    {
        let (first, last, flags) = (first as libc::c_uint, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
        // SAFETY: takes numbers only, and with this flag closes nothing now.
        if unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) } == 0 {
            return;
        }
    }
    for fd in first..most_descriptors() {
        // SAFETY: sets a flag of a descriptor, or fails if there is none of that number.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

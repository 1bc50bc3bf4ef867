//! Waiting for child processes.
//!
//! nix reads a status into its own list of signals, in which there are no real-time signals: a child that one of them has
//! ended would be an error, reaped or not, and stand in the way of all others. Here a status is a status.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
#[cfg(feature = "control")]
use nix::sys::time::{TimeVal, TimeValLike};

/// Which children are looked at.
#[derive(Clone, Copy)]
pub(crate) enum Which {
    Any,
    Pid(i32),
}

/// What a child does that does not run.
#[derive(Clone, Copy)]
pub(crate) enum Halt {
    Ended,
    Stopped,
}

/// Returns the pid of a child that has ended, without waiting and without reaping it; an error if there is no such child.
pub(crate) fn peek_ended(which: Which) -> nix::Result<Option<i32>> {
    let (pid, _) = look(which, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT)?;
    Ok((pid != 0).then_some(pid))
}

/// Tells whether a child has ended or is stopped, without waiting and without reaping it; an error if there is no such
/// child.
pub(crate) fn peek_halted(pid: i32) -> nix::Result<Option<Halt>> {
    let flags = libc::WEXITED | libc::WSTOPPED | libc::WNOHANG | libc::WNOWAIT;
    Ok(match look(Which::Pid(pid), flags)? {
        (0, _) => None,
        (_, libc::CLD_STOPPED) => Some(Halt::Stopped),
        _ => Some(Halt::Ended),
    })
}

/// Waits until a child has ended, and leaves it to be reaped.
pub(crate) fn wait_for_end(pid: i32) -> nix::Result<()> {
    loop {
        match look(Which::Pid(pid), libc::WEXITED | libc::WNOWAIT) {
            Err(Errno::EINTR) => {}
            outcome => return outcome.map(drop),
        }
    }
}

/// Waits until a child has ended, at most as long as `limit`, and leaves it to be reaped. Returns whether it has ended.
pub(crate) fn wait_for_end_at_most(pid: i32, limit: Duration) -> nix::Result<bool> {
    let start = Instant::now();
    let mut pause = Duration::from_micros(100);
    // There is no call that waits for one child for so long. Most have ended by the second look.
    while peek_ended(Which::Pid(pid))?.is_none() {
        let Some(left) = limit.checked_sub(start.elapsed()) else { return Ok(false) };
        std::thread::sleep(pause.min(left));
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
    Ok(true)
}

/// The longest time between two looks at a child that is to end.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// Reaps a child if it has ended, and returns how, and what processor time it has used, with those that it has reaped itself.
#[cfg(feature = "control")]
pub(crate) fn reap_with_usage(pid: i32) -> nix::Result<Option<(ExitStatus, Duration)>> {
    let mut status = 0;
    // SAFETY: a structure of numbers, for which all zeros are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: writes a number and the structure to where it is told, and reads no memory.
    let reaped = Errno::result(unsafe { libc::wait4(pid, &mut status, libc::WNOHANG, &mut usage) })?;
    let span = |time: libc::timeval| {
        Duration::from_micros(u64::try_from(TimeVal::from(time).num_microseconds()).unwrap_or_default())
    };
    Ok((reaped != 0).then(|| (ExitStatus::from_raw(status), span(usage.ru_utime) + span(usage.ru_stime))))
}

/// Reaps a child if it has ended, and returns how.
pub(crate) fn reap(pid: i32) -> nix::Result<Option<ExitStatus>> {
    let mut status = 0;
    // SAFETY: writes a number to where it is told, and reads no memory.
    let reaped = Errno::result(unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) })?;
    Ok((reaped != 0).then(|| ExitStatus::from_raw(status)))
}

/// Returns the pid of a child in the state that `flags` say, 0 if there is none now, and which of these it is in.
fn look(which: Which, flags: libc::c_int) -> nix::Result<(i32, libc::c_int)> {
    let (kind, id) = match which {
        Which::Any => (libc::P_ALL, 0),
        Which::Pid(pid) => (libc::P_PID, libc::id_t::try_from(pid).map_err(|_| Errno::ECHILD)?),
    };
    // SAFETY: a structure of numbers, and addresses that nobody follows; all zeros are valid, and say that no child was found.
    let mut about: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: writes to `about`, and to nothing else.
    Errno::result(unsafe { libc::waitid(kind, id, &mut about, flags) })?;
    // SAFETY: the call has filled in what is said of a child, or left the zeros.
    Ok((unsafe { about.si_pid() }, about.si_code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_a_child_that_does_not_end_has_a_limit() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().expect("sleep can be started");
        let pid = child.id() as i32;
        let start = Instant::now();
        assert_eq!(wait_for_end_at_most(pid, Duration::from_millis(50)), Ok(false));
        assert!(start.elapsed() >= Duration::from_millis(50));
        child.kill().expect("it is a child of this process");
        assert_eq!(wait_for_end_at_most(pid, Duration::from_secs(60)), Ok(true));
        child.wait().expect("it was left to be reaped");
        assert_eq!(wait_for_end_at_most(pid, Duration::from_secs(60)), Err(Errno::ECHILD));
    }
}

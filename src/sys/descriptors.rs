//! Descriptors by number: those that a process has inherited, which no value owns.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;

use crate::inject::{self, Point};

/// Makes each descriptor above 2 that a program executed from here would inherit, except those that `is_kept` names, another
/// name of `null`. What it referred to is closed by that, unless other descriptors refer to it.
///
/// # Errors
///
/// The first that could not be replaced. Those that come after it are left as they are.
pub(crate) fn let_go_of_inherited(null: impl AsFd, is_kept: impl Fn(RawFd) -> bool) -> nix::Result<()> {
    let null = null.as_fd().as_raw_fd();
    for fd in open_descriptors() {
        if fd > libc::STDERR_FILENO && is_inheritable(fd) && !is_kept(fd) {
            // SAFETY: takes numbers only. It does not close `fd` but makes it refer to another open file. So the number of
            // a descriptor that a value does own after all, having been opened without the flag, is never another's:
            // the owner finds an empty file, and closes this one when it is dropped.
            Errno::result(unsafe { libc::dup2(null, fd) })?;
            // SAFETY: sets a flag of a descriptor.
            Errno::result(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
        }
    }
    Ok(())
}

/// Makes each descriptor above 2, except those that `is_kept` names, another name of `null`. For a process that was just forked and
/// has nothing to do with what its parent has open.
///
/// # Errors
///
/// As above.
pub(crate) fn let_go_of_all(null: impl AsFd, is_kept: impl Fn(RawFd) -> bool) -> nix::Result<()> {
    let null = null.as_fd().as_raw_fd();
    for fd in open_descriptors() {
        if fd > libc::STDERR_FILENO && fd != null && is_open(fd) && !is_kept(fd) {
            // SAFETY: as above.
            Errno::result(unsafe { libc::dup2(null, fd) })?;
            // SAFETY: sets a flag of a descriptor.
            Errno::result(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
        }
    }
    Ok(())
}

/// Tells whether there is a descriptor of this number.
pub(crate) fn is_open(fd: RawFd) -> bool {
    flags(fd).is_ok()
}

/// Takes over a descriptor that the launcher has passed by its number. Programs that are executed from here do not inherit it any
/// more.
///
/// # Errors
///
/// `EBADF` if there is no descriptor of this number, and `EEXIST` if this program has opened it: one that has come through an exec has
/// no close-on-exec flag.
pub(crate) fn adopt(fd: RawFd) -> nix::Result<OwnedFd> {
    if flags(fd)? & libc::FD_CLOEXEC != 0 {
        return Err(Errno::EEXIST);
    }
    // SAFETY: sets a flag of a descriptor, or fails if there is none.
    Errno::result(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: it is open, as the calls have just shown, and the launcher has opened it for this program to take by its number. What
    // the program has opened itself has the flag, which the standard library and this crate always set. It has the flag from here
    // on, so no number is taken twice.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens another descriptor for the same, whose number is `least` or higher. Programs that are executed from here do not inherit it.
///
/// # Errors
///
/// `EMFILE`, and `EINVAL` for a `least` that is not below the limit of the process.
pub(crate) fn copy_above(fd: impl AsFd, least: RawFd) -> io::Result<OwnedFd> {
    inject::reach(Point::Copy).map_err(|_| Errno::EMFILE)?;
    // SAFETY: takes numbers and returns a new one, or fails.
    let copy = Errno::result(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) })?;
    // SAFETY: the system has just opened it for this process, and nothing else has heard of it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Makes a descriptor return instead of waiting.
pub(crate) fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    if !flags.contains(OFlag::O_NONBLOCK) {
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    }
    Ok(())
}

fn is_inheritable(fd: RawFd) -> bool {
    flags(fd).is_ok_and(|flags| flags & libc::FD_CLOEXEC == 0)
}

fn flags(fd: RawFd) -> nix::Result<libc::c_int> {
    // SAFETY: takes a number and returns one, or fails if there is no such descriptor.
    Errno::result(unsafe { libc::fcntl(fd, libc::F_GETFD) })
}

/// Returns the numbers of all open descriptors, and perhaps others.
fn open_descriptors() -> Vec<RawFd> {
    let number = |name: OsString| name.to_str().and_then(|name| name.parse().ok());
    match std::fs::read_dir("/proc/self/fd") {
        Ok(entries) => entries.filter_map(|entry| number(entry.ok()?.file_name())).collect(),
        // Not on Linux, or in a chroot of the program's own.
        Err(_) => (0..most_descriptors()).collect(),
    }
}

/// Returns the number below which descriptors are looked at one by one, where the system does not list them.
pub(super) fn most_descriptors() -> RawFd {
    // SAFETY: takes a number and returns one.
    let limit = unsafe { libc::sysconf(libc::_SC_OPEN_MAX) };
    RawFd::try_from(limit).ok().filter(|limit| *limit >= 0).unwrap_or(MOST_DESCRIPTORS).min(MOST_DESCRIPTORS)
}

/// More than any launcher has, and still looked at within milliseconds.
const MOST_DESCRIPTORS: RawFd = 65_536;

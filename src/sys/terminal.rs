//! Pseudo-terminals: what nix has no name for, or no way of closing in other programs.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::pty::{PtyMaster, Winsize, grantpt, posix_openpt, unlockpt};
use nix::sys::stat::Mode;

/// Opens a pseudo-terminal; returns this process's end and the child's. No program that another thread starts meanwhile
/// inherits either, which it might with `openpty`.
///
/// # Errors
///
/// The system call that failed, and why.
pub(crate) fn open_pair() -> Result<(OwnedFd, OwnedFd), (&'static str, Errno)> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = posix_openpt(flags).map_err(|errno| ("posix_openpt", errno))?;
    grantpt(&master).map_err(|errno| ("grantpt", errno))?;
    unlockpt(&master).map_err(|errno| ("unlockpt", errno))?;
    let path = slave_path(&master).map_err(|errno| ("ptsname", errno))?;
    let slave = open(&path, flags, Mode::empty()).map_err(|errno| ("open", errno))?;
    Ok((master.into(), slave))
}

#[cfg(target_os = "linux")]
fn slave_path(master: &PtyMaster) -> nix::Result<PathBuf> {
    nix::pty::ptsname_r(master).map(PathBuf::from)
}

#[cfg(not(target_os = "linux"))]
fn slave_path(master: &PtyMaster) -> nix::Result<PathBuf> {
    // SAFETY: the name stands in a buffer of the C library's, from which nix copies it. Nothing else in this crate asks
    // for one; a program that does so in another thread at this moment would get a wrong path.
    unsafe { nix::pty::ptsname(master) }.map(PathBuf::from)
}

/// Makes the terminal that is standard input the controlling one of this process, which leads a session.
///
/// Safe between fork and exec: it is one system call.
pub(crate) fn take_control() -> nix::Result<()> {
    // SAFETY: takes numbers only. The last one says that nobody else's terminal is taken away.
    Errno::result(unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY as _, 0) }).map(drop)
}

/// Returns how large a terminal says that it is.
pub(crate) fn size(terminal: impl AsFd) -> nix::Result<Winsize> {
    let mut size = Winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the call writes a `winsize` to where it is told, and fails for what is no terminal.
    Errno::result(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok(size)
}

/// Says how large a terminal is. Its foreground processes get WINCH if that is news.
pub(crate) fn set_size(terminal: impl AsFd, size: Winsize) -> nix::Result<()> {
    // SAFETY: the call reads a `winsize` from where it is told, and fails for what is no terminal.
    Errno::result(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }).map(drop)
}

#[cfg(test)]
mod tests {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};

    use super::*;

    #[test] // K-RU-05: also if another thread starts a program at this moment
    fn neither_end_is_inherited_by_a_program() {
        let (ours, theirs) = open_pair().unwrap();
        for fd in [ours, theirs] {
            assert_eq!(fcntl(fd, FcntlArg::F_GETFD), Ok(FdFlag::FD_CLOEXEC.bits()));
        }
    }
}

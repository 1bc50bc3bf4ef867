//! Making a socket: its options, its address, and the path of a UNIX socket.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, sockopt};

use super::address::{NOT_FOUND, Target};
use crate::error::Error;
use crate::handover;
use crate::kernel::{Maker, Switch};
use crate::sys::accept_queue;

/// A call that failed, with POE's name for it. It becomes a `wheel::Failure` or an `Error`.
#[derive(Debug)]
pub(super) struct CallError {
    pub(super) operation: &'static str,
    pub(super) error: io::Error,
}

impl CallError {
    /// Returns the errno of the error. An error without one is about a name.
    pub(super) fn errno(&self) -> i32 {
        let several = || self.error.get_ref()?.downcast_ref().map(|several: &Several| several.errno);
        self.error.raw_os_error().or_else(several).unwrap_or(NOT_FOUND as i32)
    }

    /// Makes one from an error of the kernel, with the error's errno if it has one.
    pub(super) fn of_error(operation: &'static str, error: &Error) -> CallError {
        let text = error.to_string();
        let errno = if let Error::Os { source, .. } = error { source.raw_os_error() } else { None };
        let error = match errno {
            Some(errno) => io::Error::other(Several { errno, text }),
            None => io::Error::other(text),
        };
        CallError { operation, error }
    }

    fn of(operation: &'static str) -> impl FnOnce(Errno) -> CallError {
        move |errno| CallError { operation, error: errno.into() }
    }
}

/// The failures of several attempts.
#[derive(Debug)]
pub(super) struct Several {
    /// The errno of the last failure.
    pub(super) errno: i32,
    /// The reasons of all.
    pub(super) text: String,
}

impl fmt::Display for Several {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Several {}

/// The options of a socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    pub(super) kind: SockType,
    pub(super) reuse: Switch,
    /// `None` means the system's default.
    pub(super) v6_only: Option<Switch>,
    /// Whether the path of a UNIX socket is removed with it.
    pub(super) unlink: Switch,
}

/// A socket that does not block, and that programs which this one executes do not inherit. With it the path that it
/// owns, if any.
pub(super) type Made = (OwnedFd, Option<BoundPath>);

impl Options {
    /// Makes a socket for `family`, bound to `local` if there is one.
    pub(super) fn make(self, family: AddressFamily, local: Option<&Target>) -> Result<Made, CallError> {
        let fd = open(family, self.kind).map_err(CallError::of("socket"))?;
        if self.reuse == Switch::On {
            socket::setsockopt(&fd, sockopt::ReuseAddr, &true).map_err(CallError::of("setsockopt"))?;
        }
        if let (AddressFamily::Inet6, Some(only)) = (family, self.v6_only) {
            socket::setsockopt(&fd, sockopt::Ipv6V6Only, &(only == Switch::On)).map_err(CallError::of("setsockopt"))?;
        }
        let path = local.map_or(Ok(None), |local| self.bind(&fd, local)).map_err(CallError::of("bind"))?;
        Ok((fd, path))
    }

    fn bind(self, fd: &OwnedFd, local: &Target) -> nix::Result<Option<BoundPath>> {
        let bind = || local.with(|address| socket::bind(fd.as_raw_fd(), address));
        let path = match local {
            Target::Unix(path, packed) if self.unlink == Switch::On && packed.path().is_some() => path,
            _ => return bind().map(|()| None),
        };
        match bind() {
            Err(Errno::EADDRINUSE) if remove_stale(path, local, self.kind) => bind()?,
            done => done?,
        }
        Ok(BoundPath::new(path))
    }
}

/// How far a call to connect has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begun {
    /// The poller reports when it is done.
    UnderWay,
    /// The queue of a UNIX listener is full. The poller does not report when it has room.
    Queue,
}

/// Begins to connect. If a blocking call would wait, that is not a failure.
pub(super) fn connect(fd: impl AsFd, remote: &Target) -> Result<Begun, CallError> {
    match remote.with(|address| socket::connect(fd.as_fd().as_raw_fd(), address)) {
        Ok(()) | Err(Errno::EINPROGRESS | Errno::EINTR) => Ok(Begun::UnderWay),
        Err(Errno::EAGAIN) => Ok(Begun::Queue),
        Err(errno) => Err(CallError { operation: "connect", error: errno.into() }),
    }
}

/// Begins to listen. `None` means as long a queue as the system allows.
pub(super) fn listen(fd: impl AsFd, asked: Option<u32>) -> Result<(), CallError> {
    let longest = i32::from(socket::Backlog::MAXCONN);
    let queue = asked.map_or(longest, |queue| i32::try_from(queue).unwrap_or(longest).min(longest));
    let backlog = socket::Backlog::new(queue).map_err(CallError::of("listen"))?;
    socket::listen(&fd, backlog).map_err(CallError::of("listen"))?;
    if let (Some(asked), Ok(got)) = (asked, accept_queue::read(fd.as_fd()))
        && got.limit < asked
    {
        log::warn!(
            target: "lenore::wheels",
            "listen_queue is cut down by the system, see net.core.somaxconn: asked={asked} limit={}", got.limit
        );
    }
    Ok(())
}

#[cfg(not(target_vendor = "apple"))]
fn open(family: AddressFamily, kind: SockType) -> nix::Result<OwnedFd> {
    socket::socket(family, kind, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)
}

#[cfg(target_vendor = "apple")]
fn open(family: AddressFamily, kind: SockType) -> nix::Result<OwnedFd> {
    use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
    let fd = socket::socket(family, kind, SockFlag::empty(), None)?;
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(fd)
}

/// The path of a UNIX socket that was bound here. Dropping it removes the path, but only in the process that bound it,
/// and only if the path is still the same file.
#[derive(Debug)]
pub(in crate::wheel) struct BoundPath {
    /// Absolute, because the program may change its directory.
    path: PathBuf,
    maker: Maker,
    file: FileId,
}

/// Device and inode.
type FileId = (u64, u64);

impl BoundPath {
    /// Returns `None` if another process has already removed the path.
    pub(super) fn new(path: &Path) -> Option<BoundPath> {
        let file = file_id(path)?;
        let path = std::path::absolute(path).ok()?;
        Some(BoundPath { path, maker: Maker::this_process(), file })
    }
}

impl Drop for BoundPath {
    fn drop(&mut self) {
        // A forked child has a copy of the listener, and drops it at some other time.
        let is_ours = self.maker.is_here() && handover::owns_paths() && file_id(&self.path) == Some(self.file);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            log::warn!(target: "lenore::wheels", "can't unlink {}: {error}", self.path.display());
        }
    }
}

fn file_id(path: &Path) -> Option<FileId> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// Removes the path of a socket on which no process listens any more. Returns whether it has removed the path.
///
/// A killed process leaves its path behind. A process that has bound the path but does not listen yet looks dead too,
/// so two servers must not start on one path at the same moment.
fn remove_stale(path: &Path, address: &Target, kind: SockType) -> bool {
    let is_socket = || fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let before = file_id(path);
    if before.is_none() || !is_socket() {
        return false;
    }
    let Ok(probe) = open(AddressFamily::Unix, kind) else { return false };
    let is_refused = |failure: CallError| failure.errno() == Errno::ECONNREFUSED as i32;
    let is_stale = connect(&probe, address).is_err_and(is_refused);
    is_stale && file_id(path) == before && fs::remove_file(path).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_of_the_kernel_that_failed_keeps_its_errno() {
        let error = Error::os("epoll_ctl", "poller", Errno::ENOSPC);
        let failure = CallError::of_error("connect", &error);
        assert_eq!((failure.errno(), failure.error.to_string()), (Errno::ENOSPC as i32, error.to_string()));
        let error = Error::InvalidSetting { setting: "timeout", reason: "it is 0" };
        assert_eq!(CallError::of_error("connect", &error).errno(), NOT_FOUND as i32);
    }
}

//! Becoming another program that has descriptors of this one.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::execve;

use super::child::{Setup, set_close_on_exec};
use super::descriptors::copy_above;

/// The number that the first descriptor has in the program.
pub(crate) const FIRST: RawFd = 3;

/// Executes a program in this process, which was just forked for that. The program has the standard streams as they are, and
/// `descriptors` from [`FIRST`] on, in this order, and nothing else. Signals are as a new program expects them.
///
/// # Errors
///
/// The call that failed. By then descriptors have other numbers than before: the process can only end.
pub(crate) fn become_program(
    program: &CString,
    arguments: &[CString],
    environment: &[CString],
    descriptors: Vec<OwnedFd>,
) -> Result<Infallible, (&'static str, Errno)> {
    let end = FIRST + descriptors.len() as RawFd;
    // First out of the way of each other.
    let mut high = Vec::with_capacity(descriptors.len());
    for descriptor in &descriptors {
        let copy = copy_above(descriptor, end);
        high.push(copy.map_err(|error| ("fcntl", Errno::from_raw(error.raw_os_error().unwrap_or_default())))?);
    }
    for (fd, place) in high.into_iter().zip(FIRST..) {
        // SAFETY: takes numbers only. It may close a descriptor below `end` that a value of this process owns: this process executes a
        // program or ends, as its caller has said. Two kinds of values are dropped after this. Each copy in `high` is, at the end of its
        // round or by an early return. Its number is `end` or larger, so no `dup2` here has replaced it, and it closes what it owns. The
        // owner of `descriptors` is, by an early return. It then closes numbers below `end` that no other value uses any more.
        Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), place) }).map_err(|errno| ("dup2", errno))?;
    }
    std::mem::forget(descriptors);
    set_close_on_exec(end);
    Setup::default().apply()?;
    execve(program, arguments, environment).map_err(|errno| ("execve", errno))
}

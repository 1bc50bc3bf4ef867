//! The number by which the system tells processes apart that have had the same pid.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::libc;

/// Returns the inode of a descriptor that refers to process `pid`. No other process ever has it, until the system is started again.
///
/// `None` where the system has no such numbers: before Linux 6.9.
pub(crate) fn inode(pid: i32) -> Option<u64> {
    // SAFETY: takes numbers only, and returns a new descriptor or an error.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }).ok()?;
    // SAFETY: the call has just opened it, close-on-exec, and nothing else owns it.
    let file = unsafe { File::from_raw_fd(fd as i32) };
    // SAFETY: a structure of numbers, of which all zeros are valid.
    let mut about: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: writes to `about`, and to nothing else.
    Errno::result(unsafe { libc::fstatfs(file.as_raw_fd(), &mut about) }).ok()?;
    // Before there was such a file system, all of these descriptors had one inode.
    (about.f_type as u64 & 0xFFFF_FFFF == PID_FS_MAGIC).then(|| file.metadata().ok().map(|file| file.ino())).flatten()
}

const PID_FS_MAGIC: u64 = 0x5049_4446;

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // O-SD-07
    fn processes_have_different_numbers_that_stay() {
        let me = std::process::id().cast_signed();
        let Some(own) = inode(me) else { return eprintln!("skipped: takes Linux 6.9") };
        assert_eq!(inode(me), Some(own));
        assert!(inode(1).is_none_or(|init| init != own));
        assert_eq!(inode(4_194_305), None);
    }
}

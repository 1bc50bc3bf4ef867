//! The pid file: says which process the daemon is, and by its lock that it lives.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc::{O_NOCTTY, O_NOFOLLOW};

use crate::daemon::error::DaemonError;
use crate::error::Error;
use crate::sys::file_lock::try_lock;

/// A pid file that this process, or the one that forked it, has taken.
///
/// The lock counts and not the number in the file, which may be any other process's by now. It belongs to the open file
/// and so is shared with forked processes: they drop their copies at once, or the lock would outlive the daemon.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
    file: File,
    /// The process that may remove the file.
    owner: u32,
}

impl PidFile {
    /// Creates or takes over the file and locks it; it is empty until [`write_pid`](PidFile::write_pid).
    ///
    /// # Errors
    ///
    /// [`DaemonError::PidFileHeld`] when another process holds the lock; otherwise what the system says.
    pub(crate) fn take(path: PathBuf) -> Result<PidFile, DaemonError> {
        let fail = |call, error: io::Error| DaemonError::Process {
            doing: "taking the pid file",
            source: Error::os(call, path.display(), error),
        };
        for _ in 0..TRIES {
            let file = open(&path).map_err(|error| fail("open", error))?;
            match try_lock(&file) {
                Ok(()) => {}
                Err(Errno::EWOULDBLOCK) => {
                    let pid = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
                    return Err(DaemonError::PidFileHeld { path, pid });
                }
                Err(errno) => return Err(fail("flock", errno.into())),
            }
            // Its last owner may have removed it between the opening and the locking: then this is the lock of a file
            // that nobody finds any more.
            if !is_same(&path, &file).map_err(|error| fail("stat", error))? {
                continue;
            }
            file.set_len(0).map_err(|error| fail("truncate", error))?;
            return Ok(PidFile { path, file, owner: std::process::id() });
        }
        Err(fail("open", io::Error::other("the file is replaced again and again")))
    }

    /// Writes this process's pid, and makes it the one that removes the file.
    pub(crate) fn write_pid(&mut self) -> Result<(), Error> {
        self.owner = std::process::id();
        let text = format!("{}\n", self.owner);
        self.file.write_all_at(text.as_bytes(), 0).map_err(|error| Error::os("write", self.path.display(), error))
    }

    /// Takes the file away, unless it is another's by now. Where this process may not, or can't see it any more, it is
    /// left behind empty.
    pub(crate) fn remove(&self) {
        let removed = match is_same(&self.path, &self.file) {
            // Nothing can take its place while it is locked but by force.
            Ok(true) => fs::remove_file(&self.path),
            Ok(false) => Err(io::ErrorKind::NotFound.into()),
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            log::debug!(target: "lenore::daemon", "pid file {} is emptied, as it can't be removed: {error}", self.path.display());
            if let Err(error) = self.file.set_len(0) {
                log::warn!(target: "lenore::daemon", "pid file {} stays as it is: {error}", self.path.display());
            }
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // A child only closes its copy.
        if self.owner == std::process::id() {
            self.remove();
        }
    }
}

/// Opens the file without following a link, by which somebody might have another file overwritten.
fn open(path: &Path) -> io::Result<File> {
    let flags = O_NOFOLLOW | O_NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .custom_flags(flags)
        .open(path)?;
    let found = file.metadata()?;
    // A second name is a link too.
    if !found.is_file() || found.nlink() > 1 {
        return Err(io::Error::other("not a file of its own"));
    }
    Ok(file)
}

/// Tells whether `path` still names this very file.
fn is_same(path: &Path, file: &File) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// How often the file may be removed by others while it is taken.
const TRIES: usize = 100;

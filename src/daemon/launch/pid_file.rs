//! The pid file: says which process the daemon is, and by its lock that it lives.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::{O_NOCTTY, O_NOFOLLOW};

use crate::daemon::error::DaemonError;
use crate::error::Error;
use crate::handover;
use crate::kernel::Maker;
use crate::sys::file_lock::try_lock;

/// A pid file that this process, or the one that forked it, has taken.
///
/// The lock counts, and not the number in the file, which may be the pid of another process by now. The lock belongs to the open
/// file, so forked processes share it. They drop their copies at once, or the lock would outlive the daemon.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
    file: File,
    /// The process that may remove the file.
    owner: Maker,
}

impl PidFile {
    /// Creates or takes over the file and locks it; it is empty until [`write_pid`](PidFile::write_pid).
    ///
    /// # Errors
    ///
    /// [`DaemonError::PidFileHeld`] when another process holds the lock, and goes on doing so for a second; otherwise
    /// what the system says.
    pub(crate) fn take(path: PathBuf) -> Result<PidFile, DaemonError> {
        let fail = |call, error: io::Error| DaemonError::Process {
            doing: "taking the pid file",
            source: Error::os(call, path.display(), error),
        };
        let give_up = Instant::now() + PATIENCE;
        loop {
            let file = open(&path).map_err(|error| fail("open", error))?;
            match try_lock(&file) {
                Ok(()) => {}
                // A daemon that was killed in the middle of a fork leaves a child that still has to let go of the lock. And a
                // daemon that is about to end lets go of it soon.
                Err(Errno::EWOULDBLOCK) if Instant::now() < give_up => {
                    thread::sleep(PAUSE);
                    continue;
                }
                Err(Errno::EWOULDBLOCK) => {
                    let pid = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
                    return Err(DaemonError::PidFileHeld { path, pid });
                }
                Err(errno) => return Err(fail("flock", errno.into())),
            }
            // The last owner may have removed the file between the opening and the locking. Then no path leads to the locked
            // file any more.
            if !is_same(&path, &file).map_err(|error| fail("stat", error))? {
                if Instant::now() < give_up {
                    continue;
                }
                return Err(fail("open", io::Error::other("the file is replaced again and again")));
            }
            file.set_len(0).map_err(|error| fail("truncate", error))?;
            return Ok(PidFile { path, file, owner: Maker::this_process() });
        }
    }

    /// Takes over the file of the process that has served so far, with its lock. `None` if `path` is another file by now.
    ///
    /// A process that has given up root may not look into the directory. Then it could not open another file there either.
    pub(crate) fn take_over(path: &Path, file: OwnedFd) -> Option<PidFile> {
        let file = File::from(file);
        let is_ours = is_same(path, &file).unwrap_or_else(|error| error.kind() == io::ErrorKind::PermissionDenied);
        is_ours.then(|| PidFile { path: path.to_owned(), file, owner: Maker::this_process() })
    }

    #[cfg(feature = "control")]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens another descriptor for the file: the lock is shared with it.
    pub(crate) fn copy(&self) -> io::Result<OwnedFd> {
        self.file.as_fd().try_clone_to_owned()
    }

    /// Writes this process's pid, and makes it the one that removes the file.
    pub(crate) fn write_pid(&mut self) -> Result<(), Error> {
        self.owner = Maker::this_process();
        let text = format!("{}\n", std::process::id());
        // In one piece, and what is left of a longer one after that: there is a pid in it at any time.
        let written = self
            .file
            .write_all_at(text.as_bytes(), 0)
            .and_then(|()| self.file.set_len(text.len().try_into().unwrap_or(0)));
        written.map_err(|error| Error::os("write", self.path.display(), error))
    }

    /// Takes the file away, unless it is another's by now. Where this process may not, or can't see it any more, it is
    /// left behind empty.
    pub(crate) fn remove(&self) {
        // Nothing but force puts another in its place while it is locked.
        let removed =
            is_same(&self.path, &self.file).and_then(|same| if same { fs::remove_file(&self.path) } else { Ok(()) });
        if let Err(error) = &removed {
            log::debug!(target: "lenore::daemon", "pid file {} is emptied instead of removed: {error}", self.path.display());
        }
        // Also for a jail, from where it can't be seen; and for whoever has moved it away.
        if let Err(error) = self.file.set_len(0) {
            log::warn!(target: "lenore::daemon", "pid file {} can't be removed or emptied: {error}", self.path.display());
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // A child only closes its copy.
        if self.owner.is_here() && handover::owns_paths() {
            self.remove();
        }
    }
}

/// Opens the file without following a link. Otherwise another user could have any file overwritten by a link.
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

/// How long a lock may be in the way before it is taken for that of a daemon that lives.
const PATIENCE: Duration = Duration::from_secs(1);

/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::testing::TempDir;

    #[test] // D-DE-06: who locks a file that was removed meanwhile has nothing
    fn of_many_that_come_and_go_one_has_the_file() {
        let dir = TempDir::new();
        let path = dir.path().join("pid");
        let (holders, taken) = (AtomicU32::new(0), AtomicU32::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        match PidFile::take(path.clone()) {
                            Ok(mut file) => {
                                assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two have it");
                                file.write_pid().unwrap();
                                assert!(is_same(&path, &file.file).unwrap());
                                taken.fetch_add(1, Ordering::SeqCst);
                                holders.fetch_sub(1, Ordering::SeqCst);
                            }
                            Err(DaemonError::PidFileHeld { .. }) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                });
            }
        });
        assert!(taken.into_inner() > 0);
        assert!(!path.exists());
    }

    #[test] // D-DE-06: a file that is another's by now is left alone
    fn a_file_that_was_replaced_is_not_removed() {
        let dir = TempDir::new();
        let path = dir.path().join("pid");
        let mut file = PidFile::take(path.clone()).unwrap();
        file.write_pid().unwrap();
        fs::rename(&path, dir.path().join("elsewhere")).unwrap();
        fs::write(&path, "another's").unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "another's");
        assert_eq!(fs::read_to_string(dir.path().join("elsewhere")).unwrap(), "", "nobody's pid any more");
    }
}

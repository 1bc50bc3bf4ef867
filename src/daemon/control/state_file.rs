//! The state file: one word for scripts that do not ask at the socket, beside the pid file.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc::{O_CLOEXEC, O_NOFOLLOW};
use nix::unistd::{AccessFlags, access};

use crate::daemon::error::DaemonError;
use crate::error::Error;
use crate::handover;
use crate::kernel::Maker;

/// A file that says what the Daemon does.
#[derive(Debug)]
pub(in crate::daemon) struct StateFile {
    /// Where it is to be in the end.
    place: PathBuf,
    path: PathBuf,
    /// The file as it is now, for a process that may not make another one any more.
    file: File,
    /// The user and group that it belongs to.
    owner: (Option<u32>, Option<u32>),
    /// The lines behind the first.
    rest: String,
    /// The process that may change and remove it.
    maker: Maker,
    /// The path leads nowhere any more.
    is_out_of_sight: bool,
    /// It is the predecessor's still, and nothing is written to it.
    is_anothers: bool,
}

impl StateFile {
    /// Makes the file beside a pid file. It says that the Daemon is starting.
    ///
    /// A successor that may make no file there has that of its predecessor, when it serves.
    ///
    /// # Errors
    ///
    /// [`DaemonError::Process`], which names the path.
    pub(in crate::daemon) fn make(
        pid_file: &Path,
        owner: (Option<u32>, Option<u32>),
        socket: &Path,
        board: Option<&Path>,
        is_out_of_sight: bool,
        is_successors: bool,
    ) -> Result<StateFile, DaemonError> {
        let (place, temporary) = paths_of(pid_file);
        let path = if is_successors { temporary } else { place.clone() };
        let rest = format!(
            "pid={}\nstart_time={}\nsocket={}\nboard={}\n",
            std::process::id(),
            start_time().unwrap_or_default(),
            socket.display(),
            board.unwrap_or(Path::new("")).display(),
        );
        let made = replace(&path, owner, &text("starting", &rest));
        let is_refused = made.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
        let present = if is_successors && is_refused { open(&place).ok() } else { None };
        let is_anothers = present.is_some();
        let file = present.map_or(made, Ok).map_err(|error| DaemonError::Process {
            doing: "making the state file",
            source: Error::os("open", path.display(), error),
        })?;
        let path = if is_anothers { place.clone() } else { path };
        Ok(StateFile { place, path, file, owner, rest, maker: Maker::this_process(), is_out_of_sight, is_anothers })
    }

    /// Gives the file its path, if it has none yet.
    pub(in crate::daemon) fn take_name(&mut self) {
        let former = std::mem::replace(&mut self.path, self.place.clone());
        let was_anothers = std::mem::take(&mut self.is_anothers);
        if was_anothers || former != self.place {
            self.say("ready");
        }
        if former != self.place {
            let _ = fs::remove_file(former);
        }
    }

    /// Says what the Daemon does now, in one of the words of a phase.
    pub(in crate::daemon) fn say(&mut self, word: &str) {
        if self.is_anothers {
            return;
        }
        let text = text(word, &self.rest);
        let replaced = if self.is_out_of_sight {
            Err(io::ErrorKind::NotFound.into())
        } else {
            replace(&self.path, self.owner, &text)
        };
        match replaced {
            Ok(file) => self.file = file,
            // The directory is not this user's. A reader may find two words in one, for a moment.
            Err(_) => {
                let written = self.file.set_len(0).and_then(|()| self.file.write_all_at(text.as_bytes(), 0));
                if let Err(error) = written {
                    log::warn!(target: "lenore::daemon", "state file {} can't be written: {error}", self.path.display());
                }
            }
        }
    }
}

impl Drop for StateFile {
    /// Takes the file away unless it is another's by now. Where that is not possible it is left behind empty.
    fn drop(&mut self) {
        // One that another process has taken back, or has for good, is replaced by that.
        if !self.maker.is_here() || self.is_anothers || (self.path == self.place && !handover::owns_paths()) {
            return;
        }
        let is_ours = || {
            let (ours, found) = (self.file.metadata().ok()?, fs::symlink_metadata(&self.path).ok()?);
            Some((ours.dev(), ours.ino()) == (found.dev(), found.ino()))
        };
        if !self.is_out_of_sight && is_ours() == Some(true) && fs::remove_file(&self.path).is_ok() {
            return;
        }
        let _ = self.file.set_len(0);
    }
}

/// Returns the path of the state file beside a pid file, and the path that a successor's file has before the successor serves.
pub(in crate::daemon) fn paths_of(pid_file: &Path) -> (PathBuf, PathBuf) {
    let mut path = OsString::from(pid_file);
    path.push(".state");
    let place = PathBuf::from(&path);
    path.push(".new");
    (place, path.into())
}

/// Tells whether this process could write another state file, or the one that is there.
pub(in crate::daemon) fn may_write(pid_file: &Path) -> Result<(), (PathBuf, Errno)> {
    let (place, _) = paths_of(pid_file);
    let directory = place.parent().unwrap_or(Path::new("/"));
    access(directory, AccessFlags::W_OK | AccessFlags::X_OK)
        .or_else(|_| access(&place, AccessFlags::W_OK))
        .map_err(|errno| (place, errno))
}

/// Opens the file that is there.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(O_NOFOLLOW | O_CLOEXEC).open(path)
}

fn text(word: &str, rest: &str) -> String {
    format!("state={word}\n{rest}")
}

/// Puts a new file in the place of another one.
fn replace(path: &Path, (uid, gid): (Option<u32>, Option<u32>), text: &str) -> io::Result<File> {
    let mut new = OsString::from(path);
    new.push(format!(".{}", std::process::id()));
    let new = PathBuf::from(new);
    // One that was killed in the middle of this, and had the same pid.
    let _ = fs::remove_file(&new);
    let made = (|| {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o644)
            .custom_flags(O_NOFOLLOW | O_CLOEXEC)
            .open(&new)?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        if uid.is_some() || gid.is_some() {
            fchown(&file, uid, gid)?;
        }
        file.write_all_at(text.as_bytes(), 0)?;
        fs::rename(&new, path)?;
        Ok(file)
    })();
    made.inspect_err(|_| drop(fs::remove_file(&new)))
}

/// Returns when this process began, in ticks since the system did.
#[cfg(target_os = "linux")]
fn start_time() -> Option<u64> {
    crate::sys::procfs::Stat::read("self").ok()?.number(22)
}

#[cfg(not(target_os = "linux"))]
fn start_time() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;

    #[test] // O-CT-22
    fn file_is_replaced_and_removed() {
        let dir = TempDir::new();
        let (pid_file, path) = (dir.path().join("pid"), dir.path().join("pid.state"));
        let mut state = StateFile::make(&pid_file, (None, None), Path::new("/run/x"), None, false, false).unwrap();
        let first = fs::metadata(&path).unwrap().ino();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("state=starting\npid=") && text.contains("socket=/run/x\n"), "{text}");
        let start: u64 = text.split_once("start_time=").unwrap().1.lines().next().unwrap().parse().unwrap();
        assert!(start > 0);
        state.say("ready");
        assert_ne!(fs::metadata(&path).unwrap().ino(), first, "it is another file");
        assert!(fs::read_to_string(&path).unwrap().starts_with("state=ready\n"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        drop(state);
        assert!(!path.exists());
    }

    #[test] // O-CT-22
    fn file_in_a_directory_that_is_lost_is_written_in_place() {
        let dir = TempDir::new();
        let (pid_file, path) = (dir.path().join("pid"), dir.path().join("pid.state"));
        let mut state = StateFile::make(&pid_file, (None, None), Path::new("/run/x"), None, true, false).unwrap();
        let first = fs::metadata(&path).unwrap().ino();
        state.say("stopping");
        assert_eq!(fs::metadata(&path).unwrap().ino(), first);
        assert!(fs::read_to_string(&path).unwrap().starts_with("state=stopping\n"));
        drop(state);
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
    }
}

//! Where a board is that other programs may look at: a file with a path, or one in memory only.
//!
//! A file is made under another name and then renamed, so that no program ever finds half of one. A Daemon makes it shorter only
//! when another process has cut it short before. A new board is a new file.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::posix_fallocate;
use nix::libc::{O_NOCTTY, O_NOFOLLOW, O_NONBLOCK};
use nix::unistd::{Gid, Uid};

use super::{BoardError, BoardFile, ParentState};
use crate::handover;
use crate::kernel::Maker;
use crate::sys::shown_memory::{MAGIC, ShownBoard};

/// Where to make a board that other programs may look at.
#[derive(Debug)]
pub(in crate::daemon) enum Place {
    /// In memory. Programs find it among the descriptors of the parent process.
    Memory,
    /// In a file.
    File {
        /// Its path, absolute.
        path: PathBuf,
        /// Whose it is to be; `None` for this process's own.
        owner: (Option<Uid>, Option<Gid>),
        /// It gets the path later, and the board that is there is left alone until then.
        is_successors: bool,
    },
}

/// The file of a board, in the process that has made it.
#[derive(Debug)]
pub(super) enum Home {
    /// It is there as long as this is open.
    Memory(OwnedFd),
    /// Removed when this is dropped in the process that has made it.
    File {
        path: PathBuf,
        /// What it is called until it gets its path.
        temporary: Option<PathBuf>,
        device: u64,
        inode: u64,
        maker: Maker,
    },
    /// The system has no files in memory.
    Nowhere,
}

impl Home {
    /// Maps a new board with room for all slots, has `fill` write what it begins with, and puts it in its place. The memory of
    /// the first `slots` slots is there when this returns.
    ///
    /// A file is but a copy of the board, as it may be cut short.
    pub(super) fn make(
        place: Place,
        slots: usize,
        fill: impl Fn(&ShownBoard),
    ) -> Result<(Home, ShownBoard), BoardError> {
        match place {
            Place::Memory => {
                let os = |call| move |source| BoardError::Os { call, source };
                let Some(file) = in_memory().map_err(os("memfd_create"))? else {
                    let shown = ShownBoard::map(None).map_err(os("mmap"))?;
                    fill(&shown);
                    return Ok((Home::Nowhere, shown));
                };
                let shown = ShownBoard::map(Some((&file, true))).map_err(os("mmap"))?;
                fill(&shown);
                Ok((Home::Memory(file.into()), shown))
            }
            Place::File { path, owner, is_successors } => {
                let fail = |call| {
                    let path = path.clone();
                    move |source| BoardError::File { path, call, source }
                };
                check_replaceable(&path).map_err(fail("open"))?;
                // Its Daemon would go on without a board that anyone finds.
                if let Some(pid) = live_owner(&path).filter(|_| !is_successors) {
                    return Err(BoardError::Held { path, pid });
                }
                let new = temporary_of(&path, std::process::id());
                let file = create(&new).map_err(fail("open"))?;
                let made = (|| {
                    fchown(&file, owner.0.map(Uid::as_raw), owner.1.map(Gid::as_raw)).map_err(fail("chown"))?;
                    // The process's umask may have taken more away.
                    file.set_permissions(Permissions::from_mode(MODE)).map_err(fail("chmod"))?;
                    file.set_len(ShownBoard::LENGTH as u64).map_err(fail("truncate"))?;
                    reserve(&file, slots).map_err(fail("fallocate"))?;
                    let copy = ShownBoard::map(Some((&file, true))).map_err(fail("mmap"))?;
                    fill(&copy);
                    let shown = ShownBoard::map(None).map_err(fail("mmap"))?;
                    fill(&shown);
                    let shown = shown.with_copy(copy);
                    let metadata = file.metadata().map_err(fail("stat"))?;
                    if !is_successors {
                        fs::rename(&new, &path).map_err(fail("rename"))?;
                    }
                    Ok((metadata.dev(), metadata.ino(), shown))
                })();
                let (device, inode, shown) = made.inspect_err(|_| drop(fs::remove_file(&new)))?;
                let temporary = is_successors.then_some(new);
                Ok((Home::File { path, temporary, device, inode, maker: Maker::this_process() }, shown))
            }
        }
    }

    /// Gives the file its path, if it has none yet. Whatever the path has led to is lost.
    pub(super) fn take_name(&mut self) -> Result<(), BoardError> {
        let Home::File { path, temporary, .. } = self else { return Ok(()) };
        if let Some(new) = temporary.take() {
            let fail = |source| BoardError::File { path: path.clone(), call: "rename", source };
            fs::rename(&new, &path).map_err(fail)?;
        }
        Ok(())
    }

    /// Returns the path of its file.
    pub(super) fn file_path(&self) -> Option<&Path> {
        if let Home::File { path, .. } = self { Some(path) } else { None }
    }

    /// Tells whether its file is shorter than it was made, as far as this process can see it.
    pub(super) fn is_cut_short(&self) -> bool {
        let Home::File { device, inode, .. } = self else { return false };
        let found = self.present_path().and_then(|path| fs::symlink_metadata(path).ok());
        let found = found.filter(|found| (found.dev(), found.ino()) == (*device, *inode));
        found.is_some_and(|found| found.len() < ShownBoard::LENGTH as u64)
    }

    /// Empties the file, so that no program takes what is left in it for the board. Each process that has the file mapped goes on with
    /// memory of its own.
    pub(super) fn empty(&self) {
        let (Home::File { device, inode, .. }, Some(path)) = (self, self.present_path()) else { return };
        // Opened for this only: a board takes no descriptor.
        let emptied = OpenOptions::new().write(true).custom_flags(O_NOFOLLOW | O_NOCTTY | O_NONBLOCK).open(path);
        let emptied = emptied.and_then(|file| {
            let found = file.metadata()?;
            if (found.dev(), found.ino()) == (*device, *inode) { file.set_len(0) } else { Ok(()) }
        });
        if let Err(error) = emptied {
            log::debug!(target: "lenore::daemon", "board {} can't be emptied: {error}", path.display());
        }
    }

    /// Returns the path that its file has now.
    fn present_path(&self) -> Option<&Path> {
        let Home::File { path, temporary, .. } = self else { return None };
        Some(temporary.as_ref().unwrap_or(path))
    }

    /// Returns the path by which other programs find it.
    pub(super) fn path(&self) -> Option<PathBuf> {
        match self {
            Home::Memory(file) => {
                Some(PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_fd().as_raw_fd())))
            }
            Home::File { path, .. } => Some(path.clone()),
            Home::Nowhere => None,
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let Home::File { path, temporary, device, inode, maker } = self else { return };
        if temporary.is_none() && !handover::owns_paths() {
            return;
        }
        let path = temporary.as_ref().unwrap_or(path);
        // A child only lets go of its copy. And what another daemon has put in its place meanwhile is that daemon's.
        let is_ours = |found: fs::Metadata| (found.dev(), found.ino()) == (*device, *inode);
        if !maker.is_here() || !fs::symlink_metadata(path).is_ok_and(is_ours) {
            return;
        }
        if let Err(error) = fs::remove_file(path) {
            log::debug!(target: "lenore::daemon", "board {} is left behind: {error}", path.display());
        }
    }
}

/// Makes sure that no file of another kind is lost.
fn check_replaceable(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if found.is_symlink() {
        return Err(Errno::ELOOP.into());
    }
    if !found.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut start = Vec::new();
    let file = OpenOptions::new().read(true).custom_flags(O_NOFOLLOW | O_NOCTTY).open(path)?;
    file.take(size_of::<u64>() as u64).read_to_end(&mut start)?;
    if start.is_empty() || start == MAGIC.to_ne_bytes() {
        Ok(())
    } else {
        Err(io::Error::other("the file there is not a board"))
    }
}

/// Returns the process whose board this is, if it runs or is stopped and its Daemon has not ended.
fn live_owner(path: &Path) -> Option<u32> {
    let board = BoardFile::open(path).ok()?;
    matches!(board.parent(), ParentState::Running | ParentState::Stopped).then(|| board.pid())
}

/// The path that the file of process `pid` has until it is complete.
pub(in crate::daemon) fn temporary_of(path: &Path, pid: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{pid}"));
    name.into()
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(MODE).custom_flags(O_NOFOLLOW | O_NOCTTY);
    options.open(path).or_else(|error| {
        if error.kind() != io::ErrorKind::AlreadyExists {
            return Err(error);
        }
        // A process of the same pid was killed before it could rename it.
        fs::remove_file(path)?;
        options.open(path)
    })
}

/// Has the file system reserve space. If space runs out later, the file is lost, as if it were cut short.
fn reserve(file: &File, slots: usize) -> io::Result<()> {
    let (slots_end, (stats, stats_end)) = ShownBoard::used(slots.saturating_add(GROWTH));
    posix_fallocate(file, 0, slots_end as _)?;
    posix_fallocate(file, ShownBoard::END_AT as _, (ShownBoard::LENGTH - ShownBoard::END_AT) as _)?;
    Ok(posix_fallocate(file, stats as _, (stats_end - stats) as _)?)
}

/// Makes a file in memory, which no process can shorten. `None` where the system has no such files.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn in_memory() -> io::Result<Option<File>> {
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    use nix::sys::memfd::{MFdFlags, memfd_create};

    let file = File::from(memfd_create(MEMORY_NAME, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
    file.set_permissions(Permissions::from_mode(MODE))?;
    file.set_len(ShownBoard::LENGTH as u64)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL))?;
    Ok(Some(file))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn in_memory() -> io::Result<Option<File>> {
    Ok(None)
}

/// The owner writes, the group reads, nobody else does.
const MODE: u32 = 0o640;

/// For how many slots more than at first there is space for sure.
const GROWTH: usize = 64;

/// What a board in memory is called: the descriptor is a link to `/memfd:lenore-board`.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) const MEMORY_NAME: &str = "lenore-board";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::testing::TempDir;

    fn make(path: &Path) -> Result<(Home, ShownBoard), BoardError> {
        let place = Place::File { path: path.to_owned(), owner: (None, None), is_successors: false };
        Home::make(place, 2, |shown| shown.header().magic.store(MAGIC, std::sync::atomic::Ordering::Relaxed))
    }

    fn names(dir: &TempDir) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test] // O-ST-14
    fn board_is_a_file_of_mode_0640_that_goes_with_its_daemon() {
        let dir = TempDir::new();
        let path = dir.path().join("board");
        let (home, _shown) = make(&path).unwrap();
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.mode() & 0o7777, found.len()), (0o640, ShownBoard::LENGTH as u64));
        // Sparse: the pages of the slots that there are, and of some more.
        assert!(found.blocks() * 512 < 256 * 1024, "{} blocks", found.blocks());
        assert_eq!(names(&dir), ["board"]);
        drop(home);
        assert_eq!(names(&dir), [""; 0]);
    }

    #[test] // O-ST-14: a new board is a new file
    fn board_replaces_an_older_one_and_leaves_a_newer_one() {
        let dir = TempDir::new();
        let path = dir.path().join("board");
        let (first, old) = make(&path).unwrap();
        let (second, _shown) = make(&path).unwrap();
        assert_eq!(old.header().magic.load(std::sync::atomic::Ordering::Relaxed), MAGIC);
        drop(first);
        assert_eq!(names(&dir), ["board"]);
        drop(second);
        assert_eq!(names(&dir), [""; 0]);
    }

    #[test] // O-ST-14
    fn what_is_not_a_board_is_left_alone() {
        let dir = TempDir::new();
        let target = dir.path().join("passwd");
        fs::write(&target, "root:x:0:0").unwrap();
        let link = dir.path().join("link");
        symlink(&target, &link).unwrap();
        let dangling = dir.path().join("dangling");
        symlink(dir.path().join("nothing"), &dangling).unwrap();
        for path in [&target, &link, &dangling, &dir.path().to_owned(), &dir.path().join("no/board")] {
            let error = make(path).expect_err("refused");
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        }
        assert_eq!(fs::read_to_string(&target).unwrap(), "root:x:0:0");
        assert_eq!(names(&dir), ["dangling", "link", "passwd"]);
    }
}

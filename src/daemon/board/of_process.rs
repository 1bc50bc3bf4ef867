//! The board of a process that says nothing.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{BoardFile, BoardFileError};

impl BoardFile {
    /// Opens the board of the process `pid`: the one that it keeps in memory, or else the file that it writes its board to.
    ///
    /// A process has a board in memory if its Daemon has a control socket or a status listener, and no file for the board. The caller
    /// must be allowed to look into the process, as the same user or root is. Linux only.
    ///
    /// # Errors
    ///
    /// As [`open`](BoardFile::open). [`BoardFileError::Open`] with [`NotFound`](io::ErrorKind::NotFound) if the process does not exist
    /// or has no board.
    pub fn of_process(pid: u32) -> Result<BoardFile, BoardFileError> {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let cannot = |path: &Path, source| BoardFileError::Open { path: path.to_owned(), source };
        let descriptors = process.join("fd");
        for (link, target) in written(&descriptors).map_err(|source| cannot(&descriptors, source))? {
            if target.as_os_str().as_encoded_bytes().starts_with(IN_MEMORY) {
                return BoardFile::open(link);
            }
        }
        // A board that is a file has no descriptor, but is mapped.
        let mut unreadable = None;
        for (_, path) in written(&process.join("map_files")).unwrap_or_default() {
            // To open a device might have effects.
            if !path.is_file() {
                continue;
            }
            match BoardFile::open(path) {
                // Children have their parent's board mapped.
                Ok(board) if board.pid() == pid => return Ok(board),
                Err(error @ (BoardFileError::Layout { .. } | BoardFileError::Damaged { .. })) => {
                    unreadable = Some(error)
                }
                _ => {}
            }
        }
        let none = || cannot(&process, io::Error::new(io::ErrorKind::NotFound, "the process has no board"));
        Err(unreadable.unwrap_or_else(none))
    }
}

/// Returns the links in a directory of `/proc` to files that the process writes to, each with its target. A process that only reads
/// another one's board is not taken for its owner so.
fn written(directory: &Path) -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let mut links = Vec::new();
    for entry in directory.read_dir()? {
        let link = entry?.path();
        // The process may have closed it by now.
        let (Ok(found), Ok(target)) = (link.symlink_metadata(), link.read_link()) else { continue };
        if found.mode() & OWNER_WRITES != 0 {
            links.push((link, target));
        }
    }
    Ok(links)
}

/// The bit of the permissions of a link in `/proc` that tells that the file is open for writing.
const OWNER_WRITES: u32 = 0o200;

/// What the descriptor of a board in memory is a link to. The system puts ` (deleted)` behind it.
pub(super) const IN_MEMORY: &[u8] = b"/memfd:lenore-board";

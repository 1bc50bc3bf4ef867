//! How this program was started, so that it can be started again: by the path that the launcher has used, with its links.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// How this program was started.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    /// The program, absolute; no link in it is followed, so that it leads to another release when that has taken its place. `None` if
    /// it can't be told.
    pub(crate) program: Option<PathBuf>,
    /// The working directory, as the launcher names it.
    pub(crate) directory: PathBuf,
    pub(crate) arguments: Vec<OsString>,
}

/// Returns how this program was started, as it was when this was called first.
pub(crate) fn start() -> &'static Start {
    static START: OnceLock<Start> = OnceLock::new();
    START.get_or_init(|| {
        let directory = directory();
        let arguments: Vec<OsString> = env::args_os().collect();
        let name = arguments.first().map(OsString::as_os_str).unwrap_or_default();
        let program = find(name, &directory, env::var_os("PATH").as_deref()).or_else(|| env::current_exe().ok());
        Start { program, directory, arguments }
    })
}

impl Start {
    /// Makes a path absolute that counts from the directory in which the program was started.
    pub(crate) fn resolve(&self, path: &Path) -> PathBuf {
        self.directory.join(path)
    }
}

/// Returns what the shell calls the working directory, if that is the one.
fn directory() -> PathBuf {
    let identity = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let named = env::var_os("PWD").map(PathBuf::from).filter(|path| path.is_absolute());
    named
        .filter(|path| identity(path).is_some_and(|named| identity(Path::new(".")) == Some(named)))
        .or_else(|| env::current_dir().ok())
        .unwrap_or_else(|| PathBuf::from("/"))
}

/// Finds a program as a shell does: by its path, or in the directories of `PATH`.
fn find(name: &OsStr, directory: &Path, search: Option<&OsStr>) -> Option<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return Some(directory.join(name)).filter(|path| path.is_file());
    }
    if name.is_empty() {
        return None;
    }
    let found = env::split_paths(search?).map(|place| directory.join(place).join(name));
    found.into_iter().find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::testing::TempDir;

    #[test] // O-UP-12: `current` may lead to another release by then
    fn program_is_found_without_following_links() {
        let dir = TempDir::new();
        fs::create_dir(dir.path().join("release-1")).unwrap();
        fs::write(dir.path().join("release-1/server"), "").unwrap();
        symlink("release-1", dir.path().join("current")).unwrap();
        let path = dir.path().join("current/server");
        assert_eq!(find(OsStr::new("current/server"), dir.path(), None), Some(path.clone()));
        assert_eq!(find(path.as_os_str(), Path::new("/"), None), Some(path.clone()));
        let search = env::join_paths([dir.path().join("none"), dir.path().join("current")]).unwrap();
        assert_eq!(find(OsStr::new("server"), Path::new("/"), Some(&search)), Some(path));
        assert_eq!(find(OsStr::new("server"), dir.path(), None), None);
        assert_eq!(find(OsStr::new("./server"), dir.path(), Some(&search)), None);
    }

    #[test] // O-UP-12
    fn relative_path_counts_from_where_the_program_was_started() {
        let start = Start { program: None, directory: PathBuf::from("/srv/app"), arguments: Vec::new() };
        assert_eq!(start.resolve(Path::new("bin/new")), Path::new("/srv/app/bin/new"));
        assert_eq!(start.resolve(Path::new("/opt/new")), Path::new("/opt/new"));
    }
}

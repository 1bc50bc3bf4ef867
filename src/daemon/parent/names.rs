//! The names by which other programs find the Daemon: pid file, control socket, board, state file and status listener. A successor
//! takes over all of them at one moment. Each file of this process keeps a second name, by which the process can take it back.

use std::fs;
#[cfg(feature = "control")]
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::daemon::heap::Cx;
#[cfg(feature = "control")]
use crate::daemon::parent::clients;
use crate::daemon::parent::role::Parent;
#[cfg(feature = "status")]
use crate::daemon::parent::status_listener;
use crate::error::Error;
use crate::handover;

/// Says which path a successor could not take over, because this process may not change it either.
pub(super) fn why_not(cx: &mut Cx<'_>) -> Option<String> {
    use nix::unistd::{AccessFlags, access};
    let explain =
        |path: &Path, refused: Errno| format!("an upgrade needs root for {}: {}", path.display(), refused.desc());
    let refused = paths(cx).iter().find_map(|path| {
        let refused = access(path.parent()?, AccessFlags::W_OK | AccessFlags::X_OK).err()?;
        Some(explain(path, refused))
    });
    refused.or_else(|| state_file_refused(cx).map(|(path, refused)| explain(&path, refused)))
}

/// Returns the path of the state file, if there is one that a successor could not have.
fn state_file_refused(cx: &mut Cx<'_>) -> Option<(PathBuf, Errno)> {
    #[cfg(feature = "control")]
    {
        let heap = cx.heap();
        let control = heap.role.parent().and_then(|parent| parent.control.as_deref());
        control.and_then(|control| control.state_file.as_ref())?;
        crate::daemon::control::may_write(heap.process.pid_file.as_ref()?.path()).err()
    }
    #[cfg(not(feature = "control"))]
    {
        let _ = cx;
        None
    }
}

/// Returns the paths that lead to what this process has made.
fn paths(cx: &mut Cx<'_>) -> Vec<PathBuf> {
    #[cfg(feature = "control")]
    {
        let heap = cx.heap();
        let control = heap.role.parent().and_then(|parent| parent.control.as_deref());
        let socket = control.and_then(|control| control.socket.own_path()).map(Path::to_owned);
        let board = heap.board.as_ref().and_then(|board| board.file_path()).map(Path::to_owned);
        socket.into_iter().chain(board).collect()
    }
    #[cfg(not(feature = "control"))]
    {
        let _ = cx;
        Vec::new()
    }
}

fn parent<'a>(cx: &'a mut Cx<'_>) -> Option<&'a mut Parent> {
    cx.heap().role.parent_mut()
}

/// The successor is to have the names from now on.
pub(super) fn give_away(cx: &mut Cx<'_>) {
    let mut kept = Vec::new();
    for path in paths(cx) {
        let other = other_name(&path);
        let _ = fs::remove_file(&other);
        match fs::hard_link(&path, &other) {
            Ok(()) => kept.push((path, other)),
            Err(error) => {
                log::warn!(target: "lenore::daemon", "{} can't be taken back if the upgrade fails: it can't get a second name: {error}", path.display());
            }
        }
    }
    handover::leave_paths(true);
    let Some(parent) = parent(cx) else { return };
    parent.upgrade.kept.paths = kept;
    #[cfg(feature = "control")]
    if let Some(control) = parent.control.as_deref_mut() {
        control.socket.set_out_of_sight(true);
        parent.upgrade.kept.state_file = control.state_file.take();
    }
    // Who asks whether the service is ready is to ask the successor.
    #[cfg(feature = "status")]
    status_listener::close_door(cx);
}

/// The names are this process's again.
pub(super) fn take_back(cx: &mut Cx<'_>) {
    let Some(parent) = parent(cx) else { return };
    parent.upgrade.kept.paths.iter().for_each(restore);
    handover::leave_paths(false);
    #[cfg(feature = "control")]
    {
        let state_file = parent.upgrade.kept.state_file.take();
        if let Some(control) = parent.control.as_deref_mut() {
            control.socket.set_out_of_sight(false);
            control.state_file = state_file;
            // So that it is said anew.
            control.phase = None;
        }
    }
    write_pid(cx);
    open_status(cx);
}

/// Has a path lead to what this process has made. The other name stays: a successor that was stopped may still take the path.
fn restore((path, other): &(PathBuf, PathBuf)) {
    if is_same(path, other) {
        return;
    }
    let mut between = other.clone().into_os_string();
    between.push(".new");
    let between = PathBuf::from(between);
    let _ = fs::remove_file(&between);
    if let Err(error) = fs::hard_link(other, &between).and_then(|()| fs::rename(&between, path)) {
        log::error!(target: "lenore::daemon", "{} can't be taken back: {error}", path.display());
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()));
    identity(one).is_some_and(|one| identity(other) == Some(one))
}

/// A successor that was to end has ended, and can't take a name any more: whatever it has taken since is taken back.
/// Returns whether there was one that had been handed over.
pub(super) fn settle(cx: &mut Cx<'_>) -> bool {
    let Some(parent) = parent(cx).filter(|parent| !parent.upgrade.is_handed_over) else { return false };
    let paths = std::mem::take(&mut parent.upgrade.kept.paths);
    if paths.is_empty() {
        return false;
    }
    paths.iter().for_each(restore);
    paths.iter().for_each(|(_, other)| drop(fs::remove_file(other)));
    #[cfg(feature = "control")]
    if let Some(control) = parent.control.as_deref_mut() {
        control.phase = None;
    }
    write_pid(cx);
    true
}

fn write_pid(cx: &mut Cx<'_>) {
    if let Some(pid_file) = &mut cx.heap().process.pid_file
        && let Err(error) = pid_file.write_pid()
    {
        log::error!(target: "lenore::daemon", "{error}");
    }
}

/// Lets clients of the status listener in again.
fn open_status(cx: &mut Cx<'_>) {
    #[cfg(feature = "status")]
    if let Err(error) = status_listener::open_door(cx) {
        log::error!(target: "lenore::daemon", "status can't be served any more: {error}");
    }
    #[cfg(not(feature = "status"))]
    let _ = cx;
}

/// They are the successor's for good.
pub(super) fn leave(cx: &mut Cx<'_>) {
    let Some(parent) = parent(cx) else { return };
    parent.upgrade.kept.paths.drain(..).for_each(|(_, other)| drop(fs::remove_file(other)));
    handover::leave_paths(true);
}

/// This process is the successor, and takes the names.
///
/// # Errors
///
/// Which one it can't have.
pub(super) fn take(cx: &mut Cx<'_>) -> Result<(), Error> {
    if let Some(pid_file) = &mut cx.heap().process.pid_file {
        pid_file.write_pid()?;
    }
    #[cfg(feature = "control")]
    {
        let heap = cx.heap();
        if let Some(board) = &mut heap.board {
            board.take_name().map_err(|error| Error::os("rename", "board", io::Error::other(error)))?;
        }
        if let Some(control) = heap.role.parent_mut().and_then(|parent| parent.control.as_deref_mut()) {
            control.socket.take_name()?;
            if let Some(state_file) = &mut control.state_file {
                state_file.take_name();
            }
            control.phase = None;
        }
        clients::begin(cx);
    }
    handover::leave_paths(false);
    open_status(cx);
    Ok(())
}

/// The names belong to the predecessor again, or still. This process does not touch them any more.
pub(super) fn give_back(cx: &mut Cx<'_>) {
    handover::leave_paths(true);
    #[cfg(feature = "control")]
    if let Some(control) = parent(cx).and_then(|parent| parent.control.as_deref_mut()) {
        control.socket.set_out_of_sight(true);
        control.state_file = None;
    }
    #[cfg(feature = "status")]
    status_listener::close_door(cx);
    #[cfg(not(feature = "control"))]
    let _ = cx;
}

/// The successor `pid` has ended, perhaps by force: the names that what it has made had are taken away.
pub(super) fn sweep(cx: &mut Cx<'_>, pid: i32) {
    #[cfg(feature = "control")]
    {
        use crate::daemon::board::temporary_of as board_of;
        use crate::daemon::control::{paths_of, temporary_of};
        let pid = pid.unsigned_abs();
        let heap = cx.heap();
        let control = heap.role.parent().and_then(|parent| parent.control.as_deref());
        let socket = control.and_then(|control| control.socket.own_path()).map(|path| temporary_of(path, pid));
        let board = heap.board.as_ref().and_then(|board| board.file_path()).map(|path| board_of(path, pid));
        let state = heap.process.pid_file.as_ref().filter(|_| control.is_some()).map(|file| paths_of(file.path()).1);
        [socket, board, state].into_iter().flatten().for_each(|path| drop(fs::remove_file(path)));
    }
    #[cfg(not(feature = "control"))]
    let _ = (cx, pid);
}

/// The predecessor is gone: what it has kept for itself is of no use any more.
pub(super) fn clean_up(cx: &mut Cx<'_>) {
    paths(cx).iter().for_each(|path| drop(fs::remove_file(other_name(path))));
}

/// The name of what a process has made while its successor has the path.
fn other_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".old");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;

    #[test] // O-UP-07
    fn path_is_had_back_as_often_as_it_is_taken() {
        let dir = TempDir::new();
        let (path, other) = (dir.path().join("name"), dir.path().join("name.old"));
        fs::write(&path, "ours").unwrap();
        fs::hard_link(&path, &other).unwrap();
        for _ in 0..2 {
            restore(&(path.clone(), other.clone()));
            assert_eq!(fs::read_to_string(&path).unwrap(), "ours");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "and nothing else is left");
            fs::write(dir.path().join("theirs"), "theirs").unwrap();
            fs::rename(dir.path().join("theirs"), &path).unwrap();
        }
        restore(&(path.clone(), other.clone()));
        assert!(is_same(&path, &other));
        fs::remove_file(&path).unwrap();
        restore(&(path.clone(), other));
        assert_eq!(fs::read_to_string(&path).unwrap(), "ours");
    }
}

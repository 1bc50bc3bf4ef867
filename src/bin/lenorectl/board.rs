//! The board file: what can be seen of a daemon without asking it.

use std::io::ErrorKind;
use std::path::Path;

use lenore::daemon::view::Snapshot;
use lenore::daemon::{BoardFile, BoardFileError, ParentState};

use crate::client::{Client, Unreachable};
use crate::failure::{Failure, code};
use crate::target::{BOARD, SOCKET, Target};

/// Opens the board of a daemon: where the command line or the state file says, where its hello says, or where
/// a daemon that says nothing is found to have it.
pub fn open(target: &Target) -> Result<BoardFile, Failure> {
    if let Some(path) = &target.board {
        return BoardFile::open(path).map_err(failed);
    }
    match target.socket.as_deref().map(|socket| Client::connect(socket, target.deadline)) {
        Some(Ok(client)) => match client.hello["board"].as_str() {
            Some(path) => BoardFile::open(path).map_err(failed),
            None => Err(Failure::new(code::FAILED, "the daemon has no board")),
        },
        // That it hangs says more than why there is nothing to be seen.
        Some(Err(Unreachable::Hung { pid, text })) => without_asking(target, pid)
            .map_err(|failure| Failure::new(code::TIMEOUT, format_args!("{text}; {failure}"))),
        Some(Err(why)) => Err(why.into()),
        None if target.pid.is_some() => without_asking(target, target.pid),
        None => Err(Failure::new(code::TIMEOUT, "neither a board nor a control socket is known")),
    }
}

fn failed(error: BoardFileError) -> Failure {
    let is_denied =
        matches!(&error, BoardFileError::Open { source, .. } if source.kind() == ErrorKind::PermissionDenied);
    Failure::new(if is_denied { code::DENIED } else { code::FAILED }, error)
}

/// Takes a snapshot from the board of a daemon that does not answer, of which perhaps the process is known.
pub fn snapshot(target: &Target, pid: Option<i32>) -> Result<Snapshot, Failure> {
    without_asking(target, pid)?.snapshot().map_err(failed)
}

/// Opens the board of a daemon that says nothing: where the command line or the state file says, or that of the process, if the process
/// is known, or else the file beside the socket.
fn without_asking(target: &Target, pid: Option<i32>) -> Result<BoardFile, Failure> {
    if let Some(path) = &target.board {
        return BoardFile::open(path).map_err(failed);
    }
    let of_process = pid.map(|pid| BoardFile::of_process(pid.cast_unsigned()));
    if let Some(Ok(board)) = of_process {
        return Ok(board);
    }
    // For a user who may read the file and not look into the process. And the process is not known if the socket's queue is full, or
    // if a supervisor has made the socket.
    if let Some(board) = target.socket.as_deref().and_then(beside) {
        return Ok(board);
    }
    Err(match of_process {
        Some(Err(error)) => failed(error),
        _ => Failure::new(code::FAILED, "no board is known"),
    })
}

/// Opens the board of a live daemon beside a socket, if both have the names that they have in a `RUNTIME_DIRECTORY`.
fn beside(socket: &Path) -> Option<BoardFile> {
    if socket.file_name()? != SOCKET {
        return None;
    }
    let board = BoardFile::open(socket.with_file_name(BOARD)).ok()?;
    matches!(board.parent(), ParentState::Running | ParentState::Stopped).then_some(board)
}

//! The board file: what can be seen of a daemon without asking it.

use std::io::ErrorKind;

use lenore::daemon::view::Snapshot;
use lenore::daemon::{BoardFile, BoardFileError};

use crate::client::{Client, Unreachable};
use crate::failure::{Failure, code};
use crate::target::Target;

/// Opens the board of a daemon: where the command line or the state file says, where its hello says, or in the process that has its
/// socket.
pub fn open(target: &Target) -> Result<BoardFile, Failure> {
    if let Some(path) = &target.board {
        return BoardFile::open(path).map_err(failed);
    }
    match target.socket.as_deref().map(|socket| Client::connect(socket, target.deadline)) {
        Some(Ok(client)) => match client.hello["board"].as_str() {
            Some(path) => BoardFile::open(path).map_err(failed),
            None => Err(Failure::new(code::FAILED, "the daemon has no board")),
        },
        Some(Err(Unreachable::Hung { pid, text })) => match of_process(pid) {
            // That it hangs says more than why there is nothing to be seen.
            Some(board) => board.map_err(|failure| Failure::new(code::TIMEOUT, format_args!("{text}; {failure}"))),
            None => Err(Failure::new(code::TIMEOUT, text)),
        },
        Some(Err(why)) => Err(why.into()),
        None => of_process(target.pid)
            .unwrap_or_else(|| Err(Failure::new(code::TIMEOUT, "neither a board nor a control socket is known"))),
    }
}

fn failed(error: BoardFileError) -> Failure {
    let is_denied =
        matches!(&error, BoardFileError::Open { source, .. } if source.kind() == ErrorKind::PermissionDenied);
    Failure::new(if is_denied { code::DENIED } else { code::FAILED }, error)
}

/// Takes a snapshot from the board of a daemon that does not answer, of which perhaps the process is known.
pub fn snapshot(target: &Target, pid: Option<i32>) -> Result<Snapshot, Failure> {
    let board = match &target.board {
        Some(path) => BoardFile::open(path).map_err(failed),
        None => of_process(pid).unwrap_or_else(|| Err(Failure::new(code::FAILED, "no board is known"))),
    }?;
    board.snapshot().map_err(failed)
}

fn of_process(pid: Option<i32>) -> Option<Result<BoardFile, Failure>> {
    let board = BoardFile::of_process(pid?.cast_unsigned());
    Some(board.map_err(failed))
}

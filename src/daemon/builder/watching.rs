//! Settings by which an operator sees a running Daemon.

#[cfg(feature = "control")]
use std::path::PathBuf;
use std::time::SystemTime;

#[cfg(feature = "control")]
use super::DaemonBuilder;
use crate::daemon::board::Scoreboard;
#[cfg(feature = "control")]
use crate::daemon::board::{About, Place, epoch_ms};
use crate::daemon::error::DaemonError;
use crate::daemon::launch::Owner;
#[cfg(feature = "control")]
use crate::daemon::launch::absolute;
#[cfg(feature = "control")]
use crate::daemon::parent::picture::kind;
#[cfg(feature = "control")]
use crate::daemon::settings::Forking;
use crate::daemon::settings::Settings;

/// The settings as the caller gave them.
#[derive(Clone, Debug, Default)]
pub(super) struct Watching {
    #[cfg(feature = "control")]
    board: Option<PathBuf>,
}

impl Watching {
    /// Makes paths absolute. Nothing is opened or made yet.
    pub(super) fn resolve(self) -> Result<Watching, DaemonError> {
        #[cfg(feature = "control")]
        return Ok(Watching { board: self.board.map(absolute("board")).transpose()? });
        #[cfg(not(feature = "control"))]
        Ok(self)
    }

    /// Makes the board if other programs are to find it.
    #[cfg(feature = "control")]
    pub(super) fn make_board(
        &self,
        settings: &Settings,
        owner: Owner,
        born: SystemTime,
    ) -> Result<Option<Scoreboard>, DaemonError> {
        let Some(path) = self.board.clone() else { return Ok(None) };
        let place = Place::File { path, owner };
        let about = About { name: settings.alias.clone(), kind: kind(settings.forking), born_ms: epoch_ms(born) };
        let slots = if settings.forking == Forking::None { 0 } else { settings.slots() };
        Scoreboard::shown(slots, place, &about).map(Some).map_err(DaemonError::Scoreboard)
    }

    #[cfg(not(feature = "control"))]
    pub(super) fn make_board(&self, _: &Settings, _: Owner, _: SystemTime) -> Result<Option<Scoreboard>, DaemonError> {
        Ok(None)
    }
}

#[cfg(feature = "control")]
impl DaemonBuilder {
    /// Sets the path of a file in which other programs find what each child does, and has children count how long requests take.
    /// Default: no file.
    ///
    /// They read it without the Daemon's help, also while the parent is stopped and
    /// after it was killed. The file has mode 0640 and belongs to the Daemon's user. It should be in memory, below `/run` for
    /// one. It is a sparse file of 18 MB, of which 1,200 bytes for each child are used. A file system that is full when the
    /// pool has grown by 64 children more than at first ends the process that needs a page of it.
    ///
    /// The file is made when the Daemon is spawned, before it changes its root directory and its user. It replaces a board that
    /// is there, but nothing else. It is removed when the Daemon ends. A Daemon that can't see or remove the file by then leaves
    /// it behind, and the file says that it is over.
    ///
    /// POE: nothing like it.
    pub fn board(mut self, path: impl Into<PathBuf>) -> Self {
        self.2.board = Some(path.into());
        self
    }
}

//! Settings by which an operator sees and steers a running Daemon.

#[cfg(feature = "control")]
use std::ffi::OsStr;
#[cfg(feature = "status")]
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
#[cfg(feature = "control")]
use std::os::unix::ffi::OsStrExt;
#[cfg(feature = "control")]
use std::path::{Path, PathBuf};
use std::time::SystemTime;

#[cfg(feature = "control")]
use nix::unistd::{Gid, Uid};

#[cfg(feature = "control")]
use super::DaemonBuilder;
use crate::daemon::board::Scoreboard;
#[cfg(feature = "control")]
use crate::daemon::board::{About, BoardError, Place, epoch_ms};
#[cfg(feature = "control")]
use crate::daemon::control::{Access, Control, Policy, Rights, Socket, StateFile, Who, own_uid};
use crate::daemon::error::DaemonError;
use crate::daemon::launch::Owner;
#[cfg(feature = "control")]
use crate::daemon::launch::absolute;
#[cfg(feature = "control")]
use crate::daemon::parent::picture::kind;
use crate::daemon::settings::Settings;
#[cfg(feature = "control")]
use crate::daemon::settings::{Forking, SettingsError};
#[cfg(feature = "control")]
use crate::daemon::view::metrics::is_prefix;
#[cfg(feature = "status")]
use crate::error::Error;
#[cfg(feature = "status")]
use crate::inherited::{self, Family, Kind, Wanted};
#[cfg(feature = "control")]
use crate::sys::peer::unmapped_id;

/// The settings as the caller gave them.
#[derive(Clone, Debug, Default)]
pub(super) struct Watching {
    #[cfg(feature = "control")]
    board: Option<PathBuf>,
    #[cfg(feature = "control")]
    control: Option<PathBuf>,
    /// The program has not named the paths itself. They follow from the environment, which other Daemons may have inherited too.
    #[cfg(feature = "control")]
    is_implied: (bool, bool),
    #[cfg(feature = "control")]
    allowed: Vec<(Who, Rights)>,
    #[cfg(feature = "control")]
    metrics_prefix: Option<String>,
    #[cfg(feature = "status")]
    status: Option<String>,
}

impl Watching {
    /// Makes paths absolute. Nothing is opened or made yet.
    #[cfg(feature = "control")]
    pub(super) fn resolve(self) -> Result<Watching, DaemonError> {
        if let Some(prefix) = self.metrics_prefix.as_ref().filter(|prefix| !is_prefix(prefix)) {
            return Err(DaemonError::Settings(SettingsError::NotAPrefix { prefix: prefix.clone() }));
        }
        let is_implied = (self.board.is_none(), self.control.is_none());
        let control = self.control.or_else(|| Some(runtime_directory()?.join("control.sock")));
        let board = self.board.or_else(|| Some(runtime_directory()?.join("board")));
        Ok(Watching {
            board: board.map(absolute("board")).transpose()?,
            control: control.map(absolute("control")).transpose()?,
            is_implied,
            ..self
        })
    }

    #[cfg(not(feature = "control"))]
    pub(super) fn resolve(self) -> Result<Watching, DaemonError> {
        Ok(self)
    }

    /// Makes the control socket if operators may come.
    #[cfg(feature = "control")]
    pub(super) fn make_control(
        &self,
        (uid, gid): Owner,
        has_jail: bool,
        pid_file: Option<&Path>,
        board: Option<&Path>,
        is_successors: bool,
    ) -> Result<Option<Control>, DaemonError> {
        let Some(path) = self.control.clone() else { return Ok(None) };
        let look_up = |(who, rights): &(Who, Rights)| Ok((who.look_up()?, *rights));
        let allowed = self.allowed.iter().map(look_up).collect::<Result<_, DaemonError>>()?;
        let policy = Policy { own: own_uid(uid), unmapped: unmapped_id(), allowed };
        let (mode, group) = policy.mode();
        let mut socket = match Socket::open(path, Access { mode, uid, gid: group.or(gid) }, is_successors) {
            Err(error @ DaemonError::ControlHeld { .. }) if self.is_implied.1 => {
                log::warn!(target: "lenore::daemon", "no control socket in RUNTIME_DIRECTORY: {error}");
                return Ok(None);
            }
            socket => socket?,
        };
        if has_jail {
            socket.set_out_of_sight(true);
        }
        let owner = (uid.map(Uid::as_raw), gid.map(Gid::as_raw));
        let make = |pid_file| StateFile::make(pid_file, owner, socket.path(), board, has_jail, is_successors);
        let state_file = pid_file.map(make).transpose()?;
        Ok(Some(Control::new(socket, policy, state_file)))
    }

    /// Makes the board if other programs are to find it.
    #[cfg(feature = "control")]
    pub(super) fn make_board(
        &self,
        settings: &Settings,
        owner: Owner,
        born: SystemTime,
        is_successors: bool,
    ) -> Result<Option<Scoreboard>, DaemonError> {
        let place = match self.board.clone() {
            Some(path) => Place::File { path, owner, is_successors },
            None if self.is_watched() => Place::Memory,
            None => return Ok(None),
        };
        let about = About { name: settings.alias.clone(), kind: kind(settings.forking), born_ms: epoch_ms(born) };
        let slots = if settings.forking == Forking::None { 0 } else { settings.slots() };
        match Scoreboard::shown(slots, place, &about) {
            Err(error @ BoardError::Held { .. }) if self.is_implied.0 => {
                log::warn!(target: "lenore::daemon", "no board in RUNTIME_DIRECTORY: {error}");
                Scoreboard::shown(slots, Place::Memory, &about)
            }
            shown => shown,
        }
        .map(Some)
        .map_err(DaemonError::Scoreboard)
    }

    #[cfg(not(feature = "control"))]
    pub(super) fn make_board(
        &self,
        _: &Settings,
        _: Owner,
        _: SystemTime,
        _: bool,
    ) -> Result<Option<Scoreboard>, DaemonError> {
        Ok(None)
    }
}

#[cfg(feature = "control")]
impl Watching {
    /// Tells whether operators may look from outside, so that there has to be something to see.
    fn is_watched(&self) -> bool {
        #[cfg(feature = "status")]
        if self.status.is_some() {
            return true;
        }
        self.control.is_some()
    }

    /// Binds the status listener, if there is to be one. It serves no client yet.
    #[cfg(feature = "status")]
    pub(super) fn make_status(&self) -> Result<Option<TcpListener>, DaemonError> {
        let fail = |source| DaemonError::Process { doing: "opening the status listener", source };
        self.status.as_deref().map(|address| listen_for_status(address).map_err(fail)).transpose()
    }

    /// Returns what the names of the Daemon's metrics begin with, if that was set.
    pub(super) fn metrics_prefix(self) -> Option<String> {
        self.metrics_prefix
    }
}

#[cfg(feature = "status")]
impl DaemonBuilder {
    /// Sets the address, such as `127.0.0.1:9180`, at which browsers and monitoring see the Daemon by HTTP. Needs the feature `status`.
    /// Default: none.
    ///
    /// | request | answer |
    /// | --- | --- |
    /// | `GET /` | a page for people, live where scripts may run |
    /// | `GET /status` | [`Snapshot`](crate::daemon::view::Snapshot) as JSON |
    /// | `GET /metrics` | metrics for Prometheus, or as OpenMetrics if the client prefers that |
    /// | `GET /live` | 200 while the parent's loop turns |
    /// | `GET /ready` | 200, or 503 and a line that says why not: it starts, no child is ready, it drains, it stops |
    ///
    /// A query behind the path is ignored. Any other path is answered with 404, also one with a `/` at its end.
    ///
    /// The parent answers, even when all children are busy or hang. Clients can change nothing. But each client that reaches the address
    /// sees what the children say of their own clients, so choose an address that strangers do not reach. There may be 64 clients at a
    /// time, but no more than an eighth of the file descriptors that the process may have.
    ///
    /// Children do not have the listener, and it keeps no Daemon alive. It stays until the last child has ended. In a Daemon without
    /// children it stays until nothing else keeps the program, or until the Daemon has ended if the program has another one.
    ///
    /// [`spawn`](DaemonBuilder::spawn) binds the address before it changes the user. An address that is taken is an error. A socket that
    /// systemd has passed by the name `status`, or that is bound to this address, is taken over instead.
    ///
    /// POE: nothing like it.
    pub fn status(mut self, address: impl Into<String>) -> Self {
        self.2.status = Some(address.into());
        self
    }
}

#[cfg(feature = "control")]
impl DaemonBuilder {
    /// Sets what the names of the Daemon's metrics begin with. The application can't declare a metric under one of the names that result.
    /// Default: `lenore_`. Range: letters, digits and `_`, and no digit first.
    ///
    /// POE: nothing like it.
    pub fn metrics_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.2.metrics_prefix = Some(prefix.into());
        self
    }

    /// Sets the path of a file in which other programs find what each child does, and has children count how long requests take.
    /// Needs the feature `control`.
    ///
    /// Default: `board` in the first directory of the environment variable `RUNTIME_DIRECTORY`, which systemd sets. Without the variable,
    /// a Daemon with a control socket or a status listener has its board in memory, where
    /// [`BoardFile::of_process`](crate::daemon::BoardFile::of_process) finds it. Other Daemons have none.
    ///
    /// A [`BoardFile`](crate::daemon::BoardFile) reads it without the Daemon's help, also while the parent is stopped and
    /// after it was killed. The file has mode 0640 and belongs to the Daemon's user. Put it on a file system in memory, such
    /// as `/run`. It is a sparse file of 18 MB, of which 1,200 bytes for each child are used. The Daemon uses as much memory besides, from
    /// which it writes the file.
    ///
    /// *If the file is cut short*, which its owner and root can do, no process ends. The Daemon goes on, and so do its status and its
    /// metrics. Within a second of its next look at its children the log says `board file lost`, and readers get
    /// [`BoardFileError::Damaged`](crate::daemon::BoardFileError::Damaged). The file comes back with the next start or
    /// upgrade. The same happens when the file system is full and the pool has grown by 64 children more
    /// than at first. Keep tools that truncate files, as some that rotate logs do, away from the directory. For all this
    /// a Daemon with a board file, and a program that reads one, has a handler of SIGBUS. It calls the handler that was there before
    /// for every other cause. A handler that the program installs later should call this one in turn, as those of signals that a
    /// session watches do.
    ///
    /// The file is made when the Daemon is spawned, before it changes its root directory and its user. It replaces a board that
    /// is there, but nothing else. If that is the board of a Daemon that runs, the start fails and names the process. The file is
    /// removed when the Daemon ends. A Daemon that can't see or remove the file by then leaves it behind, and the file says that it is
    /// over.
    ///
    /// POE: nothing like it.
    pub fn board(mut self, path: impl Into<PathBuf>) -> Self {
        self.2.board = Some(path.into());
        self
    }

    /// Sets the path of the control socket, at which operators ask what the Daemon does and tell it what to do. Needs the feature
    /// `control`.
    ///
    /// Default: `control.sock` in the first directory of the environment variable `RUNTIME_DIRECTORY`, which systemd sets. There is no
    /// socket if the variable is not set, or if a process already listens there.
    ///
    /// A socket that systemd has passed by the name `control`, or that is bound to this path, is taken over instead. Its path and
    /// permissions stay as they are.
    ///
    /// The path belongs to the Daemon's user, with the mode 0600, unless [`control_allow`](DaemonBuilder::control_allow) lets others in. A
    /// socket that a dead process has left at the path is replaced. If a process listens there, the start fails and names the process.
    /// The path is removed when the Daemon ends.
    ///
    /// With a [`pid_file`](DaemonBuilder::pid_file) there is also a file with `.state` behind its name. Its first line is
    /// `state=starting`, `ready`, `reloading`, `draining` or `stopping`, for scripts that wait.
    ///
    /// There may be 32 clients at a time, but no more than an eighth of the descriptors that the process may have, and at least 2.
    ///
    /// `help`, sent as a line (`echo help | socat - UNIX-CONNECT:PATH`), lists the commands.
    ///
    /// POE: nothing like it.
    pub fn control(mut self, path: impl Into<PathBuf>) -> Self {
        self.2.control = Some(path.into());
        self
    }

    /// Lets a user or the members of a group use the control socket. May be called several times. Needs the feature `control`.
    /// Default: the Daemon's user and root may do everything, others nothing.
    ///
    /// The system tells which user a client is when the client connects. With one group and no user the socket's path belongs to that
    /// group, with the mode 0660. Otherwise it has the mode 0666, and the Daemon refuses clients without rights.
    ///
    /// POE: nothing like it.
    pub fn control_allow(mut self, who: Who, rights: Rights) -> Self {
        self.2.allowed.push((who, rights));
        self
    }
}

/// Takes an inherited listener over, or binds one.
#[cfg(feature = "status")]
fn listen_for_status(address: &str) -> Result<TcpListener, Error> {
    let fail = |error| Error::os("bind", address, error);
    let addresses: Vec<SocketAddr> = address.to_socket_addrs().map_err(fail)?.collect();
    let places: Vec<_> = addresses.iter().copied().map(inherited::Place::Ip).collect();
    let wanted = Wanted { name: Some("status"), kind: Kind::Stream, family: Family::Ip, places: &places };
    match inherited::claim(&wanted)? {
        Some(claimed) => Ok(claimed.fd.into()),
        None => TcpListener::bind(&addresses[..]).map_err(fail),
    }
}

/// Returns the first of the directories that systemd has made for this service.
#[cfg(feature = "control")]
fn runtime_directory() -> Option<PathBuf> {
    let directories = std::env::var_os("RUNTIME_DIRECTORY")?;
    let first = directories.as_bytes().split(|octet| *octet == b':').next()?;
    (!first.is_empty()).then(|| Path::new(OsStr::from_bytes(first)).to_owned())
}

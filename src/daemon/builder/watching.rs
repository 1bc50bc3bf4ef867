//! The settings with which an operator can watch and steer a running Daemon.

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
    /// Whether the paths of the control socket and the board come from the environment, which other Daemons may have
    /// inherited too.
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

    /// Makes the control socket, if the settings ask for one.
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

    /// Makes the board, if the settings ask for one.
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
    /// Tells whether operators can watch the Daemon, so that it must collect data for them.
    fn is_watched(&self) -> bool {
        #[cfg(feature = "status")]
        if self.status.is_some() {
            return true;
        }
        self.control.is_some()
    }

    /// Binds the status listener, if there is one. It serves no client yet.
    #[cfg(feature = "status")]
    pub(super) fn make_status(&self) -> Result<Option<TcpListener>, DaemonError> {
        let fail = |source| DaemonError::Process { doing: "opening the status listener", source };
        self.status.as_deref().map(|address| listen_for_status(address).map_err(fail)).transpose()
    }

    /// Returns the prefix of the Daemon's metrics, if it was set.
    pub(super) fn metrics_prefix(self) -> Option<String> {
        self.metrics_prefix
    }
}

#[cfg(feature = "status")]
impl DaemonBuilder {
    /// Sets the address, such as `127.0.0.1:9180`, at which browsers and monitoring can watch the Daemon over HTTP.
    /// Needs the feature `status`. Default: none.
    ///
    /// | request | answer |
    /// | --- | --- |
    /// | `GET /` | a page for people, which updates itself where scripts may run |
    /// | `GET /status` | [`Snapshot`](crate::daemon::view::Snapshot) as JSON |
    /// | `GET /metrics` | metrics for Prometheus, or as OpenMetrics if the client prefers that |
    /// | `GET /live` | 200 if the parent's loop runs, 503 if the Daemon [counts as dead](DaemonBuilder::health_limit) |
    /// | `GET /ready` | 200, or 503 with the reason in a line: it starts, no child is ready, it drains, or it stops |
    ///
    /// A query after the path is ignored. Any other path gets 404, even one of these with a `/` at its end.
    ///
    /// The parent answers, even when all children are busy or hang. Clients can't change anything. But every client
    /// that reaches the address sees what the children report about their own clients, so choose an address that
    /// strangers can't reach. There may be 64 clients at a time, but no more than an eighth of the process's limit on
    /// file descriptors.
    ///
    /// Children do not have the listener, and it does not keep the program running. It stays until the last child has
    /// ended. In a Daemon without children it stays until nothing else keeps the program running. If the program has
    /// another Daemon, it stays until this Daemon has ended.
    ///
    /// [`spawn`](DaemonBuilder::spawn) binds the address before it changes the user. An address that is taken is an
    /// error. If systemd has passed a socket by the name `status`, or one that is bound to this address, the Daemon
    /// takes over that socket instead.
    ///
    /// POE: nothing like it.
    pub fn status(mut self, address: impl Into<String>) -> Self {
        self.2.status = Some(address.into());
        self
    }
}

#[cfg(feature = "control")]
impl DaemonBuilder {
    /// Sets the prefix of the names of the Daemon's metrics. The application can't declare a metric with one of these
    /// names. Default: `lenore_`. Range: letters, digits and `_`, and no digit first.
    ///
    /// POE: nothing like it.
    pub fn metrics_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.2.metrics_prefix = Some(prefix.into());
        self
    }

    /// Sets the path of a file from which other programs read what each child does. Children then also count how long
    /// requests take. Needs the feature `control`.
    ///
    /// Default: `board` in the first directory of the environment variable `RUNTIME_DIRECTORY`, which systemd sets.
    /// Without the variable, a Daemon with a control socket or a status listener has its board in memory, where
    /// [`BoardFile::of_process`](crate::daemon::BoardFile::of_process) finds it. Other Daemons have no board.
    ///
    /// A [`BoardFile`](crate::daemon::BoardFile) reads it without the Daemon's help, even while the parent is stopped
    /// and after it was killed. The file has mode 0640 and belongs to the Daemon's user. Put it on a file system in
    /// memory, such as `/run`. It is a sparse file of 18 MB, of which 1,200 bytes are used for each child. The Daemon
    /// uses as much memory besides, and writes the file from there.
    ///
    /// **If the file is cut short**, which its owner and root can do, no process ends. The Daemon goes on, and so do
    /// its status and its metrics. Within a second of its next look at its children the Daemon logs `board file lost`.
    /// Readers then get [`BoardFileError::Damaged`](crate::daemon::BoardFileError::Damaged). The next start or upgrade
    /// makes a new file. The same happens when the file system is full and the pool has grown by 64 children since the
    /// start. Keep tools that truncate files, such as some that rotate logs, away from the directory.
    ///
    /// To survive this, a Daemon with a board file, and a program that reads one, install a handler of SIGBUS. For
    /// every other cause the handler calls the one that was there before. A handler that the program installs later
    /// should call this one in turn, as handlers of signals that a session watches do.
    ///
    /// [`spawn`](DaemonBuilder::spawn) makes the file before it changes the root directory and the user. The file
    /// replaces an old board, but nothing else. If the old board is that of a running Daemon, the start fails and names
    /// the process. The Daemon removes the file when it ends. If it can't see or remove the file by then, it leaves the
    /// file behind, marked as ended.
    ///
    /// POE: nothing like it.
    pub fn board(mut self, path: impl Into<PathBuf>) -> Self {
        self.2.board = Some(path.into());
        self
    }

    /// Sets the path of the control socket, on which operators ask what the Daemon does and give it orders. Needs the
    /// feature `control`.
    ///
    /// Default: `control.sock` in the first directory of the environment variable `RUNTIME_DIRECTORY`, which systemd
    /// sets. There is no socket if the variable is not set, or if a process already listens there.
    ///
    /// If systemd has passed a socket by the name `control`, or one that is bound to this path, the Daemon takes over
    /// that socket instead, and leaves its path and permissions as they are.
    ///
    /// The path belongs to the Daemon's user, with the mode 0600, unless
    /// [`control_allow`](DaemonBuilder::control_allow) lets others in. A socket that a dead process has left at the
    /// path is replaced. If a process listens there, the start fails and names the process. The Daemon removes the path
    /// when it ends.
    ///
    /// With a [`pid_file`](DaemonBuilder::pid_file) there is a second file, whose name has `.state` at its end. Its
    /// first line is `state=starting`, `ready`, `reloading`, `draining` or `stopping`, for scripts that wait.
    ///
    /// There may be 32 clients at a time, but no more than an eighth of the process's limit on file descriptors, and at
    /// least 2.
    ///
    /// The line `help` (`echo help | socat - UNIX-CONNECT:PATH`) lists the commands.
    ///
    /// POE: nothing like it.
    pub fn control(mut self, path: impl Into<PathBuf>) -> Self {
        self.2.control = Some(path.into());
        self
    }

    /// Lets a user or the members of a group use the control socket. It may be called several times. Needs the feature
    /// `control`. Default: the Daemon's user and root may do everything, others nothing.
    ///
    /// The system tells the Daemon which user has connected. With one group and no user, the socket's path belongs to
    /// that group, with the mode 0660. Otherwise the path has the mode 0666, and the Daemon refuses clients without
    /// rights.
    ///
    /// POE: nothing like it.
    pub fn control_allow(mut self, who: Who, rights: Rights) -> Self {
        self.2.allowed.push((who, rights));
        self
    }
}

/// Takes over an inherited listener, or binds a new one.
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

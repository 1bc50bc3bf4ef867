//! The control socket's path: made without a moment in which it is open to anybody else, and taken away again.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
#[cfg(target_os = "linux")]
use nix::sys::stat::fchmod;
#[cfg(not(target_os = "linux"))]
use nix::sys::stat::{FchmodatFlags, fchmodat};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, fchownat};

use crate::daemon::error::DaemonError;
use crate::daemon::settings::SettingsError;
use crate::error::Error;
use crate::handover;
use crate::inherited::{self, Claimed, Family, Kind, Wanted};
use crate::kernel::{Handle, Maker};
use crate::sys::peer::{accept, peer_of};

/// Whose the path is, and who may connect.
#[derive(Clone, Copy, Debug)]
pub(in crate::daemon) struct Access {
    pub(in crate::daemon) mode: u32,
    pub(in crate::daemon) uid: Option<Uid>,
    pub(in crate::daemon) gid: Option<Gid>,
}

/// A socket that listens at a path.
#[derive(Debug)]
pub(in crate::daemon) struct Socket {
    handle: Handle,
    path: PathBuf,
    access: Access,
    /// Device and inode of the path as this process has made it.
    identity: (u64, u64),
    /// The process that may remove the path.
    owner: Maker,
    /// The launcher has made it, and may pass it on: the path stays.
    is_inherited: bool,
    /// The path leads nowhere any more: the process has locked itself up in a directory. Or it is another process's for now.
    is_out_of_sight: bool,
    /// What it is called until it gets its path.
    temporary: Option<PathBuf>,
}

/// What a path is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::daemon) enum Place {
    /// This socket's.
    Ours,
    /// There is nothing, or something else.
    Lost,
    /// It can't be looked at.
    Unknown,
}

impl Socket {
    /// Listens at `path`, or takes over what the launcher has passed.
    ///
    /// The socket is made under another name in the same directory. It gets its permissions and its owner, listens, and only then
    /// gets its name. So a user who may not connect can't connect before that either.
    ///
    /// # Errors
    ///
    /// [`DaemonError::ControlHeld`] if a process listens there already, [`DaemonError::Settings`] for a path that is too long, and
    /// otherwise what the system says.
    ///
    /// A successor gets the path by [`take_name`](Socket::take_name), and leaves the one who has it in peace before.
    pub(in crate::daemon) fn open(path: PathBuf, access: Access, is_successors: bool) -> Result<Socket, DaemonError> {
        let owner = Maker::this_process();
        if let Some((handle, path)) = inherited(&path)? {
            let found = fs::symlink_metadata(&path).map_or((0, 0), |found| (found.dev(), found.ino()));
            return Ok(Socket {
                handle,
                path,
                access,
                identity: found,
                owner,
                is_inherited: true,
                is_out_of_sight: false,
                temporary: None,
            });
        }
        if !is_successors {
            make_room(&path, PATIENCE)?;
        }
        let (handle, identity, temporary) = make(&path, access)?;
        let mut socket = Socket {
            handle,
            path,
            access,
            identity,
            owner,
            is_inherited: false,
            is_out_of_sight: true,
            temporary: Some(temporary),
        };
        if !is_successors {
            let fail = |source| DaemonError::Process { doing: "making the control socket", source };
            socket.take_name().map_err(fail)?;
        }
        Ok(socket)
    }

    /// Gives the socket its path, if it has none yet. Whatever the path has led to is lost.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(in crate::daemon) fn take_name(&mut self) -> Result<(), Error> {
        let Some(temporary) = self.temporary.take() else { return Ok(()) };
        if let Err(error) = fs::rename(&temporary, &self.path) {
            self.temporary = Some(temporary);
            return Err(Error::os("rename", self.path.display(), error));
        }
        self.is_out_of_sight = false;
        Ok(())
    }

    /// Returns the path if this process has made what it leads to.
    pub(in crate::daemon) fn own_path(&self) -> Option<&Path> {
        (!self.is_inherited).then_some(&self.path)
    }

    pub(in crate::daemon) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(in crate::daemon) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes one client; `None` if none waits.
    pub(in crate::daemon) fn accept(&self) -> nix::Result<Option<Handle>> {
        loop {
            return match accept(&self.handle) {
                Ok(fd) => Ok(Some(Handle::new(fd))),
                Err(Errno::EAGAIN) => Ok(None),
                // It has gone away while it waited.
                Err(Errno::EINTR | Errno::ECONNABORTED) => continue,
                Err(errno) => Err(errno),
            };
        }
    }

    /// Says whether the path is left alone: the process is about to lock itself up, or another one has it for now.
    pub(in crate::daemon) fn set_out_of_sight(&mut self, is_out_of_sight: bool) {
        self.is_out_of_sight = is_out_of_sight;
    }

    /// Looks whether clients still find this socket.
    pub(in crate::daemon) fn place(&self) -> Place {
        if self.is_out_of_sight {
            return Place::Unknown;
        }
        match fs::symlink_metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == self.identity => Place::Ours,
            Ok(_) => Place::Lost,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Place::Lost,
            Err(_) => Place::Unknown,
        }
    }

    /// Listens there once more, as others have taken the path away. Those that are connected stay so.
    ///
    /// # Errors
    ///
    /// As [`open`](Socket::open). This socket stays what it is.
    pub(in crate::daemon) fn make_again(&mut self) -> Result<(), DaemonError> {
        make_room(&self.path, Duration::ZERO)?;
        let (handle, identity, temporary) = make(&self.path, self.access)?;
        (self.handle, self.identity, self.temporary) = (handle, identity, Some(temporary));
        self.is_inherited = false;
        self.take_name().map_err(|source| DaemonError::Process { doing: "making the control socket", source })
    }
}

impl Drop for Socket {
    /// Takes the path away if it is this socket's.
    fn drop(&mut self) {
        // A child only closes its copy.
        if !self.owner.is_here() {
            return;
        }
        if let Some(temporary) = &self.temporary {
            let _ = fs::remove_file(temporary);
        } else if !self.is_inherited
            && handover::owns_paths()
            && self.place() == Place::Ours
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::debug!(target: "lenore::daemon", "control socket {} is left behind: {error}", self.path.display());
        }
    }
}

/// Takes over the inherited socket that is called `control` or is bound to `path`, and returns where it is.
fn inherited(path: &Path) -> Result<Option<(Handle, PathBuf)>, DaemonError> {
    let fail = |source| DaemonError::Process { doing: "taking over the control socket", source };
    let places = [inherited::Place::Path(path.to_owned())];
    let wanted = Wanted { name: Some("control"), kind: Kind::Stream, family: Family::Unix, places: &places };
    let claimed = inherited::claim(&wanted).map_err(fail)?;
    Ok(claimed.map(|Claimed { fd, place, .. }| match place {
        inherited::Place::Path(path) => (Handle::new(fd), path),
        inherited::Place::Ip(_) => (Handle::new(fd), path.to_owned()),
    }))
}

fn failed(call: &'static str, path: &Path, source: impl Into<io::Error>) -> DaemonError {
    DaemonError::Process { doing: "making the control socket", source: Error::os(call, path.display(), source) }
}

/// Sees to it that no process listens at `path`: what another socket has left behind there may be replaced. One that listens
/// may end for so long.
fn make_room(path: &Path, patience: Duration) -> Result<(), DaemonError> {
    let length = path.as_os_str().len();
    if length > LONGEST_PATH {
        return Err(DaemonError::Settings(SettingsError::PathTooLong {
            setting: "control",
            path: path.to_owned(),
            length,
            limit: LONGEST_PATH,
        }));
    }
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(failed("bind", path, io::Error::other("the file there is not a socket")));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("stat", path, error)),
    }
    let give_up = Instant::now() + patience;
    loop {
        match owner_of(path).map_err(|errno| failed("connect", path, errno))? {
            None => return Ok(()),
            // A process that is about to end, or a child that was just forked, has it for a moment longer than its owner lives.
            Some(_) if Instant::now() < give_up => thread::sleep(PAUSE),
            Some(pid) => {
                return Err(DaemonError::ControlHeld { path: path.to_owned(), pid: (pid > 0).then_some(pid) });
            }
        }
    }
}

/// Returns which process listens at `path`, and 0 if the system does not tell. `None` if no process does.
fn owner_of(path: &Path) -> nix::Result<Option<i32>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let probe = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    match connect(probe.as_raw_fd(), &UnixAddr::new(path)?) {
        Ok(()) => Ok(Some(peer_of(&probe).map_or(0, |peer| peer.pid))),
        // Its queue is full.
        Err(Errno::EAGAIN) => Ok(Some(0)),
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Makes the socket that listens, under another name. Returns that, with its device and inode.
fn make(path: &Path, access: Access) -> Result<(Handle, (u64, u64), PathBuf), DaemonError> {
    let fail = |call| move |errno: Errno| failed(call, path, errno);
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(fail("socket"))?;
    let mode = Mode::from_bits_truncate(access.mode as _);
    // The path has it from the beginning on.
    #[cfg(target_os = "linux")]
    fchmod(&fd, mode).map_err(fail("fchmod"))?;
    let directory = directory_of(path);
    let mut temporary = Temporary(temporary_of(path, std::process::id()));
    let address = address(directory, &temporary.0).map_err(|error| failed("open", path, error))?;
    // One that was killed in the middle of this, and had the same pid.
    let _ = fs::remove_file(&temporary.0);
    // Takes nothing away from the mode.
    let mask = umask(Mode::empty());
    let bound = bind(fd.as_raw_fd(), &address.0);
    umask(mask);
    bound.map_err(fail("bind"))?;
    // Nobody can connect before it listens.
    #[cfg(not(target_os = "linux"))]
    fchmodat(AT_FDCWD, &temporary.0, mode, FchmodatFlags::NoFollowSymlink).map_err(fail("fchmodat"))?;
    // The directory may be another user's, who can put a link in its place at any time: a link is not followed.
    if access.uid.is_some() || access.gid.is_some() {
        fchownat(AT_FDCWD, &temporary.0, access.uid, access.gid, AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(fail("chown"))?;
    }
    let backlog = Backlog::new(QUEUE).map_err(fail("listen"))?;
    listen(&fd, backlog).map_err(fail("listen"))?;
    let found = fs::symlink_metadata(&temporary.0).map_err(|error| failed("stat", path, error))?;
    Ok((Handle::new(fd), (found.dev(), found.ino()), std::mem::take(&mut temporary.0)))
}

/// A name that is taken away again.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            let _ = fs::remove_file(&self.0);
        }
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns the path that the socket of process `pid` has before it listens, which is what the system goes on showing. Its name is
/// short: the address has to have room for it.
pub(in crate::daemon) fn temporary_of(path: &Path, pid: u32) -> PathBuf {
    let own = path.file_name().unwrap_or_default().as_bytes();
    let mut name = OsString::from(".");
    name.push(OsStr::from_bytes(&own[..own.len().min(20)]));
    name.push(format!(".{pid}"));
    directory_of(path).join(name)
}

/// Returns the address of a path that may be longer than an address can be, with the directory that it needs open.
fn address(directory: &Path, path: &Path) -> io::Result<(UnixAddr, Option<File>)> {
    if path.as_os_str().len() <= LONGEST_PATH {
        return Ok((UnixAddr::new(path)?, None));
    }
    let open = File::open(directory)?;
    let mut short = PathBuf::from(format!("/proc/self/fd/{}", open.as_fd().as_raw_fd()));
    short.push(path.file_name().unwrap_or_default());
    Ok((UnixAddr::new(short.as_os_str().as_bytes())?, Some(open)))
}

/// The longest path that an address can have on Linux, without the zero at its end.
const LONGEST_PATH: usize = 107;

/// How many clients may wait to be accepted.
const QUEUE: i32 = 64;

/// How long to wait for a process that listens at the path and may be about to end.
const PATIENCE: Duration = Duration::from_millis(500);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;
    use crate::testing::TempDir;

    const ONLY_OURS: Access = Access { mode: 0o600, uid: None, gid: None };

    fn open(path: &Path) -> Result<Socket, DaemonError> {
        Socket::open(path.to_owned(), ONLY_OURS, false)
    }

    #[test] // O-CT-02
    fn socket_has_its_permissions_and_is_removed_with_its_owner() {
        let dir = TempDir::new();
        let path = dir.path().join("control.sock");
        let socket = open(&path).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary name is left");
        assert!(socket.accept().unwrap().is_none());
        let _client = UnixStream::connect(&path).unwrap();
        assert!(socket.accept().unwrap().is_some());
        drop(socket);
        assert!(!path.exists());
    }

    #[test] // O-CT-02
    fn live_owner_is_found_and_named() {
        let dir = TempDir::new();
        let path = dir.path().join("control.sock");
        let _socket = open(&path).unwrap();
        let error = open(&path).unwrap_err();
        assert!(
            matches!(&error, DaemonError::ControlHeld { pid: Some(pid), .. } if *pid == std::process::id().cast_signed()),
            "{error}"
        );
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }

    #[test] // O-CT-02
    fn socket_of_a_dead_owner_is_replaced_and_a_file_is_not() {
        let dir = TempDir::new();
        let path = dir.path().join("control.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(open(&path).unwrap());
        fs::write(&path, "precious").unwrap();
        let error = open(&path).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()) && error.contains("not a socket"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test] // O-CT-01
    fn impossible_path_is_named() {
        let dir = TempDir::new();
        let error = open(&dir.path().join("missing/control.sock")).unwrap_err().to_string();
        assert!(error.contains("missing/control.sock"), "{error}");
        let long = dir.path().join("x".repeat(LONGEST_PATH + 1 - dir.path().as_os_str().len() - 1));
        assert_eq!(long.as_os_str().len(), LONGEST_PATH + 1);
        let error = open(&long).unwrap_err().to_string();
        assert!(error.contains("xxx") && error.contains("107"), "{error}");
        // One byte less is a path as any other, though the temporary name is longer.
        let fits = dir.path().join("x".repeat(LONGEST_PATH - dir.path().as_os_str().len() - 1));
        let socket = open(&fits).unwrap();
        UnixStream::connect(&fits).unwrap();
        assert_eq!(socket.place(), Place::Ours);
    }

    #[test] // O-CT-03
    fn lost_path_is_noticed_and_made_again_and_anothers_is_left_alone() {
        let dir = TempDir::new();
        let path = dir.path().join("control.sock");
        let mut socket = open(&path).unwrap();
        assert_eq!(socket.place(), Place::Ours);
        fs::remove_file(&path).unwrap();
        assert_eq!(socket.place(), Place::Lost);
        socket.make_again().unwrap();
        assert_eq!(socket.place(), Place::Ours);
        UnixStream::connect(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        assert_eq!(socket.place(), Place::Lost);
        assert!(matches!(socket.make_again(), Err(DaemonError::ControlHeld { .. })));
        drop(socket);
        assert!(path.exists(), "it is another's");
    }
}

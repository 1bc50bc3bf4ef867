//! The log file: standard output and standard error go there, and move on to a new one on HUP.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::{O_NOCTTY, O_NONBLOCK};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Uid, dup2_stderr, dup2_stdout, fchown};

use crate::error::Error;

/// Where the log is, and what a new one is to be like.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    mode: u32,
    /// Who is to own a file that root creates: whoever writes to it once privileges are dropped.
    owner: (Option<Uid>, Option<Gid>),
}

impl LogFile {
    /// `path` must be absolute: it is opened again when the working directory is another one.
    pub(crate) fn new(path: PathBuf, mode: u32, owner: (Option<Uid>, Option<Gid>)) -> LogFile {
        LogFile { path, mode, owner }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file by its name and puts it in the place of standard output and standard error.
    ///
    /// On an error both stay as they were. No line is lost, because dup2 leaves no moment without a file. No line is torn, because this
    /// thread is the only one that writes.
    pub(crate) fn redirect(&self) -> Result<(), Error> {
        let file = self.open().map_err(|error| Error::os("open", self.path.display(), error))?;
        flush();
        redirect_to(&file).map_err(|error| Error::os("dup2", self.path.display(), error))
    }

    fn open(&self) -> io::Result<File> {
        // Twice: between the two steps somebody may remove the file, or create it.
        let mut last = self.open_or_create();
        for _ in 0..TRIES {
            match &last {
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists) => {}
                _ => break,
            }
            last = self.open_or_create();
        }
        last
    }

    fn open_or_create(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        // Without O_APPEND the processes would write over each other's lines.
        // And a FIFO that nobody reads is an error: waiting for a reader would be the end of all service.
        options.append(true).custom_flags(O_NOCTTY | O_NONBLOCK).mode(self.mode);
        match options.open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            opened => return opened.and_then(waiting),
        }
        // Only what this process has created itself gets a mode and an owner; a link that somebody laid is not followed.
        let file = options.create_new(true).open(&self.path)?;
        fchmod(&file, Mode::from_bits_truncate(self.mode as _))?;
        if Uid::effective().is_root() && self.owner != (None, None) {
            fchown(&file, self.owner.0, self.owner.1)?;
        }
        waiting(file)
    }
}

/// Tells whether a path is another name of standard output or standard error, as `/dev/stderr` is, or a link to one.
///
/// What they are can't be opened again by that name if it is a socket, nor without privileges if it is a pipe of root's.
pub(crate) fn names_standard_stream(path: &Path) -> bool {
    let mut path = path.to_owned();
    // A chain that is longer can't be opened either.
    for _ in 0..MOST_LINKS {
        // Also where there is no such file, as on a system without /proc.
        if STANDARD_STREAMS.iter().any(|name| path == Path::new(name)) {
            return true;
        }
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return false };
        let Ok(directory) = directory.canonicalize() else { return false };
        let is_among_descriptors =
            DESCRIPTORS.iter().any(|own| Path::new(own).canonicalize().is_ok_and(|own| own == directory));
        if is_among_descriptors && (name == "1" || name == "2") {
            return true;
        }
        // Not the end of the chain at once: that is a name such as `socket:[4711]`, which leads nowhere.
        match fs::read_link(directory.join(name)) {
            Ok(target) => path = directory.join(target),
            Err(_) => return false,
        }
    }
    false
}

/// The names that every Unix has for the two.
const STANDARD_STREAMS: &[&str] = &["/dev/stdout", "/dev/stderr", "/dev/fd/1", "/dev/fd/2"];

/// Where the descriptors of this process have names.
const DESCRIPTORS: &[&str] = &["/proc/self/fd", "/proc/thread-self/fd", "/dev/fd"];

/// How many links the system follows on one path.
const MOST_LINKS: usize = 40;

/// Has writes wait as they usually do: no line is lost because a reader is slow.
fn waiting(file: File) -> io::Result<File> {
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(&file, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    Ok(file)
}

/// Standard output and standard error as they were, to be put back unless [`keep`](Redirection::keep) says otherwise.
#[must_use = "puts standard output and standard error back when it is dropped"]
pub(crate) struct Redirection {
    former: Option<(OwnedFd, OwnedFd)>,
}

impl Redirection {
    /// Notes where both go now. Nothing is redirected yet.
    pub(crate) fn begin() -> Result<Redirection, Error> {
        let copy = |fd: io::Result<OwnedFd>| fd.map_err(|error| Error::os("dup", "standard output and error", error));
        let out = copy(io::stdout().as_fd().try_clone_to_owned())?;
        let err = copy(io::stderr().as_fd().try_clone_to_owned())?;
        Ok(Redirection { former: Some((out, err)) })
    }

    /// Leaves both where they go, and closes what they were: a terminal, or a pipe whose reader waits for its end.
    pub(crate) fn keep(mut self) {
        self.former = None;
    }
}

impl Drop for Redirection {
    fn drop(&mut self) {
        if let Some((out, err)) = self.former.take() {
            flush();
            // Copies of open descriptors, on to others: there is nothing that could fail.
            let _ = dup2_stdout(&out);
            let _ = dup2_stderr(&err);
        }
    }
}

/// Makes both standard output and standard error another name of `file`.
pub(crate) fn redirect_to(file: impl AsFd) -> nix::Result<()> {
    dup2_stdout(&file)?;
    dup2_stderr(&file)
}

/// Has what was written before go where it was meant to.
fn flush() {
    let _ = io::stdout().flush();
    log::logger().flush();
}

/// How often the file may come and go while it is opened.
const TRIES: usize = 8;

//! Where a child's standard stream leads if it does not lead to the wheel.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::error::Error;

/// Where a standard stream of a child process leads if it does not lead to the wheel.
///
/// `into` makes one of a path, a [`File`] or an [`OwnedFd`]. The builder's methods call `into` themselves.
///
/// POE: `NoStdin`, `RedirectStdin`, `RedirectStdout`, `RedirectStderr`.
#[derive(Debug)]
#[non_exhaustive]
pub enum Redirect {
    /// Where the parent's own stream leads.
    Inherit,
    /// Nowhere. Input is at its end at once, and output is discarded.
    Null,
    /// This file, socket, pipe or terminal.
    Handle(OwnedFd),
    /// The file with this path. Input is read from its start. Output is appended, and creates the file if it is
    /// missing.
    ///
    /// If the path is a FIFO, another process should have its other end open already, because a wheel never waits.
    /// Otherwise input is at its end at once, and output fails with `ENXIO`.
    File(PathBuf),
}

/// Which way a stream goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    In,
    Out,
}

impl Redirect {
    /// Opens the target, or returns `None` if the child inherits the parent's stream.
    pub(super) fn open(self, direction: Direction) -> Result<Option<OwnedFd>, Error> {
        match self {
            Redirect::Inherit => Ok(None),
            Redirect::Null => open(Path::new("/dev/null"), direction).map(Some),
            Redirect::Handle(fd) => Ok(Some(fd)),
            Redirect::File(path) => open(&path, direction).map(Some),
        }
    }

    /// Returns a copy for the other output stream.
    ///
    /// # Errors
    ///
    /// An error if there is no descriptor left for the copy.
    pub(super) fn try_clone(&self) -> io::Result<Redirect> {
        Ok(match self {
            Redirect::Inherit => Redirect::Inherit,
            Redirect::Null => Redirect::Null,
            Redirect::Handle(fd) => Redirect::Handle(fd.try_clone()?),
            Redirect::File(path) => Redirect::File(path.clone()),
        })
    }
}

fn open(path: &Path, direction: Direction) -> Result<OwnedFd, Error> {
    let mut options = OpenOptions::new();
    match direction {
        Direction::In => options.read(true),
        Direction::Out => options.append(true).create(true),
    };
    // This process must not wait for the other end of a FIFO, nor get a controlling terminal.
    options.custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits());
    let file = options.open(path).map_err(|error| Error::os("open", path.display(), error))?;
    wait_again(&file).map_err(|errno| Error::os("fcntl", path.display(), errno))?;
    Ok(file.into())
}

/// Makes the file blocking, because programs expect that of their standard streams.
fn wait_again(file: &File) -> nix::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    fcntl(file, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK)).map(drop)
}

impl From<OwnedFd> for Redirect {
    fn from(fd: OwnedFd) -> Redirect {
        Redirect::Handle(fd)
    }
}

impl From<File> for Redirect {
    fn from(file: File) -> Redirect {
        Redirect::Handle(file.into())
    }
}

impl From<PathBuf> for Redirect {
    fn from(path: PathBuf) -> Redirect {
        Redirect::File(path)
    }
}

impl From<&Path> for Redirect {
    fn from(path: &Path) -> Redirect {
        Redirect::File(path.to_owned())
    }
}

impl From<&str> for Redirect {
    fn from(path: &str) -> Redirect {
        Redirect::File(path.into())
    }
}

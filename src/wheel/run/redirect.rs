//! Where a standard stream of a child leads that is no pipe to its parent.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::error::Error;

/// Where a standard stream of a child process leads, if not to its wheel.
///
/// Made from a path, a [`File`], or any [`OwnedFd`] by `into`, which the builder's methods do by themselves.
///
/// POE: `NoStdin`, `RedirectStdin`, `RedirectStdout`, `RedirectStderr`.
#[derive(Debug)]
#[non_exhaustive]
pub enum Redirect {
    /// To where the parent's own stream leads.
    Inherit,
    /// Nowhere: reading is at the end at once, and what is written is lost.
    Null,
    /// To this file, socket, pipe or terminal.
    Handle(OwnedFd),
    /// To the file of this name: input is read from its start, output is appended to it, and makes it if there is none.
    ///
    /// Of a FIFO the other end should be open by then, as a wheel never waits for anybody: otherwise input is at its end at
    /// once, and output is refused with `ENXIO`.
    File(PathBuf),
}

/// Which way a stream goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    In,
    Out,
}

impl Redirect {
    /// Opens it; `None` for what is inherited.
    pub(super) fn open(self, direction: Direction) -> Result<Option<OwnedFd>, Error> {
        match self {
            Redirect::Inherit => Ok(None),
            Redirect::Null => open(Path::new("/dev/null"), direction).map(Some),
            Redirect::Handle(fd) => Ok(Some(fd)),
            Redirect::File(path) => open(&path, direction).map(Some),
        }
    }

    /// Returns the same thing once more, for the other output stream.
    ///
    /// # Errors
    ///
    /// When there is no descriptor left for the copy.
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
    // This process neither waits for the other end of a FIFO nor wants a terminal for itself.
    options.custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits());
    let file = options.open(path).map_err(|error| Error::os("open", path.display(), error))?;
    wait_again(&file).map_err(|errno| Error::os("fcntl", path.display(), errno))?;
    Ok(file.into())
}

/// Makes reading and writing wait, as any program expects of its streams.
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

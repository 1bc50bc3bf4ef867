//! The standard streams of a child, from the builder's settings to descriptors.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use nix::unistd::Uid;

use super::conduit::Conduit;
use super::redirect::{Direction, Redirect};
#[cfg(feature = "pty")]
use super::terminal::{self, Winsize};
use crate::error::Error;
use crate::kernel::set_nonblocking;
use crate::name::Name;

/// The builder's settings of the standard streams.
#[derive(Default)]
pub(super) struct Streams {
    pub(super) conduit: Conduit,
    #[cfg(feature = "pty")]
    pub(super) winsize: Option<Winsize>,
    /// `None` for the conduit.
    pub(super) stdin: Option<Redirect>,
    pub(super) stdout: Output,
    pub(super) stderr: Output,
}

/// The builder's setting of an output stream.
#[derive(Default)]
pub(super) enum Output {
    #[default]
    Nothing,
    /// The conduit, with an event for each record.
    Event(Name),
    To(Redirect),
}

/// The child's ends of its standard streams. `None` for a stream that it inherits.
pub(super) type Ends = [Option<OwnedFd>; 3];

/// Streams that are ready for a child.
pub(super) struct Open {
    pub(super) theirs: Ends,
    /// This process's ends of the streams that lead to the wheel.
    pub(super) ours: Ends,
}

/// A stream that leads to the wheel.
pub(super) struct Link {
    theirs: OwnedFd,
    ours: OwnedFd,
}

impl Output {
    /// Returns the event that records are sent as.
    pub(super) fn event(&self) -> Option<Name> {
        match self {
            Output::Event(event) => Some(*event),
            Output::Nothing | Output::To(_) => None,
        }
    }

    /// Returns where the stream leads if it does not lead to the wheel.
    fn elsewhere(self) -> Option<Redirect> {
        match self {
            Output::Event(_) => None,
            Output::Nothing => Some(Redirect::Inherit),
            Output::To(redirect) => Some(redirect),
        }
    }
}

impl Streams {
    /// Opens the streams for a child that runs as `user`. `None` means as this process does.
    ///
    /// # Errors
    ///
    /// The error of the stream that can't be opened. Nothing is left open then.
    #[cfg_attr(not(feature = "pty"), allow(unused_variables))]
    pub(super) fn open(self, user: Option<Uid>) -> Result<Open, Error> {
        let Streams { conduit, stdin, stdout, stderr, .. } = self;
        let (input, output) = match conduit {
            #[cfg(feature = "pty")]
            Conduit::Pty | Conduit::PtyPipe => {
                let terminal = terminal::open(self.winsize, user)?;
                let again = terminal.try_clone()?;
                if conduit == Conduit::Pty {
                    let third = again.try_clone()?.theirs;
                    return Ok(join(terminal.both(), again.both(), (Some(third), None)));
                }
                (terminal.both(), again.both())
            }
            Conduit::SocketPair if stdin.is_none() && stdout.event().is_some() => {
                let socket = socket_pair()?;
                (socket.try_clone()?.both(), socket.both())
            }
            Conduit::Pipe | Conduit::SocketPair => {
                (stream(stdin, Direction::In)?, stream(stdout.elsewhere(), Direction::Out)?)
            }
        };
        Ok(join(input, output, stream(stderr.elsewhere(), Direction::Out)?))
    }
}

/// The child's end of a stream, and this process's if it leads to the wheel.
type Pair = (Option<OwnedFd>, Option<OwnedFd>);

fn join(stdin: Pair, stdout: Pair, stderr: Pair) -> Open {
    Open { theirs: [stdin.0, stdout.0, stderr.0], ours: [stdin.1, stdout.1, stderr.1] }
}

impl Link {
    fn both(self) -> Pair {
        (Some(self.theirs), Some(self.ours))
    }

    fn try_clone(&self) -> Result<Link, Error> {
        let copy = |fd: &OwnedFd| fd.try_clone().map_err(|error| Error::os("dup", FOR_CHILD, error));
        Ok(Link { theirs: copy(&self.theirs)?, ours: copy(&self.ours)? })
    }
}

/// Opens a single stream. It is a pipe, unless it leads elsewhere.
fn stream(to: Option<Redirect>, direction: Direction) -> Result<Pair, Error> {
    if let Some(redirect) = to {
        return Ok((redirect.open(direction)?, None));
    }
    let (read, write) = std::io::pipe().map_err(|error| Error::os("pipe", FOR_CHILD, error))?;
    let (read, write) = (OwnedFd::from(read), OwnedFd::from(write));
    let (theirs, ours) = if direction == Direction::In { (read, write) } else { (write, read) };
    Ok(link(theirs, ours)?.both())
}

fn socket_pair() -> Result<Link, Error> {
    let (ours, theirs) = UnixStream::pair().map_err(|error| Error::os("socketpair", FOR_CHILD, error))?;
    link(theirs.into(), ours.into())
}

/// Makes a link of both ends.
pub(super) fn link(theirs: OwnedFd, ours: OwnedFd) -> Result<Link, Error> {
    set_nonblocking(&ours).map_err(|error| Error::os("fcntl", FOR_CHILD, error))?;
    Ok(Link { theirs, ours })
}

/// The subject of errors of system calls.
pub(super) const FOR_CHILD: &str = "for a child";

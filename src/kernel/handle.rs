//! A shared, owned descriptor.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;

/// A descriptor that several owners share. It is closed when the last of them drops its handle.
///
/// The kernel keeps a share of each handle that it watches, so that the descriptor can't be closed behind its back.
/// `&Handle` reads and writes as well, like the sockets of the standard library, so that a handle can be used while it
/// is borrowed from a heap.
///
/// ```
/// use std::io::{Read, Write};
/// use std::os::unix::net::UnixStream;
/// use lenore::{Handle, Kernel, Session};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (ours, mut theirs) = UnixStream::pair()?;
/// theirs.write_all(b"x")?;
/// let mut kernel = Kernel::new()?;
/// Session::new(Handle::new(ours))
///     .state("_start", |cx| {
///         let handle = cx.heap().clone();
///         Ok(cx.select_read(&handle, "readable", ())?)
///     })
///     .state("readable", |cx| {
///         let handle = cx.heap().clone();
///         assert_eq!((&handle).read(&mut [0; 10])?, 1);
///         cx.select_read_clear(&handle);
///         Ok(())
///     })
///     .spawn(&mut kernel)?;
/// kernel.run()?;
/// # Ok(())
/// # }
/// ```
///
/// POE: a file handle.
#[derive(Clone)]
pub struct Handle(Rc<OwnedFd>);

impl Handle {
    /// Takes over a socket, a pipe or a file.
    pub fn new(fd: impl Into<OwnedFd>) -> Handle {
        Handle(Rc::new(fd.into()))
    }

    /// Makes a handle for a copy of a descriptor that stays with its owner, such as standard input.
    ///
    /// # Errors
    ///
    /// When the process has no descriptor left for the copy.
    pub fn duplicate(fd: impl AsFd) -> io::Result<Handle> {
        fd.as_fd().try_clone_to_owned().map(Handle::new)
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Handle {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl io::Read for &Handle {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        nix::unistd::read(&self.0, buffer).map_err(io::Error::from)
    }
}

impl io::Write for &Handle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        nix::unistd::write(&self.0, bytes).map_err(io::Error::from)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl io::Read for Handle {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl io::Write for Handle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({})", self.as_raw_fd())
    }
}

/// Asks the system, without waiting, whether a descriptor can be read. If the system does not tell, the answer is no.
pub(crate) fn has_input(fd: impl AsFd) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut asked = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut asked, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

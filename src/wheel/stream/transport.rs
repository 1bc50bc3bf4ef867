//! A layer between a wheel and its descriptor, such as TLS.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::sys::socket::{Shutdown, shutdown};

use super::descriptor::Descriptor;
use crate::error::Exception;

/// A layer between a [`ReadWrite`](crate::wheel::ReadWrite) and its non-blocking descriptor, such as TLS. Pass it to
/// [`ReadWrite::transport`](crate::wheel::ReadWrite::transport).
///
/// In each turn for reading or for writing, the wheel asks the transport to [`advance`](Transport::advance), and then
/// to read and write as far as the wheel wants to. So the transport may write in order to read, and read in order to
/// write, as a handshake does. It must never wait, and must keep the descriptor that it has at the start. If it panics,
/// the wheel sends an error event for reading or writing.
///
/// ```
/// use std::io::{self, Read, Write};
/// use std::net::Shutdown;
/// use std::os::fd::{AsFd, BorrowedFd};
/// use std::os::unix::net::UnixStream;
/// use lenore::wheel::Transport;
///
/// /// Nothing that should keep a secret.
/// struct Flipped(UnixStream);
///
/// impl AsFd for Flipped {
///     fn as_fd(&self) -> BorrowedFd<'_> {
///         self.0.as_fd()
///     }
/// }
///
/// impl Transport for Flipped {
///     fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
///         let count = self.0.read(buffer)?;
///         buffer[..count].iter_mut().for_each(|byte| *byte ^= 0xff);
///         Ok(count)
///     }
///
///     fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
///         let flipped: Vec<u8> = octets.iter().map(|octet| octet ^ 0xff).collect();
///         self.0.write(&flipped)
///     }
///
///     fn shut_down(&mut self) -> io::Result<()> {
///         self.0.shutdown(Shutdown::Write)
///     }
/// }
/// ```
///
/// POE: nothing like it. `POE::Component::SSLify` ties the handle.
pub trait Transport: AsFd + 'static {
    /// Reads bytes into `buffer`, and returns how many. 0 is the end of the input.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there are no bytes for now. Any other error except `Interrupted` ends the input.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Takes bytes, and returns how many. The transport may keep them for a while: see
    /// [`wants_write`](Transport::wants_write).
    ///
    /// # Errors
    ///
    /// `WouldBlock` if it takes no bytes for now. The wheel treats 0 as the error `WriteZero`. Any other error except
    /// `Interrupted` ends the output.
    fn write(&mut self, octets: &[u8]) -> io::Result<usize>;

    /// Does the work that does not need the wheel's records: it goes on with a handshake, and writes the bytes that it
    /// keeps to the descriptor. Default: does nothing.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if it waits for the descriptor. Any other error except `Interrupted` ends the output.
    fn advance(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Tells whether [`read`](Transport::read) would return bytes although the descriptor has none. Default: no.
    fn has_input(&self) -> bool {
        false
    }

    /// Tells whether the transport has part of a unit, such as a TLS record, that [`read`](Transport::read) can return
    /// only when the rest has come. A component does not take such a connection for idle. Default: no.
    fn holds_part(&self) -> bool {
        false
    }

    /// Returns how many bytes have come from the descriptor. A component uses this to see that a client goes on
    /// sending. Default: `None`, which stands for as many as [`read`](Transport::read) has returned.
    fn received(&self) -> Option<u64> {
        None
    }

    /// Tells whether more input may be left, in the transport or in the descriptor, after a [`read`](Transport::read)
    /// that has not filled its buffer. If not, the wheel waits for the poller, which saves a read that would find
    /// nothing. The wheel notices the end of the input in both cases. Default: yes.
    fn reads_short(&self) -> bool {
        true
    }

    /// Tells whether [`advance`](Transport::advance) waits for input. The wheel then waits for input even if it is
    /// paused, is closing, or has no input event. Default: no.
    fn wants_read(&self) -> bool {
        false
    }

    /// Tells whether the transport has bytes that the descriptor has not taken. The wheel then waits until the
    /// descriptor takes them. Until then it sends no flushed event, and does not close by itself. Default: no.
    fn wants_write(&self) -> bool {
        false
    }

    /// Tells whether records can pass, as when a handshake is done. The wheel asks after each
    /// [`advance`](Transport::advance), until the answer is yes. Then it sends the event of
    /// [`on_ready`](crate::wheel::ReadWriteBuilder::on_ready). Default: yes.
    fn is_ready(&self) -> bool {
        true
    }

    /// Shows the peer the end of the output. The transport may keep the bytes that it must write for that. The wheel
    /// calls this when its output ends, and before it closes after
    /// [`close_after_flush`](crate::wheel::ReadWrite::close_after_flush). It does not call again after a success.
    ///
    /// # Errors
    ///
    /// Return an error if the peer will not notice. The wheel then closes the descriptor at once.
    fn shut_down(&mut self) -> io::Result<()>;
}

/// What a wheel reads from and writes to.
pub(crate) enum Stream {
    Plain(Descriptor),
    /// The program's transport, and whether it has shown the peer the end of the output.
    Own(RawFd, RefCell<Box<dyn Transport>>, Cell<bool>),
}

impl Stream {
    pub(crate) fn new(fd: OwnedFd) -> Stream {
        Stream::Plain(Descriptor::new(fd))
    }

    pub(crate) fn over(transport: Box<dyn Transport>) -> Stream {
        Stream::Own(transport.as_fd().as_raw_fd(), RefCell::new(transport), Cell::new(false))
    }

    /// Calls `what` with the descriptor.
    pub(crate) fn with_fd<T>(&self, what: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
        match self {
            Stream::Plain(descriptor) => what(descriptor.as_fd()),
            Stream::Own(_, transport, _) => what(transport.borrow().as_fd()),
        }
    }

    /// Reads once.
    #[inline]
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(descriptor) => Ok(descriptor.read(buffer)?),
            Stream::Own(_, transport, _) => {
                let most = buffer.len();
                guarded(|| transport.borrow_mut().read(buffer)).map(|count| count.min(most))
            }
        }
    }

    /// Writes once.
    #[inline]
    pub(crate) fn write(&self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(descriptor) => Ok(descriptor.write(octets)?),
            Stream::Own(_, transport, _) => {
                match guarded(|| transport.borrow_mut().write(octets))? {
                    // Otherwise it would be asked again without end.
                    0 if !octets.is_empty() => Err(io::ErrorKind::WriteZero.into()),
                    count => Ok(count.min(octets.len())),
                }
            }
        }
    }

    /// See [`Descriptor::reads_short`]. The answer of a transport may change.
    pub(crate) fn reads_short(&self) -> bool {
        match self {
            Stream::Plain(descriptor) => descriptor.reads_short(),
            Stream::Own(_, transport, _) => guarded(|| Ok(transport.borrow().reads_short())).unwrap_or(true),
        }
    }

    #[inline]
    pub(crate) fn is_own(&self) -> bool {
        matches!(self, Stream::Own(..))
    }

    /// Has a transport do what it can.
    pub(crate) fn advance(&self) -> io::Result<()> {
        match self {
            Stream::Plain(_) => Ok(()),
            Stream::Own(_, transport, _) => match guarded(|| transport.borrow_mut().advance()) {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(()),
                advanced => advanced,
            },
        }
    }

    #[cold]
    pub(crate) fn is_ready(&self) -> bool {
        match self {
            Stream::Plain(_) => true,
            Stream::Own(_, transport, _) => guarded(|| Ok(transport.borrow().is_ready())).unwrap_or(true),
        }
    }

    #[inline]
    pub(crate) fn has_input(&self) -> bool {
        match self {
            Stream::Plain(_) => false,
            Stream::Own(_, transport, _) => guarded(|| Ok(transport.borrow().has_input())).unwrap_or(false),
        }
    }

    /// Tells whether input has come that was not read, even if it is part of a unit.
    pub(crate) fn holds_input(&self) -> bool {
        match self {
            Stream::Plain(_) => false,
            Stream::Own(_, transport, _) => {
                let holds = |transport: &dyn Transport| transport.has_input() || transport.holds_part();
                guarded(|| Ok(holds(&**transport.borrow()))).unwrap_or(false)
            }
        }
    }

    /// Returns how many bytes a transport has received, if it says so.
    #[inline]
    pub(crate) fn received(&self) -> Option<u64> {
        match self {
            Stream::Plain(_) => None,
            Stream::Own(_, transport, _) => guarded(|| Ok(transport.borrow().received())).unwrap_or(None),
        }
    }

    #[inline]
    pub(crate) fn wants_read(&self) -> bool {
        match self {
            Stream::Plain(_) => false,
            Stream::Own(_, transport, _) => guarded(|| Ok(transport.borrow().wants_read())).unwrap_or(false),
        }
    }

    #[inline]
    pub(crate) fn wants_write(&self) -> bool {
        match self {
            Stream::Plain(_) => false,
            Stream::Own(_, transport, _) => guarded(|| Ok(transport.borrow().wants_write())).unwrap_or(false),
        }
    }

    /// Shows the peer the end of the output.
    pub(crate) fn shut_down(&self) -> io::Result<()> {
        match self {
            Stream::Plain(descriptor) => Ok(shutdown(descriptor.as_raw_fd(), Shutdown::Write)?),
            Stream::Own(_, transport, is_shut) => {
                if !is_shut.get() {
                    guarded(|| transport.borrow_mut().shut_down())?;
                    is_shut.set(true);
                }
                Ok(())
            }
        }
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Stream::Plain(descriptor) => descriptor.as_raw_fd(),
            Stream::Own(fd, ..) => *fd,
        }
    }
}

/// Calls a transport. Its panic must not end the kernel, so it becomes an error.
fn guarded<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|payload| Err(io::Error::other(Exception::from_panic(payload).to_string())))
}

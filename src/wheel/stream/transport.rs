//! What may stand between a wheel and its descriptor, such as TLS.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::sys::socket::{Shutdown, shutdown};

use super::descriptor::Descriptor;
use crate::error::Exception;

/// Bytes on their way to and from a descriptor that does not block, for a [`ReadWrite`](crate::wheel::ReadWrite) that is made
/// by [`transport`](crate::wheel::ReadWrite::transport).
///
/// In every turn that readiness gives the wheel, whether for reading or for writing, the transport is asked to
/// [`advance`](Transport::advance), and then to read and to write as far as the wheel wants that. So it may write in order to
/// read, and read in order to write, as a handshake does. It never waits, and keeps the descriptor that it has at the start. What
/// panics in it is an error of reading or writing.
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
/// POE: nothing like it; `POE::Component::SSLify` ties the handle.
pub trait Transport: AsFd + 'static {
    /// Reads bytes into `buffer`, and returns how many; 0 is the end of the input.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there are none for now. Any other error but `Interrupted` ends the input.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Takes bytes, and returns how many. They may stay inside for a while: see [`wants_write`](Transport::wants_write).
    ///
    /// # Errors
    ///
    /// `WouldBlock` when it takes none for now; 0 is an error, `WriteZero`. Any other error but `Interrupted` ends the output.
    fn write(&mut self, octets: &[u8]) -> io::Result<usize>;

    /// Does what can be done without the wheel: goes on with a handshake, moves what is inside to the descriptor.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when it waits for the descriptor. Any other error but `Interrupted` ends the output.
    fn advance(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Tells whether [`read`](Transport::read) would return bytes though the descriptor has none.
    fn has_input(&self) -> bool {
        false
    }

    /// Tells whether the transport has a part of something that [`read`](Transport::read) can return only when the rest has come, such as
    /// a record of TLS. A component does not take the client of such a connection for idle. Default: no.
    fn holds_part(&self) -> bool {
        false
    }

    /// Returns how many bytes have come from the descriptor. By this number a component sees that a client goes on sending. Default:
    /// `None`, for as many as [`read`](Transport::read) has returned.
    fn received(&self) -> Option<u64> {
        None
    }

    /// Tells whether more may be left, in the transport or in the descriptor, after a [`read`](Transport::read) that has not filled
    /// its buffer. If not, the wheel waits for the poller, and saves a read that would find nothing. The end of the input is read
    /// whatever the answer. Default: yes.
    fn reads_short(&self) -> bool {
        true
    }

    /// Tells whether [`advance`](Transport::advance) waits for input, so that the wheel is to look for it though it is paused,
    /// closing or has no input event.
    fn wants_read(&self) -> bool {
        false
    }

    /// Tells whether something is inside that the descriptor has not taken. The wheel then waits until it can be written to. It
    /// sends no flushed event, and does not close by itself, before that is done.
    fn wants_write(&self) -> bool {
        false
    }

    /// Tells whether records can pass: a handshake is done. The wheel asks after each [`advance`](Transport::advance), until the
    /// answer is yes. Then it sends the event of [`on_ready`](crate::wheel::ReadWriteBuilder::on_ready). Default: yes.
    fn is_ready(&self) -> bool {
        true
    }

    /// Shows the peer the end of the output. What has to be written for that may stay inside. The wheel calls this when its
    /// output ends, and before it closes by [`close_after_flush`](crate::wheel::ReadWrite::close_after_flush); not again once it
    /// has succeeded.
    ///
    /// # Errors
    ///
    /// When the peer will not notice. The wheel then closes the descriptor at once.
    fn shut_down(&mut self) -> io::Result<()>;
}

/// What a wheel reads from and writes to.
pub(crate) enum Stream {
    Plain(Descriptor),
    /// Something of the program's own, and whether it has shown the peer the end of the output.
    Own(RawFd, RefCell<Box<dyn Transport>>, Cell<bool>),
}

impl Stream {
    pub(crate) fn new(fd: OwnedFd) -> Stream {
        Stream::Plain(Descriptor::new(fd))
    }

    pub(crate) fn over(transport: Box<dyn Transport>) -> Stream {
        Stream::Own(transport.as_fd().as_raw_fd(), RefCell::new(transport), Cell::new(false))
    }

    /// Does something with the descriptor.
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
                    // It would be asked again without end.
                    0 if !octets.is_empty() => Err(io::ErrorKind::WriteZero.into()),
                    count => Ok(count.min(octets.len())),
                }
            }
        }
    }

    /// See [`Descriptor::reads_short`]. A transport may read short for reasons of its own, once and not another time.
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

    /// Tells whether input has come that was not read: whole, or a part.
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

/// Calls a transport, whose panic is not to end the kernel.
fn guarded<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|payload| Err(io::Error::other(Exception::from_panic(payload).to_string())))
}

//! The socket of the service manager.

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

/// A socket that is connected to nobody: the manager may be started anew, with another socket at the same place.
#[derive(Debug)]
pub(super) struct ManagerSocket {
    socket: UnixDatagram,
    address: UnixAddr,
}

impl ManagerSocket {
    /// Makes a socket. Nothing is sent.
    ///
    /// # Errors
    ///
    /// The address is of a kind that is not known, or the system refuses a socket.
    pub(super) fn new(address: &OsStr) -> io::Result<ManagerSocket> {
        let address = match address.as_bytes() {
            [b'@', name @ ..] => abstract_address(name)?,
            [b'/', ..] => UnixAddr::new(address)?,
            _ => return Err(unknown("neither a path nor an abstract name")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(ManagerSocket { socket, address })
    }

    /// Sends a message without waiting, with a copy of a descriptor if there is one.
    pub(super) fn send(&self, message: &str, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let fd: Option<[RawFd; 1]> = fd.map(|fd| [fd.as_raw_fd()]);
        let rights: Option<[ControlMessage<'_>; 1]> = fd.as_ref().map(|fd| [ControlMessage::ScmRights(fd)]);
        let control = rights.as_ref().map_or(&[][..], |rights| rights);
        let parts = [IoSlice::new(message.as_bytes())];
        sendmsg(self.socket.as_raw_fd(), &parts, control, MsgFlags::empty(), Some(&self.address))?;
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<UnixAddr> {
    Ok(UnixAddr::new_abstract(name)?)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &[u8]) -> io::Result<UnixAddr> {
    Err(unknown("this system has no abstract names"))
}

fn unknown(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, why)
}

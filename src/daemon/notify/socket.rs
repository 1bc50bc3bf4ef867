//! The socket of the service manager.

use std::ffi::OsStr;
use std::io;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// What has become of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sent {
    Yes,
    /// Not now.
    No,
    /// There is nowhere to send it.
    Never,
}

/// A socket that is connected to nobody: the manager may be started anew, with another socket at the same place.
#[derive(Debug)]
pub(super) struct ManagerSocket {
    socket: UnixDatagram,
    address: SocketAddr,
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
            [b'/', ..] => SocketAddr::from_pathname(address)?,
            _ => return Err(unknown("neither a path nor an abstract name")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(ManagerSocket { socket, address })
    }

    /// Sends a message without waiting.
    pub(super) fn send(&self, message: &str) -> io::Result<()> {
        self.socket.send_to_addr(message.as_bytes(), &self.address).map(drop)
    }
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &[u8]) -> io::Result<SocketAddr> {
    Err(unknown("this system has no abstract names"))
}

fn unknown(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, why)
}

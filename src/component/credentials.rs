//! Who is at the other end of a UNIX socket.

use std::io;
use std::os::fd::BorrowedFd;

use crate::sys::peer::peer_of;

/// The process at the other end of a UNIX socket, as it was when the connection was made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerCredentials {
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
    /// Its process. `None` if the system does not tell, or if the process is in another namespace of pids.
    pub pid: Option<u32>,
    /// Its supplementary groups; empty if the system does not tell.
    pub groups: Vec<u32>,
}

impl PeerCredentials {
    pub(super) fn of(socket: BorrowedFd<'_>) -> io::Result<PeerCredentials> {
        let peer = peer_of(socket)?;
        let pid = u32::try_from(peer.pid).ok().filter(|pid| *pid > 0);
        Ok(PeerCredentials { uid: peer.uid, gid: peer.gid, pid, groups: peer.groups })
    }
}

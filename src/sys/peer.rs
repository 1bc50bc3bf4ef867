//! Clients of a UNIX listener: taking one, and who it is.

use std::os::fd::{AsFd, AsRawFd};
#[cfg(feature = "control")]
use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;

/// The process that has connected, as it was then.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Peer {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// 0 if the system does not tell, or if it is in another namespace of pids.
    pub(crate) pid: i32,
    /// Its supplementary groups, if the system tells.
    pub(crate) groups: Vec<u32>,
}

/// Takes a client out of the queue of a listener. The socket does not block, and is not inherited by programs that this one
/// executes.
///
/// # Errors
///
/// `EAGAIN` if none waits and the listener does not block, and what else the system says.
#[cfg(feature = "control")]
pub(crate) fn accept(listener: impl AsFd) -> nix::Result<OwnedFd> {
    use nix::sys::socket::{SockFlag, accept4};
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = accept4(listener.as_fd().as_raw_fd(), flags)?;
    // SAFETY: the system has just made it, and nothing else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Asks the system who has connected a UNIX stream socket, or who listens at its other end.
///
/// # Errors
///
/// `EOPNOTSUPP` for a socket that is not a UNIX one, and what the system says.
#[cfg(target_os = "linux")]
pub(crate) fn peer_of(socket: impl AsFd) -> nix::Result<Peer> {
    use nix::sys::socket::{getsockopt, sockopt};
    let credentials = getsockopt(&socket, sockopt::PeerCredentials)?;
    // So the system answers for a socket of TCP. Nobody can be that user.
    if credentials.uid() == u32::MAX {
        return Err(Errno::EOPNOTSUPP);
    }
    let groups = groups_of(socket.as_fd().as_raw_fd()).unwrap_or_default();
    Ok(Peer { uid: credentials.uid(), gid: credentials.gid(), pid: credentials.pid(), groups })
}

/// Asks the system who has connected a UNIX stream socket.
///
/// # Errors
///
/// What the system says.
#[cfg(not(target_os = "linux"))]
pub(crate) fn peer_of(socket: impl AsFd) -> nix::Result<Peer> {
    let (uid, gid) = nix::unistd::getpeereid(socket)?;
    Ok(Peer { uid: uid.as_raw(), gid: gid.as_raw(), pid: 0, groups: Vec::new() })
}

#[cfg(target_os = "linux")]
fn groups_of(fd: libc::c_int) -> nix::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 64];
    loop {
        let mut length = libc::socklen_t::try_from(size_of_val(&groups[..])).map_err(|_| Errno::E2BIG)?;
        // SAFETY: `groups` has room for `length` bytes, and the system writes no more than that many; any bits are numbers.
        let done = unsafe {
            libc::getsockopt(fd, libc::SOL_SOCKET, SO_PEERGROUPS, groups.as_mut_ptr().cast(), &raw mut length)
        };
        let number = length as usize / size_of::<u32>();
        match Errno::result(done) {
            Ok(_) => {
                groups.truncate(number);
                return Ok(groups);
            }
            // It says how many there are.
            Err(Errno::ERANGE) if number > groups.len() => groups.resize(number, 0),
            Err(errno) => return Err(errno),
        }
    }
}

/// Missing in `libc`.
#[cfg(target_os = "linux")]
const SO_PEERGROUPS: libc::c_int = 59;

/// Returns the number by which the system shows users and groups that have none in this process's user namespace; `None` if all
/// have one.
#[cfg(feature = "control")]
pub(crate) fn unmapped_id() -> Option<u32> {
    let map = std::fs::read_to_string("/proc/self/uid_map").ok()?;
    let numbers: Vec<u64> = map.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    if numbers == [0, 0, u64::from(u32::MAX)] {
        return None;
    }
    let overflow =
        std::fs::read_to_string("/proc/sys/kernel/overflowuid").ok().and_then(|text| text.trim().parse().ok());
    Some(overflow.unwrap_or(65_534))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test] // O-CT-06
    fn socket_of_tcp_has_no_peer_that_the_system_knows() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(peer_of(&client).is_err());
        assert!(peer_of(listener.accept().unwrap().0).is_err());
    }

    #[test]
    fn peer_of_a_pair_is_this_process() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = peer_of(&one).unwrap();
        assert_eq!(peer.uid, nix::unistd::geteuid().as_raw());
        assert_eq!(peer.pid, std::process::id().cast_signed());
        let mut own: Vec<u32> = nix::unistd::getgroups().unwrap().into_iter().map(|gid| gid.as_raw()).collect();
        let mut seen = peer.groups;
        own.sort_unstable();
        seen.sort_unstable();
        assert_eq!(seen, own);
    }
}

//! Sockets that a configuration has had opened before anything listens on them.
//!
//! They wait beside the sockets that were passed, and a listener finds them by their address in the same way. That of a new
//! configuration is bound before anything of the old one is closed. That of an old configuration is kept for as long as it may be
//! taken back.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::sys::socket::{Backlog, Shutdown, getsockopt, listen, setsockopt, shutdown, sockopt};

pub(crate) use super::socket::Owner;
use super::socket::Socket;
use super::{Kind, Place, with};
use crate::error::Error;

/// What is known of a listener that is kept.
pub(crate) struct Kept {
    /// The name that a listener finds it by, if it has one.
    pub(crate) name: Option<String>,
    /// Another process has passed it, and may have it still.
    pub(crate) is_inherited: bool,
}

/// Returns a name for a configuration that no other one in this process has.
pub(crate) fn owner() -> Owner {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}

/// Tells whether a socket waits at `address`. From now on it waits for a listener of this configuration.
///
/// # Errors
///
/// As [`read`](super::read).
pub(crate) fn claim_for(owner: Owner, address: SocketAddr) -> Result<bool, Error> {
    with(|sockets| {
        let found = sockets.iter_mut().find(|socket| is_at(socket, address));
        found.map(|socket| socket.prepared_for = Some(owner)).is_some()
    })
}

/// Tells whether a socket waits at `address`, for whatever listener.
///
/// # Errors
///
/// As [`read`](super::read).
pub(crate) fn waits_at(address: SocketAddr) -> Result<bool, Error> {
    with(|sockets| sockets.iter().any(|socket| is_at(socket, address)))
}

/// Has a socket that this process has bound wait for a listener.
///
/// # Errors
///
/// As [`read`](super::read), or what is wrong with the socket.
pub(crate) fn put(owner: Owner, fd: OwnedFd) -> Result<(), Error> {
    let socket = examine(owner, fd, Kept { name: None, is_inherited: false })?;
    with(|sockets| sockets.push(socket))
}

/// Keeps a socket on which something listens still, if it is at one of these addresses, so that it can be had again.
pub(crate) fn keep(owner: Owner, fd: OwnedFd, kept: Kept, addresses: &[SocketAddr]) {
    // The caller has a listener that works: what can't be kept can't be had again, and nothing else is wrong.
    let Ok(socket) = examine(owner, fd, kept) else { return };
    if addresses.iter().any(|address| is_at(&socket, *address)) {
        let _ = with(|sockets| sockets.push(socket));
    }
}

/// Has the sockets listen no more that wait for this configuration at other addresses than these, where the system can do that and
/// this process has bound them. Nothing may accept on them any more. Clients are refused, and do not wait for nothing. The address
/// stays taken.
pub(crate) fn silence_others(owner: Owner, addresses: &[SocketAddr]) {
    if !cfg!(target_os = "linux") {
        return;
    }
    let silence_all = |sockets: &mut Vec<Socket>| {
        for socket in sockets.iter_mut().filter(|socket| socket.prepared_for == Some(owner) && socket.is_own) {
            if socket.is_quiet.is_none() && !addresses.iter().any(|address| is_at(socket, *address)) {
                socket.is_quiet = silence(socket);
            }
        }
    };
    let _ = with(silence_all);
}

/// Has a socket not listen any more. Returns whether other sockets could be bound to its address along with it. Meanwhile they can't:
/// one of them might listen.
fn silence(socket: &Socket) -> Option<bool> {
    let reuse = getsockopt(&socket.fd, sockopt::ReuseAddr).ok()?;
    setsockopt(&socket.fd, sockopt::ReuseAddr, &false).ok()?;
    if shutdown(socket.fd.as_raw_fd(), Shutdown::Read).is_err() {
        let _ = setsockopt(&socket.fd, sockopt::ReuseAddr, &reuse);
        return None;
    }
    Some(reuse)
}

/// Has the sockets that wait at these addresses listen, if they do not.
///
/// # Errors
///
/// The address, and what the system says of it.
pub(crate) fn wake(owner: Owner, addresses: &[SocketAddr]) -> Result<(), (SocketAddr, Errno)> {
    let wake = |sockets: &mut Vec<Socket>| {
        for address in addresses {
            let is_meant = |socket: &&mut Socket| socket.prepared_for == Some(owner) && is_at(socket, *address);
            let Some(socket) = sockets.iter_mut().find(is_meant) else { continue };
            listen_again(socket).map_err(|errno| (*address, errno))?;
        }
        Ok(())
    };
    with(wake).unwrap_or(Ok(()))
}

/// Has a socket listen that was silenced, and lets others be bound to its address again as before.
pub(super) fn listen_again(socket: &mut Socket) -> Result<(), Errno> {
    let Some(reuse) = socket.is_quiet else { return Ok(()) };
    let _ = setsockopt(&socket.fd, sockopt::ReuseAddr, &reuse);
    if let Err(errno) = listen(&socket.fd, Backlog::MAXCONN) {
        // It keeps the address for itself until a later try.
        let _ = setsockopt(&socket.fd, sockopt::ReuseAddr, &false);
        return Err(errno);
    }
    socket.is_quiet = None;
    Ok(())
}

/// Closes what waits for this configuration at other addresses than these.
pub(crate) fn retain(owner: Owner, addresses: &[SocketAddr]) {
    let stays =
        |socket: &Socket| socket.prepared_for != Some(owner) || addresses.iter().any(|address| is_at(socket, *address));
    let _ = with(|sockets| sockets.retain(stays));
}

fn is_at(socket: &Socket, address: SocketAddr) -> bool {
    socket.kind == Kind::Stream && socket.is_at(&Place::Ip(address))
}

fn examine(owner: Owner, fd: OwnedFd, kept: Kept) -> Result<Socket, Error> {
    let unusable = |_| Error::InvalidSetting { setting: "listener", reason: "it is not a socket that listens" };
    let socket = Socket::examine(kept.name.as_deref().unwrap_or_default(), fd).map_err(unusable)?;
    Ok(Socket { prepared_for: Some(owner), is_own: !kept.is_inherited, ..socket })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::sync::atomic::AtomicU16;

    use super::*;
    use crate::inherited::{Claimed, Family, Wanted, claim, close_unclaimed};

    fn listener() -> (TcpListener, SocketAddr) {
        // A port that the system has chosen is not kept when a socket listens no more. So this one is chosen here.
        // An address of this process alone.
        static NEXT: AtomicU16 = AtomicU16::new(20_000);
        let host = Ipv4Addr::from_bits(0x7f07_0000 + (std::process::id() & 0xffff));
        loop {
            let address = SocketAddr::from((host, NEXT.fetch_add(1, Ordering::Relaxed)));
            if let Ok(listener) = TcpListener::bind(address) {
                return (listener, address);
            }
        }
    }

    fn take(address: SocketAddr) -> Option<Claimed> {
        let places = [Place::Ip(address)];
        claim(&Wanted { name: None, kind: Kind::Stream, family: Family::Ip, places: &places }).unwrap()
    }

    #[test] // O-RL-13
    fn prepared_socket_waits_for_the_listener_of_its_address() {
        let (owner, (one, address)) = (owner(), listener());
        assert!(!claim_for(owner, address).unwrap());
        put(owner, one.into()).unwrap();
        assert!(claim_for(owner, address).unwrap());
        // It is not a leftover of what was passed.
        close_unclaimed();
        let claimed = take(address).expect("it waits");
        assert!(claimed.is_own && take(address).is_none());
    }

    #[test]
    fn socket_that_no_edition_names_any_more_is_closed() {
        let (owner, (one, first), (two, second)) = (owner(), listener(), listener());
        put(owner, one.into()).unwrap();
        put(owner, two.into()).unwrap();
        retain(owner + 1000, &[]);
        retain(owner, &[second]);
        assert!(take(first).is_none() && TcpStream::connect(first).is_err());
        assert!(take(second).is_some());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn kept_socket_refuses_clients_until_it_is_had_again() {
        let (owner, (listens, address), (other, elsewhere)) = (owner(), listener(), listener());
        let kept = || Kept { name: None, is_inherited: false };
        keep(owner, other.try_clone().unwrap().into(), kept(), &[address]);
        assert!(take(elsewhere).is_none());
        assert!(TcpStream::connect(address).is_ok() && TcpStream::connect(elsewhere).is_ok());
        keep(owner, listens.into(), kept(), &[address]);
        silence_others(owner, &[address]);
        assert!(TcpStream::connect(address).is_ok());
        silence_others(owner, &[elsewhere]);
        assert!(TcpStream::connect(address).is_err());
        assert!(TcpListener::bind(address).is_err());
        wake(owner, &[address]).unwrap();
        assert!(TcpStream::connect(address).is_ok());
        assert!(take(address).is_some());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn kept_socket_that_could_not_listen_again_does_so_at_the_next_try() {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, socket};

        let (owner, (listens, address)) = (owner(), listener());
        let ours = listens.try_clone().unwrap();
        keep(owner, listens.into(), Kept { name: None, is_inherited: false }, &[address]);
        silence_others(owner, &[]);
        // Another socket listens there, by a setting that the kept one does not have meanwhile.
        setsockopt(&ours, sockopt::ReuseAddr, &true).unwrap();
        let other = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        setsockopt(&other, sockopt::ReuseAddr, &true).unwrap();
        bind(other.as_raw_fd(), &SockaddrStorage::from(address)).unwrap();
        listen(&other, Backlog::MAXCONN).unwrap();
        assert_eq!(wake(owner, &[address]), Err((address, Errno::EADDRINUSE)));
        drop(other);
        wake(owner, &[address]).unwrap();
        assert!(TcpStream::connect(address).is_ok());
        assert!(take(address).is_some());
    }

    #[test] // O-RL-13: a reload may wait for it while the edition before is taken back
    #[cfg(target_os = "linux")]
    fn claimed_socket_listens_though_it_was_silenced() {
        let (owner, (listens, address)) = (owner(), listener());
        put(owner, listens.into()).unwrap();
        silence_others(owner, &[]);
        assert!(TcpStream::connect(address).is_err());
        let claimed = take(address).expect("it waits");
        assert!(TcpStream::connect(address).is_ok());
        drop(claimed);
    }
}

//! Addresses that nobody has, and paths that nobody listens at.
//!
//! A program that another test starts has a copy of every socket of this process for a moment, between its fork and its exec. So a listener that a test drops may be open a little longer, and hold its address. What is made
//! here is bound and never listens: a copy of it takes the address from nobody, and accepts no client.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrStorage, UnixAddr, bind, getsockname, setsockopt, socket,
    sockopt::ReuseAddr,
};

use crate::{DEADLINE, wait_until};

fn bound(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let made = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&made, ReuseAddr, &true)?;
    bind(made.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(made)
}

/// As many addresses of `host`, of which nobody has one, and no two are the same.
///
/// # Panics
///
/// When there is none.
#[track_caller]
pub fn free_addresses<const N: usize>(host: Ipv4Addr) -> [SocketAddr; N] {
    let held = [(); N].map(|()| bound(SocketAddr::from((host, 0))).expect("a port"));
    held.map(|held| {
        let address: SockaddrIn = getsockname(held.as_raw_fd()).expect("it is bound");
        SocketAddr::V4(SocketAddrV4::new(address.ip(), address.port()))
    })
}

/// Whether one can listen at `address`.
pub fn is_free(address: SocketAddr) -> bool {
    bound(address).is_ok()
}

/// Waits until nobody has `address`, not even a process that is about to become another program.
///
/// # Panics
///
/// After [`DEADLINE`].
#[track_caller]
pub fn wait_free(address: SocketAddr) {
    wait_until(&format!("{address} to be free"), DEADLINE, || is_free(address).then_some(()));
}

/// Leaves a socket at `path` that nobody listens at, as a process leaves it that was killed.
///
/// # Panics
///
/// When there is something at `path`.
#[track_caller]
pub fn leave_socket(path: &Path) {
    let made = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    bind(made.as_raw_fd(), &UnixAddr::new(path).expect("a short path")).expect("a free path");
}

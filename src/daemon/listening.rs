//! The sockets of the addresses that a configuration names, until the application listens on them.

use std::net::SocketAddr;
use std::rc::Rc;

use crate::daemon::config::{Config, Loaded};
use crate::daemon::heap::Heap;
use crate::error::Error;
use crate::inherited::prepared::{self, Kept, Owner};
use crate::kernel::Core;
use crate::wheel::SocketFactory;

/// Binds the addresses of the first edition, unless the launcher has passed a socket for one.
///
/// # Errors
///
/// The first address that can't be bound, in an [`Error::Os`]. Nothing stays bound then.
pub(super) fn open(config: &Config) -> Result<(), Error> {
    bind(config.owner, &config.addresses()).inspect_err(|_| prepared::retain(config.owner, &[]))
}

/// Binds the addresses that an edition adds.
///
/// # Errors
///
/// As [`open`]. What was bound before stays as it was.
pub(super) fn add(config: &Config, loaded: &Loaded) -> Result<(), Error> {
    let current: Rc<[SocketAddr]> = config.addresses();
    let is_new = |address: &&SocketAddr| !current.contains(address);
    let added: Vec<SocketAddr> = loaded.addresses.iter().filter(is_new).copied().collect();
    bind(config.owner, &added).inspect_err(|_| retain(config))
}

fn bind(owner: Owner, addresses: &[SocketAddr]) -> Result<(), Error> {
    for address in addresses {
        if !prepared::claim_for(owner, *address)? {
            let bound = SocketFactory::tcp(address.to_string()).bind_listener()?;
            prepared::put(owner, bound.into_fd().map_err(|error| Error::os("dup", address, error))?)?;
        }
    }
    // One that is kept for the former edition may be among them.
    prepared::wake(owner, addresses).map_err(|(address, errno)| Error::os("listen", address, errno))
}

/// Keeps the sockets of these addresses, which the application is about to close, for as long as an edition has them.
pub(super) fn keep(config: &Config, core: &mut Core, addresses: &[SocketAddr]) {
    if addresses.is_empty() {
        return;
    }
    for (key, findable) in core.findable_listeners() {
        if let Ok(fd) = core.duplicate_listener(key) {
            let kept = Kept { name: findable.name.map(|name| name.to_string()), is_inherited: findable.is_inherited };
            prepared::keep(config.owner, fd, kept, addresses);
        }
    }
}

/// Has the sockets refuse clients that are kept for an edition that is not in force, once the application listens on them no more.
pub(super) fn silence(config: &Config) {
    prepared::silence_others(config.owner, &config.addresses());
}

/// Has the sockets listen that were kept for the edition that is in force again.
pub(super) fn take_back(config: &Config) {
    if let Err((address, errno)) = prepared::wake(config.owner, &config.addresses()) {
        log::error!(target: "lenore::daemon", "address can't be listened on again: listen: {errno}: address={address}");
    }
}

/// Closes what no edition has any more.
pub(super) fn retain(config: &Config) {
    prepared::retain(config.owner, &config.all_addresses());
}

/// Closes what nothing listens on, in a process that will not listen on anything more for this Daemon. Sockets that wait for another
/// Daemon stay.
pub(super) fn let_go(heap: &Heap) {
    if let Some(config) = &heap.config {
        prepared::retain(config.owner, &[]);
    }
}

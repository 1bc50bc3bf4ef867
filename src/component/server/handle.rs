//! A server that was spawned.

use std::net::SocketAddr;

use crate::component::listen::ListenAddr;
use crate::daemon::Daemon;
use crate::kernel::SessionId;

/// A [`Server`](super::Server) that was spawned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[doc(alias = "Serving")]
pub struct ServerHandle {
    pub(super) daemon: Daemon,
    pub(super) session: SessionId,
    /// In the order in which they were asked for. Never freed, so that this is `Copy`: a program has few servers.
    pub(super) local_addrs: &'static [ListenAddr],
}

impl ServerHandle {
    /// Returns its Daemon: for `status`, `peek` and `shutdown`.
    pub fn daemon(self) -> Daemon {
        self.daemon
    }

    /// Returns the session that listens, the parent of the connections' sessions.
    pub fn session(self) -> SessionId {
        self.session
    }

    /// Returns the first address of TCP that it listens on.
    ///
    /// # Panics
    ///
    /// If there is none, as the server listens on UNIX sockets only: ask for [`local_addrs`](ServerHandle::local_addrs).
    #[track_caller]
    pub fn local_addr(self) -> SocketAddr {
        let first = self.local_addrs.iter().find_map(ListenAddr::tcp);
        first.expect("the server has no address of TCP; ServerHandle::local_addrs returns those that it has")
    }

    /// Returns where it listens, in the order in which that was asked for, and then where the configuration of the start says.
    pub fn local_addrs(self) -> &'static [ListenAddr] {
        self.local_addrs
    }
}

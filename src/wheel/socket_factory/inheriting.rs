//! Sockets that a wheel does not make: inherited ones, and the program's own.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use nix::sys::socket::{getsockopt, sockopt};

use super::address::Target;
use super::datagram::Datagram;
use super::listening::{Listener, Opened};
use super::socket::{self, BoundPath, CallError};
use crate::error::Error;
use crate::inherited::{self, Claimed, Family, Kind, Place, Wanted};
use crate::kernel::{Findable, KnownAs, Switch};
use crate::sys::accept_queue;
use crate::wheel::listen_accept::check;

/// Where a wheel's socket comes from.
#[derive(Debug)]
pub(super) enum Origin {
    /// It is inherited by its name or at its address. If there is no such socket, the wheel makes one.
    Found { name: Option<String> },
    /// It is inherited by this name.
    Inherited { name: String },
    /// The program has passed it. `None` once the wheel has it.
    Given(Option<OwnedFd>),
}

impl Origin {
    /// Tells whether the wheel has no address of its own.
    pub(super) fn has_no_address(&self) -> bool {
        !matches!(self, Origin::Found { .. })
    }

    /// Returns the name and addresses under which another process finds the socket. `None` for a socket of the program,
    /// which the program passes on itself.
    pub(super) fn known_as(&self, asked: &[String]) -> Option<KnownAs> {
        let name = match self {
            Origin::Found { name } => name.clone(),
            Origin::Inherited { name } => Some(name.clone()),
            Origin::Given(_) => return None,
        };
        Some(KnownAs { name, asked: asked.to_vec(), ..KnownAs::default() })
    }

    /// Takes over a listening socket, if there is one. The path of a socket that systemd has passed stays, because
    /// systemd may pass the socket to another process later.
    pub(super) fn listener(&mut self, family: Family, targets: &[Target]) -> Result<Option<Opened>, Error> {
        if let Origin::Given(fd) = self {
            let fd = fd.take().ok_or_else(|| invalid("it was taken"))?;
            return Ok(Some(check(fd)?.into()));
        }
        let claimed = self.claim(Kind::Stream, family, targets)?;
        Ok(claimed.map(|Claimed { fd, place, name, owns_path, is_own }| {
            let findable = match is_own {
                true => self.findable(&place),
                false => Some(Findable { name: Some(name.into()), is_inherited: true }),
            };
            let (listener, path) = match place {
                Place::Ip(_) => (Listener::tcp(fd.into()), None),
                Place::Path(path) => (Listener::unix(fd.into()), owns_path.then(|| BoundPath::new(&path)).flatten()),
            };
            Opened { listener, path, findable }
        }))
    }

    /// Returns how another process would find a listener that is made at `place`.
    pub(super) fn findable(&self, place: &Place) -> Option<Findable> {
        let Origin::Found { name } = self else { return None };
        // This process removes the path when it ends, and clients then could not reach the socket.
        if place.is_file() {
            return None;
        }
        let name = name.as_deref().filter(|name| inherited::is_name(name)).map(Rc::from);
        (name.is_some() || place.is_somewhere()).then_some(Findable { name, is_inherited: false })
    }

    /// Takes over a datagram socket, if there is one.
    pub(super) fn datagram(&self, family: Family, targets: &[Target]) -> Result<Option<Datagram>, Error> {
        let claimed = self.claim(Kind::Datagram, family, targets)?;
        Ok(claimed.map(|Claimed { fd, place, .. }| match place {
            Place::Ip(_) => Datagram::Udp(fd.into()),
            Place::Path(_) => Datagram::Unix(fd.into()),
        }))
    }

    fn claim(&self, kind: Kind, family: Family, targets: &[Target]) -> Result<Option<Claimed>, Error> {
        let name = match self {
            Origin::Inherited { name } => return inherited::claim_by_name(name, kind).map(Some),
            Origin::Found { name } => name.as_deref(),
            Origin::Given(_) => return Ok(None),
        };
        let places: Vec<Place> = targets.iter().map(Target::place).collect();
        inherited::claim(&Wanted { name, kind, family, places: &places })
    }
}

/// Sets the queue of a socket that listens already, if the program has set a length.
pub(super) fn set_queue(listener: &Listener, asked: Option<u32>) -> Result<(), CallError> {
    let Some(asked) = asked else { return Ok(()) };
    let before = accept_queue::read(listener.as_fd()).map(|queue| queue.limit);
    socket::listen(listener.as_fd(), Some(asked))?;
    let before = before.map_or_else(|_| "unknown".to_owned(), |limit| limit.to_string());
    log::info!(
        target: "lenore::wheels", "listen queue set anew: address={listener} before={before} asked={asked}"
    );
    Ok(())
}

/// Warns that an IPv6 socket does not get the setting, because it is bound already. A launcher may have bound it, or
/// the program, or this process for a configuration.
pub(super) fn warn_of_v6_only(listener: &Listener, asked: Option<Switch>) {
    let Some(asked) = asked.map(|asked| asked == Switch::On) else { return };
    // A socket of another family has no such option.
    if let Ok(found) = getsockopt(&listener.as_fd(), sockopt::Ipv6V6Only)
        && found != asked
    {
        let takes = |only: bool| if only { "IPv6 only" } else { "IPv4 as well" };
        log::warn!(
            target: "lenore::wheels",
            "listener stays as it was bound: address={listener} takes={:?} asked={:?}",
            takes(found), takes(asked)
        );
    }
}

fn invalid(reason: &'static str) -> Error {
    Error::InvalidSetting { setting: "listener", reason }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::TcpListener;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;
    use crate::testing::TempDir;

    fn given(fd: impl Into<OwnedFd>) -> Result<Listener, Error> {
        let opened = Origin::Given(Some(fd.into())).listener(Family::Ip, &[]);
        opened.map(|opened| opened.expect("it was given").listener)
    }

    #[test] // O-SD-13: the queue of a listener that is taken over
    fn queue_of_a_socket_that_listens_already_is_set_if_asked_for() {
        let listener = given(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let limit = || accept_queue::read(listener.as_fd()).unwrap().limit;
        let before = limit();
        set_queue(&listener, None).unwrap();
        assert_eq!(limit(), before);
        set_queue(&listener, Some(7)).unwrap();
        assert_eq!(limit(), 7);
    }

    #[test]
    fn given_socket_must_be_one_that_listens() {
        let dir = TempDir::new();
        let unix = UnixListener::bind(dir.path().join("s")).unwrap();
        assert!(matches!(given(unix), Ok(Listener::Unix(_))));
        assert!(given(UnixStream::pair().unwrap().0).is_err());
        assert!(given(File::open("/dev/null").unwrap()).is_err());
    }
}

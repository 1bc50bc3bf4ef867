//! Sockets that the launcher has passed to this process, as systemd does: read once, kept until a listener takes them over.
//!
//! A listener finds its socket by its name (`LISTEN_FDNAMES`) or else by its address. Neither order nor number counts, and a socket is
//! not given to a listener because there is no other: the first that asks may be one that must not be reached from
//! outside.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;

use crate::environment;
use crate::error::Error;
use crate::handover;
use crate::sys::descriptors::adopt;

pub(crate) mod prepared;
mod socket;
mod variables;

pub(crate) use socket::{Kind, Place, path_of};

use socket::Socket;
pub(crate) use variables::is_name;
use variables::{FDS, Invalid};

/// What a listener asks for.
pub(crate) struct Wanted<'a> {
    /// By this name first, in any place.
    pub(crate) name: Option<&'a str>,
    pub(crate) kind: Kind,
    pub(crate) family: Family,
    /// Else at one of these, whatever the name.
    pub(crate) places: &'a [Place],
}

/// What addresses a socket has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Any,
    Ip,
    Unix,
}

/// A socket that was taken over.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) fd: OwnedFd,
    pub(crate) place: Place,
    /// By which it was passed.
    pub(crate) name: String,
    /// The path goes with the listener: the process that has made it has passed it on for good.
    pub(crate) owns_path: bool,
    /// This process has bound it itself, before anything listened on it.
    pub(crate) is_own: bool,
}

/// A socket that nobody had claimed, and that was closed.
#[derive(Debug)]
pub(crate) struct Leftover {
    pub(crate) name: String,
    /// What it was.
    pub(crate) text: String,
}

/// Reads what was passed, in the first call. Each descriptor is checked, and made non-blocking and close-on-exec.
///
/// # Errors
///
/// [`Error::InvalidEnvironment`] or [`Error::Handover`], in each call.
pub(crate) fn read() -> Result<(), Error> {
    with(|_| ())
}

/// Gives the first socket that fits; `None` if there is none.
///
/// # Errors
///
/// [`Error::NotInherited`] if the sockets of the name are all of another type; as [`read`].
pub(crate) fn claim(wanted: &Wanted<'_>) -> Result<Option<Claimed>, Error> {
    with(|sockets| take(sockets, wanted))?
}

/// The same, of one that has to be there.
pub(crate) fn claim_by_name(name: &str, kind: Kind) -> Result<Claimed, Error> {
    let wanted = Wanted { name: Some(name), kind, family: Family::Any, places: &[] };
    let missing = || Error::NotInherited { name: name.to_owned(), found: unclaimed() };
    claim(&wanted)?.ok_or_else(missing)
}

/// Describes the sockets that were passed and that no listener has claimed so far.
pub(crate) fn unclaimed() -> String {
    with(|sockets| describe(sockets.iter().filter(|socket| !socket.is_own))).unwrap_or_default()
}

/// Closes the sockets that nobody has claimed, and describes each.
pub(crate) fn close_unclaimed() -> Vec<Leftover> {
    let describe = |socket: Socket| Leftover { text: socket.to_string(), name: socket.name };
    // What a configuration has had prepared may be for a listener of a child.
    let left_over = |socket: &mut Socket| socket.prepared_for.is_none();
    with(|sockets| sockets.extract_if(.., left_over).map(describe).collect()).unwrap_or_default()
}

type Store = Option<Result<Vec<Socket>, Unusable>>;

/// The process's, as the environment is. `None` before it was read.
static SOCKETS: Mutex<Store> = Mutex::new(None);

fn with<T>(act: impl FnOnce(&mut Vec<Socket>) -> T) -> Result<T, Error> {
    let mut store: MutexGuard<'_, Store> = SOCKETS.lock().unwrap_or_else(PoisonError::into_inner);
    match store.get_or_insert_with(adopt_all) {
        Ok(sockets) => Ok(act(sockets)),
        Err(unusable) => Err(unusable.clone().into()),
    }
}

/// Why nothing of what was passed can be used.
#[derive(Clone)]
enum Unusable {
    Variable(Invalid),
    /// What the predecessor says.
    Hello(String),
}

impl From<Invalid> for Unusable {
    fn from(invalid: Invalid) -> Unusable {
        Unusable::Variable(invalid)
    }
}

impl From<Unusable> for Error {
    fn from(unusable: Unusable) -> Error {
        match unusable {
            Unusable::Variable(invalid) => invalid.into(),
            Unusable::Hello(reason) => Error::Handover { reason },
        }
    }
}

fn adopt_all() -> Result<Vec<Socket>, Unusable> {
    let taken = environment::taken();
    let count = taken.get(FDS).unwrap_or_default();
    let fail = |name: &str, fd: RawFd, reason: &str| {
        Invalid::new(FDS, count, format!("descriptor {fd}, name {name:?}: {reason}"))
    };
    let adopt = |(name, fd): (&str, RawFd)| match adopt(fd) {
        Ok(owned) => Ok((name.to_owned(), owned)),
        Err(Errno::EEXIST) => Err(fail(name, fd, "not passed, but opened by this program")),
        Err(_) => Err(fail(name, fd, "not open")),
    };
    let passed = variables::parse(|name| taken.get(name), std::process::id());
    // Before anything is opened here: that would have a number which is not open so far.
    let adopted = passed.and_then(|passed| passed.each().map(adopt).collect::<Result<Vec<_>, _>>());
    environment::remove_taken();
    let (reserved, sockets): (Vec<_>, Vec<_>) = adopted?.into_iter().partition(|(name, _)| handover::is_reserved(name));
    let hello = handover::meet(reserved).map_err(Unusable::Hello)?;
    let examine = |(name, owned): (String, OwnedFd)| -> Result<Socket, Invalid> {
        let fd = owned.as_raw_fd();
        let mut socket = Socket::examine(&name, owned).map_err(|reason| fail(&name, fd, &reason))?;
        socket.passed = hello.sockets.get(&fd).cloned().unwrap_or_default();
        Ok(socket)
    };
    Ok(sockets.into_iter().map(examine).collect::<Result<_, _>>()?)
}

fn take(sockets: &mut Vec<Socket>, wanted: &Wanted<'_>) -> Result<Option<Claimed>, Error> {
    let Some(at) = find(sockets, wanted)? else { return Ok(None) };
    // A reload may have waited for this socket while another configuration came into force, which silenced it.
    let quiet = &mut sockets[at];
    prepared::listen_again(quiet).map_err(|errno| Error::os("listen", &quiet.place, errno))?;
    let socket = sockets.remove(at);
    if !socket.is_own {
        log::info!(target: "lenore::wheels", "inherited socket taken over: {socket}");
    }
    let Socket { fd, place, name, passed, is_own, .. } = socket;
    Ok(Some(Claimed { fd, place, name, owns_path: passed.owns_path, is_own }))
}

fn find(sockets: &[Socket], wanted: &Wanted<'_>) -> Result<Option<usize>, Error> {
    let is_of_type = |socket: &Socket| socket.kind == wanted.kind && wanted.family.has(&socket.place);
    if let Some(name) = wanted.name {
        let named = || sockets.iter().filter(|socket| socket.name == name);
        if let Some(at) = sockets.iter().position(|socket| socket.name == name && is_of_type(socket)) {
            return Ok(Some(at));
        }
        if named().next().is_some() {
            return Err(Error::NotInherited { name: name.to_owned(), found: describe(named()) });
        }
    }
    let at = |place: &Place| sockets.iter().position(|socket| is_of_type(socket) && socket.is_at(place));
    Ok(wanted.places.iter().find_map(at))
}

impl Family {
    fn has(self, place: &Place) -> bool {
        match (self, place) {
            (Family::Any, _) | (Family::Ip, Place::Ip(_)) | (Family::Unix, Place::Path(_)) => true,
            (Family::Ip, Place::Path(_)) | (Family::Unix, Place::Ip(_)) => false,
        }
    }
}

fn describe<'a>(sockets: impl IntoIterator<Item = &'a Socket>) -> String {
    let described: Vec<String> = sockets.into_iter().map(ToString::to_string).collect();
    if described.is_empty() { "there is none".to_owned() } else { format!("there is {}", described.join(", ")) }
}

#[cfg(test)]
mod tests;

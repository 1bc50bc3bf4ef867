//! Taking over from the process that has served so far, as the program is upgraded while it runs.
//!
//! The process that serves, the *predecessor*, executes the program anew and passes its sockets on, as systemd would. Three
//! descriptors more have names that are reserved for this: a channel by which the two speak, where standard error really goes, and the
//! pid file, whose lock is the open file's. What the *successor* has to know before it listens is in the channel when it begins:
//! see [`Hello`]. It greets at once. The rest is the Daemon's.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

mod hello;
mod program;

pub(crate) use hello::{Hello, Passed};
pub(crate) use program::start;

/// What this process has of its predecessor.
#[derive(Debug)]
pub(crate) struct Predecessor {
    pub(crate) pid: u32,
    /// The two speak by it. Does not block.
    pub(crate) channel: OwnedFd,
    /// Where standard error goes when this process serves. Until then the predecessor reads it.
    pub(crate) stderr: Option<OwnedFd>,
    pub(crate) pid_file: Option<OwnedFd>,
}

/// Tells whether a descriptor that was passed by this name is meant for here.
pub(crate) fn is_reserved(name: &str) -> bool {
    [CHANNEL, STDERR, PID_FILE].contains(&name)
}

/// Takes over what was passed by reserved names, and greets. Returns what the predecessor says of the sockets.
///
/// # Errors
///
/// Why the two can't understand each other.
pub(crate) fn meet(passed: Vec<(String, OwnedFd)>) -> Result<Hello, String> {
    let (mut channel, mut stderr, mut pid_file) = (None, None, None);
    for (name, fd) in passed {
        match name.as_str() {
            CHANNEL => channel = Some(fd),
            STDERR => stderr = Some(fd),
            _ => pid_file = Some(fd),
        }
    }
    // Without it they are nobody's.
    let Some(channel) = channel else { return Ok(Hello::default()) };
    let mut channel = UnixStream::from(channel);
    let said = read_hello(&mut channel).map_err(|error| format!("{CHANNEL}: {error}"))?;
    let hello = Hello::parse(&said)?;
    let greeting = format!("greeting {VERSION} {}\n", std::process::id());
    channel.write_all(greeting.as_bytes()).map_err(|error| format!("{CHANNEL}: {error}"))?;
    log::debug!(target: "lenore::daemon", "this process is to take over from process {}", hello.pid);
    // Until it has.
    leave_paths(true);
    let predecessor = Predecessor { pid: hello.pid, channel: channel.into(), stderr, pid_file };
    *PREDECESSOR.lock().unwrap_or_else(PoisonError::into_inner) = Some(predecessor);
    Ok(hello)
}

/// Reads up to the line that ends it. All of it was written before this process began.
fn read_hello(channel: &mut UnixStream) -> std::io::Result<String> {
    channel.set_nonblocking(true)?;
    let mut said = Vec::new();
    let mut octet = [0];
    // One by one: what comes behind it is for another reader.
    while !said.ends_with(hello::END.as_bytes()) {
        match channel.read(&mut octet) {
            Ok(1) if said.len() < LONGEST_HELLO => said.push(octet[0]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(ErrorKind::InvalidData.into()),
        }
    }
    String::from_utf8(said).map_err(|_| ErrorKind::InvalidData.into())
}

/// Returns the predecessor, to the first who asks.
pub(crate) fn take_predecessor() -> Option<Predecessor> {
    PREDECESSOR.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Says whether the paths that this process has made are another's now: its successor's, or still its predecessor's.
pub(crate) fn leave_paths(are_anothers: bool) {
    PATHS_ARE_ANOTHERS.store(are_anothers, Ordering::Relaxed);
}

/// Tells whether this process removes the paths that it has made.
pub(crate) fn owns_paths() -> bool {
    !PATHS_ARE_ANOTHERS.load(Ordering::Relaxed)
}

static PREDECESSOR: Mutex<Option<Predecessor>> = Mutex::new(None);
static PATHS_ARE_ANOTHERS: AtomicBool = AtomicBool::new(false);

/// The names that the descriptors are passed by.
pub(crate) const CHANNEL: &str = "lenore-handover";
pub(crate) const STDERR: &str = "lenore-stderr";
pub(crate) const PID_FILE: &str = "lenore-pid-file";

/// The version of what the two say. Within one version, lines and words are only ever added.
pub(crate) const VERSION: u32 = 1;

/// Longer than the lines of a thousand sockets.
const LONGEST_HELLO: usize = 128 * 1024;

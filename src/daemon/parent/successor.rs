//! The successor as its predecessor has it: a process that executes the program anew, with the sockets of this one.

use std::cell::Cell;
use std::convert::Infallible;
use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::unistd::{chdir, dup2_stderr};

use crate::args::IntoArgs;
use crate::daemon::machine::Attempt;
use crate::daemon::parent::channel::Channel;
use crate::daemon::parent::scout::{Words, pipe};
use crate::environment;
use crate::error::Error;
use crate::handover::{self, Hello, Passed};
use crate::kernel::{Errand, Handle, Kernel, KnownAs, SessionId};
use crate::sys::descriptors::copy_above;
use crate::sys::exec::{FIRST, become_program};
use crate::sys::fork::exit_now;

/// What a parent has of its successor.
pub(super) struct Successor {
    pub(super) attempt: Attempt,
    /// Its process, once it is there.
    pub(super) pid: Rc<Cell<Option<i32>>>,
    /// It is not forked if this says so.
    is_wanted: Rc<Cell<bool>>,
    pub(super) channel: Channel,
    /// Its standard error until it serves.
    pub(super) words: Words,
    /// It is one of ours, and speaks our version.
    pub(super) has_greeted: bool,
    /// It was told to end.
    pub(super) is_ending: bool,
    /// It has heard that.
    pub(super) says_it_ends: bool,
    /// It is killed then.
    pub(super) ends_by: Option<Instant>,
    /// When it was forked.
    pub(super) forked_at: Rc<Cell<Option<Instant>>>,
}

/// What a successor is given.
pub(super) struct Estate {
    pub(super) program: PathBuf,
    pub(super) directory: PathBuf,
    pub(super) arguments: Vec<OsString>,
    pub(super) listeners: Vec<(OwnedFd, KnownAs)>,
    /// The open file that has the lock.
    pub(super) pid_file: Option<OwnedFd>,
}

/// Makes what is needed for a successor. The errand is to be forked for.
pub(super) fn successor(
    session: SessionId,
    attempt: Attempt,
    estate: Estate,
) -> io::Result<(Successor, Box<dyn Errand>)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let (words, stderr) = pipe()?;
    let (pid, is_wanted) = (Rc::new(Cell::new(None)), Rc::new(Cell::new(true)));
    let forked_at = Rc::new(Cell::new(None));
    let mut hello = Hello { pid: std::process::id(), ..Hello::default() };
    let mut passed: Vec<(String, OwnedFd)> = Vec::new();
    for (number, (fd, known_as)) in estate.listeners.into_iter().enumerate() {
        let KnownAs { name, asked, owns_path, .. } = known_as;
        hello.sockets.insert(FIRST + number as RawFd, Passed { asked, owns_path });
        passed.push((name.filter(|name| is_name(name)).unwrap_or_else(|| UNNAMED.to_owned()), fd));
    }
    // Before it is there: it reads this first.
    let mut said = ours.try_clone()?;
    said.write_all(hello.text().as_bytes())?;
    passed.push((handover::STDERR.to_owned(), io::stderr().as_fd().try_clone_to_owned()?));
    passed.extend(estate.pid_file.map(|file| (handover::PID_FILE.to_owned(), file)));
    passed.push((handover::CHANNEL.to_owned(), theirs.into()));
    let errand = SuccessorChild {
        session,
        attempt,
        program: estate.program,
        directory: estate.directory,
        arguments: estate.arguments,
        passed,
        stderr,
        pid: Rc::clone(&pid),
        is_wanted: Rc::clone(&is_wanted),
        forked_at: Rc::clone(&forked_at),
    };
    let successor = Successor {
        attempt,
        pid,
        is_wanted,
        channel: Channel::new(Handle::new(OwnedFd::from(ours))),
        words: Words::new(words, None),
        has_greeted: false,
        is_ending: false,
        says_it_ends: false,
        ends_by: None,
        forked_at,
    };
    Ok((successor, Box::new(errand)))
}

impl Successor {
    /// It is not waited for any more. Returns its process, if there is one by now.
    pub(super) fn give_up(&mut self) -> Option<i32> {
        self.is_wanted.set(false);
        self.is_ending = true;
        self.pid.get()
    }
}

/// Tells whether a name can be one among others.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains([':', '\n']) && !handover::is_reserved(name)
}

/// What the fork needs to know.
struct SuccessorChild {
    session: SessionId,
    attempt: Attempt,
    program: PathBuf,
    directory: PathBuf,
    arguments: Vec<OsString>,
    passed: Vec<(String, OwnedFd)>,
    stderr: OwnedFd,
    pid: Rc<Cell<Option<i32>>>,
    is_wanted: Rc<Cell<bool>>,
    forked_at: Rc<Cell<Option<Instant>>>,
}

impl Errand for SuccessorChild {
    fn is_wanted(&self) -> bool {
        self.is_wanted.get()
    }

    fn in_parent(self: Box<Self>, kernel: &mut Kernel, pid: Result<i32, Error>) {
        let SuccessorChild { session, attempt, pid: noted, forked_at, .. } = *self;
        match pid {
            Ok(pid) => {
                noted.set(Some(pid));
                forked_at.set(Some(Instant::now()));
                kernel.core.sig_child_for(session, pid, "successor_ended".into(), (attempt,).into_args());
            }
            Err(error) => {
                let args = (attempt, error.to_string()).into_args();
                kernel.dispatch_from_source(session, "successor_failed".into(), None, args);
            }
        }
    }

    fn in_child(self: Box<Self>, kernel: &mut Kernel) -> ! {
        let _ = SigSet::all().thread_set_mask();
        kernel.core.signals.delivery.end();
        let program = self.program.clone();
        // Its parent is told by the channel, which the program has otherwise. Not by a number that the program's descriptors will have.
        let end = FIRST + self.passed.len() as RawFd;
        let (channel, failure) = match self.passed.last().map(|(_, channel)| copy_above(channel, end)) {
            Some(Err(error)) => {
                let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
                // The channel still has its own number, as nothing was copied.
                (self.passed.into_iter().next_back().map(|(_, channel)| channel), format!("fcntl: {}", errno.desc()))
            }
            copied => match self.become_successor() {
                Ok(never) => match never {},
                Err(failure) => (copied.and_then(Result::ok), failure),
            },
        };
        if let Some(channel) = channel {
            let told = format!("cannot {}: {failure}\n", program.display());
            let _ = UnixStream::from(channel).write_all(told.as_bytes());
        }
        exit_now(EXIT_NOT_EXECUTED)
    }
}

impl SuccessorChild {
    fn become_successor(self) -> Result<Infallible, String> {
        let SuccessorChild { program, directory, arguments, passed, stderr, .. } = self;
        let (names, descriptors): (Vec<String>, Vec<OwnedFd>) = passed.into_iter().unzip();
        let environment = environment(&names)?;
        chdir(&directory).map_err(|errno| format!("chdir {}: {}", directory.display(), errno.desc()))?;
        dup2_stderr(&stderr).map_err(|errno| format!("dup2: {}", errno.desc()))?;
        let program = c_string(program.as_os_str())?;
        let arguments = arguments.iter().map(|argument| c_string(argument)).collect::<Result<Vec<_>, _>>()?;
        become_program(&program, &arguments, &environment, descriptors)
            .map_err(|(call, errno)| format!("{call}: {}", errno.desc()))
    }
}

/// Returns this program's environment, with what was taken out of it at the start and with what describes the descriptors.
fn environment(names: &[String]) -> Result<Vec<CString>, String> {
    let pid = std::process::id().to_string();
    let (count, names) = (names.len().to_string(), names.join(":"));
    let mut variables: Vec<(OsString, OsString)> = env::vars_os().collect();
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
        let value = environment::taken().get(name);
        // That process is another now.
        let value = value.map(|value| if name == "WATCHDOG_PID" { OsStr::new(&pid) } else { value });
        variables.extend(value.map(|value| (name.into(), value.to_owned())));
    }
    for (name, value) in [("LISTEN_PID", &pid), ("LISTEN_FDS", &count), ("LISTEN_FDNAMES", &names)] {
        variables.push((name.into(), value.into()));
    }
    let line =
        |(name, value): (OsString, OsString)| c_string(&[name.as_os_str(), value.as_os_str()].join(OsStr::new("=")));
    variables.into_iter().map(line).collect()
}

fn c_string(text: &OsStr) -> Result<CString, String> {
    CString::new(text.as_bytes()).map_err(|_| format!("{}: a zero byte", text.to_string_lossy()))
}

/// The name of a socket that has none.
const UNNAMED: &str = "lenore";

/// The exit code of a process that could not execute the program.
const EXIT_NOT_EXECUTED: i32 = 72;

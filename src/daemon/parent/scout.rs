//! The scout: a process that loads a configuration, so that whatever this does happens to nobody else.
//!
//! It has nothing of its parent's but memory. Each descriptor but its standard streams refers to `/dev/null`, so that it can't ring
//! the doorbell, nor hold the pid file's lock or a listener. Where the system can do that, it is killed when its parent ends, and is
//! the first to go when memory runs out.

use std::any::Any;
use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::SigSet;
use nix::unistd::dup2_stderr;

use crate::args::IntoArgs;
use crate::daemon::config::{NotLoaded, Source};
use crate::daemon::machine::{Edition, Rejection};
use crate::error::Error;
use crate::kernel::{Errand, Handle, Kernel, SessionId};
use crate::sys::child::Setup;
use crate::sys::descriptors::let_go_of_all;
use crate::sys::fork::exit_now;
use crate::sys::parent_death;

/// What the parent has of its scout.
pub(super) struct Scout {
    pub(super) edition: Edition,
    /// Its process, once it is there.
    pub(super) pid: Rc<Cell<Option<i32>>>,
    /// It is not forked if this says so.
    is_wanted: Rc<Cell<bool>>,
    /// What has become of loading the configuration.
    answer: Handle,
    /// Its standard error.
    pub(super) words: Words,
}

/// What a process writes to its standard error: copied to this process's, and the end of it kept.
pub(super) struct Words {
    pub(super) end: Handle,
    tail: Tail,
    /// Nothing more will come.
    pub(super) is_over: bool,
    /// When this is closed the process has its own standard error again.
    pub(super) notice: Option<OwnedFd>,
}

/// The last bytes.
#[derive(Default)]
pub(super) struct Tail(VecDeque<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
        let surplus = self.0.len().saturating_sub(LONGEST_TAIL);
        self.0.drain(..surplus);
    }

    /// Returns them as text, from the beginning of a line on if some are missing.
    fn text(&self) -> String {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let text = match text.split_once('\n') {
            Some((_, rest)) if self.0.len() == LONGEST_TAIL => rest,
            _ => &text,
        };
        text.trim_end().to_owned()
    }
}

impl Words {
    pub(super) fn new(end: Handle, notice: Option<OwnedFd>) -> Words {
        Words { end, tail: Tail::default(), is_over: false, notice }
    }

    /// Takes what there is. Returns whether more may come.
    pub(super) fn take(&mut self) -> bool {
        self.is_over |= !self.take_some();
        !self.is_over
    }

    fn take_some(&mut self) -> bool {
        let mut buffer = [0; 4096];
        // One that writes without end must not keep the parent.
        for _ in 0..16 {
            match self.end.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => {
                    self.tail.push(&buffer[..count]);
                    // Nobody may read it.
                    let _ = io::stderr().write_all(&buffer[..count]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        true
    }

    pub(super) fn text(&self) -> String {
        self.tail.text()
    }
}

/// Makes a pipe. What is read from the first end never waits.
pub(super) fn pipe() -> io::Result<(Handle, OwnedFd)> {
    let (ours, theirs) = io::pipe()?;
    let ours = OwnedFd::from(ours);
    fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((Handle::new(ours), theirs.into()))
}

/// Makes a scout. The errand is to be forked for. With `bound`, the addresses that are listened on, it finds out as well whether others
/// could be bound: nobody else does that for a check.
pub(super) fn scout(
    session: SessionId,
    edition: Edition,
    source: Rc<Source>,
    bytes: Rc<[u8]>,
    bound: Option<Rc<[SocketAddr]>>,
) -> io::Result<(Scout, Box<dyn Errand>)> {
    let (answer, answers) = pipe()?;
    let (words, stderr) = pipe()?;
    let (pid, is_wanted) = (Rc::new(Cell::new(None)), Rc::new(Cell::new(true)));
    let errand = ScoutChild {
        session,
        edition,
        source,
        bytes,
        bound,
        answers,
        stderr,
        pid: Rc::clone(&pid),
        is_wanted: Rc::clone(&is_wanted),
        parent: std::process::id().cast_signed(),
    };
    Ok((Scout { edition, pid, is_wanted, answer, words: Words::new(words, None) }, Box::new(errand)))
}

impl Scout {
    /// It is not waited for any more. Returns its process, if there is one by now.
    pub(super) fn give_up(&self) -> Option<i32> {
        self.is_wanted.set(false);
        self.pid.get()
    }

    /// Reads its answer, when it has ended. `None` if there is none.
    pub(super) fn answer(&mut self) -> Option<Result<(), (Rejection, String)>> {
        let mut text = Vec::new();
        // All that was written before its end is there.
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = self.answer.read(&mut buffer) {
            text.extend_from_slice(&buffer[..count]);
        }
        let (kind, text) = text.split_first()?;
        let text = String::from_utf8_lossy(text).into_owned();
        Some(match *kind {
            LOADED => Ok(()),
            SETTINGS => Err((Rejection::Settings, text)),
            NOT_BOUND => Err((Rejection::NotBound, text)),
            NEEDS_RESTART => Err((Rejection::NeedsRestart, text)),
            _ => Err((Rejection::NotLoaded, text)),
        })
    }
}

/// Says why a configuration was not loaded.
pub(super) fn explain(why: NotLoaded) -> (Rejection, String) {
    match why {
        NotLoaded::Load(text) => (Rejection::NotLoaded, text),
        NotLoaded::Settings(error) => (Rejection::Settings, error.to_string()),
        NotLoaded::NeedsRestart(names) => (Rejection::NeedsRestart, names.join(", ")),
    }
}

/// Says what a panic was about, if it had a text.
pub(super) fn text_of_panic(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.map_or_else(|| "panicked".to_owned(), |text| format!("panicked: {text}"))
}

/// What the fork needs to know.
struct ScoutChild {
    session: SessionId,
    edition: Edition,
    source: Rc<Source>,
    bytes: Rc<[u8]>,
    /// In a check: the addresses that need not be bound.
    bound: Option<Rc<[SocketAddr]>>,
    answers: OwnedFd,
    stderr: OwnedFd,
    pid: Rc<Cell<Option<i32>>>,
    is_wanted: Rc<Cell<bool>>,
    parent: i32,
}

impl Errand for ScoutChild {
    fn is_wanted(&self) -> bool {
        self.is_wanted.get()
    }

    fn in_parent(self: Box<Self>, kernel: &mut Kernel, pid: Result<i32, Error>) {
        let ScoutChild { session, edition, pid: noted, .. } = *self;
        match pid {
            Ok(pid) => {
                noted.set(Some(pid));
                kernel.core.sig_child_for(session, pid, "scout_ended".into(), (edition,).into_args());
            }
            Err(error) => {
                let args = (edition, error.to_string()).into_args();
                kernel.dispatch_from_source(session, "scout_failed".into(), None, args);
            }
        }
    }

    fn in_child(self: Box<Self>, kernel: &mut Kernel) -> ! {
        let ScoutChild { source, bytes, bound, answers, stderr, parent, .. } = *self;
        kernel.core.remove_all_sources();
        let _ = SigSet::all().thread_set_mask();
        kernel.core.signals.delivery.end();
        let ready = parent_death::end_with(parent)
            .and_then(|()| dup2_stderr(&stderr))
            .and_then(|()| let_go(&[answers.as_fd().as_raw_fd()]))
            .and_then(|()| Setup::default().apply().map_err(|(_, errno)| errno));
        // Only the system needs to know, and it may not let us.
        let _ = fs::write("/proc/self/oom_score_adj", "1000");
        if ready.is_err() {
            exit_now(EXIT_NOT_READY);
        }
        let answer = match catch_unwind(AssertUnwindSafe(|| source.load(&bytes))) {
            Ok(Ok(loaded)) => match bound.map_or(Ok(()), |bound| loaded.try_to_bind(&bound)) {
                Ok(()) => vec![LOADED],
                Err(error) => tagged(NOT_BOUND, &error.to_string()),
            },
            Ok(Err(why)) => match explain(why) {
                (Rejection::Settings, text) => tagged(SETTINGS, &text),
                (Rejection::NeedsRestart, text) => tagged(NEEDS_RESTART, &text),
                (_, text) => tagged(FAILED, &text),
            },
            Err(panic) => tagged(FAILED, &text_of_panic(&*panic)),
        };
        let _ = io::stdout().flush();
        log::logger().flush();
        let _ = File::from(answers).write_all(&answer);
        exit_now(0)
    }
}

fn tagged(kind: u8, text: &str) -> Vec<u8> {
    let mut answer = vec![kind];
    answer.extend_from_slice(&text.as_bytes()[..text.len().min(LONGEST_TAIL)]);
    answer
}

fn let_go(kept: &[i32]) -> nix::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
    let_go_of_all(&null, |fd| kept.contains(&fd))
}

const LOADED: u8 = b'+';
const FAILED: u8 = b'-';
const SETTINGS: u8 = b's';
const NEEDS_RESTART: u8 = b'r';
const NOT_BOUND: u8 = b'b';

/// The exit code of a scout that could not let go of what is its parent's.
const EXIT_NOT_READY: i32 = 72;

/// How many of the last bytes are kept.
const LONGEST_TAIL: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // O-RL-07
    fn tail_is_the_end_of_what_was_written() {
        let mut tail = Tail::default();
        tail.push(b"short\n");
        assert_eq!(tail.text(), "short");
        for number in 0..2000 {
            tail.push(format!("line {number}\n").as_bytes());
        }
        let text = tail.text();
        assert!(text.len() <= LONGEST_TAIL && text.starts_with("line ") && text.ends_with("line 1999"), "{text}");
    }
}

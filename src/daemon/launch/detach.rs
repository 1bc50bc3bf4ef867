//! Detaching: one process goes on without a terminal, the one that somebody started waits until that is ready.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::unistd::dup2_stdin;

use super::log_file::{Redirection, redirect_to};
use super::pid_file::PidFile;
use crate::daemon::error::DaemonError;
use crate::error::Error;
use crate::kernel::{Detached, Handle, Kernel, Maker, exit_launcher};
use crate::sys::descriptors::let_go_of_inherited;
use crate::sys::disposition;

/// The daemon's end of its connection to the launcher, while that waits.
///
/// What is said last is how the start went: it is ready, or why it failed. When it goes away unsaid, by the process's
/// death at the latest, the launcher reads an end of file. And so does the daemon when the launcher is interrupted.
///
/// A launcher that hears that the daemon is ready blocks its signals, acknowledges, and exits with 0. Without the
/// acknowledgement a signal that ends it in its last moment would leave a daemon behind that nobody wants.
#[derive(Debug)]
pub(crate) struct Launch {
    end: Handle,
    /// A forked child has nothing to say.
    owner: Option<Maker>,
}

impl Launch {
    /// The end that becomes readable when the launcher has acknowledged, or is gone.
    pub(crate) fn end(&self) -> &Handle {
        &self.end
    }

    /// Lets the launcher end well, which it will [acknowledge](Launch::is_acknowledged); an error means that it is gone.
    pub(crate) fn ready(&mut self) -> io::Result<()> {
        self.owner = None;
        self.say("+", "")
    }

    /// Reads what has made the end readable: whether the launcher has acknowledged, or is gone.
    pub(crate) fn is_acknowledged(&self) -> bool {
        let mut answer = [0];
        matches!(self.end.clone().read(&mut answer), Ok(1))
    }

    /// Has the launcher say why it still waits.
    pub(crate) fn not_yet(&self, reason: &str) {
        let _ = self.say("!", reason);
    }

    /// Lets the launcher fail with a reason.
    pub(crate) fn failed(mut self, reason: &str) {
        self.owner = None;
        // A launcher that is gone has nobody to tell.
        let _ = self.say("-", reason);
    }

    fn say(&self, kind: &str, text: &str) -> io::Result<()> {
        let text = text.replace('\0', " ");
        self.end.clone().write_all(format!("{kind}{text}\0").as_bytes())
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        if self.owner.is_some_and(Maker::is_here) {
            let _ = self.say("-", "it ended before it was ready");
        }
    }
}

/// Moves the program into a process of its own. Returns in that one only.
///
/// `redirected` is undone in the launcher, which may have to print an error. It stays in the daemon, which has no terminal to go
/// back to.
pub(crate) fn detach(
    kernel: &mut Kernel,
    redirected: Option<Redirection>,
    pid_file: Option<&PidFile>,
    leave: Leave<'_>,
    alias: &str,
) -> Result<Launch, DaemonError> {
    let fail = |source| DaemonError::Process { doing: "detaching", source };
    let (launchers, daemons) =
        UnixStream::pair().map_err(|error| fail(Error::os("socketpair", "for the launcher", error)))?;
    let was_subreaper = adopt_orphans(true);
    match kernel.detach_process() {
        Err(error) => {
            adopt_orphans(was_subreaper);
            Err(fail(error))
        }
        Ok(Detached::Launcher) => {
            drop(daemons);
            drop(redirected);
            let outcome = wait(launchers, alias);
            let status = outcome.map_or_else(
                |reason| {
                    // What was killed could not. The lock is shared, so this is still our file or nobody's.
                    pid_file.inspect(|file| file.remove());
                    let _ = writeln!(io::stderr(), "{alias} has not started: {reason}");
                    1
                },
                |()| 0,
            );
            exit_launcher(status)
        }
        Ok(Detached::Daemon(moved)) => {
            drop(launchers);
            let launch = Launch { end: Handle::new(daemons), owner: Some(Maker::this_process()) };
            redirected.into_iter().for_each(Redirection::keep);
            let settled = launch
                .say("=", &std::process::id().to_string())
                .map_err(|error| Error::os("write", "to the launcher", error))
                .and(moved)
                .and_then(|()| {
                    let is_kept = |fd| leave.keep_descriptors.contains(&fd) || kernel.core.sources.has_fd(fd);
                    leave_behind(leave.has_log, is_kept)
                });
            match settled {
                Ok(()) => {
                    // Not before: it would have gone to the terminal.
                    log::debug!(target: "lenore::daemon", "the program goes on in process {}", std::process::id());
                    Ok(launch)
                }
                Err(error) => {
                    let error = fail(error);
                    launch.failed(&error.to_string());
                    Err(error)
                }
            }
        }
    }
}

/// What of its launcher a daemon does not leave behind.
#[derive(Clone, Copy)]
pub(crate) struct Leave<'a> {
    /// Standard output and standard error are where they should be.
    pub(crate) has_log: bool,
    pub(crate) keep_descriptors: &'a [RawFd],
}

/// Standard input is of no use without a terminal, nor are the other two unless they go to a file. And whatever else the
/// launcher had open would be held for as long as the daemon lives.
fn leave_behind(has_log: bool, is_kept: impl Fn(RawFd) -> bool) -> Result<(), Error> {
    let fail = |error: io::Error| Error::os("open", "/dev/null", error);
    let null = OpenOptions::new().read(true).write(true).open("/dev/null").map_err(fail)?;
    dup2_stdin(&null).map_err(|errno| fail(errno.into()))?;
    if !has_log {
        redirect_to(&null).map_err(|errno| fail(errno.into()))?;
    }
    let_go_of_inherited(&null, is_kept)
        .map_err(|errno| Error::os("dup2", "/dev/null, for an inherited descriptor", errno))
}

/// In the launcher: waits for the daemon to say how its start went; otherwise finds out. What keeps it waiting goes to
/// standard error: whoever has started it may lose patience.
fn wait(socket: UnixStream, alias: &str) -> Result<(), String> {
    let mut messages = BufReader::new(&socket).split(0);
    let mut pid = None;
    // Who it is, perhaps what it waits for, and how it went. The daemon's end bounds it.
    while let Some(Ok(message)) = messages.next() {
        let message = String::from_utf8_lossy(&message).into_owned();
        match message.split_at_checked(1) {
            Some(("+", _)) => {
                return acknowledge(&socket).map_err(|_| how_it_died("it died as soon as it was ready", pid));
            }
            Some(("=", number)) => pid = number.parse().ok(),
            Some(("!", reason)) => _ = writeln!(io::stderr(), "{alias} has not started yet: {reason}"),
            Some((_, reason)) => return Err(reason.to_owned()),
            None => {}
        }
    }
    Err(how_it_died("it died before it was ready", pid))
}

/// Has the daemon stay. On success signals are blocked: none but KILL ends the launcher between the acknowledgement and its
/// exit.
fn acknowledge(mut socket: &UnixStream) -> io::Result<()> {
    // A daemon that is gone is an error of the write.
    disposition::ignore(Signal::SIGPIPE)?;
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    socket.write_all(b"+").inspect_err(|_| _ = mask.thread_set_mask())
}

/// Has the system make this process the parent of a daemon whose parent ends, so that it can ask what became of it.
/// Returns what it was set to.
#[cfg(target_os = "linux")]
fn adopt_orphans(adopt: bool) -> bool {
    use nix::sys::prctl::{get_child_subreaper, set_child_subreaper};
    let before = get_child_subreaper().unwrap_or(false);
    // At worst the reason is not known.
    let _ = set_child_subreaper(adopt);
    before
}

#[cfg(not(target_os = "linux"))]
fn adopt_orphans(_adopt: bool) -> bool {
    false
}

/// Describes the end of a daemon that has said nothing, and so was killed.
fn how_it_died(died: &str, pid: Option<i32>) -> String {
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::Pid;
    // Not elsewhere: there it is no child of this process.
    match pid.filter(|_| cfg!(target_os = "linux")).map(|pid| waitpid(Pid::from_raw(pid), None)) {
        Some(Ok(WaitStatus::Exited(_, code))) => format!("{died}, with exit status {code}"),
        Some(Ok(WaitStatus::Signaled(_, signal, _))) => format!("{died}, of {signal}"),
        _ => died.to_owned(),
    }
}

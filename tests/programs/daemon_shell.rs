//! A terminal and a shell on it that runs one job: `daemon_shell [--background] [--tostop] [--nohup] PROGRAM ARGS`.
//!
//! The job's standard input and error are the terminal, its standard output is this program's. What comes out at the
//! terminal goes to standard error here. The shell tells of its job on standard output:
//!
//! ```text
//! shell 4711 job 4712
//! job stopped by SIGTTOU
//! job continued
//! job exited with 0
//! ```
//!
//! TERM closes the terminal, USR1 types an empty line. USR1, sent to the shell, brings its job to the foreground and
//! continues it, as `fg` does.

use std::error::Error;
use std::ffi::{CStr, CString};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, killpg, sigaction};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, execv, fork, getpid, getppid, setpgid, setsid};

type Outcome<T> = Result<T, Box<dyn Error>>;

struct Job {
    words: Vec<CString>,
    is_background: bool,
    tostop: bool,
    nohup: bool,
}

fn main() -> Outcome<()> {
    let mut job = Job { words: Vec::new(), is_background: false, tostop: false, nohup: false };
    for word in std::env::args().skip(1) {
        match word.as_str() {
            "--background" if job.words.is_empty() => job.is_background = true,
            "--tostop" if job.words.is_empty() => job.tostop = true,
            "--nohup" if job.words.is_empty() => job.nohup = true,
            _ => job.words.push(CString::new(word)?),
        }
    }
    let master: File =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK).open("/dev/ptmx")?;
    let slave = slave_of(&master)?;
    let action = SigAction::new(SigHandler::Handler(close), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler stores to an atomic and does nothing else.
    unsafe { sigaction(Signal::SIGTERM, &action) }?;
    let action = SigAction::new(SigHandler::Handler(type_line), SaFlags::empty(), SigSet::empty());
    // SAFETY: as above.
    unsafe { sigaction(Signal::SIGUSR1, &action) }?;
    // SAFETY: this program has a single thread.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(master);
            shell(&job, &slave)
        }
        ForkResult::Parent { child } => terminal(master, child),
    }
}

/// Makes the other end of a terminal usable, and returns its name.
fn slave_of(master: &File) -> Outcome<String> {
    let fd = master.as_raw_fd();
    // SAFETY: both take the number of an open descriptor and touch no memory of ours.
    if unsafe { libc::grantpt(fd) < 0 || libc::unlockpt(fd) < 0 } {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: nothing else in this program calls ptsname, whose one buffer is read before the next call.
    let name = unsafe { libc::ptsname(fd).as_ref().map(|name| CStr::from_ptr(name)) };
    Ok(name.ok_or_else(io::Error::last_os_error)?.to_str()?.to_owned())
}

/// The terminal's own side: shows what comes out of it, until TERM closes it, and then waits for the shell.
fn terminal(master: File, shell: Pid) -> Outcome<()> {
    let mut chunk = [0; 4096];
    let mut is_open = true;
    while is_open && !IS_CLOSED.load(Ordering::Relaxed) {
        if IS_TYPED.swap(false, Ordering::Relaxed) {
            (&master).write_all(b"\n")?;
        }
        // The end of the wait is for a signal between the looks at the flags and the wait.
        let mut fds = [PollFd::new(master.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(50_u8)) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        match (&master).read(&mut chunk) {
            Ok(count) => io::stderr().write_all(&chunk[..count])?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Nobody has it open any more.
            Err(_) => is_open = false,
        }
    }
    drop(master);
    waitpid(shell, None)?;
    Ok(())
}

extern "C" fn close(_: libc::c_int) {
    IS_CLOSED.store(true, Ordering::Relaxed);
}

extern "C" fn type_line(_: libc::c_int) {
    IS_TYPED.store(true, Ordering::Relaxed);
}

static IS_CLOSED: AtomicBool = AtomicBool::new(false);
static IS_TYPED: AtomicBool = AtomicBool::new(false);

/// Leads a session on the terminal, and does for its job what an interactive shell does.
fn shell(job: &Job, slave: &str) -> Outcome<()> {
    setsid()?;
    // A leader without a terminal gets the first that it opens.
    let terminal = OpenOptions::new().read(true).write(true).open(slave)?;
    // TTOU among them: with it blocked, a shell in the background may still say which job is in the foreground.
    let mask = SigSet::all();
    mask.thread_set_mask()?;
    if job.tostop {
        stop_background_output(&terminal)?;
    }
    // SAFETY: this program has a single thread.
    let pid = match unsafe { fork() }? {
        ForkResult::Child => run(job, &terminal),
        ForkResult::Parent { child } => child,
    };
    // In both processes: whichever is first. The job may have been executed by now.
    let _ = setpgid(pid, pid);
    if !job.is_background {
        to_foreground(&terminal, pid)?;
    }
    loop {
        match mask.wait()? {
            Signal::SIGCHLD if tell(pid)? => return Ok(()),
            Signal::SIGUSR1 => {
                to_foreground(&terminal, pid)?;
                killpg(pid, Signal::SIGCONT)?;
            }
            // As bash does before it ends.
            Signal::SIGHUP => {
                killpg(pid, Signal::SIGHUP)?;
                killpg(pid, Signal::SIGCONT)?;
            }
            _ => {}
        }
    }
}

/// `stty tostop`.
fn stop_background_output(terminal: &File) -> Outcome<()> {
    let fd = terminal.as_raw_fd();
    // SAFETY: a structure of numbers; all zeros are valid.
    let mut settings: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: writes to `settings`, and to nothing else.
    Errno::result(unsafe { libc::tcgetattr(fd, &mut settings) })?;
    settings.c_lflag |= libc::TOSTOP;
    // SAFETY: reads `settings`.
    Errno::result(unsafe { libc::tcsetattr(fd, libc::TCSANOW, &settings) })?;
    Ok(())
}

fn to_foreground(terminal: &File, job: Pid) -> Outcome<()> {
    // SAFETY: takes numbers only.
    Errno::result(unsafe { libc::tcsetpgrp(terminal.as_raw_fd(), job.as_raw()) })?;
    Ok(())
}

/// In the job's process: becomes the program.
fn run(job: &Job, terminal: &File) -> ! {
    let execute = || -> Outcome<()> {
        let me = getpid();
        setpgid(me, me)?;
        if !job.is_background {
            to_foreground(terminal, me)?;
        }
        dup2_stdin(terminal)?;
        dup2_stderr(terminal)?;
        // The tests themselves may run under nohup.
        let handler = if job.nohup { SigHandler::SigIgn } else { SigHandler::SigDfl };
        let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
        // SAFETY: neither runs code of this process.
        unsafe { sigaction(Signal::SIGHUP, &action) }?;
        SigSet::empty().thread_set_mask()?;
        // Said here, and not by the shell: the job's own lines come behind this one.
        println!("shell {} job {me}", getppid());
        execv(
            job.words.first().ok_or("usage: daemon_shell [--background] [--tostop] [--nohup] PROGRAM ARGS")?,
            &job.words,
        )?;
        Ok(())
    };
    if let Err(error) = execute() {
        eprintln!("{error}");
    }
    std::process::exit(127)
}

/// Says what has become of the job, and whether that was its end.
fn tell(job: Pid) -> Outcome<bool> {
    let flags = WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED | WaitPidFlag::WCONTINUED;
    loop {
        match waitpid(job, Some(flags))? {
            WaitStatus::Stopped(_, signal) => println!("job stopped by {signal}"),
            WaitStatus::Continued(_) => println!("job continued"),
            WaitStatus::Exited(_, code) => {
                println!("job exited with {code}");
                return Ok(true);
            }
            WaitStatus::Signaled(_, signal, _) => {
                println!("job killed by {signal}");
                return Ok(true);
            }
            _ => return Ok(false),
        }
    }
}

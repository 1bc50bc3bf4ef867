//! Runs a program as a careless launcher does: `daemon_launch PROGRAM ARGS`, with SIGCHLD ignored and all signals blocked.
//! `daemon_launch --socket PROGRAM ARGS` runs it as systemd does, with a socket for standard output and error. What comes out
//! of the socket goes to standard error.

use std::error::Error;
use std::ffi::CString;
use std::io;
use std::os::unix::net::UnixStream;

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::unistd::{ForkResult, dup2_stderr, dup2_stdout, execv, fork};

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1).map(CString::new).collect::<Result<Vec<_>, _>>()?;
    if words.first().is_some_and(|word| word.as_bytes() == b"--socket") {
        words.remove(0);
        return run_on_socket(&words);
    }
    let program = words.first().ok_or("usage: daemon_launch [--socket] PROGRAM ARGS")?;
    SigSet::all().thread_block()?;
    // SAFETY: SIG_IGN runs no code of this process.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }?;
    // Not std's exec, which would unblock the signals again.
    execv(program, &words)?;
    Ok(())
}

fn run_on_socket(words: &[CString]) -> Result<(), Box<dyn Error>> {
    let (mut ours, theirs) = UnixStream::pair()?;
    // SAFETY: this program has a single thread.
    match unsafe { fork() }? {
        ForkResult::Child => {
            dup2_stdout(&theirs)?;
            dup2_stderr(&theirs)?;
            execv(words.first().ok_or("usage: daemon_launch [--socket] PROGRAM ARGS")?, words)?;
        }
        ForkResult::Parent { .. } => {
            drop(theirs);
            // To the end of the program and of all that came from it.
            io::copy(&mut ours, &mut io::stderr())?;
        }
    }
    Ok(())
}

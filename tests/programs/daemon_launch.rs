//! Runs a program as a careless launcher does: `daemon_launch PROGRAM ARGS`, with SIGCHLD ignored and all signals blocked.

use std::error::Error;
use std::ffi::CString;

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::unistd::execv;

fn main() -> Result<(), Box<dyn Error>> {
    let words = std::env::args().skip(1).map(CString::new).collect::<Result<Vec<_>, _>>()?;
    let program = words.first().ok_or("usage: daemon_launch PROGRAM ARGS")?;
    SigSet::all().thread_block()?;
    // SAFETY: SIG_IGN runs no code of this process.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }?;
    // Not std's exec, which would unblock the signals again.
    execv(program, &words)?;
    Ok(())
}

//! Runs a program on a terminal of its own, as a shell does: `daemon_terminal PROGRAM ARGS`. In `ARGS`, `PTY` stands for
//! the name of another terminal that is nobody's yet, and `PTYFDS` for the descriptors that keep both in being.

use std::error::Error;
use std::ffi::{CStr, CString};
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;
use nix::unistd::{dup2_stdin, execv, setsid};

fn main() -> Result<(), Box<dyn Error>> {
    setsid()?;
    // A leader without a terminal gets the first that it opens.
    let (name, master) = new_terminal()?;
    let terminal = OpenOptions::new().read(true).write(true).open(name)?;
    dup2_stdin(&terminal)?;
    let (free, other_master) = new_terminal()?;
    let word = |word: String| {
        CString::new(match &*word {
            "PTY" => free.clone(),
            "PTYFDS" => format!("{master},{other_master}"),
            _ => word,
        })
    };
    let words = std::env::args().skip(1).map(word).collect::<Result<Vec<_>, _>>()?;
    let program = words.first().ok_or("usage: daemon_terminal PROGRAM ARGS")?;
    execv(program, &words)?;
    Ok(())
}

/// Makes a terminal, whose other end the program inherits, and returns its name and that end.
fn new_terminal() -> Result<(String, RawFd), Box<dyn Error>> {
    let master: File = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open("/dev/ptmx")?;
    let fd = master.as_raw_fd();
    // SAFETY: both take the number of an open descriptor and touch no memory of ours; the flags are numbers too.
    if unsafe { libc::grantpt(fd) < 0 || libc::unlockpt(fd) < 0 || libc::fcntl(fd, libc::F_SETFD, 0) < 0 } {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: nothing else in this program calls ptsname, whose one buffer is read before the next call.
    let name = unsafe { libc::ptsname(fd).as_ref().map(|name| CStr::from_ptr(name)) };
    let name = name.ok_or_else(std::io::Error::last_os_error)?.to_str()?.to_owned();
    Ok((name, master.into_raw_fd()))
}

//! The bare post-forking server that lenore's Daemon is measured against: one accept(2) loop, one fork a connection.
//!
//! ```text
//! fork_echo [--hold]
//! listening on 127.0.0.1:40123
//! ```
//!
//! A child reads one line, writes it back and ends; with `--hold` it echoes line after line until the client closes.
//! SIGCHLD reaps. TERM ends the parent by its default action; a child then ends with its connection.

use std::env;
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

/// What a child does once it has echoed a line.
#[derive(Clone, Copy)]
enum AfterLine {
    Close,
    Hold,
}

fn main() -> Result<(), Box<dyn Error>> {
    let after_line = parse_args()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    // accept(2) restarts by itself after the handler: children come and go unseen by the loop.
    let reap = SigAction::new(
        SigHandler::Handler(reap_children),
        SaFlags::SA_RESTART | SaFlags::SA_NOCLDSTOP,
        SigSet::empty(),
    );
    // SAFETY: the handler does nothing but waitpid(2), which is async-signal-safe, and keeps errno.
    unsafe { sigaction(Signal::SIGCHLD, &reap) }?;
    println!("listening on {}", listener.local_addr()?);

    loop {
        let (stream, _) = listener.accept()?;
        // SAFETY: this process has one thread, so no lock is held by a thread that the child lacks.
        match unsafe { fork() }? {
            ForkResult::Parent { .. } => drop(stream),
            ForkResult::Child => {
                drop(listener);
                let _ = echo_lines(stream, after_line); // a client that breaks off is its own affair
                // SAFETY: _exit takes any status; nothing is buffered, so there is nothing to flush.
                unsafe { libc::_exit(0) }
            }
        }
    }
}

/// Signals coalesce: one SIGCHLD may stand for many children.
extern "C" fn reap_children(_: libc::c_int) {
    let interrupted = Errno::last_raw();
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            break;
        }
    }
    Errno::set_raw(interrupted);
}

/// Reads a line, writes it back, and so on or not.
fn echo_lines(mut stream: TcpStream, after_line: AfterLine) -> io::Result<()> {
    let mut buffer = [0; 4096];
    let mut filled = 0;
    while filled < buffer.len() {
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            break;
        }
        filled += read;
        if buffer[filled - read..filled].contains(&b'\n') {
            stream.write_all(&buffer[..filled])?;
            match after_line {
                AfterLine::Close => break,
                AfterLine::Hold => filled = 0,
            }
        }
    }
    Ok(())
}

fn parse_args() -> Result<AfterLine, Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.as_slice() {
        [] => Ok(AfterLine::Close),
        [flag] if flag == "--hold" => Ok(AfterLine::Hold),
        _ => Err("usage: fork_echo [--hold]".into()),
    }
}

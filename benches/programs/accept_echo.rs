//! The bare pre-forking server that lenore's Daemon is measured against: N children blocked in accept(2).
//!
//! ```text
//! accept_echo --children 4
//! listening on 127.0.0.1:40123
//! ```
//!
//! Each child accepts, reads one line, writes it back, closes, and starts over. The parent waits for TERM or INT,
//! then kills and reaps its children, which do not outlive it whatever ends it.

use std::env;
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process;

use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, getppid};

fn main() -> Result<(), Box<dyn Error>> {
    let children = parse_args()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listening on {}", listener.local_addr()?);

    // Blocked before the first fork, so that a TERM in the middle of forking waits until every child is known.
    let mut stop = SigSet::empty();
    stop.add(Signal::SIGTERM);
    stop.add(Signal::SIGINT);
    stop.thread_block()?;
    let parent = Pid::this();
    let mut pids = Vec::new();
    for _ in 0..children {
        // SAFETY: this process has one thread, so no lock is held by a thread that the child lacks.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => pids.push(child),
            ForkResult::Child => process::exit(exit_code(serve(&listener, parent, &stop))),
        }
    }

    stop.wait()?;
    for &pid in &pids {
        kill(pid, Signal::SIGKILL)?;
    }
    for &pid in &pids {
        waitpid(pid, None)?;
    }
    Ok(())
}

/// A child's life: returns only when it cannot accept.
fn serve(listener: &TcpListener, parent: Pid, stop: &SigSet) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != parent {
        return Ok(()); // it died before the line above
    }
    stop.thread_unblock()?;
    loop {
        let (stream, _) = listener.accept()?;
        let _ = echo_line(stream); // a client that breaks off is no failure of the server
    }
}

/// Reads one line, writes it back, and closes.
fn echo_line(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    let mut filled = 0;
    while filled < buffer.len() {
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            break;
        }
        filled += read;
        if buffer[filled - read..filled].contains(&b'\n') {
            return stream.write_all(&buffer[..filled]);
        }
    }
    Ok(())
}

fn exit_code(served: io::Result<()>) -> i32 {
    match served {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("accept_echo: {error}");
            1
        }
    }
}

/// The number after `--children`.
fn parse_args() -> Result<usize, Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.as_slice() {
        [flag, number] if flag == "--children" => Ok(number.parse()?),
        _ => Err("usage: accept_echo --children N".into()),
    }
}

//! The bare pre-forking web server that `http_prefork` is measured against: N children blocked in accept(2).
//!
//! ```text
//! accept_http --children 4
//! listening on 127.0.0.1:40123
//! ```
//!
//! Each child accepts, says hello to every request until the client closes, and starts over. The parent waits for TERM
//! or INT, then kills and reaps its children, which do not outlive it whatever ends it.

use std::env;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process;
use std::time::SystemTime;

use httparse::Status;
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
            ForkResult::Child => process::exit(serve(&listener, parent, &stop).map_or(1, |()| 0)),
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
        let _ = say_hello(stream); // a client that breaks off is no failure of the server
    }
}

/// Answers one request after the other. Clients of this server do not pipeline.
fn say_hello(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut buffer, mut filled) = ([0; 4096], 0);
    loop {
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        let Status::Complete(_) = request.parse(&buffer[..filled]).map_err(|_| ErrorKind::InvalidData)? else {
            continue;
        };
        let (status, body) = if request.path == Some("/hello") { ("200 OK", "hello\n") } else { ("404 Not Found", "") };
        let (date, length) = (httpdate::fmt_http_date(SystemTime::now()), body.len());
        let response = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nDate: {date}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(response.as_bytes())?;
        filled = 0;
    }
}

/// The number after `--children`.
fn parse_args() -> Result<usize, Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.as_slice() {
        [flag, number] if flag == "--children" => Ok(number.parse()?),
        _ => Err("usage: accept_http --children N".into()),
    }
}

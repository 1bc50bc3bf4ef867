//! A server that answers each connection with an `x` and closes it, for `tests/control/durations.rs`.
//!
//! `--start N`: pre-forking. `--max N`: post-forking. Without either one process serves all. `--unix PATH`: it listens there and not on
//! TCP. `--board PATH`: it counts durations.
//!
//! On USR1 the parent writes its durations as JSON, `durations {...}`. On USR2 it is busy for 50 ms.

use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use lenore::daemon::{Forking, Report};
use lenore::wheel::SocketFactory;
use lenore::{Context, Daemon, Kernel, Result, Session};

use util::daemon_program::{Flags, log_to_stderr, say};

struct App {
    flags: Flags,
    daemon: Daemon,
    listener: Option<SocketFactory>,
    forking: Forking,
}

type Cx<'a> = Context<'a, App>;

/// A client of either kind.
struct Client(Box<dyn Write>);

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    log_to_stderr();
    let flags = Flags::read();
    let mut kernel = Kernel::new()?;
    let mut builder = Daemon::builder();
    if let Some(children) = flags.number("--start") {
        builder = builder.start_children(children).max_children(children).min_spare(1).max_spare(children).requests(0);
    }
    if let Some(children) = flags.number("--max") {
        builder = builder.max_children(children);
    }
    if let Some(path) = flags.text("--board") {
        builder = builder.board(path);
    }
    let daemon = builder.spawn(&mut kernel)?;
    let forking = daemon.status(&mut kernel)?.forking;
    Session::new(App { flags, daemon, listener: None, forking })
        .state("_start", start)
        .state("daemon_child", child)
        .state("daemon_accept", |cx| cx.heap().listener.iter().for_each(SocketFactory::resume_accept))
        .state("daemon_pause", |cx| cx.heap().listener.iter().for_each(SocketFactory::pause_accept))
        .state("daemon_shutdown", |cx| cx.heap().listener = None)
        .state("accept", accepted)
        .state("USR1", |cx| {
            cx.sig_handled();
            show(cx)
        })
        .state("USR2", |cx| {
            cx.sig_handled();
            let end = Instant::now() + Duration::from_millis(50);
            while Instant::now() < end {}
            say("was busy");
        })
        .spawn(&mut kernel)?;
    Ok(kernel.run()?)
}

fn start(cx: &mut Cx<'_>) -> Result {
    for signal in ["daemon_child", "daemon_accept", "daemon_pause", "daemon_shutdown", "USR1", "USR2"] {
        cx.sig(signal, signal);
    }
    let unix = cx.heap().flags.text("--unix").map(str::to_owned);
    let listener = match &unix {
        Some(path) => SocketFactory::unix(path).on_accept("accept").listen(cx)?,
        None => SocketFactory::tcp("127.0.0.1:0").on_accept("accept").listen(cx)?,
    };
    if cx.heap().forking == Forking::Pre {
        listener.pause_accept();
    }
    match unix {
        Some(path) => println!("listening on {path}"),
        None => println!("listening on {}", listener.local_addr()?),
    }
    cx.heap().listener = Some(listener);
    Ok(())
}

/// A new child. One that is forked for a request has it.
fn child(cx: &mut Cx<'_>) -> Result {
    let App { daemon, forking, .. } = *cx.heap();
    if forking == Forking::Pre {
        return Ok(daemon.update_status(cx, Report::Wait)?);
    }
    cx.heap().listener = None;
    answer(cx.take(1)?)?;
    Ok(daemon.update_status(cx, Report::Done)?)
}

fn accepted(cx: &mut Cx<'_>) -> Result {
    let client = match cx.take::<TcpStream>(0) {
        Ok(stream) => Client(Box::new(stream)),
        Err(_) => Client(Box::new(cx.take::<UnixStream>(0)?)),
    };
    let App { daemon, forking, .. } = *cx.heap();
    match forking {
        Forking::Post => daemon.update_status_with(cx, Report::Req, client)?,
        Forking::Pre => {
            cx.heap().listener.iter().for_each(SocketFactory::pause_accept);
            daemon.update_status(cx, Report::Req)?;
            answer(client)?;
            daemon.update_status(cx, Report::Done)?;
        }
        _ => answer(client)?,
    }
    Ok(())
}

fn answer(mut client: Client) -> Result {
    Ok(client.0.write_all(b"x")?)
}

fn show(cx: &mut Cx<'_>) -> Result {
    let daemon = cx.heap().daemon;
    if let Some(snapshot) = daemon.snapshot(cx)? {
        say(&format!("durations {}", serde_json::to_string(&snapshot.durations)?));
    }
    Ok(())
}

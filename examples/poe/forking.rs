//! A port of POE::Component::Daemon's demonstration of a post-forking server, `eg/forking`, state by state. Read it beside the Perl.
//!
//! ```text
//! cargo run --release --example forking -- 7777         # prints PORT=7777, detaches, and the shell is back
//! nc -C 127.0.0.1 7777                                  # type PID, PARENT, PING (PONG), KERNEL, STATUS, DONE (OK)
//! kill $(printf 'parent\ndone\n' | nc 127.0.0.1 7777 | sed -n '1s/\r//p')      # all processes end
//! ```
//!
//! The server has at most three connections at a time. A fourth waits. The log is the file `log_forking` in the temporary directory, or
//! the file that `--logfile PATH` names.

use std::net::{IpAddr, TcpStream};
use std::os::unix::process::parent_id;
use std::path::PathBuf;

use clap::Parser;
use lenore::daemon::Report;
use lenore::filter::Line;
use lenore::wheel::{Failure, ReadWrite, SocketFactory};
use lenore::{Context, Daemon, Exception, Kernel, Result, Session};

#[path = "../common/mod.rs"]
mod common;

/// The post-forking server of POE::Component::Daemon's demonstration, which detaches and answers a few commands
#[derive(Parser)]
#[command(name = "forking", version)]
struct Flags {
    #[command(flatten)]
    port: common::PortFlags,
}

#[derive(Default)]
struct Heap {
    logfile: PathBuf,
    daemon: Option<Daemon>,
    wheel: Option<SocketFactory>,
    wheel_client: Option<ReadWrite<Line>>,
}

fn main() -> Result {
    let flags = Flags::parse();
    common::log_to_stderr();
    let logfile = flags.port.logfile("log_forking")?;
    let mut kernel = Kernel::new()?;
    Session::new(Heap { logfile, ..Heap::default() })
        .args((flags.port.port,))
        .state("_start", start)
        .state("error", error)
        // No text, so no command.
        .state("refused", |cx| {
            if let Some(client) = &cx.heap().wheel_client {
                client.put("???");
            }
        })
        .state("daemon_shutdown", daemon_shutdown)
        .state("accept", accept)
        .state("daemon_pause", daemon_pause)
        .state("daemon_accept", daemon_accept) // Perl's watches `daemon_resume`, which is never sent
        .state("daemon_child", daemon_child)
        .state("input", input)
        // Perl's `flushed` closes the connection after DONE: see `done`.
        .state("peek", peek)
        .spawn(&mut kernel)?;
    kernel.run()?;
    log::info!("{}: exiting", kernel.pid());
    Ok(())
}

fn start(cx: &mut Context<'_, Heap>) -> Result {
    let port: u16 = cx.take(0)?;
    let wheel = SocketFactory::tcp(format!("127.0.0.1:{port}")).on_accept("accept").on_error("error").listen(cx)?;
    common::say_if_read(format_args!("PORT={}", wheel.local_addr()?.port()));
    cx.heap().wheel = Some(wheel);

    cx.sig("daemon_child", "daemon_child");
    cx.sig("daemon_shutdown", "daemon_shutdown");
    cx.sig("daemon_pause", "daemon_pause");
    cx.sig("daemon_accept", "daemon_accept");
    cx.sig("USR1", "peek");
    cx.sig("USR2", "peek");

    // In the Perl program the last thing of all. Here it must come after `listen` and before `run`: it detaches.
    let daemon = Daemon::builder()
        .alias("Daemon")
        .children_return(true) // as in Perl, each process says that it is exiting
        .logfile(&cx.heap().logfile)
        .detach(true)
        .verbose(true)
        .max_children(3)
        .spawn(cx)?;
    cx.heap().daemon = Some(daemon);
    Ok(())
}

/// The end of the input, or something worse, of either wheel.
fn error(cx: &mut Context<'_, Heap>) -> Result {
    let Failure { operation, errno: errnum, text: errstr, .. } = cx.take(0)?;
    match (operation, errnum) {
        ("read", 0) => return done(cx),
        // The listener tries again by itself.
        ("accept", _) => log::warn!("{}: accept: {errstr}", cx.pid()),
        _ => {
            log::warn!("{}: {operation}: {errnum}: {errstr}", cx.pid());
            daemon(cx)?.shutdown(cx)?;
        }
    }
    Ok(())
}

/// The SocketFactory has a connection: the Daemon forks for it, and this process's copy of the socket is closed.
fn accept(cx: &mut Context<'_, Heap>) -> Result {
    let (handle, peer, port): (TcpStream, IpAddr, u16) = (cx.take(0)?, cx.take(1)?, cx.take(2)?);
    log::info!("{}: connection from {peer}:{port}", cx.pid());
    Ok(daemon(cx)?.update_status_with(cx, Report::Req, handle)?)
}

/// There are as many child processes as there may be.
fn daemon_pause(cx: &mut Context<'_, Heap>) {
    if let Some(listener) = &cx.heap().wheel {
        listener.pause_accept();
    }
}

/// There are fewer again.
fn daemon_accept(cx: &mut Context<'_, Heap>) {
    if let Some(listener) = &cx.heap().wheel {
        listener.resume_accept();
    }
}

/// We are the child process, and ARG1 is what `accept` handed over.
fn daemon_child(cx: &mut Context<'_, Heap>) -> Result {
    cx.heap().wheel = None;
    let handle: TcpStream = cx.take(1)?;
    let client =
        ReadWrite::stream(handle, Line::new()).on_input("input").on_error("error").on_refused("refused").start(cx)?;
    cx.heap().wheel_client = Some(client);
    update_status(cx, Report::Long)
}

/// The ReadWrite has a line.
fn input(cx: &mut Context<'_, Heap>) -> Result {
    let line = cx.take::<String>(0)?.to_ascii_uppercase();
    log::info!("{}: received {line:?}", cx.pid());
    let answer = match line.as_str() {
        "PID" => cx.pid().to_string(),
        "PARENT" => parent_id().to_string(),
        "PING" => "PONG".into(),
        "LOGFILE" => cx.heap().logfile.display().to_string(),
        "KERNEL" => cx.kernel_id().into(),
        "DONE" => "OK".into(),
        "STATUS" => format!("{}DONE", daemon(cx)?.status(cx)?),
        _ => "???".into(),
    };
    for text in answer.lines() {
        if let Some(client) = &cx.heap().wheel_client {
            client.put(text);
        }
    }
    if line == "DONE" { done(cx) } else { Ok(()) }
}

/// The request is finished. The Perl program closes in its FlushedEvent, by a flag; `close_after_flush` is both.
fn done(cx: &mut Context<'_, Heap>) -> Result {
    if let Some(client) = cx.heap().wheel_client.take() {
        client.close_after_flush();
    }
    update_status(cx, Report::Done)
}

/// TERM or INT has come, or the request is finished.
fn daemon_shutdown(cx: &mut Context<'_, Heap>) {
    cx.heap().wheel = None;
    cx.heap().wheel_client = None;
}

/// USR1, as in Perl, or USR2: why this kernel does not exit.
fn peek(cx: &mut Context<'_, Heap>) -> Result {
    log::info!("{}", daemon(cx)?.peek(cx, true)?);
    Ok(())
}

fn update_status(cx: &mut Context<'_, Heap>, report: Report) -> Result {
    Ok(daemon(cx)?.update_status(cx, report)?)
}

fn daemon(cx: &mut Context<'_, Heap>) -> Result<Daemon> {
    cx.heap().daemon.ok_or_else(|| Exception::new("the Daemon is not spawned yet"))
}

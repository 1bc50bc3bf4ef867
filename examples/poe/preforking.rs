//! A port of POE::Component::Daemon's demonstration of a pre-forking server, `eg/preforking`, state by state. Read it beside the Perl.
//!
//! ```text
//! cargo run --release --example preforking -- 7777      # prints PORT=7777, detaches, and the shell is back
//! nc -C 127.0.0.1 7777                                  # type PID, PARENT, PING (PONG), STATUS, PEEK, DONE (OK)
//! kill $(printf 'parent\ndone\n' | nc 127.0.0.1 7777 | sed -n '1s/\r//p')      # all processes end
//! ```
//!
//! Each child serves one connection and is replaced. The log is the file `log_preforking` in the temporary directory, or the file that
//! `--logfile PATH` names.

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

/// The pre-forking server of POE::Component::Daemon's demonstration, which detaches and answers a few commands
#[derive(Parser)]
#[command(name = "preforking", version)]
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
    let logfile = flags.port.logfile("log_preforking")?;
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
        .state("daemon_child", daemon_child)
        .state("daemon_accept", daemon_accept)
        // Perl's `daemon_parent` notes the pid that PARENT answers, too late for the first child; the system knows it.
        .state("accept", accept)
        .state("input", input)
        // Perl's `flushed` closes the connection after DONE: see `done`.
        .state("daemon_shutdown", daemon_shutdown)
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
    wheel.pause_accept(); // is resumed in daemon_accept
    cx.heap().wheel = Some(wheel);

    cx.sig("daemon_child", "daemon_child");
    cx.sig("daemon_accept", "daemon_accept");
    cx.sig("daemon_shutdown", "daemon_shutdown");
    cx.sig("USR2", "peek");

    // In the Perl program the last thing of all. Here it must come after `listen` and before `run`: it detaches.
    let daemon = Daemon::builder()
        .alias("Daemon")
        .children_return(true) // as in Perl, each process says that it is exiting
        .logfile(&cx.heap().logfile)
        .detach(true)
        .verbose(true)
        .start_children(1)
        .requests(1)
        .min_spare(2)
        .max_children(10)
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

/// We are a child process.
fn daemon_child(cx: &mut Context<'_, Heap>) -> Result {
    update_status(cx, Report::Wait)
}

/// A child process has said `wait`.
fn daemon_accept(cx: &mut Context<'_, Heap>) {
    if let Some(listener) = &cx.heap().wheel {
        listener.resume_accept();
    }
}

/// The SocketFactory has a connection.
fn accept(cx: &mut Context<'_, Heap>) -> Result {
    let (handle, peer, port): (TcpStream, IpAddr, u16) = (cx.take(0)?, cx.take(1)?, cx.take(2)?);
    log::info!("{}: connection from {peer}:{port}", cx.pid());
    if let Some(listener) = &cx.heap().wheel {
        listener.pause_accept();
    }
    update_status(cx, Report::Req)?;

    let client =
        ReadWrite::stream(handle, Line::new()).on_input("input").on_error("error").on_refused("refused").start(cx)?;
    cx.heap().wheel_client = Some(client);
    Ok(())
}

/// The ReadWrite has a line.
fn input(cx: &mut Context<'_, Heap>) -> Result {
    let line = cx.take::<String>(0)?.to_ascii_uppercase();
    log::info!("{}: received {line:?}", cx.pid());
    let answer = match line.as_str() {
        "PID" => cx.pid().to_string(),
        "PING" => "PONG".into(),
        "PARENT" => parent_id().to_string(),
        "PEEK" => format!("{}DONE", daemon(cx)?.peek(cx, true)?),
        "STATUS" => format!("{}DONE", daemon(cx)?.status(cx)?),
        "DONE" => "OK".into(),
        "LOGFILE" => cx.heap().logfile.display().to_string(),
        "KERNEL" => cx.kernel_id().into(),
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

/// TERM or INT has come, or this child has had its share of requests.
fn daemon_shutdown(cx: &mut Context<'_, Heap>) {
    cx.heap().wheel = None;
    cx.heap().wheel_client = None;
}

/// USR2: why this kernel does not exit.
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

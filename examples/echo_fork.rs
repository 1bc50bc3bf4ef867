//! A post-forking echo server by hand: the parent accepts, and the Daemon forks a child for each connection.
//!
//! ```text
//! cargo run --release --example echo_fork -- --verbose
//! ```
//!
//! It prints `listening on 127.0.0.1:7777, pid 4711`. Then, in another terminal and with the printed pid:
//!
//! ```text
//! printf 'hello\n' | nc -q1 127.0.0.1 7777      # hello; the log shows a child that begins and ends
//! kill -USR2 4711                               # the log shows every session and why it stays alive
//! ```
//!
//! Ctrl-C ends the parent and all children. A connection waits while there are `--max-children` others.

use std::net::TcpStream;

use clap::Parser;
use lenore::daemon::Report;
use lenore::filter::Line;
use lenore::wheel::{ReadWrite, SocketFactory};
use lenore::{Context, Daemon, Exception, Kernel, Result, Session};

mod common;

/// Echo server that forks a child for each connection
#[derive(Parser)]
#[command(name = "echo_fork", version)]
struct Flags {
    /// Address to listen on
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7777")]
    listen: String,
    /// The most children at a time; more connections wait
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..), allow_negative_numbers = true)]
    max_children: u32,
    #[command(flatten)]
    daemon: common::DaemonFlags,
}

/// The heap: each child has a copy of its own from its fork on.
#[derive(Default)]
struct Echo {
    daemon: Option<Daemon>,
    listener: Option<SocketFactory>,
    client: Option<ReadWrite<Line>>,
}

fn main() -> Result {
    let flags = Flags::parse();
    common::log_to_stderr();
    let mut kernel = Kernel::new()?;
    Session::new(Echo::default())
        .args((flags,))
        .state("_start", start)
        .state("accept", accepted) // 1. in the parent: a connection; the Daemon forks for it
        .state("daemon_pause", |cx| {
            if let Some(listener) = &cx.heap().listener {
                listener.pause_accept();
            }
        })
        .state("daemon_accept", |cx| {
            if let Some(listener) = &cx.heap().listener {
                listener.resume_accept();
            }
        })
        .state("daemon_child", child) // 2. in the child: the same connection
        .state("input", |cx| {
            let line: String = cx.take(0)?;
            if let Some(client) = &cx.heap().client {
                client.put(line.as_str());
            }
            Ok(())
        })
        .state("gone", gone) // 3. the request is done, and with it the child
        .state("daemon_shutdown", |cx| cx.heap().listener = None)
        .state("peek", |cx| {
            log::info!("{}", daemon(cx)?.peek(cx, true)?);
            Ok(())
        })
        .spawn(&mut kernel)?;
    Ok(kernel.run()?)
}

fn start(cx: &mut Context<'_, Echo>) -> Result {
    let flags: Flags = cx.take(0)?;
    let listener = SocketFactory::tcp(&flags.listen).on_accept("accept").listen(cx)?;
    for signal in ["daemon_pause", "daemon_accept", "daemon_child", "daemon_shutdown"] {
        cx.sig(signal, signal);
    }
    cx.sig("USR2", "peek");
    flags.daemon.say_listening(listener.local_addr()?);
    cx.heap().listener = Some(listener);
    // Last of all: from here on this may be another process, without terminal and privileges.
    let daemon = flags.daemon.apply(Daemon::builder().max_children(flags.max_children)).spawn(cx)?;
    cx.heap().daemon = Some(daemon);
    Ok(())
}

/// Hands the socket over: it becomes ARG1 of `daemon_child`, and this process's copy is closed.
fn accepted(cx: &mut Context<'_, Echo>) -> Result {
    let socket: TcpStream = cx.take(0)?;
    Ok(daemon(cx)?.update_status_with(cx, Report::Req, socket)?)
}

fn child(cx: &mut Context<'_, Echo>) -> Result {
    // The parent goes on listening; this process has its connection.
    cx.heap().listener = None;
    let socket: TcpStream = cx.take(1)?;
    // Limits: a line over 64 KiB is dropped, and a client that sends without reading has to wait.
    let lines = Line::new().max_length(64 * 1024)?.max_buffer(128 * 1024)?;
    let client = ReadWrite::stream(socket, lines).watermarks(16 * 1024, 64 * 1024).auto_pause();
    let client = client.on_input("input").on_error("gone").start(cx)?;
    cx.heap().client = Some(client);
    Ok(())
}

/// The client has closed its side, or is lost. What was put for it is still written.
fn gone(cx: &mut Context<'_, Echo>) -> Result {
    if let Some(client) = cx.heap().client.take() {
        client.close_after_flush();
    }
    Ok(daemon(cx)?.update_status(cx, Report::Done)?)
}

fn daemon(cx: &mut Context<'_, Echo>) -> Result<Daemon> {
    cx.heap().daemon.ok_or_else(|| Exception::new("the Daemon is not spawned yet"))
}

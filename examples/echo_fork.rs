//! A post-forking echo server: the parent accepts, and forks a child for each connection.
//!
//! ```text
//! cargo run --release --example echo_fork
//! printf 'hello\n' | nc -q1 127.0.0.1 7777      # hello
//! pkill -USR2 -o echo_fork                      # the log shows every session and why it stays alive
//! ```
//!
//! Ctrl-C ends it and all its children. More connections than there may be children wait their turn.

use std::net::TcpStream;
use std::process::ExitCode;

use lenore::daemon::Report;
use lenore::filter::Line;
use lenore::wheel::{ReadWrite, SocketFactory};
use lenore::{Context, Daemon, Kernel, Result, Session};

mod common;

const USAGE: &str = "usage: echo_fork [--listen ADDR:PORT] [--max-children N] [--verbose]";

/// The heap: each child has a copy of its own from its fork on.
struct Echo {
    daemon: Daemon,
    address: String,
    listener: Option<SocketFactory>,
    client: Option<ReadWrite<Line>>,
}

fn main() -> ExitCode {
    common::exit(run())
}

fn run() -> Result<Result<(), Box<dyn std::error::Error>>, common::Usage> {
    let mut flags = common::Flags::new(USAGE);
    let address = flags.value("--listen")?.unwrap_or_else(|| String::from("127.0.0.1:7777"));
    let verbose = flags.has("--verbose");
    let daemon = Daemon::builder().verbose(verbose).max_children(flags.value("--max-children")?.unwrap_or(20));
    flags.finish()?;
    common::log_to_stderr(log::LevelFilter::Info);
    Ok(serve(daemon, address))
}

fn serve(daemon: lenore::daemon::DaemonBuilder, address: String) -> Result<(), Box<dyn std::error::Error>> {
    let mut kernel = Kernel::new()?;
    let daemon = daemon.spawn(&mut kernel)?;
    Session::new(Echo { daemon, address, listener: None, client: None })
        .state("_start", start)
        .state("accept", accepted) // 1. in the parent: a connection; the Daemon forks for it
        .state("daemon_pause", |cx| cx.heap().listener.iter().for_each(SocketFactory::pause_accept))
        .state("daemon_accept", |cx| cx.heap().listener.iter().for_each(SocketFactory::resume_accept))
        .state("daemon_child", child) // 2. in the child: the same connection
        .state("input", |cx| {
            let line: String = cx.take(0)?;
            cx.heap().client.iter().for_each(|client| client.put(line.as_str()));
            Ok(())
        })
        .state("gone", gone) // 3. the request is done, and with it the child
        .state("daemon_shutdown", |cx| cx.heap().listener = None)
        .state("peek", |cx| {
            let daemon = cx.heap().daemon;
            log::info!("{}", daemon.peek(cx, true)?);
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.run()?;
    Ok(())
}

fn start(cx: &mut Context<'_, Echo>) -> Result {
    let address = cx.heap().address.clone();
    let listener = SocketFactory::tcp(address).on_accept("accept").listen(cx)?;
    let address = listener.local_addr()?;
    cx.heap().listener = Some(listener);
    for signal in ["daemon_pause", "daemon_accept", "daemon_child", "daemon_shutdown"] {
        cx.sig(signal, signal);
    }
    cx.sig("USR2", "peek");
    // Last of all: whoever reads this may send signals.
    println!("listening on {address}");
    Ok(())
}

/// Hands the socket over: it becomes ARG1 of `daemon_child`, and this process's copy is closed.
fn accepted(cx: &mut Context<'_, Echo>) -> Result {
    let (daemon, socket) = (cx.heap().daemon, cx.take::<TcpStream>(0)?);
    Ok(daemon.update_status_with(cx, Report::Req, socket)?)
}

fn child(cx: &mut Context<'_, Echo>) -> Result {
    // The parent goes on listening; this process has its connection.
    cx.heap().listener = None;
    let socket: TcpStream = cx.take(1)?;
    let client = ReadWrite::new(socket, Line::new()).on_input("input").on_error("gone").start(cx)?;
    cx.heap().client = Some(client);
    Ok(())
}

/// The client has closed its side, or is lost. What was put for it is still written.
fn gone(cx: &mut Context<'_, Echo>) -> Result {
    cx.heap().client.take().into_iter().for_each(ReadWrite::close_after_flush);
    let daemon = cx.heap().daemon;
    Ok(daemon.update_status(cx, Report::Done)?)
}

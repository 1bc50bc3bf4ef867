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

use common::Flags;
use lenore::daemon::{DaemonBuilder, Report};
use lenore::filter::Line;
use lenore::wheel::{ReadWrite, SocketFactory};
use lenore::{Context, Daemon, Exception, Kernel, Result, Session};

mod common;

const USAGE: &str = "echo_fork [--listen ADDR:PORT] [--max-children N]";

/// The heap: each child has a copy of its own from its fork on.
#[derive(Default)]
struct Echo {
    daemon: Option<Daemon>,
    listener: Option<SocketFactory>,
    client: Option<ReadWrite<Line>>,
}

fn main() -> ExitCode {
    common::exit(run())
}

fn run() -> Result<Result<(), Box<dyn std::error::Error>>, common::Usage> {
    let mut flags = Flags::new(&[USAGE, common::DAEMON_FLAGS]);
    let address = flags.value("--listen")?.unwrap_or_else(|| String::from("127.0.0.1:7777"));
    let daemon = common::daemon_settings(&mut flags, Daemon::builder().max_children(20))?;
    let daemon = flags.set("--max-children", daemon, DaemonBuilder::max_children)?;
    flags.finish()?;
    common::log_to_stderr(log::LevelFilter::Info);
    Ok(serve(daemon, address))
}

fn serve(settings: DaemonBuilder, address: String) -> Result<(), Box<dyn std::error::Error>> {
    let mut kernel = Kernel::new()?;
    Session::new(Echo::default())
        .args((address, settings))
        .state("_start", start)
        .state("accept", accepted) // 1. in the parent: a connection; the Daemon forks for it
        .state("daemon_pause", |cx| cx.heap().listener.iter().for_each(SocketFactory::pause_accept))
        .state("daemon_accept", |cx| cx.heap().listener.iter().for_each(SocketFactory::resume_accept))
        .state("daemon_child", child) // 2. in the child: the same connection
        .state("input", |cx| {
            let line: String = cx.take(0)?;
            cx.heap().client.iter().for_each(|client| _ = client.put(line.as_str()));
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
    let listener = SocketFactory::tcp(cx.take::<String>(0)?).on_accept("accept").listen(cx)?;
    for signal in ["daemon_pause", "daemon_accept", "daemon_child", "daemon_shutdown"] {
        cx.sig(signal, signal);
    }
    cx.sig("USR2", "peek");
    println!("listening on {}", listener.local_addr()?);
    cx.heap().listener = Some(listener);
    // Last of all: from here on this may be another process, without terminal and privileges.
    let daemon = cx.take::<DaemonBuilder>(1)?.spawn(cx)?;
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
    let client = ReadWrite::new(socket, Line::new()).on_input("input").on_error("gone").start(cx)?;
    cx.heap().client = Some(client);
    Ok(())
}

/// The client has closed its side, or is lost. What was put for it is still written.
fn gone(cx: &mut Context<'_, Echo>) -> Result {
    cx.heap().client.take().into_iter().for_each(ReadWrite::close_after_flush);
    Ok(daemon(cx)?.update_status(cx, Report::Done)?)
}

fn daemon(cx: &mut Context<'_, Echo>) -> Result<Daemon> {
    cx.heap().daemon.ok_or_else(|| Exception::new("the Daemon is not spawned yet"))
}

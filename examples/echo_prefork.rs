//! A pre-forking echo server: a pool of children waits for connections; each child serves one at a time.
//!
//! ```text
//! cargo run --release --example echo_prefork
//! printf 'hello\n' | nc -q1 127.0.0.1 7777      # hello
//! pkill -USR2 -o echo_prefork                   # the log shows every session and why it stays alive
//! ```
//!
//! Ctrl-C ends it and all its children. A child may be killed at any time: another one takes its place.

use std::net::TcpStream;
use std::process::ExitCode;

use lenore::daemon::Report;
use lenore::filter::Line;
use lenore::wheel::{ReadWrite, SocketFactory};
use lenore::{Context, Daemon, Kernel, Result, Session};

mod common;

const USAGE: &str = "usage: echo_prefork [--listen ADDR:PORT] [--start-children N] [--min-spare N] [--max-spare N] \
                     [--max-children N] [--requests N] [--verbose]";

/// The heap: each process has a copy of its own from the fork on.
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
    let mut daemon = Daemon::builder().verbose(verbose).start_children(flags.value("--start-children")?.unwrap_or(4));
    daemon = daemon.requests(flags.value("--requests")?.unwrap_or(1000));
    if let Some(children) = flags.value("--min-spare")? {
        daemon = daemon.min_spare(children);
    }
    if let Some(children) = flags.value("--max-spare")? {
        daemon = daemon.max_spare(children);
    }
    if let Some(children) = flags.value("--max-children")? {
        daemon = daemon.max_children(children);
    }
    flags.finish()?;
    common::log_to_stderr(log::LevelFilter::Info);
    Ok(serve(daemon, address))
}

fn serve(daemon: lenore::daemon::DaemonBuilder, address: String) -> Result<(), Box<dyn std::error::Error>> {
    let mut kernel = Kernel::new()?;
    let daemon = daemon.spawn(&mut kernel)?;
    Session::new(Echo { daemon, address, listener: None, client: None })
        .state("_start", start)
        .state("daemon_child", |cx| report(cx, Report::Wait)) // 2. in a new child: ready for a first request
        .state("daemon_accept", accept_one) // 3. the Daemon answers: the next connection may come
        .state("accept", accepted) // 4. it has come
        .state("input", |cx| {
            let line: String = cx.take(0)?;
            cx.heap().client.iter().for_each(|client| client.put(line.as_str()));
            Ok(())
        })
        .state("gone", gone) // 5. the request is done; from here back to 3, or to the end of this child
        .state("daemon_shutdown", |cx| cx.heap().listener = None) // a request in hand is still finished
        .state("peek", |cx| {
            let daemon = cx.heap().daemon;
            log::info!("{}", daemon.peek(cx, true)?);
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.run()?;
    Ok(())
}

/// 1. Before any child exists: one listener for all of them. The parent never accepts.
fn start(cx: &mut Context<'_, Echo>) -> Result {
    let address = cx.heap().address.clone();
    let listener = SocketFactory::tcp(address).on_accept("accept").listen(cx)?;
    listener.pause_accept();
    let address = listener.local_addr()?;
    cx.heap().listener = Some(listener);
    for signal in ["daemon_child", "daemon_accept", "daemon_shutdown"] {
        cx.sig(signal, signal);
    }
    cx.sig("USR2", "peek");
    // Last of all: whoever reads this may send signals.
    println!("listening on {address}");
    Ok(())
}

fn accept_one(cx: &mut Context<'_, Echo>) {
    cx.heap().listener.iter().for_each(SocketFactory::resume_accept);
}

fn accepted(cx: &mut Context<'_, Echo>) -> Result {
    // At once, or the next connection would be ours as well, and wait here while other children are idle.
    cx.heap().listener.iter().for_each(SocketFactory::pause_accept);
    report(cx, Report::Req)?;
    let socket: TcpStream = cx.take(0)?;
    let client = ReadWrite::new(socket, Line::new()).on_input("input").on_error("gone").start(cx)?;
    cx.heap().client = Some(client);
    Ok(())
}

/// The client has closed its side, or is lost. What was put for it is still written.
fn gone(cx: &mut Context<'_, Echo>) -> Result {
    cx.heap().client.take().into_iter().for_each(ReadWrite::close_after_flush);
    report(cx, Report::Done)
}

fn report(cx: &mut Context<'_, Echo>, report: Report) -> Result {
    let daemon = cx.heap().daemon;
    Ok(daemon.update_status(cx, report)?)
}

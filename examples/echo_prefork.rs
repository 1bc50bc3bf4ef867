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

use common::Flags;
use lenore::daemon::{DaemonBuilder, Report};
use lenore::filter::Line;
use lenore::wheel::{ReadWrite, SocketFactory};
use lenore::{Context, Daemon, Exception, Kernel, Result, Session};

mod common;

const USAGE: &str = "echo_prefork [--listen ADDR:PORT] [--start-children N] [--min-spare N] [--max-spare N] \
                     [--max-children N] [--fork-burst N] [--requests N]";

/// The heap: each process has a copy of its own from the fork on.
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
    let daemon = common::daemon_settings(&mut flags, Daemon::builder().start_children(4).requests(1000))?;
    let daemon = flags.set("--start-children", daemon, DaemonBuilder::start_children)?;
    let daemon = flags.set("--min-spare", daemon, DaemonBuilder::min_spare)?;
    let daemon = flags.set("--max-spare", daemon, DaemonBuilder::max_spare)?;
    let daemon = flags.set("--max-children", daemon, DaemonBuilder::max_children)?;
    let daemon = flags.set("--fork-burst", daemon, DaemonBuilder::fork_burst)?;
    let daemon = flags.set("--requests", daemon, DaemonBuilder::requests)?;
    flags.finish()?;
    common::log_to_stderr(log::LevelFilter::Info);
    Ok(serve(daemon, address))
}

fn serve(settings: DaemonBuilder, address: String) -> Result<(), Box<dyn std::error::Error>> {
    let mut kernel = Kernel::new()?;
    Session::new(Echo::default())
        .args((address, settings))
        .state("_start", start)
        .state("daemon_child", |cx| report(cx, Report::Wait)) // 2. in a new child: ready for a first request
        .state("daemon_accept", accept_one) // 3. the Daemon answers: the next connection may come
        .state("accept", accepted) // 4. it has come
        .state("input", |cx| {
            let line: String = cx.take(0)?;
            cx.heap().client.iter().for_each(|client| _ = client.put(line.as_str()));
            Ok(())
        })
        .state("gone", gone) // 5. the request is done; from here back to 3, or to the end of this child
        .state("daemon_shutdown", |cx| cx.heap().listener = None) // a request in hand is still finished
        .state("peek", |cx| {
            log::info!("{}", daemon(cx)?.peek(cx, true)?);
            Ok(())
        })
        .spawn(&mut kernel)?;
    Ok(kernel.run()?)
}

/// 1. Before any child exists: one listener for all of them. The parent never accepts.
fn start(cx: &mut Context<'_, Echo>) -> Result {
    let listener = SocketFactory::tcp(cx.take::<String>(0)?).on_accept("accept").listen(cx)?;
    listener.pause_accept();
    for signal in ["daemon_child", "daemon_accept", "daemon_shutdown"] {
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
    Ok(daemon(cx)?.update_status(cx, report)?)
}

fn daemon(cx: &mut Context<'_, Echo>) -> Result<Daemon> {
    cx.heap().daemon.ok_or_else(|| Exception::new("the Daemon is not spawned yet"))
}

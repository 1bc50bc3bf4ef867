//! A pre-forking echo server by hand: a pool of children waits for connections. Each child serves one at a time.
//!
//! ```text
//! cargo run --release --example echo_prefork    # listening on 127.0.0.1:7777, pid 4711
//!
//! # in another terminal, with the printed pid:
//! printf 'hello\n' | nc -q1 127.0.0.1 7777      # hello
//! kill -9 $(pgrep -n -P 4711)                   # the log says so, and another child takes the place
//! kill -HUP 4711                                # with --config FILE and --logfile FILE: opens both again
//! kill -USR2 4711                               # the log shows every session and why it stays alive
//! ```
//!
//! Ctrl-C ends the parent and all children. A client that stays connected delays the end by at most 10 s.

use std::net::TcpStream;

use clap::Parser;
use lenore::daemon::Report;
use lenore::filter::Line;
use lenore::wheel::{ReadWrite, SocketFactory};
use lenore::{Context, Daemon, Exception, Kernel, Result, Session};

mod common;

/// Echo server with a pool of children, each of which serves one connection at a time
#[derive(Parser)]
#[command(name = "echo_prefork", version)]
struct Flags {
    /// Address to listen on
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7777")]
    listen: String,
    #[command(flatten)]
    pool: common::PoolFlags,
    #[command(flatten)]
    daemon: common::DaemonFlags,
    #[command(flatten)]
    config: common::ConfigFlags,
}

/// The heap: each process has a copy of its own from the fork on.
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
        .state("daemon_child", |cx| report(cx, Report::Wait)) // 2. in a new child: ready for a first request
        .state("daemon_accept", accept_one) // 3. the Daemon answers: the next connection may come
        .state("accept", accepted) // 4. it has come
        .state("input", |cx| {
            let line: String = cx.take(0)?;
            if let Some(client) = &cx.heap().client {
                client.put(line.as_str());
            }
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
    let flags: Flags = cx.take(0)?;
    let listener = SocketFactory::tcp(&flags.listen).on_accept("accept").listen(cx)?;
    listener.pause_accept();
    for signal in ["daemon_child", "daemon_accept", "daemon_shutdown"] {
        cx.sig(signal, signal);
    }
    cx.sig("USR2", "peek");
    flags.daemon.say_listening(listener.local_addr()?);
    cx.heap().listener = Some(listener);
    let daemon = flags.daemon.apply(flags.pool.apply(Daemon::builder()));
    // Last of all: from here on this may be another process, without terminal and privileges.
    let daemon = flags.config.apply(daemon, common::Config::read_without_root).spawn(cx)?;
    cx.heap().daemon = Some(daemon);
    Ok(())
}

fn accept_one(cx: &mut Context<'_, Echo>) {
    if let Some(listener) = &cx.heap().listener {
        listener.resume_accept();
    }
}

fn accepted(cx: &mut Context<'_, Echo>) -> Result {
    // At once, or the next connection would be ours as well, and wait here while other children are idle.
    if let Some(listener) = &cx.heap().listener {
        listener.pause_accept();
    }
    report(cx, Report::Req)?;
    let socket: TcpStream = cx.take(0)?;
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
    report(cx, Report::Done)
}

fn report(cx: &mut Context<'_, Echo>, report: Report) -> Result {
    Ok(daemon(cx)?.update_status(cx, report)?)
}

fn daemon(cx: &mut Context<'_, Echo>) -> Result<Daemon> {
    cx.heap().daemon.ok_or_else(|| Exception::new("the Daemon is not spawned yet"))
}

//! An echo server by hand, in one process and without a Daemon: one session serves all clients.
//!
//! ```text
//! cargo run --release --example echo
//! ```
//!
//! It prints `listening on 127.0.0.1:7777, pid 4711`. Then, in another terminal and with the printed pid:
//!
//! ```text
//! printf 'hello\n' | nc -q1 127.0.0.1 7777      # hello
//! kill -USR2 4711                               # the log shows every session and why it stays alive
//! ```
//!
//! Ctrl-C ends it. `echo_server` is the short way: a `component::Server` does all this by itself.

use std::collections::HashMap;
use std::net::TcpStream;

use clap::Parser;
use lenore::filter::Line;
use lenore::wheel::{Failure, ReadWrite, SocketFactory, WheelId};
use lenore::{Context, Kernel, Result, Session};

mod common;

/// Echo server that serves all clients in one process, without a Daemon
#[derive(Parser)]
#[command(name = "echo", version)]
struct Flags {
    /// Address to listen on
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7777")]
    listen: String,
}

#[derive(Default)]
struct Echo {
    listener: Option<SocketFactory>,
    clients: HashMap<WheelId, ReadWrite<Line>>,
}

fn main() -> Result {
    let flags = Flags::parse();
    common::log_to_stderr();
    let mut kernel = Kernel::new()?;
    Session::new(Echo::default())
        .args((flags.listen,))
        .state("_start", start)
        .state("accept", accepted)
        .state("input", |cx| {
            let (line, id) = (cx.take::<String>(0)?, cx.take::<WheelId>(1)?);
            cx.heap().clients[&id].put(line);
            Ok(())
        })
        .state("gone", |cx| {
            let failure: Failure = cx.take(0)?;
            let client = failure.wheel.and_then(|id| cx.heap().clients.remove(&id));
            if let Some(client) = client {
                client.close_after_flush();
            }
            Ok(())
        })
        .state("ended", |cx| {
            cx.sig_handled();
            // Without listener and clients nothing keeps this session alive, and without sessions the kernel returns.
            *cx.heap() = Echo::default();
        })
        .state("peek", |cx| log::info!("{:#}", cx.peek()))
        .spawn(&mut kernel)?;
    kernel.run()?;
    Ok(())
}

fn start(cx: &mut Context<'_, Echo>) -> Result {
    let listener = SocketFactory::tcp(cx.take::<String>(0)?).on_accept("accept").listen(cx)?;
    let address = listener.local_addr()?;
    cx.heap().listener = Some(listener);
    cx.sig("INT", "ended");
    cx.sig("TERM", "ended");
    cx.sig("USR2", "peek");
    // At the end: a user who reads this line may send a signal at once.
    common::say_listening(address);
    Ok(())
}

fn accepted(cx: &mut Context<'_, Echo>) -> Result {
    let socket: TcpStream = cx.take(0)?;
    // Limits: a line over 64 KiB is dropped, and a client that sends without reading has to wait.
    let lines = Line::new().max_length(64 * 1024)?.max_buffer(128 * 1024)?;
    let client = ReadWrite::stream(socket, lines).watermarks(16 * 1024, 64 * 1024).auto_pause();
    let client = client.on_input("input").on_error("gone").start(cx)?;
    cx.heap().clients.insert(client.id(), client);
    Ok(())
}

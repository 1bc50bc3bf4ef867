//! An echo server in the mode that a flag names: one process, a child for each connection, or a pool of children.
//!
//! ```text
//! cargo run --release --example echo_server -- --mode prefork --connections 10
//! ```
//!
//! It prints `listening on 127.0.0.1:7777, pid 4711`. Then, in another terminal and with the printed pid:
//!
//! ```text
//! printf 'hello\n' | nc -q1 127.0.0.1 7777      # hello
//! kill -9 $(pgrep -n -P 4711)                   # the log says so, and another child takes the place
//! kill -USR2 4711                               # the log shows every session and why it stays alive
//! ```
//!
//! Ctrl-C ends the parent and all children. The mode may have a number: `fork:50`, `prefork:8`.

use clap::Parser;
use lenore::component::{Processes, Protocol, Server};
use lenore::filter::Line;
use lenore::{Daemon, Kernel, Result};

mod common;

/// Echo server that is one process, a child for each connection, or a pool of children
#[derive(Parser)]
#[command(name = "echo_server", version)]
struct Flags {
    /// Address to listen on
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7777")]
    listen: String,
    /// How connections are served: single, fork[:CHILDREN] or prefork[:CHILDREN]
    #[arg(long, default_value_t = Processes::Single)]
    mode: Processes,
    /// Connections that a process may have at a time [default: 1 in a pool, any number in a single process]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    connections: Option<u32>,
    #[command(flatten)]
    watch: common::WatchFlags,
}

fn main() -> Result {
    let flags = Flags::parse();
    common::log_to_stderr();
    // Limits what a stranger may send: a line over 64 KiB is dropped, and the next one is answered.
    let lines = Line::new().max_length(64 * 1024)?.max_buffer(128 * 1024)?;
    // With `auto_pause` a client that sends and does not read has to wait.
    let echo = Protocol::new(lines).on_input(|cx, line: String| cx.heap().put(line)).auto_pause();
    let daemon = flags.watch.apply(Daemon::builder());
    let mut server = Server::tcp(flags.listen, echo).processes(flags.mode).daemon(daemon);
    if let Some(connections) = flags.connections {
        server = server.connections_per_child(connections);
    }
    let mut kernel = Kernel::new()?;
    let serving = server.peek_on("USR2").spawn(&mut kernel)?;
    common::say_listening(serving.local_addr());
    Ok(kernel.run()?)
}

//! A reason to fork: a server around a library that leaks, hangs and crashes. Each fault costs one answer.
//!
//! ```text
//! cargo run --release --example isolate
//! ```
//!
//! It prints `listening on 127.0.0.1:7777, pid 4711`. Then, in another terminal:
//!
//! ```text
//! echo one two three | nc -q1 127.0.0.1 7777     # 3 words
//! echo crash | nc -q1 127.0.0.1 7777             # no answer: the call has killed the process that made it
//! echo hang | nc -q9 127.0.0.1 7777              # no answer: the Daemon kills a process that takes longer than 1 s
//! echo four five | nc -q1 127.0.0.1 7777         # 2 words, from another process
//! ```
//!
//! The log says which child was lost, and why:
//!
//! ```text
//! child has ended: pid=4713 slot=1 cause=signal:SIGABRT age=7.012 requests=1
//! child has ended: pid=4714 slot=2 cause=rogue:request_timeout age=12.804 requests=1
//! ```
//!
//! Each call also leaks 1 MiB. A child is replaced after its connection when it has more than 64 MiB, or after 100 connections. Ctrl-C
//! ends the parent and all children. The library is `isolate/fragile.rs`.

use std::time::Duration;

use clap::Parser;
use lenore::component::{Processes, Protocol, Server};
use lenore::filter::Line;
use lenore::{Daemon, Kernel, Result};

mod common;
#[path = "isolate/fragile.rs"]
mod fragile;

/// Server that calls a library with faults, each of which costs one answer
#[derive(Parser)]
#[command(name = "isolate", version)]
struct Flags {
    /// Address to listen on
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7777")]
    listen: String,
}

fn main() -> Result {
    let flags = Flags::parse();
    common::log_to_stderr();
    let lines = Line::new().max_length(4096)?.max_buffer(2 * 4096)?;
    let counting = Protocol::new(lines)
        .on_input(|cx, line: String| cx.heap().put(format!("{} words", fragile::count_words(&line))))
        .idle_timeout(Duration::from_secs(30)); // a client that says nothing would hold a child

    let daemon = Daemon::builder()
        .verbose(true) // the log has a line for each child that begins or ends
        .request_timeout(Duration::from_secs(1)) // against calls that hang
        .memory_limit(64 << 20) // against leaks: a child this large leaves after its connection
        .requests(100) // and every child leaves after so many
        .requests_jitter(10) // but not all at once
        .babysit(Duration::from_millis(500)); // how often the parent looks; a child that hangs gets INT twice, then KILL

    let mut kernel = Kernel::new()?;
    let pool = Processes::PreFork { start_children: 4 };
    let server = Server::tcp(flags.listen, counting).processes(pool).daemon(daemon).spawn(&mut kernel)?;
    common::say_listening(server.local_addr());
    Ok(kernel.run()?)
}

//! Sends each line that is appended to a file to a server. It waits for a slow server, and connects again to one that has gone.
//!
//! ```text
//! nc -lk 127.0.0.1 7777 &
//! cargo run --release --example log_shipper -- --file /tmp/one.log --to 127.0.0.1:7777
//! ```
//!
//! It says `following /tmp/one.log`. Type `echo hello >> /tmp/one.log` in another terminal, and `nc` prints `hello`. End `nc`, and the
//! log says every second that the connection was refused. Start `nc` again, and the lines that were written meanwhile arrive.
//!
//! The program holds at most 64 KiB that the server has not taken. The rest stays in the file, because the wheel that follows the file
//! has an input event only while there is a connection with room. Lines on their way to a server that goes are lost, as TCP does not
//! tell which of them have arrived. `--retry SECONDS` is the time between two attempts. Ctrl-C ends the program. A file that can't be
//! read now is tried again. If the file can't be followed at all, the program ends with exit code 1.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use lenore::component::{Connection, Protocol, TcpClient};
use lenore::filter::{ByteLine, Line};
use lenore::wheel::{Failure, FollowTail, TailEvent};
use lenore::{Context, Exception, Kernel, Result};

mod common;

/// Sends what is appended to a file to a server, and connects again when the server has gone
#[derive(Parser)]
#[command(name = "log_shipper", version)]
struct Flags {
    /// File to follow
    #[arg(long, value_name = "PATH")]
    file: String,
    /// Server to send its lines to
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7777")]
    to: String,
    /// Time between two attempts to connect
    #[arg(long, value_name = "SECONDS", default_value_t = 1, allow_negative_numbers = true)]
    retry: u64,
}

/// The session of the client, which follows the file as well, whether or not there is a connection.
type Cx<'a> = Context<'a, Connection<ByteLine, Option<FollowTail<ByteLine>>>>;

fn main() -> Result {
    let flags = Flags::parse();
    common::log_to_stderr();
    let retry = Duration::from_secs(flags.retry);
    let failure = Rc::new(Cell::new(None));
    let reason = failure.clone();
    let mut kernel = Kernel::new()?;
    let lines = Protocol::with_heap(Line::new().bytes(), || None)
        .watermarks(16 * 1024, 64 * 1024)
        .on_connect(resume)
        .on_high(pause)
        .on_low(resume)
        .on_disconnect(move |cx| {
            pause(cx);
            if cx.heap().is_some() {
                cx.delay("reconnect", retry, ());
            }
        })
        .state("line", |cx: &mut Cx<'_>| {
            let line = cx.take::<Vec<u8>>(0)?;
            cx.heap().put(line);
            Ok(())
        })
        .state("failed", move |cx| {
            reason.set(Some(cx.arg::<Failure>(0)?.to_string()));
            cx.yield_("ended", ());
            Ok(())
        })
        .state("ended", |cx| {
            cx.sig_handled();
            **cx.heap() = None;
            cx.delay_clear("reconnect");
            cx.yield_("shutdown", ()); // after what was put is written
        });
    TcpClient::new(flags.to, lines)
        .on_started(move |cx| {
            let tail =
                FollowTail::path(&flags.file, Line::new().bytes()).on_input("line").on_error("failed").start(cx)?;
            **cx.heap() = Some(tail);
            pause(cx);
            cx.sig("INT", "ended");
            cx.sig("TERM", "ended");
            common::say(std::io::stderr(), format_args!("following {}", flags.file))?;
            Ok(())
        })
        .on_connect_error(move |cx, failure| {
            log::warn!("{}: {failure}", cx.heap().target());
            cx.delay("reconnect", retry, ());
        })
        .spawn(&mut kernel)?;
    kernel.run()?;
    failure.take().map_or(Ok(()), |reason: String| Err(Exception::new(reason)))
}

fn resume(cx: &mut Cx<'_>) {
    if let Some(tail) = &**cx.heap() {
        tail.event(TailEvent::Input, "line");
    }
}

/// The lines wait in the file.
fn pause(cx: &mut Cx<'_>) {
    if let Some(tail) = &**cx.heap() {
        tail.event_clear(TailEvent::Input);
    }
}

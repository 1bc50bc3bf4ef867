//! A chat server in one process: all clients hear what one of them says.
//!
//! ```text
//! cargo run --release --example chat
//! nc 127.0.0.1 7777        # in several terminals; the first line is your name
//! ```
//!
//! The server prints `listening on 127.0.0.1:7777, pid 4711`. Each `nc` shows `* what is your name?`, then what the others say:
//!
//! ```text
//! * lenore is here
//! lenore: hello
//! * lenore has left
//! ```
//!
//! A client that reads more slowly than others talk does not delay them. Once 256 KiB wait for the client, it misses lines, and is told how
//! many when it has read the rest. Ctrl-C ends the server.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use lenore::component::{Connection, Processes, Protocol, Server};
use lenore::daemon::Shutdown;
use lenore::filter::{FilterError, Line};
use lenore::wheel::ReadWrite;
use lenore::{Context, Daemon, Kernel, Result, Session, SessionId};

mod common;

/// Chat server in one process: what one client says, all others hear
#[derive(Parser)]
#[command(name = "chat", version)]
struct Flags {
    /// Address to listen on
    #[arg(value_name = "ADDR:PORT", default_value = "127.0.0.1:7777")]
    listen: String,
}

/// What is kept of each client.
#[derive(Default)]
struct Guest {
    name: Option<String>,
    missed: u32,
}

type Cx<'a> = Context<'a, Connection<Line, Guest>>;

fn main() -> Result {
    let flags = Flags::parse();
    common::log_to_stderr();
    let mut kernel = Kernel::new()?;

    // This session knows which guests are here. A guest's session posts lines to it, and need not know the others.
    Session::new(BTreeSet::<SessionId>::new())
        .state("_start", |cx| Ok(cx.alias_set("room")?))
        .state("enter", |cx| {
            let guest = cx.sender();
            cx.heap().insert(guest);
        })
        .state("leave", |cx| {
            let guest = cx.sender();
            cx.heap().remove(&guest);
        })
        .state("say", |cx| {
            let (line, speaker) = (cx.take::<Rc<str>>(0)?, cx.sender());
            let (guests, mut calls) = cx.split();
            for guest in guests.iter().filter(|guest| **guest != speaker) {
                // Fails for a guest that has just gone. Its `leave` is on the way.
                let _ = calls.post(*guest, "hear", (Rc::clone(&line),));
            }
            Ok(())
        })
        .spawn(&mut kernel)?;

    // Limits what a stranger who never ends a line can make the server keep.
    let lines = Line::new().max_length(LONGEST)?.max_buffer(128 * 1024)?;
    let chat = Protocol::with_heap(lines, Guest::default)
        .on_connect(|cx| cx.heap().put("* what is your name?"))
        .on_input(input)
        // A guest who sends what is not text is told so. A guest who sends a line that is too long has to leave.
        .on_refused(|cx, error| {
            cx.heap().put(format!("* {error}"));
            if !matches!(error, FilterError::NotUtf8 { .. }) {
                cx.yield_("shutdown", ());
            }
        })
        .on_disconnect(left)
        .watermarks(ENOUGH / 4, ENOUGH)
        .write_timeout(Duration::from_secs(2)) // at the end, for guests that don't read
        .on_low(|cx| {
            let missed = std::mem::take(&mut cx.heap().missed);
            if missed > 0 {
                cx.heap().put(format!("* you have missed {missed} lines"));
            }
        })
        .state("hear", |cx| {
            let line = cx.take::<Rc<str>>(0)?;
            let guest = cx.heap();
            if guest.wheel().is_some_and(ReadWrite::is_high) {
                guest.missed += 1;
            } else {
                guest.put(&*line);
            }
            Ok(())
        });
    // Guests stay for as long as they like. A graceful end would wait for them.
    let daemon = Daemon::builder().term(Shutdown::Immediate);
    let server = Server::tcp(flags.listen, chat)
        .processes(Processes::Single)
        .daemon(daemon)
        .peek_on("USR2")
        .spawn(&mut kernel)?;
    common::say_listening(server.local_addr());
    Ok(kernel.run()?)
}

fn input(cx: &mut Cx<'_>, line: String) -> Result {
    match &cx.heap().name {
        Some(name) => {
            let line = format!("{name}: {line}");
            say(cx, line)
        }
        None => {
            cx.post("room", "enter", ())?;
            let news = format!("* {line} is here");
            cx.heap().name = Some(line);
            say(cx, news)
        }
    }
}

fn left(cx: &mut Cx<'_>) -> Result {
    // A guest without a name was never in the room.
    let Some(name) = cx.heap().name.take() else { return Ok(()) };
    cx.post("room", "leave", ())?;
    say(cx, format!("* {name} has left"))
}

fn say(cx: &mut Cx<'_>, line: String) -> Result {
    Ok(cx.post("room", "say", (Rc::<str>::from(line),))?)
}

/// How many bytes a line may have.
const LONGEST: usize = 16 * 1024;

/// How many bytes may wait for a client before it misses lines.
const ENOUGH: usize = 256 * 1024;

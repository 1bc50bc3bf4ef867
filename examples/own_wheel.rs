//! Counters over UDP: a session with a wheel that the crate does not have.
//!
//! ```text
//! cargo run --release --example own_wheel
//! ```
//!
//! It prints `listening on 127.0.0.1:7779, pid 4711`. Then, in another terminal and with the printed pid:
//!
//! ```text
//! printf 'apples 2' | nc -u -w1 127.0.0.1 7779      # apples 2
//! printf 'apples 3' | nc -u -w1 127.0.0.1 7779      # apples 5
//! kill -USR2 4711                                   # the log shows the wheel by the name of its type
//! ```
//!
//! The wheel is in `own_wheel/datagrams.rs`. The documentation of `lenore::wheel::own` explains it. Ctrl-C ends the program.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};

use clap::Parser;
use lenore::wheel::Failure;
use lenore::wheel::own::Wheel;
use lenore::{Context, Exception, Kernel, Result, Session};

mod common;
#[path = "own_wheel/datagrams.rs"]
mod datagrams;

use datagrams::Datagrams;

/// Counts what is sent to it over UDP, with a wheel of its own
#[derive(Parser)]
#[command(name = "own_wheel", version)]
struct Flags {
    /// Address to receive on
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7779")]
    listen: String,
}

#[derive(Default)]
struct Counter {
    datagrams: Option<Wheel<Datagrams>>,
    counts: BTreeMap<String, u64>,
}

fn main() -> Result {
    let flags = Flags::parse();
    common::log_to_stderr();
    let socket = UdpSocket::bind(&flags.listen)
        .map_err(|error| Exception::new(format!("can't receive on {}: {error}", flags.listen)))?;
    let mut kernel = Kernel::new()?;
    Session::new(Counter::default())
        .args((socket,))
        .state("_start", start)
        .state("datagram", count)
        .state("failed", |cx| {
            log::error!("no more datagrams: {}", cx.arg::<Failure>(0)?);
            cx.heap().datagrams = None;
            Ok(())
        })
        .state("ended", |cx| {
            cx.sig_handled();
            // Nothing else keeps this session alive.
            cx.heap().datagrams = None;
        })
        .state("peek", |cx| log::info!("{:#}", cx.peek()))
        .spawn(&mut kernel)?;
    kernel.run()?;
    Ok(())
}

fn start(cx: &mut Context<'_, Counter>) -> Result {
    let socket: UdpSocket = cx.take(0)?;
    let address = socket.local_addr()?;
    let source = Datagrams { socket, on_datagram: "datagram".into(), on_error: "failed".into() };
    cx.heap().datagrams = Some(Wheel::start(source, cx)?);
    cx.sig("INT", "ended");
    cx.sig("TERM", "ended");
    cx.sig("USR2", "peek");
    // At the end: a user who reads this line may send a signal at once.
    common::say_listening(address);
    Ok(())
}

/// Adds a number to what is counted under a name, and answers with the sum.
fn count(cx: &mut Context<'_, Counter>) -> Result {
    let (bytes, peer) = (cx.take::<Vec<u8>>(0)?, cx.take::<SocketAddr>(1)?);
    let text = String::from_utf8_lossy(&bytes);
    let mut words = text.split_whitespace();
    let answer = match (words.next(), words.next().map(str::parse::<u32>), words.next()) {
        (Some(name), Some(Ok(number)), None) => {
            let sum = cx.heap().counts.entry(name.to_owned()).or_default();
            *sum = sum.saturating_add(number.into());
            format!("{name} {sum}\n")
        }
        _ => "expected a name and a number\n".to_owned(),
    };
    if let Some(wheel) = &cx.heap().datagrams
        && let Some(Err(error)) = wheel.with(|datagrams| datagrams.send(answer.as_bytes(), peer))
    {
        log::warn!("no answer to {peer}: {error}");
    }
    Ok(())
}

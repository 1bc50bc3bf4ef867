//! An echo server in whichever mode it is told to: one process, a child for each connection, or a pool of children.
//!
//! ```text
//! cargo run --release --example echo_server -- --mode prefork --connections 10
//! printf 'hello\n' | nc -q1 127.0.0.1 7777      # hello
//! pkill -USR2 -o echo_server                    # the log shows every session and why it stays alive
//! ```
//!
//! Ctrl-C ends it and all its children. The mode may have a number: `fork:50`, `prefork:8`.

use std::error::Error;
use std::process::ExitCode;

use lenore::Kernel;
use lenore::component::{Mode, Protocol, Server};
use lenore::filter::Line;

const USAGE: &str = "usage: echo_server [--listen ADDR:PORT] [--mode single|fork|prefork] [--connections N]";

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), Box<dyn Error>> {
    simplelog::WriteLogger::init(log::LevelFilter::Info, simplelog::Config::default(), std::io::stderr())?;
    let (mut address, mut mode, mut connections) = (String::from("127.0.0.1:7777"), Mode::Single, None);
    let mut words = std::env::args().skip(1);
    while let Some(flag) = words.next() {
        let value = words.next().ok_or(USAGE)?;
        match flag.as_str() {
            "--listen" => address = value,
            "--mode" => mode = value.parse()?,
            "--connections" => connections = Some(value.parse()?),
            _ => return Err(USAGE.into()),
        }
    }

    // Whoever sends a longer line, or never ends one, is not served; without limits 512 MiB would be kept.
    let lines = Line::new().max_length(64 * 1024)?.max_buffer(2 * 64 * 1024)?;
    let echo = Protocol::new(lines)
        .on_input(|cx, line: String| cx.heap().put(line))
        .marks(16 * 1024, 64 * 1024) // a client that sends and does not read
        .auto_pause(); //               is not read from
    let mut server = Server::tcp(address, echo).mode(mode);
    if let Some(connections) = connections {
        server = server.connections_per_child(connections);
    }
    let mut kernel = Kernel::new()?;
    let serving = server.peek_on("USR2").spawn(&mut kernel)?;
    println!("listening on {}", serving.local_addr());
    Ok(kernel.run()?)
}

//! `line_echo_64`: how many round trips a second does a line echo make, with 64 clients that stay?
//!
//! One process, a thread for the server and one for the clients; the peers are the same echo on nothing but mio, and on
//! calloop.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use lenore::filter::Line;
use lenore::wheel::{Failure, ReadWrite, SocketFactory, WheelId};
use lenore::{Context, Error, Kernel, Session};

mod peers;
mod ratios;

use peers::load::HeldLoad;
use peers::{Server, bare_mio, calloop_echo};
use ratios::{Budget, Rounds};

/// How many clients there are.
const CONNECTIONS: usize = 64;

fn main() -> io::Result<()> {
    let lenore = Server::start_bound(serve)?;
    let mio = Server::start(bare_mio::serve)?;
    let calloop = Server::start(calloop_echo::serve)?;
    let mut loads = [&lenore, &mio, &calloop].map(|server| HeldLoad::connect(server.addr(), CONNECTIONS));
    Rounds::measure(
        "line_echo_64",
        CONNECTIONS as u64,
        &mut loads,
        &[
            ("lenore", |[lenore, _, _], bencher| bencher.iter_custom(|n| round_trips(lenore, n))),
            ("bare_mio", |[_, mio, _], bencher| bencher.iter_custom(|n| round_trips(mio, n))),
            ("calloop", |[_, _, calloop], bencher| bencher.iter_custom(|n| round_trips(calloop, n))),
        ],
    )
    .throughput("lenore", "bare_mio", Budget::AtLeast(0.95))
    .throughput("lenore", "calloop", Budget::AtLeast(1.0))
    .print();
    Ok(())
}

/// As many on each connection as Criterion asks for.
fn round_trips(load: &mut io::Result<HeldLoad>, rounds: u64) -> Duration {
    let load = load.as_mut().expect("a server that listens");
    load.round_trips(rounds).expect("a server that echoes")
}

/// The server's heap.
struct Echo {
    listener: Option<SocketFactory>,
    clients: HashMap<WheelId, ReadWrite<Line>>,
    stop: Arc<AtomicBool>,
}

fn serve(bound: &Sender<SocketAddr>, stop: Arc<AtomicBool>) -> io::Result<()> {
    let bound = bound.clone();
    let run = || -> Result<(), Error> {
        let mut kernel = Kernel::new()?;
        Session::new(Echo { listener: None, clients: HashMap::new(), stop })
            .state("_start", move |cx| {
                let listener = SocketFactory::tcp("127.0.0.1:0").on_accept("accept").listen(cx)?;
                bound.send(listener.local_addr()?)?;
                cx.heap().listener = Some(listener);
                Ok(())
            })
            .state("accept", Echo::accept)
            .state("input", Echo::input)
            .state("closed", Echo::closed)
            .spawn(&mut kernel)?;
        kernel.run()
    };
    run().map_err(|error| io::Error::other(error.to_string()))
}

impl Echo {
    fn accept(cx: &mut Context<'_, Echo>) -> lenore::Result {
        let socket: TcpStream = cx.take(0)?;
        let client = ReadWrite::stream(socket, Line::new()).on_input("input").on_error("closed").start(cx)?;
        let echo = cx.heap();
        echo.clients.insert(client.id(), client);
        if echo.stop.load(Ordering::Acquire) {
            echo.listener = None;
            echo.clients.clear();
        }
        Ok(())
    }

    fn input(cx: &mut Context<'_, Echo>) -> lenore::Result {
        let (line, id) = (cx.take::<String>(0)?, cx.take::<WheelId>(1)?);
        cx.heap().clients[&id].put(line);
        Ok(())
    }

    fn closed(cx: &mut Context<'_, Echo>) -> lenore::Result {
        let failure: Failure = cx.take(0)?;
        failure.wheel.and_then(|id| cx.heap().clients.remove(&id));
        Ok(())
    }
}

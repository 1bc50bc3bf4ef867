//! `tls_echo_64` and `tls_bulk`: how many round trips a second does a line echo over TLS make, with 64 clients that stay and short
//! lines, and with 4 clients and lines of 60,000 bytes?
//!
//! One process, a thread for the server and one for the clients; the peer does the same on nothing but mio and rustls.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use lenore::filter::Line;
use lenore::tls;
use lenore::wheel::{Failure, ReadWrite, SocketFactory, WheelId};
use lenore::{Context, Error, Kernel, Session};

mod peers;
mod ratios;
#[path = "peers/tls_load.rs"]
mod tls_load;
#[path = "peers/tls_mio.rs"]
mod tls_mio;

use peers::Server;
use ratios::{Budget, Rounds};
use tls_load::TlsLoad;

fn main() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let (server, client) = settings(dir.path()).map_err(io::Error::other)?;
    measure("tls_echo_64", &server, &client, 64, 32)?;
    measure("tls_bulk", &server, &client, 4, 60_000)
}

/// Makes a certificate.
fn settings(dir: &Path) -> Result<(tls::Server, tls::Client), Box<dyn std::error::Error + Send + Sync>> {
    let made = rcgen::generate_simple_self_signed([String::from("localhost")])?;
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&cert, made.cert.pem())?;
    std::fs::write(&key, made.signing_key.serialize_pem())?;
    Ok((tls::Server::pem(&cert, key).build()?, tls::Client::trusting(cert).build()?))
}

fn measure(group: &str, server: &tls::Server, client: &tls::Client, clients: usize, octets: usize) -> io::Result<()> {
    let (own, config) = (server.clone(), server.config());
    let lenore = Server::start_bound(move |bound, stop| serve(bound, stop, own))?;
    let mio = Server::start(move |listener, stop| tls_mio::serve(listener, stop, &config))?;
    let connect = |server: &Server| TlsLoad::connect(server.addr(), &client.config(), clients, octets);
    let mut loads = [connect(&lenore)?, connect(&mio)?];
    Rounds::measure(
        group,
        clients as u64,
        &mut loads,
        &[
            ("lenore", |[lenore, _], bencher| bencher.iter_custom(|n| round_trips(lenore, n))),
            ("bare_mio", |[_, mio], bencher| bencher.iter_custom(|n| round_trips(mio, n))),
        ],
    )
    .throughput("lenore", "bare_mio", Budget::AtLeast(0.9))
    .print();
    Ok(())
}

/// As many on each connection as Criterion asks for.
fn round_trips(load: &mut TlsLoad, rounds: u64) -> Duration {
    load.round_trips(rounds).expect("a server that echoes")
}

/// The server's heap.
struct Echo {
    tls: tls::Server,
    listener: Option<SocketFactory>,
    clients: HashMap<WheelId, ReadWrite<Line>>,
    stop: Arc<AtomicBool>,
}

fn serve(bound: &Sender<SocketAddr>, stop: Arc<AtomicBool>, tls: tls::Server) -> io::Result<()> {
    let bound = bound.clone();
    let run = || -> Result<(), Error> {
        let mut kernel = Kernel::new()?;
        Session::new(Echo { tls, listener: None, clients: HashMap::new(), stop })
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
        let stream = cx.heap().tls.accept(socket)?;
        let client = ReadWrite::transport(stream, Line::new()).on_input("input").on_error("closed").start(cx)?;
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

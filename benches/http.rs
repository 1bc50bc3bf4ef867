//! `http_hello_64`: how many requests a second does a server answer that says hello, with 64 clients that stay?
//!
//! One process, a thread for the server and one for the clients; the peer does the same on nothing but mio and
//! httparse. And `http_prefork`: the example `http_prefork`, against children that block in accept(2) and read(2).
//!
//! The servers are examples, of lenore and of this package. Build them first:
//! `cargo build --release --workspace --examples`.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use lenore::filter::http::{Httpd, Incoming, Outgoing};
use lenore::wheel::{Failure, ReadWrite, SocketFactory, WheelId};
use lenore::{Context, Error, Kernel, Session};

#[path = "peers/http_load.rs"]
mod http_load;
#[path = "peers/http_mio.rs"]
mod http_mio;
mod peers;
mod ratios;
use http_load::HttpLoad;
use peers::Server;
use peers::installed::start;
use ratios::{Budget, Rounds};
use util::Running;

/// How many clients there are.
const CONNECTIONS: usize = 64;

/// How many children a pool has, and how many clients: each keeps a child.
const CHILDREN: usize = 4;

fn main() -> io::Result<()> {
    hello()?;
    prefork()
}

fn hello() -> io::Result<()> {
    let lenore = Server::start_bound(serve)?;
    let mio = Server::start(http_mio::serve)?;
    let mut loads = [HttpLoad::connect(lenore.addr(), CONNECTIONS)?, HttpLoad::connect(mio.addr(), CONNECTIONS)?];
    Rounds::measure(
        "http_hello_64",
        CONNECTIONS as u64,
        &mut loads,
        &[
            ("lenore", |[lenore, _], bencher| bencher.iter_custom(|n| round_trips(lenore, n))),
            ("bare_mio", |[_, mio], bencher| bencher.iter_custom(|n| round_trips(mio, n))),
        ],
    )
    .throughput("lenore", "bare_mio", Budget::AtLeast(0.85))
    .print();
    Ok(())
}

fn prefork() -> io::Result<()> {
    let children = CHILDREN.to_string();
    let pool = ["--start-children", &children, "--min-spare", "1", "--max-children", &children];
    let args = [&["--listen", "127.0.0.1:0", "--requests", "0"][..], &pool].concat();
    let lenore = start("http_prefork", &args);
    let bare = start("accept_http", &["--children", &children]);
    let connect = |server: &Running| HttpLoad::connect(server.listening_addr(), CHILDREN);
    let mut loads = [connect(&lenore)?, connect(&bare)?];
    Rounds::measure(
        "http_prefork",
        CHILDREN as u64,
        &mut loads,
        &[
            ("lenore", |[lenore, _], bencher| bencher.iter_custom(|n| round_trips(lenore, n))),
            ("accept", |[_, accept], bencher| bencher.iter_custom(|n| round_trips(accept, n))),
        ],
    )
    .throughput("lenore", "accept", Budget::AtLeast(0.85))
    .print();
    Ok(())
}

/// As many on each connection as Criterion asks for.
fn round_trips(load: &mut HttpLoad, rounds: u64) -> Duration {
    load.round_trips(rounds).expect("a server that answers")
}

/// The server's heap.
struct Hello {
    listener: Option<SocketFactory>,
    clients: HashMap<WheelId, ReadWrite<Httpd>>,
    stop: Arc<AtomicBool>,
}

fn serve(bound: &Sender<SocketAddr>, stop: Arc<AtomicBool>) -> io::Result<()> {
    let bound = bound.clone();
    let run = || -> Result<(), Error> {
        let mut kernel = Kernel::new()?;
        Session::new(Hello { listener: None, clients: HashMap::new(), stop })
            .state("_start", move |cx| {
                let listener = SocketFactory::tcp("127.0.0.1:0").on_accept("accept").listen(cx)?;
                bound.send(listener.local_addr()?)?;
                cx.heap().listener = Some(listener);
                Ok(())
            })
            .state("accept", Hello::accept)
            .state("input", Hello::input)
            .state("closed", Hello::closed)
            .spawn(&mut kernel)?;
        kernel.run()
    };
    run().map_err(|error| io::Error::other(error.to_string()))
}

impl Hello {
    fn accept(cx: &mut Context<'_, Hello>) -> lenore::Result {
        let socket: TcpStream = cx.take(0)?;
        let client = ReadWrite::stream(socket, Httpd::new()).on_input("input").on_error("closed").start(cx)?;
        let hello = cx.heap();
        hello.clients.insert(client.id(), client);
        if hello.stop.load(Ordering::Acquire) {
            hello.listener = None;
            hello.clients.clear();
        }
        Ok(())
    }

    fn input(cx: &mut Context<'_, Hello>) -> lenore::Result {
        let (record, id) = (cx.take::<Incoming>(0)?, cx.take::<WheelId>(1)?);
        let response = match record {
            Incoming::Request(request) if request.method() == "GET" && request.path() == "/hello" => {
                request.reply(200).header("Content-Type", "text/plain").body("hello\n")
            }
            Incoming::Request(request) => request.reply(404).page("nothing"),
            Incoming::Refused(refusal) => refusal.response(),
            _ => return Ok(()),
        };
        let closes = response.closes();
        let clients = &mut cx.heap().clients;
        clients[&id].put(Outgoing::Response(response));
        if closes {
            clients.remove(&id).into_iter().for_each(ReadWrite::close_after_flush);
        }
        Ok(())
    }

    fn closed(cx: &mut Context<'_, Hello>) -> lenore::Result {
        let failure: Failure = cx.take(0)?;
        failure.wheel.and_then(|id| cx.heap().clients.remove(&id));
        Ok(())
    }
}

//! A pre-forking web server for the files below a directory: each child serves one connection at a time.
//!
//! ```text
//! cargo run --release --features http --example http_prefork -- --root target/doc
//! curl -i http://127.0.0.1:7780/hello           # or any browser
//! ab -k -n 10000 -c 8 http://127.0.0.1:7780/hello
//! pkill -USR2 -o http_prefork                   # the log shows every session and why it stays alive
//! ```
//!
//! Without `--root` there is only `/hello`. Ctrl-C ends it and all its children, after the response in hand.

use std::fs::File;
use std::io::{self, Read};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use common::Flags;
use lenore::daemon::{DaemonBuilder, Report};
use lenore::filter::http::{Httpd, Incoming, Outgoing, Response};
use lenore::wheel::{ReadWrite, SocketFactory};
use lenore::{Context, Daemon, Exception, Kernel, Result, Session};

mod common;
#[path = "http_prefork/site.rs"]
mod site;

use site::{Answer, Site};

const USAGE: &str = "http_prefork [--listen ADDR:PORT] [--root DIRECTORY] [--keep-alive SECONDS] [--start-children N] \
                     [--min-spare N] [--max-spare N] [--max-children N] [--requests N]";

/// The heap: each process has a copy of its own from the fork on.
struct Server {
    daemon: Option<Daemon>,
    site: Site,
    /// How long a client may take for a request, and for some of a response.
    patience: Duration,
    listener: Option<SocketFactory>,
    client: Option<Client>,
}

struct Client {
    wheel: ReadWrite<Httpd>,
    /// The file that is being sent, cut to the length that was promised.
    file: Option<io::Take<File>>,
    /// Whether it has had a response.
    answered: bool,
    /// The response in hand is the last.
    last: bool,
}

fn main() -> ExitCode {
    common::exit(run())
}

fn run() -> Result<Result<(), Box<dyn std::error::Error>>, common::Usage> {
    let mut flags = Flags::new(&[USAGE, common::DAEMON_FLAGS]);
    let address = flags.value("--listen")?.unwrap_or_else(|| String::from("127.0.0.1:7780"));
    let root: Option<PathBuf> = flags.value("--root")?;
    let patience: f64 = flags.value("--keep-alive")?.unwrap_or(15.0);
    let daemon = common::daemon_settings(&mut flags, Daemon::builder().start_children(4).requests(1000))?;
    let daemon = flags.set("--start-children", daemon, DaemonBuilder::start_children)?;
    let daemon = flags.set("--min-spare", daemon, DaemonBuilder::min_spare)?;
    let daemon = flags.set("--max-spare", daemon, DaemonBuilder::max_spare)?;
    let daemon = flags.set("--max-children", daemon, DaemonBuilder::max_children)?;
    let daemon = flags.set("--requests", daemon, DaemonBuilder::requests)?;
    flags.finish()?;
    common::log_to_stderr(log::LevelFilter::Info);
    Ok(serve(daemon, address, root, patience))
}

fn serve(
    settings: DaemonBuilder,
    address: String,
    root: Option<PathBuf>,
    patience: f64,
) -> Result<(), Box<dyn std::error::Error>> {
    let (site, patience) = (Site::new(root)?, Duration::try_from_secs_f64(patience)?);
    let mut kernel = Kernel::new()?;
    Session::new(Server { daemon: None, site, patience, listener: None, client: None })
        .args((address, settings))
        .state("_start", start)
        .state("daemon_child", |cx| report(cx, Report::Wait))
        .state("daemon_accept", |cx| cx.heap().listener.iter().for_each(SocketFactory::resume_accept))
        .state("accept", accepted)
        .state("input", input)
        .state("flushed", go_on)
        .state("late", late)
        .state("gone", close)
        .state("daemon_shutdown", shutdown)
        .state("peek", |cx| {
            log::info!("{}", daemon(cx)?.peek(cx, true)?);
            Ok(())
        })
        .spawn(&mut kernel)?;
    Ok(kernel.run()?)
}

/// Before any child exists: one listener for all of them. The parent never accepts.
fn start(cx: &mut Context<'_, Server>) -> Result {
    let listener = SocketFactory::tcp(cx.take::<String>(0)?).on_accept("accept").listen(cx)?;
    listener.pause_accept();
    for signal in ["daemon_child", "daemon_accept", "daemon_shutdown"] {
        cx.sig(signal, signal);
    }
    cx.sig("USR2", "peek");
    println!("listening on {}", listener.local_addr()?);
    cx.heap().listener = Some(listener);
    // Last of all: from here on this may be another process, without terminal and privileges.
    let daemon = cx.take::<DaemonBuilder>(1)?.spawn(cx)?;
    cx.heap().daemon = Some(daemon);
    Ok(())
}

fn accepted(cx: &mut Context<'_, Server>) -> Result {
    cx.heap().listener.iter().for_each(SocketFactory::pause_accept);
    report(cx, Report::Req)?;
    let socket: TcpStream = cx.take(0)?;
    socket.set_nodelay(true)?;
    let wheel = ReadWrite::new(socket, Httpd::new().max_content(64 * 1024));
    let wheel = wheel.on_input("input").on_flushed("flushed").on_error("gone");
    // Who sends requests without reading what comes of them has to wait.
    let wheel = wheel.marks(64 * 1024, 256 * 1024).auto_pause().patience(cx.heap().patience).start(cx)?;
    cx.heap().client = Some(Client { wheel, file: None, answered: false, last: false });
    wait(cx);
    Ok(())
}

/// A request, or what is none.
fn input(cx: &mut Context<'_, Server>) -> Result {
    let record = cx.take::<Incoming>(0)?;
    let server = cx.heap();
    let Some(client) = &mut server.client else { return Ok(()) };
    let Answer { response, file } = match record {
        Incoming::Request(request) => server.site.answer(&request),
        // Whatever the body is, it won't be wanted. Some clients send it all the same.
        Incoming::Expects(request) => server.site.answer(&request).last(),
        Incoming::Refused(refusal) => refusal.response().into(),
        Incoming::Piece(_) | Incoming::End(_) => return Ok(()),
    };
    client.last = response.closes();
    client.file = file;
    client.wheel.put(Outgoing::Response(response));
    match client.file {
        Some(_) => go_on(cx),
        None => finish(cx),
    }
}

/// Sends some more of the file, if there is one. More comes when that is flushed; other requests have to wait.
fn go_on(cx: &mut Context<'_, Server>) -> Result {
    let Some(client) = &mut cx.heap().client else { return Ok(()) };
    let Some(file) = &mut client.file else { return Ok(()) };
    let mut piece = Vec::new();
    file.take(PIECE).read_to_end(&mut piece)?;
    let is_over = file.limit() == 0;
    if !is_over && piece.is_empty() {
        // It has become shorter than promised. Only the end of the connection can tell that.
        return close(cx);
    }
    client.wheel.put(Outgoing::Piece(piece));
    if is_over {
        client.file = None;
        client.wheel.put(Outgoing::End);
        return finish(cx);
    }
    client.wheel.pause_input();
    wait(cx);
    Ok(())
}

/// A response is complete.
fn finish(cx: &mut Context<'_, Server>) -> Result {
    let Some(client) = &mut cx.heap().client else { return Ok(()) };
    client.answered = true;
    if client.last {
        return close(cx);
    }
    client.wheel.resume_input();
    wait(cx);
    Ok(())
}

/// Begins to wait for the client, anew.
fn wait(cx: &mut Context<'_, Server>) {
    let patience = cx.heap().patience;
    cx.delay("late", patience, ());
}

/// The client has sent no whole request in time, or has not read.
fn late(cx: &mut Context<'_, Server>) -> Result {
    match &cx.heap().client {
        // Dropped, and not flushed: that would take for ever.
        Some(client) if client.file.is_some() || client.wheel.driver_out_octets() > 0 => cx.heap().client = None,
        Some(client) if !client.answered => {
            client.wheel.put(Outgoing::Response(Response::timed_out()));
        }
        _ => {}
    }
    close(cx)
}

/// The connection is over. What was put for it is still written.
fn close(cx: &mut Context<'_, Server>) -> Result {
    cx.delay_clear("late");
    cx.heap().client.take().into_iter().for_each(|client| client.wheel.close_after_flush());
    report(cx, Report::Done)
}

/// A response in hand is still finished; nobody else is waited for.
fn shutdown(cx: &mut Context<'_, Server>) -> Result {
    cx.heap().listener = None;
    match &mut cx.heap().client {
        Some(client) if client.file.is_some() => client.last = true,
        Some(_) => return close(cx),
        None => {}
    }
    Ok(())
}

fn report(cx: &mut Context<'_, Server>, report: Report) -> Result {
    Ok(daemon(cx)?.update_status(cx, report)?)
}

fn daemon(cx: &mut Context<'_, Server>) -> Result<Daemon> {
    cx.heap().daemon.ok_or_else(|| Exception::new("the Daemon is not spawned yet"))
}

/// How much of a file is read at a time.
const PIECE: u64 = 64 * 1024;

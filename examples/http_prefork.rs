//! A pre-forking web server for the files below a directory. Each child serves one connection at a time.
//!
//! Read `http_service` first. That program has a `component::http::Service`, which does by itself what this one does by hand: talk to
//! the Daemon, wait for a client no longer than so many seconds, and send a file piece by piece.
//!
//! ```text
//! cargo run --release --features http --example http_prefork -- --root target/doc
//! ```
//!
//! It prints `listening on 127.0.0.1:7780, pid 4711`. Then, with the printed pid:
//!
//! ```text
//! curl -i http://127.0.0.1:7780/hello           # HTTP/1.1 200 OK ... hello
//! ab -k -n 10000 -c 8 http://127.0.0.1:7780/hello
//! kill -HUP 4711                                # with --config FILE and --logfile FILE: opens both again
//! kill -USR2 4711                               # the log shows every session and why it stays alive
//! ```
//!
//! Without `--root` there is only `/hello`. Ctrl-C ends the server after the responses in hand.
//!
//! A connection stays with its child for `--keep-alive` seconds after a response. With 0 each connection has one request. When all
//! children have a connection and another client waits, the server closes the connection that has been idle for longest.

use std::fs::File;
use std::io::{self, Read};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use lenore::daemon::Report;
use lenore::filter::http::{Httpd, Incoming, Outgoing, Response};
use lenore::wheel::{ReadWrite, SocketFactory};
use lenore::{Context, Daemon, Exception, Kernel, Result, Session};

mod common;
#[path = "http_prefork/site.rs"]
mod site;

use common::Config;
use site::{Answer, Site};

/// Web server with a pool of children, each of which serves one connection at a time
#[derive(Parser)]
#[command(name = "http_prefork", version)]
struct Flags {
    /// Address to listen on
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7780")]
    listen: String,
    /// Directory of the files to serve [default: none, there is only /hello]
    #[arg(long, value_name = "DIRECTORY")]
    root: Option<PathBuf>,
    /// How long a client may take for its next request; 0 for one request on each connection
    #[arg(long, value_name = "SECONDS", value_parser = common::seconds, default_value = "15", allow_negative_numbers = true)]
    keep_alive: Duration,
    #[command(flatten)]
    pool: common::PoolFlags,
    #[command(flatten)]
    daemon: common::DaemonFlags,
    #[command(flatten)]
    config: common::ConfigFlags,
}

/// The heap: each process has a copy of its own from the fork on.
struct Server {
    daemon: Option<Daemon>,
    /// The command line names a configuration.
    has_config: bool,
    site: Site,
    /// How long a client may take for a request, and for some of a response.
    patience: Duration,
    /// Whether a connection has more than one request.
    keeps: bool,
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
    /// The Daemon was told that the client has nothing in hand.
    kept: bool,
}

/// What the alarm `late` is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing has come for a while.
    Idle,
    /// The client's time is up.
    Late,
}

impl Client {
    /// The client waits for no answer, and has sent no part of a request.
    fn is_idle(&self) -> bool {
        let has_all = self.file.is_none() && self.wheel.pending_output() == 0;
        has_all && self.wheel.input_filter(|httpd| httpd.is_between_requests())
    }
}

fn main() -> Result {
    let flags = Flags::parse();
    common::log_to_stderr();
    let (site, keep_alive) = (Site::new(flags.root.clone())?, flags.keep_alive);
    let keeps = !keep_alive.is_zero();
    let patience = if keeps { keep_alive } else { PATIENCE };
    let mut kernel = Kernel::new()?;
    Session::new(Server { daemon: None, has_config: false, site, patience, keeps, listener: None, client: None })
        .args((flags,))
        .state("_start", start)
        .state("daemon_child", begin)
        .state("daemon_accept", |cx| {
            if let Some(listener) = &cx.heap().listener {
                listener.resume_accept();
            }
        })
        .state("accept", accepted)
        .state("input", input)
        .state("flushed", go_on)
        .state("late", late)
        .state("gone", close)
        .state("daemon_pause", |cx| cx.heap().keeps = false)
        .state("daemon_release", release)
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
    let flags: Flags = cx.take(0)?;
    let listener = SocketFactory::tcp(&flags.listen).on_accept("accept").listen(cx)?;
    listener.pause_accept();
    for signal in ["daemon_child", "daemon_accept", "daemon_pause", "daemon_release", "daemon_shutdown"] {
        cx.sig(signal, signal);
    }
    cx.sig("USR2", "peek");
    flags.daemon.say_listening(listener.local_addr()?);
    cx.heap().listener = Some(listener);
    // Last of all: from here on this may be another process, without terminal and privileges.
    let has_config = flags.config.is_given();
    let daemon = flags.daemon.apply(flags.pool.apply(Daemon::builder()));
    let daemon = flags.config.apply(daemon, load).spawn(cx)?;
    cx.heap().daemon = Some(daemon);
    cx.heap().has_config = has_config;
    Ok(())
}

/// In a new child: the configuration overrides the command line.
fn begin(cx: &mut Context<'_, Server>) -> Result {
    if cx.heap().has_config {
        let config = daemon(cx)?.config::<Config, _>(cx)?;
        if config.root.is_some() {
            cx.heap().site = Site::new(config.root.clone())?;
        }
    }
    report(cx, Report::Wait)
}

/// Reads the configuration. A missing root is an error here, before any child has it.
fn load(bytes: &[u8]) -> std::result::Result<Config, String> {
    let config = Config::read(bytes)?;
    Site::new(config.root.clone()).map_err(|error| format!("root: {error}"))?;
    Ok(config)
}

fn accepted(cx: &mut Context<'_, Server>) -> Result {
    if let Some(listener) = &cx.heap().listener {
        listener.pause_accept();
    }
    report(cx, Report::Req)?;
    let socket: TcpStream = cx.take(0)?;
    socket.set_nodelay(true)?;
    let wheel = ReadWrite::stream(socket, Httpd::new().max_content(64 * 1024));
    let wheel = wheel.on_input("input").on_flushed("flushed").on_error("gone");
    // A client that sends requests without reading the responses has to wait.
    let wheel = wheel.watermarks(64 * 1024, 256 * 1024).auto_pause().write_timeout(cx.heap().patience).start(cx)?;
    cx.heap().client = Some(Client { wheel, file: None, answered: false, last: false, kept: false });
    wait(cx, FRESH);
    Ok(())
}

/// A request, or a record that is not one.
fn input(cx: &mut Context<'_, Server>) -> Result {
    let record = cx.take::<Incoming>(0)?;
    if cx.heap().client.as_mut().is_some_and(|client| std::mem::take(&mut client.kept)) {
        report(cx, Report::Req)?;
    }
    let server = cx.heap();
    let Some(client) = &mut server.client else { return Ok(()) };
    let Answer { response, file } = match record {
        Incoming::Request(request) => server.site.answer(&request),
        // The server does not want the body. Some clients send it all the same.
        Incoming::Expects(request) => server.site.answer(&request).last(),
        Incoming::Refused(refusal) => refusal.response().into(),
        Incoming::Piece(_) | Incoming::End(_) => return Ok(()),
    };
    let response = if server.keeps { response } else { response.close() };
    client.last = response.closes();
    client.file = file;
    client.wheel.put(Outgoing::Response(response));
    match client.file {
        Some(_) => go_on(cx),
        None => finish(cx),
    }
}

/// Sends the next piece of the file, if there is one. The next piece follows when this one is flushed. Other requests wait.
fn go_on(cx: &mut Context<'_, Server>) -> Result {
    let Some(client) = &mut cx.heap().client else { return Ok(()) };
    let Some(file) = &mut client.file else { return Ok(()) };
    let piece = read_piece(file)?;
    let is_over = file.limit() == 0;
    if !is_over && piece.is_empty() {
        // The file is shorter than promised. Only the end of the connection can tell the client.
        return close(cx);
    }
    client.wheel.put(Outgoing::Piece(piece));
    if is_over {
        client.file = None;
        client.wheel.put(Outgoing::End);
        return finish(cx);
    }
    client.wheel.pause_input();
    wait(cx, Duration::MAX);
    Ok(())
}

/// Reads with one call as a rule. `read_to_end` would begin with a few bytes, as it does not know how many there are.
fn read_piece(file: &mut io::Take<File>) -> io::Result<Vec<u8>> {
    let mut piece = vec![0; file.limit().min(PIECE) as usize];
    let mut filled = 0;
    while filled < piece.len() {
        match file.read(&mut piece[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    piece.truncate(filled);
    Ok(piece)
}

/// A response is complete.
fn finish(cx: &mut Context<'_, Server>) -> Result {
    let Some(client) = &mut cx.heap().client else { return Ok(()) };
    client.answered = true;
    if client.last {
        return close(cx);
    }
    client.wheel.resume_input();
    wait(cx, IDLE);
    Ok(())
}

/// Starts to wait for the client again. After `idle` without input the client counts as idle.
fn wait(cx: &mut Context<'_, Server>, idle: Duration) {
    let patience = cx.heap().patience;
    // One alarm for both: a client with one request after the other costs no more.
    let (after, stage) = if idle < patience { (idle, Stage::Idle) } else { (patience, Stage::Late) };
    cx.delay("late", after, (stage, patience.saturating_sub(after)));
}

/// The client is idle, or its time is up.
fn late(cx: &mut Context<'_, Server>) -> Result {
    let (stage, rest) = (cx.take::<Stage>(0)?, cx.take::<Duration>(1)?);
    if stage == Stage::Idle {
        cx.delay("late", rest, (Stage::Late, Duration::ZERO));
        let Some(client) = cx.heap().client.as_mut().filter(|client| client.is_idle()) else { return Ok(()) };
        client.kept = true;
        return report(cx, Report::Keep);
    }
    match &cx.heap().client {
        // Dropped, not flushed: this client does not read.
        Some(client) if client.file.is_some() || client.wheel.pending_output() > 0 => cx.heap().client = None,
        Some(client) if !client.answered => {
            client.wheel.put(Outgoing::Response(Response::timed_out()));
        }
        _ => {}
    }
    close(cx)
}

/// Another client waits, and no child is free. Closes the connection if it is idle.
fn release(cx: &mut Context<'_, Server>) -> Result {
    if cx.heap().client.as_ref().is_some_and(Client::is_idle) { close(cx) } else { Ok(()) }
}

/// The connection is over. What was put for it is still written.
fn close(cx: &mut Context<'_, Server>) -> Result {
    cx.delay_clear("late");
    if let Some(client) = cx.heap().client.take() {
        client.wheel.close_after_flush();
    }
    report(cx, Report::Done)
}

/// Finishes the response in hand, and waits for no other request.
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

/// How long a client may take for a request where no connection is kept.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long after a response a client counts as idle. A browser asks for the parts of a page sooner.
const IDLE: Duration = Duration::from_millis(50);

/// The same for a new client, whose first request is still on its way.
const FRESH: Duration = Duration::from_secs(1);

/// How much of a file is read at a time.
const PIECE: u64 = 64 * 1024;

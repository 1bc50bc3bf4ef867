//! A `component::Server` that tells what it does, for `tests/daemon/component.rs`.
//!
//! Each process writes lines, `PID WHAT`. A connection's lines are answered with `PID LINE`, but for the commands in
//! `command`. On USR1 the parent writes its board.
//!
//! `--unix PATH` and `--proxy`: it listens there as well, and on one more port, behind a proxy; `also at` tells where.
//!
//! `--job`, `--late-job`: a background session ticks beside the server, spawned before `run` or by a state.
//!
//! `--limit-ms N`: the `request_timeout` of a connection.
//!
//! `--holds`: each connection has a request in hand from its beginning to its end.
//!
//! `--plain`: a `TcpServer` with the same protocol, and no Daemon. `--on-error`: it writes what its callback for errors is told.

use std::cell::Cell;
use std::error::Error;
use std::time::Duration;

use lenore::component::{Connection, Listen, Processes, Protocol, Server, ServerHandle, TcpServer};
use lenore::filter::Line;
use lenore::{Context, Daemon, Kernel, Result, Session};

use util::daemon_program::{Flags, say};

fn main() -> std::result::Result<(), Box<dyn Error>> {
    util::daemon_program::log_to_stderr();
    let flags = Flags::read();
    let mut kernel = Kernel::new()?;
    if flags.has("--plain") {
        return plain(&flags, &mut kernel);
    }
    if flags.has("--job") {
        job().spawn(&mut kernel)?;
    }
    let serving = server(&flags)?.spawn(&mut kernel)?;
    let has_late_job = flags.has("--late-job");
    Session::new(serving)
        .state("_start", move |cx| {
            if has_late_job {
                cx.delay("spawn_job", Duration::from_millis(1), ());
            }
            cx.sig_keep_alive("USR1", "board");
            cx.sig("daemon_shutdown", "end");
            cx.sig("daemon_pause", "pause");
        })
        .state("spawn_job", |cx| {
            // A child that was forked before has this alarm as well.
            if !cx.is_child() {
                job().spawn(cx)?;
            }
            Ok(())
        })
        .state("pause", util::daemon_program::say_signal)
        .state("end", |cx| cx.sig_clear("USR1"))
        .state("board", board)
        .spawn(&mut kernel)?;
    println!("listening on {}", serving.local_addr());
    for other in &serving.local_addrs()[1..] {
        say(&format!("also at {other}"));
    }
    kernel.run()?;
    say("end");
    Ok(())
}

/// Work beside the server, which never ends by itself.
fn job() -> Session<()> {
    let wait = |cx: &mut Context<'_, ()>| cx.delay("tick", Duration::from_millis(5), ());
    Session::new(())
        .state("_start", wait)
        .state("tick", move |cx| {
            say("tick");
            wait(cx);
        })
        .state("_stop", |_| say("job stops"))
        .background()
}

fn plain(flags: &Flags, kernel: &mut Kernel) -> std::result::Result<(), Box<dyn Error>> {
    let mut server = TcpServer::new("127.0.0.1:0", protocol(flags)).on_started(|cx| {
        let address = cx.heap().local_addr().expect("it listens");
        println!("listening on {address}");
    });
    if flags.has("--on-error") {
        server = server.on_error(|_, failure| say(&format!("failed: {} {}", failure.operation, failure.errno)));
    }
    let _ = server.spawn(kernel)?;
    Ok(kernel.run()?)
}

fn protocol(flags: &Flags) -> Protocol<Line> {
    let holds = flags.has("--holds");
    let refused = Cell::new(flags.number("--refuse").unwrap_or(0_u32));
    let mut protocol = Protocol::new(Line::new())
        .on_connect(move |cx| {
            if holds {
                cx.heap().request_begins();
            }
            connected(cx, &refused)
        })
        .on_input(command)
        .on_disconnect(|_| say("disconnected"))
        .state("late", |cx| {
            answer(cx, "late");
        });
    if let Some(ms) = flags.number("--linger-ms") {
        protocol = protocol.close_timeout(Duration::from_millis(ms));
    }
    if let Some(ms) = flags.number("--limit-ms") {
        protocol = protocol.request_timeout(Duration::from_millis(ms));
    }
    protocol
}

fn server(flags: &Flags) -> std::result::Result<Server, Box<dyn Error>> {
    let mut daemon = Daemon::builder().children_return(flags.has("--return"));
    if !flags.has("--requests-unset") {
        daemon = daemon.requests(flags.number("--requests").unwrap_or(0));
    }
    if let Some(shutdown) = flags.shutdown("--term") {
        daemon = daemon.term(shutdown);
    }
    for (name, set) in SETTINGS {
        if let Some(number) = flags.number(name) {
            daemon = set(daemon, number);
        }
    }
    if let Some(dir) = flags.text("--detach") {
        daemon = daemon.detach(true).logfile(format!("{dir}/log")).pid_file(format!("{dir}/pid"));
    }
    if let Some(path) = flags.text("--control") {
        daemon = daemon.control(path);
    }
    let mut server = Server::tcp("127.0.0.1:0", protocol(flags)).daemon(daemon);
    if let Some(mode) = flags.text("--mode") {
        server = server.processes(mode.parse::<Processes>()?);
    }
    if let Some(connections) = flags.number("--connections") {
        server = server.connections_per_child(connections);
    }
    if let Some(path) = flags.text("--unix") {
        server = server.listen(Listen::unix(path));
    }
    if flags.has("--proxy") {
        server = server.listen(Listen::tcp("127.0.0.1:0").proxy_protocol());
    }
    if flags.has("--fail-set-up") {
        return Ok(server.on_child(|_| -> Result { Err(std::io::Error::other("no database").into()) }));
    }
    Ok(server.on_child(|_| say("set up")))
}

type Setter = fn(lenore::daemon::DaemonBuilder, u32) -> lenore::daemon::DaemonBuilder;

const SETTINGS: [(&str, Setter); 8] = [
    ("--start", |daemon, number| daemon.start_children(number)),
    ("--max", |daemon, number| daemon.max_children(number)),
    ("--min-spare", |daemon, number| daemon.min_spare(number)),
    ("--max-spare", |daemon, number| daemon.max_spare(number)),
    ("--babysit-ms", |daemon, number| daemon.babysit(Duration::from_millis(number.into()))),
    ("--request-ms", |daemon, number| daemon.request_timeout(Duration::from_millis(number.into()))),
    ("--grace-ms", |daemon, number| daemon.shutdown_timeout(Duration::from_millis(number.into()))),
    ("--probation-ms", |daemon, number| daemon.probation(Duration::from_millis(number.into()))),
];

/// As many as `refused` says are stopped by force as soon as they begin.
fn connected(cx: &mut Context<'_, Connection<Line>>, refused: &Cell<u32>) -> Result {
    say("connected");
    if refused.get() > 0 {
        refused.set(refused.get() - 1);
        let me = cx.session();
        cx.signal_now(me, "KILL", ())?;
    }
    Ok(())
}

fn answer(cx: &mut Context<'_, Connection<Line>>, line: &str) {
    let pid = cx.pid();
    cx.heap().put(format!("{pid} {line}"));
}

/// `late MS`: answers after so long. `big N`: N bytes in one line. `bye`: a last answer. `fail`: the callback fails.
/// `gate PATH`: blocks as long as there is such a file. `take WHAT`: the process writes this line as well.
/// `never`: no answer.
fn command(cx: &mut Context<'_, Connection<Line>>, line: String) -> Result {
    let (word, number) = line.split_once(' ').unwrap_or((&line, "0"));
    match word {
        "late" => cx.delay("late", Duration::from_millis(number.parse()?), ()),
        "big" => drop(cx.heap().put("x".repeat(number.parse()?))),
        "bye" => {
            answer(cx, "bye");
            cx.yield_("shutdown", ());
        }
        "fail" => return Err(std::io::Error::other("as asked").into()),
        "gate" => {
            say("blocked");
            while std::path::Path::new(number).exists() {
                std::thread::sleep(Duration::from_millis(1));
            }
            answer(cx, "passed");
        }
        "never" => {}
        "take" => {
            say(&line);
            answer(cx, &line);
        }
        _ => answer(cx, &line),
    }
    Ok(())
}

fn board(cx: &mut Context<'_, ServerHandle>) -> Result {
    cx.sig_handled();
    let daemon = cx.heap().daemon();
    let status = daemon.status(cx)?;
    say(&format!("board [{}] {}", status.board, status.forking));
    let requests: u64 = status.children.iter().map(|child| child.requests).sum();
    say(&format!("requests {requests}"));
    say("answered");
    Ok(())
}

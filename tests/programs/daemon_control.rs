//! A `component::Server` with a control socket, for `tests/control/`.
//!
//! `--control PATH`, `--board PATH`, `--metrics` for one of each kind, `--gauge NAME`, `--status ADDRESS`, `--metrics-prefix TEXT`, `--allow user:NAME:RIGHTS` or `group:NAME:RIGHTS`, `--mode MODE`, and settings of the Daemon as in `SETTINGS`.
//! `--dir DIR` has `DIR/pid` and `DIR/log`, and with `--detach` the program detaches. `--last-acts-ms N` is how long
//! the program goes on after `run`. With `--wedge` a process that gets USR2 never comes
//! back to its loop. A connection's lines are answered with
//! `PID LINE`, but for the commands in `command`.

use std::cell::Cell;
use std::error::Error;
use std::thread;
use std::time::Duration;

use lenore::component::{Connection, Processes, Protocol, Server};
use lenore::daemon::metrics::Combine;
use lenore::daemon::{DaemonBuilder, Rights, Who};
use lenore::filter::Line;
use lenore::{Context, Daemon, Kernel, Result, Session};

use util::daemon_program::Flags;

fn main() -> std::result::Result<(), Box<dyn Error>> {
    util::daemon_program::log_to_stderr();
    let flags = Flags::read();
    let mut kernel = Kernel::new()?;
    let protocol =
        // Each connection has a request in hand from its beginning to its end.
        Protocol::new(Line::new()).on_connect(|cx| cx.heap().request_begins()).on_input(command).on_disconnect(|cx| cx.alarm_remove_all()).state("late", |cx| {
            let pid = cx.pid();
            cx.heap().put(format!("{pid} late"));
        });
    let mut server = Server::tcp("127.0.0.1:0", protocol).daemon(daemon(&flags));
    if let Some(mode) = flags.text("--mode") {
        server = server.processes(mode.parse::<Processes>()?);
    }
    let serving = server.spawn(&mut kernel)?;
    DAEMON.set(Some(serving.daemon()));
    if flags.has("--metrics") {
        let metrics = serving.daemon().metrics();
        metrics.counter("served_total", "A counter")?;
        metrics.gauge("present", "A gauge", Combine::Sum)?;
        metrics.histogram("taken_seconds", "A histogram")?;
    }
    if let Some(name) = flags.text("--gauge") {
        serving.daemon().metrics().gauge(name, "A gauge", Combine::Sum)?;
    }
    if flags.has("--wedge") {
        Session::new(())
            .state("_start", |cx| cx.sig_keep_alive("USR2", "wedge"))
            .state("wedge", |_| -> Result {
                loop {
                    std::thread::sleep(Duration::from_secs(1));
                }
            })
            .spawn(&mut kernel)?;
    }
    println!("listening on {}", serving.local_addr());
    kernel.run()?;
    util::daemon_program::say("end");
    if let Some(span) = flags.number("--last-acts-ms") {
        thread::sleep(Duration::from_millis(span));
    }
    Ok(())
}

thread_local! {
    static DAEMON: Cell<Option<Daemon>> = const { Cell::new(None) };
}

fn daemon(flags: &Flags) -> DaemonBuilder {
    let mut daemon = Daemon::builder().requests(0).verbose(true);
    for (name, set) in SETTINGS {
        if let Some(number) = flags.number(name) {
            daemon = set(daemon, number);
        }
    }
    if let Some(path) = flags.text("--control") {
        daemon = daemon.control(path);
    }
    if let Some(address) = flags.text("--status") {
        daemon = daemon.status(address);
    }
    if let Some(prefix) = flags.text("--metrics-prefix") {
        daemon = daemon.metrics_prefix(prefix);
    }
    if let Some(path) = flags.text("--board") {
        daemon = daemon.board(path);
    }
    for allowed in flags.text("--allow").into_iter().flat_map(|list| list.split(',')) {
        let words: Vec<&str> = allowed.split(':').collect();
        let name = words[1].to_owned();
        let who = if words[0] == "user" { Who::User(name) } else { Who::Group(name) };
        daemon = daemon.control_allow(
            who,
            match words[2] {
                "read" => Rights::Read,
                "operate" => Rights::Operate,
                "admin" => Rights::Admin,
                other => panic!("no such rights: {other}"),
            },
        );
    }
    if flags.has("--unmanaged") {
        daemon = daemon.service_manager(false);
    }
    daemon = daemon.restart_when_dead(flags.has("--restart-when-dead"));
    if let Some(user) = flags.text("--user") {
        daemon = daemon.user(user);
    }
    if let Some(group) = flags.text("--group") {
        daemon = daemon.group(group);
    }
    if let Some(dir) = flags.text("--dir") {
        daemon = daemon.pid_file(format!("{dir}/pid")).logfile(format!("{dir}/log")).detach(flags.has("--detach"));
    }
    daemon
}

type Setter = fn(DaemonBuilder, u32) -> DaemonBuilder;

const SETTINGS: [(&str, Setter); 8] = [
    ("--start", |daemon, number| daemon.start_children(number)),
    ("--max", |daemon, number| daemon.max_children(number)),
    ("--min-spare", |daemon, number| daemon.min_spare(number)),
    ("--max-spare", |daemon, number| daemon.max_spare(number)),
    ("--babysit-ms", |daemon, number| daemon.babysit(Duration::from_millis(number.into()))),
    ("--lame-duck-ms", |daemon, number| daemon.lame_duck(Duration::from_millis(number.into()))),
    ("--health-ms", |daemon, number| daemon.health_limit(Duration::from_millis(number.into()))),
    ("--grace-ms", |daemon, number| daemon.shutdown_timeout(Duration::from_millis(number.into()))),
];

/// `gate PATH`: blocks as long as there is such a file. `late MS`: answers after so long. `bye`: ends the connection. `label TEXT`: is
/// the label of the child. `variables`: answers with the names in its own environment and in that of a program that it starts.
fn command(cx: &mut Context<'_, Connection<Line>>, line: String) -> Result {
    let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
    match word {
        "gate" => {
            while std::path::Path::new(rest).exists() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        "late" => {
            cx.delay("late", Duration::from_millis(rest.parse()?), ());
            return Ok(());
        }
        "variables" => {
            cx.heap().put(util::daemon_program::variables()?);
            return Ok(());
        }
        "bye" => cx.yield_("shutdown", ()),
        "label" => {
            if let Some(daemon) = DAEMON.get() {
                daemon.set_peer_label(cx, rest)?;
            }
        }
        _ => {}
    }
    let pid = cx.pid();
    cx.heap().put(format!("{pid} {line}"));
    Ok(())
}

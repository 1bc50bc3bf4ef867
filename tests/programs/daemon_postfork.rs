//! A post-forking server that tells what its Daemon does to it, for `tests/daemon.rs`.
//!
//! The parent numbers the connections; a child answers each line with `PID NUMBER LINE`. What it can be told is in
//! `daemon_child` and `action`.

use std::error::Error;
use std::io;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use lenore::daemon::Report;
use lenore::filter::Line;
use lenore::wheel::{ReadWrite, SocketFactory};
use lenore::{Context, Daemon, ForkStage, Kernel, Result, Session};
use nix::errno::Errno;

use util::daemon_program::{Flags, say, say_signal, try_update};

struct App {
    daemon: Daemon,
    flags: Flags,
    listener: Option<SocketFactory>,
    client: Option<ReadWrite<Line>>,
    number: u32,
    /// Connections of the parent's own that no child is to hear of.
    kept: Vec<ReadWrite<Line>>,
    waiting: Vec<TcpStream>,
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    util::daemon_program::log_to_stderr();
    let flags = Flags::read();
    let mut kernel = Kernel::new()?;
    hook(&mut kernel, &flags);
    let grace = Duration::from_millis(flags.number("--grace-ms").unwrap_or(10_000));
    let max = flags.number("--max").unwrap_or(10);
    let round = Duration::from_millis(flags.number("--babysit-ms").unwrap_or(10_000));
    let daemon = Daemon::builder().max_children(max).shutdown_timeout(grace).babysit(round).spawn(&mut kernel)?;
    let app = App { daemon, flags, listener: None, client: None, number: 0, kept: Vec::new(), waiting: Vec::new() };
    let mut session = Session::new(app)
        .state("_start", start)
        .state("daemon_child", daemon_child)
        .state("daemon_pause", |cx| {
            say("daemon_pause");
            if !cx.heap().flags.has("--greedy") {
                cx.heap().listener.iter().for_each(SocketFactory::pause_accept);
            }
        })
        .state("daemon_accept", |cx| {
            say("daemon_accept");
            cx.heap().listener.iter().for_each(SocketFactory::resume_accept);
        })
        .state("daemon_shutdown", |cx| -> Result {
            say("daemon_shutdown");
            // With `--drop-later` in a state of its own, and that in another.
            if cx.heap().flags.has("--drop-later") {
                cx.yield_("drop_later", ());
            } else {
                cx.heap().listener = None;
            }
            // With `--linger` a child has something to wait for.
            let daemon = cx.heap().daemon;
            if cx.heap().flags.has("--linger") && daemon.status(cx)?.is_child {
                cx.delay("yielded", Duration::from_secs(600), ());
            }
            Ok(())
        })
        .state("accept", accepted)
        .state("input", input)
        .state("daemon_release", |cx| {
            say("daemon_release");
            gone(cx)
        })
        .state("gone", gone)
        .state("usr1", action)
        .state("drop_later", |cx| cx.yield_("drop", ()))
        .state("drop", |cx| cx.heap().listener = None)
        .state("yielded", |_| say("yielded"));
    for signal in ["daemon_start", "daemon_parent", "daemon_HUP"] {
        session = session.state(signal, say_signal);
    }
    session.spawn(&mut kernel)?;
    kernel.run()?;
    say("run returned");
    Ok(())
}

/// `--fail N --errno E`: so many forks fail, from the first on. `--fail-while PATH`: they fail while there is such a file.
fn hook(kernel: &mut Kernel, flags: &Flags) {
    let mut failures: u32 = flags.number("--fail").unwrap_or(0);
    let errno = flags.number("--errno").unwrap_or(Errno::EAGAIN as i32);
    let gate = flags.text("--fail-while").map(PathBuf::from);
    kernel.set_fork_hook(move |stage| {
        let is_shut = gate.as_ref().is_some_and(|gate| gate.exists());
        if stage == ForkStage::BeforeFork && (failures > 0 || is_shut) {
            failures = failures.saturating_sub(1);
            say("fork fails");
            return Err(io::Error::from_raw_os_error(errno));
        }
        Ok(())
    });
}

fn start(cx: &mut Context<'_, App>) -> Result {
    let listener = SocketFactory::tcp("127.0.0.1:0").on_accept("accept").listen(cx)?;
    let address = listener.local_addr()?;
    cx.heap().listener = Some(listener);
    for signal in util::daemon_program::SIGNALS {
        cx.sig(signal, signal);
    }
    cx.sig("USR1", "usr1");
    // Last of all: whoever reads this sends signals.
    println!("listening on {address}");
    if cx.heap().flags.has("--early") {
        let daemon = cx.heap().daemon;
        daemon.update_status_with(cx, Report::Req, 0u32)?;
    }
    Ok(())
}

/// Hands each connection over; with `--batch N` N of them at once; with `--keep` it keeps those in the parent.
fn accepted(cx: &mut Context<'_, App>) -> Result {
    let socket: TcpStream = cx.take(0)?;
    if cx.heap().flags.has("--keep") && cx.heap().kept.len() < 20 {
        let wheel = ReadWrite::stream(socket, Line::new()).on_input("input").on_error("gone").start(cx)?;
        cx.heap().kept.push(wheel);
        if cx.heap().kept.len() == 20 {
            say("kept 20");
        }
        return Ok(());
    }
    let flags = &cx.heap().flags;
    if flags.has("--join") {
        util::daemon_program::join_a_thread();
    }
    // A thread that nobody joins, for the first connection.
    if let Some(ms) = flags.number("--thread-ms").filter(|_| cx.heap().number == 0) {
        let work = move || std::thread::sleep(Duration::from_millis(ms));
        util::daemon_program::leave_a_thread(work)?;
    }
    cx.heap().waiting.push(socket);
    if cx.heap().waiting.len() < cx.heap().flags.number("--batch").unwrap_or(1) {
        return Ok(());
    }
    let daemon = cx.heap().daemon;
    for socket in std::mem::take(&mut cx.heap().waiting) {
        cx.heap().number += 1;
        let payload = (cx.heap().number, socket);
        if cx.heap().flags.has("--long") {
            daemon.update_status_with(cx, Report::Long, payload)?;
        } else if cx.heap().flags.has("--post") {
            cx.post("Daemon", "update_status", (Report::Req, payload))?;
        } else {
            daemon.update_status_with(cx, Report::Req, payload)?;
        }
    }
    // D-FO-01: the rest of this state runs once, in the parent, and what it posts comes after the child's signal.
    cx.yield_("yielded", ());
    say("handed over");
    if cx.heap().flags.has("--shutdown-after") {
        daemon.shutdown(cx)?;
    }
    Ok(())
}

fn daemon_child(cx: &mut Context<'_, App>) -> Result {
    cx.heap().listener = None;
    if let Ok(early) = cx.take::<u32>(1) {
        say(&format!("daemon_child {early}"));
        let daemon = cx.heap().daemon;
        return Ok(daemon.update_status(cx, Report::Done)?);
    }
    let (number, socket) = cx.take::<(u32, TcpStream)>(1)?;
    say(&format!("daemon_child {number}"));
    cx.heap().number = number;
    let client = ReadWrite::stream(socket, Line::new()).on_input("input").on_error("gone").start(cx)?;
    cx.heap().client = Some(client);
    Ok(())
}

fn input(cx: &mut Context<'_, App>) -> Result {
    let line: String = cx.take(0)?;
    let daemon = cx.heap().daemon;
    let answer = match line.as_str() {
        "status" => format!("{:?}", daemon.status(cx)?.to_string()),
        "board" => daemon.status(cx)?.board,
        "long" | "req" | "keep" | "nonsense" => try_update(cx, &line),
        "done" => return gone(cx),
        "blocked-sleep" => {
            say("blocked");
            loop {
                std::thread::sleep(Duration::from_secs(600));
            }
        }
        "fail" => return Err(io::Error::other("as asked").into()),
        "panic" => panic!("as asked"),
        other => other.to_owned(),
    };
    let answer = format!("{} {} {answer}", std::process::id(), cx.heap().number);
    if let Some(client) = &cx.heap().client {
        client.put(answer.as_str());
    }
    Ok(())
}

fn gone(cx: &mut Context<'_, App>) -> Result {
    if !cx.is_child() {
        return Ok(());
    }
    cx.heap().client.take().into_iter().for_each(ReadWrite::close_after_flush);
    let daemon = cx.heap().daemon;
    Ok(daemon.update_status(cx, Report::Done)?)
}

fn action(cx: &mut Context<'_, App>) -> Result {
    let daemon = cx.heap().daemon;
    match cx.heap().flags.text("--usr1").unwrap_or("status") {
        "text" => say(&format!("text {:?}", daemon.status(cx)?.to_string())),
        "drop" => cx.heap().kept.clear(),
        "update" => {
            say(&format!("update {:?}", daemon.update_status(cx, Report::Done).is_err()));
            say(&format!("update {}", try_update(cx, "nonsense")));
        }
        _ => {
            let status = daemon.status(cx)?;
            say(&format!("board [{}] free {} queued {}", status.board, status.free, status.queued));
        }
    }
    say("answered");
    Ok(())
}

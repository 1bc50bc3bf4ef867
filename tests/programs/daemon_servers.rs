//! Two `component::Server`s in one kernel, and so two Daemons, for `tests/daemon/servers.rs`.
//!
//! `--one MODE` and `--other MODE`, of at most `--max` children each. A connection's lines are answered with
//! `PID SERVER LINE`, but for those in `answer`. Each process writes each `daemon_*` signal with whose it is. On USR1 the
//! parent writes the boards of both; on USR2 it shuts the first one down.

use std::error::Error;

use lenore::component::{Processes, Protocol, Server, ServerHandle};
use lenore::filter::Line;
use lenore::{Context, Daemon, Kernel, Result, Session};

use util::daemon_program::{Flags, say};

type Both = [(&'static str, ServerHandle); 2];

fn main() -> std::result::Result<(), Box<dyn Error>> {
    util::daemon_program::log_to_stderr();
    let flags = Flags::read();
    let mut kernel = Kernel::new()?;
    let serve = |name, alias: &str, kernel: &mut Kernel| -> std::result::Result<ServerHandle, Box<dyn Error>> {
        let mode: Processes = flags.text(&format!("--{name}")).unwrap_or("prefork:2").parse()?;
        let max = flags.number("--max").unwrap_or(2);
        let mut daemon = Daemon::builder().alias(alias).requests(0).babysit(std::time::Duration::from_millis(100));
        if let Processes::PreFork { .. } = mode {
            daemon = daemon.max_children(max).min_spare(max).max_spare(max);
        }
        // Each connection has a request in hand from its beginning to its end.
        let protocol = Protocol::new(Line::new())
            .on_connect(|cx| cx.heap().request_begins())
            .on_input(move |cx, line: String| {
                let answer = answer(cx, &line)?;
                cx.heap().put(format!("{} {name} {answer}", std::process::id()));
                Ok(())
            })
            .state("idle", |cx| cx.yield_("shutdown", ()));
        Ok(Server::tcp("127.0.0.1:0", protocol).processes(mode).daemon(daemon).spawn(kernel)?)
    };
    let both: Both = [("one", serve("one", "Daemon", &mut kernel)?), ("other", serve("other", "Other", &mut kernel)?)];
    let mut session = Session::new(both)
        .state("_start", |cx| -> Result {
            cx.alias_set("app")?;
            util::daemon_program::SIGNALS.into_iter().for_each(|signal| cx.sig(signal, signal));
            cx.sig("USR1", "boards");
            cx.sig("USR2", "end_one");
            Ok(())
        })
        .state("boards", boards)
        .state("end_one", |cx| {
            let daemon = cx.heap()[0].1.daemon();
            Ok(daemon.shutdown(cx)?)
        })
        .state("fork", |cx| cx.fork("own_parent", "own_child", ()))
        .state("own_parent", |cx| -> Result {
            let pid = cx.take::<std::result::Result<i32, lenore::Error>>(0)??;
            cx.sig_child(pid, "own_reaped", ());
            Ok(())
        })
        .state("own_child", |_| say("own_child"))
        .state("own_reaped", |_| say("own_reaped"));
    for signal in util::daemon_program::SIGNALS {
        session = session.state(signal, say_whose);
    }
    session.spawn(&mut kernel)?;
    println!("listening on {}", both[0].1.local_addr());
    println!("other listening on {}", both[1].1.local_addr());
    kernel.run()?;
    say("end");
    Ok(())
}

/// `statuses`: what either Daemon is in this process. `fork`: the application forks a child of its own. `idle`: the
/// connection ends in a minute.
fn answer<H: 'static>(cx: &mut Context<'_, H>, line: &str) -> Result<String> {
    match line {
        "statuses" => {
            let mut answer = Vec::new();
            for alias in ["Daemon", "Other"] {
                let status: lenore::daemon::DaemonStatus = cx.call(alias, "status", ())?.take()?;
                answer.push(format!("{alias} children={} slot={}", status.children.len(), status.slot.is_some()));
            }
            Ok(answer.join(", "))
        }
        "fork" => {
            cx.call("app", "fork", ())?;
            Ok("forked".to_owned())
        }
        "idle" => {
            cx.delay("idle", std::time::Duration::from_secs(60), ());
            Ok("idle".to_owned())
        }
        line => Ok(line.to_owned()),
    }
}

/// Writes the signal, and by which Daemon, as the argument says and the helper.
fn say_whose(cx: &mut Context<'_, Both>) -> Result {
    let (signal, argument) = (*cx.arg::<&'static str>(0)?, *cx.arg::<Daemon>(2)?);
    let daemon = Daemon::of_signal(cx);
    let name = cx.heap().iter().find(|(_, serving)| Some(serving.daemon()) == daemon && argument == serving.daemon());
    let name = name.map_or("nobody", |(name, _)| name);
    say(&format!("{signal} {name}"));
    Ok(())
}

fn boards(cx: &mut Context<'_, Both>) -> Result {
    for (name, serving) in *cx.heap() {
        let status = serving.daemon().status(cx)?;
        let pids: Vec<String> = status.children.iter().map(|child| child.pid.to_string()).collect();
        say(&format!("{name} [{}] {}", status.board.trim_end(), pids.join(",")));
    }
    say("answered");
    Ok(())
}

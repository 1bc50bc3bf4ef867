//! Two Daemons in one kernel, and one that does not fork, for `tests/daemon.rs`: D-SP-07.
//!
//! USR1 writes the boards of both; USR2 shuts the first one down.

use std::error::Error;

use lenore::daemon::Report;
use lenore::{Context, Daemon, Kernel, Result, Session};

use util::daemon_program::{say, say_signal};

struct App {
    one: Daemon,
    other: Daemon,
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    util::daemon_program::log_to_stderr();
    let mut kernel = Kernel::new()?;
    let one = Daemon::builder().start_children(2).max_children(4).spawn(&mut kernel)?;
    let again = Daemon::builder().start_children(1).spawn(&mut kernel);
    say(&format!("same alias: {}", again.err().map_or("spawned".to_owned(), |error| error.to_string())));
    let other = Daemon::builder().alias("Other").start_children(3).max_children(5).spawn(&mut kernel)?;
    let plain = Daemon::builder().alias("Plain").spawn(&mut kernel)?;
    say(&format!("plain {:?}", plain.status(&mut kernel)?.to_string()));
    plain.shutdown(&mut kernel)?;
    let mut session = Session::new(App { one, other })
        .state("_start", start)
        .state("daemon_child", daemon_child)
        .state("daemon_shutdown", |cx| {
            say("daemon_shutdown");
            let me = cx.session();
            let _ = cx.refcount_decrement(me, "app");
        })
        .state("boards", boards)
        .state("end_one", |cx| {
            let one = cx.heap().one;
            Ok(one.shutdown(cx)?)
        });
    for signal in ["daemon_start", "daemon_parent", "daemon_accept"] {
        session = session.state(signal, say_signal);
    }
    session.spawn(&mut kernel)?;
    kernel.run()?;
    say("run returned");
    Ok(())
}

fn start(cx: &mut Context<'_, App>) -> Result {
    let me = cx.session();
    cx.refcount_increment(me, "app")?;
    for signal in ["daemon_start", "daemon_parent", "daemon_child", "daemon_accept", "daemon_shutdown"] {
        cx.sig(signal, signal);
    }
    cx.sig("USR1", "boards");
    cx.sig("USR2", "end_one");
    Ok(())
}

/// Whichever Daemon forked this process takes the report; to the other it is a stranger.
fn daemon_child(cx: &mut Context<'_, App>) {
    let (one, other) = (cx.heap().one, cx.heap().other);
    let mine = one.update_status(cx, Report::Wait).is_ok();
    let theirs = other.update_status(cx, Report::Wait).is_ok();
    say(&format!("daemon_child one={mine} other={theirs}"));
}

fn boards(cx: &mut Context<'_, App>) -> Result {
    let (one, other) = (cx.heap().one, cx.heap().other);
    for (name, daemon) in [("one", one), ("other", other)] {
        let status = daemon.status(cx)?;
        let pids: Vec<String> = status.children.iter().map(|child| child.pid.to_string()).collect();
        say(&format!("{name} [{}] {}", status.board, pids.join(",")));
    }
    say("answered");
    Ok(())
}

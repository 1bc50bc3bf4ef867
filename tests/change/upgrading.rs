//! A pool that is upgraded: what the tests of that have in common.

use std::fs;

use lenore::daemon::view::Snapshot;
use util::control::Control;
use util::{DEADLINE, proc, wait_until};

use super::changing::{Changing, lenorectl};

/// A pool with a pid file, whose upgrades are on probation for so long.
#[track_caller]
pub fn pool(children: u32, probation_ms: u32, args: &str) -> Changing {
    let args = format!("--pid-file DIR/pid --probation-ms {probation_ms} {args}");
    Changing::pool(children, "value=a\n", &args)
}

pub fn pid_file(changing: &Changing) -> i32 {
    let text = fs::read_to_string(changing.dir.path().join("pid")).expect("a pid file");
    text.trim().parse().unwrap_or_else(|_| panic!("a pid, not {text:?}"))
}

/// Upgrades, and returns the pid that is said to serve.
#[track_caller]
pub fn upgrade(changing: &Changing) -> i32 {
    let out = lenorectl(&changing.socket, "upgrade");
    assert_eq!(out.code, 0, "{out:?}\n{}", changing.running.stderr_text());
    let pid = out.out.split_whitespace().nth(2).and_then(|pid| pid.parse().ok());
    pid.unwrap_or_else(|| panic!("applied: process PID serves: {out:?}"))
}

#[track_caller]
pub fn status(changing: &Changing) -> Snapshot {
    Control::connect(&changing.socket).status()
}

/// Waits until the process that serves has no predecessor any more, so that it can be upgraded.
#[track_caller]
pub fn wait_alone(changing: &Changing) -> Snapshot {
    wait_until("a predecessor that has ended", DEADLINE, || {
        let status = status(changing);
        status.upgrades.predecessor.is_none().then_some(status)
    })
}

/// The process that has served before does so, with all names.
#[track_caller]
pub fn serves(changing: &Changing, parent: i32) {
    // The last name that it takes back: a control socket that is asked before may be the one of a process that is about to end.
    wait_until("the pid of the old one", DEADLINE, || (pid_file(changing) == parent).then_some(()));
    assert_eq!(status(changing).service.pid, parent as u32);
    changing.wait_value("a");
    wait_until("no other process", DEADLINE, || status(changing).upgrades.successor.is_none().then_some(()));
    wait_until("the state file of the old one", DEADLINE, || {
        let state = fs::read_to_string(changing.dir.path().join("pid.state")).ok()?;
        (state.starts_with("state=ready\n") && state.contains(&format!("pid={parent}\n"))).then_some(())
    });
}

/// Begins an upgrade, and waits until the new process serves on probation. Returns its pid.
#[track_caller]
pub fn on_probation(changing: &Changing) -> i32 {
    changing.write("value=b\n");
    changing.ask("upgrade no-wait").ok();
    wait_until("a new process that serves", DEADLINE, || {
        let pid = pid_file(changing);
        (pid != changing.running.pid() && changing.logged("the new program serves") > 0).then_some(pid)
    })
}

/// Begins an upgrade to a program that is not ready for a while, and returns its pid once it has children.
#[track_caller]
pub fn loading(changing: &Changing, config: &str) -> i32 {
    changing.write(config);
    changing.ask("upgrade no-wait").ok();
    let new = changing.control().wait_status("a new process", |status| {
        status.upgrades.successor.filter(|_| status.upgrades.stage.as_deref() == Some("loading"))
    });
    wait_until("its children", DEADLINE, || (!proc::children(new).is_empty()).then_some(new))
}

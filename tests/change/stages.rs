//! How far an upgrade has come, as an operator sees it (O-UP-05).

use std::fs;
use std::os::unix::fs::PermissionsExt;

use lenore::daemon::view::Snapshot;
use util::control::Control;
use util::manager::Manager;
use util::{Client, proc, test_program};

use super::changing::{Changing, lenorectl};

/// Waits for a stage, which is looked at by a connection that was there before the upgrade.
#[track_caller]
fn wait_stage(control: &mut Control, stage: &str) -> Snapshot {
    let is_there = |status: &Snapshot| status.upgrades.stage.as_deref() == Some(stage);
    control.wait_status(stage, |status| is_there(status).then(|| status.clone()))
}

/// No third parent comes of it, and the operator hears why.
#[track_caller]
fn third_is_refused(changing: &Changing, control: &mut Control, why: &str) {
    let answer = control.ask("upgrade");
    assert!(answer.last.starts_with("ERR ") && answer.last.contains(why), "{answer:?}");
    assert_eq!(changing.running.children().len(), 2, "a child, and the new process");
}

#[test] // O-UP-05
fn status_shows_each_stage_of_an_upgrade() {
    let mut manager = Manager::new();
    let args = format!("{} --probation-ms 60000 --grace-ms 500", Changing::size(1));
    let mut changing = Changing::start_by(|program| manager.starts(program), "value=a\n", &args);
    changing.wait_idle(1);
    let old = changing.running.pid();
    let [gate, child_gate] = ["gate", "child"].map(|name| changing.dir.path().join(name));
    for gate in [&gate, &child_gate] {
        fs::write(gate, "").expect("a file");
    }
    changing.write(&format!("value=b\nchild=held {}\n", child_gate.display()));
    let script = changing.dir.path().join("script");
    let (real, held) = (test_program("daemon_change"), gate.display());
    let text = format!("#!/bin/sh\nwhile [ -e '{held}' ]; do sleep 0.02; done\nexec '{}' \"$@\"\n", real.display());
    fs::write(&script, text).expect("a file");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("its permissions");
    let mut busy = Client::connect(changing.addr);
    busy.line("x");
    let mut control = changing.control();
    assert_eq!(control.status().upgrades.stage, None);

    control.ask(&format!("upgrade program={} no-wait", script.display())).ok();
    let new = wait_stage(&mut control, "spawned").upgrades.successor.expect("a process");
    third_is_refused(&changing, &mut control, "refused an upgrade is under way");
    fs::remove_file(&gate).expect("a file");
    assert_eq!(wait_stage(&mut control, "loading").upgrades.successor, Some(new));
    third_is_refused(&changing, &mut control, "refused an upgrade is under way");
    fs::remove_file(&child_gate).expect("a file");
    // The manager has not read yet who is to serve.
    assert_eq!(wait_stage(&mut control, "ready").upgrades.successor, Some(new));
    third_is_refused(&changing, &mut control, "refused an upgrade is under way");
    manager.wait_for(&format!("MAINPID={new}"));
    assert_eq!(wait_stage(&mut control, "probation").upgrades.successor, Some(new));
    third_is_refused(&changing, &mut control, "refused an upgrade is under way");
    // The one that serves by now says the same.
    let refused = lenorectl(&changing.socket, "upgrade");
    assert!(refused.code == 6 && refused.err.contains(&format!("process {old}")), "{refused:?}");
    control.ask("finish").ok();
    wait_stage(&mut control, "draining");
    third_is_refused(&changing, &mut control, "the Daemon is shutting down");
    let mut other = Control::connect(&changing.socket);
    let status = other.status();
    assert_eq!((status.service.pid, status.upgrades.predecessor), (new as u32, Some(old as u32)));
    assert_eq!(status.upgrades.stage.as_deref(), Some("draining"), "the other one");
    let refused = other.ask("upgrade");
    assert!(refused.code() == "refused" && refused.last.contains(&format!("process {old}")), "{refused:?}");
    assert!(busy.line("y").contains(" a y"));
    drop(busy);
    assert!(changing.running.wait_exit(util::DEADLINE).success());
    other.wait_status("no predecessor", |status| status.upgrades.predecessor.is_none().then_some(()));
    assert!(proc::is_alive(new));
}

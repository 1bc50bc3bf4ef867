//! What a service manager hears of an upgrade.

use std::fs;

use nix::sys::signal::Signal;
use util::manager::Manager;
use util::{DEADLINE, Program, kill, test_program, wait_until};

use super::changing::{Changing, lenorectl};
use super::upgrading::wait_alone;

/// A pool that answers to a service manager.
#[track_caller]
fn managed(manager: &Manager, config: &str, probation_ms: u32) -> Changing {
    let dir = tempfile::tempdir().expect("a directory");
    let (socket, file) = (dir.path().join("control.sock"), dir.path().join("conf"));
    fs::write(&file, config).expect("a file");
    let program = manager.starts(Program::new(test_program("daemon_change"))).arg("--config").arg(file);
    let pid_file = dir.path().join("pid");
    let program = program.arg("--control").arg(&socket).arg("--pid-file").arg(pid_file);
    let args = format!("--start 1 --min-spare 1 --max-spare 1 --max 1 --probation-ms {probation_ms}");
    let running = program.args(args.split(' ')).start();
    let addr = running.listening_addr();
    let changing = Changing { running, dir, socket, addr };
    changing.wait_idle(1);
    changing
}

/// Which process has said each word about readiness.
fn course(manager: &mut Manager) -> Vec<(String, i32)> {
    let course = manager.course();
    let key = |text: &str| text.split('=').next().unwrap_or_default().to_owned();
    let said = manager.said.iter().map(|datagram| (key(&datagram.text), datagram.pid));
    said.filter(|(key, _)| course.contains(key)).collect()
}

fn words<const N: usize>(words: [(&str, i32); N]) -> Vec<(String, i32)> {
    words.map(|(word, pid)| (word.to_owned(), pid)).into()
}

/// Begins an upgrade, and waits until the new process has said that it is ready. Returns its pid.
#[track_caller]
fn upgrade_under(manager: &mut Manager, changing: &Changing) -> i32 {
    changing.ask("upgrade no-wait").ok();
    let said = manager.wait_that("a MAINPID", |datagram| datagram.get("MAINPID").is_some());
    let new: i32 = said.get("MAINPID").and_then(|pid| pid.parse().ok()).expect("a pid");
    // From Linux 6.9 on.
    let number = said.get("MAINPIDFDID").map(|number| number.parse::<u64>().expect("a number"));
    assert!(number.is_some_and(|number| number > 0) == has_numbers(), "{said:?}");
    manager
        .wait_that("a READY of the new process", |datagram| datagram.pid == new && datagram.get("READY") == Some("1"));
    new
}

/// Tells whether the system has numbers for processes that no other process ever has.
fn has_numbers() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a Linux");
    let mut parts = release.split('.').map_while(|part| part.parse::<u32>().ok());
    (parts.next(), parts.next()) >= (Some(6), Some(9))
}

#[test] // O-SD-07, O-UP-17, O-DT-11: who says what, and in which order
fn service_manager_hears_which_process_serves() {
    let mut manager = Manager::new();
    let mut changing = managed(&manager, "value=a\n", 0);
    let old = changing.running.pid();
    manager.wait_for("READY=1");
    let new = upgrade_under(&mut manager, &changing);
    assert!(changing.running.wait_exit(DEADLINE).success());
    let expected = [("READY", old), ("RELOADING", old), ("MAINPID", old), ("BARRIER", old), ("READY", new)];
    assert_eq!(course(&mut manager), words(expected), "and the old one has said nothing of its end");
    wait_alone(&changing);
    assert_eq!(lenorectl(&changing.socket, "stop").code, 0);
    manager.wait_that("a STOPPING of the new process", |datagram| {
        datagram.pid == new && datagram.get("STOPPING") == Some("1")
    });
}

#[test] // O-SD-07: the main process was never another
fn service_manager_hears_of_an_upgrade_that_fails() {
    let mut manager = Manager::new();
    let changing = managed(&manager, "value=a\n", 1000);
    let old = changing.running.pid();
    manager.wait_for("READY=1");
    changing.write("nonsense\n");
    assert_eq!(changing.ask("upgrade").code(), "rolled_back");
    assert_eq!(course(&mut manager), words([("READY", old), ("RELOADING", old), ("READY", old)]));
    let last = manager.said.iter().rfind(|datagram| datagram.get("READY").is_some()).expect("it has come");
    assert!(last.get("STATUS").is_some_and(|status| status.contains("upgrade rolled back")), "{last:?}");
}

#[test] // O-SD-07: after it was taken back
fn service_manager_hears_that_the_old_process_serves_again() {
    let mut manager = Manager::new();
    let changing = managed(&manager, "value=a\n", 60_000);
    let old = changing.running.pid();
    manager.wait_for("READY=1");
    let new = upgrade_under(&mut manager, &changing);
    changing.wait_log("the new program serves");
    kill(new, Signal::SIGKILL).expect("it lives");
    manager.wait_for(&format!("MAINPID={old}"));
    let expected = [
        ("READY", old),
        ("RELOADING", old),
        ("MAINPID", old),
        ("BARRIER", old),
        ("READY", new),
        ("MAINPID", old),
        ("BARRIER", old),
        ("READY", old),
    ];
    let course = wait_until("all that is said", DEADLINE, || {
        let course = course(&mut manager);
        (course.len() >= expected.len()).then_some(course)
    });
    assert_eq!(course, words(expected));
}

//! What goes from the old process to the new one besides sockets: names, descriptors, the log.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use util::manager::Manager;
use util::program::MARKER_VARIABLE;
use util::{Client, DEADLINE, Program, kill, proc, test_program, wait_until};

use super::changing::{Changing, lenorectl};
use super::upgrading::{loading, pid_file, pool, status, upgrade, wait_alone};

#[test] // O-UP-12: the link is followed anew
fn upgrade_executes_what_the_path_leads_to_by_now() {
    let dir = tempfile::tempdir().expect("a directory");
    for release in ["1", "2"] {
        fs::create_dir(dir.path().join(release)).expect("a directory");
        fs::copy(test_program("daemon_change"), dir.path().join(release).join("server")).expect("a copy");
    }
    let current = dir.path().join("current");
    symlink("1", &current).expect("a link");
    fs::write(dir.path().join("conf"), "value=a\n").expect("a file");
    let (socket, file) = (dir.path().join("control.sock"), dir.path().join("conf"));
    let program = Program::new("current/server").current_dir(dir.path());
    let args = "--start 1 --min-spare 1 --max-spare 1 --max 1 --probation-ms 0".split(' ');
    let running = program.arg("--config").arg("conf").arg("--control").arg(&socket).args(args).start();
    let addr = running.listening_addr();
    let changing = Changing { running, dir, socket, addr };
    changing.wait_idle(1);
    fs::remove_file(&current).expect("a link");
    symlink("2", &current).expect("a link");
    fs::write(file, "value=b\n").expect("a file");
    let pid = upgrade(&changing);
    let exe = fs::read_link(format!("/proc/{pid}/exe")).expect("it lives");
    assert!(exe.ends_with("2/server"), "{}", exe.display());
    assert_eq!(changing.value(), "b");
}

/// Connects at a path, and returns which process answers.
fn unix(path: &Path) -> Option<i32> {
    let mut answer = String::new();
    UnixStream::connect(path).ok()?.read_to_string(&mut answer).ok()?;
    answer.trim().parse().ok()
}

#[test] // O-UP-09
fn path_of_a_unix_socket_is_removed_by_the_last_process_alone() {
    let mut changing = pool(1, 0, "--unix DIR/unix");
    let path = changing.dir.path().join("unix");
    assert!(unix(&path).is_some());
    let (first, inode) = (changing.running.pid(), fs::metadata(&path).expect("a socket").ino());
    upgrade(&changing);
    assert!(changing.running.wait_exit(DEADLINE).success());
    wait_alone(&changing);
    assert!(unix(&path).is_some_and(|pid| pid != first), "the path is left");
    assert_eq!(fs::metadata(&path).expect("a socket").ino(), inode, "and is the same socket");
    let second = pid_file(&changing);
    assert_eq!(lenorectl(&changing.socket, "stop").code, 0);
    wait_until("the end", DEADLINE, || (!proc::is_alive(second)).then_some(()));
    assert!(!path.exists(), "the last one has removed it");
}

#[test] // O-UP-09: nor by a new process that fails
fn path_of_a_unix_socket_survives_a_new_process_that_fails() {
    let changing = pool(1, 1000, "--unix DIR/unix");
    let path = changing.dir.path().join("unix");
    changing.write("value=b\nchild=die\n");
    let out = lenorectl(&changing.socket, "upgrade");
    assert_eq!(out.code, 1, "{out:?}");
    serves_again(&changing);
    assert!(unix(&path).is_some());
}

/// The process that was started first serves, and nothing of another one is left.
#[track_caller]
fn serves_again(changing: &Changing) {
    let parent = changing.running.pid();
    wait_until("no other process", DEADLINE, || {
        let status = status(changing);
        (status.service.pid == parent as u32 && status.upgrades.successor.is_none()).then_some(())
    });
}

#[test] // O-UP-11
fn new_process_has_no_other_descriptors_and_the_signals_of_a_fresh_start() {
    let changing = pool(1, 0, "--leak DIR/leak");
    let first = changing.running.pid();
    let has_leak = |pid| proc::fds(pid).values().any(|path| path.ends_with("/leak"));
    assert!(has_leak(first));
    fs::remove_file(changing.dir.path().join("leak")).expect("a file");
    let before = proc::sig_masks(first).expect("it lives");
    let kinds = |pid| {
        let mut kinds = BTreeMap::new();
        for path in proc::fds(pid).into_values() {
            *kinds.entry(path.split(':').next().unwrap_or_default().to_owned()).or_insert(0) += 1;
        }
        kinds
    };
    let second = upgrade(&changing);
    wait_alone(&changing);
    // It has opened the file itself: the new one alone.
    let leaks = proc::fds(second).into_values().filter(|path| path.contains("/leak")).collect::<Vec<_>>();
    assert!(leaks.len() == 1 && leaks[0].ends_with("/leak"), "{leaks:?}");
    assert_eq!(proc::sig_masks(second).expect("it lives"), before);
    let after = kinds(second);
    let third = upgrade(&changing);
    wait_alone(&changing);
    // A client that has just gone may have been among the former ones.
    wait_until("no more descriptors than before", DEADLINE, || {
        let is_known = |(kind, count): (&String, &i32)| after.get(kind).is_some_and(|before| count <= before);
        kinds(third).iter().all(is_known).then_some(())
    });
}

#[test] // O-UP-11, O-SD-04: what a manager and the predecessor have said to the new process
fn children_of_the_new_process_have_none_of_its_variables() {
    const PASSED: [&str; 5] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC"];
    let manager = Manager::new();
    let args = format!("--pid-file DIR/pid --probation-ms 0 {}", Changing::size(1));
    let changing = Changing::start_by(|program| manager.watches(program, Duration::from_secs(60)), "value=a\n", &args);
    changing.wait_idle(1);
    // One that has them from its predecessor passes them on.
    for _ in 0..2 {
        let pid = upgrade(&changing);
        wait_alone(&changing);
        let given = proc::env_names(pid);
        assert!(PASSED.iter().all(|name| given.iter().any(|given| given == name)), "{given:?}");
        let said = Client::connect(changing.addr).line("variables");
        let names: Vec<&str> = said.split(' ').collect();
        assert_eq!(names.iter().filter(|name| **name == MARKER_VARIABLE).count(), 2, "its own and a program's: {said}");
        assert!(!said.contains("LISTEN") && !said.contains("NOTIFY") && !said.contains("WATCHDOG"), "{said}");
    }
}

#[test] // O-UP-13
fn process_without_privileges_is_upgraded_as_far_as_it_may() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: takes root");
        return;
    }
    let changing = pool(1, 0, "--user nobody");
    // The directory is root's: the pid file and its lock are passed on, but a socket can't be made there.
    let out = lenorectl(&changing.socket, "upgrade");
    assert!(out.code == 6 && out.err.contains("needs root for") && out.err.contains("control.sock"), "{out:?}");
    fs::set_permissions(changing.dir.path(), fs::Permissions::from_mode(0o777)).expect("its permissions");
    changing.write("value=b\n");
    let new = upgrade(&changing);
    assert_eq!(pid_file(&changing), new);
    changing.wait_value("b");
}

#[test] // O-UP-18: the log is the operator's only witness
fn log_file_has_the_lines_of_both_processes() {
    let mut changing = pool(1, 0, "--logfile DIR/log");
    let old = changing.running.pid();
    let new = upgrade(&changing);
    assert!(changing.running.wait_exit(DEADLINE).success());
    let log = fs::read_to_string(changing.dir.path().join("log")).expect("a log");
    for (pid, text) in [(old, "upgrade is applied, and this program is draining"), (new, "this process has taken over")]
    {
        assert!(log.lines().any(|line| line.contains(&format!(" {pid} ")) && line.contains(text)), "{text}: {log}");
    }
    wait_alone(&changing);
    fs::rename(changing.dir.path().join("log"), changing.dir.path().join("log.1")).expect("a log");
    assert_eq!(lenorectl(&changing.socket, "reopen").code, 0);
    changing.value();
    assert!(changing.dir.path().join("log").exists());
}

#[test] // nothing is left of a new process that was killed before it had the names
fn new_process_that_is_killed_leaves_no_names_behind() {
    let changing = pool(1, 1000, "");
    let new = loading(&changing, "value=b\nchild=hang\n");
    let names = || {
        let entries = fs::read_dir(changing.dir.path()).expect("a directory");
        let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names().len(), 6, "{:?}", names());
    kill(new, Signal::SIGKILL).expect("it lives");
    wait_until("the old one's names alone", DEADLINE, || {
        (names() == ["conf", "control.sock", "pid", "pid.state"]).then_some(())
    });
}

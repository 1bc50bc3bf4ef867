//! What goes from the old process to the new one besides sockets: names, descriptors, the log.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use util::addresses::is_free;
use util::manager::Manager;
use util::program::MARKER_VARIABLE;
use util::{Client, DEADLINE, Program, kill, proc, test_program, wait_until};

use super::changing::{Changing, lenorectl};
use super::upgrading::{loading, pid_file, pool, status, upgrade, wait_alone};

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

/// An address with a port that takes privileges, if there are any, and that nothing listens on.
fn privileged_address() -> Option<SocketAddr> {
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").ok()?;
    let ports = 600..first.trim().parse::<u16>().ok()?.min(1024);
    let own = std::process::id().to_be_bytes();
    ports.map(|port| SocketAddr::from(([127, own[2] | 1, own[3], 11], port))).find(|address| is_free(*address))
}

/// Whether this test may give up privileges.
fn is_root() -> bool {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: takes root");
    }
    nix::unistd::geteuid().is_root()
}

/// A directory of root's, in which nobody else may make files.
#[track_caller]
fn directory_of_root(place: &Path, mode: u32) {
    fs::create_dir(place).expect("a directory");
    fs::set_permissions(place, fs::Permissions::from_mode(mode)).expect("its permissions");
}

#[test] // O-UP-13: a port below 1024, a log file that nobody else may see, and a pid file in a directory that is root's, as /run is
fn what_needed_root_is_passed_on_by_a_process_without_privileges() {
    let Some(address) = privileged_address().filter(|_| is_root()) else { return };
    let dirs = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dirs.path(), fs::Permissions::from_mode(0o755)).expect("its permissions");
    let [logs, run] = ["log", "run"].map(|name| dirs.path().join(name));
    directory_of_root(&logs, 0o700);
    directory_of_root(&run, 0o755);
    let (size, logs, pid_file) = (Changing::size(1), logs.join("log"), run.join("pid"));
    let files = format!("--logfile {} --pid-file {}", logs.display(), pid_file.display());
    let args = format!("{size} --probation-ms 0 --user nobody --listen {address} {files}");
    let mut changing = Changing::start("value=a\n", &args);
    changing.wait_idle(1);
    fs::set_permissions(changing.dir.path(), fs::Permissions::from_mode(0o777)).expect("its permissions");
    let nobody = nix::unistd::User::from_name("nobody").expect("users").expect("nobody").uid;
    let says = |path: &Path| fs::read_to_string(path).expect("a file");
    let state = run.join("pid.state");
    let mut old = changing.running.pid();
    for value in ["b", "c"] {
        changing.write(&format!("value={value}\n"));
        let new = upgrade(&changing);
        assert!(says(format!("/proc/{new}/status").as_ref()).contains(&format!("\nUid:\t{nobody}\t{nobody}\t")));
        assert_eq!(says(&pid_file).trim(), new.to_string());
        let file = OpenOptions::new().read(true).write(true).open(&pid_file).expect("a pid file");
        assert!(Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err(), "its lock is free");
        wait_alone(&changing);
        assert_eq!((changing.value().as_str(), Client::connect(address).line("x").is_empty()), (value, false));
        wait_until("the state of the new one", DEADLINE, || {
            let state = says(&state);
            (state.starts_with("state=ready\n") && state.contains(&format!("pid={new}\n"))).then_some(())
        });
        let taken_over = format!("this process has taken over from process {old}");
        let log = says(&logs);
        assert!(log.lines().any(|line| line.contains(&format!(" {new} ")) && line.contains(&taken_over)), "{log}");
        if value == "b" {
            assert!(changing.running.wait_exit(DEADLINE).success(), "{log}");
        }
        old = new;
    }
    assert_eq!(fs::read_dir(&run).expect("a directory").count(), 2, "pid and pid.state");
    assert_eq!(lenorectl(&changing.socket, "stop").code, 0);
    assert_eq!((says(&pid_file).as_str(), says(&state).as_str()), ("", ""), "they can't be removed");
}

#[test] // O-UP-13, O-UP-07: a new process that fails has not written to what it could not make anew
fn state_file_that_can_not_be_made_anew_is_the_old_processes_until_the_new_one_serves() {
    if !is_root() {
        return;
    }
    let dirs = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dirs.path(), fs::Permissions::from_mode(0o755)).expect("its permissions");
    let run = dirs.path().join("run");
    directory_of_root(&run, 0o755);
    let pid_file = format!("--pid-file {}/pid", run.display());
    let args = format!("{} --probation-ms 60000 --user nobody {pid_file}", Changing::size(1));
    let changing = Changing::start("value=a\n", &args);
    changing.wait_idle(1);
    fs::set_permissions(changing.dir.path(), fs::Permissions::from_mode(0o777)).expect("its permissions");
    let old = changing.running.pid();
    let state = || fs::read_to_string(run.join("pid.state")).expect("a file");
    let is_of = |pid: i32| state().starts_with("state=ready\n") && state().contains(&format!("pid={pid}\n"));
    changing.write("value=b\nchild=die\n");
    assert_eq!(lenorectl(&changing.socket, "upgrade").code, 1);
    assert!(is_of(old), "{}", state());
    serves_again(&changing);
    changing.write("value=b\n");
    changing.ask("upgrade no-wait").ok();
    changing.wait_log("the new program serves");
    let new = status(&changing).service.pid as i32;
    wait_until("the state of the new one", DEADLINE, || is_of(new).then_some(()));
    kill(new, Signal::SIGKILL).expect("it lives");
    wait_until("the state of the old one again", DEADLINE, || is_of(old).then_some(()));
    serves_again(&changing);
    // What is out of reach altogether is said before anything begins.
    fs::set_permissions(&run, fs::Permissions::from_mode(0o700)).expect("its permissions");
    let out = lenorectl(&changing.socket, "upgrade");
    assert!(out.code == 6 && out.err.contains("needs root for") && out.err.contains("pid.state"), "{out:?}");
}

#[test] // O-UP-13: it is the same open file
fn pid_file_that_a_process_may_not_look_for_is_passed_on() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("its permissions");
    let (run, config) = (dir.path().join("run"), dir.path().join("conf"));
    directory_of_root(&run, 0o700);
    fs::write(&config, "value=a\n").expect("a file");
    let args = format!("{} --probation-ms 0 --user nobody --pid-file {}/pid", Changing::size(1), run.display());
    let program = Program::new(test_program("daemon_change")).args(args.split_whitespace());
    let mut running = program.arg("--config").arg(config).start();
    let addr = running.listening_addr();
    let old = running.pid().to_string();
    assert!(Client::connect(addr).line("x").starts_with(|first: char| first.is_ascii_digit()));
    running.signal(Signal::SIGUSR1);
    assert!(running.wait_exit(DEADLINE).success(), "{}", running.stderr_text());
    let new = fs::read_to_string(run.join("pid")).expect("a pid file").trim().to_owned();
    assert!(new != old && proc::is_alive(new.parse().expect("a pid")), "{}", running.stderr_text());
    assert!(Client::connect(addr).line("x").ends_with(" x"));
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
    // A state file has one name more while it is replaced.
    wait_until("the names of both", DEADLINE, || (names().len() == 6).then_some(()));
    kill(new, Signal::SIGKILL).expect("it lives");
    wait_until("the old one's names alone", DEADLINE, || {
        (names() == ["conf", "control.sock", "pid", "pid.state"]).then_some(())
    });
}

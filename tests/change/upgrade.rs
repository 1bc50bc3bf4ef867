//! A new program that takes over while the old one serves.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lenore::daemon::view::Snapshot;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use util::control::Control;
use util::manager::Manager;
use util::{Client, DEADLINE, Program, kill, proc, test_program, wait_until};

use super::changing::{Changing, Outcome, lenorectl};
use super::load::Load;

/// A pool with a pid file, whose upgrades are on probation for so long.
#[track_caller]
fn pool(children: u32, probation_ms: u32, args: &str) -> Changing {
    let args = format!("--pid-file DIR/pid --probation-ms {probation_ms} {args}");
    Changing::pool(children, "value=a\n", &args)
}

fn pid_file(changing: &Changing) -> i32 {
    let text = fs::read_to_string(changing.dir.path().join("pid")).expect("a pid file");
    text.trim().parse().unwrap_or_else(|_| panic!("a pid, not {text:?}"))
}

/// Upgrades, and returns the pid that is said to serve.
#[track_caller]
fn upgrade(changing: &Changing) -> i32 {
    let out = lenorectl(&changing.socket, "upgrade");
    assert_eq!(out.code, 0, "{out:?}\n{}", changing.running.stderr_text());
    let pid = out.out.split_whitespace().nth(2).and_then(|pid| pid.parse().ok());
    pid.unwrap_or_else(|| panic!("applied: process PID serves: {out:?}"))
}

#[track_caller]
fn status(changing: &Changing) -> Snapshot {
    Control::connect(&changing.socket).status()
}

/// Waits until the process that serves has no predecessor any more, so that it can be upgraded.
#[track_caller]
fn wait_alone(changing: &Changing) -> Snapshot {
    wait_until("a predecessor that has ended", DEADLINE, || {
        let status = status(changing);
        status.upgrades.predecessor.is_none().then_some(status)
    })
}

fn script(changing: &Changing, name: &str, text: &str, mode: u32) -> PathBuf {
    let path = changing.dir.path().join(name);
    fs::write(&path, text).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its permissions");
    path
}

/// Looks without a pause whether the lock of the pid file can be had, or there is no pid in it.
fn probe(path: PathBuf, is_over: Arc<AtomicBool>) -> thread::JoinHandle<usize> {
    thread::spawn(move || {
        let mut looks = 0;
        while !is_over.load(Ordering::Relaxed) {
            let file = OpenOptions::new().read(true).write(true).open(&path).expect("a pid file at any time");
            assert!(
                Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err(),
                "the lock was free after {looks} looks"
            );
            let text = fs::read_to_string(&path).expect("a pid file at any time");
            assert!(text.trim().parse::<i32>().is_ok(), "no pid: {text:?}");
            looks += 1;
            thread::yield_now();
        }
        looks
    })
}

#[test] // O-UP-01, O-UP-02, O-UP-04, O-UP-08, O-UP-11, O-UP-16, O-UP-18, O-UP-19
fn twenty_upgrades_under_load_lose_nothing() {
    let mut changing = pool(3, 150, "");
    let is_over = Arc::new(AtomicBool::new(false));
    let prober = probe(changing.dir.path().join("pid"), Arc::clone(&is_over));
    let load = Load::begin(changing.addr);
    let (mut before, mut descriptors) = (status(&changing), None);
    for number in 0..20 {
        changing.write(&format!("value={number}\n"));
        let pid = upgrade(&changing);
        assert_eq!((pid_file(&changing), proc::state(pid).is_some()), (pid, true));
        if number == 0 {
            assert!(changing.running.wait_exit(DEADLINE).success(), "{}", changing.running.stderr_text());
        }
        let after = wait_alone(&changing);
        assert_eq!((after.service.pid, after.upgrades.verdicts["applied"]), (pid as u32, number + 1));
        for (what, before, after) in [
            ("requests", before.counters.requests, after.counters.requests),
            ("forks", before.counters.forks, after.counters.forks),
            ("durations", before.durations.request.count(), after.durations.request.count()),
            ("exits", before.counters.exits.values().sum(), after.counters.exits.values().sum()),
        ] {
            assert!(before <= after, "{what}: {after} after {before}");
        }
        assert!(after.counters.requests > before.counters.requests);
        before = after;
        // Nothing is inherited once more each time.
        let open = wait_until("its descriptors", DEADLINE, || {
            let open = proc::fds(pid).len();
            (descriptors.is_none_or(|descriptors| open <= descriptors)).then_some(open)
        });
        descriptors.get_or_insert(open);
    }
    let tally = load.end();
    tally.assert_nothing_lost();
    is_over.store(true, Ordering::Relaxed);
    assert!(prober.join().expect("the lock was never free") > 100);
    assert_eq!(changing.value(), "19");
    let mut names: Vec<String> = fs::read_dir(changing.dir.path())
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["conf", "control.sock", "pid", "pid.state"]);
    println!("20 upgrades: {} requests answered, none lost", tally.answered);
}

#[test] // O-UP-01: a server that forks for each request
fn post_forking_server_is_upgraded_under_load() {
    let changing = Changing::start("value=a\n", "--post --max 10 --probation-ms 150 --pid-file DIR/pid");
    // It says where it listens before it has one.
    wait_until("a control socket", DEADLINE, || changing.socket.exists().then_some(()));
    let load = Load::begin(changing.addr);
    for number in 0..5 {
        changing.write(&format!("value={number}\n"));
        let pid = upgrade(&changing);
        assert_eq!(pid_file(&changing), pid);
        wait_alone(&changing);
    }
    load.end().assert_nothing_lost();
    assert_eq!(changing.value(), "4");
}

#[test] // O-UP-01: a server of the component, of each kind; one that never forks has the connections itself
fn component_server_is_upgraded_under_load() {
    for mode in ["single", "fork", "prefork"] {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("control.sock");
        let program = Program::new(test_program("component_server")).arg("--control").arg(&socket);
        let running = program.args(["--mode", mode, "--probation-ms", "150"]).start();
        let addr = running.listening_addr();
        let changing = Changing { running, dir, socket, addr };
        let load = Load::without_kept(changing.addr);
        for _ in 0..3 {
            upgrade(&changing);
            wait_alone(&changing);
        }
        let tally = load.end();
        assert_eq!((tally.refused, tally.reset, tally.unanswered), (0, 0, 0), "{mode}: {tally:?}");
    }
}

/// Upgrades under load to something that fails: the old one serves, and nothing is lost.
#[track_caller]
fn fails(changing: &Changing, args: &str, code: &str, cause: &str, last_words: &str) -> Outcome {
    let parent = changing.running.pid();
    let load = Load::begin(changing.addr);
    let out = lenorectl(&changing.socket, &format!("upgrade {args}"));
    assert_eq!(out.code, 1, "{out:?}\n{}", changing.running.stderr_text());
    assert!(out.err.contains(&format!("{}: ", code.replace('_', " "))), "{out:?}");
    assert!(out.err.contains(cause) && out.err.contains(last_words), "{out:?}");
    serves(changing, parent);
    load.end().assert_nothing_lost();
    let status = status(changing);
    changing.wait_idle(status.pool.min_spare);
    assert_eq!((status.upgrades.verdicts[code], status.upgrades.verdicts["applied"]), (1, 0));
    let last = status.upgrades.last.expect("one that has ended");
    assert!(last.verdict == code && last.cause.contains(cause), "{last:?}");
    out
}

/// The process that has served before does so, with all names.
#[track_caller]
fn serves(changing: &Changing, parent: i32) {
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

/// A program that can't be started, or is none of ours.
#[track_caller]
fn is_rejected(name: &str, text: &str, mode: u32, cause: &str, last_words: &str) {
    let changing = pool(2, 1000, "");
    let before = changing.children();
    let path = if text.is_empty() { changing.dir.path().join(name) } else { script(&changing, name, text, mode) };
    fails(&changing, &format!("--program {}", path.display()), "rejected", cause, last_words);
    assert_eq!(changing.children(), before, "no child was asked to go");
}

#[test] // O-UP-01
fn program_that_is_missing_is_rejected() {
    is_rejected("none", "", 0, "none: execve: No such file or directory", "");
}

#[test] // O-UP-01
fn program_that_is_not_executable_is_rejected() {
    is_rejected("text", "#!/bin/sh\n", 0o644, "text: execve: Permission denied", "");
}

#[test] // O-UP-01
fn program_of_another_architecture_is_rejected() {
    is_rejected("binary", "\x7fELF, but not really", 0o755, "binary: execve: Exec format error", "");
}

#[test] // O-UP-01, O-UP-04
fn program_that_exits_at_once_is_rejected_with_its_last_words() {
    is_rejected(
        "exits",
        "#!/bin/sh\necho no licence >&2\nexit 1\n",
        0o755,
        "the new program ended with exit code 1",
        "no licence",
    );
}

#[test] // O-UP-01, O-UP-14: what it has forked ends as well
fn program_that_does_not_greet_is_rejected() {
    is_rejected("silent", "#!/bin/sh\nsleep 97 & sleep 98\n", 0o755, "has not greeted in time", "");
    let left = proc::pids_with_argument("97");
    assert!(left.is_empty(), "{left:?}");
}

#[test] // O-UP-14
fn program_that_speaks_another_version_is_rejected_by_name() {
    let text = "#!/bin/bash\nIFS=: read -ra names <<< \"$LISTEN_FDNAMES\"\n\
        for at in \"${!names[@]}\"; do [ ${names[at]} = lenore-handover ] && eval \"echo greeting 2 $$ >&$((at + 3))\"; done\n\
        sleep 30\n";
    is_rejected("other", text, 0o755, "says \"greeting 2", "");
}

#[test] // O-UP-01, O-UP-03
fn program_whose_first_child_panics_is_rolled_back() {
    let changing = pool(2, 1000, "");
    changing.write("value=b\nchild=die\n");
    fails(&changing, "", "rolled_back", "children die as soon as they are forked", "cause=exited:3");
}

#[test] // O-UP-01
fn program_that_can_not_load_its_configuration_is_rolled_back() {
    let changing = pool(2, 1000, "");
    changing.write("nonsense\n");
    fails(&changing, "", "rolled_back", "the new program ended with exit code 1", "\"nonsense\" is not known");
}

#[test] // O-UP-03: it is ended, with the children that it has forked
fn program_that_is_not_ready_in_time_is_rolled_back() {
    let changing = pool(2, 1000, "--upgrade-ms 1200 --grace-ms 300");
    changing.write("value=b\nchild=hang\n");
    fails(&changing, "", "rolled_back", "was not ready within upgrade_timeout", "");
    let parent = changing.running.pid();
    wait_until("nothing of it", DEADLINE, || {
        let left = changing.running.descendants_alive();
        (left == changing.children() && proc::state(parent).is_some()).then_some(())
    });
}

/// Begins an upgrade, and waits until the new process serves on probation. Returns its pid.
#[track_caller]
fn on_probation(changing: &Changing) -> i32 {
    changing.write("value=b\n");
    changing.ask("upgrade no-wait").ok();
    wait_until("a new process that serves", DEADLINE, || {
        let pid = pid_file(changing);
        (pid != changing.running.pid() && changing.logged("the new program serves") > 0).then_some(pid)
    })
}

#[test] // O-UP-07: the old one serves again, with all names
fn program_that_is_killed_on_probation_is_rolled_back() {
    for signal in [Signal::SIGKILL, Signal::SIGABRT] {
        let changing = pool(2, 60_000, "");
        let parent = changing.running.pid();
        let new = on_probation(&changing);
        // A child of the old one may take one client more before it hears that it is to go.
        changing.wait_value("b");
        let mut old = Control::of(&changing.running, &changing.dir.path().join("control.sock.old"));
        assert_eq!(old.status().upgrades.stage.as_deref(), Some("probation"));
        kill(new, signal).expect("it lives");
        serves(&changing, parent);
        let status = status(&changing);
        changing.wait_idle(2);
        assert_eq!(status.upgrades.verdicts["rolled_back"], 1);
        assert!(status.upgrades.last.expect("one").cause.contains("signal"));
        // It can be tried again.
        let new = on_probation(&changing);
        assert_ne!(new, parent);
    }
}

#[test] // O-UP-01, O-UP-07: under load only what the new one had in hand is lost
fn program_that_crash_loops_on_probation_is_rolled_back() {
    let changing = pool(2, 60_000, "");
    let parent = changing.running.pid();
    let file = changing.dir.path().join("die");
    changing.write(&format!("value=b\nchild=file {}\n", file.display()));
    changing.ask("upgrade no-wait").ok();
    changing.wait_log("the new program serves");
    fs::write(&file, "").expect("a file");
    let new = pid_file(&changing);
    assert_ne!(new, parent);
    proc::children(new).into_keys().for_each(|child| kill(child, Signal::SIGKILL).expect("it lives"));
    serves(&changing, parent);
    let last = status(&changing).upgrades.last.expect("one that has ended");
    assert!(last.cause.contains("children die as soon as they are forked"), "{last:?}");
}

#[test] // O-UP-05, O-UP-06: one that drains is not waited for longer than an operator wants
fn old_process_that_drains_is_ended_by_finish() {
    let mut changing = pool(2, 0, "--grace-ms 500");
    let mut client = Client::connect(changing.addr);
    client.send("late 60000\r\n");
    changing.control().wait_status("a busy child", |status| (status.pool.states.busy == 1).then_some(()));
    let old = changing.running.pid();
    let new = upgrade(&changing);
    assert_eq!(status(&changing).upgrades.predecessor, Some(old as u32));
    let out = lenorectl(&changing.socket, "upgrade");
    assert_eq!(out.code, 6, "{out:?}");
    assert!(out.err.contains(&old.to_string()), "{out:?}");
    let finished = lenorectl(&changing.socket, "finish");
    assert_eq!(finished.code, 0, "{finished:?}");
    assert!(changing.running.wait_exit(DEADLINE).success());
    wait_alone(&changing);
    assert_ne!(upgrade(&changing), new);
    let nothing = wait_until("nothing to finish", DEADLINE, || {
        let out = lenorectl(&changing.socket, "finish");
        (out.code == 6).then_some(out)
    });
    assert!(nothing.err.contains("nothing"), "{nothing:?}");
}

#[test] // O-UP-10: what was in hand is finished
fn request_in_hand_is_finished_by_the_old_process() {
    let mut changing = pool(2, 0, "");
    let mut client = Client::connect(changing.addr);
    client.send("late 900\r\n");
    changing.control().wait_status("a busy child", |status| (status.pool.states.busy == 1).then_some(()));
    changing.write("value=b\n");
    upgrade(&changing);
    let answer = client.read_line();
    assert!(answer.contains(" a late 900"), "{answer}");
    assert!(changing.running.wait_exit(DEADLINE).success());
    assert_eq!(changing.value(), "b");
}

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

#[test] // O-UP-15
fn upgrade_is_refused_while_something_else_is_under_way() {
    let changing = pool(1, 60_000, "--start-ms 60000");
    let refused = |why: &str| {
        let out = lenorectl(&changing.socket, "upgrade");
        assert!(out.code == 6 && out.err.contains(why), "{out:?}");
    };
    changing.write("child=hang\n");
    changing.ask("reload no-wait").ok();
    changing.control().wait_status("a reload", |status| status.reloads.stage.is_some().then_some(()));
    refused("reload");
    let changing = pool(1, 60_000, "");
    changing.write("value=b\nchild=hang\n");
    changing.ask("upgrade no-wait").ok();
    let out = lenorectl(&changing.socket, "upgrade");
    assert!(out.code == 6 && out.err.contains("upgrade"), "{out:?}");
    assert_eq!(lenorectl(&changing.socket, "reload").code, 6);
}

#[test] // what an operator wants is not undone by the process that rests
fn new_process_that_is_stopped_on_probation_is_not_taken_back() {
    let mut changing = pool(2, 60_000, "");
    let new = on_probation(&changing);
    assert_eq!(lenorectl(&changing.socket, "stop").code, 0);
    assert!(changing.running.wait_exit(DEADLINE).success(), "{}", changing.running.stderr_text());
    wait_until("the end of both", DEADLINE, || (!proc::is_alive(new)).then_some(()));
    assert!(!changing.dir.path().join("pid").exists() && !Path::new(&changing.socket).exists());
}

#[test] // the old process is killed before it has handed over: the new one serves
fn old_process_that_is_killed_leaves_everything_to_the_new_one() {
    let mut changing = pool(2, 60_000, "");
    on_probation(&changing);
    kill(changing.running.pid(), Signal::SIGKILL).expect("it lives");
    changing.running.wait_exit(DEADLINE);
    let status = wait_alone(&changing);
    assert_eq!(pid_file(&changing), status.service.pid as i32);
    changing.wait_value("b");
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
    // What the launcher and the predecessor have said is not said to others.
    let child = *proc::children(third).keys().next().expect("a child");
    for variable in ["LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"] {
        assert!(!proc::has_env(child, variable) || proc::ppid(child) == Some(third), "{variable}");
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

#[test] // the log is the operator's only witness
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

#[test] // O-SD-07, O-UP-17
fn service_manager_hears_which_process_serves() {
    let mut manager = Manager::new();
    let mut changing = managed(&manager, "value=a\n", 0);
    let old = changing.running.pid();
    manager.wait_for("READY=1");
    changing.ask("upgrade no-wait").ok();
    let said = manager.wait_that("a MAINPID", |datagram| datagram.get("MAINPID").is_some());
    let new: i32 = said.get("MAINPID").and_then(|pid| pid.parse().ok()).expect("a pid");
    manager
        .wait_that("a READY of the new process", |datagram| datagram.pid == new && datagram.get("READY") == Some("1"));
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
    changing.ask("upgrade no-wait").ok();
    let said = manager.wait_that("a MAINPID", |datagram| datagram.get("MAINPID").is_some());
    let new: i32 = said.get("MAINPID").and_then(|pid| pid.parse().ok()).expect("a pid");
    manager
        .wait_that("a READY of the new process", |datagram| datagram.pid == new && datagram.get("READY") == Some("1"));
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

#[test]
fn application_can_ask_for_an_upgrade_itself() {
    let mut changing = pool(1, 60_000, "");
    let old = changing.running.pid();
    changing.signal(Signal::SIGUSR1);
    let new = wait_until("a new process", DEADLINE, || Some(pid_file(&changing)).filter(|pid| *pid != old));
    changing.wait_log("the new program serves");
    // The new one has a predecessor that can take everything back.
    kill(new, Signal::SIGUSR1).expect("it lives");
    let refused = wait_until("the reason", DEADLINE, || {
        changing.running.try_next_line(DEADLINE).filter(|line| line.contains("can't begin"))
    });
    assert!(refused.contains(&format!("process {old}, from which this one has taken over")), "{refused}");
    kill(new, Signal::SIGTERM).expect("it lives");
    assert!(changing.running.wait_exit(DEADLINE).success());
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

/// Begins an upgrade to a program that is not ready for a while, and returns its pid once it has children.
#[track_caller]
fn loading(changing: &Changing, config: &str) -> i32 {
    changing.write(config);
    changing.ask("upgrade no-wait").ok();
    let new = changing.control().wait_status("a new process", |status| {
        status.upgrades.successor.filter(|_| status.upgrades.stage.as_deref() == Some("loading"))
    });
    wait_until("its children", DEADLINE, || (!proc::children(new).is_empty()).then_some(new))
}

#[test] // the new process does not go on to wait for anybody
fn new_process_whose_predecessor_is_killed_meanwhile_is_a_daemon_like_others() {
    let mut changing = pool(2, 0, "");
    let new = loading(&changing, "value=b\nchild=slow\n");
    kill(changing.running.pid(), Signal::SIGKILL).expect("it lives");
    changing.running.wait_exit(DEADLINE);
    let status = wait_until("the new one, which serves", DEADLINE, || {
        let status = Control::try_connect(&changing.socket).ok().map(|mut control| control.status())?;
        (status.service.pid == new as u32 && status.pool.states.idle == 2).then_some(status)
    });
    assert_eq!(status.upgrades.predecessor, None);
    assert_eq!(pid_file(&changing), new);
    // One that is still starting would refuse it.
    assert_ne!(upgrade(&changing), new);
}

#[test] // a new process that hangs does not keep the old one
fn old_process_ends_with_a_new_one_that_hangs() {
    for signal in [Signal::SIGTERM, Signal::SIGQUIT] {
        let mut changing = pool(2, 1000, "--grace-ms 300");
        let new = loading(&changing, "value=b\nchild=hang\n");
        kill(new, Signal::SIGSTOP).expect("it lives");
        changing.signal(signal);
        assert!(changing.running.wait_exit(DEADLINE).success(), "{}", changing.running.stderr_text());
        wait_until("the end of the new one", DEADLINE, || (!proc::is_alive(new)).then_some(()));
    }
}

#[test] // O-UP-07: also if the old process was late
fn new_process_that_was_killed_before_the_end_of_its_probation_never_served_for_good() {
    let changing = pool(2, 1200, "");
    let parent = changing.running.pid();
    let new = on_probation(&changing);
    let begun = Instant::now();
    kill(parent, Signal::SIGSTOP).expect("it lives");
    kill(new, Signal::SIGKILL).expect("it lives");
    // The probation is over by then.
    wait_until("the end of the probation", DEADLINE, || (begun.elapsed() > Duration::from_millis(1400)).then_some(()));
    kill(parent, Signal::SIGCONT).expect("it lives");
    serves(&changing, parent);
    assert_eq!(status(&changing).upgrades.verdicts["rolled_back"], 1);
}

#[test] // O-UP-04: whoever did not wait asks the process that serves by then
fn verdict_of_an_upgrade_is_told_by_the_new_process() {
    let changing = pool(1, 300, "");
    assert_eq!(lenorectl(&changing.socket, "reopen --no-wait").out.trim(), "order 1");
    let new = on_probation(&changing);
    let told = wait_until("a verdict", DEADLINE, || {
        let told = lenorectl(&changing.socket, "verdict 2");
        (told.code == 0).then_some(told)
    });
    assert!(told.out.starts_with("applied"), "{told:?}");
    assert_eq!(pid_file(&changing), new);
    assert!(lenorectl(&changing.socket, "verdict 1").out.starts_with("applied"), "from before the upgrade");
    assert_eq!(lenorectl(&changing.socket, "reopen --no-wait").out.trim(), "order 3");
}

#[test] // O-UP-04: in every generation
fn cause_is_told_by_a_process_that_has_taken_over_itself() {
    let changing = pool(1, 0, "");
    upgrade(&changing);
    wait_alone(&changing);
    let out = lenorectl(&changing.socket, &format!("upgrade --program {}", changing.dir.path().join("none").display()));
    assert!(out.code == 1 && out.err.contains("none: execve: No such file or directory"), "{out:?}");
}

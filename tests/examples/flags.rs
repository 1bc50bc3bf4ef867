//! The flags that the forking echo servers share: what makes daemons of them.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use nix::unistd::{Group, Pid, Uid, User, getsid};

use crate::detached::Detached;
use crate::{LONG, end, expect_lost, expect_refusal};
use util::{Client, DEADLINE, Program, at_once, example, kill, proc, wait_until};

const FORKING: [&str; 2] = ["echo_prefork", "echo_fork"];

const ANYWHERE: [&str; 2] = ["--listen", "127.0.0.1:0"];

#[track_caller]
fn held(server: &Detached, text: &str) -> Client {
    let mut client = Client::connect(server.addr);
    assert_eq!(client.line(text), text);
    client
}

#[test] // D-DE-02
fn a_detached_server_is_ready_when_its_launcher_has_gone() {
    let pool = ["--start-children", "3", "--min-spare", "1", "--max-spare", "3", "--max-children", "5"];
    for (name, args, children) in [("echo_prefork", &pool[..], 3), ("echo_fork", &["--max-children", "5"], 0)] {
        let server = Detached::echo(name, args);
        assert_eq!(server.children().len(), children, "{name}");
        held(&server, "x");
        server.end();
    }
}

#[test] // D-DE-01
fn a_detached_server_has_no_terminal_and_leads_nobody() {
    for name in FORKING {
        let server = Detached::echo(name, &[]);
        let client = held(&server, "x");
        let session = |pid| getsid(Some(Pid::from_raw(pid))).expect("a process that lives").as_raw();
        let own = session(server.pid);
        assert_ne!(own, server.pid, "{name}: a session's leader may get a terminal");
        assert_ne!(own, session(Pid::this().as_raw()), "{name} is in the session of whoever started it");
        for pid in server.children().into_iter().chain([server.pid]) {
            assert_eq!(session(pid), own);
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process that lives");
            let fields = stat[stat.rfind(')').expect("a name in parentheses") + 2..].split(' ');
            assert_eq!(fields.clone().nth(4), Some("0"), "{name}: {pid} has a terminal: {stat}");
            let fds = proc::fds(pid);
            let log = server.logfile.to_str().expect("a path that is text");
            assert_eq!([&fds[&0], &fds[&1], &fds[&2]], ["/dev/null", log, log], "{name}: {pid}");
            let directory = fs::read_link(format!("/proc/{pid}/cwd")).expect("a process that lives");
            assert_eq!(directory, Path::new("/"), "{name}: {pid}");
        }
        drop(client); // a request in hand is finished first
        server.end();
    }
}

#[test] // D-DE-04, D-DE-05, D-DE-06: paths mean what they meant where the program was started
fn relative_paths_are_those_of_the_launcher() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut running = Program::new(example("echo_prefork"))
        .args(ANYWHERE)
        .args(["--detach", "--logfile", "log", "--pid-file", "pid", "--verbose"])
        .current_dir(dir.path())
        .start();
    running.listening_addr();
    assert_eq!(running.wait_exit(LONG).code(), Some(0), "{}", running.stderr_text());
    let (log, pid_file) = (dir.path().join("log"), dir.path().join("pid"));
    let pid: i32 = fs::read_to_string(&pid_file).expect("a pid file").trim().parse().expect("a pid");
    fs::rename(&log, dir.path().join("log.OLD")).expect("a log file");
    kill(pid, Signal::SIGHUP).expect("the daemon");
    wait_until("a new log file", DEADLINE, || log.is_file().then_some(()));
    kill(pid, Signal::SIGTERM).expect("the daemon");
    wait_until("the end of all", LONG, || running.descendants_alive().is_empty().then_some(()));
    assert!(!pid_file.exists(), "the pid file is left behind");
}

#[test] // D-DE-06
fn a_pid_file_has_one_owner_at_a_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("pid");
    let path_text = path.to_str().expect("a path that is text");
    let flag = ["--pid-file", path_text];
    let owner = || fs::read_to_string(&path).map(|text| text.trim().to_owned()).ok();

    let first = Detached::echo("echo_prefork", &flag);
    let first_pid = first.pid.to_string();
    assert_eq!(owner().as_ref(), Some(&first_pid));
    // Each waits a second for an owner that may be about to go.
    let ways = FORKING.map(|name| [(name, &[][..]), (name, &["--detach"])]);
    at_once(ways.into_iter().flatten(), |(name, detach)| {
        let outcome = expect_refusal(name, &[&ANYWHERE[..], &flag, detach].concat(), 1, path_text);
        assert!(outcome.stderr.contains(&first_pid), "{name}: {outcome:?}");
    });
    // Children have it open and leave it alone, however they end.
    let children = first.children();
    for (&pid, signal) in children.iter().zip([Signal::SIGKILL, Signal::SIGTERM]) {
        kill(pid, signal).expect("a child of ours");
        wait_until("its end", DEADLINE, || (!proc::exists(pid)).then_some(()));
    }
    assert_eq!(owner(), Some(first.pid.to_string()));
    held(&first, "still there");
    first.end();
    assert_eq!(owner(), None, "the pid file is left behind");

    // One that nobody holds any more is no obstacle.
    let killed = Detached::echo("echo_fork", &flag);
    killed.signal(Signal::SIGKILL);
    wait_until("its end", DEADLINE, || killed.running.descendants_alive().is_empty().then_some(()));
    assert_eq!(owner(), Some(killed.pid.to_string()));
    let next = Detached::echo("echo_fork", &flag);
    assert_eq!(owner(), Some(next.pid.to_string()));
    next.end();
    assert_eq!(owner(), None);
}

#[test] // D-DE-07
fn privileges_are_dropped_when_everything_is_open() {
    if !Uid::effective().is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    let (Ok(Some(user)), Ok(Some(group))) = (User::from_name("nobody"), Group::from_name("daemon")) else {
        eprintln!("skipped: there is no user nobody or no group daemon");
        return;
    };
    for name in FORKING {
        for (args, gid) in
            [(&["--user", "nobody"][..], user.gid), (&["--user", "nobody", "--group", "daemon"], group.gid)]
        {
            // The log is in a directory that is root's alone: it was opened before.
            let server = Detached::echo(name, args);
            let client = held(&server, "x");
            for pid in server.children().into_iter().chain([server.pid]) {
                let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process that lives");
                let ids = |key| {
                    let line =
                        status.lines().find_map(|line| line.strip_prefix(key)).expect("a field of every process");
                    line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
                };
                assert_eq!(ids("Uid:"), vec![user.uid.to_string(); 4], "{name} {args:?}: {pid}");
                assert_eq!(ids("Gid:"), vec![gid.to_string(); 4], "{name} {args:?}: {pid}");
                assert!(!ids("Groups:").contains(&"0".into()), "{name} {args:?}: {pid} is in the group of root");
            }
            drop(client); // a request in hand is finished first
            server.end();
        }
    }
}

#[test] // D-SP-01, D-SP-04
fn what_can_t_be_had_is_named_and_exit_1() {
    let dir = tempfile::tempdir().expect("a directory");
    let missing = dir.path().join("missing/file").display().to_string();
    let bad =
        [("--user", "no-such-user"), ("--group", "no-such-group"), ("--logfile", &missing), ("--pid-file", &missing)];
    for name in FORKING {
        for (flag, value) in bad {
            for detach in [&[][..], &["--detach"]] {
                expect_refusal(name, &[&ANYWHERE[..], &[flag, value], detach].concat(), 1, value);
            }
        }
    }
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0, "something was left behind");
}

#[test] // D-BA-01, D-BA-02
fn a_request_that_takes_too_long_is_ended_by_the_babysitter() {
    for name in FORKING {
        let args = ["--request-timeout", "0.4", "--babysit", "0.1"];
        let mut running = Program::new(example(name)).args(ANYWHERE).args(args).start();
        let addr = running.listening_addr();
        // INT and TERM let a request in hand go on for as long as the client likes; KILL does not.
        let mut stuck = Client::connect(addr);
        assert_eq!(stuck.line("x"), "x");
        expect_lost(&mut stuck);
        running.wait_for_stderr("cause=rogue", DEADLINE);
        for signal in ["SIGINT", "SIGTERM", "SIGKILL"] {
            assert!(running.stderr_text().contains(signal), "{name}: no {signal}");
        }
        assert_eq!(Client::connect(addr).line("y"), "y");
        end(&mut running, Signal::SIGTERM);
    }
}

#[test] // the other way round: who is in time is left alone
fn a_request_in_time_is_left_alone_by_the_babysitter() {
    let args = ["--request-timeout", "60", "--babysit", "0.01"];
    let mut running = Program::new(example("echo_prefork")).args(ANYWHERE).args(args).start();
    let mut client = Client::connect(running.listening_addr());
    for _ in 0..500 {
        assert_eq!(client.line("x"), "x");
    }
    drop(client);
    end(&mut running, Signal::SIGTERM);
    assert!(!running.stderr_text().contains("rogue"), "{}", running.stderr_text());
}

#[test] // O-CT-01
fn operators_are_answered_at_the_socket_of_a_flag() {
    for (name, args) in
        [("echo_fork", &[][..]), ("echo_prefork", &[]), ("http_prefork", &[]), ("echo_server", &["--mode", "prefork"])]
    {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("control.sock");
        let running = Program::new(example(name)).args(ANYWHERE).args(args).arg("--control").arg(&path).start();
        running.listening_addr();
        let mut control = util::control::Control::of(&running, &path);
        assert_eq!(control.status().service.pid as i32, running.pid(), "{name}");
    }
}

#[test] // O-ST-01
fn browsers_see_the_status_at_the_address_of_a_flag() {
    for (name, args) in
        [("echo_fork", &[][..]), ("echo_prefork", &[]), ("http_prefork", &[]), ("echo_server", &["--mode", "prefork"])]
    {
        let running = Program::new(example(name)).args(ANYWHERE).args(args).args(["--status", "127.0.0.1:0"]).start();
        running.listening_addr();
        let address = util::http::status_address(&running);
        assert_eq!(util::http::status(address).service.pid as i32, running.pid(), "{name}");
    }
}

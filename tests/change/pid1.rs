//! A Daemon that is process 1, as in a container: of a PID namespace of its own, which takes root (O-SD-16).

use std::fs;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use util::http::{get, status_address};
use util::{Client, DEADLINE, Over, Program, Running, kill, proc, test_program, wait_until};

/// A program that is process 1 of a namespace.
struct Init {
    /// `unshare`, which waits for it.
    unshare: Running,
    /// As it is seen from here.
    pid: i32,
}

/// Tells whether there can be a PID namespace here. CI has root.
fn can_unshare() -> bool {
    let tried = Command::new("unshare").args(["--pid", "--fork", "--mount-proc", "true"]).output();
    let can = tried.is_ok_and(|output| output.status.success());
    if !can {
        assert!(std::env::var_os("LENORE_CI").is_none(), "there is no PID namespace");
        eprintln!("skipped: a PID namespace takes root");
    }
    can
}

/// Starts the test program with blank-separated arguments.
fn unshare(args: &str) -> Running {
    let program = Program::new("unshare").args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
    program.arg(test_program("daemon_control")).args(args.split_whitespace()).start()
}

impl Init {
    /// Starts the test program and waits until it listens.
    #[track_caller]
    fn start(args: &str) -> (Init, std::net::SocketAddr) {
        let unshare = unshare(args);
        let addr = unshare.listening_addr();
        let children = unshare.children();
        assert_eq!(children.len(), 1, "{}", unshare.stderr_text());
        (Init { pid: children[0], unshare }, addr)
    }

    fn signal(&self, signal: Signal) {
        kill(self.pid, signal).expect("it lives");
    }

    /// The children of process 1 that have not ended, and those that have and are not reaped.
    fn children(&self) -> (Vec<i32>, Vec<i32>) {
        let (alive, ended): (Vec<_>, Vec<_>) =
            proc::children(self.pid).into_iter().partition(|(_, stat)| stat.is_alive());
        let pids = |list: Vec<(i32, proc::Stat)>| list.into_iter().map(|(pid, _)| pid).collect();
        (pids(alive), pids(ended))
    }

    /// Runs a command of the shell in the namespace, and waits for the shell.
    fn run(&self, command: &str) {
        let pid = self.pid.to_string();
        let entered =
            Command::new("nsenter").args(["--target", &pid, "--pid", "--mount", "sh", "-c", command]).status();
        assert!(entered.expect("util-linux").success());
    }

    #[track_caller]
    fn expect_end(mut self) {
        let status = self.unshare.wait_exit(DEADLINE);
        assert_eq!(status.code(), Some(0), "{status}: {}", self.unshare.stderr_text());
        assert!(
            self.unshare.stderr_text().lines().any(|line| line.contains(" 1 lenore::daemon")),
            "it was not process 1"
        );
    }
}

const MODES: [&str; 3] =
    ["--mode prefork:2 --max 2 --min-spare 1 --max-spare 2", "--mode fork --max 2", "--mode single"];

#[test] // O-SD-16
fn term_int_and_hup_work_in_process_1() {
    if !can_unshare() {
        return;
    }
    for mode in MODES {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let dir = tempfile::tempdir().expect("a directory");
            let log = dir.path().join("log");
            let unshare = unshare(&format!("{mode} --dir {}", dir.path().display()));
            let addr = wait_until("a listener", DEADLINE, || {
                let text = fs::read_to_string(&log).ok()?;
                text.split_once("listening on ")?.1.split_once('\n')?.0.parse().ok()
            });
            assert!(Client::connect(addr).line("x").ends_with(" x"), "{mode}");
            let init = Init { pid: unshare.children()[0], unshare };
            fs::rename(&log, dir.path().join("log.1")).expect("a log");
            init.signal(Signal::SIGHUP);
            wait_until("a log that is opened again", DEADLINE, || log.is_file().then_some(()));
            assert!(Client::connect(addr).line("x").ends_with(" x"), "{mode}");
            assert_eq!(fs::read_to_string(dir.path().join("pid")).expect("a pid file").trim(), "1");
            init.signal(signal);
            let Init { mut unshare, .. } = init;
            let status = unshare.wait_exit(DEADLINE);
            assert_eq!(status.code(), Some(0), "{mode} {signal}: {}", fs::read_to_string(&log).unwrap_or_default());
        }
    }
}

#[test] // O-SD-16
fn process_1_reaps_strangers_and_says_nothing_of_it() {
    if !can_unshare() {
        return;
    }
    for mode in MODES {
        let (init, addr) = Init::start(mode);
        assert!(Client::connect(addr).line("x").ends_with(" x"), "{mode}");
        let own = if mode.contains("prefork") { 2 } else { 0 };
        let has = |count| {
            let (alive, ended) = init.children();
            (ended.is_empty() && alive.len() == count).then_some(())
        };
        wait_until("children that wait", DEADLINE, || has(own));
        let own_lines = [("prefork", "is ready: ", 2), ("mode fork", "child has ended: ", 1)];
        for (_, line, count) in own_lines.into_iter().filter(|(name, ..)| mode.contains(name)) {
            wait_until(line, DEADLINE, || (init.unshare.stderr_text().matches(line).count() == count).then_some(()));
        }
        let before = init.unshare.stderr_text().len();
        let dir = tempfile::tempdir().expect("a directory");
        let gate = dir.path().join("gate");
        fs::write(&gate, "").expect("a file");
        let wait = format!("while [ -e {} ]; do sleep 0.01; done", gate.display());
        // Three that end by themselves, with a code of their own or by a signal: their parent has gone before.
        init.run(&format!("({wait}; exit 7) & ({wait}; exec sh -c 'kill -9 $$') & ({wait}) & exit 0"));
        wait_until("strangers", DEADLINE, || has(own + 3));
        fs::remove_file(&gate).expect("a file");
        wait_until("the end of strangers", DEADLINE, || has(own));
        // Each is reaped in the kernel's debug lines, and in no other.
        let said = wait_until("lines of the kernel", DEADLINE, || {
            let text = init.unshare.stderr_text()[before..].to_owned();
            (text.matches("lenore::children: reaped").count() == 3).then_some(text)
        });
        assert!(said.lines().all(|line| line.contains("[DEBUG]")), "{mode}: {said}");
        assert!(Client::connect(addr).line("x").ends_with(" x"), "{mode}");
        init.signal(Signal::SIGTERM);
        init.expect_end();
    }
}

#[test] // O-SD-16
fn detach_in_process_1_is_an_error_that_says_why() {
    if !can_unshare() {
        return;
    }
    for mode in MODES {
        let dir = tempfile::tempdir().expect("a directory");
        let mut unshare = unshare(&format!("{mode} --detach --dir {}", dir.path().display()));
        assert_eq!(unshare.wait_exit(DEADLINE).code(), Some(1), "{}", unshare.stderr_text());
        let said = unshare.stderr_to_end(DEADLINE);
        assert!(said.contains("detach is set, but the program is process 1: "), "{said}");
        // Nothing is left behind.
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0, "{mode}");
    }
}

#[test] // O-SD-16
fn process_1_ends_after_its_last_child() {
    if !can_unshare() {
        return;
    }
    for mode in &MODES[..2] {
        let (init, addr) = Init::start(mode);
        let mut client = Client::connect(addr);
        let answer = client.line("x");
        let inside: i32 = answer.split(' ').next().and_then(|pid| pid.parse().ok()).expect("a pid");
        assert_ne!(inside, 1, "{mode}");
        client.send("late 1500\r\n");
        init.signal(Signal::SIGTERM);
        wait_until("the end of the listener", DEADLINE, || Client::try_connect(addr).is_err().then_some(()));
        // Had process 1 ended, the system would have killed this child.
        assert!(proc::is_alive(init.pid), "{mode}");
        assert_eq!(client.read_line(), format!("{inside} late"), "{mode}");
        assert!(proc::is_alive(init.pid), "{mode}");
        client.finish_sending();
        client.expect_eof();
        let text = init.unshare.wait_for_stderr(&format!("child has ended: pid={inside} "), DEADLINE);
        assert!(text.contains("requests=1") && !text.contains("signal:"), "{mode}: {text}");
        init.expect_end();
    }
}

#[test] // O-SD-16, O-SD-17: clients leave when it is not ready any more, as they do behind a load balancer
fn term_under_load_loses_nothing_in_process_1() {
    if !can_unshare() {
        return;
    }
    let pool = "--mode prefork:4 --max 8 --min-spare 2 --max-spare 4 --status 127.0.0.1:0";
    let (init, addr) = Init::start(&format!("{pool} --lame-duck-ms 1000 --grace-ms 8000"));
    init.unshare.wait_for_stderr("shutdown takes up to 8 s", DEADLINE);
    let status = status_address(&init.unshare);
    wait_until("readiness", DEADLINE, || (get(status, "/ready").status == 200).then_some(()));
    let (leave, answered, lost) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let begin = thread::scope(|scope| {
        let _over = Over(&leave);
        for number in 0..3 {
            let (leave, answered, lost) = (&leave, &answered, &lost);
            scope.spawn(move || {
                while !leave.load(Ordering::Acquire) {
                    let text = if number == 0 { "late 300" } else { "x" };
                    let asked = Client::try_connect(addr).and_then(|mut client| {
                        client.try_send(format!("{text}\r\n"))?;
                        client.try_read_line()
                    });
                    match asked {
                        Ok(Some(line)) if line.ends_with(text.split(' ').next().expect("a word")) => {
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        other => lost.lock().expect("nobody panics").push(format!("{other:?}")),
                    }
                }
            });
        }
        wait_until("load", DEADLINE, || (answered.load(Ordering::Relaxed) > 100).then_some(()));
        let begin = Instant::now();
        init.signal(Signal::SIGTERM);
        wait_until("an end of readiness", DEADLINE, || (get(status, "/ready").status == 503).then_some(()));
        begin
    });
    let lost = lost.into_inner().expect("nobody panics");
    assert!(lost.is_empty(), "{} of {}: {lost:?}", lost.len(), answered.into_inner());
    init.expect_end();
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
}

#[test] // O-UP-15: the end of process 1 is the end of all
fn process_one_refuses_an_upgrade() {
    if !can_unshare() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("control.sock");
    let (init, _) = Init::start(&format!("--start 1 --control {}", socket.display()));
    let out = super::changing::lenorectl(&socket, "upgrade");
    assert!(out.code == 6 && out.err.contains("process 1 can't be upgraded"), "{out:?}");
    init.signal(Signal::SIGTERM);
    init.expect_end();
}

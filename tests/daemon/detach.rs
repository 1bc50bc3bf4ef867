//! D-DE-01 to D-DE-03: leaving the terminal, what the launcher waits for and says, and that one process goes on.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::site::{Site, signal, stat_fields, terminate, wait_gone};
use util::{Client, DEADLINE, Dice, Program, at_once, kill, proc, stays, test_program, wait_until};

const MODES: [&str; 3] = ["", "--max 3", "--start 2"];

#[test] // D-DE-01, T13: no leader, no terminal, nothing on the three descriptors
fn a_detached_daemon_leads_nothing_and_has_no_terminal() {
    for mode in MODES {
        let site = Site::new();
        let (running, pid) = site.launch(&format!("{mode} --pid-file @pid"));
        assert_eq!(site.read("pid"), format!("{pid}\n"), "valid when the caller returns (D-DE-06)");
        assert_ne!(pid, site.wait_for("main"));
        let mut processes = running.descendants_alive();
        assert!(processes.contains(&pid));
        processes.retain(|other| *other != pid);
        assert_eq!(processes.len(), if mode == "--start 2" { 2 } else { 0 }, "the one in the middle has left");
        for pid in processes.into_iter().chain([pid]) {
            let fields = stat_fields(pid);
            let (group, session, terminal) = (&fields[2], &fields[3], &fields[4]);
            assert_ne!(*session, pid.to_string());
            assert_ne!(*group, pid.to_string());
            assert_eq!(terminal, "0");
            let fds = proc::fds(pid);
            assert_eq!([&fds[&0], &fds[&1], &fds[&2]], ["/dev/null"; 3]);
        }
        assert_eq!(proc::ppid(pid), Some(std::process::id() as i32), "it was left to init, or who takes its place");
        terminate(pid);
        assert!(!site.exists("pid"));
    }
}

#[test] // K-SF-25: a path that was bound before the program moved goes with the program, not with any of its children
fn a_bound_path_moves_with_the_program() {
    for mode in ["", "--start 2"] {
        let site = Site::new();
        let (_running, pid) = site.launch(&format!("{mode} --in-state --unix @socket"));
        assert!(site.exists("socket"));
        terminate(pid);
        assert!(!site.exists("socket"), "{mode}");
    }
}

#[test] // D-DE-01, T13: under a terminal, which it can neither find nor replace
fn a_detached_daemon_can_get_no_terminal() {
    let site = Site::new();
    let args = "--report @report --detach --terminal PTY --keep PTYFDS --hold daemon_start --gate @gate";
    fs::write(site.path("gate"), "").expect("our own directory");
    let mut running = Program::new(test_program("daemon_terminal"))
        .arg(test_program("daemon_process"))
        .args(site.words(args))
        .start();
    let pid = site.wait_for("daemon_start");
    assert_ne!(stat_fields(running.pid())[4], "0", "the launcher has a terminal");
    assert_eq!(stat_fields(pid)[4], "0");
    fs::remove_file(site.path("gate")).expect("our own file");
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(0));
    signal(pid, Signal::SIGUSR1);
    site.wait_for("usr1");
    // ENXIO for /dev/tty; the other can be opened, and becomes nobody's.
    assert_eq!(site.said("terminal"), "Some(6) None");
    assert_eq!(stat_fields(pid)[4], "0");
    terminate(pid);
}

#[test] // D-DE-02: daemon_start without a pool, daemon_parent with one
fn the_launcher_waits_until_the_application_is_ready() {
    for (mode, last) in [("", "daemon_start"), ("--max 2", "daemon_start"), ("--start 2", "daemon_parent")] {
        let site = Site::new();
        fs::write(site.path("gate"), "").expect("our own directory");
        let mut running = site.start(&format!("--detach {mode} --hold {last} --gate @gate"));
        let pid = site.wait_for(last);
        assert!(proc::is_alive(running.pid()), "{mode}");
        fs::remove_file(site.path("gate")).expect("our own file");
        assert_eq!(running.wait_exit(DEADLINE).code(), Some(0), "{mode}");
        assert_eq!(running.stderr_text(), "", "{mode}");
        terminate(pid);
    }
}

#[test] // D-DE-13: not before as many children wait for requests as are wanted, which are not all
fn launcher_waits_until_enough_children_are_ready() {
    // All children are late, or all but the first, or all but the first two, where one is enough.
    for (pool, late, is_enough) in [
        ("--start 3 --min-spare 2", "", false),
        ("--start 3 --min-spare 2", "--hold-from 1", false),
        ("--start 3 --min-spare 2", "--hold-from 2", true),
        ("--start 2 --room 8 --min-spare 2", "--hold-from 1", false),
    ] {
        let site = Site::new();
        fs::write(site.path("gate"), "").expect("our own directory");
        let mut running = site.start(&format!("--detach {pool} --hold daemon_child {late} --gate @gate"));
        let pid = site.wait_for("daemon_parent");
        if !is_enough {
            // Several times what a start takes.
            stays("the launcher waits", Duration::from_millis(300), || proc::is_alive(running.pid()));
            fs::remove_file(site.path("gate")).expect("our own file");
        }
        assert_eq!(running.wait_exit(DEADLINE).code(), Some(0), "{pool} {late}: {}", running.stderr_text());
        assert_eq!(running.stderr_text(), "", "{pool} {late}");
        let _ = fs::remove_file(site.path("gate"));
        terminate(pid);
    }
}

#[test] // D-DE-13: a child that keeps its client has reported `Wait` before
fn launcher_counts_a_child_that_keeps_a_client() {
    let site = Site::new();
    fs::write(site.path("gate"), "").expect("our own directory");
    let mut running =
        site.start("--detach --in-state --start 2 --min-spare 2 --hold daemon_child --hold-from 1 --gate @gate");
    let addr = running.listening_addr();
    let pid = site.wait_for("daemon_parent");
    let mut client = Client::connect(addr);
    assert!(client.line("keep").ends_with(" keep"));
    fs::remove_file(site.path("gate")).expect("our own file");
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(0), "{}", running.stderr_text());
    terminate(pid);
}

#[test] // D-DE-08, D-DE-13: children that come up after the end has begun do not make the daemon ready
fn launcher_is_not_told_of_a_daemon_that_ends() {
    let site = Site::new();
    // Two children are held before they report `Wait`, and when they have; the third one when it ends.
    let holds = [("ready", 1), ("ready", 2), ("wait", 1), ("wait", 2), ("exit", 3)];
    let file = |point: &str, child: u32| site.path(&format!("{point}{child}"));
    let plan =
        holds.map(|(point, child)| format!("daemon.child.{point}=hold:{}@1#{child}", file(point, child).display()));
    let program = site.program("--detach --start 3 --min-spare 2").env("LENORE_INJECT", plan.join(","));
    let mut running = program.start();
    let wait_held = |point: &str, child: u32| {
        wait_until("a child that is held", DEADLINE, || file(point, child).exists().then_some(()));
    };
    let release = |point: &str, child: u32| fs::remove_file(file(point, child)).expect("our own file");
    let pid = site.wait_for("daemon_parent");
    [1, 2].into_iter().for_each(|child| wait_held("ready", child));
    kill(pid, Signal::SIGTERM).expect("the daemon is there");
    wait_held("exit", 3);
    for child in [1, 2] {
        release("ready", child);
        wait_held("wait", child);
    }
    let children = || proc::children(pid).len();
    assert_eq!(children(), 3);
    release("exit", 3);
    wait_until("the end of the third", DEADLINE, || (children() == 2).then_some(()));
    [1, 2].into_iter().for_each(|child| release("wait", child));
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(1), "{}", running.stderr_text());
    wait_until("the end of all", DEADLINE, || running.descendants_alive().is_empty().then_some(()));
}

#[test] // D-DE-13: children that fail at first may get better
fn start_survives_children_that_fail_at_first() {
    let site = Site::new();
    fs::write(site.path("gate"), "").expect("our own directory");
    let mut running = site
        .start("--detach --start 2 --fail daemon_child --how exit --fail-while @gate --logfile @log --pid-file @pid");
    let pid = site.wait_for("daemon_parent");
    site.wait_in("log", "cause=exited:7");
    fs::remove_file(site.path("gate")).expect("our own file");
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(0), "{}", running.stderr_text());
    terminate(pid);
}

#[test] // D-DE-02, D-DE-13, D-SP-01: exit status 1, the reason on standard error, and nothing left
fn a_start_that_fails_is_told_with_its_reason() {
    assert_that_failures_are_told("");
}

#[test] // D-DE-02, D-DE-13, D-SP-01: the same where standard error is a log file by then
fn a_start_with_a_log_file_that_fails_is_told_with_its_reason() {
    assert_that_failures_are_told("--logfile @log");
}

#[track_caller]
fn assert_that_failures_are_told(log: &str) {
    let told = "told to fail";
    let unsaid = "it died before it was ready";
    let cases = [
        ("--in-state --fail _start", told),
        ("--in-state --fail _start --how panic", "told to panic"),
        ("--in-state --fail _start --how exit", unsaid),
        ("--in-state --fail _start --how kill", "it died before it was ready, of SIGKILL"),
        ("--fail _start", told),
        ("--fail daemon_start", told),
        ("--fail daemon_start --how panic", "told to panic"),
        ("--fail daemon_start --how exit", "it died before it was ready, with exit status 7"),
        ("--fail daemon_start --how kill", "it died before it was ready, of SIGKILL"),
        ("--fail daemon_start --how shutdown", "it ended before it was ready"),
        ("--max 2 --fail daemon_start", told),
        ("--start 2 --fail daemon_start --how kill", "it died before it was ready, of SIGKILL"),
        ("--start 2 --fail daemon_parent", told),
        ("--start 2 --fail daemon_parent --how panic", "told to panic"),
        ("--start 2 --fail daemon_parent --how kill", "it died before it was ready, of SIGKILL"),
        ("--start 2 --fail daemon_parent --how shutdown", "it ended before it was ready"),
        (
            "--start 2 --fail daemon_child",
            "children fail in their set-up, 5 in a row, the last one with exited:1 (pid ",
        ),
        ("--start 2 --fail daemon_child --how panic", "5 in a row, the last one with exited:1 (pid "),
        ("--start 2 --fail daemon_child --how exit", "5 in a row, the last one with exited:7 (pid "),
        ("--start 2 --fail daemon_child --how kill", "5 in a row, the last one with signal:SIGKILL (pid "),
        ("--start 2 --fail daemon_child --how shutdown", "5 in a row, the last one with recycled (pid "),
        (
            "--start 2 --min-spare 2 --never-ready --start-timeout-ms 300",
            "0 of 2 children have reported Wait within start_timeout (300ms)",
        ),
        ("--start 1 --no-child --start-timeout-ms 300", "0 of 1 children have reported Wait within start_timeout"),
        ("--cwd @missing", "changing the working directory: chdir "),
        ("--cwd @missing --start 2 --in-state", "No such file or directory"),
    ];
    at_once(cases, |(args, reason)| {
        let site = Site::new();
        let mut running = site.start(&format!("--detach --pid-file @pid {log} {args}"));
        let status = running.wait_exit(DEADLINE);
        assert_eq!(status.code(), Some(1), "{args}: {status}");
        let line = running.wait_for_stderr("Daemon has not started: ", DEADLINE);
        assert!(line.contains(reason), "{args}: {line}");
        assert_eq!(line.matches(reason).count(), 1, "{args}: {line}");
        wait_until(&format!("the end of all: {args}"), DEADLINE, || {
            running.descendants_alive().is_empty().then_some(())
        });
        assert!(!site.exists("pid"), "{args}");
    });
}

#[test] // D-DE-02: whoever interrupts the start does not want the daemon
fn an_interrupted_launcher_takes_the_daemon_down() {
    for (mode, last) in [("", "daemon_start"), ("--start 2", "daemon_parent")] {
        for interrupt in [Signal::SIGTERM, Signal::SIGKILL] {
            let site = Site::new();
            fs::write(site.path("gate"), "").expect("our own directory");
            let mut running =
                site.start(&format!("--detach {mode} --hold {last} --gate @gate --pid-file @pid --logfile @log"));
            let pid = site.wait_for(last);
            running.signal(interrupt);
            assert_eq!(running.wait_exit(DEADLINE).code(), None, "ended by {interrupt}");
            fs::remove_file(site.path("gate")).expect("our own file");
            wait_gone(pid);
            assert!(site.count("daemon_shutdown") >= 1 && site.count("run returned") >= 1, "{:?}", site.report());
            site.wait_in("log", "the launcher ended before the daemon was ready");
            assert!(!site.exists("pid"));
            assert_eq!(running.descendants_alive(), [0; 0]);
        }
    }
}

#[test] // D-DE-02: also where the daemon is not about to say anything to the launcher
fn a_daemon_that_can_not_get_ready_notices_that_its_launcher_is_gone() {
    let site = Site::new();
    let mut running = site.start("--detach --start 2 --no-child --pid-file @pid --logfile @log");
    let pid = site.wait_for("daemon_start");
    wait_until("its wait for better times", DEADLINE, || (proc::state(pid) == Some('S')).then_some(()));
    assert!(proc::is_alive(running.pid()), "it waits too");
    // And says why, where a log file is none of its business.
    running.wait_for_stderr("Daemon has not started yet: fork: Resource temporarily unavailable", DEADLINE);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait_exit(DEADLINE).code(), None);
    assert_eq!(running.stderr_text().matches("not started yet").count(), 1);
    wait_gone(pid);
    assert_eq!(site.count("daemon_shutdown"), 1);
    assert!(!site.exists("pid"));
}

#[test] // D-DE-03, T6: one process flushes, one drops, and it is not detached twice
fn nothing_happens_twice() {
    for mode in ["", "--max 2"] {
        let site = Site::new();
        let (running, pid) = site.launch(&format!("{mode} --pending --twice"));
        assert_eq!(running.try_next_line(DEADLINE).as_deref(), Some("pending"), "flushed before the fork");
        assert_eq!(running.try_next_line(DEADLINE), None, "and by nobody else");
        let spawned: Vec<_> = site.report().into_iter().filter(|(_, what)| what.starts_with("spawned")).collect();
        assert_eq!(spawned.iter().map(|(pid, _)| *pid).collect::<Vec<_>>(), [pid, pid]);
        assert_eq!(running.descendants_alive(), [pid]);
        terminate(pid);
        let dropped: Vec<_> = site.report().into_iter().filter(|(_, what)| what == "dropped").collect();
        assert_eq!(dropped.iter().map(|(pid, _)| *pid).collect::<Vec<_>>(), [pid, pid], "the heap, and main's");
    }
}

#[test] // D-DE-03: streams, listeners, alarms and signals that came before are where they were; a state goes on
fn the_kernel_moves_with_all_that_it_has() {
    let site = Site::new();
    let mut running = site.start("--detach --on-input --timer");
    let addr = running.listening_addr();
    let mut client = Client::connect(addr);
    let launcher = running.pid();
    assert_eq!(client.line("before"), format!("{launcher} before"));
    // Whoever answers this is in the middle of the state that has spawned the Daemon.
    let answer = client.line("spawn");
    let pid = site.wait_for("spawned");
    assert_ne!(pid, launcher);
    assert_eq!(answer, format!("{pid} spawn"));
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(0));
    assert_eq!(client.line("after"), format!("{pid} after"), "the stream has moved");
    assert_eq!(Client::connect(addr).line("new"), format!("{pid} new"), "and the listener");
    terminate(pid);

    let site = Site::new();
    let (_running, pid) = site.launch("--in-state --timer --raise");
    assert_eq!(site.wait_for("timer"), pid, "the alarm goes off in the daemon alone");
    assert_eq!(site.wait_for("usr1"), pid, "as does the signal that was sent to its launcher");
    terminate(pid);
    assert_eq!((site.count("timer"), site.count("usr1")), (1, 1));
}

#[test] // D-SP-01: a child of the launcher's is no child of the daemon's
fn children_of_the_launcher_are_warned_of() {
    let site = Site::new();
    let (_running, pid) = site.launch("--in-state --own-child --logfile @log");
    site.wait_in("log", "will not hear of the end of child");
    terminate(pid);
    assert_eq!(site.count("timer"), 0);
}

#[test] // D-SP-01: the step that fails before there is another process leaves this one as it was
fn a_program_that_can_not_fork_stays_what_it_was() {
    for args in ["", "--in-state", "--start 2"] {
        let site = Site::new();
        let mut running = site.start(&format!("--detach --no-fork --logfile @log --pid-file @pid --umask 077 {args}"));
        assert_eq!(running.wait_exit(DEADLINE).code(), Some(1));
        assert_eq!(site.wait_for("failed"), running.pid());
        let failed = site.said("failed");
        let expected =
            format!("cwd={} umask=022 detaching: fork: ", site.path("").display()).replace("/ umask", " umask");
        assert!(failed.starts_with(&expected), "{failed}");
        // Standard output and error are the pipes again.
        while running.next_line(DEADLINE) != "still here" {}
        running.wait_for_stderr("and here", DEADLINE);
        assert!(!site.exists("pid") && !site.read("log").contains("here"));
    }
}

#[test] // D-SP-08, T21: with everything blocked by whoever started it
fn a_detached_daemon_hears_signals_that_its_launcher_had_blocked() {
    let site = Site::new();
    let args = site.words("--report @report --detach --start 2");
    let mut running =
        Program::new(test_program("daemon_launch")).arg(test_program("daemon_process")).args(args).start();
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(0));
    let pid = site.wait_for("spawned");
    let masks = proc::sig_masks(pid).expect("a living process");
    assert_eq!(masks.blocked, 0);
    let mut children = running.descendants_alive().into_iter().filter(|child| proc::ppid(*child) == Some(pid));
    let child = children.next_back().expect("a pool");
    kill(child, Signal::SIGKILL).expect("a living process of ours");
    wait_until("its reaping", DEADLINE, || (!proc::exists(child)).then_some(()));
    terminate(pid);
    assert_eq!(running.descendants_alive(), [0; 0]);
}

/// Lets the daemon of a stopped launcher say that it is ready, and waits until it must have said so.
fn let_get_ready(site: &Site, daemon: i32) {
    fs::remove_file(site.path("gate")).expect("our own file");
    // Each takes a slice of its loop, and it is ready a few slices after its last signal.
    for count in 1..=5 {
        signal(daemon, Signal::SIGUSR1);
        wait_until("an answer", DEADLINE, || (site.count("usr1") >= count).then_some(()));
    }
}

#[test] // D-DE-08: the daemon has said that it is ready, and the launcher has not heard of it
fn launcher_that_is_ended_in_its_last_moment_takes_the_daemon_down() {
    let own = proc::sig_masks(std::process::id() as i32).expect("this process");
    for (mode, last) in [("", "daemon_start"), ("--max 2", "daemon_start"), ("--start 2", "daemon_parent")] {
        let interrupts = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGKILL];
        // In the background of a script INT and QUIT are ignored, and a launcher inherits that.
        for interrupt in interrupts.into_iter().filter(|signal| !own.ignores(*signal)) {
            let site = Site::new();
            fs::write(site.path("gate"), "").expect("our own directory");
            let args = format!("--detach {mode} --hold {last} --gate @gate --pid-file @pid --logfile @log");
            let mut running = site.start(&args);
            let pid = site.wait_for(last);
            running.signal(Signal::SIGSTOP);
            wait_until("its stop", DEADLINE, || (proc::state(running.pid()) == Some('T')).then_some(()));
            let_get_ready(&site, pid);
            assert_eq!(site.count("daemon_shutdown"), 0);
            running.signal(interrupt);
            running.signal(Signal::SIGCONT);
            assert_eq!(running.wait_exit(DEADLINE).signal(), Some(interrupt as i32));
            wait_gone(pid);
            site.wait_in("log", "the launcher ended before the daemon was ready");
            assert!(!site.exists("pid"), "{mode} {interrupt}");
            assert_eq!(running.descendants_alive(), [0; 0]);
        }
    }
}

#[test] // D-DE-08: one that is only slow is waited for, and the server serves meanwhile
fn launcher_that_was_stopped_in_its_last_moment_exits_well_when_it_goes_on() {
    for (mode, last) in [("", "daemon_start"), ("--start 2", "daemon_parent")] {
        let site = Site::new();
        fs::write(site.path("gate"), "").expect("our own directory");
        let mut running = site.start(&format!("--detach --in-state {mode} --hold {last} --gate @gate"));
        let addr = running.listening_addr();
        let pid = site.wait_for(last);
        running.signal(Signal::SIGSTOP);
        wait_until("its stop", DEADLINE, || (proc::state(running.pid()) == Some('T')).then_some(()));
        let_get_ready(&site, pid);
        assert!(Client::connect(addr).line("early").ends_with(" early"), "{mode}");
        running.signal(Signal::SIGCONT);
        assert_eq!(running.wait_exit(DEADLINE).code(), Some(0), "{mode}");
        assert!(Client::connect(addr).line("late").ends_with(" late"), "{mode}");
        assert_eq!(site.count("daemon_shutdown"), 0);
        terminate(pid);
    }
}

#[test] // D-DE-08: the exit status says whether there is a daemon, whenever the signal comes
fn launcher_exits_with_0_exactly_if_it_leaves_a_daemon() {
    let mut dice = Dice::from_env("LENORE_LAUNCH_SEED");
    println!("LENORE_LAUNCH_SEED={}", dice.0);
    let mut outcomes = [0; 2];
    for _ in 0..60 {
        let site = Site::new();
        let mut running = site.start("--detach --start 1 --pid-file @pid");
        let signals = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];
        let interrupt = signals[dice.below(4) as usize];
        let last = ["spawned", "daemon_start", "daemon_parent"][dice.below(3) as usize];
        let pid = site.wait_for(last);
        // The last milliseconds of the start, and somewhat beyond it.
        let until = Instant::now() + Duration::from_micros(dice.below(3000));
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        running.signal(interrupt);
        let status = running.wait_exit(DEADLINE);
        outcomes[usize::from(status.success())] += 1;
        if status.success() {
            // Whether it is about to end it would say within a few slices.
            site.wait_for("daemon_parent");
            for count in 1..=3 {
                signal(pid, Signal::SIGUSR1);
                wait_until("an answer", DEADLINE, || (site.count("usr1") >= count).then_some(()));
            }
            assert_eq!(site.count("daemon_shutdown"), 0, "{interrupt} {last}");
            terminate(pid);
        } else {
            assert_eq!(status.signal(), Some(interrupt as i32));
            wait_gone(pid);
        }
        assert!(!site.exists("pid"));
        assert_eq!(running.descendants_alive(), [0; 0], "{interrupt} {last}");
    }
    println!("{outcomes:?} interrupted, started");
}

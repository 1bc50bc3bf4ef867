//! Signals of the operating system and child processes: K-SG-06 to 11 and K-SG-45 to 58 of the behaviour specification.
//! Each test watches a scenario of tests/programs/os_signals.rs or sig_child.rs from outside.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use nix::sys::signal::Signal;

use util::{DEADLINE, Program, Running, kill, proc, stays, test_program, wait_until};

fn start(program: &str, scenario: &str) -> Running {
    Program::new(test_program(program)).arg(scenario).start()
}

#[track_caller]
fn expect_lines(program: &Running, expected: &[&str]) {
    for line in expected {
        assert_eq!(program.next_line(DEADLINE), *line);
    }
}

/// Runs a scenario that ends by itself, and returns what it prints.
#[track_caller]
fn output(program: &str, scenario: &str) -> Vec<String> {
    let mut program = start(program, scenario);
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line| line != "run returned") {
        lines.push(program.next_line(DEADLINE));
    }
    assert!(program.wait_exit(DEADLINE).success());
    lines
}

#[track_caller]
fn masks(program: &Running) -> proc::SigMasks {
    proc::sig_masks(program.pid()).expect("the program runs")
}

#[test] // K-SG-06, K-LP-08: the loop sleeps without end, and each signal wakes it
fn each_signal_is_one_event() {
    let program = start("os_signals", "watch");
    expect_lines(&program, &["ready"]);
    for _ in 0..50 {
        for (signal, name) in [(Signal::SIGUSR1, "USR1"), (Signal::SIGTERM, "TERM")] {
            program.signal(signal);
            expect_lines(&program, &[name]);
        }
    }
}

#[test] // K-SG-08
fn a_signal_that_nobody_watches_any_more_has_its_default_action_and_can_be_watched_again() {
    let mut program = start("os_signals", "watch");
    expect_lines(&program, &["ready"]);
    for _ in 0..3 {
        assert!(masks(&program).catches(Signal::SIGUSR1));
        program.signal(Signal::SIGUSR1);
        expect_lines(&program, &["USR1"]);
        program.signal(Signal::SIGUSR2);
        expect_lines(&program, &["unwatched"]);
        for signal in [Signal::SIGUSR1, Signal::SIGTERM] {
            assert!(!masks(&program).catches(signal) && !masks(&program).ignores(signal), "{signal}");
        }
        program.signal(Signal::SIGUSR2);
        expect_lines(&program, &["watched"]);
    }
    program.signal(Signal::SIGUSR2);
    expect_lines(&program, &["unwatched"]);
    program.signal(Signal::SIGTERM);
    assert_eq!(program.wait_exit(DEADLINE).signal(), Some(Signal::SIGTERM as i32));
}

#[test] // K-SG-08
fn the_last_of_several_watchers_gives_a_signal_back() {
    let program = start("os_signals", "two_sessions");
    expect_lines(&program, &["ready"]);
    program.signal(Signal::SIGUSR1);
    expect_lines(&program, &["second", "first"]);
    program.signal(Signal::SIGUSR2);
    expect_lines(&program, &["cleared"]);
    assert!(masks(&program).catches(Signal::SIGUSR1));
    program.signal(Signal::SIGUSR1);
    expect_lines(&program, &["second"]);
    program.signal(Signal::SIGUSR2);
    expect_lines(&program, &["cleared"]);
    assert!(!masks(&program).catches(Signal::SIGUSR1));
}

#[test] // K-SG-08, K-GC: as with sig_clear
fn a_stopped_session_gives_its_signals_back() {
    let program = start("os_signals", "stopped_session");
    expect_lines(&program, &["ready"]);
    program.signal(Signal::SIGUSR1);
    expect_lines(&program, &["_stop"]);
    wait_until("the default action", DEADLINE, || (!masks(&program).catches(Signal::SIGUSR1)).then_some(()));
}

#[test] // K-SG-08
fn a_terminal_signal_that_nobody_watches_kills_the_program() {
    let own = proc::sig_masks(std::process::id() as i32).expect("this process");
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        if own.ignores(signal) {
            // As under nohup or in the background of a script: whatever is started from here inherits it.
            eprintln!("skipped: {signal} is ignored by whoever runs the tests");
            continue;
        }
        let mut program = start("os_signals", "unwatched");
        expect_lines(&program, &["ready"]);
        assert!(masks(&program).catches(Signal::SIGUSR1));
        assert!(!masks(&program).catches(signal));
        program.signal(signal);
        assert_eq!(program.wait_exit(DEADLINE).signal(), Some(signal as i32));
    }
}

#[test] // K-SG-32, K-SG-37
fn a_terminal_signal_that_nobody_handles_stops_everything_and_run_returns() {
    let mut program = start("os_signals", "terminal");
    expect_lines(&program, &["ready"]);
    program.signal(Signal::SIGTERM);
    expect_lines(&program, &["TERM", "_stop", "_stop", "run returned"]);
    assert!(program.wait_exit(DEADLINE).success());
}

#[test] // K-LP-24: at the end of a run the default actions are back, and PIPE stays ignored
fn the_end_of_a_run_gives_all_signals_back() {
    let expected = ["caught caught caught", "run returned", "default default ignored"];
    let mut program = start("os_signals", "after_run");
    expect_lines(&program, &expected[..2]);
    expect_lines(&program, &expected[2..]);
    assert!(program.wait_exit(DEADLINE).success());
}

#[test] // K-SG-55: at the end of a run a child that still runs, or that nobody has reaped, is worth a warning
fn leftover_children_are_warned_of_and_left_alone() {
    for (scenario, warning) in [("leftover", "still running"), ("leftover_zombie", "no session waits for it")] {
        let mut program = start("sig_child", scenario);
        expect_lines(&program, &["run returned", "left alone"]);
        program.wait_for_stderr(warning, DEADLINE);
        assert!(program.wait_exit(DEADLINE).success());
    }
}

#[test] // K-SG-55
fn leftover_children_are_named_with_program_and_session() {
    let program = start("sig_child", "leftover_of_a_run");
    let line = program.wait_for_stderr("still running", DEADLINE);
    let pids = program.next_line(DEADLINE);
    let (own, sleep) = pids.split_once(' ').unwrap();
    for named in [format!("{own} (sig_child)"), format!("{sleep} (sleep, of session 1)")] {
        assert!(line.contains(&named), "{line}");
    }
}

#[test] // K-SG-09
fn pipe_is_ignored_whether_it_was_watched_or_not() {
    let program = start("os_signals", "pipe");
    expect_lines(&program, &["survived", "PIPE", "survived again"]);
    program.signal(Signal::SIGPIPE);
    program.signal(Signal::SIGUSR1);
    expect_lines(&program, &["USR1"]);
}

#[test] // K-SG-08, K-SG-09: as `nohup` leaves HUP, and a script INT of a job in its background
fn signal_that_nobody_watches_any_more_is_what_it_was_before() {
    let script = "trap '' HUP INT; exec \"$0\" give_back";
    let program = Program::new("/bin/sh").args(["-c", script]).arg(test_program("os_signals")).start();
    expect_lines(&program, &["ready"]);
    // The handler of the program's own runs whether the kernel watches or not.
    for ran in [0, 2] {
        let now = masks(&program);
        for signal in [Signal::SIGPIPE, Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGUSR1] {
            assert!(now.catches(signal), "{signal}");
        }
        program.signal(Signal::SIGUSR2);
        expect_lines(&program, &[&format!("unwatched {ran}")]);
        let now = masks(&program);
        for signal in [Signal::SIGPIPE, Signal::SIGHUP, Signal::SIGINT] {
            assert!(now.ignores(signal), "{signal}");
            program.signal(signal);
        }
        assert!(!now.catches(Signal::SIGTERM) && !now.ignores(Signal::SIGTERM));
        assert!(now.catches(Signal::SIGUSR1));
        program.signal(Signal::SIGUSR1);
        program.signal(Signal::SIGUSR2);
        expect_lines(&program, &[&format!("watched {}", ran + 1)]);
        for (signal, name) in [(Signal::SIGUSR1, "USR1"), (Signal::SIGHUP, "HUP"), (Signal::SIGPIPE, "PIPE")] {
            program.signal(signal);
            expect_lines(&program, &[name]);
        }
    }
    program.signal(Signal::SIGUSR2);
    // A program that takes its place finds them as they were.
    let ignored =
        wait_until("SigIgn", DEADLINE, || program.next_line(DEADLINE).strip_prefix("SigIgn:").map(str::to_owned));
    let ignored = u64::from_str_radix(ignored.trim(), 16).expect("a mask");
    for signal in [Signal::SIGPIPE, Signal::SIGHUP, Signal::SIGINT] {
        assert_ne!(ignored & 1 << (signal as i32 - 1), 0, "{signal}");
    }
}

#[test] // K-SG-10
fn handlers_from_before_the_kernel_are_left_alone() {
    let program = start("os_signals", "own_handlers");
    expect_lines(&program, &["ready"]);
    let masks = masks(&program);
    assert!(masks.catches(Signal::SIGUSR1) && masks.ignores(Signal::SIGHUP));
    assert!(!masks.ignores(Signal::SIGCHLD), "but CHLD gets its default, or no child could be waited for");
    program.signal(Signal::SIGUSR1);
    program.signal(Signal::SIGHUP);
    program.signal(Signal::SIGUSR2);
    expect_lines(&program, &["own handler ran 1 times"]);
}

#[test] // K-SG-11, K-SG-02
fn signals_that_no_program_catches_can_still_be_sent_inside() {
    let program = start("os_signals", "uncatchable");
    expect_lines(&program, &["ready", "SEGV", "STOP", "RTMIN", "NUM40", "no such signal"]);
    let real_time = !0 << 33;
    assert_eq!(masks(&program).caught & real_time, 0);
}

#[test] // K-RE-42: a handler would have the call made again at once and for ever, and nothing else would be heard
fn terminal_stops_a_job_in_its_background_that_watches_ttin_and_ttou() {
    for (scenario, signal, done) in
        [("reads_terminal", "SIGTTIN", r#"read "\n""#), ("writes_terminal", "SIGTTOU", "written")]
    {
        let shell = Program::new(test_program("daemon_shell")).args(["--background", "--tostop"]);
        let program = shell.arg(test_program("os_signals")).arg(scenario).start();
        let told = program.next_line(DEADLINE);
        let pid = |who: &str| told.split(' ').skip_while(|word| *word != who).nth(1).and_then(|pid| pid.parse().ok());
        let (shell, job) = (pid("shell").expect("a pid"), pid("job").expect("a pid"));
        // Sent inside they are signals like any other.
        expect_lines(&program, &["ready", "TTIN", "TTOU", "TERM", &format!("job stopped by {signal}")]);
        let masks = proc::sig_masks(job).expect("the program runs");
        assert!(masks.catches(Signal::SIGTERM));
        assert!(!masks.catches(Signal::SIGTTIN) && !masks.catches(Signal::SIGTTOU));
        stays("stopped", Duration::from_millis(100), || proc::state(job) == Some('T'));
        kill(shell, Signal::SIGUSR1).expect("the shell");
        // An empty line for the program that reads.
        program.signal(Signal::SIGUSR1);
        // Shell and job write at the same time. A job that has ended before the shell looks was not seen to go on.
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line| line != "job exited with 0") {
            lines.push(program.next_line(DEADLINE));
        }
        lines.retain(|line| line != "job continued");
        assert_eq!(lines, [done, "run returned", "job exited with 0"]);
    }
}

#[test] // K-SG-08, K-RE-42: they mean nothing else there
fn ttin_and_ttou_are_signals_like_others_without_a_terminal() {
    let program = start("os_signals", "reads_terminal");
    expect_lines(&program, &["ready", "TTIN", "TTOU", "TERM", r#"read """#, "run returned"]);
}

#[test] // T4, K-SG-51: fifty exits, one SIGCHLD
fn every_child_is_reaped_though_their_signals_were_merged_into_one() {
    let mut program = start("sig_child", "many");
    expect_lines(&program, &["ready"]);
    program.signal(Signal::SIGSTOP);
    wait_until("a stopped program", DEADLINE, || (proc::state(program.pid()) == Some('T')).then_some(()));
    let children = program.children();
    assert_eq!(children.len(), 50);
    for pid in &children {
        kill(*pid, Signal::SIGKILL).unwrap();
    }
    wait_until("fifty zombies", DEADLINE, || (program.zombies().len() == 50).then_some(()));
    program.signal(Signal::SIGCONT);
    let mut seen: Vec<String> = (0..50).map(|_| program.next_line(DEADLINE)).collect();
    seen.sort();
    let mut expected: Vec<String> = children.iter().map(|pid| format!("CHLD {pid} signal: 9 (SIGKILL)")).collect();
    expected.sort();
    assert_eq!(seen, expected, "one event for each");
    expect_lines(&program, &["run returned"]);
    assert!(program.wait_exit(DEADLINE).success());
}

#[test] // K-SG-52: no SIGCHLD will come, and nothing else wakes the loop
fn a_child_that_ended_before_anybody_waited_for_it_is_reported() {
    let lines = output("sig_child", "early");
    assert!(lines[0].starts_with("CHLD ") && lines[0].ends_with("exit status: 3"), "{lines:?}");
}

#[test] // K-SG-52: whether or not the loop has heard of its end when somebody begins to wait for it
fn a_forked_child_that_ended_before_anybody_waited_for_it_is_reported() {
    for scenario in ["forked", "forked_and_heard"] {
        let lines = output("sig_child", scenario);
        assert!(lines[0].starts_with("CHLD ") && lines[0].ends_with("exit status: 3"), "{scenario}: {lines:?}");
        assert_eq!(lines[1..], ["other", "run returned"], "{scenario}");
    }
}

#[test] // K-SG-10: a handler stays, and there is no moment without it
fn no_child_is_missed_while_other_kernels_are_made() {
    assert_eq!(output("sig_child", "other_kernels"), ["run returned"]);
}

#[test] // K-SG-45, K-SG-58
fn the_event_has_name_pid_status_and_extra_arguments() {
    assert_eq!(output("sig_child", "arguments"), ["CHLD exit status: 7", "CHLD signal: 9 (SIGKILL)", "run returned"]);
}

#[test] // K-SG-47, K-SG-49
fn every_session_that_waits_for_a_child_is_told_in_order_of_registration() {
    assert_eq!(output("sig_child", "several_sessions"), ["first", "third", "run returned"]);
}

#[test] // K-SG-48 with K-RE-05
fn a_second_registration_replaces_the_first_and_leaks_nothing() {
    assert_eq!(output("sig_child", "replaced"), ["new 1", "0 registrations left", "run returned"]);
}

#[test] // K-SG-51 with K-RE-18
fn a_child_that_nobody_registered_is_left_to_the_program() {
    let lines = output("sig_child", "foreign");
    assert_eq!(lines, ["exit status: 1", "exit status: 2", "Ok(\"still there\")", "run returned"]);
}

#[test] // K-SG-53, K-RE-18
fn a_session_that_watches_chld_gets_every_child() {
    let lines = output("sig_child", "everybody");
    let expected = [
        "any exit status: 5",
        "exited exit status: 1",
        "any exit status: 1",
        "exited exit status: 2",
        "any exit status: 2",
        "Err(ECHILD)",
        "run returned",
    ];
    assert_eq!(lines, expected);
}

#[test] // K-SG-57
fn a_synchronous_child_keeps_its_status_though_chld_is_watched() {
    assert_eq!(output("sig_child", "system"), ["system: exit status: 4", "run returned"]);
}

#[test] // K-SG-46, K-SG-50: and no IDLE as long as there is a child to wait for
fn waiting_for_a_child_keeps_the_session_and_the_program_alive() {
    let mut program = start("sig_child", "kept_alive");
    expect_lines(&program, &[&format!("ready {}", program.pid())]);
    // It sleeps: whatever it had to do it has done, and it has not called itself idle.
    wait_until("a sleeping program", DEADLINE, || (proc::state(program.pid()) == Some('S')).then_some(()));
    program.signal(Signal::SIGUSR1);
    expect_lines(&program, &["exited", "_stop", "run returned"]);
    assert!(program.wait_exit(DEADLINE).success());
}

#[test] // K-GC-18
fn who_waits_for_a_process_that_is_no_child_is_ended_by_idle() {
    let lines = output("sig_child", "no_child");
    assert_eq!(lines, ["idle", "idle", "_stop", "_stop", "run returned"]);
}

#[test] // K-SG-56, K-SG-54, K-SG-50: the alias alone would not keep the program from being idle
fn a_child_is_reported_as_chld_under_no_other_name_and_stops_nobody() {
    assert_eq!(output("sig_child", "other_name"), ["CHLD gets CHLD", "idle", "idle", "run returned"]);
}

#[test] // K-SG-51, K-SG-50: no SIGCHLD will come, and nothing else wakes the loop
fn a_child_that_ended_before_anybody_watched_chld_is_reported() {
    assert_eq!(output("sig_child", "early_for_everybody"), ["any exit status: 3", "run returned"]);
}

#[test] // K-GC-18 with K-RE-18
fn a_child_that_nobody_may_reap_does_not_keep_the_program_from_being_idle() {
    assert_eq!(output("sig_child", "foreign_zombie"), ["idle", "Ok(\"still there\")", "run returned"]);
}

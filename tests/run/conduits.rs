//! Pipes, sockets and pseudo-terminals. The scenarios are in tests/programs/run_wheel/conduits.rs.

use nix::sys::signal::Signal;

use crate::{ENDS, assert_each, lines, only, place, rest, start};
use util::{DEADLINE, kill};

/// What the end of a terminal is: `EIO`.
const HUNG_UP: &str = "error read 5 STDOUT";

/// Asserts that the terminal has ended, that the close event came right behind, and how the process has ended.
#[track_caller]
fn assert_hung_up(lines: &[String], exit: &str) {
    assert_each(lines, &[("error", &[HUNG_UP]), ("close", &["close"]), ("exit", &[exit])]);
    assert_eq!(lines[place(lines, HUNG_UP) + 1], "close", "{lines:?}");
}

#[test] // K-RU-04, K-RU-05
fn each_stream_is_made_of_what_the_conduit_says() {
    let lines = lines("conduits");
    let kinds = |conduit: &str| {
        let of = |line: &&str| line.trim_start_matches(|c: char| c != ' ').trim_matches([' ', ']']).replace(":[", ": ");
        only(&lines, &[conduit]).iter().map(of).collect::<Vec<_>>()
    };
    let are = |names: &[String], kind: &str| names.iter().all(|name| name.starts_with(kind));
    let pipes = kinds("Pipe");
    assert!(pipes.len() == 3 && are(&pipes, "pipe: "), "{lines:?}");
    assert!(pipes[0] != pipes[1] && pipes[1] != pipes[2], "{lines:?}");
    let sockets = kinds("SocketPair");
    assert!(are(&sockets[..2], "socket: ") && sockets[0] == sockets[1] && are(&sockets[2..], "pipe: "), "{lines:?}");
    assert!(are(&kinds("Alone"), "pipe: ") && kinds("Alone").len() == 1, "{lines:?}");
    let pty = kinds("Pty");
    assert!(pty.len() == 3 && are(&pty, "/dev/pts/") && pty.iter().all(|name| *name == pty[0]), "{lines:?}");
    let pty_pipe = kinds("PtyPipe");
    assert!(are(&pty_pipe[..2], "/dev/pts/") && pty_pipe[0] == pty_pipe[1] && pty_pipe[0] != pty[0], "{lines:?}");
    assert!(are(&pty_pipe[2..], "pipe: "), "{lines:?}");
}

#[test] // K-RU-04, K-RU-41: one socket, whose input ends by itself
fn a_socket_goes_both_ways() {
    let lines = lines("socket");
    let out = only(&lines, &["out"]);
    // The other child's is the number, at any time.
    let (count, out): (Vec<&str>, Vec<&str>) = out.iter().partition(|line| **line == "out 1048577");
    assert_eq!(out, ["out by descriptor 0", "out got one", "out two", "out after the end"]);
    assert_eq!(count.len(), 1, "{lines:?}");
    let mut ends = only(&lines, &["error"]);
    ends.sort_unstable();
    assert_eq!(ends, [ENDS[1], ENDS[1], ENDS[0], ENDS[0]]);
    assert_each(&lines, &[("close", &["close"; 2]), ("exit", &["exit exit status: 0"; 2])]);
}

#[test] // K-RU-04, K-RU-23: a socket tells of what was not read
fn input_that_a_child_leaves_in_its_socket_is_a_reset() {
    let lines = lines("socket_unread");
    let mut ends = only(&lines, &["error"]);
    ends.sort_unstable();
    assert_eq!(ends, [ENDS[1], "error read 104 STDOUT"], "{lines:?}");
    assert_each(&lines, &[("out", &["out one"]), ("close", &["close"]), ("exit", &["exit exit status: 3"])]);
}

#[test] // K-RU-05, K-RU-11, K-RU-23, K-RU-24
fn a_child_has_one_terminal_that_controls_its_session() {
    let lines = lines("pty");
    let out =
        ["out three", "out error", "out pid", "out group true, session true, foreground true", "out controlled true"];
    assert_eq!(only(&lines, &["out", "err"]), out);
    assert_hung_up(&lines, "exit exit status: 3");
}

#[test] // K-RU-05: octets that mean something in any other mode
fn a_terminal_is_raw() {
    let lines = lines("pty_raw");
    assert_eq!(only(&lines, &["out"]), ["out \"a\\u{3}b\\u{4}c\\rd\\u{7f}e\\u{1a}f\\u{11}g\""]);
    assert_hung_up(&lines, "exit signal: 15 (SIGTERM)");
}

#[test] // K-RU-05, K-RU-23, K-RU-24
fn standard_error_may_be_a_pipe_beside_the_terminal() {
    let lines = lines("pty_pipe");
    let mut out = only(&lines, &["out", "err"]);
    out.sort_unstable();
    assert_eq!(out, ["err error", "out controlled", "out kept", "out two"]);
    let mut ends = only(&lines, &["error"]);
    ends.sort_unstable();
    assert_eq!(ends, [ENDS[1], HUNG_UP, HUNG_UP]);
    assert_each(&lines, &[("close", &["close"; 2]), ("exit", &["exit exit status: 0"; 2])]);
}

#[test] // K-RU-05, K-RU-06, K-RU-09
fn settings_that_do_not_go_with_the_conduit_are_errors_of_the_constructor() {
    let expected = [
        "stdin: invalid stdin: it is the terminal",
        "stdout: invalid stdout: it is the terminal",
        "stderr: invalid stderr: it is the terminal",
        "both: invalid stdout: it is the terminal",
        "event: invalid on_stderr: standard error is the terminal, and arrives as standard output",
        "pty-pipe: invalid stdin: it is the terminal",
        "size: invalid winsize: there is no terminal",
        "missing: execve /no/such/program: errno 2",
        "_stop",
    ];
    assert_eq!(lines("pty_refused"), expected);
}

#[test] // K-RU-06: of a program and of a function
fn a_terminal_has_the_size_it_is_given() {
    let lines = lines("pty_size");
    let mut out = only(&lines, &["out"]);
    out.sort_unstable();
    let most = "out Some([65535, 65535, 65535, 65535])";
    assert_eq!(out, ["out 24 80", "out 24 80", "out Some([24, 80, 720, 384])", most, "out Some([7, 8, 5, 6])"]);
}

#[test] // K-RU-06: not given
fn a_terminal_is_as_large_as_the_programs_own() {
    assert_eq!(only(&lines("pty_own_size"), &["out"]), ["out 0 0"], "there is no other");
    // The program in the terminal says what its child says.
    let lines = lines("pty_nested");
    assert_eq!(lines.iter().filter(|line| **line == "out out 33 111").count(), 1, "{lines:?}");
}

#[test] // K-RU-06: what changes is told, once
fn a_terminals_size_can_be_changed() {
    let lines = lines("pty_resize");
    assert_eq!(only(&lines, &["out"]), ["out 24 80", "out ready", "out 30 100"]);
    assert_hung_up(&lines, "exit exit status: 3");
    let refused = [
        "TIOCSWINSZ terminal of process PID: Inappropriate ioctl for device (os error 25)",
        "TIOCSWINSZ terminal of process PID: Bad file descriptor (os error 9)",
    ];
    assert_eq!(only(&self::lines("pty_resize_refused"), &["TIOCSWINSZ"]), refused);
}

#[test] // K-RU-41: what waits is discarded, and the child not bothered
fn shutting_down_input_leaves_the_terminal_open() {
    let lines = lines("pty_shutdown");
    assert_eq!(only(&lines, &["out"]), ["out ready", "out written", "out alive"]);
    assert_eq!(only(&lines, &["put:"]), ["put: Closed"]);
    assert_hung_up(&lines, "exit exit status: 3");
}

#[test] // K-RU-20, K-RU-21, K-RU-41: more than a terminal holds, both ways
fn a_megabyte_goes_through_a_terminal() {
    let lines = lines("pty_much");
    assert_eq!(only(&lines, &["out", "flushed"]), ["flushed", "out all"]);
    assert_hung_up(&lines, "exit signal: 15 (SIGTERM)");
}

#[test] // K-RU-47: closing the terminal is the hang-up
fn dropping_the_wheel_hangs_up() {
    assert_eq!(lines("pty_drop"), ["exit signal: 1 (SIGHUP)", "_stop"]);
    assert_eq!(lines("pty_drop_kill"), ["exit signal: 9 (SIGKILL)", "_stop"]);
}

#[test] // K-RU-23, K-RU-28: the leader's end is not the terminal's
fn a_terminal_is_open_until_nobody_has_it() {
    let lines = lines("pty_background");
    assert_eq!(only(&lines, &["out"]), ["out first", "out late"]);
    assert!(place(&lines, "exit exit status: 3") < place(&lines, "out late"), "{lines:?}");
    assert_hung_up(&lines, "exit exit status: 3");
    // What ignores no hang-up ends with its leader.
    let lines = self::lines("pty_background_hup");
    assert_eq!(only(&lines, &["out"]), ["out first"]);
    assert_hung_up(&lines, "exit exit status: 3");
}

#[test] // K-RU-05, K-RU-23, K-RU-47: neither end of a terminal is in another child
fn a_terminal_is_not_inherited_by_other_children() {
    let lines = lines("pty_neighbours");
    assert_eq!(
        only(&lines, &["first", "second", "third"]),
        ["first closed", "second signal: 1 (SIGHUP)", "third signal: 1 (SIGHUP)"]
    );
}

#[test] // K-RU-47, T5
fn a_forked_child_does_not_keep_its_parents_terminal_open() {
    let mut running = start("pty_forked");
    let mut seen: Vec<String> = (0..3).map(|_| running.next_line(DEADLINE)).collect();
    seen.sort_unstable();
    assert_eq!([&*seen[0], &*seen[2]], ["exit signal: 1 (SIGHUP)", "terminals 0"]);
    let pid = seen[1].strip_prefix("forked ").and_then(|pid| pid.parse().ok()).expect("the program says it");
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(rest(&mut running), ["_stop"]);
}

#[test] // K-RU-05, K-RU-10
fn a_child_that_runs_as_another_user_owns_its_terminal() {
    let lines = lines("pty_privileges");
    if !nix::unistd::geteuid().is_root() {
        assert!(lines[0].starts_with("start: setgid /bin/sh as user nobody: errno "), "{lines:?}");
        return;
    }
    let own = String::from_utf8(std::process::Command::new("nice").output().unwrap().stdout).unwrap();
    let own: i32 = own.trim().parse().unwrap();
    let nobody = nix::unistd::User::from_name("nobody").unwrap().expect("every system has it");
    let expected = [
        format!("out {}", (own + 5).min(19)),
        "out nobody".into(),
        format!("out {}", nobody.gid),
        "out by name".into(),
    ];
    assert_eq!(only(&lines, &["out"]), expected, "{lines:?}");
    assert_hung_up(&lines, "exit exit status: 0");
}

#[test] // K-RU-05, K-RU-43
fn a_child_with_a_terminal_can_be_killed() {
    assert_hung_up(&lines("pty_kill"), "exit signal: 10 (SIGUSR1)");
}

#[test] // K-RU-05, K-RU-48: there is something to be read, whoever wants it
fn the_output_of_a_terminal_waits_for_its_event() {
    let lines = lines("pty_silent");
    assert_eq!(lines, ["exit exit status: 3", "out text", HUNG_UP, "close", "_stop"]);
}

#[test] // K-RU-23, K-RU-26 with K-RE-39: before the end is told
fn an_unfinished_record_is_delivered_when_the_terminal_ends() {
    let lines = lines("pty_last");
    assert_eq!(only(&lines, &["out"]), ["out whole", "out rest"]);
    assert!(place(&lines, "out rest") < place(&lines, HUNG_UP), "{lines:?}");
    assert_hung_up(&lines, "exit exit status: 0");
}

#[test] // K-RU-01, K-RU-05, K-RU-21
fn a_function_has_a_terminal() {
    let lines = lines("pty_function");
    let out = ["out terminals [true, true, true]", "out leads true true", "out controlled", "out got one"];
    assert_eq!(only(&lines, &["out"]), out);
    assert_eq!(only(&lines, &["flushed"]), ["flushed"]);
    assert_hung_up(&lines, "exit exit status: 0");
}

#[test] // K-RU-23, K-RU-43: before it has done anything
fn a_function_that_is_killed_hangs_up() {
    assert_hung_up(&lines("pty_function_killed"), "exit signal: 9 (SIGKILL)");
}

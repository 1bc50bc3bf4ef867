//! `Run`: section 17 of the behaviour specification. Whatever starts a child is a program of its own; see
//! tests/programs/run_wheel.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

#[path = "run/adversary.rs"]
mod adversary;
#[path = "run/conduits.rs"]
mod conduits;
#[path = "run/ends.rs"]
mod ends;
#[path = "run/functions.rs"]
mod functions;
#[path = "run/marks.rs"]
mod marks;
use util::{DEADLINE, Program, Running, test_program};

/// Ends every scenario that ends well.
const END: &str = "run returned";

/// What everybody says at the end who has watched both output streams to their ends.
const ENDS: [&str; 2] = ["error read 0 STDOUT", "error read 0 STDERR"];

fn start(scenario: &str) -> Running {
    Program::new(test_program("run_wheel")).arg(scenario).env("RUST_BACKTRACE", "0").start()
}

/// Runs a scenario to its end, and returns its lines without the last.
fn lines(scenario: &str) -> Vec<String> {
    let mut running = start(scenario);
    rest(&mut running)
}

fn rest(running: &mut Running) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let line = running.next_line(DEADLINE);
        if line == END {
            break;
        }
        lines.push(line);
    }
    assert!(running.wait_exit(DEADLINE).success(), "{lines:?}; {}", running.stderr_text());
    lines
}

/// The lines that begin with one of the words, in their order.
fn only<'a>(lines: &'a [String], words: &[&str]) -> Vec<&'a str> {
    lines.iter().map(String::as_str).filter(|line| words.contains(&line.split(' ').next().unwrap_or(line))).collect()
}

/// Asserts what the lines are that begin with each of these words; their order among each other is nobody's promise.
#[track_caller]
fn assert_each(lines: &[String], expected: &[(&str, &[&str])]) {
    for (word, expected) in expected {
        assert_eq!(only(lines, &[word]), *expected, "{lines:?}");
    }
}

fn place(lines: &[String], line: &str) -> usize {
    lines.iter().position(|other| other == line).unwrap_or_else(|| panic!("no {line:?} in {lines:?}"))
}

/// Asserts that both streams have ended, each once, and that the close event came right behind the second end.
fn assert_closed(lines: &[String]) {
    let mut ends = only(lines, &["error"]);
    ends.retain(|line| line.starts_with("error read"));
    ends.sort_unstable();
    assert_eq!(ends, [ENDS[1], ENDS[0]], "{lines:?}");
    let last = ENDS.map(|end| place(lines, end)).into_iter().max().expect("there are two");
    assert_eq!(lines.get(last + 1).map(String::as_str), Some("close"), "{lines:?}");
    assert_eq!(only(&lines[last + 1..], &["out", "err", "error"]), [""; 0], "nothing comes after close");
}

#[test] // K-RU-01, K-RU-02, K-RU-20, K-RU-22..25
fn words_are_executed_as_they_are() {
    let lines = lines("words");
    assert_each(&lines, &[("out", &["out a  b $HOME; *"]), ("err", &[]), ("exit", &["exit exit status: 0"])]);
    assert_closed(&lines);
}

#[test] // K-RU-01, K-RU-02, K-RU-20, K-RU-28
fn a_text_is_the_shells() {
    let lines = lines("shell");
    assert_eq!(only(&lines, &["out"]), ["out ONE"]);
    assert_eq!(only(&lines, &["err"]), ["err two"]);
    assert_eq!(only(&lines, &["exit"]), ["exit exit status: 3"]);
    assert_closed(&lines);
}

#[test] // K-RU-08, K-RU-21, K-RU-40: one flush for two records
fn records_go_in_and_come_out() {
    let lines = lines("cat");
    assert_eq!(only(&lines, &["flushed"]), ["flushed"]);
    assert_each(&lines, &[("out", &["out one", "out two"]), ("err", &[]), ("exit", &["exit exit status: 0"])]);
    assert_closed(&lines);
}

#[test] // K-RU-21, K-RU-40
fn stdin_is_closed_before_the_last_low_and_flushed_events() {
    let lines = lines("closed_when_flushed");
    assert_eq!(only(&lines, &["gone", "flushed", "low"]), ["gone", "flushed", "low", "gone"]);
    assert!(only(&lines, &["put:"]).iter().all(|line| *line == "put: Closed"), "{lines:?}");
}

#[test] // K-RU-20, K-RU-21: more than a pipe holds, both ways
fn a_megabyte_goes_through_a_child() {
    let lines = lines("much");
    assert_eq!(only(&lines, &["out"]), ["out", "out 10000"]);
    assert_eq!(only(&lines, &["flushed"]), ["flushed"]);
    assert_closed(&lines);
}

#[test] // K-RU-23, K-RU-24
fn the_close_event_follows_the_last_of_two_ends() {
    assert_eq!(lines("separate_ends"), ["out a", ENDS[0], "err b", ENDS[1], "close", "_stop"]);
}

#[test] // K-RU-28: the output ends first
fn a_process_may_go_on_without_its_output() {
    let lines = lines("closes_first");
    assert_closed(&lines);
    assert!(place(&lines, "close") < place(&lines, "exit exit status: 4"), "{lines:?}");
}

#[test] // K-RU-28: the process ends first
fn output_may_go_on_without_the_process() {
    let lines = lines("exits_first");
    assert_closed(&lines);
    assert!(place(&lines, "exit") < place(&lines, "out late"), "{lines:?}");
}

#[test] // K-RU-24: no close without a stdout or stderr event
fn without_output_events_there_is_no_close_event() {
    assert_eq!(lines("silent"), ["exit exit status: 0", "_stop"]);
}

#[test] // K-RU-07 with K-RE-24, K-RU-08: without events the child has the parent's streams
fn a_child_inherits_what_is_no_pipe() {
    let running = start("inherit");
    let mut seen: Vec<String> = (0..3).map(|_| running.next_line(DEADLINE)).collect();
    seen.sort_unstable();
    assert_eq!(seen, ["_stop", END, "to stdout"]);
    running.wait_for_stderr("to stderr", DEADLINE);
}

fn in_directory(scenario: &str, dir: &Path) -> Vec<String> {
    fs::write(dir.join("in"), "input\n").unwrap();
    let program = Program::new(test_program("run_wheel")).arg(scenario).current_dir(dir);
    rest(&mut program.start())
}

fn content(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap()
}

#[test] // K-RU-09: by name, each and both
fn streams_are_redirected_to_files() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("out"), "from before\n").unwrap();
    assert_eq!(in_directory("redirect_files", dir.path()), ["exit exit status: 0", "_stop"]);
    assert_eq!(content(dir.path(), "out"), "from before\ninput\n", "appended");
    assert_eq!(content(dir.path(), "err"), "e\n");
    assert_eq!(content(dir.path(), "both"), "o\ne\n");
}

#[test] // K-RU-09, K-RE-24: open files, and nowhere
fn streams_are_redirected_to_handles_and_to_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(in_directory("redirect_others", dir.path()), ["exit exit status: 0", "_stop"]);
    assert_eq!(content(dir.path(), "out"), "input\n");
}

#[test] // K-RU-09: a stream has one destination
fn an_event_and_a_redirection_replace_each_other() {
    assert_eq!(lines("redirect_later"), ["err e", "close", "_stop"]);
}

#[test] // K-RU-09
fn a_file_that_can_not_be_opened_is_an_error_of_the_constructor() {
    let dir = tempfile::tempdir().unwrap();
    let lines = in_directory("no_such_file", dir.path());
    assert_eq!(lines, ["in: open missing: errno 2", "out: open missing/out: errno 2", "_stop"]);
}

#[test] // K-RU-09: nothing of it keeps the loop waiting, and the child waits as ever
fn a_fifo_is_opened_without_waiting_for_its_other_end() {
    let dir = tempfile::tempdir().unwrap();
    let lines = in_directory("redirect_fifo", dir.path());
    assert_eq!(lines, ["out: open fifo: errno 6", "at the end", "out waited for", "close", "_stop"]);
}

#[test] // K-RU-08, K-RU-40: NoStdin, and a put that can't be
fn a_child_without_input_is_at_its_end_at_once() {
    let lines = lines("no_stdin");
    assert_each(&lines, &[("put:", &["put: Closed"]), ("exit", &["exit exit status: 0"])]);
    assert_closed(&lines);
}

#[test] // K-RU-40, K-RU-41
fn shutting_down_discards_what_waits() {
    let lines = lines("discard");
    assert_eq!(only(&lines, &["put:", "flushed"]), ["put: Closed"]);
    assert_each(&lines, &[("out", &["out 0"]), ("exit", &["exit exit status: 0"])]);
}

#[test] // K-RU-41 with K-RE-33
fn shutting_down_after_the_flush_loses_nothing() {
    let lines = lines("after_flush");
    assert_eq!(only(&lines, &["put:", "flushed"]), ["put: Closed", "flushed"]);
    assert_each(&lines, &[("out", &["out 1048576"]), ("exit", &["exit exit status: 0"])]);
}

#[test] // K-RU-27
fn writing_to_a_closed_input_is_an_error_event() {
    let lines = lines("closed_stdin");
    assert_eq!(lines[..2], ["error write 32 STDIN", "put: Closed"]);
    assert_eq!(only(&lines, &["flushed"]), [""; 0]);
    assert_closed(&lines);
}

#[test] // K-RU-44
fn what_waits_to_be_written_is_counted() {
    let lines = lines("counts");
    assert_eq!(lines[..2], ["0 octets, 0 records", "5 octets, 2 records"]);
    let later = place(&lines[2..], "0 octets, 0 records") + 2;
    assert!(place(&lines, "flushed") < later, "{lines:?}");
}

#[test] // K-RU-26
fn an_unfinished_record_stays_in_the_filter() {
    let lines = lines("unfinished");
    assert_eq!(only(&lines, &["out", "close,"]), ["out whole", "close, pending rest"]);
}

#[test] // K-RU-26 with K-RE-39
fn an_unfinished_record_is_delivered_to_who_asks_for_it() {
    let lines = lines("deliver_last");
    assert_eq!(only(&lines, &["out"]), ["out whole", "out rest"]);
    assert_eq!(only(&lines, &["err"]), ["err no rest"]);
    assert!(place(&lines, "out rest") < place(&lines, ENDS[0]));
    assert_closed(&lines);
}

#[test] // K-RU-03, K-RU-45
fn each_stream_has_its_filter() {
    let lines = lines("filters");
    assert_eq!(only(&lines, &["out"]), ["out a;", "out b;"]);
    assert_eq!(only(&lines, &["err"]), ["err x", "err y"]);
}

#[test] // K-RU-45, K-RU-46 with K-RE-23: nothing twice
fn a_new_filter_goes_on_where_the_old_one_was() {
    let lines = lines("filter_switch");
    assert_eq!(only(&lines, &["out"]), ["out 1", "out 2", "out 3", "out 4", "out 5", "out put!"]);
    assert_eq!(only(&lines, &["err"]), ["err a", "err b"]);
    assert_closed(&lines);
}

#[test] // K-RU-45, K-RU-46: with filters of other types
fn a_filter_of_another_type_goes_on_where_the_old_one_was() {
    let lines = lines("filter_types");
    let ids = only(&lines, &["id", "closed"]).concat().replace("closed", "id");
    assert_eq!(ids, ids[..ids.len() / 3].repeat(3), "one wheel");
    assert_eq!(only(&lines, &["out"])[..2], ["out 1", "out 2"]);
    // How the rest is cut is the pipe's affair. What was put before is a line, and what was put after is a block.
    let rest: String = only(&lines, &["out"])[2..].iter().map(|line| line[4..].trim_matches('"')).collect();
    assert_eq!(rest, r"restput\n3\0abc");
    assert_eq!(only(&lines, &["err"]), ["err e1", "err e2"]);
}

#[test] // K-RW-62, for this wheel
fn a_newline_that_is_cut_in_two_gives_no_octet_to_the_next_filter() {
    let lines = lines("filter_cut");
    assert_eq!(only(&lines, &["out"]), ["out \"one\"", "out \"two\""]);
}

#[test] // K-RU-22: the filter's errors, between records
fn a_record_that_the_filter_refuses_is_a_refused_event() {
    let lines = lines("filter_refuses");
    let lines = only(&lines, &["out", "refused"]);
    assert_eq!(lines, ["out a", "refused record of 1 bytes is not UTF-8 at byte 0 STDOUT", "out b"]);
}

#[test] // K-RW-42, for this wheel
fn a_put_that_fails_or_panics_leaves_nothing_in_the_output() {
    let lines = lines("put_fails");
    assert_eq!(only(&lines, &["out"]), ["out HALF:fine"]);
    assert_eq!(only(&lines, &["died"]), ["died"]);
    assert_eq!(only(&lines, &["error"])[0], "error filter");
}

#[test] // K-RU-42
fn a_paused_stream_waits_and_the_other_does_not() {
    let lines = lines("pause");
    let (before, after) = lines.split_at(place(&lines, "resume"));
    assert_eq!(only(before, &["out", "err", "error"]), ["out 1", "err a"]);
    assert_eq!(only(after, &["out"]), ["out 2", "out 3"]);
    assert_eq!(only(after, &["err"]), ["err b"]);
    assert_closed(&lines);
}

#[test] // K-RU-48
fn events_can_be_changed_and_taken_away() {
    let mut lines = lines("rename");
    // When standard error ends is its own affair.
    lines.retain(|line| line != "other error STDERR");
    let (before, after) = lines.split_at(place(&lines, "again"));
    assert_eq!(only(before, &["out", "other"]), ["out 1", "other 2", "other 3"], "nothing without an event");
    assert_eq!(only(after, &["other"]), ["other 4", "other error STDOUT"]);
    assert_eq!(only(&lines, &["close", "error"]), [""; 0]);
}

#[test] // K-RU-48
fn an_event_makes_no_pipe_where_there_is_none() {
    let mut lines = lines("enable");
    lines.sort_unstable();
    assert_eq!(lines, ["_stop", "flushed", "inherited"]);
}

#[test] // K-RU-30
fn the_pipe_to_the_child_keeps_the_session_alive() {
    let lines = lines("stays");
    assert_closed(&lines);
    assert_eq!(lines[lines.len() - 2..], ["still here", "_stop"]);
}

#[test] // K-RE-20 for Run: what was read already goes with the wheel
fn a_dropped_wheel_delivers_nothing_more() {
    let lines = lines("dropped_in_record");
    assert_eq!(only(&lines, &["out", "error", "close"]), ["out 1"]);
}

#[test] // K-RU-14, K-RU-44
fn the_program_runs_when_the_constructor_returns() {
    assert_eq!(lines("executed"), ["sleep true", "_stop"]);
}

#[test] // K-RU-15: the constructor's, with errno and program, and nothing is left
fn what_can_not_be_executed_is_an_error_of_the_constructor() {
    let lines = lines("refused");
    assert_eq!(
        lines[..11],
        [
            "stopped: no session is running",
            "missing: execve /no/such/program: errno 2",
            "not in PATH: execve no-such-program: errno 2",
            "no program: execve /etc/passwd: errno 13",
            "no words: invalid program: needs a word at least",
            r#"nul in a word: execve echo: word 3 has a NUL byte: "b\0c": errno 22"#,
            r#"nul in the name: execve ec\0ho: word 1 has a NUL byte: "ec\0ho": errno 22"#,
            r#"nul in a text: execve /bin/sh: word 3 has a NUL byte: "echo\0": errno 22"#,
            "nul in an argument: execve echo: word 3 has a NUL byte: errno 22",
            "nul in a variable: execve echo: a variable or the directory has a NUL byte: errno 22",
            "nul in the directory: execve echo: a variable or the directory has a NUL byte: errno 22",
        ]
    );
    let step = if nix::unistd::geteuid().is_root() { "setgroups" } else { "setgid" };
    assert!(lines[11].starts_with(&format!("group: {step} true in group 4294967295: errno ")), "{lines:?}");
}

#[test] // K-RU-01: with whatever else a command has
fn a_command_keeps_its_environment_and_directory() {
    assert_eq!(only(&lines("command"), &["out"]), ["out from the environment", "out /"]);
}

#[test] // K-RU-10
fn a_child_runs_as_another_user_or_says_why_not() {
    let lines = lines("privileges");
    if !nix::unistd::geteuid().is_root() {
        assert!(lines[0].starts_with("by name: setgid sh as user nobody: errno "), "{lines:?}");
        return;
    }
    // The test's own niceness is most likely 0, but may be anything.
    let own: i32 =
        String::from_utf8(std::process::Command::new("nice").output().unwrap().stdout).unwrap().trim().parse().unwrap();
    let nobody = nix::unistd::User::from_name("nobody").unwrap().expect("every system has it");
    let out = only(&lines, &["out"]);
    assert_eq!(out[..3], [format!("out {}", (own + 5).min(19)), "out nobody".into(), format!("out {}", nobody.gid)]);
    assert!(!out[3].split(' ').any(|group| group == "0"), "none of root's groups: {out:?}");
    assert_eq!(out[4], format!("out {own}"));
    assert_eq!(out[6], "out 12345");
}

#[test] // K-RU-10: not in silence
fn accounts_that_do_not_exist_are_errors_of_the_constructor() {
    assert_eq!(
        lines("no_such_account"),
        ["user: getpwnam user no-such-user: errno 2", "group: getgrnam group no-such-group: errno 2", "_stop"]
    );
}

#[test] // K-RU-11
fn a_child_leads_a_process_group_unless_told_otherwise() {
    let lines = lines("group");
    let mut keeps = only(&lines, &["keeps"]);
    keeps.sort_unstable();
    assert_eq!(keeps, ["keeps false: leads true, is in ours false", "keeps true: leads false, is in ours true"]);
}

#[test] // K-RU-12 for programs: not even what the launcher has left open
fn a_program_inherits_no_descriptors() {
    // The fourth is that of the listed directory.
    assert_eq!(lines("descriptors"), ["fd 0", "fd 1", "fd 2", "fd 3"]);
}

#[test] // K-RU-13, T21
fn a_program_begins_with_no_signal_blocked_or_ignored() {
    for scenario in ["signals", "function_signals"] {
        let lines = lines(scenario);
        let sets = only(&lines, &["out"]);
        assert_eq!(sets.len(), 3, "{lines:?}");
        for (set, name) in sets.iter().zip(["SigBlk", "SigIgn", "SigCgt"]) {
            let bits = set.strip_prefix(&format!("out {name}:\t")).and_then(|set| u64::from_str_radix(set, 16).ok());
            // The C library keeps two for itself, and ignores them in whatever a harness starts.
            assert_eq!(bits.map(|bits| bits & !LIBRARYS_OWN), Some(0), "{scenario}: {set}");
        }
    }
}

/// Signals 32 and 33, which no program may use.
const LIBRARYS_OWN: u64 = 0b11 << 31;

#[test] // T5, K-RU-43, K-RU-47: a process signals and feeds no children but its own
fn a_forked_child_has_no_part_in_its_parents_wheels() {
    let running = start("drop_in_fork");
    let mut seen = Vec::new();
    while let Some(line) = running.try_next_line(DEADLINE) {
        seen.push(line);
    }
    assert_eq!(only(&seen, &["kill:", "put:"]), ["kill: no session is running", "put: Closed"]);
    assert_eq!(only(&seen, &["out", "exit"]), ["out alive", "exit signal: 9 (SIGKILL)"]);
}

#[test] // K-FT-19: permission, with operation, errno and path
fn a_file_without_permission_is_told_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    fs::write(&log, "secret\n").unwrap();
    fs::set_permissions(&log, fs::Permissions::from_mode(0o000)).unwrap();
    let lines = in_directory("function_follows", dir.path());
    assert_each(&lines, &[("out", &[&format!("out open 13 {}", log.display())]), ("exit", &["exit exit status: 0"])]);
}

#[test] // the harness itself: a scenario that doesn't end is not taken for one that does
fn a_scenario_that_does_not_exist_fails() {
    let mut running = start("no-such-scenario");
    assert!(!running.wait_exit(Duration::from_secs(10)).success());
}

#[test] // K-RU-24: a forked child has no part in the wheel
fn a_session_that_forks_at_an_end_hears_of_the_close_once() {
    let mut running = start("fork_at_end");
    assert!(running.wait_exit(DEADLINE).success(), "{}", running.stderr_text());
    let mut lines = Vec::new();
    while let Some(line) = running.try_next_line(DEADLINE) {
        lines.push(line);
    }
    assert_eq!(only(&lines, &["close,"]), ["close, is child: false"]);
}

//! The logger for several processes: what it writes, and that its lines stay whole.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use serde_json::Value;
use util::lab::{Lab, held};
use util::{Client, DEADLINE, Program, Running, at_once, example, test_program, wait_until};

/// For what writes 100,000 lines.
const LONG: Duration = Duration::from_secs(60);

#[track_caller]
fn start(args: &[&str]) -> Running {
    Program::new(test_program("logger")).args(args).start()
}

/// What a program logs that ends by itself.
#[track_caller]
fn logged(args: &[&str]) -> String {
    let mut running = start(args);
    assert!(running.wait_exit(DEADLINE).success());
    running.stderr_to_end(DEADLINE)
}

/// The same for a program started by a shell, which has the program and the arguments in `"$@"`.
fn by_shell(script: &str, program: &Path, args: &[&str]) -> Running {
    Program::new("sh").args(["-c", script, "sh"]).arg(program).args(args).start()
}

/// The standard output of a program that ends by itself.
#[track_caller]
fn said(mut running: Running) -> Vec<String> {
    let status = running.wait_exit(LONG);
    assert!(status.success(), "{status}");
    std::iter::from_fn(|| running.try_next_line(DEADLINE)).collect()
}

/// Takes the time from a line, and the space behind it.
#[track_caller]
fn split_time(line: &str) -> (&str, &str) {
    let (time, rest) = line.split_at(28);
    let is_time = time.bytes().zip(b"0000-00-00T00:00:00.000000Z ").all(|(byte, form)| match form {
        b'0' => byte.is_ascii_digit(),
        _ => byte == *form,
    });
    assert!(is_time, "{line}");
    (&time[..27], rest)
}

#[test] // O-SD-15: without a journal
fn text_has_time_level_pid_target_message_and_fields() {
    let before = SystemTime::now();
    let mut running = start(&["say", "hello"]);
    let pid = running.pid();
    running.wait_exit(DEADLINE);
    let text = running.stderr_to_end(DEADLINE);
    let rest: Vec<&str> = text.lines().map(|line| split_time(line).1).collect();
    let own = format!("[INFO] {pid} hello");
    let other = format!("[WARN] {pid} tower: with fields slot=3 cause=exited:3 note=\"a b\"");
    assert_eq!(rest, [own, other]);
    // The system's own idea of when that was, to the second, unless midnight was in between.
    let seconds = before.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs() % 86_400;
    let number = |place: usize| text[place..place + 2].parse::<u64>().expect("digits");
    let told = number(11) * 3600 + number(14) * 60 + number(17);
    assert!(told.abs_diff(seconds) < 10 || seconds > 86_300, "{text}");
}

#[test]
fn json_has_one_object_a_line_with_the_fields_of_the_record() {
    let hostile = "a \"quoted\"\nline\r\u{1b}[2J \u{2028} \\ 漢";
    let mut running = start(&["--json", "say", hostile]);
    let pid = running.pid();
    running.wait_exit(DEADLINE);
    let text = running.stderr_to_end(DEADLINE);
    let objects: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(objects.len(), 2, "{text}");
    assert_eq!((&objects[0]["message"], &objects[0]["level"]), (&hostile.into(), &"INFO".into()));
    assert_eq!((&objects[0]["target"], &objects[0]["pid"]), (&"logger".into(), &pid.into()));
    assert!(objects[0].get("fields").is_none());
    split_time(&format!("{} ", objects[0]["time"].as_str().expect("a string")));
    let fields = serde_json::json!({"slot": 3, "cause": "exited:3", "note": "a b"});
    assert_eq!((&objects[1]["message"], &objects[1]["fields"]), (&"with fields".into(), &fields));
}

#[test]
fn message_that_a_client_has_sent_forges_no_record() {
    let forged = "2026-11-28T23:31:39.000123Z [ERROR] 1 lenore::daemon: forged";
    let text = logged(&["say", &format!("a\n{forged}\r{forged}\r\n{forged}\u{85}{forged}\u{2028}<3>")]);
    let records = text.lines().filter(|line| line.starts_with("20")).count();
    assert_eq!(records, 2, "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("    20")).count(), 2, "{text}");
    let harmless = format!(" a\n    {forged}\\r{forged}\n    {forged}\\u{{85}}{forged}\\u{{2028}}<3>\n");
    assert!(text.contains(&harmless), "{text}");
}

/// Starts a program under a service manager's journal, as far as the program can tell: a pipe.
const UNDER_JOURNAL: &str = r#"JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$@""#;

#[test] // O-SD-15
fn journal_gets_priorities_on_every_line_and_neither_time_nor_pid() {
    let logger = test_program("logger");
    let mut running = by_shell(UNDER_JOURNAL, &logger, &["say", "one\n<0>two\n", "three"]);
    running.wait_exit(DEADLINE);
    let expected = "<6>one\n<6>    <0>two\n<6>three\n<4>tower: with fields slot=3 cause=exited:3 note=\"a b\"\n";
    assert_eq!(running.stderr_to_end(DEADLINE), expected);

    let mut running = by_shell(UNDER_JOURNAL, &logger, &["--json", "say"]);
    running.wait_exit(DEADLINE);
    let text = running.stderr_to_end(DEADLINE);
    let json = text.strip_prefix("<4>").expect(&text);
    assert_eq!(serde_json::from_str::<Value>(json).expect(json)["message"], "with fields");
}

#[test] // O-SD-15
fn journal_s_variable_counts_only_while_it_names_standard_error() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("log");
    fs::write(&file, "").expect("our own directory");
    let stat = fs::metadata(&file).expect("our own file");
    let own = format!("{}:{}", stat.dev(), stat.ino());
    let other = format!("{}:{}", stat.dev(), stat.ino() + 1);
    for (stream, is_journal) in [(own.as_str(), true), (&other, false), ("", false), ("nonsense", false)] {
        fs::write(&file, "").expect("our own file");
        let logger = test_program("logger");
        let script = r#"exec "$@" 2>>"$LOG""#;
        let command = Program::new("sh").args(["-c", script, "sh"]).arg(logger).args(["say", "x"]);
        let mut running = command.env("LOG", &file).env("JOURNAL_STREAM", stream).start();
        running.wait_exit(DEADLINE);
        let text = fs::read_to_string(&file).expect("our own file");
        assert_eq!(text.starts_with("<6>x\n"), is_journal, "{stream}: {text}");
    }
}

#[test] // O-SD-15
fn log_file_of_a_daemon_is_no_journal() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("log");
    let args = ["--listen", "127.0.0.1:0", "--requests", "1", "--verbose", "--logfile", log.to_str().expect("ASCII")];
    let mut running = by_shell(UNDER_JOURNAL, &example("echo_prefork"), &args);
    let addr = running.listening_addr();
    assert_eq!(Client::connect(addr).line("x"), "x");
    let ended = wait_until("a death in the log", DEADLINE, || {
        let text = fs::read_to_string(&log).ok()?;
        text.lines().find(|line| line.contains("child has ended")).map(str::to_owned)
    });
    let (_, rest) = split_time(&ended);
    assert!(rest.starts_with(&format!("[INFO] {} lenore::daemon: child has ended: pid=", running.pid())), "{rest}");
    running.signal(Signal::SIGTERM);
    running.wait_exit(DEADLINE);
}

#[test]
fn records_of_a_daemon_s_children_have_fields_in_json_and_the_same_text() {
    let args = "--start 1 --max 1 --max-spare 1 --requests 0 --babysit-ms 100 --cpu-ms 200";
    let program = Program::new(test_program("daemon_prefork")).args(args.split_whitespace());
    let mut lab = Lab::launch(program.env("LOG_FORMAT", "json"));
    let addr = lab.running.listening_addr();
    let (mut client, pid) = held(addr);
    client.send("spin\n");
    let find = |message: &str| {
        let line = lab.running.wait_for_stderr(&format!("\"message\":\"{message}: pid={pid} "), DEADLINE);
        serde_json::from_str::<Value>(&line).expect(&line)
    };
    let (rogue, death) = (find("child is rogue"), find("child has ended"));
    let whole = [("pid", pid.into()), ("slot", Value::from(0))];
    for record in [&rogue, &death] {
        assert!(whole.iter().all(|(key, value)| record["fields"][key] == *value), "{record}");
        assert_eq!((&record["pid"], &record["target"]), (&lab.pid().into(), &"lenore::daemon".into()), "{record}");
    }
    let words = [("why", "cpu_limit"), ("status", "r"), ("signal", "SIGINT")];
    assert!(words.iter().all(|(key, value)| rogue["fields"][key] == *value), "{rogue}");
    assert!(rogue["fields"]["cpu"].is_f64() && rogue["fields"]["for"].is_f64(), "{rogue}");
    let fields = &death["fields"];
    assert_eq!((&fields["cause"], &fields["requests"]), (&"rogue:cpu_limit".into(), &1.into()), "{death}");
    assert_eq!((&fields["core"], &fields["note"]), (&Value::Null, &Value::Null), "{death}");
    let age = fields["age"].as_f64().expect("a number");
    let text = format!("child has ended: pid={pid} slot=0 cause=rogue:cpu_limit age={age:.3} requests=1");
    assert_eq!(death["message"], text);
    lab.end(Signal::SIGTERM);
}

#[test]
fn lines_of_eight_processes_are_whole_and_none_is_missing() {
    const PROCESSES: usize = 8;
    const RECORDS: usize = 12_500;
    let directory = tempfile::tempdir().expect("a directory");
    let counts = [PROCESSES.to_string(), RECORDS.to_string()];
    // A file that is appended to, one whose position the processes share, and a pipe.
    at_once([Some(">>"), Some(">"), None], |to| {
        let file = directory.path().join(to.map_or("none", |to| if to == ">" { "shared" } else { "appended" }));
        let script = to.map_or_else(|| r#"exec "$@""#.to_owned(), |to| format!(r#"exec "$@" 2{to}{}"#, file.display()));
        let mut running = by_shell(&script, &test_program("logger"), &["storm", &counts[0], &counts[1]]);
        let parent = running.pid();
        assert!(running.wait_exit(LONG).success());
        let text = match to {
            Some(_) => fs::read_to_string(&file).expect("the log"),
            None => running.stderr_to_end(LONG),
        };
        let mut next: BTreeMap<i32, usize> = BTreeMap::new();
        let mut lines = text.lines();
        let first = lines.next().expect("a line");
        assert_eq!(split_time(first).1, format!("[INFO] {parent} before the forks"));
        for line in lines {
            let (_, rest) = split_time(line);
            let (pid, said) = rest.strip_prefix("[INFO] ").and_then(|rest| rest.split_once(' ')).expect(line);
            let number = next.entry(pid.parse().expect(line)).or_default();
            assert_eq!(said, format!("record {number} of {RECORDS} {} ends", "x".repeat(*number * 7 % 300)));
            *number += 1;
        }
        assert_eq!(next.len(), PROCESSES);
        assert!(next.values().all(|&count| count == RECORDS), "the last words before _exit as well: {next:?}");
        assert!(text.ends_with('\n') && !next.contains_key(&parent));
    });
}

#[test]
fn levels_go_by_the_longest_target_and_can_be_set_while_the_program_runs() {
    let text = logged(&["--filter", "off,tower=info,tower::bell=debug", "levels"]);
    let count = |what: &str| text.lines().filter(|line| line.contains(what)).count();
    for when in ["at first", "at last"] {
        let told = ["tower:", "tower::bell:", "towers:"].map(|target| count(&format!(" {target} {when} most=DEBUG")));
        assert_eq!(told, [3, 4, 0], "{text}");
    }
    // Every target has the level that is set, also those that the filter keeps silent.
    let told = ["tower:", "tower::bell:", "towers:"].map(|target| count(&format!(" {target} set most=WARN")));
    assert_eq!((told, count("silent")), ([2, 2, 2], 0), "{text}");
}

#[test]
fn wrong_filter_is_an_error_that_names_the_part() {
    let mut running = start(&["--filter", "info,tower=loud", "say"]);
    assert!(!running.wait_exit(DEADLINE).success());
    let text = running.stderr_to_end(DEADLINE);
    assert!(text.contains(r#""tower=loud": the level is not off"#), "{text}");
}

#[test]
fn full_disk_loses_records_and_the_next_one_says_how_many() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("log");
    for format in [&[][..], &["--json"]] {
        let args = [format, &["full", log.to_str().expect("ASCII")]].concat();
        let mut running = start(&args);
        let parent = running.pid();
        assert!(running.wait_exit(DEADLINE).success());
        let text = fs::read_to_string(&log).expect("the log");
        let by_parent = [format!("] {parent} "), format!("\"pid\":{parent},")];
        let own: Vec<&str> = text.lines().filter(|line| by_parent.iter().any(|by| line.contains(by))).collect();
        assert_eq!(own.len(), 3, "{text}");
        assert!(own[0].contains("log records are lost: count=1000"), "{text}");
        assert!(own[1].contains("there is room") && own[2].contains("and still"), "{text}");
        // A child that was forked meanwhile has lost none itself.
        assert_eq!((text.lines().count(), text.matches("are lost").count()), (5, 1), "{text}");
        if !format.is_empty() {
            assert_eq!(serde_json::from_str::<Value>(own[0]).expect(own[0])["fields"]["count"], 1000);
        }
        fs::remove_file(&log).expect("our own file");
    }
}

#[test]
fn closed_standard_error_and_a_reader_that_has_gone_do_not_end_the_program() {
    for scenario in ["closed", "unread"] {
        assert_eq!(said(start(&[scenario])), ["goes on"], "{scenario}");
    }
    let closed = by_shell(r#"exec "$@" 2>&-"#, &test_program("logger"), &["closed"]);
    assert_eq!(said(closed), ["goes on"]);
}

#[test]
fn reader_that_does_not_read_holds_up_one_record_of_a_non_blocking_pipe() {
    let lines = said(start(&["slow"]));
    assert_eq!(lines[..2], ["waited true", "waited for each false"]);
    let numbers = lines[2..].iter().map_while(|line| split_time(line).1.split_once(" record "));
    let written = numbers.enumerate().map(|(place, (_, number))| assert_eq!(number, place.to_string())).count();
    // The pipe has 64 KiB, and no line is torn at their end.
    assert!(written > 500, "{lines:?}");
    let [lost, after] = &lines[2 + written..] else { panic!("{:?}", &lines[written..]) };
    assert!(lost.ends_with(&format!("log records are lost: count={}", 5000 - written)), "{lost}");
    assert!(after.ends_with(" it is read again"), "{after}");
}

#[test]
fn record_after_half_a_line_begins_on_a_line_of_its_own() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("log");
    assert_eq!(said(start(&["torn", log.to_str().expect("ASCII")])), [""; 0]);
    let text = fs::read_to_string(&log).expect("the log");
    let lines: Vec<&str> = text.lines().map(|line| split_time(line).1).collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines[0].ends_with(" fits") && lines[1].contains(" does not fit x"), "{text}");
    assert!(lines[2].ends_with(" lenore::logging: log records are lost: count=2"), "{text}");
    assert!(lines[3].ends_with(" there is room"), "{text}");
}

/// The text of all sources, with `…` in place of what a format string fills in, and strings of several lines in one.
fn texts_of_the_source(directory: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(directory).expect("the sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            text += &texts_of_the_source(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).expect("a source");
            let mut pieces = source.split("\\\n");
            text += pieces.next().expect("a first piece");
            pieces.for_each(|piece| text += piece.trim_start());
        }
    }
    text
}

fn with_dots(text: &str) -> String {
    let mut dotted = String::new();
    let mut rest = text;
    while let Some(begin) = rest.find('{') {
        dotted += &rest[..begin];
        rest = &rest[begin + 1..];
        match rest.find(['{', '}', '"', '\n']) {
            Some(end) if rest[end..].starts_with('}') => {
                dotted.push('…');
                rest = &rest[end + 1..];
            }
            _ => dotted.push('{'),
        }
    }
    dotted + rest
}

#[test]
fn guide_lists_no_log_line_that_the_source_does_not_have() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src");
    let texts = with_dots(&texts_of_the_source(&source));
    let page = fs::read_to_string(source.join("guide/log_lines.md")).expect("the page");
    let lines: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(line, _)| line)).collect();
    assert!(lines.len() > 50, "{} lines are listed", lines.len());
    let missing: Vec<&&str> = lines.iter().filter(|line| !texts.contains(**line)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

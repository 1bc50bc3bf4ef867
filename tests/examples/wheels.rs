//! The examples `runner`, `tail_f` and `log_shipper` as a user runs them.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use util::addresses::free_addresses;
use util::{DEADLINE, Program, Running, at_once, example, wait_until};

fn all_lines(running: &Running) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(line) = running.try_next_line(DEADLINE) {
        lines.push(line);
    }
    lines
}

/// Lines of one command, by its label.
fn of<'a>(lines: &'a [String], label: &str) -> Vec<&'a str> {
    lines.iter().filter_map(|line| line.strip_prefix(label)?.strip_prefix(": ")).collect()
}

#[test]
fn runner_labels_output_and_reports_every_end() {
    let commands = ["echo one; echo two", "echo complaint >&2; exit 3", "printf x"];
    let args = commands.iter().flat_map(|command| ["--run", command]);
    let mut running = Program::new(example("runner")).args(args).start();
    let lines = all_lines(&running);
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(1));
    let ends: Vec<&str> = lines.iter().filter(|line| line.contains(": exit status: ")).map(String::as_str).collect();
    assert_eq!(ends.len(), 3, "{lines:?}");
    assert!(lines.contains(&"2: echo complaint >&2; exit 3: exit status: 3".to_owned()), "{lines:?}");
    let mut first = of(&lines, "1");
    first.retain(|line| !line.contains("exit status"));
    assert_eq!(first, ["one", "two"]);
    running.wait_for_stderr("2: complaint", DEADLINE);
    running.wait_for_stderr("1 failed", DEADLINE);
}

#[test]
fn runner_succeeds_if_every_command_does() {
    let mut running =
        Program::new(example("runner")).args(["--timeout", "1000", "--run", "true", "--run", "cat"]).start();
    assert_eq!(all_lines(&running).len(), 2);
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(0), "{}", running.stderr_text());
}

#[test]
fn runner_ends_what_takes_too_long_and_what_that_has_started() {
    let args = ["--timeout", "1", "--run", "sleep 100 & sleep 100", "--run", "echo quick"];
    let mut running = Program::new(example("runner")).args(args).start();
    let lines = all_lines(&running);
    assert!(lines.contains(&"1: sleep 100 & sleep 100: signal: 15 (SIGTERM)".to_owned()), "{lines:?}");
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(1));
    wait_until("nobody left", DEADLINE, || running.descendants_alive().is_empty().then_some(()));
}

#[test]
fn runner_ends_everything_when_it_is_interrupted() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGHUP] {
        let mut running = runner_with("--default-signal=HUP", "echo ready; sleep 100").start();
        assert_eq!(running.next_line(DEADLINE), "1: ready");
        running.signal(signal);
        assert_eq!(running.next_line(DEADLINE), "1: echo ready; sleep 100: signal: 15 (SIGTERM)");
        assert_eq!(running.wait_exit(DEADLINE).code(), Some(1));
        wait_until("nobody left", DEADLINE, || running.descendants_alive().is_empty().then_some(()));
    }
}

#[test]
fn runner_goes_on_without_its_terminal_under_nohup() {
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("gate");
    fs::write(&gate, "").unwrap();
    let command = format!("echo ready; while test -e {}; do sleep 0.01; done; echo done", gate.display());
    let mut running = runner_with("--ignore-signal=HUP", &command).start();
    assert_eq!(running.next_line(DEADLINE), "1: ready");
    running.signal(Signal::SIGHUP);
    fs::remove_file(&gate).unwrap();
    assert_eq!(running.next_line(DEADLINE), "1: done");
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(0));
}

/// The runner of one command, with HUP's action set: the tests themselves may run under `nohup`.
fn runner_with(action_of_hup: &str, command: &str) -> Program {
    Program::new("env").arg(action_of_hup).arg(example("runner")).args(["--run", command])
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

#[test]
fn tail_f_follows_files_through_rotation_and_truncation() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one.log"), dir.path().join("two.log"));
    fs::write(&one, "old\n").unwrap();
    let mut running = Program::new(example("tail_f"))
        .args(["--interval", "10", "--file", one.to_str().unwrap(), "--file", two.to_str().unwrap()])
        .start();
    running.wait_for_stderr("following 2 files", DEADLINE);
    let expect = |path: &Path, line: &str| {
        assert_eq!(running.next_line(DEADLINE), format!("{}: {line}", path.display()));
    };
    append(&one, "hello\n");
    expect(&one, "hello");
    append(&two, "made later\n");
    expect(&two, "made later");
    append(&one, "last\n");
    fs::rename(&one, dir.path().join("one.log.1")).unwrap();
    append(&one, "again\n");
    expect(&one, "last");
    expect(&one, "again");
    fs::write(&one, b"anew, \xff, and longer than it was\n").unwrap();
    expect(&one, "anew, \u{fffd}, and longer than it was");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(0));
}

#[test] // K-WH-13: what copytruncate leaves when the writer keeps its offset
fn tail_f_goes_on_after_more_nuls_than_a_line_may_have() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let hole = fs::File::create(&path).unwrap();
    hole.set_len(65 << 20).unwrap();
    append(&path, "the end of a line\nok\n");
    let args = ["--all", "--interval", "10", "--file", path.to_str().unwrap()];
    let mut running = Program::new(example("tail_f")).args(args).start();
    assert_eq!(running.next_line(DEADLINE), format!("{}: ok", path.display()));
    running.wait_for_stderr("is over the limit of 67108864", DEADLINE);
    append(&path, "and on\n");
    assert_eq!(running.next_line(DEADLINE), format!("{}: and on", path.display()));
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(0));
}

#[test]
fn tail_f_reads_all_if_asked_to_and_waits_for_what_can_be_read_later() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    fs::write(&path, "one\ntwo\n").unwrap();
    let args = ["--all", "--interval", "10", "--file", path.to_str().unwrap()];
    let mut running = Program::new(example("tail_f")).args(args).start();
    let expect = |line: &str| assert_eq!(running.next_line(DEADLINE), format!("{}: {line}", path.display()));
    expect("one");
    expect("two");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    running.wait_for_stderr("Is a directory (os error 21); trying again", DEADLINE);
    fs::remove_dir(&path).unwrap();
    append(&path, "three\n");
    expect("three");
    assert_eq!(running.stderr_text().matches("trying again").count(), 1);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(0), "{}", running.stderr_text());
}

#[test]
fn tail_f_and_log_shipper_exit_with_1_when_nothing_can_be_followed_any_more() {
    let name = format!("/tmp/{}", "x".repeat(300));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap().to_string();
    let programs = [("tail_f", ["--file", &name, "--interval", "10"]), ("log_shipper", ["--file", &name, "--to", &to])];
    at_once(programs, |(program, args)| {
        let mut running = Program::new(example(program)).args(args).start();
        running.wait_for_stderr("File name too long", DEADLINE);
        assert_eq!(running.wait_exit(DEADLINE).code(), Some(1), "{}", running.stderr_text());
    });
}

#[test]
fn log_shipper_waits_for_a_file_that_can_be_read_later() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    std::os::unix::fs::symlink(&path, &path).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap().to_string();
    let args = ["--file", path.to_str().unwrap(), "--to", &to];
    let mut running = Program::new(example("log_shipper")).args(args).start();
    running.wait_for_stderr("Too many levels of symbolic links (os error 40); it is tried again", DEADLINE);
    fs::remove_file(&path).unwrap();
    append(&path, "one\n");
    let (_stream, lines) = receive(&listener, "one");
    assert_eq!(lines, ["one"]);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(0), "{}", running.stderr_text());
}

/// A program whose output is read by `head -1`, and which says on standard error how it ended.
fn before_head(redirection: &str, name: &str, args: &[&str]) -> Program {
    let script = format!("{{ \"$@\" {redirection}; echo \"ended with $?\" >&3; }} 3>&2 | head -1");
    Program::new("/bin/sh").arg("-c").arg(script).arg("sh").arg(example(name)).args(args)
}

#[test]
fn tail_f_ends_quietly_when_nobody_reads_its_output() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    fs::write(&path, "").unwrap();
    let args = ["--interval", "10", "--file", path.to_str().unwrap()];
    let running = before_head("", "tail_f", &args).start();
    running.wait_for_stderr("following", DEADLINE);
    append(&path, "one\n");
    assert_eq!(running.next_line(DEADLINE), format!("{}: one", path.display()));
    let text = wait_until("the end", DEADLINE, || {
        append(&path, "more\n");
        let text = running.stderr_text();
        text.contains("ended with ").then_some(text)
    });
    assert!(text.ends_with("ended with 0\n") && !text.contains("panicked") && !text.contains("ERROR"), "{text}");
}

#[test]
fn runner_ends_quietly_when_nobody_reads_its_output() {
    let endless = "while echo x; do :; done";
    // Standard error as well, and standard error alone.
    for (redirection, command) in [("", endless), ("2>&1", "while echo x >&2; do :; done")] {
        let running = before_head(redirection, "runner", &["--run", command, "--run", "sleep 100"]).start();
        assert_eq!(running.next_line(DEADLINE), "1: x");
        running.wait_for_stderr("ended with 0", DEADLINE);
        let text = running.stderr_text();
        assert!(!text.contains("panicked") && !text.contains("failed"), "{text}");
        wait_until("nobody left", DEADLINE, || running.descendants_alive().is_empty().then_some(()));
    }
}

#[test]
fn nfa_ends_quietly_when_nobody_reads_its_output() {
    let running = before_head("", "nfa", &[]).start();
    assert_eq!(running.next_line(DEADLINE), "login: edgar");
    running.wait_for_stderr("ended with 0", DEADLINE);
    assert!(!running.stderr_text().contains("panicked"), "{}", running.stderr_text());
}

/// Accepts the shipper's connection, and reads lines from it until `last`.
fn receive(listener: &TcpListener, last: &str) -> (TcpStream, Vec<String>) {
    listener.set_nonblocking(true).unwrap();
    let stream = wait_until("a connection", DEADLINE, || listener.accept().ok()).0;
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut lines = Vec::new();
    for line in BufReader::new(&stream).lines() {
        lines.push(line.unwrap());
        if lines.last().is_some_and(|line| line == last) {
            return (stream, lines);
        }
    }
    panic!("the connection has ended after {lines:?}");
}

#[test]
fn log_shipper_keeps_what_comes_while_the_server_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    fs::write(&path, "before\n").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap().to_string();
    let args = ["--file", path.to_str().unwrap(), "--to", &to];
    let mut running = Program::new(example("log_shipper")).args(args).start();
    running.wait_for_stderr("following", DEADLINE);
    append(&path, "one\ntwo\n");
    let (stream, lines) = receive(&listener, "two");
    assert_eq!(lines, ["one", "two"]);

    // Nobody listens for a while, and what is written then waits.
    drop((stream, listener));
    running.wait_for_stderr("Connection refused", DEADLINE);
    append(&path, "three\n");
    let listener = wait_until("the same port", DEADLINE, || TcpListener::bind(&to).ok());
    let (stream, lines) = receive(&listener, "three");
    assert_eq!(lines, ["three"]);

    // More than the high mark at once.
    let many: String = (0..100_000).map(|number| format!("{number}\n")).collect();
    append(&path, &many);
    append(&path, "end\n");
    let mut lines = BufReader::new(&stream).lines();
    for number in 0..100_000 {
        assert_eq!(lines.next().unwrap().unwrap(), number.to_string());
    }
    assert_eq!(lines.next().unwrap().unwrap(), "end");
    running.signal(Signal::SIGTERM);
    assert!(lines.next().is_none(), "it closes");
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(0), "{}", running.stderr_text());
}

#[test]
fn log_shipper_ends_between_two_attempts() {
    let [to] = free_addresses(Ipv4Addr::LOCALHOST).map(|address| address.to_string());
    let args = ["--file", "/nonexistent/log", "--to", &to, "--retry", "600"];
    let mut running = Program::new(example("log_shipper")).args(args).start();
    running.wait_for_stderr("Connection refused", DEADLINE);
    running.signal(Signal::SIGINT);
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(0), "{}", running.stderr_text());
}

/// A listener that takes no more connections, as its queue is full, and what fills the queue.
fn silent(address: &str) -> (TcpListener, Vec<TcpStream>) {
    let listener = TcpListener::bind(address).unwrap();
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let connect = || TcpStream::connect_timeout(&listener.local_addr().unwrap(), Duration::from_millis(200)).ok();
    let filling = std::iter::from_fn(connect).collect();
    (listener, filling)
}

#[test] // K-CC-10, K-SF-28: for a TcpClient, too
fn log_shipper_reaches_the_second_address_of_a_name_whose_first_does_not_answer() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("skipped: a hosts file of its own needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (hosts, path) = (dir.path().join("hosts"), dir.path().join("log"));
    fs::write(&hosts, "127.0.0.2 two.test\n127.0.0.3 two.test\n").unwrap();
    let (silent, _filling) = silent("127.0.0.2:0");
    let port = silent.local_addr().unwrap().port();
    let listener =
        TcpListener::bind(("127.0.0.3", port)).expect("a port that is free on the one address is on the other");
    let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    let mut running = Program::new("/usr/bin/unshare")
        .args(["-m", "/bin/sh", "-c", script])
        .arg(&hosts)
        .arg(example("log_shipper"))
        .args(["--file", path.to_str().unwrap(), "--to", &format!("two.test:{port}")])
        .start();
    running.wait_for_stderr("following", DEADLINE);
    append(&path, "one\n");
    let (_stream, lines) = receive(&listener, "one");
    assert_eq!(lines, ["one"]);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(0), "{}", running.stderr_text());
}

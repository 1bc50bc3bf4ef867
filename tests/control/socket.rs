//! The socket's path, and what can be asked there.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use util::addresses::leave_socket;
use util::control::{Control, Steered};
use util::{DEADLINE, Program, stays, test_program, wait_until};

fn program() -> Program {
    Program::new(test_program("daemon_control")).args(["--mode", "prefork:1", "--max", "1"])
}

/// Starts the program, which must not start, and returns what it says.
fn failure(program: Program) -> String {
    let mut running = program.start();
    assert!(!running.wait_exit(DEADLINE).success());
    running.stderr_to_end(DEADLINE)
}

#[test] // O-CT-01
fn nothing_is_made_unless_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let running = program().current_dir(dir.path()).start();
    running.listening_addr();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    let sockets = fs::read_to_string("/proc/net/unix").unwrap();
    let own = util::proc::fds(running.pid())
        .into_values()
        .filter_map(|target| Some(target.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()));
    for inode in own {
        let line = sockets.lines().find(|line| line.split_whitespace().nth(6) == Some(&inode));
        assert!(line.is_none_or(|line| !line.contains('/')), "{line:?}");
    }
}

#[test] // O-CT-01
fn runtime_directory_is_asking() {
    let dir = tempfile::tempdir().unwrap();
    let running = program().env("RUNTIME_DIRECTORY", format!("{}:/nonexistent", dir.path().display())).start();
    let mut control = Control::of(&running, &dir.path().join("control.sock"));
    assert_eq!(control.ask_json(r#"{"command":"hello"}"#)["data"]["pid"], running.pid());
}

#[test] // O-CT-01
fn impossible_path_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing/control.sock");
    let long = dir.path().join("x".repeat(100));
    for path in [&missing, &long] {
        let said = failure(program().arg("--control").arg(path));
        assert!(said.contains(path.to_str().unwrap()), "{said}");
    }
    // A file system without room for anything new, also for root.
    let said = failure(program().args(["--control", "/proc/control.sock"]));
    assert!(said.contains("/proc/control.sock"), "{said}");
}

#[test] // O-CT-02
fn socket_is_its_owners_alone_and_goes_with_it() {
    let mut steered = Steered::pool(1, "");
    let found = fs::symlink_metadata(&steered.path).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(steered.dir.path()).unwrap().count(), 1, "no temporary name is left");
    steered.running.signal(Signal::SIGTERM);
    assert!(steered.running.wait_exit(DEADLINE).success());
    assert!(!steered.path.exists());
}

#[test] // O-CT-02
fn second_owner_is_refused_and_told_of_the_first() {
    let steered = Steered::pool(1, "");
    let said = failure(program().arg("--control").arg(&steered.path));
    assert!(said.contains(&format!("process {}", steered.pid())), "{said}");
    assert!(said.contains(steered.path.to_str().unwrap()), "{said}");
    assert_eq!(steered.control().status().service.pid as i32, steered.pid());
}

#[test] // O-CT-02
fn socket_of_a_killed_owner_is_replaced() {
    let mut steered = Steered::pool(1, "");
    steered.running.signal(Signal::SIGKILL);
    steered.running.wait_exit(DEADLINE);
    assert!(steered.path.exists());
    let second = program().arg("--control").arg(&steered.path).start();
    second.listening_addr();
    assert_eq!(Control::of(&second, &steered.path).status().service.pid as i32, second.pid());
}

#[test] // O-CT-03
fn lost_path_is_made_again_and_told_once() {
    let steered = Steered::pool(1, "--babysit-ms 100");
    let mut before = steered.control();
    before.ask("hello").ok();
    fs::remove_file(&steered.path).unwrap();
    let mut after = wait_until("the socket", DEADLINE, || Control::try_connect(&steered.path).ok());
    after.ask("hello").ok();
    before.ask("hello").ok();
    // Something that nobody listens at any more. Put in its place at once: the parent makes a path again that is free.
    let stale = steered.dir.path().join("stale");
    leave_socket(&stale);
    fs::rename(&stale, &steered.path).unwrap();
    let mut again = wait_until("the socket", DEADLINE, || Control::try_connect(&steered.path).ok());
    again.ask("hello").ok();
    let told = || steered.running.stderr_text().matches("made again").count();
    wait_until("the log", DEADLINE, || (told() >= 2).then_some(()));
    // Whole rounds in which nothing is amiss.
    stays("two lines in the log", Duration::from_millis(300), || told() == 2);
}

#[test] // O-CT-03
fn anothers_socket_at_the_path_is_left_alone() {
    let mut steered = Steered::pool(1, "--babysit-ms 50");
    // Put in its place at once: the parent makes a path again that is free.
    let elsewhere = steered.dir.path().join("other");
    let other = UnixListener::bind(&elsewhere).unwrap();
    fs::rename(&elsewhere, &steered.path).unwrap();
    wait_until("the parent to look", DEADLINE, || {
        steered.running.stderr_text().contains("can't be made again").then_some(())
    });
    // Several rounds, by what a child's age is made of.
    for _ in 0..3 {
        drop(other.accept().unwrap());
    }
    assert_eq!(steered.running.stderr_text().matches("can't be made again").count(), 1);
    steered.running.signal(Signal::SIGTERM);
    assert!(steered.running.wait_exit(DEADLINE).success());
    drop(UnixStream::connect(&steered.path).expect("it is another's"));
}

/// The descriptors of a process that are the parent's control socket or a connection to it.
fn control_descriptors(pid: i32, path: &Path) -> Vec<String> {
    let sockets = fs::read_to_string("/proc/net/unix").unwrap();
    // The system shows a socket by the name that it was bound to, which it had before its own.
    let directory = path.parent().unwrap().to_str().unwrap();
    let own = |target: &String| {
        let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        inode.is_some_and(|inode| {
            let named = |line: &str| line.split_whitespace().nth(6) == Some(inode) && line.contains(directory);
            sockets.lines().any(named)
        })
    };
    util::proc::fds(pid).into_values().filter(own).collect()
}

#[test] // O-CT-04
fn child_has_neither_listener_nor_connections() {
    for mode in ["prefork:2", "fork:4"] {
        let steered = Steered::start(&format!("--mode {mode}"));
        let mut controls: Vec<Control> = (0..5).map(|_| steered.control()).collect();
        controls.iter_mut().for_each(|control| drop(control.ask("hello").ok()));
        let mut client = util::Client::connect(steered.addr);
        let answer = client.line("hello");
        let child: i32 = answer.split(' ').next().unwrap().parse().unwrap();
        assert_ne!(child, steered.pid());
        assert_eq!(control_descriptors(steered.pid(), &steered.path).len(), 6, "{mode}");
        assert_eq!(control_descriptors(child, &steered.path), [""; 0], "{mode}");
        // All the others as well. One that was just forked has yet to let go.
        let children = util::proc::children(steered.pid());
        assert!(!children.is_empty());
        for child in children.into_keys() {
            wait_until("a child that has let go", DEADLINE, || {
                control_descriptors(child, &steered.path).is_empty().then_some(())
            });
        }
        controls.iter_mut().for_each(|control| drop(control.ask("hello").ok()));
    }
}

#[test] // O-CT-08
fn hello_tells_who_answers_in_both_dialects() {
    let steered = Steered::pool(1, "");
    let mut control = steered.control();
    let hello = control.ask_json(r#"{"command":"hello","unknown":1}"#);
    assert_eq!(
        (&hello["ok"], &hello["data"]["protocol"], &hello["data"]["generation"]),
        (&true.into(), &1.into(), &1.into())
    );
    assert_eq!(hello["data"]["pid"], steered.pid());
    assert_eq!(hello["data"]["name"], "Daemon");
    assert_eq!(hello["data"]["phase"], "ready");
    assert!(hello["data"]["version"].is_string());
    let text = control.ask("hello");
    assert!(text.body.contains(&format!("pid={}", steered.pid())), "{text:?}");
    assert!(text.last.starts_with("OK"));
    assert!(control.ask("help").ok().contains("retire CHILD"));
    assert_eq!(control.ask("frobnicate").code(), "unknown_command");
    assert_eq!(control.ask_json(r#"{"command":"frobnicate"}"#)["code"], "unknown_command");
    assert_eq!(control.ask_json("{}")["code"], "usage");
    assert_eq!(control.ask_json("{")["code"], "bad_json");
    // Several at a time, each answered in its order.
    control.send("hello\r\nhelp\n{\"command\":\"hello\"}\nnonsense\n");
    assert!(control.read_answer().body.contains("pid="));
    assert!(control.read_answer().body.contains("retire"));
    assert!(control.read_line().unwrap().contains(r#""final":true"#));
    assert_eq!(control.read_answer().code(), "unknown_command");
}

#[test] // O-CT-10
fn parent_answers_while_all_children_are_busy_or_stopped() {
    let steered = Steered::pool(2, "");
    let gate = steered.dir.path().join("gate");
    fs::write(&gate, "").unwrap();
    let mut clients: Vec<util::Client> = (0..2).map(|_| util::Client::connect(steered.addr)).collect();
    clients.iter_mut().for_each(|client| client.send(format!("gate {}\r\n", gate.display())));
    let mut control = steered.control();
    control.wait_status("both to be busy", |status| {
        (status.pool.states.busy + status.pool.states.long == 2).then_some(())
    });
    for child in util::proc::children(steered.pid()).into_keys() {
        util::kill(child, Signal::SIGSTOP).unwrap();
    }
    assert_eq!(control.status().pool.total, 2);
    assert_eq!(control.ask_json(r#"{"command":"children"}"#)["data"]["children"].as_array().map(Vec::len), Some(2));
    let peek = control.ask("peek").ok();
    assert!(peek.contains("Daemon") && peek.contains("session"), "{peek}");
    fs::remove_file(&gate).unwrap();
}

#[test] // nothing of it keeps a program running
fn server_of_one_process_ends_with_clients_connected() {
    let mut steered = Steered::start("--mode single");
    let mut controls: Vec<Control> = (0..3).map(|_| steered.control()).collect();
    controls[0].ask("hello").ok();
    steered.running.signal(Signal::SIGTERM);
    assert!(steered.running.wait_exit(DEADLINE).success());
    assert_eq!(controls[0].read_line(), None);
}

#[test] // O-CT-01, O-ST-14: a variable that a program has inherited takes nothing from the Daemon that it is of
fn second_daemon_in_a_runtime_directory_leaves_the_first_alone() {
    let dir = tempfile::tempdir().unwrap();
    let in_dir = || program().env("RUNTIME_DIRECTORY", dir.path());
    let first = in_dir().start();
    let mut control = Control::of(&first, &dir.path().join("control.sock"));
    let second = in_dir().start();
    second.listening_addr();
    second.wait_for_stderr("no control socket in RUNTIME_DIRECTORY", DEADLINE);
    second.wait_for_stderr("no board in RUNTIME_DIRECTORY", DEADLINE);
    let mut second = second;
    second.signal(Signal::SIGTERM);
    assert!(second.wait_exit(DEADLINE).success());
    assert_eq!(lenore::daemon::BoardFile::open(dir.path().join("board")).unwrap().pid() as i32, first.pid());
    assert_eq!(control.ask_json(r#"{"command":"hello"}"#)["data"]["pid"], first.pid());
}

//! Daemons that can't be asked: dead, hung, foreign, or not to be asked by this user.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::unistd::Uid;

use util::addresses::leave_socket;
use util::control::Steered;
use util::{DEADLINE, Program, at_once, test_program, wait_until};

use super::{LONG, Outcome, ask, run, run_as};

/// How long a daemon gets to say hello.
const HELLO: Duration = Duration::from_secs(2);

/// The id of a user and of a group that nobody has.
pub const STRANGER: u32 = 64_123;

#[test] // O-CT-18
fn wrong_command_line_exits_with_2() {
    for args in ["", "fly", "resize", "resize --min-spare x", "retire", "status --socket a --pid-file b", "log-level"] {
        let err = run(args).expect_error(2);
        assert!(err.contains("Usage") || err.contains("--help") || err.contains("error:"), "{args}: {err}");
    }
    let err = run("status").expect_error(2);
    assert!(err.contains("--socket") && err.contains("RUNTIME_DIRECTORY"), "{err}");
}

#[test] // O-CT-18
fn no_daemon_exits_with_3() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    for command in [
        "status",
        "live",
        "ready",
        "children",
        "peek",
        "watch",
        "top --once",
        "metrics",
        "retire 1",
        "reopen",
        "stop",
        "hello",
    ] {
        let err = ask(&socket, command).expect_error(3);
        assert!(err.contains(socket.to_str().unwrap()), "{command}: {err}");
    }
    // Nothing but the name is left of a daemon.
    leave_socket(&socket);
    let err = ask(&socket, "status").expect_error(3);
    assert!(err.contains("no daemon listens there"), "O-CT-19: {err}");
    let pid_file = dir.path().join("pid");
    for command in ["status", "reopen", "stop"] {
        run(&format!("--pid-file {} {command}", pid_file.display())).expect_error(3);
    }
}

#[test] // O-CT-18: as LSB has it
fn status_tells_a_dead_daemon_from_one_that_does_not_run() {
    let mut steered = Steered::start("--mode prefork:1 --max 1 --grace-ms 500");
    let dir = tempfile::tempdir().unwrap();
    let pid_file = dir.path().join("pid");
    fs::write(&pid_file, format!("{}\n", steered.pid())).unwrap();
    let status = format!("--pid-file {} status", pid_file.display());
    // A pid file alone tells that the process lives, and nothing else.
    let out = run(&status).expect(0);
    assert!(out.contains(&format!("pid={}", steered.pid())), "{out}");
    let children = steered.running.children();
    steered.running.signal(Signal::SIGKILL);
    steered.running.wait_exit(LONG);
    steered.running.wait_gone(&children, LONG);
    let err = run(&status).expect_error(1);
    assert!(err.contains("dead") && err.contains(pid_file.to_str().unwrap()), "{err}");
    fs::remove_file(&pid_file).unwrap();
    run(&status).expect_error(3);
}

/// Stops the parent, and returns its children.
#[track_caller]
fn stop(steered: &Steered) -> Vec<i32> {
    let children = steered.running.children();
    steered.running.signal(Signal::SIGSTOP);
    wait_until("a stopped parent", DEADLINE, || (util::proc::state(steered.pid()) == Some('T')).then_some(()));
    children
}

/// Makes sure that commands show the children of a stopped parent.
#[track_caller]
fn expect_board(of: &str, children: &[i32], command: impl Fn(&str) -> Outcome) {
    for (args, code) in [("status", 4), ("children", 4), ("top --once", 0)] {
        let outcome = command(&format!("--timeout 100ms {args}"));
        assert!(outcome.code == code && !outcome.err.contains("; "), "{of}: {args}: {outcome:?}");
        assert_eq!(
            outcome.err.contains("hangs") || outcome.err.contains("full"),
            code == 4,
            "{of}: {args}: {outcome:?}"
        );
        let is_shown = |child: &i32| args == "status" || outcome.out.contains(&child.to_string());
        assert!(children.iter().all(is_shown), "{of}: {args}: {outcome:?}");
        assert!(args == "children" || outcome.out.contains("2 idle"), "{of}: {args}: {outcome:?}");
    }
}

#[test] // O-CT-19, O-CT-21, O-ST-14: nothing but the process leads from the socket to the board
fn a_stopped_parent_is_shown_from_a_board_that_is_a_file() {
    for name in ["board", "other name", "a\nb (deleted)"] {
        let dir = tempfile::tempdir().unwrap();
        let board = dir.path().join(name);
        let steered = Steered::pool_with(2, "", |program| program.arg("--board").arg(&board));
        expect_board(name, &stop(&steered), |args| ask(&steered.path, args));
        // Nor is a board shown that is none any more.
        fs::File::options().write(true).open(&board).unwrap().set_len(4096).unwrap();
        let err = ask(&steered.path, "--timeout 100ms status").expect_error(4);
        assert!(err.contains("hangs; ") && err.contains("cut short"), "{err}");
    }
}

#[test] // O-CT-19, O-CT-21, O-ST-14
fn a_stopped_parent_is_shown_from_its_runtime_directory() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    let steered = Steered::pool_with(2, "", |program| program.env("RUNTIME_DIRECTORY", dir.path()));
    fs::rename(&steered.path, &socket).unwrap();
    let children = stop(&steered);
    expect_board("RUNTIME_DIRECTORY", &children, |args| ask(&socket, args));
    // lenorectl can't connect, so it does not know the process that listens.
    let waiting: Vec<OwnedFd> = std::iter::from_fn(|| connect_at_once(&socket)).take(1000).collect();
    assert!(waiting.len() < 1000);
    expect_board("a full queue", &children, |args| ask(&socket, args));
    // A board that may be another daemon's is not shown.
    let other = dir.path().join("other.sock");
    fs::rename(&socket, &other).unwrap();
    let err = ask(&other, "--timeout 100ms children").expect_error(4);
    assert!(err.contains("queue is full; no board is known"), "{err}");
}

#[test] // O-CT-19, O-ST-14
fn a_stopped_parent_is_said_to_hang_and_is_shown_from_its_board() {
    let steered = Steered::pool(2, "");
    stop(&steered);
    let outcome = ask(&steered.path, "status");
    assert!(outcome.err.contains("hello") && outcome.out.contains(&steered.pid().to_string()), "{outcome:?}");
    outcome.expect(4);
    let outcome = ask(&steered.path, "children");
    for child in steered.running.children() {
        assert!(outcome.out.contains(&child.to_string()), "{outcome:?}");
    }
    outcome.expect(4);
    ask(&steered.path, "reopen").expect_error(4);
    let out = ask(&steered.path, "top --once").expect(0);
    assert!(out.contains("the parent is stopped"), "{out}");
    for child in steered.running.children() {
        assert!(out.contains(&child.to_string()), "{out}");
    }
    steered.running.signal(Signal::SIGCONT);
    ask(&steered.path, "status").expect(0);
}

#[test] // O-CT-18, O-CT-21, O-ST-14: the system keeps 15 bytes of the name, and here half of the last character
fn a_daemon_whose_name_is_cut_within_a_character_is_not_taken_for_dead() {
    let dir = tempfile::tempdir().unwrap();
    let [program, board, pid_file] = ["daemon_of_cafe\u{e9}", "board", "pid"].map(|name| dir.path().join(name));
    std::os::unix::fs::symlink(test_program("daemon_control"), &program).unwrap();
    let daemon = Program::new(&program).args("--mode prefork:1 --max 1 --board".split(' ')).arg(&board).start();
    daemon.listening_addr();
    let name = fs::read(format!("/proc/{}/comm", daemon.pid())).unwrap();
    assert!(name.starts_with(b"daemon_of_cafe") && String::from_utf8(name.clone()).is_err(), "{name:?}");
    fs::write(&pid_file, format!("{}\n", daemon.pid())).unwrap();
    let out = run(&format!("--pid-file {} status", pid_file.display())).expect(0);
    assert!(out.contains(&format!("running: pid={}", daemon.pid())), "{out}");
    fs::write(dir.path().join("pid.state"), format!("board={}\n", board.display())).unwrap();
    // Nor is its child, as its memory is shown.
    let out = wait_until("a child", DEADLINE, || {
        let out = run(&format!("--pid-file {} top --once", pid_file.display())).expect(0);
        out.contains("MiB").then_some(out)
    });
    assert!(!out.contains("dead"), "{out}");
}

/// Connects if there is room in the queue.
fn connect_at_once(path: &Path) -> Option<OwnedFd> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).unwrap();
    match connect(socket.as_raw_fd(), &UnixAddr::new(path).unwrap()) {
        Ok(()) => Some(socket),
        Err(errno) => {
            assert_eq!(errno, Errno::EAGAIN);
            None
        }
    }
}

#[test] // O-CT-19, O-CT-21, O-ST-14: this user may read the file, and not look into the process
fn a_stopped_parent_is_shown_to_the_group_of_its_board() {
    if !Uid::effective().is_root() {
        eprintln!("not root: no other user to be");
        return;
    }
    let steered = Steered::pool(2, "--board DIR/board --allow user:nobody:read");
    fs::set_permissions(steered.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    chown(steered.dir.path().join("board"), None, Some(STRANGER)).unwrap();
    let copy = steered.dir.path().join("lenorectl");
    fs::copy(test_program("lenorectl"), &copy).unwrap();
    let of_group = |group: u32, args: &str| {
        let program = Program::new(&copy).user(STRANGER, group);
        run_as(program, &format!("--socket {} {args}", steered.path.display()))
    };
    expect_board("the group", &stop(&steered), |args| of_group(STRANGER, args));
    let err = of_group(STRANGER + 1, "--timeout 100ms status").expect_error(4);
    assert!(err.contains("hangs; ") && err.contains("Permission denied"), "{err}");
}

#[test] // O-CT-19
fn a_socket_that_accepts_and_says_nothing_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let begin = Instant::now();
    let err = ask(&socket, "hello").expect_error(4);
    assert!(err.contains("has not said hello in 2.00 s: it is stopped or hangs"), "{err}");
    assert!((HELLO..DEADLINE).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    // Why nothing is shown of it, too.
    for command in ["status", "children", "top --once"] {
        let err = ask(&socket, &format!("--timeout 100ms {command}")).expect_error(4);
        assert!(err.contains("hangs; ") && err.contains("board"), "{command}: {err}");
    }
}

#[test] // O-CT-19: a shorter limit leaves less time for the hello, whatever the command
fn timeout_ends_the_wait_for_the_hello() {
    let dir = tempfile::tempdir().unwrap();
    let (silent, full) = (dir.path().join("silent"), dir.path().join("full"));
    let _listener = UnixListener::bind(&silent).unwrap();
    let listener = UnixListener::bind(&full).unwrap();
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let _waiting = UnixStream::connect(&full).unwrap();
    let cases = ["status", "children", "top --once", "hello", "stop"].map(|command| (&silent, command));
    at_once(cases.into_iter().chain([(&full, "status")]), |(socket, command)| {
        let begin = Instant::now();
        let err = ask(socket, &format!("--timeout 100ms {command}")).expect_error(4);
        assert!(begin.elapsed() < HELLO, "{command}: {:?}: {err}", begin.elapsed());
    });
}

#[test] // O-CT-19: nor does a late hello give the answer more time
fn timeout_counts_from_the_start_of_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let late = Duration::from_millis(700);
    let server = thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(client.try_clone().unwrap()).lines();
        lines.next().unwrap().unwrap();
        thread::sleep(late);
        client.write_all(b"{\"final\":true,\"ok\":true,\"data\":{\"protocol\":1}}\n").unwrap();
        // Until the command has ended.
        lines.count()
    });
    let begin = Instant::now();
    let err = ask(&socket, "--timeout 1s status").expect_error(4);
    assert!(err.contains("did not answer in time"), "{err}");
    assert!(begin.elapsed() < late + Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!(server.join().unwrap(), 1, "what it was asked after the hello");
}

#[test] // O-CT-19: nor does the command wait for room for ever
fn a_socket_whose_queue_is_full_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let _waiting = UnixStream::connect(&socket).unwrap();
    let err = ask(&socket, "status").expect_error(4);
    assert!(err.contains("full"), "{err}");
}

#[test] // O-CT-19, O-ST-15
fn what_is_no_daemon_is_not_understood() {
    for (answer, word) in [
        ("HTTP/1.1 400 Bad Request\n", "not a lenore daemon"),
        ("{\"final\":true,\"ok\":true,\"data\":{\"protocol\":9}}\n", "protocol 9"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(client.try_clone().unwrap()).read_line(&mut line).unwrap();
            client.write_all(answer.as_bytes()).unwrap();
        });
        let err = ask(&socket, "reopen").expect_error(1);
        assert!(err.contains(word), "{err}");
        server.join().unwrap();
    }
}

#[test] // O-CT-06, O-CT-18, O-CT-19
fn another_user_is_denied() {
    if !Uid::effective().is_root() {
        eprintln!("not root: no other user to be");
        return;
    }
    let steered = Steered::pool(1, "--allow user:nobody:read");
    fs::set_permissions(steered.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // The command where any user may run it.
    let copy = steered.dir.path().join("lenorectl");
    fs::copy(test_program("lenorectl"), &copy).unwrap();
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let as_nobody = |args: &str| {
        let program = Program::new(&copy).user(nobody.uid.as_raw(), nobody.gid.as_raw());
        run_as(program, &format!("--socket {} {args}", steered.path.display()))
    };
    as_nobody("status").expect(0);
    let err = as_nobody("stop").expect_error(5);
    assert!(err.contains("admin"), "{err}");
    as_nobody("resize --max-children 3").expect_error(5);
    // Somebody who may connect, and ask nothing.
    let program = Program::new(&copy).user(STRANGER, STRANGER);
    let err = run_as(program, &format!("--socket {} hello", steered.path.display())).expect_error(5);
    assert!(err.contains("this user has none"), "{err}");
    let private = Steered::pool(1, "");
    fs::set_permissions(private.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = Program::new(&copy).user(nobody.uid.as_raw(), nobody.gid.as_raw());
    let err = run_as(program, &format!("--socket {} hello", private.path.display())).expect_error(5);
    assert!(err.contains("not permitted to connect"), "{err}");
    ask(&steered.path, "status").expect(0);
}

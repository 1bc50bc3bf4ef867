//! The board as a file, read by this process while another one writes it.

use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::iter::zip;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lenore::daemon::view::{Histogram, Phase, Snapshot};
use lenore::daemon::{BoardFile, ParentState};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use util::lab::{Lab, held, send, tell};
use util::{DEADLINE, Program, kill, proc, test_program, wait_until};

/// Three children, no more and no fewer.
const POOL: &str = "--start 3 --min-spare 3 --max-spare 3 --max 3 --requests 0 --grace-ms 60000 --babysit-ms 60000";

/// Starts a pool with a board, and waits until `idle` of its children wait.
fn pool(dir: &TempDir, flags: &str, plan: &str, idle: u32) -> (Lab, SocketAddr, PathBuf) {
    let path = dir.path().join("board");
    let program = Program::new(test_program("daemon_prefork")).args(flags.split_whitespace());
    let lab = Lab::launch(program.args(["--board", path.to_str().expect("UTF-8")]).env("LENORE_INJECT", plan));
    let addr = lab.running.listening_addr();
    let board = BoardFile::open(&path).expect("a board before anybody can connect");
    wait_for(&board, "the pool", |seen| seen.pool.states.idle == idle);
    (lab, addr, path)
}

#[track_caller]
fn wait_for(board: &BoardFile, what: &str, is_there: impl Fn(&Snapshot) -> bool) -> Snapshot {
    wait_until(what, DEADLINE, || Some(board.snapshot().expect("a board")).filter(|seen| is_there(seen)))
}

/// O-ST-03
fn check_sums(seen: &Snapshot) {
    assert_eq!(seen.pool.states.total(), seen.pool.total, "{seen:?}");
    assert_eq!(seen.children.len() as u32, seen.pool.total);
    assert!(seen.pool.total <= seen.pool.limit, "{seen:?}");
    assert_eq!(seen.board.chars().count() as u32, seen.pool.slots);
    assert!(seen.board.chars().all(|letter| " Ff.wrlke?".contains(letter)), "{}", seen.board);
}

fn has_shrunk(before: &Histogram, seen: &Histogram) -> bool {
    before.sum > seen.sum || zip(&before.buckets, &seen.buckets).any(|(before, seen)| before > seen)
}

/// O-ST-05
fn check_growth(before: &Snapshot, seen: &Snapshot) {
    let (old, new) = (&before.counters, &seen.counters);
    assert!(old.requests <= new.requests && old.forks <= new.forks, "{old:?} {new:?}");
    assert!(old.busy_seconds <= new.busy_seconds, "{old:?} {new:?}");
    assert!(zip(old.exits.values(), new.exits.values()).all(|(old, new)| old <= new), "{old:?} {new:?}");
    assert!(!has_shrunk(&before.durations.request, &seen.durations.request), "{before:?} {seen:?}");
}

/// Asks until it is time to end, whatever becomes of the child that answers.
fn be_a_client(addr: SocketAddr, is_over: &AtomicBool, answered: &AtomicU64) {
    while !is_over.load(Ordering::Relaxed) {
        let ask = || -> std::io::Result<usize> {
            let mut stream = TcpStream::connect(addr)?;
            stream.set_read_timeout(Some(DEADLINE))?;
            stream.write_all(b"hello\n")?;
            BufReader::new(stream).read_line(&mut String::new())
        };
        answered.fetch_add(u64::from(ask().is_ok_and(|read| read > 0)), Ordering::Relaxed);
    }
}

#[test] // O-ST-02, O-ST-03, O-ST-05
fn sums_hold_while_children_are_killed_under_load() {
    let dir = TempDir::new().expect("a directory");
    let flags = "--start 8 --min-spare 4 --max-spare 8 --max 12 --requests 20 --grace-ms 60000";
    let (mut lab, addr, path) = pool(&dir, flags, "", 8);
    let seconds = env::var("LENORE_STORM_SECS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(3);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (is_over, answered, looks) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let killed = thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| be_a_client(addr, &is_over, &answered));
            scope.spawn(|| {
                let board = BoardFile::open(&path).expect("a board");
                let mut before = board.snapshot().expect("a board");
                while !is_over.load(Ordering::Relaxed) {
                    let seen = board.snapshot().expect("a board");
                    check_sums(&seen);
                    check_growth(&before, &seen);
                    looks.fetch_add(1, Ordering::Relaxed);
                    before = seen;
                }
            });
        }
        let mut killed = 0;
        while Instant::now() < end {
            let children: Vec<i32> = proc::children(lab.pid()).into_keys().collect();
            if let Some(victim) = children.get(killed % children.len().max(1)) {
                killed += usize::from(kill(*victim, Signal::SIGKILL).is_ok());
            }
            thread::sleep(Duration::from_millis(10));
        }
        is_over.store(true, Ordering::Relaxed);
        killed
    });
    let board = BoardFile::open(&path).expect("a board");
    let seen = wait_for(&board, "children that wait", |seen| seen.pool.states.idle == seen.pool.total);
    let answered = answered.into_inner();
    println!("{killed} killed, {answered} answered, {} looks, {:?}", looks.into_inner(), seen.counters);
    assert!(killed > 10 && answered > 10 && seen.counters.forks > killed as u64 / 2);
    assert!(answered <= seen.counters.requests, "{answered} {:?}", seen.counters);
    assert!(seen.durations.request.count() <= seen.counters.requests);
    lab.end(Signal::SIGTERM);
    assert!(!path.exists());
}

#[test] // O-ST-11
fn child_killed_in_the_middle_of_a_record_leaves_the_sums_right() {
    let dir = TempDir::new().expect("a directory");
    // Each child records first how long its client has waited, and then the request.
    let (mut lab, addr, path) = pool(&dir, POOL, "daemon.child.record=die@2#2", 3);
    let board = BoardFile::open(&path).expect("a board");
    let mut clients: Vec<_> = (0..3).map(|_| held(addr)).collect();
    let before = wait_for(&board, "three requests", |seen| seen.pool.states.busy == 3);
    assert_eq!((before.counters.requests, before.durations.request.count()), (3, 0));
    clients.clear();
    let seen = wait_for(&board, "a death and another child", |seen| {
        seen.counters.exits["signaled"] == 1 && seen.counters.forks == 4 && seen.pool.states.idle == 3
    });
    check_sums(&seen);
    check_growth(&before, &seen);
    assert_eq!(seen.counters.requests, 3);
    // The one that was killed had counted its request, and not for how long that was.
    assert_eq!(seen.durations.request.count(), 3);
    assert!(seen.durations.request.sum > 0.0 && seen.counters.busy_seconds > 0.0);
    lab.end(Signal::SIGTERM);
}

#[test] // O-ST-05, O-ST-11, O-ST-14
fn board_is_right_while_the_parent_is_stopped_in_the_middle_of_a_fold_and_after_its_death() {
    let dir = TempDir::new().expect("a directory");
    let (lab, addr, path) = pool(&dir, POOL, "daemon.fold=pause", 3);
    let board = BoardFile::open(&path).expect("a board");
    assert_eq!(board.parent(), ParentState::Running);
    let (client, victim) = held(addr);
    let others = held(addr);
    drop(client);
    let before = wait_for(&board, "a finished request", |seen| seen.durations.request.count() == 1);
    send(victim, Signal::SIGKILL);
    wait_until("the parent's stop", DEADLINE, || (board.parent() == ParentState::Stopped).then_some(()));
    let seen = board.snapshot().expect("a board");
    check_sums(&seen);
    check_growth(&before, &seen);
    assert_eq!((seen.counters.requests, seen.durations.request.count(), seen.counters.torn_reads), (2, 1, 0));
    // The victim is in its slot until the parent goes on.
    assert_eq!((seen.pool.total, seen.pool.states.busy, seen.service.phase), (3, 1, Phase::Ready));
    let age = board.heartbeat_age();
    wait_until("an older heartbeat", DEADLINE, || (board.heartbeat_age() > age).then_some(()));
    kill(lab.pid(), Signal::SIGKILL).expect("a stopped parent");
    wait_until("the parent's death", DEADLINE, || (board.parent() == ParentState::Dead).then_some(()));
    for board in [board, BoardFile::open(&path).expect("a file that is left behind")] {
        let after = board.snapshot().expect("a board");
        check_sums(&after);
        assert_eq!((after.counters.requests, after.durations.request.count()), (2, 1));
        assert_eq!(board.pid(), lab.pid() as u32);
    }
    drop(others);
}

#[test] // O-ST-14: under load, as a whole or in part; the operator is told
fn daemon_and_readers_survive_the_truncation_of_the_board() {
    for length in [0, 4096] {
        let dir = TempDir::new().expect("a directory");
        let flags = "--start 4 --min-spare 4 --max-spare 4 --max 4 --requests 0 --grace-ms 60000 --babysit-ms 50";
        let (mut lab, addr, path) = pool(&dir, flags, "", 4);
        let reader = BoardFile::open(&path).expect("a board");
        let children: Vec<i32> = proc::children(lab.pid()).into_keys().collect();
        let (is_over, answered) = (AtomicBool::new(false), AtomicU64::new(0));
        let more = |count: u64| {
            let goal = answered.load(Ordering::Relaxed) + count;
            wait_until("answers", DEADLINE, || (answered.load(Ordering::Relaxed) >= goal).then_some(()));
        };
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| be_a_client(addr, &is_over, &answered));
            }
            more(50);
            File::options().write(true).open(&path).and_then(|file| file.set_len(length)).expect("it is ours");
            more(500);
            lab.running.wait_for_stderr("board file lost: another process has cut it short", DEADLINE);
            more(50);
            is_over.store(true, Ordering::Relaxed);
        });
        assert_eq!(proc::children(lab.pid()).into_keys().collect::<Vec<_>>(), children, "no child has ended");
        let told = lab.running.stderr_text();
        assert_eq!(told.matches("board file lost").count(), 1, "{told}");
        for refused in [reader.snapshot().map(drop), BoardFile::open(&path).map(drop)] {
            let error = refused.expect_err("it is gone").to_string();
            assert!(error.contains("cut short") && error.contains(path.to_str().expect("UTF-8")), "{error}");
        }
        // What it reads now means nothing, but it reads.
        let _ = (reader.heartbeat_age(), reader.parent());
        // The parent still sees what its children do: it replaces one.
        kill(children[0], Signal::SIGKILL).expect("a child");
        wait_until("another child", DEADLINE, || {
            let now: Vec<i32> = proc::children(lab.pid()).into_keys().collect();
            (now.len() == 4 && !now.contains(&children[0])).then_some(())
        });
        lab.end(Signal::SIGTERM);
        assert!(!path.exists());
    }
}

#[test] // O-ST-14: a file that is left behind is replaced, and its readers keep what they have
fn board_is_replaced_at_a_restart() {
    let dir = TempDir::new().expect("a directory");
    let (first, _, path) = pool(&dir, POOL, "", 3);
    let old = BoardFile::open(&path).expect("a board");
    kill(first.pid(), Signal::SIGKILL).expect("a parent");
    wait_until("its death", DEADLINE, || (old.parent() == ParentState::Dead).then_some(()));
    let (mut second, _, path) = pool(&dir, POOL, "", 3);
    let new = BoardFile::open(&path).expect("a board");
    assert_eq!((new.pid(), new.parent()), (second.pid() as u32, ParentState::Running));
    assert_eq!((old.pid(), old.parent()), (first.pid() as u32, ParentState::Dead));
    assert_eq!(old.snapshot().expect("still mapped").service.pid, first.pid() as u32);
    assert_eq!(fs::metadata(&path).expect("a file").mode() & 0o7777, 0o640);
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 1);
    second.end(Signal::SIGTERM);
    assert_eq!(new.parent(), ParentState::Ended);
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0);
}

#[test] // O-ST-14: where there can't be a board there is no Daemon, and the error names the path
fn board_that_cannot_be_made_is_an_error_of_the_start() {
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("notes");
    fs::write(&file, "mine").expect("a file");
    symlink(&file, dir.path().join("link")).expect("a link");
    fs::create_dir(dir.path().join("sub")).expect("a directory");
    for name in ["link", "notes", "none/board", "sub"] {
        let path = dir.path().join(name);
        let program = Program::new(test_program("daemon_prefork")).args(["--board", path.to_str().expect("UTF-8")]);
        let mut running = program.start();
        let status = running.wait_exit(DEADLINE);
        let text = running.stderr_to_end(DEADLINE);
        assert_eq!(status.code(), Some(1), "{name}: {text}");
        assert!(text.contains(path.to_str().expect("UTF-8")), "{name}: {text}");
    }
    assert_eq!(fs::read_to_string(&file).expect("the file"), "mine");
}

#[test] // O-ST-16
fn label_is_cut_between_two_characters_and_stays_text() {
    let dir = TempDir::new().expect("a directory");
    let (mut lab, addr, path) = pool(&dir, POOL, "", 3);
    let board = BoardFile::open(&path).expect("a board");
    // 24 bytes are the limit, and 'ß' is two.
    for (label, expected) in [
        ("aßßßßßßßßßßßß", "aßßßßßßßßßßß"),
        ("<b>\u{1b}[31m\"\\</b>", "<b>\u{1b}[31m\"\\</b>"),
        ("€€€€€€€€€", "€€€€€€€€"),
    ] {
        let (mut client, pid) = held(addr);
        assert_eq!(tell(&mut client, &format!("label {label}")), "labelled");
        let seen = board.snapshot().expect("a board");
        let child = seen.children.iter().find(|child| child.pid == Some(pid)).expect("the child");
        assert_eq!(child.peer, expected);
        let json = serde_json::to_string(&seen).expect("JSON");
        assert!(!json.contains('\u{1b}'), "{json}");
        assert_eq!(serde_json::from_str::<Snapshot>(&json).expect("JSON"), seen);
        drop(client);
    }
    lab.end(Signal::SIGTERM);
}

#[test] // O-CT-12, O-ST-14: what is mapped takes no descriptor
fn board_takes_no_descriptor_of_parent_or_child() {
    let fds = |pid| proc::fds(pid).len();
    let counts = |board: Option<&Path>, children: u32| {
        let flags =
            format!("--start {children} --min-spare {children} --max-spare {children} --max {children} --requests 0");
        let mut program = Program::new(test_program("daemon_prefork")).args(flags.split_whitespace());
        if let Some(path) = board {
            program = program.args(["--board", path.to_str().expect("UTF-8")]);
        }
        let mut lab = Lab::launch(program);
        lab.running.listening_addr();
        lab.nth(children as usize, "daemon_accept");
        let mut each: Vec<usize> = lab.running.children().into_iter().map(fds).collect();
        each.dedup();
        let counts = (proc::fewest_fds(lab.pid()), each);
        lab.end(Signal::SIGTERM);
        counts
    };
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("board");
    for children in [1, 20] {
        assert_eq!(counts(Some(&path), children), counts(None, children), "{children} children");
    }
}

#[test] // O-CT-12: without a runtime directory it is in memory, behind one descriptor of the parent's
fn board_of_a_daemon_with_a_control_socket_is_in_memory() {
    let dir = TempDir::new().expect("a directory");
    let control = dir.path().join("control.sock");
    let args = ["--mode", "prefork:2", "--control", control.to_str().expect("UTF-8")];
    let mut lab = Lab::launch(Program::new(test_program("daemon_control")).args(args));
    lab.running.listening_addr();
    let board = BoardFile::of_process(lab.pid() as u32).expect("a board");
    let seen = wait_for(&board, "the pool", |seen| seen.pool.states.idle == 2);
    check_sums(&seen);
    assert_eq!(board.parent(), ParentState::Running);
    let boards = |pid| proc::fds(pid).values().filter(|target| target.starts_with("/memfd:lenore-board")).count();
    assert_eq!(boards(lab.pid()), 1);
    let children = lab.running.children();
    assert_eq!((children.len(), children.into_iter().map(boards).sum::<usize>()), (2, 0));
    lab.end(Signal::SIGTERM);
    assert_eq!((board.parent(), board.snapshot().expect("still mapped").pool.total), (ParentState::Ended, 0));
}

#[test] // O-ST-14
fn board_is_in_the_runtime_directory() {
    let dir = TempDir::new().expect("a directory");
    let program = Program::new(test_program("daemon_control")).args(["--mode", "prefork:2"]);
    let directories = format!("{}:/nonexistent", dir.path().display());
    let mut lab = Lab::launch(program.env("RUNTIME_DIRECTORY", &directories));
    lab.running.listening_addr();
    let board = BoardFile::open(dir.path().join("board")).expect("a board");
    wait_for(&board, "the pool", |seen| seen.pool.states.idle == 2);
    // The process has it mapped, and its children do, too.
    let board = BoardFile::of_process(lab.pid() as u32).expect("a board");
    assert_eq!((board.pid(), board.parent()), (lab.pid() as u32, ParentState::Running));
    assert!(lab.running.children().into_iter().all(|child| BoardFile::of_process(child as u32).is_err()));
    lab.end(Signal::SIGTERM);
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0);
}

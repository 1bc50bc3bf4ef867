//! How long connections wait to be accepted, and how long the turns of the parent's loop take. The program is
//! `tests/programs/accept_waits.rs`.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use lenore::daemon::view::{Durations, Histogram};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use util::control::Steered;
use util::lab::LONG;
use util::{DEADLINE, Program, Running, at_once, kill, test_program, wait_until};

/// How long the clients are kept waiting.
const HELD: Duration = Duration::from_millis(100);

/// What the system counts in: 10 ms at most.
const TICK: f64 = 0.010;

const MODES: [&str; 3] = ["--start 2", "--max 4", ""];

struct Waits {
    running: Running,
    dir: TempDir,
}

impl Waits {
    /// Starts the program with a board, and waits until all of its children are ready.
    #[track_caller]
    fn start(args: &str) -> Waits {
        let dir = tempfile::tempdir().expect("a directory");
        let args = args.replace('@', dir.path().to_str().expect("UTF-8"));
        let running = Program::new(test_program("accept_waits")).args(args.split_whitespace()).start();
        Waits { running, dir }
    }

    #[track_caller]
    fn said(&self, what: &str) -> String {
        loop {
            let line = self.running.next_line(LONG);
            if let Some((_, said)) = line.split_once(what) {
                return said.trim().to_owned();
            }
        }
    }

    #[track_caller]
    fn durations(&self) -> Durations {
        self.running.signal(Signal::SIGUSR1);
        serde_json::from_str(&self.said("durations")).expect("durations")
    }

    /// Sends a signal to all of the server's processes.
    fn signal_all(&self, signal: Signal) {
        for pid in self.running.children().into_iter().chain([self.running.pid()]) {
            // A child may just have ended.
            let _ = kill(pid, signal);
        }
    }

    /// Has clients wait, and returns for how long the first of them may have waited.
    #[track_caller]
    fn keep_waiting<C: Read>(&self, connect: impl Fn() -> C) -> Duration {
        self.signal_all(Signal::SIGSTOP);
        let begin = Instant::now();
        let mut clients: Vec<C> = (0..CLIENTS).map(|_| connect()).collect();
        thread::sleep(HELD);
        self.signal_all(Signal::SIGCONT);
        for client in &mut clients {
            client.read_exact(&mut [0]).expect("an answer");
        }
        begin.elapsed()
    }
}

const CLIENTS: u64 = 5;

fn connect(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).expect("it listens");
    client.set_read_timeout(Some(DEADLINE)).expect("not zero");
    client
}

/// Asserts that each of so many durations was between the two.
#[track_caller]
fn assert_between(histogram: &Histogram, count: u64, least: Duration, most: Duration) {
    let (least, most) = (least.as_secs_f64() - TICK, most.as_secs_f64() + TICK);
    assert_eq!(histogram.count(), count);
    let number = count as f64;
    assert!((number * least..=number * most).contains(&histogram.sum), "{least} to {most}: {histogram:?}");
    for (bucket, _) in histogram.buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
        let below = bucket.checked_sub(1).map_or(0.0, Histogram::upper_bound);
        assert!(Histogram::upper_bound(bucket) > least && below <= most, "{least} to {most}: {histogram:?}");
    }
}

#[test] // O-ST-09: by whoever accepts
fn accept_wait_is_how_long_clients_were_kept_waiting() {
    at_once(MODES, |mode| {
        let waits = Waits::start(&format!("{mode} --board @/board"));
        let address = waits.said("listening on").parse().expect("an address");
        // It serves by now, and its children live.
        connect(address).read_exact(&mut [0]).expect("an answer");
        let before = wait_until("the first", DEADLINE, || {
            Some(waits.durations().accept_wait).filter(|histogram| histogram.count() == 1)
        });
        let most = waits.keep_waiting(|| connect(address));
        let after = waits.durations().accept_wait;
        let mut held = after.clone();
        held.sum -= before.sum;
        std::iter::zip(&mut held.buckets, &before.buckets).for_each(|(after, before)| *after -= before);
        assert_between(&held, CLIENTS, HELD, most);
    });
}

#[test] // O-ST-09: through a `Server`, in children and in the parent
fn accept_wait_of_a_server_is_counted() {
    at_once(["prefork:2", "fork:4", "single"], |mode| {
        let dir = tempfile::tempdir().expect("a directory");
        let board = dir.path().join("board");
        let server = Steered::start(&format!("--mode {mode} --board {}", board.display()));
        for _ in 0..3 {
            let mut client = util::Client::connect(server.addr);
            client.line("hello");
        }
        server
            .control()
            .wait_status("three connections", |status| (status.durations.accept_wait.count() == 3).then_some(()));
    });
}

#[test] // O-ST-09: the system does not tell of UNIX sockets
fn accept_wait_of_a_unix_listener_is_not_counted() {
    at_once(MODES, |mode| {
        let waits = Waits::start(&format!("{mode} --board @/board --unix @/socket"));
        waits.said("listening on");
        waits.keep_waiting(|| UnixStream::connect(waits.dir.path().join("socket")).expect("it listens"));
        let histogram = waits.durations().accept_wait;
        assert_eq!((histogram.buckets.len(), histogram.count(), histogram.sum), (Histogram::BUCKETS, 0, 0.0));
    });
}

#[test] // Nothing is measured for nobody.
fn durations_of_a_daemon_without_a_board_are_not_known() {
    at_once(MODES, |mode| {
        let waits = Waits::start(mode);
        let address = waits.said("listening on").parse().expect("an address");
        connect(address).read_exact(&mut [0]).expect("an answer");
        let durations = waits.durations();
        assert_eq!((durations.accept_wait, durations.loop_turn), Default::default());
    });
}

#[test] // O-ST-09: turns without the sleep between them, those of the parent alone
fn loop_turn_is_how_long_the_parent_was_awake() {
    at_once(MODES, |mode| {
        let waits = Waits::start(&format!("{mode} --board @/board"));
        waits.said("listening on");
        let first = waits.durations().loop_turn;
        let begin = Instant::now();
        waits.running.signal(Signal::SIGUSR2);
        waits.said("was busy");
        thread::sleep(Duration::from_millis(400));
        let second = waits.durations().loop_turn;
        let took = second.sum - first.sum;
        // Most of the time it slept, or waited for a processor.
        assert!((0.050..begin.elapsed().as_secs_f64() - 0.2).contains(&took), "{took} s");
        assert!(second.count() > first.count());
        let longest = second.buckets.iter().rposition(|count| *count > 0).expect("some");
        assert!(Histogram::upper_bound(longest) > 0.050, "{second:?}");
    });
}

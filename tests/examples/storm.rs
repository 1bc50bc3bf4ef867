//! A storm: clients that connect, stall and vanish, while children are killed at random, the pool is resized and the log
//! is rotated. At the end everybody who could be answered was, and nothing has leaked.
//!
//! `LENORE_STORM_SECONDS` sets how long it blows (a minute is a good test of a change), `LENORE_STORM_SEED` makes it take
//! the decisions of an earlier run again.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use util::{Client, DEADLINE, Dice, Program, Running, example, kill, proc, wait_until};

const START: usize = 4;
const MAX: usize = 8;
/// How far TTIN takes the maximum beyond that.
const GROWTH: usize = 3;

/// What became of the clients.
#[derive(Default)]
struct Tally {
    answered: AtomicU64,
    /// The connection was lost before the answer.
    lost: AtomicU64,
    /// Nothing came, not even an end.
    hung: AtomicU64,
    vanished: AtomicU64,
}

#[test] // D-PF-06, D-PF-07, D-SB-04, D-DE-05, D-BA-04
fn a_storm_leaves_nobody_unanswered_and_nothing_behind() {
    let seconds = std::env::var("LENORE_STORM_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let seed = Dice::from_env("LENORE_STORM_SEED").0;
    eprintln!("seed {seed}");
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("log");
    let mut server = start(&log);
    let addr = server.listening_addr();
    wait_at_rest(&server, &log);
    let descriptors = proc::fewest_fds(server.pid());

    let (tally, is_over) = (Tally::default(), AtomicBool::new(false));
    let kills = thread::scope(|scope| {
        for number in 1..=6 {
            let (tally, is_over) = (&tally, &is_over);
            scope.spawn(move || be_clients(addr, Dice(seed.wrapping_add(number)), tally, is_over));
        }
        let kills = blow(&server, &log, Dice(seed), Duration::from_secs(seconds));
        is_over.store(true, Relaxed);
        kills
    });

    let (answered, lost) = (tally.answered.load(Relaxed), tally.lost.load(Relaxed));
    eprintln!("{answered} answered, {lost} lost to {kills} kills, {} vanished", tally.vanished.load(Relaxed));
    assert_eq!(tally.hung.load(Relaxed), 0, "clients that nobody answered");
    assert!(lost <= kills, "{lost} clients were lost, though only {kills} children were killed");
    assert!(answered > 10 * seconds, "{answered} answers are no storm");
    wait_at_rest(&server, &log);
    // A spare that is too many may retire at any time.
    wait_until("an end for every child", DEADLINE, || server.zombies().is_empty().then_some(()));
    assert_eq!(proc::fewest_fds(server.pid()), descriptors, "descriptors of the parent");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(2 * DEADLINE).code(), Some(0));
    assert_eq!(server.descendants_alive(), [0; 0]);
    let text = whole_log(&log);
    assert_eq!(
        text.matches(" is forked into slot ").count(),
        text.matches("child has ended: ").count(),
        "one record each"
    );
    for line in text.lines().filter(|line| line.contains("child has ended: ")) {
        let is_whole = line.starts_with("20") && line.contains(" cause=") && line.contains(" requests=");
        assert!(is_whole && line.matches("child has ended").count() == 1, "torn: {line}");
    }
}

fn start(log: &Path) -> Running {
    let (start, max) = (START.to_string(), MAX.to_string());
    let pool = ["--start-children", &start, "--min-spare", "2", "--max-spare", "5", "--max-children", &max];
    let program = Program::new(example("echo_prefork")).args(["--listen", "127.0.0.1:0", "--verbose"]).args(pool);
    program.args(["--requests", "20", "--babysit", "0.3", "--logfile"]).arg(log).start()
}

/// Does to the server what an operator, a bad day and the system may do. Returns how many children it has killed or
/// stopped.
fn blow(server: &Running, log: &Path, mut dice: Dice, time: Duration) -> u64 {
    let end = Instant::now() + time;
    let (mut kills, mut rotations, mut growth) = (0, 0, 0);
    while Instant::now() < end {
        let children = server.children();
        assert!(children.len() <= MAX + GROWTH, "{} children", children.len());
        let victim = (!children.is_empty()).then(|| children[dice.below(children.len() as u64) as usize]);
        match (dice.below(12), victim) {
            (0..=2, Some(pid)) => kills += u64::from(kill(pid, Signal::SIGKILL).is_ok()),
            (3, Some(pid)) => kills += u64::from(kill(pid, Signal::SIGSTOP).is_ok()),
            (4, Some(pid)) => {
                kills += u64::from(kill(pid, Signal::SIGSEGV).is_ok());
                // The first finds the handler that Rust has for stack overflows, which only takes itself away.
                let _ = kill(pid, Signal::SIGSEGV);
            }
            (5, _) if growth < GROWTH => {
                growth += 1;
                server.signal(Signal::SIGTTIN);
            }
            (6, _) if growth > 0 => {
                growth -= 1;
                server.signal(Signal::SIGTTOU);
            }
            (7, _) => {
                rotations += 1;
                fs::rename(log, log.with_extension(rotations.to_string())).expect("the log is there");
                server.signal(Signal::SIGHUP);
                wait_until("a new log", DEADLINE, || log.exists().then_some(()));
            }
            _ => {}
        }
        // Not to wait for anything: this is the weather.
        thread::sleep(Duration::from_millis(10 + dice.below(60)));
    }
    kills
}

/// One client after the other, until it is over.
fn be_clients(addr: SocketAddr, mut dice: Dice, tally: &Tally, is_over: &AtomicBool) {
    while !is_over.load(Relaxed) {
        let mut client = Client::try_connect(addr).expect("the listener is there all the time");
        let stall = Duration::from_millis(dice.below(100));
        match dice.below(10) {
            0 => {
                tally.vanished.fetch_add(1, Relaxed);
                continue;
            }
            1 => {
                let _ = client.try_send("goodb");
                tally.vanished.fetch_add(1, Relaxed);
                continue;
            }
            2..=4 => {
                let _ = client.try_send("hel");
                thread::sleep(stall);
                let _ = client.try_send("lo\n");
            }
            _ => {
                let _ = client.try_send("hello\n");
            }
        }
        let outcome = match client.try_read_line() {
            Ok(Some(line)) => {
                assert_eq!(line, "hello");
                &tally.answered
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => &tally.hung,
            Ok(None) | Err(_) => &tally.lost,
        };
        outcome.fetch_add(1, Relaxed);
    }
}

/// Waits until the Daemon says that all of its children wait, and that each of them has a slot, and nobody else has.
fn wait_at_rest(server: &Running, log: &Path) {
    wait_until("calm", 2 * DEADLINE, || {
        let before = fs::read_to_string(log).ok()?.len();
        server.signal(Signal::SIGUSR2);
        let dump = wait_until("a dump", DEADLINE, || {
            let text = fs::read_to_string(log).ok()?;
            let dump = text.get(before..)?;
            dump.contains(" slots free\n").then(|| dump.to_owned())
        });
        let (_, board) = dump.split_once("Slots [")?;
        let (board, rest) = board.split_once(']')?;
        let free: usize = rest.trim_start().split(' ').next()?.parse().ok()?;
        let taken = board.trim_end_matches(' ').replace(' ', "");
        let children = server.children().len();
        let is_calm = taken.len() == children && taken.chars().all(|letter| letter == 'w');
        (is_calm && children > 0 && free == board.len() - children).then_some(())
    });
}

/// The log with all that it was rotated into.
fn whole_log(log: &Path) -> String {
    let files = fs::read_dir(log.parent().expect("it lies in a directory")).expect("which is there");
    files.map(|file| fs::read_to_string(file.expect("an entry").path()).expect("a text")).collect()
}

//! What the tests, the programs that they run, and the benches share.
//!
//! Most of it watches a program from outside: start it, talk to it, look at it in `/proc`, end it. Nothing here sleeps to synchronise. Every wait is for a condition, has a deadline, and says at the deadline what
//! it waited for. Every process that [`Program::start`] starts is killed and reaped when its [`Running`] drops, also
//! when the test panics, and so is every process that came from it, however far it detached. Linux only.

pub mod addresses;
pub mod browser;
pub mod client;
pub mod component;
pub mod control;
pub mod daemon_program;
pub mod diary;
pub mod dice;
pub mod http;
pub mod in_process;
pub mod lab;
pub mod manager;
pub mod network;
pub mod parting;
pub mod proc;
pub mod program;
pub mod tricky;

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

pub use client::Client;
pub use dice::Dice;
pub use program::{Program, Running};

/// How long a test waits for what should happen at once: generous, for a machine that is busy with other tests.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// How many cases [`at_once`] runs at a time: starting processes takes more than waiting for them.
const CASES_AT_ONCE: usize = 6;

/// The first pauses between two looks at a condition. They grow with the time that it takes: where much is waited for, many
/// looks would take from others the time in which it happens.
const SHORTEST_POLL: Duration = Duration::from_millis(1);
const LONGEST_POLL: Duration = Duration::from_millis(20);

/// The pause between two looks at what must not change.
const STEADY_POLL: Duration = Duration::from_millis(2);

/// Asks `condition` again and again until it answers `Some`, and returns what it answered.
///
/// The condition is asked at least once, and once more after `deadline` has passed.
///
/// # Panics
///
/// When the condition still answers `None` after `deadline`; the message names `what`.
#[track_caller]
pub fn wait_until<T>(what: &str, deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    let give_up = begin + deadline;
    loop {
        // The clock first: a test that was descheduled past its deadline still gets a last look.
        let late = Instant::now() >= give_up;
        if let Some(answer) = condition() {
            return answer;
        }
        assert!(!late, "waited {deadline:?} in vain: {what}");
        thread::sleep((begin.elapsed() / 10).clamp(SHORTEST_POLL, LONGEST_POLL));
    }
}

/// Tells other threads of a test that it is over, also when the test fails: a scope waits for them.
#[derive(Debug)]
pub struct Over<'a>(pub &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Asserts that `condition` holds all the time for so long, where that nothing happens is what is tested.
#[track_caller]
pub fn stays(what: &str, span: Duration, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        assert!(condition(), "no more: {what}");
        thread::sleep(STEADY_POLL);
    }
}

/// Runs `test` with each of `cases`, many at a time: what a test of processes does is to wait.
///
/// # Panics
///
/// When `test` panics with one of the cases; the others are run all the same.
pub fn at_once<C: Send>(cases: impl IntoIterator<Item = C, IntoIter: Send>, test: impl Fn(C) + Sync) {
    let cases = Mutex::new(cases.into_iter());
    let next = || cases.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        let mut failure = None;
        while let Some(case) = next() {
            let outcome = catch_unwind(AssertUnwindSafe(|| test(case)));
            failure = failure.or(outcome.err());
        }
        failure
    };
    let name = thread::current().name().unwrap_or("a test").to_owned();
    thread::scope(|scope| {
        let worker = |_| thread::Builder::new().name(name.clone()).spawn_scoped(scope, work).expect("one more thread");
        let workers: Vec<_> = (0..CASES_AT_ONCE).map(worker).collect();
        let outcomes: Vec<_> = workers.into_iter().map(|worker| worker.join().unwrap_or_else(Some)).collect();
        if let Some(failure) = outcomes.into_iter().flatten().next() {
            resume_unwind(failure);
        }
    });
}

/// The built example `name`.
///
/// # Panics
///
/// When it has not been built.
#[track_caller]
pub fn example(name: &str) -> PathBuf {
    built(&format!("examples/{name}"), "cargo build --workspace --examples")
}

/// The built program `name` from `tests/programs/`.
///
/// # Panics
///
/// When it has not been built.
#[track_caller]
pub fn test_program(name: &str) -> PathBuf {
    built(name, "cargo build --package lenore-tests --bins")
}

/// What Cargo has put at `place` in the directory of the profile of the running executable.
#[track_caller]
fn built(place: &str, how: &str) -> PathBuf {
    let test = env::current_exe().expect("a running test has an executable");
    let profile =
        test.parent().and_then(|deps| deps.parent()).expect("Cargo puts test executables in target/PROFILE/deps");
    let path = profile.join(place);
    assert!(path.is_file(), "{} is missing: run `{how}` first (with --release for benches)", path.display());
    if let Some(source) = newer_source(&path) {
        panic!("{} is older than {}: run `{how}` first", path.display(), source.display());
    }
    path
}

/// Returns a source that was changed after `program` was built. `cargo test --test NAME` builds no program of another
/// package, and a test of an old one says nothing.
fn newer_source(program: &Path) -> Option<PathBuf> {
    let changed = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
    let built = changed(program)?;
    // Cargo's list: `program: source source`, with a backslash before a space within a name.
    let list = std::fs::read_to_string(program.with_extension("d")).ok()?;
    let (_, sources) = list.split_once(": ")?;
    let sources = sources.trim_end().replace("\\ ", "\0");
    let mut sources = sources.split(' ').map(|name| PathBuf::from(name.replace('\0', " ")));
    sources.find(|source| changed(source).is_some_and(|changed| changed > built))
}

/// Sends `signal` to one process.
///
/// # Errors
///
/// What kill(2) says, `ESRCH` above all.
///
/// # Panics
///
/// When `pid` is 1 or less: those are init, the test's own process group, everything, and other groups.
#[track_caller]
pub fn kill(pid: i32, signal: Signal) -> nix::Result<()> {
    assert!(pid > 1, "refusing to send {signal} to pid {pid}");
    signal::kill(Pid::from_raw(pid), signal)
}

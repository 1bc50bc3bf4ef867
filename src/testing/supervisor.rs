//! The process that watches over the process of one test, and over all processes that come from it.

use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{ExitStatus, exit};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};

use crate::destroy::destroy;
use crate::sys::environment;
use crate::sys::fork::{Side, fork_beside_a_waiting_harness};
use crate::sys::wait::{Which, peek_ended, reap};

/// The exit status of a process in which a test has passed. A test harness that finds nothing to do exits with 0.
pub(super) const PASSED: i32 = 86;

/// The exit status of a process in which a test has failed.
pub(super) const FAILED: i32 = 87;

/// Runs `body` in a child, watches over that, and leaves the process. `starter` is the process that waits for this one.
pub(super) fn supervise(starter: i32, limit: Duration, variable: &'static str, body: impl FnOnce()) -> ! {
    let verdict = Watch::begin(starter, limit, variable, body).and_then(Watch::wait);
    match verdict {
        Ok(()) => exit(PASSED),
        Err(why) => {
            eprintln!("{why}");
            exit(FAILED);
        }
    }
}

struct Watch {
    starter: Pid,
    /// The process in which `body` runs.
    test: i32,
    /// How that process has ended.
    status: Option<ExitStatus>,
    /// The panics of processes in which `body` has panicked.
    failures: io::PipeReader,
    limit: Duration,
    begin: Instant,
}

impl Watch {
    fn begin(starter: i32, limit: Duration, variable: &'static str, body: impl FnOnce()) -> Result<Watch, String> {
        adopt_orphans();
        let refused = |error: io::Error| format!("can't make a process for the test: {error}");
        let (failures, failed) = io::pipe().map_err(refused)?;
        fcntl(&failures, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|errno| refused(errno.into()))?;
        match fork_beside_a_waiting_harness().map_err(|errno| refused(errno.into()))? {
            Side::Parent(test) => {
                let (starter, test) = (Pid::from_raw(starter), test.as_raw());
                Ok(Watch { starter, test, status: None, failures, limit, begin: Instant::now() })
            }
            Side::Child => {
                drop(failures);
                run(body, failed, variable);
            }
        }
    }

    /// Waits until every process has ended, and says whether the test has passed.
    fn wait(mut self) -> Result<(), String> {
        let mut give_up = self.begin + self.limit;
        let mut pause = SHORTEST_PAUSE;
        let mut is_over = false;
        while self.reap_ended() {
            if self.status.is_some() && !is_over {
                is_over = true;
                give_up = give_up.min(Instant::now() + PATIENCE);
                pause = SHORTEST_PAUSE;
            }
            if getppid() != self.starter {
                self.kill_all();
                return Err("the process that has started the test is gone".into());
            }
            if Instant::now() >= give_up {
                let left = self.kill_all().join(", ");
                return Err(if is_over {
                    format!("the test has left processes behind: {left}")
                } else {
                    format!("the test was not over after {:?}; killed: {left}", self.limit)
                });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.verdict()
    }

    fn verdict(mut self) -> Result<(), String> {
        let mut failures = String::new();
        // Every write end is closed, unless a process has got away. The read does not wait for such a process.
        let _ = self.failures.read_to_string(&mut failures);
        if !failures.is_empty() {
            return Err(failures.trim_end().to_owned());
        }
        match self.status {
            Some(status) if status.code() == Some(PASSED) => Ok(()),
            Some(status) => Err(format!("process {} has ended before the test was over: {status}", self.test)),
            None => Err(format!("process {} of the test is gone", self.test)),
        }
    }

    /// Reaps all children that have ended, including the orphans of other processes. Returns whether any are left.
    fn reap_ended(&mut self) -> bool {
        loop {
            match peek_ended(Which::Any) {
                Ok(Some(pid)) => {
                    let status = reap(pid).ok().flatten();
                    if pid == self.test {
                        self.status = status;
                    }
                }
                Ok(None) | Err(Errno::EINTR) => return true,
                Err(_) => return false,
            }
        }
    }

    /// Kills all that came from the test. Each orphan comes to this process, and is found in the next round. Returns what was killed.
    fn kill_all(&mut self) -> Vec<String> {
        let mut killed = Vec::new();
        let give_up = Instant::now() + PATIENCE;
        while self.reap_ended() && Instant::now() < give_up {
            for (pid, name) in children() {
                if kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok() {
                    let text = format!("{pid} ({name})");
                    if !killed.contains(&text) {
                        killed.push(text);
                    }
                }
            }
            std::thread::sleep(SHORTEST_PAUSE);
        }
        killed
    }
}

/// Tells whether this is the process of a test, or was forked from it.
pub(super) fn is_in_process() -> bool {
    IS_IN_PROCESS.load(Relaxed)
}

static IS_IN_PROCESS: AtomicBool = AtomicBool::new(false);

/// Runs `body` in the process of a test, and ends the process. Processes that `body` forks may come to its end as well.
fn run(body: impl FnOnce(), mut failed: io::PipeWriter, variable: &'static str) -> ! {
    // A test program that `body` starts must not take itself for this process. If the variable stays, it will report
    // that.
    let _ = environment::remove(&[variable]);
    IS_IN_PROCESS.store(true, Relaxed);
    let outcome = catch_unwind(AssertUnwindSafe(body));
    let _ = io::stdout().flush();
    match outcome {
        Ok(()) => exit(PASSED),
        Err(payload) => {
            destroy(payload);
            let _ = writeln!(failed, "the test has panicked in process {}", std::process::id());
            exit(FAILED);
        }
    }
}

/// Has the system make this process the parent of orphans, so that none gets away.
fn adopt_orphans() {
    // If that fails, only the process of the test is watched, and the processes that it leaves behind stay.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_child_subreaper(true);
}

/// Lists the living children of this process, with their names. Without `/proc` it finds no child.
fn children() -> Vec<(i32, String)> {
    #[cfg(target_os = "linux")]
    return crate::sys::procfs::living_children_of_this_process();
    #[cfg(not(target_os = "linux"))]
    Vec::new()
}

/// How long processes have to end after the process of the test has ended, and after they were killed.
const PATIENCE: Duration = Duration::from_secs(5);

const SHORTEST_PAUSE: Duration = Duration::from_micros(200);
const LONGEST_PAUSE: Duration = Duration::from_millis(5);

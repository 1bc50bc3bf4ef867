//! Whether a process is still there.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// A process that was there, and no other that gets its pid later.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    pub pid: i32,
    started: u64,
}

impl Process {
    /// Returns the process with this pid, if it can be seen from here.
    pub fn of(pid: i32) -> Option<Process> {
        Some(Process { pid, started: start_time(pid)? })
    }

    /// Waits until it is gone. Returns whether it is by then.
    pub fn ends_within(self, limit: Duration) -> bool {
        let begun = Instant::now();
        loop {
            if start_time(self.pid) != Some(self.started) {
                return true;
            }
            if begun.elapsed() >= limit {
                return false;
            }
            thread::sleep(POLL);
        }
    }
}

/// Returns when a process was started, in ticks since the system's start; `None` if there is no such process, or if it is a zombie.
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses, which may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// A process that is no child of this one does not tell when it ends.
const POLL: Duration = Duration::from_millis(5);

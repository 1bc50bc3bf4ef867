//! Whether a process is still there.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// A running process. Another process that gets the same pid later is not meant.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    pub pid: i32,
    started: u64,
}

impl Process {
    /// Returns the process with this pid. Returns `None` if `/proc` does not show it, or shows a zombie.
    pub fn of(pid: i32) -> Option<Process> {
        Some(Process { pid, started: start_time(pid)? })
    }

    /// Waits until the process has ended, for `limit` at most. Returns whether it has ended.
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

/// Returns the time at which a process was started, in ticks since the system's start. Returns `None` if the process does not exist or is
/// a zombie.
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = Stat::read(pid)?;
    if stat.field(3)? == "Z" { None } else { stat.number(22) }
}

/// The file `/proc/PID/stat`.
#[derive(Debug)]
pub struct Stat {
    text: String,
}

impl Stat {
    /// Reads it. Returns `None` if the process does not exist.
    pub fn read(pid: i32) -> Option<Stat> {
        let bytes = fs::read(format!("/proc/{pid}/stat")).ok()?;
        // The system has perhaps cut the name within a character.
        Some(Stat { text: String::from_utf8_lossy(&bytes).into_owned() })
    }

    /// Returns a field behind the name, with its number from proc(5): the state is 3.
    fn field(&self, number: usize) -> Option<&str> {
        // The second field is a name in parentheses, which may hold anything.
        self.text.rsplit_once(')')?.1.split_ascii_whitespace().nth(number.checked_sub(3)?)
    }

    /// Returns a field as a number.
    pub fn number(&self, number: usize) -> Option<u64> {
        self.field(number)?.parse().ok()
    }
}

/// How long to wait between two looks. The system tells the end of a process to its parent only.
const POLL: Duration = Duration::from_millis(5);

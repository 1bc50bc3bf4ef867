//! A child as it can be seen from outside: what its slot says, and what the system says of its process.

use std::fmt::Write;
use std::time::SystemTime;

use crate::daemon::board::{SlotSnapshot, epoch_ms};
#[cfg(target_os = "linux")]
use crate::sys::procfs::{self, Stat};

/// Describes a child that does not answer. `slot` is `None` if its writer was interrupted half way.
pub(super) fn describe(pid: i32, slot: Option<SlotSnapshot>, now: SystemTime) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = match slot {
        Some(slot) => writeln!(
            text,
            "slot: state={} for={:.1} s requests={} peer={:?}",
            slot.status.letter(),
            epoch_ms(now).saturating_sub(slot.since_ms) as f64 / 1000.0,
            slot.requests,
            slot.peer
        ),
        None => writeln!(text, "slot: half written, so the child was stopped or killed while it wrote"),
    };
    describe_process(&mut text, pid);
    text
}

#[cfg(not(target_os = "linux"))]
fn describe_process(text: &mut String, _: i32) {
    text.push_str("process: can't be read on this system\n");
}

#[cfg(target_os = "linux")]
fn describe_process(text: &mut String, pid: i32) {
    match Stat::read(pid) {
        Ok(stat) => describe_stat(text, pid, &stat),
        Err(error) => _ = writeln!(text, "process: can't be read: {error}"),
    }
}

#[cfg(target_os = "linux")]
fn describe_stat(text: &mut String, pid: i32, stat: &Stat) {
    let state = stat.state().unwrap_or('?');
    let seconds = |field: usize| stat.number::<f64>(field).unwrap_or_default() / TICKS;
    let _ = writeln!(text, "process: {} user={:.2} s system={:.2} s", word(state), seconds(14), seconds(15));
    // Where it sleeps in the system, and in which call: not for everybody to see.
    for (name, file) in [("sleeps in", "wchan"), ("system call", "syscall")] {
        if let Ok(found) = procfs::read_to_string(format!("{pid}/{file}"))
            && let found = found.trim()
            && !found.is_empty()
            && found != "0"
        {
            let _ = writeln!(text, "{name}: {}", found.escape_debug());
        }
    }
}

#[cfg(target_os = "linux")]
fn word(state: char) -> String {
    let word = match state {
        'R' => "runs",
        'S' => "sleeps",
        'D' => "sleeps and can't be interrupted",
        'T' => "is stopped",
        't' => "is stopped by a debugger",
        'Z' => "has ended",
        other => return format!("state {}", other.escape_debug()),
    };
    word.to_owned()
}

/// What `/proc` counts processor time in, a second.
#[cfg(target_os = "linux")]
const TICKS: f64 = 100.0;

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::*;

    #[test] // O-CT-11
    fn a_process_that_sleeps_or_is_stopped_is_said_to() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let pid = child.id() as i32;
        let deadline = Instant::now() + Duration::from_secs(10);
        let until = |wanted: &str| loop {
            let text = describe(pid, None, SystemTime::now());
            if text.contains(wanted) {
                return text;
            }
            assert!(Instant::now() < deadline, "{wanted}: {text}");
            std::thread::yield_now();
        };
        let text = until("process: sleeps user=");
        assert!(text.starts_with("slot: half written"), "{text}");
        kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
        until("process: is stopped user=");
        child.kill().unwrap();
        until("process: has ended user=");
        child.wait().unwrap();
        assert!(describe(pid, None, SystemTime::now()).contains("process: can't be read"));
    }
}

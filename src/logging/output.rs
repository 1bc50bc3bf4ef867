//! How lines get to standard error: each record by one system call, or not at all.

use std::env;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::{dev_t, ino_t};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::fstat;
use nix::unistd::write;

/// Standard error, and what has kept records from it.
#[derive(Debug)]
pub(super) struct Output {
    /// The stream to the journal, if there is one, as the service manager names it: its device and inode.
    journal: Option<(dev_t, ino_t)>,
    /// How many records were not written, or not whole, since the last one that was.
    lost: AtomicU32,
    /// The process that has lost them: a forked child does not report what its parent has lost.
    pid: AtomicU32,
    /// The last write ended in the middle of a line.
    is_torn: AtomicBool,
    /// A record has waited for the reader in vain. Later records do not wait until the reader reads.
    is_stuck: AtomicBool,
}

impl Output {
    pub(super) fn new() -> Output {
        Output {
            journal: env::var("JOURNAL_STREAM").ok().and_then(|stream| parse_stream(&stream)),
            lost: AtomicU32::new(0),
            pid: AtomicU32::new(std::process::id()),
            is_torn: AtomicBool::new(false),
            is_stuck: AtomicBool::new(false),
        }
    }

    /// Tells whether standard error goes to the journal at present. This looks each time, because a Daemon redirects
    /// standard error and the variable stays.
    pub(super) fn is_journal(&self) -> bool {
        self.journal.is_some_and(|journal| fstat(io::stderr()).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == journal))
    }

    /// How many records process `pid` has lost since it wrote one.
    pub(super) fn lost(&self, pid: u32) -> u32 {
        if self.pid.swap(pid, Ordering::Relaxed) != pid {
            self.lost.store(0, Ordering::Relaxed);
        }
        self.lost.load(Ordering::Relaxed)
    }

    /// Tells whether the last write ended in the middle of a line, which the next record would continue.
    pub(super) fn is_torn(&self) -> bool {
        self.is_torn.load(Ordering::Relaxed)
    }

    /// Writes a record, which also reports `told` lost records. If the write fails, this record is lost as well.
    pub(super) fn write(&self, lines: &[u8], told: u32) {
        match self.write_all(lines) {
            Ok(()) => {
                // Written only after a failure, so that threads do not usually contend for it.
                if told > 0 {
                    self.lost.fetch_sub(told, Ordering::Relaxed);
                }
                if self.is_torn() {
                    self.is_torn.store(false, Ordering::Relaxed);
                }
                if self.is_stuck.load(Ordering::Relaxed) {
                    self.is_stuck.store(false, Ordering::Relaxed);
                }
            }
            Err(Unwritten(rest)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
                if let Some(last) = lines[..lines.len() - rest].last() {
                    self.is_torn.store(*last != b'\n', Ordering::Relaxed);
                }
            }
        }
    }

    fn write_all(&self, lines: &[u8]) -> Result<(), Unwritten> {
        let mut rest = lines;
        let mut give_up = None;
        // More than one round only for the rest of a long record into a pipe, or of any record when the disk becomes
        // full.
        while !rest.is_empty() {
            match write(io::stderr(), rest) {
                Ok(written @ 1..) => rest = &rest[written..],
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) if self.wait(&mut give_up) => {}
                Ok(0) | Err(_) => return Err(Unwritten(rest.len())),
            }
        }
        Ok(())
    }

    /// Waits until standard error, which is non-blocking, takes more. Returns false when that has lasted too long.
    fn wait(&self, give_up: &mut Option<Instant>) -> bool {
        if self.is_stuck.load(Ordering::Relaxed) {
            return false;
        }
        let give_up = *give_up.get_or_insert_with(|| Instant::now() + PATIENCE);
        let left = give_up.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let stderr = io::stderr();
        // The next write and the clock show what came of it.
        let _ = poll(&mut [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)], timeout);
        let is_late = Instant::now() >= give_up;
        self.is_stuck.store(is_late, Ordering::Relaxed);
        !is_late
    }
}

/// How many bytes were not written.
struct Unwritten(usize);

/// How long a reader may keep a program waiting whose standard error is non-blocking.
const PATIENCE: Duration = Duration::from_secs(1);

fn parse_stream(stream: &str) -> Option<(dev_t, ino_t)> {
    let (device, inode) = stream.split_once(':')?;
    Some((device.parse().ok()?, inode.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_of_the_journal_is_device_and_inode() {
        assert_eq!(parse_stream("9:25374"), Some((9, 25374)));
        for wrong in ["", ":", "9", "9:", "9:x", "9:1:2", "-9:1"] {
            assert_eq!(parse_stream(wrong), None, "{wrong:?}");
        }
    }
}

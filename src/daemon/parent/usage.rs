//! What the system says that a child uses: processor time and memory.
//!
//! A limit on what can't be read limits nothing. The log says so, once for each limit.

use std::io;
use std::time::Duration;

use nix::sys::time::TimeValLike;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::daemon::machine::Meter;
use crate::daemon::processes::{ProcessState, look};

/// Which limits the log says are not enforced, or not always.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    cpu: bool,
    memory: bool,
}

impl Told {
    /// Looks at the start whether memory can be read at all, so that the log says so before memory runs out.
    pub(super) fn check_memory(&mut self) {
        if let Err(error) = resident(std::process::id().cast_signed()) {
            self.say_memory(&error);
        }
    }

    /// Returns how many bytes of a child are resident.
    pub(super) fn resident(&mut self, pid: i32) -> Option<u64> {
        match resident(pid) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                if is_there(pid) {
                    self.say_memory(&error);
                }
                None
            }
        }
    }

    fn say_memory(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.memory, true) {
            log::warn!(target: "lenore::daemon", "memory_limit is not enforced: can't read how much memory a child uses: {error}");
        }
    }

    /// Reads what processor time a child of this `age` has used, and returns what its meter shows then.
    pub(super) fn read_meter(
        &mut self,
        pid: i32,
        meter: Meter,
        doing: (u64, bool),
        age: Duration,
        since: Duration,
    ) -> Meter {
        let nanos = match clock_getcpuclockid(Pid::from_raw(pid)).and_then(clock_gettime) {
            Ok(time) => time.num_nanoseconds(),
            Err(errno) => {
                if is_there(pid) && !std::mem::replace(&mut self.cpu, true) {
                    log::warn!(
                        target: "lenore::daemon",
                        "cpu_limit is not enforced: can't read the processor time of child {pid}: {errno}"
                    );
                }
                return meter;
            }
        };
        self.count(pid, meter, doing, nanos, age, since)
    }

    /// Works out what the meter of a child shows that has used `nanos` nanoseconds of processor time, if it can have.
    fn count(
        &mut self,
        pid: i32,
        meter: Meter,
        doing: (u64, bool),
        nanos: i64,
        age: Duration,
        since: Duration,
    ) -> Meter {
        let total = u64::try_from(nanos).map(Duration::from_nanos).ok();
        let gained = total.and_then(|total| meter.gained(total, age, processors(), || threads(pid)));
        if gained.is_none() && !std::mem::replace(&mut self.cpu, true) {
            log::warn!(
                target: "lenore::daemon",
                "cpu_limit ignores an impossible processor time of child {pid}: processor_time={:.3} before={:.3} age={:.3}",
                nanos as f64 / 1e9, meter.total.as_secs_f64(), age.as_secs_f64()
            );
        }
        meter.read(doing, total.unwrap_or(meter.total), age, gained.unwrap_or_default(), since)
    }
}

/// Tells whether what can't be read is there to be read: a child may end at any moment.
fn is_there(pid: i32) -> bool {
    matches!(look(pid), ProcessState::Runs | ProcessState::Stopped)
}

/// Returns how many processors the machine has, as many threads of a process as can run at a time.
#[cfg(target_os = "linux")]
fn processors() -> u32 {
    let number = sysconf(SysconfVar::_NPROCESSORS_CONF).ok().flatten();
    number.and_then(|number| u32::try_from(number).ok()).unwrap_or(u32::MAX).max(1)
}

#[cfg(not(target_os = "linux"))]
fn processors() -> u32 {
    u32::MAX
}

/// Returns how many threads a process has.
#[cfg(target_os = "linux")]
fn threads(pid: i32) -> Option<u32> {
    crate::sys::procfs::Stat::read(pid).ok()?.number(20)
}

#[cfg(not(target_os = "linux"))]
fn threads(_: i32) -> Option<u32> {
    None
}

/// Returns how many bytes of a process are resident.
#[cfg(target_os = "linux")]
fn resident(pid: i32) -> io::Result<u64> {
    let path = format!("{pid}/statm");
    let named = |error: io::Error| io::Error::new(error.kind(), format!("/proc/{path}: {error}"));
    let text = crate::sys::procfs::read_to_string(&path).map_err(named)?;
    let pages: Option<u64> = text.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    let page = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|page| u64::try_from(page).ok());
    let bytes = pages.zip(page).map(|(pages, page)| pages * page);
    bytes.ok_or_else(|| named(io::Error::new(io::ErrorKind::InvalidData, "the second field is not a number of pages")))
}

#[cfg(not(target_os = "linux"))]
fn resident(_: i32) -> io::Result<u64> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "only Linux tells"))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test] // D-BA-05, D-BA-07
    fn own_memory_and_threads_are_read() {
        let pid = std::process::id().cast_signed();
        let (bytes, threads) = (resident(pid).unwrap(), threads(pid).unwrap());
        assert!(bytes > 100_000, "{bytes}");
        // The test and the thread that waits for it.
        assert!((2..1000).contains(&threads), "{threads}");
        assert!((1..100_000).contains(&processors()));
    }

    #[test] // D-BA-07: nothing of it counts, and the next reading counts from what was believed last
    fn processor_time_below_zero_or_without_end_is_no_reading() {
        let (pid, doing) = (std::process::id().cast_signed(), (1, true));
        let seconds = |seconds: u64| Duration::from_secs(seconds);
        for impossible in [-1, i64::MIN, i64::MAX] {
            let mut told = Told::default();
            let before = told.count(pid, Meter::default(), doing, 1_000_000_000, seconds(2), seconds(2));
            assert!(!told.cpu && before.used == seconds(1));
            let wrong = told.count(pid, before, doing, impossible, seconds(3), seconds(3));
            assert!(told.cpu && wrong.used == seconds(1), "{impossible}: {wrong:?}");
        }
        let mut told = Told { cpu: true, memory: false };
        let before = Meter { doing, total: seconds(1), used: seconds(1), age: seconds(3) };
        let wrong = told.count(pid, before, doing, -1, seconds(4), seconds(4));
        let next = told.count(pid, wrong, doing, 1_500_000_000, seconds(5), seconds(5));
        assert_eq!(next.used, Duration::from_millis(1500));
    }

    #[test] // D-BA-05
    fn memory_of_no_process_is_an_error_that_names_the_file() {
        let error = resident(4_194_305).unwrap_err();
        assert!(error.to_string().starts_with("/proc/4194305/statm: "), "{error}");
    }
}

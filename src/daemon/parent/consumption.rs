//! What processes use, as the system says when a reader asks: processor time, memory, descriptors.
//!
//! The proportional share of memory is not among that. The system counts pages for it, for 100 µs and more a child, and the loop would
//! stand still meanwhile. `lenorectl children --pss` reads it by itself.

use std::time::Duration;

use nix::sys::time::TimeValLike;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::daemon::view::ProcessView;

/// How much is asked of the system.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(in crate::daemon) enum Detail {
    /// Processor time and memory: some microseconds a process.
    Brief,
    /// And descriptors, and the score by which the system kills: some ten microseconds.
    Full,
}

/// Returns the processor time that a process has used.
pub(super) fn processor_time(pid: i32) -> Option<Duration> {
    let time = clock_getcpuclockid(Pid::from_raw(pid)).and_then(clock_gettime).ok()?;
    u64::try_from(time.num_nanoseconds()).ok().map(Duration::from_nanos)
}

/// Returns what a process uses. What can't be read is left out.
pub(super) fn of(pid: i32, detail: Detail) -> ProcessView {
    let cpu = processor_time(pid).map(|time| time.as_secs_f64());
    let (virtual_memory, resident) = proc::memory(pid).unzip();
    let mut view = ProcessView { cpu, resident, virtual_memory, ..ProcessView::default() };
    if detail != Detail::Brief {
        view.descriptors = proc::descriptors(pid);
        view.descriptors_limit = proc::descriptors_limit(pid);
        view.oom_score = proc::oom_score(pid);
    }
    view
}

/// Returns what this process uses, and when it was started.
pub(super) fn of_this_process() -> ProcessView {
    let pid = std::process::id().cast_signed();
    ProcessView { started_at: proc::started_at(pid), ..of(pid, Detail::Full) }
}

/// Returns how many connections the system has turned away in this network namespace because a queue was full.
pub(super) fn listen_overflows() -> Option<u64> {
    proc::listen_overflows()
}

#[cfg(target_os = "linux")]
mod proc {
    use nix::dir::Dir;
    use nix::fcntl::{AtFlags, OFlag};
    use nix::sys::stat::{Mode, fstatat};
    use nix::unistd::{SysconfVar, sysconf};

    use crate::sys::procfs::{Stat, directory, read_to_string};

    fn read(pid: i32, file: &str) -> Option<String> {
        read_to_string(format!("{pid}/{file}")).ok()
    }

    fn system(what: SysconfVar) -> Option<u64> {
        sysconf(what).ok().flatten().and_then(|number| u64::try_from(number).ok())
    }

    /// Virtual and resident memory, in bytes.
    pub(super) fn memory(pid: i32) -> Option<(u64, u64)> {
        let text = read(pid, "statm")?;
        let page = system(SysconfVar::PAGE_SIZE)?;
        let mut pages = text.split(' ').map_while(|pages| pages.parse::<u64>().ok());
        Some((pages.next()? * page, pages.next()? * page))
    }

    /// The number of open descriptors. Newer systems tell it as the size of the directory.
    pub(super) fn descriptors(pid: i32) -> Option<u64> {
        let path = format!("{pid}/fd");
        let size = fstatat(directory().ok()?, path.as_str(), AtFlags::empty()).ok()?.st_size;
        if size > 0 {
            return u64::try_from(size).ok();
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut entries = Dir::openat(directory().ok()?, path.as_str(), flags, Mode::empty()).ok()?;
        let names = entries.iter().flatten().filter(|entry| !entry.file_name().to_bytes().starts_with(b".")).count();
        let own = u64::from(pid == std::process::id().cast_signed());
        Some((names as u64).saturating_sub(own))
    }

    pub(super) fn descriptors_limit(pid: i32) -> Option<u64> {
        let text = read(pid, "limits")?;
        let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        line.split_whitespace().next()?.parse().ok()
    }

    pub(super) fn oom_score(pid: i32) -> Option<i64> {
        read(pid, "oom_score")?.trim().parse().ok()
    }

    /// When a process was started, in seconds since 1970.
    pub(super) fn started_at(pid: i32) -> Option<f64> {
        let ticks: u64 = Stat::read(pid).ok()?.number(22)?;
        let system_stat = read_to_string("stat").ok()?;
        let boot: u64 = system_stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
        Some(boot as f64 + ticks as f64 / system(SysconfVar::CLK_TCK)? as f64)
    }

    /// The number below `ListenOverflows`, in the two lines of `TcpExt`.
    pub(super) fn listen_overflows() -> Option<u64> {
        let text = read_to_string("self/net/netstat").ok()?;
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
        let (names, numbers) = (lines.next()?, lines.next()?);
        let mut pairs = names.split(' ').zip(numbers.split(' '));
        pairs.find(|(name, _)| *name == "ListenOverflows")?.1.parse().ok()
    }
}

#[cfg(not(target_os = "linux"))]
mod proc {
    pub(super) fn memory(_: i32) -> Option<(u64, u64)> {
        None
    }

    pub(super) fn descriptors(_: i32) -> Option<u64> {
        None
    }

    pub(super) fn descriptors_limit(_: i32) -> Option<u64> {
        None
    }

    pub(super) fn oom_score(_: i32) -> Option<i64> {
        None
    }

    pub(super) fn started_at(_: i32) -> Option<f64> {
        None
    }

    pub(super) fn listen_overflows() -> Option<u64> {
        None
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test] // O-ST-12, O-ST-04
    fn everything_of_this_process_is_read() {
        let before = of_this_process();
        let after = of(std::process::id().cast_signed(), Detail::Full);
        assert!(after.cpu > Some(0.0) && after.cpu >= before.cpu, "{after:?}");
        assert!(after.resident > Some(100_000) && after.virtual_memory >= after.resident, "{after:?}");
        assert!((3..10_000).contains(&after.descriptors.unwrap()), "{after:?}");
        assert!(after.descriptors_limit > Some(10) && after.oom_score.is_some(), "{after:?}");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((0.0..86_400.0).contains(&(now - before.started_at.unwrap())), "{before:?} at {now}");
        assert!(listen_overflows().is_some());
    }

    #[test] // O-ST-12
    fn what_a_dead_process_uses_is_left_out() {
        assert_eq!(of(4_194_305, Detail::Full), ProcessView::default());
        let brief = of(std::process::id().cast_signed(), Detail::Brief);
        assert!(brief.resident.is_some() && brief.descriptors.is_none());
    }
}

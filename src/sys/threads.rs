//! Making sure that this is the only thread of the process.

#[cfg(target_os = "linux")]
pub(crate) use linux::make_sure_alone;

use std::io;

/// Why a process is not known to have one thread.
#[derive(Debug)]
pub(crate) enum NotAlone {
    /// It has so many threads; `others` names those besides the one that asks, as far as the system tells.
    Threads { count: usize, others: String },
    /// The system doesn't say how many.
    Unknown(io::Error),
}

/// Takes it for granted: the system doesn't say how many threads there are. The documentation asks the caller for it.
#[cfg(not(target_os = "linux"))]
pub(crate) fn make_sure_alone() -> Result<(), NotAlone> {
    Ok(())
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    use nix::dir::Dir;
    use nix::errno::Errno;
    use nix::fcntl::{AtFlags, OFlag};
    use nix::sched::{CloneFlags, unshare};
    use nix::sys::stat::{Mode, fstatat};
    use nix::unistd::gettid;

    use super::NotAlone;
    use crate::sys::procfs::{self, Stat};

    /// Returns when this thread is the only one of the process.
    ///
    /// A thread stays on the system's list for some microseconds after whoever joined it goes on. So a second one is looked
    /// at again for some milliseconds, and for up to a second if it has done with the program's code and is about to end.
    ///
    /// # Errors
    ///
    /// [`NotAlone::Threads`] when others stay, and [`NotAlone::Unknown`] when the system refuses to tell.
    pub(crate) fn make_sure_alone() -> Result<(), NotAlone> {
        let mut count = count().map_err(NotAlone::Unknown)?;
        let (begin, mut pause) = (Instant::now(), FIRST_PAUSE);
        while count > 1 {
            let waited = begin.elapsed();
            if waited >= PATIENCE {
                let others = others();
                let may_stay = others.iter().any(|other| !other.is_ending);
                if may_stay || waited >= PATIENCE_FOR_ENDING || !is_readable() {
                    return Err(NotAlone::Threads { count, others: names(&others) });
                }
            }
            sleep(pause);
            pause = (pause * 2).min(PATIENCE);
            count = self::count().map_err(NotAlone::Unknown)?;
        }
        Ok(())
    }

    /// Counts the threads; 2 means two or more where the system tells no more than that.
    fn count() -> io::Result<usize> {
        match links() {
            Ok(threads) => Ok(threads),
            Err(error) => without_proc(error, unshare(CloneFlags::CLONE_THREAD)),
        }
    }

    /// A directory has a link from its parent, one from itself, and one from each directory in it: here one a thread. One
    /// system call, where reading the list or a status file takes several, at every fork.
    fn links() -> io::Result<usize> {
        let task = fstatat(procfs::directory()?, TASKS, AtFlags::empty())?;
        match usize::try_from(task.st_nlink).unwrap_or(usize::MAX) {
            links @ 3.. => Ok(links - 2),
            // Not the `/proc` that this relies on.
            links => Err(io::Error::other(format!("/proc/{TASKS} has {links} links"))),
        }
    }

    /// Goes by what the system says to a process that wants to leave its thread group, which one with a single thread may do
    /// without any effect. It refuses others, and in some sandboxes everybody: then `error` is the reason.
    fn without_proc(error: io::Error, left: nix::Result<()>) -> io::Result<usize> {
        match left {
            Ok(()) => Ok(1),
            Err(Errno::EINVAL) => Ok(2),
            Err(_) => Err(error),
        }
    }

    /// Tells whether the threads can be looked at one by one.
    fn is_readable() -> bool {
        links().is_ok()
    }

    struct Other {
        tid: i32,
        name: String,
        /// It runs none of the program's code any more.
        is_ending: bool,
    }

    /// Returns the other threads, without those that end while it looks.
    fn others() -> Vec<Other> {
        let Ok(directory) = procfs::directory() else { return Vec::new() };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let Ok(mut list) = Dir::openat(directory, TASKS, flags, Mode::empty()) else { return Vec::new() };
        let tids = list.iter().filter_map(|entry| entry.ok()?.file_name().to_str().ok()?.parse().ok());
        tids.filter(|tid| *tid != gettid().as_raw()).filter_map(look).collect()
    }

    fn look(tid: i32) -> Option<Other> {
        let stat = Stat::read(format_args!("{TASKS}/{tid}")).ok()?;
        let is_ending = is_ending(stat.state()?, stat.number(9)?);
        Some(Other { tid, name: stat.name()?.escape_debug().to_string(), is_ending })
    }

    fn is_ending(state: char, flags: u32) -> bool {
        matches!(state, 'Z' | 'X' | 'x') || flags & PF_EXITING != 0
    }

    fn names(others: &[Other]) -> String {
        let mut names: Vec<String> =
            others.iter().take(NAMED).map(|other| format!("{} (tid {})", other.name, other.tid)).collect();
        if others.len() > NAMED {
            names.push(format!("and {} more", others.len() - NAMED));
        }
        names.join(", ")
    }

    /// Where the threads of the process that asks are listed, below `/proc`.
    const TASKS: &str = "self/task";

    /// How long the first pause is between two looks.
    const FIRST_PAUSE: Duration = Duration::from_micros(20);

    /// How long a second thread is taken for one that passes.
    const PATIENCE: Duration = Duration::from_millis(5);

    /// How long one that is ending may take, which on a busy machine is longer.
    const PATIENCE_FOR_ENDING: Duration = Duration::from_secs(1);

    /// The system's flag of a thread that is ending, in field 9 of its `stat`.
    const PF_EXITING: u32 = 4;

    /// How many threads are named.
    const NAMED: usize = 8;

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test] // T7: what can't be read is refused
        fn threads_are_counted_without_proc_or_the_reason_is_told() {
            let missing = || io::Error::from(Errno::ENOENT);
            assert_eq!(without_proc(missing(), Ok(())).unwrap(), 1);
            assert_eq!(without_proc(missing(), Err(Errno::EINVAL)).unwrap(), 2);
            for refused in [Errno::EPERM, Errno::ENOSYS] {
                let error = without_proc(missing(), Err(refused)).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(Errno::ENOENT as i32));
            }
        }

        #[test] // T7
        fn thread_that_is_ending_is_told_from_one_that_stays() {
            assert!(!is_ending('S', 0x40_0040));
            assert!(is_ending('R', 0x40_0044));
            assert!(is_ending('Z', 0x40_0040));
        }

        #[test] // T7: the threads of this very test
        fn other_threads_are_named() {
            let (sender, receiver) = std::sync::mpsc::channel::<()>();
            let (running, runs) = std::sync::mpsc::channel();
            let wait = move || {
                running.send(()).unwrap();
                receiver.recv()
            };
            let thread = std::thread::Builder::new().name("named-thread".into()).spawn(wait).unwrap();
            // Until then it has another name.
            runs.recv().unwrap();
            let Err(NotAlone::Threads { count, others }) = make_sure_alone() else { panic!("there are two at least") };
            assert!(count >= 2 && (others.contains("named-thread (tid ") || count > NAMED), "{count}: {others}");
            drop(sender);
            thread.join().unwrap().unwrap_err();
        }
    }
}

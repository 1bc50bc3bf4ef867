//! `/proc`, opened before the program can lock itself up in a directory that has none.
//!
//! [`Kernel::new`](crate::Kernel::new) opens it. The descriptor is the process's, is closed by exec, and is inherited by
//! forked children. It is one of `/proc` itself: below it `self` means whichever process asks.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::str::FromStr;
use std::sync::OnceLock;

use nix::dir::Dir;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

/// Opens `/proc` unless that has been done.
///
/// # Errors
///
/// Why it can't be opened. The next call tries again.
pub(crate) fn open_once() -> io::Result<()> {
    directory().map(drop)
}

/// Returns the directory, to be used with the `*at` system calls and a path without a leading slash.
///
/// # Errors
///
/// As [`open_once`].
pub(crate) fn directory() -> io::Result<BorrowedFd<'static>> {
    if let Some(directory) = DIRECTORY.get() {
        return Ok(directory.as_fd());
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory = open("/proc", flags, Mode::empty())?;
    // Of two threads that come here at a time, one wins; the other's descriptor is closed.
    Ok(DIRECTORY.get_or_init(|| directory).as_fd())
}

/// Reads a file by its path below `/proc`: `"self/stat"`, `"4711/statm"`. What is not UTF-8, as a name that the system has cut, is
/// replaced by U+FFFD.
///
/// # Errors
///
/// Those of opening `/proc` and the file, and of reading it: `ENOENT` for a process that is gone, or in a chroot without
/// `/proc` if it was entered before there was a kernel.
pub(crate) fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    let file: OwnedFd = openat(directory()?, path.as_ref(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::new();
    File::from(file).read_to_end(&mut bytes)?;
    Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// The file `stat` of a process or of a thread: `PID (NAME) STATE PPID ...`. What can't be found in it is `None`.
#[derive(Debug)]
pub(crate) struct Stat {
    text: String,
}

impl Stat {
    /// Reads it, of a process or thread by its path below `/proc`: `"self"`, `4711`, `"self/task/12"`.
    ///
    /// # Errors
    ///
    /// As [`read_to_string`].
    pub(crate) fn read(of: impl Display) -> io::Result<Stat> {
        read_to_string(format!("{of}/stat")).map(|text| Stat { text })
    }

    /// Returns the name, as it is: a program may call itself anything.
    pub(crate) fn name(&self) -> Option<&str> {
        Some(self.text.split_once('(')?.1.rsplit_once(')')?.0)
    }

    /// Returns the letter of what it does, `R` or `T` for example.
    pub(crate) fn state(&self) -> Option<char> {
        self.field(3)?.chars().next()
    }

    /// Returns a field behind the name, with its number from proc(5): the state is 3.
    pub(crate) fn field(&self, number: usize) -> Option<&str> {
        // The name may hold anything, a bracket and blanks too. No field after it has a bracket.
        let (_, rest) = self.text.rsplit_once(')')?;
        rest.split_ascii_whitespace().nth(number.checked_sub(3)?)
    }

    /// Returns a field as a number.
    pub(crate) fn number<T: FromStr>(&self, number: usize) -> Option<T> {
        self.field(number)?.parse().ok()
    }
}

/// Returns the child processes of this process, whichever of its threads has started them.
///
/// # Errors
///
/// Those of reading `/proc`: `ENOENT` also on a Linux that was built without these lists.
pub(crate) fn children_of_this_process() -> io::Result<Vec<i32>> {
    let mut children = Vec::new();
    // The list of the first thread tells whether there are lists. A thread that ends meanwhile leaves its children to another.
    children.extend(pids(&read_to_string(format!("self/task/{}/children", std::process::id()))?));
    let mut threads = Dir::openat(directory()?, "self/task", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    for thread in threads.iter().flatten() {
        let thread = thread.file_name().to_string_lossy().into_owned();
        let list = read_to_string(format!("self/task/{thread}/children"));
        children.extend(list.iter().flat_map(|list| pids(list)));
    }
    children.sort_unstable();
    children.dedup();
    Ok(children)
}

/// Returns the children of this process that have not ended, with their names; none where `/proc` does not tell.
#[cfg(feature = "testing")]
pub(crate) fn living_children_of_this_process() -> Vec<(i32, String)> {
    let living = |pid: i32| {
        let state = Stat::read(pid).ok()?.state()?;
        (state != 'Z').then(|| Some((pid, name_of(pid).ok()?)))?
    };
    children_of_this_process().unwrap_or_default().into_iter().filter_map(living).collect()
}

/// Returns the name of the program that a process executes, of which the system keeps 15 bytes.
///
/// # Errors
///
/// As [`read_to_string`].
pub(crate) fn name_of(pid: i32) -> io::Result<String> {
    let name = read_to_string(format!("{pid}/comm"))?;
    // A program may call itself anything.
    Ok(name.trim_end_matches('\n').escape_debug().to_string())
}

fn pids(list: &str) -> impl Iterator<Item = i32> {
    list.split_whitespace().filter_map(|pid| pid.parse().ok())
}

/// Never closed: forks and the rounds of the babysitter need it to the end.
static DIRECTORY: OnceLock<OwnedFd> = OnceLock::new();

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // T7, D-BA-05
    fn files_of_any_process_are_read_by_their_path_below_proc() {
        let own = read_to_string("self/stat").unwrap();
        assert_eq!(own.split(' ').next().unwrap(), std::process::id().to_string());
        let same = read_to_string(format!("{}/stat", std::process::id())).unwrap();
        assert_eq!(same.split(' ').next(), own.split(' ').next());
    }

    #[test] // T7, D-BA-05
    fn stat_is_read_behind_whatever_the_name_is() {
        for name in ["a", "a b", "a) b", "(", ")", "a) R 1 (b", "a\nb", ""] {
            let stat = Stat { text: format!("12 ({name}) S 1 2 3 0 -1 4194368 7\n") };
            assert_eq!((stat.name(), stat.state()), (Some(name), Some('S')));
            assert_eq!((stat.number(4), stat.number(8), stat.number(9)), (Some(1_u32), Some(-1), Some(0x40_0040)));
            assert_eq!((stat.number::<u32>(8), stat.field(10), stat.field(11)), (None, Some("7"), None));
            assert_eq!((stat.field(0), stat.field(2)), (None, None));
        }
        for text in ["", "12 (a", "12"] {
            let stat = Stat { text: text.to_owned() };
            assert_eq!((stat.name(), stat.state(), stat.field(4)), (None, None, None), "{text}");
        }
    }

    #[test] // T7, D-BA-05: the system cuts names anywhere
    fn stat_is_read_behind_a_name_that_is_no_text() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let look = move || sender.send(Stat::read(format_args!("self/task/{}", nix::unistd::gettid()))).unwrap();
        // One byte more than the system keeps.
        std::thread::Builder::new().name("\u{e9}".repeat(8)).spawn(look).unwrap().join().unwrap();
        let stat = receiver.recv().unwrap().unwrap();
        let name = "\u{e9}".repeat(7) + "\u{fffd}";
        assert_eq!((stat.state(), stat.name()), (Some('R'), Some(&*name)));
    }

    #[test] // T7, D-BA-05
    fn stat_of_this_process_is_read_by_each_of_its_paths() {
        let pid = std::process::id();
        let start = |of: &str| Stat::read(of).unwrap().number::<u64>(22).unwrap();
        assert!(start("self") > 0);
        assert_eq!(start(&pid.to_string()), start("self"));
        assert_eq!(start(&format!("self/task/{pid}")), start("self"));
        assert_eq!(Stat::read(4_194_305).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test] // T7, D-BA-05
    fn file_of_a_process_that_does_not_exist_is_an_error() {
        // Above the largest pid that Linux gives.
        assert_eq!(read_to_string("4194305/statm").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

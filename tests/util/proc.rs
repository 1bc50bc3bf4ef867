//! What `/proc` says about a process. A process that is gone yields `None`, or an empty map.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

/// A process's signal sets, bit `n - 1` standing for signal `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SigMasks {
    /// `SigBlk`: blocked in the process's first thread.
    pub blocked: u64,
    /// `SigIgn`: ignored.
    pub ignored: u64,
    /// `SigCgt`: caught by a handler.
    pub caught: u64,
}

impl SigMasks {
    /// Whether `signal` is blocked in the first thread.
    pub fn blocks(&self, signal: Signal) -> bool {
        self.blocked & bit(signal) != 0
    }

    /// Whether `signal` is ignored.
    pub fn ignores(&self, signal: Signal) -> bool {
        self.ignored & bit(signal) != 0
    }

    /// Whether `signal` has a handler.
    pub fn catches(&self, signal: Signal) -> bool {
        self.caught & bit(signal) != 0
    }
}

/// The fields of `/proc/PID/stat` that the harness lives by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// `R`, `S`, `D`, `T`, `Z`, ...
    pub state: char,
    /// The parent's pid.
    pub ppid: i32,
    /// When it began, in ticks since the system did: of two processes that had the same pid it tells which this is.
    pub start: u64,
}

impl Stat {
    /// Whether the process has not ended: a zombie waits for its parent, and does nothing else.
    pub fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }
}

/// The open descriptors of `pid` and what each one refers to: a path, `socket:[4711]`, `pipe:[4712]`, ...
pub fn fds(pid: i32) -> BTreeMap<i32, String> {
    let Ok(entries) = fs::read_dir(path(pid, "fd")) else {
        return BTreeMap::new();
    };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let fd = entry.file_name().to_str()?.parse().ok()?;
            let target = fs::read_link(entry.path()).ok()?; // closed meanwhile
            Some((fd, target.to_string_lossy().into_owned()))
        })
        .collect()
}

/// How many descriptors a process has at the least, by many looks: a Daemon opens a file of `/proc` now and then, and a single look may
/// count that.
pub fn fewest_fds(pid: i32) -> usize {
    let begun = Instant::now();
    let looks = std::iter::repeat_with(|| fds(pid).len());
    looks.take_while(|_| begun.elapsed() < MANY_LOOKS).min().unwrap_or_else(|| fds(pid).len())
}

/// How long to go on looking.
const MANY_LOOKS: Duration = Duration::from_millis(200);

/// The letter of the process's state; `Z` is a zombie.
pub fn state(pid: i32) -> Option<char> {
    stat(pid).map(|stat| stat.state)
}

/// Whether the process table has `pid`, be it as a zombie. See also [`is_alive`].
pub fn exists(pid: i32) -> bool {
    path(pid, "stat").exists()
}

/// Whether `pid` runs: it exists and is no zombie.
pub fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|stat| stat.is_alive())
}

/// The parent of `pid`. An orphan of a program under test has the test process for a parent: see [`super::program`].
pub fn ppid(pid: i32) -> Option<i32> {
    stat(pid).map(|stat| stat.ppid)
}

/// State, parent and begin, read at one time.
pub fn stat(pid: i32) -> Option<Stat> {
    let bytes = fs::read(path(pid, "stat")).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    // The second field is the command's name in parentheses, and may hold spaces and parentheses of its own.
    let mut fields = text[text.rfind(')')? + 1..].split_whitespace();
    let (state, ppid) = (fields.next()?.chars().next()?, fields.next()?.parse().ok()?);
    // The field that proc(5) counts as the 22nd.
    Some(Stat { state, ppid, start: fields.nth(17)?.parse().ok()? })
}

/// Blocked, ignored and caught signals.
pub fn sig_masks(pid: i32) -> Option<SigMasks> {
    let mask = |key| u64::from_str_radix(&status_field(pid, key)?, 16).ok();
    Some(SigMasks { blocked: mask("SigBlk")?, ignored: mask("SigIgn")?, caught: mask("SigCgt")? })
}

/// How many threads the process has.
pub fn threads(pid: i32) -> Option<usize> {
    status_field(pid, "Threads")?.parse().ok()
}

/// Resident memory, in KiB. A zombie has none to speak of: `None`.
pub fn rss_kib(pid: i32) -> Option<u64> {
    let field = status_field(pid, "VmRSS")?;
    field.split_whitespace().next()?.parse().ok()
}

/// Every process there is, zombies included, with its state and parent.
pub fn all() -> BTreeMap<i32, Stat> {
    let entries = fs::read_dir("/proc").expect("the harness needs /proc");
    entries
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            Some((pid, stat(pid)?))
        })
        .collect()
}

/// The children of the process's first thread, zombies included, with their states. Much cheaper than [`all`].
pub fn children(parent: i32) -> BTreeMap<i32, Stat> {
    let known = match list_of_children(parent) {
        Some(children) => children.into_iter().filter_map(|pid| Some((pid, stat(pid)?))).collect(),
        None => all(),
    };
    known.into_iter().filter(|(_, stat)| stat.ppid == parent).collect()
}

/// What the system lists as the children of the process's first thread, in no particular order.
///
/// `None` where the system has no such list, or where it changes all the time: children that end while it is read may hide
/// others.
fn list_of_children(pid: i32) -> Option<Vec<i32>> {
    let list = path(pid, &format!("task/{pid}/children"));
    let read = || fs::read_to_string(&list).ok();
    let mut before = read()?;
    for _ in 0..10 {
        let now = read()?;
        if now == before {
            return Some(now.split_whitespace().filter_map(|pid| pid.parse().ok()).collect());
        }
        before = now;
    }
    None
}

/// Whether `pid` was given `variable` (`NAME=value`) by its last exec, or is a fork of a process that was.
///
/// False for a zombie, which has no memory left, and for a process whose environment may not be read.
pub fn has_env(pid: i32, variable: &str) -> bool {
    fs::read(path(pid, "environ"))
        .is_ok_and(|environ| environ.split(|&byte| byte == 0).any(|entry| entry == variable.as_bytes()))
}

/// Whether `pid` has an environment. One in the middle of an exec has none for a moment, and one that may not be read is taken to have one.
pub fn has_environment(pid: i32) -> bool {
    !fs::read(path(pid, "environ")).is_ok_and(|environ| environ.is_empty())
}

/// The names of the variables that `pid` was given by its last exec, whatever it has done with them since. A fork has its parent's.
pub fn env_names(pid: i32) -> Vec<String> {
    let environ = fs::read(path(pid, "environ")).unwrap_or_default();
    let name =
        |entry: &[u8]| entry.split(|&byte| byte == b'=').next().map(|name| String::from_utf8_lossy(name).into_owned());
    environ.split(|&byte| byte == 0).filter_map(name).collect()
}

/// One field of `/proc/PID/status`, without its key.
fn status_field(pid: i32, key: &str) -> Option<String> {
    let status = fs::read_to_string(path(pid, "status")).ok()?;
    status.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name == key).then(|| value.trim().to_owned())
    })
}

fn path(pid: i32, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{file}"))
}

fn bit(signal: Signal) -> u64 {
    1 << (signal as i32 - 1)
}

/// The processes that run and have this argument.
pub fn pids_with_argument(argument: &str) -> Vec<i32> {
    let has = |pid: &i32| {
        let line = fs::read(path(*pid, "cmdline")).unwrap_or_default();
        line.split(|octet| *octet == 0).any(|own| own == argument.as_bytes())
    };
    all().into_keys().filter(|pid| is_alive(*pid)).filter(has).collect()
}

//! Programs under test: started, watched, and ended with everything that came from them.
//!
//! The test process makes itself a *child subreaper*: an orphan of a program under test becomes the test's child
//! instead of init's, so that it can be reaped even in a container whose pid 1 reaps nothing. A daemon that has
//! detached therefore has the test process for its parent, not pid 1, and an orphan that ends by itself stays a zombie
//! until its [`Running`] drops, or even the test executable ends: ask [`proc::is_alive`] of orphans, not [`proc::exists`].

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::proc::{self, Stat};
use super::{DEADLINE, SHORTEST_POLL, kill, wait_until};

/// The environment variable that marks a program and everything forked from it, re-parented or not.
pub const MARKER_VARIABLE: &str = "LENORE_TEST_ID";

/// How long [`Running`]'s drop goes on killing before it gives up.
const KILL_DEADLINE: Duration = Duration::from_secs(5);

/// How long a process may be in the middle of an exec, on a machine that does much else.
const EXEC_DEADLINE: Duration = Duration::from_secs(2);

/// A program to start, built up as a [`Command`] is.
#[derive(Debug)]
pub struct Program {
    command: Command,
}

impl Program {
    /// The program at `path`, without arguments, with the test's environment.
    pub fn new(path: impl AsRef<Path>) -> Program {
        Program { command: Command::new(path.as_ref()) }
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Program {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Program {
        self.command.args(args);
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Program {
        self.command.env(name, value);
        self
    }

    /// Starts the program as another user and group, which only root can.
    pub fn user(mut self, uid: u32, gid: u32) -> Program {
        self.command.uid(uid).gid(gid);
        self
    }

    /// Starts the program in `dir` rather than in the test's directory.
    pub fn current_dir(mut self, dir: impl AsRef<Path>) -> Program {
        self.command.current_dir(dir);
        self
    }

    /// Has the program inherit a descriptor, by the number that it has here.
    pub fn inherits(mut self, fd: OwnedFd) -> Program {
        let keep = move || {
            fcntl(&fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
            Ok(())
        };
        // SAFETY: `keep` makes one system call and nothing else.
        unsafe { self.command.pre_exec(keep) };
        self
    }

    /// Starts the program: standard input empty, standard output and error read as they come, and no controlling terminal,
    /// which would give some signals another meaning than where the tests run without one.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[track_caller]
    pub fn start(mut self) -> Running {
        prctl::set_child_subreaper(true).expect("Linux 3.4 has subreapers");
        let marker = unique_marker();
        // SAFETY: `leave_terminal` makes system calls and nothing else.
        unsafe { self.command.pre_exec(leave_terminal) };
        let command = self.command.env(MARKER_VARIABLE, &marker).stdin(Stdio::null());
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        // A program that a test has just copied is busy while a child that another test has forked meanwhile has it open.
        let spawned = wait_until("a program that nobody writes to", DEADLINE, || match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => None,
            spawned => Some(spawned),
        });
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => panic!("cannot start {:?}: {error}", self.command.get_program()),
        };
        let stdout = child.stdout.take().expect("standard output is piped");
        let stderr = child.stderr.take().expect("standard error is piped");
        Running {
            child,
            status: None,
            lines: read_lines(stdout),
            stderr: collect(stderr),
            marker,
            seen: RefCell::default(),
        }
    }
}

/// A started program. Dropping it kills and reaps the program and everything that came from it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Its end, once [`Running::wait_exit`] has reaped it: from then on the pid may be anybody's.
    status: Option<ExitStatus>,
    /// Standard output, line by line; hung up at its end.
    lines: Receiver<String>,
    /// Standard error so far. The reader thread only appends.
    stderr: Arc<Mutex<Vec<u8>>>,
    marker: String,
    /// What came from the program, as far as anybody has looked, and when it began.
    seen: RefCell<BTreeMap<i32, u64>>,
}

impl Running {
    /// The pid of the program itself.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("Linux pids are positive i32s")
    }

    /// The value of `LENORE_TEST_ID` that only this program and what came from it has.
    pub fn marker(&self) -> &str {
        &self.marker
    }

    /// The next line of standard output, without its end.
    ///
    /// # Panics
    ///
    /// When none comes within `deadline`, or standard output ends.
    #[track_caller]
    pub fn next_line(&self, deadline: Duration) -> String {
        match self.lines.recv_timeout(deadline) {
            Ok(line) => line,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                panic!("waited {deadline:?} in vain: a line on standard output")
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                panic!("standard output ended where a line was expected")
            }
        }
    }

    /// The next line of standard output; `None` when none comes within `deadline` or there will be no more.
    pub fn try_next_line(&self, deadline: Duration) -> Option<String> {
        self.lines.recv_timeout(deadline).ok()
    }

    /// Waits for the line `listening on ADDR:PORT` or `listening on ADDR:PORT, pid N`, passing over other lines, and
    /// returns the address.
    #[track_caller]
    pub fn listening_addr(&self) -> SocketAddr {
        let give_up = Instant::now() + DEADLINE;
        loop {
            let line = self.next_line(give_up.saturating_duration_since(Instant::now()));
            let Some(addr) = line.strip_prefix("listening on ") else {
                continue;
            };
            let addr = addr.split_once(", pid ").map_or(addr, |(addr, _)| addr);
            match addr.trim().parse() {
                Ok(addr) => return addr,
                Err(error) => panic!("{line:?} names no socket address: {error}"),
            }
        }
    }

    /// Standard error so far.
    pub fn stderr_text(&self) -> String {
        let bytes = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until nobody has standard error open any more, and returns all of it.
    #[track_caller]
    pub fn stderr_to_end(&self, deadline: Duration) -> String {
        // The thread that reads has the other reference, and ends with the pipe.
        wait_until("the end of standard error", deadline, || (Arc::strong_count(&self.stderr) == 1).then_some(()));
        self.stderr_text()
    }

    /// Waits until a whole line of standard error contains `pattern`, and returns the first that does.
    #[track_caller]
    pub fn wait_for_stderr(&self, pattern: &str, deadline: Duration) -> String {
        wait_until(&format!("{pattern:?} on standard error"), deadline, || {
            let text = self.stderr_text();
            let mut lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            let line = lines.find(|line| line.contains(pattern))?;
            Some(line.trim_end().to_owned())
        })
    }

    /// Sends the program itself a signal.
    ///
    /// # Panics
    ///
    /// When [`Running::wait_exit`] has reaped it already.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        assert!(self.status.is_none(), "{signal} to a program that was reaped");
        if let Err(error) = kill(self.pid(), signal) {
            panic!("cannot send {signal} to {}: {error}", self.pid());
        }
    }

    /// Waits for the program itself to end and reaps it. What came from it may live on.
    #[track_caller]
    pub fn wait_exit(&mut self, deadline: Duration) -> ExitStatus {
        let status =
            wait_until("the program's end", deadline, || self.child.try_wait().expect("the child is ours to wait for"));
        self.status = Some(status);
        status
    }

    /// The program's children that have not ended.
    pub fn children(&self) -> Vec<i32> {
        self.children_that(|stat| stat.is_alive())
    }

    /// The program's children that have ended and that it has not reaped.
    pub fn zombies(&self) -> Vec<i32> {
        self.children_that(|stat| stat.state == 'Z')
    }

    /// Everything that came from the program and has not ended, orphans included; not the program itself.
    pub fn descendants_alive(&self) -> Vec<i32> {
        let family = self.family();
        let alive = family.into_iter().filter(|(_, stat)| stat.is_alive());
        alive.map(|(pid, _)| pid).filter(|&pid| Some(pid) != self.root()).collect()
    }

    fn children_that(&self, fits: impl Fn(&Stat) -> bool) -> Vec<i32> {
        let children = self.root().map(proc::children).unwrap_or_default();
        self.remember(&children);
        children.into_iter().filter(|(_, stat)| fits(stat)).map(|(pid, _)| pid).collect()
    }

    /// Keeps in mind to reap `pid`, which came from the program, if it comes to the test.
    pub fn reap_later(&self, pid: i32) {
        self.remember(proc::stat(pid).iter().map(|stat| (&pid, stat)));
    }

    fn remember<'a>(&self, processes: impl IntoIterator<Item = (&'a i32, &'a Stat)>) {
        self.seen.borrow_mut().extend(processes.into_iter().map(|(&pid, stat)| (pid, stat.start)));
    }

    /// Waits until none of `pids`, which came from the program, is alive.
    #[track_caller]
    pub fn wait_gone(&self, pids: &[i32], deadline: Duration) {
        pids.iter().for_each(|&pid| self.reap_later(pid));
        wait_until(&format!("the end of {pids:?}"), deadline, || {
            pids.iter().all(|&pid| !proc::is_alive(pid)).then_some(())
        });
    }

    /// The program's pid as long as it is certain to be the program's.
    fn root(&self) -> Option<i32> {
        self.status.is_none().then(|| self.pid())
    }

    /// The program, every process with its marker, and all that descend from these, zombies included.
    ///
    /// Descent finds those that were started with another environment, the marker those whose parent has gone. What
    /// has both another environment and no parent left escapes.
    fn family(&self) -> BTreeMap<i32, Stat> {
        let all = proc::all();
        let variable = format!("{MARKER_VARIABLE}={}", self.marker);
        // To ask each process for its environment would take longer than all the rest.
        let is_orphan = |stat: &Stat| stat.ppid == own_pid() || !all.get(&stat.ppid).is_some_and(Stat::is_alive);
        let is_marked = |pid, stat: &Stat| stat.is_alive() && is_orphan(stat) && proc::has_env(pid, &variable);
        let first = all.iter().filter(|&(&pid, stat)| Some(pid) == self.root() || is_marked(pid, stat));
        let mut members: BTreeSet<i32> = first.map(|(&pid, _)| pid).collect();
        loop {
            let before = members.len();
            for (&pid, stat) in &all {
                if members.contains(&stat.ppid) {
                    members.insert(pid);
                }
            }
            if members.len() == before {
                break;
            }
        }
        let family = all.into_iter().filter(|(pid, _)| members.contains(pid)).collect();
        self.remember(&family);
        family
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("standard error of {}:\n{}", self.pid(), self.stderr_text());
        }
        let give_up = Instant::now() + KILL_DEADLINE;
        let mut may_have_forked = false;
        // Look again after killing: what a victim forked between the look and the kill carries its marker.
        loop {
            let family = self.family();
            let alive = family.iter().filter(|(_, stat)| stat.is_alive());
            let alive: Vec<i32> = alive.map(|(&pid, _)| pid).collect();
            if alive.is_empty() {
                // Such a fork may be in the middle of an exec, and have no marker for a moment.
                if !std::mem::take(&mut may_have_forked) {
                    break;
                }
                wait_for_environments();
                continue;
            }
            may_have_forked = true;
            if Instant::now() >= give_up {
                eprintln!("cannot kill what {} left: {alive:?}", self.pid());
                break;
            }
            for pid in alive {
                let _ = kill(pid, Signal::SIGKILL); // gone already, or another user's: the next look tells
            }
            thread::sleep(SHORTEST_POLL);
        }
        let _ = self.child.try_wait();
        // The rest came to the subreaper. A panic here would abort the whole test run, hence no unwrapping.
        for (pid, start) in self.seen.take() {
            if proc::stat(pid).is_some_and(|stat| stat.ppid == own_pid() && stat.start == start) {
                let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
            }
        }
    }
}

/// Waits for a while until each orphan that has no environment has got one or is gone.
fn wait_for_environments() {
    let is_without = |pid: &i32| proc::is_alive(*pid) && !proc::has_environment(*pid);
    let orphans = proc::all().into_iter().filter(|(_, stat)| stat.is_alive() && stat.ppid == own_pid());
    let mut orphans: Vec<i32> = orphans.map(|(pid, _)| pid).filter(is_without).collect();
    let begun = Instant::now();
    while !orphans.is_empty() && begun.elapsed() < EXEC_DEADLINE {
        thread::sleep(SHORTEST_POLL);
        orphans.retain(is_without);
    }
}

/// Gives up the controlling terminal, if there is one. The process stays in its group, so that Ctrl-C ends it with the tests.
fn leave_terminal() -> io::Result<()> {
    // SAFETY: reads a string that ends with a zero; the others take and return numbers.
    unsafe {
        let terminal = libc::open(c"/dev/tty".as_ptr(), libc::O_RDWR | libc::O_NOCTTY);
        if terminal >= 0 {
            libc::ioctl(terminal, libc::TIOCNOTTY as _);
            libc::close(terminal);
        }
    }
    Ok(())
}

/// Reads lines into a channel on a thread of its own, which ends with the pipe.
fn read_lines(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            // Nobody may be listening any more; the pipe is emptied all the same.
            let _ = sender.send(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
    });
    receiver
}

/// Collects all that comes from `pipe` on a thread of its own, which ends with the pipe.
fn collect(mut pipe: impl Read + Send + 'static) -> Arc<Mutex<Vec<u8>>> {
    let collected = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&collected);
    thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(read @ 1..) = pipe.read(&mut chunk) {
            let mut text = shared.lock().unwrap_or_else(PoisonError::into_inner);
            text.extend_from_slice(&chunk[..read]);
        }
    });
    collected
}

/// A value that no other program of this or of another test run has.
fn unique_marker() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let since_epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    format!("{}-{}-{count}", process::id(), since_epoch.as_nanos())
}

fn own_pid() -> i32 {
    Pid::this().as_raw()
}

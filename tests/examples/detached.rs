//! An example that has detached from the test that started it.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process;
use std::thread;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::LONG;
use util::{DEADLINE, Program, Running, example, kill, proc, wait_until};

/// A daemon whose launcher has exited with 0, and its files.
pub struct Detached {
    pub running: Running,
    pub addr: SocketAddr,
    /// The parent of all the children.
    pub pid: i32,
    pub logfile: PathBuf,
    pub dir: TempDir,
}

impl Detached {
    /// Starts a ported program, which detaches by itself.
    #[track_caller]
    pub fn port(name: &str) -> Detached {
        Detached::start(name, &["0"])
    }

    /// Starts an echo server with `--detach` and `args`.
    #[track_caller]
    pub fn echo(name: &str, args: &[&str]) -> Detached {
        Detached::start(name, &[&["--listen", "127.0.0.1:0", "--detach"], args].concat())
    }

    #[track_caller]
    fn start(name: &str, args: &[&str]) -> Detached {
        let dir = tempfile::tempdir().expect("a directory for the log");
        let logfile = dir.path().join("log");
        let mut running = Program::new(example(name)).args(args).arg("--logfile").arg(&logfile).start();
        let line = running.next_line(DEADLINE);
        let addr = match (line.strip_prefix("PORT="), line.strip_prefix("listening on ")) {
            (Some(port), _) => format!("127.0.0.1:{port}"),
            (_, Some(addr)) => addr.to_owned(),
            _ => panic!("{line:?} names no address"),
        };
        let addr = addr.parse().unwrap_or_else(|error| panic!("{addr:?}: {error}"));
        let status = running.wait_exit(LONG);
        assert_eq!(status.code(), Some(0), "{status} of the launcher; {}", running.stderr_text());
        assert_eq!(running.stderr_to_end(DEADLINE), "", "the daemon has let go of it, as all goes to the log");
        // The launcher is gone, and whoever else stood between: the test is the subreaper.
        let orphans = running.descendants_alive().into_iter().filter(|pid| proc::ppid(*pid) == Some(own_pid()));
        let [pid] = orphans.collect::<Vec<_>>()[..] else {
            panic!("not one daemon among {:?}", running.descendants_alive());
        };
        Detached { running, addr, pid, logfile, dir }
    }

    /// The children that have not ended.
    pub fn children(&self) -> Vec<i32> {
        proc::children(self.pid).into_iter().filter(|(_, stat)| stat.is_alive()).map(|(pid, _)| pid).collect()
    }

    /// How many children there are, those that have not been reaped included.
    pub fn count_children(&self) -> usize {
        proc::children(self.pid).len()
    }

    /// What the log file holds.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.logfile).unwrap_or_default()
    }

    #[track_caller]
    pub fn wait_log(&self, what: &str) {
        wait_until(&format!("{what:?} in the log"), DEADLINE, || self.log().contains(what).then_some(()));
    }

    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill(self.pid, signal).unwrap_or_else(|errno| panic!("{signal} to the daemon: {errno}"));
    }

    /// Ends the daemon with TERM, and makes sure that nothing of it is left.
    #[track_caller]
    pub fn end(self) {
        self.signal(Signal::SIGTERM);
        wait_until("the end of all", LONG, || self.running.descendants_alive().is_empty().then_some(()));
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the log:\n{}", self.log());
        }
    }
}

fn own_pid() -> i32 {
    i32::try_from(process::id()).expect("Linux pids are positive i32s")
}

//! A directory in which a daemon that may have detached is run: its files, what it reports, and finding it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use util::{DEADLINE, Program, Running, kill, proc, test_program, wait_until};

pub struct Site {
    dir: TempDir,
}

impl Site {
    /// A directory that everybody may write to, as daemons drop their privileges.
    pub fn new() -> Site {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let everybody = fs::Permissions::from_mode(0o777);
        fs::set_permissions(dir.path(), everybody).expect("our own directory");
        Site { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `args`, blank-separated, with `@name` for the path of a file here.
    pub fn words(&self, args: &str) -> Vec<String> {
        let word = |word: &str| match word.strip_prefix('@') {
            Some(name) => self.path(name).display().to_string(),
            None => word.to_owned(),
        };
        args.split_whitespace().map(word).collect()
    }

    /// The test program, to be told more.
    pub fn program(&self, args: &str) -> Program {
        let program = Program::new(test_program("daemon_process")).args(self.words("--report @report"));
        program.args(self.words(args)).current_dir(self.dir.path())
    }

    pub fn start(&self, args: &str) -> Running {
        self.program(args).start()
    }

    /// Starts a daemon that detaches, waits until its launcher has ended well, and returns its pid.
    #[track_caller]
    pub fn launch(&self, args: &str) -> (Running, i32) {
        let mut running = self.start(&format!("--detach {args}"));
        let status = running.wait_exit(DEADLINE);
        assert_eq!(status.code(), Some(0), "{status}: {}", running.stderr_text());
        let pid = self.wait_for("spawned");
        running.reap_later(pid);
        (running, pid)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read(self.path(name)).map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    pub fn exists(&self, name: &str) -> bool {
        fs::symlink_metadata(self.path(name)).is_ok()
    }

    /// Every whole line of the report: who, and what.
    pub fn report(&self) -> Vec<(i32, String)> {
        let text = self.read("report");
        let lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        lines
            .filter_map(|line| line.split_once(' '))
            .map(|(pid, what)| (pid.parse().unwrap_or(0), what.to_owned()))
            .collect()
    }

    /// Waits for a line of whatever process that begins with `what`, and returns the first one's pid.
    #[track_caller]
    pub fn wait_for(&self, what: &str) -> i32 {
        wait_until(&format!("{what} in {:?}", self.report()), DEADLINE, || {
            self.report().into_iter().find(|(_, said)| said.starts_with(what)).map(|(pid, _)| pid)
        })
    }

    /// The first line that begins with `what`, without that.
    #[track_caller]
    pub fn said(&self, what: &str) -> String {
        self.wait_for(what);
        let hit =
            self.report().into_iter().find_map(|(_, said)| said.strip_prefix(what).map(|rest| rest.trim().to_owned()));
        hit.expect("it was there just now")
    }

    /// How many lines are `what`.
    pub fn count(&self, what: &str) -> usize {
        self.report().iter().filter(|(_, said)| said == what).count()
    }

    /// Waits for `what` in a file here.
    #[track_caller]
    pub fn wait_in(&self, name: &str, what: &str) {
        wait_until(&format!("{what:?} in {name}: {}", self.read(name)), DEADLINE, || {
            self.read(name).contains(what).then_some(())
        });
    }
}

/// Ends a daemon in order.
#[track_caller]
pub fn terminate(pid: i32) {
    signal(pid, Signal::SIGTERM);
    wait_gone(pid);
}

#[track_caller]
pub fn signal(pid: i32, signal: Signal) {
    kill(pid, signal).expect("a living process of ours");
}

#[track_caller]
pub fn wait_gone(pid: i32) {
    wait_until(&format!("the end of {pid}"), Duration::from_secs(20), || (!proc::is_alive(pid)).then_some(()));
}

/// The fields of `/proc/PID/stat` from the state on, which is 0 here and 3 in proc(5).
pub fn stat_fields(pid: i32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    text.rsplit(')').next().unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// One field of `/proc/PID/status`.
pub fn status_field(pid: i32, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Tests that need root say so where they can't be run.
pub fn is_root() -> bool {
    let root = nix::unistd::Uid::effective().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

//! A control group of a test's own, where the machine lets it have one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use util::{DEADLINE, Program, wait_until};

/// What a control group is wanted for.
#[derive(Clone, Copy)]
pub enum Controller {
    Freezer,
    Memory,
}

/// An own control group below the root; thawed and removed when it is dropped.
pub struct Cgroup {
    path: PathBuf,
    is_unified: bool,
}

impl Cgroup {
    /// Makes one; `None`, with a word on standard error, where that is not allowed or there is no such controller.
    pub fn make(controller: Controller) -> Option<Cgroup> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("lenore-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let (old, file) = match controller {
            Controller::Freezer => ("freezer", "cgroup.freeze"),
            Controller::Memory => ("memory", "memory.max"),
        };
        let roots = [(format!("/sys/fs/cgroup/{old}"), false), ("/sys/fs/cgroup".to_owned(), true)];
        for (root, is_unified) in roots {
            let path = PathBuf::from(root).join(&name);
            if fs::create_dir(&path).is_ok() {
                let group = Cgroup { path, is_unified };
                if !is_unified || group.path.join(file).exists() {
                    return Some(group);
                }
            }
        }
        eprintln!("skipped: there is no control group to be had");
        None
    }

    /// Moves a process in. What it forks later is born there.
    #[track_caller]
    pub fn add(&self, pid: i32) {
        self.write("cgroup.procs", &pid.to_string());
    }

    /// Returns a program that moves itself in and becomes `program`, with blank-separated arguments.
    pub fn start_in(&self, program: &Path, args: &str) -> Program {
        let script = "echo $$ > \"$0\" && exec \"$@\"";
        let args = args.split_whitespace();
        Program::new("/bin/sh").args(["-c", script]).arg(self.path.join("cgroup.procs")).arg(program).args(args)
    }

    /// Lets the processes in it have so many bytes of memory together, and no swap.
    #[track_caller]
    pub fn limit_memory(&self, bytes: u64) {
        if self.is_unified {
            let _ = fs::write(self.path.join("memory.swap.max"), "0");
            self.write("memory.max", &bytes.to_string());
        } else {
            self.write("memory.limit_in_bytes", &bytes.to_string());
            let _ = fs::write(self.path.join("memory.swappiness"), "0");
        }
    }

    /// Stops everything in it, without a signal.
    #[track_caller]
    pub fn freeze(&self) {
        let (file, word) = if self.is_unified { ("cgroup.freeze", "1") } else { ("freezer.state", "FROZEN") };
        self.write(file, word);
        wait_until("the frost", DEADLINE, || self.is_frozen().then_some(()));
    }

    pub fn is_frozen(&self) -> bool {
        if self.is_unified {
            self.read("cgroup.events").contains("frozen 1")
        } else {
            self.read("freezer.state") == "FROZEN\n"
        }
    }

    #[track_caller]
    pub fn thaw(&self) {
        let (file, word) = if self.is_unified { ("cgroup.freeze", "0") } else { ("freezer.state", "THAWED") };
        self.write(file, word);
    }

    #[track_caller]
    fn write(&self, file: &str, text: &str) {
        let path = self.path.join(file);
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path.join(file)).unwrap_or_default()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // What is frozen can't be killed, and what has not ended is still in it. A panic here would abort the whole test run.
        let (file, word) = if self.is_unified { ("cgroup.freeze", "0") } else { ("freezer.state", "THAWED") };
        let _ = fs::write(self.path.join(file), word);
        for _ in 0..100 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        eprintln!("left behind: {}", self.path.display());
    }
}

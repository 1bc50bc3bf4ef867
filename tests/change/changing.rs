//! A running `daemon_change` with a configuration file.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use tempfile::TempDir;
use util::control::{Answer, Control};
use util::{Client, DEADLINE, Program, Running, test_program, wait_until};

/// What came of a command.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Runs `lenorectl` with blank-separated arguments to its end.
#[track_caller]
pub fn lenorectl(socket: &Path, args: &str) -> Outcome {
    let program = Program::new(test_program("lenorectl")).arg("--socket").arg(socket);
    let mut running = program.args(args.split_whitespace()).start();
    let mut out = String::new();
    while let Some(line) = running.try_next_line(DEADLINE) {
        out.push_str(&line);
        out.push('\n');
    }
    let code = running.wait_exit(DEADLINE).code().unwrap_or(-1);
    Outcome { code, out, err: running.stderr_to_end(DEADLINE) }
}

/// The program, its configuration and its control socket.
#[derive(Debug)]
pub struct Changing {
    // First: it is ended before the directory goes.
    pub running: Running,
    pub dir: TempDir,
    pub socket: PathBuf,
    pub addr: SocketAddr,
}

impl Changing {
    /// Starts it with a configuration and blank-separated arguments, of which `DIR` is the directory.
    #[track_caller]
    pub fn start(config: &str, args: &str) -> Changing {
        Changing::start_by(|program| program, config, args)
    }

    /// The same, with what `prepare` makes of the program.
    #[track_caller]
    pub fn start_by(prepare: impl FnOnce(Program) -> Program, config: &str, args: &str) -> Changing {
        let dir = tempfile::tempdir().expect("a directory");
        let (socket, file) = (dir.path().join("control.sock"), dir.path().join("conf"));
        fs::write(&file, config).expect("a file");
        let program =
            Program::new(test_program("daemon_change")).arg("--control").arg(&socket).arg("--config").arg(file);
        let args = args.replace("DIR", dir.path().to_str().expect("a path that is text"));
        // Only the end of what a program writes is told, and a backtrace would be all of it.
        let program = program.args(args.split_whitespace()).env("RUST_BACKTRACE", "0");
        let running = prepare(program).start();
        let addr = running.listening_addr();
        Changing { running, dir, socket, addr }
    }

    /// Starts it with a configuration that it can't load.
    #[track_caller]
    pub fn attempt(config: &str) -> Running {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("conf");
        fs::write(&file, config).expect("a file");
        let mut running = Program::new(test_program("daemon_change")).arg("--config").arg(file).start();
        running.wait_exit(DEADLINE);
        running
    }

    /// The same for a pool of so many children that all wait for clients.
    #[track_caller]
    pub fn pool(children: u32, config: &str, args: &str) -> Changing {
        let changing = Changing::start(config, &format!("{} {args}", Changing::size(children)));
        changing.wait_idle(children);
        changing
    }

    /// The arguments for such a pool.
    pub fn size(children: u32) -> String {
        format!("--start {children} --min-spare {children} --max-spare {children} --max {children}")
    }

    #[track_caller]
    pub fn wait_idle(&self, children: u32) {
        let what = format!("{children} children that wait");
        self.control().wait_status(&what, |status| {
            let is_so = status.pool.states.idle == children && status.pool.total == children;
            is_so.then_some(())
        });
    }

    #[track_caller]
    pub fn control(&self) -> Control {
        Control::of(&self.running, &self.socket)
    }

    #[track_caller]
    pub fn ask(&self, command: &str) -> Answer {
        self.control().ask(command)
    }

    pub fn write(&self, config: &str) {
        fs::write(self.dir.path().join("conf"), config).expect("a file");
    }

    /// Writes another configuration and reloads.
    #[track_caller]
    pub fn reload(&self, config: &str) -> Answer {
        self.write(config);
        self.ask("reload")
    }

    pub fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// What the next child that has a client answers with.
    #[track_caller]
    pub fn value(&self) -> String {
        let answer = Client::connect(self.addr).line("x");
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    }

    /// The pids of the children.
    pub fn children(&self) -> Vec<i32> {
        let mut children = self.running.children();
        children.sort_unstable();
        children
    }

    #[track_caller]
    pub fn wait_log(&self, pattern: &str) -> String {
        self.running.wait_for_stderr(pattern, DEADLINE)
    }

    /// Counts the lines of the log with this text.
    pub fn logged(&self, text: &str) -> usize {
        self.running.stderr_text().lines().filter(|line| line.contains(text)).count()
    }

    #[track_caller]
    pub fn wait_value(&self, value: &str) {
        wait_until(&format!("children that answer {value}"), DEADLINE, || (self.value() == value).then_some(()));
    }
}

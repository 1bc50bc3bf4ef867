//! A test program of the Daemon and all that it has said so far.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::{Client, DEADLINE, Program, Running, kill, test_program, wait_until};

/// What nothing takes unless something waits for what never comes.
pub const LONG: Duration = Duration::from_secs(20);

pub struct Lab {
    pub running: Running,
    /// `PID WHAT`, in the order in which they were written by whatever process.
    said: RefCell<Vec<String>>,
}

impl Lab {
    /// Starts a test program with blank-separated arguments.
    pub fn start(name: &str, args: &str) -> Lab {
        Lab::launch(Program::new(test_program(name)).args(args.split_whitespace()))
    }

    pub fn launch(program: Program) -> Lab {
        Lab { running: program.start(), said: RefCell::default() }
    }

    /// Starts the pre-forking program and waits until `children` of its children wait for work.
    pub fn pool(args: &str, children: usize) -> (Lab, SocketAddr) {
        let (lab, addr) = Lab::serve("daemon_prefork", args);
        wait_until("the pool", DEADLINE, || (lab.board().matches('w').count() == children).then_some(()));
        (lab, addr)
    }

    /// The same, for a program whose USR1 means something else.
    pub fn pool_by_signals(args: &str, children: usize) -> (Lab, SocketAddr) {
        let (lab, addr) = Lab::serve("daemon_prefork", args);
        lab.nth(children, "daemon_accept");
        (lab, addr)
    }

    /// Starts a test program that listens.
    pub fn serve(name: &str, args: &str) -> (Lab, SocketAddr) {
        let lab = Lab::start(name, args);
        let addr = lab.running.listening_addr();
        (lab, addr)
    }

    pub fn pid(&self) -> i32 {
        self.running.pid()
    }

    /// Asks `find` again with each line that comes, until it finds something in all that was said.
    #[track_caller]
    pub fn find<T>(&self, what: &str, find: impl Fn(&[String]) -> Option<T>) -> T {
        let give_up = Instant::now() + LONG;
        loop {
            if let Some(found) = find(&self.said.borrow()) {
                return found;
            }
            let line = self.running.try_next_line(give_up.saturating_duration_since(Instant::now()));
            let Some(line) = line else { panic!("waited in vain for {what}") };
            self.said.borrow_mut().push(line);
        }
    }

    /// Waits for a line of `pid` that is `what`.
    #[track_caller]
    pub fn expect(&self, pid: i32, what: &str) {
        let line = format!("{pid} {what}");
        self.find(&line, |said| said.contains(&line).then_some(()));
    }

    /// Waits for the `number`th line of whatever process that begins with `what`; returns its pid and the rest.
    #[track_caller]
    pub fn nth(&self, number: usize, what: &str) -> (i32, String) {
        self.find(&format!("{what} ({number})"), |said| {
            let mut hits =
                said.iter().filter_map(|line| line.split_once(' ')).filter(|(_, rest)| rest.starts_with(what));
            let (pid, rest) = hits.nth(number - 1)?;
            Some((pid.parse().ok()?, rest[what.len()..].trim().to_owned()))
        })
    }

    /// All that `pid` has said so far, in one line.
    pub fn story(&self, pid: i32) -> String {
        while let Some(line) = self.running.try_next_line(Duration::ZERO) {
            self.said.borrow_mut().push(line);
        }
        let said = self.said.borrow();
        let own = said.iter().filter_map(|line| line.strip_prefix(&format!("{pid} ")));
        own.filter(|what| *what != "answered").collect::<Vec<_>>().join(", ")
    }

    /// All lines so far, once there are no more to come.
    pub fn all(&self) -> Vec<String> {
        while let Some(line) = self.running.try_next_line(DEADLINE) {
            self.said.borrow_mut().push(line);
        }
        self.said.borrow().clone()
    }

    /// Sends USR1 and returns the next line of the parent that begins with `what`, without that.
    #[track_caller]
    pub fn ask(&self, what: &str) -> String {
        let (prefix, end) = (format!("{} {what}", self.pid()), format!("{} answered", self.pid()));
        let before = self.said.borrow().len();
        self.running.signal(Signal::SIGUSR1);
        self.find(what, |said| {
            // To the end of the answer: the next question must not find any of it.
            let answer = said[before..].iter().position(|line| *line == end)?;
            let line = said[before..][..answer].iter().find_map(|line| line.strip_prefix(&prefix))?;
            Some(line.trim_start().to_owned())
        })
    }

    /// The letters of the parent's board; for programs whose USR1 says so.
    #[track_caller]
    pub fn board(&self) -> String {
        let line = self.ask("board [");
        line.split_once(']').expect("the board ends").0.to_owned()
    }

    /// Waits until the board, without its empty slots and in alphabetical order, is `letters`.
    #[track_caller]
    pub fn wait_board(&self, letters: &str) {
        wait_until(&format!("a board of {letters:?}"), DEADLINE, || {
            let mut now: Vec<char> = self.board().chars().filter(|letter| *letter != ' ').collect();
            now.sort_unstable();
            (now.into_iter().collect::<String>() == letters).then_some(())
        });
    }

    /// Ends the program with `signal`, in order.
    #[track_caller]
    pub fn end(&mut self, signal: Signal) {
        self.running.signal(signal);
        self.expect_end();
    }

    /// Waits for the orderly end of the program, with all that came from it.
    #[track_caller]
    pub fn expect_end(&mut self) {
        self.expect_end_with(0);
    }

    /// The same, of a program that says by its exit code that it has failed.
    #[track_caller]
    pub fn expect_end_with(&mut self, code: i32) {
        let status = self.running.wait_exit(LONG);
        assert_eq!(status.code(), Some(code), "{status}");
        assert_eq!(self.running.descendants_alive(), [0; 0], "left behind");
    }

    /// Waits until none of `pids` is alive.
    #[track_caller]
    pub fn wait_gone(&self, pids: &[i32]) {
        self.running.wait_gone(pids, DEADLINE);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("said:\n{}", self.said.borrow().join("\n"));
        }
    }
}

/// Connects and has one line answered: returns the pid that did.
#[track_caller]
pub fn held(addr: SocketAddr) -> (Client, i32) {
    let mut client = Client::connect(addr);
    let pid = pid_of(&client.line("hello"));
    (client, pid)
}

/// The pid that an answer begins with.
#[track_caller]
pub fn pid_of(answer: &str) -> i32 {
    let pid = answer.split(' ').next().and_then(|pid| pid.parse().ok());
    pid.unwrap_or_else(|| panic!("{answer:?} begins with no pid"))
}

/// Has one line answered; returns the answer without the pid.
#[track_caller]
pub fn tell(client: &mut Client, line: &str) -> String {
    let answer = client.line(line);
    answer.split_once(' ').map(|(_, rest)| rest.to_owned()).unwrap_or_default()
}

#[track_caller]
pub fn send(pid: i32, signal: Signal) {
    kill(pid, signal).expect("a living process of ours");
}

/// A dump that came as one quoted line.
pub fn unquoted(text: &str) -> String {
    text.trim_matches('"').replace("\\n", "\n")
}

/// `text` with every number that is not part of a word made `N`.
pub fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '0'..='9' if out.ends_with('N') => {}
            '0'..='9' => out.push('N'),
            _ => out.push(c),
        }
    }
    out
}

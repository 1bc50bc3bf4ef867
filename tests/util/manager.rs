//! A service manager that listens, as systemd does for a unit with `Type=notify`.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::stat::fstat;
use nix::time::{ClockId, clock_gettime};
use tempfile::TempDir;

use super::{DEADLINE, Program, Running, kill, wait_until};

/// The manager's socket, with all that has come so far.
#[derive(Debug)]
pub struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    pub said: Vec<Datagram>,
    /// The descriptors that it keeps, by name.
    pub store: Vec<(String, OwnedFd)>,
    _dir: TempDir,
}

/// What has come in one piece.
#[derive(Clone, Debug)]
pub struct Datagram {
    pub at: Instant,
    /// The process that has sent it.
    pub pid: i32,
    pub text: String,
}

impl Datagram {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    }
}

impl Default for Manager {
    fn default() -> Manager {
        Manager::new()
    }
}

impl Manager {
    /// Binds a socket in a directory of its own.
    ///
    /// # Panics
    ///
    /// When that is not possible.
    #[track_caller]
    pub fn new() -> Manager {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_nonblocking(true).expect("a socket that does not block");
        setsockopt(&socket, sockopt::PassCred, &true).expect("to know who sends");
        Manager { socket, path, said: Vec::new(), store: Vec::new(), _dir: dir }
    }

    /// Has a program answer to it.
    pub fn starts(&self, program: Program) -> Program {
        program.env("NOTIFY_SOCKET", &self.path)
    }

    /// Has a program answer to it so often.
    pub fn watches(&self, program: Program, period: Duration) -> Program {
        self.starts(program).env("WATCHDOG_USEC", period.as_micros().to_string())
    }

    /// Takes what has come.
    pub fn hear(&mut self) {
        loop {
            let mut message = [0; 4096];
            let mut control = nix::cmsg_space!(nix::libc::ucred, [RawFd; MOST_DESCRIPTORS]);
            let mut parts = [IoSliceMut::new(&mut message)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let received = recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut control), flags);
            let Ok(received) = received else { return };
            let (mut sender, mut fds) = (0, Vec::new());
            for control in received.cmsgs().into_iter().flatten() {
                match control {
                    ControlMessageOwned::ScmCredentials(credentials) => sender = credentials.pid(),
                    ControlMessageOwned::ScmRights(numbers) => {
                        // SAFETY: it has just come, and nothing else owns it.
                        fds.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
                    }
                    _ => {}
                }
            }
            let length = received.bytes;
            let text = String::from_utf8_lossy(&message[..length]).into_owned();
            let datagram = Datagram { at: Instant::now(), pid: sender, text };
            self.take_descriptors(&datagram, fds);
            self.said.push(datagram);
        }
    }

    /// Descriptors come with a barrier, which is over when its own is closed, or are to be kept.
    fn take_descriptors(&mut self, datagram: &Datagram, fds: Vec<OwnedFd>) {
        let name = || datagram.get("FDNAME").expect("a name").to_owned();
        if datagram.text == "BARRIER=1" {
            assert_eq!(fds.len(), 1, "{datagram:?}");
        } else if datagram.get("FDSTORE") == Some("1") {
            assert!(fds.len() == 1 && datagram.get("FDPOLL") == Some("0"), "{datagram:?}");
            for fd in fds {
                // As systemd does.
                if !self.store.iter().any(|(_, kept)| is_one_file(kept, &fd)) {
                    self.store.push((name(), fd));
                }
            }
        } else {
            assert!(fds.is_empty(), "{datagram:?}");
        }
        if datagram.get("FDSTOREREMOVE") == Some("1") {
            let name = name();
            self.store.retain(|(kept, _)| *kept != name);
        }
    }

    /// Waits until it keeps descriptors of these names, and no others.
    #[track_caller]
    pub fn wait_for_store(&mut self, names: &[&str]) {
        wait_until(&format!("descriptors {names:?} in the store"), DEADLINE, || {
            self.hear();
            self.store.iter().map(|(name, _)| name.as_str()).eq(names.iter().copied()).then_some(())
        });
    }

    /// Starts a program again, as systemd does after a crash: with the descriptors that it keeps. `launcher` is `listen_launch`.
    pub fn starts_again(&self, launcher: Program, program: impl AsRef<Path>) -> Program {
        let mut launcher = self.starts(launcher);
        for (_, fd) in &self.store {
            let copy = fd.try_clone().expect("one more descriptor");
            launcher = launcher.arg("--fd").arg(copy.as_raw_fd().to_string()).inherits(copy);
        }
        let names: Vec<&str> = self.store.iter().map(|(name, _)| name.as_str()).collect();
        launcher.arg("--names").arg(names.join(":")).arg("--").arg(program.as_ref())
    }

    /// Waits until a datagram has this line, and returns the first that does.
    #[track_caller]
    pub fn wait_for(&mut self, line: &str) -> Datagram {
        self.wait_that(line, |datagram| datagram.text.lines().any(|found| found == line))
    }

    /// Waits for a datagram that fits, and returns the first that does.
    #[track_caller]
    pub fn wait_that(&mut self, what: &str, fits: impl Fn(&Datagram) -> bool) -> Datagram {
        wait_until(&format!("{what} for the service manager"), DEADLINE, || {
            self.hear();
            self.said.iter().find(|datagram| fits(datagram)).cloned()
        })
    }

    /// Has a program reload as systemd does for a unit with `Type=notify-reload`: by HUP, and waits until it says that it reloads, not
    /// before that, and then that it is ready. Returns what it has said then.
    #[track_caller]
    pub fn reload_by_signal(&mut self, running: &Running) -> Datagram {
        self.hear();
        let (before, begin) = (self.said.len(), monotonic_usec());
        running.signal(Signal::SIGHUP);
        let is_answer = |datagram: &Datagram| {
            let at = datagram.get("MONOTONIC_USEC").and_then(|text| text.parse::<u64>().ok());
            datagram.get("RELOADING") == Some("1") && at.is_some_and(|at| begin <= at && at <= monotonic_usec())
        };
        let said = |manager: &Manager, from: usize, fits: &dyn Fn(&Datagram) -> bool| {
            manager.said[from..].iter().position(fits).map(|place| from + place)
        };
        let place = wait_until("a reload that begins after it was asked for", DEADLINE, || {
            self.hear();
            said(self, before, &is_answer)
        });
        let place = wait_until("a reload that is over", DEADLINE, || {
            self.hear();
            said(self, place, &|datagram| datagram.get("READY") == Some("1"))
        });
        self.said[place].clone()
    }

    /// The messages about readiness so far, by their first keys, in order.
    pub fn course(&mut self) -> Vec<String> {
        self.hear();
        let key = |datagram: &Datagram| datagram.text.split('=').next().unwrap_or_default().to_owned();
        let is_told = |key: &String| ["READY", "RELOADING", "STOPPING", "MAINPID", "BARRIER"].contains(&key.as_str());
        self.said.iter().map(key).filter(is_told).collect()
    }

    /// How many datagrams have this line.
    pub fn count(&mut self, line: &str) -> usize {
        self.hear();
        self.said.iter().filter(|datagram| datagram.text.lines().any(|found| found == line)).count()
    }

    /// Looks for so long whether the program misses its watchdog, as a manager does that would kill it.
    ///
    /// Returns the longest time without a ping.
    pub fn longest_silence(&mut self, span: Duration) -> Duration {
        let begin = Instant::now();
        while begin.elapsed() < span {
            std::thread::sleep(Duration::from_millis(5));
            self.hear();
        }
        let pings = self.said.iter().filter(|datagram| datagram.text == "WATCHDOG=1").map(|datagram| datagram.at);
        let times: Vec<Instant> =
            [begin].into_iter().chain(pings.filter(|at| *at > begin)).chain([Instant::now()]).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

/// A program that the manager keeps alive, as systemd does with `WatchdogSec=` and `Restart=on-failure`: a program that is late with its
/// watchdog, or asks for that, is killed with all that came from it, and started again.
pub struct Service<'a> {
    pub manager: Manager,
    pub running: Running,
    /// Makes the program, for each start.
    program: Box<dyn FnMut() -> Program + 'a>,
    period: Duration,
    /// When the program that runs has said last that it lives. The watchdog's time begins when the program is ready.
    alive_at: Option<Instant>,
    /// How many datagrams were looked at.
    seen: usize,
    /// How each program has ended that was killed, in order.
    pub killed: Vec<ExitStatus>,
}

impl<'a> Service<'a> {
    /// Starts the program, whose watchdog has this period.
    #[track_caller]
    pub fn start(period: Duration, mut program: impl FnMut() -> Program + 'a) -> Service<'a> {
        let manager = Manager::new();
        let running = manager.watches(program(), period).start();
        let program = Box::new(program);
        Service { manager, running, program, period, alive_at: None, seen: 0, killed: Vec::new() }
    }

    /// Tells whether the program that runs has said that it is ready.
    pub fn is_ready(&self) -> bool {
        self.alive_at.is_some()
    }

    /// Looks after the program until this is so.
    #[track_caller]
    pub fn wait<T>(&mut self, what: &str, mut find: impl FnMut(&mut Service<'a>) -> Option<T>) -> T {
        wait_until(what, DEADLINE, || {
            self.look();
            find(self)
        })
    }

    /// Takes what has come, and kills the program if it is late.
    #[track_caller]
    fn look(&mut self) {
        self.manager.hear();
        let pid = self.running.pid();
        let mut asks_for_it = false;
        for datagram in self.manager.said[self.seen..].iter().filter(|datagram| datagram.pid == pid) {
            match datagram.get("WATCHDOG") {
                Some("trigger") => asks_for_it = true,
                Some(_) => self.alive_at = self.alive_at.map(|_| datagram.at),
                None if datagram.get("READY") == Some("1") => self.alive_at = Some(datagram.at),
                None => {}
            }
        }
        self.seen = self.manager.said.len();
        if asks_for_it || self.alive_at.is_some_and(|at| at.elapsed() > self.period) {
            self.start_again();
        }
    }

    /// By `WatchdogSignal=`. One that is stopped would not die of that, so it is continued.
    #[track_caller]
    fn start_again(&mut self) {
        self.running.signal(Signal::SIGABRT);
        self.running.signal(Signal::SIGCONT);
        self.killed.push(self.running.wait_exit(DEADLINE));
        self.alive_at = None;
        let left = self.running.descendants_alive();
        // They may have ended by themselves meanwhile.
        left.iter().for_each(|pid| _ = kill(*pid, Signal::SIGKILL));
        self.running.wait_gone(&left, DEADLINE);
        self.running = self.manager.watches((self.program)(), self.period).start();
    }
}

fn is_one_file(one: &OwnedFd, other: &OwnedFd) -> bool {
    let [one, other] = [one, other].map(|fd| fstat(fd).expect("it is open"));
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

/// What the clock shows by which systemd compares times.
pub fn monotonic_usec() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("there is a monotonic clock");
    u64::try_from(Duration::from(time).as_micros()).expect("not that old")
}

/// How many descriptors come with a datagram at most.
const MOST_DESCRIPTORS: usize = 8;

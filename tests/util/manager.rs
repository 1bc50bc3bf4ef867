//! A service manager that listens, as systemd does for a unit with `Type=notify`.

use std::io::IoSliceMut;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use tempfile::TempDir;

use super::{DEADLINE, Program, wait_until};

/// The manager's socket, with all that has come so far.
#[derive(Debug)]
pub struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    pub said: Vec<Datagram>,
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
        Manager { socket, path, said: Vec::new(), _dir: dir }
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
            let mut control = nix::cmsg_space!(nix::libc::ucred);
            let mut parts = [IoSliceMut::new(&mut message)];
            let received = recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
            let Ok(received) = received else { return };
            let sender = received.cmsgs().into_iter().flatten().find_map(|control| match control {
                ControlMessageOwned::ScmCredentials(credentials) => Some(credentials.pid()),
                _ => None,
            });
            let length = received.bytes;
            let text = String::from_utf8_lossy(&message[..length]).into_owned();
            self.said.push(Datagram { at: Instant::now(), pid: sender.unwrap_or_default(), text });
        }
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

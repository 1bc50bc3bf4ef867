//! A connection to the control socket, in the JSON dialect.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket};
use serde_json::{Value, json};

use crate::failure::{Failure, code};
use crate::process::Process;
use lenore::daemon::view::text;

/// A daemon that says hello within this time does not hang. A shorter `--timeout` leaves it less.
const HELLO: Duration = Duration::from_secs(2);

/// A connection on which the daemon has said hello.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<UnixStream>,
    /// The process that listens.
    pid: Option<i32>,
    /// When no answer is waited for any longer, whatever the limit of a command.
    deadline: Option<Instant>,
    /// What it has said.
    pub hello: Value,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum Unreachable {
    /// Nothing listens there.
    Dead(String),
    /// Something listens, and does not answer: the process that listens, if that is known.
    Hung { pid: Option<i32>, text: String },
    /// It lives, and has no place for one more client.
    Busy(String),
    /// This user may not connect, or gets no answers.
    Denied(String),
    /// What answers is not a daemon of a version that this command knows.
    Foreign(String),
}

impl From<Unreachable> for Failure {
    fn from(why: Unreachable) -> Failure {
        let (code, text) = match why {
            Unreachable::Dead(text) => (code::NO_DAEMON, text),
            Unreachable::Hung { text, .. } => (code::TIMEOUT, text),
            Unreachable::Busy(text) => (code::REFUSED, text),
            Unreachable::Denied(text) => (code::DENIED, text),
            Unreachable::Foreign(text) => (code::FAILED, text),
        };
        Failure::new(code, text)
    }
}

impl Client {
    /// Returns the daemon's process, if it can be seen from here.
    pub fn process(&self) -> Option<Process> {
        self.pid.and_then(Process::of)
    }

    /// Connects, and waits for the daemon's hello. What `--timeout` says ends at `deadline`.
    pub fn connect(socket: &Path, deadline: Option<Instant>) -> Result<Client, Unreachable> {
        let shown = socket.display();
        let patience = || deadline.map_or(HELLO, |deadline| until(deadline).min(HELLO));
        let stream = connect_within(socket, patience()).map_err(|errno| match errno {
            Errno::EACCES | Errno::EPERM => Unreachable::Denied(format!("{shown}: not permitted to connect")),
            Errno::EAGAIN => Unreachable::Hung { pid: None, text: format!("{shown}: the socket's queue is full") },
            errno => Unreachable::Dead(format!("{shown}: no daemon listens there ({})", errno.desc())),
        })?;
        let pid = getsockopt(&stream, PeerCredentials).ok().map(|peer| peer.pid());
        let hung = |what: &dyn std::fmt::Display| Unreachable::Hung { pid, text: format!("{shown}: {what}") };
        let mut client = Client { reader: BufReader::new(stream), pid, deadline, hello: Value::Null };
        let patience = patience();
        match client.ask(&json!({"command": "hello"}), Some(patience), |_| ()) {
            Ok(hello) => client.hello = hello,
            Err(failure) if failure.code == code::TIMEOUT => {
                return Err(hung(&format_args!(
                    "the daemon has not said hello in {}: it is stopped or hangs",
                    text::span(patience.as_secs_f64())
                )));
            }
            Err(failure) if failure.code == code::DENIED => {
                return Err(Unreachable::Denied(format!("{shown}: {failure}")));
            }
            Err(failure) if failure.code == code::NO_DAEMON => {
                return Err(Unreachable::Dead(format!("{shown}: {failure}")));
            }
            Err(failure) if failure.code == code::REFUSED => {
                return Err(Unreachable::Busy(format!("{shown}: {failure}")));
            }
            Err(failure) => return Err(Unreachable::Foreign(format!("{shown}: {failure}"))),
        }
        match client.hello["protocol"].as_u64() {
            Some(PROTOCOL) => Ok(client),
            other => Err(Unreachable::Foreign(format!(
                "{shown}: the daemon speaks protocol {}, this command {PROTOCOL}",
                other.map_or_else(|| "unknown".to_owned(), |number| number.to_string())
            ))),
        }
    }

    /// Gives a command, passes events on, and returns the data of the answer.
    pub fn ask(
        &mut self,
        command: &Value,
        limit: Option<Duration>,
        event: impl FnMut(Value),
    ) -> Result<Value, Failure> {
        self.ask_whole(command, limit, event).map(|mut answer| answer["data"].take())
    }

    /// Gives a command, passes events on, and returns the whole answer.
    pub fn ask_whole(
        &mut self,
        command: &Value,
        limit: Option<Duration>,
        mut event: impl FnMut(Value),
    ) -> Result<Value, Failure> {
        let deadline = limit.map(|limit| Instant::now() + limit).into_iter().chain(self.deadline).min();
        let stream = self.reader.get_mut();
        let _ = stream.set_write_timeout(Some(deadline.map_or(HELLO, |deadline| until(deadline).max(SHORTEST))));
        // A daemon that refuses a client says why and hangs up, and may have done so by now: what it has said is read in any case.
        let _ = stream.write_all(format!("{command}\n").as_bytes());
        loop {
            let line = self.read_line(deadline)?;
            let answer: Value = serde_json::from_str(&line).map_err(|_| {
                Failure::new(code::FAILED, format_args!("the process that answers is not a lenore daemon: {line:?}"))
            })?;
            if answer["final"] != json!(true) {
                event(answer);
                continue;
            }
            if answer["ok"] == json!(true) {
                return Ok(answer);
            }
            let word = answer["code"].as_str().unwrap_or("failed");
            let last_words = answer["last_words"]
                .as_str()
                .map(|words| words.lines().map(text::harmless).collect::<Vec<_>>().join("\n"));
            let failure = Failure::answered(word, answer["text"].as_str().unwrap_or_default());
            return Err(Failure { last_words, ..failure });
        }
    }

    fn read_line(&mut self, deadline: Option<Instant>) -> Result<String, Failure> {
        let mut line = Vec::new();
        loop {
            let left = deadline.map(until);
            if left.is_some_and(|left| left.is_zero()) {
                return Err(Failure::new(code::TIMEOUT, "the daemon did not answer in time"));
            }
            let _ = self.reader.get_ref().set_read_timeout(left);
            match self.reader.read_until(b'\n', &mut line) {
                Ok(_) if line.last() == Some(&b'\n') => {
                    let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                    // A daemon that has not read a line does not know the dialect.
                    if let Some(refusal) = text.strip_prefix("ERR ") {
                        let (word, text) = refusal.split_once(' ').unwrap_or((refusal, ""));
                        return Err(Failure::answered(word, text));
                    }
                    return Ok(text);
                }
                Ok(_) => return Err(Failure::new(code::NO_DAEMON, "the daemon has closed the connection")),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {
                }
                Err(error) => {
                    return Err(Failure::new(code::NO_DAEMON, format_args!("the connection is lost: {error}")));
                }
            }
        }
    }
}

/// How long it is until then; nothing if that has passed.
fn until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// Connects, and waits for room in the queue of a daemon that is slow to accept: a blocking socket would wait for ever.
fn connect_within(path: &Path, limit: Duration) -> Result<UnixStream, Errno> {
    let address = UnixAddr::new(path)?;
    let deadline = Instant::now() + limit;
    loop {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        match connect(socket.as_raw_fd(), &address) {
            Ok(()) => {
                let stream = UnixStream::from(socket);
                let is_blocking = stream.set_nonblocking(false);
                return is_blocking
                    .map(|()| stream)
                    .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)));
            }
            Err(Errno::EAGAIN) if Instant::now() < deadline => std::thread::sleep(CONNECT_AGAIN),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// What a socket takes for a limit at the least.
const SHORTEST: Duration = Duration::from_millis(1);

/// How long a full queue gets until it is tried again. The system does not tell when there is room.
const CONNECT_AGAIN: Duration = Duration::from_millis(20);

/// The version of the protocol that this command speaks.
const PROTOCOL: u64 = 1;

//! A client of the control socket, every step of which has a deadline.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use lenore::daemon::view::Snapshot;

use tempfile::TempDir;

use super::{Client, DEADLINE, Program, Running, test_program, wait_until};

/// One connection, which may ask several times.
#[derive(Debug)]
pub struct Control {
    stream: BufReader<UnixStream>,
}

/// One answer to a line of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// All lines but the last.
    pub body: String,
    /// The last line.
    pub last: String,
}

impl Answer {
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.last.starts_with("OK"), "{self:?}");
        self.body
    }

    /// The code of an answer that says no.
    #[track_caller]
    pub fn code(&self) -> &str {
        assert!(self.last.starts_with("ERR "), "{self:?}");
        self.last.split(' ').nth(1).unwrap_or_default()
    }
}

impl Control {
    #[track_caller]
    pub fn connect(path: impl AsRef<Path>) -> Control {
        let path = path.as_ref();
        match Control::try_connect(path) {
            Ok(control) => control,
            Err(error) => panic!("cannot connect to {}: {error}", path.display()),
        }
    }

    pub fn try_connect(path: impl AsRef<Path>) -> io::Result<Control> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Control { stream: BufReader::new(stream) })
    }

    /// Waits for a program's socket.
    #[track_caller]
    pub fn of(running: &Running, path: &Path) -> Control {
        let what = format!("a socket at {}; the program says: {}", path.display(), running.stderr_text());
        wait_until(&what, DEADLINE, || Control::try_connect(path).ok())
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        if let Err(error) = self.stream.get_mut().write_all(bytes.as_ref()) {
            panic!("cannot send: {error}");
        }
    }

    /// Reads one line without its end; `None` at the end of the connection.
    #[track_caller]
    pub fn read_line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(line.trim_end_matches('\n').to_owned()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("no line came: {error}"),
        }
    }

    /// Reads an answer in text.
    #[track_caller]
    pub fn read_answer(&mut self) -> Answer {
        let mut body = String::new();
        loop {
            let Some(line) = self.read_line() else { panic!("the connection ended within an answer: {body}") };
            if line.starts_with("OK") || line.starts_with("ERR") {
                return Answer { body, last: line };
            }
            body.push_str(&line);
            body.push('\n');
        }
    }

    /// Asks in text.
    #[track_caller]
    pub fn ask(&mut self, command: &str) -> Answer {
        self.send(format!("{command}\n"));
        self.read_answer()
    }

    /// Asks in JSON, and returns the last object.
    #[track_caller]
    pub fn ask_json(&mut self, command: &str) -> serde_json::Value {
        self.send(format!("{command}\n"));
        loop {
            let Some(line) = self.read_line() else { panic!("the connection ended within an answer to {command}") };
            let object: serde_json::Value = match serde_json::from_str(&line) {
                Ok(object) => object,
                Err(error) => panic!("not JSON: {error}: {line}"),
            };
            if object["final"] == true {
                return object;
            }
        }
    }

    /// Asks for the whole service.
    #[track_caller]
    pub fn status(&mut self) -> Snapshot {
        let answer = self.ask_json(r#"{"command":"status"}"#);
        assert_eq!(answer["ok"], true, "{answer}");
        match serde_json::from_value(answer["data"].clone()) {
            Ok(snapshot) => snapshot,
            Err(error) => panic!("not a snapshot: {error}: {answer}"),
        }
    }

    /// Waits until the service looks like that.
    #[track_caller]
    pub fn wait_status<T>(&mut self, what: &str, mut find: impl FnMut(&Snapshot) -> Option<T>) -> T {
        wait_until(what, DEADLINE, || find(&self.status()))
    }

    pub fn stream(&self) -> &UnixStream {
        self.stream.get_ref()
    }
}

/// The lines that the log has of a command, of which there is at least one: a thread of the test reads the log.
#[track_caller]
pub fn audit(running: &Running, command: &str) -> Vec<String> {
    let wanted = format!("control: command={command:?} ");
    wait_until(&format!("a line with {wanted}"), DEADLINE, || {
        let log = running.stderr_text();
        let lines = log.split_inclusive('\n').filter(|line| line.contains(&wanted) && line.ends_with('\n'));
        let lines: Vec<String> = lines.map(|line| line.trim_end().to_owned()).collect();
        (!lines.is_empty()).then_some(lines)
    })
}

/// A `daemon_control` with a control socket in a directory of its own.
#[derive(Debug)]
pub struct Steered {
    // First: it is ended before the directory goes.
    pub running: Running,
    pub dir: TempDir,
    pub path: PathBuf,
    pub addr: SocketAddr,
}

impl Steered {
    /// Starts the program with blank-separated arguments, of which `DIR` is the directory, and waits until it listens.
    #[track_caller]
    pub fn start(args: &str) -> Steered {
        Steered::start_with(args, |program| program)
    }

    /// The same, for a program that something else is set of.
    #[track_caller]
    pub fn start_with(args: &str, set: impl FnOnce(Program) -> Program) -> Steered {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("control.sock");
        let program = Program::new(test_program("daemon_control")).arg("--control").arg(&path);
        let args = args.replace("DIR", dir.path().to_str().expect("a path that is text"));
        let running = set(program.args(args.split_whitespace())).start();
        let log = dir.path().join("log");
        let addr = if args.contains("--dir") { logged_addr(&log) } else { running.listening_addr() };
        Steered { running, dir, path, addr }
    }

    /// The same for a pool of so many children that all wait for clients.
    #[track_caller]
    pub fn pool(children: u32, args: &str) -> Steered {
        Steered::pool_with(children, args, |program| program)
    }

    /// The same, for a program that something else is set of.
    #[track_caller]
    pub fn pool_with(children: u32, args: &str, set: impl FnOnce(Program) -> Program) -> Steered {
        let size = format!("--max {children} --min-spare {children} --max-spare {children}");
        let steered = Steered::start_with(&format!("--mode prefork:{children} {size} {args}"), set);
        steered
            .control()
            .wait_status("a pool that waits", |status| (status.pool.states.idle == children).then_some(()));
        steered
    }

    pub fn pid(&self) -> i32 {
        self.running.pid()
    }

    /// A client of a child that stays busy until [`open`](Steered::open): the child's pid, and the client, who is answered then.
    #[track_caller]
    pub fn occupy(&self) -> (i32, Client) {
        fs::write(self.gate(), "").expect("a file");
        let mut client = Client::connect(self.addr);
        let answer = client.line("hello");
        let pid = answer.split(' ').next().and_then(|pid| pid.parse().ok()).expect("a pid");
        client.send(format!("gate {}\r\n", self.gate().display()));
        (pid, client)
    }

    /// Lets all children go on that are busy.
    #[track_caller]
    pub fn open(&self) {
        fs::remove_file(self.gate()).expect("it was there");
    }

    fn gate(&self) -> PathBuf {
        self.dir.path().join("gate")
    }

    #[track_caller]
    pub fn control(&self) -> Control {
        Control::of(&self.running, &self.path)
    }
}

/// Where a program listens whose standard output is a file.
#[track_caller]
fn logged_addr(log: &Path) -> SocketAddr {
    wait_until("a log that says where it listens", DEADLINE, || {
        let text = fs::read_to_string(log).ok()?;
        let (_, rest) = text.split_once("listening on ")?;
        rest.split_once('\n')?.0.parse().ok()
    })
}

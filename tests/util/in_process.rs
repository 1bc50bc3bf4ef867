//! Helpers for tests whose kernel runs in the test process itself.

use std::cell::RefCell;
use std::fmt::Display;
use std::io::{self, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::process;
use std::rc::Rc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use lenore::Kernel;
use lenore::filter::{Filter, FilterError, Line};

use super::{DEADLINE, wait_until};

/// What sessions have to say, in the order in which they said it. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    /// Appends one entry.
    pub fn push(&self, entry: impl Display) {
        self.0.borrow_mut().push(entry.to_string());
    }

    /// All entries so far, in one line.
    pub fn text(&self) -> String {
        self.0.borrow().join(" ")
    }

    /// How many entries equal `entry`.
    pub fn count(&self, entry: &str) -> usize {
        self.0.borrow().iter().filter(|other| *other == entry).count()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes all entries out.
    pub fn take(&self) -> Vec<String> {
        self.0.take()
    }
}

/// Ends the whole test run if it is not dropped in time: a kernel that waits for what never comes can't be stopped from
/// outside.
pub struct Watchdog(#[expect(dead_code, reason = "its drop is the signal")] Sender<()>);

impl Watchdog {
    /// Starts to watch the running test.
    pub fn start() -> Watchdog {
        let name = thread::current().name().unwrap_or("a test").to_owned();
        Watchdog::over(name, DEADLINE)
    }

    /// Starts to watch what is called `name`, which has so much time.
    pub fn over(name: String, span: Duration) -> Watchdog {
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            if receiver.recv_timeout(span) == Err(RecvTimeoutError::Timeout) {
                // Not through `eprintln`, which the harness captures and would lose.
                let _ = writeln!(io::stderr(), "{name} hangs: its kernel has not come back for {span:?}");
                process::exit(101);
            }
        });
        Watchdog(sender)
    }
}

/// A kernel of the test's own.
pub fn kernel() -> Kernel {
    Kernel::new().expect("a kernel can be made")
}

/// Runs the kernel to its end, in time.
///
/// # Panics
///
/// When `run` fails.
#[track_caller]
pub fn run(kernel: &mut Kernel) {
    let _watchdog = Watchdog::start();
    if let Err(error) = kernel.run() {
        panic!("run failed: {error}");
    }
}

/// Runs `slices` slices.
///
/// # Panics
///
/// When one of them fails.
#[track_caller]
pub fn run_slices(kernel: &mut Kernel, slices: usize) {
    let _watchdog = Watchdog::start();
    for _ in 0..slices {
        if let Err(error) = kernel.run_one_timeslice() {
            panic!("a slice failed: {error}");
        }
    }
}

/// Runs slices until `done`.
///
/// # Panics
///
/// When a slice fails, or no session is left.
#[track_caller]
pub fn run_until(kernel: &mut Kernel, mut done: impl FnMut() -> bool) {
    let _watchdog = Watchdog::start();
    while !done() {
        match kernel.run_one_timeslice() {
            Ok(true) => {}
            Ok(false) => panic!("every session ended before what the test waits for"),
            Err(error) => panic!("a slice failed: {error}"),
        }
    }
}

/// A line filter that panics: on a chunk that begins with "poison", and on the record "panic".
pub struct Fragile(pub Line);

impl Filter for Fragile {
    type Input = String;
    type Output = str;

    fn get_one_start(&mut self, chunk: &[u8]) -> Result<(), FilterError> {
        assert!(!chunk.starts_with(b"poison"), "poisoned");
        self.0.get_one_start(chunk)
    }

    fn get_one(&mut self) -> Result<Option<String>, FilterError> {
        let record = self.0.get_one()?;
        assert!(record.as_deref() != Some("panic"), "on purpose");
        Ok(record)
    }

    fn put(&mut self, record: &str, out: &mut Vec<u8>) -> Result<(), FilterError> {
        self.0.put(record, out)
    }

    fn get_pending(&self) -> &[u8] {
        self.0.get_pending()
    }

    fn clone_config(&self) -> Self {
        Fragile(self.0.clone_config())
    }
}

/// What a filter does with each record, for ever.
#[derive(Clone, Copy, PartialEq)]
pub enum Habit {
    /// With an error.
    Refuses,
    /// As its name says.
    Panics,
    /// With a panic, and so it answers every other question about its input.
    Breaks,
    /// With an error, and it can't be cloned either.
    Clings,
    /// Records.
    Yields,
}

/// A filter that never takes any of its input.
pub struct Stubborn(pub Vec<u8>, pub Habit);

impl Filter for Stubborn {
    type Input = String;
    type Output = str;

    fn get_one_start(&mut self, chunk: &[u8]) -> Result<(), FilterError> {
        self.0.extend_from_slice(chunk);
        Ok(())
    }

    fn get_one(&mut self) -> Result<Option<String>, FilterError> {
        match self.1 {
            _ if self.0.is_empty() => Ok(None),
            Habit::Refuses | Habit::Clings => Err(FilterError::Malformed { reason: "I won't".into() }),
            Habit::Panics | Habit::Breaks => panic!("I can't"),
            Habit::Yields => Ok(Some("once more".into())),
        }
    }

    fn put(&mut self, _: &str, _: &mut Vec<u8>) -> Result<(), FilterError> {
        Ok(())
    }

    fn get_pending(&self) -> &[u8] {
        assert!(self.1 != Habit::Breaks || self.0.is_empty(), "I can't say");
        &self.0
    }

    fn clone_config(&self) -> Self {
        assert!(!matches!(self.1, Habit::Breaks | Habit::Clings) || self.0.is_empty(), "there is only one of me");
        Stubborn(Vec::new(), self.1)
    }
}

/// Waits until an address refuses connections, as its listener is closed. A program that another test starts may have the
/// listener open until its own exec, and another test may get the port.
///
/// # Panics
///
/// When connections are not refused in time.
#[track_caller]
pub fn wait_refused(address: impl ToSocketAddrs + Copy) {
    wait_until("a listener that is closed", DEADLINE, || {
        TcpStream::connect(address).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused).then_some(())
    });
}

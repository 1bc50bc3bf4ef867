//! A test in a process of its own.

use std::cell::Cell;
use std::env;
use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::supervisor::{FAILED, PASSED, is_in_process, supervise};
use crate::error::Error;
use crate::sys::fork::{Side, fork};
use crate::sys::wait::{reap, wait_for_end};

/// Runs a test in a process of its own, for up to 60 s.
///
/// A test that forks can't run in the test harness, because the harness has many threads, and lenore does not fork a
/// process with more than one. The process in which `body` runs has one thread. No other test runs in it, so a test may
/// also change what belongs to a process: signals, the working directory, limits, environment variables.
///
/// ```
/// use std::process::ExitStatus;
/// use lenore::{Error, Kernel, Session};
/// use lenore::testing::{Sequence, in_process};
///
/// # /*
/// #[test]
/// # */
/// fn child_reports_its_exit_status() {
///     in_process(|| {
///         let log = Sequence::new();
///         let mut kernel = Kernel::new().unwrap();
///         Session::new(log.clone())
///             .state("_start", |cx| cx.fork("forked", "in_child", ()))
///             .state("forked", |cx| {
///                 let pid = cx.take::<Result<i32, Error>>(0)??;
///                 cx.sig_child(pid, "ended", ());
///                 Ok(())
///             })
///             .state("in_child", |_| -> () { std::process::exit(3) })
///             .state("ended", |cx| {
///                 let status: ExitStatus = cx.take(2)?;
///                 cx.heap().note(status);
///                 Ok(())
///             })
///             .spawn(&mut kernel)
///             .unwrap();
///         kernel.run().unwrap();
///         log.expect(["exit status: 3"]);
///     });
/// }
/// # child_reports_its_exit_status();
/// ```
///
/// # How it works
///
/// `in_process` starts the test program once more, for this one test. So the test has to call `in_process` itself, in
/// its own thread. In the new process the same call forks a child, and runs `body` in that child. Earlier calls in the
/// same test do nothing there. In a program without a test harness, such as an example in documentation, `in_process`
/// forks the process directly. Only `body` should have effects, because the code before the call runs in each of these
/// processes.
///
/// A child that `body` forks is part of the test if it goes on to the end of `body`. If the child panics there, the
/// test fails.
///
/// When `body` is over, the processes that it started have 5 s to end. Then `in_process` kills those that are left,
/// even if they have detached from everything, and the test fails with a text that names them. It also kills them when
/// the test takes too long, and when the test program is killed.
///
/// # Panics
///
/// When `body` panics, in any process; when its process exits, or is killed, before `body` returns; when it takes longer
/// than 60 s; when it leaves processes behind; when the process can't be made. The text has all that the process has printed.
///
/// POE: nothing like it.
#[track_caller]
pub fn in_process(body: impl FnOnce()) {
    in_process_within(LIMIT, body);
}

/// Does what [`in_process`] does, for up to `limit`.
///
/// # Panics
///
/// As [`in_process`].
#[track_caller]
pub fn in_process_within(limit: Duration, body: impl FnOnce()) {
    assert!(!is_in_process(), "`in_process` was called inside of `in_process`: a test has one process of its own");
    let name = thread::current().name().map(str::to_owned);
    let call = CALLS.replace(CALLS.get() + 1);
    let wanted = env::var(VARIABLE).ok();
    match (wanted.as_deref().map(Wanted::read), name) {
        (Some(Some(wanted)), name) if name.as_deref() == Some(wanted.name) => {
            if wanted.call == call {
                supervise(wanted.starter, limit, VARIABLE, body)
            }
            // A test may call `in_process` several times. This process was started for another of the calls.
        }
        (Some(_), name) => panic!("`in_process` was called by {name:?} in the process of another test: {wanted:?}"),
        // There is no harness: tests have threads of their own.
        (None, name) if name.as_deref() == Some("main") => fork_directly(limit, body),
        (None, Some(name)) => start_again(&name, call, limit),
        (None, None) => panic!("`in_process` has to be called by the test itself, and not in another thread"),
    }
}

thread_local! {
    /// How many times this thread has called `in_process`.
    static CALLS: Cell<u32> = const { Cell::new(0) };
}

/// For which call a process was started.
struct Wanted<'a> {
    starter: i32,
    call: u32,
    name: &'a str,
}

impl Wanted<'_> {
    /// Reads the value of the variable.
    fn read(value: &str) -> Option<Wanted<'_>> {
        let (starter, rest) = value.split_once(' ')?;
        let (call, name) = rest.split_once(' ')?;
        Some(Wanted { starter: starter.parse().ok()?, call: call.parse().ok()?, name })
    }
}

/// Forks the process, whose output is not caught.
#[track_caller]
fn fork_directly(limit: Duration, body: impl FnOnce()) {
    let starter = std::process::id();
    match fork().map_err(Error::from) {
        Ok(Side::Child) => supervise(starter as i32, limit, VARIABLE, body),
        Ok(Side::Parent(pid)) => {
            let _ = wait_for_end(pid.as_raw());
            let status = reap(pid.as_raw()).ok().flatten();
            assert!(
                status.is_some_and(|status| status.code() == Some(PASSED)),
                "the process of the test has failed: {status:?}"
            );
        }
        Err(error) => panic!("can't make a process for the test: {error}"),
    }
}

/// Runs the test again in a new process of the test program.
#[track_caller]
fn start_again(name: &str, call: u32, limit: Duration) {
    let (status, output) = match run_again(name, call, limit) {
        Ok(outcome) => outcome,
        Err(error) => panic!("can't make a process for the test {name}: {error}"),
    };
    let output = String::from_utf8_lossy(&output);
    // What the harness itself has to say.
    let output = output.trim_start().trim_start_matches("running 1 test\n");
    let output = output.trim_start_matches(&format!("test {name} ... "));
    match status.and_then(|status| status.code()) {
        // For `--nocapture`, and for a test that fails later.
        Some(PASSED) => print!("{output}"),
        Some(0) if output.contains("running 0 tests") => {
            panic!("`in_process` has to be called by the test itself, in its own thread: there is no test {name}")
        }
        Some(FAILED) => panic!("the test has failed in a process of its own, which has printed:\n{output}"),
        _ => {
            let end = status.map_or("it does not end".into(), |status| status.to_string());
            panic!("the process of the test has failed: {end}. It has printed:\n{output}")
        }
    }
}

/// Returns how the new process has ended, if it has, and what came from it.
fn run_again(name: &str, call: u32, limit: Duration) -> io::Result<(Option<ExitStatus>, Vec<u8>)> {
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new(env::current_exe()?);
    command.args([name, "--exact", "--include-ignored", "--nocapture", "--test-threads=1"]);
    command.env(VARIABLE, format!("{} {call} {name}", std::process::id()));
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn()?;
    // With it go the write ends, so that the output ends with the process.
    drop(command);
    let output = read_until(reader, Instant::now() + limit + SPARE)?;
    match output {
        (output, true) => Ok((Some(child.wait()?), output)),
        (output, false) => {
            child.kill()?;
            child.wait()?;
            Ok((None, output))
        }
    }
}

/// Reads to the end, or until it is too late. Tells which.
fn read_until(reader: PipeReader, give_up: Instant) -> io::Result<(Vec<u8>, bool)> {
    let mut reader = File::from(OwnedFd::from(reader));
    let (mut output, mut chunk) = (Vec::new(), [0; 8192]);
    loop {
        let left = give_up.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(reader.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => return Ok((output, false)),
            Err(Errno::EINTR) => continue,
            polled => polled?,
        };
        match reader.read(&mut chunk)? {
            0 => return Ok((output, true)),
            count => output.extend_from_slice(&chunk[..count]),
        }
    }
}

/// How long a test may take.
const LIMIT: Duration = Duration::from_secs(60);

/// By how much longer the process of the test may take, which sees to the limit itself.
const SPARE: Duration = Duration::from_secs(30);

/// Says in the new process which process has started it, for which call, and for which test.
const VARIABLE: &str = "LENORE_TEST_PROCESS";

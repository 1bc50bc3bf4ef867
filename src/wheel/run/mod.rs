//! `Run`: a child process, and the records that the session exchanges with it.

use std::cell::RefCell;
use std::fmt;
use std::process::ExitStatus;
use std::rc::Rc;
use std::str::FromStr;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::{Put, WheelId};
use crate::error::Error;
use crate::filter::{AsRecord, Filter, Line};
use crate::kernel::{Kernel, Process};
use crate::name::Name;
use crate::wheel::stream::outbox::OutputEvents;

mod account;
mod builder;
mod conduit;
mod function;
mod owned;
mod reader;
mod redirect;
mod shared;
mod streams;
#[cfg(feature = "pty")]
mod terminal;
mod writer;

pub use builder::RunBuilder;
pub use conduit::Conduit;
pub use redirect::Redirect;
#[cfg(feature = "pty")]
pub use terminal::Winsize;

use owned::Owned;
use reader::Reader;
use shared::Shared;

/// A wheel that runs a program, or a function, in a child process, and exchanges records with it.
///
/// [`program`](Run::program) executes a list of words. [`shell`](Run::shell) has the shell run a text.
/// [`command`](Run::command) takes a [`std::process::Command`]. [`function`](Run::function) runs a function of this
/// program. Each returns a [`RunBuilder`], which sets where the child's standard streams lead.
///
/// | event | arguments |
/// | --- | --- |
/// | stdout, stderr | ARG0 = the record, ARG1 = the [`WheelId`] |
/// | refused | ARG0 = the [`FilterError`](crate::filter::FilterError), ARG1 = the [`WheelId`], ARG2 = the stream |
/// | stdin | ARG0 = the [`WheelId`]. Everything put has been written. |
/// | high, low | ARG0 = the [`WheelId`]. The output has reached one of the [`watermarks`](RunBuilder::watermarks). |
/// | close | ARG0 = the [`WheelId`]. The last of the watched output streams has ended. |
/// | exit | ARG0 = `"CHLD"`, ARG1 = the pid (`i32`), ARG2 = the [`ExitStatus`], ARG3 = the [`WheelId`] |
/// | error | ARG0 = a [`Failure`](super::Failure). Subject: `"STDIN"`, `"STDOUT"`, `"STDERR"`, or empty for `"fork"`. |
///
/// The end of an output stream is an error event, `"read"` with errno 0, or with `EIO` for a terminal. A process may
/// end before the wheel has read its output, or go on after it has closed its output. A session that needs both waits
/// for the close event and the exit event, which come in either order.
///
/// Streams that lead to the wheel are pipes by default. [`conduit`](RunBuilder::conduit) makes them a socket, or with
/// the feature `pty` a pseudo-terminal.
///
/// The child leads its own process group, unless [`keep_process_group`](RunBuilder::keep_process_group) is set. Signals
/// have their default actions there, and none is blocked. A program inherits no descriptors except its standard
/// streams. A [function](Run::function) also keeps the files that this program has open. The kernel always reaps the
/// child, even after the wheel is dropped.
///
/// Dropping the wheel closes its ends of the pipes. [`on_drop`](RunBuilder::on_drop) sets what happens to the process.
/// By default it runs on. In a forked child of the program, the copy of the wheel does nothing. Its pipes are closed,
/// and [`kill`](Run::kill) refuses.
///
/// ```
/// use std::process::ExitStatus;
/// use lenore::wheel::Run;
/// use lenore::{Kernel, Session};
///
/// # fn main() -> Result<(), lenore::Error> {
/// let mut kernel = Kernel::new()?;
/// Session::new(None::<Run>)
///     .state("_start", |cx| {
///         let sort = Run::program(["sort", "-r"]).on_stdout("sorted").on_exit("ended").start(cx)?;
///         sort.put("apple");
///         sort.put("pear");
///         sort.shutdown_stdin_after_flush();
///         *cx.heap() = Some(sort);
///         Ok(())
///     })
///     .state("sorted", |cx| {
///         println!("{}", cx.take::<String>(0)?); // pear, then apple
///         Ok(())
///     })
///     .state("ended", |cx| {
///         assert!(cx.take::<ExitStatus>(2)?.success());
///         Ok(())
///     })
///     .spawn(&mut kernel)?;
/// kernel.run()
/// # }
/// ```
///
/// POE: `POE::Wheel::Run`.
#[must_use = "a wheel that is dropped is closed: keep it in the heap"]
pub struct Run<I: Filter = Line, O: Filter = Line, E: Filter = Line> {
    owned: Owned,
    stdin_filter: RefCell<I>,
    /// The reader has it too, without its type. It has no use if the stream is not a pipe.
    stdout_filter: Rc<RefCell<O>>,
    stderr_filter: Rc<RefCell<E>>,
}

/// One of the events of a [`Run`], for [`Run::event`] and [`Run::event_clear`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RunEvent {
    /// Everything put has been written to the child. POE: `StdinEvent`.
    Stdin,
    /// A record has come from standard output. POE: `StdoutEvent`.
    Stdout,
    /// The output that waits for the child has reached the high mark. POE: nothing like it.
    High,
    /// That output has then drained to the low mark. POE: nothing like it.
    Low,
    /// A record has come from standard error. POE: `StderrEvent`.
    Stderr,
    /// An error has occurred, or an output stream has ended. POE: `ErrorEvent`.
    Error,
    /// The filter of an output stream has refused a record. POE: nothing like it.
    Refused,
    /// The last of the watched output streams has ended. POE: `CloseEvent`.
    Close,
}

/// What happens to the process when its [`Run`] is dropped.
///
/// POE: nothing like it. The process runs on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnDrop {
    /// The process runs on. A write to a closed pipe may kill it.
    #[default]
    Leave,
    /// The wheel sends `TERM` to the process group, or to the process alone if it does not lead a group.
    Terminate,
    /// The wheel sends `KILL` in the same way.
    Kill,
    /// The wheel sends `KILL`, and the drop waits up to 5 s until the process has ended. A process that hangs in a
    /// system call, as on a dead file server, may end later. The wheel then logs a warning, and the kernel reaps the
    /// process like any other.
    KillAndWait,
}

impl Run {
    /// Returns the builder of a wheel that runs a program. The first word is looked up in `PATH`, and the others are
    /// arguments.
    ///
    /// POE: `Program` as a list, with the `ProgramArgs` at its end.
    #[doc(alias("Program", "ProgramArgs"))]
    pub fn program<W: AsRef<std::ffi::OsStr>>(words: impl IntoIterator<Item = W>) -> RunBuilder {
        RunBuilder::program(words)
    }

    /// Returns the builder of a wheel that has `/bin/sh` run a text. Quote everything in the text that comes from
    /// outside the program.
    ///
    /// POE: `Program` as a string.
    pub fn shell(text: impl AsRef<std::ffi::OsStr>) -> RunBuilder {
        RunBuilder::program([std::ffi::OsStr::new("/bin/sh"), std::ffi::OsStr::new("-c"), text.as_ref()])
    }

    /// Returns the builder of a wheel that runs a command with its own environment, directory and so on. The wheel
    /// replaces the command's settings for standard streams.
    ///
    /// POE: nothing like it. Programs change `%ENV` and the directory for a moment.
    pub fn command(command: std::process::Command) -> RunBuilder {
        RunBuilder::command(command)
    }

    /// Returns the builder of a wheel that runs a function in a forked child.
    ///
    /// The kernel forks when the running state has returned, as [`Context::fork`](crate::Context::fork) does, and so
    /// refuses in a process with several threads. In the child, everything that the kernel watches is closed, and all
    /// signals have their default actions.
    ///
    /// The child exits with 0 when the function returns. When the function panics or returns an `Err`, the child prints
    /// a message to its standard error and exits with 255. The child flushes standard output, but runs none of the
    /// parent's destructors. Other files that the program has open stay open in the child.
    ///
    /// The child ends by `_exit`. So functions that a library registered with `atexit` before the fork do not run
    /// there, unless the function calls [`std::process::exit`] itself.
    ///
    /// When the session stops, its heap is dropped, and the wheel with it. By default the child runs on. To change
    /// that, set [`on_drop`](RunBuilder::on_drop).
    ///
    /// ```
    /// use lenore::wheel::{OnDrop, Run};
    /// use lenore::{Kernel, Session};
    ///
    /// /// Takes its time.
    /// fn count() -> u32 {
    ///     (1..=100).sum()
    /// }
    ///
    /// # fn main() -> Result<(), lenore::Error> {
    /// let mut kernel = Kernel::new()?;
    /// Session::new(None::<Run>)
    ///     .state("_start", |cx| {
    ///         let job = Run::function(|_| println!("{}", count())).on_stdout("counted").on_drop(OnDrop::KillAndWait);
    ///         *cx.heap() = Some(job.start(cx)?);
    ///         Ok(())
    ///     })
    ///     .state("counted", |cx| {
    ///         assert_eq!(cx.take::<String>(0)?, "5050");
    ///         *cx.heap() = None;
    ///         Ok(())
    ///     })
    ///     .spawn(&mut kernel)?;
    /// kernel.run()
    /// # }
    /// ```
    ///
    /// If the function needs an event loop, it first calls [`stop`](Kernel::stop) on its kernel. That stops the copies
    /// of the parent's sessions, and makes the process ignore `SIGPIPE` again. Then it creates a kernel of its own and
    /// calls [`run`](Kernel::run).
    ///
    /// POE: `Program` as a code reference, with `CloseOnCall`.
    #[doc(alias = "CloseOnCall")]
    pub fn function<R: crate::IntoReturn>(function: impl FnOnce(&mut Kernel) -> R + 'static) -> RunBuilder {
        RunBuilder::function(function)
    }
}

impl<I: Filter, O: Filter, E: Filter> Run<I, O, E> {
    /// Returns the id that the wheel's events carry.
    ///
    /// POE: `ID`.
    pub fn id(&self) -> WheelId {
        self.owned.shared.id
    }

    /// Returns the pid, or `None` if the fork for a function is still to come.
    ///
    /// The pid names the process until [`exit_status`](Run::exit_status) returns a status, or other code reaps the
    /// process.
    ///
    /// POE: `PID`.
    #[doc(alias = "PID")]
    pub fn pid(&self) -> Option<i32> {
        self.owned.shared.process.borrow().as_ref().map(Process::pid)
    }

    /// Returns how the process ended, or `None` until it is reaped.
    ///
    /// POE: nothing like it.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.owned.shared.process.borrow().as_ref().and_then(Process::status)
    }

    /// Appends a record to the child's input, and returns [whether the session should put more](Put). The wheel writes
    /// the record when the running state has returned, together with all other records put by then.
    ///
    /// `put` discards the record and returns [`Put::Closed`] if standard input does not lead to the wheel, if it was
    /// shut down, or if the child has closed it. When the filter refuses the record, the wheel sends an error event
    /// with the operation `"filter"`.
    ///
    /// POE: `put`, which raises an exception when standard input is closed.
    pub fn put(&self, record: impl AsRecord<I::Output>) -> Put {
        self.owned.stdin.as_ref().map_or(Put::Closed, |stdin| {
            stdin.put(|bytes| self.stdin_filter.borrow_mut().put(record.as_record(), bytes))
        })
    }

    /// Closes the child's standard input, and discards what is not written yet. A terminal stays open, so the child
    /// does not see an end of its input.
    ///
    /// POE: `shutdown_stdin`.
    pub fn shutdown_stdin(&self) {
        self.owned.stdin.iter().for_each(|stdin| stdin.shut_down());
    }

    /// Closes the child's standard input when everything put so far is written. The session can't put more. A terminal
    /// stays open.
    ///
    /// POE: nothing like it; `shutdown_stdin` in the StdinEvent.
    pub fn shutdown_stdin_after_flush(&self) {
        self.owned.stdin.iter().for_each(|stdin| stdin.shut_down_after_flush());
    }

    /// Changes the size of the child's terminal. The system sends `WINCH` to the terminal's foreground processes.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] with `ENOTTY` if the streams are not a terminal, or with `EBADF` if none of them leads to the
    /// wheel any more.
    ///
    /// POE: nothing like it; `Winsize` in `new` alone.
    #[cfg(feature = "pty")]
    pub fn set_winsize(&self, size: Winsize) -> Result<(), Error> {
        let (stdin, stdout) = (self.owned.stdin.as_ref(), self.owned.stdout.as_ref());
        let (input, output) = (stdin.map(|stdin| stdin.fd.borrow()), stdout.map(|stdout| stdout.fd.borrow()));
        let mut fds = [input, output].into_iter().flatten();
        let done = fds
            .find_map(|fd| fd.as_ref().map(|fd| fd.with_fd(|fd| crate::sys::terminal::set_size(fd, size.to_system()))));
        done.unwrap_or(Err(Errno::EBADF)).map_err(|errno| {
            Error::os("TIOCSWINSZ", format_args!("terminal of {}", self.owned.shared.describe_process()), errno)
        })
    }

    /// Returns how many bytes wait to be written.
    ///
    /// POE: `get_driver_out_octets`.
    #[doc(alias = "get_driver_out_octets")]
    #[doc(alias = "driver_out_octets")]
    pub fn pending_output(&self) -> usize {
        self.owned.stdin.as_ref().map_or(0, |stdin| stdin.outbox.len())
    }

    /// Returns how many records wait to be written, including one that is partly written.
    ///
    /// POE: `get_driver_out_messages`.
    #[doc(alias = "get_driver_out_messages")]
    pub fn driver_out_messages(&self) -> usize {
        self.owned.stdin.as_ref().map_or(0, |stdin| stdin.outbox.messages())
    }

    /// Stops reading and delivering the child's standard output at once. The event for the stream's end waits as well.
    ///
    /// POE: `pause_stdout`.
    pub fn pause_stdout(&self) {
        self.owned.stdout.iter().for_each(|stdout| stdout.paused.set(true));
    }

    /// Reads and delivers standard output again.
    ///
    /// POE: `resume_stdout`.
    pub fn resume_stdout(&self) {
        self.owned.stdout.iter().for_each(|stdout| stdout.resume());
    }

    /// Stops reading and delivering the child's standard error at once. The event for the stream's end waits as well.
    ///
    /// POE: `pause_stderr`.
    pub fn pause_stderr(&self) {
        self.owned.stderr.iter().for_each(|stderr| stderr.paused.set(true));
    }

    /// Reads and delivers standard error again.
    ///
    /// POE: `resume_stderr`.
    pub fn resume_stderr(&self) {
        self.owned.stderr.iter().for_each(|stderr| stderr.resume());
    }

    /// Sends a signal to the process, but not to its group. The name is as for [`Context::sig`](crate::Context::sig),
    /// such as `"TERM"`, or with the prefix, `"SIGTERM"`.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] with one of these:
    ///
    /// - `EINVAL` if there is no signal of that name
    /// - `ESRCH` if the process is not forked yet, has been reaped, or is a child of the process that this one was
    ///   forked from
    /// - `EPERM` if the process belongs to another user
    ///
    /// POE: `kill`, which signals `TERM` without an argument and returns 1 or 0.
    pub fn kill(&self, signal: impl Into<Name>) -> Result<(), Error> {
        self.signal(signal.into(), Process::kill)
    }

    /// Sends a signal to the process and to all others in its process group, such as programs that a shell has started.
    /// The name is as for [`kill`](Run::kill).
    ///
    /// # Errors
    ///
    /// As [`kill`](Run::kill), and also:
    ///
    /// - `EPERM` after [`keep_process_group`](RunBuilder::keep_process_group), because the group is then that of this
    ///   process
    /// - `ESRCH` if the process has been reaped, even if others of its group are left, because another group may have
    ///   got the number
    ///
    /// POE: `kill` with a negative signal, as in `kill(-9)`.
    pub fn kill_group(&self, signal: impl Into<Name>) -> Result<(), Error> {
        self.signal(signal.into(), |process, signal| self.owned.signal_group(process, signal))
    }

    fn signal(&self, name: Name, send: impl Fn(&Process, Signal) -> nix::Result<()>) -> Result<(), Error> {
        let bare = name.as_str().strip_prefix("SIG").unwrap_or(name.as_str());
        let signal = Signal::from_str(&format!("SIG{bare}"));
        let subject = || self.owned.shared.describe_process();
        let signal = signal.map_err(|errno| Error::os("kill", format_args!("{}: signal {name}", subject()), errno))?;
        let sent =
            self.owned.shared.process.borrow().as_ref().map_or(Err(Errno::ESRCH), |process| send(process, signal));
        sent.map_err(|errno| Error::os("kill", subject(), errno))
    }

    /// Changes the name of one of the wheel's events, or names an event that had no name. Records that the wheel has
    /// already read come under the new name, too.
    ///
    /// The stdout and stderr events have no effect for a stream that is not a pipe to the wheel.
    ///
    /// POE: `event`.
    pub fn event(&self, event: RunEvent, name: impl Into<Name>) {
        self.set_event(event, Some(name.into()));
    }

    /// Takes one of the wheel's events away. Without a stdout or stderr event the wheel does not read that stream,
    /// until it has an event again.
    ///
    /// POE: `event` with an undefined name.
    pub fn event_clear(&self, event: RunEvent) {
        self.set_event(event, None);
    }

    fn set_event(&self, event: RunEvent, name: Option<Name>) {
        match event {
            RunEvent::Stdin => self.set_stdin_events(|events| events.flushed = name),
            RunEvent::Error => self.owned.shared.on_error.set(name),
            RunEvent::Refused => self.owned.shared.refusals.set_event(name),
            RunEvent::Close => self.owned.shared.on_close.set(name),
            RunEvent::Stdout => self.owned.stdout.iter().for_each(|stdout| stdout.set_event(name)),
            RunEvent::High => self.set_stdin_events(|events| events.marks.high = name),
            RunEvent::Low => self.set_stdin_events(|events| events.marks.low = name),
            RunEvent::Stderr => self.owned.stderr.iter().for_each(|stderr| stderr.set_event(name)),
        }
    }

    fn set_stdin_events(&self, change: impl FnOnce(&mut OutputEvents)) {
        if let Some(stdin) = &self.owned.stdin {
            stdin.outbox.set_events(change);
        }
    }

    /// Replaces the filter for the child's input. Records already put stay as the old filter encoded them.
    ///
    /// POE: `set_stdin_filter`.
    pub fn set_stdin_filter(&self, filter: I) {
        self.stdin_filter.replace(filter);
    }

    /// Replaces the filter for the child's standard output. The new filter gets the bytes that the old one has not
    /// parsed.
    ///
    /// In the middle of a delivery, the next record already comes from the new filter. Otherwise the wheel delivers the
    /// new filter's records before it reads anything else.
    ///
    /// POE: `set_stdout_filter`, which delivers the same data twice.
    pub fn set_stdout_filter(&self, filter: O) {
        let old = self.stdout_filter.replace(filter);
        if let Some(stdout) = &self.owned.stdout {
            stdout.take_over(Rc::new(RefCell::new(old)));
        }
    }

    /// Replaces the filter for the child's standard error, as [`set_stdout_filter`](Run::set_stdout_filter) does.
    ///
    /// POE: `set_stderr_filter`.
    pub fn set_stderr_filter(&self, filter: E) {
        let old = self.stderr_filter.replace(filter);
        if let Some(stderr) = &self.owned.stderr {
            stderr.take_over(Rc::new(RefCell::new(old)));
        }
    }

    /// Replaces the filter for the child's input with one of another type, as
    /// [`set_stdin_filter`](Run::set_stdin_filter) does. The returned wheel has the same process, id, streams and
    /// events.
    ///
    /// POE: `set_stdin_filter`.
    #[doc(alias = "set_stdin_filter")]
    pub fn switch_stdin_filter<F: Filter>(self, filter: F) -> Run<F, O, E> {
        let Run { owned, stdout_filter, stderr_filter, .. } = self;
        Run { owned, stdin_filter: RefCell::new(filter), stdout_filter, stderr_filter }
    }

    /// Replaces the filter for the child's standard output with one of another type, as
    /// [`set_stdout_filter`](Run::set_stdout_filter) does. The returned wheel has the same process, id, streams and
    /// events. The stdout event then gets records of another type. To give it another name, call [`event`](Run::event).
    ///
    /// ```
    /// # use lenore::{Kernel, Session};
    /// use lenore::filter::{Line, Stream};
    /// use lenore::wheel::{Run, RunEvent};
    ///
    /// enum Child { Head(Run), Body(Run<Line, Stream>), None }
    ///
    /// # fn main() -> Result<(), lenore::Error> {
    /// # let mut kernel = Kernel::new()?;
    /// Session::new(Child::None)
    ///     .state("_start", |cx| {
    ///         let child = Run::program(["printf", "head\nthe\nbody"]).on_stdout("head").on_close("closed").start(cx)?;
    ///         *cx.heap() = Child::Head(child);
    ///         Ok(())
    ///     })
    ///     .state("head", |cx| {
    ///         assert_eq!(cx.take::<String>(0)?, "head");
    ///         if let Child::Head(child) = std::mem::replace(cx.heap(), Child::None) {
    ///             child.event(RunEvent::Stdout, "body");
    ///             *cx.heap() = Child::Body(child.switch_stdout_filter(Stream::new()));
    ///         }
    ///         Ok(())
    ///     })
    ///     .state("body", |cx| {
    ///         assert_eq!(cx.take::<Vec<u8>>(0)?, b"the\nbody");
    ///         Ok(())
    ///     })
    ///     .state("closed", |cx| *cx.heap() = Child::None)
    ///     .spawn(&mut kernel)?;
    /// kernel.run()
    /// # }
    /// ```
    ///
    /// POE: `set_stdout_filter`.
    #[doc(alias = "set_stdout_filter")]
    pub fn switch_stdout_filter<F: Filter>(self, filter: F) -> Run<I, F, E> {
        let Run { owned, stdin_filter, stdout_filter: old, stderr_filter } = self;
        let filter = switch(owned.stdout.as_deref(), filter, old);
        Run { owned, stdin_filter, stdout_filter: filter, stderr_filter }
    }

    /// Replaces the filter for the child's standard error with one of another type, as
    /// [`switch_stdout_filter`](Run::switch_stdout_filter) does.
    ///
    /// POE: `set_stderr_filter`.
    #[doc(alias = "set_stderr_filter")]
    pub fn switch_stderr_filter<F: Filter>(self, filter: F) -> Run<I, O, F> {
        let Run { owned, stdin_filter, stdout_filter, stderr_filter: old } = self;
        let filter = switch(owned.stderr.as_deref(), filter, old);
        Run { owned, stdin_filter, stdout_filter, stderr_filter: filter }
    }

    /// Calls `look` with the filter for the child's input, and returns what `look` returns. Returns `None` if standard
    /// input is not a pipe to the wheel.
    ///
    /// POE: `get_stdin_filter`.
    #[doc(alias = "get_stdin_filter")]
    pub fn stdin_filter<T>(&self, look: impl FnOnce(&mut I) -> T) -> Option<T> {
        self.owned.stdin.as_ref().map(|_| look(&mut self.stdin_filter.borrow_mut()))
    }

    /// Calls `look` with the filter for the child's standard output, and returns what `look` returns. Returns `None` if
    /// standard output is not a pipe to the wheel.
    ///
    /// POE: `get_stdout_filter`.
    #[doc(alias = "get_stdout_filter")]
    pub fn stdout_filter<T>(&self, look: impl FnOnce(&mut O) -> T) -> Option<T> {
        self.owned.stdout.as_ref().map(|_| look(&mut self.stdout_filter.borrow_mut()))
    }

    /// Calls `look` with the filter for the child's standard error, and returns what `look` returns. Returns `None` if
    /// standard error is not a pipe to the wheel.
    ///
    /// POE: `get_stderr_filter`.
    #[doc(alias = "get_stderr_filter")]
    pub fn stderr_filter<T>(&self, look: impl FnOnce(&mut E) -> T) -> Option<T> {
        self.owned.stderr.as_ref().map(|_| look(&mut self.stderr_filter.borrow_mut()))
    }
}

impl<I: Filter, O: Filter, E: Filter> fmt::Debug for Run<I, O, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("id", &self.id()).field("pid", &self.pid()).finish_non_exhaustive()
    }
}

/// Sets a filter of another type for a stream, and returns it for the handle.
fn switch<F: Filter>(reader: Option<&Reader>, filter: F, old: Rc<RefCell<impl Filter>>) -> Rc<RefCell<F>> {
    let filter = Rc::new(RefCell::new(filter));
    if let Some(reader) = reader {
        reader.switch_filter(filter.clone(), old);
    }
    filter
}

const STDIN: &str = "STDIN";

const STDOUT: &str = "STDOUT";

const STDERR: &str = "STDERR";

//! `Run`: a child process, and records to and from it.

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
/// [`program`](Run::program) executes a list of words, [`shell`](Run::shell) has the shell run a text,
/// [`command`](Run::command) takes whatever [`std::process::Command`] can be told, and [`function`](Run::function) runs
/// a function of this program. The [`RunBuilder`] they return says what becomes of the child's standard streams.
///
/// | event | arguments |
/// | --- | --- |
/// | stdout, stderr | ARG0 = the record, ARG1 = the [`WheelId`] |
/// | stdin | ARG0 = the [`WheelId`]: everything put was written |
/// | high, low | ARG0 = the [`WheelId`]: what waits for the child has reached one of the [`watermarks`](RunBuilder::watermarks) |
/// | close | ARG0 = the [`WheelId`]: the last of the watched output streams has ended |
/// | exit | ARG0 = `"CHLD"`, ARG1 = the pid (`i32`), ARG2 = the [`ExitStatus`], ARG3 = the [`WheelId`] |
/// | error | ARG0 = a [`Failure`](super::Failure) whose subject is `"STDIN"`, `"STDOUT"` or `"STDERR"`; empty for `"fork"` |
///
/// The end of an output stream is an error event, `"read"` with errno 0; that of a terminal has the errno `EIO`. The process may
/// have ended before its output is read, or go on after it has closed it: whoever needs both waits for close and exit, which come
/// in either order.
///
/// Streams that lead to the wheel are pipes, or what [`conduit`](RunBuilder::conduit) says: a socket, or with the feature
/// `pty` a pseudo-terminal.
///
/// The child leads a process group of its own; signals have their default actions and none is blocked; it inherits no
/// descriptors but its standard streams. The kernel reaps it in any case, also after the wheel was dropped.
///
/// Dropping the wheel closes its ends of the pipes, and does with the process what
/// [`on_drop`](RunBuilder::on_drop) says, as a rule nothing. A forked child of the program has no part in its parent's
/// wheels: the pipes are closed there, and [`kill`](Run::kill) refuses.
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
    /// What the reader knows without its type; of no use to a stream that is no pipe.
    stdout_filter: Rc<RefCell<O>>,
    stderr_filter: Rc<RefCell<E>>,
}

/// One of the events of a [`Run`], to be changed while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RunEvent {
    /// POE: `StdinEvent`.
    Stdin,
    /// POE: `StdoutEvent`.
    Stdout,
    /// Of standard input, when what waits has reached the high mark. POE: nothing like it.
    High,
    /// Of standard input, when the low mark is reached after that. POE: nothing like it.
    Low,
    /// POE: `StderrEvent`.
    Stderr,
    /// POE: `ErrorEvent`.
    Error,
    /// A record that the filter of an output stream refuses. POE: nothing like it.
    Refused,
    /// POE: `CloseEvent`.
    Close,
}

/// What becomes of the process when its [`Run`] is dropped.
///
/// POE: nothing like it; the process is left alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnDrop {
    /// Nothing. It may die of writing to a pipe that nobody reads.
    #[default]
    Leave,
    /// `TERM` goes to its process group, or to the process alone if it leads none.
    Terminate,
    /// `KILL` does.
    Kill,
    /// The same, and the drop waits until the process has ended, 5 s at most: one that hangs in a system call, as on a dead
    /// file server, ends later. The kernel then reaps it as any other, after a warning in the log.
    KillAndWait,
}

impl Run {
    /// Begins a wheel for a program, which is looked up in `PATH` and given the other words as its arguments.
    ///
    /// POE: `Program` as a list, with the `ProgramArgs` at its end.
    #[doc(alias("Program", "ProgramArgs"))]
    pub fn program<W: AsRef<std::ffi::OsStr>>(words: impl IntoIterator<Item = W>) -> RunBuilder {
        RunBuilder::program(words)
    }

    /// Begins a wheel for a text that `/bin/sh` runs. What comes from elsewhere does not belong in it unquoted.
    ///
    /// POE: `Program` as a string.
    pub fn shell(text: impl AsRef<std::ffi::OsStr>) -> RunBuilder {
        RunBuilder::program([std::ffi::OsStr::new("/bin/sh"), std::ffi::OsStr::new("-c"), text.as_ref()])
    }

    /// Begins a wheel for a command with an environment, a directory or other things of its own. What it says about the
    /// standard streams is replaced.
    ///
    /// POE: nothing like it; programs change `%ENV` and the directory for a moment.
    pub fn command(command: std::process::Command) -> RunBuilder {
        RunBuilder::command(command)
    }

    /// Begins a wheel for a function that runs in a forked child.
    ///
    /// The fork is carried out as [`Context::fork`](crate::Context::fork) does it, once the running state has returned, and so
    /// refused in a process with several threads. In the child all that the kernel watches is closed and all signals have
    /// their default actions. The process exits with 0 when the function returns; with 255, after a message on its
    /// standard error, when it panics or returns an `Err`. No destructors of the parent's run. Standard output is
    /// flushed; files that the program has open otherwise are still open in the child.
    ///
    /// The child ends by `_exit`. What a library has registered with `atexit` before the fork does not run there, unless the
    /// function calls [`std::process::exit`] itself.
    ///
    /// When the session stops, its heap is dropped, and the wheel with it. By default the child is left running. Choose with
    /// [`on_drop`](RunBuilder::on_drop) what is to become of it.
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
    /// A function that wants an event loop calls [`stop`](Kernel::stop) on its kernel first, which stops the copies of the
    /// parent's sessions and has `SIGPIPE` ignored again, and then creates its own and calls [`run`](Kernel::run).
    ///
    /// POE: `Program` as a code reference, with `CloseOnCall`.
    #[doc(alias = "CloseOnCall")]
    pub fn function<R: crate::IntoReturn>(function: impl FnOnce(&mut Kernel) -> R + 'static) -> RunBuilder {
        RunBuilder::function(function)
    }
}

impl<I: Filter, O: Filter, E: Filter> Run<I, O, E> {
    /// Returns the id that its events carry.
    ///
    /// POE: `ID`.
    pub fn id(&self) -> WheelId {
        self.owned.shared.id
    }

    /// Returns the pid; `None` for a function whose fork has not come yet.
    ///
    /// It names the process until [`exit_status`](Run::exit_status) returns one, or somebody else reaps it.
    ///
    /// POE: `PID`.
    #[doc(alias = "PID")]
    pub fn pid(&self) -> Option<i32> {
        self.owned.shared.process.borrow().as_ref().map(Process::pid)
    }

    /// Returns how the process ended, once it was reaped.
    ///
    /// POE: nothing like it.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.owned.shared.process.borrow().as_ref().and_then(Process::status)
    }

    /// Appends a record to the child's input. The [answer](Put) says whether that takes more, has reached the high mark, so that
    /// it is time to put no more before the low event, or is closed. The record is written once the running state has returned,
    /// together with whatever else was put by then.
    ///
    /// The input is closed, and nothing is put, if it does not lead to the wheel, once it was shut down, or when the child has
    /// closed it. A record that the filter refuses is an error event, `"filter"`.
    ///
    /// POE: `put`, which raises an exception when standard input is closed.
    pub fn put(&self, record: impl AsRecord<I::Output>) -> Put {
        self.owned.stdin.as_ref().map_or(Put::Closed, |stdin| {
            stdin.put(|bytes| self.stdin_filter.borrow_mut().put(record.as_record(), bytes))
        })
    }

    /// Closes the child's standard input; what was not written yet is lost. A terminal stays open, and the child finds no
    /// end of its input.
    ///
    /// POE: `shutdown_stdin`.
    pub fn shutdown_stdin(&self) {
        self.owned.stdin.iter().for_each(|stdin| stdin.shut_down());
    }

    /// Closes the child's standard input as soon as everything put so far is written; nothing more can be put. A terminal
    /// stays open.
    ///
    /// POE: nothing like it; `shutdown_stdin` in the StdinEvent.
    pub fn shutdown_stdin_after_flush(&self) {
        self.owned.stdin.iter().for_each(|stdin| stdin.shut_down_after_flush());
    }

    /// Changes the size of the child's terminal, of which its foreground processes get `WINCH`.
    ///
    /// # Errors
    ///
    /// [`Error::Os`]: `ENOTTY` if the streams are no terminal; `EBADF` if none of them leads to the wheel any more.
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

    /// Returns how many records are not completely written.
    ///
    /// POE: `get_driver_out_messages`.
    #[doc(alias = "get_driver_out_messages")]
    pub fn driver_out_messages(&self) -> usize {
        self.owned.stdin.as_ref().map_or(0, |stdin| stdin.outbox.messages())
    }

    /// Stops reading and delivering the child's standard output, at once; its end waits as well.
    ///
    /// POE: `pause_stdout`.
    pub fn pause_stdout(&self) {
        self.owned.stdout.iter().for_each(|stdout| stdout.paused.set(true));
    }

    /// Goes on reading and delivering standard output.
    ///
    /// POE: `resume_stdout`.
    pub fn resume_stdout(&self) {
        self.owned.stdout.iter().for_each(|stdout| stdout.resume());
    }

    /// Stops reading and delivering the child's standard error, at once; its end waits as well.
    ///
    /// POE: `pause_stderr`.
    pub fn pause_stderr(&self) {
        self.owned.stderr.iter().for_each(|stderr| stderr.paused.set(true));
    }

    /// Goes on reading and delivering standard error.
    ///
    /// POE: `resume_stderr`.
    pub fn resume_stderr(&self) {
        self.owned.stderr.iter().for_each(|stderr| stderr.resume());
    }

    /// Sends the process a signal, named as [`Context::sig`](crate::Context::sig) names it, `"TERM"`, or with its prefix; not its group.
    ///
    /// # Errors
    ///
    /// [`Error::Os`]: `EINVAL` for no name of a signal; `ESRCH` when the process was not forked yet, was reaped, or is the
    /// child of the process that this one was forked from; `EPERM` when it belongs to another user.
    ///
    /// POE: `kill`, which signals `TERM` without an argument and returns 1 or 0.
    pub fn kill(&self, signal: impl Into<Name>) -> Result<(), Error> {
        self.signal(signal.into(), Process::kill)
    }

    /// Sends a signal to the process and to all others in its process group, such as what a shell has started. The name is as for
    /// [`kill`](Run::kill).
    ///
    /// # Errors
    ///
    /// As [`kill`](Run::kill), and `EPERM` when the process leads no group, after
    /// [`keep_process_group`](RunBuilder::keep_process_group): its group is that of this process. `ESRCH` also when the process was
    /// reaped and others of its group are left, as another group may have got the number.
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

    /// Gives one of the events another name from now on, also for records that were read already.
    ///
    /// The stdout and stderr events of a stream that is no pipe do nothing.
    ///
    /// POE: `event`.
    pub fn event(&self, event: RunEvent, name: impl Into<Name>) {
        self.set_event(event, Some(name.into()));
    }

    /// Sends one of the events no more. Without a stdout or stderr event that stream is not read, until it gets one again.
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

    /// Goes on with another filter for the child's input. What was put already stays as it is.
    ///
    /// POE: `set_stdin_filter`.
    pub fn set_stdin_filter(&self, filter: I) {
        self.stdin_filter.replace(filter);
    }

    /// Goes on with another filter for the child's standard output, which gets what the one before has not parsed.
    ///
    /// Called in the middle of a delivery, the next record is the new filter's; otherwise the records come before
    /// anything else is read.
    ///
    /// POE: `set_stdout_filter`, which delivers the same data twice.
    pub fn set_stdout_filter(&self, filter: O) {
        let old = self.stdout_filter.replace(filter);
        if let Some(stdout) = &self.owned.stdout {
            stdout.take_over(Rc::new(RefCell::new(old)));
        }
    }

    /// Goes on with another filter for the child's standard error; as
    /// [`set_stdout_filter`](Run::set_stdout_filter).
    ///
    /// POE: `set_stderr_filter`.
    pub fn set_stderr_filter(&self, filter: E) {
        let old = self.stderr_filter.replace(filter);
        if let Some(stderr) = &self.owned.stderr {
            stderr.take_over(Rc::new(RefCell::new(old)));
        }
    }

    /// Replaces the filter for the child's input by one of another type, as [`set_stdin_filter`](Run::set_stdin_filter) does. The
    /// wheel that it returns has the same process, id, streams and events.
    ///
    /// POE: `set_stdin_filter`.
    #[doc(alias = "set_stdin_filter")]
    pub fn switch_stdin_filter<F: Filter>(self, filter: F) -> Run<F, O, E> {
        let Run { owned, stdout_filter, stderr_filter, .. } = self;
        Run { owned, stdin_filter: RefCell::new(filter), stdout_filter, stderr_filter }
    }

    /// Replaces the filter for the child's standard output by one of another type, as
    /// [`set_stdout_filter`](Run::set_stdout_filter) does. The wheel that it returns has the same process, id, streams and
    /// events. The stdout event gets other records from then on: [`event`](Run::event) gives it another name.
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

    /// Replaces the filter for the child's standard error by one of another type; as
    /// [`switch_stdout_filter`](Run::switch_stdout_filter).
    ///
    /// POE: `set_stderr_filter`.
    #[doc(alias = "set_stderr_filter")]
    pub fn switch_stderr_filter<F: Filter>(self, filter: F) -> Run<I, O, F> {
        let Run { owned, stdin_filter, stdout_filter, stderr_filter: old } = self;
        let filter = switch(owned.stderr.as_deref(), filter, old);
        Run { owned, stdin_filter, stdout_filter, stderr_filter: filter }
    }

    /// Looks at the filter for the child's input; `None` if that is no pipe.
    ///
    /// POE: `get_stdin_filter`.
    #[doc(alias = "get_stdin_filter")]
    pub fn stdin_filter<T>(&self, look: impl FnOnce(&mut I) -> T) -> Option<T> {
        self.owned.stdin.as_ref().map(|_| look(&mut self.stdin_filter.borrow_mut()))
    }

    /// Looks at the filter for the child's standard output; `None` if that is no pipe.
    ///
    /// POE: `get_stdout_filter`.
    #[doc(alias = "get_stdout_filter")]
    pub fn stdout_filter<T>(&self, look: impl FnOnce(&mut O) -> T) -> Option<T> {
        self.owned.stdout.as_ref().map(|_| look(&mut self.stdout_filter.borrow_mut()))
    }

    /// Looks at the filter for the child's standard error; `None` if that is no pipe.
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

/// Has a stream go on with a filter of another type, and returns that.
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

//! The builder of a `Run`, and how it starts the child.

use std::cell::{Cell, RefCell};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fmt::Display;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::rc::Rc;

use nix::errno::Errno;

use super::conduit::Conduit;
use super::function::{Function, FunctionChild};
use super::redirect::Redirect;
use super::streams::{Ends, Open, Output, Streams};
#[cfg(feature = "pty")]
use super::terminal::{self, Winsize};
use super::writer::Writer;
use super::{OnDrop, Owned, Reader, Run, STDERR, STDOUT, Shared, account};
use crate::args::IntoArgs;
use crate::error::Error;
use crate::filter::{Filter, Line};
use crate::kernel::{Core, InState, Kernel, SessionId, Source, SourceKey, core_of};
use crate::name::Name;
use crate::reply::IntoReturn;
use crate::sys::child::{Place, Setup, spawn};
use crate::sys::threads::make_sure_alone;
use crate::wheel::WheelId;
use crate::wheel::refusals::Refusals;
use crate::wheel::stream::marks::{MarkEvents, Marks};
use crate::wheel::stream::outbox::{Outbox, OutputEvents};

/// Sets how a [`Run`] works. [`Run::program`] and its siblings make one.
///
/// By default standard input is a pipe from the wheel. Standard output and standard error are pipes to the wheel if
/// they have an event, and otherwise lead where the parent's streams lead. Records are lines that end with LF.
#[must_use = "does nothing until it is started"]
pub struct RunBuilder<I: Filter = Line, O: Filter = Line, E: Filter = Line> {
    plan: Plan,
    stdin_filter: I,
    stdout_filter: O,
    stderr_filter: E,
}

impl<I: Filter, O: Filter, E: Filter> fmt::Debug for RunBuilder<I, O, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunBuilder").field("on_exit", &self.plan.on_exit).finish_non_exhaustive()
    }
}

/// Everything but the filters.
struct Plan {
    program: Program,
    streams: Streams,
    /// The first error among the builder's settings.
    failure: Option<Error>,
    on_stdin: Option<Name>,
    marks: Option<Marks>,
    mark_events: MarkEvents,
    on_error: Option<Name>,
    on_refused: Option<Name>,
    on_close: Option<Name>,
    on_exit: Option<Name>,
    delivers_last: bool,
    nice: i32,
    user: Option<String>,
    group: Option<String>,
    own_group: bool,
    on_drop: OnDrop,
}

enum Program {
    Command(Command),
    Function(Function),
    /// A list without words.
    Missing,
}

impl RunBuilder {
    pub(super) fn program<W: AsRef<OsStr>>(words: impl IntoIterator<Item = W>) -> RunBuilder {
        let words: Vec<OsString> = words.into_iter().map(|word| OsString::from(word.as_ref())).collect();
        let Some((name, rest)) = words.split_first() else { return RunBuilder::new(Program::Missing) };
        let mut command = Command::new(name);
        command.args(rest);
        let mut builder = RunBuilder::new(Program::Command(command));
        if let Some(place) = words.iter().position(|word| word.as_bytes().contains(&0)) {
            let name = name.to_string_lossy().replace('\0', "\\0");
            let what = format!("{name}: word {} has a NUL byte: {:?}", place + 1, words[place]);
            builder.plan.failure = Some(Error::os("execve", what, Errno::EINVAL));
        }
        builder
    }

    pub(super) fn command(command: Command) -> RunBuilder {
        RunBuilder::new(Program::Command(command))
    }

    pub(super) fn function<R: IntoReturn>(function: impl FnOnce(&mut Kernel) -> R + 'static) -> RunBuilder {
        RunBuilder::new(Program::Function(Box::new(|kernel| function(kernel).without_value())))
    }

    fn new(program: Program) -> RunBuilder {
        let plan = Plan {
            program,
            streams: Streams::default(),
            failure: None,
            on_stdin: None,
            marks: None,
            mark_events: MarkEvents::default(),
            on_error: None,
            on_refused: None,
            on_close: None,
            on_exit: None,
            delivers_last: false,
            nice: 0,
            user: None,
            group: None,
            own_group: true,
            on_drop: OnDrop::Leave,
        };
        RunBuilder { plan, stdin_filter: lines(), stdout_filter: lines(), stderr_filter: lines() }
    }
}

/// Lines that end with LF, in both directions.
fn lines() -> Line {
    Line::new().input_literal("\n").output_literal("\n")
}

impl<I: Filter, O: Filter, E: Filter> RunBuilder<I, O, E> {
    /// Names the event that the wheel sends whenever everything put has been written.
    ///
    /// POE: `StdinEvent`.
    #[doc(alias = "StdinEvent")]
    pub fn on_stdin(mut self, event: impl Into<Name>) -> Self {
        self.plan.on_stdin = Some(event.into());
        self
    }

    /// Sets the marks, in bytes that wait for the child to read them. At `high` or more the session should put no more.
    /// At `low` or less it may put again. Marks need an [`on_low`](Self::on_low) event.
    ///
    /// POE: nothing like it. POE keeps whatever a child does not read, without a limit.
    #[doc(alias = "marks")]
    pub fn watermarks(mut self, low: usize, high: usize) -> Self {
        self.plan.marks = Some(Marks { low, high });
        self
    }

    /// Names the event that the wheel sends when a `put` has brought the waiting output to the high mark.
    ///
    /// The event comes when the running state has returned. [`Run::put`] returns the same news at once.
    ///
    /// POE: nothing like it. `POE::Wheel::ReadWrite` has a `HighEvent`.
    pub fn on_high(mut self, event: impl Into<Name>) -> Self {
        self.plan.mark_events.high = Some(event.into());
        self
    }

    /// Names the event that the wheel sends when the waiting output has reached the high mark and then drained to the
    /// low mark.
    ///
    /// POE: nothing like it. `POE::Wheel::ReadWrite` has a `LowEvent`.
    pub fn on_low(mut self, event: impl Into<Name>) -> Self {
        self.plan.mark_events.low = Some(event.into());
        self
    }

    /// Names the event for each record that the child writes to its standard output. The stream becomes a pipe to the
    /// wheel.
    ///
    /// POE: `StdoutEvent`.
    #[doc(alias = "StdoutEvent")]
    pub fn on_stdout(mut self, event: impl Into<Name>) -> Self {
        self.plan.streams.stdout = Output::Event(event.into());
        self
    }

    /// Names the event for each record that the child writes to its standard error. The stream becomes a pipe to the
    /// wheel.
    ///
    /// POE: `StderrEvent`.
    #[doc(alias = "StderrEvent")]
    pub fn on_stderr(mut self, event: impl Into<Name>) -> Self {
        self.plan.streams.stderr = Output::Event(event.into());
        self
    }

    /// Names the event for errors and for the end of each output stream. Without it neither is reported.
    ///
    /// POE: `ErrorEvent`.
    #[doc(alias = "ErrorEvent")]
    pub fn on_error(mut self, event: impl Into<Name>) -> Self {
        self.plan.on_error = Some(event.into());
        self
    }

    /// Names the event for a record that the filter of an output stream refuses. ARG0 is the
    /// [`FilterError`](crate::filter::FilterError), ARG1 the [`WheelId`], ARG2 `"STDOUT"` or `"STDERR"`. Without the
    /// event the wheel logs the first refused record. In both cases the wheel goes on with the next record.
    ///
    /// POE: nothing like it. An exception in a filter reaches the program.
    pub fn on_refused(mut self, event: impl Into<Name>) -> Self {
        self.plan.on_refused = Some(event.into());
        self
    }

    /// Names the event that the wheel sends when the last of the watched output streams has ended. Without a stdout or
    /// stderr event it never comes.
    ///
    /// POE: `CloseEvent`.
    #[doc(alias = "CloseEvent")]
    pub fn on_close(mut self, event: impl Into<Name>) -> Self {
        self.plan.on_close = Some(event.into());
        self
    }

    /// Names the event that the kernel sends when the process has ended. This does what
    /// [`sig_child`](crate::Context::sig_child) does with the process's pid, with the [`WheelId`] as an extra argument.
    /// The session stays alive until then, even if the wheel is dropped.
    ///
    /// POE: `sig_child($wheel->PID, ...)`.
    pub fn on_exit(mut self, event: impl Into<Name>) -> Self {
        self.plan.on_exit = Some(event.into());
        self
    }

    /// Sets what the streams between the child and the wheel are made of. Default: pipes.
    ///
    /// A terminal is always standard input and standard output, whatever events those have. Neither can be redirected.
    /// With `Conduit::Pty`, standard error is the terminal as well. It can't be redirected and has no event.
    ///
    /// POE: `Conduit`.
    #[doc(alias = "Conduit")]
    pub fn conduit(mut self, conduit: Conduit) -> Self {
        self.plan.streams.conduit = conduit;
        self
    }

    /// Sets the size of the child's terminal. Default: the size of the terminal on this process's standard input. If
    /// there is none, the size is unknown.
    ///
    /// POE: `Winsize`.
    #[doc(alias = "Winsize")]
    #[cfg(feature = "pty")]
    pub fn winsize(mut self, size: Winsize) -> Self {
        self.plan.streams.winsize = Some(size);
        self
    }

    /// Connects the child's standard input to something other than the wheel.
    ///
    /// POE: `NoStdin`, `RedirectStdin`.
    #[doc(alias = "NoStdin")]
    #[doc(alias = "RedirectStdin")]
    pub fn stdin(mut self, from: impl Into<Redirect>) -> Self {
        self.plan.streams.stdin = Some(from.into());
        self
    }

    /// Sends the child's standard output to something other than the wheel. This replaces the stdout event. An event
    /// named later replaces this.
    ///
    /// POE: `RedirectStdout`.
    #[doc(alias = "RedirectStdout")]
    pub fn stdout(mut self, to: impl Into<Redirect>) -> Self {
        self.plan.streams.stdout = Output::To(to.into());
        self
    }

    /// Sends the child's standard error to something other than the wheel. This replaces the stderr event. An event
    /// named later replaces this.
    ///
    /// POE: `RedirectStderr`.
    #[doc(alias = "RedirectStderr")]
    pub fn stderr(mut self, to: impl Into<Redirect>) -> Self {
        self.plan.streams.stderr = Output::To(to.into());
        self
    }

    /// Sends both output streams to the same target.
    ///
    /// POE: `RedirectOutput`.
    #[doc(alias = "RedirectOutput")]
    pub fn output(mut self, to: impl Into<Redirect>) -> Self {
        let to = to.into();
        match to.try_clone() {
            Ok(copy) => self.plan.streams.stderr = Output::To(copy),
            Err(error) => self.plan.failure = Some(Error::os("dup", "standard output", error)),
        }
        self.stdout(to)
    }

    /// Sets the filter for standard input and standard output.
    ///
    /// POE: `StdioFilter`.
    #[doc(alias = "StdioFilter")]
    pub fn stdio_filter<F: Filter>(self, filter: F) -> RunBuilder<F, F, E> {
        self.stdin_filter(filter.output_half()).stdout_filter(filter)
    }

    /// Sets the filter for standard input.
    ///
    /// POE: `StdinFilter`.
    #[doc(alias = "StdinFilter")]
    pub fn stdin_filter<F: Filter>(self, filter: F) -> RunBuilder<F, O, E> {
        let RunBuilder { plan, stdout_filter, stderr_filter, .. } = self;
        RunBuilder { plan, stdin_filter: filter, stdout_filter, stderr_filter }
    }

    /// Sets the filter for standard output.
    ///
    /// POE: `StdoutFilter`.
    #[doc(alias = "StdoutFilter")]
    pub fn stdout_filter<F: Filter>(self, filter: F) -> RunBuilder<I, F, E> {
        let RunBuilder { plan, stdin_filter, stderr_filter, .. } = self;
        RunBuilder { plan, stdin_filter, stdout_filter: filter, stderr_filter }
    }

    /// Sets the filter for standard error.
    ///
    /// POE: `StderrFilter`.
    #[doc(alias = "StderrFilter")]
    pub fn stderr_filter<F: Filter>(self, filter: F) -> RunBuilder<I, O, F> {
        let RunBuilder { plan, stdin_filter, stdout_filter, .. } = self;
        RunBuilder { plan, stdin_filter, stdout_filter, stderr_filter: filter }
    }

    /// Adds `niceness` to the child's niceness. A higher niceness is less urgent. Lowering it needs privileges.
    ///
    /// POE: `Priority`.
    #[doc(alias = "Priority")]
    pub fn priority(mut self, niceness: i32) -> Self {
        self.plan.nice = niceness;
        self
    }

    /// Runs the child as another user, given as a name or a number. The child gets the user's own group, unless
    /// [`group`](RunBuilder::group) names one. It also gets the groups that the user is in, if this process is root and
    /// may change them.
    ///
    /// POE: `User`, a number. POE leaves the groups alone, and does not report a failure.
    #[doc(alias = "User")]
    pub fn user(mut self, user: impl Display) -> Self {
        self.plan.user = Some(user.to_string());
        self
    }

    /// Runs the child in another group, given as a name or a number.
    ///
    /// POE: `Group`, a number.
    #[doc(alias = "Group")]
    pub fn group(mut self, group: impl Display) -> Self {
        self.plan.group = Some(group.to_string());
        self
    }

    /// Leaves the child in this process's group, so that signals from the terminal, such as `INT`, reach it. A child
    /// with a terminal of the wheel leads its own session all the same.
    ///
    /// POE: `NoSetPgrp`.
    #[doc(alias = "NoSetPgrp")]
    pub fn keep_process_group(mut self) -> Self {
        self.plan.own_group = false;
        self
    }

    /// Sets what happens to the process when the wheel is dropped. Default: [`OnDrop::Leave`].
    ///
    /// POE: nothing like it.
    pub fn on_drop(mut self, what: OnDrop) -> Self {
        self.plan.on_drop = what;
        self
    }

    /// Delivers an unfinished last record of an output stream, if the filter supports it ([`Filter::get_last`]).
    /// Otherwise the bytes stay in the filter.
    ///
    /// POE: nothing like it.
    pub fn deliver_last(mut self) -> Self {
        self.plan.delivers_last = true;
        self
    }

    /// Starts the child for the running session. The fork for a function comes when the running state has returned.
    ///
    /// # Errors
    ///
    /// After an error nothing is started and nothing is left open.
    ///
    /// - [`Error::Os`] names the step that failed and its subject: `execve` and the program, if it can't be executed,
    ///   `setuid` and the like, with the user, `open` and a path, or `getpwnam` and an unknown user.
    /// - [`Error::InvalidSetting`] is for a list without words, settings that don't fit the
    ///   [`conduit`](RunBuilder::conduit), marks that are not `0 < low < high`, marks without a low event, and a high
    ///   or low event without marks.
    /// - [`Error::Threads`] is for a function in a process with several threads.
    /// - [`Error::NoActiveSession`] comes once the session has stopped.
    ///
    /// If the fork for a function fails later, the wheel sends an error event with the operation `"fork"`. If the child
    /// fails before it calls the function, it prints a line to its standard error, and exits with the errno.
    ///
    /// POE: `new`. There a program that can't be executed is a child that exits with the errno.
    pub fn start(self, cx: &mut impl InState) -> Result<Run<I, O, E>, Error> {
        let core = core_of(cx);
        let RunBuilder { mut plan, stdin_filter, stdout_filter, stderr_filter } = self;
        let owner = core.running()?;
        if let Program::Missing = plan.program {
            return Err(Error::InvalidSetting { setting: "program", reason: "needs a word at least" });
        }
        if let Program::Function(_) = plan.program {
            make_sure_alone().map_err(Error::from)?;
        }
        plan.failure.take().map_or(Ok(()), Err)?;
        plan.mark_events.check(plan.marks, false)?;
        #[cfg(feature = "pty")]
        terminal::check(&plan.streams)?;
        let mut setup = Setup { place: plan.place(), nice: plan.nice, ..Setup::default() };
        account::resolve(plan.user.as_deref(), plan.group.as_deref(), &mut setup)?;
        let (on_stdout, on_stderr) = (plan.streams.stdout.event(), plan.streams.stderr.event());
        let conduit = plan.streams.conduit;
        let Open { theirs: ends, ours: [stdin, stdout, stderr] } = plan.streams.open(setup.uid)?;
        let shared = Rc::new(Shared {
            id: WheelId::next(),
            owner,
            name: Name::new("Run"),
            mailbox: core.mailbox(),
            on_error: Cell::new(plan.on_error),
            refusals: Refusals::new(plan.on_refused),
            on_close: Cell::new(plan.on_close),
            conduit,
            open: Cell::new(true),
            outputs: Cell::new(0),
            process: RefCell::default(),
        });
        let mut owned = Owned {
            shared: shared.clone(),
            stdin: None,
            stdout: None,
            stderr: None,
            // Set once there is a process.
            on_drop: OnDrop::Leave,
            leads_group: setup.place != Place::ParentsGroup,
        };
        // From here on, dropping `owned` closes what was opened for it.
        let last = plan.delivers_last;
        let (stdout_filter, stderr_filter) =
            (Rc::new(RefCell::new(stdout_filter)), Rc::new(RefCell::new(stderr_filter)));
        if let Some(fd) = stdin {
            let events = OutputEvents { flushed: plan.on_stdin, marks: plan.mark_events };
            let outbox = Outbox::new(events, plan.marks);
            owned.stdin = Some(add(core, owner, |key| Rc::new(Writer::new(shared.clone(), key, fd, outbox)))?);
        }
        if let Some(fd) = stdout {
            owned.stdout = Some(add(core, owner, |key| {
                Reader::new(shared.clone(), key, STDOUT, on_stdout, stdout_filter.clone(), fd, last).into()
            })?);
        }
        if let Some(fd) = stderr {
            owned.stderr = Some(add(core, owner, |key| {
                Reader::new(shared.clone(), key, STDERR, on_stderr, stderr_filter.clone(), fd, last).into()
            })?);
        }
        match plan.program {
            Program::Command(command) => {
                let subject = describe(&command, plan.user.as_deref(), plan.group.as_deref());
                let nul = describe_nul(&command);
                let pid = spawn(with_streams(command, ends), setup);
                let pid = pid.map_err(|(step, error)| match error.kind() {
                    // The standard library has refused the command before any system call.
                    ErrorKind::InvalidInput if error.raw_os_error().is_none() => {
                        Error::os("execve", format_args!("{subject}: {nul} has a NUL byte"), Errno::EINVAL)
                    }
                    _ => Error::os(step, subject, error),
                })?;
                shared.begin(core, pid, plan.on_exit);
            }
            Program::Function(function) => {
                let child = FunctionChild { shared, function, ends, setup, on_exit: plan.on_exit };
                core.fork_for(owner, Box::new(child));
            }
            Program::Missing => {}
        }
        owned.on_drop = plan.on_drop;
        Ok(Run { owned, stdin_filter: RefCell::new(stdin_filter), stdout_filter, stderr_filter })
    }
}

impl Plan {
    /// Returns where the child belongs. A terminal controls a session, so a child with a terminal always leads its own.
    fn place(&self) -> Place {
        #[cfg(feature = "pty")]
        if self.streams.conduit.is_terminal() {
            return Place::OwnTerminal;
        }
        if self.own_group { Place::OwnGroup } else { Place::ParentsGroup }
    }
}

impl Shared {
    /// Notes that the process has started.
    pub(super) fn begin(&self, core: &mut Core, pid: i32, on_exit: Option<Name>) {
        self.process.replace(Some(core.adopt_child(pid, self.owner)));
        if let Some(event) = on_exit {
            core.sig_child_for(self.owner, pid, event, (self.id,).into_args());
        }
    }
}

/// Adds a source, and returns it with its own type.
fn add<S: Source + 'static>(
    core: &mut Core,
    owner: SessionId,
    make: impl FnOnce(SourceKey) -> Rc<S>,
) -> Result<Rc<S>, Error> {
    let mut made = None;
    core.add_source(owner, |key| made.insert(make(key)).clone())?;
    Ok(made.expect("add_source has made it"))
}

fn with_streams(mut command: Command, ends: Ends) -> Command {
    let [stdin, stdout, stderr] = ends.map(|end| end.map_or_else(Stdio::inherit, Stdio::from));
    command.stdin(stdin).stdout(stdout).stderr(stderr);
    command
}

/// Says which part of a refused command has a NUL byte. The standard library does not keep that part, but notes where
/// it was.
fn describe_nul(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    match words.zip(1..).find(|(word, _)| *word == "<string-with-nul>") {
        Some((_, number)) => format!("word {number}"),
        None => String::from("a variable or the directory"),
    }
}

/// Names the program, and the user and group that it was to run as.
fn describe(command: &Command, user: Option<&str>, group: Option<&str>) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    user.inspect(|user| text += &format!(" as user {user}"));
    group.inspect(|group| text += &format!(" in group {group}"));
    text
}

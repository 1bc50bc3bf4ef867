//! The commands, whichever way they are put.

use std::fmt;
use std::time::Duration;

use super::dialect::{Code, Refusal};
use super::quoted::Quoted;
use super::rights::Rights;
use crate::daemon::machine::Key;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::daemon) enum Command {
    Hello,
    Help,
    Status,
    /// Whether the Daemon lives.
    Live,
    /// Whether it is ready for clients.
    Ready,
    Children,
    /// `None` for the parent.
    Peek(Option<ChildName>),
    Watch,
    /// Whether as OpenMetrics has it.
    Metrics(bool),
    /// What is not given stays.
    Resize {
        min_spare: Option<u32>,
        max_spare: Option<u32>,
        max_children: Option<u32>,
    },
    ResetSize,
    Retire(ChildName),
    Kill(ChildName),
    Reopen,
    Reload,
    /// Only load the configuration.
    Check,
    /// To this program, or to what the path of the present one leads to by now.
    Upgrade(Option<String>),
    /// End what still drains.
    Finish,
    LogLevel {
        level: String,
        lasts: Option<Duration>,
        child: Option<ChildName>,
    },
    /// Whether requests in hand are cut off.
    Stop(bool),
    /// What has become of the order with this number.
    Verdict(u64),
}

/// How a client names a child.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::daemon) enum ChildName {
    /// By its slot, and which owner of the slot it is.
    Key(u32, u32),
    /// By its pid, or by its slot if no child has such a pid.
    Number(u32),
}

impl fmt::Display for ChildName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChildName::Key(slot, generation) => write!(f, "{slot}:{generation}"),
            ChildName::Number(number) => number.fmt(f),
        }
    }
}

impl ChildName {
    /// Returns the one name that no other child ever has.
    pub(in crate::daemon) fn of(key: Key) -> ChildName {
        ChildName::Key(u32::try_from(key.slot).unwrap_or(u32::MAX), key.generation)
    }

    fn read(text: &str) -> Result<ChildName, Refusal> {
        let name = match text.split_once(':') {
            Some((slot, generation)) => slot
                .parse()
                .ok()
                .zip(generation.parse().ok())
                .map(|(slot, generation)| ChildName::Key(slot, generation)),
            None => text.parse().ok().map(ChildName::Number),
        };
        name.ok_or_else(|| Refusal::usage(format_args!("a child is SLOT:GENERATION or a pid, not {}", Quoted(text))))
    }
}

/// A command, and how long its answer is waited for.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::daemon) struct Request {
    pub(in crate::daemon) command: Command,
    /// The answer is a number by which the verdict can be asked for.
    pub(in crate::daemon) no_wait: bool,
    /// For how long the verdict is waited for; `None` for as long as it takes.
    pub(in crate::daemon) timeout: Option<Duration>,
}

impl Command {
    /// Returns what a client needs for it.
    pub(in crate::daemon) fn needs(&self) -> Rights {
        match self {
            Command::Hello
            | Command::Help
            | Command::Status
            | Command::Live
            | Command::Ready
            | Command::Children
            | Command::Peek(_)
            | Command::Watch
            | Command::Metrics(_)
            | Command::Verdict(_) => Rights::Read,
            Command::Resize { .. }
            | Command::ResetSize
            | Command::Retire(_)
            | Command::Reopen
            | Command::Reload
            | Command::Check
            | Command::LogLevel { .. } => Rights::Operate,
            Command::Kill(_) | Command::Stop(_) | Command::Upgrade(_) | Command::Finish => Rights::Admin,
        }
    }

    /// Tells whether its answer takes long to write where there are many children.
    pub(in crate::daemon) fn is_costly(&self) -> bool {
        matches!(self, Command::Children | Command::Metrics(_))
    }

    /// Tells whether it changes something.
    pub(in crate::daemon) fn changes(&self) -> bool {
        self.needs() > Rights::Read
    }
}

impl fmt::Display for Command {
    /// As a client writes it, in one way.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Hello => f.write_str("hello"),
            Command::Help => f.write_str("help"),
            Command::Status => f.write_str("status"),
            Command::Live => f.write_str("live"),
            Command::Ready => f.write_str("ready"),
            Command::Children => f.write_str("children"),
            Command::Peek(None) => f.write_str("peek"),
            Command::Peek(Some(child)) => write!(f, "peek {child}"),
            Command::Watch => f.write_str("watch"),
            Command::Metrics(false) => f.write_str("metrics"),
            Command::Metrics(true) => f.write_str("metrics openmetrics"),
            Command::Resize { min_spare, max_spare, max_children } => {
                f.write_str("resize")?;
                let numbers = [("min_spare", min_spare), ("max_spare", max_spare), ("max_children", max_children)];
                for (name, number) in numbers {
                    number.map_or(Ok(()), |number| write!(f, " {name}={number}"))?;
                }
                Ok(())
            }
            Command::ResetSize => f.write_str("resize reset"),
            Command::Retire(child) => write!(f, "retire {child}"),
            Command::Kill(child) => write!(f, "kill {child}"),
            Command::Reopen => f.write_str("reopen"),
            Command::Reload => f.write_str("reload"),
            Command::Check => f.write_str("check"),
            Command::Upgrade(None) => f.write_str("upgrade"),
            Command::Upgrade(Some(program)) => write!(f, "upgrade program={program}"),
            Command::Finish => f.write_str("finish"),
            Command::LogLevel { level, lasts, child } => {
                write!(f, "log-level {level}")?;
                lasts.map_or(Ok(()), |lasts| write!(f, " for={}s", lasts.as_secs_f64()))?;
                child.map_or(Ok(()), |child| write!(f, " child={child}"))
            }
            Command::Stop(false) => f.write_str("stop"),
            Command::Stop(true) => f.write_str("stop now"),
            Command::Verdict(number) => write!(f, "verdict {number}"),
        }
    }
}

/// Everything that a command can be given, whichever dialect it came in.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields {
    pub(super) child: Option<String>,
    pub(super) min_spare: Option<u32>,
    pub(super) max_spare: Option<u32>,
    pub(super) max_children: Option<u32>,
    pub(super) reset: bool,
    pub(super) now: bool,
    pub(super) no_wait: bool,
    pub(super) timeout: Option<Duration>,
    pub(super) level: Option<String>,
    pub(super) lasts: Option<Duration>,
    pub(super) number: Option<u64>,
    pub(super) format: Option<String>,
    pub(super) program: Option<String>,
}

impl Fields {
    /// Makes the command of this name.
    pub(super) fn command(self, name: &str) -> Result<Request, Refusal> {
        let child = self.child.as_deref().map(ChildName::read).transpose()?;
        let need_child = || child.ok_or_else(|| Refusal::usage(format_args!("{name} needs a child")));
        let command = match name {
            "hello" => Command::Hello,
            "help" => Command::Help,
            "status" => Command::Status,
            "live" => Command::Live,
            "ready" => Command::Ready,
            "children" => Command::Children,
            "peek" => Command::Peek(child),
            "watch" => Command::Watch,
            "metrics" => Command::Metrics(match self.format.as_deref() {
                None | Some("text") => false,
                Some("openmetrics") => true,
                Some(format) => return Err(Refusal::usage(format_args!("no such format: {}", Quoted(format)))),
            }),
            "resize" => self.resize()?,
            "retire" => Command::Retire(need_child()?),
            "kill" => Command::Kill(need_child()?),
            "reopen" => Command::Reopen,
            "reload" => Command::Reload,
            "check" => Command::Check,
            "upgrade" => Command::Upgrade(self.program),
            "finish" => Command::Finish,
            "log-level" => {
                let level = self.level.ok_or_else(|| Refusal::usage(format_args!("log-level needs a level")))?;
                Command::LogLevel { level, lasts: self.lasts, child }
            }
            "stop" => Command::Stop(self.now),
            "verdict" => Command::Verdict(
                self.number.ok_or_else(|| Refusal::usage(format_args!("verdict needs the number of an order")))?,
            ),
            name => {
                return Err(Refusal::new(
                    Code::UnknownCommand,
                    format_args!("no such command: {}; try help", Quoted(name)),
                ));
            }
        };
        Ok(Request { command, no_wait: self.no_wait, timeout: self.timeout })
    }

    fn resize(&self) -> Result<Command, Refusal> {
        let Fields { min_spare, max_spare, max_children, reset, .. } = *self;
        match (reset, min_spare.is_some() || max_spare.is_some() || max_children.is_some()) {
            (true, false) => Ok(Command::ResetSize),
            (false, true) => Ok(Command::Resize { min_spare, max_spare, max_children }),
            (true, true) => Err(Refusal::usage(format_args!("resize is given either reset or numbers"))),
            (false, false) => {
                Err(Refusal::usage(format_args!("resize needs min_spare=N, max_spare=N, max_children=N or reset")))
            }
        }
    }
}

/// Reads a span of time: a number of seconds, or one with `ms`, `s`, `m` or `h` behind it.
pub(super) fn read_span(text: &str) -> Result<Duration, Refusal> {
    let unclear =
        || Refusal::usage(format_args!("a time is a number with ms, s, m or h behind it, not {}", Quoted(text)));
    let end = text.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().map_err(|_| unclear())?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "" | "s" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(unclear()),
    };
    span(seconds).ok_or_else(unclear)
}

/// Makes a span of time from seconds. `None` for a number that is not a span of time, and for more than a year.
pub(super) fn span(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok().filter(|span| *span <= LONGEST_SPAN)
}

const LONGEST_SPAN: Duration = Duration::from_secs(366 * 86_400);

/// What `help` answers.
pub(in crate::daemon) const HELP: &str = "\
hello                                       who answers: protocol, version, pid, generation
help                                        this text
status                                      the whole service
live                                        whether the service lives; an error with the reason if it needs a restart
ready                                       whether clients are served; an error with the reason if they are not
children                                    the children, with what each process uses
peek [CHILD]                                sessions, watchers and alarms of the parent, or of a child
watch                                       events as they happen
metrics [openmetrics]                       metrics in the text format of Prometheus, or of OpenMetrics
resize [min_spare=N] [max_spare=N] [max_children=N]
                                            change the size of the pool, all of it or nothing
resize reset                                go back to the size that the program has set
retire CHILD                                end a child after its work
kill CHILD                                  end a child at once
reopen                                      open the log files again
reload                                      load the configuration again and replace the children
check                                       load the configuration, and change nothing
upgrade [program=PATH]                      have a new program take over, this one's path if none is named
finish                                      end at once the processes that still drain after a reload or an upgrade,
                                            or end the probation of an upgrade
log-level LEVEL [for=60s] [child=CHILD]     change what is logged
stop [now]                                  end the service, after requests in hand or now
verdict N                                   what has become of order N
A CHILD is SLOT:GENERATION, or a pid. A number that is not the pid of a child is a slot.
Commands that change something wait until that is done: no-wait answers with a number at once, timeout=5s gives up waiting.
A line that begins with { is JSON: {\"command\":\"retire\",\"child\":\"3:1\"}
";

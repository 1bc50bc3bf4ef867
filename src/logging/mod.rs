//! A logger for programs with several processes: whole lines, as text, JSON or for the journal.
//!
//! This crate, like many others, logs through the [`log`] crate, and the program chooses the logger. Any logger works.
//! This one is made for a Daemon and its children. It needs the feature `logging`.
//!
//! ```
//! # fn main() -> Result<(), lenore::logging::LoggerError> {
//! use lenore::logging::Logger;
//!
//! Logger::new().filter("info,lenore::daemon=debug")?.install()?;
//! log::info!("the server begins");
//! log::info!(user = "anna", took_ms = 7; "served");
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//! 2026-11-28T23:31:39.000123Z [INFO] 4711 the server begins
//! 2026-11-28T23:31:39.000171Z [INFO] 4711 served user=anna took_ms=7
//! 2026-11-28T23:31:40.120000Z [WARN] 4711 lenore::daemon: child has ended: pid=4713 slot=1 cause=signal:SIGKILL ...
//! ```
//!
//! # Whole lines
//!
//! Records go to standard error, which a Daemon redirects to its [`logfile`](crate::daemon::DaemonBuilder::logfile). Each record is
//! one `write` system call, made before the macro returns:
//!
//! - Lines of several processes and threads do not mix in a file that is opened for appending, as a `logfile` is, nor in a terminal
//!   or the journal. A pipe keeps records whole up to `PIPE_BUF` bytes, 4096 on Linux. A longer record is written whole as well, but
//!   lines of other processes may come in between. A network file system may mix lines of different machines.
//! - No record waits in a buffer. So a fork can't double a record, and a process that ends by `_exit` or is killed
//!   loses none.
//! - A record that can't be written, as on a full disk, is dropped. The program goes on. When a record can be written again, a
//!   line before it says how many that process has lost: `log records are lost: count=12`. If the disk became full in the middle of
//!   a line, the next record begins on a new line.
//! - If standard error is non-blocking and full, a record waits for 1 s at most. Later records do not wait, until the
//!   reader reads again.
//!
//! # Text
//!
//! A line of [`Format::Text`] has, in this order:
//!
//! - the time in UTC with microseconds, always 27 characters;
//! - the level;
//! - the pid;
//! - the target of the record, unless the target is the name by which the program was started;
//! - the message;
//! - the record's key-values, in quotation marks where needed.
//!
//! If a message has several lines, all but the first are indented by four spaces. So no message can forge a record,
//! even if it contains what a client has sent. Control characters, except tabs, are shown as Rust writes them:
//! `\u{1b}`, `\r`. So are the characters by which Unicode separates lines or changes the direction of text.
//!
//! # The journal
//!
//! A service manager such as systemd names the stream to the journal in the environment variable `JOURNAL_STREAM`. As
//! long as standard error goes to that stream, each line begins with the priority. The line has neither time nor level
//! nor pid, because the journal knows them by itself:
//!
//! ```text
//! <4>lenore::daemon: child has ended: pid=4713 slot=1 cause=signal:SIGKILL ...
//! ```
//!
//! # JSON
//!
//! With [`Format::Json`], each record is one object on one line. In the journal the priority stands in front of it.
//!
//! ```json
//! {"time":"2026-11-28T23:31:39.000171Z","level":"INFO","pid":4711,"target":"server","message":"served","fields":{"user":"anna","took_ms":7}}
//! ```
//!
//! `fields` has the record's key-values, if there are any. Numbers, truth values and null keep their type, all other
//! values are strings. Of two fields of the same name the first counts. `pid` is the process that has logged the
//! record, and `fields.pid` the process that the record is about.
//!
//! # Levels
//!
//! [`Logger::filter`] says which records are written, by target. [`set_level`] sets one level for all of them while the program runs.
//! A record whose level is off for all targets costs one comparison in the macro, as with every logger.

mod error;
mod escape;
mod form;
mod levels;
mod output;

use std::env;
use std::path::Path;
use std::sync::OnceLock;
use std::time::SystemTime;

use log::{Level, LevelFilter, Log, Metadata, Record};

pub use self::error::LoggerError;
use self::form::Stamp;
use self::levels::{Levels, Override};
use self::output::Output;

/// How records are written.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Format {
    /// [Lines to read](self#text), or [lines for the journal](self#the-journal) if standard error goes there.
    #[default]
    Text,
    /// [One object of JSON on each line](self#json).
    Json,
}

/// A logger to be [installed](Logger::install), which writes to standard error.
///
/// The [module's documentation](self) says what it writes.
///
/// ```
/// # fn main() -> Result<(), lenore::logging::LoggerError> {
/// use lenore::logging::{Format, Logger};
///
/// let filter = std::env::var("RUST_LOG").unwrap_or_default();
/// Logger::new().filter(&filter)?.format(Format::Json).install()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is logged until it is installed"]
pub struct Logger {
    levels: Levels,
    format: Format,
}

impl Logger {
    /// Makes a logger that writes records of all targets from level info on, as text.
    pub fn new() -> Logger {
        Logger { levels: Levels::all(LevelFilter::Info), format: Format::Text }
    }

    /// Says which records are written, as the variable `RUST_LOG` does for many loggers.
    ///
    /// `filter` has parts between commas. A part is
    ///
    /// - a level, `off`, `error`, `warn`, `info`, `debug` or `trace`, for all targets that no other part names;
    /// - `target=level`, for this target and all below it, as `lenore::daemon` is below `lenore`;
    /// - or a target alone, for all its records.
    ///
    /// The longest target that fits counts. Without a part that is a level alone, no records of other targets are
    /// written. An empty filter changes nothing. Default: `info`.
    ///
    /// # Errors
    ///
    /// [`LoggerError::Filter`] names the part that can't be read. A pattern for messages, which some loggers allow
    /// after a slash, is an error here.
    ///
    /// ```
    /// # fn main() -> Result<(), lenore::logging::LoggerError> {
    /// use lenore::logging::Logger;
    ///
    /// let logger = Logger::new().filter("warn,lenore=info,lenore::daemon=debug")?;
    /// let error = logger.filter("warn,lenore=loud").unwrap_err();
    /// assert!(error.to_string().starts_with(r#"log filter: "lenore=loud": "#));
    /// # Ok(())
    /// # }
    /// ```
    pub fn filter(mut self, filter: &str) -> Result<Logger, LoggerError> {
        if let Some(levels) = Levels::parse(filter)? {
            self.levels = levels;
        }
        Ok(self)
    }

    /// Says how records are written. Default: [`Format::Text`].
    pub fn format(mut self, format: Format) -> Logger {
        self.format = format;
        self
    }

    /// Makes this the logger of the process, and of the processes that it forks. This can't be undone.
    ///
    /// # Errors
    ///
    /// [`LoggerError::AlreadyInstalled`] if the process already has a logger of any kind. That logger stays.
    pub fn install(self) -> Result<(), LoggerError> {
        log::set_logger(&INSTALLED).map_err(|_| LoggerError::AlreadyInstalled)?;
        // No other call gets here: a process has one logger in its life.
        let logger = INSTALLED.0.get_or_init(|| Installed {
            levels: self.levels,
            format: self.format,
            program: program(),
            output: Output::new(),
        });
        log::set_max_level(logger.most());
        Ok(())
    }
}

impl Default for Logger {
    fn default() -> Logger {
        Logger::new()
    }
}

/// Sets one level for all targets of this process, in place of the filter.
///
/// Children that are forked later begin with this level. Children that already live keep theirs. Unless the process has
/// a [`Logger`] of this crate installed, this has no effect.
///
/// ```
/// use log::LevelFilter;
/// use lenore::logging::{self, Logger};
///
/// # fn main() -> Result<(), logging::LoggerError> {
/// Logger::new().filter("warn")?.install()?;
/// logging::set_level(LevelFilter::Debug);
/// assert!(log::log_enabled!(log::Level::Debug));
/// logging::reset_level();
/// assert!(!log::log_enabled!(log::Level::Debug));
/// # Ok(())
/// # }
/// ```
pub fn set_level(level: LevelFilter) {
    override_level(Some(level));
}

/// Ends what [`set_level`] has begun: the filter holds again.
pub fn reset_level() {
    override_level(None);
}

fn override_level(level: Option<LevelFilter>) {
    set_override(level);
}

/// Sets one level for all targets, or ends that with `None`. Returns whether the process has a [`Logger`].
pub(crate) fn set_override(level: Option<LevelFilter>) -> bool {
    let Some(logger) = INSTALLED.0.get() else { return false };
    OVERRIDE.set(level);
    log::set_max_level(logger.most());
    true
}

/// The target of lines that say which operator gave a Daemon which command. A level that is set at run time can't
/// switch them off.
const AUDIT: &str = "lenore::audit";

/// Where the level comes from that is set at run time.
static OVERRIDE: Override = Override::none();

static INSTALLED: Slot = Slot(OnceLock::new());

/// What the `log` crate knows: it wants a reference that lives for ever, before there is anything to refer to.
struct Slot(OnceLock<Installed>);

/// A logger at work.
struct Installed {
    levels: Levels,
    format: Format,
    program: String,
    output: Output,
}

impl Installed {
    /// The level from which on the macros need not ask.
    fn most(&self) -> LevelFilter {
        let own = self.levels.of(AUDIT);
        OVERRIDE.get().map_or_else(|| self.levels.most(), |level| level.max(own))
    }

    fn is_on(&self, level: Level, target: &str) -> bool {
        let own = || self.levels.of(target);
        level
            <= match OVERRIDE.get() {
                Some(set) if target == AUDIT => set.max(own()),
                Some(set) => set,
                None => own(),
            }
    }

    fn write(&self, record: &Record<'_>) {
        let stamp = Stamp { time: SystemTime::now(), pid: std::process::id(), program: &self.program };
        let is_journal = self.output.is_journal();
        let push = |line: &mut String, record: &Record<'_>| match (self.format, is_journal) {
            (Format::Text, false) => form::push_text(line, record, stamp),
            (Format::Text, true) => form::push_journal(line, record, stamp),
            (Format::Json, is_journal) => {
                if is_journal {
                    line.push_str(form::priority(record.level()));
                }
                form::push_json(line, record, stamp);
            }
        };
        // Made for this record, and not kept: its values may log something themselves while they are shown.
        let mut lines = String::with_capacity(USUAL_LENGTH);
        if self.output.is_torn() {
            lines.push('\n');
        }
        let lost = self.output.lost(stamp.pid);
        if lost > 0 {
            let args = format_args!("log records are lost: count={lost}");
            let fields = [("count", lost)];
            let told =
                Record::builder().level(Level::Warn).target(module_path!()).args(args).key_values(&fields).build();
            push(&mut lines, &told);
        }
        push(&mut lines, record);
        self.output.write(lines.as_bytes(), lost);
    }
}

impl Log for Slot {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.get().is_some_and(|logger| logger.is_on(metadata.level(), metadata.target()))
    }

    fn log(&self, record: &Record<'_>) {
        if let Some(logger) = self.0.get()
            && logger.is_on(record.level(), record.target())
        {
            logger.write(record);
        }
    }

    /// Nothing waits.
    fn flush(&self) {}
}

/// The name of the program's own crate, as far as the name tells by which it was started.
fn program() -> String {
    let path = env::args_os().next().unwrap_or_default();
    let name = Path::new(&path).file_name().unwrap_or_default().to_string_lossy();
    name.replace('-', "_")
}

/// Longer than most lines, so that they are put together in one piece of memory.
const USUAL_LENGTH: usize = 256;

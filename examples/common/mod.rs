//! What the examples share: reading their flags, logging to standard error, and ending with one clear line.
#![allow(dead_code, unused_imports, reason = "each example compiles its own copy and uses a part of it")]

use std::error::Error;
use std::fmt::Display;
use std::io::LineWriter;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use simplelog::{ConfigBuilder, LevelFilter, WriteLogger};

mod output;
mod settings;

pub use output::say;
pub use settings::{DAEMON_FLAGS, daemon_settings};

/// The flags of the command line, as they are asked for one by one.
pub struct Flags {
    usage: String,
    words: Vec<String>,
}

/// A command line that makes no sense.
pub struct Usage(String);

impl Flags {
    /// Takes the command line. `usage`, whose parts are joined by blanks, is what a wrong one is answered with.
    pub fn new(usage: &[&str]) -> Flags {
        Flags { usage: format!("usage: {}", usage.join(" ")), words: std::env::args().skip(1).collect() }
    }

    /// Returns whether `name` was given.
    pub fn has(&mut self, name: &str) -> bool {
        let place = self.words.iter().position(|word| word == name);
        place.map(|place| self.words.remove(place)).is_some()
    }

    /// Returns the value that follows `name`.
    pub fn value<T: FromStr<Err: Display>>(&mut self, name: &str) -> Result<Option<T>, Usage> {
        let Some(place) = self.words.iter().position(|word| word == name) else { return Ok(None) };
        self.words.remove(place);
        match self.words.get(place) {
            Some(word) if !word.starts_with("--") => self.take(place, name).map(Some),
            _ => Err(self.wrong(format_args!("{name} needs a value"))),
        }
    }

    /// Gives the value that follows `name` to one of the methods of a builder.
    pub fn set<T: FromStr<Err: Display>, B>(
        &mut self,
        name: &str,
        builder: B,
        method: fn(B, T) -> B,
    ) -> Result<B, Usage> {
        let value = self.value(name)?;
        Ok(match value {
            Some(value) => method(builder, value),
            None => builder,
        })
    }

    /// Returns the first word that no flag has taken; `what` names it. To be asked for after the flags.
    pub fn word<T: FromStr<Err: Display>>(&mut self, what: &str) -> Result<T, Usage> {
        match self.words.first() {
            Some(word) if !word.starts_with("--") => self.take(0, what),
            Some(word) => Err(self.wrong(format_args!("unknown argument {word}"))),
            None => Err(self.wrong(format_args!("no {what} is given"))),
        }
    }

    /// Makes sure that nothing is left.
    pub fn finish(self) -> Result<(), Usage> {
        match self.words.first() {
            Some(word) => Err(self.wrong(format_args!("unknown argument {word}"))),
            None => Ok(()),
        }
    }

    fn take<T: FromStr<Err: Display>>(&mut self, place: usize, name: &str) -> Result<T, Usage> {
        let word = self.words.remove(place);
        word.parse().map_err(|error| self.wrong(format_args!("{name} {word:?}: {error}")))
    }

    fn wrong(&self, what: std::fmt::Arguments<'_>) -> Usage {
        Usage(format!("{what}; {}", self.usage))
    }
}

/// Reads the command line of the ported programs. The log file, an absolute path, is `name` in the temporary directory
/// unless a flag says otherwise.
pub fn port_and_logfile(usage: &str, name: &str) -> Result<(u16, PathBuf), Usage> {
    let mut flags = Flags::new(&[usage]);
    let logfile = flags.value("--logfile")?.unwrap_or_else(|| std::env::temp_dir().join(name));
    let logfile = std::path::absolute(&logfile)
        .map_err(|error| flags.wrong(format_args!("--logfile {}: {error}", logfile.display())))?;
    let port = flags.word("PORT")?;
    flags.finish()?;
    Ok((port, logfile))
}

/// Logs to standard error from `level` on.
pub fn log_to_stderr(level: LevelFilter) {
    let config = ConfigBuilder::new().set_time_format_rfc3339().build();
    // Whole lines only: all processes write to the same place. Fails only if there is a logger already.
    let _ = WriteLogger::init(level, config, LineWriter::new(std::io::stderr()));
}

/// Exit code 0, or one line on standard error and 2 for a wrong command line, 1 for anything else.
pub fn exit(outcome: Result<Result<(), Box<dyn Error>>, Usage>) -> ExitCode {
    match outcome {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            let _ = say(std::io::stderr(), error);
            ExitCode::from(1)
        }
        Err(Usage(text)) => {
            let _ = say(std::io::stderr(), text);
            ExitCode::from(2)
        }
    }
}

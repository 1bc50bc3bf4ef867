//! What the examples share: reading their flags, logging to standard error, and ending with one clear line.

use std::error::Error;
use std::fmt::Display;
use std::io::LineWriter;
use std::process::ExitCode;
use std::str::FromStr;

use simplelog::{ConfigBuilder, LevelFilter, WriteLogger};

/// The flags of the command line, as they are asked for one by one.
pub struct Flags {
    usage: &'static str,
    words: Vec<String>,
}

/// A command line that makes no sense.
pub struct Usage(String);

impl Flags {
    /// Takes the command line. `usage` is what a wrong one is answered with.
    pub fn new(usage: &'static str) -> Flags {
        Flags { usage, words: std::env::args().skip(1).collect() }
    }

    /// Returns whether `name` was given.
    #[allow(dead_code, reason = "not every example has such a flag")]
    pub fn has(&mut self, name: &str) -> bool {
        let place = self.words.iter().position(|word| word == name);
        place.map(|place| self.words.remove(place)).is_some()
    }

    /// Returns the value that follows `name`.
    pub fn value<T: FromStr<Err: Display>>(&mut self, name: &str) -> Result<Option<T>, Usage> {
        let Some(place) = self.words.iter().position(|word| word == name) else { return Ok(None) };
        self.words.remove(place);
        if place == self.words.len() {
            return Err(Usage(format!("{name} needs a value; {}", self.usage)));
        }
        let word = self.words.remove(place);
        word.parse().map(Some).map_err(|error| Usage(format!("{name} {word}: {error}; {}", self.usage)))
    }

    /// Makes sure that nothing is left.
    pub fn finish(self) -> Result<(), Usage> {
        match self.words.first() {
            Some(word) => Err(Usage(format!("unknown argument {word}; {}", self.usage))),
            None => Ok(()),
        }
    }
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
            eprintln!("{error}");
            ExitCode::from(1)
        }
        Err(Usage(text)) => {
            eprintln!("{text}");
            ExitCode::from(2)
        }
    }
}

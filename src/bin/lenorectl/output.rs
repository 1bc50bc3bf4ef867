//! Writing to standard output, whose reader may go away.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process;

use serde::Serialize;

/// Writes a text, with a line end if it has none. Ends the program in order if its reader has gone.
pub fn say(text: impl Display) {
    let mut text = text.to_string();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => process::exit(0),
        Err(error) => {
            let _ = writeln!(io::stderr(), "lenorectl: standard output: {error}");
            process::exit(1);
        }
        Ok(()) => {}
    }
}

/// Writes a value as JSON to be read by people and programs.
pub fn say_json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => say(text),
        Err(error) => warn(error),
    }
}

/// Writes a line to standard error.
pub fn warn(text: impl Display) {
    let _ = writeln!(io::stderr(), "lenorectl: {text}");
}

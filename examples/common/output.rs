//! Writes lines to standard output and standard error. `println!` and `eprintln!` panic when the reader has gone.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

/// Writes a line to standard output, if it can be written. The program goes on without a reader.
pub fn say_if_read(line: impl Display) {
    let _ = say(io::stdout(), line);
}

/// Writes a line. Returns false once its reader has gone, as `head` goes after its last line.
///
/// # Errors
///
/// Whatever else keeps the line from being written, such as a full disk.
pub fn say(mut to: impl Write, line: impl Display) -> io::Result<bool> {
    match writeln!(to, "{line}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        said => said.map(|()| true),
    }
}

//! The line protocol of the peers, without any I/O of its own: each line comes back with CRLF.

use std::io::{self, ErrorKind, Write};

/// The size of a server's read buffer, one for all of its connections.
pub const CHUNK: usize = 16 * 1024;

/// The longest line a client may send.
const LINE_LIMIT: usize = 64 * 1024;

/// One connection's buffers. Both are empty, and stay unused, while requests and replies come and go whole.
#[derive(Debug, Default)]
pub struct LineEcho {
    /// The start of a line whose end has not been read.
    partial: Vec<u8>,
    /// Replies, of which the first `written` bytes have been written.
    output: Vec<u8>,
    written: usize,
}

impl LineEcho {
    /// Appends the reply to every line that `fresh` completes; keeps what follows the last one.
    ///
    /// # Errors
    ///
    /// `InvalidData` when a line is too long.
    pub fn feed(&mut self, fresh: &[u8]) -> io::Result<()> {
        let mut rest = fresh;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let start = self.output.len();
            self.output.append(&mut self.partial);
            self.output.extend_from_slice(&rest[..end]);
            if self.output[start..].last() == Some(&b'\r') {
                self.output.pop();
            }
            self.output.extend_from_slice(b"\r\n");
            rest = &rest[end + 1..];
        }
        if self.partial.len() + rest.len() > LINE_LIMIT {
            return Err(ErrorKind::InvalidData.into());
        }
        self.partial.extend_from_slice(rest);
        Ok(())
    }

    /// Writes the replies, with one write(2) unless it falls short. `WouldBlock` is no error: see
    /// [`LineEcho::is_flushed`].
    pub fn flush(&mut self, mut stream: impl Write) -> io::Result<()> {
        while !self.is_flushed() {
            match stream.write(&self.output[self.written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }

    /// Whether every reply has been written.
    pub fn is_flushed(&self) -> bool {
        self.written == self.output.len()
    }
}

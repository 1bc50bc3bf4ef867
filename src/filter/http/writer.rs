//! Turns records into bytes: responses, and bodies in pieces.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::response::Ending;
use super::{FilterError, Outgoing, Response};

/// Where the output stands.
#[derive(Debug, Default)]
pub(super) enum Writer {
    /// Between two responses.
    #[default]
    Ready,
    /// In a streamed body. The number says how much of it is left, if that is known.
    Streaming(Ending),
}

impl Writer {
    #[cfg(feature = "service")]
    pub(super) fn is_ready(&self) -> bool {
        matches!(self, Writer::Ready)
    }

    /// Appends the bytes of `record`. On an error it appends nothing.
    pub(super) fn put(
        &mut self,
        record: &Outgoing,
        clock: fn() -> SystemTime,
        out: &mut Vec<u8>,
    ) -> Result<(), FilterError> {
        match (&*self, record) {
            (Writer::Ready, Outgoing::Response(response)) => self.response(response, clock, out),
            (Writer::Streaming(_), Outgoing::Response(_)) => {
                Err(malformed("the response before this one has no end yet"))
            }
            (Writer::Ready, _) => Err(malformed("a piece or an end without a streamed response")),
            (&Writer::Streaming(ending), Outgoing::Piece(piece)) => self.piece(ending, piece, out),
            (&Writer::Streaming(ending), Outgoing::End) => self.end(ending, out),
        }
    }

    fn response(
        &mut self,
        response: &Response,
        clock: fn() -> SystemTime,
        out: &mut Vec<u8>,
    ) -> Result<(), FilterError> {
        if let Some(ending) = response.encode(|out| push_date(clock(), out), out)? {
            *self = Writer::Streaming(ending);
        }
        Ok(())
    }

    fn piece(&mut self, ending: Ending, piece: &[u8], out: &mut Vec<u8>) -> Result<(), FilterError> {
        match ending {
            Ending::NoBody => return Ok(()),
            // A chunk without bytes would end the body.
            Ending::Chunked if piece.is_empty() => return Ok(()),
            Ending::Chunked => {
                push_hex(piece.len(), out);
                out.extend_from_slice(b"\r\n");
                out.extend_from_slice(piece);
                out.extend_from_slice(b"\r\n");
            }
            Ending::Close => out.extend_from_slice(piece),
            Ending::Length(left) => {
                let left =
                    left.checked_sub(piece.len() as u64).ok_or(malformed("more body than Content-Length says"))?;
                out.extend_from_slice(piece);
                *self = Writer::Streaming(Ending::Length(left));
            }
        }
        Ok(())
    }

    fn end(&mut self, ending: Ending, out: &mut Vec<u8>) -> Result<(), FilterError> {
        match ending {
            Ending::Length(1..) => return Err(malformed("less body than Content-Length says")),
            Ending::Chunked => out.extend_from_slice(b"0\r\n\r\n"),
            Ending::NoBody | Ending::Close | Ending::Length(0) => {}
        }
        *self = Writer::Ready;
        Ok(())
    }
}

fn malformed(reason: &'static str) -> FilterError {
    FilterError::malformed(reason)
}

fn push_hex(number: usize, out: &mut Vec<u8>) {
    let digits = (usize::BITS - number.leading_zeros()).div_ceil(4).max(1);
    out.extend((0..digits).rev().map(|place| b"0123456789abcdef"[number >> (4 * place) & 15]));
}

/// Appends the line with the date. It is formatted once a second, whatever the number of connections.
fn push_date(now: SystemTime, out: &mut Vec<u8>) {
    thread_local! {
        static LAST: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
    }
    let now = within_reach(now);
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    LAST.with_borrow_mut(|(last, line)| {
        if *last != second {
            *last = second;
            *line = format!("Date: {}\r\n", httpdate::fmt_http_date(now));
        }
        out.extend_from_slice(line.as_bytes());
    });
}

/// Returns the nearest time that can be written, because httpdate panics for others.
pub(super) fn within_reach(time: SystemTime) -> SystemTime {
    time.clamp(UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(LAST_SECOND))
}

/// The last second of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

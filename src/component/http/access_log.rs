//! The access log, with a line for each request.

use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::filter::http::{Request, format_date};
use crate::harmful::{is_harmful, push_json_escape};

/// The format of the lines of [`Service::access_log`](super::Service::access_log).
///
/// The service writes a line when the system has taken the whole response, or when the connection has ended before
/// that. The line has the time of the request, and the bytes of the response's body without the framing. Everything
/// that the client has sent is escaped, so that the client can't add a line or a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccessLog {
    /// The combined format of Apache, followed by the duration in seconds. If the connection has ended before the
    /// response was complete, a `!` follows:
    ///
    /// `127.0.0.1 - - [29/Nov/2026:15:04:05 +0000] "GET /hello HTTP/1.1" 200 6 "-" "curl/8.5.0" 0.000071`
    Combined,
    /// A JSON object with the fields `time` (in the format of HTTP), `peer`, `method`, `target`, `version`, `status`,
    /// `octets`, `duration_us`, `referer`, `user_agent` and `complete`. A field whose value is unknown is `null`.
    Json,
}

/// What the log has of a request.
#[derive(Debug)]
pub(super) struct Entry {
    form: AccessLog,
    /// `None` on a UNIX socket.
    peer: Option<String>,
    time: SystemTime,
    /// Method, target and version. `None` if the request could not be read.
    line: Option<(String, String, String)>,
    referer: Option<String>,
    user_agent: Option<String>,
    pub(super) status: u16,
    pub(super) octets: u64,
    /// How many bytes, in all, the connection had put by the end of the response.
    pub(super) end: usize,
}

impl Entry {
    /// Starts the line of a request. Returns `None` if the logger does not take such lines.
    pub(super) fn begin(
        form: AccessLog,
        peer: &str,
        time: SystemTime,
        request: Option<&Request>,
    ) -> Option<Box<Entry>> {
        if !log::log_enabled!(target: TARGET, log::Level::Info) {
            return None;
        }
        let text = |name| {
            let value = request?.headers().get_all(name).next()?;
            Some(String::from_utf8_lossy(value).into_owned())
        };
        Some(Box::new(Entry {
            form,
            peer: (!peer.is_empty()).then(|| peer.to_owned()),
            time,
            line: request.map(|request| {
                (request.method().to_owned(), request.target().to_owned(), request.version().to_string())
            }),
            referer: text("Referer"),
            user_agent: text("User-Agent"),
            status: 0,
            octets: 0,
            end: 0,
        }))
    }

    /// Writes the line. `is_complete` says whether the system has taken the whole response.
    pub(super) fn write(&self, now: SystemTime, is_complete: bool) {
        let duration = now.duration_since(self.time).unwrap_or_default();
        match self.form {
            AccessLog::Combined => log::info!(target: TARGET, "{}", self.combined(duration, is_complete)),
            AccessLog::Json => log::info!(target: TARGET, "{}", self.json(duration, is_complete)),
        }
    }

    fn combined(&self, duration: Duration, is_complete: bool) -> String {
        let mut line = format!("{} - - [{}] ", self.peer.as_deref().unwrap_or("-"), log_date(self.time));
        match &self.line {
            Some((method, target, version)) => push_quoted(&mut line, &format!("{method} {target} {version}")),
            None => line.push_str("\"-\""),
        }
        line.push_str(&format!(" {} {} ", self.status, self.octets));
        push_quoted(&mut line, self.referer.as_deref().unwrap_or("-"));
        line.push(' ');
        push_quoted(&mut line, self.user_agent.as_deref().unwrap_or("-"));
        line.push_str(&format!(" {:.6}", duration.as_secs_f64()));
        line.push_str(if is_complete { "" } else { " !" });
        line
    }

    fn json(&self, duration: Duration, is_complete: bool) -> String {
        let line = json!({
            "time": format_date(self.time),
            "peer": self.peer,
            "method": self.line.as_ref().map(|(method, ..)| method),
            "target": self.line.as_ref().map(|(_, target, _)| target),
            "version": self.line.as_ref().map(|(.., version)| version),
            "status": self.status,
            "octets": self.octets,
            "duration_us": u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
            "referer": self.referer,
            "user_agent": self.user_agent,
            "complete": is_complete,
        });
        // JSON lets some characters stand that steer a terminal.
        let mut escaped = String::new();
        for char in line.to_string().chars() {
            if is_harmful(char) { push_json_escape(&mut escaped, char) } else { escaped.push(char) }
        }
        escaped
    }
}

/// Formats a time as Apache does.
fn log_date(time: SystemTime) -> String {
    let date = format_date(time);
    // Sun, 06 Nov 1994 08:49:37 GMT
    let part = |range: std::ops::Range<usize>| date.get(range).unwrap_or_default();
    format!("{}/{}/{}:{} +0000", part(5..7), part(8..11), part(12..16), part(17..25))
}

/// Appends text in quotes. Quotes, backslashes and everything that is not printable ASCII become `\xHH`.
fn push_quoted(line: &mut String, text: &str) {
    line.push('"');
    for octet in text.bytes() {
        match octet {
            b'"' | b'\\' | ..0x20 | 0x7f.. => line.push_str(&format!("\\x{octet:02x}")),
            _ => line.push(char::from(octet)),
        }
    }
    line.push('"');
}

const TARGET: &str = "lenore::access";

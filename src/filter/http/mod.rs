//! The server side of HTTP/1.1: a filter that reads requests and writes responses. Needs the feature `http`.
//!
//! [`Httpd`] is the filter. A wheel with it delivers an [`Incoming`] for each request, and takes [`Outgoing`]. The
//! filter only does the framing: persistent connections, pipelining, bodies with a length or in chunks, and limits. It
//! refuses requests that two programs could read in different ways. The session decides what a path or a cookie means.
//! A program that wants routes and handlers takes a `component::http::Service` instead.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::os::unix::net::UnixStream;
//! use lenore::{Kernel, Session};
//! use lenore::filter::http::{Httpd, Incoming, Outgoing};
//! use lenore::wheel::ReadWrite;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (ours, mut theirs) = UnixStream::pair()?;
//! let mut kernel = Kernel::new()?;
//! Session::new(None::<ReadWrite<Httpd>>)
//!     .args((ours,))
//!     .state("_start", |cx| {
//!         let stream = cx.take::<UnixStream>(0)?;
//!         let wheel = ReadWrite::stream(stream, Httpd::new()).on_input("input");
//!         // A client that asks and does not read has its next requests wait.
//!         let wheel = wheel.watermarks(16 * 1024, 64 * 1024).auto_pause().start(cx)?;
//!         *cx.heap() = Some(wheel);
//!         Ok(())
//!     })
//!     .state("input", |cx| {
//!         let response = match cx.take::<Incoming>(0)? {
//!             Incoming::Request(request) => request.reply(200).body("hello"),
//!             Incoming::Refused(refusal) => refusal.response(),
//!             _ => return Ok(()),
//!         };
//!         let closes = response.closes();
//!         let Some(wheel) = cx.heap().take() else { return Ok(()) };
//!         wheel.put(Outgoing::Response(response));
//!         match closes {
//!             true => wheel.close_after_flush(),
//!             false => *cx.heap() = Some(wheel),
//!         }
//!         Ok(())
//!     })
//!     .spawn(&mut kernel)?;
//!
//! theirs.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")?;
//! kernel.run()?;
//! let mut response = String::new();
//! theirs.read_to_string(&mut response)?;
//! assert!(response.starts_with("HTTP/1.1 200 OK\r\nDate: ") && response.ends_with("\r\n\r\nhello"));
//! # Ok(())
//! # }
//! ```
//!
//! POE: `POE::Filter::HTTPD`, which can't read chunks and loses pipelined requests.

use std::time::SystemTime;

use super::{Filter, FilterError, put_whole};

mod body;
mod head;
mod headers;
pub(crate) mod markup;
mod reader;
mod refusal;
mod request;
mod response;
mod status;
mod target;
mod writer;

pub use headers::Headers;
pub use refusal::Refusal;
pub use request::{Request, Version};
pub use response::Response;

#[cfg(feature = "service")]
pub(crate) use response::Client;

use reader::Reader;
use writer::Writer;

/// Cuts HTTP requests, and writes responses. See the [module](self).
///
/// The filter delivers a request [whole](Incoming::Request), or in parts with [`streaming`](Self::streaming). It skips
/// empty lines in front of a request. The lines of a head may end with LF alone, those of a chunked body only with CR
/// LF.
///
/// A request that the filter can't serve comes once, as [`Incoming::Refused`]. After that, and after the connection's
/// last request, the filter has **ended**. It then takes input and discards it, delivers no record, and has nothing
/// pending. The session can still put responses. `get_one` itself never fails.
///
/// [`get_pending`](Filter::get_pending) is the input that the filter has not looked at. While a body comes in, the part
/// that the filter has taken belongs to a request already. Between two requests another filter can take over, as after
/// an `Upgrade` or a `CONNECT`. It gets whatever the client has sent after the request.
///
/// POE: `POE::Filter::HTTPD`.
#[derive(Debug)]
#[doc(alias = "HTTPD")]
pub struct Httpd {
    settings: Settings,
    input: Reader,
    output: Writer,
}

/// The settings.
#[derive(Debug, Clone, Copy)]
struct Settings {
    max_head: usize,
    max_content: usize,
    delivery: Delivery,
    clock: fn() -> SystemTime,
}

/// When requests are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivery {
    Whole,
    Streaming,
}

/// A record as the session gets it.
///
/// POE: an `HTTP::Request`, a string when streaming, or an `HTTP::Response` in place of a bad request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A request with its whole body. When [streaming](Httpd::streaming), only its head.
    Request(Request),
    /// The head of a request whose client waits for permission before it sends the body.
    ///
    /// Put [`Response::proceed`], and the whole request will come. Or put any other response, with
    /// [`close`](Response::close), and close the connection. It never comes when streaming. Ask
    /// [`expects_continue`](Request::expects_continue) there.
    Expects(Request),
    /// When streaming: the next part of the body, as it has come. It is never empty.
    Piece(Vec<u8>),
    /// When streaming: the request is complete. It has the trailer fields of a chunked body, usually none.
    End(Headers),
    /// A request that the filter refuses. Put [`Refusal::response`] and close the connection. No record comes after it.
    Refused(Refusal),
}

/// A record as the session puts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing {
    /// A response, or the head of a [streamed](Response::streamed) one.
    Response(Response),
    /// The next part of a streamed body.
    Piece(Vec<u8>),
    /// The end of a streamed body.
    End,
}

impl Httpd {
    /// Makes a filter that delivers whole requests, with at most 16 KiB of head and 1 MiB of body.
    ///
    /// POE: `new`.
    pub fn new() -> Self {
        let settings = Settings {
            max_head: 16 * 1024,
            max_content: 1024 * 1024,
            delivery: Delivery::Whole,
            clock: SystemTime::now,
        };
        Httpd { settings, input: Reader::default(), output: Writer::default() }
    }

    /// Sets the longest head in bytes, including the request line and the empty line. The trailer fields have a limit
    /// of the same size. So have all extensions of a body's chunks together, which the filter reads and discards. A
    /// request may never have more than 100 fields. Default: 16 KiB.
    ///
    /// # Errors
    ///
    /// [`FilterError::InvalidSetting`] for 0, and from 2 GiB on.
    ///
    /// POE: part of `MaxBuffer`, which has no other use here. `max_head` and `max_content` bound what a filter holds.
    #[doc(alias = "MaxBuffer")]
    pub fn max_head(mut self, octets: usize) -> Result<Self, FilterError> {
        let invalid = |reason: &'static str| Err(FilterError::invalid_setting("max_head", reason));
        match octets {
            0 => return invalid("must not be zero"),
            0x8000_0000.. => return invalid("must be less than 2 GiB"),
            _ => self.settings.max_head = octets,
        }
        Ok(self)
    }

    /// Sets the largest body of a whole request, in bytes after decoding. With 0 no request may have a body. Streamed
    /// bodies have no limit. Default: 1 MiB.
    ///
    /// POE: `MaxContent`.
    #[doc(alias = "MaxContent")]
    #[must_use]
    pub fn max_content(mut self, octets: usize) -> Self {
        self.settings.max_content = octets;
        self
    }

    /// Delivers a request in parts: its head as soon as that is complete, its body as it comes in, and then an
    /// [`End`](Incoming::End), even if there is no body.
    ///
    /// POE: `Streaming`, where nothing marks the end.
    #[doc(alias = "Streaming")]
    #[must_use]
    pub fn streaming(mut self) -> Self {
        self.settings.delivery = Delivery::Streaming;
        self
    }

    /// Tells whether the input so far consists of whole requests. Empty lines in front of a request don't count as part
    /// of it. Bytes that were read but not delivered count as input.
    ///
    /// A server asks this before it closes a connection that is idle, or closes one to make room. If a request has
    /// begun to come, its client would lose it.
    ///
    /// ```
    /// use lenore::filter::http::Httpd;
    /// use lenore::filter::Filter;
    ///
    /// let mut httpd = Httpd::new();
    /// assert!(httpd.is_between_requests());
    /// assert_eq!(httpd.get(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\n:")?.len(), 0);
    /// assert!(!httpd.is_between_requests());
    /// assert_eq!(httpd.get(b")\r\n")?.len(), 1);
    /// assert!(httpd.is_between_requests());
    /// # Ok::<(), lenore::filter::FilterError>(())
    /// ```
    pub fn is_between_requests(&self) -> bool {
        self.input.is_between_requests()
    }

    /// Tells whether the output is between two responses, so that no streamed response waits for its end.
    #[cfg(feature = "service")]
    pub(crate) fn is_between_responses(&self) -> bool {
        self.output.is_ready()
    }

    /// Sets the clock for the `Date` field. Default: the system's clock.
    #[must_use]
    pub fn clock(mut self, clock: fn() -> SystemTime) -> Self {
        self.settings.clock = clock;
        self
    }
}

impl Default for Httpd {
    fn default() -> Self {
        Self::new()
    }
}

impl Filter for Httpd {
    type Input = Incoming;
    type Output = Outgoing;

    fn get_one_start(&mut self, chunk: &[u8]) -> Result<(), FilterError> {
        self.input.append(chunk);
        Ok(())
    }

    fn get_one(&mut self) -> Result<Option<Incoming>, FilterError> {
        Ok(self.input.next(&self.settings))
    }

    /// # Errors
    ///
    /// [`FilterError::Malformed`] for records out of order, and for a response that can't be sent: its status or a
    /// header name is not valid, or its body is not as long as its `Content-Length`.
    fn put(&mut self, record: &Outgoing, out: &mut Vec<u8>) -> Result<(), FilterError> {
        put_whole(out, |out| self.output.put(record, self.settings.clock, out))
    }

    fn get_pending(&self) -> &[u8] {
        self.input.pending()
    }

    /// As [`is_between_requests`](Httpd::is_between_requests).
    fn is_between_records(&self) -> bool {
        self.is_between_requests()
    }

    /// # Errors
    ///
    /// [`FilterError::CannotSwitch`] in the middle of a request, unless it is streamed.
    fn hand_over(&self) -> Result<&[u8], FilterError> {
        match self.input.held() {
            0 => Ok(self.input.pending()),
            held => Err(FilterError::CannotSwitch { held }),
        }
    }

    fn clone_config(&self) -> Self {
        Httpd { settings: self.settings, ..Self::new() }
    }
}

/// Formats a time for `Last-Modified` and similar fields: `Sun, 06 Nov 1994 08:49:37 GMT`.
///
/// Years before 1970 and after 9999 become the nearest time that can be written.
///
/// POE: `HTTP::Date::time2str`.
#[doc(alias = "time2str")]
#[must_use]
pub fn format_date(time: SystemTime) -> String {
    httpdate::fmt_http_date(writer::within_reach(time))
}

/// Reads a time in any of the formats of HTTP. Returns `None` if the text is not a time.
///
/// POE: `HTTP::Date::str2time`.
#[doc(alias = "str2time")]
#[must_use]
pub fn parse_date(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text).ok()
}

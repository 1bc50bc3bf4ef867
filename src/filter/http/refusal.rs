//! Requests that can't be served, and what to tell the client.

use std::fmt;

use super::request::Request;
use super::response::Response;

/// Why the filter refuses input, and the response to send. Put the response, and close the connection after it.
///
/// The filter reads no request after a refused one. It can't know where the next request begins, and a guess would make
/// request smuggling possible. It discards what the client still sends.
///
/// | status | for |
/// | --- | --- |
/// | 400 | syntax; no `Host`, or several; a host or a target against RFC 3986; a body whose end is told in two ways or in none |
/// | 413 | a body beyond [`max_content`](super::Httpd::max_content) |
/// | 414, 431 | a request line, or a head or trailer, beyond [`max_head`](super::Httpd::max_head); too many fields |
/// | 417 | an expectation other than `100-continue` |
/// | 501 | a transfer coding other than `chunked` |
/// | 505 | a version before 1.0, or from 2.0 on |
///
/// ```
/// use lenore::filter::http::{Httpd, Incoming};
/// use lenore::filter::Filter;
///
/// let mut httpd = Httpd::new();
/// let records = httpd.get(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n")?;
/// let [Incoming::Refused(refusal)] = &records[..] else { panic!("{records:?}") };
/// assert_eq!(refusal.to_string(), "400 Bad Request: HTTP/1.1 needs a Host");
/// assert!(refusal.response().closes());
/// # Ok::<(), lenore::filter::FilterError>(())
/// ```
///
/// POE: an `HTTP::Response` in place of the request. `POE::Filter::HTTPD` goes on behind a bad head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    status: u16,
    detail: &'static str,
    /// Boxed to keep records small.
    request: Option<Box<Request>>,
}

impl Refusal {
    pub(super) fn new(status: u16, detail: &'static str, request: Option<Request>) -> Refusal {
        Refusal { status, detail, request: request.map(Box::new) }
    }

    /// Adds the request if it is known.
    pub(super) fn of(mut self, request: Option<Request>) -> Refusal {
        self.request = self.request.or(request.map(Box::new));
        self
    }

    /// Returns the status code of the response.
    ///
    /// POE: `code`.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Returns what is wrong, in lower case and without a full stop.
    pub fn detail(&self) -> &str {
        self.detail
    }

    /// Returns the part of the request that was read. Returns `None` if the head itself is wrong, or if the request was
    /// delivered already.
    ///
    /// POE: `request`.
    pub fn request(&self) -> Option<&Request> {
        self.request.as_deref()
    }

    /// Makes the response to send: a page with the status and the detail. It is the connection's last.
    pub fn response(&self) -> Response {
        let response = match &self.request {
            Some(request) => request.reply(self.status),
            None => Response::new(self.status),
        };
        response.page(self.detail).close()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = super::status::reason(self.status).unwrap_or("Unknown Error");
        write!(f, "{} {reason}: {}", self.status, self.detail)
    }
}

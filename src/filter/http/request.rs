//! A client's request.

use std::fmt;

use super::Response;
use super::headers::{Headers, Span};
use super::target;

/// The protocol version of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// HTTP/1.0. It has one connection for each request, unless the client asks for more, and no chunked bodies.
    Http10,
    /// HTTP/1.1, and HTTP/1.2 to HTTP/1.9, which are served as HTTP/1.1.
    Http11,
}

/// A request, as a record of [`Httpd`](super::Httpd).
///
/// ```
/// use lenore::filter::http::{Httpd, Incoming};
/// use lenore::filter::Filter;
///
/// let mut httpd = Httpd::new();
/// let records = httpd.get(b"POST /add?to=7 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nthing")?;
/// let [Incoming::Request(request)] = &records[..] else { panic!("{records:?}") };
/// assert_eq!((request.method(), request.path(), request.query()), ("POST", "/add", Some("to=7")));
/// assert_eq!((request.header("host"), request.body()), (Some("a.test"), &b"thing"[..]));
///
/// let response = request.reply(201).header("Location", "/thing").body("done\n");
/// assert!(!response.closes());
/// # Ok::<(), lenore::filter::FilterError>(())
/// ```
///
/// POE: the `HTTP::Request` that `POE::Filter::HTTPD` makes.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    pub(super) head: Head,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Headers,
}

/// The part of a request in front of its body.
#[derive(Clone)]
pub(super) struct Head {
    /// Its text holds the request line as well.
    pub(super) headers: Headers,
    pub(super) method: Span,
    pub(super) target: Span,
    pub(super) version: Version,
    pub(super) keep_alive: bool,
    pub(super) expects_continue: bool,
}

impl Request {
    /// Returns the method as the client has sent it. Methods are case-sensitive.
    ///
    /// POE: `method`.
    pub fn method(&self) -> &str {
        self.head.method.of_text(&self.head.headers.text)
    }

    /// Returns the request target. It is usually a path with its query, otherwise `*` or a whole URI. Several leading
    /// slashes become one. Nothing in it is decoded. It is ASCII, because the filter refuses a target with other bytes.
    ///
    /// POE: `uri`, which is an object.
    #[doc(alias = "uri")]
    pub fn target(&self) -> &str {
        self.head.target.of_text(&self.head.headers.text)
    }

    /// Returns the target's path without scheme, host and query. It is still percent-encoded. It begins with exactly
    /// one slash, because a redirection to a path with two would lead to another host.
    ///
    /// POE: `uri->path`.
    pub fn path(&self) -> &str {
        let target = self.target();
        let target = target.split_once('?').map_or(target, |(path, _)| path);
        let Some((_, rest)) = target::absolute(target) else { return target };
        let path = rest.find('/').map_or("/", |slash| &rest[slash..]);
        &path[path.bytes().take_while(|&octet| octet == b'/').count() - 1..]
    }

    /// Tells whether the client has begun the path with several slashes. [`path`](Request::path) shows only one.
    #[cfg(feature = "status")]
    pub(crate) fn has_more_slashes(&self) -> bool {
        let target = self.target();
        let target = target.split_once('?').map_or(target, |(path, _)| path);
        match target::absolute(target) {
            Some((_, rest)) => rest.find('/').is_some_and(|slash| rest[slash..].starts_with("//")),
            None => self.head.target.before(&self.head.headers.text) == Some(b'/'),
        }
    }

    /// Returns the text after the first `?` of the target, or `None` if there is no `?`. It is still percent-encoded.
    ///
    /// POE: `uri->query`.
    pub fn query(&self) -> Option<&str> {
        self.target().split_once('?').map(|(_, query)| query)
    }

    /// Returns the host, with its port if the client gives one. It comes from the target if that is a whole URI or the
    /// target of a `CONNECT`, and otherwise from the `Host` header. Only HTTP/1.0 may have `None`. The host follows the
    /// grammar of RFC 3986. But it may be empty, be in any case, or name another server.
    pub fn host(&self) -> Option<&str> {
        match target::absolute(self.target()) {
            Some((_, rest)) => Some(target::host(rest)),
            None if self.method() == "CONNECT" => Some(self.target()),
            None => self.header("Host"),
        }
    }

    /// Returns the client's version. It decides how a response is framed, but not which version the response names.
    ///
    /// POE: `protocol`.
    #[doc(alias = "protocol")]
    pub fn version(&self) -> Version {
        self.head.version
    }

    /// Returns the header fields.
    ///
    /// POE: `headers`.
    pub fn headers(&self) -> &Headers {
        &self.head.headers
    }

    /// Returns the value of the first header field with this name, or `None` if there is no such field or its value is
    /// not UTF-8.
    ///
    /// POE: `header`.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().get(name)
    }

    /// Returns the body, decoded if it came in chunks. When [streaming](super::Httpd::streaming), it is empty.
    ///
    /// POE: `content`.
    #[doc(alias = "content")]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Returns the body without copying it.
    pub fn into_body(self) -> Vec<u8> {
        self.body
    }

    /// Returns the trailer fields after a chunked body. They are never merged into the [`headers`](Self::headers), so
    /// that a client can't change a header after the program has checked it.
    pub fn trailers(&self) -> &Headers {
        &self.trailers
    }

    /// Tells whether the client wants to use the connection for more requests. If not, the filter reads no request
    /// after this one.
    pub fn keeps_alive(&self) -> bool {
        self.head.keep_alive
    }

    /// Tells whether the client waits for [`Response::proceed`] before it sends the body.
    pub fn expects_continue(&self) -> bool {
        self.head.expects_continue
    }

    /// Makes a response that suits the client: without a body for `HEAD`, without chunks for HTTP/1.0, and with the
    /// right `Connection`.
    ///
    /// `status` is 100 to 999.
    ///
    /// POE: `HTTP::Response->new`, which does not know the request.
    pub fn reply(&self, status: u16) -> Response {
        Response::to(self, status)
    }
}

impl Head {
    pub(super) fn method(&self) -> &[u8] {
        self.method.of(&self.headers.text)
    }

    fn line(&self) -> (&[u8], &[u8], Version) {
        (self.method(), self.target.of(&self.headers.text), self.version)
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Head) -> bool {
        self.line() == other.line() && self.headers == other.headers
    }
}

impl Eq for Head {}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method())
            .field("target", &self.target())
            .field("version", &self.version())
            .field("headers", self.headers())
            .field("body", &String::from_utf8_lossy(&self.body))
            .field("trailers", &self.trailers)
            .finish()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
        })
    }
}

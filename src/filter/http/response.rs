//! A server's response.

use super::headers::Headers;
use super::request::{Request, Version};
use super::{FilterError, markup, status};

/// A response, for [`Outgoing::Response`](super::Outgoing::Response).
///
/// [`Request::reply`] makes one that suits the client. The filter adds the fields that are not set: `Content-Length` or
/// `Transfer-Encoding`, `Date`, and `Connection` where needed.
///
/// The filter does not send what RFC 9110 and RFC 9112 forbid, even if the session has set it:
///
/// | response | is sent without |
/// | --- | --- |
/// | 100 to 199, 204, and 200 to 299 to `CONNECT` | body, `Content-Length`, `Transfer-Encoding` |
/// | 205 | body. Its `Content-Length` is 0. |
/// | 304, and all to `HEAD` | body |
/// | all to an HTTP/1.0 client | `Transfer-Encoding` |
/// | 100 and 102 to 199 to an HTTP/1.0 client | everything. Nothing is sent. |
///
/// Putting a response whose own parts contradict each other is an error. So is a 101 to an HTTP/1.0 client.
///
/// ```
/// use std::time::UNIX_EPOCH;
/// use lenore::filter::http::{Httpd, Outgoing, Response};
/// use lenore::filter::Filter;
///
/// let mut httpd = Httpd::new().clock(|| UNIX_EPOCH);
/// let mut out = Vec::new();
/// let response = Response::new(404).header("Content-Type", "text/plain").body("nothing here\n").close();
/// httpd.put(&Outgoing::Response(response), &mut out)?;
/// assert_eq!(
///     String::from_utf8_lossy(&out),
///     "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
///      Connection: close\r\nContent-Length: 13\r\n\r\nnothing here\n"
/// );
/// # Ok::<(), lenore::filter::FilterError>(())
/// ```
///
/// POE: `HTTP::Response`, to which `POE::Filter::HTTPD` adds nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "is not sent until it is put"]
pub struct Response {
    status: u16,
    /// The program's own words for the status line.
    reason: Option<String>,
    headers: Headers,
    body: Content,
    /// The text of the [page](Response::page), if the body is one.
    detail: Option<Box<str>>,
    /// The value of Content-Length that was set; it is not among the headers.
    length: Option<u64>,
    closes: bool,
    has_date: bool,
    /// It is a 206 to a request for one range.
    is_for_one_range: bool,
    client: Client,
    /// The first setting that can't be sent.
    wrong: Option<String>,
}

/// A response's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Whole(Vec<u8>),
    /// It comes in its own records.
    Streamed,
}

/// What a response needs to know of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Client {
    version: Version,
    asks: Asks,
    keep_alive: bool,
}

impl Client {
    pub(crate) fn of(request: &Request) -> Client {
        let asks = match request.head.method() {
            b"HEAD" => Asks::Head,
            b"CONNECT" => Asks::Tunnel,
            _ => Asks::Content,
        };
        Client { version: request.version(), asks, keep_alive: request.keeps_alive() }
    }

    /// Returns a client for a request that could not be read.
    #[cfg(feature = "service")]
    pub(crate) fn unknown() -> Client {
        Client { version: Version::Http11, asks: Asks::Content, keep_alive: false }
    }

    /// Tells whether the client has sent HEAD, so that no body follows a head.
    #[cfg(feature = "service")]
    pub(crate) fn wants_head_only(self) -> bool {
        self.asks == Asks::Head
    }
}

/// What a request asks for, as far as it decides how a response is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    /// HEAD.
    Head,
    /// CONNECT.
    Tunnel,
    Content,
}

/// How the client finds the end of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// There is none.
    NoBody,
    Length(u64),
    Chunked,
    /// With the end of the connection.
    Close,
}

impl Response {
    /// Makes a response for an HTTP/1.1 client that has not sent `HEAD`. `status` is 100 to 999.
    ///
    /// POE: `HTTP::Response->new`.
    pub fn new(status: u16) -> Response {
        Response::for_client(Client { version: Version::Http11, asks: Asks::Content, keep_alive: true }, status)
    }

    /// Makes the response that asks a client for the body that it has announced: see
    /// [`Incoming::Expects`](super::Incoming::Expects).
    /// [`Incoming::Expects`](super::Incoming::Expects).
    pub fn proceed() -> Response {
        Response::new(100)
    }

    /// Makes the response, with a page, for a client whose request does not come. The server decides when.
    pub fn timed_out() -> Response {
        Response::new(408).page("no request came in time").close()
    }

    pub(super) fn to(request: &Request, status: u16) -> Response {
        let client = Client::of(request);
        let mut response = Response::for_client(client, status);
        if status == 101 && client.version == Version::Http10 {
            // If nothing were sent, as for other interim responses, the client would get no response at all.
            response.is_wrong(|| String::from("status 101 for a client of HTTP/1.0"));
        }
        if status == 206 {
            response.is_for_one_range = request.header("Range").is_some_and(|ranges| !ranges.contains(','));
        }
        response
    }

    fn for_client(client: Client, status: u16) -> Response {
        Response {
            status,
            reason: None,
            headers: Headers::default(),
            body: Content::Whole(Vec::new()),
            length: None,
            closes: false,
            detail: None,
            has_date: false,
            is_for_one_range: false,
            client,
            wrong: wrong_status(status),
        }
    }

    /// Adds the program's own words to the status line. They follow the standard words, unless they are the same.
    /// Clients ignore them.
    ///
    /// POE: `message`.
    #[doc(alias = "message")]
    pub fn reason(mut self, text: impl Into<String>) -> Response {
        self.reason = Some(text.into());
        self
    }

    /// Adds a header field. Newlines and NULs in `value` become blanks.
    ///
    /// `Content-Length` replaces the filter's, for a streamed response or for a response to `HEAD`. On a response with
    /// a body it must be the length of the body. Only the filter may set `Transfer-Encoding`. `Connection: close` is
    /// the same as [`close`](Self::close).
    ///
    /// POE: `push_header`.
    #[doc(alias = "push_header")]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Response {
        let value = value.as_ref();
        if name.is_empty() || !name.bytes().all(is_token) {
            self.is_wrong(|| format!("header name {name:?}"));
        } else if name.eq_ignore_ascii_case("Content-Length") {
            let length = str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
            if length.is_none() || self.length.is_some_and(|before| Some(before) != length) {
                self.is_wrong(|| format!("Content-Length {:?}", String::from_utf8_lossy(value)));
            }
            self.length = length;
        } else if name.eq_ignore_ascii_case("Transfer-Encoding") {
            self.is_wrong(|| String::from("Transfer-Encoding, which is the filter's to set"));
        } else {
            self.has_date |= name.eq_ignore_ascii_case("Date");
            let is_close = |option: &[u8]| option.trim_ascii().eq_ignore_ascii_case(b"close");
            if name.eq_ignore_ascii_case("Connection") && value.split(|&octet| octet == b',').any(is_close) {
                self.closes = true;
            } else {
                self.headers.push(name, value);
            }
        }
        self
    }

    /// Sets the body.
    ///
    /// POE: `content`.
    #[doc(alias = "content")]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Response {
        self.body = Content::Whole(body.into());
        self.detail = None;
        self
    }

    /// Announces that the body follows in its own records: any number of [`Piece`](super::Outgoing::Piece), then
    /// [`End`](super::Outgoing::End).
    ///
    /// The filter sends the body in chunks, or as it is if `Content-Length` is set. HTTP/1.0 has no chunks, so there
    /// the body ends with the connection.
    pub fn streamed(mut self) -> Response {
        self.body = Content::Streamed;
        self.detail = None;
        self
    }

    /// Makes the body a small HTML page with the status and `detail`.
    ///
    /// POE: the answer of `POE::Filter::HTTPD` to a bad request.
    pub fn page(self, detail: &str) -> Response {
        let (status, reason) = (self.status, self.standard_reason());
        let told = Some(detail.into());
        let detail = markup::text(detail);
        let page = format!(
            "<html><head><title>Error {status}: {reason}</title></head>\n\
             <body><h1>Error {status}: {reason}</h1>\n<p>{detail}</p></body></html>\n"
        );
        Response { detail: told, ..self.header("Content-Type", "text/html; charset=utf-8").body(page) }
    }

    /// Makes this the connection's last response, and tells the client so. The session must close the connection
    /// itself, with [`ReadWrite::close_after_flush`](crate::wheel::ReadWrite::close_after_flush).
    pub fn close(mut self) -> Response {
        self.closes = true;
        self
    }

    /// Returns the status code.
    ///
    /// POE: `code`.
    #[doc(alias = "code")]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Returns the header fields that were set, except `Content-Length` and `Connection: close`.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Returns the body. It is empty for a streamed response.
    pub fn content(&self) -> &[u8] {
        match &self.body {
            Content::Whole(body) => body,
            Content::Streamed => &[],
        }
    }

    /// Tells whether the session should close the connection after this response. The client or the server wants it, or
    /// the body can't end in another way.
    ///
    /// It is `false` for an interim response, with a status of 100 to 199. For a response that opens a tunnel for a
    /// `CONNECT`, it is `true` only after [`close`](Self::close).
    pub fn closes(&self) -> bool {
        match self.status {
            ..200 => false,
            _ if self.opens_tunnel() => self.closes,
            _ => self.closes || !self.client.keep_alive || self.ending() == Ending::Close,
        }
    }

    /// Tells whether the bytes after the head are no longer HTTP.
    fn opens_tunnel(&self) -> bool {
        self.client.asks == Asks::Tunnel && (200..300).contains(&self.status)
    }

    /// Tells whether the client would mistake it for the final response, because HTTP/1.0 has no interim ones.
    fn is_unknown_to_client(&self) -> bool {
        self.status < 200 && self.client.version == Version::Http10
    }

    /// Tells how the body ends according to the head, even if the body is not sent.
    fn ending(&self) -> Ending {
        match (&self.body, self.length) {
            _ if self.status < 200 || self.status == 204 || self.opens_tunnel() => Ending::NoBody,
            // Unlike a 204 it has a body, of no bytes.
            _ if self.status == 205 => Ending::Length(0),
            (_, Some(length)) => Ending::Length(length),
            // The length that a 200 would have is not known.
            _ if self.status == 304 => Ending::NoBody,
            (Content::Whole(body), None) if body.is_empty() && self.client.asks == Asks::Head => Ending::NoBody,
            (Content::Whole(body), None) => Ending::Length(body.len() as u64),
            (Content::Streamed, None) if self.client.version == Version::Http10 => Ending::Close,
            (Content::Streamed, None) => Ending::Chunked,
        }
    }

    fn standard_reason(&self) -> &'static str {
        status::reason(self.status).unwrap_or("Unknown Error")
    }

    fn is_wrong(&mut self, what: impl FnOnce() -> String) {
        if self.wrong.is_none() {
            self.wrong = Some(what());
        }
    }

    /// Appends the head, and the body unless it is streamed. Returns how a streamed body is to be sent.
    ///
    /// `date` is the line with the date. On an error it appends nothing.
    pub(super) fn encode(
        &self,
        date: impl FnOnce(&mut Vec<u8>),
        out: &mut Vec<u8>,
    ) -> Result<Option<Ending>, FilterError> {
        self.check().map_err(FilterError::malformed)?;
        let ending = self.ending();
        let sends_body = self.has_body() && self.client.asks != Asks::Head;
        if self.is_unknown_to_client() {
            return Ok(matches!(self.body, Content::Streamed).then_some(Ending::NoBody));
        }
        out.reserve(HEAD_ROOM + self.headers.text.len() + self.content().len());
        self.status_line(out);
        out.extend_from_slice(&self.headers.text);
        if self.status >= 200 {
            if !self.has_date {
                date(out);
            }
            self.connection(out);
        }
        match ending {
            Ending::Length(length) => {
                out.extend_from_slice(b"Content-Length: ");
                push_number(length, out);
                out.extend_from_slice(b"\r\n\r\n");
            }
            Ending::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n"),
            Ending::NoBody | Ending::Close => out.extend_from_slice(b"\r\n"),
        }
        match &self.body {
            Content::Streamed => Ok(Some(if sends_body { ending } else { Ending::NoBody })),
            Content::Whole(body) => {
                if sends_body {
                    out.extend_from_slice(body);
                }
                Ok(None)
            }
        }
    }

    /// Tells whether the response to a GET would have a body, even an empty one, whose length must agree with it.
    fn has_body(&self) -> bool {
        !matches!(self.status, 205 | 304) && self.ending() != Ending::NoBody
    }

    /// Makes it the response to this client's request.
    #[cfg(feature = "service")]
    pub(crate) fn suit(mut self, client: Client) -> Response {
        self.client = client;
        self
    }

    /// Gives the response another status.
    #[cfg(feature = "service")]
    pub(crate) fn with_status(self, status: u16) -> Response {
        let wrong = self.wrong.or_else(|| wrong_status(status));
        Response { status, wrong, ..self }
    }

    /// Returns the text of the page if the body is the page of an error, with a status from 400 on.
    #[cfg(feature = "service")]
    pub(crate) fn error_detail(&self) -> Option<&str> {
        self.detail.as_deref().filter(|_| self.status >= 400)
    }

    /// Makes it a replacement for `other`: it takes over the fields of `other`'s head that it has not set itself.
    #[cfg(feature = "service")]
    pub(crate) fn in_place_of(mut self, other: &Response) -> Response {
        let is_missing = |name: &str| self.headers.get_all(name).next().is_none();
        let is_of_page = |name: &str| name.eq_ignore_ascii_case("Content-Type");
        let fields = other.headers.iter().filter(|(name, _)| is_missing(name) && !is_of_page(name));
        let fields: Vec<_> = fields.collect();
        for (name, value) in fields {
            self = self.header(name, value);
        }
        self.closes |= other.closes;
        self
    }

    /// Tells whether its body comes in its own records.
    #[cfg(feature = "service")]
    pub(crate) fn is_streamed(&self) -> bool {
        matches!(self.body, Content::Streamed)
    }

    /// Returns how many bytes of the whole body are sent.
    #[cfg(feature = "service")]
    pub(crate) fn sent_octets(&self) -> u64 {
        if self.client.asks != Asks::Head && self.has_body() { self.content().len() as u64 } else { 0 }
    }

    /// Returns an error if the response can't be sent.
    pub(crate) fn check(&self) -> Result<(), String> {
        let cannot_have = |what: &str| Err(format!("a response can't have {what}"));
        if let Some(wrong) = &self.wrong {
            return cannot_have(wrong);
        }
        if let (Content::Whole(body), Some(length)) = (&self.body, self.length)
            && length != body.len() as u64
            && self.has_body()
            // For a HEAD, a session may know the length of the body without making the body.
            && (self.client.asks != Asks::Head || !body.is_empty())
        {
            return Err(format!("Content-Length is {length}, and the body has {} bytes", body.len()));
        }
        // A single part has its Content-Range in the head. Several parts have theirs in each part.
        let is_multipart = |value: &str| value.trim_start().to_ascii_lowercase().starts_with("multipart/byteranges");
        if self.status == 206 && self.headers.get("Content-Type").is_some_and(is_multipart) {
            if self.headers.get_all("Content-Range").next().is_some() {
                return cannot_have("Content-Range beside multipart/byteranges");
            }
            if self.is_for_one_range {
                return cannot_have("multipart/byteranges for a single range");
            }
        }
        Ok(())
    }

    fn status_line(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"HTTP/1.1 ");
        push_number(self.status.into(), out);
        out.push(b' ');
        let standard = self.standard_reason();
        match (self.reason.as_deref(), status::reason(self.status)) {
            (None, Some(standard)) => out.extend_from_slice(standard.as_bytes()),
            (Some(own), _) if own == standard => out.extend_from_slice(own.as_bytes()),
            (own, _) => {
                out.push(b'(');
                out.extend_from_slice(standard.as_bytes());
                out.push(b')');
                if let Some(own) = own.filter(|own| !own.is_empty()) {
                    out.push(b' ');
                    out.extend(own.bytes().map(|octet| if octet.is_ascii_control() { b' ' } else { octet }));
                }
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    fn connection(&self, out: &mut Vec<u8>) {
        if self.closes() {
            out.extend_from_slice(b"Connection: close\r\n");
        } else if self.client.version == Version::Http10 && !self.opens_tunnel() {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
    }
}

/// Appends `number` in decimal digits.
fn push_number(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return out.extend_from_slice(&digits[start..]);
        }
    }
}

fn wrong_status(status: u16) -> Option<String> {
    (!(100..1000).contains(&status)).then(|| format!("status {status}"))
}

/// Tells whether `octet` may be in the name of a field.
fn is_token(octet: u8) -> bool {
    octet.is_ascii_alphanumeric()
        || matches!(octet, b'-' | b'_' | b'.' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'^' | b'`' | b'|' | b'~')
}

/// How many bytes a status line and the added fields usually need.
const HEAD_ROOM: usize = 160;

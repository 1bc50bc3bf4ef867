//! Parses the head of a request: what it says of the body that follows, and what is wrong with it.

use std::mem::MaybeUninit;

use httparse::{Header, Status};

use super::headers::{Headers, Span};
use super::refusal::Refusal;
use super::request::{Head, Request, Version};
use super::target;

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// The body has this many bytes. 0 means that the message has no body.
    Length(u64),
    Chunked,
}

/// What the input begins with.
pub(super) enum Parsed {
    /// The beginning of a head.
    Partial,
    /// A head of `length` bytes.
    Complete {
        request: Request,
        framing: Framing,
        length: usize,
    },
    Refused(Refusal),
}

/// The most header fields that a request may have.
pub(super) const MAX_FIELDS: usize = 100;

/// Reads the head that `octets` begins with.
pub(super) fn parse(octets: &[u8]) -> Parsed {
    let mut fields = [const { MaybeUninit::<Header<'_>>::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let length = match parsed.parse_with_uninit_headers(octets, &mut fields) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Parsed::Partial,
        Err(httparse::Error::Version) => return parse_other_version(octets),
        Err(error) => return Parsed::Refused(bad_syntax(error)),
    };
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Parsed::Partial;
    };
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let told = Told::by(parsed.headers, version);
    let text = &octets[..length];
    let mut head = Head {
        headers: Headers::parsed(text, parsed.headers),
        method: Span::within(text, method.as_bytes()),
        target: Span::within(text, target.as_bytes()),
        version,
        keep_alive: told.keeps_alive(version),
        expects_continue: false,
    };
    let slashes = target.bytes().take_while(|&octet| octet == b'/').count();
    head.target.skip(slashes.saturating_sub(1));
    let wrong_target = target::check(method, target).err();
    let mut request = Request { head, body: Vec::new(), trailers: Headers::default() };
    let framing = wrong_target.map_or_else(|| told.framing(version), |detail| Err((400, detail)));
    match framing {
        Ok(framing) => {
            // A client with an empty body has nothing to wait for.
            request.head.expects_continue = told.expects_continue && framing != Framing::Length(0);
            Parsed::Complete { request, framing, length }
        }
        Err((status, detail)) => Parsed::Refused(Refusal::new(status, detail, Some(request))),
    }
}

/// Reads the trailer fields that `octets` begins with. Returns `None` while they are incomplete.
pub(super) fn parse_trailers(octets: &[u8]) -> Result<Option<(Headers, usize)>, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    match httparse::parse_headers(octets, &mut fields) {
        // A lone LF is common in a head. In a trailer it is used to hide the end of a body from other programs.
        Ok(Status::Complete((length, _))) if has_lone_lf(&octets[..length]) => {
            Err(Refusal::new(400, "a line of the trailer ends with LF alone", None))
        }
        Ok(Status::Complete((length, fields))) => Ok(Some((Headers::parsed(&octets[..length], fields), length))),
        Ok(Status::Partial) => Ok(None),
        Err(error) => Err(bad_syntax(error)),
    }
}

fn has_lone_lf(octets: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', octets).any(|place| place == 0 || octets[place - 1] != b'\r')
}

/// What the header fields say of the message's framing.
struct Told<'a> {
    /// The first value.
    host: Option<&'a [u8]>,
    /// The first value.
    length: Option<&'a [u8]>,
    /// How many transfer codings there are, how many of them are `chunked`, and whether that is the last.
    codings: usize,
    chunked: usize,
    ends_chunked: bool,
    /// The first error that a single field shows.
    wrong: Option<Wrong>,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

/// The status and the reason of a refusal.
type Wrong = (u16, &'static str);

impl<'a> Told<'a> {
    fn by(fields: &[Header<'a>], version: Version) -> Told<'a> {
        let mut told = Told {
            host: None,
            length: None,
            codings: 0,
            chunked: 0,
            ends_chunked: false,
            wrong: None,
            close: false,
            keep_alive: false,
            expects_continue: false,
        };
        for field in fields {
            // Most fields don't matter here, and the length of the name shows that.
            match field.name.len() {
                4 if field.name.eq_ignore_ascii_case("host") => told.take_host(field.value),
                6 if field.name.eq_ignore_ascii_case("expect") => told.take_expect(field.value, version),
                10 if field.name.eq_ignore_ascii_case("connection") => told.take_connection(field.value),
                14 if field.name.eq_ignore_ascii_case("content-length") => told.take_length(field.value),
                17 if field.name.eq_ignore_ascii_case("transfer-encoding") => told.take_coding(field.value),
                _ => {}
            }
        }
        told
    }

    fn is_wrong(&mut self, status: u16, detail: &'static str) {
        self.wrong.get_or_insert((status, detail));
    }

    fn take_host(&mut self, value: &'a [u8]) {
        if self.host.is_some() {
            self.is_wrong(400, "more than one Host");
        }
        if !target::is_host(value) {
            self.is_wrong(400, "the Host is not valid");
        }
        self.host = Some(value);
    }

    fn take_expect(&mut self, value: &[u8], version: Version) {
        // An HTTP/1.0 client can't mean anything by this field.
        if version == Version::Http10 {
        } else if value.eq_ignore_ascii_case(b"100-continue") {
            self.expects_continue = true;
        } else {
            self.is_wrong(417, "Expect has another value than 100-continue");
        }
    }

    fn take_connection(&mut self, value: &[u8]) {
        for option in list(value) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    fn take_length(&mut self, value: &'a [u8]) {
        if self.length.is_some_and(|before| before != value) {
            self.is_wrong(400, "several values of Content-Length");
        }
        self.length = Some(value);
    }

    fn take_coding(&mut self, value: &[u8]) {
        for coding in list(value) {
            self.codings += 1;
            self.ends_chunked = coding.eq_ignore_ascii_case(b"chunked");
            self.chunked += usize::from(self.ends_chunked);
        }
        if self.codings == 0 {
            self.is_wrong(400, "an empty Transfer-Encoding");
        }
    }

    fn keeps_alive(&self, version: Version) -> bool {
        !self.close && (self.keep_alive || version == Version::Http11)
    }

    /// Finds where the body ends, and refuses what two programs could read in different ways. Otherwise a proxy in
    /// front of this program could take a part of the body for the next request, or the other way round.
    fn framing(&self, version: Version) -> Result<Framing, Wrong> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        if self.host.is_none() && version == Version::Http11 {
            return Err((400, "HTTP/1.1 needs a Host"));
        }
        match (self.codings, self.length) {
            (1.., Some(_)) => Err((400, "both Content-Length and Transfer-Encoding")),
            (1.., None) if version == Version::Http10 => Err((400, "HTTP/1.0 has no Transfer-Encoding")),
            (1.., None) => self.chunked_framing(),
            (0, Some(length)) => Ok(Framing::Length(number(length)?)),
            (0, None) => Ok(Framing::Length(0)),
        }
    }

    fn chunked_framing(&self) -> Result<Framing, Wrong> {
        match (self.codings, self.chunked, self.ends_chunked) {
            (1, 1, _) => Ok(Framing::Chunked),
            (_, 0, _) | (_, 1, true) => Err((501, "unknown Transfer-Encoding")),
            // Nothing would tell where the body ends.
            _ => Err((400, "chunked is not the last Transfer-Encoding, or is there twice")),
        }
    }
}

/// Splits a list. Empty members do not count.
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&octet| octet == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// Reads a Content-Length, which consists of digits only. A sign or a list is an error.
fn number(digits: &[u8]) -> Result<u64, Wrong> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err((400, "the Content-Length is not a number"));
    }
    let add = |sum: u64, digit: &u8| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
    digits.iter().try_fold(0, add).ok_or((413, "the Content-Length is beyond all bounds"))
}

fn bad_syntax(error: httparse::Error) -> Refusal {
    let (status, detail) = match error {
        httparse::Error::TooManyHeaders => (431, "too many header fields"),
        httparse::Error::HeaderName => (400, "malformed name of a header field"),
        httparse::Error::HeaderValue => (400, "malformed value of a header field"),
        _ => (400, "malformed request line"),
    };
    Refusal::new(status, detail, None)
}

/// Reads a head whose version httparse does not know. A version 1.2 to 1.9 has the syntax of HTTP/1.1 and is served as
/// that.
#[cold]
fn parse_other_version(octets: &[u8]) -> Parsed {
    match version(octets) {
        Some((b'1', b'2'.., place)) => {
            let mut same = octets.to_vec();
            same[place] = b'1';
            parse(&same)
        }
        Some(_) => Parsed::Refused(Refusal::new(505, "neither HTTP/1.0 nor HTTP/1.1", None)),
        None => Parsed::Refused(bad_syntax(httparse::Error::Version)),
    }
}

/// Returns the two digits of the version in a request line, and the place of the second, or `None` if there is no
/// version.
fn version(octets: &[u8]) -> Option<(u8, u8, usize)> {
    let line = octets.split(|&octet| octet == b'\n').next()?.trim_ascii_end();
    let mut words = line.split(|&octet| octet == b' ');
    let (version, more) = (words.nth(2)?, words.next());
    match version.strip_prefix(b"HTTP/") {
        Some([major @ b'0'..=b'9', b'.', minor @ b'0'..=b'9']) if more.is_none() => {
            Some((*major, *minor, line.len() - 1))
        }
        _ => None,
    }
}

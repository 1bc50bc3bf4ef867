//! The header fields of a request or a response.

use std::fmt;
use std::ops::Range;

/// The header fields of a request or a response in their order, or the trailer fields of a chunked body.
///
/// Comparing names ignores case. A name may occur several times.
///
/// ```
/// use lenore::filter::http::{Httpd, Incoming};
/// use lenore::filter::Filter;
///
/// let mut httpd = Httpd::new();
/// let records = httpd.get(b"GET / HTTP/1.1\r\nHost: a.test\r\nAccept: text/html\r\naccept: text/plain\r\n\r\n")?;
/// let [Incoming::Request(request)] = &records[..] else { panic!("{records:?}") };
/// assert_eq!(request.headers().get("HOST"), Some("a.test"));
/// assert_eq!(request.headers().get_all("Accept").collect::<Vec<_>>(), [b"text/html", &b"text/plain"[..]]);
/// # Ok::<(), lenore::filter::FilterError>(())
/// ```
///
/// POE: `HTTP::Headers`.
#[derive(Clone, Default)]
pub struct Headers {
    /// The bytes of the fields: the head as it was read, or the lines as they will be sent.
    pub(super) text: Vec<u8>,
    fields: Vec<Field>,
}

/// Where one field is in the text. Heads are shorter than 4 GiB: see [`Httpd::max_head`](super::Httpd::max_head).
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) name: Span,
    pub(super) value: Span,
}

/// A range of a head's bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

impl Headers {
    /// Returns the value of the first field with this name, or `None` if there is no such field or its value is not
    /// UTF-8.
    ///
    /// POE: `$request->header( $name )`.
    pub fn get(&self, name: &str) -> Option<&str> {
        str::from_utf8(self.get_all(name).next()?).ok()
    }

    /// Returns the values of all fields with this name as bytes, because a value may be in any encoding.
    ///
    /// POE: `$request->header( $name )` in a list.
    pub fn get_all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.iter().filter(move |(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Returns the names and values of all fields.
    ///
    /// POE: `scan`.
    #[doc(alias = "scan")]
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter().map(|field| (field.name.of_text(&self.text), field.value.of(&self.text)))
    }

    /// Returns how many fields there are.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Tells whether there are no fields.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Takes over what httparse has found in `text`, which begins at `base`.
    pub(super) fn parsed(text: &[u8], fields: &[httparse::Header<'_>]) -> Headers {
        let place = |field: &httparse::Header<'_>| Field {
            name: Span::within(text, field.name.as_bytes()),
            value: Span::within(text, field.value),
        };
        Headers { text: text.to_vec(), fields: fields.iter().map(place).collect() }
    }

    /// Appends a field as it will be sent. A newline or NUL in `value` becomes a blank, so that no value can end its
    /// line.
    pub(super) fn push(&mut self, name: &str, value: &[u8]) {
        let needed = name.len() + value.len() + 4;
        // Room for some more, as few responses have a single field.
        self.text.reserve(if self.text.is_empty() { needed.max(ROOM) } else { needed });
        let name = self.append(name.as_bytes());
        self.text.extend_from_slice(b": ");
        let value = self.append(value);
        for octet in &mut self.text[value.range()] {
            if matches!(octet, b'\r' | b'\n' | 0) {
                *octet = b' ';
            }
        }
        self.text.extend_from_slice(b"\r\n");
        self.fields.push(Field { name, value });
    }

    fn append(&mut self, octets: &[u8]) -> Span {
        let start = self.text.len();
        self.text.extend_from_slice(octets);
        Span::new(start..self.text.len())
    }
}

impl Span {
    fn new(range: Range<usize>) -> Span {
        let narrow = |place| u32::try_from(place).expect("heads are shorter than 4 GiB");
        Span { start: narrow(range.start), end: narrow(range.end) }
    }

    /// Returns the span of `part` in `text`.
    pub(super) fn within(text: &[u8], part: &[u8]) -> Span {
        let start = part.as_ptr().addr().wrapping_sub(text.as_ptr().addr());
        // An empty part may be a literal of httparse's.
        if part.is_empty() { Span::default() } else { Span::new(start..start + part.len()) }
    }

    /// Drops the first `count` bytes.
    pub(super) fn skip(&mut self, count: usize) {
        *self = Span::new(self.range().start + count..self.range().end);
    }

    /// Returns the byte before the span.
    #[cfg(feature = "status")]
    pub(super) fn before(self, text: &[u8]) -> Option<u8> {
        text.get(self.range().start.checked_sub(1)?).copied()
    }

    pub(super) fn of(self, text: &[u8]) -> &[u8] {
        &text[self.range()]
    }

    /// Names, methods and targets.
    pub(super) fn of_text(self, text: &[u8]) -> &str {
        str::from_utf8(self.of(text)).expect("httparse has checked it, or it came as text")
    }

    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(name, value)| (name, String::from_utf8_lossy(value)))).finish()
    }
}

/// How many bytes the first field makes room for.
const ROOM: usize = 128;

/// Equal means that the names, ignoring case, and the values are equal, in the same order.
impl PartialEq for Headers {
    fn eq(&self, other: &Headers) -> bool {
        let mut pairs = self.iter().zip(other.iter());
        self.len() == other.len()
            && pairs.all(|((name, value), (other, same))| name.eq_ignore_ascii_case(other) && value == same)
    }
}

impl Eq for Headers {}

//! Finds where the body of a request ends, and which of its bytes are content.

use super::head::Framing;

/// Where the reading of a body stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// `left` more bytes of content are to come, of the whole body or of a chunk.
    Content { left: u64, kind: Kind },
    /// The line with a chunk's size.
    ChunkSize,
    /// The CR LF after a chunk.
    ChunkEnd,
    /// The trailer fields after the last chunk, and the empty line.
    Trailers,
    /// The body is read.
    Done,
}

/// What follows the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Whole,
    Chunk,
}

/// What the input begins with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// More input is needed.
    Nothing,
    /// `length` bytes of framing, which are now done with. `idle` of them were extensions without meaning.
    Framing { length: usize, idle: usize },
    /// This many bytes of content.
    Content(usize),
    /// Input against the rules.
    Bad(&'static str),
}

/// The longest line with a chunk's size, including its extensions.
const MAX_SIZE_LINE: usize = 1024;

impl Body {
    pub(super) fn new(framing: Framing) -> Body {
        match framing {
            Framing::Length(0) => Body::Done,
            Framing::Length(left) => Body::Content { left, kind: Kind::Whole },
            Framing::Chunked => Body::ChunkSize,
        }
    }

    /// Looks at the input after what was found the last time. Not for `Trailers` and `Done`.
    pub(super) fn find(&mut self, input: &[u8]) -> Found {
        match *self {
            Body::Content { .. } if input.is_empty() => Found::Nothing,
            Body::Content { left, kind } => {
                let here = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let left = left - here as u64;
                *self = match (left, kind) {
                    (1.., _) => Body::Content { left, kind },
                    (0, Kind::Whole) => Body::Done,
                    (0, Kind::Chunk) => Body::ChunkEnd,
                };
                Found::Content(here)
            }
            Body::ChunkSize => match chunk_size(input) {
                Ok(None) => Found::Nothing,
                Ok(Some(line)) => {
                    let (left, kind) = (line.size, Kind::Chunk);
                    *self = if left == 0 { Body::Trailers } else { Body::Content { left, kind } };
                    Found::Framing { length: line.length, idle: line.length - line.digits - 2 }
                }
                Err(reason) => Found::Bad(reason),
            },
            Body::ChunkEnd => match input {
                [b'\r', b'\n', ..] => {
                    *self = Body::ChunkSize;
                    Found::Framing { length: 2, idle: 0 }
                }
                [] | [b'\r'] => Found::Nothing,
                _ => Found::Bad("no CR LF behind a chunk"),
            },
            Body::Trailers | Body::Done => Found::Nothing,
        }
    }
}

/// Reads the line with a chunk's size. Returns `None` while it is incomplete.
///
/// It does not use httparse. That takes a line without any digit for a size of 0, and an LF in an extension for a part
/// of it. Other programs see the end of the line there, and a different body.
fn chunk_size(input: &[u8]) -> Result<Option<SizeLine>, &'static str> {
    let (mut size, mut digits, mut part) = (0, 0, Part::Digits);
    for (place, &octet) in input.iter().enumerate() {
        if place == MAX_SIZE_LINE {
            return Err("too long a line with the size of a chunk");
        }
        part = match (part, octet) {
            (Part::Digits, _) if octet.is_ascii_hexdigit() && digits < 16 => {
                size = size << 4 | u64::from((octet as char).to_digit(16).unwrap_or(0));
                digits += 1;
                Part::Digits
            }
            (Part::Digits | Part::Blanks, b' ' | b'\t') if digits > 0 => Part::Blanks,
            (Part::Digits | Part::Blanks, b';') if digits > 0 => Part::Extension,
            (Part::Extension, b'\t' | b' '..=0x7e | 0x80..) => Part::Extension,
            (Part::Digits, b'\r') if digits > 0 => Part::End,
            (Part::Extension, b'\r') => Part::End,
            (Part::End, b'\n') => return Ok(Some(SizeLine { size, digits, length: place + 1 })),
            _ => return Err("malformed size of a chunk"),
        };
    }
    Ok(None)
}

/// A line with a chunk's size: the size, how many digits it has, and how long the line is.
struct SizeLine {
    size: u64,
    digits: usize,
    length: usize,
}

/// Which part of the line with a chunk's size a byte is in.
#[derive(Clone, Copy)]
enum Part {
    Digits,
    Blanks,
    Extension,
    End,
}

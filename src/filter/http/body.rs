//! Where the body of a request ends, and what of it is content.

use super::head::Framing;

/// A body as far as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// So many bytes are still to come: of all of it, or of the chunk.
    Content { left: u64, kind: Kind },
    /// The line with a chunk's size.
    ChunkSize,
    /// The CR LF behind a chunk.
    ChunkEnd,
    /// The fields behind the last chunk, and the empty line.
    Trailers,
    /// All was read.
    Done,
}

/// What comes behind content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Whole,
    Chunk,
}

/// What is found at the beginning of the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// More input is needed.
    Nothing,
    /// Framing, of no interest any more: so many bytes, so many of which say nothing.
    Framing { length: usize, idle: usize },
    /// So many bytes of content.
    Content(usize),
    /// Something against the rules.
    Bad(&'static str),
}

/// The longest line with a chunk's size, its extensions included.
const MAX_SIZE_LINE: usize = 1024;

impl Body {
    pub(super) fn new(framing: Framing) -> Body {
        match framing {
            Framing::Length(0) => Body::Done,
            Framing::Length(left) => Body::Content { left, kind: Kind::Whole },
            Framing::Chunked => Body::ChunkSize,
        }
    }

    /// Looks at the input, which goes on behind what was found the last time. Not for `Trailers` and `Done`.
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

/// Reads the line with a chunk's size; `None` while it is incomplete.
///
/// By hand, since httparse's takes a line without any digit for a size of 0, and an LF in an extension for a part of
/// it: others see the end of the line there, and a different body.
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

/// A line with a chunk's size: what it says, in how many digits, and how long it is.
struct SizeLine {
    size: u64,
    digits: usize,
    length: usize,
}

/// Where in the line with a chunk's size a byte is.
#[derive(Clone, Copy)]
enum Part {
    Digits,
    Blanks,
    Extension,
    End,
}

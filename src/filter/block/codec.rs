//! How the header in front of a block tells its length.

use std::io::Write as _;

use crate::filter::FilterError;

/// Writes and reads the header that tells how long a block is.
///
/// # Examples
///
/// A header of two bytes, the higher one first:
///
/// ```
/// use lenore::filter::{Block, Decoded, Filter, FilterError, LengthCodec};
///
/// #[derive(Clone)]
/// struct TwoOctets;
///
/// impl LengthCodec for TwoOctets {
///     const MAX_HEADER: usize = 2;
///
///     fn encode(&self, length: usize, out: &mut Vec<u8>) -> Result<(), FilterError> {
///         let too_long = FilterError::RecordTooLong { limit: 65_535, length };
///         out.extend(u16::try_from(length).map_err(|_| too_long)?.to_be_bytes());
///         Ok(())
///     }
///     fn decode(&self, input: &[u8]) -> Decoded {
///         match *input {
///             [high, low, ..] => Decoded::Header { bytes: 2, length: u16::from_be_bytes([high, low]).into() },
///             _ => Decoded::Incomplete,
///         }
///     }
/// }
///
/// let mut block = Block::with_codec(TwoOctets);
/// assert_eq!(block.get(b"\x00\x03abc\x00")?, [b"abc"]);
/// # Ok::<(), FilterError>(())
/// ```
///
/// POE: the `LengthCodec` parameter of `POE::Filter::Block`, a pair of functions that change the record and the buffer.
pub trait LengthCodec: Clone + 'static {
    /// The length of the longest header, in bytes; at least 1.
    const MAX_HEADER: usize;

    /// Appends the header of a block of `length` bytes to `out`.
    ///
    /// # Errors
    ///
    /// [`FilterError::RecordTooLong`] if the header can't hold such a length.
    fn encode(&self, length: usize, out: &mut Vec<u8>) -> Result<(), FilterError>;

    /// Looks for a header at the beginning of `input`, which has at most [`MAX_HEADER`](Self::MAX_HEADER) bytes and may
    /// be empty. The result must not depend on bytes after those that decide it.
    fn decode(&self, input: &[u8]) -> Decoded;
}

/// What a [`LengthCodec`] finds at the beginning of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// These bytes may become a header.
    Incomplete,
    /// The input begins with a header.
    Header {
        /// The length of the header, in bytes. At least 1.
        bytes: usize,
        /// The length of the block after it, in bytes.
        length: u64,
    },
    /// No header can begin with these bytes.
    Garbage {
        /// How many bytes to drop before looking again. At least 1.
        bytes: usize,
    },
}

/// Decimal digits and a NUL byte: `3\0abc`.
///
/// POE: the default of `POE::Filter::Block`, and what `POE::Filter::Reference` uses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Decimal;

impl LengthCodec for Decimal {
    /// The digits of the largest 64-bit number, and the NUL.
    const MAX_HEADER: usize = 21;

    fn encode(&self, length: usize, out: &mut Vec<u8>) -> Result<(), FilterError> {
        write!(out, "{length}\0").expect("a Vec takes everything");
        Ok(())
    }

    /// Accepts leading zeros. Drops garbage up to and including the byte that shows it.
    fn decode(&self, input: &[u8]) -> Decoded {
        let mut length: u64 = 0;
        for (place, &octet) in input.iter().enumerate() {
            let bytes = place + 1;
            if octet == 0 && place > 0 {
                return Decoded::Header { bytes, length };
            }
            let digit = char::from(octet).to_digit(10).map(u64::from);
            let longer = digit.and_then(|digit| length.checked_mul(10)?.checked_add(digit));
            let Some(longer) = longer else { return Decoded::Garbage { bytes } };
            length = longer;
        }
        Decoded::Incomplete
    }
}

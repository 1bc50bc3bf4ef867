//! Blocks of bytes: after a header with their length, or all of one size.

use super::buffer::{Buffer, Limits};
use super::{Filter, FilterError, put_whole};

mod codec;
mod fixed;

pub use codec::{Decimal, Decoded, LengthCodec};
pub use fixed::FixedBlock;

/// Cuts blocks of any bytes after a header with their length. `put` writes the header in front of each block.
///
/// The header is a decimal number and a NUL byte, unless you set another [`LengthCodec`].
///
/// The filter reports each error once, and goes on after it:
///
/// - A block longer than [`max_length`](Self::max_length) is [`FilterError::RecordTooLong`] as soon as its header is
///   there. The filter drops the block's bytes as they come.
/// - Input that is not a header is [`FilterError::OutOfStep`]. The filter also drops what follows directly and is not a
///   header. The next header that it finds is a guess, so it is better to disconnect such a peer.
///
/// The header stays in the buffer until its block is complete, so [`get_pending`](Filter::get_pending) loses nothing.
///
/// ```
/// use lenore::filter::{Block, Filter};
///
/// let mut block = Block::new();
/// assert_eq!(block.get(b"3\0abc0\05\0de")?, [&b"abc"[..], b""]);
/// assert_eq!(block.get_pending(), b"5\0de");
///
/// let mut out = Vec::new();
/// block.put(b"hello", &mut out)?;
/// assert_eq!(out, b"5\0hello");
/// # Ok::<(), lenore::filter::FilterError>(())
/// ```
///
/// POE: `POE::Filter::Block` without `BlockSize`. With it, [`FixedBlock`].
#[derive(Debug, Default)]
pub struct Block<C = Decimal> {
    codec: C,
    input: Buffer,
    /// The header at the beginning of the buffer, once it is decoded.
    header: Option<Header>,
    /// How many bytes are still to come of a block that was given up. The buffer is empty until then.
    skip: u64,
    /// The last bytes dropped were not a header, and that was reported.
    in_garbage: bool,
    limits: Limits,
}

#[derive(Clone, Copy, Debug)]
struct Header {
    bytes: usize,
    length: u64,
}

impl Header {
    /// Returns how long header and block are together.
    fn total(self) -> u64 {
        self.length.saturating_add(self.bytes as u64)
    }
}

/// What is at the beginning of the buffer.
enum Next {
    /// Part of a header, or nothing.
    NoHeader,
    /// A header, and part of its block, of which `missing` bytes have not come.
    Partial { missing: u64 },
    /// A header, and its whole block, which ends at `total`.
    Complete { header: usize, total: usize },
    /// The header of a block that is not allowed.
    TooLong(Header),
    /// This many bytes that are not a header, and that are not reported yet.
    Garbage { bytes: usize },
}

impl Block {
    /// Makes a filter with decimal headers.
    ///
    /// POE: `new` without parameters.
    pub fn new() -> Self {
        Self::with_codec(Decimal)
    }
}

impl<C: LengthCodec> Block<C> {
    /// Makes a filter with the headers of `codec`.
    ///
    /// POE: the `LengthCodec` parameter.
    #[doc(alias = "LengthCodec")]
    pub fn with_codec(codec: C) -> Self {
        Self { codec, input: Buffer::default(), header: None, skip: 0, in_garbage: false, limits: Limits::default() }
    }

    /// Rejects blocks longer than `bytes`, not counting the header. To lower both limits, set this one first. Default:
    /// 64 MiB.
    ///
    /// # Errors
    ///
    /// [`FilterError::InvalidSetting`] if `bytes` is zero, or if `bytes` and the longest header are more than the limit
    /// of the buffer.
    ///
    /// POE: the `MaxLength` parameter. POE delivers the block at the next attempt all the same.
    #[doc(alias = "MaxLength")]
    pub fn max_length(mut self, bytes: usize) -> Result<Self, FilterError> {
        self.limits.set_length(bytes, C::MAX_HEADER)?;
        Ok(self)
    }

    /// Limits the unparsed input to `bytes`, counting headers once they are complete. Default: 512 MiB.
    ///
    /// If a chunk does not fit, the filter refuses all of it with [`FilterError::BufferFull`]:
    ///
    /// - If complete blocks are waiting, nothing else happens. Take them, and offer the chunk again.
    /// - If not, the filter gives the unfinished block up. It will drop the rest of the block. It accepts the chunk at
    ///   the second offer, unless what is left of the chunk alone is longer than `bytes`.
    ///
    /// If the limit has room for the longest block, its header and one read, the filter never gives up a block. To
    /// raise both limits, set this one first.
    ///
    /// # Errors
    ///
    /// [`FilterError::InvalidSetting`] if `bytes` is zero, or less than the limit of a block and the longest header.
    ///
    /// POE: the `MaxBuffer` parameter. Once it is exceeded, a filter of POE is unusable.
    #[doc(alias = "MaxBuffer")]
    pub fn max_buffer(mut self, bytes: usize) -> Result<Self, FilterError> {
        self.limits.set_buffer(bytes, C::MAX_HEADER)?;
        Ok(self)
    }

    #[cfg(any(test, feature = "serde"))]
    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// Consumes the next block with its header, and lends it.
    pub(super) fn take_block(&mut self) -> Result<Option<&[u8]>, FilterError> {
        match self.next() {
            Next::NoHeader | Next::Partial { .. } => {
                self.input.release_if_drained();
                Ok(None)
            }
            Next::Complete { header, total } => {
                self.header = None;
                Ok(Some(&self.input.consume(total)[header..]))
            }
            Next::TooLong(header) => {
                let had = header.total().min(self.input.len() as u64);
                self.give_up(header.total() - had, had as usize);
                let length = usize::try_from(header.length).unwrap_or(usize::MAX);
                Err(FilterError::RecordTooLong { limit: self.limits.length, length })
            }
            Next::Garbage { bytes } => {
                self.in_garbage = true;
                let found = self.input.consume(bytes).escape_ascii();
                Err(FilterError::out_of_step(format!("no block begins with \"{found}\"")))
            }
        }
    }

    /// Finds out what comes next, and drops garbage that was already reported.
    fn next(&mut self) -> Next {
        while self.header.is_none() {
            let live = self.input.live();
            let head = &live[..live.len().min(C::MAX_HEADER)];
            let garbage = match self.codec.decode(head) {
                Decoded::Header { bytes, length } if (1..=head.len()).contains(&bytes) => {
                    self.header = Some(Header { bytes, length });
                    self.in_garbage = false;
                    break;
                }
                Decoded::Incomplete if head.len() < C::MAX_HEADER => return Next::NoHeader,
                // More input would not help. Also, a codec that counts wrongly must not make this loop run forever.
                Decoded::Incomplete | Decoded::Header { .. } => head.len(),
                Decoded::Garbage { bytes } => bytes,
            };
            if head.is_empty() {
                return Next::NoHeader;
            }
            let bytes = garbage.clamp(1, head.len());
            if !self.in_garbage {
                return Next::Garbage { bytes };
            }
            self.input.consume(bytes);
        }
        let Some(header) = self.header else { return Next::NoHeader };
        if header.length > self.limits.length as u64 {
            return Next::TooLong(header);
        }
        match header.total().checked_sub(self.input.len() as u64) {
            Some(missing @ 1..) => Next::Partial { missing },
            // It is at most the buffer's length, so it fits a `usize`.
            _ => Next::Complete { header: header.bytes, total: header.total() as usize },
        }
    }

    /// Drops the block in progress: `had` bytes at once, and `missing` as they come.
    fn give_up(&mut self, missing: u64, had: usize) {
        self.input.consume(had);
        self.header = None;
        self.skip = missing;
    }

    /// Fails if `more` bytes do not fit, and gives up the block in progress if taking blocks would not help.
    fn check_limit(&mut self, more: usize) -> Result<(), FilterError> {
        let fits = self.limits.check_buffer(self.input.len(), more);
        if fits.is_err() {
            match self.next() {
                // Part of a header takes little room, and without it the filter could not find the next blocks.
                Next::NoHeader => return self.limits.check_buffer(0, more),
                Next::Partial { missing } => self.give_up(missing, self.input.len()),
                _ => {}
            }
        }
        fits
    }
}

impl<C: LengthCodec> Filter for Block<C> {
    type Input = Vec<u8>;
    type Output = [u8];

    fn get_one_start(&mut self, chunk: &[u8]) -> Result<(), FilterError> {
        let skipped = self.skip.min(chunk.len() as u64);
        let chunk = &chunk[skipped as usize..];
        self.check_limit(chunk.len())?;
        self.skip -= skipped;
        self.input.append(chunk);
        Ok(())
    }

    fn get_one(&mut self) -> Result<Option<Vec<u8>>, FilterError> {
        Ok(self.take_block()?.map(<[u8]>::to_vec))
    }

    fn put(&mut self, record: &[u8], out: &mut Vec<u8>) -> Result<(), FilterError> {
        put_whole(out, |out| self.codec.encode(record.len(), out))?;
        out.extend_from_slice(record);
        Ok(())
    }

    fn room(&self) -> usize {
        self.limits.room(self.input.len())
    }

    fn get_pending(&self) -> &[u8] {
        self.input.live()
    }

    /// Says `false` also in a block that was given up.
    fn is_between_records(&self) -> bool {
        self.input.live().is_empty() && self.skip == 0
    }

    fn finish_record(&mut self, chunk: &[u8]) -> Option<usize> {
        let skipped = self.skip.min(chunk.len() as u64);
        self.skip -= skipped;
        (self.skip == 0).then_some(skipped as usize)
    }

    fn clone_config(&self) -> Self {
        Self { limits: self.limits, ..Self::with_codec(self.codec.clone()) }
    }
}

#[cfg(test)]
mod tests;

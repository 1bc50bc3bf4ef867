//! Blocks of one size.

use crate::filter::buffer::{Buffer, Limits};
use crate::filter::{Filter, FilterError, invalid};

/// Cuts blocks of a given number of bytes. `put` passes bytes through.
///
/// `put` neither pads nor checks, so two halves make a block.
///
/// ```
/// use lenore::filter::{Filter, FixedBlock};
///
/// let mut block = FixedBlock::new(4)?;
/// assert_eq!(block.get(b"abcdefghij")?, [b"abcd", b"efgh"]);
/// assert_eq!(block.get_pending(), b"ij");
/// # Ok::<(), lenore::filter::FilterError>(())
/// ```
///
/// POE: `POE::Filter::Block` with `BlockSize`.
#[doc(alias = "BlockSize")]
#[derive(Debug)]
pub struct FixedBlock {
    size: usize,
    input: Buffer,
    /// How many bytes are still to come of a block that was given up. The buffer is empty until then.
    skip: usize,
    limits: Limits,
}

impl FixedBlock {
    /// Makes a filter for blocks of `size` bytes.
    ///
    /// # Errors
    ///
    /// [`FilterError::InvalidSetting`] if `size` is zero.
    ///
    /// POE: the `BlockSize` parameter. The settings that it excludes there do not exist here.
    pub fn new(size: usize) -> Result<Self, FilterError> {
        if size == 0 {
            return Err(invalid("block_size", "must not be zero"));
        }
        let usual = Limits::default();
        let limits = Limits { length: size, buffer: usual.buffer.max(size) };
        Ok(Self { size, input: Buffer::default(), skip: 0, limits })
    }

    /// Limits the unparsed input to `bytes`. Default: 512 MiB, or one block if that is more.
    ///
    /// If a chunk does not fit, the filter refuses all of it with [`FilterError::BufferFull`]:
    ///
    /// - If complete blocks are waiting, nothing else happens. Take them, and offer the chunk again.
    /// - If not, the filter gives the unfinished block up. It will drop the rest of the block, so that the next blocks
    ///   begin where they should. It accepts the chunk at the second offer, unless what is left of the chunk alone is
    ///   longer than `bytes`.
    ///
    /// # Errors
    ///
    /// [`FilterError::InvalidSetting`] if `bytes` is zero or less than a block.
    ///
    /// POE: the `MaxBuffer` parameter. Once it is exceeded, a filter of POE is unusable.
    #[doc(alias = "MaxBuffer")]
    pub fn max_buffer(mut self, bytes: usize) -> Result<Self, FilterError> {
        if bytes > 0 && bytes < self.size {
            return Err(invalid("max_buffer", "must not be less than a block"));
        }
        self.limits.set_buffer(bytes, 0)?;
        Ok(self)
    }
}

impl Filter for FixedBlock {
    type Input = Vec<u8>;
    type Output = [u8];

    fn get_one_start(&mut self, chunk: &[u8]) -> Result<(), FilterError> {
        let skipped = self.skip.min(chunk.len());
        let chunk = &chunk[skipped..];
        let held = self.input.len();
        self.limits.check_buffer(held, chunk.len()).inspect_err(|_| {
            if (1..self.size).contains(&held) {
                self.skip = self.size - held;
                self.input.clear();
            }
        })?;
        self.skip -= skipped;
        self.input.append(chunk);
        Ok(())
    }

    fn get_one(&mut self) -> Result<Option<Vec<u8>>, FilterError> {
        if self.input.len() < self.size {
            self.input.release_if_drained();
            return Ok(None);
        }
        Ok(Some(self.input.consume(self.size).to_vec()))
    }

    fn put(&mut self, record: &[u8], out: &mut Vec<u8>) -> Result<(), FilterError> {
        out.extend_from_slice(record);
        Ok(())
    }

    fn room(&self) -> usize {
        self.limits.room(self.input.len())
    }

    fn get_pending(&self) -> &[u8] {
        self.input.live()
    }

    /// Returns `false` inside a block that was given up as well.
    fn is_between_records(&self) -> bool {
        self.input.live().is_empty() && self.skip == 0
    }

    fn finish_record(&mut self, chunk: &[u8]) -> Option<usize> {
        let skipped = self.skip.min(chunk.len());
        self.skip -= skipped;
        (self.skip == 0).then_some(skipped)
    }

    fn clone_config(&self) -> Self {
        Self { size: self.size, input: Buffer::default(), skip: 0, limits: self.limits }
    }
}

#[cfg(test)]
impl FixedBlock {
    pub(super) fn capacity(&self) -> usize {
        self.input.capacity()
    }
}

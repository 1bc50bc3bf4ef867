//! What the framing filters have in common: the input buffer and the limits.

use super::{FilterError, invalid};

/// Bytes on their way to becoming records.
///
/// Consuming bytes moves `start`. When the buffer needs room, and consumed bytes are at least half of it, it drops
/// them. So each byte is moved once or twice in all, however many records a chunk holds.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    octets: Vec<u8>,
    /// Bytes in front of it are consumed.
    start: usize,
}

impl Buffer {
    /// Returns the bytes that were appended and not consumed.
    #[inline]
    pub(super) fn live(&self) -> &[u8] {
        &self.octets[self.start..]
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.octets.len() - self.start
    }

    pub(super) fn append(&mut self, chunk: &[u8]) {
        self.make_room(chunk.len());
        self.octets.extend_from_slice(chunk);
    }

    /// Consumes the first `count` bytes, which must be there, and lends them.
    #[inline]
    pub(super) fn consume(&mut self, count: usize) -> &[u8] {
        let begin = self.start;
        self.start += count;
        &self.octets[begin..self.start]
    }

    pub(super) fn clear(&mut self) {
        self.consume(self.len());
    }

    /// Gives back the memory of an unusual burst, so that an idle connection does not keep it.
    pub(super) fn release_if_drained(&mut self) {
        if self.len() == 0 && self.octets.capacity() > KEPT_CAPACITY {
            *self = Self::default();
        }
    }

    fn make_room(&mut self, more: usize) {
        let live = self.len();
        let short_of_room = self.octets.capacity() - self.octets.len() < more;
        // Moving no more than what was consumed since the last time keeps the cost per byte constant.
        if live == 0 || (short_of_room && live <= self.start) {
            self.octets.drain(..self.start);
            self.start = 0;
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.octets.capacity()
    }
}

/// How long a record, and how full the buffer, may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) length: usize,
    pub(super) buffer: usize,
}

impl Limits {
    /// Limits records to `length`; a record comes with a header of up to `header` bytes.
    pub(super) fn set_length(&mut self, length: usize, header: usize) -> Result<(), FilterError> {
        if length == 0 {
            return Err(invalid("max_length", "must not be zero"));
        }
        if length.saturating_add(header) > self.buffer {
            return Err(invalid("max_length", "must not be more than max_buffer"));
        }
        self.length = length;
        Ok(())
    }

    pub(super) fn set_buffer(&mut self, buffer: usize, header: usize) -> Result<(), FilterError> {
        if buffer == 0 {
            return Err(invalid("max_buffer", "must not be zero"));
        }
        if buffer < self.length.saturating_add(header) {
            return Err(invalid("max_buffer", "must not be less than max_length"));
        }
        self.buffer = buffer;
        Ok(())
    }

    /// Returns how many bytes fit beside those that are `held`.
    pub(super) fn room(&self, held: usize) -> usize {
        self.buffer.saturating_sub(held)
    }

    #[inline]
    pub(super) fn check_length(&self, length: usize) -> Result<(), FilterError> {
        if length > self.length { Err(FilterError::RecordTooLong { limit: self.length, length }) } else { Ok(()) }
    }

    /// Fails if `more` bytes do not fit beside those that are `held`.
    pub(super) fn check_buffer(&self, held: usize, more: usize) -> Result<(), FilterError> {
        let needed = held.saturating_add(more);
        if needed > self.buffer { Err(FilterError::BufferFull { limit: self.buffer, needed }) } else { Ok(()) }
    }
}

impl Default for Limits {
    /// Those of POE: 64 MiB for a record, 512 MiB for the buffer.
    fn default() -> Self {
        Self { length: 64 << 20, buffer: 512 << 20 }
    }
}

/// The most capacity a drained buffer keeps, in octets: twice a generous read.
const KEPT_CAPACITY: usize = 128 * 1024;

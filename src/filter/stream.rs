//! The filter that does not frame.

use std::mem;

use super::{Filter, FilterError};

/// Passes bytes through as they come: a record is whatever was read.
///
/// For protocols that need no framing (a relay), or that frame for themselves. Chunks that arrive before the next
/// [`get_one`](Filter::get_one) come out joined. No limit is set on them, since nothing waits for more input.
///
/// ```
/// use lenore::filter::{Filter, Stream};
///
/// let mut stream = Stream::new();
/// stream.get_one_start(b"any")?;
/// stream.get_one_start(b"\r\nthing")?;
/// assert_eq!(stream.get_one()?, Some(b"any\r\nthing".to_vec()));
/// assert_eq!(stream.get_one()?, None);
/// # Ok::<(), lenore::filter::FilterError>(())
/// ```
///
/// POE: `POE::Filter::Stream`.
#[derive(Debug, Default)]
pub struct Stream {
    /// What was read since the last record; becomes the next one as it is.
    buffer: Vec<u8>,
}

impl Stream {
    /// Makes a filter with nothing in it; there is nothing to set.
    ///
    /// POE: `new`.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Filter for Stream {
    type Input = Vec<u8>;
    type Output = [u8];

    fn get_one_start(&mut self, chunk: &[u8]) -> Result<(), FilterError> {
        self.buffer.extend_from_slice(chunk);
        Ok(())
    }

    fn get_one(&mut self) -> Result<Option<Vec<u8>>, FilterError> {
        if self.buffer.is_empty() {
            return Ok(None);
        }
        Ok(Some(mem::take(&mut self.buffer)))
    }

    fn put(&mut self, record: &[u8], out: &mut Vec<u8>) -> Result<(), FilterError> {
        out.extend_from_slice(record);
        Ok(())
    }

    fn get_pending(&self) -> &[u8] {
        &self.buffer
    }

    fn clone_config(&self) -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // K-FS-01: get returns everything buffered as one record, joined
    fn chunks_come_out_joined() -> Result<(), FilterError> {
        let mut stream = Stream::new();
        stream.get_one_start(b"a\n")?;
        stream.get_one_start(b"")?;
        assert_eq!(stream.get(b"b\xff")?, [b"a\nb\xff"]);
        Ok(())
    }

    #[test] // K-FS-01, K-FI-05: put passes chunks through
    fn put_passes_records_through() -> Result<(), FilterError> {
        let mut out = b"x".to_vec();
        let mut stream = Stream::new();
        for record in [&b"a\n"[..], b"", b"\xff"] {
            stream.put(record, &mut out)?;
        }
        assert_eq!(out, b"xa\n\xff");
        Ok(())
    }

    #[test] // K-FS-02: nothing buffered is no record, not an empty one
    fn nothing_buffered_is_no_record() -> Result<(), FilterError> {
        let mut stream = Stream::new();
        assert_eq!(stream.get_one()?, None);
        assert!(stream.get(b"")?.is_empty());
        Ok(())
    }

    #[test] // K-FI-06: get_pending does not empty the buffer. K-FI-07: a clone's buffer is empty
    fn pending_input_stays_and_is_not_cloned() -> Result<(), FilterError> {
        let mut stream = Stream::new();
        assert!(stream.get_pending().is_empty());
        stream.get_one_start(b"kept")?;
        assert_eq!(stream.get_pending(), b"kept");
        assert!(stream.clone_config().get_pending().is_empty());
        assert_eq!(stream.get_one()?.as_deref(), Some(&b"kept"[..]));
        assert!(stream.get_pending().is_empty());
        Ok(())
    }
}

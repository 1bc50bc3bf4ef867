//! The filter that passes bytes through.

use std::mem;

use super::{Filter, FilterError};

/// Passes bytes through as they come. A record is whatever one read returned.
///
/// This is for protocols without framing, such as a relay, and for programs that do their own framing. Chunks that
/// arrive before the next [`get_one`](Filter::get_one) come out as one. There is no limit on them, because no chunk
/// waits for more input.
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
    /// The bytes read since the last record. They become the next record.
    buffer: Vec<u8>,
}

impl Stream {
    /// Makes an empty filter. It has no settings.
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

//! Lines of text or of bytes.

use super::{Filter, FilterError, invalid};

mod buffer;

use buffer::{LineBuffer, Terminator};

/// Cuts lines of UTF-8 text; `put` ends each line with CR LF.
///
/// A line ends with CR LF, LF CR, CR or LF, whichever is longest. [`literal`](Self::literal) and
/// [`input_literal`](Self::input_literal) set one terminator. [`autodetect`](Self::autodetect) lets the peer choose.
/// Records exclude the terminator and may be empty.
///
/// The filter delivers a line as soon as the first byte of its terminator arrives, so that a peer which ends its lines
/// with CR alone need not wait. If the next byte completes a pair, the filter drops that byte. So the records are the
/// same however the input was cut, even if another filter takes over in between: see
/// [`finish_record`](Filter::finish_record).
///
/// A line that is not UTF-8 is reported as [`FilterError::NotUtf8`]. The next line is not affected. [`ByteLine`] takes
/// lines of any bytes.
///
/// Terminators can't be regular expressions. For those, write your own [`Filter`].
///
/// ```
/// use lenore::filter::{Filter, FilterError, Line};
///
/// let mut fields = Line::literal(";")?.max_length(5)?;
/// assert_eq!(fields.get(b"a;;b")?, ["a", ""]);
/// fields.get_one_start(b"cdefg;h;")?;
/// assert_eq!(fields.get_one(), Err(FilterError::RecordTooLong { limit: 5, length: 6 }));
/// assert_eq!(fields.get_one()?.as_deref(), Some("h"));
///
/// let mut out = Vec::new();
/// fields.put("x", &mut out)?;
/// assert_eq!(out, b"x;");
/// # Ok::<(), FilterError>(())
/// ```
///
/// POE: `POE::Filter::Line`, which makes an empty record when a read ends between CR and LF, and knows no encodings.
#[derive(Debug, Default)]
pub struct Line {
    bytes: ByteLine,
}

/// Cuts lines of any bytes. It is a [`Line`] whose lines need not be text.
///
/// Make the settings on a [`Line`], and call [`bytes`](Line::bytes) to get a `ByteLine`.
///
/// ```
/// use lenore::filter::{Filter, Line};
///
/// let mut names = Line::literal(b"\0")?.bytes(); // as find -print0 writes them
/// assert_eq!(names.get(b"caf\xe9\0a\nb\0")?, [&b"caf\xe9"[..], b"a\nb"]);
/// # Ok::<(), lenore::filter::FilterError>(())
/// ```
///
/// POE: `POE::Filter::Line`.
#[derive(Debug)]
pub struct ByteLine {
    input: LineBuffer,
    /// Appended to each record that is sent. It may be empty.
    output: Box<[u8]>,
}

impl Line {
    /// Makes a filter with the default terminators. Input lines may end with any newline, output lines end with CR LF.
    ///
    /// POE: `new` without parameters.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a filter for lines that end with `terminator` in both directions.
    ///
    /// # Errors
    ///
    /// [`FilterError::InvalidSetting`] if `terminator` is empty.
    ///
    /// POE: the `Literal` parameter, which excludes the other two. Here a later setting replaces the terminator of its
    /// direction.
    #[doc(alias("InputLiteral", "OutputLiteral"))]
    pub fn literal(terminator: impl AsRef<[u8]>) -> Result<Self, FilterError> {
        let terminator = terminator.as_ref();
        if terminator.is_empty() {
            return Err(invalid("literal", "must not be empty"));
        }
        Ok(Self::new().input_literal(terminator).output_literal(terminator))
    }

    /// Makes a filter that takes the first newline of the input (CR LF, LF CR, CR or LF) as the only terminator from
    /// then on.
    ///
    /// After a first CR or LF, the next byte decides whether it is a pair, even in a later chunk. Output lines end with
    /// CR LF.
    ///
    /// POE: the `InputLiteral` parameter, undefined or empty.
    pub fn autodetect() -> Self {
        Self::new().input_literal("")
    }

    /// Sets the terminator of input lines, byte for byte. An empty one means [`autodetect`](Self::autodetect).
    ///
    /// POE: the `InputLiteral` parameter.
    #[must_use]
    pub fn input_literal(mut self, terminator: impl AsRef<[u8]>) -> Self {
        self.bytes.input.set_terminator(match terminator.as_ref() {
            [] => Terminator::Undecided,
            literal => Terminator::literal(literal),
        });
        self
    }

    /// Sets the terminator of output lines. An empty one adds nothing.
    ///
    /// POE: the `OutputLiteral` parameter.
    #[must_use]
    pub fn output_literal(mut self, terminator: impl AsRef<[u8]>) -> Self {
        self.bytes.output = terminator.as_ref().into();
        self
    }

    /// Rejects complete lines longer than `bytes`, not counting the terminator. Default: 64 MiB.
    ///
    /// The filter removes such a line and reports it once as [`FilterError::RecordTooLong`]. The next call of `get_one`
    /// goes on after it. An unfinished line is limited by [`max_buffer`](Self::max_buffer) only. To lower both limits,
    /// set this one first.
    ///
    /// # Errors
    ///
    /// [`FilterError::InvalidSetting`] if `bytes` is zero or more than the limit of the buffer.
    ///
    /// POE: the `MaxLength` parameter.
    pub fn max_length(mut self, bytes: usize) -> Result<Self, FilterError> {
        self.bytes.input.limits.set_length(bytes, 0)?;
        Ok(self)
    }

    /// Limits the unparsed input to `bytes`, counting terminators. This bounds how much memory a peer can make the
    /// filter use. Default: 512 MiB.
    ///
    /// If a chunk does not fit, the filter refuses all of it with [`FilterError::BufferFull`]:
    ///
    /// - If complete lines are waiting, nothing else happens. Take them, and offer the chunk again.
    /// - If not, the filter gives the unfinished line up. It discards the line's bytes and its terminator, even those
    ///   that have not come yet, and delivers the lines after it. It accepts the chunk at the second offer, unless the
    ///   chunk alone is longer than `bytes`.
    ///
    /// If the limit has room for the longest line, its terminator and one read, the filter never gives up a line within
    /// `max_length`.
    ///
    /// To raise both limits, set this one first.
    ///
    /// # Errors
    ///
    /// [`FilterError::InvalidSetting`] if `bytes` is zero or less than the limit of a line.
    ///
    /// POE: the `MaxBuffer` parameter. Once it is exceeded, a filter of POE is unusable.
    pub fn max_buffer(mut self, bytes: usize) -> Result<Self, FilterError> {
        self.bytes.input.limits.set_buffer(bytes, 0)?;
        Ok(self)
    }

    /// Returns the filter with the same settings and input for lines of any bytes.
    ///
    /// POE: no counterpart. Strings are bytes there.
    pub fn bytes(self) -> ByteLine {
        self.bytes
    }
}

impl ByteLine {
    /// Makes a filter with the default terminators. Input lines may end with any newline, output lines end with CR LF.
    ///
    /// POE: `new` without parameters.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Default for ByteLine {
    fn default() -> Self {
        Self { input: LineBuffer::default(), output: (*b"\r\n").into() }
    }
}

impl Filter for Line {
    type Input = String;
    type Output = str;

    fn get_one_start(&mut self, chunk: &[u8]) -> Result<(), FilterError> {
        self.bytes.get_one_start(chunk)
    }

    fn get_one(&mut self) -> Result<Option<String>, FilterError> {
        self.bytes.input.take_record()?.map(text).transpose()
    }

    fn get_last(&mut self) -> Result<Option<String>, FilterError> {
        self.bytes.input.take_pending()?.map(text).transpose()
    }

    fn room(&self) -> usize {
        self.bytes.room()
    }

    fn finish_record(&mut self, chunk: &[u8]) -> Option<usize> {
        self.bytes.finish_record(chunk)
    }

    fn put(&mut self, record: &str, out: &mut Vec<u8>) -> Result<(), FilterError> {
        self.bytes.put(record.as_bytes(), out)
    }

    fn get_pending(&self) -> &[u8] {
        self.bytes.get_pending()
    }

    fn is_between_records(&self) -> bool {
        self.bytes.is_between_records()
    }

    fn clone_config(&self) -> Self {
        Self { bytes: self.bytes.clone_config() }
    }
}

impl Filter for ByteLine {
    type Input = Vec<u8>;
    type Output = [u8];

    fn get_one_start(&mut self, chunk: &[u8]) -> Result<(), FilterError> {
        self.input.append(chunk)
    }

    fn get_one(&mut self) -> Result<Option<Vec<u8>>, FilterError> {
        Ok(self.input.take_record()?.map(<[u8]>::to_vec))
    }

    fn get_last(&mut self) -> Result<Option<Vec<u8>>, FilterError> {
        Ok(self.input.take_pending()?.map(<[u8]>::to_vec))
    }

    fn room(&self) -> usize {
        self.input.limits.room(self.input.pending().len())
    }

    fn finish_record(&mut self, chunk: &[u8]) -> Option<usize> {
        self.input.finish_record(chunk)
    }

    fn put(&mut self, record: &[u8], out: &mut Vec<u8>) -> Result<(), FilterError> {
        out.reserve(record.len() + self.output.len());
        out.extend_from_slice(record);
        out.extend_from_slice(&self.output);
        Ok(())
    }

    fn get_pending(&self) -> &[u8] {
        self.input.pending()
    }

    /// Returns `false` inside a line that was given up as well.
    fn is_between_records(&self) -> bool {
        self.input.is_between_records()
    }

    /// Makes a filter that detects the terminator anew if this one has detected it, because the next peer may use
    /// another.
    fn clone_config(&self) -> Self {
        Self { input: self.input.clone_config(), output: self.output.clone() }
    }
}

fn text(record: &[u8]) -> Result<String, FilterError> {
    match str::from_utf8(record) {
        Ok(text) => Ok(text.to_owned()),
        Err(error) => Err(FilterError::NotUtf8 { octet: error.valid_up_to(), record: record.to_vec() }),
    }
}

#[cfg(test)]
mod tests;

//! Filters turn bytes into records and records into bytes.
//!
//! A wheel feeds a [`Filter`] the peer's bytes in whatever chunks they arrive, and sends its session one event for each
//! record that the filter finds. Records that the session `put`s go through a second filter of the same type, the
//! [output half](self#two-halves). A filter does no I/O and does not use the kernel, so a program can use and test it
//! alone:
//!
//! ```
//! use lenore::filter::{Filter, Line};
//!
//! let mut line = Line::new();
//! assert_eq!(line.get(b"HELO here\r\nQU")?, ["HELO here"]);
//! assert_eq!(line.get_pending(), b"QU");
//!
//! let mut out = Vec::new();
//! line.put("250 there", &mut out)?;
//! assert_eq!(out, b"250 there\r\n");
//! # Ok::<(), lenore::filter::FilterError>(())
//! ```
//!
//! These filters work between bytes and records:
//!
//! - [`Line`] cuts lines of text, [`ByteLine`] lines of any bytes.
//! - [`Block`] cuts blocks after a header with their length, [`FixedBlock`] blocks of one size.
//! - [`Stream`] passes chunks through.
//! - `Frame` carries values of any type that serde can handle. It needs the feature `serde`.
//! - `http::Httpd` reads requests and writes responses. It needs the feature `http`.
//!
//! These work between records and records, on top of one of the above in a [`Stackable`]:
//!
//! - [`Grep`] drops records.
//! - [`Map`] changes records.
//! - [`RecordBlock`] groups records.
//! - [`Chunks`] is any of the filters above, fed with records of bytes.
//!
//! For anything else, write your own filter. There are examples at [`Filter`] and [`RecordFilter`].
//!
//! To choose a filter while the program runs, use [`Either`] or a `Box<dyn Filter<Input = .., Output = ..>>`.
//!
//! # Two halves
//!
//! A wheel that gets one filter works with two values of its type. The value that it gets is the **input half**, of
//! which it uses only the input. The **output half** is what [`Filter::output_half`] returns. The wheel calls only
//! [`put`](Filter::put) on it. So what you do depends on which half needs the filter's state:
//!
//! - **Each direction has its own state.** An example is compression, where each direction has its own dictionary. You
//!   need not do anything, because each half keeps the state of its own direction.
//! - **The input decides how the output is written.** An example is a key that the peer sends. Both halves then share
//!   the state. Write an `output_half` that shares it through an `Rc`.
//! - **The input itself causes output.** An example is the handshake of TLS. A filter can't do that, because it writes
//!   only in `put`. Write a [`Transport`](crate::wheel::Transport), which works below the filter.
//!
//! An example of the first kind writes each byte as the difference from the byte before:
//!
//! ```
//! use lenore::filter::{Filter, FilterError};
//!
//! #[derive(Default)]
//! struct Delta { input: Vec<u8>, last_read: u8, last_put: u8 }
//!
//! impl Filter for Delta {
//!     type Input = Vec<u8>;
//!     type Output = [u8];
//!
//!     fn get_one_start(&mut self, chunk: &[u8]) -> Result<(), FilterError> {
//!         self.input.extend_from_slice(chunk);
//!         Ok(())
//!     }
//!     fn get_one(&mut self) -> Result<Option<Vec<u8>>, FilterError> {
//!         let last = &mut self.last_read;
//!         let plain: Vec<u8> = self.input.drain(..).map(|octet| { *last = last.wrapping_add(octet); *last }).collect();
//!         Ok((!plain.is_empty()).then_some(plain))
//!     }
//!     fn put(&mut self, record: &[u8], out: &mut Vec<u8>) -> Result<(), FilterError> {
//!         for &byte in record {
//!             out.push(byte.wrapping_sub(std::mem::replace(&mut self.last_put, byte)));
//!         }
//!         Ok(())
//!     }
//!     fn get_pending(&self) -> &[u8] { &self.input }
//!     fn clone_config(&self) -> Self { Self::default() }
//! }
//!
//! let mut input = Delta::default();
//! let mut output = input.output_half();
//! let mut sent = Vec::new();
//! output.put(b"aab", &mut sent)?;
//! output.put(b"c", &mut sent)?;
//! assert_eq!(sent, [97, 0, 1, 1]);
//! assert_eq!(input.get(&sent)?, [b"aabc"]);
//! # Ok::<(), FilterError>(())
//! ```
//!
//! In an example of the second kind, the first input byte is the key for both directions:
//!
//! ```
//! use std::cell::Cell;
//! use std::rc::Rc;
//! use lenore::filter::{Filter, FilterError};
//!
//! #[derive(Default)]
//! struct Keyed { input: Vec<u8>, key: Rc<Cell<Option<u8>>> }
//!
//! impl Filter for Keyed {
//!     type Input = Vec<u8>;
//!     type Output = [u8];
//!
//!     fn get_one_start(&mut self, chunk: &[u8]) -> Result<(), FilterError> {
//!         self.input.extend_from_slice(chunk);
//!         Ok(())
//!     }
//!     fn get_one(&mut self) -> Result<Option<Vec<u8>>, FilterError> {
//!         if self.key.get().is_none() && !self.input.is_empty() {
//!             self.key.set(Some(self.input.remove(0)));
//!         }
//!         let key = self.key.get().unwrap_or_default();
//!         let plain: Vec<u8> = self.input.drain(..).map(|octet| octet ^ key).collect();
//!         Ok((!plain.is_empty()).then_some(plain))
//!     }
//!     fn put(&mut self, record: &[u8], out: &mut Vec<u8>) -> Result<(), FilterError> {
//!         let key = self.key.get().ok_or_else(|| FilterError::malformed("the key has not come"))?;
//!         out.extend(record.iter().map(|byte| byte ^ key));
//!         Ok(())
//!     }
//!     fn get_pending(&self) -> &[u8] { &self.input }
//!     // For another connection: it has a key of its own.
//!     fn clone_config(&self) -> Self { Self::default() }
//!     // For the same connection.
//!     fn output_half(&self) -> Self { Self { input: Vec::new(), key: Rc::clone(&self.key) } }
//! }
//!
//! let mut input = Keyed::default();
//! let mut output = input.output_half();
//! let mut sent = Vec::new();
//! assert!(output.put(b"too early", &mut sent).is_err());
//! assert_eq!(input.get(b"\x20ABC")?, [b"abc"]);
//! output.put(b"xyz", &mut sent)?;
//! assert_eq!(sent, b"XYZ");
//! # Ok::<(), FilterError>(())
//! ```
//!
//! A wheel can also take the two halves one by one, even of different types: see
//! [`ReadWriteBuilder::output_filter`](crate::wheel::ReadWriteBuilder::output_filter).
//!
//! # Bad input
//!
//! Every filter that waits for more input limits how much it holds. The filter reports an error once, in place of the
//! record that is lost. The error says what was wrong. Then the filter goes on with the next record. After
//! [`FilterError::OutOfStep`] it can only guess where the next record begins, so the session should end the connection.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

mod as_record;
mod block;
mod boxed;
mod buffer;
mod either;
#[cfg(feature = "serde")]
mod frame;
mod grep;
#[cfg(feature = "http")]
pub mod http;
mod line;
mod map;
mod record;
mod record_block;
mod stackable;
mod stream;

pub use as_record::AsRecord;
pub use block::{Block, Decimal, Decoded, FixedBlock, LengthCodec};
pub use either::Either;
#[cfg(feature = "serde")]
pub use frame::{Frame, FrameCodec, Json};
pub use grep::Grep;
#[cfg(feature = "http")]
pub use http::Httpd;
pub use line::{ByteLine, Line};
pub use map::Map;
pub use record::{Chunks, RecordFilter};
pub use record_block::RecordBlock;
pub use stackable::Stackable;
pub use stream::Stream;

/// Cuts a stream of bytes into records, and turns records into bytes.
///
/// Feed input with [`get_one_start`](Self::get_one_start), and take records out with [`get_one`](Self::get_one), one at
/// a time. A session that acts on a record may replace the wheel's filter, and the new filter then gets the rest of the
/// chunk ([`hand_over`](Self::hand_over)). For output there is only [`put`](Self::put).
///
/// The network cuts input anywhere, so the records must not depend on how the input was cut into chunks.
///
/// # Examples
///
/// A filter for records that follow a length of one byte:
///
/// ```
/// use lenore::filter::{Filter, FilterError};
///
/// #[derive(Default)]
/// struct Counted { input: Vec<u8> }
///
/// impl Filter for Counted {
///     type Input = Vec<u8>;
///     type Output = [u8];
///
///     fn get_one_start(&mut self, chunk: &[u8]) -> Result<(), FilterError> {
///         self.input.extend_from_slice(chunk);
///         Ok(())
///     }
///     fn get_one(&mut self) -> Result<Option<Vec<u8>>, FilterError> {
///         let Some(&length) = self.input.first() else { return Ok(None) };
///         let end = 1 + usize::from(length);
///         if self.input.len() < end { return Ok(None) }
///         Ok(Some(self.input.drain(..end).skip(1).collect()))
///     }
///     fn put(&mut self, record: &[u8], out: &mut Vec<u8>) -> Result<(), FilterError> {
///         let too_long = FilterError::RecordTooLong { limit: 255, length: record.len() };
///         out.push(u8::try_from(record.len()).map_err(|_| too_long)?);
///         out.extend_from_slice(record);
///         Ok(())
///     }
///     fn get_pending(&self) -> &[u8] { &self.input }
///     fn clone_config(&self) -> Self { Self::default() }
/// }
///
/// let mut counted = Counted::default();
/// assert_eq!(counted.get(b"\x03abc\x00\x02d")?, [b"abc".to_vec(), vec![]]);
/// assert_eq!(counted.get(b"e")?, [b"de"]);
/// # Ok::<(), FilterError>(())
/// ```
///
/// POE: `POE::Filter`. Chunks and records are passed one at a time. POE passes lists of them.
pub trait Filter: boxed::Boxable + 'static {
    /// A record as the session gets it, in the wheel's input event.
    type Input: 'static;

    /// A record as the session sends it, with [`put`](Self::put).
    type Output: ?Sized;

    /// Appends `chunk` to the unparsed input, without looking for records in it.
    ///
    /// An empty chunk changes nothing.
    ///
    /// # Errors
    ///
    /// [`FilterError::BufferFull`] if the filter limits its buffer and `chunk` does not fit. The filter has then taken
    /// **nothing of `chunk`**. Call [`get_one`](Self::get_one) until it returns no more records, and offer the chunk
    /// again. If there was no complete record, the filter gives the unfinished one up. The second offer then succeeds,
    /// unless the chunk alone is longer than the limit. See [`Line::max_buffer`].
    ///
    /// POE: `get_one_start`, which keeps the chunk when it raises, and so raises on every later call.
    fn get_one_start(&mut self, chunk: &[u8]) -> Result<(), FilterError>;

    /// Takes the next record out of the input. Returns `None` if there is no complete record.
    ///
    /// # Errors
    ///
    /// [`FilterError::RecordTooLong`], [`FilterError::NotUtf8`] and [`FilterError::Malformed`] stand for a record. The
    /// filter has removed it, and the next call goes on after it. [`FilterError::OutOfStep`] stands for input in which
    /// the filter has found no record.
    ///
    /// POE: `get_one`, which returns a list of one record or none.
    fn get_one(&mut self) -> Result<Option<Self::Input>, FilterError>;

    /// Appends the bytes that represent `record` to `out`.
    ///
    /// # Errors
    ///
    /// The filter's own error if it can't encode `record`. `out` is then unchanged. A wheel makes sure of that, even
    /// after a panic. [`Line`], [`ByteLine`], [`Stream`], [`FixedBlock`], and [`Block`] with its default header accept
    /// every record.
    ///
    /// POE: `put`, which returns a list of chunks.
    fn put(&mut self, record: &Self::Output, out: &mut Vec<u8>) -> Result<(), FilterError>;

    /// Returns the input that is not parsed yet, and leaves it in the filter. It is empty if there is none.
    ///
    /// After an end of file it is the unfinished last record. When another filter takes over, it is fed what
    /// [`hand_over`](Self::hand_over) returns, by default these same bytes.
    ///
    /// POE: `get_pending`.
    fn get_pending(&self) -> &[u8];

    /// Tells whether the next byte of input begins a record.
    ///
    /// A component asks this before it closes an idle connection. A filter that takes parts of a record out of its
    /// input before the record is complete must return `false` until it is. Default: [`get_pending`](Self::get_pending)
    /// is empty.
    ///
    /// POE: nothing like it.
    fn is_between_records(&self) -> bool {
        self.get_pending().is_empty()
    }

    /// Returns how many bytes of input the filter can take now. A wheel offers it no more at a time.
    ///
    /// A filter that limits its buffer should implement this. Otherwise a wheel offers it chunks that it must refuse,
    /// and it may have to give up a record that would have fitted.
    ///
    /// POE: nothing like it. POE offers a filter everything that was read.
    fn room(&self) -> usize {
        usize::MAX
    }

    /// Takes what is left in the input as the last record, although it is unfinished. A wheel with `deliver_last` calls
    /// this at the end of file, when [`get_one`](Self::get_one) has no more records.
    ///
    /// Returns `None`, and leaves the input as it is, if nothing is left, or if the format has no use for part of a
    /// record. Default: `None`.
    ///
    /// # Errors
    ///
    /// As [`get_one`](Self::get_one).
    ///
    /// POE: nothing like it. `get_pending` returns the unfinished record.
    fn get_last(&mut self) -> Result<Option<Self::Input>, FilterError> {
        Ok(None)
    }

    /// Returns the pending input for the filter that takes over.
    ///
    /// Later input may begin with bytes that still belong to this filter: see [`finish_record`](Self::finish_record).
    ///
    /// # Errors
    ///
    /// [`FilterError::CannotSwitch`] if the filter holds input that has not come out as records, and that it can't
    /// return as bytes. That part would be lost. In this crate it can come from a [`Stackable`], and from `http::Httpd`
    /// in the middle of a request.
    ///
    /// POE: `get_pending`, which does not report the loss.
    fn hand_over(&self) -> Result<&[u8], FilterError> {
        Ok(self.get_pending())
    }

    /// Tells the filter that takes over how many bytes at the beginning of `chunk` are not input for it.
    ///
    /// `chunk` is what follows the bytes that [`hand_over`](Self::hand_over) has returned. Its first bytes may belong
    /// to a record that this filter has already delivered or given up. Examples are the LF of a CR LF whose CR has
    /// ended a line, and the rest of a block that was too long.
    ///
    /// `Some` is the number of those bytes, usually 0, and this filter need not be asked again. `None` means that all
    /// of `chunk` belongs to that record, so the caller must ask about the next chunk as well.
    ///
    /// The wheels call this. A program that feeds filters itself calls it after it has fed the new filter what
    /// `hand_over` returned:
    ///
    /// ```
    /// use lenore::filter::{Filter, Line, Stream};
    ///
    /// let mut old = Line::new();
    /// assert_eq!(old.get(b"DATA\r")?, ["DATA"]);
    /// let mut new = Stream::new();
    /// assert!(new.get(old.hand_over()?)?.is_empty());
    /// let chunk = b"\nbinary";
    /// let first = old.finish_record(chunk).unwrap_or(chunk.len());
    /// assert_eq!(new.get(&chunk[first..])?, [b"binary"]);
    /// # Ok::<(), lenore::filter::FilterError>(())
    /// ```
    ///
    /// Implement this method if the filter delivers a record before it knows where the record ends, or drops input that
    /// has not come yet. Default: `Some(0)`.
    ///
    /// POE: nothing like it. There the new filter gets those bytes.
    fn finish_record(&mut self, _chunk: &[u8]) -> Option<usize> {
        Some(0)
    }

    /// Makes a filter with the same settings and no input. A component makes one for each connection from a single
    /// pattern.
    ///
    /// POE: `clone`. Rust's `Clone` would promise a copy of the input too.
    #[doc(alias = "clone")]
    fn clone_config(&self) -> Self
    where
        Self: Sized;

    /// Makes the output's filter, where this one is for the input. A wheel that gets a single filter calls this.
    ///
    /// A filter whose input decides how the output is written returns one that shares this state: see [the halves of a
    /// filter](self#two-halves). Default: [`clone_config`](Self::clone_config), with no shared state.
    ///
    /// POE: nothing like it. There one filter works in both directions.
    fn output_half(&self) -> Self
    where
        Self: Sized,
    {
        self.clone_config()
    }

    /// Appends `chunk` and takes every complete record. With an empty chunk it takes those that are still in the
    /// filter.
    ///
    /// # Errors
    ///
    /// The first error of [`get_one_start`](Self::get_one_start) or [`get_one`](Self::get_one). The records that this
    /// call took before the error are lost. Those after it are still in the filter. If you need them all, call these
    /// two methods instead.
    ///
    /// POE: `get`.
    fn get(&mut self, chunk: &[u8]) -> Result<Vec<Self::Input>, FilterError> {
        self.get_one_start(chunk)?;
        let mut records = Vec::new();
        while let Some(record) = self.get_one()? {
            records.push(record);
        }
        Ok(records)
    }
}

/// Why a filter rejected input, a record or a setting.
///
/// A filter reports each error once, and stays usable. The variants say what was lost.
///
/// POE: filters raise exceptions with these complaints as text.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterError {
    /// A record was longer than the filter's limit. The filter has removed all of it.
    RecordTooLong {
        /// The longest record allowed, in bytes.
        limit: usize,
        /// The length of the record, in bytes.
        length: usize,
    },
    /// A chunk did not fit into the input buffer. The filter has taken nothing of it.
    BufferFull {
        /// The most input the filter will hold, in bytes.
        limit: usize,
        /// How much the filter would have held with the chunk, in bytes.
        needed: usize,
    },
    /// A record of a text filter was not UTF-8. The filter has removed it from the input.
    NotUtf8 {
        /// The offset in the record of the first byte that is not UTF-8.
        octet: usize,
        /// The record's bytes.
        record: Vec<u8>,
    },
    /// A record broke the rules of the filter's format. The filter has removed it from the input, or has not sent it.
    Malformed {
        /// What is wrong with it, in lower case and without a full stop.
        reason: Cow<'static, str>,
    },
    /// There is no record where one should begin. The filter goes on, but can only guess where the next record begins.
    OutOfStep {
        /// What is wrong with it, in lower case and without a full stop.
        reason: Cow<'static, str>,
    },
    /// The filter holds input in a form that it can't give to another filter. Nothing was changed.
    CannotSwitch {
        /// How many records or bytes the filter holds.
        held: usize,
    },
    /// A filter cannot be made with this setting.
    InvalidSetting {
        /// The name of the setting.
        setting: &'static str,
        /// What is wrong with its value.
        reason: Cow<'static, str>,
    },
}

impl FilterError {
    /// Makes a [`Malformed`](Self::Malformed) error. Write `reason` in lower case and without a full stop.
    ///
    /// ```
    /// use lenore::filter::FilterError;
    ///
    /// assert_eq!(FilterError::malformed("no verb").to_string(), "malformed record: no verb");
    /// assert_eq!(FilterError::malformed(format!("{} verbs", 2)).to_string(), "malformed record: 2 verbs");
    /// ```
    pub fn malformed(reason: impl Into<Cow<'static, str>>) -> FilterError {
        Self::Malformed { reason: reason.into() }
    }

    /// Makes an [`OutOfStep`](Self::OutOfStep) error. Write `reason` in lower case and without a full stop.
    pub fn out_of_step(reason: impl Into<Cow<'static, str>>) -> FilterError {
        Self::OutOfStep { reason: reason.into() }
    }

    /// Makes an [`InvalidSetting`](Self::InvalidSetting) error. `setting` is the name of the method that got the value.
    pub fn invalid_setting(setting: &'static str, reason: impl Into<Cow<'static, str>>) -> FilterError {
        Self::InvalidSetting { setting, reason: reason.into() }
    }

    /// Tells whether the filter no longer knows where records begin, as after [`OutOfStep`](Self::OutOfStep) and
    /// [`CannotSwitch`](Self::CannotSwitch). A wheel sends an error event for these two. After any other error the next
    /// records are sound, and a wheel sends a refused event.
    pub fn is_out_of_step(&self) -> bool {
        matches!(self, Self::OutOfStep { .. } | Self::CannotSwitch { .. })
    }
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RecordTooLong { limit, length } => {
                write!(f, "record of {length} bytes is over the limit of {limit}")
            }
            Self::BufferFull { limit, needed } => {
                write!(f, "unparsed input of {needed} bytes is over the limit of {limit}")
            }
            Self::NotUtf8 { octet, record } => {
                write!(f, "record of {} bytes is not UTF-8 at byte {octet}", record.len())
            }
            Self::Malformed { reason } => write!(f, "malformed record: {reason}"),
            Self::OutOfStep { reason } => write!(f, "malformed input: {reason}"),
            Self::CannotSwitch { held } => {
                write!(f, "another filter can't take over: {held} records or bytes would be lost")
            }
            Self::InvalidSetting { setting, reason } => write!(f, "invalid {setting}: {reason}"),
        }
    }
}

impl Error for FilterError {}

/// Calls `encode`, which appends a record to `out`. If `encode` fails or panics, what it has appended is removed.
/// Otherwise the peer would read half a record as the beginning of the next one.
pub(crate) fn put_whole(
    out: &mut Vec<u8>,
    encode: impl FnOnce(&mut Vec<u8>) -> Result<(), FilterError>,
) -> Result<(), FilterError> {
    let length = out.len();
    let mut half = Half { out, length };
    encode(half.out)?;
    half.length = usize::MAX;
    Ok(())
}

/// Cuts its vector back to `length` when it is dropped.
struct Half<'a> {
    out: &'a mut Vec<u8>,
    length: usize,
}

impl Drop for Half<'_> {
    fn drop(&mut self) {
        self.out.truncate(self.length);
    }
}

fn invalid(setting: &'static str, reason: &'static str) -> FilterError {
    FilterError::invalid_setting(setting, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // K-FI-08: input is taken a record at a time, so that the rest of a chunk can go to another filter
    fn the_rest_of_a_chunk_goes_to_the_filter_that_takes_over() -> Result<(), FilterError> {
        let mut old = Line::new();
        old.get_one_start(b"DATA 5\r\n\x00\r\n\xffz")?;
        assert_eq!(old.get_one()?.as_deref(), Some("DATA 5"));

        let mut new = Stream::new();
        new.get_one_start(old.hand_over()?)?;
        assert_eq!(new.get_one()?, Some(b"\x00\r\n\xffz".to_vec()));
        Ok(())
    }

    #[test] // K-FI-01: a filter is nothing but a value; code that does not know which one it has can use it
    fn filters_with_the_same_records_are_interchangeable() -> Result<(), FilterError> {
        let filters: [Box<dyn Filter<Input = Vec<u8>, Output = [u8]>>; 2] =
            [Box::new(Stream::new()), Box::new(ByteLine::new())];
        for (mut filter, (record, sent)) in filters.into_iter().zip([(&b"a\n"[..], &b"b"[..]), (b"a", b"b\r\n")]) {
            assert_eq!(filter.get(b"a\n")?, [record]);
            let mut out = Vec::new();
            filter.put(b"b", &mut out)?;
            assert_eq!(out, sent);
        }
        Ok(())
    }

    #[test]
    fn errors_read_as_part_of_a_sentence() {
        let told = |error: FilterError| error.to_string();
        let not_utf8 = FilterError::NotUtf8 { octet: 1, record: b"a\xff".to_vec() };
        assert_eq!(told(not_utf8), "record of 2 bytes is not UTF-8 at byte 1");
        assert_eq!(
            told(FilterError::RecordTooLong { limit: 3, length: 4 }),
            "record of 4 bytes is over the limit of 3"
        );
        assert_eq!(
            told(FilterError::BufferFull { limit: 3, needed: 9 }),
            "unparsed input of 9 bytes is over the limit of 3"
        );
    }
}

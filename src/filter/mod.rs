//! Filters turn bytes into records and records into bytes.
//!
//! A wheel feeds a [`Filter`] whatever chunks the peer's bytes arrive in, and sends its session one event for each record
//! that the filter finds. What the session `put`s goes through a second filter of the same type, the [output
//! half](self#two-halves). A filter does no I/O and knows nothing of the kernel, so it can be used, and tested, on its own:
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
//! Between bytes and records:
//!
//! - [`Line`] cuts text lines, [`ByteLine`] lines of any bytes.
//! - [`Block`] cuts blocks that follow their length, [`FixedBlock`] blocks of one size.
//! - [`Stream`] passes chunks through.
//! - `Frame` carries any type that serde knows; it needs the feature `serde`.
//! - `http::Httpd` takes requests and gives responses; it needs the feature `http`.
//!
//! Between records and records, in a [`Stackable`] on top of one of these: [`Grep`] drops records, [`Map`] changes them,
//! [`RecordBlock`] groups them, [`Chunks`] is another of the filters above.
//!
//! Everything else is a custom filter: see the examples at [`Filter`] and [`RecordFilter`].
//!
//! A filter that is chosen while the program runs is an [`Either`], or a `Box<dyn Filter<Input = .., Output = ..>>`.
//!
//! # Two halves
//!
//! A wheel that is given one filter works with two values of its type. The filter that it is given is the **input half**: only its
//! input is used. The **output half** is what [`Filter::output_half`] returns, and only [`put`](Filter::put) of it is called. So
//! the question for a filter with state is who needs that state.
//!
//! - **Each direction has state of its own**, as in compression, where each direction has its own dictionary. Nothing is to be
//!   done: each half keeps the state of its own direction.
//! - **The input decides how the output is written**, as with a key that the peer sends. Both halves share the state: the filter
//!   has its own `output_half`, with an `Rc`.
//! - **The input itself causes output**, as in the handshake of TLS. That is not a filter's work, as a filter writes only in
//!   `put`. It is a [`Transport`](crate::wheel::Transport), below the filter.
//!
//! The first kind, each byte as the difference from the one before:
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
//! The second kind, where the first byte that comes is the key for both directions:
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
//! A wheel may be given the halves one by one, also of different types:
//! [`ReadWriteBuilder::output_filter`](crate::wheel::ReadWriteBuilder::output_filter).
//!
//! # Bad input
//!
//! Every filter that waits for more input limits what it holds. An error names what was wrong, stands for the record that is
//! lost, and is reported once; the filter then goes on with the next record. After [`FilterError::OutOfStep`] it can only
//! guess where that begins, and the session had better end the connection.

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
/// Input goes in with [`get_one_start`](Self::get_one_start) and comes out with [`get_one`](Self::get_one), a record at a
/// time: a session that acts on a record may replace the wheel's filter, and then what is left of the chunk
/// ([`hand_over`](Self::hand_over)) is the new filter's. Output needs no such care: [`put`](Self::put) is all of it.
///
/// The records should not depend on how the input was cut into chunks: the network cuts anywhere.
///
/// # Examples
///
/// A filter of one's own, for records that follow their length in one byte:
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
/// POE: `POE::Filter`. Chunks and records are passed one at a time where POE passes lists of them.
pub trait Filter: boxed::Boxable + 'static {
    /// A record as the session gets it: what a wheel's input event delivers.
    type Input: 'static;

    /// A record as the session sends it: what [`put`](Self::put) takes.
    type Output: ?Sized;

    /// Appends `chunk` to the unparsed input, without looking for records in it.
    ///
    /// An empty chunk changes nothing.
    ///
    /// # Errors
    ///
    /// [`FilterError::BufferFull`] if the filter limits its buffer and `chunk` does not fit. Then **nothing of `chunk` was
    /// taken**: call [`get_one`](Self::get_one) until it has no more, and offer the chunk again. If no complete record
    /// was there to be taken, the filter gives up the unfinished one, so that the second offer succeeds (unless the
    /// chunk alone is longer than the limit); see [`Line::max_buffer`].
    ///
    /// POE: `get_one_start`, which keeps the chunk when it raises, and so raises for ever after.
    fn get_one_start(&mut self, chunk: &[u8]) -> Result<(), FilterError>;

    /// Takes the next record out of the input; `None` if there is no complete one.
    ///
    /// # Errors
    ///
    /// [`FilterError::RecordTooLong`], [`FilterError::NotUtf8`] and [`FilterError::Malformed`] stand for the record they
    /// are about, which is gone from the input: the next call goes on after it. [`FilterError::OutOfStep`] stands for input
    /// in which no record was found.
    ///
    /// POE: `get_one`, which returns a list of one record or none.
    fn get_one(&mut self) -> Result<Option<Self::Input>, FilterError>;

    /// Appends the bytes that represent `record` to `out`.
    ///
    /// # Errors
    ///
    /// What the filter says of a record that it cannot represent; `out` is then unchanged. A wheel sees to that, and to the
    /// same after a panic. [`Line`], [`ByteLine`],
    /// [`Stream`], [`FixedBlock`], and [`Block`] with its usual header accept every record.
    ///
    /// POE: `put`, which returns a list of chunks.
    fn put(&mut self, record: &Self::Output, out: &mut Vec<u8>) -> Result<(), FilterError>;

    /// The input that has not been parsed yet, empty if there is none; it stays in the filter.
    ///
    /// After an end of file this is the unfinished last record. When a filter replaces another, the new one is fed first
    /// what [`hand_over`](Self::hand_over) returns, which is this if this is all.
    ///
    /// POE: `get_pending`.
    fn get_pending(&self) -> &[u8];

    /// Tells whether the next byte of input begins a record.
    ///
    /// A component asks this before it closes an idle connection. Default: [`get_pending`](Self::get_pending) is empty. A filter that
    /// takes parts of a record out of its input before the record is whole says `false` here until the record is.
    ///
    /// POE: nothing like it.
    fn is_between_records(&self) -> bool {
        self.get_pending().is_empty()
    }

    /// Returns how many bytes of input the filter will take at present; a wheel offers it no more at a time.
    ///
    /// A filter that limits its buffer should say so here. Otherwise it is offered chunks that it must refuse, and may have
    /// to give up a record that would have fitted.
    ///
    /// POE: nothing like it; there a filter is offered all that was read.
    fn room(&self) -> usize {
        usize::MAX
    }

    /// Takes what is left in the input as the last record, unfinished as it is: for a wheel that is to deliver it at the end
    /// of file.
    ///
    /// Called when [`get_one`](Self::get_one) has no more. Returns `None`, and leaves the input as it is, if there is nothing
    /// or the format has no use for a part of a record, which is what a filter does that says nothing else.
    ///
    /// # Errors
    ///
    /// As [`get_one`](Self::get_one).
    ///
    /// POE: nothing like it; the unfinished record can be had from `get_pending`.
    fn get_last(&mut self) -> Result<Option<Self::Input>, FilterError> {
        Ok(None)
    }

    /// Returns the pending input for a filter that takes over.
    ///
    /// Input that follows may begin with bytes that are still this filter's: see [`finish_record`](Self::finish_record).
    ///
    /// # Errors
    ///
    /// [`FilterError::CannotSwitch`] if the filter has taken in more than it has given out records of, and can't say it as
    /// bytes: then part of the input would be lost. Of the filters of this crate a [`Stackable`] may have to, and
    /// `http::Httpd` in the middle of a request.
    ///
    /// POE: `get_pending`, which passes over the loss.
    fn hand_over(&self) -> Result<&[u8], FilterError> {
        Ok(self.get_pending())
    }

    /// Tells a filter that takes over how many bytes at the beginning of `chunk` are not input for it.
    ///
    /// `chunk` is what follows the bytes that [`hand_over`](Self::hand_over) has returned. Its first bytes may belong to a
    /// record that this filter has delivered or given up already: the LF of a CR LF whose CR has ended a line, or the rest of
    /// a block that was too long. `Some` is their number, mostly 0, and this filter need not be asked again. `None` says that
    /// all of `chunk` belongs to that record, and that the next chunk has to be asked about as well.
    ///
    /// The wheels ask. A program that feeds filters by itself asks after it has fed the new filter what `hand_over` returned:
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
    /// A filter needs this method if its records end in a place that it does not know yet when it delivers them, or if it
    /// drops input that has not come yet. Without it the answer is `Some(0)`.
    ///
    /// POE: nothing like it. There the new filter gets those bytes.
    fn finish_record(&mut self, _chunk: &[u8]) -> Option<usize> {
        Some(0)
    }

    /// Makes a filter with the same settings and no input: one for each connection, from one that serves as the pattern.
    ///
    /// POE: `clone`. Rust's `Clone` would promise a copy of the input too.
    #[doc(alias = "clone")]
    fn clone_config(&self) -> Self
    where
        Self: Sized;

    /// Makes the filter for the output beside this one for the input: what a wheel does that is given a single filter.
    ///
    /// Without this method it is [`clone_config`](Self::clone_config), and the two have no state in common. A filter whose input
    /// decides how the output is written returns one that shares this state: see [the halves of a filter](self#two-halves).
    ///
    /// POE: nothing like it; there one filter works both ways.
    fn output_half(&self) -> Self
    where
        Self: Sized,
    {
        self.clone_config()
    }

    /// Appends `chunk` and takes every complete record; an empty chunk takes those still there.
    ///
    /// # Errors
    ///
    /// The first error of [`get_one_start`](Self::get_one_start) or [`get_one`](Self::get_one). The records this call took
    /// before it are lost, those after it are still in the filter. Where that matters, call these two instead.
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
/// Each is reported once, and leaves the filter fit for use: the variants say what was lost.
///
/// POE: filters raise exceptions with these complaints as text.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterError {
    /// A record was longer than the filter's limit; it was removed whole.
    RecordTooLong {
        /// The longest record allowed, in bytes.
        limit: usize,
        /// The length of the record, in bytes.
        length: usize,
    },
    /// A chunk did not fit into the input buffer; nothing of the chunk was taken.
    BufferFull {
        /// The most input the filter will hold, in bytes.
        limit: usize,
        /// What it would have held with the chunk, in bytes.
        needed: usize,
    },
    /// A record of a text filter was not UTF-8; it was removed from the input.
    NotUtf8 {
        /// The offset in the record of the first byte that is not UTF-8.
        octet: usize,
        /// The record, for a caller that can make sense of it.
        record: Vec<u8>,
    },
    /// A record broke the rules of the filter's format; it was removed from the input, or not put.
    Malformed {
        /// What is wrong with it, in lower case and without a full stop.
        reason: Cow<'static, str>,
    },
    /// Input has no record where one should begin. The filter goes on, but where the next record begins is a guess.
    OutOfStep {
        /// What is wrong with it, in lower case and without a full stop.
        reason: Cow<'static, str>,
    },
    /// Input is inside the filter in a form that no other filter can be given; nothing was changed.
    CannotSwitch {
        /// How many records, or bytes, were taken out of the input and have not come out.
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
    /// Makes a [`Malformed`](Self::Malformed) error. `reason` is a text or a `String`, in lower case and without a full stop.
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

    /// Makes an [`OutOfStep`](Self::OutOfStep) error. `reason` is a text or a `String`, in lower case and without a full stop.
    pub fn out_of_step(reason: impl Into<Cow<'static, str>>) -> FilterError {
        Self::OutOfStep { reason: reason.into() }
    }

    /// Makes an [`InvalidSetting`](Self::InvalidSetting) error. `setting` is the name of the method that was given the value.
    pub fn invalid_setting(setting: &'static str, reason: impl Into<Cow<'static, str>>) -> FilterError {
        Self::InvalidSetting { setting, reason: reason.into() }
    }

    /// Tells whether the input was lost from sight, so that records after it may be none: for
    /// [`OutOfStep`](Self::OutOfStep) and [`CannotSwitch`](Self::CannotSwitch). After any other error the records that follow
    /// are sound. A wheel sends an error event for the former, and a refused event for the latter.
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

/// Calls `encode`, which appends a record to `out`, and takes what it has appended back if it fails or panics: half a record
/// would be read as the beginning of the next one.
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

/// What is cut back to `length` when it is dropped.
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

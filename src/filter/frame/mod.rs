//! Values of any type, in frames.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Block, Decimal, Filter, FilterError, LengthCodec, put_whole};

/// Carries values of any type. `put` takes an `O`, and the peer's filter returns it as its `I`.
///
/// Each value is a [`Block`] on the wire: its length in decimal, a NUL byte, and the payload. The payload is JSON
/// unless you set another [`FrameCodec`]. This filter needs the feature `serde`.
///
/// The filter reports each error once, and goes on after it. A payload that is not an `I` is
/// [`FilterError::Malformed`]. Input that is not a frame is [`FilterError::OutOfStep`]. A frame over the limit is
/// [`FilterError::RecordTooLong`]. The limits count bytes on the wire. A value may take several times as much memory as
/// its payload.
/// payload.
///
/// ```
/// use lenore::filter::{Filter, Frame};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// struct Job { id: u32, words: Vec<String> }
///
/// let mut frame = Frame::<Job>::new().max_length(10_000)?;
/// let mut wire = Vec::new();
/// frame.put(&Job { id: 7, words: vec!["a".into()] }, &mut wire)?;
/// assert_eq!(wire, b"22\0{\"id\":7,\"words\":[\"a\"]}");
///
/// assert_eq!(frame.get(&wire)?, [Job { id: 7, words: vec!["a".into()] }]);
/// # Ok::<(), lenore::filter::FilterError>(())
/// ```
///
/// POE: `POE::Filter::Reference`. The frames are the same. The payload there is Perl's `Storable` by default, which
/// this filter can't read, so give POE a serializer that makes JSON. This filter always works as with `NoFatals`, and
/// returns errors instead of texts. It does not compress, because compression makes limits hard to keep. A codec may
/// compress.
#[doc(alias = "Reference")]
pub struct Frame<I, O: ?Sized = I, C = Json> {
    block: Block,
    codec: C,
    types: PhantomData<fn(&O) -> I>,
}

/// Turns values into the payload of a [`Frame`] and back.
///
/// ```
/// use lenore::filter::{Filter, FilterError, Frame, FrameCodec};
///
/// #[derive(Clone)]
/// struct BigEndian;
///
/// impl FrameCodec<u32, u32> for BigEndian {
///     fn freeze(&self, value: &u32, out: &mut Vec<u8>) -> Result<(), FilterError> {
///         out.extend(value.to_be_bytes());
///         Ok(())
///     }
///     fn thaw(&self, payload: &[u8]) -> Result<u32, FilterError> {
///         let four = payload.try_into();
///         let reason = || format!("{} bytes where 4 make a number", payload.len());
///         four.map(u32::from_be_bytes).map_err(|_| FilterError::malformed(reason()))
///     }
/// }
///
/// let mut numbers = Frame::<u32, u32, _>::with_codec(BigEndian);
/// assert_eq!(numbers.get(b"4\0\0\0\x01\0")?, [256]);
/// # Ok::<(), FilterError>(())
/// ```
///
/// POE: the `Serializer` parameter, an object with `freeze` and `thaw`.
#[doc(alias = "Serializer")]
pub trait FrameCodec<I, O: ?Sized>: Clone + 'static {
    /// Appends `value` to `out`.
    ///
    /// # Errors
    ///
    /// [`FilterError::Malformed`] if the codec can't write `value`.
    fn freeze(&self, value: &O, out: &mut Vec<u8>) -> Result<(), FilterError>;

    /// Makes a value of all of `payload`. The payload may come from an attacker.
    ///
    /// # Errors
    ///
    /// [`FilterError::Malformed`] if `payload` is not such a value.
    fn thaw(&self, payload: &[u8]) -> Result<I, FilterError>;
}

/// The codec that writes JSON, for all types that serde can handle.
///
/// It reads nested values to a depth of 128, so that a hostile payload can't exhaust the stack.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

impl<I, O: ?Sized> Frame<I, O> {
    /// Makes a filter with JSON payloads.
    ///
    /// POE: `new` without parameters.
    pub fn new() -> Self {
        Self::with_codec(Json)
    }
}

impl<I, O: ?Sized, C> Frame<I, O, C> {
    /// Makes a filter with payloads of `codec`.
    ///
    /// POE: the `Serializer` parameter.
    pub fn with_codec(codec: C) -> Self {
        Self { block: Block::new(), codec, types: PhantomData }
    }

    /// Limits payloads in both directions to `bytes`. To lower both limits, set this one first. Default: 64 MiB.
    ///
    /// # Errors
    ///
    /// [`FilterError::InvalidSetting`] as for [`Block::max_length`].
    ///
    /// POE: nothing like it.
    pub fn max_length(mut self, bytes: usize) -> Result<Self, FilterError> {
        self.block = self.block.max_length(bytes)?;
        Ok(self)
    }

    /// Limits the unparsed input to `bytes`. [`Block::max_buffer`] says what happens above the limit. Default: 512 MiB.
    ///
    /// # Errors
    ///
    /// [`FilterError::InvalidSetting`] as for [`Block::max_buffer`].
    ///
    /// POE: the `MaxBuffer` parameter.
    #[doc(alias = "MaxBuffer")]
    pub fn max_buffer(mut self, bytes: usize) -> Result<Self, FilterError> {
        self.block = self.block.max_buffer(bytes)?;
        Ok(self)
    }
}

impl<I: 'static, O: ?Sized + 'static, C: FrameCodec<I, O>> Filter for Frame<I, O, C> {
    type Input = I;
    type Output = O;

    fn get_one_start(&mut self, chunk: &[u8]) -> Result<(), FilterError> {
        self.block.get_one_start(chunk)
    }

    fn get_one(&mut self) -> Result<Option<I>, FilterError> {
        self.block.take_block()?.map(|payload| self.codec.thaw(payload)).transpose()
    }

    /// # Errors
    ///
    /// [`FilterError::RecordTooLong`] if the payload is over the limit, because a peer with the same limit would refuse
    /// it, and any error of the codec.
    fn put(&mut self, record: &O, out: &mut Vec<u8>) -> Result<(), FilterError> {
        let begin = out.len();
        put_whole(out, |out| {
            self.codec.freeze(record, out)?;
            let length = out.len() - begin;
            self.block.limits().check_length(length)?;
            // Appends the header when the payload's length is known, and then moves it to the front.
            Decimal.encode(length, out)?;
            let header = out.len() - begin - length;
            out[begin..].rotate_right(header);
            Ok(())
        })
    }

    fn room(&self) -> usize {
        self.block.room()
    }

    fn get_pending(&self) -> &[u8] {
        self.block.get_pending()
    }

    fn is_between_records(&self) -> bool {
        self.block.is_between_records()
    }

    fn finish_record(&mut self, chunk: &[u8]) -> Option<usize> {
        self.block.finish_record(chunk)
    }

    fn clone_config(&self) -> Self {
        Self { block: self.block.clone_config(), codec: self.codec.clone(), types: PhantomData }
    }
}

impl<I: DeserializeOwned, O: Serialize + ?Sized> FrameCodec<I, O> for Json {
    fn freeze(&self, value: &O, out: &mut Vec<u8>) -> Result<(), FilterError> {
        serde_json::to_writer(out, value).map_err(|error| FilterError::malformed(error.to_string()))
    }

    fn thaw(&self, payload: &[u8]) -> Result<I, FilterError> {
        let told = |error| format!("payload of {} bytes: {error}", payload.len());
        serde_json::from_slice(payload).map_err(|error| FilterError::malformed(told(error)))
    }
}

impl<I, O: ?Sized> Default for Frame<I, O> {
    fn default() -> Self {
        Self::new()
    }
}

impl<I, O: ?Sized, C: fmt::Debug> fmt::Debug for Frame<I, O, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame").field("block", &self.block).field("codec", &self.codec).finish()
    }
}

#[cfg(test)]
mod tests;

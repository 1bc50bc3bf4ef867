//! Filters that turn records into records.

use super::{Filter, FilterError};

/// Turns the records of a filter into other records, as a part of a [`Stackable`](super::Stackable).
///
/// The methods are those of [`Filter`], with records of the filter below instead of bytes.
///
/// # Examples
///
/// A filter that numbers incoming records and leaves outgoing ones alone:
///
/// ```
/// use std::collections::VecDeque;
/// use lenore::filter::{Filter, FilterError, Line, RecordFilter, Stackable};
///
/// #[derive(Default)]
/// struct Numbered { input: VecDeque<String>, count: u32 }
///
/// impl RecordFilter for Numbered {
///     type RawInput = String;
///     type RawOutput = str;
///     type Input = (u32, String);
///     type Output = str;
///
///     fn get_one_start(&mut self, record: String) -> Result<(), FilterError> {
///         self.input.push_back(record);
///         Ok(())
///     }
///     fn get_one(&mut self) -> Result<Option<(u32, String)>, FilterError> {
///         let Some(line) = self.input.pop_front() else { return Ok(None) };
///         self.count += 1;
///         Ok(Some((self.count, line)))
///     }
///     fn put(
///         &mut self,
///         record: &str,
///         send: &mut dyn FnMut(&str) -> Result<(), FilterError>,
///     ) -> Result<(), FilterError> {
///         send(record)
///     }
///     fn held(&self) -> usize { self.input.len() }
///     fn clone_config(&self) -> Self { Self::default() }
/// }
///
/// let mut numbered = Stackable::new(Line::new(), Numbered::default());
/// assert_eq!(numbered.get(b"a\nb\n")?, [(1, "a".to_owned()), (2, "b".to_owned())]);
/// # Ok::<(), FilterError>(())
/// ```
///
/// POE: `POE::Filter`. There a filter is not told whether it gets bytes or records.
pub trait RecordFilter: 'static {
    /// A record that the filter below returns, its [`Filter::Input`].
    type RawInput: 'static;

    /// A record that the filter below takes, its [`Filter::Output`].
    type RawOutput: ?Sized;

    /// A record that this filter returns.
    type Input: 'static;

    /// A record that this filter takes.
    type Output: ?Sized;

    /// Appends a record of the filter below to the input. There is no limit on how many, because a
    /// [`Stackable`](super::Stackable) passes the next only when [`get_one`](Self::get_one) has no more.
    ///
    /// # Errors
    ///
    /// The filter's own error if it can't take the record. The record is lost, and the filter goes on after it.
    fn get_one_start(&mut self, record: Self::RawInput) -> Result<(), FilterError>;

    /// Takes the next record. Returns `None` if it needs more input for one.
    ///
    /// # Errors
    ///
    /// An error stands for the record in question. That record is lost, and the next call goes on after it.
    fn get_one(&mut self) -> Result<Option<Self::Input>, FilterError>;

    /// Calls `send` with each record that `record` becomes for the filter below. It may call `send` any number of
    /// times, or never.
    ///
    /// # Errors
    ///
    /// The filter's own error if it can't encode `record`, and any error of `send`.
    fn put(
        &mut self,
        record: &Self::Output,
        send: &mut dyn FnMut(&Self::RawOutput) -> Result<(), FilterError>,
    ) -> Result<(), FilterError>;

    /// Returns how much input the filter has taken and not given out, in records or in bytes. 0 means none.
    ///
    /// As long as it holds any, no other filter can take over: see [`Filter::hand_over`].
    fn held(&self) -> usize;

    /// Tells whether the next record of input begins one of this filter's; see [`Filter::is_between_records`].
    ///
    /// Without this method it is whether [`held`](Self::held) is 0.
    ///
    /// POE: nothing like it.
    fn is_between_records(&self) -> bool {
        self.held() == 0
    }

    /// Makes a filter with the same settings and no input.
    ///
    /// POE: `clone`.
    #[doc(alias = "clone")]
    fn clone_config(&self) -> Self
    where
        Self: Sized;

    /// Makes the output's filter, where this one is for the input. See [`Filter::output_half`].
    ///
    /// Default: [`clone_config`](Self::clone_config).
    ///
    /// POE: nothing like it.
    fn output_half(&self) -> Self
    where
        Self: Sized,
    {
        self.clone_config()
    }

    /// Appends `records`, and takes every record that is then complete.
    ///
    /// # Errors
    ///
    /// The first error. The records that this call took before the error are lost. Those after it are still in the
    /// filter, if they were appended.
    ///
    /// POE: `get`.
    fn get(&mut self, records: impl IntoIterator<Item = Self::RawInput>) -> Result<Vec<Self::Input>, FilterError>
    where
        Self: Sized,
    {
        records.into_iter().try_for_each(|record| self.get_one_start(record))?;
        let mut taken = Vec::new();
        while let Some(record) = self.get_one()? {
            taken.push(record);
        }
        Ok(taken)
    }
}

/// A [`Filter`] that gets its bytes from the records of the filter below, in a [`Stackable`](super::Stackable).
///
/// It does not matter where one record of the filter below ends. Each outgoing record is one record for the filter
/// below.
///
/// ```
/// use lenore::filter::{Block, Chunks, Filter, Line, Stackable};
///
/// let mut lines_in_blocks = Stackable::new(Block::new(), Chunks(Line::new()));
/// assert_eq!(lines_in_blocks.get(b"3\0a\nb3\0c\nd")?, ["a", "bc"]);
///
/// let mut out = Vec::new();
/// lines_in_blocks.put("e", &mut out)?;
/// assert_eq!(out, b"3\0e\r\n");
/// # Ok::<(), lenore::filter::FilterError>(())
/// ```
///
/// POE: nothing like it. There a filter takes whatever the filter below returns.
#[derive(Debug, Default)]
pub struct Chunks<F>(pub F);

impl<F: Filter> RecordFilter for Chunks<F> {
    type RawInput = Vec<u8>;
    type RawOutput = [u8];
    type Input = F::Input;
    type Output = F::Output;

    /// # Errors
    ///
    /// [`FilterError::BufferFull`] if the filter has given up a record to make room, or if `record` alone does not fit.
    fn get_one_start(&mut self, record: Vec<u8>) -> Result<(), FilterError> {
        self.0.get_one_start(&record).inspect_err(|_| {
            // The record in progress is lost, so the error stands. The new record may still fit.
            let _ = self.0.get_one_start(&record);
        })
    }

    fn get_one(&mut self) -> Result<Option<F::Input>, FilterError> {
        self.0.get_one()
    }

    fn put(
        &mut self,
        record: &F::Output,
        send: &mut dyn FnMut(&[u8]) -> Result<(), FilterError>,
    ) -> Result<(), FilterError> {
        let mut chunk = Vec::new();
        self.0.put(record, &mut chunk)?;
        if chunk.is_empty() { Ok(()) } else { send(&chunk) }
    }

    fn held(&self) -> usize {
        match self.0.hand_over() {
            Ok(pending) => pending.len(),
            Err(FilterError::CannotSwitch { held }) => held,
            Err(_) => 1,
        }
    }

    fn is_between_records(&self) -> bool {
        self.0.is_between_records()
    }

    fn clone_config(&self) -> Self {
        Self(self.0.clone_config())
    }

    fn output_half(&self) -> Self {
        Self(self.0.output_half())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::{Block, FixedBlock, Stackable, Stream};

    #[test] // K-FI-04: get takes all complete records, those of earlier input included
    fn octets_go_on_across_records() -> Result<(), FilterError> {
        let mut blocks = Chunks(FixedBlock::new(2)?);
        blocks.get_one_start(b"a".to_vec())?;
        assert_eq!(blocks.get([b"bc".to_vec(), vec![], b"de".to_vec()])?, [b"ab", b"cd"]);
        assert_eq!(blocks.held(), 1);
        assert_eq!(blocks.clone_config().held(), 0);
        Ok(())
    }

    #[test] // K-RE-28: what was in progress is given up, the record that would not fit is not
    fn a_full_filter_takes_the_record_that_it_refused() -> Result<(), FilterError> {
        let mut blocks = Chunks(FixedBlock::new(4)?.max_buffer(5)?);
        blocks.get_one_start(b"abc".to_vec())?;
        let full = FilterError::BufferFull { limit: 5, needed: 8 };
        assert_eq!(blocks.get_one_start(b"dEFGH".to_vec()), Err(full));
        assert_eq!(blocks.get_one()?, Some(b"EFGH".to_vec()));
        assert_eq!(blocks.held(), 0);
        Ok(())
    }

    #[test] // K-FK-02: what comes to nothing is not sent on
    fn an_empty_chunk_is_not_sent() -> Result<(), FilterError> {
        let mut out = Vec::new();
        Stackable::new(Block::new(), Chunks(Stream::new())).put(b"", &mut out)?;
        assert_eq!(out, b"");
        Ok(())
    }

    #[test] // of a block that was given up, more is to come, though nothing of it is held
    fn block_that_was_given_up_is_no_gap_between_records() -> Result<(), FilterError> {
        let mut stack = Stackable::new(Stream::new(), Chunks(Block::new().max_length(4)?));
        stack.get_one_start(b"9\0abcd")?;
        assert!(stack.get_one().is_err());
        assert!(!stack.is_between_records());
        assert_eq!(stack.get(b"efghi")?, [b""; 0]);
        assert!(stack.is_between_records());
        Ok(())
    }

    #[test] // K-RE-31: a stack inside is asked, too
    fn what_a_stack_inside_holds_counts() -> Result<(), FilterError> {
        let inner = Stackable::new(Stream::new(), Chunks(FixedBlock::new(3)?));
        let mut outer = Chunks(inner);
        assert!(outer.get([b"abcde".to_vec()])? == [b"abc"]);
        assert_eq!(outer.held(), 2);
        Ok(())
    }
}

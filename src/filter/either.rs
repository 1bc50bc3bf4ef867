//! One of two filters.

use super::{Filter, FilterError};

/// One of two filters with the same records, chosen while the program runs.
///
/// For more than two, or for an open choice, use `Box<dyn Filter<Input = .., Output = ..>>`. `Either` allocates
/// nothing.
///
/// A connection can change from one filter to the other with `set_filter`:
///
/// ```
/// use lenore::filter::{Block, ByteLine, Either, Filter};
///
/// type Bytes = Either<ByteLine, Block>;
///
/// let mut filter = Bytes::Left(ByteLine::new());
/// assert_eq!(filter.get(b"blocks\n3\0abc")?, [b"blocks"]);
/// let mut next = Bytes::Right(Block::new());
/// assert_eq!(next.get(filter.hand_over()?)?, [b"abc"]);
/// # Ok::<(), lenore::filter::FilterError>(())
/// ```
///
/// POE: nothing like it. There a filter's class is not a type.
#[derive(Debug)]
pub enum Either<L, R> {
    /// The first filter.
    Left(L),
    /// The second filter.
    Right(R),
}

// `each!(self, filter => ...)` makes the same call on either filter.
macro_rules! each {
    ($either:expr, $filter:ident => $call:expr) => {
        match $either {
            Either::Left($filter) => $call,
            Either::Right($filter) => $call,
        }
    };
}

impl<L, R> Filter for Either<L, R>
where
    L: Filter,
    R: Filter<Input = L::Input, Output = L::Output>,
{
    type Input = L::Input;
    type Output = L::Output;

    fn get_one_start(&mut self, chunk: &[u8]) -> Result<(), FilterError> {
        each!(self, filter => filter.get_one_start(chunk))
    }

    fn get_one(&mut self) -> Result<Option<L::Input>, FilterError> {
        each!(self, filter => filter.get_one())
    }

    fn put(&mut self, record: &L::Output, out: &mut Vec<u8>) -> Result<(), FilterError> {
        each!(self, filter => filter.put(record, out))
    }

    fn get_pending(&self) -> &[u8] {
        each!(self, filter => filter.get_pending())
    }

    fn is_between_records(&self) -> bool {
        each!(self, filter => filter.is_between_records())
    }

    fn room(&self) -> usize {
        each!(self, filter => filter.room())
    }

    fn get_last(&mut self) -> Result<Option<L::Input>, FilterError> {
        each!(self, filter => filter.get_last())
    }

    fn hand_over(&self) -> Result<&[u8], FilterError> {
        each!(self, filter => filter.hand_over())
    }

    fn finish_record(&mut self, chunk: &[u8]) -> Option<usize> {
        each!(self, filter => filter.finish_record(chunk))
    }

    fn clone_config(&self) -> Self {
        match self {
            Either::Left(filter) => Either::Left(filter.clone_config()),
            Either::Right(filter) => Either::Right(filter.clone_config()),
        }
    }

    fn output_half(&self) -> Self {
        match self {
            Either::Left(filter) => Either::Left(filter.output_half()),
            Either::Right(filter) => Either::Right(filter.output_half()),
        }
    }

    fn get(&mut self, chunk: &[u8]) -> Result<Vec<L::Input>, FilterError> {
        each!(self, filter => filter.get(chunk))
    }
}

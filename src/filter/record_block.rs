//! The filter that groups records.

use std::borrow::Borrow;
use std::mem;

use super::{FilterError, RecordFilter, invalid};

/// Groups a given number of records into one record, a list. `put` sends the records of a list one by one.
///
/// `R` is an incoming record, `S` an outgoing one. An outgoing list has the `ToOwned` of `S`, so above a
/// [`Line`](super::Line) it is a `[String]`.
///
/// ```
/// use lenore::filter::{Filter, Line, RecordBlock, Stackable};
///
/// let mut pairs = Stackable::new(Line::new(), RecordBlock::new(2)?);
/// assert_eq!(pairs.get(b"name\nColin\nage\n")?, [["name", "Colin"]]);
///
/// let mut out = Vec::new();
/// pairs.put(&["age".to_owned(), "?".to_owned()], &mut out)?;
/// assert_eq!(out, b"age\r\n?\r\n");
/// # Ok::<(), lenore::filter::FilterError>(())
/// ```
///
/// POE: `POE::Filter::RecordBlock`.
#[derive(Debug)]
pub struct RecordBlock<R, S: ?Sized + ToOwned = R> {
    size: usize,
    records: Vec<R>,
    checks_put: bool,
    /// Outgoing records that do not fill a block yet.
    put_records: Vec<S::Owned>,
}

impl<R, S: ?Sized + ToOwned> RecordBlock<R, S> {
    /// Makes a filter for lists of `size` records.
    ///
    /// # Errors
    ///
    /// [`FilterError::InvalidSetting`] if `size` is zero.
    ///
    /// POE: the `BlockSize` parameter.
    #[doc(alias = "BlockSize")]
    pub fn new(size: usize) -> Result<Self, FilterError> {
        let mut filter = Self { size: 1, records: Vec::new(), checks_put: false, put_records: Vec::new() };
        filter.set_block_size(size)?;
        Ok(filter)
    }

    /// Sends records only in multiples of the block size. The rest waits for the next list.
    ///
    /// POE: the `CheckPut` parameter.
    #[doc(alias = "CheckPut")]
    #[must_use]
    pub fn check_put(mut self) -> Self {
        self.start_check_put();
        self
    }

    /// Returns how many records make a list.
    ///
    /// POE: `blocksize`.
    #[doc(alias = "blocksize")]
    pub fn block_size(&self) -> usize {
        self.size
    }

    /// Changes how many records make a list, from the next list on.
    ///
    /// # Errors
    ///
    /// [`FilterError::InvalidSetting`] if `size` is zero. Nothing changes.
    ///
    /// POE: `blocksize`, which ignores such a size.
    #[doc(alias = "blocksize")]
    pub fn set_block_size(&mut self, size: usize) -> Result<(), FilterError> {
        if size == 0 {
            return Err(invalid("block_size", "must not be zero"));
        }
        self.size = size;
        Ok(())
    }

    /// Tells whether records are sent only in multiples of the block size.
    ///
    /// POE: `checkput`.
    #[doc(alias = "checkput")]
    pub fn checks_put(&self) -> bool {
        self.checks_put
    }

    /// Sends records only in multiples of the block size from now on.
    ///
    /// POE: `checkput` with a true value.
    #[doc(alias = "checkput")]
    pub fn start_check_put(&mut self) {
        self.checks_put = true;
    }

    /// Sends records as they come from now on. Those that wait go first, with the next list.
    ///
    /// POE: `checkput` with a false value.
    #[doc(alias = "checkput")]
    pub fn stop_check_put(&mut self) {
        self.checks_put = false;
    }

    /// Returns the incoming records that do not fill a list yet.
    ///
    /// POE: `get_pending`.
    pub fn get_pending(&self) -> &[R] {
        &self.records
    }

    /// Returns the outgoing records that wait to be sent.
    ///
    /// POE: `put_pending`.
    pub fn put_pending(&self) -> &[S::Owned] {
        &self.put_records
    }
}

impl<R: 'static, S: ?Sized + ToOwned + 'static> RecordFilter for RecordBlock<R, S> {
    type RawInput = R;
    type RawOutput = S;
    type Input = Vec<R>;
    type Output = [S::Owned];

    fn get_one_start(&mut self, record: R) -> Result<(), FilterError> {
        self.records.push(record);
        Ok(())
    }

    fn get_one(&mut self) -> Result<Option<Vec<R>>, FilterError> {
        if self.records.len() < self.size {
            return Ok(None);
        }
        let rest = self.records.split_off(self.size);
        Ok(Some(mem::replace(&mut self.records, rest)))
    }

    /// # Errors
    ///
    /// Any error of `send`. Nothing of `record` then waits to be sent later.
    fn put(
        &mut self,
        record: &[S::Owned],
        send: &mut dyn FnMut(&S) -> Result<(), FilterError>,
    ) -> Result<(), FilterError> {
        let held = self.put_records.len();
        if !self.checks_put && held == 0 {
            return record.iter().try_for_each(|record| send(record.borrow()));
        }
        let total = held + record.len();
        let now = if self.checks_put { total - total % self.size } else { total };
        // Everything is sent before anything changes, because `send` may fail or panic.
        let mut records = self.put_records.iter().chain(record).take(now);
        records.try_for_each(|record| send(record.borrow()))?;
        self.put_records.extend(record.iter().map(|record| record.borrow().to_owned()));
        self.put_records.drain(..now);
        Ok(())
    }

    fn held(&self) -> usize {
        self.records.len()
    }

    fn clone_config(&self) -> Self {
        Self { size: self.size, records: Vec::new(), checks_put: self.checks_put, put_records: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [u8; 0] = [];

    /// What the lists come to on their way out, a list at a time.
    fn sent<const N: usize>(filter: &mut RecordBlock<u8>, lists: [&[u8]; N]) -> [Vec<u8>; N] {
        lists.map(|list| {
            let mut sent = Vec::new();
            let mut send = |record: &u8| {
                sent.push(*record);
                Ok(())
            };
            filter.put(list, &mut send).expect("nothing is refused");
            sent
        })
    }

    #[test] // K-FR-01: records are grouped, the rest is pending
    fn records_are_grouped() -> Result<(), FilterError> {
        let mut filter: RecordBlock<u8> = RecordBlock::new(2)?;
        assert_eq!(filter.get([1, 2, 3])?, [[1, 2]]);
        assert_eq!((filter.get_pending(), filter.held()), (&[3][..], 1));
        assert_eq!(filter.get([4, 5])?, [[3, 4]]);
        assert_eq!(filter.clone_config().get([6, 7])?, [[6, 7]], "K-FI-07: without the 5");
        let refused = RecordBlock::<u8>::new(0).expect_err("no size").to_string();
        assert_eq!(refused, "invalid block_size: must not be zero");
        Ok(())
    }

    #[test] // K-FR-02: put flattens lists, whatever their length
    fn put_flattens_lists() -> Result<(), FilterError> {
        let mut filter = RecordBlock::new(2)?;
        assert!(!filter.checks_put());
        assert_eq!(sent(&mut filter, [&[1], &[], &[2, 3, 4]]), [vec![1], vec![], vec![2, 3, 4]]);
        assert!(filter.put_pending().is_empty());
        Ok(())
    }

    #[test] // K-FR-03: with CheckPut only multiples are passed, and put_pending is the rest
    fn check_put_passes_multiples() -> Result<(), FilterError> {
        let mut filter = RecordBlock::new(2)?.check_put();
        assert_eq!(sent(&mut filter, [&[1], &[2, 3], &[4, 5, 6, 7, 8]]), [vec![], vec![1, 2], vec![3, 4, 5, 6, 7, 8]]);
        assert_eq!(sent(&mut filter, [&[9]]), [NONE]);
        assert_eq!(filter.put_pending(), [9]);
        assert!(filter.clone_config().checks_put());
        assert!(filter.clone_config().put_pending().is_empty());
        Ok(())
    }

    #[test] // K-FR-04: sizes and CheckPut can be changed; what was held goes out with the next put
    fn settings_can_be_changed() -> Result<(), FilterError> {
        let mut filter = RecordBlock::new(3)?.check_put();
        assert_eq!(sent(&mut filter, [&[1, 2]]), [NONE]);
        assert!(filter.set_block_size(0).is_err());
        assert_eq!(filter.block_size(), 3, "a senseless size changes nothing");
        filter.set_block_size(2)?;
        assert_eq!(sent(&mut filter, [&[3]]), [[1, 2]]);
        filter.stop_check_put();
        assert_eq!(filter.put_pending(), [3]);
        assert_eq!(sent(&mut filter, [&[4, 5]]), [[3, 4, 5]]);
        filter.start_check_put();
        assert_eq!(sent(&mut filter, [&[6]]), [NONE]);
        assert_eq!(filter.get([1, 2, 3])?, [[1, 2]]);
        filter.set_block_size(1)?;
        assert_eq!(filter.get([])?, [[3]]);
        Ok(())
    }

    #[test]
    fn what_could_not_be_sent_is_not_sent_later() -> Result<(), FilterError> {
        let mut filter: RecordBlock<u8> = RecordBlock::new(2)?.check_put();
        assert_eq!(sent(&mut filter, [&[1]]), [NONE]);
        let refuse = FilterError::Malformed { reason: "no".into() };
        assert_eq!(filter.put(&[2, 3], &mut |_| Err(refuse.clone())), Err(refuse));
        assert_eq!(filter.put_pending(), [1]);
        let put = std::panic::AssertUnwindSafe(|| filter.put(&[2, 3], &mut |_| panic!("on purpose")));
        assert!(std::panic::catch_unwind(put).is_err());
        assert_eq!(filter.put_pending(), [1], "nor what was panicked on");
        Ok(())
    }
}

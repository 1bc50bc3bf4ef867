//! The filter that drops records.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use super::{FilterError, RecordFilter};

/// Passes the records for which a function returns true, and drops the others.
///
/// `R` is an incoming record, `S` an outgoing one. A function that counts or remembers uses a `Cell`.
///
/// ```
/// use lenore::filter::{Filter, Grep, Line, Stackable};
///
/// let mut commands = Stackable::new(Line::new(), Grep::code(|line: &str| !line.is_empty()));
/// assert_eq!(commands.get(b"a\n\n\nb\n")?, ["a", "b"]);
/// # Ok::<(), lenore::filter::FilterError>(())
/// ```
///
/// POE: `POE::Filter::Grep`.
pub struct Grep<R, S: ?Sized = R> {
    get: Rc<dyn Fn(&R) -> bool>,
    put: Rc<dyn Fn(&S) -> bool>,
    records: VecDeque<R>,
}

impl<R, S: ?Sized> Grep<R, S> {
    /// Makes a filter that calls `get` for incoming records and `put` for outgoing ones.
    ///
    /// POE: the `Get` and `Put` parameters.
    #[doc(alias("Get", "Put"))]
    pub fn new(get: impl Fn(&R) -> bool + 'static, put: impl Fn(&S) -> bool + 'static) -> Self {
        Self { get: Rc::new(get), put: Rc::new(put), records: VecDeque::new() }
    }

    /// Makes a filter that calls `code` for records in both directions.
    ///
    /// POE: the `Code` parameter.
    #[doc(alias = "Code")]
    pub fn code(code: impl Fn(&S) -> bool + 'static) -> Self
    where
        R: Borrow<S>,
    {
        let code = Rc::new(code);
        let get = Rc::clone(&code);
        Self { get: Rc::new(move |record: &R| get(record.borrow())), put: code, records: VecDeque::new() }
    }

    /// Replaces the function for incoming records, from the next record on.
    ///
    /// POE: `modify` with `Get`.
    #[doc(alias = "modify")]
    pub fn set_get(&mut self, get: impl Fn(&R) -> bool + 'static) {
        self.get = Rc::new(get);
    }

    /// Replaces the function for outgoing records.
    ///
    /// POE: `modify` with `Put`.
    #[doc(alias = "modify")]
    pub fn set_put(&mut self, put: impl Fn(&S) -> bool + 'static) {
        self.put = Rc::new(put);
    }

    /// Replaces both functions.
    ///
    /// POE: `modify` with `Code`.
    #[doc(alias = "modify")]
    pub fn set_code(&mut self, code: impl Fn(&S) -> bool + 'static)
    where
        R: Borrow<S>,
    {
        let Self { get, put, .. } = Self::code(code);
        (self.get, self.put) = (get, put);
    }

    /// Returns the incoming records that the function has not decided on yet.
    ///
    /// POE: `get_pending`.
    pub fn get_pending(&self) -> impl Iterator<Item = &R> {
        self.records.iter()
    }
}

impl<R: 'static, S: ?Sized + 'static> RecordFilter for Grep<R, S> {
    type RawInput = R;
    type RawOutput = S;
    type Input = R;
    type Output = S;

    fn get_one_start(&mut self, record: R) -> Result<(), FilterError> {
        self.records.push_back(record);
        Ok(())
    }

    fn get_one(&mut self) -> Result<Option<R>, FilterError> {
        while let Some(record) = self.records.pop_front() {
            if (self.get)(&record) {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    fn put(&mut self, record: &S, send: &mut dyn FnMut(&S) -> Result<(), FilterError>) -> Result<(), FilterError> {
        if (self.put)(record) { send(record) } else { Ok(()) }
    }

    fn held(&self) -> usize {
        self.records.len()
    }

    fn clone_config(&self) -> Self {
        Self { get: Rc::clone(&self.get), put: Rc::clone(&self.put), records: VecDeque::new() }
    }
}

impl<R, S: ?Sized> fmt::Debug for Grep<R, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grep").field("records", &self.records.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [u8; 0] = [];

    /// What `records` come to on their way out.
    fn sent(filter: &mut Grep<u8>, records: &[u8]) -> Vec<u8> {
        let mut sent = Vec::new();
        let mut send = |record: &u8| {
            sent.push(*record);
            Ok(())
        };
        for record in records {
            filter.put(record, &mut send).expect("nothing is refused");
        }
        sent
    }

    fn even(record: &u8) -> bool {
        record.is_multiple_of(2)
    }

    #[test] // K-FG-01: Code is for both directions, Get and Put are for one each
    fn functions_are_for_one_direction_or_both() -> Result<(), FilterError> {
        let mut both = Grep::code(even);
        assert_eq!(both.get([1, 2, 3, 4])?, [2, 4]);
        assert_eq!(sent(&mut both, &[1, 2, 3, 4]), [2, 4]);
        let mut each = Grep::new(even, |record: &u8| *record < 3);
        assert_eq!(each.get([1, 2, 3, 4])?, [2, 4]);
        assert_eq!(sent(&mut each, &[1, 2, 3, 4]), [1, 2]);
        Ok(())
    }

    #[test] // K-FG-02: get_one skips rejected records until it finds one or there are no more
    fn get_one_skips_what_is_rejected() -> Result<(), FilterError> {
        let mut filter: Grep<u8> = Grep::code(even);
        for record in [1, 3, 4, 5] {
            filter.get_one_start(record)?;
        }
        assert_eq!(filter.get_one()?, Some(4));
        assert_eq!(filter.get_one()?, None);
        Ok(())
    }

    #[test] // K-FG-05: the functions can be replaced, between two records
    fn functions_can_be_replaced() -> Result<(), FilterError> {
        let mut filter: Grep<u8> = Grep::code(even);
        filter.get_one_start(2)?;
        filter.get_one_start(4)?;
        assert_eq!(filter.get_one()?, Some(2));
        filter.set_get(|record| *record > 4);
        assert_eq!(filter.get([5])?, [5]);
        assert_eq!(sent(&mut filter, &[4, 5]), [4], "put is as it was");
        filter.set_put(|_| false);
        assert_eq!(sent(&mut filter, &[4, 5]), NONE);
        filter.set_code(|_| true);
        assert_eq!((filter.get([1])?, sent(&mut filter, &[3])), (vec![1], vec![3]));
        Ok(())
    }

    #[test] // K-FG-06: what is pending was not asked about. K-FI-07: a clone has the functions and no input
    fn pending_records_were_not_asked_about() -> Result<(), FilterError> {
        let mut filter: Grep<u8> = Grep::code(|_| panic!("asked"));
        filter.get_one_start(1)?;
        assert_eq!(filter.get_pending().collect::<Vec<_>>(), [&1]);
        assert_eq!(filter.held(), 1);
        filter.set_code(even);
        let mut clone = filter.clone_config();
        assert_eq!(clone.held(), 0);
        assert_eq!(clone.get([1, 2])?, [2]);
        Ok(())
    }
}

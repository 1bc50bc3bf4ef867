//! The filter that changes records.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use super::{FilterError, RecordFilter};

/// Replaces each record with the values that a function makes of it. These may be none, one or more.
///
/// A function returns anything that can be iterated over, such as `Some(value)`, `[one, two]` or a `Vec`. If it returns
/// no values, the record is dropped, and the records behind it come at once.
///
/// An incoming `R` becomes `I`. An outgoing `O` becomes values that the filter below borrows as `S`. A function that
/// counts or remembers uses a `Cell`.
///
/// ```
/// use lenore::filter::{Filter, FilterError, Line, Map, Stackable};
///
/// let numbers = Map::try_new(
///     |line: String| {
///         let number = line.parse::<u32>();
///         number.map(Some).map_err(|error| FilterError::malformed(format!("{line:?}: {error}")))
///     },
///     |number: &u32| Ok(Some(number.to_string())),
/// );
/// let mut numbers = Stackable::new(Line::new(), numbers);
/// numbers.get_one_start(b"17\nx\n4\n")?;
/// assert_eq!(numbers.get_one()?, Some(17));
/// assert_eq!(numbers.get_one().unwrap_err().to_string(), "malformed record: \"x\": invalid digit found in string");
/// assert_eq!(numbers.get_one()?, Some(4));
/// # Ok::<(), FilterError>(())
/// ```
///
/// POE: `POE::Filter::Map`. There a function that returns nothing stalls the records behind it.
pub struct Map<R, I, O: ?Sized, S: ?Sized> {
    get: Get<R, I>,
    put: Put<O, S>,
    /// Not mapped yet.
    records: VecDeque<R>,
    /// The values of the last record that were not taken yet.
    values: VecDeque<I>,
}

/// Appends the values of a record.
type Get<R, I> = Rc<dyn Fn(R, &mut VecDeque<I>) -> Result<(), FilterError>>;
/// Sends the values of a record.
type Put<O, S> = Rc<dyn Fn(&O, Send<'_, S>) -> Result<(), FilterError>>;
type Send<'a, S> = &'a mut dyn FnMut(&S) -> Result<(), FilterError>;

impl<R, I, O: ?Sized, S: ?Sized> Map<R, I, O, S>
where
    R: 'static,
    I: 'static,
    O: 'static,
    S: 'static,
{
    /// Makes a filter that applies `get` to incoming records and `put` to outgoing ones.
    ///
    /// POE: the `Get` and `Put` parameters.
    #[doc(alias("Get", "Put"))]
    pub fn new<G, P>(get: impl Fn(R) -> G + 'static, put: impl Fn(&O) -> P + 'static) -> Self
    where
        G: IntoIterator<Item = I>,
        P: IntoIterator<Item: Borrow<S>>,
    {
        Self::try_new(move |record| Ok(get(record)), move |record: &O| Ok(put(record)))
    }

    /// Makes a filter of functions that may refuse a record. For an incoming record, the error takes the record's
    /// place. A refused outgoing record is not sent.
    ///
    /// POE: functions that `die`.
    pub fn try_new<G, P>(
        get: impl Fn(R) -> Result<G, FilterError> + 'static,
        put: impl Fn(&O) -> Result<P, FilterError> + 'static,
    ) -> Self
    where
        G: IntoIterator<Item = I>,
        P: IntoIterator<Item: Borrow<S>>,
    {
        Self { get: into_get(get), put: into_put(put), records: VecDeque::new(), values: VecDeque::new() }
    }

    /// Replaces the function for incoming records, from the next record on.
    ///
    /// POE: `modify` with `Get`.
    #[doc(alias = "modify")]
    pub fn set_get<G: IntoIterator<Item = I>>(&mut self, get: impl Fn(R) -> Result<G, FilterError> + 'static) {
        self.get = into_get(get);
    }

    /// Replaces the function for outgoing records.
    ///
    /// POE: `modify` with `Put`.
    #[doc(alias = "modify")]
    pub fn set_put<P: IntoIterator<Item: Borrow<S>>>(&mut self, put: impl Fn(&O) -> Result<P, FilterError> + 'static) {
        self.put = into_put(put);
    }

    /// Returns the incoming records that are not mapped yet.
    ///
    /// POE: `get_pending`.
    pub fn get_pending(&self) -> impl Iterator<Item = &R> {
        self.records.iter()
    }
}

impl<R, S> Map<R, R, S, S>
where
    R: Borrow<S> + 'static,
    S: ?Sized + 'static,
{
    /// Makes a filter that applies `code` to records in both directions.
    ///
    /// ```
    /// use lenore::filter::{Filter, Line, Map, Stackable};
    ///
    /// let mut loud = Stackable::new(Line::new(), Map::code(|line: &str| [line.to_uppercase()]));
    /// assert_eq!(loud.get(b"a\n")?, ["A"]);
    /// # Ok::<(), lenore::filter::FilterError>(())
    /// ```
    ///
    /// POE: the `Code` parameter.
    #[doc(alias = "Code")]
    pub fn code<G: IntoIterator<Item = R>>(code: impl Fn(&S) -> G + 'static) -> Self {
        let code = Rc::new(code);
        let get = Rc::clone(&code);
        Self::new(move |record: R| get(record.borrow()), move |record: &S| code(record))
    }
}

impl<R: 'static, I: 'static, O: ?Sized + 'static, S: ?Sized + 'static> RecordFilter for Map<R, I, O, S> {
    type RawInput = R;
    type RawOutput = S;
    type Input = I;
    type Output = O;

    fn get_one_start(&mut self, record: R) -> Result<(), FilterError> {
        self.records.push_back(record);
        Ok(())
    }

    fn get_one(&mut self) -> Result<Option<I>, FilterError> {
        loop {
            if let Some(value) = self.values.pop_front() {
                return Ok(Some(value));
            }
            let Some(record) = self.records.pop_front() else { return Ok(None) };
            (self.get)(record, &mut self.values)?;
        }
    }

    fn put(&mut self, record: &O, send: Send<'_, S>) -> Result<(), FilterError> {
        (self.put)(record, send)
    }

    fn held(&self) -> usize {
        self.records.len() + self.values.len()
    }

    fn clone_config(&self) -> Self {
        let (get, put) = (Rc::clone(&self.get), Rc::clone(&self.put));
        Self { get, put, records: VecDeque::new(), values: VecDeque::new() }
    }
}

impl<R, I, O: ?Sized, S: ?Sized> fmt::Debug for Map<R, I, O, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map")
            .field("records", &self.records.len())
            .field("values", &self.values.len())
            .finish_non_exhaustive()
    }
}

fn into_get<R, I, G: IntoIterator<Item = I>>(get: impl Fn(R) -> Result<G, FilterError> + 'static) -> Get<R, I> {
    Rc::new(move |record, values| {
        values.extend(get(record)?);
        Ok(())
    })
}

fn into_put<O: ?Sized, S: ?Sized, P: IntoIterator<Item: Borrow<S>>>(
    put: impl Fn(&O) -> Result<P, FilterError> + 'static,
) -> Put<O, S> {
    Rc::new(move |record, send| put(record)?.into_iter().try_for_each(|value| send(value.borrow())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [u8; 0] = [];

    type Bytes = Map<u8, u8, u8, u8>;

    fn sent(filter: &mut Bytes, record: u8) -> Result<Vec<u8>, FilterError> {
        let mut sent = Vec::new();
        filter.put(&record, &mut |record| {
            sent.push(*record);
            Ok(())
        })?;
        Ok(sent)
    }

    /// As many values as the record says.
    fn repeat(record: &u8) -> Vec<u8> {
        vec![*record; usize::from(*record)]
    }

    #[test] // K-FG-01: Code is for both directions, Get and Put are for one each
    fn functions_are_for_one_direction_or_both() -> Result<(), FilterError> {
        let mut both: Bytes = Map::code(|record: &u8| [record + 1]);
        assert_eq!(both.get([1, 2])?, [2, 3]);
        assert_eq!(sent(&mut both, 1)?, [2]);
        let mut each: Bytes = Map::new(|record| [record + 1], |record: &u8| [record - 1]);
        assert_eq!(each.get([1, 2])?, [2, 3]);
        assert_eq!(sent(&mut each, 1)?, [0]);
        Ok(())
    }

    #[test] // K-FG-03: a record is replaced by no, one or more values; here they come one at a time
    fn a_record_becomes_any_number_of_values() -> Result<(), FilterError> {
        let mut filter: Bytes = Map::code(repeat);
        assert_eq!(filter.get([2, 0, 1])?, [2, 2, 1]);
        assert_eq!(sent(&mut filter, 3)?, [3, 3, 3]);
        assert_eq!(sent(&mut filter, 0)?, NONE);
        Ok(())
    }

    #[test] // K-FG-04 as K-RE-30 wants it: a record that comes to nothing is filtered out, and stalls nothing
    fn no_values_stall_nothing() -> Result<(), FilterError> {
        let mut filter: Bytes = Map::code(repeat);
        for record in [0, 0, 1] {
            filter.get_one_start(record)?;
        }
        assert_eq!(filter.get_one()?, Some(1));
        assert_eq!(filter.get_one()?, None);
        Ok(())
    }

    #[test] // K-FG-05: the functions can be replaced, between two records
    fn functions_can_be_replaced() -> Result<(), FilterError> {
        let mut filter: Bytes = Map::code(repeat);
        filter.get_one_start(2)?;
        filter.get_one_start(3)?;
        assert_eq!(filter.get_one()?, Some(2));
        filter.set_get(|record| Ok([record, 9]));
        assert_eq!(filter.get([])?, [2, 3, 9], "what was mapped stays as it is");
        assert_eq!(sent(&mut filter, 2)?, [2, 2], "put is as it was");
        filter.set_put(|record| Ok([record + 1]));
        assert_eq!(sent(&mut filter, 2)?, [3]);
        Ok(())
    }

    #[test] // K-FG-06: what is pending was not mapped. K-FI-07: a clone has the functions and no input
    fn pending_records_were_not_mapped() -> Result<(), FilterError> {
        let mut filter: Bytes = Map::code(repeat);
        for record in [2, 3] {
            filter.get_one_start(record)?;
        }
        assert_eq!((filter.get_pending().collect::<Vec<_>>(), filter.held()), (vec![&2, &3], 2));
        filter.get_one()?;
        assert_eq!((filter.get_pending().collect::<Vec<_>>(), filter.held()), (vec![&3], 2), "a value waits");
        assert_eq!(filter.clone_config().get([1])?, [1]);
        Ok(())
    }

    #[test]
    fn a_refused_record_costs_only_itself() -> Result<(), FilterError> {
        let refuse = |record: u8| match record {
            7 => Err(FilterError::Malformed { reason: "seven".into() }),
            _ => Ok([record]),
        };
        let mut filter: Bytes = Map::try_new(refuse, move |record: &u8| refuse(*record));
        for record in [6, 7, 8] {
            filter.get_one_start(record)?;
        }
        assert_eq!(filter.get_one()?, Some(6));
        assert_eq!(filter.get_one().expect_err("refused").to_string(), "malformed record: seven");
        assert_eq!(filter.get_one()?, Some(8));
        assert!(sent(&mut filter, 7).is_err());
        Ok(())
    }
}

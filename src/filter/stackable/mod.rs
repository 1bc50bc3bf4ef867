//! Filters on top of each other.

use super::{Filter, FilterError, RecordFilter, put_whole};

/// A filter, and on top of it a filter that works on its records. Together they are a filter again.
///
/// The first filter is the one that reads and writes bytes. Input goes through it first, output last. The compiler
/// checks that the second filter takes the records of the first. More filters go on top with [`push`](Self::push).
///
/// The stack moves input up one record at a time, and only when the filter on top has no more to give. So a session
/// that switches filters between two records finds the rest of the input still in the first filter. If the filter on
/// top holds part of a record, [`hand_over`](Filter::hand_over) returns [`FilterError::CannotSwitch`], and
/// [`get_pending`](Filter::get_pending) returns only what the first filter has.
/// ```
/// use lenore::filter::{Filter, Grep, Line, Map, Stackable};
///
/// let no_comments = Grep::new(|line: &String| !line.starts_with('#'), |_: &str| true);
/// let words = Map::new(
///     |line: String| line.split(' ').map(str::to_owned).collect::<Vec<_>>(),
///     |word: &str| Some(word.to_owned()),
/// );
/// let mut stack = Stackable::new(Line::new(), no_comments).push(words);
/// assert_eq!(stack.get(b"# a\nb c\nd\n")?, ["b", "c", "d"]);
///
/// let mut out = Vec::new();
/// stack.put("e", &mut out)?;
/// assert_eq!(out, b"e\r\n");
/// # Ok::<(), lenore::filter::FilterError>(())
/// ```
///
/// POE: `POE::Filter::Stackable`. Its list of filters is a type here, so a stack can't be empty. `filters` and
/// `filter_types` are what the type says.
#[derive(Debug)]
pub struct Stackable<A, B> {
    first: A,
    last: B,
}

impl<A, B> Stackable<A, B>
where
    A: Filter,
    B: RecordFilter<RawInput = A::Input, RawOutput = A::Output>,
{
    /// Puts `last` on top of `first`. Both keep their input.
    ///
    /// To put a filter below a stack (POE's `unshift`), pass it as `first` and the stack, in [`Chunks`](super::Chunks),
    /// as `last`.
    ///
    /// POE: `new` with the `Filters` parameter.
    #[doc(alias = "unshift")]
    #[doc(alias = "Filters")]
    pub fn new(first: A, last: B) -> Self {
        Self { first, last }
    }

    /// Puts `next` on top of the stack.
    ///
    /// POE: `push`, which takes several.
    pub fn push<C>(self, next: C) -> Stackable<Self, C>
    where
        C: RecordFilter<RawInput = B::Input, RawOutput = B::Output>,
    {
        Stackable::new(self, next)
    }

    /// Takes the stack apart. Returns what was below, and the filter that was on top, each with its input.
    ///
    /// POE: `pop`, and `shift` for a stack of two.
    #[doc(alias = "shift")]
    pub fn pop(self) -> (A, B) {
        (self.first, self.last)
    }

    /// Returns what is below the filter on top.
    pub fn first(&self) -> &A {
        &self.first
    }

    /// Returns what is below the filter on top, to change its settings.
    pub fn first_mut(&mut self) -> &mut A {
        &mut self.first
    }

    /// Returns the filter on top.
    pub fn last(&self) -> &B {
        &self.last
    }

    /// Returns the filter on top, to change its settings.
    pub fn last_mut(&mut self) -> &mut B {
        &mut self.last
    }
}

impl<A, B> Filter for Stackable<A, B>
where
    A: Filter,
    B: RecordFilter<RawInput = A::Input, RawOutput = A::Output>,
{
    type Input = B::Input;
    type Output = B::Output;

    fn get_one_start(&mut self, chunk: &[u8]) -> Result<(), FilterError> {
        self.first.get_one_start(chunk)
    }

    fn get_one(&mut self) -> Result<Option<B::Input>, FilterError> {
        // The loop ends with the input of the first filter, because nothing adds to that meanwhile.
        loop {
            if let Some(record) = self.last.get_one()? {
                return Ok(Some(record));
            }
            let Some(record) = self.first.get_one()? else { return Ok(None) };
            self.last.get_one_start(record)?;
        }
    }

    fn put(&mut self, record: &B::Output, out: &mut Vec<u8>) -> Result<(), FilterError> {
        let Self { first, last } = self;
        put_whole(out, |out| last.put(record, &mut |record: &A::Output| first.put(record, out)))
    }

    fn room(&self) -> usize {
        self.first.room()
    }

    fn get_pending(&self) -> &[u8] {
        self.first.get_pending()
    }

    fn is_between_records(&self) -> bool {
        self.first.is_between_records() && self.last.is_between_records()
    }

    fn hand_over(&self) -> Result<&[u8], FilterError> {
        match self.last.held() {
            0 => self.first.hand_over(),
            held => Err(FilterError::CannotSwitch { held }),
        }
    }

    fn finish_record(&mut self, chunk: &[u8]) -> Option<usize> {
        self.first.finish_record(chunk)
    }

    fn clone_config(&self) -> Self {
        Self { first: self.first.clone_config(), last: self.last.clone_config() }
    }

    fn output_half(&self) -> Self {
        Self { first: self.first.output_half(), last: self.last.output_half() }
    }
}

#[cfg(test)]
mod tests;

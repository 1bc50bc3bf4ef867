//! A filter whose type is chosen while the program runs.

use std::any::Any;

use super::{Filter, FilterError};

/// What a filter can do inside a box: the part of [`Filter`] that needs the filter's type.
///
/// Every filter implements it, and no other type does.
pub trait Boxable {
    /// Puts a copy of this filter into `to`, which is an `Option<Box<dyn Filter<..>>>` with the records of this filter.
    /// `kind` says which copy.
    ///
    /// A supertrait can't name the records, which are associated types of the trait below it.
    #[doc(hidden)]
    fn copy_into(&self, to: &mut dyn Any, kind: CopyKind);
}

/// Which copy of a filter is wanted.
#[derive(Debug, Clone, Copy)]
pub enum CopyKind {
    /// That of [`Filter::clone_config`].
    Config,
    /// That of [`Filter::output_half`].
    OutputHalf,
}

impl<F: Filter> Boxable for F {
    fn copy_into(&self, to: &mut dyn Any, kind: CopyKind) {
        if let Some(to) = to.downcast_mut::<Option<Box<dyn Filter<Input = F::Input, Output = F::Output>>>>() {
            *to = Some(match kind {
                CopyKind::Config => Box::new(self.clone_config()),
                CopyKind::OutputHalf => Box::new(self.output_half()),
            });
        }
    }
}

/// A filter that is chosen while the program runs. All filters with the same records have this one type.
///
/// ```
/// use lenore::filter::{ByteLine, Filter, Stream};
///
/// type Bytes = Box<dyn Filter<Input = Vec<u8>, Output = [u8]>>;
///
/// fn filter(lines: bool) -> Bytes {
///     if lines { Box::new(ByteLine::new()) } else { Box::new(Stream::new()) }
/// }
///
/// assert_eq!(filter(true).get(b"a\nb\n")?, [b"a", b"b"]);
/// assert_eq!(filter(false).clone_config().get(b"a\nb\n")?, [b"a\nb\n"]);
/// # Ok::<(), lenore::filter::FilterError>(())
/// ```
impl<I: 'static, O: ?Sized + 'static> Filter for Box<dyn Filter<Input = I, Output = O>> {
    type Input = I;
    type Output = O;

    fn get_one_start(&mut self, chunk: &[u8]) -> Result<(), FilterError> {
        (**self).get_one_start(chunk)
    }

    fn get_one(&mut self) -> Result<Option<I>, FilterError> {
        (**self).get_one()
    }

    fn put(&mut self, record: &O, out: &mut Vec<u8>) -> Result<(), FilterError> {
        (**self).put(record, out)
    }

    fn get_pending(&self) -> &[u8] {
        (**self).get_pending()
    }

    fn is_between_records(&self) -> bool {
        (**self).is_between_records()
    }

    fn room(&self) -> usize {
        (**self).room()
    }

    fn get_last(&mut self) -> Result<Option<I>, FilterError> {
        (**self).get_last()
    }

    fn hand_over(&self) -> Result<&[u8], FilterError> {
        (**self).hand_over()
    }

    fn finish_record(&mut self, chunk: &[u8]) -> Option<usize> {
        (**self).finish_record(chunk)
    }

    fn clone_config(&self) -> Self {
        copy(&**self, CopyKind::Config)
    }

    fn output_half(&self) -> Self {
        copy(&**self, CopyKind::OutputHalf)
    }

    fn get(&mut self, chunk: &[u8]) -> Result<Vec<I>, FilterError> {
        (**self).get(chunk)
    }
}

type Boxed<I, O> = Box<dyn Filter<Input = I, Output = O>>;

fn copy<I: 'static, O: ?Sized + 'static>(filter: &dyn Filter<Input = I, Output = O>, kind: CopyKind) -> Boxed<I, O> {
    let mut made: Option<Boxed<I, O>> = None;
    filter.copy_into(&mut made, kind);
    made.expect("the filter has the records that its box names")
}

//! The values that a session can put into a wheel's output.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

/// A value that a session can put where the filter takes records of the type `O`. It is a record, or a reference to
/// one, or a container of one.
///
/// A filter of texts takes a `&str`, a `String` or a `&String`. A filter of bytes takes slices, arrays and vectors, by
/// value or by reference, and texts as well. Both also take a `Box`, `Rc`, `Arc` or `Cow` of a record.
///
/// ```
/// use std::os::unix::net::UnixStream;
/// use lenore::filter::{ByteLine, Line};
/// use lenore::wheel::ReadWrite;
/// use lenore::{Kernel, Session};
///
/// # fn main() -> Result<(), lenore::Error> {
/// # let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
/// # let mut kernel = Kernel::new()?;
/// Session::new(())
///     .args((ours, theirs))
///     .state("_start", |cx| {
///         let text = String::from("text");
///         let lines = ReadWrite::stream(cx.take::<UnixStream>(0)?, Line::new()).start(cx)?;
///         lines.put("text");
///         lines.put(&text);
///         let bytes = ReadWrite::stream(cx.take::<UnixStream>(1)?, ByteLine::new()).start(cx)?;
///         bytes.put(b"abc");
///         bytes.put([0; 4]);
///         bytes.put(text);
///         assert_eq!((lines.driver_out_messages(), bytes.driver_out_messages()), (2, 3));
///         Ok(())
///     })
///     .spawn(&mut kernel)?;
/// kernel.run()
/// # }
/// ```
///
/// Implement it for a type of your own that contains a record:
///
/// ```
/// use lenore::filter::AsRecord;
///
/// struct Command { line: String }
///
/// impl AsRecord<str> for Command {
///     fn as_record(&self) -> &str { &self.line }
/// }
/// ```
///
/// A value that is not a record of the filter does not compile. The error names the type that the filter takes:
///
/// ```compile_fail,E0277
/// # use lenore::filter::Line;
/// # use lenore::wheel::ReadWrite;
/// fn answer(wheel: &ReadWrite<Line>) {
///     wheel.put(42);
/// }
/// ```
///
/// POE: `put` takes a list of whatever the filter takes.
#[diagnostic::on_unimplemented(
    message = "the output's filter takes `{O}`, and `{Self}` is not a record of it",
    label = "is not a `{O}`, and does not lend one",
    note = "`put` takes what the filter has as its `Filter::Output`, by value or by reference"
)]
pub trait AsRecord<O: ?Sized> {
    /// Lends the record.
    fn as_record(&self) -> &O;
}

impl<O> AsRecord<O> for O {
    fn as_record(&self) -> &O {
        self
    }
}

// For each pointer separately. One implementation for everything that implements `Borrow` would exclude `&[u8; N]`.
macro_rules! lent {
    ($([$($generics:tt)*] $type:ty => $record:ty),+ $(,)?) => {
        $(impl<$($generics)*> AsRecord<$record> for $type {
            fn as_record(&self) -> &$record {
                self
            }
        })+
    };
}

lent! {
    [O: ?Sized] &O => O,
    [O: ?Sized] &mut O => O,
    [O: ?Sized] Box<O> => O,
    [O: ?Sized] Rc<O> => O,
    [O: ?Sized] Arc<O> => O,
    [O: ?Sized + ToOwned] Cow<'_, O> => O,
    [] String => str,
    [] &String => str,
    [T] Vec<T> => [T],
    [T] &Vec<T> => [T],
    [T, const N: usize] [T; N] => [T],
}

impl<T, const N: usize> AsRecord<[T]> for &[T; N] {
    fn as_record(&self) -> &[T] {
        self.as_slice()
    }
}

impl AsRecord<[u8]> for &str {
    fn as_record(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl AsRecord<[u8]> for String {
    fn as_record(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl AsRecord<[u8]> for &String {
    fn as_record(&self) -> &[u8] {
        self.as_bytes()
    }
}

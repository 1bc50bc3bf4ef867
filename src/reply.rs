//! What states return, and what a call hands back.

use std::any::{Any, type_name};
use std::fmt;
use std::mem::needs_drop;
use std::panic::Location;
use std::thread::panicking;

use crate::destroy::destroy;
use crate::error::{Error, Exception};

/// What a [`call`](crate::Kernel::call) returns.
///
/// ```
/// use lenore::{Kernel, Return, Session};
///
/// # fn main() -> Result<(), lenore::Error> {
/// let mut kernel = Kernel::new()?;
/// let id = Session::new(20).state("_start", |_| ()).state("double", |cx| *cx.heap() * 2).spawn(&mut kernel)?;
/// assert_eq!(kernel.call(id, "double", ())?.take::<i32>()?, 40);
/// assert!(!kernel.call(id, "treble", ())?.was_handled());
/// # Ok(())
/// # }
/// ```
///
/// POE: the return value of `call`, which does not tell "no handler" from "no value".
pub enum Reply {
    /// The session has no such state, and no `_default`; or the destination was the kernel.
    NoHandler,
    /// The state returned `()`, or it failed. If it failed, its session gets a `DIE` signal.
    NoValue,
    /// The state returned this.
    Value(ReplyValue),
}

/// The value that a state returned, of any type.
pub struct ReplyValue(Box<dyn Named>);

/// A value that knows the name of its type.
trait Named: Any {
    fn type_name(&self) -> &'static str;
}

/// A value in its box.
struct Kept<T>(Option<T>);

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        // The thread may be panicking over the arguments of the state. A second panic at that time would abort the
        // process.
        if needs_drop::<T>() && panicking() {
            destroy(self.0.take());
        }
    }
}

impl<T: Any> Named for Kept<T> {
    fn type_name(&self) -> &'static str {
        type_name::<T>()
    }
}

impl ReplyValue {
    /// Packs a value.
    pub fn new<T: 'static>(value: T) -> ReplyValue {
        ReplyValue(Box::new(Kept(Some(value))))
    }

    /// Returns the name of the value's type, as [`std::any::type_name`] gives it.
    pub fn type_name(&self) -> &'static str {
        self.0.type_name()
    }

    /// Moves the value out if it is a `T`.
    ///
    /// # Errors
    ///
    /// The value itself, if its type is not `T`.
    pub fn downcast<T: 'static>(mut self) -> Result<T, ReplyValue> {
        let kept = (&mut *self.0 as &mut dyn Any).downcast_mut::<Kept<T>>();
        match kept.and_then(|kept| kept.0.take()) {
            Some(value) => Ok(value),
            None => Err(self),
        }
    }
}

impl Reply {
    /// Moves the value out.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] if there is no value, or if its type is not `T`. The error names both types, and the statement
    /// that called `take`.
    #[track_caller]
    pub fn take<T: 'static>(self) -> Result<T, Error> {
        let caller = Location::caller();
        let fail = |found| Error::Value { wanted: type_name::<T>(), found, caller };
        match self {
            Reply::NoHandler => Err(fail("nothing, as there is no such state")),
            Reply::NoValue => Err(fail("nothing")),
            Reply::Value(value) => value.downcast().map_err(|value| fail(value.type_name())),
        }
    }

    /// Tells whether a state ran.
    pub fn was_handled(&self) -> bool {
        !matches!(self, Reply::NoHandler)
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reply::NoHandler => "NoHandler",
            Reply::NoValue => "NoValue",
            Reply::Value(value) => return f.debug_tuple("Value").field(value).finish(),
        })
    }
}

impl fmt::Debug for ReplyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.type_name())
    }
}

/// What a state may return: nothing, a value for the caller, or a [`Result`](crate::Result) of either.
///
/// A state can return common types as they are, and a value of any other type inside a [`Return`].
///
/// The kernel's calls return `Result<_, Error>`, which a state can't return as it is. End the state with `Ok(call?)`:
///
/// ```
/// # use lenore::Session;
/// let session = Session::new(()).state("_start", |cx| Ok(cx.alias_set("name")?));
/// ```
///
/// ```compile_fail,E0277
/// # use lenore::Session;
/// let session = Session::new(()).state("_start", |cx| cx.alias_set("name"));
/// ```
///
/// If a state could return a `Result` with either error type, the compiler could not tell which of them `Ok(())` at the
/// end of a closure has, and every such closure would have to name the type.
#[diagnostic::on_unimplemented(
    message = "a state can't return `{Self}`",
    note = "a state returns `()`, a number, a text, an `Option` or a `Vec` as it is, other values inside `lenore::Return`",
    note = "a state that may fail returns a `lenore::Result` of that: end it with `Ok(..)`, and a call of the kernel with `Ok(call?)`"
)]
pub trait IntoReturn {
    /// Turns the value into the [`Reply`] that the kernel hands to the caller.
    ///
    /// # Errors
    ///
    /// The exception with which the state failed.
    fn into_return(self) -> Result<Reply, Exception>;

    /// Drops the value. It is for callbacks, whose value no caller waits for.
    ///
    /// # Errors
    ///
    /// The exception with which the callback failed.
    fn without_value(self) -> Result<(), Exception>
    where
        Self: Sized,
    {
        self.into_return().map(drop)
    }
}

/// Makes a value of any type returnable from a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Return<T>(pub T);

impl IntoReturn for () {
    fn into_return(self) -> Result<Reply, Exception> {
        Ok(Reply::NoValue)
    }
}

impl IntoReturn for Reply {
    fn into_return(self) -> Result<Reply, Exception> {
        Ok(self)
    }
}

impl<T: 'static> IntoReturn for Return<T> {
    fn into_return(self) -> Result<Reply, Exception> {
        Ok(Reply::Value(ReplyValue::new(self.0)))
    }

    // Does without the box that a `Reply` needs.
    fn without_value(self) -> Result<(), Exception> {
        Ok(())
    }
}

impl<T: IntoReturn> IntoReturn for Result<T, Exception> {
    fn into_return(self) -> Result<Reply, Exception> {
        self?.into_return()
    }

    fn without_value(self) -> Result<(), Exception> {
        self?.without_value()
    }
}

// A blanket implementation would overlap with the ones above.
macro_rules! returnable {
    ($($type:ty),+) => {
        $(impl IntoReturn for $type {
            fn into_return(self) -> Result<Reply, Exception> {
                Return(self).into_return()
            }

            fn without_value(self) -> Result<(), Exception> {
                Return(self).without_value()
            }
        })+
    };
}

returnable!(bool, char, i8, i16, i32, i64, i128, isize, u8, u16, u32, u64, u128, usize, f32, f64, String, &'static str);

impl<T: 'static> IntoReturn for Option<T> {
    fn into_return(self) -> Result<Reply, Exception> {
        Return(self).into_return()
    }

    fn without_value(self) -> Result<(), Exception> {
        Return(self).without_value()
    }
}

impl<T: 'static> IntoReturn for Vec<T> {
    fn into_return(self) -> Result<Reply, Exception> {
        Return(self).into_return()
    }

    fn without_value(self) -> Result<(), Exception> {
        Return(self).without_value()
    }
}

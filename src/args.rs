//! Positional arguments of events: POE's ARG0, ARG1, ...

use std::any::{Any, type_name};
use std::fmt;
use std::mem::needs_drop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use crate::destroy::{destroy, destroy_payload};
use crate::error::Exception;
use crate::shown::shown;

/// The positional arguments of one event, of any types.
///
/// The sender of an event makes them from a tuple. The state reads them by position, with [`Context::arg`] and
/// [`Context::take`]. An empty list costs nothing, any other costs one allocation.
///
/// ```
/// use lenore::{Args, IntoArgs};
///
/// let mut args: Args = (7_u32, String::from("seven")).into_args();
/// assert_eq!(args.len(), 2);
/// assert_eq!(args.get::<u32>(0), Ok(&7));
/// assert_eq!(args.take::<String>(1), Ok(String::from("seven")));
/// assert!(args.take::<String>(1).is_err(), "it was moved out");
/// ```
///
/// A program can show arguments whose types it does not know. `Debug` shows the values of numbers, texts and the other
/// common types of the standard library, and of the types that this crate sends. For any other type it shows the type's
/// name.
///
/// ```
/// use lenore::{Kernel, Session};
///
/// # fn main() -> Result<(), lenore::Error> {
/// struct Job;
///
/// let mut kernel = Kernel::new()?;
/// let id = Session::new(())
///     .state("_start", |_| ())
///     .state("_default", |cx| format!("no state for {:?}", cx.args()))
///     .spawn(&mut kernel)?;
/// let told = kernel.call(id, "work", (7, "seven", Job))?.take::<String>()?;
/// assert!(told.starts_with("no state for [\"work\", [7, \"seven\", ") && told.ends_with("::Job]]"));
/// # Ok(())
/// # }
/// ```
///
/// [`Context::arg`]: crate::Context::arg
/// [`Context::take`]: crate::Context::take
///
/// POE: `@_[ARG0..$#_]`.
#[derive(Default)]
pub struct Args(Option<Box<dyn List>>);

impl Args {
    /// Returns an empty list.
    pub const fn new() -> Args {
        Args(None)
    }

    /// Returns the number of positions, including those whose argument was taken.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |list| list.len())
    }

    /// Tells whether the list has no position at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Borrows the argument at `position`, counted from 0.
    ///
    /// # Errors
    ///
    /// [`ArgError`] when there is no such argument, when it was taken before, or when its type is not `T`.
    pub fn get<T: 'static>(&self, position: usize) -> Result<&T, ArgError> {
        let fail = |found| ArgError { position, wanted: type_name::<T>(), found, part: self.part() };
        let slot = self.0.as_ref().and_then(|list| list.slot(position)).ok_or_else(|| fail(Found::Missing))?;
        let value = slot.value().ok_or_else(|| fail(Found::Taken))?;
        value.downcast_ref().ok_or_else(|| fail(Found::Type(slot.type_name())))
    }

    /// Moves the argument at `position`, counted from 0, out of the list. Its position stays, and is empty.
    ///
    /// # Errors
    ///
    /// As [`get`](Args::get); an argument of another type stays where it is.
    pub fn take<T: 'static>(&mut self, position: usize) -> Result<T, ArgError> {
        let part = self.part();
        let fail = |found| ArgError { position, wanted: type_name::<T>(), found, part };
        let list = self.0.as_mut().ok_or_else(|| fail(Found::Missing))?;
        match list.option_mut(position).and_then(|option| option.downcast_mut::<Option<T>>()) {
            Some(option) => option.take().ok_or_else(|| fail(Found::Taken)),
            None => Err(fail(list.slot(position).map_or(Found::Missing, |slot| Found::Type(slot.type_name())))),
        }
    }

    /// Returns the type name of the argument at `position`, or `None` past the end.
    pub fn type_name(&self, position: usize) -> Option<&'static str> {
        self.0.as_ref().and_then(|list| list.slot(position)).map(|slot| slot.type_name())
    }

    /// Appends `more`.
    pub(crate) fn chain(self, more: Args) -> Args {
        match (self.0, more.0) {
            (first, None) => Args(first),
            (None, second) => Args(second),
            (first, second) => Args(Some(Box::new(Chain { first, second }))),
        }
    }
}

impl Args {
    /// Marks the list as one of the two of a postback or callback, so that errors can tell which. An empty list keeps
    /// no mark.
    pub(crate) fn marked(mut self, part: Part) -> Args {
        if let Some(list) = &mut self.0 {
            list.set_part(part);
        }
        self
    }

    fn part(&self) -> Part {
        self.0.as_ref().map_or(Part::Unnamed, |list| list.part())
    }

    /// Hides the first `count` positions.
    pub(crate) fn skip(self, count: usize) -> Args {
        match self.0 {
            Some(list) if list.len() > count => Args(Some(Box::new(Tail { list, skipped: count }))),
            _ => Args::new(),
        }
    }

    /// Undoes [`chain`](Args::chain): drops the part that was appended last.
    pub(crate) fn unchain(self) -> Args {
        Args(self.0.and_then(|list| list.without_tail()))
    }
}

impl fmt::Debug for Args {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = self.0.as_ref();
        let slots = (0..self.len()).filter_map(|position| list.and_then(|list| list.slot(position)));
        f.debug_list().entries(slots.map(Shown)).finish()
    }
}

/// One position as text.
struct Shown<'a>(&'a dyn Slot);

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.value().map(shown) {
            Some(Some(value)) => value.fmt(f),
            Some(None) => f.write_str(self.0.type_name()),
            None => write!(f, "{} (taken)", self.0.type_name()),
        }
    }
}

/// What can be sent as the arguments of an event: `()`, tuples of up to eight values, or [`Args`].
///
/// A single argument is a tuple of one: `(1,)`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a list of arguments",
    note = "arguments are a tuple of up to eight values: `()` for none, `(value,)` for one"
)]
pub trait IntoArgs {
    /// Packs the values.
    fn into_args(self) -> Args;
}

impl IntoArgs for () {
    fn into_args(self) -> Args {
        Args::new()
    }
}

impl IntoArgs for Args {
    /// A list of a postback that is sent on loses its mark: it is the new event's own list.
    fn into_args(self) -> Args {
        self.marked(Part::Unnamed)
    }
}

/// An argument that could not be read.
///
/// It becomes an [`Error`](crate::Error) by `?`. If the list is one of the two lists of a postback or a callback, the
/// error's text says which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArgError {
    /// The position asked for, from 0.
    pub position: usize,
    /// The type asked for.
    pub wanted: &'static str,
    /// What is there instead.
    pub found: Found,
    /// Which list it is.
    part: Part,
}

/// Which list of an event some arguments are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Part {
    /// The event's own, or one that the program has made.
    #[default]
    Unnamed,
    /// What is bound to a postback or a callback.
    Bound,
    /// What a postback or a callback was called with.
    Called,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Unnamed => "",
            Part::Bound => " of the bound arguments",
            Part::Called => " of the call's arguments",
        })
    }
}

/// What stands at a position of the arguments instead of the value that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Found {
    /// Nothing: the event has fewer arguments.
    Missing,
    /// A value that was moved out before.
    Taken,
    /// A value of this type.
    Type(&'static str),
}

impl fmt::Display for ArgError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "argument {}{} should be {}, but ", self.position, self.part, self.wanted)?;
        match self.found {
            Found::Missing => f.write_str("there is none"),
            Found::Taken => f.write_str("it was taken before"),
            Found::Type(name) if is_unwritten(self.wanted) => write!(f, "is {name}: write the type, `::<{name}>`"),
            Found::Type(name) => write!(f, "is {name}"),
        }
    }
}

impl std::error::Error for ArgError {}

/// Tells whether `wanted` is the type that the compiler takes when the program does not name a type. That is the never type in
/// edition 2024, and the unit type before. `let n = cx.take(0)?;` compiles with it.
pub(crate) fn is_unwritten(wanted: &str) -> bool {
    wanted == "!" || wanted == "()"
}

/// Arguments that are sent more than once: each delivery gets its own copy.
#[derive(Clone, Default)]
pub(crate) struct Template(Option<Rc<dyn Fn() -> Args>>);

impl Template {
    pub(crate) fn new<A: IntoArgs + Clone + 'static>(args: A) -> Template {
        // The unit type is the usual case; it needs no allocation.
        if std::any::TypeId::of::<A>() == std::any::TypeId::of::<()>() {
            return Template(None);
        }
        let bound = Bound(Some(args));
        Template(Some(Rc::new(move || bound.0.clone().map_or(Args::new(), A::into_args))))
    }

    pub(crate) fn args(&self) -> Args {
        self.0.as_ref().map_or(Args::new(), |make| make())
    }

    /// Does what [`args`](Template::args) does, outside of any state.
    ///
    /// # Errors
    ///
    /// The panic of a value's `clone`.
    pub(crate) fn copy(&self) -> Result<Args, Exception> {
        match &self.0 {
            None => Ok(Args::new()),
            Some(make) => catch_unwind(AssertUnwindSafe(|| make())).map_err(Exception::from_panic),
        }
    }
}

/// What a template copies.
struct Bound<A: IntoArgs>(Option<A>);

impl<A: IntoArgs> Drop for Bound<A> {
    fn drop(&mut self) {
        // As arguments, whose values are dropped one by one.
        drop(self.0.take().map(A::into_args));
    }
}

/// The values of one list, behind one allocation.
trait List {
    fn len(&self) -> usize;
    fn slot(&self, position: usize) -> Option<&dyn Slot>;
    /// Borrows what a slot is made of: the `Option<T>` itself.
    fn option_mut(&mut self, position: usize) -> Option<&mut dyn Any>;
    fn without_tail(self: Box<Self>) -> Option<Box<dyn List>>;

    fn part(&self) -> Part {
        Part::Unnamed
    }

    /// Marks the list. Only the list of a tuple keeps the mark.
    fn set_part(&mut self, _: Part) {}
}

/// One position: an `Option<T>`, empty once its value was taken.
trait Slot {
    fn value(&self) -> Option<&dyn Any>;
    fn type_name(&self) -> &'static str;
}

impl<T: 'static> Slot for Option<T> {
    fn value(&self) -> Option<&dyn Any> {
        self.as_ref().map(|value| value as &dyn Any)
    }

    fn type_name(&self) -> &'static str {
        type_name::<T>()
    }
}

/// Two lists read as one.
struct Chain {
    first: Option<Box<dyn List>>,
    second: Option<Box<dyn List>>,
}

impl Chain {
    fn parts(&self) -> impl Iterator<Item = &dyn List> {
        [&self.first, &self.second].into_iter().filter_map(|part| part.as_deref())
    }
}

impl List for Chain {
    fn len(&self) -> usize {
        self.parts().map(List::len).sum()
    }

    fn slot(&self, mut position: usize) -> Option<&dyn Slot> {
        for part in self.parts() {
            match position.checked_sub(part.len()) {
                None => return part.slot(position),
                Some(rest) => position = rest,
            }
        }
        None
    }

    fn option_mut(&mut self, mut position: usize) -> Option<&mut dyn Any> {
        for part in [&mut self.first, &mut self.second].into_iter().flatten() {
            match position.checked_sub(part.len()) {
                None => return part.option_mut(position),
                Some(rest) => position = rest,
            }
        }
        None
    }

    fn without_tail(mut self: Box<Self>) -> Option<Box<dyn List>> {
        self.first.take()
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        // On its own: if both lists panicked within one drop, the second panic would abort the process.
        destroy(self.second.take());
    }
}

/// A list without its first positions.
struct Tail {
    list: Box<dyn List>,
    skipped: usize,
}

impl List for Tail {
    fn len(&self) -> usize {
        self.list.len() - self.skipped
    }

    fn slot(&self, position: usize) -> Option<&dyn Slot> {
        self.list.slot(position + self.skipped)
    }

    fn option_mut(&mut self, position: usize) -> Option<&mut dyn Any> {
        self.list.option_mut(position + self.skipped)
    }

    fn without_tail(self: Box<Self>) -> Option<Box<dyn List>> {
        Some(self)
    }
}

/// A newtype keeps `List` for tuples of options off the public tuples.
struct Tuple<T: Values>(T, Part);

/// The values of a tuple of options.
trait Values {
    /// Whether more than one of them has a destructor.
    const ARE_FRAGILE: bool;

    /// Drops them one by one, and then throws the last of their panics. Two panics within one drop would abort the
    /// process.
    fn drop_apart(&mut self);
}

impl<T: Values> Drop for Tuple<T> {
    fn drop(&mut self) {
        if T::ARE_FRAGILE {
            self.0.drop_apart();
        }
    }
}

// Tuples of different lengths are different types: a macro is the only way to serve them all.
macro_rules! tuple_args {
    ($count:literal: $($type:ident $index:tt),+) => {
        impl<$($type: 'static),+> IntoArgs for ($($type,)+) {
            fn into_args(self) -> Args {
                Args(Some(Box::new(Tuple(($(Some(self.$index),)+), Part::Unnamed))))
            }
        }

        impl<$($type: 'static),+> Values for ($(Option<$type>,)+) {
            const ARE_FRAGILE: bool = 1 < $(needs_drop::<$type>() as usize +)+ 0;

            fn drop_apart(&mut self) {
                let mut thrown = None;
                $(if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(self.$index.take()))) {
                    thrown.replace(payload).into_iter().for_each(destroy_payload);
                })+
                thrown.into_iter().for_each(|payload| resume_unwind(payload));
            }
        }

        impl<$($type: 'static),+> List for Tuple<($(Option<$type>,)+)> {
            fn len(&self) -> usize {
                $count
            }

            fn slot(&self, position: usize) -> Option<&dyn Slot> {
                match position {
                    $($index => Some(&self.0.$index),)+
                    _ => None,
                }
            }

            fn option_mut(&mut self, position: usize) -> Option<&mut dyn Any> {
                match position {
                    $($index => Some(&mut self.0.$index),)+
                    _ => None,
                }
            }

            fn without_tail(self: Box<Self>) -> Option<Box<dyn List>> {
                Some(self)
            }

            fn part(&self) -> Part {
                self.1
            }

            fn set_part(&mut self, part: Part) {
                self.1 = part;
            }
        }
    };
}

tuple_args!(1: A 0);
tuple_args!(2: A 0, B 1);
tuple_args!(3: A 0, B 1, C 2);
tuple_args!(4: A 0, B 1, C 2, D 3);
tuple_args!(5: A 0, B 1, C 2, D 3, E 4);
tuple_args!(6: A 0, B 1, C 2, D 3, E 4, F 5);
tuple_args!(7: A 0, B 1, C 2, D 3, E 4, F 5, G 6);
tuple_args!(8: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::name::Name;

    #[test]
    fn a_chain_reads_as_one_list() {
        let mut args = ("TERM",).into_args().chain((1_u8, 2_u16).into_args()).chain(Args::new());
        assert_eq!(args.len(), 3);
        assert_eq!(args.get(0), Ok(&"TERM"));
        assert_eq!(args.take(2), Ok(2_u16));
        assert_eq!(args.get::<u16>(2).map_err(|error| error.found), Err(Found::Taken));
        assert_eq!(args.get::<u16>(3).map_err(|error| error.found), Err(Found::Missing));
    }

    #[test]
    fn skipped_positions_are_not_there() {
        let mut args = (1_u8, 2_u8).into_args().chain((3_u8,).into_args()).skip(1);
        assert_eq!(args.len(), 2);
        assert_eq!((args.take(0), args.take(1)), (Ok(2_u8), Ok(3_u8)));
        assert!(args.skip(2).is_empty());
    }

    #[test]
    fn a_wrong_type_is_named_and_stays() {
        let mut args = (1_i32,).into_args();
        let error = args.take::<String>(0).expect_err("an i32 is no String");
        assert_eq!(error.to_string(), "argument 0 should be alloc::string::String, but is i32");
        assert_eq!(args.take::<i32>(0), Ok(1));
    }

    #[test]
    fn list_of_a_postback_that_is_sent_on_is_no_longer_called_one() {
        let args = (1_i32,).into_args().marked(Part::Called);
        let text = |args: &Args| args.get::<u8>(0).expect_err("an i32 is not a u8").to_string();
        assert_eq!(text(&args), "argument 0 of the call's arguments should be u8, but is i32");
        assert_eq!(text(&args.into_args()), "argument 0 should be u8, but is i32");
    }

    #[test]
    fn debug_shows_what_it_knows_and_names_the_rest() {
        struct Secret;
        let mut args = ("text", 7_u8, Secret, Name::new("event"), (Duration::from_millis(5),).into_args()).into_args();
        assert_eq!(args.take(1), Ok(7_u8));
        let secret = type_name::<Secret>();
        assert_eq!(format!("{args:?}"), format!("[\"text\", u8 (taken), {secret}, \"event\", [5ms]]"));
    }

    #[test]
    fn a_template_copies_for_each_delivery() {
        let template = Template::new((String::from("x"),));
        assert_eq!(template.args().take::<String>(0).as_deref(), Ok("x"));
        assert_eq!(template.args().take::<String>(0).as_deref(), Ok("x"));
        assert!(Template::new(()).args().is_empty());
    }
}

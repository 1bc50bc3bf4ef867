//! Calls of [`Core`] that the context repeats, so that their arguments can ask it something: `cx.post(cx.sender(), ..)`.
//!
//! Through `Deref` alone that is two borrows at once, one of them exclusive, and it is the first thing that a POE
//! programmer writes.

use std::time::Duration;

use super::alarms::AlarmId;
use super::context::Context;
use super::core::{Core, Dest};
use super::sessions::SessionId;
use crate::args::IntoArgs;
use crate::error::Error;
use crate::name::Name;

impl<H: 'static> Context<'_, H> {
    /// Posts an event; see [`Core::post`].
    ///
    /// ```
    /// # use lenore::{Kernel, Session};
    /// # fn main() -> Result<(), lenore::Error> {
    /// # let mut kernel = Kernel::new()?;
    /// let echo = Session::new(())
    ///     .state("_start", |_| ())
    ///     .state("echo", |cx| {
    ///         let word: &str = cx.take(0)?;
    ///         cx.post(cx.sender(), "answer", (word,))?;
    ///         Ok(())
    ///     })
    ///     .spawn(&mut kernel)?;
    /// Session::new(())
    ///     .state("_start", move |cx| cx.post(echo, "echo", ("hello",)).map_err(Into::into))
    ///     .state("answer", |cx| assert_eq!(cx.arg::<&str>(0).unwrap(), &"hello"))
    ///     .spawn(&mut kernel)?;
    /// kernel.run()
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSession`] when `dest` is no living session's id or alias.
    ///
    /// POE: `post`.
    #[track_caller]
    pub fn post<'d>(
        &mut self,
        dest: impl Into<Dest<'d>>,
        event: impl Into<Name>,
        args: impl IntoArgs,
    ) -> Result<(), Error> {
        Core::post(self, dest, event, args)
    }

    /// Posts an event to the running session; see [`Core::yield_`].
    ///
    /// POE: `yield`, a reserved word in Rust.
    #[doc(alias = "yield")]
    #[track_caller]
    pub fn yield_(&mut self, event: impl Into<Name>, args: impl IntoArgs) {
        Core::yield_(self, event, args);
    }

    /// Posts a signal; see [`Core::signal`].
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSession`] when `dest` is no living session's id or alias.
    ///
    /// POE: `signal`.
    #[track_caller]
    pub fn signal<'d, A>(&mut self, dest: impl Into<Dest<'d>>, signal: impl Into<Name>, args: A) -> Result<(), Error>
    where
        A: IntoArgs + Clone + 'static,
    {
        Core::signal(self, dest, signal, args)
    }

    /// Replaces the session's alarms of that name by one; see [`Core::delay`].
    ///
    /// POE: `delay`.
    #[track_caller]
    pub fn delay(&mut self, event: impl Into<Name>, after: Duration, args: impl IntoArgs) {
        Core::delay(self, event, after, args);
    }

    /// Sets one more alarm and returns its id; see [`Core::delay_set`].
    ///
    /// POE: `delay_set`.
    #[track_caller]
    pub fn delay_set(&mut self, event: impl Into<Name>, after: Duration, args: impl IntoArgs) -> AlarmId {
        Core::delay_set(self, event, after, args)
    }

    /// Adds an extra reference; see [`Core::refcount_increment`].
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSession`] if the session has stopped.
    ///
    /// POE: `refcount_increment`.
    pub fn refcount_increment(&mut self, session: SessionId, tag: impl Into<Name>) -> Result<u32, Error> {
        Core::refcount_increment(self, session, tag)
    }

    /// Takes an extra reference away; see [`Core::refcount_decrement`].
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSession`] if the session has stopped; [`Error::NoSuchTag`] if it holds none under `tag`.
    ///
    /// POE: `refcount_decrement`.
    pub fn refcount_decrement(&mut self, session: SessionId, tag: impl Into<Name>) -> Result<u32, Error> {
        Core::refcount_decrement(self, session, tag)
    }
}

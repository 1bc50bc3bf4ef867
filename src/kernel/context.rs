//! What a state receives.

use std::marker::PhantomData;
use std::panic::Location;

use super::Kernel;
use super::access::Calls;
use super::core::{Core, Dest};
use super::options::{Exceptions, SessionOption};
use super::queue::Event;
use super::sessions::SessionId;
use crate::args::{Args, IntoArgs};
use crate::destroy::destroy;
use crate::error::Error;
use crate::name::Name;
use crate::reply::{IntoReturn, Reply};
use crate::session::handler;
use crate::states::States;

/// What a state receives: the kernel, its session's heap, and the event that it handles.
///
/// Calls that run other states before they return, such as [`call`](Context::call),
/// [`Session::spawn`](crate::Session::spawn) and [`signal_now`](Context::signal_now), need the whole context: the heap
/// can't be borrowed meanwhile. [`split`](Context::split) gives all other calls beside a borrowed heap.
///
/// ```
/// use lenore::{Context, Kernel, Session};
///
/// fn greet(cx: &mut Context<'_, Vec<String>>) -> lenore::Result {
///     let name = cx.take::<String>(0)?;
///     cx.heap().push(format!("hello, {name}"));
///     Ok(())
/// }
///
/// # fn main() -> Result<(), lenore::Error> {
/// let mut kernel = Kernel::new()?;
/// let id = Session::new(Vec::new())
///     .state("_start", |cx| cx.yield_("greet", (String::from("Lenore"),)))
///     .state("greet", greet)
///     .state("_stop", |cx| assert_eq!(*cx.heap(), ["hello, Lenore"]))
///     .spawn(&mut kernel)?;
/// kernel.run()
/// # }
/// ```
///
/// # When the session has stopped
///
/// A state may stop its own session by force: with a signal, with [`stop`](Context::stop), or in a nested slice. The
/// state then runs to its end with its heap and its arguments, but there is no running session any more, and
/// [`session`](Context::session) returns the kernel. Calls that act for the running session have no effect from then
/// on:
///
/// - Those that return a `Result` fail with [`Error::NoActiveSession`]: [`alias_set`](Context::alias_set),
///   [`select_read`](Context::select_read), [`alarm_remove`](Context::alarm_remove), the constructors of wheels, and
///   others.
/// - [`delay_set`](Context::delay_set) and [`alarm_set`](Context::alarm_set) return an id that belongs to no alarm.
/// - All others do nothing: [`yield_`](Context::yield_), [`delay`](Context::delay), [`sig`](Context::sig),
///   [`sig_child`](Context::sig_child), [`fork`](Context::fork), and so on.
///
/// Calls that name a session, such as [`post`](Context::post), work as before. The kernel is then the sender.
///
/// POE: `@_[KERNEL, SESSION, HEAP, STATE, SENDER, CALLER_STATE, CALLER_FILE, CALLER_LINE, ARG0..$#_]`.
#[doc(alias = "KERNEL")]
pub struct Context<'a, H> {
    pub(super) kernel: &'a mut Kernel,
    event: &'a mut Event,
    heap: PhantomData<fn() -> H>,
}

impl<H> Context<'_, H> {
    #[inline]
    pub(crate) fn core(&self) -> &Core {
        &self.kernel.core
    }

    #[inline]
    pub(crate) fn core_mut(&mut self) -> &mut Core {
        &mut self.kernel.core
    }
}

impl<'a, H: 'static> Context<'a, H> {
    pub(crate) fn new(kernel: &'a mut Kernel, event: &'a mut Event) -> Context<'a, H> {
        Context { kernel, event, heap: PhantomData }
    }

    /// Returns the id of the session to which this context's heap belongs, even if the session has stopped.
    pub(super) fn own_id(&self) -> SessionId {
        self.event.dest
    }

    /// Borrows the session's heap.
    ///
    /// POE: `$_[HEAP]`.
    #[doc(alias = "HEAP")]
    #[doc(alias("get_heap", "OBJECT"))]
    pub fn heap(&mut self) -> &mut H {
        self.parts().0
    }

    /// Borrows the heap and the kernel's calls, both at once: all calls but those that run other states before they
    /// return.
    ///
    /// ```
    /// # use lenore::{Kernel, Session};
    /// # fn main() -> Result<(), lenore::Error> {
    /// # let mut kernel = Kernel::new()?;
    /// Session::new(vec!["a", "b"])
    ///     .state("_start", |cx| {
    ///         let (heap, mut calls) = cx.split();
    ///         heap.iter().for_each(|name| calls.yield_("work", (*name,)));
    ///     })
    ///     .state("work", |cx| assert!(["a", "b"].contains(cx.arg::<&str>(0).unwrap())))
    ///     .spawn(&mut kernel)?;
    /// kernel.run()
    /// # }
    /// ```
    #[inline]
    pub fn split(&mut self) -> (&mut H, Calls<'_>) {
        let (heap, core) = self.parts();
        (heap, Calls::new(core))
    }

    #[inline]
    pub(crate) fn parts(&mut self) -> (&mut H, &mut Core) {
        let Kernel { core, bodies } = &mut *self.kernel;
        let body = bodies[self.event.dest.slot()].as_mut();
        let heap = body.and_then(|body| body.heap.downcast_mut());
        (heap.expect("a session's heap stays, with the type of its states, while one of them runs"), core)
    }

    /// Tells whether no other state of the session is on the stack.
    pub(crate) fn is_outermost(&self) -> bool {
        let me = self.event.dest;
        self.kernel.bodies[me.slot()].as_ref().is_some_and(|body| body.id == me && body.on_stack == 1)
    }

    /// Gives the session another heap and other states, and returns a context with them. The state that runs must be
    /// the session's [only one](Self::is_outermost) on the stack, and must not use the old context any more: its heap
    /// is gone.
    pub(crate) fn replace_session<G: 'static>(&mut self, heap: G, states: States) -> Context<'_, G> {
        let me = self.event.dest;
        let body = self.kernel.bodies[me.slot()].as_mut().filter(|body| body.id == me);
        let old = body.map(|body| {
            (std::mem::replace(&mut body.heap, Box::new(heap)), std::mem::replace(&mut body.states, states))
        });
        if let Some(record) = self.kernel.core.sessions.get_mut(me) {
            record.heap = std::any::type_name::<G>();
        }
        // Only now, with the new ones in place: both are the program's own, and their destructors may panic.
        if let Some((heap, states)) = old {
            destroy(heap);
            states.destroy();
        }
        Context { kernel: self.kernel, event: self.event, heap: PhantomData }
    }

    /// Borrows the argument at `position`, counted from 0.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] when there is no such argument, when it was taken before, or when its type is not `T`. The
    /// error names the session, the state, the position, and both types.
    ///
    /// POE: `$_[ARG0]`, `$_[ARG1]`, ...
    #[doc(alias = "ARG0")]
    pub fn arg<T: 'static>(&self, position: usize) -> Result<&T, Error> {
        self.event.args.get(position).map_err(|source| Error::Argument {
            session: self.event.dest,
            state: self.event.name,
            source,
        })
    }

    /// Moves the argument at `position`, counted from 0, out of the event.
    ///
    /// # Errors
    ///
    /// As [`arg`](Context::arg); an argument of another type stays.
    ///
    /// POE: `$_[ARG0]`, `$_[ARG1]`, ...
    pub fn take<T: 'static>(&mut self, position: usize) -> Result<T, Error> {
        let (session, state) = (self.event.dest, self.event.name);
        self.event.args.take(position).map_err(|source| Error::Argument { session, state, source })
    }

    /// Borrows all arguments.
    ///
    /// POE: `@_[ARG0..$#_]`.
    pub fn args(&mut self) -> &mut Args {
        &mut self.event.args
    }

    /// Returns the name under which this state runs: the name of the event, or `_default`.
    ///
    /// POE: `$_[STATE]`.
    #[doc(alias = "STATE")]
    pub fn state_name(&self) -> Name {
        self.event.name
    }

    /// Returns the session that sent the event.
    ///
    /// It is [`SessionId::KERNEL`] if the kernel sent the event, or code outside of any state.
    ///
    /// POE: `$_[SENDER]`.
    #[doc(alias = "SENDER")]
    pub fn sender(&self) -> SessionId {
        self.event.sender
    }

    /// Returns the state from which the event was sent, or `None` if it was sent outside of any state.
    ///
    /// POE: `$_[CALLER_STATE]`.
    #[doc(alias = "CALLER_STATE")]
    pub fn caller_state(&self) -> Option<Name> {
        self.event.from
    }

    /// Returns the statement that sent the event.
    ///
    /// POE: `$_[CALLER_FILE]` and `$_[CALLER_LINE]`.
    #[doc(alias = "CALLER_FILE")]
    #[doc(alias = "CALLER_LINE")]
    pub fn caller(&self) -> &'static Location<'static> {
        self.event.location
    }

    /// Runs a state of another session, or of this one, before it returns; see [`Kernel::call`].
    ///
    /// If a state of another session fails, that session gets a `DIE` signal, and the call returns [`Reply::NoValue`].
    ///
    /// # Errors
    ///
    /// As [`Kernel::call`].
    ///
    /// POE: `call`.
    #[track_caller]
    pub fn call<'d>(
        &mut self,
        dest: impl Into<Dest<'d>>,
        event: impl Into<Name>,
        args: impl IntoArgs,
    ) -> Result<Reply, Error> {
        self.kernel.call(dest, event, args)
    }

    /// Dispatches a signal at once; see [`Kernel::signal_now`].
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSession`] when `dest` is not the id or an alias of a living session.
    pub fn signal_now<'d>(
        &mut self,
        dest: impl Into<Dest<'d>>,
        signal: impl Into<Name>,
        args: impl IntoArgs,
    ) -> Result<(), Error> {
        self.kernel.signal_now(dest, signal, args)
    }

    /// Adds a state to the running session, or replaces the state of that name, from the next event on.
    ///
    /// # Errors
    ///
    /// [`Error::ReservedState`] for `_signal`; [`Error::NoActiveSession`] once the session has stopped.
    ///
    /// POE: `state` with a handler.
    pub fn state<F, R>(&mut self, name: impl Into<Name>, state: F) -> Result<(), Error>
    where
        F: Fn(&mut Context<'_, H>) -> R + 'static,
        R: IntoReturn,
    {
        let name = name.into();
        if name == "_signal" {
            return Err(Error::ReservedState(name));
        }
        let me = self.event.dest;
        let body = self.kernel.bodies[me.slot()].as_mut().filter(|body| body.id == me).ok_or(Error::NoActiveSession)?;
        if body.options.has(SessionOption::Debug) && body.states.find(name).is_some() {
            log::warn!(target: "lenore::events", "{me} redefines its state {name}");
        }
        body.states.insert(name, handler(state));
        Ok(())
    }

    /// Removes a state of the running session. It may be the state that runs.
    ///
    /// POE: `state` without a handler.
    pub fn state_clear(&mut self, name: impl Into<Name>) {
        let me = self.event.dest;
        if let Some(body) = self.kernel.bodies[me.slot()].as_mut().filter(|body| body.id == me) {
            body.states.remove(name.into());
        }
    }

    /// Makes the running session a child of the kernel.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyDetached`] if it is a child of the kernel already; [`Error::NoActiveSession`] once it has
    /// stopped.
    ///
    /// POE: `detach_myself`.
    pub fn detach_myself(&mut self) -> Result<(), Error> {
        self.kernel.detach_running()
    }

    /// Makes a child of the running session a child of the kernel.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSession`] if `child` is not the id or an alias of a living session; [`Error::NotYourChild`] if it
    /// is not a child of the running session; [`Error::NoActiveSession`] once the running session has stopped.
    ///
    /// POE: `detach_child`.
    pub fn detach_child<'d>(&mut self, child: impl Into<Dest<'d>>) -> Result<(), Error> {
        self.kernel.detach_child(child)
    }

    /// Stops every session at once, this one included; see [`Kernel::stop`].
    ///
    /// The state that called this still runs to its end.
    ///
    /// POE: `stop`.
    pub fn stop(&mut self) {
        self.kernel.stop();
    }

    /// Runs a slice inside this state; see [`Kernel::run_one_timeslice`].
    ///
    /// # Errors
    ///
    /// As [`Kernel::run`].
    ///
    /// POE: `run_one_timeslice`.
    pub fn run_one_timeslice(&mut self) -> Result<bool, Error> {
        self.kernel.run_one_timeslice()
    }

    /// Runs slices inside this state; see [`Kernel::run_while`].
    ///
    /// # Errors
    ///
    /// As [`Kernel::run`].
    ///
    /// POE: `run_while`.
    pub fn run_while(&mut self, go_on: impl FnMut() -> bool) -> Result<(), Error> {
        self.kernel.run_while(go_on)
    }

    /// Runs everything to its end inside this state; see [`Kernel::run`].
    ///
    /// # Errors
    ///
    /// As [`Kernel::run`].
    ///
    /// POE: `run`.
    pub fn run(&mut self) -> Result<(), Error> {
        self.kernel.run()
    }

    /// Chooses what becomes of exceptions from now on; see [`Kernel::catch_exceptions`].
    ///
    /// POE: `POE::Kernel->CATCH_EXCEPTIONS`.
    pub fn catch_exceptions(&mut self, exceptions: Exceptions) -> Exceptions {
        self.kernel.catch_exceptions(exceptions)
    }
}

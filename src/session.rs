//! A session before it lives: its states and its heap.

use std::fmt;
use std::rc::Rc;

use crate::args::{Args, IntoArgs};
use crate::error::{Error, Exception};
use crate::kernel::{AsKernel, Context, Event, Kernel, Options, Place, SessionId, SessionOption, Switch, kernel_of};
use crate::name::Name;
use crate::reply::{IntoReturn, Reply};
use crate::states::States;

/// A state with its heap's type erased.
#[derive(Clone)]
pub(crate) enum Handler {
    /// It has captured nothing: it takes no memory, and there is nothing to count or to drop.
    Code(&'static State),
    Shared(Rc<State>),
}

type State = dyn Fn(&mut Kernel, &mut Event) -> Result<Reply, Exception>;

impl Handler {
    pub(crate) fn new(state: impl Fn(&mut Kernel, &mut Event) -> Result<Reply, Exception> + 'static) -> Handler {
        if size_of_val(&state) == 0 && !needs_drop(&state) {
            // Nothing is allocated for a value without a size.
            Handler::Code(Box::leak(Box::new(state)))
        } else {
            Handler::Shared(Rc::new(state))
        }
    }

    #[inline]
    pub(crate) fn run(&self, kernel: &mut Kernel, event: &mut Event) -> Result<Reply, Exception> {
        match self {
            Handler::Code(state) => state(kernel, event),
            Handler::Shared(state) => state(kernel, event),
        }
    }

    /// Tells whether what it has captured goes with it.
    #[inline]
    pub(crate) fn is_last(&self) -> bool {
        matches!(self, Handler::Shared(state) if Rc::strong_count(state) == 1)
    }
}

fn needs_drop<T>(_: &T) -> bool {
    std::mem::needs_drop::<T>()
}

/// Builds a session: a heap of any type, and a table of named states that work on it.
///
/// A state is a closure, a function, or a method of the heap's type that takes the context in place of `self`. It may
/// return `()`, a value for whoever [`call`](Kernel::call)s it, or a [`Result`](crate::Result) of either.
///
/// ```
/// use lenore::{Context, Kernel, Session};
///
/// struct Counter { left: u32 }
///
/// impl Counter {
///     fn tick(cx: &mut Context<'_, Counter>) {
///         cx.heap().left -= 1;
///         if cx.heap().left > 0 {
///             cx.yield_("tick", ());
///         }
///     }
/// }
///
/// # fn main() -> Result<(), lenore::Error> {
/// let mut kernel = Kernel::new()?;
/// Session::new(Counter { left: 3 })
///     .state("_start", |cx| cx.yield_("tick", ()))
///     .state("tick", Counter::tick)
///     .state("_stop", |cx| assert_eq!(cx.heap().left, 0))
///     .spawn(&mut kernel)?;
/// kernel.run()
/// # }
/// ```
///
/// POE: `POE::Session->create`: inline states are closures, package states plain functions, object states methods of
/// the heap's type.
#[must_use = "does nothing until it is spawned"]
pub struct Session<H> {
    heap: H,
    /// Not used with a table that is shared.
    states: Vec<(Name, Handler)>,
    shared: Option<States>,
    args: Args,
    options: Options,
    place: Place,
}

impl<H> fmt::Debug for Session<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("heap", &std::any::type_name::<H>()).finish_non_exhaustive()
    }
}

impl<H: 'static> Session<H> {
    /// Begins a session with this heap and no states.
    pub fn new(heap: H) -> Session<H> {
        let (states, args, options) = (Vec::new(), Args::new(), Options::default());
        Session { heap, states, shared: None, args, options, place: Place::Foreground }
    }

    /// Begins a session with a table that was made once for many sessions alike; `_start` is in it.
    pub(crate) fn with_states(heap: H, states: States) -> Session<H> {
        Session { shared: Some(states), ..Session::new(heap) }
    }

    /// Adds a state, or replaces the one of that name.
    ///
    /// `_start` runs when the session is spawned, and must be there; `_stop` runs when it ends, `_child` and `_parent`
    /// when its place in the tree changes, and `_default` for events that have no state of their own.
    #[doc(alias("inline_states", "object_states", "package_states"))]
    pub fn state<F, R>(mut self, name: impl Into<Name>, state: F) -> Session<H>
    where
        F: Fn(&mut Context<'_, H>) -> R + 'static,
        R: IntoReturn,
    {
        // Of those with one name the last one counts, once the table is sorted.
        self.states.push((name.into(), handler(state)));
        self
    }

    /// Sets the arguments of `_start`.
    pub fn args(mut self, args: impl IntoArgs) -> Session<H> {
        self.args = args.into_args();
        self
    }

    /// Sets an option.
    ///
    /// POE: `create`'s `options`.
    #[doc(alias = "options")]
    pub fn option(mut self, option: SessionOption, switch: Switch) -> Session<H> {
        self.options.set(option, switch);
        self
    }

    /// Makes the session a background session. A background session stays in the process that made it, and keeps nothing running. It
    /// is for a job beside a server. The [guide](crate::guide::background) shows some.
    ///
    /// *In a forked child* there is no such session, whoever forked: a Daemon, [`fork`](Context::fork), the function of a
    /// [`Run`](crate::wheel::Run), or the program itself. Its wheels, listeners and handles are closed there, and its alarms,
    /// posted events, signal watchers and aliases are gone. None of its states runs, not even `_stop`, and its parent gets no
    /// `_child`. To post to it or to call it is [`Error::NoSuchSession`], and a postback of it does nothing.
    ///
    /// The child forgets what the session owns and does not drop it: the heap, what its states have captured, the arguments of its
    /// alarms and of the events that it has posted, and the arguments that it has bound to signals, child processes and handles.
    /// A destructor that removes a file or takes leave of a database must not run twice. So a descriptor that is only in the
    /// heap, such as a [`File`](std::fs::File), stays open in the child.
    ///
    /// Three things differ. A postback of another session in its heap is forgotten as well, and so keeps that other session alive in
    /// the child. The filters of its wheels are dropped in the child. A signal that only background sessions watch has its former
    /// disposition in the child.
    ///
    /// *It keeps nothing running*: when only background sessions have something to wait for, the kernel sends `IDLE`, and all
    /// sessions stop. Until then a background session lives as any other does. TERM and other signals reach it.
    ///
    /// *Sessions that it creates* are background sessions as well, and stay so when it has stopped. A background session can have
    /// child processes by [`Run`](crate::wheel::Run). It can't [`fork`](Context::fork) or spawn a [`Daemon`](crate::Daemon):
    /// that is [`Error::InBackground`].
    ///
    /// A program that becomes a daemon by [`detach`](crate::daemon::DaemonBuilder::detach) takes its background sessions along. One that
    /// forks for that by itself has to create them afterwards.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lenore::{Kernel, Session};
    ///
    /// # fn main() -> Result<(), lenore::Error> {
    /// let mut kernel = Kernel::new()?;
    /// Session::new(())
    ///     .state("_start", |cx| cx.delay("refresh", Duration::from_secs(3600), ()))
    ///     .state("refresh", |cx| cx.delay("refresh", Duration::from_secs(3600), ()))
    ///     .background()
    ///     .spawn(&mut kernel)?;
    /// Session::new(()).state("_start", |_| println!("all that there is to do")).spawn(&mut kernel)?;
    /// kernel.run() // does not wait for the hour to pass
    /// # }
    /// ```
    ///
    /// POE: nothing like it. A program there has to do this by hand in each child.
    pub fn background(mut self) -> Session<H> {
        self.place = Place::Background;
        self
    }

    /// Has it keep nothing running, and be in each forked child.
    pub(crate) fn service(mut self) -> Session<H> {
        self.place = Place::Service;
        self
    }

    /// Creates the session as a child of the running one, runs its `_start` and then its parent's `_child`.
    ///
    /// Takes the kernel, or the context of a state. If `_start` fails, the session exists all the same, and a `DIE`
    /// signal is on its way.
    ///
    /// # Errors
    ///
    /// [`Error::NoStartState`], [`Error::ReservedState`] for `_signal`, [`Error::TooManySessions`]: nothing was
    /// created then.
    ///
    /// POE: `create`.
    #[doc(alias = "create")]
    pub fn spawn<K: AsKernel>(self, kernel: &mut K) -> Result<SessionId, Error> {
        let states = match self.shared {
            Some(states) => states,
            None => check(self.states)?,
        };
        let heap_type = std::any::type_name::<H>();
        kernel_of(kernel).create_session(states, Box::new(self.heap), heap_type, self.args, self.options, self.place)
    }
}

fn check(states: Vec<(Name, Handler)>) -> Result<States, Error> {
    if !states.iter().any(|(name, _)| *name == "_start") {
        return Err(Error::NoStartState);
    }
    if let Some((name, _)) = states.iter().find(|(name, _)| *name == "_signal") {
        return Err(Error::ReservedState(*name));
    }
    Ok(States::new(states))
}

/// Erases the type of a state's heap.
pub(crate) fn handler<H, F, R>(state: F) -> Handler
where
    H: 'static,
    F: Fn(&mut Context<'_, H>) -> R + 'static,
    R: IntoReturn,
{
    Handler::new(move |kernel, event| state(&mut Context::new(kernel, event)).into_return())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static DROPS: Cell<u32> = const { Cell::new(0) };
    }

    /// Without a size, but not without a drop.
    struct Loud;

    impl Drop for Loud {
        fn drop(&mut self) {
            DROPS.set(DROPS.get() + 1);
        }
    }

    #[test]
    fn state_is_counted_and_dropped_only_if_it_has_captured_something() {
        let kept = Handler::new(|_, _| Ok(Reply::NoValue));
        assert!(matches!(kept, Handler::Code(_)) && !kept.is_last());
        let loud = Loud;
        let dropped = Handler::new(move |_, _| {
            let _ = &loud;
            Ok(Reply::NoValue)
        });
        assert!(dropped.is_last() && !dropped.clone().is_last());
        drop(dropped);
        assert_eq!(DROPS.get(), 1);
    }
}

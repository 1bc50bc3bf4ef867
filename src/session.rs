//! Building a session: its states and its heap.

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
    /// A state that captured nothing: it takes no memory, and there is nothing to count or to drop.
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

    /// Tells whether dropping this handler drops the values that the state captured.
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
/// A state is a closure, a function, or a method of the heap's type that takes the context in place of `self`. A state
/// may return `()`, a value for its caller in [`call`](Kernel::call), or a [`Result`](crate::Result) of either.
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
/// POE: `POE::Session->create`. Its inline states are closures here, its package states are plain functions, and its
/// object states are methods of the heap's type.
#[must_use = "does nothing until it is spawned"]
pub struct Session<H> {
    heap: H,
    /// Not used if `shared` has a table.
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
    /// Starts building a session with this heap and no states.
    pub fn new(heap: H) -> Session<H> {
        let (states, args, options) = (Vec::new(), Args::new(), Options::default());
        Session { heap, states, shared: None, args, options, place: Place::Foreground }
    }

    /// Starts building a session that shares its table of states with other sessions of its kind. The table must have
    /// `_start`.
    pub(crate) fn with_states(heap: H, states: States) -> Session<H> {
        Session { shared: Some(states), ..Session::new(heap) }
    }

    /// Adds a state, or replaces the state of that name.
    ///
    /// The kernel itself runs states of these names:
    ///
    /// - `_start` when the session is spawned, with the arguments from [`args`](Session::args). Every session must have
    ///   it.
    /// - `_stop` when the session ends.
    /// - `_child` when the session gets or loses a child session. [`ChildChange`](crate::ChildChange) lists its
    ///   arguments.
    /// - `_parent` when the session gets another parent. ARG0 = the former parent, ARG1 = the new one, each a
    ///   [`SessionId`].
    /// - `_default` for an event that has no state of its own. ARG0 = the event's [`Name`], ARG1 = its arguments as
    ///   [`Args`].
    #[doc(alias("inline_states", "object_states", "package_states"))]
    pub fn state<F, R>(mut self, name: impl Into<Name>, state: F) -> Session<H>
    where
        F: Fn(&mut Context<'_, H>) -> R + 'static,
        R: IntoReturn,
    {
        // If several have the same name, `States::new` keeps the last.
        self.states.push((name.into(), handler(state)));
        self
    }

    /// Sets the arguments of `_start`.
    pub fn args(mut self, args: impl IntoArgs) -> Session<H> {
        self.args = args.into_args();
        self
    }

    /// Switches an option of the session on or off.
    ///
    /// POE: `create`'s `options`.
    #[doc(alias = "options")]
    pub fn option(mut self, option: SessionOption, switch: Switch) -> Session<H> {
        self.options.set(option, switch);
        self
    }

    /// Makes the session a background session.
    ///
    /// A background session stays in the process that made it, and keeps nothing running. Use one for a job beside a
    /// server. The [guide](crate::guide::background) shows some.
    ///
    /// *A forked child does not have the session*, no matter what forked: a Daemon, [`fork`](Context::fork), the
    /// function of a [`Run`](crate::wheel::Run), or the program itself. The child closes the session's wheels,
    /// listeners and handles. It removes the session's alarms, posted events, signal watchers and aliases. None of the
    /// session's states runs in the child, not even `_stop`, and its parent gets no `_child`. Posting to the session or
    /// calling it fails in the child with [`Error::NoSuchSession`], and the session's postbacks do nothing there.
    ///
    /// The child does not drop what the session owns, but leaks it: the heap, the values that its states captured, the
    /// arguments of its alarms and of the events that it posted, and the arguments that it bound to signals, child
    /// processes and handles. The reason is that a destructor that removes a file or logs out of a database must not
    /// run twice. So a descriptor that is only in the heap, such as a [`File`](std::fs::File), stays open in the child.
    ///
    /// Three details: If the heap has a postback of another session, that postback is leaked too, and keeps the other
    /// session alive in the child. The filters of the session's wheels are dropped in the child. A signal that only
    /// background sessions watch gets back, in the child, the disposition that it had before they watched it.
    ///
    /// *It keeps nothing running*: when only background sessions have something to wait for, the kernel sends the
    /// signal `IDLE`, and all sessions stop. Until then a background session lives like any other. `TERM` and other
    /// signals reach it.
    ///
    /// *The sessions that it creates* are background sessions as well, and stay so after it has stopped. A background
    /// session can start child processes with [`Run`](crate::wheel::Run). It can neither [`fork`](Context::fork) nor
    /// spawn a [`Daemon`](crate::Daemon): both fail with [`Error::InBackground`].
    ///
    /// A program that becomes a daemon with [`detach`](crate::daemon::DaemonBuilder::detach) keeps its background
    /// sessions. A program that forks by itself to become a daemon must create them after that fork.
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
    /// POE: nothing like it. A POE program has to do this by hand in each child.
    pub fn background(mut self) -> Session<H> {
        self.place = Place::Background;
        self
    }

    /// Makes the session keep nothing running, as a background session does, but stay in each forked child.
    pub(crate) fn service(mut self) -> Session<H> {
        self.place = Place::Service;
        self
    }

    /// Creates the session as a child of the running session, runs its `_start` and then its parent's `_child`.
    ///
    /// `kernel` is the kernel or the context of a state. Outside of any state the new session's parent is the kernel.
    /// If `_start` fails, the session exists all the same, and the kernel queues a `DIE` signal for it.
    ///
    /// # Errors
    ///
    /// [`Error::NoStartState`] if the session has no `_start`; [`Error::ReservedState`] if it has a state `_signal`;
    /// [`Error::TooManySessions`]. In each case no session was created.
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

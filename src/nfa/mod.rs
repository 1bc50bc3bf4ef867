//! State machines: sessions that handle an event differently in each of their states.
//!
//! An [`Nfa`] groups its handlers by *state*. Only the handlers of the current state can run, so that no handler has to
//! ask how far things have come. [`goto_state`](MachineContext::goto_state) makes another state the current one.
//! [`call_state`](MachineContext::call_state) does that as well, and remembers the state to which
//! [`return_state`](MachineContext::return_state) goes back. So a dialogue that several states need is written once.
//!
//! # What happens to an event
//!
//! An event goes to the first of these handlers that exists:
//!
//! 1. the current state's handler of that name;
//! 2. the handler of that name that was added for all states with
//!    [`handle_everywhere`](MachineContext::handle_everywhere);
//! 3. the current state's `_default`, which gets ARG0 = the event's name and ARG1 = its [`Args`](crate::Args).
//!
//! If none exists, the event is an exception, [`NfaError::Unhandled`], because a machine has to say which events it
//! expects. That goes for `_child`, `_parent` and signals, too. Only `_start` and `_stop` are ignored.
//!
//! # What a transition does
//!
//! A transition has four steps:
//!
//! 1. The machine checks that the new state exists, and that it has a handler for the enter event if one is named.
//! 2. The old state's handler `leave` runs, if there is one, without arguments.
//! 3. The new state becomes the current one.
//! 4. The new state's handler of the enter event runs, with the arguments given.
//!
//! The machine runs both handlers directly. Their sender is the machine itself, and they have no caller state.
//!
//! A transition is posted, and so takes effect after the events that were queued before it. With
//! [`Transitions::Immediate`] it is made at once, and so is the first [`goto_state`](Machine::goto_state) in any case.
//!
//! POE: `POE::NFA`.

mod automaton;
mod context;
mod error;
mod machine;

use std::fmt;
use std::rc::Rc;

use automaton::{Automaton, is_reserved};
pub use context::MachineContext;
pub use error::NfaError;
pub use machine::Machine;

use crate::error::Error;
use crate::kernel::AsKernel;
use crate::name::Name;
use crate::reply::IntoReturn;

/// Builds a state machine: a session with a runstate of any type, and handlers that belong to states.
///
/// A new machine is in no state. [`Machine::goto_state`] puts it into its first state.
///
/// ```
/// use lenore::Kernel;
/// use lenore::nfa::{Nfa, Transitions};
///
/// # fn main() -> Result<(), lenore::Error> {
/// let mut kernel = Kernel::new()?;
/// let turnstile = Nfa::new(0)
///     .transitions(Transitions::Immediate) // or else they would wait behind the events below
///     .state("locked", "coin", |cx| cx.goto_state("unlocked", "open", ()))
///     .state("locked", "push", |_| ()) // in vain
///     .state("unlocked", "open", |cx| *cx.runstate() += 1)
///     .state("unlocked", "push", |cx| cx.goto_state("locked", None, ()))
///     .state("locked", "closing time", |cx| assert_eq!(*cx.runstate(), 2, "times it has opened"))
///     .spawn(&mut kernel)?;
/// turnstile.goto_state(&mut kernel, "locked", None, ())?;
/// for event in ["push", "coin", "push", "coin", "push", "closing time"] {
///     kernel.post(turnstile, event, ())?;
/// }
/// kernel.run()
/// # }
/// ```
///
/// POE: `POE::NFA->spawn`. Its inline states are closures here, its package states are plain functions, and its object
/// states are methods of the runstate's type.
#[must_use = "does nothing until it is spawned"]
pub struct Nfa<R> {
    automaton: Automaton<R>,
}

impl<R> fmt::Debug for Nfa<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nfa").field("runstate", &std::any::type_name::<R>()).finish_non_exhaustive()
    }
}

impl<R: 'static> Nfa<R> {
    /// Starts building a machine with this runstate and no states.
    pub fn new(runstate: R) -> Nfa<R> {
        Nfa { automaton: Automaton::new(runstate) }
    }

    /// Makes `handler` handle the event `event` while `state` is the current state, or replaces the handler that did.
    ///
    /// The handler of `leave` runs when the machine leaves the state. The handler of `_default` runs for events that
    /// have no handler of their own. Handlers of `_start` and `_stop` never run.
    pub fn state<F, T>(mut self, state: impl Into<Name>, event: impl Into<Name>, handler: F) -> Nfa<R>
    where
        F: Fn(&mut MachineContext<'_, R>) -> T + 'static,
        T: IntoReturn,
    {
        self.automaton.insert(state.into(), event.into(), erase(handler));
        self
    }

    /// Sets when transitions are made. Default: [`Transitions::Posted`].
    ///
    /// POE: the option `immediate`.
    #[doc(alias = "immediate")]
    pub fn transitions(mut self, transitions: Transitions) -> Nfa<R> {
        self.automaton.transitions = transitions;
        self
    }

    /// Creates the machine as a child of the running session, and returns a handle to it.
    ///
    /// `kernel` is the kernel or the context of a state. The machine is in no state yet. Like any session it ends when
    /// nothing keeps it alive.
    ///
    /// # Errors
    ///
    /// [`Error::Exception`] with [`NfaError::NoStates`] for a machine without any state; [`Error::ReservedState`] when
    /// a handler is for `_signal` or for one of a machine's own events, whose names begin with `_nfa_`;
    /// [`Error::TooManySessions`]. In each case no machine was created.
    ///
    /// POE: `spawn`.
    pub fn spawn<K: AsKernel>(self, kernel: &mut K) -> Result<Machine, Error> {
        if self.automaton.is_empty() {
            return Err(Error::Exception(NfaError::NoStates.into()));
        }
        if let Some(name) = self.automaton.events().find(|name| is_reserved(*name)) {
            return Err(Error::ReservedState(name));
        }
        self.automaton.into_session().spawn(kernel).map(Machine::of)
    }
}

/// When a machine makes the transitions that its handlers ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Transitions {
    /// In turn with posted events: events queued before are handled by the old state, later ones by the new.
    #[default]
    Posted,
    /// Before [`goto_state`](MachineContext::goto_state), [`call_state`](MachineContext::call_state) or
    /// [`return_state`](MachineContext::return_state) returns, including the enter event.
    ///
    /// Enter events that go to further states nest. If they go round in a circle, they never end. A transition that a
    /// `leave` handler asks for is posted all the same, because a transition is already under way.
    Immediate,
}

/// A handler with the type of what it returns erased.
type MachineHandler<R> = Rc<dyn Fn(&mut MachineContext<'_, R>) -> crate::Result<crate::Reply>>;

fn erase<R, F, T>(handler: F) -> MachineHandler<R>
where
    F: Fn(&mut MachineContext<'_, R>) -> T + 'static,
    T: IntoReturn,
{
    Rc::new(move |cx| handler(cx).into_return())
}

//! State machines: sessions whose events mean something else in each of their states.
//!
//! An [`Nfa`] groups its handlers by *state*. Only the current state's are eligible, so that no handler has to ask how
//! far things have come. [`goto_state`](MachineContext::goto_state) makes another state the current one;
//! [`call_state`](MachineContext::call_state) does so as well and remembers the way back, for
//! [`return_state`](MachineContext::return_state): a dialogue that several states need is written once.
//!
//! # What happens to an event
//!
//! It goes to the current state's handler of that name; or else to one that was added for all states with
//! [`handle_everywhere`](MachineContext::handle_everywhere); or else to the current state's `_default`, which gets
//! ARG0 = the event's name and ARG1 = its [`Args`](crate::Args). An event that finds none of these is an exception,
//! [`NfaError::Unhandled`]: a machine says what it expects. That goes for `_child`, `_parent` and signals too; only
//! `_start` and `_stop` are swallowed.
//!
//! # What a transition does
//!
//! 1. It checks that the state exists, and that it has a handler for the enter event if one is named.
//! 2. It runs the old state's handler `leave`, if there is one, without arguments.
//! 3. It makes the new state the current one.
//! 4. It runs the enter event there, with the arguments given. This and `leave` are run directly: their sender is the
//!    machine itself, and they have no caller state.
//!
//! It is posted, and so takes effect after the events that were queued before it, unless [`Transitions::Immediate`] is
//! set. The first [`goto_state`](Machine::goto_state) is always carried out at once.
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
/// A new machine is in no state: [`Machine::goto_state`] puts it into its first one.
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
/// POE: `POE::NFA->spawn`: inline states are closures, package states plain functions, object states methods of the
/// runstate's type.
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
    /// Begins a machine with this runstate and no states.
    pub fn new(runstate: R) -> Nfa<R> {
        Nfa { automaton: Automaton::new(runstate) }
    }

    /// Makes `handler` handle the event `event` while `state` is the current state, or replaces the one that
    /// did.
    ///
    /// `leave` runs when the state is left, `_default` for events that have no handler of their own. Handlers for
    /// `_start` and `_stop` never run.
    pub fn state<F, T>(mut self, state: impl Into<Name>, event: impl Into<Name>, handler: F) -> Nfa<R>
    where
        F: Fn(&mut MachineContext<'_, R>) -> T + 'static,
        T: IntoReturn,
    {
        self.automaton.insert(state.into(), event.into(), erase(handler));
        self
    }

    /// Sets when transitions are made; [`Transitions::Posted`] unless this is called.
    ///
    /// POE: the option `immediate`.
    #[doc(alias = "immediate")]
    pub fn transitions(mut self, transitions: Transitions) -> Nfa<R> {
        self.automaton.transitions = transitions;
        self
    }

    /// Creates the machine as a child of the running session; it is in no state yet. Returns it as it is seen from outside.
    ///
    /// Takes the kernel, or the context of a state. The machine lives as long as any session: it needs some reason to.
    ///
    /// # Errors
    ///
    /// [`Error::Exception`] with [`NfaError::NoStates`] for a machine without any state; [`Error::ReservedState`] when
    /// a handler is for `_signal` or for one of a machine's own events, whose names begin with `_nfa_`;
    /// [`Error::TooManySessions`]. Nothing was created then.
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
    /// Before [`goto_state`](MachineContext::goto_state) and its kin return, the enter event included.
    ///
    /// Enter events that go to further states nest; those that chase each other in a circle never end. What a `leave`
    /// handler asks for is posted all the same, as a transition is under way then.
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

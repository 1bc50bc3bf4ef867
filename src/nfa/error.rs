//! What can go wrong with a machine.

use std::fmt;

use crate::kernel::SessionId;
use crate::name::Name;

/// A machine that was built or driven the wrong way.
///
/// Except for [`NoStates`](NfaError::NoStates) and [`NotAMachine`](NfaError::NotAMachine), these are exceptions of the
/// machine's session: find them with [`Exception::downcast_ref`](crate::Exception::downcast_ref). The current state is
/// `(undef)` before the first transition.
///
/// POE: texts with which `POE::NFA` dies.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NfaError {
    /// A machine was built without any state; it was not created.
    NoStates,
    /// The session is not a machine, but an ordinary session.
    NotAMachine(SessionId),
    /// There is no such state to go to; the transition was not made.
    NoSuchState {
        /// The machine.
        machine: SessionId,
        /// Its current state.
        state: Name,
        /// The event during which the transition was asked for; `None` if it was asked for outside of any event.
        event: Option<Name>,
        /// The state that does not exist.
        wanted: Name,
    },
    /// The state to go to has no handler for the event it is to be entered with; the transition was not made.
    NoEnterEvent {
        /// The machine.
        machine: SessionId,
        /// Its current state.
        state: Name,
        /// The state to go to.
        wanted: Name,
        /// The event that it does not handle.
        event: Name,
    },
    /// No state was called that could return; nothing was changed.
    EmptyStack {
        /// The machine.
        machine: SessionId,
        /// Its current state.
        state: Name,
        /// The event during which the return was asked for; `None` if it was asked for outside of any event.
        event: Option<Name>,
    },
    /// Neither the event nor `_default` has a handler in the current state.
    Unhandled {
        /// The machine.
        machine: SessionId,
        /// Its current state.
        state: Name,
        /// The event.
        event: Name,
    },
}

impl fmt::Display for NfaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let during = |event: &Option<Name>| event.map_or(String::new(), |event| format!(", event {event}"));
        match self {
            NfaError::NoStates => f.write_str("a machine needs a state"),
            NfaError::NotAMachine(id) => write!(f, "{id} is not a machine"),
            NfaError::NoSuchState { machine, state, event, wanted } => {
                write!(f, "{machine}, in state {state}{}: there is no state {wanted} to go to", during(event))
            }
            NfaError::NoEnterEvent { machine, state, wanted, event } => {
                write!(
                    f,
                    "{machine}, in state {state}: state {wanted} can't be entered with {event}, having no handler"
                )
            }
            NfaError::EmptyStack { machine, state, event } => {
                write!(f, "{machine}, in state {state}{}: no state was called, so none can return", during(event))
            }
            NfaError::Unhandled { machine, state, event } => {
                write!(f, "{machine}, in state {state}: no handler for {event}, nor for _default")
            }
        }
    }
}

impl std::error::Error for NfaError {}

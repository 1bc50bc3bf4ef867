//! A handle to a machine.

use super::Transitions;
use super::automaton::{Entry, Request, STATUS, STOP, Status};
use super::error::NfaError;
use crate::args::IntoArgs;
use crate::error::Error;
use crate::kernel::{AsKernel, Dest, Kernel, SessionId, kernel_of};
use crate::name::{EventOrNone, Name};

/// A handle to a machine: what [`Nfa::spawn`](super::Nfa::spawn) returns.
///
/// The machine's own handlers have the same operations in [`MachineContext`](super::MachineContext). If a transition
/// that is made at once fails here, the machine gets a `DIE` signal, as with any [`call`](Kernel::call), and the
/// operation returns `Ok`.
///
/// ```
/// use lenore::Kernel;
/// use lenore::nfa::Nfa;
///
/// # fn main() -> Result<(), lenore::Error> {
/// let mut kernel = Kernel::new()?;
/// let machine = Nfa::new(()).state("on", "toggle", |_| ()).state("off", "toggle", |_| ()).spawn(&mut kernel)?;
/// assert_eq!(machine.state(&mut kernel)?, "(undef)");
/// machine.goto_state(&mut kernel, "on", "toggle", ())?;
/// assert_eq!(machine.state(&mut kernel)?, "on");
/// kernel.run()
/// # }
/// ```
///
/// POE: the object that `POE::NFA->spawn` returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Machine(SessionId);

impl Machine {
    /// Makes a handle from a session's id, such as the sender of an event.
    ///
    /// If the session is not a machine, each operation fails with
    /// [`NfaError::NotAMachine`](super::NfaError::NotAMachine).
    pub fn of(id: SessionId) -> Machine {
        Machine(id)
    }

    /// Returns the id of the machine's session.
    ///
    /// POE: `ID`.
    #[doc(alias = "ID")]
    pub fn id(self) -> SessionId {
        self.0
    }

    /// Returns the name of the current state; `(undef)` before the first transition.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSession`] when the machine has stopped; [`Error::Exception`] with [`NfaError::NotAMachine`].
    ///
    /// POE: `get_current_state`.
    #[doc(alias = "get_current_state")]
    pub fn state<K: AsKernel>(self, kernel: &mut K) -> Result<Name, Error> {
        self.status(kernel_of(kernel)).map(|status| status.state)
    }

    /// Makes the machine go to `state`, which gets `enter_event` (`None`: no event) with `args`.
    ///
    /// The transition is made at once if the machine is in no state yet, or if its transitions are
    /// [`Transitions::Immediate`]. Otherwise it is made after the events that are queued now.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSession`] when the machine has stopped; [`Error::Exception`] with [`NfaError::NotAMachine`], or
    /// with the exception itself when the machine's own handler does this.
    ///
    /// POE: `goto_state`.
    #[track_caller]
    pub fn goto_state<K: AsKernel>(
        self,
        kernel: &mut K,
        state: impl Into<Name>,
        enter_event: impl Into<EventOrNone>,
        args: impl IntoArgs,
    ) -> Result<(), Error> {
        self.ask(kernel_of(kernel), Request::Goto(Entry::new(state, enter_event, args)))
    }

    /// Makes the machine go to `state` as [`goto_state`](Machine::goto_state) does, and remember its current state and
    /// `return_event` (`None`: no event) for [`return_state`](Machine::return_state).
    ///
    /// # Errors
    ///
    /// As [`goto_state`](Machine::goto_state).
    ///
    /// POE: `call_state`.
    #[track_caller]
    pub fn call_state<K: AsKernel>(
        self,
        kernel: &mut K,
        return_event: impl Into<EventOrNone>,
        state: impl Into<Name>,
        enter_event: impl Into<EventOrNone>,
        args: impl IntoArgs,
    ) -> Result<(), Error> {
        let return_event = return_event.into().name();
        self.ask(kernel_of(kernel), Request::Call { return_event, entry: Entry::new(state, enter_event, args) })
    }

    /// Makes the machine go back to the state that called the current one, which gets its return event with `args`.
    ///
    /// # Errors
    ///
    /// As [`goto_state`](Machine::goto_state).
    ///
    /// POE: `return_state`.
    #[track_caller]
    pub fn return_state<K: AsKernel>(self, kernel: &mut K, args: impl IntoArgs) -> Result<(), Error> {
        self.ask(kernel_of(kernel), Request::Return { args: args.into_args() })
    }

    /// Stops the machine after the events that are queued now, whatever keeps it alive.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSession`] when the machine has already stopped; [`Error::Exception`] with
    /// [`NfaError::NotAMachine`].
    ///
    /// POE: `stop`.
    #[track_caller]
    pub fn stop<K: AsKernel>(self, kernel: &mut K) -> Result<(), Error> {
        let kernel = kernel_of(kernel);
        self.status(kernel)?;
        kernel.post(self.0, STOP, ())
    }

    #[track_caller]
    fn ask(self, kernel: &mut Kernel, request: Request) -> Result<(), Error> {
        let timing = self.status(kernel)?.timing(&request);
        self.send(kernel, request, timing)
    }

    /// Hands a request to the machine's session.
    #[track_caller]
    pub(super) fn send(self, kernel: &mut Kernel, request: Request, timing: Transitions) -> Result<(), Error> {
        let event = request.event();
        match timing {
            Transitions::Posted => kernel.post(self.0, event, (request,)),
            Transitions::Immediate => kernel.call(self.0, event, (request,)).map(drop),
        }
    }

    fn status(self, kernel: &mut Kernel) -> Result<Status, Error> {
        let reply = kernel.call(self.0, STATUS, ())?;
        reply.take().map_err(|_| Error::Exception(NfaError::NotAMachine(self.0).into()))
    }
}

impl From<Machine> for SessionId {
    fn from(machine: Machine) -> SessionId {
        machine.0
    }
}

impl From<Machine> for Dest<'_> {
    fn from(machine: Machine) -> Self {
        Dest::Id(machine.0)
    }
}

//! What a handler of a machine receives.

use std::fmt;
use std::panic::Location;

use super::automaton::{Automaton, Entry, Request, STOP, is_reserved, route};
use super::machine::Machine;
use super::{Transitions, erase};
use crate::args::{Args, IntoArgs};
use crate::error::{Error, Result};
use crate::kernel::private;
use crate::kernel::{AsKernel, Calls, Context, Core, Dest, Event, InState, Kernel, SessionId, kernel_of};
use crate::name::{EventOrNone, Name};
use crate::reply::{IntoReturn, Reply};

/// What a handler of a machine receives: the kernel, the machine with its runstate, and the event that it handles.
///
/// It has the calls that [`Context`] has, except those that add or remove a session's states.
///
/// ```
/// use lenore::Kernel;
/// use lenore::nfa::{MachineContext, Nfa};
///
/// fn count(cx: &mut MachineContext<'_, Vec<u32>>) -> lenore::Result {
///     let number = cx.take(0)?;
///     cx.runstate().push(number);
///     if number == 3 { cx.return_state(("done",)) } else { cx.goto_state("counting", "count", (number + 1,)) }
/// }
///
/// # fn main() -> Result<(), lenore::Error> {
/// let mut kernel = Kernel::new()?;
/// let machine = Nfa::new(Vec::new())
///     .state("idle", "begin", |cx| cx.call_state("counted", "counting", "count", (1_u32,)))
///     .state("idle", "counted", |cx| assert_eq!(*cx.runstate(), [1, 2, 3]))
///     .state("counting", "count", count)
///     .spawn(&mut kernel)?;
/// machine.goto_state(&mut kernel, "idle", "begin", ())?;
/// kernel.run()
/// # }
/// ```
///
/// POE: `@_[KERNEL, MACHINE, RUNSTATE, EVENT, SENDER, STATE, ARG0..$#_]`.
pub struct MachineContext<'a, R> {
    cx: Context<'a, Automaton<R>>,
    machine: SessionId,
}

impl<R: 'static> fmt::Debug for MachineContext<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (machine, event) = (self.machine, self.cx.state_name());
        f.debug_struct("MachineContext").field("machine", &machine).field("event", &event).finish_non_exhaustive()
    }
}

impl<'a, R: 'static> MachineContext<'a, R> {
    pub(super) fn new(kernel: &'a mut Kernel, event: &'a mut Event) -> MachineContext<'a, R> {
        let machine = event.dest;
        MachineContext { cx: Context::new(kernel, event), machine }
    }

    /// Borrows the machine's runstate.
    ///
    /// POE: `$_[RUNSTATE]`, `get_runstate`.
    #[doc(alias = "RUNSTATE")]
    #[doc(alias = "get_runstate")]
    pub fn runstate(&mut self) -> &mut R {
        &mut self.cx.heap().runstate
    }

    /// Borrows the runstate and the kernel's calls, both at once; see [`Context::split`].
    pub fn split(&mut self) -> (&mut R, Calls<'_>) {
        let (automaton, calls) = self.cx.split();
        (&mut automaton.runstate, calls)
    }

    /// Returns the id of the machine's session.
    ///
    /// POE: `$_[MACHINE]`.
    #[doc(alias = "MACHINE")]
    pub fn machine(&self) -> SessionId {
        self.machine
    }

    /// Returns the name under which this handler runs: the event's, or `_default`.
    ///
    /// POE: `$_[EVENT]`.
    #[doc(alias = "EVENT")]
    pub fn event(&self) -> Name {
        self.cx.state_name()
    }

    /// Returns the name of the current state; `(undef)` before the first transition.
    ///
    /// It is the state in which the machine is at this moment. With [`Transitions::Immediate`] a transition changes it
    /// while the handler runs.
    ///
    /// POE: `get_current_state`; and `$_[STATE]`, which is the state in which the handler began.
    #[doc(alias = "STATE")]
    #[doc(alias = "get_current_state")]
    pub fn state(&mut self) -> Name {
        self.cx.heap().state()
    }

    /// Makes the machine go to `state`, which gets `enter_event` (`None`: no event) with `args`.
    ///
    /// With [`Transitions::Immediate`] the transition is made before this returns. Otherwise it is made after the
    /// events that are queued now.
    ///
    /// # Errors
    ///
    /// With [`Transitions::Immediate`]: [`NfaError::NoSuchState`](super::NfaError::NoSuchState),
    /// [`NfaError::NoEnterEvent`](super::NfaError::NoEnterEvent), or the failure of the handler of `leave` or
    /// `enter_event`. A posted transition that fails is an exception of the machine's session instead.
    /// [`Error::NoSuchSession`] once the machine has stopped.
    ///
    /// POE: `goto_state`.
    #[track_caller]
    pub fn goto_state(
        &mut self,
        state: impl Into<Name>,
        enter_event: impl Into<EventOrNone>,
        args: impl IntoArgs,
    ) -> Result {
        self.ask(Request::Goto(Entry::new(state, enter_event, args)))
    }

    /// Makes the machine go to `state` as [`goto_state`](MachineContext::goto_state) does, and remember its current
    /// state and `return_event` (`None`: no event) for [`return_state`](MachineContext::return_state).
    ///
    /// Called states may call others, to any depth.
    ///
    /// # Errors
    ///
    /// As [`goto_state`](MachineContext::goto_state).
    ///
    /// POE: `call_state`.
    #[track_caller]
    pub fn call_state(
        &mut self,
        return_event: impl Into<EventOrNone>,
        state: impl Into<Name>,
        enter_event: impl Into<EventOrNone>,
        args: impl IntoArgs,
    ) -> Result {
        let return_event = return_event.into().name();
        self.ask(Request::Call { return_event, entry: Entry::new(state, enter_event, args) })
    }

    /// Makes the machine go back to the state that called the current one, which gets its return event with `args`.
    ///
    /// # Errors
    ///
    /// As [`goto_state`](MachineContext::goto_state), and [`NfaError::EmptyStack`](super::NfaError::EmptyStack) when no
    /// state was called.
    ///
    /// POE: `return_state`.
    #[track_caller]
    pub fn return_state(&mut self, args: impl IntoArgs) -> Result {
        self.ask(Request::Return { args: args.into_args() })
    }

    /// Stops the machine after the events that are queued now, whatever keeps it alive.
    ///
    /// POE: `stop` of the machine. The kernel's is [`stop_kernel`](MachineContext::stop_kernel).
    #[track_caller]
    pub fn stop(&mut self) {
        self.cx.yield_(STOP, ());
    }

    /// Sets when transitions are made from now on, and returns the former setting.
    ///
    /// POE: `option`, for `immediate`.
    #[doc(alias = "option")]
    pub fn set_transitions(&mut self, transitions: Transitions) -> Transitions {
        std::mem::replace(&mut self.cx.heap().transitions, transitions)
    }

    /// Makes `handler` handle `event` in every state that has no handler of its own for it, or replaces the handler
    /// that does.
    ///
    /// # Errors
    ///
    /// [`Error::ReservedState`] for `_signal`, `_start`, `_stop`, `_default`, and the names that begin with `_nfa_`.
    ///
    /// POE: the kernel's `state`, with a handler.
    pub fn handle_everywhere<F, T>(&mut self, event: impl Into<Name>, handler: F) -> Result<(), Error>
    where
        F: Fn(&mut MachineContext<'_, R>) -> T + 'static,
        T: IntoReturn,
    {
        let event = event.into();
        if is_reserved(event) || ["_start", "_stop", "_default"].contains(&event.as_str()) {
            return Err(Error::ReservedState(event));
        }
        self.cx.heap().insert_everywhere(event, erase(handler));
        self.cx.state(event, route::<R>)
    }

    /// Removes the handler that [`handle_everywhere`](MachineContext::handle_everywhere) added. It may be the handler
    /// that runs.
    ///
    /// POE: the kernel's `state`, without a handler.
    pub fn handle_everywhere_clear(&mut self, event: impl Into<Name>) {
        self.cx.heap().remove_everywhere(event.into());
    }

    #[track_caller]
    fn ask(&mut self, request: Request) -> Result {
        let timing = self.cx.heap().status().timing(&request);
        Ok(Machine::of(self.machine).send(kernel_of(&mut self.cx), request, timing)?)
    }
}

/// What the states of any session have; see [`Context`].
impl<R: 'static> MachineContext<'_, R> {
    /// Borrows the argument at `position`, counted from 0.
    ///
    /// # Errors
    ///
    /// As [`Context::arg`].
    ///
    /// POE: `$_[ARG0]`, `$_[ARG1]`, ...
    #[doc(alias = "ARG0")]
    pub fn arg<T: 'static>(&self, position: usize) -> Result<&T, Error> {
        self.cx.arg(position)
    }

    /// Moves the argument at `position`, counted from 0, out of the event.
    ///
    /// # Errors
    ///
    /// As [`Context::take`].
    ///
    /// POE: `$_[ARG0]`, `$_[ARG1]`, ...
    pub fn take<T: 'static>(&mut self, position: usize) -> Result<T, Error> {
        self.cx.take(position)
    }

    /// Borrows all arguments.
    ///
    /// POE: `@_[ARG0..$#_]`.
    pub fn args(&mut self) -> &mut Args {
        self.cx.args()
    }

    /// Returns the session that sent the event. For `leave` and for an enter event it is the machine itself.
    ///
    /// POE: `$_[SENDER]`.
    #[doc(alias = "SENDER")]
    pub fn sender(&self) -> SessionId {
        self.cx.sender()
    }

    /// Returns the name of the event during which this event was sent; `None` if it was sent outside of any event, and
    /// for `leave` and an enter event.
    ///
    /// POE: `$_[CALLER_STATE]`.
    #[doc(alias = "CALLER_STATE")]
    pub fn caller_state(&self) -> Option<Name> {
        self.cx.caller_state()
    }

    /// Returns the statement that sent the event. For `leave` and an enter event it is the statement that asked for the
    /// transition.
    ///
    /// POE: `$_[CALLER_FILE]` and `$_[CALLER_LINE]`.
    #[doc(alias = "CALLER_FILE")]
    #[doc(alias = "CALLER_LINE")]
    pub fn caller(&self) -> &'static Location<'static> {
        self.cx.caller()
    }

    /// Runs a state of another session, or the machine's own handler of `event` in its current state, before it
    /// returns.
    ///
    /// # Errors
    ///
    /// As [`Context::call`].
    ///
    /// POE: `call`.
    #[track_caller]
    pub fn call<'d>(
        &mut self,
        dest: impl Into<Dest<'d>>,
        event: impl Into<Name>,
        args: impl IntoArgs,
    ) -> Result<Reply, Error> {
        self.cx.call(dest, event, args)
    }

    /// Dispatches a signal before it returns; see [`Kernel::signal_now`].
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
        self.cx.signal_now(dest, signal, args)
    }

    /// Stops every session at once, including the machine's. The handler that called this still runs to its end.
    ///
    /// POE: the kernel's `stop`.
    pub fn stop_kernel(&mut self) {
        self.cx.stop();
    }

    /// Makes the machine a child of the kernel.
    ///
    /// # Errors
    ///
    /// As [`Context::detach_myself`].
    ///
    /// POE: `detach_myself`.
    pub fn detach_myself(&mut self) -> Result<(), Error> {
        self.cx.detach_myself()
    }

    /// Makes a child of the machine a child of the kernel.
    ///
    /// # Errors
    ///
    /// As [`Context::detach_child`].
    ///
    /// POE: `detach_child`.
    pub fn detach_child<'d>(&mut self, child: impl Into<Dest<'d>>) -> Result<(), Error> {
        self.cx.detach_child(child)
    }
}

impl<R> MachineContext<'_, R> {
    #[inline]
    pub(crate) fn core(&self) -> &Core {
        self.cx.core()
    }

    #[inline]
    pub(crate) fn core_mut(&mut self) -> &mut Core {
        self.cx.core_mut()
    }
}

impl<R> AsKernel for MachineContext<'_, R> {}

impl<R> private::HasKernel for MachineContext<'_, R> {
    fn kernel(&self, key: private::Key) -> &Kernel {
        self.cx.kernel(key)
    }

    fn kernel_mut(&mut self, key: private::Key) -> &mut Kernel {
        self.cx.kernel_mut(key)
    }
}

impl<R> InState for MachineContext<'_, R> {
    fn calls(&mut self) -> Calls<'_> {
        self.cx.calls()
    }
}

impl<R> private::InState for MachineContext<'_, R> {}

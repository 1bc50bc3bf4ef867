//! The inside of a machine: the heap of its session, how events find their handlers, and how transitions are made.
//!
//! To the kernel a machine is a session like any other, made with [`Session`]. Its table has one and the same state,
//! [`route`], under every name that some state of the machine handles; the machine's own table decides from there.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::{MachineContext, MachineHandler, NfaError, Transitions};
use crate::args::{Args, IntoArgs};
use crate::error::{Exception, Result};
use crate::kernel::{Context, Event, Kind, SessionId, kernel_of};
use crate::name::{EventOrNone, Name};
use crate::reply::{Reply, Return};
use crate::session::Session;

/// The heap of a machine's session.
pub(super) struct Automaton<R> {
    pub(super) runstate: R,
    pub(super) transitions: Transitions,
    /// In the order in which the builder named them. The list never changes later.
    states: Vec<State<R>>,
    /// The handlers for every state that has none of that name.
    everywhere: Handlers<R>,
    /// Index in `states`; `None` before the first transition.
    current: Option<usize>,
    /// The states that called another one and wait for it to return.
    stack: Vec<Frame>,
    /// A `leave` handler is on the stack: the transition that runs it must come to its end before another is made.
    leaving: bool,
}

struct State<R> {
    name: Name,
    handlers: Handlers<R>,
}

/// Usually only a handful, and names compare as pointers, so a list is searched from its beginning.
type Handlers<R> = Vec<(Name, MachineHandler<R>)>;

/// Where [`Request::Return`] goes.
struct Frame {
    state: Name,
    return_event: Option<Name>,
}

/// A state to go to, and how.
pub(super) struct Entry {
    pub(super) state: Name,
    /// `None`: the state gets no event.
    pub(super) event: Option<Name>,
    pub(super) args: Args,
}

/// A transition that was asked for: ARG0 of the event of that name. Only this module can make one.
pub(super) enum Request {
    Goto(Entry),
    Call { return_event: Option<Name>, entry: Entry },
    Return { args: Args },
}

/// What a transition does to the stack.
enum Change {
    Nothing,
    Push(Option<Name>),
    Pop,
}

/// A machine's answer to [`STATUS`].
pub(super) struct Status {
    pub(super) state: Name,
    is_new: bool,
    transitions: Transitions,
}

impl<R: 'static> Automaton<R> {
    pub(super) fn new(runstate: R) -> Automaton<R> {
        Automaton {
            runstate,
            transitions: Transitions::Posted,
            states: Vec::new(),
            everywhere: Vec::new(),
            current: None,
            stack: Vec::new(),
            leaving: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// Lists the events that any state handles. An event may come several times.
    pub(super) fn events(&self) -> impl Iterator<Item = Name> {
        self.states.iter().flat_map(|state| &state.handlers).map(|(event, _)| *event)
    }

    pub(super) fn insert(&mut self, state: Name, event: Name, handler: MachineHandler<R>) {
        match self.states.iter_mut().find(|other| other.name == state) {
            Some(state) => insert(&mut state.handlers, event, handler),
            None => self.states.push(State { name: state, handlers: vec![(event, handler)] }),
        }
    }

    pub(super) fn insert_everywhere(&mut self, event: Name, handler: MachineHandler<R>) {
        insert(&mut self.everywhere, event, handler);
    }

    pub(super) fn remove_everywhere(&mut self, event: Name) {
        self.everywhere.retain(|(name, _)| *name != event);
    }

    /// Makes the session, with this as its heap.
    pub(super) fn into_session(self) -> Session<Automaton<R>> {
        let events: Vec<Name> = self.events().collect();
        let mut session = Session::new(self);
        for event in events {
            session = session.state(event, route::<R>);
        }
        // Last, as they replace what a state has under these names.
        for request in [GOTO_STATE, CALL_STATE, RETURN_STATE] {
            session = session.state(request, perform::<R>);
        }
        session
            .state("_start", |_| ())
            .state("_stop", |_| ())
            .state("_default", route_default::<R>)
            .state(STATUS, |cx| Return(cx.heap().status()))
            .state(STOP, stop::<R>)
    }

    /// Returns the name of the current state.
    pub(super) fn state(&self) -> Name {
        self.current.map_or_else(|| Name::new(UNDEF), |current| self.states[current].name)
    }

    pub(super) fn status(&self) -> Status {
        let transitions = if self.leaving { Transitions::Posted } else { self.transitions };
        Status { state: self.state(), is_new: self.current.is_none(), transitions }
    }

    /// Finds the current state's own handler.
    fn own(&self, event: Name) -> Option<MachineHandler<R>> {
        find(&self.states[self.current?].handlers, event)
    }

    /// Checks that a transition can be made, and returns the index of the state to go to.
    fn check(&self, machine: SessionId, entry: &Entry, asked_by: Option<Name>) -> Result<usize, NfaError> {
        let (state, wanted) = (self.state(), entry.state);
        let Some(index) = self.states.iter().position(|state| state.name == wanted) else {
            return Err(NfaError::NoSuchState { machine, state, event: asked_by, wanted });
        };
        match entry.event {
            Some(event) if find(&self.states[index].handlers, event).is_none() => {
                Err(NfaError::NoEnterEvent { machine, state, wanted, event })
            }
            _ => Ok(index),
        }
    }

    /// Makes a checked transition.
    fn change(&mut self, to: usize, change: Change) {
        match change {
            Change::Nothing => {}
            Change::Push(return_event) => self.stack.push(Frame { state: self.state(), return_event }),
            Change::Pop => drop(self.stack.pop()),
        }
        self.current = Some(to);
    }
}

impl Entry {
    pub(super) fn new(state: impl Into<Name>, enter_event: impl Into<EventOrNone>, args: impl IntoArgs) -> Entry {
        Entry { state: state.into(), event: enter_event.into().name(), args: args.into_args() }
    }
}

impl Request {
    /// Returns the name of the event that carries the request.
    pub(super) fn event(&self) -> &'static str {
        match self {
            Request::Goto(_) => GOTO_STATE,
            Request::Call { .. } => CALL_STATE,
            Request::Return { .. } => RETURN_STATE,
        }
    }
}

impl Status {
    /// Tells when the machine is to do what `request` asks for.
    pub(super) fn timing(&self, request: &Request) -> Transitions {
        match request {
            Request::Goto(_) if self.is_new => Transitions::Immediate,
            _ => self.transitions,
        }
    }
}

/// Tells whether no handler may be for this event.
pub(super) fn is_reserved(event: Name) -> bool {
    ["_signal", GOTO_STATE, CALL_STATE, RETURN_STATE, STATUS, STOP].contains(&event.as_str())
}

/// The session's state for every event that the machine handles in some state: finds the handler for the current state.
pub(super) fn route<R: 'static>(cx: &mut Context<'_, Automaton<R>>) -> Result<Reply> {
    let name = cx.state_name();
    let automaton = cx.heap();
    if let Some(handler) = automaton.own(name).or_else(|| find(&automaton.everywhere, name)) {
        return run(cx, name, &handler);
    }
    let Some(handler) = automaton.own(Name::new("_default")) else { return Err(unhandled(cx, name)) };
    let args = std::mem::take(cx.args());
    *cx.args() = (name, args).into_args();
    let result = run(cx, Name::new("_default"), &handler);
    // A signal may hand the same arguments to the next session.
    *cx.args() = cx.args().take(1).unwrap_or_default();
    result
}

/// The session's `_default`, for events that the machine handles in no state.
fn route_default<R: 'static>(cx: &mut Context<'_, Automaton<R>>) -> Result<Reply> {
    match cx.heap().own(Name::new("_default")) {
        Some(handler) => run(cx, cx.state_name(), &handler),
        // Without a name as its first argument the event was posted under the name `_default`.
        None => Err(unhandled(cx, cx.arg(0).copied().unwrap_or(cx.state_name()))),
    }
}

fn unhandled<R: 'static>(cx: &mut Context<'_, Automaton<R>>, event: Name) -> Exception {
    NfaError::Unhandled { machine: cx.session(), state: cx.heap().state(), event }.into()
}

/// Runs a handler of the machine, under the name `name`, for the event that the session's state got.
fn run<R: 'static>(cx: &mut Context<'_, Automaton<R>>, name: Name, handler: &MachineHandler<R>) -> Result<Reply> {
    let (dest, sender, from, location) = (cx.session(), cx.sender(), cx.caller_state(), cx.caller());
    let args = std::mem::take(cx.args());
    let mut event = Event { dest, sender, name, from, location, args, kind: Kind::Post };
    let result = handler(&mut MachineContext::new(kernel_of(cx), &mut event));
    *cx.args() = event.args;
    result
}

/// Runs a handler of the machine for an event that did not come through the kernel.
fn run_directly<R: 'static>(
    cx: &mut Context<'_, Automaton<R>>,
    name: Name,
    args: Args,
    handler: &MachineHandler<R>,
) -> Result {
    let (machine, location) = (cx.session(), cx.caller());
    let mut event = Event { dest: machine, sender: machine, name, from: None, location, args, kind: Kind::Post };
    handler(&mut MachineContext::new(kernel_of(cx), &mut event)).map(drop)
}

/// The session's state for [`GOTO_STATE`], [`CALL_STATE`] and [`RETURN_STATE`]: makes a transition.
fn perform<R: 'static>(cx: &mut Context<'_, Automaton<R>>) -> Result {
    let (machine, asked_by) = (cx.session(), cx.caller_state());
    let request = cx.take(0)?;
    let automaton = cx.heap();
    let (entry, change) = match request {
        Request::Goto(entry) => (entry, Change::Nothing),
        Request::Call { return_event, entry } => (entry, Change::Push(return_event)),
        Request::Return { args } => {
            let empty = NfaError::EmptyStack { machine, state: automaton.state(), event: asked_by };
            let Frame { state, return_event: event } = *automaton.stack.last().ok_or(empty)?;
            (Entry { state, event, args }, Change::Pop)
        }
    };
    let to = automaton.check(machine, &entry, asked_by)?;
    leave(cx)?;
    if cx.session() != machine {
        return Ok(()); // `leave` stopped the machine by force, or the whole kernel.
    }
    log::trace!(target: "lenore::sessions", "{machine} goes from state {} to {}", cx.heap().state(), entry.state);
    cx.heap().change(to, change);
    // Checked above to be there.
    let handler = entry.event.and_then(|event| Some((event, cx.heap().own(event)?)));
    handler.map_or(Ok(()), |(event, handler)| run_directly(cx, event, entry.args, &handler))
}

/// Tells the current state that it is being left.
fn leave<R: 'static>(cx: &mut Context<'_, Automaton<R>>) -> Result {
    let event = Name::new("leave");
    let Some(handler) = cx.heap().own(event) else { return Ok(()) };
    cx.heap().leaving = true;
    let result = catch_unwind(AssertUnwindSafe(|| run_directly(cx, event, Args::new(), &handler)));
    cx.heap().leaving = false;
    result.unwrap_or_else(|panic| resume_unwind(panic))
}

/// The session's state for [`STOP`]. A terminal signal would also end the machine's children, which POE leaves alive.
fn stop<R: 'static>(cx: &mut Context<'_, Automaton<R>>) {
    let machine = cx.session();
    kernel_of(cx).stop_sessions(&[machine]);
}

fn insert<R>(handlers: &mut Handlers<R>, event: Name, handler: MachineHandler<R>) {
    match handlers.iter_mut().find(|(name, _)| *name == event) {
        Some((_, old)) => *old = handler,
        None => handlers.push((event, handler)),
    }
}

/// Finds a handler, and shares it: it may remove or replace itself while it runs.
fn find<R>(handlers: &Handlers<R>, event: Name) -> Option<MachineHandler<R>> {
    handlers.iter().find(|(name, _)| *name == event).map(|(_, handler)| handler.clone())
}

const GOTO_STATE: &str = "_nfa_goto_state";
const CALL_STATE: &str = "_nfa_call_state";
const RETURN_STATE: &str = "_nfa_return_state";
pub(super) const STATUS: &str = "_nfa_status";
pub(super) const STOP: &str = "_nfa_stop";
/// The name of the current state while there is none.
const UNDEF: &str = "(undef)";

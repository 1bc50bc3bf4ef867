//! A server's end of a connection: the session that is made of an accepted socket.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::thread;

use nix::errno::Errno;

use super::connection::{Connection, ERROR, FLUSHED, HIGH, IMPATIENT, INPUT, LEFT, LOW, Link, READY, REFUSED, SWITCH};
use super::listener::{self, FAILED};
use super::next_protocol::{switch, switch_again};
use super::protocol::Protocol;
use super::proxy;
use super::requests::{CLOCK, DRAIN, IS_IDLE, LAST, RELEASE, SETTLE};
use super::secure;
use super::socket::Accepted;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::kernel::{Context, SessionId};
use crate::session::{Handler, Session, handler};
use crate::states::States;
use crate::wheel::Failure;

/// Makes a session of an accepted socket, as a child of the session that listens. That one gets the event `disconnected`, by a
/// call, when the session stops.
pub(super) type Opener = Rc<dyn Fn(&mut listener::Cx<'_>, Accepted) -> Result<SessionId, Error>>;

type Cx<'a, F, H> = Context<'a, Connection<F, H>>;
type State<F, H> = fn(&Protocol<F, H>, &mut Cx<'_, F, H>) -> Result;

/// Prepares the sessions of a protocol: their states are built once, and shared.
///
/// # Errors
///
/// [`Error::ReservedState`] for a state that would replace one of the component's; [`Error::InvalidSetting`] for marks.
pub(super) fn opener<F: Filter, H: 'static>(protocol: Protocol<F, H>) -> Result<Opener, Error> {
    let (protocol, states) = prepare(protocol)?;
    Ok(Rc::new(move |cx, accepted| {
        let heap = Connection::<F, H>::new((protocol.make_heap)(), String::new());
        let listener = cx.session();
        Session::with_states(heap, states.clone()).args((accepted, listener)).spawn(cx)
    }))
}

/// Builds the states of a protocol's connections.
///
/// # Errors
///
/// As [`opener`].
pub(super) fn prepare<F: Filter, H: 'static>(protocol: Protocol<F, H>) -> Result<(Rc<Protocol<F, H>>, States), Error> {
    protocol.check()?;
    let protocol = Rc::new(protocol);
    let state = |run: State<F, H>| {
        let protocol = Rc::clone(&protocol);
        handler(move |cx| watched(run, &protocol, cx))
    };
    let looked_after = |run: State<F, H>| {
        let protocol = Rc::clone(&protocol);
        handler(move |cx| {
            watched(
                |protocol, cx| {
                    let told = run(protocol, cx);
                    protocol.look_after(cx).and(told)
                },
                &protocol,
                cx,
            )
        })
    };
    let mut states = vec![
        ("_start".into(), state(start)),
        (READY.into(), state(secure::ready)),
        (INPUT.into(), state(Protocol::got_input)),
        (FLUSHED.into(), looked_after(flushed)),
        (HIGH.into(), looked_after(Protocol::got_high)),
        (LOW.into(), looked_after(Protocol::got_low)),
        (ERROR.into(), looked_after(failed)),
        (REFUSED.into(), looked_after(Protocol::got_refused)),
        (IMPATIENT.into(), state(impatient)),
        (LEFT.into(), handler(leave::<F, H>)),
        (SWITCH.into(), handler(switched::<F, H>)),
        (SETTLE.into(), state(Protocol::settle)),
        (CLOCK.into(), state(Protocol::look_at_clock)),
        (DRAIN.into(), state(Protocol::drain)),
        (RELEASE.into(), state(Protocol::release)),
        (IS_IDLE.into(), state(Protocol::tell_if_idle)),
        (LAST.into(), state(Protocol::end_if_done)),
        (proxy::READABLE.into(), state(proxy::look)),
        (proxy::LATE.into(), state(proxy::late)),
        ("shutdown".into(), state(shutdown)),
        ("_stop".into(), handler(stop::<F, H>)),
    ];
    states.extend(protocol.states.iter().map(|(name, state)| (*name, programs_own(state.clone(), &protocol))));
    Ok((protocol, States::new(states)))
}

/// Makes a state of a connection's session of one that the program has added.
fn programs_own<F: Filter, H: 'static>(own: Handler, protocol: &Rc<Protocol<F, H>>) -> Handler {
    let protocol = Rc::clone(protocol);
    Handler::new(move |kernel, event| {
        let outcome = catch_unwind(AssertUnwindSafe(|| own.run(kernel, event)));
        let mut cx = Cx::<F, H>::new(kernel, event);
        if cx.heap().is_switch_late {
            switch_again(&mut cx);
        }
        let looked = protocol.look_after(&mut cx);
        let reply = outcome.unwrap_or_else(|panic| resume_unwind(panic));
        looked.and(reply)
    })
}

/// Runs a state that calls callbacks. If the state fails or panics, the session that listens hears of it before the `DIE` signal is sent.
fn watched<F: Filter, H: 'static>(
    run: impl Fn(&Protocol<F, H>, &mut Cx<'_, F, H>) -> Result,
    protocol: &Protocol<F, H>,
    cx: &mut Cx<'_, F, H>,
) -> Result {
    let outcome = catch_unwind(AssertUnwindSafe(|| run(protocol, cx)));
    let heap = cx.heap();
    if outcome.is_err() {
        heap.requests.callback_has_panicked();
    }
    let (listener, is_late) = (heap.listener, heap.is_switch_late);
    if is_late {
        switch_again(cx);
    }
    tell_failure(cx, listener, outcome)
}

/// Tells the session that listens if a state has failed.
fn tell_failure<H: 'static>(cx: &mut Context<'_, H>, listener: SessionId, outcome: thread::Result<Result>) -> Result {
    if !matches!(outcome, Ok(Ok(()))) {
        let _ = cx.call(listener, FAILED, ());
    }
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Changes the protocol, whose `on_connect` may fail. The heap is another one afterwards.
fn switched<F: Filter, H: 'static>(cx: &mut Cx<'_, F, H>) -> Result {
    let listener = cx.heap().listener;
    let outcome = catch_unwind(AssertUnwindSafe(|| switch(cx)));
    tell_failure(cx, listener, outcome)
}

fn start<F: Filter, H: 'static>(protocol: &Protocol<F, H>, cx: &mut Cx<'_, F, H>) -> Result {
    let (Accepted { socket, door }, listener) = (cx.take(0)?, cx.take(1)?);
    let heap = cx.heap();
    let proxy = door.proxy;
    heap.door = Some(door);
    heap.set_peer(socket.peer());
    heap.listener = listener;
    match proxy {
        Some(timeout) => proxy::begin(protocol, cx, socket, timeout),
        None => protocol.open(cx, socket, None).map(drop),
    }
}

fn flushed<F: Filter, H: 'static>(protocol: &Protocol<F, H>, cx: &mut Cx<'_, F, H>) -> Result {
    let told = protocol.callbacks.on_flushed.as_ref().map_or(Ok(()), |on_flushed| on_flushed(cx));
    // The callback may have put more.
    if cx.heap().is_shutting_down {
        end(protocol, cx)?;
    }
    told
}

fn failed<F: Filter, H: 'static>(protocol: &Protocol<F, H>, cx: &mut Cx<'_, F, H>) -> Result {
    let failure = cx.take::<Failure>(0)?;
    let Some(failure) = secure::take_failure(cx, failure) else { return Ok(()) };
    // Clients go when they like, and not all of them say goodbye.
    let is_reset = [Errno::ECONNRESET, Errno::ECONNABORTED, Errno::EPIPE].contains(&Errno::from_raw(failure.errno));
    let is_usual = failure.is_end_of_input() || is_reset;
    let told = protocol.tell_error(cx, &failure, is_usual);
    if protocol.shutdown_on_error {
        cx.heap().is_shutting_down = true;
        disconnect(protocol, cx)?;
    }
    told
}

/// Ends the connection once everything put is written. No more input is delivered.
pub(super) fn shutdown<F: Filter, H: 'static>(protocol: &Protocol<F, H>, cx: &mut Cx<'_, F, H>) -> Result {
    cx.heap().is_shutting_down = true;
    proxy::give_up(cx);
    end(protocol, cx)
}

/// The peer takes nothing: the connection is closed, and not flushed.
fn impatient<F: Filter, H: 'static>(protocol: &Protocol<F, H>, cx: &mut Cx<'_, F, H>) -> Result {
    cx.heap().is_broken = true;
    disconnect(protocol, cx)
}

/// Disconnects as soon as there is nothing left to write.
fn end<F: Filter, H: 'static>(protocol: &Protocol<F, H>, cx: &mut Cx<'_, F, H>) -> Result {
    if cx.heap().has_no_output() {
        return disconnect(protocol, cx);
    }
    cx.heap().wait_for_peer();
    Ok(())
}

/// Tells the program, and closes. Once for each connection, whatever the program does when it is told.
fn disconnect<F: Filter, H: 'static>(protocol: &Protocol<F, H>, cx: &mut Cx<'_, F, H>) -> Result {
    if matches!(cx.heap().link, Link::Securing(_)) {
        cx.heap().close();
        cx.delay_clear(CLOCK);
    }
    if !cx.heap().is_connected() || std::mem::replace(&mut cx.heap().is_over, true) {
        return Ok(());
    }
    let told = protocol.callbacks.on_disconnect.as_ref().map_or(Ok(()), |on_disconnect| on_disconnect(cx));
    if cx.heap().requests.is_timed() {
        cx.delay_clear(CLOCK);
    }
    // The session lives on until the peer has closed its side.
    protocol.count_off(cx);
    cx.heap().close();
    told
}

/// In a forked process: the connection is the parent's, and so is whatever was to become of it.
fn leave<F: Filter, H: 'static>(cx: &mut Cx<'_, F, H>) {
    proxy::give_up(cx);
    cx.heap().leave();
    cx.alarm_remove_all();
}

/// The end of the session, whether or not there ever was a connection.
fn stop<F: Filter, H: 'static>(cx: &mut Cx<'_, F, H>) {
    let listener = cx.heap().listener;
    // One that was stopped before has no use for it.
    let _ = cx.call(listener, "disconnected", ());
}

//! Another protocol for a connection that is there.

use std::fmt;
use std::rc::Rc;

use super::accepted::prepare;
use super::connection::{Connection, FLUSHED, Link, SWITCH};
use super::protocol::Protocol;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::kernel::Context;
use crate::states::States;
use crate::wheel::StreamEvent;

/// A [`Protocol`] that takes over connections of a server while they are open: after `STARTTLS`-like commands, an upgrade of
/// HTTP, or a greeting that says which format follows.
///
/// The filter, its records, the callbacks, the states and the heap may all be of other types. It is made once, and any number of
/// connections may change to it.
///
/// ```
/// use lenore::Kernel;
/// use lenore::component::{NextProtocol, Protocol, TcpServer};
/// use lenore::filter::{Block, Line};
///
/// /// What the second protocol keeps.
/// struct Guest { name: String }
///
/// # fn main() -> Result<(), lenore::Error> {
/// let blocks = Protocol::with_heap(Block::new(), || Guest { name: String::new() }).on_input(|cx, block: Vec<u8>| {
///     let answer = format!("{} bytes from {}", block.len(), cx.heap().name);
///     cx.heap().put(answer);
/// });
/// let blocks = NextProtocol::new(blocks)?;
/// let lines = Protocol::new(Line::new()).on_input(move |cx, line: String| {
///     cx.heap().put("blocks from here on");
///     Ok(blocks.take_over(cx, Guest { name: line })?)
/// });
/// let mut kernel = Kernel::new()?;
/// let server = TcpServer::new("127.0.0.1:0", lines).spawn(&mut kernel)?;
/// # kernel.post(server, "shutdown", ())?;
/// kernel.run()
/// # }
/// ```
///
/// With the same types of records nothing of this is needed: [`set_filter`](crate::wheel::ReadWrite::set_filter) of the
/// connection's [`wheel`](Connection::wheel) replaces an [`Either`](crate::filter::Either) or a boxed filter.
///
/// POE: `set_filter` of the wheel; the callbacks then get other records.
pub struct NextProtocol<F: Filter, H: 'static = ()> {
    protocol: Rc<Protocol<F, H>>,
    states: States,
}

impl<F: Filter, H: 'static> NextProtocol<F, H> {
    /// Prepares a protocol. Some of its settings have no effect, as they are for the beginning of a connection: `pre_connect`,
    /// `pre_connect_unix`, `handshake_timeout`, `watermarks`, `auto_pause`, `close_timeout` and `write_timeout`. Those of the
    /// connection's first protocol stay in force. So `on_high` and `on_low` are called only if the first protocol has `watermarks`.
    ///
    /// # Errors
    ///
    /// [`Error::ReservedState`] for a state that would replace one of the component's. [`Error::InvalidSetting`] for watermarks that make
    /// no sense, and for `on_high` or `on_low` without `watermarks`.
    pub fn new(protocol: Protocol<F, H>) -> Result<NextProtocol<F, H>, Error> {
        let (protocol, states) = prepare(protocol)?;
        Ok(NextProtocol { protocol, states })
    }

    /// Has the running connection go on with this protocol when the running state has returned. `heap` is the heap that its
    /// callbacks find.
    ///
    /// No record is delivered in between. The new filter gets what the old one has not parsed, and the output keeps what was put.
    /// Then `on_connect` of this protocol is called, and the input goes on, also if it was paused. The session, its id, its
    /// alarms, aliases and signals stay; states that only the old protocol has are gone, and the old heap is dropped.
    ///
    /// A request that is in hand stays in hand until the new protocol puts something. Whether the program says itself when requests
    /// [begin](Connection::request_begins) and end is for the new protocol to say again.
    ///
    /// Does nothing if the connection has ended, or ends before it comes to that. A second call in the meantime replaces the first.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSetting`] for a connection of a [`TcpClient`](super::TcpClient), which connects again with its own
    /// protocol.
    pub fn take_over<G: Filter, K: 'static>(
        &self,
        cx: &mut Context<'_, Connection<G, K>>,
        heap: H,
    ) -> Result<(), Error> {
        if cx.heap().door.is_none() {
            return Err(Error::InvalidSetting { setting: "take_over", reason: "the connection is a client's" });
        }
        let Some(wheel) = cx.heap().wheel() else { return Ok(()) };
        wheel.pause_input();
        let next = self.clone();
        cx.heap().next_protocol = Some(Box::new(move |cx| next.begin(cx, heap)));
        // As an event of its own: states that run now go on with the heap that they have.
        cx.yield_(SWITCH, ());
        Ok(())
    }

    fn begin<G: Filter, K: 'static>(self, cx: &mut Context<'_, Connection<G, K>>, heap: H) -> Result {
        let old = cx.heap();
        let wheel = match std::mem::replace(&mut old.link, Link::Closed) {
            Link::Open(wheel) if !old.is_shutting_down => wheel,
            link => {
                old.link = link;
                return Ok(());
            }
        };
        let wheel = wheel.switch_filter(self.protocol.filter.clone_config());
        match self.protocol.callbacks.on_flushed {
            Some(_) => wheel.event(StreamEvent::Flushed, FLUSHED),
            None => wheel.event_clear(StreamEvent::Flushed),
        }
        let heap = old.succeed(heap, Link::Open(wheel));
        let mut cx = cx.replace_session(heap, self.states);
        let told = self.protocol.connected(&mut cx);
        if let Some(wheel) = cx.heap().wheel() {
            wheel.resume_input();
        }
        if cx.heap().is_switch_late {
            switch_again(&mut cx);
        }
        told
    }
}

impl<F: Filter, H: 'static> Clone for NextProtocol<F, H> {
    fn clone(&self) -> NextProtocol<F, H> {
        NextProtocol { protocol: Rc::clone(&self.protocol), states: self.states.clone() }
    }
}

impl<F: Filter, H: 'static> fmt::Debug for NextProtocol<F, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NextProtocol").field(&self.protocol).finish()
    }
}

/// The state that changes the protocol. While another state of the session is on the stack, below a nested slice, it waits for the
/// end of that state.
pub(super) fn switch<F: Filter, H: 'static>(cx: &mut Context<'_, Connection<F, H>>) -> Result {
    if !cx.is_outermost() {
        cx.heap().is_switch_late = true;
        return Ok(());
    }
    match cx.heap().next_protocol.take() {
        Some(next) => next(cx),
        None => Ok(()),
    }
}

/// Asks for a late change of the protocol again, at the end of the state that it has waited for.
pub(super) fn switch_again<F: Filter, H: 'static>(cx: &mut Context<'_, Connection<F, H>>) {
    if cx.is_outermost() {
        cx.heap().is_switch_late = false;
        cx.yield_(SWITCH, ());
    }
}

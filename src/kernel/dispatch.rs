//! Running states: from the queue, from a source, by a call.

use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};

use super::Kernel;
use super::core::{Active, Dest};
use super::lifecycle::Body;
use super::options::{Exceptions, SessionOption};
use super::queue::{Event, Kind};
use super::sessions::SessionId;
use crate::args::{Args, IntoArgs};
use crate::destroy::destroy;
use crate::error::{Died, Error, Exception};
use crate::name::Name;
use crate::reply::Reply;
use crate::session::Handler;

impl Kernel {
    /// Runs a state of a session before it returns.
    ///
    /// If the state fails, its session gets a `DIE` signal, and the call returns [`Reply::NoValue`]. But when a session
    /// calls itself, the state runs like a plain function, and its exception comes back to the caller.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSession`] when `dest` is not the id or an alias of a living session; [`Error::Exception`] when a
    /// session called itself and the state failed, or when any state failed under
    /// [`Exceptions::EndTheRun`](crate::Exceptions::EndTheRun).
    ///
    /// POE: `call`.
    #[track_caller]
    pub fn call<'a>(
        &mut self,
        dest: impl Into<Dest<'a>>,
        event: impl Into<Name>,
        args: impl IntoArgs,
    ) -> Result<Reply, Error> {
        let dest = self.core.resolve(dest)?;
        let Active { session: sender, event: from } = self.core.active;
        let (name, args, location) = (event.into(), args.into_args(), Location::caller());
        let mut event = Event { dest, sender, name, from, location, args, kind: Kind::Post };
        if dest == sender && dest != SessionId::KERNEL {
            return self.call_self(&mut event).map_err(Error::Exception);
        }
        if self.core.exceptions == Exceptions::EndTheRun {
            return self.enter(&mut event, Keep::Nothing).map_err(Error::Exception);
        }
        Ok(self.dispatch_event(&mut event))
    }

    /// Dispatches what came out of the queue.
    pub(crate) fn dispatch(&mut self, event: &mut Event) {
        match std::mem::replace(&mut event.kind, Kind::Post) {
            Kind::Post | Kind::Alarm => discard(self.dispatch_event(event)),
            Kind::Signal(signal) => {
                self.dispatch_signal(event.dest, event.name, &signal);
                destroy(signal);
            }
            Kind::StartUp => {}
        }
    }

    /// Runs the state for an event; an exception becomes the session's `DIE` signal.
    pub(crate) fn dispatch_event(&mut self, event: &mut Event) -> Reply {
        match self.enter(event, Keep::Nothing) {
            Ok(reply) => reply,
            Err(exception) => {
                destroy(self.die(event, exception));
                Reply::NoValue
            }
        }
    }

    /// Does what [`dispatch_event`](Kernel::dispatch_event) does, but leaves the arguments for the next session.
    /// Returns the failure instead of a value.
    pub(crate) fn dispatch_keeping_args(&mut self, event: &mut Event) -> Option<Died> {
        let exception = self.enter(event, Keep::Args).err()?;
        Some(self.die(event, exception))
    }

    /// Runs a state on behalf of a source. One turn may run many states, and the fork point follows each. Returns
    /// whether the state came to its end.
    pub(crate) fn dispatch_from_source(
        &mut self,
        owner: SessionId,
        name: Name,
        from: Option<Name>,
        args: Args,
    ) -> bool {
        let location = Location::caller();
        let mut event = Event { dest: owner, sender: owner, name, from, location, args, kind: Kind::Post };
        let done = match self.enter(&mut event, Keep::Nothing) {
            Ok(reply) => {
                discard(reply);
                true
            }
            Err(exception) => {
                destroy(self.die(&event, exception));
                false
            }
        };
        self.after_state();
        done
    }

    /// Turns a failure in a source, outside of its owner's states, into the owner's `DIE` signal. `name` stands for the
    /// event.
    pub(crate) fn die_in_source(&mut self, owner: SessionId, name: Name, exception: Exception) {
        let location = Location::caller();
        let kind = Kind::Post;
        let event = Event { dest: owner, sender: owner, name, from: None, location, args: Args::new(), kind };
        destroy(self.die(&event, exception));
        self.after_state();
    }

    /// Tells a session something that the kernel did.
    pub(crate) fn notify(&mut self, dest: SessionId, name: &str, args: impl IntoArgs) {
        discard(self.dispatch_event(&mut Event::from_kernel(dest, Name::new(name), args.into_args())));
    }

    /// Runs the state for an event with its session active.
    pub(crate) fn enter(&mut self, event: &mut Event, keep: Keep) -> Result<Reply, Exception> {
        let (dest, name) = (event.dest, event.name);
        self.core.collect_postings();
        let Some((handler, is_traced)) = self.begin(event) else {
            self.report_unhandled(event);
            if keep == Keep::Nothing {
                destroy(std::mem::take(&mut event.args));
            }
            return Ok(Reply::NoHandler);
        };
        if is_traced {
            self.trace_event(dest, name, event);
        }
        log::trace!(target: "lenore::events", "{dest} gets {name} from {} ({})", event.sender, event.location);
        self.core.depth += 1;
        let outer = std::mem::replace(&mut self.core.active, Active { session: dest, event: Some(name) });
        let result = catch_unwind(AssertUnwindSafe(|| {
            let result = handler.run(self, event);
            if keep == Keep::Nothing && result.is_ok() {
                // While the session is still active: posts from the arguments' destructors have it as their sender
                // (K-EV-17).
                event.args = Args::new();
            }
            result
        }));
        if keep == Keep::Nothing && !matches!(result, Ok(Ok(_))) {
            destroy(std::mem::take(&mut event.args));
        }
        event.undo_default(name);
        let handler = destroy_last(handler);
        self.core.collect_postings();
        // The session that was active before may have been stopped meanwhile; then the kernel is active (K-LP-26).
        let outer_lives = outer.session == SessionId::KERNEL || self.core.sessions.is_alive(outer.session);
        self.core.active = if outer_lives { outer } else { Active::KERNEL };
        self.core.depth -= 1;
        self.leave(dest);
        // The session was stopped while the state ran, and its table is gone.
        handler.and_then(destroy_last);
        result.unwrap_or_else(|payload| Err(Exception::from_panic(payload)))
    }

    /// Finds the state for an event, and puts it on the stack; tells also whether its session is traced.
    #[inline]
    fn begin(&mut self, event: &mut Event) -> Option<(Handler, bool)> {
        let body = self.bodies.get_mut(event.dest.slot())?.as_mut().filter(|body| body.id == event.dest)?;
        let handler = body.handler_for(event)?;
        body.on_stack += 1;
        Some((handler, body.options.has(SessionOption::Trace)))
    }

    /// Runs a state like a plain function of the state that calls it: the active event stays the outer one.
    fn call_self(&mut self, event: &mut Event) -> Result<Reply, Exception> {
        match self.handler_for(event) {
            Some(handler) => {
                let result = catch_unwind(AssertUnwindSafe(|| handler.run(self, event)));
                destroy_last(handler);
                result.unwrap_or_else(|payload| resume_unwind(payload))
            }
            None => Ok(Reply::NoHandler),
        }
    }

    /// Finds the state for an event; see [`Body::handler_for`].
    #[inline]
    fn handler_for(&self, event: &mut Event) -> Option<Handler> {
        let body = self.bodies.get(event.dest.slot())?.as_ref().filter(|body| body.id == event.dest)?;
        body.handler_for(event)
    }

    /// Logs an event that no state handles: at warn level if the session has the option for it, else at debug level. At
    /// debug level it leaves out events like `_child`, which the kernel itself sends, as most sessions handle few of
    /// them.
    #[cold]
    fn report_unhandled(&self, event: &Event) {
        let body = self.bodies.get(event.dest.slot()).and_then(Option::as_ref).filter(|body| body.id == event.dest);
        let level = match body {
            Some(body) if body.options.has(SessionOption::Default) => log::Level::Warn,
            Some(_) if !event.name.as_str().starts_with('_') => log::Level::Debug,
            _ => return,
        };
        if log::log_enabled!(target: "lenore::events", level) {
            let session = self.core.describe_session(event.dest);
            log::log!(target: "lenore::events", level, "{session} has no state {} ({})", event.name, event.location);
        }
    }

    /// Takes a state off the stack; a session that was stopped while it ran is now removed for good.
    fn leave(&mut self, dest: SessionId) {
        let Some(body) = self.bodies[dest.slot()].as_mut() else { return };
        body.on_stack -= 1;
        if body.on_stack > 0 {
            return;
        }
        if !self.core.sessions.is_alive(dest) {
            self.free_body(dest.slot());
        }
    }

    /// Turns an exception into its session's `DIE` signal.
    #[cold]
    pub(super) fn die(&mut self, event: &Event, exception: Exception) -> Died {
        let died = event.died(exception);
        match self.core.exceptions {
            Exceptions::BecomeSignals => self.core.signal_die(died.clone()),
            Exceptions::EndTheRun => self.core.end_the_run(died.clone()),
        }
        died
    }
}

impl Body {
    /// Finds the state for an event, and turns the event into one for `_default` if it has none of its own.
    #[inline]
    fn handler_for(&self, event: &mut Event) -> Option<Handler> {
        match self.states.find(event.name) {
            Some(handler) => Some(handler.clone()),
            None => self.default_for(event),
        }
    }

    #[cold]
    fn default_for(&self, event: &mut Event) -> Option<Handler> {
        let handler = self.states.find(Name::new("_default"))?.clone();
        let args = std::mem::take(&mut event.args);
        event.args = (event.name, args).into_args();
        event.name = Name::new("_default");
        Some(handler)
    }
}

/// Destroys a state that has run if this is its last copy, as of one that has removed itself.
#[inline]
fn destroy_last(handler: Handler) -> Option<Handler> {
    if !handler.is_last() {
        return Some(handler);
    }
    destroy(handler);
    None
}

/// Drops a reply that no caller waits for.
#[inline]
pub(super) fn discard(reply: Reply) {
    if let Reply::Value(value) = reply {
        destroy(value);
    }
}

/// What becomes of an event's arguments when its state returns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    Nothing,
    Args,
}

impl Event {
    /// An event that the kernel itself sends.
    #[track_caller]
    pub(crate) fn from_kernel(dest: SessionId, name: Name, args: Args) -> Event {
        let location = Location::caller();
        Event { dest, sender: SessionId::KERNEL, name, from: None, location, args, kind: Kind::Post }
    }

    /// Undoes what [`default_for`](Body::default_for) did to an event: gives it back its `name` and those of its
    /// arguments that are left.
    fn undo_default(&mut self, name: Name) {
        if self.name != name {
            self.name = name;
            self.args = self.args.take(1).unwrap_or_default();
        }
    }

    /// Makes the record of a failure while this event was handled.
    pub(crate) fn died(&self, exception: Exception) -> Died {
        Died {
            exception,
            dest_session: self.dest,
            event: self.name,
            source_session: self.sender,
            from_state: self.from,
            location: self.location,
            also: None,
        }
    }
}

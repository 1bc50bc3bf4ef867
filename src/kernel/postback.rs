//! Postbacks and callbacks: events of a session, packed up for others to send.

use std::cell::Cell;
use std::fmt;
use std::panic::Location;
use std::rc::Rc;

use super::access::{AsKernel, kernel_of};
use super::clock::moment;
use super::core::{Active, Core};
use super::holds::{self, Hold};
use super::mailbox::{Mailbox, Posting};
use super::queue::{Event, Kind};
use super::sessions::SessionId;
use crate::args::{Args, IntoArgs, Part, Template};
use crate::calls::calls;
use crate::destroy::destroy;
use crate::error::Error;
use crate::name::Name;
use crate::reply::Reply;

/// What a postback and a callback have in common: the session, the event, and the arguments bound to it.
struct Bound {
    session: SessionId,
    event: Name,
    args: Template,
    mailbox: Rc<Mailbox>,
    /// Counts as an extra reference to the session, unless it was weakened.
    hold: Cell<Option<Hold<holds::Postback>>>,
}

impl Bound {
    /// Returns ARG0 and ARG1 of a call.
    fn both(&self, called: Args) -> (Args, Args) {
        (self.args.args().marked(Part::Bound), called.marked(Part::Called))
    }

    fn weaken(&self) {
        if let Some(hold) = self.hold.take() {
            self.mailbox.released(hold);
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.weaken();
    }
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.event, self.session)
    }
}

/// Posts an event to the session that made the postback.
///
/// It needs no kernel, so that code which knows nothing of kernels can call it.
///
/// The event gets ARG0 = the arguments bound to the postback, ARG1 = the arguments of the call, each as an
/// [`Args`](crate::Args). Until the postback is dropped it keeps its session alive, by an extra reference tagged
/// `anon_event`.
///
/// If a session keeps a postback of its own in its heap, or in a wheel or a filter there, the session keeps itself
/// alive, and `IDLE` never comes. [`weaken`](Postback::weaken) such a postback, or drop it in an event.
/// [`peek`](crate::Context::peek) shows it.
///
/// ```
/// use lenore::{Args, Kernel, Session};
///
/// # fn main() -> Result<(), lenore::Error> {
/// fn library(done: impl Fn(u32)) {
///     done(42);
/// }
///
/// let mut kernel = Kernel::new()?;
/// Session::new(())
///     .state("_start", |cx| {
///         let postback = cx.postback("answer", ("to everything",))?;
///         library(|number| postback.call((number,)));
///         Ok(())
///     })
///     .state("answer", |cx| {
///         assert_eq!(cx.arg::<Args>(0).unwrap().get(0), Ok(&"to everything"));
///         assert_eq!(cx.arg::<Args>(1).unwrap().get(0), Ok(&42_u32));
///     })
///     .spawn(&mut kernel)?;
/// kernel.run()
/// # }
/// ```
///
/// POE: `postback`.
#[derive(Debug)]
pub struct Postback(Bound);

impl Postback {
    /// Posts the event with `args` as ARG1.
    ///
    /// The event's sender is the session that runs at this moment. Once the postback's session has stopped, this does
    /// nothing.
    ///
    /// POE: calling the code reference, which returns false.
    #[track_caller]
    pub fn call(&self, args: impl IntoArgs) {
        let args = self.0.both(args.into_args()).into_args();
        let (dest, event, location) = (self.0.session, self.0.event, Location::caller());
        self.0.mailbox.posted(Posting { dest, event, args, location, at: moment() });
    }

    /// Does what [`call`](Postback::call) does, but the event gets `args`, then the bound arguments, like a posted
    /// event.
    #[track_caller]
    pub(crate) fn post(&self, args: impl IntoArgs) {
        let args = args.into_args().chain(self.0.args.args());
        let (dest, event, location) = (self.0.session, self.0.event, Location::caller());
        self.0.mailbox.posted(Posting { dest, event, args, location, at: moment() });
    }

    /// Lets the session end although the postback still exists. The postback works as long as the session lives.
    ///
    /// POE: `weaken`.
    pub fn weaken(&self) {
        self.0.weaken();
    }
}

/// Calls a state of the session that made the callback, and returns its value. Otherwise it is like a [`Postback`].
///
/// POE: `callback`.
#[derive(Debug)]
pub struct Callback(Bound);

impl Callback {
    /// Runs the state before it returns, with `args` as ARG1.
    ///
    /// `kernel` is the kernel or the context of a state. A postback needs neither, as its event can wait. A call can't.
    ///
    /// # Errors
    ///
    /// As [`Kernel::call`](crate::Kernel::call).
    ///
    /// POE: calling the code reference.
    #[track_caller]
    pub fn call<K: AsKernel>(&self, kernel: &mut K, args: impl IntoArgs) -> Result<Reply, Error> {
        let args = self.0.both(args.into_args());
        kernel_of(kernel).call(self.0.session, self.0.event, args)
    }

    /// Lets the session end although the callback still exists. The callback works as long as the session lives.
    ///
    /// POE: `weaken`.
    pub fn weaken(&self) {
        self.0.weaken();
    }
}

calls! {
    /// Postbacks.
    for a running session, with self:

    /// Makes a postback: an event of the running session, with `args` bound to it, for other code to post.
    ///
    /// # Errors
    ///
    /// [`Error::NoActiveSession`] once the session has stopped.
    ///
    /// POE: `$session->postback`.
    pub fn postback(&mut self, event: impl Into<Name>, args: impl IntoArgs + Clone + 'static) -> Result<Postback, Error> {
        self.bind(event.into(), Template::new(args)).map(Postback)
    }

    /// Makes a callback: a call of the running session, with `args` bound to it, for other code to make.
    ///
    /// # Errors
    ///
    /// [`Error::NoActiveSession`] once the session has stopped.
    ///
    /// POE: `$session->callback`.
    pub fn callback(&mut self, event: impl Into<Name>, args: impl IntoArgs + Clone + 'static) -> Result<Callback, Error> {
        self.bind(event.into(), Template::new(args)).map(Callback)
    }
}

impl Core {
    fn bind(&mut self, event: Name, args: Template) -> Result<Bound, Error> {
        let session = self.active.session;
        let hold = Cell::new(self.sessions.hold(session));
        Ok(Bound { session, event, args, mailbox: self.mailbox(), hold })
    }

    /// Queues the events that postbacks have left in the mailbox. Called before anything else is queued and before
    /// another session becomes active, so that the events come in their turn and with the right sender.
    #[inline]
    pub(crate) fn collect_postings(&mut self) {
        if self.sources.has_postings() {
            self.collect_all_postings();
        }
    }

    #[cold]
    fn collect_all_postings(&mut self) {
        let mailbox = self.mailbox();
        mailbox.has_postings.set(false);
        // Take both now: what is destroyed below may post once more, and release a hold. That hold must outlast that
        // event.
        let (postings, released) = (mailbox.postings.take(), mailbox.released.take());
        for Posting { dest, event, args, location, at } in postings {
            if self.sessions.is_alive(dest) {
                let Active { session: sender, event: from } = self.active;
                let at = self.clock.noted(at);
                self.enqueue_at(at, Event { dest, sender, name: event, from, location, args, kind: Kind::Post });
            } else {
                log::debug!(target: "lenore::events", "postback {event} of {dest}, which has stopped ({location})");
                destroy(args);
            }
        }
        drop(released);
    }
}

/// The tag under which postbacks and callbacks keep their session alive.
pub(super) const ANON_EVENT: &str = "anon_event";

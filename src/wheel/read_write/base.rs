//! What both directions of a wheel share.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use crate::args::{Args, IntoArgs};
use crate::filter::FilterError;
use crate::kernel::{AfterFork, Delivery, Mailbox, SessionId, SourceKey, Turn};
use crate::name::Name;
use crate::wheel::refusals::Refusals;
use crate::wheel::stream::Stream;
use crate::wheel::{Failure, WheelId};

/// Whose wheel it is, and how its events are sent.
pub(crate) struct Base {
    pub(crate) id: WheelId,
    pub(crate) owner: SessionId,
    /// What its events say they were sent from.
    pub(crate) name: Name,
    pub(crate) on_error: Cell<Option<Name>>,
    pub(crate) refusals: Refusals,
    pub(crate) after_fork: AfterFork,
    /// The handle is gone and the output isn't: no more events, and the wheel closes itself.
    pub(crate) closing: Cell<bool>,
}

impl Base {
    /// Runs a state of the owner.
    pub(crate) fn dispatch(&self, cx: &mut Turn<'_>, event: Name, args: Args) -> Delivery {
        cx.deliver(self.name, event, args)
    }

    /// Sends the error event, if there is one and the wheel is not closing.
    pub(crate) fn report(&self, cx: &mut Turn<'_>, failure: Failure) -> Delivery {
        match (self.on_error.get(), self.closing.get()) {
            (Some(event), false) => self.dispatch(cx, event, (failure,).into_args()),
            _ => Delivery::Done,
        }
    }

    /// Tells of a record that was read and that the filter refused.
    #[cold]
    pub(crate) fn report_refused(&self, cx: &mut Turn<'_>, error: FilterError) -> Delivery {
        if error.is_out_of_step() {
            return self.report_filter(cx, &error);
        }
        match self.refusals.event(self.id, self.owner, &error) {
            Some(event) => self.dispatch(cx, event, (error, self.id).into_args()),
            None => Delivery::Done,
        }
    }

    /// Sends an error event for a failure of the filter after which the peer does not get, or has not said, what the program
    /// believes.
    #[cold]
    pub(crate) fn report_filter(&self, cx: &mut Turn<'_>, error: &FilterError) -> Delivery {
        self.report(cx, Failure::of_filter(error, self.id))
    }
}

/// One descriptor of a wheel, and its place in the kernel's slab.
pub(crate) struct Port {
    pub(crate) stream: RefCell<Option<Stream>>,
    pub(crate) key: Cell<SourceKey>,
    pub(crate) mailbox: Rc<Mailbox>,
    /// Neither closed nor about to be, as its wheel was dropped.
    pub(crate) is_open: Cell<bool>,
    /// The poller is wanted, as the descriptor has refused to give or take more.
    pub(crate) is_watched: Cell<bool>,
}

impl Port {
    pub(crate) fn new(stream: Stream, key: SourceKey, mailbox: Rc<Mailbox>) -> Port {
        Port {
            stream: RefCell::new(Some(stream)),
            key: Cell::new(key),
            mailbox,
            is_open: Cell::new(true),
            is_watched: Cell::new(false),
        }
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.stream.borrow().as_ref().map_or(-1, Stream::as_raw_fd)
    }

    /// Leaves word that other readiness is wanted than before, or that it may keep its session in another way.
    pub(crate) fn changed(&self) {
        self.mailbox.changed(self.key.get());
    }

    /// Asks for a turn of reading that no readiness will announce.
    pub(crate) fn wake(&self) {
        self.mailbox.woken(self.key.get());
    }

    /// Has the kernel close it before the next event.
    pub(crate) fn drop_later(&self) {
        if self.is_open.replace(false) {
            self.mailbox.dropped(self.key.get());
        }
    }

    /// Closes it; the poller has forgotten it.
    pub(crate) fn close(&self) {
        self.is_open.set(false);
        self.stream.take();
    }
}

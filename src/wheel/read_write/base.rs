//! What both directions of a wheel have in common.

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

/// The session of a wheel, and the events that it sends there.
pub(crate) struct Base {
    pub(crate) id: WheelId,
    pub(crate) owner: SessionId,
    /// The wheel's events say that they come from it.
    pub(crate) name: Name,
    pub(crate) on_error: Cell<Option<Name>>,
    pub(crate) refusals: Refusals,
    pub(crate) after_fork: AfterFork,
    /// The handle is gone, but output is left. The wheel sends no more events, and closes itself.
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

    /// Reports a record of the input that the filter refused.
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

    /// Sends an error event for a failure of the filter after which the peer does not get what the program has put, or
    /// the program can't tell what the peer has sent.
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
    /// The descriptor is neither closed nor about to be closed.
    pub(crate) is_open: Cell<bool>,
    /// The poller watches the descriptor, because it has refused to give or take more.
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

    /// Tells the kernel that the wanted readiness has changed, or whether the wheel keeps its session.
    pub(crate) fn changed(&self) {
        self.mailbox.changed(self.key.get());
    }

    /// Asks for a turn of reading without readiness from the poller.
    pub(crate) fn wake(&self) {
        self.mailbox.woken(self.key.get());
    }

    /// Makes the kernel close the descriptor before the next event.
    pub(crate) fn drop_later(&self) {
        if self.is_open.replace(false) {
            self.mailbox.dropped(self.key.get());
        }
    }

    /// Closes the descriptor. The poller no longer watches it.
    pub(crate) fn close(&self) {
        self.is_open.set(false);
        self.stream.take();
    }
}

//! What the streams of a `Run` have in common: the events, and the process.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use super::Conduit;
use crate::args::{Args, IntoArgs};
use crate::filter::FilterError;
use crate::kernel::{Delivery, Mailbox, Process, SessionId, Turn};
use crate::name::Name;
use crate::wheel::refusals::Refusals;
use crate::wheel::{Failure, WheelId};

/// What the streams of a wheel share. No borrow lasts while a state runs.
pub(super) struct Shared {
    pub(super) id: WheelId,
    pub(super) owner: SessionId,
    /// The wheel's events say that they come from it.
    pub(super) name: Name,
    pub(super) mailbox: Rc<Mailbox>,
    pub(super) on_error: Cell<Option<Name>>,
    pub(super) refusals: Refusals,
    pub(super) on_close: Cell<Option<Name>>,
    pub(super) conduit: Conduit,
    /// The handle still exists.
    pub(super) open: Cell<bool>,
    /// How many of the watched output streams have not ended.
    pub(super) outputs: Cell<u8>,
    /// `None` until a function's fork has come.
    pub(super) process: RefCell<Option<Process>>,
}

impl Shared {
    /// Runs a state of the owner, if the event has a name and the handle is there.
    pub(super) fn send(&self, cx: &mut Turn<'_>, event: Option<Name>, args: Args) -> Delivery {
        match event {
            Some(event) if self.open.get() => cx.deliver(self.name, event, args),
            _ => Delivery::Done,
        }
    }

    pub(super) fn report(
        &self,
        cx: &mut Turn<'_>,
        operation: &'static str,
        error: &io::Error,
        stream: &'static str,
    ) -> Delivery {
        self.fail(cx, Failure::new(operation, error, self.id).about(stream))
    }

    pub(super) fn report_end(&self, cx: &mut Turn<'_>, stream: &'static str) -> Delivery {
        self.fail(cx, Failure::end_of_input(self.id).about(stream))
    }

    pub(super) fn fail(&self, cx: &mut Turn<'_>, failure: Failure) -> Delivery {
        self.send(cx, self.on_error.get(), (failure,).into_args())
    }

    pub(super) fn report_refused(&self, cx: &mut Turn<'_>, error: FilterError, stream: &'static str) -> Delivery {
        if error.is_out_of_step() {
            return self.report_filter(cx, &error, stream);
        }
        let event = self.refusals.event(self.id, self.owner, &error);
        self.send(cx, event, (error, self.id, stream).into_args())
    }

    /// Sends an error event for a failure of the filter after which the child does not get what the program has put, or
    /// the program can't tell what the child has written.
    pub(super) fn report_filter(&self, cx: &mut Turn<'_>, error: &FilterError, stream: &'static str) -> Delivery {
        self.fail(cx, Failure::of_filter(error, self.id).about(stream))
    }

    /// Counts one watched output stream as ended. After the last one there is no more output.
    pub(super) fn output_ended(&self, cx: &mut Turn<'_>) {
        self.outputs.set(self.outputs.get() - 1);
        if self.outputs.get() == 0 {
            self.send(cx, self.on_close.get(), (self.id,).into_args());
        }
    }

    pub(super) fn describe_process(&self) -> String {
        match &*self.process.borrow() {
            Some(process) => format!("process {}", process.pid()),
            None => String::from("a process to come"),
        }
    }
}

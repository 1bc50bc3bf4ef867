//! The events of a wheel that makes sockets.

use std::cell::Cell;

use super::SocketEvent;
use super::socket::CallError;
use crate::args::{Args, IntoArgs};
use crate::kernel::{Core, Delivery, SessionId, Turn};
use crate::name::Name;
use crate::wheel::{Failure, WheelId};

/// A wheel's id, its session, and the events that it sends there.
#[derive(Debug)]
pub(in crate::wheel) struct Report {
    pub(in crate::wheel) id: WheelId,
    pub(in crate::wheel) owner: SessionId,
    /// The wheel's events say that they come from it.
    pub(in crate::wheel) wheel: Name,
    pub(in crate::wheel) on_success: Cell<Name>,
    /// Without one, failures are logged.
    pub(in crate::wheel) on_error: Cell<Option<Name>>,
}

impl Report {
    pub(in crate::wheel) fn set_event(&self, event: SocketEvent, name: Name) {
        match event {
            SocketEvent::Success => self.on_success.set(name),
            SocketEvent::Error => self.on_error.set(Some(name)),
        }
    }

    pub(super) fn succeed(&self, cx: &mut Turn<'_>, args: Args) -> Delivery {
        cx.deliver(self.wheel, self.on_success.get(), args)
    }

    pub(super) fn fail(&self, cx: &mut Turn<'_>, failure: &CallError) -> Delivery {
        match self.on_error.get() {
            Some(event) => cx.deliver(self.wheel, event, self.failure_args(failure)),
            None => {
                self.log(failure);
                Delivery::Done
            }
        }
    }

    /// Posts the success event from inside the constructor, because the caller does not have the wheel yet.
    pub(super) fn post_success(&self, core: &mut Core, args: Args) {
        core.yield_(self.on_success.get(), args);
    }

    pub(super) fn post_failure(&self, core: &mut Core, failure: &CallError) {
        match self.on_error.get() {
            Some(event) => core.yield_(event, self.failure_args(failure)),
            None => self.log(failure),
        }
    }

    fn failure_args(&self, failure: &CallError) -> Args {
        let failure = Failure { errno: failure.errno(), ..Failure::new(failure.operation, &failure.error, self.id) };
        (failure,).into_args()
    }

    fn log(&self, CallError { operation, error }: &CallError) {
        log::error!(target: "lenore::wheels", "{} of {}: {operation}: {error}", self.id, self.owner);
    }
}

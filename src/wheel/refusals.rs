//! Records that a filter refuses: an event for each, or one line in the log.

use std::cell::Cell;

use super::WheelId;
use crate::filter::FilterError;
use crate::kernel::SessionId;
use crate::name::Name;

/// Where a wheel reports records that its filter has refused. This is not the error event, because the wheel goes on,
/// and a state for the error event usually drops the wheel.
pub(super) struct Refusals {
    event: Cell<Option<Name>>,
    is_logged: Cell<bool>,
}

impl Refusals {
    pub(super) fn new(event: Option<Name>) -> Refusals {
        Refusals { event: Cell::new(event), is_logged: Cell::new(false) }
    }

    pub(super) fn set_event(&self, event: Option<Name>) {
        self.event.set(event);
    }

    /// Returns the event to send. Without one it logs the first record only, so that a peer can't fill the log.
    pub(super) fn event(&self, wheel: WheelId, owner: SessionId, error: &FilterError) -> Option<Name> {
        let event = self.event.get();
        if event.is_none() && !self.is_logged.replace(true) {
            log::warn!(target: "lenore::wheels", "{wheel} of {owner}: the filter refused a record, and more will not be logged: {error}");
        }
        event
    }
}

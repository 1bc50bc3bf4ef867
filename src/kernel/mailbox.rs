//! Where wheels and postbacks leave word for the kernel.

use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::time::Instant;

use super::sessions::SessionId;
use super::source::SourceKey;
use crate::args::Args;
use crate::name::Name;

/// Where wheels leave word for the kernel: they are used while the heap that holds them is borrowed.
#[derive(Default)]
pub(crate) struct Mailbox {
    /// Wheels with something put into them.
    pub(super) dirty: RefCell<Vec<SourceKey>>,
    /// Wheels whose handle is gone.
    pub(super) dropped: RefCell<Vec<SourceKey>>,
    /// One of these two may have something in it.
    pub(super) has_wheel_work: Cell<bool>,
    /// Wheels that want other readiness than before.
    pub(super) changed: RefCell<Vec<SourceKey>>,
    /// Wheels that have work which no readiness will announce.
    pub(super) woken: RefCell<Vec<SourceKey>>,
    /// What postbacks have posted, and whose extra references those that are gone held.
    pub(super) postings: RefCell<Vec<Posting>>,
    pub(super) released: RefCell<Vec<SessionId>>,
    /// One of the last two has something in it.
    pub(super) has_postings: Cell<bool>,
}

/// An event from a postback, on its way to the queue.
pub(crate) struct Posting {
    pub(super) dest: SessionId,
    pub(super) event: Name,
    pub(super) args: Args,
    pub(super) location: &'static Location<'static>,
    /// When: its place is behind the alarms that were due by then.
    pub(super) at: Instant,
}

impl Mailbox {
    pub(crate) fn dirty(&self, key: SourceKey) {
        self.dirty.borrow_mut().push(key);
        self.has_wheel_work.set(true);
    }

    pub(crate) fn dropped(&self, key: SourceKey) {
        self.dropped.borrow_mut().push(key);
        self.has_wheel_work.set(true);
    }

    pub(crate) fn changed(&self, key: SourceKey) {
        self.changed.borrow_mut().push(key);
    }

    pub(crate) fn woken(&self, key: SourceKey) {
        self.woken.borrow_mut().push(key);
    }

    pub(super) fn posted(&self, posting: Posting) {
        self.postings.borrow_mut().push(posting);
        self.has_postings.set(true);
    }

    pub(super) fn released(&self, session: SessionId) {
        self.released.borrow_mut().push(session);
        self.has_postings.set(true);
    }
}

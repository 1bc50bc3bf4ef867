//! Listeners of one session that take turns.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use super::listening::Acceptor;
use crate::kernel::Source;

/// Listeners that one session accepts from, one connection at a time.
///
/// A session that pauses all of them after each connection would always accept from the one that the kernel asks first. So a
/// listener that has just accepted gives way once to another one that has a client.
#[derive(Default)]
pub(crate) struct Rota {
    members: RefCell<Vec<Weak<Acceptor>>>,
    /// Who has accepted the latest connection, by its place among the members.
    last: Cell<Option<usize>>,
    /// How often that one has given way since.
    passed: Cell<u32>,
}

impl Rota {
    /// Adds a listener, and returns its place.
    pub(super) fn join(&self, acceptor: &Rc<Acceptor>) -> usize {
        let mut members = self.members.borrow_mut();
        members.push(Rc::downgrade(acceptor));
        members.len() - 1
    }

    /// Tells whether the listener is to leave this turn to another one, which has a client.
    pub(super) fn gives_way(&self, place: usize) -> bool {
        if self.last.get() != Some(place) || self.passed.get() >= PASSES {
            return false;
        }
        let waits = |(at, member): (usize, &Weak<Acceptor>)| {
            at != place && member.upgrade().is_some_and(|member| member.wanted().is_some() && member.has_client())
        };
        let another_waits = self.members.borrow().iter().enumerate().any(waits);
        if another_waits {
            self.passed.set(self.passed.get() + 1);
        }
        another_waits
    }

    /// Notes that the listener has accepted a connection.
    pub(super) fn accepted(&self, place: usize) {
        self.last.set(Some(place));
        self.passed.set(0);
    }
}

/// How often a listener gives way at a time. The poller may tell of the other one in its next answer only; and another process
/// may take that client first.
const PASSES: u32 = 2;

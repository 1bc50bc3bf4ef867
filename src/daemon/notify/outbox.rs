//! What is on its way to the service manager: what it has to hear is kept until it was sent, in order.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::socket::ManagerSocket;

/// What has become of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sent {
    Yes,
    /// Not now.
    No,
    /// There is nowhere to send it.
    Never,
}

/// A message that the manager has to hear.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) about: About,
    pub(super) text: String,
    /// A descriptor that goes with it.
    pub(super) fd: Option<OwnedFd>,
}

/// What a letter is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum About {
    /// The start is over.
    Ready,
    /// A change begins, or is over.
    Change,
    /// Which process speaks for the service.
    MainProcess,
    Stopping,
}

/// The way to the manager.
#[derive(Debug)]
pub(super) struct Outbox {
    /// `None` if the manager has no address that can be reached.
    socket: Option<ManagerSocket>,
    /// What it has to hear, and could not be sent. Few: of each kind but the last pair or one.
    owed: VecDeque<Letter>,
    /// The log knows that it can't be reached.
    is_loss_told: bool,
}

impl Outbox {
    pub(super) fn new(socket: Option<ManagerSocket>) -> Outbox {
        Outbox { socket, owed: VecDeque::new(), is_loss_told: false }
    }

    /// Tells whether there is an address to send to.
    pub(super) fn leads_anywhere(&self) -> bool {
        self.socket.is_some()
    }

    /// Tells whether the manager has still to hear something.
    pub(super) fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    /// Sends a message that may as well be lost.
    pub(super) fn say(&mut self, text: &str) -> Sent {
        self.say_with(text, None)
    }

    /// The same, with a descriptor.
    pub(super) fn say_with(&mut self, text: &str, fd: Option<BorrowedFd<'_>>) -> Sent {
        // It is not to hear of what comes later first.
        self.retry();
        if self.owes() { Sent::No } else { self.send(text, fd) }
    }

    /// Sends what the manager has to know. It is tried again until it is sent.
    pub(super) fn say_surely(&mut self, letter: Letter) {
        if self.say_with(&letter.text, letter.fd.as_ref().map(AsFd::as_fd)) == Sent::No {
            self.owed.push_back(letter);
        }
    }

    /// Sends again what has not been sent.
    pub(super) fn retry(&mut self) {
        while let Some(letter) = self.owed.pop_front() {
            if self.send(&letter.text, letter.fd.as_ref().map(AsFd::as_fd)) == Sent::No {
                return self.owed.push_front(letter);
            }
        }
    }

    /// What was not sent about this need not be heard any more.
    pub(super) fn forget(&mut self, about: About) {
        self.owed.retain(|letter| letter.about != about);
    }

    /// Nothing need be heard any more.
    pub(super) fn forget_all(&mut self) {
        self.owed.clear();
    }

    fn send(&mut self, text: &str, fd: Option<BorrowedFd<'_>>) -> Sent {
        let Some(socket) = &self.socket else { return Sent::Never };
        match socket.send(text, fd) {
            Ok(()) => {
                self.is_loss_told = false;
                Sent::Yes
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_loss_told, true) {
                    log::warn!(target: "lenore::daemon", "the service manager can't be told for now: {error}");
                }
                Sent::No
            }
        }
    }
}

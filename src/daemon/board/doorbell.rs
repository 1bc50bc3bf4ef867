//! The doorbell: one pair of sockets between the parent and all of its children.
//!
//! A child rings by sending a message of one byte. The parent never sends: its end is there to be closed. When it is closed, by the
//! parent's death at the latest, every child reads an end of file. That is reliable, where the parent's pid and `PR_SET_PDEATHSIG`
//! are not. But no child may have a copy of the parent's end.
//!
//! A child also answers here when the parent has asked it for something. The message names the question, and has a file in memory with
//! the answer. So no descriptor stands open for answers.

#[cfg(feature = "control")]
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::error::Error;
use crate::kernel::Handle;
use crate::sys::passing;

/// Both ends; a child lets go of the parent's as its first act.
pub(crate) struct Doorbell {
    parents_end: Option<Handle>,
    childs_end: Handle,
}

/// What a child has answered.
#[cfg(feature = "control")]
#[derive(Debug)]
pub(crate) struct Answer {
    /// The number of the question.
    pub(crate) number: u32,
    /// The file with the answer. A child has made it: it may be anything.
    pub(crate) file: OwnedFd,
}

impl Doorbell {
    pub(crate) fn new() -> Result<Doorbell, Error> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (parents_end, childs_end) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
            .map_err(|errno| Error::os("socketpair", "for the doorbell", errno))?;
        Ok(Doorbell { parents_end: Some(Handle::new(parents_end)), childs_end: Handle::new(childs_end) })
    }

    /// The end that the parent watches; `None` in a child.
    pub(crate) fn parents_end(&self) -> Option<&Handle> {
        self.parents_end.as_ref()
    }

    /// The end that a child watches for the parent's death.
    pub(crate) fn childs_end(&self) -> &Handle {
        &self.childs_end
    }

    /// Lets go of the parent's end.
    pub(crate) fn become_childs(&mut self) {
        self.parents_end = None;
    }

    /// Tells the parent to look at the scoreboard. A queue that is full says so already; a parent that is gone is
    /// noticed by the end of file.
    pub(crate) fn ring(&self) {
        let _ = passing::send(&self.childs_end, &[1], None);
    }

    /// Answers the parent's question of this number with a file.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if so many have rung that there is no room; another try may succeed once the parent has looked.
    #[cfg(feature = "control")]
    pub(crate) fn send_answer(&self, number: u32, file: impl AsFd) -> Result<(), Errno> {
        passing::send(&self.childs_end, &number.to_ne_bytes(), Some(file.as_fd()))
    }

    /// Takes what the children have rung, and what they have answered.
    #[cfg(feature = "control")]
    pub(crate) fn answer(&self) -> Vec<Answer> {
        let mut answers = Vec::new();
        let mut message = [0; size_of::<u32>()];
        self.take(|end| {
            let (length, file) = passing::receive(end, &mut message)?;
            if let (Some(file), true) = (file, length == message.len()) {
                answers.push(Answer { number: u32::from_ne_bytes(message), file });
            }
            Ok(length)
        });
        answers
    }

    /// Takes what the children have rung.
    #[cfg(not(feature = "control"))]
    pub(crate) fn answer(&self) {
        self.take(|end| nix::unistd::read(end, &mut [0; 1]));
    }

    fn take(&self, mut receive: impl FnMut(&Handle) -> Result<usize, Errno>) {
        let Some(end) = &self.parents_end else { return };
        // As many children as may ring at once fit in this; more come again in the next slice.
        for _ in 0..MESSAGES {
            match receive(end) {
                Ok(0) | Err(Errno::EAGAIN) => return,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }
}

/// How many messages are taken in a row.
const MESSAGES: usize = 64;

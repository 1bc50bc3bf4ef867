//! The doorbell: one socket pair between the parent and all of its children.
//!
//! A child rings by writing an octet into its end. The parent never writes: its end is there to be closed. When it is,
//! by the parent's death at the latest, every child reads an end of file. That is the truth about the parent, where its pid
//! and `PR_SET_PDEATHSIG` are not; but only if no child has a copy of the parent's end.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use crate::error::Error;
use crate::kernel::Handle;

/// Both ends; a child lets go of the parent's as its first act.
pub(crate) struct Doorbell {
    parents_end: Option<Handle>,
    childs_end: Handle,
}

impl Doorbell {
    pub(crate) fn new() -> Result<Doorbell, Error> {
        let (parents_end, childs_end) = UnixStream::pair()
            .and_then(|(one, other)| {
                one.set_nonblocking(true)?;
                other.set_nonblocking(true)?;
                Ok((one, other))
            })
            .map_err(|error| Error::os("socketpair", "for the doorbell", error))?;
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

    /// Tells the parent to look at the scoreboard. A pipe that is full says so already; a parent that is gone is
    /// noticed by the end of file.
    pub(crate) fn ring(&self) {
        let mut end = self.childs_end.clone();
        let _ = end.write(&[1]);
    }

    /// Takes what the children have rung.
    pub(crate) fn answer(&self) {
        let Some(mut end) = self.parents_end.clone() else { return };
        let mut octets = [0; 256];
        // As many children as may ring at once fit in a few reads; more than that comes again in the next slice.
        for _ in 0..16 {
            match end.read(&mut octets) {
                Ok(count) if count == octets.len() => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    }
}

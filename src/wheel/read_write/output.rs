//! What waits to be written to one descriptor.

use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;

/// Octets to be written, from `start` on.
#[derive(Default)]
pub(super) struct Output {
    pub(super) bytes: Vec<u8>,
    start: usize,
}

impl Output {
    /// Returns how many octets wait.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.start = 0;
        // What one slow reader piled up is not kept for ever.
        self.bytes.shrink_to(KEPT);
    }

    /// Writes everything, or as much as `fd` takes: what is left when it fails stays, `WouldBlock` included.
    pub(super) fn write_to(&mut self, fd: impl AsFd) -> io::Result<()> {
        while self.len() > 0 {
            match nix::unistd::write(&fd, &self.bytes[self.start..]) {
                Ok(count) => self.start += count,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        self.clear();
        Ok(())
    }
}

/// How much memory an empty buffer keeps.
const KEPT: usize = 64 * 1024;

//! The listeners of this process as a whole: making copies for a process that takes over, and holding them back
//! meanwhile.

use std::io;
use std::os::fd::OwnedFd;

use super::core::Core;
use super::sessions::SessionId;
use super::source::KnownAs;

impl Core {
    /// Copies each listener that a successor may take over.
    ///
    /// # Errors
    ///
    /// When no descriptor is left for a copy.
    pub(crate) fn copy_listeners(&self) -> io::Result<Vec<(OwnedFd, KnownAs)>> {
        let known = |key| Some((key, self.sources.source(key)?.known_as()?));
        let listeners = self.sources.listeners().into_iter().filter_map(known);
        listeners.map(|(key, known_as)| Ok((self.duplicate_listener(key)?, known_as))).collect()
    }

    /// Makes the wheels of all sessions but one accept nothing while `held` is true. Clients then wait in the queues.
    pub(crate) fn hold_listeners(&mut self, held: bool, except: SessionId) {
        for key in self.sources.listeners() {
            if let Some(source) = self.sources.source(key).filter(|_| self.sources.owner(key) != Some(except)) {
                source.hold(held);
                self.review_source(key);
            }
        }
    }
}

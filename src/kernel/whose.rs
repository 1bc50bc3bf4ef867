//! Whose something is: the only place where processes are compared.

use std::sync::atomic::{AtomicU32, Ordering};

use super::core::Core;

/// The process that has made something which outlives it, such as a file. Its forked children have copies, and undo nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Maker(u32);

impl Maker {
    pub(crate) fn this_process() -> Maker {
        Maker(std::process::id())
    }

    /// Tells whether that is this process, or one from which the program has moved here.
    pub(crate) fn is_here(self) -> bool {
        let own = std::process::id();
        self.0 == own || MOVED_TO.load(Ordering::Relaxed) == own && MOVED_FROM.load(Ordering::Relaxed) == self.0
    }
}

impl Core {
    /// Tells whether this is the process that the kernel takes it for: not one that the program has forked by itself.
    pub(super) fn is_here(&self) -> bool {
        std::process::id() == self.pid
    }

    /// Notes that the program goes on in this process, with all that it has made in the one before.
    pub(super) fn moved_here(&mut self) {
        MOVED_FROM.store(self.pid, Ordering::Relaxed);
        self.pid = std::process::id();
        MOVED_TO.store(self.pid, Ordering::Relaxed);
    }
}

/// Tells whether this process, or one that it was forked from, has been detached.
pub(crate) fn is_detached() -> bool {
    MOVED_TO.load(Ordering::Relaxed) != 0
}

/// The process in which the program was started, once it has been detached.
static MOVED_FROM: AtomicU32 = AtomicU32::new(0);

/// The process that the program has moved to; its children inherit this, and are others. 0 before that.
static MOVED_TO: AtomicU32 = AtomicU32::new(0);

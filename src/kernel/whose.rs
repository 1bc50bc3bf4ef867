//! Which process owns something: the only place where processes are compared.

use std::sync::atomic::{AtomicU32, Ordering};

use super::core::Core;

/// The process that has made something which outlives a process, such as a file. Forked children have copies of this
/// value, and must not undo what their parent has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Maker(u32);

impl Maker {
    pub(crate) fn this_process() -> Maker {
        Maker(std::process::id())
    }

    /// Tells whether the maker is this process, or a process from which the program has moved here.
    pub(crate) fn is_here(self) -> bool {
        let own = std::process::id();
        self.0 == own || MOVED_TO.load(Ordering::Relaxed) == own && MOVED_FROM.load(Ordering::Relaxed) == self.0
    }
}

impl Core {
    /// Tells whether this is the process that the kernel knows, and not one that the program has forked by itself.
    pub(super) fn is_here(&self) -> bool {
        std::process::id() == self.pid
    }

    /// Notes that the program goes on in this process, which now owns what the former process has made.
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

/// The process that the program has moved to; 0 before that. Its children inherit the value, which then is not their
/// own pid.
static MOVED_TO: AtomicU32 = AtomicU32::new(0);

//! The memory that metrics are counted in. It has a block of numbers for each process, and a process writes its own block only.
//!
//! A block begins on a page of its own. So processes never slow each other down, and a child that counts nothing touches no page.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use crate::sys::shared_memory::MAX_SLOTS;
use crate::sys::shared_words::SharedWords;

/// How many numbers a block has: two pages of them.
pub(super) const BLOCK: usize = 1024;

/// The block of the parent, which also has the counts of dead children.
const PARENT: usize = 0;

/// The block of all processes that are neither the parent nor one of its children.
const OTHERS: usize = 1;

/// The block of the child in slot 0.
const FIRST_SLOT: usize = 2;

/// All blocks, and which of them is this process's.
#[derive(Debug)]
pub(super) struct Memory {
    shared: SharedWords,
    /// The first number of the block that this process writes. Private to the process.
    ///
    /// If other code has forked a process and the kernel does not know of it, that process writes where its parent does. It loses no
    /// count, as every count is one atomic addition.
    own: AtomicUsize,
}

impl Memory {
    pub(super) fn new() -> io::Result<Memory> {
        let shared = SharedWords::new((FIRST_SLOT + MAX_SLOTS) * BLOCK)?;
        Ok(Memory { shared, own: AtomicUsize::new(PARENT * BLOCK) })
    }

    /// Returns a number of this process's block.
    #[inline]
    pub(super) fn own(&self, word: usize) -> &AtomicU64 {
        &self.shared.words()[self.own.load(Relaxed) + word]
    }

    pub(super) fn of_parent(&self, word: usize) -> &AtomicU64 {
        &self.shared.words()[PARENT * BLOCK + word]
    }

    pub(super) fn of_others(&self, word: usize) -> &AtomicU64 {
        &self.shared.words()[OTHERS * BLOCK + word]
    }

    pub(super) fn of_child(&self, slot: usize, word: usize) -> &AtomicU64 {
        &self.shared.words()[(FIRST_SLOT + slot) * BLOCK + word]
    }

    /// This process is the child in `slot`.
    pub(super) fn become_child(&self, slot: usize) {
        self.own.store((FIRST_SLOT + slot) * BLOCK, Relaxed);
    }

    /// This process is the parent, as it is from the beginning.
    #[cfg(test)]
    pub(super) fn become_parent(&self) {
        self.own.store(PARENT * BLOCK, Relaxed);
    }

    /// This process was just forked.
    pub(super) fn become_other(&self) {
        self.own.store(OTHERS * BLOCK, Relaxed);
    }
}

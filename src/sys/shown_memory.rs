//! The memory of a daemon that other programs may look at: what is told of it, the [`Slot`]s, and their statistics.
//!
//! It is laid out as one file: a [`ShownHeader`], [`MAX_SLOTS`] slots, as many [`Stats`], and a mark. The file is sparse, as most
//! daemons use few slots. Nothing in here decides anything but whether the file is lost, so a program that scribbles over it misleads its readers only.
//! As in [`shared_memory`](super::shared_memory), it holds nothing but atomic integers.

use std::fs::File;
use std::io;
use std::mem::size_of;
use std::slice;

use super::atomics::{AtomicU32, AtomicU64};
use super::mapping::Mapping;
use super::shared_memory::{MAX_SLOTS, Slot};

/// A shared mapping of what other programs may look at.
#[derive(Debug)]
pub(crate) struct ShownBoard {
    /// Page-aligned, hence aligned for all that is in it. At least [`LENGTH`] bytes long.
    mapping: Mapping,
    /// The same in a file, for other programs. The processes of the daemon write there what they write here, and never read it:
    /// whoever can shorten the file can put zeroes in its place.
    copy: Option<Box<ShownBoard>>,
}

impl ShownBoard {
    /// How many bytes it takes.
    pub(crate) const LENGTH: usize = Self::END_AT + size_of::<AtomicU64>();

    /// Where the mark at its end is.
    pub(crate) const END_AT: usize = STATS_AT + MAX_SLOTS * size_of::<Stats>();

    /// Where the part ends that belongs to the first `slots` slots, and where it begins and ends for their statistics.
    pub(crate) const fn used(slots: usize) -> (usize, (usize, usize)) {
        let slots = if slots < MAX_SLOTS { slots } else { MAX_SLOTS };
        (SLOTS_AT + slots * size_of::<Slot>(), (STATS_AT, STATS_AT + slots * size_of::<Stats>()))
    }

    /// Maps all of it: of `file`, which may be read only if not `is_writable`, else memory without a name.
    ///
    /// # Errors
    ///
    /// What `mmap` and `fstat` say. `UnexpectedEof` for a file that is too short.
    pub(crate) fn map(file: Option<(&File, bool)>) -> io::Result<ShownBoard> {
        let Some((file, is_writable)) = file else {
            return Ok(ShownBoard { mapping: Mapping::sparse(Self::LENGTH)?, copy: None });
        };
        if file.metadata()?.len() < Self::LENGTH as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(ShownBoard { mapping: Mapping::of_file(file, Self::LENGTH, is_writable)?, copy: None })
    }

    /// Adds a copy in a file. Both are as new.
    pub(crate) fn with_copy(self, copy: ShownBoard) -> ShownBoard {
        ShownBoard { copy: Some(Box::new(copy)), ..self }
    }

    /// Returns the copy in a file, if there is one.
    #[inline]
    pub(crate) fn copy(&self) -> Option<&ShownBoard> {
        self.copy.as_deref()
    }

    /// Tells whether its file was cut short, so that it is this process's own by now.
    pub(crate) fn is_lost(&self) -> bool {
        self.mapping.is_lost()
    }

    /// Returns what is told of the daemon.
    pub(crate) fn header(&self) -> &ShownHeader {
        // SAFETY: the mapping is page-aligned (asserted below to be enough) and longer than a `ShownHeader`. It is readable
        // until `self` drops, which outlives the borrow. Every bit pattern is valid and it holds nothing but atomics, so
        // other processes may write while this lives. Where it can't be written, the callers only load, and relaxed: that is
        // defined for memory that may only be read.
        unsafe { self.mapping.base().cast::<ShownHeader>().as_ref() }
    }

    /// Returns all the slots.
    pub(crate) fn slots(&self) -> &[Slot] {
        // SAFETY: `LENGTH` has room for `MAX_SLOTS` of them from there on, and the offset keeps them aligned (asserted
        // below). For the rest what `header` says holds.
        unsafe { slice::from_raw_parts(self.mapping.base().byte_add(SLOTS_AT).cast::<Slot>().as_ptr(), MAX_SLOTS) }
    }

    /// Returns the statistics of all the slots.
    pub(crate) fn stats(&self) -> &[Stats] {
        // SAFETY: as in `slots`.
        unsafe { slice::from_raw_parts(self.mapping.base().byte_add(STATS_AT).cast::<Stats>().as_ptr(), MAX_SLOTS) }
    }

    /// Returns the mark at its end, which is [`MAGIC`]. Of a file that was cut short anywhere, and made as long as before again, it is 0.
    pub(crate) fn end(&self) -> &AtomicU64 {
        // SAFETY: `LENGTH` has room for it there, and behind so many `Stats` it is aligned. For the rest what `header` says holds.
        unsafe { self.mapping.base().byte_add(Self::END_AT).cast::<AtomicU64>().as_ref() }
    }
}

/// What is told of a daemon beside its children. Written by the parent only.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct ShownHeader {
    /// [`MAGIC`].
    pub(crate) magic: AtomicU64,
    /// [`LAYOUT`].
    pub(crate) layout: AtomicU32,
    /// The size of this header in bytes.
    pub(crate) header_size: AtomicU32,
    /// The size of a slot in bytes.
    pub(crate) slot_size: AtomicU32,
    /// The size of a slot's statistics in bytes.
    pub(crate) stats_size: AtomicU32,
    /// For how many slots the file has room.
    pub(crate) max_slots: AtomicU32,
    /// The parent process.
    pub(crate) pid: AtomicU32,
    /// When the parent process was started, in clock ticks since the system was: field 22 of `/proc/PID/stat`.
    pub(crate) start_time: AtomicU64,
    /// Which start of the system it was: 16 bytes in native order.
    pub(crate) boot_id: [AtomicU64; 2],
    /// When the Daemon was spawned, in milliseconds since 1970.
    pub(crate) born_ms: AtomicU64,
    /// What kind of server it is.
    pub(crate) kind: AtomicU32,
    /// How many configurations have been in use.
    pub(crate) generation: AtomicU32,
    /// The alias of the Daemon: bytes in native order, padded with zeroes.
    pub(crate) name: [AtomicU64; NAME_WORDS],
    /// The version of this crate, as the name.
    pub(crate) version: [AtomicU64; VERSION_WORDS],
    /// When the parent last looked at its children, in milliseconds since 1970.
    pub(crate) heartbeat_ms: AtomicU64,
    /// Forks that were carried out.
    pub(crate) forks: AtomicU64,
    /// How many children have ended for which cause.
    pub(crate) exits: [AtomicU64; EXIT_WORDS],
    /// Where in its life the Daemon is.
    pub(crate) phase: AtomicU32,
    /// How many slots are in use.
    pub(crate) slots: AtomicU32,
    pub(crate) min_spare: AtomicU32,
    pub(crate) max_spare: AtomicU32,
    pub(crate) max_children: AtomicU32,
    pub(crate) start_children: AtomicU32,
    pub(crate) forks_in_flight: AtomicU32,
    /// Post-forking: how many requests wait for a child.
    pub(crate) queued: AtomicU32,
    /// Odd while the parent changes the fields from `forks` on.
    pub(crate) sequence: AtomicU32,
    pub(crate) ledger: Ledger,
}

/// What children have done that have ended.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Ledger {
    /// Which of `retired` counts, and of which slot the numbers are in it already. See `crate::daemon::board`.
    pub(crate) folding: AtomicU64,
    /// Sums. One counts, and the parent puts the next ones together in the other.
    pub(crate) retired: [Stats; 2],
}

/// What one child has done, or those that have ended. Its writer is the child, or the parent while there is no such child.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Stats {
    /// Durations of requests.
    pub(crate) request: Cells,
    /// How long connections had waited when they were accepted.
    pub(crate) accept_wait: Cells,
    /// For how long there was a request in hand. See `crate::daemon::board`.
    pub(crate) busy: AtomicU64,
    /// When the request in hand was begun, by the same clock. For the child itself.
    pub(crate) busy_since: AtomicU64,
    /// Requests that were begun, of those that have ended. Of a child, its slot has the number.
    pub(crate) requests: AtomicU64,
    /// Requests that the application says have failed.
    pub(crate) failed: AtomicU64,
}

/// A histogram.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Cells {
    /// How many observations fell into each bucket.
    pub(crate) buckets: [AtomicU64; BUCKETS],
    /// The sum of all observations in microseconds.
    pub(crate) sum: AtomicU64,
}

/// How many buckets a histogram has.
#[cfg(not(any(lenore_loom, lenore_shuttle)))]
pub(crate) const BUCKETS: usize = 63;
/// A model checker looks at each.
#[cfg(any(lenore_loom, lenore_shuttle))]
pub(crate) const BUCKETS: usize = 1;

/// How a board begins: `LENOREBD`, in native order, so that a machine with another order does not take it for its own.
pub(crate) const MAGIC: u64 = u64::from_be_bytes(*b"LENOREBD");

/// The number of this layout. Each change of a type in this file or of a slot gets a new one.
pub(crate) const LAYOUT: u32 = 3;

/// How long the name may be, in words.
pub(crate) const NAME_WORDS: usize = 8;
/// How long the version may be, in words.
pub(crate) const VERSION_WORDS: usize = 4;
/// For how many causes of a child's end there is room.
pub(crate) const EXIT_WORDS: usize = 16;

/// Where the slots begin.
const SLOTS_AT: usize = 4096;
/// Where the statistics begin.
const STATS_AT: usize = SLOTS_AT + MAX_SLOTS * size_of::<Slot>();

#[cfg(not(any(lenore_loom, lenore_shuttle)))]
const _: () = {
    assert!(size_of::<ShownHeader>() <= SLOTS_AT);
    assert!(size_of::<Cells>() == 64 * 8);
    assert!(
        STATS_AT.is_multiple_of(std::mem::align_of::<Stats>()) && SLOTS_AT.is_multiple_of(std::mem::align_of::<Slot>())
    );
    assert!(std::mem::align_of::<ShownHeader>() <= 4096);
};

//! The memory that a daemon shares with its children: a [`Header`] by which they decide, and a row of [`Slot`]s.
//!
//! This file lays it out and hands out references; what the fields mean, and who may write them when,
//! is the business of [`crate::daemon::board`]. It is kept this small so that one reading settles whether
//! it is sound:
//!
//! - the mapping holds atomic integers and nothing else: no pointer, no lock, no `bool` or enum. Every pattern of
//!   bits is a valid value, so a process that scribbles over the memory can mislead its readers but never make
//!   their behaviour undefined;
//! - only `&Header` and `&[Slot]` are ever given out, never `&mut`.
//!
//! The header's mapping is anonymous and `MAP_SHARED`: `fork` passes it on at the same address, nothing has a name that
//! could be left behind, and the kernel frees it when the last process has unmapped it or died. The slots lie behind the
//! header, unless other programs may look at them. Then they are in a mapping of their own, a [`ShownBoard`].

use std::io;
use std::mem::{align_of, size_of};
use std::ptr::NonNull;
use std::slice;

use super::atomics::{AtomicU32, AtomicU64};
use super::mapping::Mapping;
use super::shown_memory::ShownBoard;

/// A shared mapping of one [`Header`] and a fixed number of [`Slot`]s, all zero at first.
#[derive(Debug)]
pub(crate) struct SharedBoard {
    /// The header, and right behind it the slots, unless those are shown. Page-aligned, hence aligned for both.
    deciding: Mapping,
    /// What other programs may look at.
    shown: Option<ShownBoard>,
    /// How many slots there are.
    slots: usize,
}

impl SharedBoard {
    /// Maps a header and `slots` slots; zero slots is allowed.
    ///
    /// # Errors
    ///
    /// What `mmap` says, `ENOMEM` above all; also for a size that does not fit the address space.
    ///
    /// POE: `shmget` in `POE::Component::Daemon::Scoreboard`, whose segment outlives a killed daemon.
    pub(crate) fn new(slots: usize) -> io::Result<Self> {
        let length = slots.checked_mul(size_of::<Slot>()).and_then(|bytes| bytes.checked_add(size_of::<Header>()));
        let deciding = Mapping::unnamed(length.ok_or(io::ErrorKind::OutOfMemory)?)?;
        Ok(Self { deciding, shown: None, slots })
    }

    /// Maps a header, to which the slots of `shown` belong.
    ///
    /// # Errors
    ///
    /// As [`new`](SharedBoard::new).
    #[cfg(feature = "control")]
    pub(crate) fn beside(shown: ShownBoard) -> io::Result<Self> {
        let slots = shown.slots().len();
        Ok(Self { deciding: Mapping::unnamed(size_of::<Header>())?, shown: Some(shown), slots })
    }

    /// Returns what the processes share beside the slots.
    pub(crate) fn header(&self) -> &Header {
        // SAFETY: `deciding` is page-aligned (asserted below to be enough) and maps at least a `Header`, readable and
        // writable, until `self` drops, which outlives the borrow. The pages began as zeroes and every bit pattern is
        // a valid `Header`. It holds nothing but atomics, so other processes and threads may write while this lives.
        unsafe { self.deciding.base().cast::<Header>().as_ref() }
    }

    /// Returns all the slots.
    pub(crate) fn slots(&self) -> &[Slot] {
        if let Some(shown) = &self.shown {
            return shown.slots();
        }
        // SAFETY: `new` mapped `size_of::<Header>()` bytes more than it returns the start of, so the sum stays inside
        // the mapping (or one past its end, with no slots).
        let first: NonNull<Slot> = unsafe { self.deciding.base().byte_add(size_of::<Header>()) }.cast();
        // SAFETY: `new` made room for `slots` of them behind the header, at most `isize::MAX` bytes in all; the
        // header's size keeps them aligned (asserted below). For the rest what `header` says holds: mapped until
        // `self` drops, every bit pattern valid, nothing but atomics, never lent as `&mut`.
        unsafe { slice::from_raw_parts(first.as_ptr(), self.slots) }
    }

    /// Returns what other programs may look at.
    #[cfg(feature = "control")]
    pub(crate) fn shown(&self) -> Option<&ShownBoard> {
        self.shown.as_ref()
    }
}

/// What all the processes share beside the slots. Groups, each on cache lines of its own: children read the thresholds at each
/// change and must not miss the cache because a neighbour set a bit.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Header {
    /// Fewer idle children than this is news for the parent. Written by the parent only.
    pub(crate) low: AtomicU32,
    /// More idle children than this is news for the parent. Written by the parent only.
    pub(crate) high: AtomicU32,
    /// Not 0 while there can't be more children. Written by the parent only.
    pub(crate) full: AtomicU32,
    /// One more than the slot of the child that is asked to let its client go, 0 for none. The parent asks, the child
    /// takes the question away.
    pub(crate) release: AtomicU32,
    /// Not 0 from the moment a child decides to ring until the parent answers. An integer because not every byte is
    /// a valid `bool`, and this memory is not to be trusted.
    pub(crate) rung: CacheLine<AtomicU32>,
    /// One bit per slot: slot `i` is bit `i % 64` of word `i / 64`.
    pub(crate) idle: CacheLine<[AtomicU64; MAX_SLOTS / 64]>,
    /// Bits as in `idle`: the child was asked whether it accepts, and has not answered. The parent sets them, the child clears its
    /// own.
    pub(crate) called: CacheLine<[AtomicU64; MAX_SLOTS / 64]>,
    /// Bits as in `idle`: the child's last answer is that it does not accept. Written by the child.
    pub(crate) paused: CacheLine<[AtomicU64; MAX_SLOTS / 64]>,
}

/// One child's place: exactly one cache line, so that children never slow each other down.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Slot {
    /// Odd while the slot's writer is busy with it. See `crate::daemon::board`.
    pub(crate) sequence: AtomicU32,
    /// A `Status`, as the code of its letter; 0 is empty.
    pub(crate) status: AtomicU32,
    /// The child's process id, 0 until it has claimed the slot.
    pub(crate) pid: AtomicU32,
    /// Which owner of the slot this is: one more at each allocation.
    pub(crate) generation: AtomicU32,
    /// Requests that the child has begun.
    pub(crate) requests: AtomicU64,
    /// When the parent began to fork the child, in milliseconds since 1970.
    pub(crate) started_ms: AtomicU64,
    /// When the present status began, in milliseconds since 1970.
    pub(crate) since_ms: AtomicU64,
    /// The peer label: 24 bytes in native order, padded with zeroes.
    pub(crate) peer: [AtomicU64; PEER_WORDS],
}

/// Gives its content cache lines of its own.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct CacheLine<T>(pub(crate) T);

/// The most slots one mapping can have, because the idle bitmap has a fixed size. The pages that a smaller pool does
/// not touch are never allocated.
#[cfg(not(any(lenore_loom, lenore_shuttle)))]
pub(crate) const MAX_SLOTS: usize = 16_384;
/// A model checker looks at each word of it.
#[cfg(any(lenore_loom, lenore_shuttle))]
pub(crate) const MAX_SLOTS: usize = 64;

/// Length of a peer label in 64-bit words: what is left of the cache line.
pub(crate) const PEER_WORDS: usize = 3;

#[cfg(not(any(lenore_loom, lenore_shuttle)))]
const _: () = assert!(size_of::<Slot>() == 64 && align_of::<Slot>() == 64);
const _: () = assert!(size_of::<Header>().is_multiple_of(align_of::<Slot>()));
// The smallest page anywhere is 4096 bytes.
const _: () = assert!(align_of::<Header>() <= 4096 && align_of::<Slot>() <= 4096);

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;
    use std::thread;

    use super::*;

    #[test] // D-SB-02: a slot is one cache line in anonymous shared memory
    fn slots_are_zeroed_cache_lines_behind_the_header() {
        let board = SharedBoard::new(3).unwrap();
        let header = &raw const *board.header();
        assert_eq!(board.slots().len(), 3);
        assert_eq!(board.slots().as_ptr().addr(), header.addr() + size_of::<Header>());
        for slot in board.slots() {
            assert_eq!((&raw const *slot).addr() % 64, 0);
            assert_eq!(slot.status.load(Ordering::Relaxed), 0);
        }
        assert!(board.header().idle.0.iter().all(|word| word.load(Ordering::Relaxed) == 0));
    }

    #[test] // D-SB-02: every byte of the mapping is there, at the largest size too
    fn the_largest_board_is_writable_to_its_end() {
        let board = SharedBoard::new(MAX_SLOTS).unwrap();
        let last = board.slots().last().unwrap();
        last.peer[PEER_WORDS - 1].store(u64::MAX, Ordering::Relaxed);
        assert_eq!(board.slots()[MAX_SLOTS - 1].peer[PEER_WORDS - 1].load(Ordering::Relaxed), u64::MAX);
        assert_eq!(board.slots()[MAX_SLOTS - 2].peer[PEER_WORDS - 1].load(Ordering::Relaxed), 0);
    }

    #[test] // D-SP-03: a non-forking daemon has no slots
    fn a_board_without_slots_has_a_header() {
        let board = SharedBoard::new(0).unwrap();
        assert!(board.slots().is_empty());
        board.header().low.store(1, Ordering::Relaxed);
    }

    #[test] // D-SP-01: what can't be had is an error, not an abort
    fn an_impossible_size_is_an_error() {
        assert!(SharedBoard::new(usize::MAX).is_err());
        assert!(SharedBoard::new(usize::MAX / 64).is_err());
    }

    #[test] // T19: writers elsewhere are allowed while a reference lives
    fn threads_share_the_mapping() {
        let board = SharedBoard::new(1).unwrap();
        let slot = &board.slots()[0];
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| _ = slot.requests.fetch_add(1, Ordering::Relaxed)));
            }
        });
        assert_eq!(slot.requests.load(Ordering::Relaxed), 4000);
    }
}

//! A row of atomic integers that a process shares with the processes it forks.
//!
//! What the integers mean, and which process writes which of them, is the business of the caller. As in
//! [`shared_memory`](super::shared_memory), the memory holds atomic integers and nothing else, so every pattern of bits is a
//! valid value, and only `&[AtomicU64]` is ever given out.

use std::io;
use std::slice;
use std::sync::atomic::AtomicU64;

use super::mapping::Mapping;

/// A shared mapping of a fixed number of integers, all zero at first.
///
/// The system gives memory to the pages that are read or written, and to no others.
#[derive(Debug)]
pub(crate) struct SharedWords {
    mapping: Mapping,
    /// How many integers there are.
    words: usize,
}

impl SharedWords {
    /// Maps `words` integers, at least one.
    ///
    /// # Errors
    ///
    /// What `mmap` says, `ENOMEM` above all; also for a size that does not fit the address space.
    pub(crate) fn new(words: usize) -> io::Result<SharedWords> {
        let length = words.checked_mul(size_of::<AtomicU64>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(SharedWords { mapping: Mapping::sparse(length)?, words })
    }

    /// Returns all the integers.
    #[inline]
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: `new` mapped room for `words` integers, at most `isize::MAX` bytes, readable and writable, until `self`
        // drops, which outlives the borrow. The start of a page is aligned for them. The pages began as zeroes, every bit
        // pattern is a valid integer, and as they are atomic, other processes and threads may write while this lives.
        unsafe { slice::from_raw_parts(self.mapping.base().cast::<AtomicU64>().as_ptr(), self.words) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;
    use std::thread;

    use super::*;

    #[test]
    fn shared_words_begin_as_zeroes_and_are_writable_to_their_end() {
        let shared = SharedWords::new(10_000).expect("few");
        assert_eq!(shared.words().len(), 10_000);
        assert!(shared.words().iter().all(|word| word.load(Relaxed) == 0));
        shared.words()[9_999].store(u64::MAX, Relaxed);
        assert_eq!((shared.words()[9_998].load(Relaxed), shared.words()[9_999].load(Relaxed)), (0, u64::MAX));
    }

    #[test]
    fn shared_words_of_an_impossible_size_are_an_error() {
        for words in [0, usize::MAX, usize::MAX / 16] {
            assert!(SharedWords::new(words).is_err(), "{words}");
        }
    }

    #[test]
    fn shared_words_lose_nothing_that_threads_add() {
        let shared = SharedWords::new(1).expect("few");
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| _ = shared.words()[0].fetch_add(1, Relaxed)));
            }
        });
        assert_eq!(shared.words()[0].load(Relaxed), 4000);
    }
}

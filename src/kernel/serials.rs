//! Serial numbers of sessions, which no two kernels of a process have in common.
//!
//! So every other kernel can refuse a session's id, and the id needs no more room for that. The numbers that people see
//! still begin with 1 in each kernel.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The serial numbers that a kernel can still give out.
#[derive(Default)]
pub(super) struct Serials {
    next: u64,
    /// The first number after this kernel's block.
    end: u64,
    /// How many numbers the kernel has given out.
    given: u64,
}

impl Serials {
    /// Returns a serial number that no session of this process has had; `None` if there is none left.
    #[inline]
    pub(super) fn next(&mut self) -> Option<u64> {
        if self.next == self.end {
            (self.next, self.end) = take_block(self.given)?;
        }
        let serial = self.next;
        self.next += 1;
        self.given += 1;
        Some(serial)
    }
}

/// Returns how the session with this serial number is numbered in its kernel; 0 for the kernel itself.
pub(super) fn number(serial: u64) -> u64 {
    let list = &blocks().list;
    let behind = list.partition_point(|block| block.serial <= serial);
    behind.checked_sub(1).map_or(0, |place| serial - list[place].serial + list[place].number)
}

/// Serial numbers that one kernel has taken, up to the next block.
struct Block {
    /// The first serial number, and the number for which it stands.
    serial: u64,
    number: u64,
}

/// All blocks in order. They stay when their kernel is dropped: ids of its sessions can still be shown.
struct Blocks {
    list: Vec<Block>,
    /// The first serial number that no kernel has taken.
    end: u64,
}

/// 0 is the serial number of every kernel itself.
static BLOCKS: Mutex<Blocks> = Mutex::new(Blocks { list: Vec::new(), end: 1 });

fn blocks() -> MutexGuard<'static, Blocks> {
    BLOCKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a block for a kernel that has given out `given` numbers, and returns its two ends. The block is as long as all
/// earlier blocks of the kernel together, so that even a kernel with very many sessions has few blocks.
#[cold]
fn take_block(given: u64) -> Option<(u64, u64)> {
    let Blocks { list, end } = &mut *blocks();
    let first = *end;
    if first == END {
        return None;
    }
    list.push(Block { serial: first, number: given + 1 });
    *end = (first + given.max(FIRST_BLOCK)).min(END);
    Some((first, *end))
}

/// How many numbers a kernel takes at first.
const FIRST_BLOCK: u64 = 1024;

/// The first number that does not fit into an id.
const END: u64 = 1 << super::sessions::SERIAL_BITS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_begin_with_1_in_each_kernel_whose_serials_are_its_own() {
        let (mut one, mut other) = (Serials::default(), Serials::default());
        let mut all = Vec::new();
        for expected in 1..=5000 {
            for kernel in [&mut one, &mut other] {
                let serial = kernel.next().expect("few were given out");
                assert_eq!(number(serial), expected);
                all.push(serial);
            }
        }
        assert_eq!(number(0), 0, "the kernel");
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 10_000);
    }
}

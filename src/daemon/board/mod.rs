//! The scoreboard: what every child of a daemon is doing, in memory that they all share.
//!
//! # Who writes what
//!
//! A slot has one writer at a time: the child that [claimed](Scoreboard::claim) it. Before the fork and after the reaping
//! the writer is the parent. So a slot does not need a lock, and a child killed at any instruction leaves nothing held.
//!
//! A **seqlock** makes a slot readable as a whole. Its sequence is odd while the writer is busy. A reader that finds the
//! sequence odd or changed tries again. After a bounded number of attempts it reports [`Torn`]. The slot of a child that
//! was killed while it wrote stays torn until the parent [reclaims](Scoreboard::reclaim) it, which makes the sequence even
//! again.
//!
//! The parent decides from a private table which slots are free and whose they are. It reads the shared memory, but
//! would survive any nonsense there.
//!
//! # The bell
//!
//! The parent sleeps until the number of idle children leaves the band between two [`Thresholds`] that it publishes.
//! Each child has a bit, which is set while it waits ([`Status::Wait`]). A bit that is set or cleared twice is the same
//! bit. So the count can't drift. A counter would drift if its owner were killed between a change and its undoing.
//!
//! The child that moves the count out of the band rings ([`Ring::Yes`]), unless another child already has. So a burst wakes
//! the parent once. The parent then does this, in this order: [`answer_bell`](Scoreboard::answer_bell), read the slots,
//! decide and act, [`publish`](Scoreboard::publish).
//!
//! Bits and bell err on one side only. A child killed or stopped half way is missing from the idle count, so the parent is
//! called too often and never too late.

use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use std::{fmt, hint, iter};

use nix::unistd::Pid;

use crate::daemon::machine::{Answer, Key, Thresholds};
use crate::sys::atomics::{AtomicU64, fence};
#[cfg(any(lenore_loom, lenore_shuttle))]
use crate::sys::modelled_memory::SharedBoard;
use crate::sys::shared_memory;
#[cfg(not(any(lenore_loom, lenore_shuttle)))]
use crate::sys::shared_memory::SharedBoard;

#[cfg(feature = "control")]
pub(super) mod asks;
pub(super) mod doorbell;
mod error;
#[cfg(feature = "control")]
mod facts;
#[cfg(feature = "control")]
mod home;
#[cfg(feature = "control")]
mod of_process;
#[cfg(feature = "control")]
mod reader;
#[cfg(feature = "control")]
mod shown;
mod snapshot;
#[cfg(feature = "control")]
mod stats;

pub use crate::daemon::machine::{Report, Status, UnknownStatus};
pub use error::BoardError;
#[cfg(feature = "control")]
pub(in crate::daemon) use facts::{About, Facts};
#[cfg(feature = "control")]
pub(in crate::daemon) use home::{Place, temporary_of};
#[cfg(feature = "control")]
pub use reader::{BoardFile, BoardFileError, ParentState};
pub(in crate::daemon) use snapshot::epoch_ms;
pub use snapshot::{PeerLabel, SlotSnapshot, Torn};
#[cfg(feature = "control")]
pub(in crate::daemon) use stats::{Recorder, Totals};

/// The board of one daemon: made by the parent, inherited by every child.
///
/// POE: `POE::Component::Daemon::Scoreboard`, which holds one letter a slot and of which all daemons share one.
#[derive(Debug)]
pub struct Scoreboard {
    /// What the processes share.
    shared: SharedBoard,
    /// Who owns each slot. The parent's; a child's copy is what the parent knew when it forked.
    table: Vec<Owner>,
    /// What [`publish`](Self::publish) last wrote: the parent's own memory of it.
    published: Thresholds,
    /// Requests of the children whose slots were freed. The parent's.
    retired_requests: u64,
    /// What only a board has that other programs may look at.
    #[cfg(feature = "control")]
    show: Option<shown::Show>,
}

impl Scoreboard {
    /// The most slots that a board can have.
    pub const MAX_SLOTS: usize = shared_memory::MAX_SLOTS;

    /// Makes a board of `slots` empty slots, with thresholds that keep every child silent.
    ///
    /// # Errors
    ///
    /// [`BoardError::TooManySlots`] above [`Scoreboard::MAX_SLOTS`]; [`BoardError::Os`] if the memory can't be had.
    ///
    /// POE: `new` in `POE::Component::Daemon::Scoreboard`, which dies.
    pub fn new(slots: usize) -> Result<Self, BoardError> {
        if slots > Self::MAX_SLOTS {
            return Err(BoardError::TooManySlots { slots });
        }
        // Room for the largest board, of which memory is used for the slots that are touched: it may grow.
        let shared = SharedBoard::new(Self::MAX_SLOTS).map_err(|source| BoardError::Os { call: "mmap", source })?;
        Ok(Self::of(shared, slots))
    }

    fn of(shared: SharedBoard, slots: usize) -> Self {
        let mut board = Self {
            shared,
            table: vec![Owner::default(); slots],
            published: Thresholds::SILENT,
            retired_requests: 0,
            #[cfg(feature = "control")]
            show: None,
        };
        board.store_thresholds(Thresholds::SILENT);
        board
    }

    /// Makes the board have at least `slots` slots, as far as [`Scoreboard::MAX_SLOTS`] allows. Parent only; children
    /// that are there already go on seeing what they saw.
    pub fn grow(&mut self, slots: usize) {
        let slots = slots.min(Self::MAX_SLOTS).max(self.table.len());
        self.table.resize(slots, Owner::default());
        #[cfg(feature = "control")]
        self.show_slots();
    }

    /// Gives a free slot to a child about to be forked, at `now_ms` milliseconds since 1970, and marks it `F`. Parent only.
    ///
    /// POE: `add` in `POE::Component::Daemon::Scoreboard`, which looks for a free slot as well.
    pub fn open(&mut self, slot: SlotIndex, generation: u32, now_ms: u64) {
        self.grow(slot.0 + 1);
        self.table[slot.0] = Owner { generation, taken: true };
        self.wipe(slot, Status::Forking, now_ms);
    }

    /// Enters the running child, `pid`, into the slot that its parent took for it and marks it `f`. Child only.
    ///
    /// POE: the write of `fork` in the new child, in `POE::Component::Daemon`.
    pub fn claim(&self, slot: SlotIndex, pid: Pid, now_ms: u64) {
        self.change(slot, |slot| {
            slot.pid.store(pid.as_raw().cast_unsigned(), Relaxed);
            slot.status.store(Status::Forked.to_bits(), Relaxed);
            slot.started_ms.store(now_ms, Relaxed);
            slot.since_ms.store(now_ms, Relaxed);
        });
    }

    /// Changes the running child's status at `now_ms` milliseconds since 1970, and returns whether it must now ring
    /// the parent's doorbell. Child only.
    ///
    /// Setting the status that the slot already has changes nothing. The time of its beginning stays, so a child can't put
    /// off a time limit by repeating itself.
    ///
    /// The answer is [`Ring::Yes`] in these cases, but only if no child has rung since
    /// [`answer_bell`](Self::answer_bell):
    ///
    /// - The child stopped waiting, and fewer than `low` children are idle.
    /// - The child began to wait, and more than `high` children are idle.
    /// - The child leaves the starting statuses. The thresholds count a starting child as a spare, so they are out of date.
    /// - The child begins to keep a connection while there can't be more children. A client may wait for the child.
    ///
    /// POE: `write` in `POE::Component::Daemon::Scoreboard`; the parent looks at the board once a second there.
    pub fn set_status(&self, slot: SlotIndex, status: Status, now_ms: u64) -> Ring {
        let (record, (word, bit)) = (self.slot(slot), self.idle_bit(slot));
        let before = record.status.load(Relaxed);
        #[cfg(feature = "control")]
        self.count_time(slot, Status::from_bits(before), status);
        let write_slot = || {
            if before != status.to_bits() {
                self.change(slot, |slot| {
                    slot.status.store(status.to_bits(), Relaxed);
                    slot.since_ms.store(now_ms, Relaxed);
                });
            }
        };
        // In both branches the bit is set for a shorter time than the slot says `w`. A child killed in between counts as
        // not idle, which makes the others ring too often until it is reaped. The other order would hide a shortage.
        //
        // Everything about the count is SeqCst. The changes of the bits have one order that all processes agree on, and in
        // that order the loads below come after our own change. So of two children that stop waiting at once, the later one
        // sees both gone. With a weaker ordering each could see the other still there, and neither would ring.
        let crossed = if status == Status::Wait {
            write_slot();
            let was_idle = word.fetch_or(bit, SeqCst) & bit != 0;
            !was_idle && self.idle() > self.shared.header().high.load(SeqCst)
        } else if status.is_taken() && Status::from_bits(before).is_some_and(Status::is_taken) {
            // The bit is clear. It shares its cache line with those of others, who must not miss theirs for a client that
            // has several requests.
            write_slot();
            // Either this sees that it is full, or the parent, which says so before it looks, sees `k`.
            fence(SeqCst);
            status == Status::Keep && before != status.to_bits() && self.is_full()
        } else {
            let was_idle = word.fetch_and(!bit, SeqCst) & bit != 0;
            write_slot();
            was_idle && self.idle() < self.shared.header().low.load(SeqCst)
        };
        let arrived = Status::from_bits(before).is_some_and(Status::is_starting) && !status.is_starting();
        if (crossed || arrived) && self.shared.header().rung.0.swap(1, SeqCst) == 0 { Ring::Yes } else { Ring::No }
    }

    /// Counts one request for the running child and returns how many it has begun. Child only.
    ///
    /// POE: `requestN` in `POE::Component::Daemon`, which the parent can't see.
    pub fn count_request(&self, slot: SlotIndex) -> u64 {
        let requests = self.slot(slot).requests.load(Relaxed).saturating_add(1);
        self.change(slot, |slot| slot.requests.store(requests, Relaxed));
        requests
    }

    /// Counts one more request for a running child that is already busy, at `now_ms` milliseconds since 1970. The time of
    /// its status begins anew, because the child does not hang. Child only.
    pub fn count_another(&self, slot: SlotIndex, now_ms: u64) {
        let requests = self.slot(slot).requests.load(Relaxed).saturating_add(1);
        self.change(slot, |slot| {
            slot.requests.store(requests, Relaxed);
            slot.since_ms.store(now_ms, Relaxed);
        });
    }

    /// Has the time of the running child's status begin anew at `now_ms` milliseconds since 1970. Child only.
    pub(in crate::daemon) fn begin_anew(&self, slot: SlotIndex, now_ms: u64) {
        self.change(slot, |slot| slot.since_ms.store(now_ms, Relaxed));
    }

    /// Names whom the running child serves; what does not fit a [`PeerLabel`] is cut off. Child only.
    pub fn set_peer_label(&self, slot: SlotIndex, label: &str) {
        let words = PeerLabel::new(label).to_words();
        self.change(slot, |slot| {
            for (cell, word) in iter::zip(&slot.peer, words) {
                cell.store(word, Relaxed);
            }
        });
    }

    /// Frees the slot of a child that was reaped or never came to be, and returns its last words. Parent only.
    ///
    /// `None` if the slot was already free. Then nothing is changed. Otherwise the generation in the answer is the parent's
    /// own. If the child was killed while it wrote, the rest may be partly from before that write and partly from after.
    ///
    /// Check [`generation`](Self::generation) first where a death might be reported twice. Read the board afterwards: the
    /// dead child may have had news that it did not live to ring for.
    ///
    /// POE: `drop` in `POE::Component::Daemon::Scoreboard`, which would put a slot given back twice on the free list
    /// twice.
    pub fn reclaim(&mut self, slot: SlotIndex) -> Option<SlotSnapshot> {
        let generation = self.generation(slot)?;
        let last = SlotSnapshot::load(self.slot(slot), Status::Exit);
        self.table[slot.0].taken = false;
        self.retired_requests = self.retired_requests.saturating_add(last.requests);
        self.retire(slot);
        // The dead child may have raised `rung` and not lived to ring. No other child would ever ring again.
        self.shared.header().rung.0.store(0, SeqCst);
        Some(SlotSnapshot { generation, ..last })
    }

    /// Lowers the bell, so that the next child with news rings again, and returns whether it was raised. Parent only.
    ///
    /// Call it each time **before** reading the board: after the doorbell, and after a child was reaped or found stopped. A
    /// child that was stopped after it raised the bell keeps all others quiet.
    ///
    /// A change that finds the bell still raised does not ring. That change is earlier than this call, so the reading that
    /// follows sees it. If the bell were lowered after the reading, a change between the two would be lost.
    pub fn answer_bell(&self) -> bool {
        // A swap and not a store. It reads the value of the last child that raised the bell or found it raised. So all that
        // this child wrote before is visible here, including the relaxed stores to its slot.
        self.shared.header().rung.0.swap(0, SeqCst) != 0
    }

    /// Publishes the idle counts at which children ring. Parent only, after it has acted on what it read.
    ///
    /// [`Ring::Yes`] means: read the board once more, as if a child had rung. It is the answer when the thresholds changed
    /// and the count is outside of the new ones. A child may have moved the count there after the parent's reading, and
    /// compared it with the old thresholds. Unchanged thresholds always give [`Ring::No`]. So the parent does not read for
    /// ever, even where it can't bring the count back.
    pub fn publish(&mut self, thresholds: Thresholds) -> Ring {
        if thresholds == self.published {
            return Ring::No;
        }
        self.store_thresholds(thresholds);
        // SeqCst, as in `set_status`: either the child sees the new threshold or we see its bit.
        let idle = self.idle();
        if idle < thresholds.low || idle > thresholds.high { Ring::Yes } else { Ring::No }
    }

    /// Publishes whether there can't be more children, which makes those ring that begin to keep a connection. Parent
    /// only, before it reads the board.
    pub fn publish_full(&self, is_full: bool) {
        self.shared.header().full.store(is_full.into(), SeqCst);
        fence(SeqCst); // pairs with `set_status`
    }

    /// Tells whether there can't be more children, as far as the parent has said. Any process.
    pub fn is_full(&self) -> bool {
        self.shared.header().full.load(SeqCst) != 0
    }

    /// Asks the child in `slot` to let go of the client that it keeps. The question is the child's until it has taken it or
    /// another child is asked. Parent only, which then wakes the child.
    pub fn ask_to_release(&self, slot: SlotIndex) {
        self.shared.header().release.store(slot.0 as u32 + 1, SeqCst);
    }

    /// Tells whether a child was asked and has not taken the question. Parent only.
    pub fn is_asked_to_release(&self) -> bool {
        self.shared.header().release.load(SeqCst) != 0
    }

    /// Tells whether the running child was asked to let go of its client, once for each time. Child only.
    pub fn takes_release(&self, slot: SlotIndex) -> bool {
        self.shared.header().release.compare_exchange(slot.0 as u32 + 1, 0, SeqCst, SeqCst).is_ok()
    }

    /// Asks the child in `slot` whether it accepts. What it has answered before is forgotten. Parent only, which then wakes the
    /// child.
    pub fn call(&self, slot: SlotIndex) {
        let (word, bit) = place(&self.shared.header().called.0, slot);
        word.fetch_or(bit, SeqCst);
    }

    /// Tells whether the running child was asked whether it accepts and has not answered. Child only.
    pub fn is_called(&self, slot: SlotIndex) -> bool {
        let (word, bit) = place(&self.shared.header().called.0, slot);
        word.load(SeqCst) & bit != 0
    }

    /// Answers whether the running child accepts. Child only.
    pub fn answer_call(&self, slot: SlotIndex, accepts: bool) {
        let header = self.shared.header();
        let (word, bit) = place(&header.paused.0, slot);
        if accepts {
            word.fetch_and(!bit, SeqCst)
        } else {
            word.fetch_or(bit, SeqCst)
        };
        // What the answer is comes before the news that there is one.
        let (word, bit) = place(&header.called.0, slot);
        word.fetch_and(!bit, SeqCst);
    }

    /// Returns what the child in `slot` has answered since it was last asked whether it accepts. Parent only.
    pub fn answer(&self, slot: SlotIndex) -> Answer {
        let (word, bit) = place(&self.shared.header().paused.0, slot);
        if self.is_called(slot) {
            Answer::Missing
        } else if word.load(SeqCst) & bit != 0 {
            Answer::Paused
        } else {
            Answer::Accepts
        }
    }

    /// Returns how many children wait for a request. Any process.
    pub fn idle(&self) -> u32 {
        let words = self.table.len().div_ceil(64);
        self.shared.header().idle.0[..words].iter().map(|word| word.load(SeqCst).count_ones()).sum()
    }

    /// Returns what `slot` says, consistent in itself and without a system call. Any process.
    ///
    /// # Errors
    ///
    /// [`Torn`] if the slot's writer was busy at each of a bounded number of attempts. Most likely it was stopped or killed
    /// half way. Also if the slot does not hold a valid status.
    ///
    /// POE: `read` in `POE::Component::Daemon::Scoreboard`.
    pub fn read(&self, slot: SlotIndex) -> Result<SlotSnapshot, Torn> {
        let record = self.slot(slot);
        for _ in 0..snapshot::READ_ATTEMPTS {
            if let Some(snapshot) = snapshot::read(record) {
                return Ok(snapshot);
            }
            hint::spin_loop();
        }
        Err(Torn)
    }

    /// Returns the status in `slot`; `None` if it holds none, which takes a child that scribbles. Any process.
    ///
    /// One load, so never torn: this is what to count by.
    pub fn status(&self, slot: SlotIndex) -> Option<Status> {
        Status::from_bits(self.slot(slot).status.load(Acquire))
    }

    /// Returns the generation that owns `slot` by the parent's table; `None` if it is free. Parent only.
    #[track_caller]
    pub fn generation(&self, slot: SlotIndex) -> Option<u32> {
        let owner = self.table[slot.0];
        owner.taken.then_some(owner.generation)
    }

    /// Returns the board as one letter a slot, `?` for a slot that holds no status. Any process.
    ///
    /// POE: `read_all` in `POE::Component::Daemon::Scoreboard`.
    pub fn letters(&self) -> String {
        self.indices().map(|slot| self.status(slot).map_or('?', Status::letter)).collect()
    }

    /// Returns how many slots are empty. Any process.
    ///
    /// Counts what [`letters`](Self::letters) shows, because a child's copy of the parent's table is out of date.
    ///
    /// POE: the last line of `status`, which in a child tells of the time when it was forked.
    pub fn free(&self) -> usize {
        self.indices().filter(|&slot| self.status(slot) == Some(Status::Empty)).count()
    }

    /// Returns the indices of all slots, lowest first.
    pub fn indices(&self) -> impl DoubleEndedIterator<Item = SlotIndex> + ExactSizeIterator + use<> {
        (0..self.table.len()).map(SlotIndex)
    }

    /// Makes the slot new, whatever state it was left in, and takes its child off the idle count and out of those asked.
    fn wipe(&self, slot: SlotIndex, status: Status, now_ms: u64) {
        let header = self.shared.header();
        for bits in [&header.idle, &header.called, &header.paused] {
            let (word, bit) = place(&bits.0, slot);
            word.fetch_and(!bit, SeqCst);
        }
        self.change(slot, |record| self.begin_record(record, slot, status, now_ms));
    }

    /// Writes what the record of `slot` says of an owner that has done nothing yet.
    fn begin_record(&self, record: &shared_memory::Slot, slot: SlotIndex, status: Status, now_ms: u64) {
        record.status.store(status.to_bits(), Relaxed);
        record.pid.store(0, Relaxed);
        record.generation.store(self.table[slot.0].generation, Relaxed);
        record.requests.store(0, Relaxed);
        record.started_ms.store(now_ms, Relaxed);
        record.since_ms.store(now_ms, Relaxed);
        record.peer.iter().for_each(|word| word.store(0, Relaxed));
    }

    /// Changes the record of `slot`, whose only writer this process is, and then the copy of it that other programs may look at.
    fn change(&self, slot: SlotIndex, change: impl FnOnce(&shared_memory::Slot)) {
        snapshot::write(self.slot(slot), change);
        #[cfg(feature = "control")]
        self.copy_slot(slot);
    }

    /// Frees a slot whose child has ended. What the child has counted goes on to count.
    fn retire(&self, slot: SlotIndex) {
        let clear = || self.wipe(slot, Status::Empty, 0);
        #[cfg(feature = "control")]
        if self.fold(slot, clear) {
            return;
        }
        clear();
    }

    /// Writes the thresholds where the children look, and remembers them.
    fn store_thresholds(&mut self, thresholds: Thresholds) {
        self.shared.header().low.store(thresholds.low, SeqCst);
        self.shared.header().high.store(thresholds.high, SeqCst);
        self.published = thresholds;
    }

    /// Finds the record of `slot`.
    #[track_caller]
    fn slot(&self, slot: SlotIndex) -> &shared_memory::Slot {
        &self.shared.slots()[slot.0]
    }

    /// Finds the idle bit of `slot`.
    fn idle_bit(&self, slot: SlotIndex) -> (&AtomicU64, u64) {
        place(&self.shared.header().idle.0, slot)
    }
}

/// Finds the bit of `slot` in a row of bits: the word it is in, and its mask.
fn place(bits: &[AtomicU64], slot: SlotIndex) -> (&AtomicU64, u64) {
    (&bits[slot.0 / 64], 1 << (slot.0 % 64))
}

/// A slot's place on the board it came from. Handed to another board it means another slot, or panics if that board
/// is smaller.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SlotIndex(usize);

impl SlotIndex {
    /// Returns the place, counted from 0.
    pub const fn get(self) -> usize {
        self.0
    }
}

impl From<Key> for SlotIndex {
    fn from(key: Key) -> SlotIndex {
        SlotIndex(key.slot)
    }
}

impl fmt::Display for SlotIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether the doorbell must be rung.
#[must_use = "a bell that is not rung stays raised, and no other child will ring"]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ring {
    /// Ring it.
    Yes,
    /// There is no news, or the parent is already on its way.
    No,
}

/// The parent's private knowledge of one slot.
#[derive(Clone, Copy, Debug, Default)]
struct Owner {
    /// Which owner of the slot this is or was.
    generation: u32,
    /// Whether it has one at present.
    taken: bool,
}

#[cfg(test)]
impl Scoreboard {
    /// Opens the first slot that is free, for its next owner.
    fn open_next(&mut self, now_ms: u64) -> (SlotIndex, u32) {
        let slot = self.table.iter().position(|owner| !owner.taken).expect("a free slot");
        let generation = self.table[slot].generation + 1;
        self.open(SlotIndex(slot), generation, now_ms);
        (SlotIndex(slot), generation)
    }
}

#[cfg(all(test, any(lenore_loom, lenore_shuttle)))]
mod models;
#[cfg(not(any(lenore_loom, lenore_shuttle)))]
#[cfg(test)]
mod tests;

//! Reading and writing one slot: the seqlock, and what a reader gets out of it.
//!
//! The protocol is Boehm's ("Can seqlocks get along with programming language memory models?", 2012). The data are atomics
//! themselves, accessed relaxed, and two fences tie them to the sequence. Data races and undefined behaviour are impossible, even
//! while a read is about to be thrown away.

use std::error::Error;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::SystemTime;
use std::{array, fmt, str};

use nix::unistd::Pid;

use super::Status;
use crate::sys::atomics::fence;
use crate::sys::shared_memory::{PEER_WORDS, Slot};

/// What one slot said at one moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SlotSnapshot {
    /// What the child was doing.
    pub status: Status,
    /// The child's process id; `None` before it has claimed the slot.
    pub pid: Option<Pid>,
    /// Which owner of the slot it is, counted from 1; 0 for a slot never used. An empty slot keeps its last owner's.
    pub generation: u32,
    /// Requests it had begun.
    pub requests: u64,
    /// When it claimed the slot, in milliseconds since 1970; before that, when its parent began to fork it.
    pub started_ms: u64,
    /// When it entered this status, in milliseconds since 1970.
    pub since_ms: u64,
    /// Whom it was serving, or had served last.
    pub peer: PeerLabel,
}

impl SlotSnapshot {
    /// Reads the fields one by one, without regard to the sequence. `unknown` takes the place of a status that is not valid.
    pub(super) fn load(slot: &Slot, unknown: Status) -> Self {
        let pid = slot.pid.load(Relaxed).cast_signed();
        Self {
            status: Status::from_bits(slot.status.load(Relaxed)).unwrap_or(unknown),
            pid: (pid > 0).then(|| Pid::from_raw(pid)),
            generation: slot.generation.load(Relaxed),
            requests: slot.requests.load(Relaxed),
            started_ms: slot.started_ms.load(Relaxed),
            since_ms: slot.since_ms.load(Relaxed),
            peer: PeerLabel::from_words(array::from_fn(|i| slot.peer[i].load(Relaxed))),
        }
    }
}

/// Makes one attempt to read `slot` whole; `None` if its writer interfered or it holds no status.
pub(super) fn read(slot: &Slot) -> Option<SlotSnapshot> {
    // Relaxed, with a fence: another program's memory is one that it can't write.
    let before = slot.sequence.load(Relaxed);
    if before & 1 == 1 {
        return None;
    }
    fence(Acquire); // pairs with the last store in `write`
    Status::from_bits(slot.status.load(Relaxed))?;
    let snapshot = SlotSnapshot::load(slot, Status::Empty);
    // Pairs with the fence in `write`. If a load above saw a store of a later write, the load below sees that this write has begun.
    fence(Acquire);
    (slot.sequence.load(Relaxed) == before).then_some(snapshot)
}

/// Changes `slot` by `change`. A reader that reads in between finds the slot torn.
///
/// The caller is the slot's only writer. If the last writer was killed in here, the sequence is still odd. It then stays odd until
/// `change` is done, and is even from then on.
pub(super) fn write(slot: &Slot, change: impl FnOnce(&Slot)) {
    let busy = slot.sequence.load(Relaxed) | 1;
    slot.sequence.store(busy, Relaxed);
    fence(Release); // no store of `change` becomes visible before the odd sequence does
    change(slot);
    slot.sequence.store(busy.wrapping_add(1), Release);
}

/// Makes what `to` says what `from` says. The caller is the only writer of both.
#[cfg(feature = "control")]
pub(super) fn copy(to: &Slot, from: &Slot) {
    write(to, |to| {
        to.status.store(from.status.load(Relaxed), Relaxed);
        to.pid.store(from.pid.load(Relaxed), Relaxed);
        to.generation.store(from.generation.load(Relaxed), Relaxed);
        to.requests.store(from.requests.load(Relaxed), Relaxed);
        to.started_ms.store(from.started_ms.load(Relaxed), Relaxed);
        to.since_ms.store(from.since_ms.load(Relaxed), Relaxed);
        for (to, from) in std::iter::zip(&to.peer, &from.peer) {
            to.store(from.load(Relaxed), Relaxed);
        }
    });
}

/// The error for a slot that can't be read whole: its writer was busy at each attempt, or was killed or stopped while it wrote.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Torn;

impl fmt::Display for Torn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the slot is half written")
    }
}

impl Error for Torn {}

/// The name of the client that a child serves: up to 24 bytes of text.
#[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
pub struct PeerLabel {
    /// UTF-8, padded with zeroes; as read from shared memory it may be anything.
    bytes: [u8; PeerLabel::CAPACITY],
}

impl PeerLabel {
    /// How many bytes a label can have.
    pub const CAPACITY: usize = PEER_WORDS * 8;

    /// Makes a label from `text`. A longer text is cut after the last character that fits, and any text at its first NUL.
    pub fn new(text: &str) -> Self {
        let end = (0..=text.len().min(Self::CAPACITY)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        let kept = &text.as_bytes()[..end];
        let mut bytes = [0; Self::CAPACITY];
        bytes[..kept.len()].copy_from_slice(kept);
        Self { bytes }
    }

    /// Returns the text, up to the first NUL or the first byte that is not UTF-8.
    pub fn as_str(&self) -> &str {
        let text = self.bytes.split(|&byte| byte == 0).next().unwrap_or_default();
        text.utf8_chunks().next().map_or("", |chunk| chunk.valid())
    }

    /// Packs the label for shared memory.
    pub(super) fn to_words(self) -> [u64; PEER_WORDS] {
        let (words, _) = self.bytes.as_chunks();
        array::from_fn(|i| u64::from_ne_bytes(words[i]))
    }

    /// Unpacks what `to_words` packed, or whatever else it is.
    fn from_words(words: [u64; PEER_WORDS]) -> Self {
        let mut bytes = [0; Self::CAPACITY];
        let (chunks, _) = bytes.as_chunks_mut();
        for (chunk, word) in chunks.iter_mut().zip(words) {
            *chunk = word.to_ne_bytes();
        }
        Self { bytes }
    }
}

impl fmt::Debug for PeerLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for PeerLabel {
    /// Writes the text with control characters escaped: it may come from the network, and goes to logs and terminals.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().escape_debug().fmt(f)
    }
}

/// Returns a time as the board has it: in milliseconds since 1970.
pub(in crate::daemon) fn epoch_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// How often a reader tries before it calls a slot torn. That takes some 25 µs in all, a thousand times what a writer needs that is
/// not stopped.
pub(super) const READ_ATTEMPTS: u32 = 1_000;

//! What a model checker has in place of shared memory: the same header and slots, shared by threads.

use std::io;
use std::sync::Arc;

use super::atomics::{AtomicU32, AtomicU64};
use super::shared_memory::{CacheLine, Header, MAX_SLOTS, Slot};
#[cfg(feature = "control")]
use super::shown_memory::{Cells, Ledger, ShownBoard, Stats};

/// Copies refer to the same memory, as those of parent and child do after a fork.
#[derive(Debug, Clone)]
pub(crate) struct SharedBoard(Arc<(Header, Vec<Slot>)>);

impl SharedBoard {
    pub(crate) fn new(slots: usize) -> io::Result<SharedBoard> {
        let word = || AtomicU32::new(0);
        let bits = || CacheLine(std::array::from_fn(|_| AtomicU64::new(0)));
        let header = Header {
            low: word(),
            high: word(),
            full: word(),
            release: word(),
            rung: CacheLine(word()),
            idle: bits(),
            called: bits(),
            paused: bits(),
        };
        let slot = || Slot {
            sequence: word(),
            status: word(),
            pid: word(),
            generation: word(),
            requests: AtomicU64::new(0),
            started_ms: AtomicU64::new(0),
            since_ms: AtomicU64::new(0),
            peer: std::array::from_fn(|_| AtomicU64::new(0)),
        };
        // Each integer costs the checker time, and a model has but a few children.
        Ok(SharedBoard(Arc::new((header, (0..slots.min(MODELLED)).map(|_| slot()).collect()))))
    }

    /// No model shows its board to other programs.
    #[cfg(feature = "control")]
    pub(crate) fn beside(_: ShownBoard) -> io::Result<SharedBoard> {
        SharedBoard::new(MAX_SLOTS)
    }

    #[cfg(feature = "control")]
    pub(crate) fn shown(&self) -> Option<&ShownBoard> {
        None
    }

    pub(crate) fn header(&self) -> &Header {
        &self.0.0
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        &self.0.1
    }
}

/// What is counted of one child.
#[cfg(feature = "control")]
#[cfg_attr(not(test), allow(dead_code, reason = "for models"))]
pub(crate) fn stats() -> Stats {
    let word = || AtomicU64::new(0);
    let cells = || Cells { buckets: std::array::from_fn(|_| word()), sum: word() };
    Stats { request: cells(), accept_wait: cells(), busy: word(), busy_since: word(), requests: word(), failed: word() }
}

/// What is counted of all children that have ended.
#[cfg(feature = "control")]
#[cfg_attr(not(test), allow(dead_code, reason = "for models"))]
pub(crate) fn ledger() -> Ledger {
    Ledger { folding: AtomicU64::new(0), retired: [stats(), stats()] }
}

/// The most children that a model may have.
const MODELLED: usize = MAX_SLOTS / 16;

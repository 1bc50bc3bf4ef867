//! The parent's table: a row for each child, the forks under way, and the requests that wait for one.

use std::time::{Duration, SystemTime};

use crate::args::Args;
use crate::daemon::board::SlotIndex;
use crate::daemon::machine::{Escalation, Meter, Stint};

/// One child, as its parent knows it.
pub(super) struct Row {
    pub(super) pid: i32,
    pub(super) slot: SlotIndex,
    pub(super) generation: u32,
    pub(super) forked_at: SystemTime,
    pub(super) orders: Orders,
    /// How far the babysitter has come with it.
    pub(super) escalation: Option<Escalation>,
    pub(super) meter: Meter,
    /// How long it has been in its status.
    pub(super) stint: Stint,
    /// It was stopped when the babysitter last came round.
    pub(super) is_stopped: bool,
    /// How long it has been stopped while this process was not.
    pub(super) stopped_for: Duration,
    /// It has reported that it waits, as far as the parent has seen.
    pub(super) is_ready: bool,
    /// The log has it already that it is not ready for requests.
    pub(super) is_told_unready: bool,
}

/// What the parent wants of a child, or has told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Orders {
    Stay,
    /// Not told yet: it is to go when another can take its place.
    BeReplaced,
    /// Told: it is one spare too many.
    Go,
    /// Told: it has too much memory.
    GoForMemory,
    /// Killed, as the time was up.
    Die,
}

impl Row {
    pub(super) fn new(pid: i32, slot: SlotIndex, generation: u32, forked_at: SystemTime) -> Row {
        let (orders, meter) = (Orders::Stay, Meter::default());
        let (stint, is_stopped, stopped_for, is_told_unready) = (Stint::default(), false, Duration::ZERO, false);
        Row {
            pid,
            slot,
            generation,
            forked_at,
            orders,
            escalation: None,
            meter,
            stint,
            is_stopped,
            stopped_for,
            is_ready: false,
            is_told_unready,
        }
    }

    /// It has been told to go.
    pub(super) fn is_retiring(&self) -> bool {
        matches!(self.orders, Orders::Go | Orders::GoForMemory | Orders::Die)
    }
}

/// A fork that was asked for.
pub(super) struct InFlight {
    pub(super) slot: SlotIndex,
    pub(super) generation: u32,
    /// Post-forking: which request it is for.
    pub(super) number: u64,
    pub(super) is_long: bool,
}

/// A request for a post-forking daemon.
pub(super) struct Request {
    /// Counts up; a request whose fork failed goes back to its place by it.
    pub(super) number: u64,
    /// `l` or `r` for its child to begin with.
    pub(super) is_long: bool,
    pub(super) payload: Args,
}

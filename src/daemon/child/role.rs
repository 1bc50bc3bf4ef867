//! What a child of the Daemon has as such. Data only.

use std::os::fd::OwnedFd;

use crate::daemon::board::SlotIndex;
use crate::daemon::bystander::Bystander;
use crate::daemon::child::last_timers::LastTimers;
use crate::kernel::{Core, Handle, SourceKey};

/// A process that the Daemon has forked.
pub(in crate::daemon) struct Child {
    /// Who has forked it.
    pub(super) parent: i32,
    pub(super) slot: SlotIndex,
    /// It was asked to go: after the request in hand.
    pub(super) is_retiring: bool,
    /// TERM has come, and meant to go after the request in hand.
    pub(super) is_terminated: bool,
    /// How many requests it is to handle; `None` for any number.
    pub(super) share: Option<u64>,
    /// The listeners that it accepts requests on.
    pub(super) listeners: Vec<SourceKey>,
    /// If its parent is gone: what ends it.
    pub(super) last_timers: Option<LastTimers>,
    /// While its parent reads what it writes to its standard error.
    pub(super) words: Option<Words>,
}

/// The standard error of a child, while its parent reads what it writes there.
pub(in crate::daemon) struct Words {
    /// The standard error that this process had.
    pub(super) own: OwnedFd,
    /// It ends when the parent does not want to know any more.
    pub(super) notice: Handle,
}

impl Child {
    /// Makes a process that was just forked the child in a slot.
    pub(super) fn new(bystander: Bystander, slot: SlotIndex, share: Option<u64>) -> Child {
        let Bystander { parent, listeners } = bystander;
        Child {
            parent,
            slot,
            is_retiring: false,
            is_terminated: false,
            share,
            listeners,
            last_timers: None,
            words: None,
        }
    }

    /// Returns what is left of this in a process that it has forked.
    pub(in crate::daemon) fn leave(self, core: &mut Core) -> Bystander {
        let Child {
            parent,
            // It stays that of the process that has claimed it.
            slot: _,
            is_retiring: _,
            is_terminated: _,
            share: _,
            // The new process has them as well, as long as it does not close them.
            listeners,
            // A process that is forked does not inherit timers.
            last_timers: _,
            words,
        } = self;
        words.into_iter().for_each(|words| core.select_read_clear(&words.notice));
        Bystander { parent, listeners }
    }

    pub(in crate::daemon) fn slot(&self) -> SlotIndex {
        self.slot
    }
}

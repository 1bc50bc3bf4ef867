//! What the machine may look at: the board, the processes and the queues as they are.

use std::time::Duration;

use crate::daemon::board::{Scoreboard, SlotIndex, SlotSnapshot};
use crate::daemon::machine::{Answer, Key, Killer, Meter, Outside, Process, Queues, Says, Status};
use crate::daemon::parent::oom::OomKills;
use crate::daemon::parent::pids::Pids;
use crate::daemon::parent::usage::Told;
use crate::daemon::processes::{ProcessState, look};
use crate::kernel::{Core, SessionId};

/// The real [`Outside`].
pub(super) struct Eyes<'a> {
    /// `None` for a server that does not fork.
    pub(super) board: Option<&'a mut Scoreboard>,
    /// What the board's milliseconds are when the machine's time is zero.
    pub(super) born_ms: u64,
    pub(super) pids: &'a Pids,
    pub(super) told: &'a mut Told,
    pub(super) oom_kills: &'a mut OomKills,
    pub(super) core: &'a Core,
    /// Whose listeners are the Daemon's; `None` for all that this process has paused.
    pub(super) owner: Option<SessionId>,
}

impl Eyes<'_> {
    fn translate(&self, slot: SlotSnapshot) -> Says {
        let SlotSnapshot { status, since_ms, started_ms, requests, .. } = slot;
        let in_ours = |ms: u64| ms.saturating_sub(self.born_ms);
        Says { status: Some(status), since_ms: in_ours(since_ms), started_ms: in_ours(started_ms), requests }
    }
}

impl Outside for Eyes<'_> {
    fn answer_bell(&mut self) {
        if let Some(board) = &self.board {
            board.answer_bell();
        }
    }

    fn status(&self, key: Key) -> Option<Status> {
        self.board.as_ref()?.status(SlotIndex::from(key))
    }

    fn says(&self, key: Key) -> Option<Says> {
        let slot = self.board.as_ref()?.read(SlotIndex::from(key)).ok()?;
        Some(self.translate(slot))
    }

    fn reclaim(&mut self, key: Key) -> Says {
        let last = self.board.as_mut().and_then(|board| board.reclaim(SlotIndex::from(key)));
        last.map_or_else(Says::default, |slot| self.translate(slot))
    }

    fn process(&mut self, key: Key) -> Process {
        match self.pids.of(key).map_or(ProcessState::Gone, look) {
            ProcessState::Runs => Process::Runs,
            ProcessState::Stopped => Process::Stopped,
            ProcessState::Exited => Process::Ended,
            // What the kernel has reaped in this very slice is as gone, but the event that says how is in the queue.
            ProcessState::Gone if self.pids.of(key).is_some_and(|pid| !self.core.awaits_child(pid)) => Process::Ended,
            ProcessState::Gone => Process::Gone,
        }
    }

    fn meter(&mut self, key: Key, meter: Meter, doing: (u64, bool), age: Duration, since: Duration) -> Meter {
        match self.pids.of(key) {
            Some(pid) => self.told.read_meter(pid, meter, doing, age, since),
            None => meter,
        }
    }

    fn resident(&mut self, key: Key) -> Option<u64> {
        self.told.resident(self.pids.of(key)?)
    }

    fn killer(&mut self) -> Killer {
        self.oom_kills.explain()
    }

    fn forget_kills(&mut self) {
        self.oom_kills.forget_old();
    }

    fn queues(&mut self) -> Option<Queues> {
        let queues = self.core.read_queues(self.owner)?;
        let full = queues.full.map(|queue| (queue.waiting, queue.limit));
        Some(Queues { waiting: queues.waiting, limit: queues.limit, full })
    }

    fn has_client(&mut self) -> bool {
        self.core.has_backlog()
    }

    fn is_asked_to_release(&self) -> bool {
        self.board.as_ref().is_some_and(|board| board.is_asked_to_release())
    }

    fn answer(&self, key: Key) -> Answer {
        self.board.as_ref().map_or(Answer::Missing, |board| board.answer(SlotIndex::from(key)))
    }
}

//! A board that other programs may look at: what the parent and the children do besides.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::facts::{self, About, Facts};
use super::home::{Home, Place};
use super::stats::{self, Totals, now_us};
use super::{BoardError, Scoreboard, SlotIndex, Status};
#[cfg(any(lenore_loom, lenore_shuttle))]
use crate::sys::modelled_memory::SharedBoard;
#[cfg(not(any(lenore_loom, lenore_shuttle)))]
use crate::sys::shared_memory::SharedBoard;
use crate::sys::shown_memory::Stats;

/// What the parent has of it.
#[derive(Debug)]
pub(super) struct Show {
    /// In the process that has made it.
    home: Option<Home>,
    /// What was told last.
    facts: Option<Facts>,
    /// The most that was told of the busy time. A clock is read in several processes at about the same time.
    busy: Duration,
    /// How often something could not be read whole.
    torn: u64,
}

impl Scoreboard {
    /// Makes a board as [`new`](Scoreboard::new) does, which other programs may look at, and which counts what children do.
    ///
    /// # Errors
    ///
    /// Those of `new`, and [`BoardError::File`] if it can't be put in its place.
    pub(in crate::daemon) fn shown(slots: usize, place: Place, about: &About) -> Result<Scoreboard, BoardError> {
        if slots > Self::MAX_SLOTS {
            return Err(BoardError::TooManySlots { slots });
        }
        let (home, shown) = Home::make(place, slots, |shown| facts::fill(shown.header(), about))?;
        let shared = SharedBoard::beside(shown).map_err(|source| BoardError::Os { call: "mmap", source })?;
        let mut board = Scoreboard::of(shared, slots);
        board.show = Some(Show { home: Some(home), facts: None, busy: Duration::ZERO, torn: 0 });
        board.show_slots();
        Ok(board)
    }

    /// Returns the path by which other programs find it; `None` if they don't.
    pub(in crate::daemon) fn path(&self) -> Option<PathBuf> {
        self.show.as_ref()?.home.as_ref()?.path()
    }

    /// Returns the path of its file, if it has one.
    pub(in crate::daemon) fn file_path(&self) -> Option<&Path> {
        self.show.as_ref()?.home.as_ref()?.file_path()
    }

    /// Gives the file its path, if it has none yet.
    ///
    /// # Errors
    ///
    /// [`BoardError::File`].
    pub(in crate::daemon) fn take_name(&mut self) -> Result<(), BoardError> {
        let home = self.show.as_mut().and_then(|show| show.home.as_mut());
        home.map_or(Ok(()), Home::take_name)
    }

    /// In a process that was just forked: lets go of what is the parent's.
    pub(in crate::daemon) fn leave_to_parent(&mut self) {
        if let Some(show) = &mut self.show {
            show.home = None;
        }
    }

    /// Says that the Daemon has ended, and removes the file if it is this process's. Parent only.
    pub(in crate::daemon) fn withdraw(&mut self) {
        let facts = self.show.as_ref().and_then(|show| show.facts.clone());
        if let Some(facts) = facts {
            self.tell(Facts { phase: None, ..facts });
        }
        self.leave_to_parent();
    }

    /// Tells whether other programs may look at it.
    pub(in crate::daemon) fn is_shown(&self) -> bool {
        self.show.is_some()
    }

    /// Says that the parent was there at `now_ms` milliseconds since 1970. Parent only.
    pub(in crate::daemon) fn beat(&self, now_ms: u64) {
        if let Some(shown) = self.shared.shown() {
            shown.header().heartbeat_ms.store(now_ms, Relaxed);
        }
    }

    /// Tells other programs of the Daemon. Parent only.
    pub(in crate::daemon) fn tell(&mut self, facts: Facts) {
        let (Some(show), Some(shown)) = (&mut self.show, self.shared.shown()) else { return };
        if show.facts.as_ref() != Some(&facts) {
            facts::tell(shown.header(), &facts);
            show.facts = Some(facts);
        }
    }

    /// Tells other programs how many slots there are.
    pub(super) fn show_slots(&self) {
        if let Some(shown) = self.shared.shown() {
            shown.header().slots.store(self.table.len() as u32, Relaxed);
        }
    }

    /// Counts what could not be read whole, and returns how often that was so. Parent only.
    pub(in crate::daemon) fn count_torn(&mut self, torn: u64) -> u64 {
        let Some(show) = &mut self.show else { return torn };
        show.torn += torn;
        show.torn
    }

    /// Counts for how long the running child has a request in hand.
    pub(super) fn count_time(&self, slot: SlotIndex, before: Option<Status>, after: Status) {
        let Some(stats) = self.stats(slot) else { return };
        match (before.is_some_and(Status::is_busy), after.is_busy()) {
            (false, true) => stats::begin_busy(stats, now_us()),
            (true, false) => stats::end_busy(stats, now_us()),
            _ => {}
        }
    }

    /// Counts how long a connection had waited when the running child accepted it. Child only.
    pub(in crate::daemon) fn record_accept_wait(&self, slot: SlotIndex, waited: Duration) {
        if let Some(stats) = self.stats(slot) {
            stats::record(&stats.accept_wait, waited);
        }
    }

    /// Counts a request of which the application says that it has failed. Child only.
    pub(in crate::daemon) fn count_failed(&self, slot: SlotIndex) {
        if let Some(stats) = self.stats(slot) {
            stats::count_failed(stats);
        }
    }

    /// Tells whether [`record_accept_wait`](Scoreboard::record_accept_wait) counts anything.
    pub(in crate::daemon) fn counts(&self) -> bool {
        self.is_shown()
    }

    /// Adds what the child in `slot` has counted to what all have that have ended, and has `clear` make the slot new. Returns
    /// whether it has: it does not where nothing is counted.
    pub(super) fn fold(&self, slot: SlotIndex, clear: impl FnOnce()) -> bool {
        let (Some(stats), Some(shown)) = (self.stats(slot), self.shared.shown()) else { return false };
        stats::fold(&shown.header().ledger, slot.0, self.slot(slot), stats, now_us(), clear);
        true
    }

    /// Returns what all children have done, those that have ended included. Parent only.
    pub(in crate::daemon) fn totals(&mut self) -> Totals {
        let slots = &self.shared.slots()[..self.table.len()];
        let Some(shown) = self.shared.shown() else {
            let requests = slots
                .iter()
                .fold(self.retired_requests, |requests, slot| requests.saturating_add(slot.requests.load(Relaxed)));
            return Totals { requests, ..Totals::default() };
        };
        let totals = stats::sum_up(&shown.header().ledger, slots, shown.stats(), Some(now_us()));
        let mut totals = totals.unwrap_or_else(|| Totals { torn: true, ..Totals::default() });
        if let Some(show) = &mut self.show {
            show.busy = show.busy.max(totals.busy);
            totals.busy = show.busy;
        }
        totals
    }

    fn stats(&self, slot: SlotIndex) -> Option<&Stats> {
        Some(&self.shared.shown()?.stats()[slot.0])
    }
}

//! A board that other programs may look at: what the parent and the children do besides.
//!
//! A board in memory is what the processes share, and can't be shortened. A board in a file is a copy of that, which every process
//! writes whenever it has written the other. No process of the Daemon reads the file, but for the parent, which looks whether the file is still a board. So one that is cut short, by a tool that rotates
//! logs for example, is lost for other programs only: see [`Mapping::of_file`](crate::sys::mapping::Mapping::of_file). The parent notices
//! that, says so in the log, and makes the file empty, so that readers know as well.

use std::iter;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::facts::{self, About, Facts};
use super::home::{Home, Place};
use super::stats::{self, Totals, Which, now_us};
use super::{BoardError, Scoreboard, SlotIndex, Status, snapshot};
#[cfg(any(lenore_loom, lenore_shuttle))]
use crate::sys::modelled_memory::SharedBoard;
#[cfg(not(any(lenore_loom, lenore_shuttle)))]
use crate::sys::shared_memory::SharedBoard;
use crate::sys::shown_memory::{MAGIC, ShownBoard, Stats};

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
    /// When its file was last looked at, in milliseconds since 1970.
    looked_at_ms: u64,
    /// Its file was cut short.
    is_lost: bool,
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
        let (home, shown) = Home::make(place, slots, |shown| {
            facts::fill(shown.header(), about);
            shown.end().store(MAGIC, Relaxed);
        })?;
        let shared = SharedBoard::beside(shown).map_err(|source| BoardError::Os { call: "mmap", source })?;
        let mut board = Scoreboard::of(shared, slots);
        let show =
            Show { home: Some(home), facts: None, busy: Duration::ZERO, torn: 0, looked_at_ms: 0, is_lost: false };
        board.show = Some(show);
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
    pub(in crate::daemon) fn beat(&mut self, now_ms: u64) {
        for shown in self.boards() {
            shown.header().heartbeat_ms.store(now_ms, Relaxed);
        }
        self.look_at_file(now_ms);
    }

    /// Notices that the file was cut short.
    fn look_at_file(&mut self, now_ms: u64) {
        let (Some(show), Some(shown)) = (&mut self.show, self.shared.shown()) else { return };
        let (Some(home), Some(copy)) = (&show.home, shown.copy()) else { return };
        let is_due = now_ms.abs_diff(show.looked_at_ms) >= LOOK_AT_FILE_MS;
        if show.is_lost || !(is_due || copy.is_lost()) {
            return;
        }
        show.looked_at_ms = now_ms;
        // One that was made as long as before again has lost its end. A copy that was lost before consists of zeroes, whatever the
        // reason was.
        let is_short = home.is_cut_short() || (!copy.is_lost() && copy.end().load(Relaxed) != MAGIC);
        if !is_short && !copy.is_lost() {
            return;
        }
        show.is_lost = true;
        let or = if is_short { "" } else { ", or its file system is full" };
        let path = home.file_path().unwrap_or(Path::new(""));
        log::error!(
            target: "lenore::daemon",
            "board file lost: another process has cut it short{or}; the Daemon goes on without it until it is started or upgraded again: path={} pid={}",
            path.display(), std::process::id()
        );
        home.empty();
    }

    /// Tells other programs of the Daemon. Parent only.
    pub(in crate::daemon) fn tell(&mut self, facts: Facts) {
        if self.show.as_ref().is_none_or(|show| show.facts.as_ref() == Some(&facts)) {
            return;
        }
        self.boards().for_each(|shown| facts::tell(shown.header(), &facts));
        if let Some(show) = &mut self.show {
            show.facts = Some(facts);
        }
    }

    /// Tells other programs how many slots there are.
    pub(super) fn show_slots(&self) {
        for shown in self.boards() {
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
        let change = (before.is_some_and(Status::is_busy), after.is_busy());
        if !self.is_shown() || change.0 == change.1 {
            return;
        }
        let now = now_us();
        self.count(slot, |stats, which| match change {
            (false, true) => stats::begin_busy(stats, now),
            _ => stats::end_busy(stats, now, which),
        });
    }

    /// Counts how long a connection had waited when the running child accepted it. Child only.
    pub(in crate::daemon) fn record_accept_wait(&self, slot: SlotIndex, waited: Duration) {
        if self.is_shown() {
            let sample = waited.into();
            self.count(slot, |stats, which| stats::record(&stats.accept_wait, sample, which));
        }
    }

    /// Counts a request of which the application says that it has failed. Child only.
    pub(in crate::daemon) fn count_failed(&self, slot: SlotIndex) {
        self.count(slot, |stats, _| stats::count_failed(stats));
    }

    /// Has `change` change what the running child has counted, and the copy of it.
    #[inline]
    fn count(&self, slot: SlotIndex, change: impl Fn(&Stats, Which)) {
        let Some(shown) = self.shared.shown() else { return };
        match shown.copy() {
            None => change(&shown.stats()[slot.0], Which::Shown),
            Some(copy) => {
                change(&shown.stats()[slot.0], Which::Inner);
                change(&copy.stats()[slot.0], Which::Shown);
            }
        }
    }

    /// Makes the copy of a slot say what the slot says. Its only writer is this process.
    #[inline]
    pub(super) fn copy_slot(&self, slot: SlotIndex) {
        if let Some(copy) = self.shared.shown().and_then(ShownBoard::copy) {
            snapshot::copy(&copy.slots()[slot.0], self.slot(slot));
        }
    }

    /// Tells whether [`record_accept_wait`](Scoreboard::record_accept_wait) counts anything.
    pub(in crate::daemon) fn counts(&self) -> bool {
        self.is_shown()
    }

    /// Adds what the child in `slot` has counted to what all have that have ended, and has `clear` make the slot new. Returns
    /// whether it has: it does not where nothing is counted.
    pub(super) fn fold(&self, slot: SlotIndex, clear: impl FnOnce()) -> bool {
        let Some(shown) = self.shared.shown() else { return false };
        let (stats, now) = (&shown.stats()[slot.0], now_us());
        if let Some(copy) = shown.copy() {
            let (ledger, record, copied) = (&copy.header().ledger, &copy.slots()[slot.0], &copy.stats()[slot.0]);
            stats::level(copied, stats);
            self.copy_slot(slot);
            let clear = || snapshot::write(record, |record| self.begin_record(record, slot, Status::Empty, 0));
            stats::fold(ledger, slot.0, record, copied, now, Which::Shown, clear);
        }
        let which = if shown.copy().is_some() { Which::Inner } else { Which::Shown };
        stats::fold(&shown.header().ledger, slot.0, self.slot(slot), stats, now, which, clear);
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

    /// Returns the board that the processes share, and its copy in a file.
    fn boards(&self) -> impl Iterator<Item = &ShownBoard> {
        self.shared.shown().into_iter().flat_map(|shown| iter::once(shown).chain(shown.copy()))
    }
}

/// How often the parent looks at most whether the file was cut short.
const LOOK_AT_FILE_MS: u64 = 1_000;

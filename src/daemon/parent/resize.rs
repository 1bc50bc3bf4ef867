//! TTIN and TTOU: one child more, one child less, while it runs.

use crate::daemon::board::Scoreboard;
use crate::daemon::heap::Cx;
use crate::daemon::parent::pool;
use crate::daemon::parent::role::Size;
use crate::daemon::settings::{Forking, Settings};
use crate::error::Result;

impl Size {
    /// Shifts everything by `step`, unless no child or too many would be left. Each limit remembers what it has not gone
    /// along with, so that the way back leads to where it came from.
    fn shift(&mut self, step: i64, settings: &mut Settings) {
        let shift = self.shift + step;
        let at = |limit: u32| u32::try_from((i64::from(limit) + shift).max(1)).unwrap_or(u32::MAX);
        if i64::from(self.max_children) + shift < 1 || (step > 0 && settings.slots() >= Scoreboard::MAX_SLOTS) {
            return;
        }
        self.shift = shift;
        settings.max_children = at(self.max_children);
        if settings.forking == Forking::Pre {
            settings.min_spare = at(self.min_spare);
            settings.max_spare = at(self.max_spare);
        }
    }
}

/// TTIN: there may be one child more, and one spare more is kept.
pub(in crate::daemon) fn grow(cx: &mut Cx<'_>) -> Result {
    resize(cx, 1)
}

/// TTOU: the opposite. One child remains in any case.
pub(in crate::daemon) fn shrink(cx: &mut Cx<'_>) -> Result {
    resize(cx, -1)
}

fn resize(cx: &mut Cx<'_>, step: i64) -> Result {
    cx.sig_handled();
    let heap = cx.heap();
    let Some(parent) = heap.role.parent_mut() else { return Ok(()) };
    if heap.settings.forking == Forking::None {
        return Ok(());
    }
    parent.size.shift(step, &mut heap.settings);
    let (settings, slots) = (&heap.settings, heap.settings.slots());
    log::info!(
        target: "lenore::daemon",
        "resized: max_children={} min_spare={} max_spare={}",
        settings.max_children, settings.min_spare, settings.max_spare
    );
    if let Some(board) = &mut heap.board {
        board.grow(slots);
    }
    pool::maintain(cx)
}

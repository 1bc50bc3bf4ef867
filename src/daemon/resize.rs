//! TTIN and TTOU: one child more, one child less, while it runs.

use super::pool;
use super::scoreboard::Scoreboard;
use super::session::{Cx, Role};
use super::settings::{Mode, Settings};
use crate::error::Result;

/// TTIN: there may be one child more, and one spare more is kept.
pub(super) fn grow(cx: &mut Cx<'_>) -> Result {
    resize(cx, |settings| {
        if settings.slots() >= Scoreboard::MAX_SLOTS {
            return;
        }
        settings.max_children += 1;
        if settings.mode == Mode::PreForking {
            settings.min_spare += 1;
            settings.max_spare += 1;
        }
    })
}

/// TTOU: the opposite. One child remains in any case.
pub(super) fn shrink(cx: &mut Cx<'_>) -> Result {
    resize(cx, |settings| {
        settings.max_children = settings.max_children.saturating_sub(1).max(1);
        if settings.mode == Mode::PreForking {
            settings.min_spare = settings.min_spare.saturating_sub(1).max(1);
            settings.max_spare = settings.max_spare.saturating_sub(1).max(settings.min_spare);
        }
    })
}

fn resize(cx: &mut Cx<'_>, change: impl FnOnce(&mut Settings)) -> Result {
    cx.sig_handled();
    let heap = cx.heap();
    if heap.role != Role::Parent || heap.settings.mode == Mode::NonForking {
        return Ok(());
    }
    change(&mut heap.settings);
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

//! What only the parent can measure: the turns of its loop, and how long the connections have waited that it accepts itself.

use std::cell::RefCell;
use std::rc::Rc;

use crate::daemon::board::Recorder;

/// The parent's own histograms.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Timings {
    pub(super) accept_wait: Recorder,
    /// The kernel counts in it.
    pub(super) loop_turn: Rc<RefCell<Recorder>>,
}

//! Upgrades, as far as the parent carries them out.

use crate::daemon::heap::Cx;
use crate::daemon::machine::Attempt;

/// Forks, and executes the program anew.
pub(super) fn start(_cx: &mut Cx<'_>, _attempt: Attempt) {}

/// Gives the successor the names and the counters.
pub(super) fn hand_over(_cx: &mut Cx<'_>, _attempt: Attempt) {}

/// Ends the successor, whatever it does.
pub(super) fn end_successor(_cx: &mut Cx<'_>, _attempt: Attempt) {}

/// The names are this process's again.
pub(super) fn take_back(_cx: &mut Cx<'_>) {}

/// Accepts nothing from now on, or accepts again.
pub(super) fn rest(_cx: &mut Cx<'_>, _rests: bool) {}

/// The successor has everything for good.
pub(super) fn leave_all(_cx: &mut Cx<'_>) {}

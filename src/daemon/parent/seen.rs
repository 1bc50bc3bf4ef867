//! What was seen of the Daemon a moment ago, for others who ask in the same moment. Data only.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use crate::daemon::machine::Key;
use crate::daemon::parent::consumption::Detail;
use crate::daemon::view::{ProcessView, Snapshot};

/// What was seen.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Seen {
    /// In this turn of the loop, each with how much it tells of what children use.
    snapshots: Vec<(Option<Detail>, Rc<Snapshot>)>,
    /// A client got an answer in this turn that takes long to write.
    has_written: bool,
    /// What children use, by the time at which the first was looked at.
    usage: Option<(SystemTime, Detail)>,
    by_child: BTreeMap<Key, ProcessView>,
}

impl Seen {
    /// Returns a snapshot of this turn that tells so much, if there is one. What others have asked for is not in one without
    /// usage.
    pub(super) fn snapshot(&mut self, detail: Option<Detail>) -> Option<Rc<Snapshot>> {
        let found = self.snapshots.iter().filter(|(told, _)| *told >= detail).min_by_key(|(told, _)| *told)?;
        let (told, snapshot) = (found.0, Rc::clone(&found.1));
        if detail.is_some() || told.is_none() {
            return Some(snapshot);
        }
        let mut bare = Snapshot::clone(&snapshot);
        bare.counters.cpu_by_slot.clear();
        bare.children.iter_mut().for_each(|child| child.usage = None);
        Some(self.keep(None, bare))
    }

    /// Keeps a snapshot until the turn ends.
    pub(super) fn keep(&mut self, detail: Option<Detail>, snapshot: Snapshot) -> Rc<Snapshot> {
        let snapshot = Rc::new(snapshot);
        self.snapshots.push((detail, Rc::clone(&snapshot)));
        snapshot
    }

    /// Returns whether a client may have an answer now that takes long to write. One a turn may.
    pub(super) fn may_write(&mut self) -> bool {
        !std::mem::replace(&mut self.has_written, true)
    }

    /// Every client that has asked in this turn is answered, or put off.
    pub(super) fn turn_ends(&mut self) {
        self.snapshots.clear();
        self.has_written = false;
    }

    /// Returns what is known of children that was read within a second and tells so much. What is read now is to be noted there.
    pub(super) fn usage(&mut self, detail: Detail, now: SystemTime) -> &mut BTreeMap<Key, ProcessView> {
        let is_good = |(since, told): (SystemTime, Detail)| {
            told >= detail && now.duration_since(since).is_ok_and(|age| age < GOOD_FOR)
        };
        if !self.usage.is_some_and(is_good) {
            self.usage = Some((now, detail));
            self.by_child.clear();
        }
        &mut self.by_child
    }
}

/// How long it is believed what a child uses. To ask the system about a thousand children takes longer than a turn should.
const GOOD_FOR: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::view::sample::snapshot;

    #[test] // O-CT-04: one look for everybody who asks in a turn
    fn snapshot_is_shared_within_a_turn() {
        let mut seen = Seen::default();
        assert!(seen.snapshot(None).is_none());
        let full = seen.keep(Some(Detail::Full), snapshot());
        assert!(Rc::ptr_eq(&full, &seen.snapshot(Some(Detail::Full)).unwrap()));
        assert!(Rc::ptr_eq(&full, &seen.snapshot(Some(Detail::Brief)).unwrap()), "more is told than was asked for");
        let mut other = Seen::default();
        other.keep(Some(Detail::Brief), snapshot());
        assert!(other.snapshot(Some(Detail::Full)).is_none(), "it does not tell enough");
        let bare = seen.snapshot(None).unwrap();
        assert!(bare.children.iter().all(|child| child.usage.is_none()) && bare.counters.cpu_by_slot.is_empty());
        assert!(full.children.iter().any(|child| child.usage.is_some()), "and the other still tells it");
        assert!(Rc::ptr_eq(&bare, &seen.snapshot(None).unwrap()));
        seen.turn_ends();
        assert!(seen.snapshot(None).is_none() && seen.snapshot(Some(Detail::Brief)).is_none());
    }

    #[test] // O-CT-04
    fn one_long_answer_is_written_a_turn() {
        let mut seen = Seen::default();
        assert!(seen.may_write());
        assert!(!seen.may_write());
        seen.turn_ends();
        assert!(seen.may_write());
    }

    #[test] // O-ST-12
    fn usage_is_good_for_a_second() {
        let (mut seen, begin) = (Seen::default(), SystemTime::UNIX_EPOCH + Duration::from_secs(100));
        let key = Key { slot: 1, generation: 1 };
        seen.usage(Detail::Brief, begin).insert(key, ProcessView::default());
        let later = |millis| begin + Duration::from_millis(millis);
        assert!(seen.usage(Detail::Brief, later(999)).contains_key(&key));
        assert!(!seen.usage(Detail::Full, later(999)).contains_key(&key), "it does not tell enough");
        seen.usage(Detail::Full, later(999)).insert(key, ProcessView::default());
        assert!(!seen.usage(Detail::Full, later(2000)).contains_key(&key), "it is old");
        seen.usage(Detail::Full, later(2000)).insert(key, ProcessView::default());
        assert!(!seen.usage(Detail::Full, begin).contains_key(&key), "the clock was set back");
    }
}

//! Which process each child is.

use crate::daemon::machine::Key;

/// The pids of the children. Only the parent's room knows them.
///
/// A child that was reaped has none: nothing can be sent to it, whatever its pid means by then.
#[derive(Debug, Default)]
pub(super) struct Pids {
    /// By slot: the owner's generation, and its pid.
    alive: Vec<Option<(u32, i32)>>,
    /// The child that was reaped last, for texts that name it.
    last: Option<(Key, i32)>,
}

impl Pids {
    pub(super) fn enter(&mut self, key: Key, pid: i32) {
        if self.alive.len() <= key.slot {
            self.alive.resize(key.slot + 1, None);
        }
        self.alive[key.slot] = Some((key.generation, pid));
    }

    /// Takes a child off that was reaped.
    pub(super) fn remove(&mut self, key: Key) -> Option<i32> {
        let pid = self.of(key)?;
        self.alive[key.slot] = None;
        self.last = Some((key, pid));
        Some(pid)
    }

    /// Returns the pid of a child that was not reaped.
    pub(super) fn of(&self, key: Key) -> Option<i32> {
        let (generation, pid) = (*self.alive.get(key.slot)?)?;
        (generation == key.generation).then_some(pid)
    }

    /// Returns the child that is this process. A pid that was reaped is no child's, whatever it means by then.
    #[cfg(any(test, feature = "control"))]
    pub(super) fn key_of(&self, pid: i32) -> Option<Key> {
        let slot = self.alive.iter().position(|child| child.is_some_and(|(_, other)| other == pid))?;
        let (generation, _) = self.alive[slot]?;
        Some(Key { slot, generation })
    }

    /// Returns the pid of a child, for texts. The child that was reaped last still has its pid. 0 for a child that was never entered.
    pub(super) fn name(&self, key: Key) -> i32 {
        let last = self.last.filter(|(last, _)| *last == key).map(|(_, pid)| pid);
        self.of(key).or(last).unwrap_or_default()
    }

    /// Returns all pids.
    pub(super) fn all(&self) -> impl Iterator<Item = i32> {
        self.alive.iter().flatten().map(|(_, pid)| *pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // a pid is found by the child's key alone, and not after its end
    fn reaped_child_has_no_pid() {
        let (first, second) = (Key { slot: 3, generation: 1 }, Key { slot: 3, generation: 2 });
        let mut pids = Pids::default();
        assert_eq!((pids.of(first), pids.remove(first)), (None, None));
        pids.enter(first, 100);
        assert_eq!((pids.of(first), pids.of(second)), (Some(100), None));
        assert_eq!(pids.key_of(100), Some(first));
        assert_eq!(pids.remove(second), None);
        assert_eq!(pids.remove(first), Some(100));
        assert_eq!((pids.of(first), pids.name(first), pids.key_of(100)), (None, 100, None));
        pids.enter(second, 100);
        assert_eq!(pids.key_of(100), Some(second));
        assert_eq!((pids.of(first), pids.of(second)), (None, Some(100)));
        assert_eq!(pids.all().collect::<Vec<_>>(), [100]);
    }
}

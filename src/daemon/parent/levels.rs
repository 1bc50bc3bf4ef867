//! Log levels that operators have set, and when they end by themselves. Pure.

use std::time::Duration;

use log::LevelFilter;

use crate::daemon::machine::Key;

/// What is logged because an operator wants it.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Levels {
    /// What was last set for all processes without an end; `None` for what the program has set.
    lasting: Option<LevelFilter>,
    /// What all processes log now.
    now: Option<LevelFilter>,
    /// Which levels end when: that of one child, or that of all.
    ends: Vec<(Option<Key>, Duration)>,
}

impl Levels {
    /// Notes a level of one child or of all, which lasts until then or for ever. It takes the place of what was set before, and a
    /// level of all takes the place of that of each child as well.
    pub(super) fn set(&mut self, level: Option<LevelFilter>, only: Option<Key>, until: Option<Duration>) {
        if only.is_none() {
            self.now = level;
            if until.is_none() {
                self.lasting = level;
            }
            self.ends.clear();
        } else {
            self.ends.retain(|(key, _)| *key != only);
        }
        self.ends.extend(until.map(|until| (only, until)));
    }

    /// Takes out the levels whose time is up, each with what holds from then on.
    pub(super) fn end(&mut self, now: Duration) -> Vec<(Option<Key>, Option<LevelFilter>)> {
        let (over, left): (Vec<_>, Vec<_>) = self.ends.iter().partition(|(_, until)| *until <= now);
        self.ends = left;
        if over.iter().any(|(only, _)| only.is_none()) {
            self.now = self.lasting;
        }
        over.into_iter().map(|(only, _)| (only, self.now)).collect()
    }

    /// A child has ended.
    pub(super) fn forget(&mut self, key: Key) {
        self.ends.retain(|(only, _)| *only != Some(key));
    }

    /// Returns when the next level ends.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.ends.iter().map(|(_, until)| *until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const CHILD: Option<Key> = Some(Key { slot: 3, generation: 1 });
    const DEBUG: Option<LevelFilter> = Some(LevelFilter::Debug);
    const WARN: Option<LevelFilter> = Some(LevelFilter::Warn);

    #[test] // O-CT-15
    fn a_level_ends_by_itself() {
        let mut levels = Levels::default();
        levels.set(DEBUG, None, Some(SECOND));
        assert_eq!((levels.next_due(), levels.end(SECOND / 2)), (Some(SECOND), vec![]));
        assert_eq!(levels.end(SECOND), [(None, None)]);
        assert_eq!((levels.next_due(), levels.end(2 * SECOND)), (None, vec![]));
    }

    #[test] // O-CT-15
    fn what_was_set_before_holds_again() {
        let mut levels = Levels::default();
        levels.set(WARN, None, None);
        levels.set(DEBUG, None, Some(SECOND));
        levels.set(DEBUG, None, Some(2 * SECOND));
        assert_eq!(levels.end(2 * SECOND), [(None, WARN)]);
    }

    #[test] // O-CT-15
    fn a_child_goes_back_to_what_all_log() {
        let mut levels = Levels::default();
        levels.set(WARN, None, None);
        levels.set(DEBUG, CHILD, Some(SECOND));
        assert_eq!(levels.end(SECOND), [(CHILD, WARN)]);
    }

    #[test] // O-CT-15
    fn the_last_word_holds() {
        let mut levels = Levels::default();
        levels.set(DEBUG, CHILD, Some(SECOND));
        levels.set(DEBUG, None, Some(SECOND));
        levels.set(WARN, None, None);
        assert_eq!(levels.next_due(), None);
        levels.set(DEBUG, CHILD, Some(SECOND));
        levels.set(DEBUG, CHILD, Some(3 * SECOND));
        assert_eq!(levels.next_due(), Some(3 * SECOND));
        levels.forget(CHILD.unwrap());
        assert_eq!(levels.next_due(), None);
    }
}

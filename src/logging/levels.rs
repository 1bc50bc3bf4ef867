//! Which records are written: levels by target, and the level that a running program sets for all of them.

use std::sync::atomic::{AtomicU8, Ordering};

use log::LevelFilter;

use super::error::LoggerError;

/// What a filter says.
#[derive(Clone, Debug)]
pub(super) struct Levels {
    /// For targets that the filter does not name.
    others: LevelFilter,
    /// The targets that it names, the longest first.
    named: Vec<(String, LevelFilter)>,
}

impl Levels {
    /// The same level for all targets.
    pub(super) fn all(level: LevelFilter) -> Levels {
        Levels { others: level, named: Vec::new() }
    }

    /// Reads a filter. Returns `None` for one without a part, as of an environment variable that is set to nothing.
    pub(super) fn parse(filter: &str) -> Result<Option<Levels>, LoggerError> {
        let mut levels = Levels::all(LevelFilter::Off);
        let mut is_empty = true;
        for part in filter.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            is_empty = false;
            let refuse = |reason| LoggerError::Filter { part: part.to_owned(), reason };
            if part.contains('/') {
                return Err(refuse("patterns for messages are not supported"));
            }
            let (target, level) = match part.split_once('=') {
                Some((target, level)) => (target.trim(), level.trim()),
                None if part.parse::<LevelFilter>().is_ok() => ("", part),
                None => (part, ""),
            };
            if target.is_empty() && part.contains('=') {
                return Err(refuse("there is no target before the ="));
            }
            if target.contains(char::is_whitespace) {
                return Err(refuse("a target has no spaces"));
            }
            let level = match level {
                "" => LevelFilter::Trace,
                level => {
                    level.parse().map_err(|_| refuse("the level is not off, error, warn, info, debug or trace"))?
                }
            };
            levels.set(target, level);
        }
        Ok((!is_empty).then_some(levels))
    }

    /// Sets the level of a target, or of all targets that have none of their own if `target` is empty. The last part
    /// about a target holds.
    fn set(&mut self, target: &str, level: LevelFilter) {
        if target.is_empty() {
            self.others = level;
            return;
        }
        self.named.retain(|(named, _)| named != target);
        let place = self.named.partition_point(|(named, _)| named.len() >= target.len());
        self.named.insert(place, (target.to_owned(), level));
    }

    /// Returns the level of a target: what was set for it, or else for the nearest module around it.
    pub(super) fn of(&self, target: &str) -> LevelFilter {
        let fits =
            |named: &str| target.strip_prefix(named).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
        self.named.iter().find(|(named, _)| fits(named)).map_or(self.others, |&(_, level)| level)
    }

    /// The level from which on every record is off, whatever its target.
    pub(super) fn most(&self) -> LevelFilter {
        self.named.iter().map(|&(_, level)| level).fold(self.others, Ord::max)
    }
}

/// A level that holds for all targets in place of the filter while it is set.
///
/// This is one atomic byte without a lock, so that it could lie in memory that processes share.
#[derive(Debug)]
pub(super) struct Override(AtomicU8);

impl Override {
    pub(super) const fn none() -> Override {
        Override(AtomicU8::new(NONE))
    }

    pub(super) fn set(&self, level: Option<LevelFilter>) {
        self.0.store(level.map_or(NONE, |level| level as u8), Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Option<LevelFilter> {
        let level = self.0.load(Ordering::Relaxed);
        LevelFilter::iter().find(|&known| known as u8 == level)
    }
}

/// No level is set: the filter holds.
const NONE: u8 = u8::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn levels(filter: &str) -> Levels {
        Levels::parse(filter).unwrap().expect("it has a part")
    }

    #[test]
    fn level_of_the_longest_target_around_a_module_holds() {
        let levels = levels("info,lenore=warn,lenore::daemon=debug,lenore::daemon::board=off");
        let expected = [
            ("program", LevelFilter::Info),
            ("lenore", LevelFilter::Warn),
            ("lenore::wheels", LevelFilter::Warn),
            ("lenore::daemon", LevelFilter::Debug),
            ("lenore::daemon::pool", LevelFilter::Debug),
            ("lenore::daemon::board", LevelFilter::Off),
            ("lenorectl", LevelFilter::Info),
            ("lenore::daemons", LevelFilter::Warn),
        ];
        for (target, level) in expected {
            assert_eq!(levels.of(target), level, "{target}");
        }
        assert_eq!(levels.most(), LevelFilter::Debug);
    }

    #[test]
    fn filter_without_a_bare_level_is_off_for_other_targets() {
        let levels = levels("lenore::daemon=warn,tower");
        assert_eq!((levels.of("x"), levels.of("tower")), (LevelFilter::Off, LevelFilter::Trace));
    }

    #[test]
    fn last_part_about_a_target_holds_and_spaces_and_case_do_not_matter() {
        let levels = levels(" WARN , a=Debug,, a = Error ,info,b=");
        let of = ["x", "a", "b"].map(|target| levels.of(target));
        assert_eq!(of, [LevelFilter::Info, LevelFilter::Error, LevelFilter::Trace]);
    }

    #[test]
    fn filter_without_a_part_is_none() {
        for filter in ["", " ", ",,"] {
            assert!(Levels::parse(filter).unwrap().is_none(), "{filter:?}");
        }
    }

    #[test]
    fn error_of_a_filter_names_the_part() {
        let cases = [
            ("info,lenore=debgu", "lenore=debgu"),
            ("=info", "=info"),
            ("warn, a=b=c ,info", "a=b=c"),
            ("info/password", "info/password"),
            ("in fo", "in fo"),
            ("a=1", "a=1"),
        ];
        for (filter, named) in cases {
            match Levels::parse(filter) {
                Err(LoggerError::Filter { part, .. }) => assert_eq!(part, named),
                other => panic!("{filter:?} is {other:?}"),
            }
        }
    }

    #[test]
    fn override_is_every_level_or_none() {
        let level = Override::none();
        assert_eq!(level.get(), None);
        for set in LevelFilter::iter() {
            level.set(Some(set));
            assert_eq!(level.get(), Some(set));
        }
        level.set(None);
        assert_eq!(level.get(), None);
    }
}

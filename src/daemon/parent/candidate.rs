//! What the parent has of a reload: what was read, who loads it, what new children say, and what has become of it.

use std::rc::Rc;
#[cfg(feature = "control")]
use std::time::Duration;
use std::time::SystemTime;

use crate::daemon::machine::{Edition, Key, Rejection, ReloadNews, UpgradeFault};
use crate::daemon::notify::minute_of_day;
use crate::daemon::parent::scout::{Scout, Words};
use crate::kernel::Handle;

/// What the parent has of a reload.
#[derive(Default)]
pub(super) struct Reloading {
    /// What was read for the run that is under way.
    pub(super) read: Option<(Edition, Rc<[u8]>)>,
    pub(super) scout: Option<Scout>,
    /// What new children write to their standard error.
    pub(super) words: Vec<(Key, Words)>,
    /// What the child wrote to its standard error that has ended last.
    pub(super) ended: Option<(Key, String)>,
    /// What an operator is told besides the verdict.
    pub(super) told: Told,
    /// How many runs have ended how.
    #[cfg(feature = "control")]
    pub(super) counts: Counts,
    /// The last run that has ended.
    #[cfg(feature = "control")]
    pub(super) last: Option<Last>,
    /// When the last one that was applied has ended.
    #[cfg(feature = "control")]
    pub(super) succeeded: Option<SystemTime>,
}

/// What is known of the run that is under way, or was the last one.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    /// Why it has failed, in words.
    pub(super) cause: String,
    /// The last that the process wrote to its standard error that has failed.
    pub(super) last_words: String,
    /// Settings that need a restart.
    pub(super) needs_restart: Vec<String>,
}

/// How many runs have ended how.
#[cfg(feature = "control")]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) applied: u64,
    pub(super) rejected: u64,
    pub(super) rolled_back: u64,
    pub(super) superseded: u64,
    pub(super) taken_back: u64,
}

/// A run that has ended.
#[cfg(feature = "control")]
#[derive(Clone, Debug)]
pub(super) struct Last {
    pub(super) edition: Edition,
    pub(super) verdict: &'static str,
    pub(super) cause: String,
    pub(super) needs_restart: Vec<String>,
    pub(super) took: Duration,
    pub(super) at: SystemTime,
}

impl Reloading {
    /// Returns the ends that a forked process must not have.
    pub(super) fn into_handles(self) -> impl Iterator<Item = Handle> {
        let scout = self.scout.map(|scout| scout.words.end);
        scout.into_iter().chain(self.words.into_iter().map(|(_, words)| words.end))
    }

    #[cfg(feature = "control")]
    pub(super) fn count(&mut self, edition: Edition, news: &ReloadNews, at: SystemTime) {
        let counts = &mut self.counts;
        let (count, verdict, took) = match *news {
            ReloadNews::Applied { took } => (&mut counts.applied, "applied", took),
            ReloadNews::Rejected { took, is_check: false, .. } => (&mut counts.rejected, "rejected", took),
            ReloadNews::RolledBack { took, .. } => (&mut counts.rolled_back, "rolled_back", took),
            ReloadNews::Superseded => (&mut counts.superseded, "superseded", Duration::ZERO),
            ReloadNews::TakenBack { .. } => (&mut counts.taken_back, "taken_back", Duration::ZERO),
            _ => return,
        };
        *count += 1;
        let cause = match *news {
            ReloadNews::Rejected { why, .. } => self.told.rejection(why),
            ReloadNews::RolledBack { .. } => self.told.cause.clone(),
            ReloadNews::TakenBack { .. } => "new children died as soon as they were forked".to_owned(),
            _ => String::new(),
        };
        if verdict == "applied" {
            self.succeeded = Some(at);
        }
        let needs_restart = if verdict == "applied" { self.told.needs_restart.clone() } else { Vec::new() };
        self.last = Some(Last { edition, verdict, cause, needs_restart, took, at });
    }
}

#[cfg(feature = "control")]
impl Counts {
    /// Returns the word for each verdict, and how many there were.
    pub(super) fn by_name(&self) -> [(&'static str, u64); 5] {
        let Counts { applied, rejected, rolled_back, superseded, taken_back } = *self;
        [
            ("applied", applied),
            ("rejected", rejected),
            ("rolled_back", rolled_back),
            ("superseded", superseded),
            ("taken_back", taken_back),
        ]
    }
}

impl Told {
    /// Returns why an upgrade has failed.
    pub(super) fn upgrade_fault(&self, why: UpgradeFault) -> String {
        if self.cause.is_empty() { why.to_string() } else { format!("{why}: {}", self.cause) }
    }

    /// Returns why a configuration was rejected.
    pub(super) fn rejection(&self, why: Rejection) -> String {
        if self.cause.is_empty() { why.to_string() } else { format!("{why}: {}", self.cause) }
    }

    /// Returns how a reload has ended, and when, in words; `None` if that is not the news.
    pub(super) fn verdict(&self, edition: Edition, news: &ReloadNews, at: SystemTime) -> Option<String> {
        let (word, cause) = match *news {
            ReloadNews::Applied { .. } => ("applied", None),
            ReloadNews::Rejected { why, .. } => ("rejected", Some(self.rejection(why))),
            ReloadNews::RolledBack { why, .. } if self.cause.is_empty() => ("rolled back", Some(why.to_string())),
            ReloadNews::RolledBack { .. } => ("rolled back", Some(self.cause.clone())),
            ReloadNews::Superseded => ("superseded", None),
            ReloadNews::TakenBack { to } => ("taken back", Some(format!("edition {to} goes on"))),
            _ => return None,
        };
        let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
        Some(format!("reload #{edition} {word} {}{cause}", minute_of_day(at)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test] // O-SD-11: which one, what has become of it, and when
    fn verdict_has_its_number_and_its_time() {
        let told = Told::default();
        let at = UNIX_EPOCH + Duration::from_secs(1_795_903_370);
        let verdict = |news| told.verdict(Edition(4), &news, at);
        let took = Duration::ZERO;
        assert_eq!(verdict(ReloadNews::Applied { took }).as_deref(), Some("reload #4 applied 22:02 UTC"));
        let why = Rejection::TimedOut;
        let rejected = verdict(ReloadNews::Rejected { why, took, is_check: false });
        assert_eq!(rejected, Some(format!("reload #4 rejected 22:02 UTC: {why}")));
        let taken_back = verdict(ReloadNews::TakenBack { to: Edition(3) });
        assert_eq!(taken_back.as_deref(), Some("reload #4 taken back 22:02 UTC: edition 3 goes on"));
        assert_eq!(verdict(ReloadNews::Rolling), None);
    }
}

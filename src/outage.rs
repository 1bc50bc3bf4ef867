//! Tries that fail for a while: the log has a line when that begins, and one when it is over.
//!
//! A line for each try would fill a disk while the system is short of something, and hide the first one.

use std::fmt;
use std::time::{Duration, SystemTime};

/// Whether the tries of one kind fail at present, and since when. `C` is the reason, as far as the log tells reasons apart.
#[derive(Debug)]
pub(crate) struct Outage<C> {
    present: Option<Present<C>>,
}

#[derive(Debug)]
struct Present<C> {
    cause: C,
    since: SystemTime,
    failures: u32,
    /// The first try that has succeeded since the last failure.
    recovered: Option<SystemTime>,
}

impl<C> Default for Outage<C> {
    fn default() -> Outage<C> {
        Outage { present: None }
    }
}

impl<C: PartialEq> Outage<C> {
    /// Takes note of a try that has failed. Returns whether that is news: the try before had not failed, or for another reason.
    pub(crate) fn failed(&mut self, cause: C, now: SystemTime) -> bool {
        let Some(present) = &mut self.present else {
            self.present = Some(Present { cause, since: now, failures: 1, recovered: None });
            return true;
        };
        present.failures = present.failures.saturating_add(1);
        present.recovered = None;
        let is_news = present.cause != cause;
        present.cause = cause;
        is_news
    }
}

impl<C> Outage<C> {
    /// Returns for how long tries have failed, none of which has succeeded since.
    pub(crate) fn lasts(&self, now: SystemTime) -> Option<Duration> {
        let present = self.present.as_ref().filter(|present| present.recovered.is_none())?;
        Some(now.duration_since(present.since).unwrap_or_default())
    }

    /// Tells whether the last try has failed, or one shortly before it.
    pub(crate) fn is_present(&self) -> bool {
        self.present.is_some()
    }

    /// Takes note of a try that has succeeded. Returns whether this is the first one after a failure: if no other fails, the
    /// outage is over.
    pub(crate) fn succeeded(&mut self, now: SystemTime) -> bool {
        match &mut self.present {
            Some(present) if present.recovered.is_none() => {
                present.recovered = Some(now);
                true
            }
            _ => false,
        }
    }

    /// Ends the outage if no try has failed for as long as `calm` since one has succeeded. A caller whose tries succeed and
    /// fail by turns, as those of a server do that is full, so has one outage and not many.
    pub(crate) fn end_if_calm(&mut self, now: SystemTime, calm: Duration) -> Option<Ended> {
        let recovered = self.present.as_ref()?.recovered?;
        let is_calm = now.duration_since(recovered).is_ok_and(|span| span >= calm);
        if is_calm { self.end(recovered) } else { None }
    }

    /// Ends the outage, if there is one, which has lasted up to `now`.
    pub(crate) fn end(&mut self, now: SystemTime) -> Option<Ended> {
        let Present { since, failures, .. } = self.present.take()?;
        Some(Ended { failures, lasted: now.duration_since(since).unwrap_or_default() })
    }
}

/// An outage that is over; shows itself as fields for the log.
#[derive(Debug, PartialEq)]
pub(crate) struct Ended {
    /// How many tries have failed.
    failures: u32,
    lasted: Duration,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed={} lasted={:.1}", self.failures, self.lasted.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(ms)
    }

    const CALM: Duration = Duration::from_millis(100);

    #[test] // K-SF-29, D-FO-05
    fn first_failure_and_each_other_cause_are_news() {
        let mut outage = Outage::default();
        assert!(outage.failed("full", at(0)));
        assert!(!outage.failed("full", at(1)));
        assert!(outage.failed("broken", at(2)));
        assert!(!outage.failed("broken", at(3)));
        assert_eq!(outage.end(at(2500)).expect("one outage").to_string(), "failed=4 lasted=2.5");
        assert_eq!(outage.end(at(2600)), None);
        assert!(outage.failed("broken", at(3000)));
    }

    #[test] // K-SF-29
    fn tries_that_succeed_and_fail_by_turns_are_one_outage() {
        let mut outage = Outage::default();
        assert!(!outage.succeeded(at(0)), "there is none");
        assert!(outage.failed((), at(0)));
        for ms in (50..1000).step_by(50) {
            assert!(outage.succeeded(at(ms)));
            assert!(!outage.succeeded(at(ms + 1)), "only the first one counts");
            assert_eq!(outage.end_if_calm(at(ms + 49), CALM), None);
            assert!(!outage.failed((), at(ms + 49)));
        }
        assert_eq!(outage.end_if_calm(at(10_000), CALM), None, "no try has succeeded");
        assert!(outage.succeeded(at(10_000)));
        assert_eq!(outage.end_if_calm(at(10_099), CALM), None);
        // It has lasted until it recovered.
        assert_eq!(outage.end_if_calm(at(10_100), CALM).expect("calm").to_string(), "failed=20 lasted=10.0");
        assert!(!outage.is_present());
    }
}

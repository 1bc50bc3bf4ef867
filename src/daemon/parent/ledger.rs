//! What the parent remembers for those who look from outside. It is kept only where they do.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;

use crate::daemon::board::epoch_ms;
use crate::daemon::machine::{Death, Key, Message};
use crate::daemon::parent::refused::Reason;
use crate::daemon::parent::seen::Seen;
use crate::daemon::view::{self, Histogram, When};

/// What is not to be found on the table, on the board or in `/proc`.
#[derive(Debug)]
pub(in crate::daemon) struct Ledger {
    /// The last first.
    deaths: VecDeque<Past>,
    /// Forks that have failed with `EAGAIN`, with `ENOMEM`, and for any other reason.
    fork_failures: [u64; ERRNOS.len()],
    /// How long children took to be ready, by bucket, and all together.
    starts: (Vec<u64>, Duration),
    /// By slot.
    spent: Vec<Spent>,
    /// How many connections the system had turned away before.
    overflows_before: Option<u64>,
    /// For those who ask in the same moment.
    pub(super) seen: Seen,
}

/// A death, and when it was noticed.
#[derive(Debug)]
struct Past {
    death: Death,
    pid: i32,
    at: SystemTime,
}

/// Processor time of the children of one slot.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    /// Of those that have ended.
    former: Duration,
    /// Of the present one, as it was last read, with its generation.
    present: (u32, Duration),
}

impl Ledger {
    pub(super) fn new(overflows_before: Option<u64>) -> Ledger {
        Ledger {
            deaths: VecDeque::with_capacity(DEATHS),
            fork_failures: [0; ERRNOS.len()],
            starts: (vec![0; Histogram::BUCKETS], Duration::ZERO),
            spent: Vec::new(),
            overflows_before,
            seen: Seen::default(),
        }
    }

    /// Takes note of what the log is told.
    pub(super) fn heard(&mut self, message: &Message) {
        if let Message::Ready { took, .. } = message {
            let (buckets, sum) = &mut self.starts;
            buckets[Histogram::bucket_of(u64::try_from(took.as_micros()).unwrap_or(u64::MAX))] += 1;
            *sum += *took;
        }
    }

    /// Takes note of a fork that has failed.
    pub(super) fn fork_failed(&mut self, reason: Option<Reason>) {
        let kind = match reason {
            Some(Reason::System(Errno::EAGAIN)) => 0,
            Some(Reason::System(Errno::ENOMEM)) => 1,
            _ => 2,
        };
        self.fork_failures[kind] += 1;
    }

    /// Takes note of a death, and what processor time the child has used, if the system has told.
    pub(super) fn died(&mut self, death: &Death, pid: i32, at: SystemTime, used: Option<Duration>) {
        self.deaths.truncate(DEATHS - 1);
        self.deaths.push_front(Past { death: *death, pid, at });
        let spent = self.spent_by(death.key);
        // Never less than was shown.
        spent.former += spent.present.1.max(used.unwrap_or_default());
        spent.present = (0, Duration::ZERO);
    }

    /// Takes note of what processor time a child has used so far.
    pub(super) fn has_used(&mut self, key: Key, used: Duration) {
        let spent = self.spent_by(key);
        spent.present.1 = spent.present.1.max(used);
    }

    fn spent_by(&mut self, key: Key) -> &mut Spent {
        if self.spent.len() <= key.slot {
            self.spent.resize(key.slot + 1, Spent::default());
        }
        let spent = &mut self.spent[key.slot];
        if spent.present.0 != key.generation {
            spent.former += spent.present.1;
            spent.present = (key.generation, Duration::ZERO);
        }
        spent
    }

    /// Returns the processor time in seconds of all children that each of so many slots has had.
    pub(super) fn cpu_by_slot(&self, slots: usize) -> Vec<f64> {
        let seconds = |spent: &Spent| (spent.former + spent.present.1).as_secs_f64();
        (0..slots).map(|slot| self.spent.get(slot).map_or(0.0, seconds)).collect()
    }

    /// Returns how many connections the system has turned away since the beginning, if it has now turned away so many.
    pub(super) fn overflows(&self, now: Option<u64>) -> Option<u64> {
        Some(now?.saturating_sub(self.overflows_before?))
    }

    pub(super) fn fork_failures(&self) -> BTreeMap<String, u64> {
        ERRNOS.into_iter().map(str::to_owned).zip(self.fork_failures).collect()
    }

    pub(super) fn starts(&self) -> Histogram {
        let (buckets, sum) = &self.starts;
        Histogram::new(buckets.clone(), *sum)
    }

    pub(super) fn deaths(&self, now: SystemTime) -> Vec<view::Death> {
        let view = |past: &Past| {
            let Past { death, pid, at } = past;
            view::Death {
                reaped: When::new(epoch_ms(*at), now),
                slot: death.key.slot as u32,
                generation: death.key.generation,
                pid: *pid,
                cause: death.cause.to_string(),
                in_order: death.cause.is_in_order(),
                age: death.age.as_secs_f64(),
                requests: death.requests,
            }
        };
        self.deaths.iter().map(view).collect()
    }
}

/// How many deaths are remembered.
const DEATHS: usize = 20;

/// What fork(2) fails with on Linux, and what stands for the rest: there is a series for each of them.
const ERRNOS: [&str; 3] = ["EAGAIN", "ENOMEM", "other"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::machine::{Cause, Note};

    fn key(slot: usize, generation: u32) -> Key {
        Key { slot, generation }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn death(key: Key) -> Death {
        Death { key, cause: Cause::Signaled(9), age: ms(1500), requests: 3, note: Note::None }
    }

    #[test]
    fn last_twenty_deaths_are_remembered_the_latest_first() {
        let mut ledger = Ledger::new(None);
        let now = SystemTime::now();
        for number in 1..=25 {
            ledger.died(&death(key(7, number)), 100 + number as i32, now - ms(500), None);
        }
        let deaths = ledger.deaths(now);
        assert_eq!(deaths.len(), DEATHS);
        assert_eq!((deaths[0].pid, deaths[0].generation, deaths[19].pid), (125, 25, 106));
        assert_eq!((deaths[0].cause.as_str(), deaths[0].in_order, deaths[0].age), ("signal:SIGKILL", false, 1.5));
        assert!((0.4..0.6).contains(&deaths[0].reaped.seconds_ago));
    }

    #[test] // O-ST-05: whatever the order of deaths and readings, and whatever the system fails to tell
    fn processor_time_of_a_slot_never_goes_back() {
        crate::testing::check(|dice| {
            let mut ledger = Ledger::new(None);
            let (mut generation, mut used, mut shown) = (1, 0, 0.0);
            for _ in 0..dice.number(1..100) {
                used += dice.below(50);
                match dice.below(3) {
                    0 => ledger.has_used(key(1, generation), ms(used.saturating_sub(dice.below(10)))),
                    1 => {
                        let told = (dice.below(2) == 0).then(|| ms(used));
                        ledger.died(&death(key(1, generation)), 1, SystemTime::now(), told);
                        (generation, used) = (generation + 1, 0);
                    }
                    // The system has not told of this death.
                    _ => (generation, used) = (generation + 1, 0),
                }
                let now = ledger.cpu_by_slot(3);
                assert!(now[0] == 0.0 && now[2] == 0.0 && now[1] >= shown, "{now:?} after {shown}");
                shown = now[1];
            }
        });
    }

    #[test] // O-ST-05
    fn processor_time_of_dead_children_counts() {
        let mut ledger = Ledger::new(None);
        ledger.has_used(key(0, 1), ms(10));
        ledger.died(&death(key(0, 1)), 1, SystemTime::now(), Some(ms(30)));
        ledger.has_used(key(0, 2), ms(5));
        assert_eq!(ledger.cpu_by_slot(1), [0.035]);
    }

    #[test] // O-ST-06: a series for each errno from the beginning
    fn failed_forks_are_counted_by_errno() {
        let mut ledger = Ledger::new(None);
        assert_eq!(ledger.fork_failures().into_values().collect::<Vec<_>>(), [0, 0, 0]);
        for reason in [
            Some(Reason::System(Errno::EAGAIN)),
            Some(Reason::System(Errno::ENOMEM)),
            Some(Reason::System(Errno::ENOMEM)),
            Some(Reason::Threads),
            None,
        ] {
            ledger.fork_failed(reason);
        }
        let failures = ledger.fork_failures();
        assert_eq!((failures["EAGAIN"], failures["ENOMEM"], failures["other"]), (1, 2, 2));
    }

    #[test]
    fn starts_and_overflows_count_from_the_beginning() {
        let mut ledger = Ledger::new(Some(7));
        ledger.heard(&Message::Ready { key: key(0, 1), took: ms(3) });
        ledger.heard(&Message::Forked(key(0, 2)));
        assert_eq!((ledger.starts().count(), ledger.starts().sum), (1, 0.003));
        assert_eq!((ledger.overflows(Some(9)), ledger.overflows(None)), (Some(2), None));
        assert_eq!(Ledger::new(None).overflows(Some(9)), None);
    }
}

//! The answers that a resolver keeps.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::ResolveError;
use crate::kernel::{Due, nanos};

/// A question: a host in lower case, and a port.
pub(super) type Key = (String, u16);

pub(super) type Outcome = Result<Vec<SocketAddr>, ResolveError>;

/// The answers, up to a number, each kept for a fixed time.
pub(super) struct Cache {
    size: usize,
    /// How long addresses are kept, and how long failures.
    spans: (Duration, Duration),
    answers: FxHashMap<Key, Kept>,
    /// The questions in the order in which they were kept, with their numbers. A question may occur again with a later
    /// number.
    order: VecDeque<(u64, Key)>,
    next: u64,
}

struct Kept {
    number: u64,
    until: Due,
    outcome: Outcome,
}

impl Cache {
    pub(super) fn new(size: usize, spans: (Duration, Duration)) -> Cache {
        Cache { size, spans, answers: FxHashMap::default(), order: VecDeque::new(), next: 0 }
    }

    /// Returns an answer that is still valid.
    pub(super) fn get(&mut self, key: &Key, now: Due) -> Option<Outcome> {
        let kept = self.answers.get(key)?;
        if now < kept.until {
            return Some(kept.outcome.clone());
        }
        self.answers.remove(key);
        None
    }

    /// Keeps an answer. A failure of the helper is not kept, because it says nothing about the name.
    pub(super) fn put(&mut self, key: &Key, outcome: &Outcome, now: Due) {
        let span = match outcome {
            Ok(_) => self.spans.0,
            Err(ResolveError::Failed { .. }) => self.spans.1,
            Err(_) => return,
        };
        if span.is_zero() || self.size == 0 {
            return;
        }
        let (number, until) = (self.next, now.saturating_add(nanos(span)));
        self.next += 1;
        self.answers.insert(key.clone(), Kept { number, until, outcome: outcome.clone() });
        self.order.push_back((number, key.clone()));
        self.make_room();
    }

    pub(super) fn clear(&mut self) {
        self.answers.clear();
        self.order.clear();
    }

    /// Drops the oldest answers, and entries of the order whose answers are gone.
    fn make_room(&mut self) {
        while self.answers.len() > self.size || self.order.len() > 2 * self.size {
            let Some((number, key)) = self.order.pop_front() else { return };
            if self.answers.get(&key).is_some_and(|kept| kept.number == number) {
                self.answers.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPANS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(5));

    fn key(host: &str) -> Key {
        (host.to_owned(), 80)
    }

    fn found() -> Outcome {
        Ok(vec![([127, 0, 0, 1], 80).into()])
    }

    fn failed() -> Outcome {
        Err(ResolveError::Failed { host: "none".to_owned(), errno: 0, reason: "no such name".to_owned() })
    }

    fn at(seconds: u64) -> Due {
        nanos(Duration::from_secs(seconds))
    }

    #[test]
    fn failure_is_kept_for_a_shorter_time_than_addresses() {
        let mut cache = Cache::new(10, SPANS);
        cache.put(&key("some"), &found(), at(1));
        cache.put(&key("none"), &failed(), at(1));
        assert_eq!((cache.get(&key("some"), at(5)), cache.get(&key("none"), at(5))), (Some(found()), Some(failed())));
        assert_eq!((cache.get(&key("some"), at(6)), cache.get(&key("none"), at(6))), (Some(found()), None));
        assert_eq!(cache.get(&key("some"), at(60)), Some(found()));
        assert_eq!(cache.get(&key("some"), at(61)), None);
        assert_eq!(cache.get(&("some".to_owned(), 81), at(5)), None);
    }

    #[test]
    fn timeout_is_not_kept() {
        let mut cache = Cache::new(10, SPANS);
        let late = Err(ResolveError::TimedOut { host: "late".to_owned(), limit: Duration::from_secs(1) });
        cache.put(&key("late"), &late, at(1));
        assert_eq!(cache.get(&key("late"), at(1)), None);
    }

    #[test]
    fn oldest_answers_go_when_the_cache_is_full() {
        let mut cache = Cache::new(2, SPANS);
        for host in ["a", "b", "a", "c"] {
            cache.put(&key(host), &found(), at(1));
        }
        let kept = ["a", "b", "c"].map(|host| cache.get(&key(host), at(2)).is_some());
        assert_eq!(kept, [true, false, true], "the answer for a was renewed");
        for _ in 0..100 {
            cache.put(&key("a"), &found(), at(1));
        }
        assert!(cache.order.len() <= 4 && cache.get(&key("a"), at(2)).is_some());
        cache.clear();
        assert_eq!(cache.get(&key("a"), at(2)), None);
    }

    #[test]
    fn cache_without_room_or_time_keeps_nothing() {
        for (size, spans) in [(0, SPANS), (10, (Duration::ZERO, Duration::ZERO))] {
            let mut cache = Cache::new(size, spans);
            cache.put(&key("some"), &found(), at(1));
            cache.put(&key("none"), &failed(), at(1));
            assert!(cache.answers.is_empty() && cache.order.is_empty());
        }
    }
}

//! How fast the parent accepts clients of the control socket, so that a flood of them takes little of its time. The others wait in the
//! listener's queue.

use std::time::{Duration, Instant};

/// Says when the parent may accept: [`BURST`] clients at once, and one client each [`EACH`] in the long run.
#[derive(Debug)]
pub(in crate::daemon) struct Pace {
    /// The time by which the accepted clients, one each [`EACH`], are paid for.
    paid: Instant,
}

impl Pace {
    pub(in crate::daemon) fn new(now: Instant) -> Pace {
        Pace { paid: now }
    }

    /// Returns how long the parent must not accept, if too many clients have connected. After that time it may accept [`BATCH`] clients.
    pub(in crate::daemon) fn pause(&self, now: Instant) -> Option<Duration> {
        let owed = self.paid.saturating_duration_since(now);
        (owed > EACH * (BURST - 1)).then(|| owed - EACH * (BURST - BATCH))
    }

    /// The parent has accepted a client.
    pub(in crate::daemon) fn count(&mut self, now: Instant) {
        self.paid = self.paid.max(now) + EACH;
    }
}

/// A warning that the log has once a [`MINUTE`] at most, however often its reason comes and goes.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Seldom {
    last: Option<Instant>,
}

impl Seldom {
    /// Returns whether the log is to be told now.
    pub(in crate::daemon) fn tells(&mut self, now: Instant) -> bool {
        let is_due = self.last.is_none_or(|last| now.saturating_duration_since(last) >= MINUTE);
        if is_due {
            self.last = Some(now);
        }
        is_due
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// How many clients the parent accepts at once: as many as the listener's queue holds.
const BURST: u32 = 64;

/// How many clients the parent accepts together after a pause, so that a flood wakes it seldom.
const BATCH: u32 = 16;

/// The time for one client: 500 a second.
const EACH: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn let_in_all(pace: &mut Pace, now: Instant) -> (u32, Duration) {
        let mut count = 0;
        loop {
            if let Some(pause) = pace.pause(now) {
                return (count, pause);
            }
            pace.count(now);
            count += 1;
            assert!(count <= BURST);
        }
    }

    #[test]
    fn burst_is_let_in_and_then_batch_after_batch() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let (count, mut pause) = let_in_all(&mut pace, now);
        assert_eq!(count, BURST);
        let (begin, mut count) = (now, 0);
        while now - begin < Duration::from_secs(10) {
            now += pause;
            let (more, next) = let_in_all(&mut pace, now);
            assert_eq!(more, BATCH);
            (count, pause) = (count + more, next);
        }
        assert!((4990..=5010).contains(&count), "{count}");
    }

    #[test]
    fn burst_is_let_in_again_after_a_rest() {
        let begin = Instant::now();
        let mut pace = Pace::new(begin);
        let_in_all(&mut pace, begin);
        let later = begin + EACH * BURST;
        assert_eq!(let_in_all(&mut pace, later).0, BURST);
    }

    #[test]
    fn reason_that_comes_and_goes_is_told_once_a_minute() {
        let begin = Instant::now();
        let mut warning = Seldom::default();
        let told: Vec<u64> = (0..180).filter(|second| warning.tells(begin + Duration::from_secs(*second))).collect();
        assert_eq!(told, [0, 60, 120]);
    }

    #[test]
    fn clients_that_come_slowly_never_wait() {
        let begin = Instant::now();
        let mut pace = Pace::new(begin);
        for number in 0..10_000 {
            let now = begin + EACH * number;
            assert_eq!(pace.pause(now), None);
            pace.count(now);
        }
    }
}

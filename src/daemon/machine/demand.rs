//! How many children the clients ask for that wait in the listeners' queues.

use std::fmt;
use std::time::Duration;

use super::Counts;

/// How many children the clients in the queues need, with the numbers that the parent has worked it out from.
///
/// The last client in the queue waits for about `waiting * service / children`. If that is at most `within`, no child is forked for
/// the queue. Otherwise enough children are forked to finish all waiting and running requests within that time.
///
/// POE: nothing like it. POE counts waiting children only.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Reckoning {
    /// How many clients waited to be accepted.
    pub waiting: u32,
    /// How many children were busy.
    pub busy: u32,
    /// How many children were busy, idle or starting.
    pub children: u32,
    /// How long a request takes. Zero while that is not known.
    pub service: Duration,
    /// How long a child takes from its fork to its first `Wait`. Zero before the first child was ready.
    pub start: Duration,
    /// How long a client may wait: `wait_target`, or `start` if that is longer.
    pub within: Duration,
    /// How many children were missing.
    pub missing: u32,
}

impl Reckoning {
    /// Works out how many children are missing when `waiting` clients wait.
    ///
    /// A child that is starting counts as present: it was forked for a client that already waits.
    pub fn new(counts: Counts, waiting: u32, service: Duration, start: Duration, target: Duration) -> Reckoning {
        let Counts { busy, starting, idle, .. } = counts;
        let children = busy.saturating_add(starting).saturating_add(idle);
        let within = target.max(start);
        let (q, n, b) = (u128::from(waiting), u128::from(children), u128::from(busy));
        let (s, d) = (service.as_nanos(), within.as_nanos().max(1));
        let missing = if q * s <= d * n {
            0
        } else {
            let needed = ((q + b) * s).div_ceil(d).saturating_sub(n);
            u32::try_from(needed).unwrap_or(u32::MAX).min(waiting.saturating_sub(starting))
        };
        Reckoning { waiting, busy, children, service, start, within, missing }
    }
}

impl fmt::Display for Reckoning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reckoning { waiting, busy, children, service, start, within, missing } = *self;
        let [service, start, within] = [service, start, within].map(|span| span.as_secs_f64());
        write!(
            f,
            "waiting={waiting} busy={busy} children={children} service={service:.4} start={start:.4} within={within:.4} missing={missing}"
        )
    }
}

/// How long a request takes, as far as the parent can tell: it sees how many children are busy, and how many requests were begun.
///
/// A request that never ends must count as a long one, though it is never finished. So while no child is idle, the parent adds up
/// the time for which children were busy. It divides that by the number of requests finished meanwhile, or by one. It compares the
/// result with the mean of the requests finished before. Each request replaces an eighth of that mean.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServiceTime {
    finished: Option<Duration>,
    spell: Option<Spell>,
}

/// The time since no child has been idle.
#[derive(Clone, Copy, Debug)]
struct Spell {
    /// When it was last looked at, and how many children were busy and how many requests had been begun then.
    at: Duration,
    busy: u32,
    begun: u64,
    /// For how long children were busy in it, all together; and that part of it after which none was finished.
    total: Duration,
    unfinished: Duration,
    /// How many requests were finished in it.
    done: u64,
}

impl ServiceTime {
    /// Takes note that at `now` no child is idle, so many are `busy`, and all children together have `begun` so many requests.
    pub fn look(&mut self, now: Duration, busy: u32, begun: u64) {
        let Some(spell) = &mut self.spell else {
            let (total, unfinished) = (Duration::ZERO, Duration::ZERO);
            self.spell = Some(Spell { at: now, busy, begun, total, unfinished, done: 0 });
            return;
        };
        let span = now.saturating_sub(spell.at);
        let worked = span.saturating_mul(spell.busy.saturating_add(busy)) / 2;
        spell.total = spell.total.saturating_add(worked);
        spell.unfinished = spell.unfinished.saturating_add(worked);
        // What was begun and is not in hand is finished.
        let gone = i128::from(begun) - i128::from(spell.begun) - i128::from(busy) + i128::from(spell.busy);
        let done = u64::try_from(gone).unwrap_or(0);
        (spell.at, spell.busy, spell.begun) = (now.max(spell.at), busy, begun.max(spell.begun));
        if done == 0 {
            return;
        }
        spell.done += done;
        let mean = div(std::mem::take(&mut spell.unfinished), done);
        let kept = 0.875_f64.powi(done.min(1000) as i32);
        self.finished = Some(self.finished.map_or(mean, |before| mean.mul_f64(1.0 - kept) + before.mul_f64(kept)));
    }

    /// Takes note that a child is idle.
    pub fn someone_is_idle(&mut self) {
        self.spell = None;
    }

    /// Returns how long a request takes; zero while nothing is known.
    pub fn estimate(&self) -> Duration {
        let censored = self.spell.map_or(Duration::ZERO, |spell| div(spell.total, spell.done.max(1)));
        censored.max(self.finished.unwrap_or_default())
    }
}

fn div(span: Duration, by: u64) -> Duration {
    Duration::from_nanos(u64::try_from(span.as_nanos() / u128::from(by.max(1))).unwrap_or(u64::MAX))
}

/// How long a child takes from its fork to its first `Wait`: a mean of which each child replaces a quarter.
#[derive(Clone, Copy, Debug, Default)]
pub struct StartTime(Option<Duration>);

impl StartTime {
    /// Takes note of a child that took so long.
    pub fn measured(&mut self, took: Duration) {
        self.0 = Some(self.0.map_or(took, |before| (before.saturating_mul(3).saturating_add(took)) / 4));
    }

    /// Returns it; zero before the first child was ready.
    pub fn estimate(&self) -> Duration {
        self.0.unwrap_or_default()
    }
}

/// Keeps the children of a pool for a while after clients in the queue have asked for more: they come in waves.
///
/// While it lasts, no spare is retired. It ends when there have been more spares than `max_spare` for its whole length, or up to
/// twice as long. The parent looks at most once in that time whether the spares were needed. So a pool just above `max_spare` does
/// not wake its parent for each request. A pool that stays below `max_spare` does not wake its parent at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hold(Option<Spares>);

#[derive(Clone, Copy, Debug)]
enum Spares {
    /// They were needed; to be looked at again then.
    Needed { until: Duration },
    /// There are no more than `max_spare`. A child that makes them more rings.
    Few,
    /// They have not been needed since then.
    Surplus { since: Duration },
}

/// What a [`Hold`] makes of a pool's limits.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Held {
    /// No spare is retired.
    pub is_on: bool,
    /// A child that leaves fewer idle than this has to ring; 0 for never.
    pub low: u32,
    /// When to look again.
    pub next: Option<Duration>,
}

impl Hold {
    /// Takes note that children are forked at `now` because clients wait, `by` so many, which are to stay for `hold`.
    pub fn grown(&mut self, now: Duration, by: u32, hold: Duration) {
        if by > 0 && !hold.is_zero() {
            self.0 = Some(Spares::Needed { until: now.saturating_add(hold) });
        }
    }

    /// Looks at a pool at `now`, and says what it may keep.
    pub fn review(&mut self, now: Duration, counts: Counts, max_spare: u32, hold: Duration) -> Held {
        let Some(state) = self.0 else { return Held::default() };
        let is_surplus = counts.spares() > max_spare;
        let state = match state {
            Spares::Needed { until } if now < until => Spares::Needed { until },
            Spares::Surplus { since } if is_surplus && now >= since.saturating_add(hold) => {
                *self = Hold::default();
                return Held::default();
            }
            Spares::Surplus { since } if is_surplus => Spares::Surplus { since },
            Spares::Needed { .. } | Spares::Few if is_surplus => Spares::Surplus { since: now },
            Spares::Needed { .. } | Spares::Few => Spares::Few,
            Spares::Surplus { .. } => Spares::Needed { until: now.saturating_add(hold) },
        };
        self.0 = Some(state);
        let (low, next) = match state {
            Spares::Needed { until } => (0, until),
            // There is nothing to retire.
            Spares::Few => return Held::default(),
            Spares::Surplus { since } => {
                (max_spare.saturating_add(1).saturating_sub(counts.starting), since.saturating_add(hold))
            }
        };
        Held { is_on: true, low, next: Some(next.saturating_sub(now)) }
    }
}

/// The time for which children are kept that clients have asked for, unless it is set.
pub fn default_hold(start: Duration) -> Duration {
    start.saturating_mul(10).max(Duration::from_secs(10))
}

/// Returns how many of `retire` idle children may go while `waiting` clients wait: those that are about to accept them stay.
pub fn may_retire(retire: u32, waiting: u32) -> u32 {
    retire.saturating_sub(waiting)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::check;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn counts(busy: u32, starting: u32, idle: u32) -> Counts {
        Counts { children: busy + starting + idle, busy, starting, idle, retiring: 0 }
    }

    fn missing(counts: Counts, waiting: u32, service: u64, start: u64) -> u32 {
        Reckoning::new(counts, waiting, ms(service), ms(start), ms(20)).missing
    }

    #[test] // O-DM-01: who hold their child are given one each
    fn clients_that_hold_are_given_a_child_each() {
        assert_eq!(missing(counts(2, 0, 0), 58, 1000, 5), 58);
        // Those that are starting are for some of them.
        assert_eq!(missing(counts(2, 20, 0), 58, 1000, 5), 38);
        assert_eq!(missing(counts(2, 58, 0), 58, 1000, 5), 0);
        assert_eq!(missing(counts(2, 70, 0), 58, 1000, 5), 0);
    }

    #[test] // O-DM-02: as many as clear the work in the time that a client may wait
    fn short_requests_are_given_as_many_children_as_clear_them_in_time() {
        assert_eq!(missing(counts(4, 0, 0), 76, 1, 5), 0);
        assert_eq!(missing(counts(4, 0, 0), 80, 1, 5), 0, "20 ms, which is just in time");
        assert_eq!(missing(counts(4, 0, 0), 96, 1, 5), 1, "100 ms of work in 20 ms");
        assert_eq!(missing(counts(4, 0, 0), 996, 1, 5), 46);
        // Children that take longer to come than a client may wait are forked for what they can be in time for.
        assert_eq!(missing(counts(4, 0, 0), 996, 1, 100), 6);
    }

    #[test] // O-DM-02, O-DM-03
    fn nothing_is_missing_while_nothing_is_known_or_nobody_waits() {
        assert_eq!(missing(counts(0, 0, 0), 0, 1000, 5), 0);
        assert_eq!(missing(counts(5, 0, 0), 0, 1000, 5), 0);
        assert_eq!(missing(counts(5, 0, 0), 50, 0, 0), 0);
        let zero = Reckoning::new(counts(1, 0, 0), 3, ms(1), ms(0), ms(0));
        assert_eq!(zero.missing, 3, "no time at all is as little as can be");
    }

    #[test] // O-DM-02, O-DM-03: never more than wait, and enough for what waits
    fn what_is_missing_is_bounded_by_the_queue_and_clears_it() {
        check(|dice| {
            let counts = counts(dice.number(0..50), dice.number(0..50), dice.number(0..3));
            let (waiting, service, start) = (dice.number(0..200), dice.below(5000), dice.below(50));
            let told = Reckoning::new(counts, waiting, Duration::from_micros(service), ms(start), ms(20));
            assert!(told.missing <= waiting.saturating_sub(counts.starting));
            let work = u64::from(waiting) * service;
            let time = u64::try_from(told.within.as_micros()).unwrap();
            assert_eq!(told.children, counts.busy + counts.starting + counts.idle);
            if work <= time * u64::from(told.children) {
                assert_eq!(told.missing, 0);
            }
            // All that waits is done in time, or has a child of its own.
            let then = u64::from(told.children + told.missing);
            assert!(work <= time * then || told.missing + counts.starting >= waiting);
            // One more does not help if one less does.
            if told.missing > 0 && u64::from(told.missing) < u64::from(waiting - counts.starting) {
                assert!((u64::from(waiting) + u64::from(counts.busy)) * service > time * (then - 1));
            }
        });
    }

    #[test] // O-DM-01: the right-censored mean
    fn requests_that_never_end_count_as_long_by_themselves() {
        let mut time = ServiceTime::default();
        assert_eq!(time.estimate(), ms(0));
        time.look(ms(0), 2, 2);
        time.look(ms(5), 2, 2);
        assert_eq!(time.estimate(), ms(10));
        // A new child that is busy makes it no shorter.
        time.look(ms(10), 4, 4);
        assert_eq!(time.estimate(), ms(25));
        time.someone_is_idle();
        assert_eq!(time.estimate(), ms(0), "nothing was finished");
    }

    #[test] // O-DM-02
    fn short_requests_are_known_from_the_first_look() {
        let mut time = ServiceTime::default();
        time.look(ms(100), 4, 4);
        time.look(ms(105), 4, 24);
        assert_eq!(time.estimate(), ms(1));
        time.someone_is_idle();
        assert_eq!(time.estimate(), ms(1), "what was finished is remembered");
        // And forgotten when enough others have taken longer, or less time.
        time.look(ms(200), 4, 30);
        time.look(ms(300), 4, 70);
        time.someone_is_idle();
        assert!(time.estimate() > ms(9), "{:?}", time.estimate());
        time.look(ms(400), 4, 80);
        time.look(ms(410), 4, 120);
        time.someone_is_idle();
        assert!(time.estimate() < ms(2), "{:?}", time.estimate());
    }

    #[test] // O-DM-02: against requests of which all is known
    fn estimate_is_near_the_mean_of_what_was_finished() {
        check(|dice| {
            let (children, service) = (dice.number(1..20), 1 + dice.below(50));
            let mut time = ServiceTime::default();
            let mut begun = u64::from(children);
            let mut ends: Vec<u64> = (0..children).map(|_| 1 + dice.below(service)).collect();
            for now in 0..=service * 10 {
                for end in ends.iter_mut().filter(|end| **end <= now) {
                    *end = now + service;
                    begun += 1;
                }
                if now % 5 == 0 {
                    time.look(ms(now), children, begun);
                }
            }
            let (least, most) = (ms(service) * 3 / 5, ms(service) * 3 + ms(5));
            let told = time.estimate();
            assert!(told >= least && told <= most, "{told:?} of {service} ms");
        });
    }

    #[test] // O-DM-12
    fn start_time_follows_what_is_measured() {
        let mut start = StartTime::default();
        assert_eq!(start.estimate(), ms(0));
        start.measured(ms(100));
        assert_eq!(start.estimate(), ms(100));
        for _ in 0..30 {
            start.measured(ms(2));
        }
        assert!(start.estimate() < ms(3));
    }

    #[test] // O-DM-05: ten times as long as a child takes to start, and ten seconds at least
    fn hold_is_long_for_children_that_start_slowly() {
        assert_eq!(default_hold(ms(5)), ms(10_000));
        assert_eq!(default_hold(ms(3000)), ms(30_000));
        assert_eq!(default_hold(Duration::MAX), Duration::MAX);
    }

    /// A pool of which all children are busy at times.
    struct Wave {
        hold: Hold,
        children: u32,
        forked: u32,
        retired: u32,
    }

    impl Wave {
        const MIN_SPARE: u32 = 2;
        const MAX_SPARE: u32 = 4;

        /// `clients` at `now`; what is missing is made up for at once.
        fn look(&mut self, now: u64, clients: u32, hold: Duration) {
            let wanted = clients + Wave::MIN_SPARE;
            if wanted > self.children {
                let fork = wanted - self.children;
                self.hold.grown(ms(now), fork, hold);
                (self.children, self.forked) = (self.children + fork, self.forked + fork);
            }
            let held = self.hold.review(ms(now), counts(clients, 0, self.children - clients), Wave::MAX_SPARE, hold);
            let surplus = if held.is_on { 0 } else { (self.children - clients).saturating_sub(Wave::MAX_SPARE) };
            (self.children, self.retired) = (self.children - surplus, self.retired + surplus);
        }
    }

    #[test] // O-DM-05: a square wave forks in its first period only, and nothing is retired before its time
    fn square_wave_forks_nothing_after_its_second_period() {
        for (period, clients) in [(2000, 50), (4000, 50), (9000, 10), (15_000, 50)] {
            let mut wave = Wave { hold: Hold::default(), children: 4, forked: 0, retired: 0 };
            let mut after_second = 0;
            for now in (0..period * 20).step_by(100) {
                if now == period * 2 {
                    after_second = wave.forked;
                }
                wave.look(now, if now % period < period / 2 { clients } else { 0 }, ms(10_000));
            }
            assert_eq!(wave.forked, after_second, "period {period}");
            assert_eq!(wave.retired, 0);
            let end = period * 20;
            for now in (end..end + 30_000).step_by(100) {
                assert_eq!(wave.retired > 0, wave.children == Wave::MAX_SPARE);
                wave.look(now, 0, ms(10_000));
            }
            assert_eq!(wave.children, Wave::MAX_SPARE, "it ends");
        }
    }

    #[test] // O-DM-05
    fn hold_of_no_length_holds_nothing() {
        let mut wave = Wave { hold: Hold::default(), children: 4, forked: 0, retired: 0 };
        wave.look(0, 50, ms(0));
        for now in 1..4 {
            wave.look(now, 0, ms(0));
        }
        assert_eq!(wave.children, Wave::MAX_SPARE);
    }

    #[test] // O-DM-04, O-DM-05: one ring and one look for each hold, however often the pool crosses its limit
    fn pool_at_its_limit_is_looked_at_once_for_each_hold() {
        let mut hold = Hold::default();
        hold.grown(ms(0), 10, ms(1000));
        assert_eq!(
            hold.review(ms(0), counts(0, 0, 12), 4, ms(1000)),
            Held { is_on: true, low: 0, next: Some(ms(1000)) }
        );
        assert_eq!(hold.review(ms(500), counts(0, 0, 12), 4, ms(1000)).next, Some(ms(500)));
        assert_eq!(
            hold.review(ms(1000), counts(0, 0, 12), 4, ms(1000)),
            Held { is_on: true, low: 5, next: Some(ms(1000)) }
        );
        assert_eq!(
            hold.review(ms(1100), counts(8, 1, 3), 4, ms(1000)),
            Held { is_on: true, low: 0, next: Some(ms(1000)) }
        );
        assert_eq!(
            hold.review(ms(1200), counts(0, 0, 12), 4, ms(1000)),
            Held { is_on: true, low: 0, next: Some(ms(900)) }
        );
        assert_eq!(hold.review(ms(2100), counts(0, 0, 12), 4, ms(1000)).low, 5);
        assert_eq!(hold.review(ms(3100), counts(0, 0, 12), 4, ms(1000)), Held::default());
    }

    #[test] // O-DM-04, O-DM-05: no clock runs while nothing can be retired, and spares are kept all the same
    fn pool_below_its_limit_is_not_looked_at() {
        let mut hold = Hold::default();
        hold.grown(ms(0), 10, ms(1000));
        assert_eq!(hold.review(ms(500), counts(12, 0, 0), 4, ms(1000)).next, Some(ms(500)));
        assert_eq!(hold.review(ms(1000), counts(12, 0, 0), 4, ms(1000)), Held::default());
        assert_eq!(hold.review(ms(9000), counts(8, 0, 4), 4, ms(1000)), Held::default());
        // The fifth has rung.
        let held = Held { is_on: true, low: 5, next: Some(ms(1000)) };
        assert_eq!(hold.review(ms(9500), counts(7, 0, 5), 4, ms(1000)), held);
        assert!(hold.review(ms(10_000), counts(0, 0, 12), 4, ms(1000)).is_on);
        assert_eq!(hold.review(ms(10_500), counts(0, 0, 12), 4, ms(1000)), Held::default());
    }

    #[test] // O-DM-11
    fn children_stay_for_clients_that_wait() {
        assert_eq!(
            [may_retire(1, 1), may_retire(3, 1), may_retire(3, 0), may_retire(3, 9), may_retire(0, 9)],
            [0, 2, 3, 0, 0]
        );
    }
}

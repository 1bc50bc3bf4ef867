//! How many children may be starting at once, and how fast children that died before they were ready are replaced.

use std::time::Duration;

use super::TokenBucket;

/// Rations the forks of a pre-forking pool after its first children.
///
/// A limit of forks a second can't tell a crowd of clients from children that crash. So there are two limits:
///
/// - At most a window of children may be *starting*, forked and not ready yet. A child that becomes ready leaves its place to
///   the next one. It also opens the window by one more place, up to [`WINDOW`]. A child that dies before it was ready
///   halves the window. TCP does the same with segments.
/// - Replacements of children that died before they were ready: a burst at once, then so many a second.
///
/// The second limit never slows a pool whose children start well. The first limit slows it only as far as its children are
/// slow to start. Times count from a start of the caller's choosing.
///
/// POE: nothing like it.
#[derive(Clone, Debug)]
pub struct Budget {
    /// How many children may be starting at once, 1 to [`WINDOW`].
    window: u32,
    /// How many children have died before they were ready and were not replaced yet, as far as they are missed.
    unreplaced: u32,
    /// What rations their replacements.
    replacements: TokenBucket,
}

impl Budget {
    /// Makes a budget that replaces `burst` children at once that died before they were ready, then `per_second`.
    pub fn new(burst: u32, per_second: u32) -> Budget {
        Budget { window: WINDOW, unreplaced: 0, replacements: TokenBucket::new(burst, per_second) }
    }

    /// Takes note of children that have reported for the first time that they wait.
    pub fn are_ready(&mut self, children: u32) {
        self.window = self.window.saturating_add(children).min(WINDOW);
    }

    /// Takes note of a child that has died before it was ready.
    pub fn died_early(&mut self) {
        self.window = (self.window / 2).max(1);
        self.unreplaced = self.unreplaced.saturating_add(1);
    }

    /// Returns how many of the `wanted` children may be forked at `now`, while so many are `starting`. The caller forks them.
    ///
    /// Replacements of early deaths come first. A death after which fewer children are wanted is not replaced, and
    /// forgotten.
    pub fn grant(&mut self, now: Duration, wanted: u32, starting: u32) -> u32 {
        self.unreplaced = self.unreplaced.min(wanted);
        let room = wanted.min(self.window.saturating_sub(starting));
        let due = room.min(self.unreplaced);
        let replaced = self.replacements.take(now, due);
        self.unreplaced -= replaced;
        if replaced < due { replaced } else { room }
    }

    /// Returns how long after `now` a fork can be granted if the window is open. Zero, unless replacements of early deaths are
    /// rationed. `None` for never.
    pub fn ready_in(&self, now: Duration) -> Option<Duration> {
        if self.unreplaced == 0 { Some(Duration::ZERO) } else { self.replacements.ready_in(now) }
    }
}

/// The most children that are starting at once, but for the first ones.
const WINDOW: u32 = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::check;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test] // O-DM-03, D-PF-09: no clock slows a pool whose children come up
    fn children_that_come_up_are_limited_by_the_window_alone() {
        let mut budget = Budget::new(1, 1);
        assert_eq!(budget.grant(ms(0), 1000, 0), 32);
        assert_eq!(budget.grant(ms(0), 968, 32), 0);
        for _ in 0..100 {
            budget.are_ready(10);
            assert_eq!(budget.grant(ms(0), 100, 22), 10);
        }
        assert_eq!(budget.window, 32);
        assert_eq!(budget.ready_in(ms(0)), Some(Duration::ZERO));
    }

    #[test] // O-DM-03: halved by each death before ready, opened by each report
    fn early_deaths_halve_the_window_and_reports_open_it() {
        let mut budget = Budget::new(100, 1);
        let mut seen = Vec::new();
        for _ in 0..6 {
            budget.died_early();
            seen.push(budget.window);
        }
        assert_eq!(seen, [16, 8, 4, 2, 1, 1]);
        assert_eq!(budget.grant(ms(0), 50, 0), 1);
        budget.are_ready(1);
        assert_eq!(budget.grant(ms(0), 49, 0), 2);
        budget.are_ready(2);
        assert_eq!(budget.grant(ms(0), 47, 0), 4);
        budget.are_ready(100);
        assert_eq!(budget.window, WINDOW);
    }

    #[test] // O-DM-03: at most the burst and the rate, and replacements come first
    fn early_deaths_are_replaced_by_burst_and_rate() {
        let mut budget = Budget::new(2, 10);
        for _ in 0..3 {
            budget.died_early();
        }
        budget.are_ready(WINDOW);
        assert_eq!(budget.grant(ms(0), 10, 0), 2, "the burst; what is wanted besides waits behind the third");
        assert_eq!(budget.ready_in(ms(0)), Some(ms(100)));
        assert_eq!(budget.grant(ms(99), 8, 0), 0);
        assert_eq!(budget.grant(ms(100), 8, 0), 8);
        assert_eq!(budget.ready_in(ms(100)), Some(Duration::ZERO));
        // Nobody misses the fourth: those that are forked later replace nothing.
        budget.died_early();
        assert_eq!(budget.grant(ms(100), 0, 0), 0);
        budget.are_ready(WINDOW);
        assert_eq!(budget.grant(ms(100), 5, 0), 5);
    }

    /// What [`Budget`] does, with a list of what was granted when in place of the bucket.
    struct Model {
        window: u32,
        unreplaced: u32,
        /// When a replacement was granted.
        replaced_at: Vec<u64>,
        burst: u64,
        per_second: u64,
    }

    impl Model {
        /// Whether one more replacement at `now` ms keeps to the burst and the rate over every span that ends now.
        fn may_replace(&self, now: u64) -> bool {
            let mut granted = 1;
            let fits = |since: u64, granted: u64| granted * 1000 <= self.burst * 1000 + (now - since) * self.per_second;
            self.burst > 0
                && self.replaced_at.iter().rev().all(|&since| {
                    granted += 1;
                    fits(since, granted)
                })
        }

        fn grant(&mut self, now: u64, wanted: u32, starting: u32) -> u32 {
            self.unreplaced = self.unreplaced.min(wanted);
            let mut granted = 0;
            while granted < wanted && starting + granted < self.window {
                if self.unreplaced > 0 {
                    if !self.may_replace(now) {
                        break;
                    }
                    self.replaced_at.push(now);
                    self.unreplaced -= 1;
                }
                granted += 1;
            }
            granted
        }
    }

    #[test] // O-DM-03: whatever children do, against a model that remembers every fork
    fn budget_grants_what_a_naive_model_grants() {
        check(|dice| {
            let (burst, per_second) = (dice.number(1..6), dice.number(1..300));
            let mut budget = Budget::new(burst, per_second);
            let mut model = Model {
                window: WINDOW,
                unreplaced: 0,
                replaced_at: Vec::new(),
                burst: burst.into(),
                per_second: per_second.into(),
            };
            let (mut now, mut starting) = (0, 0_u32);
            for (kind, number, pause) in dice.list(80, |dice| (dice.below(4), dice.number(0..40), dice.below(40))) {
                match kind {
                    0 => {
                        let ready = number.min(starting);
                        starting -= ready;
                        budget.are_ready(ready);
                        model.window = (model.window + ready).min(WINDOW);
                    }
                    1 if starting > 0 => {
                        starting -= 1;
                        budget.died_early();
                        model.window = (model.window / 2).max(1);
                        model.unreplaced += 1;
                    }
                    _ => {
                        now += pause;
                        let granted = budget.grant(ms(now), number, starting);
                        assert_eq!(granted, model.grant(now, number, starting));
                        assert!(granted <= number);
                        assert!(granted == 0 || starting + granted <= budget.window);
                        starting += granted;
                    }
                }
                assert!((1..=WINDOW).contains(&budget.window));
            }
        });
    }

    #[test] // O-DM-03: a pool of which every child dies before it is ready
    fn pool_whose_children_all_die_early_forks_by_burst_and_rate() {
        check(|dice| {
            let (burst, per_second) = (dice.number(1..40), dice.number(1..100));
            let size = dice.number(1..60);
            let mut budget = Budget::new(burst, per_second);
            let mut forked = 0;
            let mut missing = size;
            for step in 0..400 {
                let now = ms(step * 10);
                let granted = budget.grant(now, missing, size - missing);
                forked += granted;
                missing -= granted;
                // All at once, in the same turn.
                for _ in 0..size - missing {
                    budget.died_early();
                }
                missing = size;
                let replacements = u64::from(burst) + step * 10 * u64::from(per_second) / 1000;
                // What replaces nobody: the pool itself, as it came to be.
                assert!(u64::from(forked) <= u64::from(size) + replacements + 1, "{forked} after {now:?}");
            }
        });
    }
}

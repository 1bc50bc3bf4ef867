//! How many spares a pre-forking pool makes at a time when it is short of them.

use super::{Counts, Limits};

/// Doubles what is forked while demand lasts.
///
/// A pool that keeps two spares would take thirty steps to grow by sixty children. Each step takes as long as it takes to fork a
/// child and have it accept. So when clients have taken up all spares, the next such shortage is answered with twice as many
/// spares, up to `max_spare`.
///
/// There is no clock in it. If most of the last children wait, demand has been met. If fewer of them wait, demand may have been met
/// as well, and the caller begins anew after some time.
///
/// POE: nothing like it; it forks one child a second.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Growth {
    /// How many spares the pool was last given at once while all were taken up; 0 when demand has been met since.
    last: u32,
}

impl Growth {
    /// Returns how many spares there should be, and what is to be remembered once that many are on their way. There is `room`
    /// for so many children more.
    ///
    /// The first answer to a shortage is `min_spare`. So is any answer while some children are idle, or most of those wanted are
    /// starting. It is not known then how many more will be needed.
    pub(super) fn next(self, counts: Counts, limits: Limits, room: u32) -> (u32, Growth) {
        let Limits { min_spare, max_spare, .. } = limits;
        if self.is_met(counts, limits) {
            return (min_spare, Growth::default());
        }
        let all_taken_up = counts.idle == 0 && counts.starting <= min_spare / 2;
        if !all_taken_up {
            return (min_spare, self);
        }
        let wanted = self.last.saturating_mul(2).clamp(min_spare, max_spare.max(min_spare));
        (wanted, Growth { last: wanted.min(counts.spares().saturating_add(room)) })
    }

    /// Tells whether more than half of what was last forked has found nothing to do.
    ///
    /// One idle child says nothing: it has just come, and may be about to accept.
    fn is_met(self, counts: Counts, limits: Limits) -> bool {
        counts.idle > 1 && counts.idle >= limits.min_spare && counts.idle > self.last / 2
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::spares::PreForkDecision;
    use super::super::{Phase, prefork};
    use super::*;
    use crate::testing::{Dice, check};

    pub fn any_growth(dice: &mut Dice) -> Growth {
        Growth { last: dice.number(0..40) }
    }

    const LIMITS: Limits = Limits { min_spare: 2, max_spare: 16, max_children: 100, start_children: 2 };

    /// A pool of which every child that has started is taken up as long as there are clients.
    struct Pool {
        limits: Limits,
        counts: Counts,
        growth: Growth,
        clients: u32,
    }

    impl Pool {
        fn new(limits: Limits, clients: u32) -> Pool {
            let start = limits.start_children.min(limits.max_children);
            let counts = Counts { children: start, idle: start, ..Counts::default() };
            Pool { limits, counts, growth: Growth::default(), clients }
        }

        fn decide(&mut self) -> u32 {
            let PreForkDecision { fork, growth, .. } =
                prefork(self.counts, self.limits, Phase::Running, self.growth, 0);
            self.growth = growth;
            self.counts.children += fork;
            self.counts.starting += fork;
            fork
        }

        /// So many of the starting ones are ready.
        fn arrive(&mut self, number: u32) {
            let number = number.min(self.counts.starting);
            self.counts.starting -= number;
            self.counts.idle += number;
        }

        fn take_up(&mut self) {
            let taken = self.counts.idle.min(self.clients);
            self.clients -= taken;
            self.counts.idle -= taken;
            self.counts.busy += taken;
        }

        /// How many are forked, step by step, until nothing is left to be done.
        fn steps(&mut self) -> Vec<u32> {
            let mut steps = Vec::new();
            loop {
                self.take_up();
                match self.decide() {
                    0 => return steps,
                    fork => steps.push(fork),
                }
                self.arrive(u32::MAX);
            }
        }
    }

    #[test] // D-PF-06: as many again while demand lasts, as far as max_spare, then min_spare as before
    fn a_burst_is_met_by_steps_that_double() {
        let mut pool = Pool::new(LIMITS, 54);
        assert_eq!(pool.steps(), [2, 4, 8, 16, 16, 16]);
        assert_eq!((pool.counts.busy, pool.counts.idle), (54, 10));
        pool.clients = 10;
        assert_eq!(pool.steps(), [2]);
    }

    #[test] // D-PF-06: a shortage that is met does not count towards the next
    fn one_client_after_the_other_makes_no_step_larger() {
        for min_spare in 2..5 {
            let mut pool = Pool::new(Limits { min_spare, start_children: min_spare, ..LIMITS }, 0);
            for _ in 0..50 {
                pool.clients = 1;
                assert_eq!(pool.steps(), [1]);
            }
        }
        // Here one idle child is all there is, and none are none: it can't be told whether more would have been taken up.
        let mut pool = Pool::new(Limits { min_spare: 1, start_children: 1, ..LIMITS }, 0);
        for _ in 0..50 {
            pool.clients = 1;
            let steps = pool.steps();
            assert!(steps.iter().sum::<u32>() <= 2, "{steps:?}");
            assert!(pool.counts.idle <= 2);
        }
    }

    #[test] // D-PF-09: children that are slow to start are spares to be
    fn what_is_starting_is_waited_for() {
        let limits = Limits { min_spare: 4, start_children: 4, ..LIMITS };
        let mut pool = Pool::new(limits, 30);
        pool.take_up();
        assert_eq!(pool.decide(), 4);
        for _ in 0..10 {
            assert_eq!(pool.decide(), 0);
        }
        pool.arrive(1);
        pool.take_up();
        // Three of four are to come yet.
        assert_eq!(pool.decide(), 1);
        pool.arrive(2);
        pool.take_up();
        assert_eq!(pool.decide(), 6, "eight spares, of which two are starting");
    }

    #[test] // D-PF-06: never more spares than max_spare, nor children than max_children, however demand goes
    fn limits_hold_and_every_burst_is_met() {
        check(|dice| {
            let (min_spare, more, max_children) = (dice.number(1..6), dice.number(0..20), dice.number(1..60));
            let limits = Limits { min_spare, max_spare: min_spare + more, max_children, start_children: min_spare };
            let mut pool = Pool::new(limits, 0);
            for (kind, number) in dice.list(60, |dice| (dice.below(3), dice.number(0..30))) {
                match kind {
                    0 => pool.clients += number,
                    1 => pool.arrive(number),
                    _ => {
                        let done = number.min(pool.counts.busy);
                        pool.counts.busy -= done;
                        pool.counts.children -= done;
                    }
                }
                pool.take_up();
                let fork = pool.decide();
                assert!(pool.counts.children <= max_children);
                assert!(fork == 0 || pool.counts.spares() <= limits.max_spare);
                assert!(pool.growth.last <= limits.max_spare);
                let full = pool.counts.children == max_children;
                assert!(full || pool.counts.spares() >= min_spare);
            }
        });
    }

    #[test] // D-PF-06: as many steps as it takes to double, and then those of max_spare
    fn growth_takes_few_steps() {
        check(|dice| {
            let (min_spare, more, clients) = (dice.number(1..6), dice.number(0..60), dice.number(1..100));
            let limits =
                Limits { min_spare, max_spare: min_spare + more, max_children: 1000, start_children: min_spare };
            let mut pool = Pool::new(limits, clients);
            let steps = pool.steps();
            let most = (limits.max_spare / min_spare).ilog2() + 2 + clients / limits.max_spare;
            assert!(steps.len() <= most as usize + 1, "{steps:?}");
            assert_eq!(pool.counts.busy, clients);
        });
    }
}

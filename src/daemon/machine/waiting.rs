//! Clients that wait for longer than they should: what is told of them, and when.

use std::time::Duration;

/// Whether clients wait although there are as many children as there may be, and all of them are busy.
///
/// The log has a line when that begins, and a line when it has not been seen for [`CALM`]. It waits so long because a pool that
/// is just large enough has one or two clients waiting now and then.
#[derive(Clone, Copy, Debug, Default)]
pub struct Overload {
    present: Option<Present>,
    /// How long earlier overloads have lasted, all together.
    past: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Present {
    since: Duration,
    /// When clients were last seen waiting.
    last: Duration,
    /// When a look first found no client waiting, after `last`.
    gone: Option<Duration>,
    deepest: u32,
}

/// What there is to be told of an [`Overload`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OverloadNews {
    /// It has begun.
    Begun,
    /// It is over.
    Ended {
        /// From when clients were first seen waiting to the first look that found none, after which none came for [`CALM`].
        lasted: Duration,
        /// How many were seen waiting at a time.
        deepest: u32,
    },
}

impl Overload {
    /// Takes note of how many clients wait at `now` for a child of a pool that is full and busy. `waiting` is 0 if the pool is not.
    pub fn look(&mut self, now: Duration, waiting: u32) -> Option<OverloadNews> {
        match &mut self.present {
            None if waiting > 0 => {
                self.present = Some(Present { since: now, last: now, gone: None, deepest: waiting });
                Some(OverloadNews::Begun)
            }
            Some(present) if waiting > 0 => {
                (present.last, present.gone) = (now, None);
                present.deepest = present.deepest.max(waiting);
                None
            }
            Some(present) => {
                present.gone.get_or_insert(now);
                if now.saturating_sub(present.last) < CALM {
                    return None;
                }
                let lasted = present.lasted();
                let news = OverloadNews::Ended { lasted, deepest: present.deepest };
                self.present = None;
                self.past += lasted;
                Some(news)
            }
            None => None,
        }
    }

    /// Tells whether its end is still to be told.
    pub fn is_present(&self) -> bool {
        self.present.is_some()
    }

    /// Returns when the present one has begun.
    #[cfg(any(test, feature = "control"))]
    pub fn since(&self) -> Option<Duration> {
        self.present.map(|present| present.since)
    }

    /// Returns how long all of them have lasted together, as far as the looks tell.
    #[cfg(any(test, feature = "control"))]
    pub fn total(&self) -> Duration {
        self.past + self.present.map_or(Duration::ZERO, Present::lasted)
    }
}

impl Present {
    /// Clients that have gone between two looks count as waiting until the second.
    fn lasted(self) -> Duration {
        self.gone.unwrap_or(self.last).saturating_sub(self.since)
    }
}

/// Whether clients wait although children say that they do: one of these does not accept.
///
/// For a moment that is so with each connection, so it has to be seen for [`UNHEARD`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Unheard {
    since: Option<Duration>,
}

/// What to do about clients that idle children do not hear.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hearing {
    /// Nobody waits, or nobody is idle.
    Fine,
    /// Look again soon.
    Unclear,
    /// Find out which of the idle children are stopped, and wake the others.
    Deaf,
}

impl Unheard {
    /// Takes note of so many `idle` children at `now`, and clients that wait.
    pub fn look(&mut self, now: Duration, idle: u32, waiting: u32) -> Hearing {
        if idle == 0 || waiting == 0 {
            self.since = None;
            return Hearing::Fine;
        }
        let since = *self.since.get_or_insert(now);
        if now.saturating_sub(since) < UNHEARD {
            return Hearing::Unclear;
        }
        self.since = None;
        Hearing::Deaf
    }
}

/// For how long no client may have been seen waiting at the end of an [`Overload`].
const CALM: Duration = Duration::from_secs(3);

/// For how long clients have to wait for children that say they are idle.
const UNHEARD: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::check;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test] // O-DM-06: one line when it begins, one when it ends, with how long and how deep
    fn overload_is_told_when_it_begins_and_when_it_ends() {
        let mut overload = Overload::default();
        assert_eq!(overload.look(ms(0), 0), None);
        assert_eq!(overload.look(ms(1000), 5), Some(OverloadNews::Begun));
        for second in 2..100 {
            // With gaps.
            assert_eq!(overload.look(ms(1000 * second), if second % 3 == 0 { 0 } else { second as u32 }), None);
        }
        assert!(overload.is_present());
        assert_eq!((overload.since(), overload.total()), (Some(ms(1000)), ms(98_000)), "O-ST-09");
        assert_eq!(overload.look(ms(100_000), 0), None);
        assert_eq!(overload.look(ms(101_000), 0), Some(OverloadNews::Ended { lasted: ms(98_000), deepest: 98 }));
        assert_eq!(overload.look(ms(102_000), 0), None);
        assert!(!overload.is_present());
        overload.look(ms(200_000), 1);
        overload.look(ms(200_500), 1);
        assert_eq!((overload.since(), overload.total()), (Some(ms(200_000)), ms(98_500)), "O-ST-09");
    }

    #[test] // O-DM-06: they have waited until some look between the two
    fn overload_that_one_look_has_seen_lasts_until_the_next_look() {
        let mut overload = Overload::default();
        assert_eq!(overload.look(ms(0), 2), Some(OverloadNews::Begun));
        assert_eq!(overload.look(ms(1010), 0), None);
        assert_eq!(overload.look(ms(2020), 0), None);
        assert_eq!(overload.look(ms(3030), 0), Some(OverloadNews::Ended { lasted: ms(1010), deepest: 2 }));
    }

    #[test] // O-DM-06: beginnings and ends take turns, and no more of them than the calm allows
    fn overload_is_told_once_for_each_time() {
        check(|dice| {
            let mut overload = Overload::default();
            let (mut now, mut begun, mut ended) = (0, 0, 0);
            for (pause, waiting) in dice.list(200, |dice| (dice.below(2000), dice.number(0..3))) {
                now += pause;
                match overload.look(ms(now), waiting) {
                    Some(OverloadNews::Begun) => begun += 1,
                    Some(OverloadNews::Ended { .. }) => ended += 1,
                    None => {}
                }
                assert_eq!(begun - ended, u64::from(overload.is_present()));
                assert!(begun <= 1 + now / 3000);
            }
        });
    }

    #[test] // O-DM-08: for longer than a second, at every look
    fn client_is_unheard_after_a_second() {
        let mut unheard = Unheard::default();
        assert_eq!(unheard.look(ms(0), 1, 1), Hearing::Unclear);
        assert_eq!(unheard.look(ms(500), 1, 0), Hearing::Fine);
        assert_eq!(unheard.look(ms(600), 1, 1), Hearing::Unclear);
        assert_eq!(unheard.look(ms(1599), 1, 1), Hearing::Unclear);
        assert_eq!(unheard.look(ms(1600), 1, 1), Hearing::Deaf);
        assert_eq!(unheard.look(ms(1700), 1, 1), Hearing::Unclear, "what was done takes its time");
        assert_eq!(unheard.look(ms(1800), 0, 1), Hearing::Fine, "all are busy");
        assert_eq!(unheard.look(ms(3000), 1, 1), Hearing::Unclear);
    }
}

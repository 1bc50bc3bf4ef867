//! Whether the server lives, or can't recover by itself and should be started again.
//!
//! A pool whose children are all busy lives. A pool without a child that was ever ready does not, if that lasts.

use std::fmt;
use std::time::Duration;

/// What can be seen of the server at one time.
#[derive(Clone, Copy, Debug)]
pub(in crate::daemon) struct Sight {
    /// So many children are ready: idle, or with a client. `None` if there are none by design.
    pub(in crate::daemon) ready: Option<usize>,
    /// How many children are to be ready before clients come.
    pub(in crate::daemon) min_spare: u32,
    /// How many clients wait for a child.
    pub(in crate::daemon) queue: usize,
    /// The babysitter should have come.
    pub(in crate::daemon) round_is_overdue: bool,
    /// For how long forks have failed.
    pub(in crate::daemon) forks_fail: Option<Duration>,
}

/// What has been wrong for how long.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::daemon) struct Health {
    /// No child was ready from then on, although one should have been.
    empty_since: Option<Duration>,
    /// The babysitter was seen to be overdue from then on. Counted from a look, and not from when it was due: a process that was
    /// stopped may look before it has caught up.
    overdue_since: Option<Duration>,
}

/// Why the server does not live.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::daemon) enum Ill {
    /// No child has been ready for so long.
    NoChild(Duration),
    /// No child could be forked for so long.
    NoFork(Duration),
    /// No child has been looked at for so long.
    RoundOverdue(Duration),
}

impl Health {
    /// Looks at the server. What is wrong for longer than `limit` does not pass by itself.
    ///
    /// # Errors
    ///
    /// The server does not live.
    pub(in crate::daemon) fn look(&mut self, now: Duration, limit: Duration, sight: Sight) -> Result<(), Ill> {
        let is_empty = sight.ready == Some(0) && (sight.min_spare > 0 || sight.queue > 0);
        let empty = lasts(&mut self.empty_since, is_empty, now);
        let overdue = lasts(&mut self.overdue_since, sight.round_is_overdue, now);
        let is_long = |span: &Duration| *span > limit;
        if let Some(span) = empty.filter(is_long) {
            return Err(Ill::NoChild(span));
        }
        if let Some(span) = sight.forks_fail.filter(is_long) {
            return Err(Ill::NoFork(span));
        }
        match overdue.filter(is_long) {
            Some(span) => Err(Ill::RoundOverdue(span)),
            None => Ok(()),
        }
    }
}

/// Takes note of whether something is wrong, and returns for how long it has been.
fn lasts(since: &mut Option<Duration>, is_wrong: bool, now: Duration) -> Option<Duration> {
    let begun = is_wrong.then(|| since.unwrap_or(now));
    *since = begun;
    begun.map(|begun| now.saturating_sub(begun))
}

impl fmt::Display for Ill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ill::NoChild(span) => write!(f, "no child has been ready for {} s", span.as_secs()),
            Ill::NoFork(span) => write!(f, "no child could be forked for {} s", span.as_secs()),
            Ill::RoundOverdue(span) => write!(f, "the babysitter has been overdue for {} s", span.as_secs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const WELL: Sight = Sight { ready: None, min_spare: 0, queue: 0, round_is_overdue: false, forks_fail: None };

    fn sight(ready: usize) -> Sight {
        Sight { ready: Some(ready), min_spare: 2, ..WELL }
    }

    #[test] // O-SD-08
    fn pool_without_a_ready_child_is_dead_after_the_limit() {
        let mut health = Health::default();
        assert_eq!(health.look(at(0), LIMIT, sight(0)), Ok(()));
        assert_eq!(health.look(at(30), LIMIT, sight(0)), Ok(()));
        assert_eq!(health.look(at(31), LIMIT, sight(0)), Err(Ill::NoChild(at(31))));
        assert_eq!(health.look(at(32), LIMIT, sight(1)), Ok(()));
        assert_eq!(health.look(at(62), LIMIT, sight(0)), Ok(()), "it counts anew");
    }

    #[test] // O-SD-08
    fn busy_pool_lives() {
        let mut health = Health::default();
        for second in 0..600 {
            assert_eq!(health.look(at(second), LIMIT, sight(4)), Ok(()));
        }
    }

    #[test] // O-SD-08
    fn forks_that_fail_for_long_are_fatal() {
        let mut health = Health::default();
        let failing = |span| Sight { forks_fail: Some(at(span)), ..WELL };
        assert_eq!(health.look(at(100), LIMIT, failing(30)), Ok(()));
        assert_eq!(health.look(at(101), LIMIT, failing(31)), Err(Ill::NoFork(at(31))));
    }
    #[test] // O-SD-08: without children that are forked before clients come
    fn server_without_a_child_is_dead_only_if_clients_wait() {
        let mut health = Health::default();
        let with = |queue| Sight { ready: Some(0), queue, ..WELL };
        assert_eq!(health.look(at(0), LIMIT, with(0)), Ok(()));
        assert_eq!(health.look(at(100), LIMIT, with(0)), Ok(()));
        assert_eq!(health.look(at(101), LIMIT, with(1)), Ok(()), "from now on");
        assert_eq!(health.look(at(131), LIMIT, with(3)), Ok(()));
        assert_eq!(health.look(at(132), LIMIT, with(1)), Err(Ill::NoChild(at(31))));
        assert_eq!(health.look(at(133), LIMIT, Sight { ready: Some(1), ..with(1) }), Ok(()), "it is served");
    }

    #[test] // O-SD-08
    fn babysitter_that_does_not_come_is_fatal() {
        let mut health = Health::default();
        let overdue = Sight { round_is_overdue: true, ..sight(4) };
        assert_eq!(health.look(at(1000), LIMIT, overdue), Ok(()), "this process was stopped, perhaps");
        assert_eq!(health.look(at(1001), LIMIT, sight(4)), Ok(()));
        assert_eq!(health.look(at(1010), LIMIT, overdue), Ok(()));
        assert_eq!(health.look(at(1040), LIMIT, overdue), Ok(()));
        assert_eq!(health.look(at(1041), LIMIT, overdue), Err(Ill::RoundOverdue(at(31))));
        assert_eq!(health.look(at(1042), LIMIT, sight(4)), Ok(()));
    }
}

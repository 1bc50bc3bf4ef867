//! Whether the server lives, or can't recover by itself and should be started again.
//!
//! A pool whose children are all busy lives. A pool without a child that was ever ready does not, if that lasts.

use std::fmt;
use std::time::Duration;

/// What can be seen of the server at one time.
#[derive(Clone, Copy, Debug)]
pub(in crate::daemon) struct Sight {
    /// Children are to be ready before clients come, and so many are: idle, or with a client.
    pub(in crate::daemon) up: Option<usize>,
    /// For how long forks have failed.
    pub(in crate::daemon) forks_fail: Option<Duration>,
}

/// What has been wrong for how long.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::daemon) struct Health {
    /// No child was ready from then on.
    empty_since: Option<Duration>,
}

/// Why the server does not live.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::daemon) enum Ill {
    /// No child has been ready for so long.
    NoChild(Duration),
    /// No child could be forked for so long.
    NoFork(Duration),
}

impl Health {
    /// Looks at the server. What is wrong for longer than `limit` does not pass by itself.
    ///
    /// # Errors
    ///
    /// The server does not live.
    pub(in crate::daemon) fn look(&mut self, now: Duration, limit: Duration, sight: Sight) -> Result<(), Ill> {
        if sight.up == Some(0) {
            self.empty_since.get_or_insert(now);
        } else {
            self.empty_since = None;
        }
        let is_long = |span: &Duration| *span > limit;
        if let Some(span) = self.empty_since.map(|since| now.saturating_sub(since)).filter(is_long) {
            return Err(Ill::NoChild(span));
        }
        match sight.forks_fail.filter(is_long) {
            Some(span) => Err(Ill::NoFork(span)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Ill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ill::NoChild(span) => write!(f, "no child has been ready for {} s", span.as_secs()),
            Ill::NoFork(span) => write!(f, "no child could be forked for {} s", span.as_secs()),
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

    fn sight(up: usize) -> Sight {
        Sight { up: Some(up), forks_fail: None }
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
        let failing = |span| Sight { up: None, forks_fail: Some(at(span)) };
        assert_eq!(health.look(at(100), LIMIT, failing(30)), Ok(()));
        assert_eq!(health.look(at(101), LIMIT, failing(31)), Err(Ill::NoFork(at(31))));
    }
}

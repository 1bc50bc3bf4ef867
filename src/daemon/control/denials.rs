//! How many audit lines a user leaves whose commands are denied. With a line for each command, any user could fill the disk and hide what
//! other users have done.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The audit lines of denied commands, for each user.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Denials {
    of: BTreeMap<u32, Denied>,
}

/// What the log knows of one user.
#[derive(Debug)]
struct Denied {
    /// The time by which the lines of this user, one each [`EACH`], are paid for.
    paid: Instant,
    /// How many commands the log was not told of since the last line.
    untold: u64,
}

impl Denials {
    /// Counts a denied command of a user. If it leaves a line, returns how many commands before it have left none.
    pub(in crate::daemon) fn tell(&mut self, uid: u32, now: Instant) -> Option<u64> {
        if self.of.len() >= MOST_USERS {
            self.of.retain(|_, denied| denied.paid > now);
        }
        // So many users at once are one flood.
        let uid = if self.of.len() < MOST_USERS || self.of.contains_key(&uid) { uid } else { u32::MAX };
        let denied = self.of.entry(uid).or_insert(Denied { paid: now, untold: 0 });
        if denied.paid.saturating_duration_since(now) > EACH * (BURST - 1) {
            denied.untold += 1;
            return None;
        }
        denied.paid = denied.paid.max(now) + EACH;
        Some(std::mem::take(&mut denied.untold))
    }
}

/// How many lines a user may leave at once.
const BURST: u32 = 64;

/// The time for one line of a user in the long run.
const EACH: Duration = Duration::from_secs(5);

/// How many users are told apart.
const MOST_USERS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // O-CT-06
    fn flood_leaves_a_few_lines_and_its_number() {
        let begin = Instant::now();
        let mut denials = Denials::default();
        let at_once: Vec<_> = (0..1000).filter_map(|_| denials.tell(1, begin)).collect();
        assert_eq!(at_once, [0; BURST as usize]);
        assert_eq!(denials.tell(1, begin + EACH), Some(1000 - u64::from(BURST)));
        assert_eq!(denials.tell(1, begin + EACH), None);
        assert_eq!(denials.tell(1, begin + 2 * EACH), Some(1));
    }

    #[test] // O-CT-06
    fn flood_of_one_user_hides_no_other_one() {
        let now = Instant::now();
        let mut denials = Denials::default();
        (0..1000).for_each(|_| _ = denials.tell(1, now));
        assert_eq!(denials.tell(2, now), Some(0));
    }

    #[test]
    fn any_number_of_users_takes_little_memory() {
        let now = Instant::now();
        let mut denials = Denials::default();
        let lines = (0..100_000).filter_map(|uid| denials.tell(uid, now)).count();
        assert_eq!((lines, denials.of.len()), (MOST_USERS + BURST as usize, MOST_USERS + 1));
        // Who has been quiet is forgotten.
        assert_eq!(denials.tell(7, now + EACH * BURST), Some(0));
        assert_eq!(denials.of.len(), 1);
    }
}

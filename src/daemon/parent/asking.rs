//! What the parent has asked of children and still waits for: to show their sessions, to log at another level, or to reopen their log
//! file. Pure: it is told what was heard, and when.

use std::time::Duration;

use crate::daemon::machine::Key;

/// Every question that is not answered yet.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Asking {
    /// How many questions were asked.
    numbers: u32,
    shows: Vec<Show>,
    rounds: Vec<Round>,
}

/// One child is to show its sessions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::daemon) struct Show {
    /// The number of the question.
    pub(in crate::daemon) number: u32,
    /// The order that it is asked for.
    pub(in crate::daemon) order: u64,
    /// The child.
    pub(in crate::daemon) key: Key,
    /// When it is not waited for any longer.
    until: Duration,
}

/// Many children are to confirm the same.
#[derive(Clone, Debug)]
struct Round {
    what: What,
    number: u32,
    order: u64,
    /// How many were asked.
    asked: usize,
    confirmed: usize,
    /// Those that have not been heard of.
    missing: Vec<Key>,
    /// Those that could not do it.
    failed: Vec<Key>,
    until: Duration,
}

/// What a round of children is to confirm.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::daemon) enum What {
    /// That they log at the level that they were told.
    Level,
    /// That they have opened their log file again.
    Reopen,
}

/// What has become of a round.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::daemon) struct Confirmed {
    /// The order that it was for.
    pub(in crate::daemon) order: u64,
    /// How many children were asked, without those that have ended meanwhile.
    pub(in crate::daemon) children: usize,
    /// How many have done it.
    pub(in crate::daemon) confirmed: usize,
    /// Those that were not heard of in time.
    pub(in crate::daemon) missing: Vec<Key>,
    /// Those that could not do it.
    pub(in crate::daemon) failed: Vec<Key>,
}

/// What was heard of one child in a round.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::daemon) enum Heard {
    /// Nothing yet.
    Nothing,
    /// It has done it.
    Done,
    /// It could not do it.
    Failed,
}

impl Asking {
    /// Asks a child to show its sessions, and returns the number of the question.
    pub(in crate::daemon) fn show(&mut self, order: u64, key: Key, now: Duration, limit: Duration) -> u32 {
        let number = self.next_number();
        self.shows.push(Show { number, order, key, until: now + limit });
        number
    }

    /// Returns the number of a new question.
    pub(in crate::daemon) fn next_number(&mut self) -> u32 {
        // Never 0, which means that nobody has asked.
        self.numbers = self.numbers.checked_add(1).unwrap_or(1);
        self.numbers
    }

    /// Has children confirm what they were told under this number.
    pub(in crate::daemon) fn begin_round(
        &mut self,
        what: What,
        number: u32,
        order: u64,
        keys: Vec<Key>,
        until: Duration,
    ) {
        let asked = keys.len();
        self.rounds.push(Round { what, number, order, asked, confirmed: 0, missing: keys, failed: Vec::new(), until });
    }

    /// Takes out what a child has answered: the question of this number, and those of others who have asked it before. Nothing if
    /// nobody waits for that answer any more.
    pub(in crate::daemon) fn shown(&mut self, number: u32) -> Vec<Show> {
        let Some(answered) = self.shows.iter().find(|show| show.number == number).copied() else { return Vec::new() };
        // The child sees the last question only.
        let is_answered = |show: &Show| show.key == answered.key && show.number <= number;
        let (shown, left) = std::mem::take(&mut self.shows).into_iter().partition(is_answered);
        self.shows = left;
        shown
    }

    /// Takes the questions out that are not waited for any longer.
    pub(in crate::daemon) fn late_shows(&mut self, now: Duration) -> Vec<Show> {
        let (late, left) = std::mem::take(&mut self.shows).into_iter().partition(|show| show.until <= now);
        self.shows = left;
        late
    }

    /// A child has ended: it answers nothing, and is not one that has failed to. Returns who wanted to see it.
    pub(in crate::daemon) fn ended(&mut self, key: Key) -> Vec<Show> {
        for round in &mut self.rounds {
            let before = round.missing.len();
            round.missing.retain(|missing| *missing != key);
            round.asked -= before - round.missing.len();
        }
        let (ended, left) = std::mem::take(&mut self.shows).into_iter().partition(|show| show.key == key);
        self.shows = left;
        ended
    }

    /// Looks what was heard, and takes the rounds out that are over.
    pub(in crate::daemon) fn hear(&mut self, now: Duration, heard: impl Fn(What, u32, Key) -> Heard) -> Vec<Confirmed> {
        let mut over = Vec::new();
        self.rounds.retain_mut(|round| {
            round.hear(&heard);
            let is_over = round.missing.is_empty() || round.until <= now;
            if is_over {
                over.push(round.outcome());
            }
            !is_over
        });
        over
    }

    /// Tells whether anything is waited for.
    pub(in crate::daemon) fn is_idle(&self) -> bool {
        self.shows.is_empty() && self.rounds.is_empty()
    }

    /// Returns when the next question is not waited for any longer.
    pub(in crate::daemon) fn next_due(&self) -> Option<Duration> {
        self.shows.iter().map(|show| show.until).chain(self.rounds.iter().map(|round| round.until)).min()
    }
}

impl Round {
    fn hear(&mut self, heard: &impl Fn(What, u32, Key) -> Heard) {
        let Round { what, number, missing, failed, confirmed, .. } = self;
        missing.retain(|key| {
            let heard = heard(*what, *number, *key);
            match heard {
                Heard::Nothing => {}
                Heard::Done => *confirmed += 1,
                Heard::Failed => failed.push(*key),
            }
            heard == Heard::Nothing
        });
    }

    fn outcome(&self) -> Confirmed {
        let Round { order, asked, confirmed, missing, failed, .. } = self.clone();
        Confirmed { order, children: asked, confirmed, missing, failed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn key(slot: usize) -> Key {
        Key { slot, generation: 1 }
    }

    #[test] // O-CT-15, O-CT-16
    fn a_round_is_over_when_every_child_was_heard_of() {
        let mut asking = Asking::default();
        let number = asking.next_number();
        asking.begin_round(What::Reopen, number, 5, vec![key(0), key(1), key(2)], SECOND);
        let nobody = |_, _, _| Heard::Nothing;
        assert!(asking.hear(Duration::ZERO, nobody).is_empty());
        assert!(
            asking
                .hear(Duration::ZERO, |_, _, heard| if heard == key(1) { Heard::Failed } else { Heard::Nothing })
                .is_empty()
        );
        assert!(asking.ended(key(2)).is_empty());
        let over = asking.hear(Duration::ZERO, |what, of, _| {
            assert_eq!((what, of), (What::Reopen, number));
            Heard::Done
        });
        let outcome = Confirmed { order: 5, children: 2, confirmed: 1, missing: vec![], failed: vec![key(1)] };
        assert_eq!(over, [outcome]);
        assert!(asking.is_idle());
    }

    #[test] // O-CT-15, O-CT-16
    fn a_round_is_over_when_its_time_is_up() {
        let mut asking = Asking::default();
        let number = asking.next_number();
        asking.begin_round(What::Level, number, 5, vec![key(0), key(1)], SECOND);
        let one = |_, _, heard| if heard == key(1) { Heard::Done } else { Heard::Nothing };
        assert_eq!(asking.next_due(), Some(SECOND));
        assert!(asking.hear(SECOND / 2, one).is_empty());
        let over = asking.hear(SECOND, one);
        assert_eq!(over, [Confirmed { order: 5, children: 2, confirmed: 1, missing: vec![key(0)], failed: vec![] }]);
    }

    #[test] // O-CT-16: nobody to ask
    fn a_round_of_no_children_is_over_at_once() {
        let mut asking = Asking::default();
        asking.begin_round(What::Level, 1, 5, vec![], SECOND);
        assert_eq!(asking.hear(Duration::ZERO, |_, _, _| Heard::Nothing).len(), 1);
    }

    #[test] // O-CT-11: two clients look at the same child
    fn an_answer_is_for_all_who_have_asked() {
        let mut asking = Asking::default();
        let _ = asking.show(1, key(0), Duration::ZERO, SECOND);
        let other = asking.show(2, key(1), Duration::ZERO, SECOND);
        let last = asking.show(3, key(0), Duration::ZERO, SECOND);
        assert_eq!(asking.shown(last).iter().map(|show| show.order).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(asking.shown(other).iter().map(|show| show.order).collect::<Vec<_>>(), [2]);
    }

    #[test] // O-CT-11
    fn a_question_is_answered_once_or_late_or_never() {
        let mut asking = Asking::default();
        let first = asking.show(1, key(0), Duration::ZERO, SECOND);
        let second = asking.show(2, key(0), Duration::ZERO, 2 * SECOND);
        let third = asking.show(3, key(1), Duration::ZERO, 2 * SECOND);
        assert_eq!(asking.shown(first).iter().map(|show| show.order).collect::<Vec<_>>(), [1]);
        assert!(asking.shown(first).is_empty());
        assert!(asking.late_shows(SECOND).is_empty());
        assert_eq!(asking.ended(key(1)).iter().map(|show| show.number).collect::<Vec<_>>(), [third]);
        assert_eq!(asking.late_shows(2 * SECOND).iter().map(|show| show.number).collect::<Vec<_>>(), [second]);
        assert!(asking.is_idle() && asking.next_due().is_none());
    }
}

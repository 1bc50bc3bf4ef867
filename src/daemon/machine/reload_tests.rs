//! Reloads whose candidates fail, step by step.

use super::upgrade_tests::{Played, verdicts};
use super::*;
use crate::daemon::settings::RawSettings;

/// The children that are forked.
fn forked(effects: &[Effect]) -> Vec<Key> {
    let key = |effect: &Effect| if let Effect::Fork(fork) = effect { Some(fork.key) } else { None };
    effects.iter().filter_map(key).collect()
}

/// A pool of three that replaces one child at once that has died before it was ready, and another one a second later.
fn pool() -> Played {
    let raw = RawSettings { start_children: Some(3), min_spare: Some(3), max_spare: Some(3), ..RawSettings::default() };
    Played::new(RawSettings { max_children: Some(3), fork_burst: Some(1), forks_per_second: Some(1), ..raw })
}

#[test] // O-RL-08
fn deaths_of_candidates_take_nothing_of_the_fork_budget() {
    let mut played = pool();
    let first = played.machine.table().children()[0].key;
    played.starts_slowly = true;
    for round in 0..5 {
        let edition = Edition(2 + round);
        played.ask(Order::Reload);
        let tunable = Tunable::of(played.machine.settings());
        played.tell(Input::ScoutBegins(edition));
        played.tell(Input::Scouted(edition, Ok(())));
        let canaries = forked(&played.tell(Input::Loaded(edition, Ok(tunable))));
        assert_eq!(canaries.len(), 1, "round {round}");
        let effects = played.tell(Input::Reaped(canaries[0], End::Exited(3)));
        let verdicts = verdicts(&effects);
        assert!(matches!(verdicts[..], [(_, Verdict::RolledBack(_))]), "{verdicts:?}");
        assert_eq!(forked(&effects), []);
    }
    // The edition that serves has all of its budget, and no row of deaths.
    let next = forked(&played.tell(Input::Reaped(first, End::Exited(0))));
    assert_eq!(next.len(), 1);
    let next = forked(&played.tell(Input::Reaped(next[0], End::Exited(3))));
    assert_eq!(next.len(), 1, "the burst");
    assert_eq!(forked(&played.tell(Input::Reaped(next[0], End::Exited(3)))), [], "and no more than that");
}

//! The defaults and the refusals, by the letter of D-SP-03 to D-SP-05.

use super::*;
use crate::testing::check;

/// Makes raw settings of what decides about the pool: start, max, min spare, max spare; 0 is not given.
fn raw(start_children: u32, max_children: u32, min_spare: u32, max_spare: u32) -> RawSettings {
    let given = |n: u32| (n > 0).then_some(n);
    RawSettings {
        start_children: given(start_children),
        max_children: given(max_children),
        min_spare: given(min_spare),
        max_spare: given(max_spare),
        ..RawSettings::default()
    }
}

/// Resolves and returns min_spare, max_spare, max_children.
fn pool(raw: RawSettings) -> (u32, u32, u32) {
    let settings = resolve(raw).unwrap();
    assert_eq!(settings.forking, Forking::Pre);
    (settings.min_spare, settings.max_spare, settings.max_children)
}

#[test] // D-SP-03: start_children > 0 is pre-forking, else max_children > 0 is post-forking, else non-forking
fn forking_follows_from_the_numbers() {
    let forking = |start_children, max_children| {
        resolve(RawSettings { start_children, max_children, ..RawSettings::default() }).unwrap().forking
    };
    assert_eq!(forking(Some(3), Some(10)), Forking::Pre);
    assert_eq!(forking(Some(3), None), Forking::Pre);
    assert_eq!(forking(Some(3), Some(0)), Forking::Pre);
    assert_eq!(forking(None, Some(10)), Forking::Post);
    assert_eq!(forking(Some(0), Some(10)), Forking::Post);
    assert_eq!(forking(Some(0), Some(0)), Forking::None);
    assert_eq!(forking(None, None), Forking::None);
}

#[test] // D-SP-04: 10 start only: 10/20/30. 3 start, 10 max: 2/8/10
fn the_examples_of_the_spec_hold() {
    assert_eq!(pool(raw(10, 0, 0, 0)), (10, 20, 30));
    assert_eq!(pool(raw(3, 10, 0, 0)), (2, 8, 10));
}

#[test] // D-SP-04: with max_children
fn spare_limits_are_shares_of_max_children() {
    assert_eq!(pool(raw(1, 10, 0, 7)), (3, 7, 10)); // max_spare alone: half of it
    assert_eq!(pool(raw(1, 10, 0, 1)), (1, 1, 10)); // at least 1
    assert_eq!(pool(raw(1, 10, 5, 0)), (5, 8, 10));
    assert_eq!(pool(raw(1, 10, 4, 6)), (4, 6, 10));
    assert_eq!(pool(raw(1, 4, 0, 0)), (1, 3, 4));
    assert_eq!(pool(raw(1, 1, 0, 0)), (1, 1, 1));
    assert_eq!(pool(raw(1, 199, 0, 0)), (39, 159, 199));
}

#[test] // D-SP-04: without max_children
fn max_children_is_made_of_start_and_spare() {
    assert_eq!(pool(raw(10, 0, 3, 0)), (3, 6, 16));
    assert_eq!(pool(raw(10, 0, 0, 15)), (10, 15, 25));
    assert_eq!(pool(raw(2, 0, 4, 5)), (4, 5, 7));
}

#[test] // D-SP-04: min_spare at least 1
fn a_min_spare_of_zero_is_raised() {
    let raw = RawSettings { min_spare: Some(0), ..raw(3, 10, 0, 0) };
    assert_eq!(pool(raw), (1, 8, 10));
}

#[test] // D-SP-04: configuration errors name what is in conflict
fn contradictions_are_refused_with_both_values() {
    let refusal = |raw| resolve(raw).unwrap_err();
    assert_eq!(refusal(raw(3, 10, 6, 5)), SettingsError::SpareLimits { max_spare: 5, min_spare: 6 });
    assert_eq!(refusal(raw(3, 10, 9, 0)), SettingsError::SpareLimits { max_spare: 8, min_spare: 9 });
    assert_eq!(refusal(raw(10, 0, 0, 6)).to_string(), "max_spare (6) is less than min_spare (10)");
    assert_eq!(refusal(raw(11, 10, 0, 0)).to_string(), "start_children (11) is more than max_children (10)");
    let zero = RawSettings { max_spare: Some(0), ..raw(3, 10, 0, 0) };
    assert_eq!(refusal(zero), SettingsError::SpareLimits { max_spare: 0, min_spare: 1 });
    let hasty = RawSettings { shutdown_timeout: Some(Duration::ZERO), ..RawSettings::default() };
    assert_eq!(refusal(hasty).to_string(), "shutdown_timeout is zero");
    let hasty = RawSettings { start_timeout: Some(Duration::ZERO), ..RawSettings::default() };
    assert_eq!(refusal(hasty).to_string(), "start_timeout is zero");
    let hasty = RawSettings { upgrade_timeout: Some(Duration::ZERO), ..RawSettings::default() };
    assert_eq!(refusal(hasty).to_string(), "upgrade_timeout is zero");
}

#[test] // O-RL-05
fn surge_and_max_unavailable_are_not_both_zero() {
    let reload = |surge, max_unavailable| {
        resolve(RawSettings { surge: Some(surge), max_unavailable: Some(max_unavailable), ..raw(3, 10, 0, 0) })
    };
    assert_eq!(reload(0, 0), Err(SettingsError::NoRoomToReload));
    assert!(reload(0, 1).is_ok() && reload(1, 0).is_ok());
}

#[test] // D-SB-02: max_children + 5 slots, which must fit a scoreboard
fn a_pool_fits_its_scoreboard() {
    assert_eq!(resolve(raw(3, 10, 0, 0)).unwrap().slots(), 15);
    assert_eq!(resolve(raw(0, 10, 0, 0)).unwrap().slots(), 15);
    assert_eq!(resolve(raw(0, 0, 0, 0)).unwrap().slots(), 0);
    assert!(resolve(raw(0, 16_379, 0, 0)).is_ok());
    let refusal = SettingsError::TooManyChildren { max_children: 16_380, limit: 16_379 };
    assert_eq!(resolve(raw(0, 16_380, 0, 0)), Err(refusal));
    assert!(resolve(raw(u32::MAX, 0, 0, 0)).is_err());
}

#[test] // D-SP-02, D-SP-05, O-RL-05, O-RL-19: the other defaults; 0 requests is no limit
fn what_is_left_out_has_pocos_defaults() {
    let settings = resolve(RawSettings::default()).unwrap();
    assert_eq!((settings.alias.as_str(), settings.verbose), ("Daemon", false));
    assert_eq!(settings.shutdown_timeout, Duration::from_secs(10));
    assert_eq!(settings.start_timeout, Duration::from_secs(60));
    assert_eq!((settings.upgrade_timeout, settings.greeting_limit), (Duration::from_secs(60), Duration::from_secs(2)));
    assert_eq!((settings.reload.surge, settings.reload.max_unavailable), (1, 0));
    assert_eq!(settings.reload.probation, Duration::from_secs(10));
    assert_eq!(settings.requests, NonZeroU64::new(1));
    let requests = |n| resolve(RawSettings { requests: Some(n), ..RawSettings::default() }).unwrap().requests;
    assert_eq!((requests(0), requests(25)), (None, NonZeroU64::new(25)));
    let named = RawSettings { alias: Some("Pool".into()), verbose: true, ..RawSettings::default() };
    assert_eq!(resolve(named).unwrap().alias, "Pool");
}

#[test] // D-SP-04: whatever is accepted is free of contradictions, and keeps what was given
fn resolved_settings_do_not_contradict_themselves() {
    check(|dice| {
        let huge = dice.below(16) == 0;
        let start_children = Some(if huge { dice.number(0..u32::MAX) } else { dice.number(0..60) });
        let max = dice.maybe(|dice| dice.number(0..40_000));
        let min_spare = dice.maybe(|dice| dice.number(0..100));
        let max_spare = dice.maybe(|dice| dice.number(0..100));
        let raw = RawSettings { start_children, max_children: max, min_spare, max_spare, ..RawSettings::default() };
        let Ok(settings) = resolve(raw) else { return };
        assert!(settings.slots() <= Scoreboard::MAX_SLOTS);
        if let Some(max) = max.filter(|&max| max > 0) {
            assert_eq!(settings.max_children, max);
        }
        if settings.forking == Forking::Pre {
            let limits = settings.limits();
            assert!(1 <= limits.min_spare && limits.min_spare <= limits.max_spare);
            assert!(limits.start_children <= limits.max_children);
            assert_eq!(min_spare.unwrap_or(limits.min_spare).max(1), limits.min_spare);
            assert_eq!(max_spare.unwrap_or(limits.max_spare), limits.max_spare);
        }
    });
}

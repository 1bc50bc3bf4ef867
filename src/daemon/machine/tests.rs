//! Examples from the spec, then properties over all small pools.

use std::time::Duration;

use super::bucket::NANOS;
use super::growth::tests::any_growth;
use super::intake::PostForkDecision;
use super::spares::PreForkDecision;
use super::*;
use crate::testing::{Dice, check};

const LIMITS: Limits = Limits { min_spare: 2, max_spare: 8, max_children: 10, start_children: 3 };

/// Makes the counts of a pool whose total is the sum of its parts.
fn counts(idle: u32, starting: u32, busy: u32, retiring: u32) -> Counts {
    Counts { children: idle + starting + busy + retiring, idle, starting, busy, retiring }
}

/// Returns what `counts` are once `decision` has been carried out.
fn carry_out(mut counts: Counts, decision: PreForkDecision) -> Counts {
    counts.children += decision.fork;
    counts.starting += decision.fork;
    counts.idle -= decision.retire;
    counts.retiring += decision.retire;
    counts
}

/// Returns how many children `prefork` wants to fork and to retire.
fn decide(counts: Counts, limits: Limits) -> (u32, u32) {
    let decision = prefork(counts, limits, Phase::Running, Growth::default(), 0);
    (decision.fork, decision.retire)
}

#[test] // O-SD-08: nothing else would tell that no child is looked at any more
fn babysitter_that_does_not_come_is_overdue() {
    use super::upgrade_tests::Quiet;
    use crate::daemon::settings::{RawSettings, resolve};
    let at = Duration::from_secs;
    for (fault, is_overdue) in [(None, false), (Some(Fault::BabysitOnce), true)] {
        let raw = RawSettings { start_children: Some(1), babysit: Some(at(5)), ..RawSettings::default() };
        let settings = resolve(raw).unwrap();
        let mut machine = Machine { fault, ..Machine::new(settings) };
        assert!(!machine.round_is_overdue(at(100)), "none was begun");
        let (mut rounds, mut next) = (Vec::new(), Some((at(1), Input::Begin)));
        while let Some((now, input)) = next.take().filter(|(now, _)| *now <= at(30)) {
            assert!(!machine.round_is_overdue(now), "{fault:?}: {now:?}");
            for effect in machine.step(now, &mut Quiet::default(), input) {
                if let Effect::Arm(Timer::Babysit, span) = effect {
                    rounds.push(now + span);
                    next = Some((now + span, Input::Due(Timer::Babysit)));
                }
            }
        }
        assert_eq!(machine.round_is_overdue(at(30)), is_overdue, "{fault:?}: {rounds:?}");
    }
}

#[test] // D-PF-01: start_children are forked, whatever the spare limits say
fn starting_up_forks_start_children() {
    let decide = |counts| prefork(counts, LIMITS, Phase::StartingUp, Growth::default(), 0);
    let decision = decide(counts(0, 0, 0, 0));
    assert_eq!((decision.fork, decision.retire, decision.thresholds), (3, 0, Thresholds::SILENT));
    assert_eq!(decide(counts(0, 2, 0, 0)).fork, 1);
    assert_eq!(decide(counts(2, 1, 0, 0)).fork, 0);
    let crowded = Limits { start_children: 30, ..LIMITS };
    assert_eq!(prefork(counts(0, 0, 0, 0), crowded, Phase::StartingUp, Growth::default(), 0).fork, 10);
}

#[test] // D-PF-06: spares below min_spare are replenished, up to max_children
fn a_shortage_is_filled_up_to_max_children() {
    assert_eq!(decide(counts(2, 0, 1, 0), LIMITS), (0, 0));
    assert_eq!(decide(counts(1, 0, 2, 0), LIMITS), (1, 0));
    assert_eq!(decide(counts(0, 1, 2, 0), LIMITS), (1, 0)); // the starting one counts
    assert_eq!(decide(counts(0, 0, 9, 0), LIMITS), (1, 0));
    assert_eq!(decide(counts(0, 0, 10, 0), LIMITS), (0, 0));
    assert_eq!(decide(counts(0, 0, 11, 0), LIMITS), (0, 0));
}

#[test] // D-PF-06: spares above max_spare are retired
fn a_surplus_is_retired() {
    assert_eq!(decide(counts(8, 0, 0, 0), LIMITS), (0, 0));
    assert_eq!(decide(counts(10, 0, 0, 0), LIMITS), (0, 2));
    assert_eq!(decide(counts(8, 2, 0, 0), LIMITS), (0, 2));
    assert_eq!(decide(counts(1, 9, 0, 0), LIMITS), (0, 1)); // only idle ones can be asked to go
}

#[test] // D-PF-07: children asked to go are spares no longer, but still children
fn a_retiring_child_is_no_spare_and_keeps_its_place() {
    assert_eq!(decide(counts(1, 0, 0, 5), LIMITS), (1, 0));
    assert_eq!(decide(counts(8, 0, 0, 2), LIMITS), (0, 0)); // those two are not retired again
    assert_eq!(decide(counts(0, 0, 0, 10), LIMITS), (0, 0));
}

#[test] // D-PF-06: never more than max_children, even if the counts disagree
fn the_larger_of_two_totals_counts() {
    let forgetful = Counts { children: 3, ..counts(0, 0, 10, 0) };
    assert_eq!(decide(forgetful, LIMITS), (0, 0));
    let in_flight = Counts { children: 9, ..counts(0, 0, 3, 0) };
    assert_eq!(decide(in_flight, LIMITS), (1, 0));
}

#[test] // D-PF-06: event-driven, and a saturated pool does not ring for each request
fn thresholds_follow_the_starting_children() {
    let thresholds = |counts| prefork(counts, LIMITS, Phase::Running, Growth::default(), 0).thresholds;
    assert_eq!(thresholds(counts(3, 0, 0, 0)), Thresholds { low: 2, high: 8 });
    assert_eq!(thresholds(counts(3, 1, 0, 0)), Thresholds { low: 1, high: 7 });
    assert_eq!(thresholds(counts(3, 5, 0, 0)), Thresholds { low: 0, high: 3 });
    assert_eq!(thresholds(counts(0, 0, 3, 0)), Thresholds { low: 0, high: 6 }); // two are being forked
    assert_eq!(thresholds(counts(3, 0, 7, 0)), Thresholds { low: 0, high: 8 }); // at max_children
}

#[test] // D-SH-02: at shutdown nothing is forked, and nobody rings
fn shutting_down_decides_nothing() {
    let decision = prefork(counts(0, 0, 1, 0), LIMITS, Phase::ShuttingDown, Growth::default(), 0);
    assert_eq!((decision.fork, decision.retire, decision.thresholds), (0, 0, Thresholds::SILENT));
}

fn demand(children: u32, queued: usize, intake: Intake) -> Demand {
    Demand { children, queued, intake, max_children: 3 }
}

#[test] // D-FO-03: pause when max_children is reached, accept when it drops below and no request waits
fn postfork_pauses_and_accepts_at_the_limit() {
    let decide = |children, queued, intake| {
        let decision = postfork(demand(children, queued, intake));
        (decision.fork, decision.notice)
    };
    assert_eq!(decide(0, 0, Intake::Open), (0, Notice::Nothing));
    assert_eq!(decide(1, 1, Intake::Open), (1, Notice::Nothing));
    assert_eq!(decide(2, 1, Intake::Open), (1, Notice::Pause));
    assert_eq!(decide(3, 2, Intake::Paused), (0, Notice::Nothing));
    assert_eq!(decide(2, 2, Intake::Paused), (1, Notice::Nothing)); // one dies, one of two queued is served
    assert_eq!(decide(1, 1, Intake::Paused), (1, Notice::Accept));
    assert_eq!(decide(2, 0, Intake::Paused), (0, Notice::Accept));
    assert_eq!(decide(9, usize::MAX, Intake::Open), (0, Notice::Pause));
}

#[test] // D-PF-09: a burst at once, then so many a second
fn a_bucket_grants_its_burst_and_then_its_rate() {
    let mut bucket = TokenBucket::new(32, 64);
    let second = Duration::from_secs(1);
    assert_eq!(bucket.take(second, 40), 32);
    assert_eq!(bucket.take(second, 40), 0);
    assert_eq!(bucket.ready_in(second), Some(second / 64));
    assert_eq!(bucket.take(second + second / 64, 40), 1);
    assert_eq!(bucket.take(2 * second, 40), 32); // it holds no more than the burst
    assert_eq!(bucket.take(Duration::ZERO, 40), 0); // the clock does not run backwards
    assert_eq!(bucket.take(2 * second, 40), 0); // and no time is gained twice
    assert_eq!(bucket.take(Duration::MAX, 5), 5);
}

#[test] // D-PF-09: settable, to nothing as well
fn a_bucket_that_never_fills_says_so() {
    let mut dry = TokenBucket::new(1, 0);
    assert_eq!(dry.ready_in(Duration::ZERO), Some(Duration::ZERO));
    assert_eq!(dry.take(Duration::ZERO, 2), 1);
    assert_eq!(dry.ready_in(Duration::ZERO), None);
    assert_eq!(TokenBucket::new(0, 64).ready_in(Duration::ZERO), None);
    assert_eq!(TokenBucket::new(0, 64).take(Duration::MAX, 1), 0);
    assert_eq!(TokenBucket::new(u32::MAX, u32::MAX).take(Duration::MAX, u32::MAX), u32::MAX);
}

fn any_limits(dice: &mut Dice) -> Limits {
    let min_spare = dice.number(1..12);
    Limits {
        min_spare,
        max_spare: min_spare + dice.number(0..12),
        max_children: dice.number(1..30),
        start_children: dice.number(0..30),
    }
}

fn any_counts(dice: &mut Dice) -> Counts {
    counts(dice.number(0..15), dice.number(0..15), dice.number(0..15), dice.number(0..15))
}

fn any_phase(dice: &mut Dice) -> Phase {
    dice.pick(&[Phase::StartingUp, Phase::Running, Phase::ShuttingDown])
}

#[test] // D-PF-06: max_children is hard
fn forks_never_pass_max_children() {
    check(|dice| {
        let (counts, limits, phase, growth) = (any_counts(dice), any_limits(dice), any_phase(dice), any_growth(dice));
        let decision = prefork(counts, limits, phase, growth, 0);
        assert!(decision.fork == 0 || counts.total() + decision.fork <= limits.max_children);
        let spares = counts.spares() + decision.fork;
        assert!(decision.fork == 0 || phase == Phase::StartingUp || spares <= limits.max_spare);
        assert!(decision.retire <= counts.idle);
        assert!(decision.fork == 0 || decision.retire == 0);
    });
}

#[test] // O-DM-01, O-DM-03: as many as clients ask for, and no more than there may be
fn clients_that_wait_are_answered_up_to_max_children() {
    check(|dice| {
        let (counts, limits, growth, asked) =
            (any_counts(dice), any_limits(dice), any_growth(dice), dice.number(0..40));
        let without = prefork(counts, limits, Phase::Running, growth, 0);
        let decision = prefork(counts, limits, Phase::Running, growth, asked);
        let room = limits.max_children.saturating_sub(counts.total());
        assert_eq!(decision.fork, without.fork.max(asked).min(room));
        // The spares that are on their way need no ring.
        let spares = counts.starting + decision.fork;
        assert!(decision.thresholds.low <= limits.min_spare.saturating_sub(spares));
        for phase in [Phase::StartingUp, Phase::ShuttingDown] {
            assert_eq!(prefork(counts, limits, phase, growth, asked), prefork(counts, limits, phase, growth, 0));
        }
    });
}

#[test] // D-PF-06: no flapping
fn a_decision_carried_out_leads_to_no_other() {
    check(|dice| {
        let (counts, limits, phase, growth) = (any_counts(dice), any_limits(dice), any_phase(dice), any_growth(dice));
        let first = prefork(counts, limits, phase, growth, 0);
        let second = prefork(carry_out(counts, first), limits, phase, first.growth, 0);
        assert_eq!((second.fork, second.retire), (0, 0));
        assert_eq!(second.thresholds, first.thresholds);
    });
}

#[test] // D-PF-06: one more spare in place of a busy child never means more forks or fewer retired
fn more_spares_never_mean_more_forks() {
    check(|dice| {
        let (counts, limits, growth) = (any_counts(dice), any_limits(dice), any_growth(dice));
        let counts = Counts { busy: counts.busy + 1, children: counts.children + 1, ..counts };
        let decision = prefork(counts, limits, Phase::Running, growth, 0);
        let freed = Counts { idle: counts.idle + 1, busy: counts.busy - 1, ..counts };
        let with_freed = prefork(freed, limits, Phase::Running, growth, 0);
        assert!(with_freed.fork <= decision.fork && with_freed.retire >= decision.retire);
    });
}

#[test] // D-PF-06: children ring exactly when there is something to decide
fn the_thresholds_are_where_the_decision_changes() {
    check(|dice| {
        let (counts, limits, growth) = (any_counts(dice), any_limits(dice), any_growth(dice));
        let decision = prefork(counts, limits, Phase::Running, growth, 0);
        let settled = carry_out(counts, decision);
        // Children take up requests and finish them; nothing else changes.
        let idle = dice.number(0..40).min(settled.idle + settled.busy);
        let later = Counts { idle, busy: settled.idle + settled.busy - idle, ..settled };
        let Thresholds { low, high } = decision.thresholds;
        let next = prefork(later, limits, Phase::Running, decision.growth, 0);
        assert_eq!((next.fork, next.retire) != (0, 0), idle < low || idle > high);
    });
}

#[test] // D-FO-03: never over the limit, paused exactly at it, requests in order and none left while there is room
fn postfork_keeps_to_the_limit() {
    check(|dice| {
        let max_children = dice.number(1..6);
        let mut demand = Demand { children: 0, queued: 0, intake: Intake::Open, max_children };
        for (arrivals, deaths) in dice.list(60, |dice| (dice.below(4) as usize, dice.number(0..4))) {
            demand.queued += arrivals;
            demand.children = demand.children.saturating_sub(deaths);
            let decision = postfork(demand);
            demand.children += decision.fork;
            demand.queued -= usize::try_from(decision.fork).unwrap();
            demand.intake = match decision.notice {
                Notice::Pause => Intake::Paused,
                Notice::Accept => Intake::Open,
                Notice::Nothing => demand.intake,
            };
            assert!(demand.children <= max_children);
            assert_eq!(demand.intake == Intake::Paused, demand.children == max_children);
            assert!(demand.queued == 0 || demand.children == max_children);
            assert_eq!(postfork(demand), PostForkDecision { fork: 0, notice: Notice::Nothing });
        }
    });
}

#[test] // D-PF-09: bounded growth
fn a_bucket_never_grants_more_than_burst_and_rate() {
    check(|dice| {
        let (burst, per_second) = (dice.number(0..50), dice.number(0..200));
        let mut bucket = TokenBucket::new(burst, per_second);
        let (mut now, mut granted) = (Duration::ZERO, 0_u128);
        for (wait, want) in dice.list(80, |dice| (dice.below(3_000_000_000), dice.number(0..60))) {
            now += Duration::from_nanos(wait);
            let got = bucket.take(now, want);
            granted += u128::from(got);
            assert!(got <= want.min(burst));
            let allowed = u128::from(burst) + now.as_nanos() * u128::from(per_second) / u128::from(NANOS);
            assert!(granted <= allowed);
        }
    });
}

#[test] // D-PF-09: whoever is told to come back later finds a token then, and none before
fn a_bucket_is_ready_exactly_when_it_says() {
    check(|dice| {
        let (burst, per_second, early) = (dice.number(1..5), dice.number(1..1_000), dice.below(1_000_000));
        let mut bucket = TokenBucket::new(burst, per_second);
        let now = Duration::from_secs(7);
        assert_eq!(bucket.take(now, u32::MAX), burst);
        let ready = now + bucket.ready_in(now).unwrap();
        let behind = now - Duration::from_millis(3);
        assert_eq!(behind + bucket.ready_in(behind).unwrap(), ready); // a clock read earlier
        assert_eq!(bucket.clone().take(ready - Duration::from_nanos(1), 1), 0);
        assert_eq!(bucket.clone().take(ready, 2), 1);
        bucket.take(now + Duration::from_nanos(early), 0); // looking costs nothing
        assert_eq!(bucket.take(ready.max(now + Duration::from_nanos(early)), 1), 1);
    });
}

//! Runs the simulation.

use std::env;
use std::time::{Instant, SystemTime};

use super::child::Flaw;
use super::dice::Dice;
use super::draw::{self, Length};
use super::exhaustive;
use super::plan::{Act, Kind, Plan};
use super::run::{Outcome, play, play_with};
use super::shrink::shrink;
use super::trace::Trace;
use crate::daemon::machine::Fault;

fn first_seed() -> u64 {
    match env::var("LENORE_SEED") {
        Ok(seed) if seed == "now" => {
            SystemTime::UNIX_EPOCH.elapsed().map_or(1, |now| now.as_nanos() as u64 % 1_000_000_000)
        }
        Ok(seed) => seed.parse().expect("LENORE_SEED is a number, or now"),
        // The same for all, so that a test does not fail for a change that has nothing to do with it.
        Err(_) => 1,
    }
}

/// Shrinks a plan that breaks a rule, and says how to see it again.
fn report(plan: Plan, fault: Option<Fault>, outcome: &Outcome) -> String {
    let Some(violation) = &outcome.violation else { return String::new() };
    let plan = shrink(plan, fault, violation.rule);
    let again = play(&plan, fault);
    let violation = again.violation.as_ref().unwrap_or(violation);
    format!(
        "{}: {} (after {:.6} s)\n    LENORE_SIM_PLAN='{plan}'",
        violation.rule,
        violation.detail,
        violation.at as f64 / 1e6
    )
}

#[test]
fn one_plan_is_written_down() {
    let Ok(text) = env::var("LENORE_SIM_PLAN") else { return };
    let plan: Plan = text.parse().expect("a plan");
    let fault = env::var("LENORE_SIM_FAULT").ok();
    let fault = fault.and_then(|name| Fault::ALL.iter().copied().find(|fault| format!("{fault:?}") == name));
    let outcome = play_with(&plan, fault, Trace::written());
    println!("{}", outcome.trace);
    println!("{:?} after {:.3} s", outcome.violation, outcome.lasted as f64 / 1e6);
}

#[test] // O-DT-03, O-DT-04, O-DT-05: each flaw, disturbance and order is drawn
fn no_seed_breaks_a_rule() {
    let hours: f64 = env::var("LENORE_SIM_HOURS").ok().and_then(|hours| hours.parse().ok()).unwrap_or(5.0);
    let (first, begin) = (first_seed(), Instant::now());
    let mut broken: Vec<(&str, String)> = Vec::new();
    let (mut lasted, mut steps, mut served, mut seeds) = (0.0, 0, 0, 0);
    while lasted < hours {
        let seed = first + seeds;
        let plan = draw::plan(seed, if seed % 4 == 0 { Length::Long } else { Length::Short });
        let outcome = play(&plan, None);
        lasted += outcome.lasted as f64 / 3.6e9;
        (steps, served, seeds) = (steps + outcome.steps, served + outcome.served, seeds + 1);
        if let Some(violation) = &outcome.violation
            && !broken.iter().any(|(rule, _)| *rule == violation.rule)
        {
            let text = format!("seed {seed}: {}", report(plan, None, &outcome));
            println!("{text}");
            broken.push((violation.rule, text));
        }
    }
    let took = begin.elapsed().as_secs_f64();
    println!(
        "{seeds} seeds from {first}: {lasted:.0} virtual hours, {steps} steps, {served} clients served, in {took:.1} s"
    );
    let texts: Vec<String> = broken.into_iter().map(|(_, text)| text).collect();
    assert!(texts.is_empty(), "rules are broken:\n{}", texts.join("\n"));
}

#[test] // O-DT-03, O-DT-04: what is not drawn is not simulated
fn each_disturbance_flaw_and_order_is_drawn() {
    let acts: Vec<Act> = (1..2000).flat_map(|seed| draw::plan(seed, Length::Short).acts).collect();
    for kind in Kind::ALL {
        assert!(acts.iter().any(|act| act.kind == *kind), "{kind:?}");
    }
    for flaw in Flaw::ALL {
        let is_drawn = acts.iter().any(|act| act.kind == Kind::Bad && Flaw::numbered(act.args[1] % 100) == *flaw);
        assert!(is_drawn, "{flaw:?}");
    }
    for order in 0..18 {
        let is_drawn = acts.iter().any(|act| matches!(act.kind, Kind::Order | Kind::Nest) && act.args[0] == order);
        assert!(is_drawn, "order {order}");
    }
}

#[test] // O-DT-07
fn every_fault_is_found() {
    let first = first_seed();
    let mut missed = Vec::new();
    // A debug build takes ten times as long, and looks for some of them only.
    let (step, skip) = if cfg!(debug_assertions) { (12, first as usize % 12) } else { (1, 0) };
    for fault in Fault::ALL.iter().copied().skip(skip).step_by(step) {
        let begin = Instant::now();
        let found = (0..MOST_SEEDS).find_map(|place| {
            let seed = first + place;
            let plan = draw::plan(seed, Length::Short);
            let violation = play(&plan, Some(fault)).violation?;
            // What breaks without it as well is no sign of it.
            play(&plan, None).violation.is_none().then_some((place + 1, violation.rule))
        });
        let took = begin.elapsed().as_secs_f64();
        match found {
            Some((seeds, rule)) => println!("{fault:?}: found by seed {seeds} in {took:.2} s: {rule}"),
            None => {
                println!("{fault:?}: not found by {MOST_SEEDS} seeds in {took:.1} s");
                missed.push(fault);
            }
        }
    }
    assert!(missed.is_empty(), "not found from seed {first} on: {missed:?}");
}

/// How many seeds a fault may hide from.
const MOST_SEEDS: u64 = 20_000;

#[test] // O-DT-05: what was wrong once
fn kept_plans_break_no_rule() {
    for line in include_str!("kept.txt").lines() {
        let text = line.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            continue;
        }
        let plan: Plan = text.parse().expect("a plan");
        let outcome = play(&plan, None);
        assert!(outcome.violation.is_none(), "{line}\n{:?}", outcome.violation);
    }
}

#[test] // O-DT-02
fn same_seed_gives_the_same_trace() {
    let first = first_seed();
    for seed in first..first + 20 {
        let plan = draw::plan(seed, Length::Short);
        let read: Plan = plan.to_string().parse().expect("what is printed is read back");
        assert_eq!(read, plan);
        let hash = |plan: &Plan| play_with(plan, None, Trace::hashed()).hash;
        assert_eq!(hash(&plan), hash(&read), "seed {seed}");
    }
    let one = draw::plan(7, Length::Short);
    // To be compared with that of another machine.
    println!("seed 7: {:016x}", play_with(&one, None, Trace::hashed()).hash);
}

#[test] // O-DT-02
#[cfg_attr(debug_assertions, ignore = "takes a minute in a debug build")]
fn shrunk_plan_is_short_and_breaks_the_same_rule() {
    let fault = Some(Fault::SlotLeaks);
    let found = (0..MOST_SEEDS).map(|seed| draw::plan(seed, Length::Short)).find_map(|plan| {
        let violation = play(&plan, fault).violation?;
        (plan.acts.len() > 5).then_some((plan, violation.rule))
    });
    let (plan, rule) = found.expect("a plan that finds it");
    let short = shrink(plan.clone(), fault, rule);
    assert!(short.acts.len() < plan.acts.len() && short.acts.len() < 5, "{short}");
    assert_eq!(play(&short, fault).violation.map(|violation| violation.rule), Some(rule));
}

#[test] // O-DT-04, O-DT-06: orders in the same moment, and between a fork and its result
fn no_row_of_events_breaks_a_rule() {
    let events: u32 = env::var("LENORE_SIM_EVENTS").ok().and_then(|events| events.parse().ok()).unwrap_or(3);
    let begin = Instant::now();
    let mut dice = Dice::of_all_rows();
    let (mut rows, mut steps) = (0_u64, 0);
    loop {
        let plan = exhaustive::plan(&mut dice, events);
        let outcome = play(&plan, None);
        assert!(outcome.violation.is_none(), "row {rows}: {}", report(plan, None, &outcome));
        (rows, steps) = (rows + 1, steps + outcome.steps);
        if !dice.next_row() {
            break;
        }
    }
    println!("{rows} rows of {events} events, {steps} steps, in {:.1} s", begin.elapsed().as_secs_f64());
}

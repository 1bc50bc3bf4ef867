//! Runs the simulation.

use std::collections::BTreeMap;
use std::env;
use std::num::NonZero;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Instant, SystemTime};

use super::child::Flaw;
use super::dice::Dice;
use super::draw::{self, Length};
use super::exhaustive::{self, Begin};
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

/// Does the same on each processor at once.
fn on_each_processor(work: impl Fn() + Sync) {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| (0..threads).for_each(|_| _ = scope.spawn(&work)));
}

/// What so many seeds have come to.
#[derive(Default)]
struct Seeds {
    begun: u64,
    /// In virtual hours.
    lasted: f64,
    steps: u64,
    served: u64,
    /// The first seed that breaks a rule, of each rule, and how to see it.
    broken: BTreeMap<&'static str, String>,
}

// O-DM-04, O-DM-11: what `looks.rs` judges.
#[test] // O-DT-03, O-DT-04, O-DT-05: each flaw, disturbance and order is drawn
fn no_seed_breaks_a_rule() {
    let hours: f64 = env::var("LENORE_SIM_HOURS").ok().and_then(|hours| hours.parse().ok()).unwrap_or(5.0);
    let (first, begin) = (first_seed(), Instant::now());
    let all = Mutex::new(Seeds::default());
    on_each_processor(|| {
        loop {
            let seed = {
                let mut all = all.lock().unwrap();
                if all.lasted >= hours {
                    break;
                }
                all.begun += 1;
                first + all.begun - 1
            };
            let plan = draw::plan(seed, if seed % 4 == 0 { Length::Long } else { Length::Short });
            let outcome = play(&plan, None);
            let mut all = all.lock().unwrap();
            all.lasted += outcome.lasted as f64 / 3.6e9;
            (all.steps, all.served) = (all.steps + outcome.steps, all.served + outcome.served);
            if let Some(violation) = &outcome.violation
                && !all.broken.contains_key(violation.rule)
            {
                let text = format!("seed {seed}: {}", report(plan, None, &outcome));
                println!("{text}");
                all.broken.insert(violation.rule, text);
            }
        }
    });
    let Seeds { begun, lasted, steps, served, broken } = all.into_inner().unwrap();
    let took = begin.elapsed().as_secs_f64();
    println!(
        "{begun} seeds from {first}: {lasted:.0} virtual hours, {steps} steps, {served} clients served, in {took:.1} s"
    );
    let texts: Vec<String> = broken.into_values().collect();
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
    // A debug build takes ten times as long, and looks for some of them only.
    let (step, skip) = if cfg!(debug_assertions) { (12, first as usize % 12) } else { (1, 0) };
    let faults = Mutex::new(Fault::ALL.iter().copied().skip(skip).step_by(step));
    let missed = Mutex::new(Vec::new());
    on_each_processor(|| {
        let next = || faults.lock().unwrap().next();
        while let Some(fault) = next() {
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
                    missed.lock().unwrap().push(fault);
                }
            }
        }
    });
    let missed = missed.into_inner().unwrap();
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

/// Returns the hash of all that happens in the run of a seed.
fn hash_of_seed(seed: u64) -> u64 {
    play_with(&draw::plan(seed, Length::Short), None, Trace::hashed()).hash
}

#[test] // O-DT-02
fn same_seed_gives_the_same_trace() {
    let first = first_seed();
    for seed in first..first + 20 {
        let plan = draw::plan(seed, Length::Short);
        let read: Plan = plan.to_string().parse().expect("what is printed is read back");
        assert_eq!(read, plan);
        assert_eq!(play_with(&read, None, Trace::hashed()).hash, hash_of_seed(seed), "seed {seed}");
    }
    // To be compared with that of another machine.
    println!("seed {first}: {:016x}", hash_of_seed(first));
}

#[test] // O-DT-02: in another process, with other addresses, in another directory, and with an empty environment
fn same_seed_gives_the_same_trace_in_another_process() {
    let mut other = Command::new(env::current_exe().expect("this program"));
    let test = format!("{}::same_seed_gives_the_same_trace", module_path!().split_once("::").expect("a crate").1);
    other.args([&test, "--exact", "--nocapture"]).env_clear().env("LENORE_SEED", "5").current_dir("/");
    let output = other.output().expect("it runs once more");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(&format!("seed 5: {:016x}\n", hash_of_seed(5))), "{text}");
}

#[test] // O-DT-02
#[cfg_attr(debug_assertions, ignore = "takes a minute in a debug build")]
fn run_that_fails_is_told_in_the_shortest_line_that_replays_it() {
    let fault = Some(Fault::SlotLeaks);
    let plans = (0..MOST_SEEDS).map(|seed| draw::plan(seed, Length::Short));
    let mut plans = plans.filter(|plan| (6..9).contains(&plan.acts.len()));
    let found =
        plans.find_map(|plan| Some((play(&plan, fault), plan)).filter(|(outcome, _)| outcome.violation.is_some()));
    let (outcome, plan) = found.expect("a plan that finds it");
    let told = report(plan.clone(), fault, &outcome);
    let (what, line) = told.split_once("\n").expect("what is wrong, and the line");
    let line = line.trim_start().strip_prefix("LENORE_SIM_PLAN='").and_then(|line| line.strip_suffix('\''));
    let short: Plan = line.expect("one line").parse().expect("a plan");
    let violation = play(&short, fault).violation.expect("it fails again");
    assert!(what.starts_with(&format!("{}: {} (after ", violation.rule, violation.detail)), "{told}");
    assert_eq!(Some(violation.rule), outcome.violation.map(|violation| violation.rule));
    // No choice of fewer of the events breaks the same rule, whichever of the two plans they are taken from.
    for plan in [&plan, &short] {
        for chosen in (0..1_u32 << plan.acts.len()).filter(|chosen| chosen.count_ones() < short.acts.len() as u32) {
            let acts = plan.acts.iter().enumerate().filter(|(place, _)| chosen >> place & 1 == 1);
            let fewer = Plan { acts: acts.map(|(_, act)| *act).collect(), ..plan.clone() };
            let breaks = play(&fewer, fault).violation.is_some_and(|other| other.rule == violation.rule);
            assert!(!breaks, "{fewer} is shorter than {short}");
        }
    }
}

#[test] // O-DT-04, O-DT-06: orders in the same moment, and between a fork and its result
fn no_row_of_events_breaks_a_rule() {
    let events: u32 = env::var("LENORE_SIM_EVENTS").ok().and_then(|events| events.parse().ok()).unwrap_or(3);
    let begun = Instant::now();
    let (begins, next) = (Begin::all(), AtomicUsize::new(0));
    let (rows, steps) = (AtomicU64::new(0), AtomicU64::new(0));
    let broken = Mutex::new(None);
    let play_some = || {
        while broken.lock().unwrap().is_none()
            && let Some(begin) = begins.get(next.fetch_add(1, Relaxed))
        {
            begin.play(events, None, &Trace::default(), &mut |number, plan, outcome| {
                rows.fetch_add(number, Relaxed);
                steps.fetch_add(number * outcome.steps, Relaxed);
                if outcome.violation.is_some() {
                    broken.lock().unwrap().get_or_insert_with(|| report(plan.clone(), None, outcome));
                }
            });
        }
    };
    on_each_processor(play_some);
    if let Some(broken) = broken.into_inner().unwrap() {
        panic!("{broken}");
    }
    let took = begun.elapsed().as_secs_f64();
    println!("{} rows of {events} events, {} steps, in {took:.1} s", rows.into_inner(), steps.into_inner());
}

#[test] // O-DT-06: what is played once for several rows is what each of them plays, and finds what longer runs find
#[cfg_attr(debug_assertions, ignore = "takes two minutes in a debug build")]
fn rows_that_begin_alike_are_played_as_one_by_one() {
    let rule = |outcome: &Outcome| outcome.violation.as_ref().map(|violation| violation.rule);
    for (events, fault) in [(2, None), (3, None), (2, Some(Fault::VanishedStays))] {
        let mut dice = Dice::of_all_rows();
        let (mut rows, mut has_more, mut findings) = (0, true, 0);
        exhaustive::play_all(events, fault, &Trace::hashed(), &mut |number, _, outcome| {
            for _ in 0..number {
                assert!(has_more, "there are no more rows");
                let plan = exhaustive::plan(&mut dice, events);
                if events == 2 || rows % 5 == 0 {
                    let alone = exhaustive::play_alone(&plan, fault, Trace::hashed());
                    let of = |outcome: &Outcome| (outcome.hash, outcome.steps, outcome.served, rule(outcome));
                    assert_eq!(of(outcome), of(&alone), "{plan}");
                }
                if events == 2 {
                    assert_eq!(rule(&play(&plan, fault)), rule(outcome), "{plan}");
                }
                findings += u32::from(outcome.violation.is_some());
                (rows, has_more) = (rows + 1, dice.next_row());
            }
        });
        assert!(!has_more, "there are more rows");
        println!("{rows} rows of {events} events, {findings} findings with {fault:?}");
        assert_eq!(findings > 0, fault.is_some());
    }
}

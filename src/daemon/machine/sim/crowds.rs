//! What becomes of clients that come at once, or wait.

use super::driver::Driver;
use super::plan::Plan;
use super::trace::Trace;

/// Plays so many milliseconds of a plan.
fn played(plan: &str, ms: u64) -> Driver {
    let plan: Plan = plan.parse().expect("a plan");
    let mut driver = Driver::new(&plan, None);
    driver.trace = Trace::written();
    let played = driver.run(ms * 1000);
    assert!(played.is_ok(), "{plan}: {played:?}");
    driver
}

/// What was done of which the text begins so: when, and in answer to what.
fn done(driver: &Driver, effect: &str) -> Vec<(f64, String)> {
    let (mut done, mut now) = (Vec::new(), (0.0, String::new()));
    for line in driver.trace.text().lines() {
        match line.strip_prefix("                  ") {
            Some(text) if text.starts_with(effect) => done.push(now.clone()),
            Some(_) => {}
            None => {
                let (at, input) = line.trim_start().split_once("  ").expect("a time and what was told");
                now = (at.parse().expect("a time"), input.to_owned());
            }
        }
    }
    done
}

/// How many children were forked at a time from then on.
fn steps(driver: &Driver, from: f64) -> Vec<usize> {
    let forks = done(driver, "Fork(").into_iter().filter(|(at, _)| *at >= from).collect::<Vec<_>>();
    forks.chunk_by(|one, other| one == other).map(<[_]>::len).collect()
}

#[test] // O-DM-01: with the settings that a Daemon has by default
fn crowd_is_served_when_its_children_can_be_there() {
    // Clients, how long a child takes to start in ms, and what a fork costs in us.
    for (clients, boot, fork) in [(5, 1, 400), (31, 5, 400), (60, 5, 400), (60, 50, 200), (60, 300, 400), (200, 5, 400)]
    {
        let plan = format!(
            "max=250 start=2 min=1 most=3 burst=32 rate=64 target=20 boot={boot} fork={fork} backlog=250; 2000 wave {clients} 600000"
        );
        let driver = played(&plan, 10_000);
        assert_eq!(driver.world.served, clients, "{plan}");
        // Each start takes up to a quarter longer. No more than 32 children start at once.
        let start = boot * 1250;
        let starts = start * (clients.div_ceil(32));
        let most = 20_000.max(start) + starts + clients * fork;
        let took = driver.world.last_accept - 2_000_000;
        assert!(took <= most * 3 / 2 + 5000, "{plan}: {took} us of {most}");
    }
}

#[test] // O-DM-09: where the system does not tell how many wait, growth doubles its steps; O-DM-01: where it does, it does not need to
fn pool_that_cannot_see_its_queue_doubles_its_steps() {
    let plan = "max=64 start=2 min=1 most=60 boot=5 backlog=100; 2000 wave 60 600000";
    let blind = played(&format!("blind=1 {plan}"), 10_000);
    let seeing = played(plan, 10_000);
    assert_eq!((blind.world.served, seeing.world.served), (60, 60));
    let steps = [steps(&blind, 2.0), steps(&seeing, 2.0)];
    assert!(steps[0].starts_with(&[1, 2, 4, 8, 16]), "{steps:?}");
    assert!(steps[1].iter().any(|step| *step > 16) && !steps[1].starts_with(&[1, 2, 4]), "{steps:?}");
}

#[test] // O-DM-10: told as in O-DM-06 and O-DM-07, and nothing but the end of a child ends the pause
fn post_forking_pause_ends_with_a_child() {
    // The first client leaves after half a minute.
    let driver = played("post=1 max=1 backlog=2; 100 wave 2 30000; 200 wave 2 30000", 40_000);
    let pauses = done(&driver, "Announce(Pause)");
    assert!(pauses.len() >= 2 && pauses[0].0 < 0.2, "{pauses:?}");
    let ends = done(&driver, "Announce(Accept)");
    assert!(!ends.is_empty() && ends.iter().all(|(at, input)| input.starts_with("Reaped(") && *at > 30.0), "{ends:?}");
    for (message, number) in [("Say(OverloadBegun", 1), ("Say(QueueFull", 1), ("Say(QueueHasRoom", 1)] {
        assert_eq!(done(&driver, message).len(), number, "{message}\n{}", driver.trace.text());
    }
}

#[test] // O-DM-08: within 2 s by another child, or by the stopped one where there can't be another
fn client_of_a_stopped_child_is_served_in_two_seconds() {
    for (max, is_continued) in [(2, false), (1, true)] {
        let plan = format!("max={max} start=1 min=1 most=1; 1000 hit 0 0; 2000 wave 1 10");
        let driver = played(&plan, 5000);
        assert_eq!(driver.world.served, 1, "{plan}");
        let took = driver.world.last_accept - 2_000_000;
        assert!(took <= 2_000_000, "{plan}: {took} us");
        let told =
            format!("Say(Deaf {{ key: Key {{ slot: 0, generation: 1 }}, waiting: 1, is_continued: {is_continued} }})");
        assert_eq!(done(&driver, &told).len(), 1, "{}", driver.trace.text());
    }
}

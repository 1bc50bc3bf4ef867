//! What the application counts in its processes, seen in the parent. The program is `tests/programs/app_metrics.rs`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;

use nix::sys::signal::Signal;

use util::lab::LONG;
use util::{DEADLINE, Program, Running, kill, test_program, wait_until};

/// The program, and what it has said that nobody has asked for yet.
struct App {
    running: Running,
    said: VecDeque<(i32, String)>,
}

type Metrics = BTreeMap<String, i64>;

impl App {
    #[track_caller]
    fn start(args: &str) -> App {
        let running = Program::new(test_program("app_metrics")).args(args.split_whitespace()).start();
        let mut app = App { running, said: VecDeque::new() };
        app.wait_for("started");
        app
    }

    /// Waits until some process says this, and returns its pid.
    #[track_caller]
    fn wait_for(&mut self, what: &str) -> i32 {
        if let Some(place) = self.said.iter().position(|(_, said)| said == what) {
            return self.said.remove(place).expect("it is there").0;
        }
        loop {
            let (pid, said) = self.next();
            if said == what {
                return pid;
            }
            self.said.push_back((pid, said));
        }
    }

    #[track_caller]
    fn next(&self) -> (i32, String) {
        let line = self.running.next_line(LONG);
        let (pid, said) = line.split_once(' ').expect("a pid and a word");
        assert!(!said.starts_with("declared late"), "{said}");
        (pid.parse().expect("a pid"), said.to_owned())
    }

    /// Asks the parent for the metrics.
    #[track_caller]
    fn metrics(&mut self) -> Metrics {
        self.running.signal(Signal::SIGUSR1);
        loop {
            let (pid, said) = self.next();
            if let Some(metrics) = said.strip_prefix("metrics") {
                let number = |word: &str| {
                    let (name, number) = word.split_once('=')?;
                    Some((name.to_owned(), number.parse().ok()?))
                };
                return metrics.split_whitespace().filter_map(number).collect();
            }
            self.said.push_back((pid, said));
        }
    }

    #[track_caller]
    fn wait_for_metrics(&mut self, what: &str, is_so: impl Fn(&Metrics) -> bool) -> Metrics {
        wait_until(what, DEADLINE, || Some(self.metrics()).filter(&is_so))
    }
}

/// How many children die: `LENORE_DEATHS`, or 1,000.
fn deaths() -> usize {
    std::env::var("LENORE_DEATHS").ok().and_then(|number| number.parse().ok()).unwrap_or(1_000)
}

#[track_caller]
fn assert_not_back(before: &Metrics, after: &Metrics) {
    for (name, number) in before.iter().filter(|(name, _)| !GAUGES.contains(&name.as_str())) {
        assert!(after[name] >= *number, "{name} was {number}: {after:?}");
    }
}

#[test] // O-ST-05: what children have counted before they are killed is there to the last number, and gauges go with them
fn metrics_of_killed_children_are_kept_but_their_gauges() {
    let mut app = App::start("--start 8 --steps 100");
    let mut living = BTreeSet::new();
    let (mut children, mut before) = (0, app.metrics());
    for death in 1..=deaths() {
        while living.len() < 8 {
            living.insert(app.wait_for("counted"));
            children += 1;
        }
        let victim = *living.iter().nth(death % 8).expect("there are eight");
        kill(victim, Signal::SIGKILL).expect("it lives");
        living.remove(&victim);
        if death % 50 == 0 {
            let after = app.metrics();
            assert_not_back(&before, &after);
            before = after;
        }
    }
    while living.len() < 8 {
        living.insert(app.wait_for("counted"));
        children += 1;
    }
    let all = children * 100;
    let highest = i64::from(*living.last().expect("there are eight"));
    let metrics = app.wait_for_metrics("the gauges of those that live", |metrics| metrics["busy"] == 8);
    let expected = [
        ("begun_total", all),
        ("ended_total", all),
        ("step_seconds_count", all),
        ("step_seconds_ms", all),
        ("busy", 8),
        ("highest_pid", highest),
    ];
    assert_eq!(metrics, expected.map(|(name, number)| (name.to_owned(), number)).into());
}

#[test] // O-ST-05, O-ST-11: killed while they count
fn metrics_of_children_killed_while_they_count_never_go_back() {
    let mut app = App::start("--start 4");
    let (mut children, mut before) = (0, app.metrics());
    for _ in 0..deaths() / 4 {
        let victim = app.wait_for("counting");
        children += 1;
        kill(victim, Signal::SIGKILL).expect("it lives");
        let after = app.metrics();
        assert_not_back(&before, &after);
        before = after;
    }
    let still = wait_until("children that stand still", DEADLINE, || {
        // The last one that was killed may still be among them.
        app.running.children().iter().for_each(|pid| _ = kill(*pid, Signal::SIGSTOP));
        let metrics = app.metrics();
        (std::mem::replace(&mut before, metrics) == before).then(|| before.clone())
    });
    // Each child may have been in the middle of one step.
    let (begun, observed, ended) = (still["begun_total"], still["step_seconds_count"], still["ended_total"]);
    assert!(ended > 0 && (ended..=begun).contains(&observed) && begun - ended <= children + 4, "{still:?}");
    assert!((still["step_seconds_ms"] - observed).abs() <= children + 4, "{still:?}");
}

#[test] // O-ST-05: in a child for each request, and in the parent
fn metrics_of_post_forked_children_are_kept() {
    let mut app = App::start("--max 4 --steps 100");
    for request in 1..=50 {
        app.running.signal(Signal::SIGUSR2);
        let child = app.wait_for("counted");
        if request % 2 == 0 {
            // It may have ended by itself.
            let _ = kill(child, Signal::SIGKILL);
        }
    }
    let metrics = app.wait_for_metrics("the end of all children", |metrics| metrics["busy"] == 0);
    assert_eq!((metrics["ended_total"], metrics["step_seconds_count"], metrics["highest_pid"]), (5_000, 5_000, 0));
}

#[test]
fn metrics_of_a_daemon_without_children_are_its_own() {
    let mut app = App::start("--steps 100");
    for _ in 0..2 {
        app.running.signal(Signal::SIGUSR2);
        app.wait_for("counted");
    }
    let metrics = app.metrics();
    assert_eq!((metrics["begun_total"], metrics["busy"], metrics["late_total"]), (200, 2, 0));
}

#[test]
fn process_that_a_child_has_forked_counts_after_the_childs_death() {
    let mut app = App::start("--start 1 --steps 100 --own-child");
    let child = app.wait_for("counted");
    wait_until("the child's own", DEADLINE, || (!util::proc::children(child).is_empty()).then_some(()));
    kill(child, Signal::SIGKILL).expect("it lives");
    app.wait_for("orphan has counted");
    app.wait_for("counted");
    // Its gauge belongs to nobody whose end the Daemon hears of.
    app.wait_for_metrics("both children and the orphan", |metrics| {
        metrics["begun_total"] == 210 && metrics["busy"] == 1
    });
}

#[test] // a child that does not count has no memory for it, and a Daemon without metrics has no mapping
fn metrics_take_memory_where_they_are_counted() {
    let app = |args| {
        let mut app = App::start(args);
        let child = app.wait_for("counted");
        (app, child)
    };
    let (_app, child) = app("--start 1 --steps 1");
    assert_eq!(resident(child), Some(4));
    let (_app, child) = app("--start 1 --steps 0");
    assert_eq!(resident(child), Some(0));
    let (_app, child) = app("--start 1 --steps 0 --undeclared");
    assert_eq!(resident(child), None);
}

/// Returns how many KiB of the memory for metrics are resident; `None` without a mapping of that size.
fn resident(pid: i32) -> Option<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("it lives");
    let number = |line: &str| line.split_whitespace().nth(1)?.parse::<u64>().ok();
    let mut lines = maps.lines();
    lines.by_ref().find(|line| line.starts_with("Size:") && number(line) == Some(KIB))?;
    number(lines.find(|line| line.starts_with("Rss:"))?)
}

/// A block for each of 16,384 slots, for the parent, and for others.
const KIB: u64 = (16_384 + 2) * 8;

const GAUGES: [&str; 2] = ["busy", "highest_pid"];

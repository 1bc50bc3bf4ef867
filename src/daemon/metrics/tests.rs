use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use super::memory::BLOCK;
use super::register::{Register, enter, find, leave};
use super::{Combine, Counter, Gauge, Histogram, MetricError, Metrics};
use crate::daemon::view::{self, Family, Sample};
use crate::kernel::SessionId;
use crate::testing::{Dice, check};

fn metrics() -> (std::rc::Rc<Register>, Metrics) {
    let register = Register::new();
    (register.clone(), Metrics(Some(register)))
}

fn sample(register: &Register, name: &str) -> Sample {
    let families = register.families();
    families.into_iter().find(|family| family.name == name).expect("it was declared").sample
}

#[test] // O-ST-08
fn metric_name_that_breaks_a_rule_is_invalid() {
    let (_, metrics) = metrics();
    let invalid = |outcome: Result<(), MetricError>, name: &str| match outcome {
        Err(MetricError::Invalid { name: named, .. }) => assert_eq!(named, name),
        outcome => panic!("{name:?}: {outcome:?}"),
    };
    for name in [
        "",
        "_total",
        "9_total",
        "a-b_total",
        "a:b_total",
        "a b_total",
        "é_total",
        "logins",
        "lenore_x_total",
        "process_x_total",
    ] {
        invalid(metrics.counter(name, "help").map(drop), name);
    }
    let ends = ["x_total", "x_bucket", "x_count", "x_sum", "x_created", "lenore_x", "process_x", "a:b", "x\n", ""];
    for name in ends {
        invalid(metrics.gauge(name, "help", Combine::Sum).map(drop), name);
        invalid(metrics.histogram(name, "help").map(drop), name);
    }
    invalid(metrics.counter("x_total", " ").map(drop), "x_total");
    for (name, other) in [("a_b_total", "a_b_c"), ("_x_total", "_"), ("X9_total", "X_9")] {
        metrics.counter(name, "help").expect("a valid name");
        metrics.gauge(other, "help", Combine::Max).expect("a valid name");
    }
}

#[test] // O-ST-08: no name is shown twice
fn metrics_that_share_a_shown_name_clash() {
    let (_, metrics) = metrics();
    metrics.counter("x_total", "help").expect("the first");
    metrics.histogram("wait_seconds", "help").expect("another");
    assert!(
        matches!(metrics.gauge("x", "help", Combine::Sum), Err(MetricError::Clash { present, .. }) if present == "x_total")
    );
    assert!(matches!(metrics.histogram("x", "help"), Err(MetricError::Clash { .. })));
    assert!(matches!(metrics.counter("wait_seconds_total", "help"), Err(MetricError::Clash { .. })));
    assert!(matches!(metrics.counter("wait_seconds_count_total", "help"), Err(MetricError::Clash { .. })));
    metrics.gauge("x_y", "help", Combine::Sum).expect("nothing in common");
}

#[test] // O-ST-08: the Daemon has metrics as well
fn metric_that_is_named_like_one_of_the_daemons_clashes() {
    let (register, metrics) = metrics();
    register.set_prefix("shop_".to_owned());
    let clash = |outcome: Result<(), MetricError>, with: &str| match outcome {
        Err(MetricError::Clash { present, .. }) => assert_eq!(present, with),
        outcome => panic!("{with}: {outcome:?}"),
    };
    clash(metrics.gauge("shop_children", "help", Combine::Sum).map(drop), "shop_children");
    clash(metrics.counter("shop_requests_total", "help").map(drop), "shop_requests_total");
    clash(metrics.gauge("shop_requests", "help", Combine::Sum).map(drop), "shop_requests_total");
    clash(metrics.histogram("shop_accept_wait_seconds", "help").map(drop), "shop_accept_wait_seconds");
    clash(metrics.counter("shop_accept_wait_seconds_total", "help").map(drop), "shop_accept_wait_seconds");
    metrics.counter("shop_sales_total", "help").expect("the prefix may be the application's");
    metrics.gauge("children", "help", Combine::Sum).expect("the Daemon's has the prefix");
}

#[test]
fn metric_declared_again_is_the_same_or_refused() {
    let (register, metrics) = metrics();
    let gauge = |combine| metrics.gauge("open", "help", combine);
    metrics.counter("x_total", "help").expect("the first").inc();
    gauge(Combine::Sum).expect("another").set(1);
    metrics.counter("x_total", "help").expect("the same").inc();
    assert_eq!(sample(&register, "x_total"), Sample::Counter(2));
    assert!(matches!(metrics.counter("x_total", "other"), Err(MetricError::Redeclared { .. })));
    assert!(matches!(gauge(Combine::Max), Err(MetricError::Redeclared { .. })));
    assert!(matches!(metrics.histogram("open", "help"), Err(MetricError::Redeclared { .. })));
    assert_eq!(register.families().len(), 2);
}

#[test]
fn metric_declared_after_a_fork_is_refused_but_found_if_it_is_there() {
    let (register, metrics) = metrics();
    let before = metrics.counter("x_total", "help").expect("in time");
    register.open(0);
    let error = metrics.counter("y_total", "help").expect_err("too late");
    assert!(matches!(error, MetricError::ChildrenForked { .. }) && error.to_string().contains("y_total"), "{error}");
    metrics.counter("x_total", "help").expect("the same").inc();
    before.inc();
    assert_eq!(sample(&register, "x_total"), Sample::Counter(2));
}

#[test]
fn metrics_beyond_the_limit_are_too_many() {
    let (register, metrics) = metrics();
    for number in 0..BLOCK / 64 - 1 {
        metrics.histogram(&format!("h{number}_seconds"), "help").expect("there is room");
    }
    for number in 0..64 {
        metrics.counter(&format!("c{number}_total"), "help").expect("there is room");
    }
    for outcome in [metrics.counter("x_total", "help").map(drop), metrics.histogram("x", "help").map(drop)] {
        assert!(matches!(outcome, Err(MetricError::TooMany { limit: BLOCK, .. })), "{outcome:?}");
    }
    // The last number of a block is its own.
    metrics.counter("c63_total", "help").expect("the last").inc();
    register.open(1);
    register.become_child(1);
    metrics.counter("c63_total", "help").expect("the last").inc();
    metrics.histogram("h0_seconds", "help").expect("the first").observe(Duration::ZERO);
    assert_eq!(sample(&register, "c63_total"), Sample::Counter(2));
    assert_eq!(counted(&register), 3);
}

#[test]
fn metrics_of_a_daemon_that_has_ended_are_refused() {
    let (session, other) = (SessionId::KERNEL, Register::new());
    let of_daemon = move || Metrics(find(session));
    assert!(matches!(of_daemon().counter("x_total", "help"), Err(MetricError::Ended { .. })));
    enter(session, &other);
    let counter = of_daemon().counter("x_total", "help").expect("it lives");
    assert!(find(session).is_some());
    let elsewhere = thread::spawn(move || of_daemon().counter("x_total", "help").map(drop));
    assert!(matches!(elsewhere.join().expect("no panic"), Err(MetricError::Ended { .. })));
    leave(session);
    assert!(matches!(of_daemon().counter("x_total", "help"), Err(MetricError::Ended { .. })));
    counter.inc();
    enter(session, &other);
    drop(other);
    // The kernel was dropped with its sessions.
    assert!(find(session).is_none());
    leave(session);
}

#[test]
fn counts_of_several_threads_are_not_lost() {
    let (register, metrics) = metrics();
    let (counter, histogram) = (metrics.counter("x_total", "help"), metrics.histogram("y_seconds", "help"));
    let (counter, histogram) = (counter.expect("valid"), histogram.expect("valid"));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (counter, histogram) = (counter.clone(), histogram.clone());
            thread::spawn(move || {
                for _ in 0..10_000 {
                    counter.inc();
                    histogram.observe(Duration::from_micros(100));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    assert_eq!(sample(&register, "x_total"), Sample::Counter(40_000));
    let Sample::Histogram(histogram) = sample(&register, "y_seconds") else { panic!("a histogram") };
    assert_eq!((histogram.count(), histogram.sum), (40_000, 4.0));
}

#[test]
fn duration_without_end_does_not_take_the_sum_back() {
    let (register, metrics) = metrics();
    let histogram = metrics.histogram("y_seconds", "help").expect("valid");
    let mut last = 0.0;
    for duration in [Duration::MAX, Duration::from_secs(1), Duration::MAX] {
        histogram.observe(duration);
        let Sample::Histogram(seen) = sample(&register, "y_seconds") else { panic!("a histogram") };
        assert!(seen.sum > last, "{} after {last}", seen.sum);
        last = seen.sum;
    }
}

/// The processes that count: the parent, a child in a slot, or one that is neither.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
enum Who {
    Parent,
    Child(usize),
    Other,
}

/// What the metrics should say: plain sums of everything that was ever counted, and the gauges of those that live.
#[derive(Default)]
struct Model {
    counter: u64,
    buckets: BTreeMap<usize, u64>,
    nanos: u64,
    sum: BTreeMap<Who, i64>,
    max: BTreeMap<Who, i64>,
}

#[test] // O-ST-05: against a model that adds up what was counted, whoever lives
fn metrics_are_what_was_counted_and_never_go_back() {
    check(|dice| {
        let (register, metrics) = metrics();
        let counter = metrics.counter("x_total", "help").expect("valid");
        let histogram = metrics.histogram("y_seconds", "help").expect("valid");
        let sum = metrics.gauge("s", "help", Combine::Sum).expect("valid");
        let max = metrics.gauge("m", "help", Combine::Max).expect("valid");
        let (mut model, mut alive, mut before) = (Model::default(), Vec::new(), 0);
        for _ in 0..dice.number(1..120) {
            match dice.below(8) {
                0 => {
                    let slot = dice.below(5) as usize;
                    if !alive.contains(&slot) {
                        register.open(slot);
                        alive.push(slot);
                    }
                }
                1 if !alive.is_empty() => {
                    let slot = alive.swap_remove(dice.below(alive.len() as u64) as usize);
                    register.reclaim(slot);
                    model.sum.remove(&Who::Child(slot));
                    model.max.remove(&Who::Child(slot));
                }
                _ => count(dice, &register, &alive, &mut model, (&counter, &histogram, &sum, &max)),
            }
            assert_eq!(sample(&register, "x_total"), Sample::Counter(model.counter));
            let Sample::Histogram(seen) = sample(&register, "y_seconds") else { panic!("a histogram") };
            let buckets = seen.buckets.iter().enumerate().filter(|(_, count)| **count > 0);
            assert_eq!(buckets.map(|(bucket, count)| (bucket, *count)).collect::<BTreeMap<_, _>>(), model.buckets);
            assert_eq!(seen.sum, Duration::from_nanos(model.nanos).as_secs_f64());
            assert_eq!(sample(&register, "s"), Sample::Gauge(model.sum.values().sum()));
            assert_eq!(sample(&register, "m"), Sample::Gauge(model.max.values().copied().max().unwrap_or(0)));
            let counted = counted(&register);
            assert!(counted >= before);
            before = counted;
        }
    });
}

/// One process counts something.
fn count(
    dice: &mut Dice,
    register: &Register,
    alive: &[usize],
    model: &mut Model,
    (counter, histogram, sum, max): (&Counter, &Histogram, &Gauge, &Gauge),
) {
    let who = match dice.below(alive.len() as u64 + 2) as usize {
        0 => Who::Parent,
        1 => Who::Other,
        number => Who::Child(alive[number - 2]),
    };
    match who {
        // There is no way back but in a test.
        Who::Parent => register.become_parent(),
        Who::Child(slot) => register.become_child(slot),
        Who::Other => register.become_other(),
    }
    let value = i64::from(dice.number(0..2000)) - 1000;
    match dice.below(6) {
        0 => {
            let number = dice.below(1000);
            counter.add(number);
            model.counter += number;
        }
        1 => {
            let nanos = 1 << dice.below(40);
            histogram.observe(Duration::from_nanos(nanos));
            *model.buckets.entry(view::Histogram::bucket_of(nanos / 1000)).or_default() += 1;
            model.nanos += nanos;
        }
        change => {
            let (gauge, values) = if change % 2 == 0 { (sum, &mut model.sum) } else { (max, &mut model.max) };
            let kept = values.entry(who).or_default();
            if change < 4 {
                gauge.set(value);
                *kept = value;
            } else {
                gauge.add(value);
                *kept += value;
            }
            // A process that the Daemon does not know has no end that it would hear of.
            values.remove(&Who::Other);
        }
    }
}

/// Returns how much was counted in all metrics together. Gauges count for nothing.
fn counted(register: &Register) -> u64 {
    let counted = |family: Family| match family.sample {
        Sample::Counter(count) => count,
        Sample::Gauge(_) => 0,
        Sample::Histogram(histogram) => histogram.count(),
    };
    register.families().into_iter().map(counted).sum()
}

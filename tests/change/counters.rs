//! What is counted goes on to be counted, and the sums hold, while children and processes change.

use std::collections::BTreeMap;

use nix::sys::signal::Signal;
use util::control::Control;
use util::{Client, DEADLINE, kill, wait_until};

use super::changing::Changing;
use super::load::Load;
use super::upgrading::{pool, upgrade, wait_alone};

/// What only grows as long as the service lives: a process has its own counters besides.
fn growing(control: &mut Control) -> BTreeMap<String, f64> {
    let metrics = control.ask("metrics").ok();
    let samples = metrics.lines().filter(|line| line.starts_with("lenore_")).filter_map(|line| {
        let (name, number) = line.rsplit_once(' ')?;
        let family = name.split('{').next().unwrap_or_default();
        let grows = ["_total", "_bucket", "_count", "_sum"].iter().any(|end| family.ends_with(end));
        grows.then(|| (name.to_owned(), number.parse().expect("a number")))
    });
    samples.collect()
}

#[track_caller]
fn assert_grown(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) {
    for (name, before) in before {
        let after = after.get(name).unwrap_or_else(|| panic!("there is no {name} any more"));
        assert!(after >= before, "{name} has gone from {before} to {after}");
    }
}

#[test] // O-ST-03, O-ST-05: with as many children more as a reload may have
fn sums_hold_and_counters_grow_while_a_reload_replaces_children_under_load() {
    let changing = Changing::pool(3, "value=a\n", "--surge 2");
    let load = Load::begin(changing.addr);
    let mut control = changing.control();
    let mut before = growing(&mut control);
    // A child takes 700 ms to start, so that old ones and new ones are seen at the same time.
    for (config, verdict) in [("value=b\nchild=slow\n", "applied"), ("child=die\n", "rolled_back")] {
        changing.write(config);
        changing.ask("reload no-wait").ok();
        let mut most = 0;
        wait_until(verdict, DEADLINE, || {
            let seen = control.status();
            let pool = &seen.pool;
            assert_eq!((pool.states.total(), seen.children.len()), (pool.total, pool.total as usize), "{seen:?}");
            assert!(pool.total + pool.forks_in_flight <= pool.limit + 2, "{seen:?}");
            most = most.max(pool.total);
            let now = growing(&mut control);
            assert_grown(&before, &now);
            before = now;
            (seen.reloads.verdicts[verdict] == 1).then_some(())
        });
        // One that dies at once may not be seen.
        assert!(most > 3 || verdict != "applied", "{most} children at most");
    }
    load.end().assert_nothing_lost();
    let after = growing(&mut control);
    assert_grown(&before, &after);
    assert!(
        after["lenore_requests_total"] > 0.0 && after["lenore_child_exits_total{cause=\"retired\"}"] >= 3.0,
        "{after:?}"
    );
}

#[test] // O-ST-05, O-UP-16: each series
fn counters_of_all_kinds_go_on_after_an_upgrade() {
    let mut changing = pool(2, 100, "");
    (0..20).for_each(|_| drop(changing.value()));
    // More than the children after it use in all, so that it is missed if an upgrade forgets it.
    Client::connect(changing.addr).line("burn 400");
    kill(changing.children()[0], Signal::SIGKILL).expect("a child");
    changing.wait_idle(2);
    changing.reload("value=b\n").ok();
    changing.reload("nonsense\n");
    let before = growing(&mut changing.control());
    for name in [
        "lenore_requests_total",
        "lenore_busy_seconds_total",
        "lenore_forks_total",
        "lenore_child_exits_total{cause=\"signaled\"}",
        "lenore_reloads_total{result=\"applied\"}",
        "lenore_reloads_total{result=\"rejected\"}",
        "lenore_request_duration_seconds_count",
        "lenore_child_start_seconds_count",
        "lenore_loop_turn_seconds_count",
    ] {
        assert!(before[name] > 0.0, "{name}: {before:?}");
    }
    changing.write("value=c\n");
    upgrade(&changing);
    assert!(changing.running.wait_exit(DEADLINE).success());
    wait_alone(&changing);
    let between = growing(&mut Control::connect(&changing.socket));
    assert_grown(&before, &between);
    upgrade(&changing);
    wait_alone(&changing);
    let mut control = Control::connect(&changing.socket);
    let after = growing(&mut control);
    assert_grown(&between, &after);
    assert_eq!(changing.value(), "c");
    control.wait_status("one request more", |status| {
        (status.counters.requests as f64 > before["lenore_requests_total"]).then_some(())
    });
}

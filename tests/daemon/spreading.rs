//! How connections spread over the children of a `component::Server`.

use std::collections::BTreeMap;

use nix::sys::signal::Signal;

use crate::component::pool;
use util::lab::held;
use util::{Client, DEADLINE, proc, wait_until};

/// How many connections each child got.
fn shares(pids: impl IntoIterator<Item = i32>) -> BTreeMap<i32, u32> {
    let mut shares = BTreeMap::new();
    pids.into_iter().for_each(|pid| *shares.entry(pid).or_default() += 1);
    shares
}

#[track_caller]
fn expect_even(shares: &BTreeMap<i32, u32>, children: usize) {
    assert_eq!(shares.len(), children, "{shares:?}");
    let (most, least) = (shares.values().max(), shares.values().min());
    assert!(most.zip(least).is_some_and(|(most, least)| *most <= 3 * least), "{shares:?}");
}

/// Waits until all children sleep: one that is awake for something else takes what it sees, whoever's turn it is.
fn wait_asleep(children: &[i32]) {
    wait_until("all children to sleep", DEADLINE, || {
        children.iter().all(|&pid| proc::state(pid) == Some('S')).then_some(())
    });
}

/// How often each process has gone to sleep so far.
fn naps(children: &[i32]) -> Vec<u64> {
    let nap = |pid: &i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|number| number.trim().parse().ok()).expect("a number")
    };
    children.iter().map(nap).collect()
}

#[test] // T9: the system would wake the first of them every time, and without care all of them
fn connections_that_come_one_by_one_spread_over_the_children() {
    let (mut lab, addr) = pool(4, "--connections 50");
    let children = lab.running.children();
    let (mut come_and_go, mut woken) = (Vec::new(), 0);
    for _ in 0..400 {
        wait_asleep(&children);
        let before = naps(&children);
        let (client, pid) = held(addr);
        wait_asleep(&children);
        woken += std::iter::zip(before, naps(&children)).filter(|(before, after)| before != after).count();
        come_and_go.push(pid);
        drop(client);
    }
    let come_and_go = shares(come_and_go);
    println!("400 connections that go: {come_and_go:?}, {woken} children woken");
    expect_even(&come_and_go, 4);
    assert!(woken <= 480, "{woken} children were woken for 400 connections");

    lab.wait_board("wwww");
    let spaced = |_| {
        wait_asleep(&children);
        held(addr)
    };
    let clients: Vec<(Client, i32)> = (0..100).map(spaced).collect();
    let stay = shares(clients.iter().map(|(_, pid)| *pid));
    println!("100 that stay: {stay:?}");
    expect_even(&stay, 4);
    drop(clients);
    lab.end(Signal::SIGTERM);
}

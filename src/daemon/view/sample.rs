//! A snapshot for the tests of its forms: a pool at its limit, with a hostile client.

use std::collections::BTreeMap;

use super::Histogram;
use super::snapshot::{
    ChildView, Counters, Death, Durations, Family, Kind, ListenerView, Phase, Pool, ProcessView, Queue, Reload,
    Reloads, SCHEMA, Sample, Service, Snapshot, States, Upgrades, When,
};

/// What a client may have said its name was.
pub(super) const HOSTILE: &str = "</b>\"'&\\\n\x1b[2J\u{202e}\0é";

pub(super) fn when(seconds_ago: f64) -> When {
    When { seconds_ago, at: "2026-11-28T23:31:39.000123Z".to_owned() }
}

/// Durations of so many microseconds.
pub(super) fn histogram(microseconds: &[u64]) -> Histogram {
    let mut buckets = vec![0; Histogram::BUCKETS];
    microseconds.iter().for_each(|duration| buckets[Histogram::bucket_of(*duration)] += 1);
    Histogram { buckets, sum: microseconds.iter().sum::<u64>() as f64 / 1e6 }
}

pub(super) fn child(slot: u32, state: char) -> ChildView {
    ChildView {
        slot,
        generation: 1,
        pid: Some(4_000 + slot as i32),
        state,
        since: when(f64::from(slot) + 0.25),
        started: when(3_700.0),
        requests: u64::from(slot) * 10,
        peer: String::new(),
        edition: Some(1),
        told: Some("stay".to_owned()),
        usage: None,
    }
}

pub(super) fn process() -> ProcessView {
    ProcessView {
        cpu: Some(1.5),
        resident: Some(14_051_000),
        proportional: None,
        virtual_memory: Some(100 << 20),
        descriptors: Some(12),
        descriptors_limit: Some(1_024),
        oom_score: Some(3),
        started_at: Some(1_795_905_000.5),
    }
}

pub(in crate::daemon) fn snapshot() -> Snapshot {
    let mut children: Vec<ChildView> = "wrrlke?".chars().zip(0..).map(|(state, slot)| child(slot, state)).collect();
    HOSTILE.clone_into(&mut children[1].peer);
    children[2].usage = Some(process());
    let mut states = States::default();
    children.iter().for_each(|child| states.count(child.state));
    let causes = ["exited", "failed", "signaled", "rogue"].map(|cause| (cause.to_owned(), 0));
    let mut exits = BTreeMap::from(causes);
    exits.insert("signaled".to_owned(), 2);
    Snapshot {
        schema: SCHEMA,
        time: when(0.0).at,
        service: Service {
            name: "Daemon".to_owned(),
            version: "0.1.0".to_owned(),
            pid: 3_999,
            started: when(3_723.0),
            phase: Phase::Ready,
            kind: Kind::PreForking,
            generation: 1,
            supervisor: Some("systemd".to_owned()),
            heartbeat_age: None,
        },
        pool: Pool {
            states,
            total: states.total(),
            forks_in_flight: 0,
            limit: 7,
            min_spare: 2,
            max_spare: 4,
            start_children: 3,
            slots: 8,
            queued: 0,
            saturated: Some(when(2.5)),
            backoff: true,
        },
        board: "wrrlke? ".to_owned(),
        children,
        listeners: vec![
            ListenerView { name: "127.0.0.1:3000".to_owned(), queue: Some(Queue::new(5, 128)), unknown: None },
            ListenerView { name: "/run/\"x\"".to_owned(), queue: None, unknown: Some("no netlink".to_owned()) },
        ],
        counters: Counters {
            requests: 210,
            requests_failed: Some(3),
            forks: 9,
            fork_failures: BTreeMap::from([("EAGAIN".to_owned(), 4)]),
            exits,
            busy_seconds: 12.5,
            saturated_seconds: 2.5,
            listen_overflows: Some(17),
            torn_reads: 1,
            cpu_by_slot: (0..8).map(|slot| f64::from(slot) + 0.5).collect(),
        },
        durations: Durations {
            request: histogram(&[90, 1_000, 1_100, 5_000_000, 90_000_000]),
            accept_wait: histogram(&[10]),
            child_start: histogram(&[2_000]),
            loop_turn: histogram(&[]),
        },
        oldest_request: Some(3.25),
        deaths: vec![Death {
            reaped: when(4.0),
            slot: 7,
            generation: 2,
            pid: 4_999,
            cause: "signal:SIGKILL".to_owned(),
            in_order: false,
            age: 61.0,
            requests: 8,
        }],
        settings: BTreeMap::from([("max_children".to_owned(), "7".to_owned())]),
        process: process(),
        metrics: vec![
            Family::new("logins_total".to_owned(), "Logins, \"all\"\nof them\\".to_owned(), Sample::Counter(5)),
            Family::new("carts".to_owned(), "Open carts".to_owned(), Sample::Gauge(-2)),
            Family::new("render_seconds".to_owned(), "Rendering".to_owned(), Sample::Histogram(histogram(&[70]))),
        ],
        reloads: Reloads {
            verdicts: BTreeMap::from([("applied".to_owned(), 1), ("rolled_back".to_owned(), 2)]),
            last: Some(Reload::new(4, "rolled_back", "child 1:2 ended".to_owned(), Vec::new(), 0.25, when(1.0))),
            succeeded: Some(when(60.0)),
            ..Reloads::default()
        },
        upgrades: Upgrades { verdicts: BTreeMap::from([("applied".to_owned(), 3)]), ..Upgrades::default() },
    }
}

//! Events as they happen.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use util::control::{Control, Steered};
use util::{Client, DEADLINE, proc};

/// Reads events until one is of this kind.
fn next(control: &mut Control, kind: &str) -> Value {
    let give_up = Instant::now() + DEADLINE;
    while Instant::now() < give_up {
        let line = control.read_line().unwrap_or_else(|| panic!("the end, and no {kind}"));
        let event: Value = serde_json::from_str(&line).unwrap();
        if event["event"] == kind {
            return event;
        }
    }
    panic!("no {kind}");
}

fn watch(steered: &Steered) -> Control {
    let mut control = steered.control();
    control.send("{\"command\":\"watch\"}\n");
    // It is taken before what another client asks for later.
    (0..2).for_each(|_| drop(steered.control().ask("hello").ok()));
    control
}

#[test] // O-CT-20
fn forks_deaths_and_sizes_are_told_in_their_order() {
    let steered = Steered::pool(2, "");
    let mut control = watch(&steered);
    let child = *proc::children(steered.pid()).keys().next().unwrap();
    util::kill(child, Signal::SIGKILL).unwrap();
    let death = next(&mut control, "death");
    assert_eq!(death["pid"], child);
    assert!(death["cause"].as_str().unwrap().contains("KILL"), "{death}");
    assert_eq!(death["in_order"], false);
    let fork = next(&mut control, "fork");
    let ready = next(&mut control, "ready");
    assert_eq!(ready["child"], fork["child"]);
    let numbers = [&death, &fork, &ready].map(|event| event["number"].as_u64().unwrap());
    assert!(numbers[0] < numbers[1] && numbers[1] < numbers[2], "{numbers:?}");
    assert!(ready["time"].as_str().unwrap().ends_with('Z'));
    steered.control().ask("resize max_children=7").ok();
    assert_eq!(next(&mut control, "resize")["max_children"], 7);
    steered.control().ask("reopen").ok();
    assert_eq!(next(&mut control, "reopen")["ok"], true);
}

#[test] // O-CT-20
fn overload_is_told_when_it_begins_and_ends() {
    let steered = Steered::pool(1, "");
    let mut control = watch(&steered);
    let (_, client) = steered.occupy();
    let waiting: Vec<Client> = (0..3).map(|_| Client::connect(steered.addr)).collect();
    let begun = next(&mut control, "overload");
    assert_eq!(begun["max_children"], 1);
    steered.open();
    drop((client, waiting));
    let ended = next(&mut control, "overload_ended");
    assert!(ended["number"].as_u64() > begun["number"].as_u64());
}

#[test] // O-CT-20, O-CT-17
fn phases_and_the_end_are_told() {
    let mut steered = Steered::pool(1, "");
    let (mut json, mut text) = (watch(&steered), steered.control());
    text.send("watch\n");
    (0..2).for_each(|_| drop(steered.control().ask("hello").ok()));
    let stopped = steered.control().ask("stop");
    assert!(stopped.last.starts_with("OK"));
    assert_eq!(next(&mut json, "phase")["phase"], "draining");
    let mut last = None;
    while let Some(line) = json.read_line() {
        last = Some(line);
    }
    let last: Value = serde_json::from_str(&last.unwrap()).unwrap();
    assert_eq!((&last["final"], &last["ok"], &last["verdict"]), (&true.into(), &true.into(), &"ended".into()));
    let answer = text.read_answer();
    assert_eq!(answer.last, "OK ended");
    assert!(
        answer.body.lines().any(|line| line.starts_with("phase ") && line.contains("phase=draining")),
        "{answer:?}"
    );
    assert!(steered.running.wait_exit(DEADLINE).success());
}

#[test] // O-CT-20
fn slow_watcher_misses_events_and_holds_nothing_up() {
    let steered = Steered::pool(1, "");
    let slow = watch(&steered);
    let mut control = steered.control();
    // The system has room for some hundred kB, and the Daemon keeps 64 more. Each of these is an event of 150 bytes.
    for round in 0..6000 {
        control.ask(&format!("resize max_children={}", 2 + round % 2)).ok();
    }
    let asked = Instant::now();
    control.ask("hello").ok();
    assert!(asked.elapsed() < Duration::from_secs(1));
    let mut slow = slow;
    let (mut dropped, mut numbers) = (0, Vec::new());
    while numbers.len() as u64 + dropped < 6000 {
        let event: Value = serde_json::from_str(&slow.read_line().unwrap()).unwrap();
        match event["number"].as_u64() {
            Some(number) => numbers.push(number),
            None => dropped += event["count"].as_u64().unwrap(),
        }
    }
    assert!(dropped > 0);
    // It gets those that come now, and what is missing is what was said to be.
    control.ask("resize reset").ok();
    numbers.push(next(&mut slow, "resize")["number"].as_u64().unwrap());
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "none comes twice or out of order");
    assert_eq!(numbers.last().unwrap() - numbers[0] + 1 - numbers.len() as u64, dropped);
}

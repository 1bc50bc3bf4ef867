//! A background session beside a `component::Server`: it runs in the parent alone, and the service ends all the same. The program
//! is `tests/programs/component_server.rs`.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;

use crate::component::{ALL, serve};
use util::lab::{LONG, Lab, held, send};
use util::{DEADLINE, at_once, wait_until};

/// The processes of which lines `WHAT` came.
fn processes(all: &[String], what: &str) -> BTreeSet<i32> {
    let pids = all.iter().filter_map(|line| line.strip_suffix(what)?.trim_end().parse().ok());
    pids.collect()
}

#[test] // whether it was spawned before `run` or by a state
fn background_job_ticks_in_the_parent_alone_and_ends_with_the_service() {
    let cases = ALL.into_iter().flat_map(|args| [(args, "--job"), (args, "--late-job")]);
    at_once(cases, |(args, job)| {
        let (mut lab, addr) = serve(&format!("{args} {job}"));
        let clients: Vec<_> = (0..3).map(|_| held(addr)).collect();
        // Children that are there now have had time for ticks of their own: the parent has.
        let before = lab.story(lab.pid()).matches("tick").count();
        lab.nth(before + 10, "tick");
        drop(clients);
        lab.end(Signal::SIGTERM);
        let all = lab.all();
        for what in [" tick", " job stops"] {
            assert_eq!(processes(&all, what), [lab.pid()].into(), "{args} {job}: {what}");
        }
        assert_eq!(all.iter().filter(|line| line.ends_with("job stops")).count(), 1, "{args} {job}");
    });
}

#[test]
fn background_job_goes_along_when_the_program_detaches() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().display().to_string();
    let mut lab = Lab::start("component_server", &format!("--mode prefork:2 --job --detach {path}"));
    assert_eq!(lab.running.wait_exit(LONG).code(), Some(0));
    let read = |file: &str| std::fs::read_to_string(dir.path().join(file)).unwrap_or_default();
    let pid: i32 = read("pid").trim().parse().expect("a pid");
    let ticks = || read("log").lines().filter(|line| line.ends_with(" tick")).count();
    let before = ticks();
    wait_until("more ticks", DEADLINE, || (ticks() > before + 5).then_some(()));
    send(pid, Signal::SIGTERM);
    lab.wait_gone(&[pid]);
    let log: Vec<String> = read("log").lines().map(str::to_owned).collect();
    let ticking = processes(&log, " tick");
    assert!(ticking.contains(&pid) && ticking.is_subset(&[pid, lab.pid()].into()), "{ticking:?}, {pid}");
    assert_eq!(processes(&log, " job stops"), [pid].into());
}

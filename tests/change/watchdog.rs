//! The watchdog of a service manager.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::Signal;
use util::manager::{Datagram, Manager, Service};
use util::{Client, DEADLINE, kill, wait_until};

use super::notify::{pool, program, ready};

#[test] // O-SD-10: the pool serves, and no child can be forked
fn pool_whose_forks_fail_asks_for_a_restart_if_the_program_says_so() {
    let mut manager = Manager::new();
    // All but the first two.
    let inject = (3..200).map(|number| format!("kernel.fork=fail@{number}")).collect::<Vec<_>>().join(",");
    let args = format!("{} --health-ms 300 --restart-when-dead", pool(2));
    let running = manager.watches(program(&args).env("LENORE_INJECT", inject), Duration::from_millis(300)).start();
    let addr = running.listening_addr();
    ready(&mut manager, &running);
    assert_eq!(manager.count("WATCHDOG=trigger"), 0);
    kill(running.children()[0], Signal::SIGKILL).unwrap();
    let trigger = manager.wait_for("WATCHDOG=trigger");
    assert_eq!(trigger.pid, running.pid());
    assert!(trigger.get("STATUS").unwrap().starts_with("no child could be forked for"), "{trigger:?}");
    assert!(Client::connect(addr).line("x").ends_with(" x"), "the other child serves");
}

#[test] // O-SD-09: the shortest period for which that is promised
fn watchdog_of_100_ms_is_fed_three_times_in_each_period() {
    let mut manager = Manager::new();
    let begun = Instant::now();
    let running = manager.watches(program(&pool(1)), Duration::from_millis(100)).start();
    ready(&mut manager, &running);
    let pings = |manager: &Manager| {
        let pings = manager.said.iter().filter(|datagram| datagram.text == "WATCHDOG=1");
        pings.map(|datagram| datagram.at).collect::<Vec<_>>()
    };
    // A machine that is busy delays some of them, or this test, which then has several at once. Some come as they were sent.
    wait_until("three pings in a period", DEADLINE, || {
        manager.hear();
        let is_kept = |four: &[Instant]| (70..=105).contains(&(four[3] - four[0]).as_millis());
        pings(&manager).windows(4).any(is_kept).then_some(())
    });
    // Late or not, there are no more than that.
    manager.longest_silence(Duration::from_secs(1));
    let (number, span) = (pings(&manager).len() as u128, begun.elapsed());
    assert!(number <= span.as_millis() / 33 + 1, "{number} in {span:?}");
}

#[test] // O-SD-08, O-DT-11: a pool that is busy at its limit is left alone, and a parent whose loop never turns again is not
fn wedged_parent_is_killed_and_a_busy_one_is_not() {
    let period = Duration::from_secs(2);
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("gate");
    std::fs::write(&gate, "").unwrap();
    let mut service = Service::start(period, || program(&format!("{} --health-ms 300 --wedge", pool(2))));
    service.wait("a Daemon that is ready", |service| service.is_ready().then_some(()));
    let (first, addr) = (service.running.pid(), service.running.listening_addr());
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(addr)).collect();
    clients.iter_mut().for_each(|client| client.send(format!("gate {}\r\n", gate.display())));
    service.wait("children that are all busy, and clients that wait", |service| {
        let is_busy =
            |said: &Datagram| said.get("STATUS").is_some_and(|text| text.contains("(2 busy, 0 idle), queue 2"));
        service.manager.said.iter().any(is_busy).then_some(())
    });
    let begun = Instant::now();
    service.wait("more than a period", |_| (begun.elapsed() > period + Duration::from_millis(300)).then_some(()));
    assert!(service.killed.is_empty() && service.running.pid() == first, "{:?}", service.killed);
    service.running.signal(Signal::SIGUSR2);
    service.wait("another Daemon that is ready", |service| {
        (service.running.pid() != first && service.is_ready()).then_some(())
    });
    assert_eq!(service.killed.iter().map(ExitStatusExt::signal).collect::<Vec<_>>(), [Some(libc::SIGABRT)]);
    assert_eq!(service.manager.count("WATCHDOG=trigger"), 0);
    assert!(Client::connect(service.running.listening_addr()).line("x").ends_with(" x"));
}

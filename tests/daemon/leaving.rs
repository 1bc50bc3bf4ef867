//! How the connections of a `component::Server` come to an end that clients do not ask for: idle ones are closed, and a request that
//! was taken is answered.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::component::{answers, expect_end, pool, serve};
use util::lab::{held, pid_of, send};
use util::{Client, DEADLINE, proc, stays, wait_until};

/// How many hundredths of a second of a processor `pid` has used so far.
fn ticks(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    // Behind the name, which may have blanks.
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    [fields[11], fields[12]].iter().map(|field| field.parse::<u64>().expect("a number")).sum()
}

/// How often `pid` has gone to sleep so far.
fn naps(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.and_then(|number| number.trim().parse().ok()).expect("a number")
}

#[test]
fn child_that_is_asked_to_go_sleeps_while_a_client_can_not_be_let_go() {
    let (mut lab, addr) = pool(2, "--connections 5");
    let (mut client, child) = held(addr);
    // A part of a line: nothing is in hand, and the client is not idle.
    client.send("the first ");
    lab.wait_board("kw");
    send(child, Signal::SIGQUIT);
    lab.expect(child, "daemon_pause");
    let before = ticks(child);
    stays("alive", Duration::from_secs(1), || proc::is_alive(child));
    let used = ticks(child) - before;
    assert!(used < 20, "{used} ticks in a second");
    client.send("half\r\n");
    assert!(client.read_line().ends_with(" the first half"));
    expect_end(&mut client);
    lab.wait_gone(&[child]);
    lab.end(Signal::SIGTERM);
}

#[test]
fn request_that_comes_with_the_last_one_is_answered_before_the_end() {
    for args in ["--mode single", "--mode prefork:1 --connections 3"] {
        let (mut lab, addr) = serve(&format!("{args} --grace-ms 60000"));
        let (mut client, _) = held(addr);
        client.send("late 60000\r\n");
        let (mut other, _) = held(addr);
        lab.running.signal(Signal::SIGTERM);
        // It is idle, and so the other connection was told of the end as well.
        expect_end(&mut other);
        // The first line answers the request in hand. The second one is a request of its own.
        client.send("hello\r\nlate 200\r\n");
        assert!(client.read_line().ends_with(" hello"), "{args}");
        assert!(client.read_line().ends_with(" late"), "{args}");
        expect_end(&mut client);
        lab.expect_end();
    }
}

#[test]
fn child_keeps_a_client_whose_request_has_timed_out() {
    let (mut lab, addr) = pool(1, "--connections 3 --limit-ms 1000 --linger-ms 600000");
    let (mut client, _) = held(addr);
    client.send("never\r\n");
    lab.wait_board("r");
    // The client does not close its side, so the connection is still there.
    lab.wait_board("k");
    client.finish_sending();
    lab.wait_board("w");
    lab.end(Signal::SIGTERM);
}

#[test] // D-SP-05
fn child_that_has_had_its_share_closes_idle_connections() {
    let (mut lab, addr) = pool(1, "--connections 5 --requests 3");
    let (mut one, child) = held(addr);
    let (mut two, _) = held(addr);
    let (mut three, last) = held(addr);
    assert_eq!(last, child);
    [&mut one, &mut two, &mut three].into_iter().for_each(expect_end);
    lab.wait_gone(&[child]);
    assert_ne!(held(addr).1, child);
    lab.end(Signal::SIGTERM);
}

#[test]
fn full_process_sleeps_until_a_client_waits_and_lets_the_longest_idle_one_go() {
    for args in ["--mode single --connections 2", "--mode prefork:1 --max 1 --connections 2"] {
        let (mut lab, addr) = serve(args);
        let ((mut first, pid), (mut second, same)) = (held(addr), held(addr));
        assert_eq!(same, pid);
        // A child tells its parent once that nothing is in hand.
        let calm = wait_until("a second without much to do", DEADLINE, || {
            let before = naps(pid);
            stays("alive", Duration::from_secs(1), || proc::is_alive(pid));
            let naps = naps(pid) - before;
            (naps < 5).then_some(naps)
        });
        println!("{args}: {calm} naps in a second");
        let mut third = Client::connect(addr);
        third.send("hello\r\n");
        expect_end(&mut first);
        assert_eq!(pid_of(&third.read_line()), pid);
        // Now that one is, and so on.
        assert_eq!(answers(&mut second), pid);
        assert_eq!(answers(&mut third), pid);
        let mut fourth = Client::connect(addr);
        fourth.send("hello\r\n");
        expect_end(&mut second);
        assert_eq!(pid_of(&fourth.read_line()), pid);
        drop((third, fourth));
        lab.end(Signal::SIGTERM);
    }
}

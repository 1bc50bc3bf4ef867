//! D-BA: children that are out of bounds, and those that only seem to be.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::site::is_root;
use util::lab::{Lab, held, send, tell};
use util::{Client, DEADLINE, Program, at_once, proc, stays, test_program, wait_until};

const ONE: &str = "--start 1 --max 1 --max-spare 1 --requests 0";

/// Waits until the log has the record of the end of `pid`, and returns its line.
#[track_caller]
pub fn record(lab: &Lab, pid: i32) -> String {
    let record = format!("child has ended: pid={pid} ");
    wait_until(&record, DEADLINE, || {
        let log = lab.running.stderr_text();
        log.lines().find(|line| line.contains(&record)).map(str::to_owned)
    })
}

/// What was sent to `pid` as a rogue, in order.
pub fn steps(lab: &Lab, pid: i32) -> Vec<String> {
    let log = lab.running.stderr_text();
    let rogue = format!("child is rogue: pid={pid} ");
    let lines = log.lines().filter(|line| line.contains(&rogue));
    let step = |line: &str| Some(line.rsplit_once(": ")?.1.trim_end_matches(" is sent").to_owned());
    let mut steps: Vec<String> = lines.filter_map(step).collect();
    // On a busy machine a child that was killed may still be there at the next round.
    steps.dedup_by(|next, last| next == last && last == "SIGKILL");
    steps
}

pub fn wait_stopped(pid: i32) {
    wait_until("its stop", DEADLINE, || (proc::stat(pid)?.state == 'T').then_some(()));
}

#[test] // D-BA-01, D-BA-02, D-BA-04: a busy loop, which hears neither INT nor TERM
fn a_busy_loop_is_interrupted_terminated_killed_and_replaced() {
    let (mut lab, addr) = Lab::pool(&format!("{ONE} --babysit-ms 100 --cpu-ms 200 --usr1 status,text"), 1);
    let (mut client, pid) = held(addr);
    client.send("spin\n");
    let record = record(&lab, pid);
    assert!(record.contains("cause=rogue:cpu_limit age=") && record.contains("requests=1"), "{record}");
    assert_eq!(steps(&lab, pid), ["SIGINT", "SIGTERM", "SIGKILL"]);
    lab.wait_board("w");
    assert_ne!(held(addr).1, pid);
    assert!(lab.ask("text").contains("1 children have ended: 1 rogue"));
    lab.end(Signal::SIGTERM);
}

#[test] // D-BA-01, D-BA-04: a blocking sleep in r
fn a_request_that_sleeps_too_long_is_ended() {
    let (mut lab, addr) = Lab::pool(&format!("{ONE} --babysit-ms 100 --request-ms 300"), 1);
    let (mut client, pid) = held(addr);
    client.send("sleep\n");
    let record = record(&lab, pid);
    assert!(record.contains("cause=rogue:request_timeout"), "{record}");
    assert_eq!(steps(&lab, pid), ["SIGINT", "SIGTERM", "SIGKILL"]);
    lab.wait_board("w");
    lab.end(Signal::SIGTERM);
}

#[test] // D-BA-01: in l another limit holds
fn a_long_request_has_a_limit_of_its_own() {
    let (mut lab, addr) = Lab::pool(&format!("{ONE} --babysit-ms 100 --request-ms 60000 --long-ms 300"), 1);
    let (mut client, pid) = held(addr);
    assert_eq!(tell(&mut client, "long"), "ok");
    client.send("sleep\n");
    let record = record(&lab, pid);
    assert!(record.contains("cause=rogue:long_timeout"), "{record}");
    lab.wait_board("w");
    lab.end(Signal::SIGTERM);
}

#[test] // D-BA-02: INT is enough for one that listens; it ends in order
fn a_slow_request_ends_at_the_first_step() {
    let (mut lab, addr) = Lab::pool(&format!("{ONE} --babysit-ms 300 --request-ms 100"), 1);
    let (mut client, pid) = held(addr);
    lab.expect(pid, "daemon_shutdown");
    // It has until the last step to finish.
    client.finish_sending();
    client.expect_eof();
    let record = record(&lab, pid);
    assert!(record.contains("cause=rogue:request_timeout"), "{record}");
    assert_eq!(steps(&lab, pid)[0], "SIGINT");
    lab.wait_board("w");
    lab.end(Signal::SIGTERM);
}

#[test] // D-BA-02: shut down by INT, but never gone: it doesn't count as calmed down
fn one_that_lingers_after_the_first_step_is_killed() {
    let (mut lab, addr) = Lab::pool(&format!("{ONE} --babysit-ms 100 --request-ms 200"), 1);
    let (mut client, pid) = held(addr);
    lab.expect(pid, "daemon_shutdown");
    assert!(record(&lab, pid).contains("cause=rogue:request_timeout"));
    assert_eq!(steps(&lab, pid), ["SIGINT", "SIGTERM", "SIGKILL"]);
    client.expect_eof_or_reset();
    lab.end(Signal::SIGTERM);
}

#[test] // D-SH-03, D-BA-02: a child that ends by itself has no more time than at the end of all
fn a_child_that_does_not_leave_is_killed_and_replaced() {
    at_once(["daemon_prefork", "daemon_postfork"], |program| {
        let pool = if program == "daemon_prefork" { "--start 1 --max-spare 1 --requests 1" } else { "" };
        let (mut lab, addr) = Lab::serve(program, &format!("{pool} --max 1 --linger --babysit-ms 100 --grace-ms 400"));
        let (mut client, pid) = held(addr);
        client.finish_sending();
        client.expect_eof();
        let left = Instant::now();
        lab.wait_board("e");
        let record = record(&lab, pid);
        assert!(record.contains("cause=rogue:shutdown_timeout"), "{program}: {record}");
        assert_eq!(steps(&lab, pid), ["SIGINT", "SIGTERM", "SIGKILL"]);
        assert!(left.elapsed() >= Duration::from_millis(300), "{:?}", left.elapsed());
        assert!(lab.running.stderr_text().contains(&format!("child is rogue: pid={pid} slot=0 why=shutdown_timeout")));
        assert_ne!(held(addr).1, pid);
        lab.end(Signal::SIGTERM);
    });
}

#[test] // D-BA-01: nor has it less time than a request
fn a_child_that_leaves_may_take_as_long_as_a_request() {
    let (mut lab, addr) =
        Lab::pool("--start 1 --max 1 --max-spare 1 --linger --babysit-ms 100 --grace-ms 100 --long-ms 60000", 1);
    let (mut client, pid) = held(addr);
    client.finish_sending();
    client.expect_eof();
    lab.wait_board("e");
    stays("left alone", Duration::from_millis(700), || steps(&lab, pid).is_empty());
    lab.wait_board("e");
    lab.end(Signal::SIGTERM);
}

#[test] // D-BA-02: "one that calms down is forgiven"; D-BA-04: a child that ignores INT and TERM
fn one_that_calms_down_is_forgiven() {
    let (mut lab, addr) = Lab::pool(&format!("{ONE} --deaf --babysit-ms 1000 --request-ms 100 --grace-ms 200"), 1);
    for _ in 0..2 {
        let before = lab.running.stderr_text().matches("rogue cleared").count();
        let (mut client, pid) = held(addr);
        wait_until("INT", DEADLINE, || (steps(&lab, pid).len() > before).then_some(()));
        client.finish_sending();
        client.expect_eof();
        wait_until("its pardon", DEADLINE, || {
            (lab.running.stderr_text().matches("rogue cleared").count() > before).then_some(())
        });
        // The next time it begins with INT again.
        assert!(steps(&lab, pid).iter().all(|step| step == "SIGINT"), "{:?}", steps(&lab, pid));
        lab.wait_board("w");
    }
    lab.end(Signal::SIGTERM);
}

#[test] // D-BA-04: a child that ignores INT and TERM
fn one_that_ignores_int_and_term_is_killed() {
    let (mut lab, addr) = Lab::pool(&format!("{ONE} --deaf --babysit-ms 100 --request-ms 100 --grace-ms 200"), 1);
    let (_client, pid) = held(addr);
    assert!(record(&lab, pid).contains("cause=rogue:request_timeout"));
    assert_eq!(steps(&lab, pid), ["SIGINT", "SIGTERM", "SIGKILL"]);
    lab.end(Signal::SIGTERM);
}

#[test] // D-BA-04, T15: a stopped child, idle and in a request; the pool is back at full strength in time
fn stopped_children_are_replaced_and_then_ended() {
    let (mut lab, addr) = Lab::pool("--start 2 --min-spare 2 --max-spare 4 --max 10 --requests 0 --babysit-ms 300", 2);
    let (client, busy) = held(addr);
    lab.wait_board("rww");
    let idle = lab.running.children().into_iter().find(|&pid| pid != busy).expect("an idle one");
    for pid in [busy, idle] {
        send(pid, Signal::SIGSTOP);
        wait_stopped(pid);
    }
    // It says that it waits, and is no spare all the same.
    lab.wait_board("rwww");
    // At the first step it is continued as well, so that it can end in order.
    let record = record(&lab, idle);
    assert!(record.contains("cause=rogue:stopped"), "{record}");
    wait_until("the busy one's first step", DEADLINE, || (!steps(&lab, busy).is_empty()).then_some(()));
    drop(client);
    lab.end(Signal::SIGTERM);
}

#[test] // T15: connections meanwhile go to those that run
fn nobody_is_left_to_a_stopped_child() {
    let (mut lab, addr) = Lab::pool("--start 2 --min-spare 1 --max-spare 4 --max 10 --requests 0 --babysit-ms 200", 2);
    let stopped = lab.running.children()[0];
    send(stopped, Signal::SIGSTOP);
    wait_stopped(stopped);
    for _ in 0..10 {
        let (_, pid) = held(addr);
        assert!(pid != stopped || steps(&lab, pid).len() == 1);
    }
    lab.end(Signal::SIGTERM);
}

#[test] // D-BA-03, T5: reaped by other code
fn a_child_that_has_vanished_is_noticed_and_replaced() {
    let (mut lab, addr) = Lab::pool_by_signals(&format!("{ONE} --babysit-ms 100 --usr1 steal,text"), 1);
    let text = lab.ask("text");
    let stolen: i32 = lab.nth(1, "stole").1.parse().expect("a pid");
    assert!(text.contains(&format!("{stolen}: w")), "not noticed yet: {text}");
    let record = record(&lab, stolen);
    assert!(record.contains("cause=vanished"), "{record}");
    assert_ne!(held(addr).1, stolen);
    lab.end(Signal::SIGTERM);
    // Nothing was sent to a number that might have been another's by then.
    assert!(!lab.running.stderr_text().contains("can't send"));
}

#[test] // D-BA-03, D-PF-10: the kernel has reaped it in the same slice, and the event is under way
fn a_child_that_ends_while_the_babysitter_comes_round_has_not_vanished() {
    let (mut lab, addr) = Lab::pool("--start 2 --max 4 --min-spare 2 --max-spare 4 --babysit-ms 1", 2);
    for _ in 0..300 {
        held(addr);
    }
    assert!(!lab.running.stderr_text().contains("cause=vanished"));
    lab.end(Signal::SIGTERM);
}

#[test] // D-BA-03, D-SH-05: the babysitter does not come any more
fn what_has_vanished_is_not_waited_for_at_the_end() {
    for words in ["steal,call", "steal-foreign,call"] {
        let args = format!("{ONE} --babysit-ms 60000 --grace-ms 60000 --usr1 {words}");
        let (mut lab, _) = Lab::pool_by_signals(&args, 1);
        lab.running.signal(Signal::SIGUSR1);
        lab.nth(1, "stole");
        lab.expect_end();
        if words == "steal,call" {
            lab.running.wait_for_stderr("cause=vanished", DEADLINE);
        }
    }
}

#[test] // D-BA-03, D-ME-02: other code has waited for a foreign one
fn a_foreign_child_that_has_vanished_is_forgotten() {
    let (mut lab, _) = Lab::pool_by_signals(&format!("{ONE} --babysit-ms 5 --usr1 steal-foreign,awaited"), 1);
    // The child of the pool, and the one that was stolen just now.
    assert_eq!(lab.ask("awaited"), "2");
    wait_until("that none before it is left", DEADLINE, || (lab.ask("awaited") == "2").then_some(()));
    lab.end(Signal::SIGTERM);
}

#[test] // T15: "if the parent was stopped, do not kill all for silence"
fn a_parent_that_was_stopped_does_not_shoot_its_pool() {
    let (mut lab, addr) = Lab::pool(&format!("{ONE} --babysit-ms 200 --request-ms 4000"), 1);
    let (mut client, pid) = held(addr);
    lab.running.signal(Signal::SIGSTOP);
    send(pid, Signal::SIGSTOP);
    wait_stopped(lab.pid());
    wait_stopped(pid);
    let is_stopped = |pid| proc::stat(pid).is_some_and(|stat| stat.state == 'T');
    stays("stopped", Duration::from_millis(4500), || is_stopped(lab.pid()) && is_stopped(pid));
    send(pid, Signal::SIGCONT);
    lab.running.signal(Signal::SIGCONT);
    // The babysitter has come round, more than once.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(1000) {
        assert_eq!(tell(&mut client, "hello"), "hello");
    }
    assert_eq!(steps(&lab, pid), [""; 0]);
    client.finish_sending();
    client.expect_eof();
    lab.wait_board("w");
    assert_eq!(lab.running.children(), [pid]);
    lab.end(Signal::SIGTERM);
}

#[test] // D-BA-05: after its request, and when another is there
fn a_child_with_too_much_memory_is_replaced_first_and_retired_then() {
    let (mut lab, addr) =
        Lab::pool("--start 1 --min-spare 1 --max-spare 1 --max 2 --requests 0 --babysit-ms 100 --memory 40000000", 1);
    let (mut client, pid) = held(addr);
    assert!(tell(&mut client, "eat").starts_with("ate "));
    let line = lab.running.wait_for_stderr("child uses more memory than memory_limit", DEADLINE);
    assert!(line.contains(&format!("pid={pid} slot=0 ")) && line.ends_with(" limit=40000000"), "{line}");
    assert_eq!(tell(&mut client, "hello"), "hello", "the request in hand is finished");
    client.finish_sending();
    client.expect_eof();
    let record = record(&lab, pid);
    assert!(record.contains("cause=memory_limit"), "{record}");
    lab.wait_board("w");
    lab.end(Signal::SIGTERM);
}

#[test] // D-BA-05: "replacement before retirement": the idle one stays until there is another
fn an_idle_child_with_too_much_memory_stays_until_there_is_another() {
    // Every child is over the limit as soon as it is looked at: the program alone has more than a page.
    let (mut lab, addr) =
        Lab::pool("--start 1 --min-spare 1 --max-spare 1 --max 2 --requests 0 --babysit-ms 200 --memory 4096", 1);
    let pid = lab.running.children()[0];
    assert!(record(&lab, pid).contains("cause=memory_limit"));
    let log = lab.running.stderr_text();
    let fork = log.find("is forked into slot 1").expect("a second child");
    let retired = log.find(&format!("child {pid} is retired")).expect("the first is retired");
    assert!(fork < retired, "{log}");
    for _ in 0..10 {
        held(addr);
    }
    lab.end(Signal::SIGTERM);
}

#[test] // D-BA-05: /proc was opened before
fn memory_limit_holds_in_a_chroot() {
    if !is_root() {
        eprintln!("skipped: a chroot needs root");
        return;
    }
    let jail = tempfile::tempdir().expect("a directory");
    let args = "--start 1 --min-spare 1 --max-spare 1 --max 2 --requests 0 --babysit-ms 100 --memory 40000000 --chroot";
    let (mut lab, addr) = Lab::pool(&format!("{args} {}", jail.path().display()), 1);
    let (mut client, pid) = held(addr);
    assert!(!std::fs::exists(format!("/proc/{pid}/root/proc")).expect("its root can be seen"));
    assert!(tell(&mut client, "eat").starts_with("ate "));
    lab.running.wait_for_stderr("child uses more memory than memory_limit", DEADLINE);
    client.finish_sending();
    client.expect_eof();
    let record = record(&lab, pid);
    assert!(record.contains("cause=memory_limit"), "{record}");
    assert!(!lab.running.stderr_text().contains("is not enforced"));
    lab.end(Signal::SIGTERM);
}

/// Starts the pre-forking program where `/proc` shows one thread and nothing else; `None` where that is not allowed.
fn without_proc(args: &str) -> Option<Lab> {
    if !is_root() {
        eprintln!("skipped: another /proc needs root");
        return None;
    }
    let script = "mount -t tmpfs none /proc && mkdir -p /proc/self/task/1 && exec \"$0\" \"$@\"";
    let program = Program::new("unshare").args(["--mount", "/bin/sh", "-c", script]);
    Some(Lab::launch(program.arg(test_program("daemon_prefork")).args(args.split_whitespace())))
}

#[test] // D-BA-05: a limit that limits nothing
fn memory_limit_that_can_not_be_enforced_is_told_once() {
    let Some(mut lab) = without_proc(&format!("{ONE} --babysit-ms 20 --memory 4096")) else { return };
    let addr = lab.running.listening_addr();
    let told = "memory_limit is not enforced: can't read how much memory a child uses: /proc/";
    lab.running.wait_for_stderr(told, DEADLINE);
    let (client, pid) = held(addr);
    // Many rounds.
    stays("said once", Duration::from_millis(500), || {
        lab.running.stderr_text().matches("is not enforced").count() == 1
    });
    assert_eq!(lab.running.children(), [pid]);
    drop(client);
    lab.end(Signal::SIGTERM);
}

#[test] // D-BA-01: the system tells of processor time without it
fn cpu_limit_holds_without_proc() {
    let Some(mut lab) = without_proc(&format!("{ONE} --babysit-ms 100 --cpu-ms 200")) else { return };
    let (mut client, pid) = held(lab.running.listening_addr());
    client.send("spin\n");
    let record = record(&lab, pid);
    assert!(record.contains("cause=rogue:cpu_limit"), "{record}");
    lab.end(Signal::SIGTERM);
}

#[test] // T9: kill one that may have been told of a connection: it is not lost
fn connections_are_served_whoever_is_stopped_and_killed() {
    // Enough for min_spare to the end, so that no new child comes to look.
    let (mut lab, addr) = Lab::pool("--start 8 --min-spare 1 --max-spare 8 --max 8 --requests 0", 8);
    for left in (2..8).rev() {
        // The oldest stands first in the system's list of those to be told.
        let first = lab.running.children()[0];
        send(first, Signal::SIGSTOP);
        wait_stopped(first);
        let mut client = Client::connect(addr);
        client.send("hello\n");
        send(first, Signal::SIGKILL);
        let answer = client.read_line();
        assert!(answer.ends_with("hello"), "{answer}");
        client.finish_sending();
        client.expect_eof();
        lab.wait_board(&"w".repeat(left));
    }
    lab.end(Signal::SIGTERM);
}

#[test]
fn a_child_that_never_reports_wait_is_named_in_the_log() {
    let (mut lab, _) = Lab::serve("daemon_prefork", "--start 1 --max 1 --max-spare 1 --babysit-ms 100 --never-ready");
    let (pid, _) = lab.nth(1, "daemon_child");
    lab.running.wait_for_stderr(
        &format!("gets no requests because it has not reported Wait on daemon_child: pid={pid} slot=0"),
        DEADLINE,
    );
    lab.end(Signal::SIGTERM);
    assert_eq!(lab.running.stderr_text().matches("gets no requests").count(), 1, "it is said once");
}

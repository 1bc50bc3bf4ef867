//! Commands that change something.

use std::fs;
use std::io::Write;

use util::control::{Control, Steered};
use util::{Client, DEADLINE, wait_until};

use super::{LONG, ask, run};

#[test] // O-CT-13
fn retire_and_kill_wait_for_the_childs_end() {
    let steered = Steered::pool(2, "");
    for (command, cause) in [("retire", "cause=retired"), ("kill", "cause=killed")] {
        let child = steered.running.children()[0];
        let out = ask(&steered.path, &format!("{command} {child}")).expect(0);
        assert!(out.contains(&format!("pid {child}")) && out.contains(cause), "{out}");
        assert!(!util::proc::is_alive(child));
        steered.control().wait_status("a successor", |status| (status.pool.states.idle == 2).then_some(()));
        ask(&steered.path, &format!("{command} {child}:7")).expect_error(1);
    }
}

#[test] // O-CT-13: after its work
fn retire_waits_for_the_request_in_hand() {
    let steered = Steered::pool(1, "");
    let child = steered.running.children()[0];
    let gate = steered.dir.path().join("gate");
    fs::write(&gate, "").unwrap();
    let mut client = Client::connect(steered.addr);
    client.send(format!("gate {}\n", gate.display()));
    steered.control().wait_status("a busy child", |status| (status.pool.states.busy == 1).then_some(()));
    let err = ask(&steered.path, &format!("--timeout 300ms retire {child}")).expect_error(4);
    assert!(err.contains("time"), "{err}");
    let out = ask(&steered.path, &format!("retire --no-wait {child}")).expect(0);
    let number = out.trim().strip_prefix("order ").unwrap().to_owned();
    let told = ask(&steered.path, &format!("verdict {number}"));
    assert_eq!((told.code, told.out.trim()), (4, "pending"), "{told:?}");
    fs::remove_file(&gate).unwrap();
    assert!(client.read_line().contains("gate"));
    drop(client);
    wait_until("a verdict", LONG, || {
        let told = ask(&steered.path, &format!("verdict {number}"));
        (told.code == 0).then(|| assert_eq!(told.out.trim(), "applied"))
    });
}

#[test] // O-CT-14
fn resize_changes_all_numbers_or_none_and_goes_back() {
    let steered = Steered::pool(2, "");
    let out = ask(&steered.path, "resize --min-spare 3 --max-spare 4 --max-children 6").expect(0);
    assert_eq!(out, "was min_spare=2 max_spare=2 max_children=2\nis  min_spare=3 max_spare=4 max_children=6\n");
    ask(&steered.path, "resize --min-spare 9").expect_error(6);
    let status = steered.control().status();
    assert_eq!((status.pool.min_spare, status.pool.max_spare, status.pool.limit), (3, 4, 6));
    let out = ask(&steered.path, "resize --reset").expect(0);
    assert!(out.ends_with("is  min_spare=2 max_spare=2 max_children=2\n"), "{out}");
}

#[test] // O-CT-16
fn reopen_without_a_log_file_says_so() {
    let steered = Steered::pool(2, "");
    let out = ask(&steered.path, "reopen").expect(0);
    assert_eq!(out, "there is no log file to open\nthe parent and 2 of 2 children have been told\n");
}

#[test] // O-CT-15, O-CT-16
fn reopen_and_log_level_count_those_who_confirm() {
    let steered = Steered::pool(2, "--dir DIR");
    let log = steered.dir.path().join("log");
    fs::rename(&log, steered.dir.path().join("log.1")).unwrap();
    let out = ask(&steered.path, "reopen").expect(0);
    assert!(out.contains("the parent and 2 of 2 children"), "{out}");
    assert!(fs::read_to_string(&log).unwrap().contains("reopened"));
    let out = ask(&steered.path, "log-level debug --for 60s").expect(0);
    assert!(out.contains("the parent and 2 of 2 children"), "{out}");
    let out = ask(&steered.path, "log-level warn --child 0").expect(0);
    assert!(out.contains("1 of 1 children"), "{out}");
    ask(&steered.path, "log-level loud").expect_error(2);
    ask(&steered.path, "log-level reset").expect(0);
    let state = run(&format!("--pid-file {} status", steered.dir.path().join("pid").display())).expect(0);
    assert!(state.contains("ready"), "{state}");
}

#[test] // O-CT-17, O-CT-18
fn stop_waits_until_the_daemon_has_ended() {
    let mut steered = Steered::pool(1, "");
    let out = ask(&steered.path, "stop").expect(0);
    assert!(out.contains("ended"), "{out}");
    assert_eq!(steered.running.wait_exit(DEADLINE).code(), Some(0));
    ask(&steered.path, "status").expect_error(3);
}

#[test] // O-CT-17: what a program does after `run` is part of it, and its pid file is locked until then
fn stop_waits_until_the_process_is_gone() {
    let steered = Steered::pool(1, "--last-acts-ms 300");
    ask(&steered.path, "stop").expect(0);
    assert!(!util::proc::is_alive(steered.pid()));
}

#[test] // O-CT-17: a faster stop takes the place of a slower one
fn stop_now_does_not_wait_for_requests() {
    let mut steered = Steered::pool(1, "--grace-ms 300");
    let gate = steered.dir.path().join("gate");
    fs::write(&gate, "").unwrap();
    let mut client = Client::connect(steered.addr);
    client.send(format!("gate {}\n", gate.display()));
    steered.control().wait_status("a busy child", |status| (status.pool.states.busy == 1).then_some(()));
    ask(&steered.path, "stop --now").expect(0);
    assert_eq!(steered.running.wait_exit(LONG).code(), Some(0));
}

#[test] // O-CT-08
fn metrics_come_in_both_formats() {
    let steered = Steered::pool(1, "");
    let text = ask(&steered.path, "metrics").expect(0);
    assert!(text.contains("# TYPE lenore_children gauge") && !text.contains("# EOF"), "{text}");
    let text = ask(&steered.path, "metrics --openmetrics").expect(0);
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[test] // O-CT-18: refused, as all places are taken
fn busy_daemon_exits_with_6() {
    let steered = Steered::pool(1, "");
    // One that has just hung up may still have a place.
    let let_in = || {
        let mut client = steered.control();
        let is_sent = client.stream().write_all(b"hello\n").is_ok();
        (is_sent && client.read_answer().last.starts_with("OK")).then_some(client)
    };
    let clients: Vec<Control> = (0..32).map(|_| wait_until("a place", DEADLINE, let_in)).collect();
    for command in
        ["status", "children", "peek", "watch", "top --once", "metrics", "retire 0", "reopen", "stop", "hello"]
    {
        let err = ask(&steered.path, command).expect_error(6);
        assert!(err.contains("clients"), "{command}: {err}");
    }
    drop(clients);
    wait_until("a place", LONG, || (ask(&steered.path, "hello").code == 0).then_some(()));
}

#[test] // O-CT-18: refused, as it ends
fn daemon_that_ends_exits_with_6() {
    let mut steered = Steered::pool(1, "--dir DIR --grace-ms 60000");
    let (_, mut client) = steered.occupy();
    ask(&steered.path, "stop --no-wait").expect(0);
    for command in ["resize --max-children 3", "resize --reset"] {
        let err = ask(&steered.path, command).expect_error(6);
        assert!(err.contains("shutting down"), "{command}: {err}");
    }
    ask(&steered.path, "status").expect(0);
    steered.open();
    client.read_line();
    client.finish_sending();
    assert_eq!(steered.running.wait_exit(DEADLINE).code(), Some(0));
}

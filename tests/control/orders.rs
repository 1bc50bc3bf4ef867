//! Orders: what becomes of them, who hears of it and when, and what the log has of them.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use util::control::{Answer, Control, Steered, audit};
use util::{Client, DEADLINE, proc, wait_until};

fn size(steered: &Steered) -> (u32, u32, u32) {
    let pool = steered.control().status().pool;
    (pool.min_spare, pool.max_spare, pool.limit)
}

/// The children as `SLOT:GENERATION` and pid.
fn children(control: &mut Control) -> Vec<(String, i32)> {
    let status = control.status();
    let named =
        |child: &lenore::daemon::view::ChildView| Some((format!("{}:{}", child.slot, child.generation), child.pid?));
    status.children.iter().filter_map(named).collect()
}

/// Sends a command, and has it taken before anything else is sent: another client is answered.
fn send(steered: &Steered, command: &str) -> Control {
    let mut control = steered.control();
    control.ask("hello").ok();
    control.send(format!("{command}\n"));
    // Two turns, whichever of the two descriptors comes first.
    (0..2).for_each(|_| drop(steered.control().ask("hello").ok()));
    control
}

#[test] // O-CT-14
fn size_is_set_as_a_whole_and_reset() {
    let steered = Steered::pool(3, "");
    let mut control = steered.control();
    let answer = control.ask_json(r#"{"command":"resize","max_children":7,"max_spare":4}"#);
    let sizes = json!({
        "old": {"min_spare": 3, "max_spare": 3, "max_children": 3},
        "new": {"min_spare": 3, "max_spare": 4, "max_children": 7},
    });
    assert_eq!((&answer["verdict"], &answer["data"]), (&json!("applied"), &sizes));
    assert_eq!(size(&steered), (3, 4, 7));
    // Each of these contradicts itself or what is set, and changes nothing.
    for (command, why) in [
        ("min_spare=5", "max_spare (4) would be less than min_spare (5)"),
        ("max_children=9 max_spare=2", "max_spare (2) would be less than min_spare (3)"),
        ("min_spare=0", "min_spare has to be at least 1"),
        ("max_children=0", "one child has to be left"),
        ("max_children=4000000000", "the scoreboard has 16384 slots at most"),
    ] {
        let answer = control.ask(&format!("resize {command}"));
        assert_eq!(answer.code(), "refused", "{command}");
        assert!(answer.last.ends_with(why), "{command}: {}", answer.last);
        assert_eq!(size(&steered), (3, 4, 7), "{command}");
    }
    control.ask("resize --min-spare 4 --max-spare=5").ok();
    control.wait_status("a pool of four", |status| (status.pool.states.idle == 4).then_some(()));
    // TTIN and TTOU go on from there.
    steered.running.signal(Signal::SIGTTIN);
    wait_until("the signal", DEADLINE, || (size(&steered) == (5, 6, 8)).then_some(()));
    steered.running.signal(Signal::SIGTTOU);
    wait_until("the signal", DEADLINE, || (size(&steered) == (4, 5, 7)).then_some(()));
    let text = control.ask("resize --reset").ok();
    assert_eq!(text, "old min_spare=4 max_spare=5 max_children=7\nnew min_spare=3 max_spare=3 max_children=3\n");
    control.wait_status("a pool of three", |status| (status.pool.total == 3).then_some(()));
    assert_eq!(size(&steered), (3, 3, 3));
}

#[test] // O-CT-14
fn server_without_a_pool_has_no_spares_to_set() {
    let steered = Steered::start("--mode fork:3");
    let mut control = steered.control();
    assert_eq!(control.ask("resize min_spare=2").code(), "refused");
    control.ask("resize max_children=1").ok();
    assert_eq!(size(&steered).2, 1);
    let steered = Steered::start("--mode single");
    assert_eq!(steered.control().ask("resize max_children=1").code(), "refused");
}

#[test] // O-CT-13
fn idle_child_is_retired_and_answered_for_when_it_is_gone() {
    let steered = Steered::pool(2, "");
    let mut control = steered.control();
    let before = children(&mut control);
    let (key, pid) = &before[0];
    let answer = control.ask_json(&json!({"command": "retire", "child": key}).to_string());
    assert!(!proc::exists(*pid), "it is reaped");
    assert_eq!(answer["ok"], true, "{answer}");
    let data = &answer["data"];
    assert_eq!((&data["child"], &data["pid"], &data["cause"]), (&json!(key), &json!(pid), &json!("retired")));
    assert!(data["age"].as_f64().is_some_and(|age| age > 0.0) && data["requests"] == 0, "{data}");
    // The pool makes up for it.
    control.wait_status("another one", |status| (status.pool.states.idle == 2).then_some(()));
    // By pid, with an answer in text.
    let (other, pid) = before[1].clone();
    let text = control.ask(&format!("retire {pid}")).ok();
    assert!(text.starts_with(&format!("child={other} pid={pid} cause=retired age=")), "{text}");
    // Neither its key nor its pid is anybody's now.
    for name in [other, pid.to_string()] {
        assert_eq!(control.ask(&format!("retire {name}")).code(), "no_such_child", "{name}");
    }
}

#[test] // O-CT-13: no process but a child is ever meant
fn process_that_is_no_child_is_refused() {
    let steered = Steered::pool(1, "");
    let mut control = steered.control();
    for name in
        [steered.pid().to_string(), std::process::id().to_string(), "1".to_owned(), "0:99".to_owned(), "7:1".to_owned()]
    {
        for command in ["retire", "kill"] {
            assert_eq!(control.ask(&format!("{command} {name}")).code(), "no_such_child", "{command} {name}");
        }
    }
    // A number that is no pid is a slot.
    let (key, pid) = children(&mut control).remove(0);
    let text = control.ask("kill 0").ok();
    assert!(text.starts_with(&format!("child={key} pid={pid} cause=killed ")), "{text}");
}

#[test] // O-CT-13, O-CT-05
fn busy_child_is_retired_after_its_work() {
    for mode in ["prefork:2 --max 2 --min-spare 1 --max-spare 2", "fork:3"] {
        let steered = Steered::start(&format!("--mode {mode}"));
        let (pid, mut client) = steered.occupy();
        let mut waiting = send(&steered, &format!("retire {pid}"));
        let mut other = steered.control();
        other.wait_status("it to be told to go", |status| {
            let told = status.children.iter().find(|child| child.pid == Some(pid))?.told.clone();
            (told.as_deref() == Some("go")).then_some(())
        });
        assert!(proc::is_alive(pid));
        steered.open();
        assert!(client.read_line().contains("gate"), "its request is done");
        client.finish_sending();
        let text = waiting.read_answer().ok();
        assert!(text.contains(&format!("pid={pid} cause=retired ")), "{mode}: {text}");
        assert!(!proc::exists(pid));
    }
}

#[test] // O-CT-13
fn busy_child_is_killed_at_once() {
    let steered = Steered::pool(2, "");
    let (pid, mut client) = steered.occupy();
    let text = steered.control().ask(&format!("kill {pid}")).ok();
    assert!(text.contains(&format!("pid={pid} cause=killed ")), "{text}");
    assert!(!proc::exists(pid));
    client.expect_eof_or_reset();
    steered.control().wait_status("another one", |status| (status.pool.states.idle == 2).then_some(()));
}

#[test] // O-CT-05
fn client_that_goes_away_changes_nothing() {
    let steered = Steered::pool(2, "");
    let (pid, mut client) = steered.occupy();
    drop(send(&steered, &format!("retire {pid}")));
    steered.open();
    client.read_line();
    client.finish_sending();
    wait_until("the child's end", DEADLINE, || (!proc::exists(pid)).then_some(()));
    let lines = audit(&steered.running, &format!("retire {pid}"));
    assert!(lines[0].contains(" verdict=applied "), "{lines:?}");
}

#[test] // O-CT-17
fn verdict_can_be_asked_for_later() {
    let steered = Steered::pool(2, "");
    let (pid, client) = steered.occupy();
    let mut control = steered.control();
    let accepted = control.ask_json(&json!({"command": "retire", "child": pid, "no_wait": true}).to_string());
    assert_eq!(accepted["verdict"], "accepted");
    let number = accepted["data"]["number"].as_u64().expect("a number");
    let asked = json!({"command": "verdict", "number": number}).to_string();
    assert_eq!(control.ask_json(&asked)["verdict"], "pending");
    let late = control.ask(&format!("kill {pid} timeout=50ms no-wait=false"));
    assert!(late.last.starts_with("OK"), "a kill is quick: {late:?}");
    drop(client);
    let verdict = control.ask_json(&asked);
    assert_eq!((&verdict["verdict"], &verdict["data"]["pid"]), (&json!("applied"), &json!(pid)));
    assert_eq!(control.ask("verdict 4711").code(), "failed");
}

#[test] // O-CT-05, O-CT-17
fn client_stops_waiting_and_the_order_goes_on() {
    let steered = Steered::pool(2, "");
    let (pid, mut client) = steered.occupy();
    let mut control = steered.control();
    let answer = control.ask(&format!("retire {pid} timeout=100ms"));
    assert_eq!(answer.code(), "timeout");
    let number: u64 = answer.last.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(control.ask(&format!("verdict {number}")).last.contains("pending"));
    steered.open();
    client.read_line();
    client.finish_sending();
    let is_over = || {
        let answer = steered.control().ask(&format!("verdict {number}"));
        answer.last.contains("applied").then_some(answer)
    };
    assert!(wait_until("the verdict", DEADLINE, is_over).body.contains("cause=retired"));
}

#[test] // O-CT-17
fn stop_is_answered_at_the_end() {
    for (command, grace) in [("stop", ""), ("stop --now", "--grace-ms 300")] {
        // A child that blocks does not hear that it is to end.
        let mut steered = Steered::pool(2, grace);
        let (pid, mut client) = steered.occupy();
        let mut waiting = send(&steered, command);
        if command == "stop" {
            let mut other = steered.control();
            assert_eq!(other.ask_json(r#"{"command":"hello"}"#)["data"]["phase"], "draining");
            assert_eq!(other.ask("resize max_children=5").code(), "shutting_down");
            assert!(proc::is_alive(pid));
            steered.open();
            assert!(client.read_line().contains("gate"));
            client.finish_sending();
        }
        let Answer { last, .. } = waiting.read_answer();
        assert_eq!(last, "OK applied", "{command}");
        assert!(!proc::exists(pid), "its children are gone");
        assert_eq!(waiting.read_line(), None);
        assert!(steered.running.wait_exit(DEADLINE).success());
        assert!(!steered.path.exists());
    }
}

#[test] // O-CT-17
fn stop_of_a_server_of_one_process_is_answered() {
    for (command, verdict) in [("stop", "applied"), ("stop now", "applied"), ("stop no-wait", "accepted")] {
        let mut steered = Steered::start("--mode single");
        let answer = steered.control().ask(command);
        assert_eq!(answer.last, format!("OK {verdict}"));
        assert!(steered.running.wait_exit(DEADLINE).success());
    }
}

#[test] // O-CT-17
fn quick_stop_supersedes_a_graceful_one() {
    let mut steered = Steered::pool(2, "--grace-ms 1000");
    let (_pid, _client) = steered.occupy();
    let mut graceful = send(&steered, "stop");
    let mut quick = send(&steered, "stop now");
    assert_eq!(graceful.read_answer().code(), "superseded");
    quick.read_answer().ok();
    assert!(steered.running.wait_exit(DEADLINE).success());
}

#[test] // trap: what brings the service back is named
fn supervisor_is_named() {
    let start = |name: &str| Steered::start_with("--mode prefork:1 --max 1", |program| program.env(name, "x"));
    let hello = |control: &mut Control| control.ask_json(r#"{"command":"hello"}"#)["data"]["supervisor"].clone();
    let steered = start("NOTIFY_SOCKET");
    let mut control = steered.control();
    assert_eq!(hello(&mut control), "systemd");
    let answer = control.ask("stop");
    assert!(answer.body.contains("systemd may start the service again"), "{answer:?}");
    // Whatever is started in a shell of a service inherits this.
    let steered = start("INVOCATION_ID");
    let mut control = steered.control();
    assert_eq!(hello(&mut control), Value::Null);
    let answer = control.ask("stop");
    assert_eq!((answer.body.as_str(), answer.last.as_str()), ("", "OK applied"));
}

#[test] // O-CT-16, the parent's part
fn reopen_is_answered_when_the_parent_has_reopened() {
    let steered = Steered::pool(1, "--dir DIR");
    let (log, old) = (steered.dir.path().join("log"), steered.dir.path().join("old"));
    fs::rename(&log, &old).unwrap();
    let mut control = steered.control();
    let answer = control.ask_json(r#"{"command":"reopen"}"#);
    assert_eq!((&answer["ok"], &answer["data"]["children"]), (&Value::from(true), &Value::from(1)));
    assert!(log.exists());
    fs::remove_file(&log).unwrap();
    fs::create_dir(&log).unwrap();
    assert_eq!(control.ask("reopen").code(), "failed");
}

/// This process, as an audit line names it.
fn who() -> String {
    let comm = fs::read_to_string("/proc/self/comm").expect("its name");
    format!("pid={} comm={:?} ", std::process::id(), comm.trim_end())
}

#[test] // O-CT-07
fn each_command_that_changes_something_leaves_one_line() {
    let steered = Steered::pool(2, "");
    let mut control = steered.control();
    control.ask("resize max_children=5").ok();
    assert_eq!(control.ask("resize min_spare=9").code(), "refused");
    assert_eq!(control.ask("kill 99:1").code(), "no_such_child");
    assert_eq!(control.ask("log-level \u{1b}[31m\"x").code(), "usage");
    control.ask("status").ok();
    control.ask("verdict 1").ok();
    for (command, verdict) in [
        ("resize max_children=5", "applied"),
        ("resize min_spare=9", "refused"),
        ("kill 99:1", "no_such_child"),
        ("log-level \u{1b}[31m\"x", "usage"),
    ] {
        let lines = audit(&steered.running, command);
        assert_eq!(lines.len(), 1, "{command}: {lines:?}");
        assert!(lines[0].contains(&format!(" uid={} {}", nix::unistd::geteuid(), who())), "{lines:?}");
        assert!(lines[0].contains(&format!(" verdict={verdict} took=0.")), "{lines:?}");
        assert!(!lines[0].contains('\u{1b}'), "{lines:?}");
    }
    let log = steered.running.stderr_text();
    assert_eq!(log.matches("control: command=").count(), 4, "{log}");
}

#[test] // O-CT-05: a client of the server, while orders are given and taken back
fn server_serves_while_it_is_steered() {
    let steered = Steered::pool(3, "");
    let mut control = steered.control();
    for round in 0..30 {
        control.ask(&format!("resize max_children={}", 3 + round % 4)).ok();
        if let Some((key, _)) = children(&mut control).first() {
            let _ = control.ask(&format!("retire {key}"));
        }
        let mut client = Client::connect(steered.addr);
        assert!(client.line("hello").ends_with("hello"));
    }
    control.ask("resize reset").ok();
}

#[test] // O-CT-05: the orders of a client that has gone
fn orders_that_were_sent_before_a_hang_up_are_carried_out() {
    let steered = Steered::pool(3, "");
    let before = steered.running.children();
    let mut control = steered.control();
    control.send("retire 0\nretire 1\nretire 2\n");
    drop(control);
    wait_until("three successors", DEADLINE, || {
        let children = steered.running.children();
        (children.len() == 3 && children.iter().all(|pid| !before.contains(pid))).then_some(())
    });
    for slot in 0..3 {
        steered.running.wait_for_stderr(&format!("command=\"retire {slot}\""), DEADLINE);
    }
}

#[test] // O-CT-07
fn audit_lines_are_short_and_no_level_switches_them_off() {
    let steered = Steered::pool(1, "");
    let mut control = steered.control();
    control.ask("log-level off").ok();
    control.ask("resize max_children=7").ok();
    steered.running.wait_for_stderr("command=\"resize max_children=7\"", DEADLINE);
    steered.running.wait_for_stderr("command=\"log-level off\"", DEADLINE);
    control.ask(&format!("log-level {}", "\u{1}".repeat(60_000)));
    let line = steered.running.wait_for_stderr("verdict=usage", DEADLINE);
    assert!(line.len() < 2_000, "{} bytes", line.len());
}

//! Orders of an operator: what the log has of them, and that they do not need their client.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use util::control::audit;
use util::{Client, DEADLINE, kill, proc, wait_until};

use super::changing::{Changing, lenorectl};
use super::upgrading::{loading, pid_file, pool, status, upgrade, wait_alone};

/// The one line about a command of `lenorectl` says who, and what came of it.
#[track_caller]
fn is_audited(changing: &Changing, command: &str, verdicts: &[&str]) {
    let lines = audit(&changing.running, command);
    assert_eq!(lines.len(), verdicts.len(), "{lines:?}");
    for (line, verdict) in lines.iter().zip(verdicts) {
        let (_, rest) = line.split_once(&format!(" uid={} pid=", nix::unistd::geteuid())).expect("a user and a pid");
        let (pid, rest) = rest.split_once(' ').expect("more");
        assert!(pid.parse::<i32>().is_ok_and(|pid| pid > 1), "{line}");
        let took = rest.strip_prefix(&format!("comm=\"lenorectl\" verdict={verdict} took="));
        assert!(took.is_some_and(|took| took.parse::<f64>().is_ok_and(|took| took >= 0.0)), "{line}");
    }
}

#[test] // O-CT-07
fn each_order_leaves_one_audit_line() {
    let changing = pool(2, 0, "--grace-ms 500");
    let ask = |command: &str, code| {
        let out = lenorectl(&changing.socket, command);
        assert_eq!(out.code, code, "{command}: {out:?}");
    };
    ask("reopen", 0);
    is_audited(&changing, "reopen", &["applied"]);
    changing.write("nonsense\n");
    ask("check", 1);
    ask("reload", 1);
    changing.write("child=die\n");
    ask("reload", 1);
    changing.write("value=b\n");
    ask("check", 0);
    ask("reload", 0);
    is_audited(&changing, "check", &["rejected", "applied"]);
    is_audited(&changing, "reload", &["rejected", "rolled_back", "applied"]);
    ask("finish", 6);
    let mut client = Client::connect(changing.addr);
    client.send("late 60000\r\n");
    changing.control().wait_status("a busy child", |status| (status.pool.states.busy == 1).then_some(()));
    upgrade(&changing);
    is_audited(&changing, "upgrade", &["applied"]);
    ask("upgrade --program /none", 6);
    is_audited(&changing, "upgrade program=/none", &["refused"]);
    ask("finish", 0);
    is_audited(&changing, "finish", &["refused", "applied"]);
    wait_alone(&changing);
    ask("stop --now", 0);
    is_audited(&changing, "stop now", &["applied"]);
}

#[test] // O-CT-05
fn reload_goes_on_without_its_client() {
    let changing = pool(2, 0, "");
    changing.write("value=b\nchild=slow\n");
    let mut asker = changing.control();
    asker.send("reload\n");
    changing
        .control()
        .wait_status("a canary", |status| (status.reloads.stage.as_deref() == Some("canary")).then_some(()));
    drop(asker);
    changing.wait_log("reload is applied: edition=2");
    changing.wait_value("b");
    assert!(audit(&changing.running, "reload")[0].contains(" verdict=applied "));
}

#[test] // O-CT-05
fn upgrade_goes_on_without_its_client() {
    let changing = pool(2, 0, "");
    let old = changing.running.pid();
    changing.write("value=b\nchild=slow\n");
    let mut asker = changing.control();
    asker.send("upgrade\n");
    changing.control().wait_status("a new program", |status| status.upgrades.stage.as_deref().map(|_| ()));
    drop(asker);
    let new = wait_until("a new process", DEADLINE, || Some(pid_file(&changing)).filter(|pid| *pid != old));
    wait_alone(&changing);
    assert_eq!(status(&changing).service.pid, new as u32);
    changing.wait_value("b");
    assert!(audit(&changing.running, "upgrade")[0].contains(" verdict=applied "));
}

#[test] // O-CT-05: and the request in hand is answered
fn stop_goes_on_without_its_client() {
    let mut changing = pool(2, 0, "");
    let mut client = Client::connect(changing.addr);
    client.line("x");
    client.send("late 1000\r\n");
    changing.control().wait_status("a busy child", |status| (status.pool.states.busy == 1).then_some(()));
    let mut asker = changing.control();
    asker.send("stop\n");
    let mut other = changing.control();
    wait_until("the end to begin", DEADLINE, || {
        (other.ask_json(r#"{"command":"hello"}"#)["data"]["phase"] == "draining").then_some(())
    });
    drop((asker, other));
    let answer = client.read_line();
    assert!(answer.contains(" late 1000"), "{answer}");
    client.expect_eof();
    assert!(changing.running.wait_exit(DEADLINE).success(), "{}", changing.running.stderr_text());
    assert!(audit(&changing.running, "stop")[0].contains(" verdict=applied "));
}

#[test] // O-CT-17, O-UP-03: whoever says "now" does not wait for a new process that hangs
fn stop_now_ends_a_new_process_that_hangs() {
    for slower in [None, Some("stop no-wait")] {
        let mut changing = pool(2, 1000, "--grace-ms 60000");
        let new = loading(&changing, "value=b\nchild=hang\n");
        kill(new, Signal::SIGSTOP).expect("it lives");
        let mut control = changing.control();
        if let Some(slower) = slower {
            control.ask(slower).ok();
            changing.wait_log("upgrade is superseded");
        }
        let begun = Instant::now();
        assert_eq!(control.ask("stop now").last, "OK applied");
        assert!(!proc::is_alive(new));
        assert!(changing.running.wait_exit(DEADLINE).success(), "{}", changing.running.stderr_text());
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
        assert_eq!(changing.running.descendants_alive(), [0; 0]);
    }
}

#[test] // O-UP-03: its children have the time that those of the old process have
fn stop_now_waits_for_the_children_of_a_new_process() {
    let mut changing = pool(2, 1000, "--grace-ms 1400");
    let new = loading(&changing, "value=b\nchild=hang\n");
    let begun = Instant::now();
    assert_eq!(changing.control().ask("stop now").last, "OK applied");
    assert!(begun.elapsed() >= Duration::from_millis(1300), "{:?}", begun.elapsed());
    assert!(!proc::is_alive(new));
    assert!(changing.running.wait_exit(DEADLINE).success(), "{}", changing.running.stderr_text());
    assert_eq!(
        (changing.running.descendants_alive(), changing.logged("successor has not ended in time")),
        (Vec::new(), 0)
    );
}

#[test] // O-UP-06, O-RL-10: a child that does not hear is killed after as long a time as one that a reload has replaced
fn finish_waits_two_seconds_for_children_and_not_shutdown_timeout() {
    let pools = ["reload", "upgrade"].map(|how| {
        let changing = pool(1, 0, "--grace-ms 60000 --surge 1");
        let mut client = Client::connect(changing.addr);
        client.send("block 600000\r\n");
        changing.control().wait_status("a busy child", |status| (status.pool.states.busy == 1).then_some(()));
        let child = changing.children()[0];
        assert_eq!(lenorectl(&changing.socket, how).code, 0, "{}", changing.running.stderr_text());
        (how, changing, child, client)
    });
    let begun = Instant::now();
    for (how, changing, ..) in &pools {
        let finished = lenorectl(&changing.socket, "finish");
        assert_eq!(finished.code, 0, "{how}: {finished:?}");
    }
    for (how, changing, child, _client) in pools {
        wait_until("a child that is gone", DEADLINE, || (!changing.children().contains(&child)).then_some(()));
        let took = begun.elapsed();
        assert!(Duration::from_millis(1500) < took && took < Duration::from_secs(8), "{how}: {took:?}");
    }
}

//! Commands that only look.

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use lenore::daemon::view::Snapshot;
use util::control::Steered;
use util::http::{get, status_address};
use util::{Client, DEADLINE, Program, kill, test_program, wait_until};

use super::{LONG, ask, run};

#[test] // O-CT-08
fn hello_names_the_daemon() {
    let steered = Steered::pool(1, "");
    let out = ask(&steered.path, "hello").expect(0);
    for line in ["protocol: 1".to_owned(), format!("pid: {}", steered.pid()), "phase: ready".to_owned()] {
        assert!(out.lines().any(|said| said == line), "{out}");
    }
}

#[test] // O-CT-10, O-ST-13, O-ST-17
fn status_and_children_are_text_or_json() {
    let steered = Steered::pool(2, "");
    let out = ask(&steered.path, "status").expect(0);
    assert!(out.contains("ready") && out.contains("ww"), "{out}");
    let status: Snapshot = serde_json::from_str(&ask(&steered.path, "status --json").expect(0)).unwrap();
    assert_eq!((status.schema, status.pool.total, status.service.pid as i32), (1, 2, steered.pid()));
    let out = ask(&steered.path, "children").expect(0);
    let json: serde_json::Value = serde_json::from_str(&ask(&steered.path, "children --json").expect(0)).unwrap();
    for child in steered.running.children() {
        assert!(out.contains(&child.to_string()), "{out}");
        let row = json["children"].as_array().unwrap().iter().find(|row| row["pid"] == child).unwrap();
        assert!(row["usage"]["resident"].as_u64().unwrap() > 0, "{row}");
    }
}

#[test] // O-SD-18: the exec probes say what the HTTP probes say
fn live_and_ready_answer_as_the_status_listener_does() {
    let mut steered = Steered::pool(1, "--status 127.0.0.1:0 --grace-ms 60000");
    let status = status_address(&steered.running);
    assert_eq!((get(status, "/live").body, get(status, "/ready").body), ("alive\n".into(), "ready\n".into()));
    assert_eq!(ask(&steered.path, "live").expect(0), "alive\n");
    assert_eq!(ask(&steered.path, "ready").expect(0), "ready\n");
    assert_eq!(steered.control().ask("ready").last, "OK done");
    // It has a request in hand, and was told to end.
    let (_, mut client) = steered.occupy();
    steered.control().wait_status("a busy child", |status| (status.pool.states.busy == 1).then_some(()));
    assert_eq!(ask(&steered.path, "ready").expect(0), "ready\n", "busy is ready");
    steered.running.signal(Signal::SIGQUIT);
    let why = wait_until("a Daemon that is not ready", DEADLINE, || {
        let answer = get(status, "/ready");
        (answer.status == 503).then_some(answer.body)
    });
    assert_eq!(ask(&steered.path, "ready").expect_error(1), format!("lenorectl: {why}"));
    assert_eq!(steered.control().ask("ready").last, format!("ERR failed {}", why.trim_end()));
    assert_eq!(ask(&steered.path, "live").expect(0), "alive\n");
    steered.open();
    client.read_line();
    drop(client);
    steered.running.wait_exit(DEADLINE);
    for probe in ["live", "ready"] {
        ask(&steered.path, probe).expect_error(3);
    }
}

#[test] // O-SD-08, O-SD-18
fn live_says_why_a_daemon_needs_a_restart() {
    // Only the first child is ever ready.
    let inject = (2..60).map(|number| format!("daemon.child.ready=exit:3#{number}")).collect::<Vec<_>>().join(",");
    let args = "--mode prefork:1 --max 1 --min-spare 1 --max-spare 1 --health-ms 300";
    let steered = Steered::start_with(args, |program| program.env("LENORE_INJECT", inject));
    steered.control().wait_status("a child that waits", |status| (status.pool.states.idle == 1).then_some(()));
    kill(steered.running.children()[0], Signal::SIGKILL).unwrap();
    // Each question is a look, too, so the time counts from the first one on.
    let failed = wait_until("a dead pool", DEADLINE, || Some(ask(&steered.path, "live")).filter(|out| out.code != 0));
    let why = failed.expect_error(1);
    assert!(why.starts_with("lenorectl: no child has been ready for "), "{why}");
    assert_eq!(ask(&steered.path, "ready").expect_error(1), "lenorectl: no child is ready\n");
}

#[test] // O-ST-12: on request, as that takes its time
fn children_show_their_share_of_memory_on_request() {
    let steered = Steered::pool(2, "");
    let out = ask(&steered.path, "children").expect(0);
    assert!(!out.contains("PSS"), "{out}");
    let out = ask(&steered.path, "children --pss").expect(0);
    assert!(out.lines().next().is_some_and(|titles| titles.contains("MEMORY  ") && titles.contains("PSS")), "{out}");
    let json: serde_json::Value = serde_json::from_str(&ask(&steered.path, "children --pss --json").expect(0)).unwrap();
    let children = json["children"].as_array().unwrap();
    assert_eq!(children.len(), 2);
    for child in children {
        let [share, resident] = ["proportional", "resident"].map(|what| child["usage"][what].as_u64().unwrap());
        // What a child shares with its parent counts in part.
        assert!(share > 0 && share < resident, "{child}");
    }
}

#[test] // O-CT-10, O-CT-11
fn peek_shows_sessions_of_parent_and_child() {
    let steered = Steered::pool(1, "");
    let child = steered.running.children()[0];
    let out = ask(&steered.path, "peek").expect(0);
    assert!(out.contains(&steered.pid().to_string()), "{out}");
    for name in [child.to_string(), "0".to_owned(), "0:1".to_owned()] {
        let out = ask(&steered.path, &format!("peek {name}")).expect(0);
        assert!(out.contains(&child.to_string()) && out.contains("we are a child"), "{name}: {out}");
    }
    let err = ask(&steered.path, "peek 99:1").expect_error(1);
    assert!(err.contains("99:1"), "{err}");
}

#[test] // O-CT-11
fn peek_describes_a_child_that_does_not_answer() {
    let steered = Steered::pool(1, "");
    let child = steered.running.children()[0];
    let gate = steered.dir.path().join("gate");
    fs::write(&gate, "").unwrap();
    let mut client = Client::connect(steered.addr);
    client.send(format!("gate {}\n", gate.display()));
    steered.control().wait_status("a busy child", |status| (status.pool.states.busy == 1).then_some(()));
    let outcome = ask(&steered.path, &format!("peek {child}"));
    assert!(outcome.out.contains("state=r") && outcome.out.contains("process: "), "{outcome:?}");
    assert!(outcome.err.contains("not answered"), "{outcome:?}");
    outcome.expect(4);
    fs::remove_file(&gate).unwrap();
    client.read_line();
    ask(&steered.path, &format!("peek {child}")).expect(0);
}

#[test] // O-CT-20
fn watch_tells_of_deaths_and_forks_until_the_daemon_ends() {
    let mut steered = Steered::pool(1, "--grace-ms 500");
    let child = steered.running.children()[0];
    let program = Program::new(test_program("lenorectl"));
    let socket = steered.path.to_str().unwrap().to_owned();
    let mut watcher = program.args(["--socket", &socket, "watch"]).start();
    // Watching has begun when something is seen.
    let seen = wait_until("an event", LONG, || {
        ask(&steered.path, "resize --max-children 3").expect(0);
        watcher.try_next_line(DEADLINE / 10)
    });
    assert!(seen.contains(" resize "), "{seen}");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), Signal::SIGKILL).unwrap();
    let death = std::iter::from_fn(|| Some(watcher.next_line(LONG))).find(|line| line.contains(" death ")).unwrap();
    assert!(
        death.contains(&format!("pid={child}")) && death.contains("cause=signal:9") || death.contains("SIGKILL"),
        "{death}"
    );
    std::iter::from_fn(|| Some(watcher.next_line(LONG))).find(|line| line.contains(" fork ")).unwrap();
    steered.running.signal(Signal::SIGTERM);
    steered.running.wait_exit(LONG);
    assert_eq!(watcher.wait_exit(LONG).code(), Some(0), "{}", watcher.stderr_text());
}

#[test] // O-CT-21
fn top_shows_the_oldest_request_first() {
    let steered = Steered::pool(3, "");
    let gate = steered.dir.path().join("gate");
    fs::write(&gate, "").unwrap();
    let mut clients = Vec::new();
    for number in 1..=2 {
        let mut client = Client::connect(steered.addr);
        client.send(format!("gate {}\n", gate.display()));
        clients.push(client);
        steered.control().wait_status("busy children", |status| (status.pool.states.busy == number).then_some(()));
    }
    let out = ask(&steered.path, "top --once").expect(0);
    let snapshot: Snapshot = serde_json::from_str(&ask(&steered.path, "top --json").expect(0)).unwrap();
    let busy = |child: &&lenore::daemon::view::ChildView| child.state == 'r';
    let mut oldest: Vec<_> = snapshot.children.iter().filter(busy).collect();
    oldest.sort_by(|one, other| other.since.seconds_ago.total_cmp(&one.since.seconds_ago));
    let place = |pid: i32| out.find(&format!(" {pid} ")).unwrap_or_else(|| panic!("{pid} is missing: {out}"));
    let idle = snapshot.children.iter().find(|child| child.state == 'w').unwrap();
    let places: Vec<usize> = oldest.iter().chain([&idle]).map(|child| place(child.pid.unwrap())).collect();
    assert!(places.is_sorted(), "{out}");
    fs::remove_file(&gate).unwrap();
}

#[test] // O-CT-21: on a terminal
fn top_is_live_and_ends_with_q() {
    let steered = Steered::pool(2, "");
    let (command, socket) = (test_program("lenorectl"), steered.path.display());
    let command = format!("stty rows 40 cols 120; {} --socket {socket} top", command.display());
    let mut script = Command::new("script")
        .args(["-q", "-e", "-c", &command, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("util-linux has script");
    let mut out = script.stdout.take().unwrap();
    let (sender, screen) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = out.read(&mut bytes) {
            let _ = sender.send(String::from_utf8_lossy(&bytes[..count]).into_owned());
        }
    });
    let child = steered.running.children()[0].to_string();
    let mut seen = String::new();
    wait_until("the children on the screen", LONG, || {
        seen.extend(screen.try_iter());
        seen.contains(&child).then_some(())
    });
    let mut keys = script.stdin.take().unwrap();
    keys.write_all(b"q").unwrap();
    let status = wait_until("the end of top", LONG, || script.try_wait().unwrap());
    assert_eq!(status.code(), Some(0), "{seen}");
}

#[test]
fn completions_and_help_need_no_daemon() {
    let script = run("completions bash").expect(0);
    let checked = Command::new("bash").args(["-n", "-c", &script]).status().unwrap();
    assert!(checked.success() && script.contains("lenorectl"));
    let help = run("--help").expect(0);
    for command in [
        "status",
        "children",
        "peek",
        "watch",
        "top",
        "metrics",
        "resize",
        "retire",
        "kill",
        "reopen",
        "log-level",
        "stop",
        "hello",
    ] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(command)), "{help}");
        assert!(run(&format!("{command} --help")).expect(0).contains("Usage: lenorectl"));
    }
    assert!(help.contains("Exit codes"), "{help}");
}

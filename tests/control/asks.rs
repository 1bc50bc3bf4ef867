//! What only the children know or can do: their sessions, their log level, their log file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use util::control::Steered;
use util::{Client, DEADLINE, at_once, kill, wait_until};

/// A child that does not return to its loop, as long as its gate is there.
#[track_caller]
fn stuck(steered: &Steered, gate: &Path) -> Client {
    fs::write(gate, "").unwrap();
    let mut client = Client::connect(steered.addr);
    client.send(format!("gate {}\n", gate.display()));
    steered.control().wait_status("a busy child", |status| (status.pool.states.busy == 1).then_some(()));
    client
}

#[track_caller]
fn peek(steered: &Steered, child: impl std::fmt::Display) -> serde_json::Value {
    let answer = steered.control().ask_json(&format!(r#"{{"command":"peek","child":"{child}"}}"#));
    assert_eq!(answer["ok"], true, "{answer}");
    answer["data"].clone()
}

/// Leaves a process no descriptor beyond those that it has open.
#[track_caller]
pub(crate) fn open_no_more(pid: i32) {
    let limit = nix::libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is read, and nothing is written.
    let set = unsafe { nix::libc::prlimit(pid, nix::libc::RLIMIT_NOFILE, &limit, std::ptr::null_mut()) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

#[test] // O-CT-11
fn an_idle_child_shows_its_own_sessions() {
    let steered = Steered::pool(2, "");
    for pid in steered.running.children() {
        let data = peek(&steered, pid);
        assert_eq!((data["answered"].as_bool(), data["pid"].as_i64()), (Some(true), Some(pid.into())), "{data}");
        let text = data["text"].as_str().unwrap();
        for said in ["we are a child", "(Daemon)", "TERM -> terminated", "), watched: SocketFactory ", "event queue: "]
        {
            assert!(text.contains(said), "{said}: {text}");
        }
    }
}

#[test] // O-CT-11: in its loop, with something in hand
fn a_busy_child_in_its_loop_shows_its_sessions() {
    let steered = Steered::pool(1, "");
    let pid = steered.running.children()[0];
    let mut client = Client::connect(steered.addr);
    client.send("late 600000\n");
    steered.control().wait_status("a busy child", |status| (status.pool.states.busy == 1).then_some(()));
    let text = peek(&steered, pid)["text"].as_str().unwrap().to_owned();
    // The alarm of the connection's session and its watcher; and the child accepts no other client meanwhile.
    for said in [" s: late\n", "alarm from session ", "), watched: ReadWrite ", "), not watched: SocketFactory "] {
        assert!(text.contains(said), "{said}: {text}");
    }
}

#[test] // O-CT-11: forked for one request
fn a_child_of_a_post_forking_daemon_shows_its_sessions() {
    let steered = Steered::start("--mode fork:4");
    let mut client = Client::connect(steered.addr);
    client.send("late 600000\n");
    let pid = wait_until("a child", DEADLINE, || steered.running.children().first().copied());
    steered.control().wait_status("a busy child", |status| (status.pool.states.busy == 1).then_some(()));
    let text = peek(&steered, pid)["text"].as_str().unwrap().to_owned();
    assert!(text.contains("late"), "{text}");
}

#[test] // O-CT-11
fn a_stuck_child_is_described_from_outside_and_said_not_to_have_answered() {
    let steered = Steered::pool(1, "");
    let pid = steered.running.children()[0];
    let gate = steered.dir.path().join("gate");
    let mut client = stuck(&steered, &gate);
    let data = peek(&steered, pid);
    assert_eq!(data["answered"], false, "{data}");
    let text = data["text"].as_str().unwrap();
    for said in ["has not answered", "slot: state=r", "process: ", "user="] {
        assert!(text.contains(said), "{text}");
    }
    // It was not asked for ever: it goes on, and answers the next time.
    fs::remove_file(&gate).unwrap();
    assert!(client.read_line().contains("gate"));
    assert_eq!(peek(&steered, pid)["answered"], true);
}

#[test] // O-CT-11
fn a_stopped_child_is_described_and_stays_stopped() {
    let steered = Steered::pool(1, "");
    let pid = steered.running.children()[0];
    kill(pid, Signal::SIGSTOP).unwrap();
    wait_until("a stopped child", DEADLINE, || {
        util::proc::stat(pid).is_some_and(|stat| stat.state == 'T').then_some(())
    });
    let data = peek(&steered, pid);
    assert_eq!(data["answered"], false, "{data}");
    let text = data["text"].as_str().unwrap();
    let line = |subject: &str| text.lines().find_map(|line| line.strip_prefix(subject));
    let process = line("process: is stopped user=").unwrap_or_else(|| panic!("{text}"));
    let used = process.split_once(" s system=").and_then(|(user, rest)| Some((user, rest.strip_suffix(" s")?)));
    assert!(used.is_some_and(|(user, system)| [user, system].iter().all(|used| used.parse::<f64>().is_ok())), "{text}");
    // Where it sleeps and in which call, as this process may read it: nothing changes while it is stopped.
    for (subject, file) in [("sleeps in: ", "wchan"), ("system call: ", "syscall")] {
        let found = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let found = Some(found.trim()).filter(|found| !["", "0"].contains(found));
        assert_eq!(line(subject), found, "{text}");
    }
    assert_eq!(util::proc::stat(pid).map(|stat| stat.state), Some('T'));
}

#[test] // O-CT-11: and for how long
fn a_child_that_does_not_answer_is_said_to_have_been_so_for_how_long() {
    let steered = Steered::pool(1, "");
    let pid = steered.running.children()[0];
    let gate = steered.dir.path().join("gate");
    let _client = stuck(&steered, &gate);
    let age = || steered.control().status().children[0].since.seconds_ago;
    let before = age();
    let text = peek(&steered, pid)["text"].as_str().unwrap().to_owned();
    let after = age();
    let (_, said) = text.split_once("slot: state=r for=").unwrap_or_else(|| panic!("{text}"));
    let said: f64 =
        said.split_once(" s requests=1 peer=\"127.0.0.1\"").unwrap_or_else(|| panic!("{text}")).0.parse().unwrap();
    // It is told with one decimal.
    assert!((before - 0.1..=after + 0.1).contains(&said), "{before} {said} {after}");
    assert!(said >= 0.9, "it had a second to answer: {text}");
}

#[test] // O-CT-11: a question does not end a child that can't answer it
fn a_child_without_descriptors_is_described_and_lives_on() {
    let steered = Steered::pool(1, "");
    let pid = steered.running.children()[0];
    open_no_more(pid);
    let data = peek(&steered, pid);
    assert_eq!(data["answered"], false, "{data}");
    steered.running.wait_for_stderr("can't show its sessions", DEADLINE);
    assert_eq!(steered.running.children(), [pid]);
}

#[test] // O-CT-11: killed while it is asked
fn a_child_that_ends_meanwhile_is_said_to() {
    let steered = Steered::pool(1, "");
    let pid = steered.running.children()[0];
    let gate = steered.dir.path().join("gate");
    let _client = stuck(&steered, &gate);
    let mut control = steered.control();
    control.send(format!("peek {pid}\n"));
    // Asked by now: commands of two clients are taken in the order in which they come.
    steered.control().status();
    kill(pid, Signal::SIGKILL).unwrap();
    let answer = control.read_answer();
    assert!(answer.body.contains("ended meanwhile"), "{answer:?}");
}

#[test] // O-CT-12
fn no_descriptor_stands_open_for_it() {
    let one = Steered::pool(1, "");
    let many = Steered::pool(20, "");
    let count = |steered: &Steered| util::proc::fewest_fds(steered.pid());
    // Connections of the start may still be there.
    let before = wait_until("as many descriptors with many children", DEADLINE, || {
        (count(&one) == count(&many)).then(|| count(&one))
    });
    let child = many.running.children()[7];
    let childs = util::proc::fds(child);
    for _ in 0..50 {
        peek(&many, child);
    }
    wait_until("as many descriptors as before", DEADLINE, || (count(&many) == before).then_some(()));
    assert_eq!(util::proc::fds(child), childs);
}

#[test] // O-CT-12
fn parent_has_as_many_descriptors_with_many_children_as_with_none() {
    let steered = Steered::start("--mode fork:40");
    let mut control = steered.control();
    control.ask("peek").ok();
    let count = || util::proc::fewest_fds(steered.pid());
    let before = count();
    let mut clients: Vec<Client> = (0..30).map(|_| Client::connect(steered.addr)).collect();
    clients.iter_mut().for_each(|client| client.send("late 600000\n"));
    control.wait_status("busy children", |status| (status.pool.states.busy == 30).then_some(()));
    assert_eq!(count(), before);
    for child in steered.running.children() {
        let answer = control.ask_json(&format!(r#"{{"command":"peek","child":"{child}"}}"#));
        assert_eq!(answer["data"]["answered"], true, "{answer}");
    }
    assert_eq!(count(), before);
}

#[test] // O-CT-16
fn reopen_counts_who_has_opened_the_log_again() {
    let steered = Steered::pool(3, "--dir DIR");
    let path = steered.dir.path().join("log");
    fs::rename(&path, steered.dir.path().join("log.1")).unwrap();
    let answer = steered.control().ask_json(r#"{"command":"reopen"}"#);
    assert_eq!((&answer["verdict"], &answer["data"]["children"]), (&"applied".into(), &3.into()), "{answer}");
    assert_eq!(
        (&answer["data"]["confirmed"], &answer["data"]["missing"]),
        (&3.into(), &serde_json::json!([])),
        "{answer}"
    );
    let path = path.to_str().unwrap();
    assert_eq!(answer["data"]["log_file"], path, "{answer}");
    let log = fs::read_to_string(path).unwrap();
    for pid in steered.running.children().into_iter().chain([steered.pid()]) {
        assert!(log.contains(&format!("process {pid} has reopened")), "{log}");
        let fds = util::proc::fds(pid);
        assert_eq!([&fds[&1], &fds[&2]], [path; 2], "process {pid}");
    }
    assert_eq!(steered.control().ask("reopen").body, "children=3 confirmed=3\n");
}

#[test] // O-CT-16
fn reopen_names_who_could_not() {
    let steered = Steered::pool(2, "--dir DIR");
    let child = steered.control().status().children[1].clone();
    let (pid, log) = (child.pid.unwrap(), steered.dir.path().join("log"));
    open_no_more(pid);
    fs::rename(&log, steered.dir.path().join("log.1")).unwrap();
    let answer = steered.control().ask_json(r#"{"command":"reopen"}"#);
    let (data, names) = (&answer["data"], serde_json::json!([format!("{}:{}", child.slot, child.generation)]));
    assert_eq!((&data["children"], &data["confirmed"]), (&2.into(), &1.into()), "{answer}");
    assert_eq!((&data["failed"], &data["missing"]), (&names, &serde_json::json!([])), "{answer}");
    let old = fs::read_to_string(steered.dir.path().join("log.1")).unwrap();
    let told =
        old.lines().find(|line| line.contains("the old log file stays in use")).unwrap_or_else(|| panic!("{old}"));
    assert!(told.ends_with(&format!("pid={pid}")), "{told}");
}

#[test] // O-CT-16
fn reopen_without_a_log_file_says_so() {
    for (steered, children) in [(Steered::pool(2, ""), 2), (Steered::start("--mode single"), 0)] {
        let answer = steered.control().ask("reopen");
        assert_eq!(answer.last, "OK applied");
        assert!(answer.body.contains(&format!("children={children} confirmed={children}")), "{answer:?}");
        assert!(answer.body.contains("there is no log file to open"), "{answer:?}");
        let answer = steered.control().ask_json(r#"{"command":"reopen"}"#);
        assert_eq!((&answer["verdict"], &answer["data"]["log_file"]), (&"applied".into(), &serde_json::Value::Null));
        assert_eq!(answer["data"]["children"], children, "{answer}");
        assert!(answer["data"].as_object().is_some_and(|data| data.contains_key("log_file")), "{answer}");
    }
}

#[test] // O-CT-16
fn reopen_names_who_has_not_within_the_limit() {
    let steered = Steered::pool(2, "--dir DIR");
    let gate = steered.dir.path().join("gate");
    let _client = stuck(&steered, &gate);
    let busy = steered.control().status().children.into_iter().find(|child| child.state == 'r').unwrap();
    let answer = steered.control().ask_json(r#"{"command":"reopen"}"#);
    assert_eq!((&answer["data"]["children"], &answer["data"]["confirmed"]), (&2.into(), &1.into()), "{answer}");
    assert_eq!(
        answer["data"]["missing"],
        serde_json::json!([format!("{}:{}", busy.slot, busy.generation)]),
        "{answer}"
    );
}

/// Has the log opened again, and returns which processes have said so.
#[track_caller]
fn who_logs(steered: &Steered, dir: &Path) -> Vec<i32> {
    fs::rename(dir.join("log"), dir.join("log.1")).unwrap();
    let answer = steered.control().ask_json(r#"{"command":"reopen"}"#);
    assert_eq!(answer["ok"], true, "{answer}");
    let log = fs::read_to_string(dir.join("log")).unwrap();
    let mut pids: Vec<i32> = log
        .lines()
        .filter_map(|line| line.split_once("process ")?.1.split_once(" has reopened")?.0.parse().ok())
        .collect();
    pids.sort_unstable();
    pids
}

#[test] // O-CT-15
fn log_level_reaches_all_processes_and_later_children() {
    let steered = Steered::pool(2, "--dir DIR");
    let mut all = steered.running.children();
    all.push(steered.pid());
    all.sort_unstable();
    assert_eq!(who_logs(&steered, steered.dir.path()), all);
    let answer = steered.control().ask_json(r#"{"command":"log-level","level":"error"}"#);
    assert_eq!((&answer["data"]["children"], &answer["data"]["confirmed"]), (&2.into(), &2.into()), "{answer}");
    assert_eq!(who_logs(&steered, steered.dir.path()), [0; 0]);
    let killed = steered.running.children()[0];
    kill(killed, Signal::SIGKILL).unwrap();
    steered.control().wait_status("a successor", |status| {
        (status.pool.states.idle == 2 && status.children.iter().all(|child| child.pid != Some(killed))).then_some(())
    });
    assert_eq!(who_logs(&steered, steered.dir.path()), [0; 0]);
    let answer = steered.control().ask_json(r#"{"command":"log-level","level":"reset"}"#);
    assert_eq!(answer["data"]["confirmed"], 2, "{answer}");
    assert_eq!(who_logs(&steered, steered.dir.path()).len(), 3);
}

#[test] // O-CT-15
fn log_level_of_one_child_is_its_own() {
    let steered = Steered::pool(2, "--dir DIR");
    let child = steered.running.children()[0];
    let answer = steered.control().ask_json(&format!(r#"{{"command":"log-level","level":"off","child":"{child}"}}"#));
    assert_eq!((&answer["data"]["children"], &answer["data"]["confirmed"]), (&1.into(), &1.into()), "{answer}");
    let logs = who_logs(&steered, steered.dir.path());
    assert!(logs.len() == 2 && !logs.contains(&child), "{logs:?}");
}

#[test] // O-CT-15
fn log_level_ends_by_itself() {
    let steered = Steered::pool(1, "--dir DIR");
    let answer = steered.control().ask_json(r#"{"command":"log-level","level":"error","for":0.2}"#);
    assert_eq!(answer["data"]["confirmed"], 1, "{answer}");
    wait_until("the end of the level", DEADLINE, || (who_logs(&steered, steered.dir.path()).len() == 2).then_some(()));
}

#[test] // O-CT-15
fn log_level_is_back_within_a_second_of_its_end_in_all_processes() {
    let spans = [("", 1.0, false), ("", 0.3, true), (r#","child":0"#, 1.0, false)];
    at_once(spans, |(child, lasts, is_busy)| {
        let steered = Steered::pool(2, "--dir DIR");
        let mut client = Client::connect(steered.addr);
        if is_busy {
            // In its loop, with something in hand.
            client.send("late 600000\r\n");
            steered.control().wait_status("a busy child", |status| (status.pool.states.busy == 1).then_some(()));
        }
        let only = (!child.is_empty()).then(|| steered.control().status().children[0].pid).flatten();
        let mut quiet: Vec<i32> = steered.running.children().into_iter().chain([steered.pid()]).collect();
        quiet.retain(|pid| only.is_none_or(|only| only == *pid));
        let asked = Instant::now();
        let command = format!(r#"{{"command":"log-level","level":"error","for":{lasts}{child}}}"#);
        assert_eq!(steered.control().ask_json(&command)["ok"], true);
        let (set, mut back) = (Instant::now(), BTreeMap::new());
        let (earliest, latest) = (asked + Duration::from_secs_f64(lasts), set + Duration::from_secs_f64(lasts));
        wait_until("all processes to log", DEADLINE, || {
            let begin = Instant::now();
            let logs = who_logs(&steered, steered.dir.path());
            if Instant::now() < earliest {
                assert!(quiet.iter().all(|pid| !logs.contains(pid)), "{logs:?} of {quiet:?}");
            }
            for pid in logs {
                back.entry(pid).or_insert(begin);
            }
            quiet.iter().all(|pid| back.contains_key(pid)).then_some(())
        });
        for pid in quiet {
            let late = back[&pid].saturating_duration_since(latest);
            assert!(late < Duration::from_secs(1), "process {pid} logs again after {late:?}");
        }
    });
}

#[test] // O-CT-15
fn a_level_that_is_none_changes_nothing() {
    let steered = Steered::pool(1, "");
    let answer = steered.control().ask("log-level loud");
    assert_eq!(answer.code(), "usage");
    assert!(answer.last.contains("loud") && answer.last.contains("debug"), "{answer:?}");
    assert_eq!(steered.control().ask("log-level debug child=99:9").code(), "no_such_child");
}

#[test] // O-CT-16: orders that meet
fn reopenings_at_the_same_time_are_confirmed_each() {
    let steered = Steered::pool(4, "--dir DIR");
    for _ in 0..5 {
        let mut controls: Vec<_> = (0..6).map(|_| steered.control()).collect();
        controls.iter_mut().for_each(|control| control.send("{\"command\":\"reopen\"}\n"));
        for control in &mut controls {
            let answer: serde_json::Value = serde_json::from_str(&control.read_line().unwrap()).unwrap();
            assert_eq!((&answer["data"]["confirmed"], &answer["data"]["children"]), (&4.into(), &4.into()), "{answer}");
        }
    }
}

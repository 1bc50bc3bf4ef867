//! A configuration that is loaded again.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use lenore::daemon::view::Snapshot;
use nix::sys::signal::Signal;
use util::control::Steered;
use util::{Client, DEADLINE, kill, proc, wait_until};

use super::changing::{Changing, lenorectl};
use super::load::Load;

#[test] // O-RL-01, O-RL-02
fn applied_reload_replaces_all_children() {
    let changing = Changing::pool(3, "value=a\n", "");
    let before = changing.children();
    assert_eq!(changing.value(), "a");
    let answer = changing.reload("value=b\n");
    assert_eq!((answer.last.as_str(), answer.body.as_str()), ("OK applied", "edition=2\n"));
    changing.wait_idle(3);
    assert!(changing.children().iter().all(|pid| !before.contains(pid)));
    assert_eq!(changing.value(), "b");
    let status = changing.control().status();
    assert_eq!((status.service.generation, status.reloads.verdicts["applied"]), (2, 1));
    let last = status.reloads.last.expect("a reload that has ended");
    assert_eq!((last.edition, last.verdict.as_str(), last.cause.as_str()), (2, "applied", ""));
    assert!(status.children.iter().all(|child| child.edition == Some(2)));
    let metrics = changing.ask("metrics").ok();
    assert!(metrics.contains("lenore_reloads_total{result=\"applied\"} 1"), "{metrics}");
    assert!(changing.running.next_line(DEADLINE).ends_with("daemon_reload b"));
}

#[test] // O-RL-10: a child of the former edition finishes what it has in hand, with the configuration that it was forked with
fn request_in_hand_is_finished_with_the_old_configuration() {
    let changing = Changing::pool(2, "value=a\n", "");
    let mut client = Client::connect(changing.addr);
    let pid = client.line("x");
    client.send("late 700\r\n");
    changing.control().wait_status("a busy child", |status| (status.pool.states.busy == 1).then_some(()));
    changing.reload("value=b\n").ok();
    assert_eq!(changing.value(), "b");
    let answer = client.read_line();
    assert!(answer.ends_with("a late 700 last"), "{answer} after {pid}");
    client.expect_eof();
    changing.wait_idle(2);
}

#[test] // O-RL-10: past the limit a child is ended, and counted as cut
fn child_that_does_not_finish_within_drain_limit_is_cut() {
    let changing = Changing::pool(2, "value=a\n", "--drain-ms 300");
    let mut client = Client::connect(changing.addr);
    client.line("x");
    client.send("late 600000\r\n");
    changing.control().wait_status("a busy child", |status| (status.pool.states.busy == 1).then_some(()));
    changing.reload("value=b\n").ok();
    client.expect_eof_or_reset();
    let status = changing
        .control()
        .wait_status("a child that was cut", |status| (status.counters.exits["cut"] == 1).then(|| status.clone()));
    assert_eq!(status.counters.exits["failed"], 0);
    changing.wait_idle(2);
}

#[test] // O-RL-11, O-RL-18: HUP alone does both, and two of them are one reload
fn hup_reopens_the_log_and_reloads_once() {
    let changing = Changing::pool(2, "value=a\n", "");
    changing.write("value=b\n");
    // Stopped, it gets both at once.
    changing.signal(Signal::SIGSTOP);
    wait_until("a stopped parent", DEADLINE, || (proc::state(changing.running.pid()) == Some('T')).then_some(()));
    changing.signal(Signal::SIGHUP);
    changing.signal(Signal::SIGHUP);
    changing.signal(Signal::SIGCONT);
    changing.wait_log("reload is applied: edition=2");
    changing.wait_value("b");
    assert_eq!(changing.logged("reload begins"), 1);
    changing.write("nonsense\n");
    changing.signal(Signal::SIGHUP);
    changing.wait_log("reload is rejected");
    // A broken file does not keep later reloads from working.
    changing.write("value=c\n");
    changing.signal(Signal::SIGHUP);
    changing.wait_log("reload is applied: edition=4");
    changing.wait_value("c");
}

#[test] // O-RL-11
fn log_file_is_reopened_whatever_becomes_of_the_reload() {
    let changing = Changing::start("value=a\n", "--start 1 --max 2 --logfile DIR/log");
    let (log, old) = (changing.dir.path().join("log"), changing.dir.path().join("old"));
    changing.wait_idle(1);
    std::fs::rename(&log, &old).expect("it is there");
    changing.write("nonsense\n");
    changing.signal(Signal::SIGHUP);
    let has = |text: &str| std::fs::read_to_string(&log).is_ok_and(|log| log.contains(text)).then_some(());
    wait_until("a verdict in the new log", DEADLINE, || has("reload is rejected: the file can't be loaded"));
    assert!(has("has reopened").is_some());
}

#[test] // O-RL-14
fn settings_that_need_a_restart_are_named() {
    let changing = Changing::pool(1, "listen=a\n", "");
    let answer = changing.reload("listen=b\nvalue=x\n");
    assert_eq!(answer.body, "edition=2\nneeds_restart=listen\n");
    assert_eq!(changing.value(), "x");
    changing.wait_log("reload is applied; needs restart: listen");
    let out = lenorectl(&changing.socket, "reload");
    assert_eq!((out.code, out.out.as_str()), (0, "applied: edition 3\n"));
    assert!(out.err.contains("needs restart: listen"), "{out:?}");
    let strict = Changing::pool(1, "listen=a\n", "--strict");
    let answer = strict.reload("listen=b\nvalue=x\n");
    assert_eq!(answer.code(), "rejected");
    assert!(answer.last.ends_with("need a restart: listen"), "{answer:?}");
}

#[test] // O-RL-15
fn stop_during_a_reload_wins_at_once() {
    let mut changing = Changing::pool(2, "value=a\n", "");
    changing.write("load=loop\n");
    let mut asker = changing.control();
    asker.send("reload\n");
    let mut checker = changing.control();
    changing
        .control()
        .wait_status("a scout", |status| (status.reloads.stage.as_deref() == Some("scouting")).then_some(()));
    checker.send("check\n");
    changing.signal(Signal::SIGTERM);
    assert_eq!(asker.read_answer().code(), "superseded");
    assert_eq!(checker.read_answer().code(), "superseded");
    assert_eq!(changing.running.wait_exit(DEADLINE).code(), Some(0));
}

#[test] // O-RL-01, O-CT-20, O-CT-22: who watches, and scripts, can see how far it is
fn stages_of_a_reload_are_seen_from_outside() {
    let changing = Changing::pool(2, "value=a\n", "--load-ms 1500 --pid-file DIR/pid");
    let mut watcher = changing.control();
    watcher.send("watch\n");
    let state = || std::fs::read_to_string(changing.dir.path().join("pid.state")).unwrap_or_default();
    assert!(state().contains("state=ready"), "{}", state());
    changing.write("load=loop\n");
    let mut asker = changing.control();
    asker.send("reload\n");
    wait_until("the state in the file", DEADLINE, || state().contains("state=reloading").then_some(()));
    let mut control = changing.control();
    let stage = |status: &Snapshot| status.reloads.stage.clone().zip(status.reloads.edition);
    assert_eq!(stage(&control.status()), Some(("scouting".to_owned(), 2)));
    assert_eq!(asker.read_answer().code(), "rejected");
    wait_until("the state in the file", DEADLINE, || state().contains("state=ready").then_some(()));
    changing.reload("value=b\n").ok();
    assert_eq!(stage(&control.status()), Some(("probation".to_owned(), 3)));
    let text = control.ask("status").ok();
    assert!(text.contains("last reload  configuration 3 applied "), "{text}");
    let mut seen = Vec::new();
    while seen.last().is_none_or(|last: &String| !last.contains("state=applied")) {
        let line = watcher.read_line().expect("an event");
        if line.starts_with("reload ") {
            seen.push(line);
        }
    }
    let has = |words: &str| seen.iter().any(|line| words.split(' ').all(|word| line.contains(word)));
    for words in [
        "edition=2 state=begun",
        "edition=2 state=rejected load_timeout",
        "edition=3 state=loaded",
        "edition=3 state=rolling",
    ] {
        assert!(has(words), "{words}: {seen:?}");
    }
}

#[test] // O-RL-09: whoever asks meanwhile gets the verdict of the run that began after that
fn reload_that_is_asked_for_meanwhile_is_run_once_more() {
    let changing = Changing::pool(2, "value=a\n", "--load-ms 1500");
    changing.write("load=loop\n");
    let mut first = changing.control();
    first.send("reload\n");
    changing
        .control()
        .wait_status("a scout", |status| (status.reloads.stage.as_deref() == Some("scouting")).then_some(()));
    // The file was read by the time a scout is there.
    wait_until("a scout", DEADLINE, || (changing.children().len() == 3).then_some(()));
    changing.write("value=b\n");
    let mut others = [changing.control(), changing.control()];
    others.iter_mut().for_each(|control| control.send("reload\n"));
    assert_eq!(first.read_answer().code(), "rejected");
    for other in &mut others {
        assert_eq!(other.read_answer().ok(), "edition=3\n");
    }
    assert_eq!(changing.logged("reload begins"), 2);
    assert_eq!(changing.value(), "b");
}

#[test] // O-RL-05: an old child that is stopped
fn stopped_child_does_not_block_a_reload() {
    let changing = Changing::pool(2, "value=a\n", "");
    let stopped = changing.children()[0];
    kill(stopped, Signal::SIGSTOP).expect("it lives");
    wait_until("a stopped child", DEADLINE, || (proc::state(stopped) == Some('T')).then_some(()));
    changing.reload("value=b\n").ok();
    changing.running.wait_gone(&[stopped], DEADLINE);
    changing.wait_idle(2);
    assert_eq!(changing.value(), "b");
}

#[test] // O-RL-17
fn check_loads_and_does_nothing_else() {
    let changing = Changing::pool(2, "value=a\n", "");
    let before = changing.children();
    changing.write("value=b\n");
    assert_eq!(changing.ask("check").ok(), "the configuration can be loaded\n");
    assert_eq!(lenorectl(&changing.socket, "check").code, 0);
    changing.write("nonsense\n");
    let out = lenorectl(&changing.socket, "check");
    assert_eq!(out.code, 1);
    assert!(out.err.contains("rejected: the file can't be loaded: line 1: \"nonsense\" is not known"), "{out:?}");
    assert_eq!((changing.children(), changing.value().as_str()), (before, "a"));
    assert_eq!(changing.control().status().service.generation, 1);
}

#[test] // O-RL-01, O-RL-17: for an alarm that a configuration was not taken
fn metrics_tell_whether_and_when_a_configuration_was_last_applied() {
    let changing = Changing::pool(2, "value=a\n", "");
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_secs_f64();
    let last = || {
        let samples = metrics(&changing);
        let at = samples["lenore_last_reload_success_timestamp_seconds"];
        assert!(at <= now(), "{at}");
        (samples["lenore_last_reload_successful"], at)
    };
    // That of the start.
    let (successful, started) = last();
    assert_eq!(successful, 1.0);
    let asked = now();
    assert!(started < asked);
    changing.write("nonsense\n");
    assert_eq!(changing.ask("check").code(), "rejected");
    assert_eq!(last(), (1.0, started), "a check is no reload");
    assert_eq!(metrics(&changing)["lenore_reloads_total{result=\"rejected\"}"], 0.0);
    assert_eq!(changing.ask("reload").code(), "rejected");
    assert_eq!(last(), (0.0, started));
    assert_eq!(metrics(&changing)["lenore_reloads_total{result=\"rejected\"}"], 1.0);
    changing.reload("value=b\n").ok();
    let (successful, applied) = last();
    assert!(successful == 1.0 && applied > started && applied >= asked - 0.001, "{successful} {applied}");
}

/// The samples by name, with labels.
fn metrics(changing: &Changing) -> BTreeMap<String, f64> {
    let text = changing.ask("metrics").ok();
    let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    samples.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect()
}

#[test] // O-RL-02
fn verdict_of_a_reload_can_be_asked_for_later() {
    let changing = Changing::pool(2, "value=a\n", "");
    changing.write("child=die\n");
    let out = lenorectl(&changing.socket, "reload --no-wait");
    let number = out.out.trim().strip_prefix("order ").expect("the number of the order").to_owned();
    changing.wait_log("reload was rolled back");
    let out = lenorectl(&changing.socket, &format!("verdict {number}"));
    assert_eq!(out.code, 1);
    assert!(out.err.contains("rolled back: child ") && out.err.contains("cannot open the database"), "{out:?}");
}

#[test] // O-RL-01, O-RL-17
fn reload_and_check_of_a_program_without_a_configuration_are_refused() {
    let steered = Steered::pool(1, "");
    for command in ["reload", "check"] {
        let out = lenorectl(&steered.path, command);
        assert_eq!((out.code, out.out.as_str()), (6, ""), "{out:?}");
        assert_eq!(out.err.trim(), "lenorectl: the program has no configuration to reload");
    }
    assert!(steered.running.stderr_text().lines().all(|line| !line.contains("reload begins")));
}

#[test] // O-RL-01: number, cause and duration
fn verdict_of_each_reload_is_in_the_log_the_status_and_the_metrics() {
    let changing = Changing::pool(2, "value=a\n", "");
    let cases = [
        ("value=b\n", "applied", "", "reload is applied: edition=2 took="),
        (
            "nonsense\n",
            "rejected",
            "the file can't be loaded: line 1: \"nonsense\" is not known",
            "reload is rejected: the file can't be loaded: line 1: \"nonsense\" is not known: edition=3 took=",
        ),
        ("child=die\n", "rolled_back", "ended: exited:3", "ended: exited:3: edition=4 took="),
    ];
    for (edition, (config, verdict, cause, line)) in (2..).zip(cases) {
        let begun = Instant::now();
        changing.reload(config);
        let longest = begun.elapsed().as_secs_f64();
        let status = changing.control().status();
        assert_eq!(status.reloads.verdicts[verdict], 1, "{verdict}");
        assert_eq!(status.reloads.verdicts.values().sum::<u64>(), u64::from(edition) - 1);
        let last = status.reloads.last.expect("one that has ended");
        assert_eq!((last.edition, last.verdict.as_str()), (edition, verdict));
        assert!(last.cause.ends_with(cause) && last.cause.is_empty() == cause.is_empty(), "{last:?}");
        assert!(last.took > 0.0 && last.took <= longest, "{last:?} in {longest} s");
        let metrics = changing.ask("metrics").ok();
        assert!(metrics.contains(&format!("lenore_reloads_total{{result=\"{verdict}\"}} 1\n")), "{metrics}");
        changing.wait_log(line);
    }
}

#[test]
fn configuration_that_cannot_be_loaded_fails_the_start() {
    let running = Changing::attempt("nonsense\n");
    let said = running.stderr_to_end(DEADLINE);
    assert!(
        said.contains("loading the configuration /") && said.contains("/conf: line 1: \"nonsense\" is not known"),
        "{said}"
    );
}

#[test] // O-RL-05: 0 refused, 0 reset, 0 unanswered
fn hundred_reloads_under_load_lose_nothing() {
    let changing = Changing::pool(4, "value=a\n", "--surge 2");
    let load = Load::begin(changing.addr);
    for number in 0..100 {
        let answer = changing.reload(&format!("value={number}\n"));
        assert_eq!(answer.last, "OK applied", "reload {number}: {answer:?}");
    }
    let tally = load.end();
    tally.assert_nothing_lost();
    assert!(tally.answered > 100, "{tally:?}");
    changing.wait_idle(4);
    assert_eq!(changing.value(), "99");
}

#[test] // O-RL-16: nothing grows with the number of reloads; `LENORE_RELOADS=10000` is how many
fn reloads_leave_nothing_behind() {
    let reloads: usize = std::env::var("LENORE_RELOADS").ok().and_then(|number| number.parse().ok()).unwrap_or(300);
    let changing = Changing::pool(2, "value=a\n", "");
    let parent = changing.running.pid();
    let mut control = changing.control();
    control.status();
    let descriptors = proc::fewest_fds(parent);
    let measure = |control: &mut util::control::Control| {
        control.wait_status("two idle children", |status| {
            (status.pool.states.idle == 2 && status.pool.total == 2).then_some(())
        });
        // A child gives back its standard error when it hears that the reload is over.
        let (begun, now) = (Instant::now(), || (proc::fds(parent), changing.children()));
        wait_until("its descriptors are those that it began with", DEADLINE, || {
            let (fds, children) = now();
            if begun.elapsed() > DEADLINE {
                eprintln!("it began with {descriptors} descriptors, and has {fds:?} and the children {children:?}");
            }
            let zombies = changing.running.zombies();
            (fds.len() == descriptors && children.len() == 2 && zombies.is_empty()).then_some(())
        });
        proc::rss_kib(parent).expect("it lives")
    };
    let mut before = None;
    for number in 0..reloads {
        let (config, word) = match number % 10 {
            3 => ("child=die\n".to_owned(), "ERR rolled_back"),
            7 => ("nonsense\n".to_owned(), "ERR rejected"),
            _ => (format!("value={number}\n"), "OK applied"),
        };
        changing.write(&config);
        if number % 10 == 5 {
            control.ask("check").ok();
        }
        let answer = control.ask("reload");
        assert!(answer.last.starts_with(word), "reload {number}: {answer:?}");
        if number == reloads / 3 {
            before = Some(measure(&mut control));
        }
    }
    let (before, after) = (before.expect("more than one"), measure(&mut control));
    // The verdicts that can be asked for are 256.
    assert!(after < before + 1024, "{after} KiB resident, and {before} before");
    println!("{reloads} reloads: {descriptors} descriptors, {after} KiB resident, {before} before");
}

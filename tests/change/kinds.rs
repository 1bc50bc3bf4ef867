//! Reloads of servers that are no pools: one that forks for each request, and one without children (O-RL-20).

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use util::control::Control;
use util::{Client, DEADLINE, wait_until};

use super::changing::{Changing, lenorectl};
use super::load::Load;

/// A server that forks for each request, once it answers.
#[track_caller]
fn post(args: &str) -> Changing {
    let changing = Changing::start("value=a\n", &format!("--post --max 4 {args}"));
    assert_eq!(changing.value(), "a");
    changing
}

/// Begins a reload whose probe never reports, and returns the asker when there is one.
#[track_caller]
fn with_probe_that_hangs(changing: &Changing) -> Control {
    changing.control().wait_status("no child", |status| (status.pool.total == 0).then_some(()));
    changing.write("value=b\nchild=hang\n");
    let mut asker = changing.control();
    asker.send("reload\n");
    changing.wait_log("waiting for the database");
    let stage = changing.control().status().reloads.stage;
    assert_eq!(stage.as_deref(), Some("canary"));
    asker
}

#[test] // O-RL-20
fn post_forking_server_proves_the_new_configuration_with_a_probe() {
    let changing = post("");
    let mut old = Client::connect(changing.addr);
    old.line("x");
    changing.reload("value=b\n").ok();
    assert_eq!(changing.value(), "b");
    assert!(old.line("y").contains(" a y"), "it has the configuration that it was forked with");
    drop(old);
    let answer = changing.reload("value=c\nchild=die\n");
    assert_eq!(answer.code(), "rolled_back");
    assert!(answer.last.contains("exited:3") && answer.body.contains("cannot open the database"), "{answer:?}");
    assert_eq!(changing.value(), "b");
    assert_eq!(changing.reload("nonsense\n").code(), "rejected");
}

#[test] // O-RL-20, O-RL-04, O-RL-06, O-RL-07: requests have the old configuration meanwhile
fn probe_that_hangs_is_rolled_back_after_start_timeout() {
    let changing = post("--start-ms 600");
    let load = Load::begin(changing.addr);
    changing.write("value=b\nchild=hang\n");
    let mut asker = changing.control();
    asker.send("reload\n");
    changing.wait_log("waiting for the database");
    assert_eq!(changing.value(), "a");
    let answer = asker.read_answer();
    assert_eq!(answer.code(), "rolled_back");
    assert!(answer.last.contains("was not ready within start_timeout"), "{answer:?}");
    assert!(answer.body.contains("waiting for the database"), "{answer:?}");
    assert_eq!(changing.value(), "a");
    load.end().assert_nothing_lost();
}

#[test] // O-RL-20, O-RL-09: one more after it, of the file as it is by then
fn post_forking_server_runs_a_reload_once_more_that_is_asked_for_meanwhile() {
    let changing = post("--start-ms 300");
    let mut first = with_probe_that_hangs(&changing);
    changing.write("value=c\n");
    let mut others = [changing.control(), changing.control()];
    others.iter_mut().for_each(|other| other.send("reload\n"));
    assert_eq!(first.read_answer().code(), "rolled_back");
    for other in &mut others {
        assert_eq!(other.read_answer().ok(), "edition=3\n");
    }
    assert_eq!((changing.logged("reload begins"), changing.value().as_str()), (2, "c"));
}

#[test] // O-RL-20, O-RL-10
fn child_of_a_post_forking_server_has_drain_limit_for_its_request() {
    let changing = post("--drain-ms 500");
    let busy = |number| {
        changing.control().wait_status("busy children", |status| (status.pool.states.busy == number).then_some(()));
    };
    let mut clients = [(); 2].map(|()| Client::connect(changing.addr));
    for (client, span) in clients.iter_mut().zip([200, 600_000]) {
        client.line("x");
        client.send(format!("late {span}\r\n"));
    }
    busy(2);
    let begun = Instant::now();
    changing.reload("value=b\n").ok();
    let [mut quick, mut slow] = clients;
    assert!(quick.read_line().contains(" a late 200"));
    drop(quick);
    slow.expect_eof_or_reset();
    assert!(begun.elapsed() >= Duration::from_millis(500), "{:?}", begun.elapsed());
    let exits = changing.control().wait_status("a child that was cut", |status| {
        (status.counters.exits["cut"] == 1).then(|| status.counters.exits.clone())
    });
    assert_eq!(exits["failed"], 0);
    assert_eq!(changing.value(), "b");
}

#[test] // O-RL-20, O-RL-15
fn stop_wins_over_the_reload_of_a_post_forking_server() {
    let mut changing = post("--start-ms 60000 --grace-ms 500");
    let mut asker = with_probe_that_hangs(&changing);
    changing.signal(Signal::SIGTERM);
    assert_eq!(asker.read_answer().code(), "superseded");
    assert_eq!(changing.running.wait_exit(DEADLINE).code(), Some(0), "{}", changing.running.stderr_text());
    assert_eq!(changing.running.descendants_alive(), [0; 0]);
}

#[test] // O-RL-20, O-RL-01, O-RL-02
fn server_without_children_has_the_new_configuration_itself() {
    let changing = Changing::start("value=a\n", "--none");
    assert_eq!(changing.value(), "a");
    changing.reload("value=b\n").ok();
    assert_eq!(changing.value(), "b");
    let out = lenorectl(&changing.socket, "reload");
    assert_eq!((out.code, out.out.as_str()), (0, "applied: edition 3\n"));
    let status = changing.control().status();
    let last = status.reloads.last.expect("one that has ended");
    assert_eq!((last.edition, last.verdict.as_str(), status.reloads.verdicts["applied"]), (3, "applied", 2));
    changing.wait_log("reload is applied: edition=3 took=");
}

#[test] // O-RL-20, O-RL-03, O-RL-17: and serves its clients meanwhile
fn server_without_children_survives_whatever_a_configuration_does() {
    let changing = Changing::start("value=a\n", "--none --load-ms 400");
    let mut control = changing.control();
    for (config, cause) in [
        ("nonsense\n", "the file can't be loaded: line 1: \"nonsense\" is not known"),
        ("load=panic\n", "panicked: the loader panics"),
        ("load=abort\n", "loading the file ended by signal 6"),
        ("load=exit\n", "loading the file ended with exit code 7"),
        ("load=memory\n", "loading the file ended by signal 6"),
        ("load=loop\n", "the file was not loaded within load_timeout"),
    ] {
        changing.write(config);
        for command in ["check", "reload"] {
            control.send(format!("{command}\n"));
            assert_eq!(changing.value(), "a");
            let answer = control.read_answer();
            assert!(answer.code() == "rejected" && answer.last.contains(cause), "{command}: {answer:?}");
        }
        assert_eq!(changing.value(), "a");
    }
    for command in ["check", "reload"] {
        assert_eq!(lenorectl(&changing.socket, command).code, 1);
    }
    changing.write("value=b\n");
    assert_eq!(lenorectl(&changing.socket, "check").code, 0);
    assert_eq!(changing.value(), "a", "a check changes nothing");
    let verdicts = control.status().reloads.verdicts;
    assert_eq!((verdicts["rejected"], verdicts["applied"]), (7, 0));
    assert!(changing.children().is_empty());
}

#[test] // O-RL-20, O-RL-11: at once, whatever the verdict
fn log_of_a_server_without_children_is_reopened_by_hup() {
    let changing = Changing::start("value=a\n", "--none --logfile DIR/log");
    assert_eq!(changing.value(), "a");
    let (log, old) = (changing.dir.path().join("log"), changing.dir.path().join("old"));
    fs::rename(&log, &old).expect("it is there");
    changing.write("nonsense\n");
    changing.signal(Signal::SIGHUP);
    let has = |text: &str| fs::read_to_string(&log).is_ok_and(|log| log.contains(text)).then_some(());
    wait_until("a verdict in the new log", DEADLINE, || has("reload is rejected: the file can't be loaded"));
    changing.write("value=b\n");
    changing.signal(Signal::SIGHUP);
    changing.wait_value("b");
}

#[test] // O-RL-20, O-RL-14
fn server_without_children_names_what_needs_a_restart() {
    let changing = Changing::start("listen=a\nvalue=a\n", "--none");
    assert_eq!(changing.value(), "a");
    let answer = changing.reload("listen=b\nvalue=x\n");
    assert_eq!((answer.body.as_str(), changing.value().as_str()), ("edition=2\nneeds_restart=listen\n", "x"));
    changing.wait_log("reload is applied; needs restart: listen");
    let strict = Changing::start("listen=a\nvalue=a\n", "--none --strict");
    assert_eq!(strict.value(), "a");
    let answer = strict.reload("listen=b\nvalue=x\n");
    assert_eq!((answer.code(), strict.value().as_str()), ("rejected", "a"));
    assert!(answer.last.ends_with("need a restart: listen"), "{answer:?}");
}

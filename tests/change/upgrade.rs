//! A new program that takes over while the old one serves.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use util::control::Control;
use util::{Client, DEADLINE, Program, kill, proc, test_program, wait_until};

use super::changing::{Changing, lenorectl};
use super::load::Load;
use super::upgrading::{loading, on_probation, pid_file, pool, serves, status, upgrade, wait_alone};

/// Looks without a pause whether the lock of the pid file can be had, or there is no pid in it.
fn probe(path: PathBuf, is_over: Arc<AtomicBool>) -> thread::JoinHandle<usize> {
    thread::spawn(move || {
        let mut looks = 0;
        while !is_over.load(Ordering::Relaxed) {
            let file = OpenOptions::new().read(true).write(true).open(&path).expect("a pid file at any time");
            assert!(
                Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err(),
                "the lock was free after {looks} looks"
            );
            let text = fs::read_to_string(&path).expect("a pid file at any time");
            assert!(text.trim().parse::<i32>().is_ok(), "no pid: {text:?}");
            looks += 1;
            thread::yield_now();
        }
        looks
    })
}

#[test] // O-UP-01, O-UP-02, O-UP-04, O-UP-08, O-UP-11, O-UP-16, O-UP-18, O-UP-19
fn twenty_upgrades_under_load_lose_nothing() {
    let mut changing = pool(3, 150, "");
    let is_over = Arc::new(AtomicBool::new(false));
    let prober = probe(changing.dir.path().join("pid"), Arc::clone(&is_over));
    let load = Load::begin(changing.addr);
    let (mut before, mut descriptors) = (status(&changing), None);
    for number in 0..20 {
        changing.write(&format!("value={number}\n"));
        let pid = upgrade(&changing);
        assert_eq!((pid_file(&changing), proc::state(pid).is_some()), (pid, true));
        if number == 0 {
            assert!(changing.running.wait_exit(DEADLINE).success(), "{}", changing.running.stderr_text());
        }
        let after = wait_alone(&changing);
        assert_eq!((after.service.pid, after.upgrades.verdicts["applied"]), (pid as u32, number + 1));
        for (what, before, after) in [
            ("requests", before.counters.requests, after.counters.requests),
            ("forks", before.counters.forks, after.counters.forks),
            ("durations", before.durations.request.count(), after.durations.request.count()),
            ("exits", before.counters.exits.values().sum(), after.counters.exits.values().sum()),
        ] {
            assert!(before <= after, "{what}: {after} after {before}");
        }
        assert!(after.counters.requests > before.counters.requests);
        before = after;
        // Nothing is inherited once more each time.
        let open = wait_until("its descriptors", DEADLINE, || {
            let open = proc::fds(pid).len();
            (descriptors.is_none_or(|descriptors| open <= descriptors)).then_some(open)
        });
        descriptors.get_or_insert(open);
    }
    let tally = load.end();
    tally.assert_nothing_lost();
    is_over.store(true, Ordering::Relaxed);
    assert!(prober.join().expect("the lock was never free") > 100);
    assert_eq!(changing.value(), "19");
    let mut names: Vec<String> = fs::read_dir(changing.dir.path())
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["conf", "control.sock", "pid", "pid.state"]);
    println!("20 upgrades: {} requests answered, none lost", tally.answered);
}

#[test] // O-UP-16
fn processor_time_of_children_goes_on_after_an_upgrade() {
    let mut changing = pool(1, 0, "");
    let used = || {
        let metrics = Control::connect(&changing.socket).ask("metrics").ok();
        let line = metrics.lines().find_map(|line| line.strip_prefix("lenore_child_cpu_seconds_total{slot=\"0\"} "));
        line.and_then(|seconds| seconds.parse::<f64>().ok()).unwrap_or_else(|| panic!("{metrics}"))
    };
    // Until a new child can't have used as much by itself.
    let before = wait_until("a child that has worked", DEADLINE, || {
        (0..50).for_each(|_| drop(changing.value()));
        Some(used()).filter(|used| *used > 0.1)
    });
    let old = changing.running.pid();
    let new = upgrade(&changing);
    assert_ne!(new, old);
    assert!(used() >= before, "{} after {before}", used());
    assert!(changing.running.wait_exit(DEADLINE).success());
    assert!(used() >= before, "{} after {before}", used());
}

#[test] // O-UP-01: a server that forks for each request
fn post_forking_server_is_upgraded_under_load() {
    let changing = Changing::start("value=a\n", "--post --max 10 --probation-ms 150 --pid-file DIR/pid");
    // It says where it listens before it has one.
    wait_until("a control socket", DEADLINE, || changing.socket.exists().then_some(()));
    let load = Load::begin(changing.addr);
    for number in 0..5 {
        changing.write(&format!("value={number}\n"));
        let pid = upgrade(&changing);
        assert_eq!(pid_file(&changing), pid);
        wait_alone(&changing);
    }
    load.end().assert_nothing_lost();
    assert_eq!(changing.value(), "4");
}

#[test] // O-UP-01: a server of the component, of each kind; one that never forks has the connections itself
fn component_server_is_upgraded_under_load() {
    for mode in ["single", "fork", "prefork"] {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("control.sock");
        let program = Program::new(test_program("component_server")).arg("--control").arg(&socket);
        let running = program.args(["--mode", mode, "--probation-ms", "150"]).start();
        let addr = running.listening_addr();
        let changing = Changing { running, dir, socket, addr };
        let load = Load::without_kept(changing.addr);
        for _ in 0..3 {
            upgrade(&changing);
            wait_alone(&changing);
        }
        let tally = load.end();
        assert_eq!((tally.refused, tally.reset, tally.unanswered), (0, 0, 0), "{mode}: {tally:?}");
    }
}

#[test] // O-UP-07: the old one serves again, with all names
fn program_that_is_killed_on_probation_is_rolled_back() {
    for signal in [Signal::SIGKILL, Signal::SIGABRT] {
        let changing = pool(2, 60_000, "");
        let parent = changing.running.pid();
        let new = on_probation(&changing);
        // A child of the old one may take one client more before it hears that it is to go.
        changing.wait_value("b");
        let mut old = Control::of(&changing.running, &changing.dir.path().join("control.sock.old"));
        assert_eq!(old.status().upgrades.stage.as_deref(), Some("probation"));
        kill(new, signal).expect("it lives");
        serves(&changing, parent);
        let status = status(&changing);
        changing.wait_idle(2);
        assert_eq!(status.upgrades.verdicts["rolled_back"], 1);
        assert!(status.upgrades.last.expect("one").cause.contains("signal"));
        // It can be tried again.
        let new = on_probation(&changing);
        assert_ne!(new, parent);
    }
}

#[test] // O-UP-01, O-UP-07: its children finish what they have in hand
fn program_that_is_killed_on_probation_loses_nothing_under_load() {
    let changing = pool(4, 60_000, "");
    let parent = changing.running.pid();
    let load = Load::begin(changing.addr);
    let new = on_probation(&changing);
    changing.wait_value("b");
    kill(new, Signal::SIGKILL).expect("it lives");
    serves(&changing, parent);
    load.end().assert_nothing_lost();
    assert_eq!(status(&changing).upgrades.verdicts["rolled_back"], 1);
}

#[test] // O-UP-01, O-UP-07: its children die with nothing in hand, and nothing is lost
fn program_that_crash_loops_on_probation_is_rolled_back_under_load() {
    let changing = pool(4, 60_000, "");
    let parent = changing.running.pid();
    let file = changing.dir.path().join("die");
    changing.write(&format!("value=b\nchild=file {}\n", file.display()));
    let load = Load::begin(changing.addr);
    changing.ask("upgrade no-wait").ok();
    changing.wait_log("the new program serves");
    let new = pid_file(&changing);
    assert_ne!(new, parent);
    // A child of the old one may have taken a client.
    changing.wait_value("b");
    fs::write(&file, "").expect("a file");
    serves(&changing, parent);
    load.end().assert_nothing_lost();
    assert!(!proc::is_alive(new), "it has ended");
    let last = status(&changing).upgrades.last.expect("one that has ended");
    assert!(last.cause.contains("children die as soon as they are forked"), "{last:?}");
}

#[test] // O-UP-07: the former process has ended its part at once
fn upgrade_without_a_probation_is_never_taken_back() {
    let mut changing = pool(2, 0, "");
    let mut client = Client::connect(changing.addr);
    client.line("x");
    client.send("late 1500\r\n");
    changing.control().wait_status("a busy child", |status| (status.pool.states.busy == 1).then_some(()));
    let new = upgrade(&changing);
    let family: Vec<i32> = proc::children(new).into_keys().chain([new]).collect();
    kill(new, Signal::SIGKILL).expect("it lives");
    changing.running.wait_gone(&family, DEADLINE);
    // It finishes what it has in hand, and forks nobody.
    assert!(changing.children().len() <= 1, "{:?}", changing.children());
    let answer = client.read_line();
    assert!(answer.contains(" a late 1500"), "{answer}");
    drop(client);
    assert!(changing.running.wait_exit(DEADLINE).success(), "{}", changing.running.stderr_text());
    assert!(Client::try_connect(changing.addr).is_err(), "nobody listens");
    assert_eq!((changing.logged("rolled back"), changing.logged("upgrade is applied")), (0, 1));
}

#[test] // O-UP-06
fn old_process_cuts_what_takes_longer_than_drain_limit() {
    let mut changing = pool(2, 0, "--drain-ms 700 --grace-ms 60000");
    let mut client = Client::connect(changing.addr);
    client.line("x");
    client.send("late 600000\r\n");
    changing.control().wait_status("a busy child", |status| (status.pool.states.busy == 1).then_some(()));
    let begun = Instant::now();
    upgrade(&changing);
    client.expect_eof_or_reset();
    assert!(begun.elapsed() >= Duration::from_millis(700), "{:?}", begun.elapsed());
    assert!(changing.running.wait_exit(DEADLINE).success(), "{}", changing.running.stderr_text());
    wait_alone(&changing);
}

#[test] // O-UP-05, O-UP-06: one that drains is not waited for longer than an operator wants
fn old_process_that_drains_is_ended_by_finish() {
    let mut changing = pool(2, 0, "--grace-ms 500");
    let mut client = Client::connect(changing.addr);
    client.send("late 60000\r\n");
    changing.control().wait_status("a busy child", |status| (status.pool.states.busy == 1).then_some(()));
    let old = changing.running.pid();
    let new = upgrade(&changing);
    assert_eq!(status(&changing).upgrades.predecessor, Some(old as u32));
    let out = lenorectl(&changing.socket, "upgrade");
    assert_eq!(out.code, 6, "{out:?}");
    assert!(out.err.contains(&old.to_string()), "{out:?}");
    let finished = lenorectl(&changing.socket, "finish");
    assert_eq!(finished.code, 0, "{finished:?}");
    assert!(changing.running.wait_exit(DEADLINE).success());
    wait_alone(&changing);
    assert_ne!(upgrade(&changing), new);
    let nothing = wait_until("nothing to finish", DEADLINE, || {
        let out = lenorectl(&changing.socket, "finish");
        (out.code == 6).then_some(out)
    });
    assert!(nothing.err.contains("nothing"), "{nothing:?}");
}

#[test] // O-UP-10: what was in hand is finished
fn request_in_hand_is_finished_by_the_old_process() {
    let mut changing = pool(2, 0, "");
    let mut client = Client::connect(changing.addr);
    client.send("late 900\r\n");
    changing.control().wait_status("a busy child", |status| (status.pool.states.busy == 1).then_some(()));
    changing.write("value=b\n");
    upgrade(&changing);
    let answer = client.read_line();
    assert!(answer.contains(" a late 900"), "{answer}");
    // If the answer was there before the child was asked to go, it would wait for this client.
    drop(client);
    assert!(changing.running.wait_exit(DEADLINE).success());
    assert_eq!(changing.value(), "b");
}

#[test] // O-UP-15
fn upgrade_is_refused_while_something_else_is_under_way() {
    let changing = pool(1, 60_000, "--start-ms 60000");
    let refused = |why: &str| {
        let out = lenorectl(&changing.socket, "upgrade");
        assert!(out.code == 6 && out.err.contains(why), "{out:?}");
    };
    changing.write("child=hang\n");
    changing.ask("reload no-wait").ok();
    changing.control().wait_status("a reload", |status| status.reloads.stage.is_some().then_some(()));
    refused("reload");
    let changing = pool(1, 60_000, "");
    changing.write("value=b\nchild=hang\n");
    changing.ask("upgrade no-wait").ok();
    let out = lenorectl(&changing.socket, "upgrade");
    assert!(out.code == 6 && out.err.contains("upgrade"), "{out:?}");
    assert_eq!(lenorectl(&changing.socket, "reload").code, 6);
}

#[test] // what an operator wants is not undone by the process that rests
fn new_process_that_is_stopped_on_probation_is_not_taken_back() {
    let mut changing = pool(2, 60_000, "");
    let new = on_probation(&changing);
    assert_eq!(lenorectl(&changing.socket, "stop").code, 0);
    assert!(changing.running.wait_exit(DEADLINE).success(), "{}", changing.running.stderr_text());
    wait_until("the end of both", DEADLINE, || (!proc::is_alive(new)).then_some(()));
    assert!(!changing.dir.path().join("pid").exists() && !Path::new(&changing.socket).exists());
}

#[test] // the old process is killed before it has handed over: the new one serves
fn old_process_that_is_killed_leaves_everything_to_the_new_one() {
    let mut changing = pool(2, 60_000, "");
    on_probation(&changing);
    kill(changing.running.pid(), Signal::SIGKILL).expect("it lives");
    changing.running.wait_exit(DEADLINE);
    let status = wait_alone(&changing);
    assert_eq!(pid_file(&changing), status.service.pid as i32);
    changing.wait_value("b");
}

#[test]
fn application_can_ask_for_an_upgrade_itself() {
    let mut changing = pool(1, 60_000, "");
    let old = changing.running.pid();
    changing.signal(Signal::SIGUSR1);
    let new = wait_until("a new process", DEADLINE, || Some(pid_file(&changing)).filter(|pid| *pid != old));
    changing.wait_log("the new program serves");
    // The new one has a predecessor that can take everything back.
    kill(new, Signal::SIGUSR1).expect("it lives");
    let refused = wait_until("the reason", DEADLINE, || {
        changing.running.try_next_line(DEADLINE).filter(|line| line.contains("can't begin"))
    });
    assert!(refused.contains(&format!("process {old}, from which this one has taken over")), "{refused}");
    kill(new, Signal::SIGTERM).expect("it lives");
    assert!(changing.running.wait_exit(DEADLINE).success());
}

#[test] // the new process does not go on to wait for anybody
fn new_process_whose_predecessor_is_killed_meanwhile_is_a_daemon_like_others() {
    let mut changing = pool(2, 0, "");
    let new = loading(&changing, "value=b\nchild=slow\n");
    kill(changing.running.pid(), Signal::SIGKILL).expect("it lives");
    changing.running.wait_exit(DEADLINE);
    let status = wait_until("the new one, which serves", DEADLINE, || {
        let status = Control::try_connect(&changing.socket).ok().map(|mut control| control.status())?;
        (status.service.pid == new as u32 && status.pool.states.idle == 2).then_some(status)
    });
    assert_eq!(status.upgrades.predecessor, None);
    assert_eq!(pid_file(&changing), new);
    // One that is still starting would refuse it.
    assert_ne!(upgrade(&changing), new);
}

#[test] // a new process that hangs does not keep the old one
fn old_process_ends_with_a_new_one_that_hangs() {
    for signal in [Signal::SIGTERM, Signal::SIGQUIT] {
        let mut changing = pool(2, 1000, "--grace-ms 300");
        let new = loading(&changing, "value=b\nchild=hang\n");
        kill(new, Signal::SIGSTOP).expect("it lives");
        changing.signal(signal);
        assert!(changing.running.wait_exit(DEADLINE).success(), "{}", changing.running.stderr_text());
        wait_until("the end of the new one", DEADLINE, || (!proc::is_alive(new)).then_some(()));
    }
}

#[test] // O-CT-17: whoever is told that the daemon has ended can start it again
fn stop_is_answered_when_a_new_process_that_hangs_has_ended_too() {
    let changing = pool(2, 1000, "--grace-ms 300");
    let new = loading(&changing, "value=b\nchild=hang\n");
    kill(new, Signal::SIGSTOP).expect("it lives");
    let told = lenorectl(&changing.socket, "stop");
    assert_eq!(told.code, 0, "{told:?}");
    assert!(!proc::is_alive(new), "{told:?}");
}

#[test] // O-UP-07: also if the old process was late
fn new_process_that_was_killed_before_the_end_of_its_probation_never_served_for_good() {
    let changing = pool(2, 1200, "");
    let parent = changing.running.pid();
    let new = on_probation(&changing);
    let begun = Instant::now();
    kill(parent, Signal::SIGSTOP).expect("it lives");
    kill(new, Signal::SIGKILL).expect("it lives");
    // The probation is over by then.
    wait_until("the end of the probation", DEADLINE, || (begun.elapsed() > Duration::from_millis(1400)).then_some(()));
    kill(parent, Signal::SIGCONT).expect("it lives");
    serves(&changing, parent);
    assert_eq!(status(&changing).upgrades.verdicts["rolled_back"], 1);
}

#[test] // O-UP-04: whoever did not wait asks the process that serves by then
fn verdict_of_an_upgrade_is_told_by_the_new_process() {
    let changing = pool(1, 300, "");
    assert_eq!(lenorectl(&changing.socket, "reopen --no-wait").out.trim(), "order 1");
    let new = on_probation(&changing);
    let told = lenorectl(&changing.socket, "verdict 2");
    assert!(told.code == 0 || told.code == 4 && told.out.starts_with("pending"), "{told:?}");
    let told = wait_until("a verdict", DEADLINE, || {
        let told = lenorectl(&changing.socket, "verdict 2");
        (told.code == 0).then_some(told)
    });
    assert!(told.out.starts_with("applied"), "{told:?}");
    assert_eq!(pid_file(&changing), new);
    assert!(lenorectl(&changing.socket, "verdict 1").out.starts_with("applied"), "from before the upgrade");
    assert_eq!(lenorectl(&changing.socket, "reopen --no-wait").out.trim(), "order 3");
}

#[test] // O-UP-04: in every generation
fn cause_is_told_by_a_process_that_has_taken_over_itself() {
    let changing = pool(1, 0, "");
    upgrade(&changing);
    wait_alone(&changing);
    let out = lenorectl(&changing.socket, &format!("upgrade --program {}", changing.dir.path().join("none").display()));
    assert!(out.code == 1 && out.err.contains("none: execve: No such file or directory"), "{out:?}");
}

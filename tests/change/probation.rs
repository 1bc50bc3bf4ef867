//! A configuration that was applied, and is still on probation (O-RL-19).

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use util::{DEADLINE, kill, wait_until};

use super::changing::Changing;

/// A configuration whose children die as long as there is a file.
fn config(value: &str, file: &Path) -> String {
    format!("value={value}\nchild=file {}\n", file.display())
}

/// Kills the children, and has those after them die as well.
#[track_caller]
fn break_all(changing: &Changing, files: &[&Path]) {
    files.iter().for_each(|file| fs::write(file, "").expect("a file"));
    // One of them may have seen the file.
    changing.children().into_iter().for_each(|pid| _ = kill(pid, Signal::SIGKILL));
}

/// The verdicts *applied* and *taken back*.
#[track_caller]
fn verdicts(changing: &Changing) -> (u64, u64) {
    let verdicts = changing.control().status().reloads.verdicts;
    (verdicts["applied"], verdicts["taken_back"])
}

#[test] // O-RL-19
fn crash_loop_on_probation_brings_the_former_configuration_back() {
    let changing = Changing::pool(2, "value=a\n", "--probation-ms 60000");
    let file = changing.dir.path().join("broken");
    changing.reload(&config("b", &file)).ok();
    assert_eq!(changing.value(), "b");
    break_all(&changing, &[&file]);
    changing.wait_log("reload is taken back because new children die as soon as they are forked: edition=2 to=1");
    changing.wait_idle(2);
    assert_eq!(changing.value(), "a");
    assert_eq!((changing.control().status().service.generation, verdicts(&changing)), (1, (1, 1)));
    let last = changing.control().status().reloads.last.expect("one that has ended");
    assert_eq!((last.edition, last.verdict.as_str()), (2, "taken_back"));
}

#[test] // O-RL-19: once
fn former_configuration_that_crash_loops_as_well_is_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let (former, new) = (dir.path().join("former"), dir.path().join("new"));
    let changing = Changing::pool(2, &config("a", &former), "--probation-ms 60000");
    changing.reload(&config("b", &new)).ok();
    break_all(&changing, &[&former, &new]);
    // What crashes after that is not on probation.
    wait_until("children of the former one that die as well", DEADLINE, || {
        let log = changing.running.stderr_text();
        log.split_once("reload is taken back")?.1.contains("in a row").then_some(())
    });
    assert_eq!(verdicts(&changing), (1, 1));
    [&former, &new].iter().for_each(|file| fs::remove_file(file).expect("a file"));
    changing.wait_idle(2);
    assert_eq!((changing.value().as_str(), verdicts(&changing)), ("a", (1, 1)));
    assert_eq!(changing.control().status().service.generation, 1);
}

#[test] // O-RL-19: not after that
fn crash_loop_after_the_probation_keeps_the_configuration() {
    let changing = Changing::pool(2, "value=a\n", "--probation-ms 300");
    let file = changing.dir.path().join("broken");
    changing.reload(&config("b", &file)).ok();
    let stage = changing.control().status().reloads.stage;
    assert!(stage.is_none_or(|stage| stage == "probation"));
    changing.wait_log("reload is past its probation: edition=2");
    break_all(&changing, &[&file]);
    changing.wait_log("in a row");
    fs::remove_file(&file).expect("a file");
    changing.wait_idle(2);
    assert_eq!((changing.value().as_str(), verdicts(&changing)), ("b", (1, 0)));
}

#[test] // O-RL-12, O-RL-19: and the size, as orders had changed it
fn way_back_brings_the_former_size() {
    let changing = Changing::pool(2, "value=a\n", "--probation-ms 60000");
    changing.signal(Signal::SIGTTIN);
    changing.wait_idle(3);
    let file = changing.dir.path().join("broken");
    changing.reload(&(config("b", &file) + "max=6\nmin=1\nmost=6\n")).ok();
    break_all(&changing, &[&file]);
    changing.wait_log("reload is taken back");
    changing.wait_idle(3);
    let pool = changing.control().status().pool;
    assert_eq!((pool.limit, pool.min_spare, pool.max_spare), (3, 3, 3));
}

#[test] // O-RL-19: what it has kept, and not what the file says by then
fn way_back_does_not_read_the_file() {
    let changing = Changing::pool(1, "value=a\n", "--probation-ms 60000");
    let file = changing.dir.path().join("broken");
    changing.reload(&config("b", &file)).ok();
    fs::remove_file(changing.dir.path().join("conf")).expect("a file");
    break_all(&changing, &[&file]);
    wait_until("the former configuration", DEADLINE, || (verdicts(&changing) == (1, 1)).then_some(()));
    changing.wait_idle(1);
    assert_eq!(changing.value(), "a");
}

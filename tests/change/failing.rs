//! Configurations that can't be taken: nothing is lost, the old one serves, and the verdict has the true cause.

use std::fs;

use nix::sys::signal::Signal;
use util::{DEADLINE, kill, wait_until};

use super::changing::{Changing, lenorectl};
use super::load::Load;

/// Reloads under load with a configuration that fails.
#[track_caller]
fn fails(config: &str, args: &str, code: &str, cause: &str, last_words: &str) -> Changing {
    let changing = Changing::pool(3, "value=a\n", args);
    let parent = changing.running.pid();
    let load = Load::begin(changing.addr);
    changing.write(&config.replace("DIR", changing.dir.path().to_str().expect("a path that is text")));
    let out = lenorectl(&changing.socket, "reload");
    assert_eq!(out.code, 1, "{out:?}");
    assert!(out.err.contains(&format!("{}: ", code.replace('_', " "))) && out.err.contains(cause), "{out:?}");
    assert!(out.err.contains(last_words), "{out:?}");
    load.end().assert_nothing_lost();
    changing.wait_idle(3);
    assert_eq!((changing.value().as_str(), changing.running.pid()), ("a", parent));
    let status = changing.control().status();
    assert_eq!((status.service.generation, status.reloads.verdicts[code]), (1, 1));
    changing
}

/// A rejected configuration leaves every child alone.
#[track_caller]
fn is_rejected(config: &str, args: &str, cause: &str, last_words: &str) {
    let changing = fails(config, args, "rejected", cause, last_words);
    assert_eq!(changing.control().status().counters.forks, 3, "no child was forked");
}

#[test] // O-RL-03
fn configuration_that_does_not_parse_is_rejected() {
    is_rejected("nonsense\n", "", "the file can't be loaded: line 1: \"nonsense\" is not known", "");
}

#[test] // O-RL-03
fn loader_that_panics_is_rejected() {
    is_rejected("load=panic\n", "", "panicked: the loader panics", "the loader panics");
}

#[test] // O-RL-03
fn loader_that_aborts_is_rejected() {
    is_rejected("load=abort\n", "", "loading the file ended by signal 6", "about to abort");
}

#[test] // O-RL-03
fn loader_that_exits_is_rejected() {
    is_rejected("load=exit\n", "", "loading the file ended with exit code 7", "");
}

#[test] // O-RL-03
fn loader_that_runs_out_of_memory_is_rejected() {
    is_rejected("load=memory\n", "", "loading the file ended by signal 6", "memory allocation of");
}

#[test] // O-RL-03
fn loader_that_never_ends_is_rejected_after_load_timeout() {
    is_rejected("load=loop\n", "--load-ms 700", "the file was not loaded within load_timeout", "");
}

#[test] // O-RL-03: settings that contradict those of the program
fn settings_that_contradict_each_other_are_rejected() {
    is_rejected("max=1\n", "", "start_children (3) is more than max_children (1)", "");
}

#[test] // what a scout could hold on to
fn scout_has_nothing_of_its_parent() {
    let changing = Changing::pool(1, "value=a\n", "--pid-file DIR/pid --logfile DIR/log");
    let answer = changing.reload("load=descriptors\n");
    // The one is for its answer.
    assert!(answer.last.ends_with("others=[] pipes=1"), "{answer:?}");
}

#[test] // a scout does not outlive its parent
fn scout_ends_with_its_parent() {
    let mut changing = Changing::pool(1, "value=a\n", "");
    changing.write("load=loop\n");
    changing.signal(Signal::SIGHUP);
    wait_until("a scout", DEADLINE, || (changing.children().len() == 2).then_some(()));
    let children = changing.children();
    kill(changing.running.pid(), Signal::SIGKILL).expect("it lives");
    changing.running.wait_exit(DEADLINE);
    changing.running.wait_gone(&children, DEADLINE);
}

#[test] // O-RL-04, O-RL-06, O-RL-07, O-RL-08
fn canary_that_dies_is_rolled_back() {
    let changing = fails("child=die\n", "", "rolled_back", "ended: exited:3", "cannot open the database");
    let status = changing.control().status();
    assert_eq!((status.counters.forks, status.pool.backoff), (4, false), "one canary, and nothing else");
}

#[test] // O-RL-06, O-RL-07
fn canary_that_hangs_is_rolled_back_after_start_timeout() {
    fails(
        "child=hang\n",
        "--start-ms 700",
        "rolled_back",
        "was not ready within start_timeout",
        "waiting for the database",
    );
}

#[test] // O-RL-06, O-RL-07
fn canary_that_panics_is_rolled_back() {
    let changing =
        fails("child=panic\n", "", "rolled_back", "ended: exited:1", "panicked at tests/programs/daemon_change.rs");
    let last = changing.control().status().reloads.last.expect("one that has ended");
    assert!(last.cause.ends_with("ended: exited:1"), "{last:?}");
}

#[test] // O-RL-06, O-RL-07
fn canary_that_dies_by_a_signal_is_rolled_back() {
    let words = "cannot go on without the database";
    let changing = fails("child=abort\n", "", "rolled_back", "ended: signal:SIGABRT", words);
    let last = changing.control().status().reloads.last.expect("one that has ended");
    assert!(last.cause.ends_with("ended: signal:SIGABRT"), "{last:?}");
}

/// Reloads under load with a configuration whose third child fails.
#[track_caller]
fn third_fails(child: &str, args: &str, cause: &str, last_words: &str) {
    let changing = Changing::pool(3, "value=a\n", args);
    let config = format!("value=b\nchild={child}\ndir=DIR/seen\n");
    fs::create_dir(changing.dir.path().join("seen")).expect("a directory");
    let load = Load::begin(changing.addr);
    changing.write(&config.replace("DIR", changing.dir.path().to_str().expect("a path that is text")));
    let out = lenorectl(&changing.socket, "reload");
    assert_eq!(out.code, 1, "{out:?}");
    assert!(
        out.err.contains("rolled back: child") && out.err.contains(cause) && out.err.contains(last_words),
        "{out:?}"
    );
    load.end().assert_nothing_lost();
    changing.wait_idle(3);
    assert_eq!(changing.value(), "a");
    assert!(changing.control().status().children.iter().all(|child| child.edition == Some(1)));
}

#[test] // O-RL-06: some old children are gone by then, and come back
fn later_child_that_dies_is_rolled_back_and_the_pool_refilled() {
    third_fails("third", "", "ended: exited:3", "the third is one too many");
}

#[test] // O-RL-06
fn later_child_that_hangs_is_rolled_back_and_the_pool_refilled() {
    third_fails("third hang", "--start-ms 1500", "was not ready within start_timeout", "the third is waiting for ever");
}

#[test] // O-RL-08: neither by candidates that have failed before, nor by its own forks
fn roll_is_not_slowed_by_the_smallest_fork_budget() {
    let changing = Changing::pool(4, "value=a\n", "--fork-burst 1 --forks-per-second 1");
    for _ in 0..5 {
        assert_eq!(changing.reload("child=die\n").code(), "rolled_back");
    }
    changing.reload("value=b\n").ok();
    changing.wait_idle(4);
    let status = changing.control().status();
    assert_eq!((status.counters.forks, status.pool.backoff), (4 + 5 + 4, false));
    assert_eq!(changing.value(), "b");
}

#[test] // O-RL-08: bad reloads do not slow the pool that serves
fn failed_reloads_do_not_pause_forks() {
    let changing = Changing::pool(2, "value=a\n", "");
    for _ in 0..6 {
        assert_eq!(changing.reload("child=die\n").code(), "rolled_back");
    }
    let status = changing.control().status();
    assert!(!status.pool.backoff && changing.logged("children die as soon") == 0);
    kill(changing.children()[0], Signal::SIGKILL).expect("it lives");
    changing.wait_idle(2);
}

#[test] // a child's own standard error: read while the roll goes on, and its own again after that
fn new_child_has_its_own_standard_error_when_the_reload_is_over() {
    let changing = Changing::pool(2, "value=a\n", "");
    let parent = changing.running.pid();
    // Clients of the control socket come and go.
    let open = || util::proc::fds(parent).values().filter(|path| !path.contains("socket:")).count();
    let before = open();
    let own = changing.children().first().map(|pid| fs::read_link(format!("/proc/{pid}/fd/2")).expect("it has one"));
    changing.reload("value=b\nchild=chatty\n").ok();
    changing.wait_idle(2);
    for pid in changing.children() {
        let stderr = || fs::read_link(format!("/proc/{pid}/fd/2")).ok();
        wait_until("its own standard error", DEADLINE, || (stderr() == own).then_some(()));
    }
    let text = changing.running.stderr_text();
    assert_eq!(text.matches("line 1999").count(), 2, "all that children write gets there");
    wait_until("nothing left open", DEADLINE, || (open() == before).then_some(()));
}

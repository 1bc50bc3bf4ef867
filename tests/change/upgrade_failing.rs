//! New programs that fail: nothing is lost, the old one serves, and the verdict has the true cause.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use util::{DEADLINE, Program, kill, proc, wait_until};

use super::changing::{Changing, Outcome, lenorectl};
use super::load::Load;
use super::upgrading::{pool, serves, status, upgrade, wait_alone};

fn script(changing: &Changing, name: &str, text: &str, mode: u32) -> PathBuf {
    let path = changing.dir.path().join(name);
    fs::write(&path, text).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its permissions");
    path
}

/// Upgrades under load to something that fails: the old one serves, and nothing is lost.
#[track_caller]
fn fails(changing: &Changing, args: &str, code: &str, cause: &str, last_words: &str) -> Outcome {
    let parent = changing.running.pid();
    let load = Load::begin(changing.addr);
    let out = lenorectl(&changing.socket, &format!("upgrade {args}"));
    assert_eq!(out.code, 1, "{out:?}\n{}", changing.running.stderr_text());
    assert!(out.err.contains(&format!("{}: ", code.replace('_', " "))), "{out:?}");
    assert!(out.err.contains(cause) && out.err.contains(last_words), "{out:?}");
    serves(changing, parent);
    load.end().assert_nothing_lost();
    let status = status(changing);
    changing.wait_idle(status.pool.min_spare);
    assert_eq!((status.upgrades.verdicts[code], status.upgrades.verdicts["applied"]), (1, 0));
    let last = status.upgrades.last.expect("one that has ended");
    assert!(last.verdict == code && last.cause.contains(cause), "{last:?}");
    out
}

/// A program that can't be started, or is none of ours.
#[track_caller]
fn is_rejected(name: &str, text: &str, mode: u32, cause: &str, last_words: &str) {
    let changing = pool(2, 1000, "");
    let before = changing.children();
    let path = if text.is_empty() { changing.dir.path().join(name) } else { script(&changing, name, text, mode) };
    fails(&changing, &format!("--program {}", path.display()), "rejected", cause, last_words);
    assert_eq!(changing.children(), before, "no child was asked to go");
}

#[test] // O-UP-01
fn program_that_is_missing_is_rejected() {
    is_rejected("none", "", 0, "none: execve: No such file or directory", "");
}

#[test] // O-UP-01
fn program_that_is_not_executable_is_rejected() {
    is_rejected("text", "#!/bin/sh\n", 0o644, "text: execve: Permission denied", "");
}

#[test] // O-UP-01
fn program_of_another_architecture_is_rejected() {
    is_rejected("binary", "\x7fELF, but not really", 0o755, "binary: execve: Exec format error", "");
}

#[test] // O-UP-01: wherever between the fork and the program
fn program_that_can_not_get_its_descriptors_is_rejected_and_no_descriptor_is_left() {
    let args = format!("--pid-file DIR/pid --probation-ms 1000 {}", Changing::size(2));
    let twin = Changing::start("value=a\n", &args);
    twin.wait_idle(2);
    for copy in 1..=3 {
        let prepare = |program: Program| program.env("LENORE_INJECT", format!("kernel.copy=fail@{copy}"));
        let changing = Changing::start_by(prepare, "value=a\n", &args);
        changing.wait_idle(2);
        let before = changing.children();
        fails(&changing, "", "rejected", "fcntl: Too many open files", "");
        assert_eq!(changing.children(), before, "no child was asked to go");
        wait_until("as many descriptors as of a process that was not to be upgraded", DEADLINE, || {
            let [some, same] = [&changing, &twin].map(|changing| proc::fds(changing.running.pid()).len());
            (some == same).then_some(())
        });
    }
}

#[test] // O-UP-01, O-UP-04
fn program_that_exits_at_once_is_rejected_with_its_last_words() {
    is_rejected(
        "exits",
        "#!/bin/sh\necho no licence >&2\nexit 1\n",
        0o755,
        "the new program ended with exit code 1",
        "no licence",
    );
}

#[test] // O-UP-01, O-UP-14: what it has forked ends as well
fn program_that_does_not_greet_is_rejected() {
    is_rejected("silent", "#!/bin/sh\nsleep 97 & sleep 98\n", 0o755, "has not greeted in time", "");
    let left = proc::pids_with_argument("97");
    assert!(left.is_empty(), "{left:?}");
}

#[test] // O-UP-14
fn program_that_speaks_another_version_is_rejected_by_name() {
    let text = "#!/bin/bash\nIFS=: read -ra names <<< \"$LISTEN_FDNAMES\"\n\
        for at in \"${!names[@]}\"; do [ ${names[at]} = lenore-handover ] && eval \"echo greeting 2 $$ >&$((at + 3))\"; done\n\
        sleep 30\n";
    is_rejected("other", text, 0o755, "says \"greeting 2", "");
}

#[test] // O-UP-01, O-UP-03, O-UP-04: the end of what the child wrote
fn program_whose_first_child_panics_is_rolled_back() {
    let changing = pool(2, 1000, "");
    changing.write("value=b\nchild=panic\n");
    let out = fails(&changing, "", "rolled_back", "children die as soon as they are forked", "the database is broken");
    assert!(out.err.contains("panicked at tests/programs/daemon_change.rs"), "{out:?}");
    // And where the old program writes.
    changing.wait_log("the database is broken");
}

#[test] // O-UP-01, O-UP-03, O-UP-04
fn program_whose_first_child_exits_is_rolled_back() {
    let changing = pool(2, 1000, "");
    changing.write("value=b\nchild=die\n");
    let words = "cannot open the database";
    let out = fails(&changing, "", "rolled_back", "children die as soon as they are forked", words);
    assert!(out.err.contains("cause=exited:3"), "and what their parent says of it: {out:?}");
    changing.wait_log("cannot open the database");
}

#[test] // O-UP-01
fn program_that_can_not_load_its_configuration_is_rolled_back() {
    let changing = pool(2, 1000, "");
    changing.write("nonsense\n");
    fails(&changing, "", "rolled_back", "the new program ended with exit code 1", "\"nonsense\" is not known");
}

#[test] // O-UP-02, O-UP-03, O-UP-04: its main runs, and no child is ready: it is ended, with the children that it has forked
fn program_that_is_not_ready_in_time_is_rolled_back() {
    let changing = pool(2, 1000, "--upgrade-ms 1200 --grace-ms 300");
    changing.write("value=b\nchild=hang\n");
    fails(&changing, "", "rolled_back", "was not ready within upgrade_timeout", "waiting for the database");
    let parent = changing.running.pid();
    wait_until("nothing of it", DEADLINE, || {
        let left = changing.running.descendants_alive();
        (left == changing.children() && proc::state(parent).is_some()).then_some(())
    });
}

#[test] // O-UP-01: nothing is half done when descriptors run out
fn upgrade_for_which_no_descriptor_is_left_is_rejected_and_can_be_tried_again() {
    let changing = pool(1, 0, "");
    let parent = changing.running.pid();
    let open = proc::fds(parent);
    let free: Vec<i32> = (0..1024).filter(|fd| !open.contains_key(fd)).collect();
    let mut causes = Vec::new();
    // One descriptor more each time, until there are enough.
    let applied = (4..60).find(|number| {
        let mut prlimit = std::process::Command::new("prlimit");
        prlimit.args(["--pid", &parent.to_string(), &format!("--nofile={}:", free[*number])]);
        assert!(prlimit.status().expect("prlimit can be run").success());
        let out = lenorectl(&changing.socket, "upgrade");
        if out.code != 0 {
            assert!(out.err.contains("rejected: ") && out.err.contains("Too many open files"), "{out:?}");
            serves(&changing, parent);
            causes.push(out.err);
        }
        out.code == 0
    });
    assert!(applied.is_some() && !causes.is_empty(), "{causes:#?}");
}

#[test] // O-UP-04: only for as long as it is on trial
fn children_of_a_new_program_have_their_own_standard_error_when_it_serves() {
    let mut changing = pool(2, 0, "");
    let own = |pid: i32| fs::read_link(format!("/proc/{pid}/fd/2")).ok();
    let before = own(changing.running.pid()).expect("it has one");
    changing.write("value=b\nchild=chatty\n");
    let new = upgrade(&changing);
    assert!(changing.running.wait_exit(DEADLINE).success());
    wait_alone(&changing);
    let children: Vec<i32> = proc::children(new).into_keys().collect();
    assert_eq!(children.len(), 2);
    for pid in children.into_iter().chain([new]) {
        wait_until("its own standard error", DEADLINE, || (own(pid).as_ref() == Some(&before)).then_some(()));
    }
    wait_until("all that children have written", DEADLINE, || (changing.logged("line 1999") == 2).then_some(()));
    // And it is there still.
    let pid = changing.control().wait_status("children", |status| status.children.first()?.pid);
    kill(pid, Signal::SIGKILL).expect("it lives");
    wait_until("what the next one writes", DEADLINE, || (changing.logged("line 1999") == 3).then_some(()));
}

//! What the system tells of at once: the feature `inotify`. All intervals are longer than any test.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::time::Duration;

use lenore::filter::Line;
use lenore::wheel::FollowTail;

use super::{INTERVAL, Lab, append};
use util::in_process::{run, run_slices, run_until};
use util::{DEADLINE, Program, test_program};

const LONG: Duration = Duration::from_secs(1000);

/// Follows the file, and returns once that waits.
fn waiting(lab: &mut Lab) {
    lab.follow_with(|builder| builder.poll_interval(LONG));
    idle(lab);
}

fn idle(lab: &mut Lab) {
    let log = lab.log.clone();
    run_until(&mut lab.kernel, || log.count("idle") > 0);
    lab.log.take();
}

/// Runs until the wheel has nothing to do any more.
fn settle(lab: &mut Lab) {
    for _ in 0..5 {
        // A slice without an event would wait.
        lab.kernel.post(lab.session.unwrap(), "nothing", ()).unwrap();
        run_slices(&mut lab.kernel, 1);
    }
}

/// Runs until that many events have come beside idle ones.
#[track_caller]
fn told(lab: &mut Lab, expected: &[&str]) {
    let (log, mut heard) = (lab.log.clone(), Vec::new());
    run_until(&mut lab.kernel, || {
        heard.extend(log.take().into_iter().filter(|entry| entry != "idle"));
        heard.len() >= expected.len()
    });
    assert_eq!(heard, expected);
}

#[test] // K-FT-06
fn what_is_appended_is_read_at_once() {
    let mut lab = Lab::new();
    lab.write("old\n");
    waiting(&mut lab);
    for line in ["one", "two", "three"] {
        lab.append(&format!("{line}\n"));
        told(&mut lab, &[line]);
    }
}

#[test] // K-FT-05
fn a_file_that_appears_is_read_at_once() {
    for moved in [false, true] {
        let mut lab = Lab::new();
        waiting(&mut lab);
        if moved {
            let other = lab.dir.path().join("other");
            append(&other, "one\n");
            fs::rename(other, lab.path()).unwrap();
        } else {
            lab.append("one\n");
        }
        // The file may be there before its content is.
        told(&mut lab, &["reset", "one"]);
        lab.append("two\n");
        told(&mut lab, &["two"]);
    }
}

#[test] // K-FT-08, K-FT-09
fn rotation_is_seen_at_once() {
    let mut lab = Lab::new();
    lab.write("");
    waiting(&mut lab);
    for round in 0..3 {
        let renamed = lab.dir.path().join(format!("log.{round}"));
        fs::rename(lab.path(), &renamed).unwrap();
        append(&renamed, "late\n");
        told(&mut lab, &["late"]);
        lab.append("new\n");
        told(&mut lab, &["reset", "new"]);
    }
    fs::remove_file(lab.path()).unwrap();
    lab.append("again\n");
    told(&mut lab, &["reset", "again"]);
}

#[test] // K-FT-07
fn another_file_in_its_place_is_seen_at_once() {
    let mut lab = Lab::new();
    lab.write("first\n");
    waiting(&mut lab);
    let other = lab.dir.path().join("other");
    append(&other, "second\n");
    fs::rename(&other, lab.path()).unwrap();
    told(&mut lab, &["reset", "second"]);
    // A symbolic link is another one, too.
    append(&other, "third\n");
    symlink(&other, lab.dir.path().join("link")).unwrap();
    fs::rename(lab.dir.path().join("link"), lab.path()).unwrap();
    told(&mut lab, &["reset", "third"]);
    append(&other, "fourth\n");
    told(&mut lab, &["fourth"]);
}

#[test] // K-FT-07
fn truncation_is_seen_at_once() {
    let mut lab = Lab::new();
    lab.write("first\n");
    waiting(&mut lab);
    File::create(lab.path()).unwrap();
    told(&mut lab, &["reset"]);
    lab.append("second\n");
    told(&mut lab, &["second"]);
}

#[test] // K-FT-07: the name leads to another file, as its directory is another one
fn a_directory_may_be_moved_away() {
    let mut lab = Lab::new();
    let (logs, old) = (lab.dir.path().join("logs"), lab.dir.path().join("old"));
    let path = logs.join("log");
    fs::create_dir(&logs).unwrap();
    append(&path, "first\n");
    let followed = path.clone();
    lab.start(move || {
        let builder = FollowTail::path(&followed, Line::new()).poll_interval(Duration::from_millis(100));
        builder.rotate_wait(INTERVAL)
    });
    idle(&mut lab);
    fs::rename(&logs, &old).unwrap();
    append(&old.join("log"), "late\n");
    told(&mut lab, &["late"]);
    fs::create_dir(&logs).unwrap();
    append(&path, "second\n");
    told(&mut lab, &["reset", "second"]);
}

#[test] // K-FT-07: of the directory that the name leads to, whichever it was before
fn the_directory_that_has_taken_anothers_place_is_watched() {
    let mut lab = Lab::new();
    let [one, other, current, next] = ["one", "other", "current", "next"].map(|name| lab.dir.path().join(name));
    for directory in [&one, &other] {
        fs::create_dir(directory).unwrap();
    }
    symlink(&one, &current).unwrap();
    append(&one.join("log"), "");
    let followed = current.join("log");
    lab.start(move || FollowTail::path(&followed, Line::new()).poll_interval(LONG).rotate_wait(INTERVAL));
    idle(&mut lab);
    append(&other.join("log"), "first\n");
    symlink(&other, &next).unwrap();
    fs::rename(&next, &current).unwrap();
    // Of that nobody tells, but of this.
    append(&one.join("log"), "late\n");
    told(&mut lab, &["late", "reset", "first"]);
    settle(&mut lab);
    fs::remove_file(other.join("log")).unwrap();
    idle(&mut lab);
    append(&other.join("log"), "second\n");
    told(&mut lab, &["reset", "second"]);
}

#[test] // K-FT-05: what a symbolic link leads to comes and goes in a directory that is not watched
fn a_symbolic_link_is_polled_as_often_as_ever() {
    let mut lab = Lab::new();
    let elsewhere = lab.dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let file = elsewhere.join("log");
    append(&file, "first\n");
    symlink(&file, lab.path()).unwrap();
    // Ten times as long is too long.
    lab.follow_with(|builder| builder.poll_interval(DEADLINE / 8));
    idle(&mut lab);
    fs::remove_file(&file).unwrap();
    idle(&mut lab);
    append(&file, "second\n");
    told(&mut lab, &["reset", "second"]);
}

#[test] // K-FT-10
fn a_handle_is_watched_whatever_its_name() {
    let mut lab = Lab::new();
    lab.write("first\n");
    let file = File::open(lab.path()).unwrap();
    let renamed = lab.dir.path().join("renamed");
    fs::rename(lab.path(), &renamed).unwrap();
    lab.start(|| FollowTail::file(file, Line::new()).poll_interval(LONG));
    idle(&mut lab);
    append(&renamed, "second\n");
    told(&mut lab, &["second"]);
}

#[test] // K-FT-12: what happens to other files in the directory is no news
fn other_files_are_nobodys_business() {
    let mut lab = Lab::new();
    lab.write("");
    waiting(&mut lab);
    for round in 0..3 {
        (0..200).for_each(|number| append(&lab.dir.path().join(format!("{round}.{number}")), "x\n"));
        lab.kernel.run_one_timeslice().unwrap();
        lab.append("mine\n");
        let log = lab.log.clone();
        run_until(&mut lab.kernel, || log.count("mine") == round + 1);
    }
    assert_eq!(lab.log.text(), "mine mine mine", "no look in vain between them");
}

#[test] // K-FT-16: nothing of it stays behind
fn the_wheel_takes_its_watches_along() {
    for end in ["drop", "stop"] {
        let mut lab = Lab::new();
        lab.write("");
        waiting(&mut lab);
        assert_eq!(lab.kernel.peek().sources.len(), 2);
        let text = format!("{:#}", lab.kernel.peek());
        assert!(text.contains("inotify for the FollowTail of "), "{text}");
        lab.call(end);
        run(&mut lab.kernel);
        assert_eq!(lab.kernel.peek().sources.len(), 0);
        assert_eq!(lab.kernel.event_count(), 0);
    }
}

#[test] // fork trap: what a child does with its copy of the descriptor is done to the parent's watches
fn a_forked_child_leaves_its_parents_watches_alone() {
    let lab = Lab::new();
    lab.write("");
    let mut running = Program::new(test_program("follow_forked")).arg(lab.path()).start();
    assert_eq!(running.next_line(DEADLINE), "the child has ended");
    lab.append("after\n");
    assert_eq!(running.next_line(DEADLINE), "after");
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(0), "{}", running.stderr_text());
}

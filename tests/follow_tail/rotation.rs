//! Files that are renamed, replaced, truncated and written anew.

use std::fs::{self, File, Permissions};
use std::io::SeekFrom;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use lenore::filter::Line;
use lenore::wheel::FollowTail;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use super::{INTERVAL, Lab, append};
use util::in_process::{run_slices, run_until};
use util::{DEADLINE, wait_until};

#[test] // K-FT-07, K-FT-08: rotation, with the rest of the old file first
fn a_replaced_file_is_read_to_its_end_first() {
    let mut lab = Lab::new();
    lab.write("old\n");
    lab.follow();
    lab.append("a\n");
    assert_eq!(lab.news(), ["a"]);
    lab.append("b\n");
    fs::rename(lab.path(), lab.dir.path().join("log.1")).unwrap();
    lab.append("c\n");
    assert_eq!(lab.news(), ["b", "reset", "c"]);
    lab.append("d\n");
    assert_eq!(lab.news(), ["d"]);
}

#[test] // K-FT-08: a writer that has not reopened the file yet, until there is another
fn a_renamed_file_is_followed_until_there_is_another() {
    let mut lab = Lab::new();
    lab.write("");
    lab.follow();
    lab.settle();
    let renamed = lab.dir.path().join("log.1");
    fs::rename(lab.path(), &renamed).unwrap();
    assert_eq!(lab.news(), [""; 0]);
    append(&renamed, "late\n");
    assert_eq!(lab.news(), ["late"]);
    append(&renamed, "latest\n");
    lab.append("new\n");
    assert_eq!(lab.news(), ["late", "latest", "reset", "new"][1..]);
}

#[test] // K-FT-20
fn a_renamed_file_is_read_for_as_long_as_the_wheel_is_told() {
    let mut lab = Lab::new();
    lab.write("");
    lab.follow_with(|builder| builder.rotate_wait(Duration::from_secs(1000)));
    lab.settle();
    lab.log.take();
    let [first, second] = ["log.1", "log.2"].map(|name| lab.dir.path().join(name));
    fs::rename(lab.path(), &first).unwrap();
    lab.append("two\n");
    let log = lab.log.clone();
    for number in 1..=3 {
        let late = format!("one {number}");
        append(&first, &format!("{late}\n"));
        run_until(&mut lab.kernel, || log.count(&late) == 1);
        // The wheel looks at the name in the turn after that, and a wheel that does not wait leaves the file soon after.
        run_slices(&mut lab.kernel, 5);
    }
    assert_eq!(log.take(), ["one 1", "one 2", "one 3"], "no idle event while there is something to come");
    // The third file ends the wait for the first, and begins one for the second.
    fs::rename(lab.path(), &second).unwrap();
    lab.append("three\n");
    append(&second, "two, late\n");
    run_until(&mut lab.kernel, || log.count("two, late") == 1);
    assert_eq!(log.take(), ["reset", "two", "two, late"]);
}

#[test] // K-FT-20: nobody has opened the new file to write to it yet
fn a_renamed_file_is_read_until_there_is_something_in_the_new_one() {
    let mut lab = Lab::new();
    lab.write("");
    lab.follow();
    lab.settle();
    let renamed = lab.dir.path().join("log.1");
    fs::rename(lab.path(), &renamed).unwrap();
    lab.write("");
    assert_eq!(lab.news(), [""; 0]);
    append(&renamed, "late\n");
    assert_eq!(lab.news(), ["late"]);
    append(&renamed, "latest\n");
    lab.append("new\n");
    assert_eq!(lab.news(), ["latest", "reset", "new"]);
}

#[test] // K-FT-20, K-FT-07: as POE does it
fn without_a_wait_a_replaced_file_is_left_at_once() {
    let mut lab = Lab::new();
    lab.write("");
    lab.follow_with(|builder| builder.rotate_wait(Duration::ZERO));
    lab.settle();
    let renamed = lab.dir.path().join("log.1");
    fs::rename(lab.path(), &renamed).unwrap();
    append(&renamed, "old\n");
    lab.write("");
    assert_eq!(lab.news(), ["old", "reset"]);
    append(&renamed, "lost\n");
    lab.append("new\n");
    assert_eq!(lab.news(), ["new"]);
}

#[test] // K-FT-20: renamed again while it waits
fn the_new_file_is_not_lost_although_it_is_renamed_before_its_turn() {
    let mut lab = Lab::new();
    lab.write("");
    lab.follow_with(|builder| builder.rotate_wait(Duration::from_millis(200)));
    lab.settle();
    lab.log.take();
    fs::rename(lab.path(), lab.dir.path().join("log.2")).unwrap();
    lab.append("two\n");
    append(&lab.dir.path().join("log.2"), "one\n");
    let log = lab.log.clone();
    run_until(&mut lab.kernel, || log.count("one") == 1);
    // The wheel looks at the name in the turn after that.
    run_slices(&mut lab.kernel, 2);
    fs::rename(lab.path(), lab.dir.path().join("log.1")).unwrap();
    run_until(&mut lab.kernel, || log.count("two") == 1);
    lab.append("three\n");
    run_until(&mut lab.kernel, || log.count("three") == 1);
    assert_eq!(log.take().join(" ").replace("idle ", ""), "one reset two reset three");
}

#[test] // K-FT-07: the file is another one, although it is as long
fn a_replacement_is_recognised_whatever_its_length() {
    for second in ["x\n", "second\n", "longer than the first\n"] {
        let mut lab = Lab::new();
        lab.write("first\n");
        lab.follow();
        assert_eq!(lab.news(), [""; 0]);
        let other = lab.dir.path().join("other");
        fs::write(&other, second).unwrap();
        fs::rename(&other, lab.path()).unwrap();
        assert_eq!(lab.news(), ["reset", second.trim_end()]);
    }
}

#[test] // K-FT-07: a second name makes no other file
fn a_hard_link_is_no_replacement() {
    let mut lab = Lab::new();
    lab.write("first\n");
    lab.follow();
    lab.settle();
    fs::hard_link(lab.path(), lab.dir.path().join("backup")).unwrap();
    lab.append("second\n");
    assert_eq!(lab.news(), ["second"]);
}

#[test] // K-FT-07
fn a_truncated_file_is_read_from_its_start() {
    let mut lab = Lab::new();
    lab.write("first\nsecond\n");
    lab.follow();
    assert_eq!(lab.news(), [""; 0]);
    lab.write("");
    assert_eq!(lab.news(), ["reset"]);
    lab.append("third\n");
    assert_eq!(lab.news(), ["third"]);
    lab.write("x\n");
    assert_eq!(lab.news(), ["reset", "x"]);
}

#[test] // K-FT-09
fn removal_is_no_event_and_the_next_file_is() {
    let mut lab = Lab::new();
    lab.write("first\n");
    lab.follow();
    lab.settle();
    fs::remove_file(lab.path()).unwrap();
    assert_eq!(lab.news(), [""; 0]);
    lab.append("second\n");
    assert_eq!(lab.news(), ["reset", "second"]);
}

#[test] // K-FT-10
fn a_handle_is_followed_and_its_name_is_not() {
    let mut lab = Lab::new();
    lab.write("first\n");
    let file = File::open(lab.path()).unwrap();
    lab.start(|| FollowTail::file(file, Line::new()).poll_interval(INTERVAL));
    lab.append("second\n");
    assert_eq!(lab.news(), ["second"]);
    lab.write("");
    assert_eq!(lab.news(), ["reset"]);
    lab.append("third\n");
    assert_eq!(lab.news(), ["third"]);
    fs::remove_file(lab.path()).unwrap();
    lab.append("of another file\n");
    assert_eq!(lab.news(), [""; 0]);
}

#[test] // K-FT-10, K-FT-04: the handle's own place, which stays where it is
fn a_handle_is_read_without_being_moved() {
    use std::io::{Read, Seek};
    let mut lab = Lab::new();
    lab.write("one\ntwo\nthree\n");
    let mut file = File::open(lab.path()).unwrap();
    file.seek(SeekFrom::Start(4)).unwrap();
    let copy = file.try_clone().unwrap();
    lab.start(|| FollowTail::file(copy, Line::new()).poll_interval(INTERVAL).seek(SeekFrom::Current(0)));
    assert_eq!(lab.news(), ["two", "three"]);
    let mut rest = String::new();
    file.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "two\nthree\n");
}

#[test] // K-FT-11 with K-RE-25: rewritten and longer than before, between two looks
fn a_file_that_was_truncated_and_has_grown_is_recognised() {
    let mut lab = Lab::new();
    lab.write("12:00 first\n");
    lab.follow();
    assert_eq!(lab.news(), [""; 0]);
    lab.write("13:00 second, and longer\n");
    assert_eq!(lab.news(), ["reset", "13:00 second, and longer"]);
    lab.write("14:00 exactly as long...\n");
    assert_eq!(lab.news(), ["reset", "14:00 exactly as long..."]);
}

/// Waits until the file system's clock tells another time than that of the file's last write and read.
fn tick(lab: &Lab) {
    let about = fs::metadata(lab.path()).unwrap();
    let last = about.modified().unwrap().max(about.accessed().unwrap());
    let scratch = lab.dir.path().join("scratch");
    wait_until("another time", DEADLINE, || {
        fs::write(&scratch, "x").unwrap();
        (fs::metadata(&scratch).unwrap().modified().unwrap() > last).then_some(())
    });
}

#[test] // K-FT-11 with K-RE-25: its length and content are as before, its times are not
fn a_file_that_was_written_anew_with_the_same_content_is_recognised() {
    let mut lab = Lab::new();
    lab.write("one\ntwo\n");
    lab.follow();
    assert_eq!(lab.news(), [""; 0]);
    for _ in 0..2 {
        tick(&lab);
        lab.write("one\ntwo\n");
        assert_eq!(lab.news(), ["reset", "one", "two"]);
        assert_eq!(lab.news(), [""; 0]);
    }
}

#[test] // K-FT-11: what changes the times alone
fn a_file_that_is_touched_is_not_written_anew() {
    let mut lab = Lab::new();
    lab.write("one\n");
    lab.follow();
    lab.settle();
    let now = TimeSpec::UTIME_NOW;
    let (path, long_ago) = (lab.path(), SystemTime::UNIX_EPOCH);
    let touches: [&dyn Fn(); 3] = [
        &|| utimensat(AT_FDCWD, &path, &now, &now, UtimensatFlags::FollowSymlink).unwrap(),
        &|| File::options().append(true).open(&path).unwrap().set_modified(long_ago).unwrap(),
        &|| fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap(),
    ];
    for touch in touches {
        tick(&lab);
        touch();
        assert_eq!(lab.news(), [""; 0]);
    }
    lab.append("two\n");
    assert_eq!(lab.news(), ["two"]);
}

#[test] // K-FT-18 with K-RE-25: no record is made of pieces of two files
fn an_unfinished_record_does_not_outlive_its_file() {
    for truncates in [false, true] {
        let mut lab = Lab::new();
        lab.write("");
        lab.follow();
        lab.append("whole\nunfin");
        assert_eq!(lab.news(), ["whole"]);
        if truncates {
            lab.write("a\n");
        } else {
            fs::remove_file(lab.path()).unwrap();
            lab.append("a\n");
        }
        assert_eq!(lab.news(), ["reset", "a"], "truncates: {truncates}");
    }
}

#[test] // K-FT-18 with K-RE-39
fn an_unfinished_record_is_delivered_to_who_asks_for_it() {
    let mut lab = Lab::new();
    lab.write("");
    lab.follow_with(|builder| builder.deliver_last());
    lab.append("unfinished");
    assert_eq!(lab.news(), [""; 0]);
    fs::remove_file(lab.path()).unwrap();
    lab.append("a\n");
    assert_eq!(lab.news(), ["unfinished", "reset", "a"]);
}

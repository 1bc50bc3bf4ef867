//! What goes wrong with the file: errors that pass, and those that end the following.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use lenore::filter::Line;
use lenore::wheel::{FollowTail, FollowTailBuilder};
use nix::errno::Errno;
use nix::unistd::Uid;

use super::{INTERVAL, Lab, append};
use util::in_process::{run, run_until};
use util::{DEADLINE, Program, test_program};

/// Follows `path` with all events.
fn follow(lab: &mut Lab, path: &Path, seek: Option<SeekFrom>) {
    let path = path.to_owned();
    lab.start(move || {
        let builder = FollowTail::path(&path, Line::new()).poll_interval(INTERVAL).rotate_wait(INTERVAL);
        seek.into_iter().fold(builder, FollowTailBuilder::seek)
    });
}

fn retry(operation: &str, errno: Errno) -> String {
    format!("retry:{operation}:{}:log", errno as i32)
}

#[test] // K-FT-19: ENOTDIR; not even root gets through a name that is no directory
fn an_error_of_open_is_told_once_and_the_file_is_followed_when_it_passes() {
    let mut lab = Lab::new();
    let directory = lab.dir.path().join("directory");
    fs::write(&directory, "").unwrap();
    let path = directory.join("log");
    follow(&mut lab, &path, None);
    assert_eq!(lab.news(), [retry("open", Errno::ENOTDIR)]);
    assert_eq!(lab.news(), [""; 0], "once");
    fs::remove_file(&directory).unwrap();
    fs::create_dir(&directory).unwrap();
    assert_eq!(lab.news(), [""; 0], "a missing file is no error");
    append(&path, "one\n");
    assert_eq!(lab.news(), ["reset", "one"]);
    fs::remove_dir_all(&directory).unwrap();
    fs::write(&directory, "").unwrap();
    assert_eq!(lab.news(), [retry("stat", Errno::ENOTDIR)], "told again, as it had passed");
}

#[test] // K-FT-19: EISDIR
fn a_directory_in_place_of_the_file_is_waited_out() {
    let mut lab = Lab::new();
    lab.write("old\n");
    lab.follow();
    lab.settle();
    lab.log.take();
    fs::remove_file(lab.path()).unwrap();
    fs::create_dir(lab.path()).unwrap();
    assert_eq!(lab.news(), [retry("open", Errno::EISDIR)]);
    fs::remove_dir(lab.path()).unwrap();
    lab.append("new\n");
    assert_eq!(lab.news(), ["reset", "new"]);
}

#[test] // K-FT-19: ELOOP; and the old file is followed as long as the new one can't be opened
fn the_old_file_is_followed_while_the_new_one_can_not_be_opened() {
    let mut lab = Lab::new();
    lab.write("");
    lab.follow();
    lab.settle();
    let renamed = lab.dir.path().join("log.1");
    fs::rename(lab.path(), &renamed).unwrap();
    symlink(lab.path(), lab.path()).unwrap();
    assert_eq!(lab.news(), [retry("stat", Errno::ELOOP)]);
    append(&renamed, "late\n");
    assert_eq!(lab.news(), ["late"]);
    fs::remove_file(lab.path()).unwrap();
    append(&renamed, "latest\n");
    lab.append("new\n");
    assert_eq!(lab.news(), ["latest", "reset", "new"]);
}

#[test] // K-FT-19: EIO, which a read of this file at address 0 gives
fn an_error_of_read_is_told_once_and_the_next_file_is_read() {
    let mut lab = Lab::new();
    symlink("/proc/self/mem", lab.path()).unwrap();
    lab.follow();
    let log = lab.log.clone();
    run_until(&mut lab.kernel, || log.count(&retry("read", Errno::EIO)) == 1);
    assert_eq!(lab.news(), [retry("read", Errno::EIO)], "once");
    assert_eq!(lab.news(), [""; 0]);
    fs::remove_file(lab.path()).unwrap();
    lab.append("new\n");
    run_until(&mut lab.kernel, || log.count("new") == 1);
    assert_eq!(lab.news(), ["reset", "new"]);
}

#[test] // K-FT-19: a handle has no name to come back by, but what fails to answer may answer later
fn an_error_of_read_that_may_pass_ends_nothing_for_a_handle() {
    let mut lab = Lab::new();
    let file = File::open("/proc/self/mem").unwrap();
    lab.start(|| FollowTail::file(file, Line::new()).poll_interval(INTERVAL));
    assert_eq!(lab.news(), [format!("retry:read:{}:", Errno::EIO as i32)]);
    assert_eq!(lab.news(), [""; 0]);
}

#[test] // K-FT-19: EMFILE at the start; following begins where it would have begun then
fn a_file_that_could_not_be_opened_is_begun_where_it_ended_at_the_start() {
    let begun: [(&[&str], &[&str]); 3] =
        [(&[], &["three"]), (&["4"], &["two", "three"]), (&["-8"], &["one", "two", "three"])];
    for (offset, expected) in begun {
        let lab = Lab::new();
        lab.write("one\ntwo\n");
        let running = Program::new(test_program("follow")).arg(lab.path()).arg("short").args(offset).start();
        assert_eq!(running.next_line(DEADLINE), "following");
        assert_eq!(running.next_line(DEADLINE), "retry open 24");
        lab.append("three\n");
        assert_eq!(running.next_line(DEADLINE), "released", "told once");
        for line in expected {
            assert_eq!(running.next_line(DEADLINE), *line);
        }
    }
}

/// The program as a user who may not read everything: where root runs the tests, as another one.
fn as_a_user(lab: &Lab, name: &str) -> Program {
    if !Uid::effective().is_root() {
        return Program::new(test_program(name));
    }
    // That user may not come to where it was built.
    let copy = lab.dir.path().join(name);
    fs::copy(test_program(name), &copy).unwrap();
    fs::set_permissions(lab.dir.path(), Permissions::from_mode(0o755)).unwrap();
    Program::new(copy).user(NOBODY, NOBODY)
}

/// No account, just not root.
const NOBODY: u32 = 65534;

/// Makes a file that nobody can open, and returns it open.
fn denied(path: &Path) -> File {
    OpenOptions::new().write(true).create_new(true).mode(0o0).open(path).unwrap()
}

fn allow(path: &Path) {
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
}

#[test] // K-FT-19: EACCES, as of a file that logrotate makes, and hands to its group or user afterwards
fn no_line_is_lost_by_rotations_that_deny_the_file_for_a_moment() {
    let lab = Lab::new();
    lab.write("");
    let running = as_a_user(&lab, "follow").arg(lab.path()).start();
    assert_eq!(running.next_line(DEADLINE), "following");
    for round in 0..20 {
        let mut old = OpenOptions::new().append(true).open(lab.path()).unwrap();
        fs::rename(lab.path(), lab.dir.path().join(format!("log.{round}"))).unwrap();
        let mut new = denied(&lab.path());
        writeln!(new, "new {round}").unwrap();
        if round % 2 == 0 {
            // Once, however often it is tried. In the other rounds it depends on who is faster.
            assert_eq!(running.next_line(DEADLINE), format!("retry open {}", Errno::EACCES as i32));
        }
        writeln!(old, "late {round}").unwrap();
        allow(&lab.path());
        let mut lines = (0..3).map(|_| running.next_line(DEADLINE)).collect::<Vec<_>>();
        if let Some(place) = lines.iter().position(|line| line.starts_with("retry") && round % 2 == 1) {
            lines.remove(place);
            lines.push(running.next_line(DEADLINE));
        }
        assert_eq!(lines, [format!("late {round}"), String::from("reset"), format!("new {round}")]);
    }
}

#[test] // K-FT-19: EACCES of a directory
fn a_directory_may_deny_its_files_for_a_moment() {
    let lab = Lab::new();
    lab.write("");
    let running = as_a_user(&lab, "follow").arg(lab.path()).start();
    assert_eq!(running.next_line(DEADLINE), "following");
    for round in 0..3 {
        let mut file = OpenOptions::new().append(true).open(lab.path()).unwrap();
        fs::set_permissions(lab.dir.path(), Permissions::from_mode(0o0)).unwrap();
        assert_eq!(running.next_line(DEADLINE), format!("retry stat {}", Errno::EACCES as i32));
        writeln!(file, "denied {round}").unwrap();
        assert_eq!(running.next_line(DEADLINE), format!("denied {round}"));
        fs::set_permissions(lab.dir.path(), Permissions::from_mode(0o755)).unwrap();
        writeln!(file, "allowed {round}").unwrap();
        assert_eq!(running.next_line(DEADLINE), format!("allowed {round}"));
        // A reset shows that the name can be looked at again: the next trouble is another one.
        fs::rename(lab.path(), lab.dir.path().join(format!("log.{round}"))).unwrap();
        lab.append("new\n");
        assert_eq!([running.next_line(DEADLINE), running.next_line(DEADLINE)], ["reset", "new"]);
    }
}

#[test] // K-FT-15: a name that can never be opened
fn a_name_that_is_too_long_ends_the_following() {
    let mut lab = Lab::new();
    let path = lab.dir.path().join("x".repeat(300));
    follow(&mut lab, &path, None);
    run(&mut lab.kernel);
    let expected = format!("error:open:{}:{} _stop", Errno::ENAMETOOLONG as i32, "x".repeat(300));
    assert_eq!(lab.log.text(), expected);
}

#[test] // K-FT-15: a handle that can't be read
fn a_read_error_of_the_descriptor_ends_the_following() {
    let mut lab = Lab::new();
    lab.write("x\n");
    let file = OpenOptions::new().append(true).open(lab.path()).unwrap();
    lab.start(|| FollowTail::file(file, Line::new()).seek(SeekFrom::Start(0)));
    run(&mut lab.kernel);
    assert_eq!(lab.log.text(), format!("error:read:{}: _stop", Errno::EBADF as i32));
}

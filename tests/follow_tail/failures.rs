//! What ends the following: files that can not be opened, looked at or read.

use std::fs::{self, OpenOptions};
use std::io::SeekFrom;

use lenore::filter::Line;
use lenore::wheel::FollowTail;
use nix::errno::Errno;

use super::Lab;
use util::in_process::run;

#[test] // K-FT-15, K-FT-02: a file that can't be read is no missing one
fn what_can_not_be_opened_ends_the_following() {
    let mut lab = Lab::new();
    // Not even root gets through a name that is no directory.
    lab.write("");
    let path = lab.path().join("log");
    lab.start(move || FollowTail::new(&path, Line::new()));
    run(&mut lab.kernel);
    assert_eq!(lab.log.text(), format!("error:open:{}:log _stop", Errno::ENOTDIR as i32));
}

#[test] // K-FT-15: also later, and what is found in place of a file
fn a_directory_in_place_of_the_file_ends_the_following() {
    let mut lab = Lab::new();
    lab.write("old\n");
    lab.follow();
    lab.settle();
    fs::remove_file(lab.path()).unwrap();
    fs::create_dir(lab.path()).unwrap();
    run(&mut lab.kernel);
    lab.log.take().iter().rev().take(2).zip(["_stop", "error:open:21:log"]).for_each(|(entry, expected)| {
        assert_eq!(entry, expected);
    });
}

#[test] // K-FT-15: a handle that can't be read
fn a_read_error_ends_the_following() {
    let mut lab = Lab::new();
    lab.write("x\n");
    let file = OpenOptions::new().append(true).open(lab.path()).unwrap();
    lab.start(|| FollowTail::handle(file, Line::new()).seek(SeekFrom::Start(0)));
    run(&mut lab.kernel);
    assert_eq!(lab.log.text(), format!("error:read:{}: _stop", Errno::EBADF as i32));
}

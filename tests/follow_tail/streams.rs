//! What is no regular file: FIFOs, pipes and sockets, which the poller watches.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use lenore::filter::Line;
use lenore::wheel::FollowTail;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::{Lab, append};
use util::in_process::{run, run_until};

fn fifo(lab: &Lab) {
    mkfifo(&lab.path(), Mode::S_IRWXU).expect("a FIFO can be made");
}

#[test] // K-FT-13: no polling, and no end when a writer goes
fn a_fifo_is_watched_and_has_no_end() {
    let mut lab = Lab::new();
    fifo(&lab);
    lab.follow_with(|builder| builder.poll_interval(Duration::from_secs(1000)));
    let log = lab.log.clone();
    for round in ["one", "two"] {
        append(&lab.path(), &format!("{round}\n")); // opens, writes, closes
        run_until(&mut lab.kernel, || log.count(round) == 1);
    }
    lab.call("drop");
    run(&mut lab.kernel);
    assert_eq!(log.text(), "one two _stop");
}

#[test] // K-FT-05, K-FT-13
fn a_fifo_may_appear_later() {
    let mut lab = Lab::new();
    lab.follow();
    lab.settle();
    fifo(&lab);
    let log = lab.log.clone();
    run_until(&mut lab.kernel, || log.count("reset") == 1);
    append(&lab.path(), "one\n");
    run_until(&mut lab.kernel, || log.count("one") == 1);
}

#[test] // K-FT-14: the end of a socket
fn the_end_of_a_socket_is_an_error_event() {
    let mut lab = Lab::new();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"one\ntwo\nunfinished").unwrap();
    drop(theirs);
    lab.start(|| FollowTail::file(ours, Line::new()));
    run(&mut lab.kernel);
    assert_eq!(lab.log.text(), "one two error:read:0: _stop");
}

#[test] // K-FT-14: the end of a pipe, and a last record for who wants it
fn the_end_of_a_pipe_is_an_idle_event() {
    let mut lab = Lab::new();
    let (ours, mut theirs) = std::io::pipe().unwrap();
    theirs.write_all(b"one\nunfinished").unwrap();
    drop(theirs);
    lab.start(|| FollowTail::file(OwnedFd::from(ours), Line::new()).deliver_last());
    run(&mut lab.kernel);
    assert_eq!(lab.log.text(), "one unfinished idle _stop");
}

#[test] // K-FT-17: nothing to tell of what is no regular file
fn tell_knows_nothing_of_what_is_no_regular_file() {
    let mut lab = Lab::new();
    fifo(&lab);
    lab.follow();
    append(&lab.path(), "x\n");
    let log = lab.log.clone();
    run_until(&mut lab.kernel, || log.count("x") == 1);
    assert_eq!(*lab.told.borrow(), None);
}

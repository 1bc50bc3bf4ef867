use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;

use super::*;
use crate::sys::descriptors::adopt;
use crate::testing::TempDir;

const PID: u32 = 4711;

fn read(variables: &[(&str, &str)]) -> Result<Option<Manager>, Error> {
    let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
    Manager::read(|name| variables.get(name).map(OsStr::new), PID)
}

fn received(socket: &UnixDatagram) -> Vec<String> {
    socket.set_nonblocking(true).unwrap();
    let mut message = [0; 256];
    std::iter::from_fn(|| {
        let length = socket.recv(&mut message).ok()?;
        Some(String::from_utf8(message[..length].to_vec()).unwrap())
    })
    .collect()
}

fn managed(period: &str) -> (UnixDatagram, Manager, TempDir) {
    let dir = TempDir::new();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let manager = read(&[(NOTIFY_SOCKET, path.to_str().unwrap()), (WATCHDOG_USEC, period)]).unwrap().unwrap();
    (socket, manager, dir)
}

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn no_variable_is_no_manager() {
    assert!(read(&[]).unwrap().is_none());
    assert!(read(&[(NOTIFY_SOCKET, "")]).unwrap().is_none());
}

#[test] // O-SD-05, O-SD-09
fn bad_value_is_named() {
    let refused = |variable, value| read(&[(NOTIFY_SOCKET, "/x"), (variable, value)]).unwrap_err().to_string();
    assert_eq!(refused(WATCHDOG_USEC, "abc"), "WATCHDOG_USEC=abc: not a number of microseconds");
    assert_eq!(refused(WATCHDOG_USEC, "-1"), "WATCHDOG_USEC=-1: not a number of microseconds");
    assert_eq!(refused(WATCHDOG_PID, "me"), "WATCHDOG_PID=me: not a process");
    assert_eq!(refused(WATCHDOG_USEC, "1000"), "WATCHDOG_USEC=1000: a watchdog's period is at least 50 ms");
}

#[test] // O-SD-03
fn unknown_scheme_is_no_failure() {
    let mut manager = read(&[(NOTIFY_SOCKET, "vsock:2:1234")]).unwrap().unwrap();
    manager.ready(at(0), "ready");
    assert_eq!(manager.next_due(at(0)), None);
}

#[test] // O-SD-08: the watchdog is another process's
fn watchdog_of_another_process_is_left_alone() {
    let manager = read(&[(NOTIFY_SOCKET, "/x"), (WATCHDOG_USEC, "300000"), (WATCHDOG_PID, "1")]).unwrap().unwrap();
    assert!(manager.watchdog.is_none());
}

#[test] // O-SD-02, O-SD-09
fn ready_is_followed_by_a_ping_and_said_once() {
    let (socket, mut manager, _dir) = managed("300000");
    assert!(!manager.ping_is_due(at(0)), "the clock begins with READY");
    manager.ready(at(0), "ready");
    manager.ready(at(1), "ready");
    assert_eq!(received(&socket), ["READY=1\nSTATUS=ready", "WATCHDOG=1"]);
    assert_eq!((manager.ping_is_due(at(99)), manager.ping_is_due(at(100))), (false, true));
    assert_eq!(manager.next_due(at(30)), Some(at(70)));
}

#[test] // O-SD-11
fn status_is_renewed_on_change_and_once_a_second_at_most() {
    let (socket, mut manager, _dir) = managed("9000000");
    manager.ready(at(0), "ready: 1 child");
    received(&socket);
    assert!(!manager.note_change(at(300)));
    assert_eq!(manager.next_due(at(300)), Some(at(700)));
    assert!(manager.status_is_due(at(1000)));
    manager.say_status(at(1000), "ready: 2 children".to_owned());
    assert!(!manager.status_is_due(at(5000)), "nothing has changed");
    manager.note_change(at(5000));
    manager.say_status(at(5000), "ready: 2 children".to_owned());
    assert_eq!(received(&socket), ["STATUS=ready: 2 children"]);
}

#[test] // O-SD-12
fn end_is_said_once_and_extended_in_steps() {
    let (socket, mut manager, _dir) = managed("9000000");
    manager.extend(at(0), at(10_000));
    manager.stopping("stopping");
    manager.stopping("stopping");
    manager.extend(at(0), at(10_000));
    manager.extend(at(500), at(9_500));
    manager.extend(at(1000), at(2_000));
    manager.extend(at(3000), at(0));
    let said = received(&socket);
    assert_eq!(said, ["STOPPING=1\nSTATUS=stopping", "EXTEND_TIMEOUT_USEC=5000000", "EXTEND_TIMEOUT_USEC=3000000"]);
}

#[test] // O-SD-03
fn what_the_manager_must_know_is_sent_when_it_can_be() {
    let (socket, mut manager, dir) = managed("9000000");
    drop(socket);
    std::fs::remove_file(dir.path().join("notify")).unwrap();
    manager.ready(at(0), "ready");
    assert_eq!(manager.next_due(at(0)), Some(RETRY));
    manager.retry();
    let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    manager.retry();
    assert_eq!(received(&socket), ["READY=1\nSTATUS=ready"]);
    assert_ne!(manager.next_due(at(0)), Some(RETRY));
}

#[cfg(target_os = "linux")]
#[test] // O-SD-03
fn abstract_name_is_an_address() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;
    let name = format!("lenore-notify-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let mut manager = read(&[(NOTIFY_SOCKET, &format!("@{name}"))]).unwrap().unwrap();
    manager.ready(at(0), "ready");
    assert_eq!(received(&socket), ["READY=1\nSTATUS=ready"]);
}

#[test] // O-SD-06
fn change_is_told_with_its_time_and_its_verdict() {
    let (socket, mut manager, _dir) = managed("9000000");
    manager.begin_change(at(0), at(7), "reloading", "reloading");
    assert!(!manager.is_changing(), "not before READY");
    manager.end_change(at(0), "", "ready".to_owned());
    manager.ready(at(0), "ready");
    assert_eq!(received(&socket), ["READY=1\nSTATUS=ready", "WATCHDOG=1"]);
    manager.begin_change(at(5), at(7), "reloading", "reloading: 1 child");
    assert_eq!(manager.doing(), ("reloading", ""));
    for _ in 0..2 {
        manager.end_change(at(6), "reload rejected: line 1\nis bad", "ready: 1 child".to_owned());
    }
    assert_eq!(manager.doing(), ("ready", "reload rejected: line 1 is bad"));
    let said = received(&socket);
    assert_eq!(
        said,
        [
            "RELOADING=1\nMONOTONIC_USEC=7000\nSTATUS=reloading: 1 child",
            "READY=1\nSTATUS=ready: 1 child; reload rejected: line 1 is bad"
        ]
    );
    manager.begin_change(at(8), at(9), "reloading", "reloading");
    manager.stopping("stopping");
    manager.end_change(at(9), "", "ready".to_owned());
    manager.begin_change(at(9), at(9), "reloading", "reloading");
    let said = received(&socket);
    assert_eq!(said, ["RELOADING=1\nMONOTONIC_USEC=9000\nSTATUS=reloading", "STOPPING=1\nSTATUS=stopping"]);
}

#[test] // O-SD-03, O-SD-06: in order, and no more than what counts still
fn changes_that_could_not_be_told_are_told_in_order() {
    let (socket, mut manager, dir) = managed("9000000");
    let path = dir.path().join("notify");
    drop(socket);
    std::fs::remove_file(&path).unwrap();
    manager.ready(at(0), "ready");
    for number in 1..=3 {
        manager.begin_change(at(0), at(number), "reloading", "reloading");
        manager.end_change(at(0), &number.to_string(), "ready".to_owned());
    }
    let socket = UnixDatagram::bind(&path).unwrap();
    // What is less urgent does not overtake them.
    manager.ping(at(1));
    assert_eq!(
        received(&socket),
        [
            "READY=1\nSTATUS=ready",
            "RELOADING=1\nMONOTONIC_USEC=3000\nSTATUS=reloading",
            "READY=1\nSTATUS=ready; 3",
            "WATCHDOG=1"
        ]
    );
    assert_ne!(manager.next_due(at(0)), Some(RETRY));
}

#[test] // O-SD-07
fn muted_manager_hears_nothing_until_this_process_serves() {
    let (socket, mut manager, _dir) = managed("300000");
    manager.mute();
    manager.ready(at(0), "ready");
    manager.note_change(at(0));
    assert!(!manager.ping_is_due(at(500)) && !manager.status_is_due(at(5000)));
    manager.begin_change(at(0), at(0), "reloading", "reloading");
    manager.failed("a cause", None);
    manager.ping(at(1));
    assert_eq!(manager.next_due(at(1)), None);
    assert!(received(&socket).is_empty());
    manager.unmute(at(2), "ready");
    assert_eq!(received(&socket), ["READY=1\nSTATUS=ready", "WATCHDOG=1"]);
    assert!(manager.ping_is_due(at(102)));
    // One that has been heard, is not for a while, and is again.
    manager.mute();
    manager.say_status(at(3000), "resting".to_owned());
    assert!(!manager.ping_is_due(at(3500)) && !manager.status_is_due(at(3500)));
    assert_eq!(manager.next_due(at(3500)), None);
    manager.unmute(at(4000), "ready");
    assert_eq!(received(&socket), ["READY=1\nSTATUS=ready", "WATCHDOG=1"]);
    manager.mute();
    manager.stopping("stopping");
    manager.extend(at(5000), at(1000));
    assert!(received(&socket).is_empty());
    manager.unmute(at(6000), "stopping");
    assert_eq!(received(&socket), ["STOPPING=1\nSTATUS=stopping"]);
}

/// Takes one message, with the descriptors that come with it.
fn received_with_descriptors(socket: &UnixDatagram) -> (String, Vec<OwnedFd>) {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    use std::os::fd::AsRawFd;
    let mut message = [0; 256];
    let mut parts = [io::IoSliceMut::new(&mut message)];
    let mut control = nix::cmsg_space!([std::os::fd::RawFd; 4]);
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty()).unwrap();
    let numbers = received.cmsgs().unwrap().flat_map(|control| match control {
        ControlMessageOwned::ScmRights(fds) => fds,
        other => panic!("{other:?}"),
    });
    let fds = numbers.map(|number| adopt(number).unwrap()).collect();
    let length = received.bytes;
    (String::from_utf8(message[..length].to_vec()).unwrap(), fds)
}

#[test] // O-SD-07
fn main_process_is_named_with_a_barrier_behind_it() {
    use std::io::Read;
    let (socket, mut manager, _dir) = managed("9000000");
    let end = manager.name_main_process(4712).unwrap().unwrap();
    nix::fcntl::fcntl(&end, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
    let mut end = std::fs::File::from(end);
    let mut has_ended = || end.read(&mut [0; 1]).is_ok_and(|length| length == 0);
    let (text, fds) = received_with_descriptors(&socket);
    assert_eq!((text.as_str(), fds.len()), ("MAINPID=4712", 0));
    let (text, fds) = received_with_descriptors(&socket);
    assert_eq!((text.as_str(), fds.len()), ("BARRIER=1", 1));
    assert!(!has_ended());
    drop(fds);
    assert!(has_ended());
}

#[test] // O-SD-07: not told in time is not told
fn main_process_that_could_not_be_named_is_forgotten() {
    let (socket, mut manager, dir) = managed("9000000");
    let path = dir.path().join("notify");
    drop(socket);
    std::fs::remove_file(&path).unwrap();
    let _end = manager.name_main_process(4712).unwrap();
    assert_eq!(manager.next_due(at(0)), Some(RETRY));
    manager.forget_main_process();
    let socket = UnixDatagram::bind(&path).unwrap();
    manager.retry();
    assert!(received(&socket).is_empty());
    assert!(read(&[(NOTIFY_SOCKET, "vsock:2:1")]).unwrap().unwrap().name_main_process(1).unwrap().is_none());
}

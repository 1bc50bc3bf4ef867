//! Who may ask what.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::thread;

use nix::libc;

use util::control::{Control, Steered, audit};

/// Only root can be others.
fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Connects as another user, with these groups. What the system notes of a client is who it was then.
fn connect_as(path: &Path, uid: u32, gid: u32, groups: &[u32]) -> std::io::Result<Control> {
    thread::scope(|scope| {
        let connect = || {
            // By themselves these calls are about one thread; it is the C library that makes them about all.
            // SAFETY: they take numbers, and a list with its length that lives as long as the call.
            let done = unsafe {
                libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) == 0
                    && libc::syscall(libc::SYS_setresgid, gid, gid, gid) == 0
                    && libc::syscall(libc::SYS_setresuid, uid, uid, uid) == 0
            };
            assert!(done, "{}", std::io::Error::last_os_error());
            Control::try_connect(path)
        };
        scope.spawn(connect).join().expect("it connects or not")
    })
}

/// A program whose directory others may enter.
fn start(args: &str) -> Steered {
    let steered = Steered::pool(1, args);
    fs::set_permissions(steered.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    steered
}

/// One command for each level, of which the last names no child and so does nothing.
const COMMANDS: [&str; 3] = ["status", "retire 99:1", "kill 99:1"];

/// How many of the levels a client has.
fn level(control: impl Fn() -> Control) -> usize {
    let is_allowed = |command: &&&str| {
        let answer = control().ask(command);
        answer.last.starts_with("OK") || answer.code() != "denied"
    };
    COMMANDS.iter().take_while(is_allowed).count()
}

#[test] // O-CT-06
fn user_of_the_daemon_is_admin() {
    let steered = Steered::pool(1, "");
    assert_eq!(level(|| steered.control()), 3);
}

#[test] // O-CT-06
fn others_have_nothing_unless_allowed() {
    if !is_root() {
        return;
    }
    let steered = start("");
    assert_eq!(fs::symlink_metadata(&steered.path).unwrap().mode() & 0o777, 0o600);
    let error = connect_as(&steered.path, 12_345, 12_345, &[]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
}

#[test] // O-CT-06
fn users_and_groups_have_the_rights_that_they_are_allowed() {
    if !is_root() {
        return;
    }
    let steered = start("--allow user:12345:read,group:23456:operate,user:12346:admin");
    assert_eq!(fs::symlink_metadata(&steered.path).unwrap().mode() & 0o777, 0o666);
    let level_of = |uid, gid, groups: &[u32]| level(|| connect_as(&steered.path, uid, gid, groups).unwrap());
    assert_eq!(level_of(0, 0, &[]), 3);
    assert_eq!(level_of(12_345, 1, &[]), 1);
    assert_eq!(level_of(1, 23_456, &[]), 2);
    assert_eq!(level_of(1, 1, &[7, 23_456]), 2);
    assert_eq!(level_of(12_346, 1, &[]), 3);
    assert_eq!(level_of(1, 12_345, &[12_346]), 0);
    // Probes need to look, and no more.
    for probe in ["live", "ready"] {
        connect_as(&steered.path, 12_345, 1, &[]).unwrap().ask(probe).ok();
        assert_eq!(connect_as(&steered.path, 1, 1, &[]).unwrap().ask(probe).code(), "denied");
    }
    // Who has no rights has one answer, in the dialect of the question, and no slot.
    let mut denied = connect_as(&steered.path, 1, 1, &[]).unwrap();
    assert_eq!(denied.ask_json(r#"{"command":"status"}"#)["code"], "denied");
    assert_eq!(denied.read_line(), None);
    let silent: Vec<Control> = (0..40).filter_map(|_| connect_as(&steered.path, 1, 1, &[]).ok()).collect();
    steered.control().ask("status").ok();
    drop(silent);
}

#[test] // O-CT-06, O-CT-07: who, what and the verdict, also of a command that would change nothing
fn denied_command_leaves_an_audit_line() {
    if !is_root() {
        return;
    }
    let steered = start("--allow user:12345:read,user:12346:operate");
    let comm = fs::read_to_string("/proc/self/comm").unwrap();
    let cases = [(12_345, "retire 0"), (12_345, "reload"), (12_346, "kill 0"), (12_346, "stop"), (12_347, "status")];
    for (uid, command) in cases {
        let mut client = connect_as(&steered.path, uid, 1, &[]).unwrap();
        assert_eq!(client.ask(command).code(), "denied", "{command}");
        let lines = audit(&steered.running, command);
        let who = format!(" uid={uid} pid={} comm={:?} verdict=denied took=0.", std::process::id(), comm.trim_end());
        assert!(lines.len() == 1 && lines[0].contains(&who), "{who}: {lines:?}");
    }
    assert_eq!(steered.control().status().pool.states.idle, 1, "nothing was done");
}

#[test] // O-CT-06: a user whose commands are denied again and again fills no disk, and hides no other user
fn flood_of_denied_commands_leaves_64_lines() {
    if !is_root() {
        return;
    }
    let steered = start("--allow user:12345:read,user:12346:read");
    let mut flood = connect_as(&steered.path, 12_345, 1, &[]).unwrap();
    for _ in 0..200 {
        assert_eq!(flood.ask("retire 0").code(), "denied");
    }
    let mut other = connect_as(&steered.path, 12_346, 1, &[]).unwrap();
    assert_eq!(other.ask("reload").code(), "denied");
    assert!(audit(&steered.running, "reload")[0].contains(" uid=12346 "));
    let lines = audit(&steered.running, "retire 0");
    // One more each 5 s.
    assert!((64..75).contains(&lines.len()), "{}: {:?}", lines.len(), lines.last());
    assert!(lines[..64].iter().all(|line| !line.contains("untold")));
}

#[test] // O-CT-06
fn socket_is_the_groups_if_one_group_is_allowed() {
    if !is_root() {
        return;
    }
    let steered = start("--allow group:23456:read");
    let found = fs::symlink_metadata(&steered.path).unwrap();
    assert_eq!((found.mode() & 0o777, found.gid()), (0o660, 23_456));
    assert_eq!(level(|| connect_as(&steered.path, 1, 23_456, &[]).unwrap()), 1);
    assert!(connect_as(&steered.path, 1, 1, &[]).is_err());
}

#[test] // O-CT-01, O-CT-06: made before privileges are dropped, and the user's own
fn socket_is_the_users_that_the_daemon_becomes() {
    if !is_root() {
        return;
    }
    let steered = start("--user 12345 --group 12345");
    let found = fs::symlink_metadata(&steered.path).unwrap();
    assert_eq!((found.mode() & 0o777, found.uid(), found.gid()), (0o600, 12_345, 12_345));
    assert_eq!(level(|| connect_as(&steered.path, 12_345, 1, &[]).unwrap()), 3);
    assert_eq!(level(|| steered.control()), 3);
}

#[test] // O-CT-06, O-CT-09: who may only look keeps no admin out
fn admin_takes_the_place_of_a_client_with_fewer_rights() {
    if !is_root() {
        return;
    }
    let steered = start("--allow user:12345:read");
    let connect = || connect_as(&steered.path, 12_345, 12_345, &[]).unwrap();
    let mut watchers: Vec<Control> = (0..32).map(|_| connect()).collect();
    for watcher in &mut watchers {
        watcher.ask("hello").ok();
        watcher.send("watch\n");
    }
    assert_eq!(connect().read_answer().code(), "busy");
    steered.control().ask("kill 0").ok();
}

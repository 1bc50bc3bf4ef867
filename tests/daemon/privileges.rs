//! D-DE-07: giving up root, and T17: in which order, and proved.

use std::fs;

use nix::unistd::{Group, User};

use crate::site::{Site, is_root, signal, stat_fields, status_field, terminate};
use nix::sys::signal::Signal;
use util::{DEADLINE, Program, proc, test_program, wait_until};

struct Nobody {
    uid: String,
    gid: String,
}

fn nobody() -> Nobody {
    let user = User::from_name("nobody").expect("a user database").expect("nobody");
    Nobody { uid: user.uid.to_string(), gid: user.gid.to_string() }
}

/// Real, effective, saved, and for files.
fn four(id: &str) -> String {
    [id; 4].join(" ")
}

#[track_caller]
fn assert_is(pid: i32, uid: &str, gid: &str, groups: &str) {
    assert_eq!(status_field(pid, "Uid"), four(uid));
    assert_eq!(status_field(pid, "Gid"), four(gid));
    assert_eq!(status_field(pid, "Groups"), groups);
    for set in ["CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status_field(pid, set), "0000000000000000", "{set}");
    }
}

#[test] // D-DE-07, T17: in every process, with what root has opened
fn a_daemon_and_its_children_are_who_they_should_be() {
    if !is_root() {
        return;
    }
    let Nobody { uid, gid } = nobody();
    for mode in ["", "--start 2", "--detach --start 2", "--detach --in-state --max 2"] {
        let site = Site::new();
        let running = site.start(&format!("{mode} --user nobody --logfile @log --pid-file @pid"));
        let last = if mode.contains("--start") { "daemon_parent" } else { "daemon_start" };
        let pid = site.wait_for(last);
        assert_eq!(site.read("pid"), format!("{pid}\n"), "written by root");
        let all: Vec<i32> =
            running.descendants_alive().into_iter().chain([pid]).filter(|p| proc::is_alive(*p)).collect();
        for &process in all.iter().filter(|process| **process == pid || proc::ppid(**process) == Some(pid)) {
            // The user database has no more groups for nobody than its own.
            assert_is(process, &uid, &gid, &gid);
        }
        signal(pid, Signal::SIGUSR1);
        site.wait_in("log", "on standard output");
        signal(pid, Signal::SIGTERM);
        wait_until("the end", DEADLINE, || (!proc::is_alive(pid)).then_some(()));
    }
}

#[test] // D-DE-07: the groups are exactly those, by name or number
fn groups_are_exactly_those_asked_for() {
    if !is_root() {
        return;
    }
    let Nobody { uid, gid } = nobody();
    let daemon = Group::from_name("daemon").expect("a group database").expect("daemon").gid.to_string();
    let cases = [
        ("--user nobody --groups ,", uid.as_str(), gid.as_str(), ""),
        ("--user nobody --groups daemon,4711", &uid, &gid, &*format!("{daemon} 4711")),
        ("--user nobody --group daemon --groups 4711", &uid, &daemon, "4711"),
        ("--user 4712 --group 4713", "4712", "4713", ""),
        (&*format!("--user {uid}"), &uid, &gid, &gid),
    ];
    for (args, uid, gid, groups) in cases {
        let site = Site::new();
        let (_running, pid) = site.launch(args);
        assert_is(pid, uid, gid, groups);
        terminate(pid);
        // D-DE-07: and the same without a Daemon.
        let site = Site::new();
        let running = site.start(&format!("--only-privileges {args}"));
        let pid = site.wait_for("privileges cwd=");
        assert_is(pid, uid, gid, groups);
        drop(running);
    }
}

#[test] // D-DE-07, T17: the names are looked up outside, and the working directory is inside
fn a_jail_is_entered_before_root_is_given_up() {
    if !is_root() {
        return;
    }
    let Nobody { uid, gid } = nobody();
    for (args, directory) in [("", ""), ("--cwd /inner", "/inner"), ("--cwd inner", "/inner")] {
        let site = Site::new();
        fs::create_dir_all(site.path("jail/inner")).expect("our own directory");
        let (running, pid) = site.launch(&format!("--user nobody --chroot jail --start 1 --logfile log {args}"));
        for process in running.descendants_alive() {
            assert_is(process, &uid, &gid, &gid);
            let link = |name: &str| fs::read_link(format!("/proc/{process}/{name}")).expect("root may");
            assert_eq!(link("root"), site.path("jail"));
            let inside = site.path(&format!("jail{directory}"));
            assert_eq!(link("cwd"), inside);
        }
        terminate(pid);

        let site = Site::new();
        fs::create_dir_all(site.path("jail")).expect("our own directory");
        let running = site.start("--only-privileges --user nobody --chroot @jail");
        let pid = site.wait_for("privileges cwd=/");
        assert_is(pid, &uid, &gid, &gid);
        assert_eq!(fs::read_link(format!("/proc/{pid}/root")).expect("root may"), site.path("jail"));
        drop(running);
    }
}

#[test] // D-SP-01, D-SP-02: found out before anything is opened
fn what_can_not_be_meant_is_refused_before_anything_happens() {
    let cases = [
        ("--user no-such-user", "there is no user no-such-user"),
        ("--group no-such-group", "there is no group no-such-group"),
        ("--user nobody --groups daemon,no-such-group", "there is no group no-such-group"),
        ("--user 4711", "user 4711 has no group of its own, and none is set"),
        ("--user 4294967295", "there is no user 4294967295"),
        ("--umask 1000", "umask (0o1000) is more than 0o777"),
        ("--logfile-mode 7777", "logfile_mode (0o7777) is more than 0o777"),
        ("--nice 20", "nice (20) is not between -20 and 19"),
        ("--nice -21", "nice (-21) is not between -20 and 19"),
    ];
    for (args, reason) in cases {
        for detach in ["", "--detach"] {
            let site = Site::new();
            let mut running = site.start(&format!("{detach} --logfile @log --pid-file @pid {args}"));
            assert_eq!(running.wait_exit(DEADLINE).code(), Some(1), "{args}");
            assert_eq!(site.wait_for("failed"), running.pid());
            let failed = site.said("failed");
            assert!(failed.ends_with(&format!("settings of the Daemon: {reason}")), "{failed}");
            assert!(!site.exists("log") && !site.exists("pid"), "{args}");
        }
    }
}

#[test] // D-DE-07, D-SP-01, T17: a step that fails aborts the start, and names itself and whom it was for
fn each_step_that_fails_aborts_the_start() {
    let mut cases = vec![
        ("--cwd @missing", "changing the working directory: chdir ", "No such file or directory"),
        ("--chroot @missing", "dropping privileges: chdir ", "No such file or directory"),
    ];
    if is_root() {
        cases.extend([
            // Without root.
            ("--become nobody --user daemon", "dropping privileges: setgroups daemon: ", "not permitted"),
            (
                "--become nobody --user nobody --group daemon",
                "dropping privileges: setgroups nobody: ",
                "not permitted",
            ),
            ("--become nobody --user nobody --groups 4711", "dropping privileges: setgroups nobody: ", "not permitted"),
            ("--become nobody --user root", "dropping privileges: setgroups root: ", "not permitted"),
            ("--become nobody --group root --groups nogroup", "dropping privileges: setgroups root: ", "not permitted"),
            ("--become nobody --user 4712 --group nogroup --groups nogroup", "setresuid 4712: ", "not permitted"),
            ("--become nobody --chroot @.", "dropping privileges: chroot ", "not permitted"),
            ("--become nobody --nice -5", "setting the niceness: setpriority -5: ", "ermission denied"),
        ]);
    }
    for (args, step, reason) in cases {
        let site = Site::new();
        let mut running = site.start(&format!("{args} --umask 027 --nice 19 --logfile @log --pid-file @pid"));
        assert_eq!(running.wait_exit(DEADLINE).code(), Some(1), "{args}");
        let failed = site.said("failed");
        assert!(failed.contains(step) && failed.contains(reason), "{args}: {failed}");
        let place = format!("cwd={} umask=022 ", site.path("").display()).replace("/ umask", " umask");
        assert!(failed.starts_with(&place), "everything is where it was: {failed}");
        while running.next_line(DEADLINE) != "still here" {}
        running.wait_for_stderr("and here", DEADLINE);
        assert!(!site.exists("pid"), "{args}");

        let site = Site::new();
        let mut running = site.start(&format!("--detach --logfile @log --pid-file @pid {args}"));
        assert_eq!(running.wait_exit(DEADLINE).code(), Some(1), "{args}");
        let line = running.wait_for_stderr("Daemon has not started: ", DEADLINE);
        assert!(line.contains(step) && line.contains(reason), "{args}: {line}");
        site.wait_in("log", step);
        wait_until("the end of all", DEADLINE, || running.descendants_alive().is_empty().then_some(()));
        assert!(!site.exists("pid"), "{args}");
    }
}

#[test] // D-SP-02: umask, niceness and working directory
fn surroundings_are_what_is_set() {
    let niceness = |pid: i32| stat_fields(pid)[16].clone();
    let own = niceness(std::process::id() as i32);
    let cases = [
        ("--detach", "cwd=/ umask=022", own.as_str()),
        ("--detach --umask 027 --cwd @dir --nice 7", "cwd=@dir umask=027", "7"),
        ("--detach --cwd dir", "cwd=@dir umask=022", &own),
        ("--umask 000 --nice 19", "cwd=@ umask=000", "19"),
        ("", "cwd=@ umask=022", &own),
    ];
    for (args, expected, nice) in cases {
        let site = Site::new();
        fs::create_dir(site.path("dir")).expect("our own directory");
        let running = site.start(&format!("{args} --start 1"));
        let pid = site.wait_for("daemon_parent");
        let here = site.path("").display().to_string();
        let expected = expected.replace("@dir", &format!("{here}dir")).replace('@', here.trim_end_matches('/'));
        assert_eq!(site.said("spawned"), expected, "{args}");
        assert_eq!(niceness(pid), nice, "{args}");
        signal(pid, Signal::SIGTERM);
        wait_until("the end", DEADLINE, || (site.count("run returned") == 1).then_some(()));
        drop(running);
    }
}

#[test] // D-DE-10: by whoever started the program, as Kubernetes does with runAsUser; nothing needs root then
fn user_that_the_process_is_already_is_no_error() {
    if !is_root() {
        return;
    }
    let Nobody { uid, gid } = nobody();
    let mine = |groups: &str| format!("--already {uid}:{gid}:{groups}");
    let cases = [
        (mine(""), "--user nobody"),
        (mine(&gid), "--user nobody"),
        (mine(""), &*format!("--user {uid}")),
        (mine(""), &*format!("--user {uid} --group {gid}")),
        (mine(""), "--group nogroup"),
        (mine(&gid), "--group nogroup"),
        (mine(&gid), "--user nobody --groups ,"),
        (mine("4711"), "--user nobody --groups 4711"),
        (mine(&format!("{gid},4711")), "--user nobody --groups 4711"),
        (format!("--already {uid}:4711:4712"), "--user nobody --group 4711 --groups 4712,4711"),
    ];
    for (already, args) in cases {
        let gid = status_gid(&already);
        let site = Site::new();
        let (running, pid) = site.launch(&format!("{already} {args} --start 1"));
        let now = [status_field(pid, "Uid"), status_field(pid, "Gid")];
        assert_eq!(now, [four(&uid), four(&gid)], "{already} {args}: {}", running.stderr_text());
        terminate(pid);
        // And the same without a Daemon.
        let site = Site::new();
        let running = site.start(&format!("--only-privileges {already} {args}"));
        site.wait_for("privileges cwd=");
        drop(running);
    }
}

/// The group in `--already UID:GID:GROUPS`.
fn status_gid(already: &str) -> String {
    already.split(':').nth(1).expect("three numbers").to_owned()
}

#[test] // D-DE-10: a group too many can't be given up, nor can another user be had
fn user_that_the_process_is_but_for_something_is_still_refused() {
    if !is_root() {
        return;
    }
    let Nobody { uid, gid } = nobody();
    let cases = [
        (format!("{uid}:{gid}:0"), "--user nobody", "setgroups nobody: "),
        (format!("{uid}:{gid}:"), "--user nobody --groups 4711", "setgroups nobody: "),
        (format!("{uid}:4711:"), "--user nobody --groups ,", "setgroups nobody: "),
        (format!("{uid}:4711:"), "--group nogroup", "setgroups nogroup: "),
        (format!("4711:{gid}:"), "--user nobody --groups ,", "setresuid nobody: "),
    ];
    for (already, args, step) in cases {
        let site = Site::new();
        let mut running = site.start(&format!("--already {already} {args}"));
        assert_eq!(running.wait_exit(DEADLINE).code(), Some(1), "{already} {args}");
        let failed = site.said("failed");
        assert!(failed.contains(step) && failed.contains("not permitted"), "{already} {args}: {failed}");
    }
}

#[test] // D-DE-11: the record says so, and there it is
fn core_of_a_child_is_written_after_a_change_of_user_if_it_is_asked_for() {
    if !is_root() {
        return;
    }
    let allowed = std::process::Command::new("sh").args(["-c", "ulimit -c unlimited"]).status().expect("a shell");
    if !allowed.success() {
        eprintln!("skipped: whoever runs the tests allows no cores");
        return;
    }
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    for (args, expected) in [("--user nobody --dumpable", true), ("--user nobody", false), ("", true)] {
        let site = Site::new();
        let program = test_program("daemon_process").display().to_string();
        let shell = ["-c", r#"ulimit -c unlimited; exec "$@""#, "sh", &program];
        let args = site.words(&format!("--report @report --start 1 {args}"));
        let mut running = Program::new("sh").args(shell).args(args).current_dir(site.path("")).start();
        let child = site.wait_for("daemon_child");
        signal(child, Signal::SIGABRT);
        let record = running.wait_for_stderr(&format!("child has ended: pid={child} "), DEADLINE);
        assert!(record.contains("cause=signal:SIGABRT"), "{record}");
        assert_eq!(record.ends_with(" core=dumped"), expected, "{record}");
        if !pattern.starts_with(['|', '/']) {
            let names = fs::read_dir(site.path("")).expect("our own directory");
            let cores = names
                .filter(|name| name.as_ref().is_ok_and(|name| name.file_name().to_string_lossy().starts_with("core")));
            assert_eq!(cores.count(), usize::from(expected), "{record}");
        }
        running.signal(Signal::SIGTERM);
        assert!(running.wait_exit(DEADLINE).success());
    }
}

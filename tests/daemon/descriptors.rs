//! D-DE-09: what a daemon that detaches keeps of its launcher's descriptors.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::process::Command;

use nix::libc;

use crate::site::{Site, terminate};
use util::{DEADLINE, Program, Running, proc, test_program, wait_until};

/// Starts a daemon from a shell that runs `script` before, which opens descriptors, and waits until its launcher has ended well.
#[track_caller]
fn launch(site: &Site, script: &str, args: &str) -> (Running, i32) {
    let script = format!("{script}; exec \"$@\"");
    let program = test_program("daemon_process").display().to_string();
    let shell =
        Program::new("bash").args(["-c", &script, "bash", &program]).args(site.words("--report @report --detach"));
    let mut running = shell.args(site.words(args)).current_dir(site.path("")).start();
    let status = running.wait_exit(DEADLINE);
    assert_eq!(status.code(), Some(0), "{status}: {}", running.stderr_text());
    (running, site.wait_for("spawned"))
}

fn link(pid: i32, fd: i32) -> String {
    proc::fds(pid).get(&fd).cloned().unwrap_or_default()
}

#[test] // D-DE-09: as `flock FILE PROGRAM` starts it
fn lock_of_the_launcher_is_free_when_it_has_exited() {
    for mode in ["", "--max 2", "--start 2"] {
        let site = Site::new();
        let (_running, pid) = launch(&site, "exec 9>lock; flock -n 9 || exit 9", mode);
        let taken = Command::new("flock").arg("-n").arg(site.path("lock")).arg("true").status().expect("util-linux");
        assert!(taken.success(), "{mode}: {:?}", proc::fds(pid));
        assert_eq!(link(pid, 9), "/dev/null");
        terminate(pid);
    }
}

#[test] // D-DE-09: as `PROGRAM | cat` ends when the launcher does
fn reader_of_an_inherited_pipe_gets_its_end() {
    let site = Site::new();
    let (running, pid) = launch(&site, "exec 5>&1 6>&2", "--start 1 --logfile @log");
    running.stderr_to_end(DEADLINE);
    assert!(proc::is_alive(pid));
    terminate(pid);
}

#[test] // D-DE-09
fn peer_of_an_inherited_socket_sees_it_closed() {
    let site = Site::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let (_running, pid) = launch(&site, &format!("exec 7<>/dev/tcp/127.0.0.1/{port}"), "--start 1");
    let (mut peer, _) = listener.accept().expect("the shell has connected");
    peer.set_read_timeout(Some(DEADLINE)).expect("not zero");
    assert_eq!(peer.read(&mut [0]).expect("an end within the time"), 0);
    assert!(proc::is_alive(pid));
    terminate(pid);
}

#[test] // D-DE-09: nothing but what is the program's own is left, and no program that it starts inherits anything
fn daemon_has_no_descriptor_that_a_program_would_inherit() {
    for mode in ["", "--max 2", "--start 2 --pid-file @pid"] {
        let site = Site::new();
        let (_running, pid) = launch(&site, "exec 4<. 5>file 20<>file 200>&2", mode);
        for fd in [4, 5, 20, 200] {
            assert_eq!(link(pid, fd), "/dev/null");
        }
        for fd in proc::fds(pid).into_keys().filter(|fd| *fd > 2) {
            assert_ne!(is_close_on_exec(pid, fd), Some(false), "{fd}: {}", link(pid, fd));
        }
        terminate(pid);
    }
}

/// `None` for a descriptor that is closed by now, as that of the connection to the launcher.
fn is_close_on_exec(pid: i32, fd: i32) -> Option<bool> {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    Some(i32::from_str_radix(flags.trim(), 8).expect("in octal") & libc::O_CLOEXEC != 0)
}

#[test] // D-DE-09: those that systemd has passed to this process, and to no other; what it keeps is in tests/change/listeners.rs
fn descriptors_of_listen_fds_are_let_go_if_they_are_for_another_process() {
    let open = "exec 3<file 4<file 5<file";
    for variables in ["export LISTEN_FDS=2 LISTEN_PID=1", "export LISTEN_FDS=2", "export LISTEN_PID=$$"] {
        let site = Site::new();
        fs::write(site.path("file"), "").expect("our own directory");
        let (_running, pid) = launch(&site, &format!("{open}; {variables}"), "--start 1");
        let file = site.path("file").display().to_string();
        for fd in [3, 4, 5] {
            assert_eq!(link(pid, fd), "/dev/null", "{variables}: {fd}, {file}");
        }
        terminate(pid);
    }
}

#[test] // D-DE-09: what the program asks to keep
fn descriptors_that_the_program_names_are_kept() {
    let site = Site::new();
    let (_running, pid) = launch(&site, "exec 5>file 6>file 7>file", "--keep 5,7");
    let file = site.path("file").display().to_string();
    assert_eq!([5, 6, 7].map(|fd| link(pid, fd)), [&*file, "/dev/null", &*file]);
    terminate(pid);
}

#[test] // D-DE-09, D-SP-01: a mistake that is found before anything is done
fn descriptor_that_is_not_open_can_not_be_kept() {
    for detach in ["", "--detach"] {
        let site = Site::new();
        let mut running = site.start(&format!("{detach} --keep 1,250 --logfile @log --pid-file @pid"));
        assert_eq!(running.wait_exit(DEADLINE).code(), Some(1));
        assert_eq!(site.wait_for("failed"), running.pid());
        let failed = site.said("failed");
        assert!(failed.ends_with("settings of the Daemon: keep_descriptors: descriptor 250 is not open"), "{failed}");
        assert!(!site.exists("log") && !site.exists("pid"));
    }
}

#[test] // D-DE-09: what a session watches is the program's own by now
fn inherited_descriptor_that_a_session_watches_is_kept() {
    let site = Site::new();
    nix::unistd::mkfifo(&site.path("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO can be made");
    let (_running, pid) = launch(&site, "exec 8<>fifo 9<>fifo", "--in-state --watch-fd 8");
    assert_eq!(link(pid, 8), site.path("fifo").display().to_string());
    assert_eq!(link(pid, 9), "/dev/null");
    fs::write(site.path("fifo"), "x").expect("it has a reader");
    assert_eq!(site.wait_for("inherited 1"), pid);
    terminate(pid);
}

#[test] // D-DE-09: a program that does not detach is nobody's launcher
fn descriptors_stay_where_the_program_does_not_detach() {
    let site = Site::new();
    let program = test_program("daemon_process").display().to_string();
    let shell = Program::new("bash").args(["-c", "exec 9>lock; exec \"$@\"", "bash", &program]);
    let running = shell.args(site.words("--report @report --start 1")).current_dir(site.path("")).start();
    site.wait_for("daemon_parent");
    assert_eq!(link(running.pid(), 9), site.path("lock").display().to_string());
    drop(running);
    wait_until("the end of all", DEADLINE, || site.report().iter().all(|(pid, _)| !proc::is_alive(*pid)).then_some(()));
}
